"""What an action means: three ways to command the same servos."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pp_env import kinematics, panda
from pp_env.layout import ACTION, EE_DELTA_ACTION, JOINT_DELTA_ACTION, Layout
from pp_env.sim.api import Command


class ControlMode(NamedTuple):
    """One way to command the servos.

    Attributes:
        layout: The numbers of an action.
        command: Maps the command before and an action within bounds to the next command.
    """

    layout: Layout
    command: Callable[[Command, np.ndarray], Command]


def _joint_position(_: Command, action: np.ndarray) -> Command:
    return Command(action[:7].astype(np.float64), float(action[7]))


def _joint_delta(before: Command, action: np.ndarray) -> Command:
    arm = np.clip(before.arm + action[:7], panda.JOINT_LOWER, panda.JOINT_UPPER)
    return Command(arm, float(action[7]))


def _end_effector_delta(before: Command, action: np.ndarray) -> Command:
    translation, turn = action[:3].astype(np.float64), action[3:6].astype(np.float64)
    return Command(kinematics.move_hand(before.arm, translation, turn), float(action[6]))


# Deltas add to the target, not to the measured position, so that the arm does not sag or drift.
CONTROL_MODES = {
    "joint_pos": ControlMode(ACTION, _joint_position),
    "joint_delta": ControlMode(JOINT_DELTA_ACTION, _joint_delta),
    "ee_delta": ControlMode(EE_DELTA_ACTION, _end_effector_delta),
}
