"""Measures one environment in this process: ours or a baseline's, all in the same way.

Usage: python -m benchmarks.baseline NAME state|images [--seconds 2]

Runs in the Python of the one that is measured, so it imports no other. Actions are random,
the control rate is the environment's own, and resets do not count as steps. Prints JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from statistics import median
from typing import Any, NamedTuple

from benchmarks import peak_memory_mb

SIZE = 512  # pixels, of the square images
_ACTIONS = 256
_RESETS = 3


class World(NamedTuple):
    """An environment with what differs between baselines taken away.

    Attributes:
        packages: Whose versions count.
        period: Between two actions, s.
        actions: To take in turn.
        reset: Begins an episode.
        step: Takes an action, draws two images where they are wanted, returns whether the
            episode has ended.
    """

    packages: tuple[str, ...]
    period: float
    actions: Sequence[Any]
    reset: Callable[[], object]
    step: Callable[[Any], bool]


def ours(images: bool) -> World:
    """Two cameras in the observation, the preset `default`."""
    import gymnasium as gym

    import pp_env

    env = gym.make(pp_env.ENV_ID, obs_type="pixels" if images else "state")
    period = env.unwrapped.config.timing.control_period
    return _of_gymnasium(env, ("mujoco",), period)


def fetch(images: bool) -> World:
    """The image of its only view, twice."""
    import gymnasium as gym
    import gymnasium_robotics

    gym.register_envs(gymnasium_robotics)
    name = max(i for i in gym.registry if i.startswith("FetchPickAndPlace-v"))
    size = {"render_mode": "rgb_array", "width": SIZE, "height": SIZE} if images else {}
    env = gym.make(name, **size)
    packages = ("gymnasium-robotics", "mujoco")
    return _of_gymnasium(env, packages, env.unwrapped.dt, 2 if images else 0)


def panda_gym(images: bool) -> World:
    """The image of its only view, twice, by PyBullet's own renderer: OpenGL needs a window."""
    import gymnasium as gym
    import panda_gym  # noqa: F401

    size = {"render_width": SIZE, "render_height": SIZE}
    env = gym.make("PandaPickAndPlace-v3", render_mode="rgb_array", renderer="Tiny", **size)
    period = env.unwrapped.sim.dt
    return _of_gymnasium(env, ("panda-gym", "pybullet"), period, 2 if images else 0)


def gym_hil(images: bool) -> World:
    """Two cameras in the observation."""
    import gym_hil  # noqa: F401
    import gymnasium as gym
    from gym_hil.mujoco_gym_env import GymRenderingSpec

    spec = GymRenderingSpec(SIZE, SIZE)
    env = gym.make("gym_hil/PandaPickCubeBase-v0", image_obs=images, render_spec=spec)
    return _of_gymnasium(env, ("gym-hil", "mujoco"), env.unwrapped.control_dt)


def robosuite(images: bool) -> World:
    """Two cameras in the observation."""
    import numpy as np
    import robosuite

    env = robosuite.make(
        "Lift",
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=images,
        use_camera_obs=images,
        camera_names=["agentview", "robot0_eye_in_hand"],
        camera_heights=SIZE,
        camera_widths=SIZE,
    )
    low, high = env.action_spec
    actions = np.random.default_rng(0).uniform(low, high, (_ACTIONS, len(low)))

    def step(action: Any) -> bool:
        return env.step(action)[2]

    return World(("robosuite", "mujoco"), 1 / env.control_freq, actions, env.reset, step)


WORLDS: dict[str, Callable[[bool], World]] = {
    world.__name__: world for world in (ours, fetch, robosuite, panda_gym, gym_hil)
}


def _of_gymnasium(env: Any, packages: tuple[str, ...], period: float, renders: int = 0) -> World:
    """A world of an environment, each of whose steps is followed by so many `render`."""
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(_ACTIONS)]

    def step(action: Any) -> bool:
        _, _, terminated, truncated, _ = env.step(action)
        for _ in range(renders):
            env.render()
        return terminated or truncated

    return World(packages, period, actions, env.reset, step)


def measure(world: World, seconds: float) -> dict[str, float]:
    """What resets and steps cost, over so many seconds of the processor."""
    resets = [_cpu_seconds(world.reset) for _ in range(_RESETS)]
    world.step(world.actions[0])  # the first loads what is loaded late
    steps, spent = 0, 0.0
    while spent < seconds:
        begin = time.process_time()
        ended = world.step(world.actions[steps % _ACTIONS])
        spent += time.process_time() - begin
        steps += 1
        if ended:
            world.reset()
    return {
        "reset_cpu_s": median(resets),
        "images_per_cpu_s": 2 * steps / spent,  # where there are any
        "sim_s_per_cpu_s": steps * world.period / spent,
    }


def _cpu_seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def main() -> int:
    """Measures one; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=WORLDS)
    parser.add_argument("what", choices=("state", "images"))
    parser.add_argument("--seconds", type=float, default=2.0, help="of the processor")
    args = parser.parse_args()
    world = WORLDS[args.name](args.what == "images")
    figures = {
        "make_cpu_s": time.process_time(),  # since the process began
        **measure(world, args.seconds),
        "peak_memory_mb": peak_memory_mb(),
    }
    versions = {package: version(package) for package in world.packages}
    print(json.dumps({"versions": versions, "period_s": world.period, **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
