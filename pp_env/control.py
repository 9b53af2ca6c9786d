"""Control modes: three meanings of an action, all of which command the same servos."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pp_env import kinematics, panda
from pp_env.layout import ACTION, EE_DELTA_ACTION, JOINT_DELTA_ACTION, Layout
from pp_env.sim.api import Command


class ControlMode(NamedTuple):
    """One way to command the servos.

    Attributes:
        layout: Names, units and bounds of an action.
        command: Function of the previous command and an action within bounds that returns the next
            command.
    """

    layout: Layout
    command: Callable[[Command, np.ndarray], Command]


def _joint_position(_previous: Command, action: np.ndarray) -> Command:
    return Command(action[:7].astype(np.float64), float(action[7]))


def _joint_delta(previous: Command, action: np.ndarray) -> Command:
    arm = np.clip(previous.arm + action[:7], panda.JOINT_LOWER, panda.JOINT_UPPER)
    return Command(arm, float(action[7]))


def _end_effector_delta(previous: Command, action: np.ndarray) -> Command:
    translation, turn = action[:3].astype(np.float64), action[3:6].astype(np.float64)
    return Command(kinematics.move_hand(previous.arm, translation, turn), float(action[6]))


# Deltas are added to the target, not to the measured position: so the arm does not sag or drift.
CONTROL_MODES = {
    "joint_pos": ControlMode(ACTION, _joint_position),
    "joint_delta": ControlMode(JOINT_DELTA_ACTION, _joint_delta),
    "ee_delta": ControlMode(EE_DELTA_ACTION, _end_effector_delta),
}
