import gc
import subprocess
import sys

import numpy as np
import pytest

from experts.pick_place import PickPlaceExpert
from pp_env import PickPlaceConfig, PickPlaceEnv, rotation
from pp_env.config import RENDER_PRESETS, GraspConfig, RenderConfig
from pp_env.sim import make_simulator
from pp_env.sim.mujoco_sim import MujocoSimulator
from recorder.rollout import run_episode
from tests.sim_contract import SimulatorContract, start

SMALL = PickPlaceConfig(render=RenderConfig(resolution=128))


class TestMujoco(SimulatorContract):
    @pytest.fixture
    def simulator(self):
        simulator = MujocoSimulator(SMALL)
        yield simulator
        simulator.close()


class Relative:
    """A sink: where the held object is in the hand's frame, while it is held."""

    def __init__(self, env):
        self.env, self.offsets, self.turns, self.jump = env, [], [], 0.0

    def begin(self, seed):
        self.last = None

    def add(self, step):
        state = self.env._state
        if state.is_grasped:
            hand, obj = state.eef, state.object
            self.offsets.append(rotation.unrotate(hand.quat_wxyz, obj.position - hand.position))
        elif self.last is not None and not self.offsets:
            self.before_grasp = rotation.unrotate(
                state.eef.quat_wxyz, state.object.position - state.eef.position
            )
        self.last = state

    def end(self, episode):
        pass

    abort = close = lambda self: None


@pytest.fixture(scope="module")
def env():
    env = PickPlaceEnv(terminate_on_success=False, config=SMALL)
    yield env
    env.close()


def test_attaching_moves_nothing_and_the_held_object_stays(env):
    expert, relative = PickPlaceExpert(), Relative(env)
    run_episode(env, expert, [relative], 0, 0, expert.num_steps)
    assert np.abs(relative.offsets[0] - relative.before_grasp).max() < 5e-4
    held = np.array(relative.offsets)
    assert np.abs(held - held[0]).max() < 5e-4


def test_friction_alone_carries_the_cube():
    config = PickPlaceConfig(grasp=GraspConfig(mode="friction"))
    env, expert = PickPlaceEnv(terminate_on_success=False, config=config), PickPlaceExpert()
    assert run_episode(env, expert, [], 0, 0, expert.num_steps).success


def test_closing_beside_the_object_attaches_nothing(env):
    env.reset(seed=0, options={"pick": (0.45, 0.2)})
    action = np.append(env._state.joint_pos, 0.0).astype(np.float32)
    for _ in range(30):
        *_, info = env.step(action)
    assert not info["is_grasped"]


def test_the_arm_does_not_sag(env):
    env.reset(seed=0)
    target = env._state.joint_pos.copy()
    for _ in range(60):
        env.step(np.append(target, 0.04).astype(np.float32))
    assert np.abs(env._state.joint_pos - target).max() < 1e-3


def test_masses_and_sizes_are_those_of_the_configuration(env):
    model = env._simulator._model
    assert model.body("object").mass[0] == SMALL.object.mass
    np.testing.assert_allclose(model.geom("object").size * 2, SMALL.object.size)
    np.testing.assert_allclose(model.geom("table").pos, SMALL.table.center)
    assert model.opt.timestep * SMALL.timing.substeps == pytest.approx(1 / 30)


def count(image, mask_of):
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    return int(mask_of(red, green, blue).sum())


def is_marker_blue(r, g, b):
    return (b > 120) & (b > r + 60) & (b > g + 30)


@pytest.mark.parametrize("preset", sorted(RENDER_PRESETS))
def test_pictures_are_sharp_and_well_lit(preset):
    config = PickPlaceConfig(render=RenderConfig(resolution=256, preset=preset))
    simulator = MujocoSimulator(config)
    simulator.reset(start(pick=(0.6, 0.2), place=(0.6, -0.2)))
    for camera in config.cameras:
        image = simulator.render(camera.name)
        assert (image == 255).mean() < 0.001
        assert 40 < image.mean() < 180
    simulator.close()


@pytest.mark.parametrize("place", [(0.3, -0.3), (0.7, -0.3), (0.7, 0.3), (0.3, 0.3), (0.5, 0.0)])
def test_the_marker_is_visible_from_above_in_the_whole_workspace(env, place):
    pick = (0.5, 0.25) if place[1] <= 0 else (0.5, -0.25)
    env.reset(seed=0, options={"pick": pick, "place": place, "color": (0.9, 0.1, 0.1)})
    image = env._simulator.render("cam_high")
    assert count(image, is_marker_blue) > 10


def test_the_object_is_between_the_fingertips_in_the_wrist_camera(env):
    expert = PickPlaceExpert()
    observation, info = env.reset(seed=0, options={"color": (0.9, 0.1, 0.1)})
    expert.reset(observation, info, np.random.default_rng(0))
    for _ in range(60):
        env.step(expert.act(observation))
    image = env._simulator.render("cam_wrist")
    rows, columns = np.nonzero((image[..., 0] > 100) & (image[..., 1] < 60))
    assert len(rows) > 300
    assert abs(columns.mean() - 64) < 4
    assert 60 < rows.mean() < 110


def test_pictures_repeat(env):
    env.reset(seed=3)
    first = env._simulator.render("cam_high")
    env.reset(seed=4)
    env.reset(seed=3)
    np.testing.assert_array_equal(env._simulator.render("cam_high"), first)


def test_a_forgotten_environment_leaves_other_pictures_alone():
    ours, forgotten = MujocoSimulator(SMALL), MujocoSimulator(SMALL)
    ours.reset(start())
    before = ours.render("cam_high")
    forgotten.reset(start())
    forgotten.render("cam_high")
    ours.render("cam_wrist")  # whose context is now the current one
    del forgotten
    gc.collect()
    np.testing.assert_array_equal(ours.render("cam_high"), before)
    ours.close()


def test_unknown_camera_and_simulator():
    with pytest.raises(ValueError, match="camera must be one of"):
        MujocoSimulator(SMALL).render("cam_low")
    with pytest.raises(ValueError, match="one of .'isaacsim', 'mujoco'.*'bullet'"):
        make_simulator("bullet", SMALL)


def test_a_window_needs_a_screen(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match="needs a screen"):
        MujocoSimulator(SMALL, headless=False)


def test_it_renders_even_if_mujoco_was_imported_first():
    code = (
        "import mujoco; from pp_env import PickPlaceEnv; "
        "env = PickPlaceEnv(render_mode='rgb_array'); env.reset(seed=0); print(env.render().shape)"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(512, 512, 3)"
