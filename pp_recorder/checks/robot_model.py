"""What is known of a robot beside its data: its numbers' bounds, its forward kinematics."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from pp_recorder.checks.findings import UnavailableError
from pp_recorder.checks.view import DatasetView, feature_names
from pp_recorder.dataset import keys


@dataclass(frozen=True)
class RobotModel:
    """A robot whose states and actions are recorded by this project.

    Attributes:
        bounds: Least and greatest value of every number, by its name.
        forward: Function from joints (frames, joints), rad, to position (frames, 3), m, and
            rotation matrix (frames, 3, 3) of the hand.
        home: (joints,) rad, where a success needs the arm.
        finger_open: m.
    """

    bounds: dict[str, tuple[float, float]]
    forward: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    home: np.ndarray
    finger_open: float


def robot_model(view: DatasetView) -> RobotModel:
    """Return the model of the robot that `info.json` names.

    Raises:
        UnavailableError: It is unknown, or its states have other numbers than we record.
    """
    robot = view.info.get("robot_type")
    if robot not in _MODELS:
        raise UnavailableError(f"no model of the robot {robot!r} is known")
    try:
        model, names = _MODELS[robot]()
    except ImportError as error:
        raise UnavailableError(f"the model of the robot {robot} is not installed") from error
    if feature_names(view.features.get(keys.STATE, {})) != names:
        raise UnavailableError(f"{keys.STATE} has not the numbers of our {robot}")
    return model


def has_model(view: DatasetView) -> bool:
    """Return True if the robot is one of ours."""
    try:
        robot_model(view)
    except UnavailableError:
        return False
    return True


@cache
def _franka_panda() -> tuple[RobotModel, list[str]]:
    """Return the model, and the names of the numbers of its state."""
    from pp_env import kinematics, panda
    from pp_env.config import HOME_JOINT_POS
    from pp_env.layout import ACTION, ENVIRONMENT_STATE, HAND_POSE_ACTION, OBSERVATION

    bounds = {
        name: (-1.0 if "_quat_" in name else float(low), float(high))  # older sets have w >= 0
        for layout in (OBSERVATION, ENVIRONMENT_STATE, ACTION, HAND_POSE_ACTION)
        for name, low, high in zip(layout.names, layout.low, layout.high, strict=True)
    }
    model = RobotModel(bounds, kinematics.forward, np.array(HOME_JOINT_POS), panda.FINGER_OPEN)
    return model, OBSERVATION.names


_MODELS: dict[Any, Callable[[], tuple[RobotModel, list[str]]]] = {"franka_panda": _franka_panda}
