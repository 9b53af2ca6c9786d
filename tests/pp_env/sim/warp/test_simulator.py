import dataclasses

import numpy as np
import pytest

pytest.importorskip("mujoco_warp")

from experts.pick_place import PickPlaceExpert
from pp_env import PickPlaceConfig, PickPlaceEnv
from pp_env.config import GraspConfig, RenderConfig
from pp_env.objects import YCB_OBJECTS
from pp_env.sim import default_timing, make_simulator
from pp_env.sim.api import Command
from pp_env.sim.mujoco.simulator import MujocoSimulator
from pp_env.sim.warp import worlds
from pp_env.sim.warp.servos import take_force_within_steps
from pp_env.sim.warp.simulator import WarpSimulator
from pp_recorder.rollout import run_episode
from tests.sim_contract import HOME, SimulatorContract, numbers, start

pytestmark = pytest.mark.usefixtures("warp_device")

SMALL = PickPlaceConfig(timing=default_timing("warp"), render=RenderConfig(resolution=64))
QUICK = 14  # steps per segment, with which MuJoCo succeeds, too


@pytest.fixture(scope="module")
def shared(warp_device):
    simulator = WarpSimulator(SMALL)
    yield simulator
    simulator.close()


class TestWarp(SimulatorContract):
    """States are float32, so poses are less exact; a GPU adds contact forces in no fixed order."""

    pose_tolerance = 1e-4  # float32, and one look after a forward pass of the kinematics

    @pytest.fixture
    def simulator(self, shared, warp_device):
        self.repeat_tolerance = 0.0 if warp_device == "cpu" else 1e-4
        return shared

    def test_an_image_is_not_changed_later(self, simulator):
        simulator.reset(start())
        image = simulator.render("cam_high")
        kept = image.copy()
        for _ in range(5):
            simulator.step(Command(HOME + 0.3, 0.04))
        assert (simulator.render("cam_high") != kept).any()
        np.testing.assert_array_equal(image, kept)

    def test_states_follow_those_of_mujoco_with_the_same_servos(self, simulator):
        theirs = MujocoSimulator(SMALL)
        take_force_within_steps(theirs.physics[0])
        for ours, other in _follow(simulator, theirs):
            np.testing.assert_allclose(numbers(ours), numbers(other), rtol=0, atol=2e-3)

    def test_states_are_near_those_of_mujocos_shorter_steps(self, simulator):
        theirs = MujocoSimulator(PickPlaceConfig(render=SMALL.render))
        for ours, other in _follow(simulator, theirs):
            np.testing.assert_allclose(ours.joint_pos, other.joint_pos, rtol=0, atol=5e-3)
            np.testing.assert_allclose(ours.joint_vel, other.joint_vel, rtol=0, atol=0.1)
            np.testing.assert_allclose(ours.eef.position, other.eef.position, rtol=0, atol=5e-3)

    @pytest.mark.parametrize(
        ("camera", "kind", "message"),
        [("cam_back", "rgb", "cam_back"), ("cam_high", "depth", "renders 'rgb', got 'depth'")],
    )
    def test_images_that_there_are_not(self, simulator, camera, kind, message):
        with pytest.raises(ValueError, match=message):
            simulator.render(camera, kind)

    def test_the_description_names_the_device(self, simulator):
        found = simulator.description
        assert found["name"] == "MuJoCo Warp"
        assert {"version", "warp", "device"} <= found.keys()


def _follow(ours, theirs):
    """Yield the states of two simulators that are commanded alike."""
    ours.reset(start())
    theirs.reset(start())
    for k in range(30):
        command = Command(HOME + 0.2 * np.sin(k / 10), 0.04 if k < 10 else 0.0)
        yield ours.step(command), theirs.step(command)
    theirs.close()


def run_expert(config, seed=0, steps_per_segment=QUICK, **options):
    env = PickPlaceEnv(simulator="warp", terminate_on_success=False, config=config)
    expert = PickPlaceExpert(steps_per_segment=steps_per_segment)
    episode = run_episode(env, expert, [], seed, 0, expert.num_steps, options)
    env.close()
    return episode


@pytest.mark.parametrize("mode", ["fixed_joint", pytest.param("friction", marks=pytest.mark.long)])
def test_the_expert_succeeds(mode):
    assert run_expert(dataclasses.replace(SMALL, grasp=GraspConfig(mode=mode))).success


@pytest.mark.long
@pytest.mark.parametrize("mode", ["fixed_joint", "friction"])
def test_the_expert_succeeds_with_a_can_among_others(mode):
    config = dataclasses.replace(
        SMALL, grasp=GraspConfig(mode=mode), objects=YCB_OBJECTS, num_objects=3
    )
    assert run_expert(config, steps_per_segment=30, object="005_tomato_soup_can").success


def test_there_is_no_window():
    with pytest.raises(ValueError, match="'warp' has no window"):
        make_simulator("warp", SMALL, headless=False)


def test_without_a_gpu(monkeypatch):
    monkeypatch.delenv("WARP_GPU", raising=False)
    monkeypatch.setattr(worlds.wp, "is_cuda_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs an NVIDIA GPU and its driver, and found none"):
        make_simulator("warp", SMALL)


@pytest.mark.parametrize(("number", "device"), [("cpu", "cpu"), ("0", "cuda:0"), ("3", "cuda:3")])
def test_the_gpu_is_chosen_by_its_number(monkeypatch, number, device):
    chosen = []
    monkeypatch.setenv("WARP_GPU", number)
    monkeypatch.setattr(worlds.wp, "get_device", chosen.append)
    worlds.choose_device(None)
    assert chosen == [device]


@pytest.mark.parametrize(
    ("room", "kind"), [({"_CONSTRAINTS": 8}, "NEFC"), ({"_CONTACTS": 2}, "NARROWPHASE")]
)
def test_contacts_without_room_are_named(monkeypatch, room, kind):
    for name, value in room.items():
        monkeypatch.setattr(f"pp_env.sim.warp.worlds.{name}", value)
    simulator = WarpSimulator(PickPlaceConfig())
    simulator.reset(start())
    with pytest.raises(RuntimeError, match=rf"contacts were left out .* calls it .*{kind}"):
        simulator._worlds.require_no_overflow()
    simulator.close()


def test_there_is_room_for_an_objects_contacts():
    simulator = WarpSimulator(PickPlaceConfig())
    simulator.reset(start())
    simulator._worlds.require_no_overflow()
    simulator.close()
