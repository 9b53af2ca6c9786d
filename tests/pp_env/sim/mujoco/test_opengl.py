"""Pictures in other threads and processes, and of copied environments."""

import copy
import functools
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np
import pytest

import pp_env
from pp_env import PickPlaceConfig
from pp_env.config import RenderConfig
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS
from tests.presets import skip_unless_rendered

RENDER = RenderConfig(resolution=48, preset="default")
CONFIGS = {
    "plain": PickPlaceConfig(render=RENDER),
    "objects": PickPlaceConfig(render=RENDER, objects=YCB_OBJECTS, num_objects=3),
    "randomized": PickPlaceConfig(
        render=RENDER, randomization=RANDOMIZATION_PRESETS[list(RANDOMIZATION_PRESETS)[-1]]
    ),
    "filament": PickPlaceConfig(render=RenderConfig(resolution=48, preset="filament")),
}
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}
TIMEOUT_S = 120  # against a child that hangs
needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork"
)


both_renderers = pytest.mark.parametrize("config", ["plain", "filament"])


def make_env(config="plain", obs_type="pixels_agent_pos", **arguments):
    skip_unless_rendered(CONFIGS[config].render.preset)
    return gym.make(pp_env.ENV_ID, config=CONFIGS[config], obs_type=obs_type, **arguments)


def play(env, steps=3):
    """Return what steps and then the next episode's start show."""
    action = env.unwrapped.action_space.high
    return [*(env.step(action)[:4] for _ in range(steps)), env.reset()[0], env.step(action)[:4]]


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("config", CONFIGS)
def test_a_copy_goes_on_like_the_original(config, duplicate):
    env = make_env(config, image_types=("rgb", "depth", "segmentation"))
    env.reset(seed=3)
    env.step(env.action_space.low)
    twin = duplicate(env)

    np.testing.assert_equal(play(env), play(twin))
    env.close()
    twin.step(twin.action_space.low)  # has a context of its own
    twin.close()


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@both_renderers
def test_an_environment_can_be_copied_before_its_first_picture(config, duplicate):
    twin = duplicate(make_env(config))
    np.testing.assert_equal(twin.reset(seed=1)[0], make_env(config).reset(seed=1)[0])


@both_renderers
def test_any_thread_can_draw_the_next_picture(config):
    env, other = make_env(config, render_mode="rgb_array"), make_env(config)
    env.reset(seed=0)
    other.reset(seed=0)
    action = env.action_space.high
    for _ in range(2):
        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(env.step, action).result()[0]
            picture = pool.submit(env.render).result()
        here = other.step(action)[0]
        np.testing.assert_equal(here, there)
        np.testing.assert_array_equal(picture, env.render())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(env.close).result()


@both_renderers
def test_threads_draw_at_the_same_time(config):
    env = make_env(config).unwrapped
    env.reset(seed=0)
    expected = env.render_cameras()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(env.render_cameras) for _ in range(40)]
        for future in futures:
            np.testing.assert_equal(future.result(), expected)


def test_a_context_freed_in_the_middle_of_a_picture_leaves_it_alone():
    from pp_env.sim.mujoco.opengl import Context

    outer, inner = Context((8, 8)), Context((8, 8))
    from mujoco.egl import EGL

    def current():
        return EGL.eglGetCurrentContext()

    with outer.current():
        address = current().address
        with inner.current():
            inner.free()
        Context((8, 8))
        assert current().address == address
    assert not current()


IN_CHILD = """
import os, sys
import gymnasium as gym, pp_env
from pp_env.config import PickPlaceConfig, RenderConfig

def make():
    config = PickPlaceConfig(render=RenderConfig(resolution=48, preset="{preset}"))
    return gym.make(pp_env.ENV_ID, obs_type="pixels", config=config)

env = make()
env.reset(seed=0)
{before}
failed = []
for child in {children}:
    pid = os.fork()
    if pid == 0:
        exec(child)
        sys.exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        failed.append(child)
sys.exit("\\n".join(failed) or 0)
"""
REFUSED = """
try: {draw}
except RuntimeError as error: assert 'context="spawn"' in str(error), error
else: sys.exit("no error")
"""


DRAWS_ANOTHER = REFUSED.format(draw="make().reset()")


@needs_fork
@pytest.mark.parametrize("preset", ["fast", "filament"])
@pytest.mark.parametrize(
    ("before", "children"),
    [
        (
            "",
            [
                "pass",
                "env.close()",
                "del env",
                "env.unwrapped.advance(env.action_space.low)",
                REFUSED.format(draw="env.reset()"),
                REFUSED.format(draw="import copy; copy.deepcopy(env).reset()"),
                DRAWS_ANOTHER,
            ],
        ),
        ("env.close()", [DRAWS_ANOTHER]),
        ("del env", [DRAWS_ANOTHER]),
    ],
)
def test_a_forked_process_ends_and_says_why_it_draws_nothing(before, children, preset):
    skip_unless_rendered(preset)
    program = IN_CHILD.format(before=before, children=children, preset=preset)
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=TIMEOUT_S, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@needs_fork
def test_a_fork_before_the_first_picture_can_draw():
    program = IN_CHILD.format(before="", children=["make().reset()"], preset="fast")
    program = program.replace("env.reset(seed=0)", "")
    subprocess.run([sys.executable, "-c", program], timeout=TIMEOUT_S, check=True)


@needs_fork
def test_a_forked_process_knows_of_contexts_of_others():
    program = (
        IN_CHILD.format(
            before="",
            children=[REFUSED.format(draw="env.reset()")],
            preset="fast",
        )
        .replace(
            "env.reset(seed=0)",
            "from mujoco.egl import GLContext; context = GLContext(8, 8); context.make_current()",
        )
        .replace("sys.exit(0)", "os._exit(0)")
    )
    subprocess.run([sys.executable, "-c", program], timeout=TIMEOUT_S, check=True)


@needs_fork
@pytest.mark.filterwarnings("ignore")  # Gymnasium repeats each worker's error as one
def test_environments_in_forked_processes_name_the_way_out():
    make_env().reset(seed=0)
    envs = gym.vector.AsyncVectorEnv([make_env] * 2, context="fork")
    envs.reset_async(seed=0)
    with pytest.raises(RuntimeError, match="spawn"):
        envs.reset_wait(timeout=TIMEOUT_S)
    envs.close(terminate=True)


@both_renderers
def test_environments_in_spawned_processes_draw(config):
    make = functools.partial(make_env, config)
    make().reset(seed=0)
    envs = gym.vector.AsyncVectorEnv([make] * 2, context="spawn")
    envs.reset_async(seed=0)
    observation, _ = envs.reset_wait(timeout=TIMEOUT_S)
    expected = make().reset(seed=0)[0]
    pictures = {name: images[0] for name, images in observation["pixels"].items()}
    np.testing.assert_equal(pictures, expected["pixels"])
    envs.close(terminate=True)


@pytest.mark.parametrize("preset", ["fast", "filament"])
def test_a_process_that_ends_with_open_environments_says_nothing(preset):
    skip_unless_rendered(preset)
    code = (
        "import gymnasium, pp_env\n"
        "from pp_env import PickPlaceConfig\n"
        "from pp_env.config import RenderConfig\n"
        f"config = PickPlaceConfig(render=RenderConfig(resolution=32, preset={preset!r}))\n"
        "envs = gymnasium.make_vec(pp_env.ENV_ID, 1, obs_type='pixels', config=config)\n"
        "envs.reset(seed=0)\n"
        "gymnasium.kept = envs\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=TIMEOUT_S)
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")
