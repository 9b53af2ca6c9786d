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


def test_a_gripper_that_opens_adds_to_the_reward_and_one_that_clamps_gains_little_on_the_way_home():
    """A tilted hand can clamp the object where the rule of grasps sees none."""
    openings = [np.full(2, width) for width in (0.0, 0.02, 0.034, 0.04)]
    there = [dense(gripper_pos=each, joint_pos=HOME_JOINT_POS + FAR) for each in openings]
    home = [dense(gripper_pos=each) for each in openings]
    assert there[0] == home[0] == reward.CARRIED
    assert there == sorted(set(there))
    assert home == sorted(set(home))
    assert home[1] - there[1] < 0.6 * (home[3] - there[3])
    assert dense(gripper_pos=np.array([0.04, 0.02])) == home[1], "both fingers count"


@pytest.mark.parametrize("joint", range(7))
def test_every_joint_that_nears_home_adds_to_the_reward(joint):
    nearer = FAR.copy()
    nearer[joint] *= 0.9
    far, near = (dense(joint_pos=HOME_JOINT_POS + offset) for offset in (FAR, nearer))
    assert reward.CARRIED < far < near < 1.0
