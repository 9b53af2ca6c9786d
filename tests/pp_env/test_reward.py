"""The dense reward of single states; whole demonstrations are in test_modes.py."""

import numpy as np
import pytest

from pp_env import reward
from pp_env.config import HOME_JOINT_POS
from pp_env.task import unmet_conditions
from tests.pp_env.test_task import CONFIG, DONE, GOAL

FAR = np.array([0.8, 0.4, -1.0, 0.3, -0.6, 1.2, 0.2])  # of the joints from HOME, rad


def dense(**change):
    state = DONE._replace(**change)
    goal = DONE.object.position
    return reward.dense(state, goal, unmet_conditions(state, GOAL, CONFIG), CONFIG)


def test_success_has_the_whole_reward():
    assert dense() == 1.0


@pytest.mark.parametrize("fingers", [(0.02, 0.02), (0.04, 0.03), (0.0, 0.04)])
def test_a_gripper_that_clamps_the_object_has_not_placed_it(fingers):
    """A tilted hand can clamp the object where the rule of grasps sees none."""
    assert dense(gripper_pos=np.array(fingers)) < reward.REACHED


@pytest.mark.parametrize("joint", range(7))
def test_every_joint_that_nears_home_adds_to_the_reward(joint):
    nearer = FAR.copy()
    nearer[joint] *= 0.9
    far, near = (dense(joint_pos=HOME_JOINT_POS + offset) for offset in (FAR, nearer))
    assert reward.CARRIED < far < near < 1.0
