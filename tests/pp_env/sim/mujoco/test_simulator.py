import dataclasses
import gc
import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experts.pick_place import PickPlaceExpert
from pp_env import PickPlaceConfig, PickPlaceEnv, rotation
from pp_env.config import RENDER_PRESETS, GraspConfig, RenderConfig
from pp_env.objects import YCB_OBJECTS
from pp_env.sim import make_simulator, meshes
from pp_env.sim.api import Command
from pp_env.sim.mujoco.model import numbered
from pp_env.sim.mujoco.simulator import MujocoSimulator
from pp_recorder.rollout import EpisodeSink, run_episode
from tests import ROOT
from tests.presets import skip_unless_rendered
from tests.sim_contract import SimulatorContract, start

SMALL = PickPlaceConfig(render=RenderConfig(resolution=128))


class TestMujoco(SimulatorContract):
    @pytest.fixture
    def simulator(self):
        simulator = MujocoSimulator(SMALL)
        yield simulator
        simulator.close()


class Relative(EpisodeSink):
    """A sink that records the held object's position in the hand's frame."""

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


def test_what_rests_sleeps_until_it_is_touched(env):
    model, data = env._simulator.physics
    tree = model.body_treeid[model.body("object").id]
    expert = PickPlaceExpert()
    observation, info = env.reset(seed=0)
    expert.reset(observation, info, np.random.default_rng(0))
    asleep = []
    for _ in range(expert.num_steps):
        *_, info = env.step(expert.act(observation))
        asleep.append(data.tree_asleep[tree] >= 0)
        if asleep[-1]:
            np.testing.assert_array_equal(env._state.object_vel, 0.0)
            assert not info["is_grasped"]
    assert all(asleep[:60])
    assert not any(asleep[90:180])  # it is carried
    assert asleep[-1]
    assert info["is_success"]


def test_what_misses_the_table_lies_on_the_floor():
    simulator = MujocoSimulator(SMALL)
    state = simulator.reset(start(pick=(1.2, 0.0)))
    for _ in range(60):
        state = simulator.step(Command(state.joint_pos, 0.04))
    np.testing.assert_allclose(state.object.position, [1.2, 0.0, 0.02], atol=2e-3)
    np.testing.assert_allclose(state.object_vel, 0.0, atol=1e-3)


def test_masses_and_sizes_are_those_of_the_configuration(env):
    model = env._simulator._model
    assert model.body("object").mass[0] == SMALL.object.mass
    np.testing.assert_allclose(model.geom("object").size * 2, SMALL.object.size)
    np.testing.assert_allclose(model.geom("table").pos, SMALL.table.center)
    assert model.opt.timestep * SMALL.timing.substeps == pytest.approx(1 / 30)


POOL = PickPlaceConfig(objects=YCB_OBJECTS, num_objects=2, render=RenderConfig(resolution=128))


def test_parked_objects_touch_nothing_and_stay_there():
    env = PickPlaceEnv(config=POOL)
    for seed in range(4):
        _, info = env.reset(seed=seed)
        present = {info["object"], *info["distractors"]}
        for _ in range(3):
            env.step(env.action_space.sample())
        model, data = env._simulator._model, env._simulator._data
        for index, obj in enumerate(YCB_OBJECTS):
            body = model.body(numbered("object", index)).id
            is_there = data.xpos[body][2] > 0
            assert is_there == (obj.name in present)
            if not is_there:
                assert data.xpos[body][2] == pytest.approx(-5 - index, abs=1e-6)
                geoms = np.flatnonzero(model.geom_bodyid == body)
                assert not np.isin(data.contact.geom[: data.ncon], geoms).any()
    env.close()


def test_the_target_is_the_one_that_is_observed_and_held():
    env, expert = PickPlaceEnv(config=POOL, terminate_on_success=False), PickPlaceExpert()
    for name in ("006_mustard_bottle", "008_pudding_box"):
        episode = run_episode(env, expert, [], 0, 0, 150, {"object": name})
        held = episode.trace[-1][1]
        assert held["is_grasped"]
        assert held["object_pos"][2] > episode.start_info["object_pos"][2] + 0.05
        active = [e for e in range(env._simulator._model.neq) if env._simulator._data.eq_active[e]]
        names = [env._simulator._model.equality(e).name for e in active]
        assert names == [numbered("grasp", POOL.target_index(name))]
    env.close()


def write_mesh(folder, obj, turn=0.4, texture=False):
    """Write a box like a scan of the YCB set: on another side, turned and off its origin."""
    path = folder / obj.name / "google_16k" / "textured.obj"
    path.parent.mkdir(parents=True)
    half = np.array([obj.size[2], obj.size[0], obj.size[1]]) / 2
    corners = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T * half
    corners = rotation.rotate(rotation.about_z(turn), corners) + [0.1, -0.05, 0.03]
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    hull = [(1, 2, 4), (1, 4, 3), (5, 7, 8), (5, 8, 6), (1, 5, 6), (1, 6, 2)]
    hull += [(3, 4, 8), (3, 8, 7), (1, 3, 7), (1, 7, 5), (2, 6, 8), (2, 8, 4)]
    path.write_text("\n".join([*lines, *(f"f {a} {b} {c}" for a, b, c in hull)]) + "\n")
    return path


def test_meshes_fill_the_objects_that_they_show(tmp_path):
    boxes = [obj for obj in YCB_OBJECTS if obj.shape == "box"]
    shown = tuple(
        dataclasses.replace(obj, mesh=str(write_mesh(tmp_path, obj)), rgb=(0.9, 0.1, 0.1))
        for obj in boxes
    )
    config = PickPlaceConfig(objects=shown, render=RenderConfig(resolution=128))
    env = PickPlaceEnv(config=config)
    model, data = env._simulator._model, env._simulator._data
    for index, obj in enumerate(shown):
        env.reset(seed=0, options={"object": obj.name, "pick": (0.5, 0.1), "place": (0.5, -0.2)})
        geom = model.geom(f"{numbered('object', index)}_visual")
        first, many = model.mesh_vertadr[geom.dataid[0]], model.mesh_vertnum[geom.dataid[0]]
        vertices = model.mesh_vert[first : first + many]
        world = vertices @ data.geom_xmat[geom.id].reshape(3, 3).T + data.geom_xpos[geom.id]
        np.testing.assert_allclose(np.ptp(world, axis=0), obj.size, atol=2e-3)
        middle = (world.max(0) + world.min(0)) / 2
        np.testing.assert_allclose(middle, data.xpos[model.body(numbered("object", index)).id],
                                   atol=2e-3)  # fmt: skip
        assert model.body(numbered("object", index)).mass[0] == pytest.approx(obj.mass)
        assert geom.contype == 0
        assert count(env._simulator.render("cam_high"), lambda r, g, b: (r > 60) & (g < 30)) > 20
    env.close()


def test_meshes_that_do_not_fit(tmp_path):
    sugar, soup = YCB_OBJECTS[0], YCB_OBJECTS[1]
    other = dataclasses.replace(soup, mesh=str(write_mesh(tmp_path, sugar)))
    with pytest.raises(ValueError, match="005_tomato_soup_can should measure .* measures"):
        MujocoSimulator(PickPlaceConfig(objects=(other,)))
    gone = dataclasses.replace(soup, mesh=str(tmp_path / "gone.obj"))
    with pytest.raises(ValueError, match=r"gone.obj does not exist; was the folder"):
        MujocoSimulator(PickPlaceConfig(objects=(gone,)))


def test_quarter_turns_are_rotations_and_the_least_one():
    size = np.array([0.1, 0.2, 0.3])
    for order in itertools.permutations(range(3)):
        turn = meshes.quarter_turns(size[list(order)], size)
        assert np.linalg.det(turn) == pytest.approx(1.0)
        np.testing.assert_allclose(np.abs(turn @ size[list(order)]), size)
    np.testing.assert_array_equal(meshes.quarter_turns(size, size), np.eye(3))
    assert meshes.quarter_turns(size * 1.3, size) is None


def count(image, mask_of):
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    return int(mask_of(red, green, blue).sum())


def is_marker_blue(r, g, b):
    return (b > 120) & (b > r + 60) & (b > g + 30)


@pytest.mark.parametrize("preset", sorted(RENDER_PRESETS))
def test_images_are_sharp_and_well_lit(preset):
    skip_unless_rendered(preset)
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


def test_images_repeat(env):
    env.reset(seed=3)
    first = env._simulator.render("cam_high")
    env.reset(seed=4)
    env.reset(seed=3)
    np.testing.assert_array_equal(env._simulator.render("cam_high"), first)


def test_a_forgotten_environment_leaves_other_images_alone():
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


_WATCH = (
    "import gymnasium as gym, pp_env; "
    "env = gym.make(pp_env.ENV_ID, render_mode='human'); env.reset(seed=0); "
    "env.step(env.action_space.sample()); print('human' in env.metadata['render_modes']); "
    "print(env.render()); env.close()"
)


def test_human_opens_the_window():
    if (xvfb_run := shutil.which("xvfb-run")) is None or not shutil.which("xauth"):
        pytest.skip("needs xvfb-run (apt-get install xvfb)")
    done = subprocess.run(
        [xvfb_run, "-a", sys.executable, "-c", _WATCH], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["True", "None"]


def test_human_on_a_display_that_is_not_there_says_so():
    done = subprocess.run(
        [sys.executable, "-c", _WATCH],
        env={**os.environ, "DISPLAY": ":4711", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "cannot be opened on the display :4711: " in done.stderr.splitlines()[-1]
    assert "Failed to open display" in done.stderr.splitlines()[-1]


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


def test_an_image_depends_on_its_state_alone():
    """The shadow map is shared by both cameras, but never by two states."""
    rendered_after_another, fresh = MujocoSimulator(SMALL), MujocoSimulator(SMALL)
    rendered_after_another.reset(start(pick=(0.5, 0.2)))
    for camera in ("cam_high", "cam_wrist"):
        rendered_after_another.render(camera)
    states = [s.reset(start(pick=(0.6, -0.1))) for s in (rendered_after_another, fresh)]
    np.testing.assert_array_equal(*[state.object.position for state in states])
    wrist = [s.render("cam_wrist") for s in (rendered_after_another, fresh)]
    np.testing.assert_array_equal(*wrist)
    high = [s.render("cam_high") for s in (rendered_after_another, fresh)]
    np.testing.assert_array_equal(*high)
    rendered_after_another.close()
    fresh.close()


def test_objects_and_arm_cast_shadows():
    simulator = MujocoSimulator(PickPlaceConfig(render=RenderConfig(resolution=256)))
    without = MujocoSimulator(PickPlaceConfig(render=RenderConfig(resolution=256, preset="fast")))
    for s in (simulator, without):
        s.reset(start(pick=(0.6, 0.2), place=(0.6, -0.2)))
    shadowed = simulator.render("cam_high").sum(2) < 0.8 * without.render("cam_high").sum(2)
    assert 0.02 < shadowed.mean() < 0.2
    simulator.close()
    without.close()
