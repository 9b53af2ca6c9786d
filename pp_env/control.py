"""Control modes: four meanings of an action, all of which command the same servos."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pp_env import hand_pose, kinematics, panda, rotation
from pp_env.layout import ACTION, EE_DELTA_ACTION, HAND_POSE_ACTION, JOINT_DELTA_ACTION, Layout
from pp_env.sim.api import Command


class Commanded(NamedTuple):
    """What comes of an action.

    Attributes:
        command: For the servos.
        limits: What keeps the command from the action, see `pp_env.hand_pose.follow`; None in modes
            that do not tell.
    """

    command: Command
    limits: list[str] | None = None


class ControlMode(NamedTuple):
    """One way to command the servos.

    Attributes:
        layout: Names, units and bounds of an action.
        command: Function of the previous command, an action within bounds and the control period,
            s, that returns the next command.
    """

    layout: Layout
    command: Callable[[Command, np.ndarray, float], Commanded]


def hand_pose_action(action: np.ndarray) -> np.ndarray:
    """Return the action (..., 10) of "ee_pose" for one (..., 8) of "joint_pos", float32."""
    position, orientation = kinematics.forward(action[..., :7].astype(np.float64))
    parts = [position, rotation.to_columns(orientation), action[..., 7:]]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def _joint_position(_previous: Command, action: np.ndarray, _period: float) -> Commanded:
    return Commanded(Command(action[:7].astype(np.float64), float(action[7])))


def _joint_delta(previous: Command, action: np.ndarray, _period: float) -> Commanded:
    arm = np.clip(previous.arm + action[:7], panda.JOINT_LOWER, panda.JOINT_UPPER)
    return Commanded(Command(arm, float(action[7])))


def _end_effector_delta(previous: Command, action: np.ndarray, _period: float) -> Commanded:
    translation, turn = action[:3].astype(np.float64), action[3:6].astype(np.float64)
    arm = kinematics.move_hand(previous.arm, translation, turn)
    return Commanded(Command(arm, float(action[6])))


def _hand_pose(previous: Command, action: np.ndarray, period: float) -> Commanded:
    position, columns = action[:3].astype(np.float64), action[3:9].astype(np.float64)
    orientation = rotation.from_columns(columns)
    arm, limits = hand_pose.follow(previous.arm, position, orientation, period)
    return Commanded(Command(arm, float(action[9])), limits)


# Deltas are added to the target, not to the measured position: so the arm does not sag or drift.
CONTROL_MODES = {
    "joint_pos": ControlMode(ACTION, _joint_position),
    "joint_delta": ControlMode(JOINT_DELTA_ACTION, _joint_delta),
    "ee_delta": ControlMode(EE_DELTA_ACTION, _end_effector_delta),
    "ee_pose": ControlMode(HAND_POSE_ACTION, _hand_pose),
}
