"""Tests that every simulator must pass. A test module subclasses `SimulatorContract`."""

import numpy as np
import pytest

from pp_env import kinematics, panda
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig
from pp_env.layout import OBSERVATION
from pp_env.sim.api import Command, Pose
from pp_env.task import EpisodeStart, initial_state

HOME = np.array(HOME_JOINT_POS)


def start(pick=(0.5, 0.1), place=(0.4, -0.2), config=None):
    begin = EpisodeStart(np.array(pick), np.array(place), np.array([0.8, 0.2, 0.2]))
    return initial_state(begin, config or PickPlaceConfig())


def numbers(state):
    """Return all numbers of a state, one after the other."""
    return np.hstack([*state[:4], *state.eef, *state.object, state.object_vel, state.is_grasped])


class SimulatorContract:
    """Subclass it as `class TestX(SimulatorContract)` with a fixture `simulator`.

    A simulator that is not repeatable, or that rounds its states to float32, says how far off it
    may be.
    """

    tracking_tolerance = 0.01  # rad, after standing still for one second
    repeat_tolerance = 0.0  # rad, rad/s and m, between two runs of the same start and commands
    pose_tolerance = 1e-6  # m, of a pose that was set

    @pytest.fixture
    def simulator(self):
        raise NotImplementedError

    def test_reset_puts_everything_where_the_initial_state_says(self, simulator):
        initial = start()
        state = simulator.reset(initial)
        np.testing.assert_allclose(state.joint_pos, HOME, atol=1e-3)
        np.testing.assert_allclose(state.gripper_pos, panda.FINGER_OPEN, atol=1e-3)
        np.testing.assert_allclose(state.object.position, initial.object.position, atol=1e-3)
        np.testing.assert_allclose(state.object_vel, 0.0, atol=1e-3)
        assert not state.is_grasped

    def test_shapes_and_types(self, simulator):
        state = simulator.reset(start())
        shapes = [np.shape(x) for x in (state.joint_pos, state.joint_vel, state.gripper_pos)]
        assert shapes == [(7,), (7,), (2,)]
        assert state.gripper_vel.shape == (2,)
        assert state.eef.position.shape == state.object.position.shape == (3,)
        assert state.eef.quat_wxyz.shape == state.object.quat_wxyz.shape == (4,)
        assert state.object_vel.shape == (3,)
        assert isinstance(state.is_grasped, bool)

    def test_reset_is_deterministic_whatever_happened_before(self, simulator):
        def run():
            simulator.reset(start())
            for _ in range(5):
                state = simulator.step(Command(HOME + 0.1, 0.0))
            return np.concatenate([state.joint_pos, state.joint_vel, state.object.position])

        first = run()
        simulator.reset(start(pick=(0.6, -0.2)))
        simulator.step(Command(HOME - 0.2, 0.02))
        np.testing.assert_allclose(run(), first, rtol=0, atol=self.repeat_tolerance)

    def test_an_object_that_was_moved_stays_there(self, simulator):
        before = simulator.reset(start())
        goal = Pose(before.object.position + [0.06, -0.04, 0.0], before.object.quat_wxyz)
        state = simulator.move_object(goal)
        np.testing.assert_allclose(
            state.object.position, goal.position, rtol=0, atol=self.pose_tolerance
        )
        for _ in range(10):
            state = simulator.step(Command(HOME, 0.04))
        np.testing.assert_allclose(state.object.position, goal.position, atol=2e-3)
        np.testing.assert_allclose(state.object_vel, 0.0, atol=5e-3)
        assert not state.is_grasped

    def test_states_are_not_changed_later(self, simulator):
        state = simulator.reset(start())
        before = state.joint_pos.copy(), state.eef.position.copy()
        for _ in range(5):
            simulator.step(Command(HOME + 0.2, 0.04))
        np.testing.assert_array_equal(state.joint_pos, before[0])
        np.testing.assert_array_equal(state.eef.position, before[1])

    def test_the_hand_is_where_the_kinematics_say(self, simulator):
        simulator.reset(start())
        for _ in range(30):
            state = simulator.step(
                Command(HOME + np.array([0.3, 0.1, -0.2, 0.1, 0.2, 0, 0.3]), 0.04)
            )
        position, orientation = kinematics.forward(state.joint_pos)
        np.testing.assert_allclose(state.eef.position, position, atol=1e-4)
        w, x, y, z = state.eef.quat_wxyz
        np.testing.assert_allclose(
            orientation[0], [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            atol=1e-4,
        )  # fmt: skip

    def test_the_arm_follows_its_targets(self, simulator):
        simulator.reset(start())
        target = HOME + np.array([0.3, -0.1, 0.2, 0.2, -0.2, 0.1, 0.2])
        for _ in range(30):
            state = simulator.step(Command(target, 0.01))
        np.testing.assert_allclose(state.joint_pos, target, atol=self.tracking_tolerance)
        np.testing.assert_allclose(state.gripper_pos, 0.01, atol=1e-3)

    def test_images(self, simulator):
        config = PickPlaceConfig()
        simulator.reset(start())
        for camera in config.cameras:
            image = simulator.render(camera.name)
            assert image.shape[2] == 3
            assert image.dtype == np.uint8
            assert image.std() > 2

    def test_state_fits_the_observation(self, simulator):
        state = simulator.reset(start())
        vector = OBSERVATION.pack(
            {
                "joint_pos": state.joint_pos, "joint_vel": state.joint_vel,
                "gripper_pos": state.gripper_pos, "eef_pos": state.eef.position,
                "eef_quat": state.eef.quat_wxyz,
            }
        )  # fmt: skip
        assert OBSERVATION.space().contains(vector)

    def test_close_twice(self, simulator):
        simulator.close()
        simulator.close()
