import numpy as np
import pytest

from pp_env import panda
from pp_env.config import GraspConfig
from pp_env.objects import ObjectConfig
from pp_env.sim.api import Command, Pose
from pp_env.sim.grasp import is_grasped
from tests.pp_env.test_task import DONE

DOWN = np.array([0.0, 1.0, 0.0, 0.0])
HAND = np.array([0.5, 0.1, 0.43 + panda.TCP_OFFSET])
PINCHING = DONE._replace(gripper_pos=np.full(2, 0.02), eef=Pose(HAND, DOWN))
CLOSE, OPEN = Command(np.zeros(7), 0.0), Command(np.zeros(7), 0.04)


def rule(state, command=CLOSE):
    return is_grasped(state, command, GraspConfig(), ObjectConfig())


def test_stopped_fingers_around_the_object_hold_it():
    assert rule(PINCHING)


def test_an_open_command_lets_go():
    assert not rule(PINCHING._replace(is_grasped=True), OPEN)


def test_a_held_object_stays_held_until_then():
    assert rule(PINCHING._replace(is_grasped=True, gripper_vel=np.full(2, 1.0)))


@pytest.mark.parametrize(
    "change",
    [
        {"gripper_vel": np.array([0.0, -0.04])},
        {"gripper_pos": np.array([0.0, 0.0])},
        {"object": Pose(np.array([0.5, 0.15, 0.43]), DONE.object.quat_wxyz)},
        {"object": Pose(np.array([0.53, 0.1, 0.43]), DONE.object.quat_wxyz)},
        {"object": Pose(np.array([0.5, 0.1, 0.40]), DONE.object.quat_wxyz)},
    ],
    ids=["still closing", "closed on nothing", "beside", "in front", "below"],
)
def test_anything_else_is_no_grasp(change):
    assert not rule(PINCHING._replace(**change))


OPEN_FINGERS = {"gripper_pos": np.full(2, 0.04)}


def test_fingers_that_have_not_begun_to_close_hold_nothing():
    assert not rule(PINCHING._replace(**OPEN_FINGERS))
    before_revision_3 = GraspConfig(requires_touch=False)
    state = PINCHING._replace(**OPEN_FINGERS)
    assert is_grasped(state, CLOSE, before_revision_3, ObjectConfig())


def test_fingers_that_drift_together_with_the_object_hold_it():
    assert rule(PINCHING._replace(gripper_vel=np.array([0.03, -0.03])))


@pytest.mark.parametrize(
    ("shape", "size", "turn", "opening", "holds"),
    [
        ("box", (0.04, 0.06, 0.04), 0.0, 0.058, True),
        ("box", (0.04, 0.06, 0.04), np.pi / 2, 0.058, False),
        ("box", (0.04, 0.06, 0.04), np.pi / 2, 0.04, True),
        ("cylinder", (0.05, 0.05, 0.04), np.pi / 4, 0.05, True),
        ("cylinder", (0.05, 0.05, 0.04), np.pi / 4, 0.06, False),
    ],
)
def test_touching_depends_on_the_width_across_the_fingers(shape, size, turn, opening, holds):
    upright = np.array([np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2)])
    state = PINCHING._replace(
        gripper_pos=np.full(2, opening / 2), object=Pose(PINCHING.object.position, upright)
    )
    obj = ObjectConfig(shape=shape, size=size)
    assert is_grasped(state, CLOSE, GraspConfig(), obj) == holds
