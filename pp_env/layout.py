"""The order of the numbers in every vector: observation (23), action (8) and others.

Each order is written here once. Spaces, dataset features, the expert and the tables in the docs
derive from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import gymnasium as gym
import numpy as np

from pp_env import panda

_XYZ = ("x", "y", "z")
_WXYZ = ("w", "x", "y", "z")

# Room beyond the published limits for transients. Extreme actions exceed even that: `pack` clips.
_JOINT_SLACK = 0.1  # rad
_FINGER_SLACK = 0.005  # m
_MAX_JOINT_VEL = 20.0  # rad/s, about eight times the real robot's limit
_WORKSPACE = 2.0  # m from the base, each axis
_MAX_SPEED = 10.0  # m/s


@dataclass(frozen=True, eq=False)
class Field:
    """A named run of numbers inside a vector.

    Attributes:
        name: Key in `Layout.pack` and `Layout.unpack`.
        suffixes: One per number. Name and suffix together are the dataset's name of the number.
        unit: SI unit, or "" where there is none.
        low: Least value, one number or one per element.
        high: Greatest value, one number or one per element.
        meaning: One line for the tables.
    """

    name: str
    suffixes: tuple[str, ...]
    unit: str
    low: float | np.ndarray
    high: float | np.ndarray
    meaning: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return len(self.suffixes)

    @property
    def element_names(self) -> list[str]:
        """Name of each element: `name_suffix`, or the field's name where the suffix is empty."""
        return [f"{self.name}_{s}" if s else self.name for s in self.suffixes]


class Layout:
    """An ordered list of fields: the meaning of one flat vector.

    Args:
        fields: The fields, in order.
    """

    def __init__(self, *fields: Field) -> None:
        self.fields = fields
        self._slices: dict[str, slice] = {}
        start = 0
        for field in fields:
            self._slices[field.name] = slice(start, start + field.size)
            start += field.size
        self.size = start

    @cached_property
    def names(self) -> list[str]:
        """Name of every element, in order."""
        return [name for field in self.fields for name in field.element_names]

    @cached_property
    def low(self) -> np.ndarray:
        """Least values, (size,) float32."""
        return self._bound("low")

    @cached_property
    def high(self) -> np.ndarray:
        """Greatest values, (size,) float32."""
        return self._bound("high")

    def _bound(self, side: str) -> np.ndarray:
        parts = [np.broadcast_to(getattr(f, side), (f.size,)) for f in self.fields]
        return np.concatenate(parts).astype(np.float32)

    def space(self) -> gym.spaces.Box:
        """Return the bounded Gymnasium box of shape (size,), float32."""
        return gym.spaces.Box(self.low, self.high, dtype=np.float32)

    def pack(self, values: Mapping[str, np.ndarray | float]) -> np.ndarray:
        """Return the vector (size,) float32 of one value per field, clipped to the bounds."""
        flat = np.empty(self.size, dtype=np.float32)
        for name, where in self._slices.items():
            flat[where] = values[name]
        return self.clip(flat)

    def clip(self, vector: np.ndarray) -> np.ndarray:
        """Return a vector (..., size) float32, clipped to the bounds."""
        return np.minimum(np.maximum(vector, self.low), self.high)  # a third of `np.clip`'s time

    def unpack(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Return views (..., field size) of a vector (..., size), by field name."""
        return {name: vector[..., where] for name, where in self._slices.items()}

    def table(self) -> str:
        """Return a Markdown table of index, name, meaning, unit and bounds of every element."""
        rows = ["| index | name | meaning | unit | low | high |", "|---|---|---|---|---|---|"]
        elements = [(name, field) for field in self.fields for name in field.element_names]
        for index, (name, field) in enumerate(elements):
            rows.append(
                f"| {index} | `{name}` | {field.meaning} | {field.unit or '-'} "
                f"| {self.low[index]:.5g} | {self.high[index]:.5g} |"
            )
        return "\n".join(rows)


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(count))


_GRIPPER_LOW, _GRIPPER_HIGH = panda.FINGER_CLOSED, panda.FINGER_OPEN

OBSERVATION = Layout(
    Field(
        "joint_pos", _numbers(7), "rad",
        panda.JOINT_LOWER - _JOINT_SLACK, panda.JOINT_UPPER + _JOINT_SLACK,
        "arm joint position",
    ),
    Field(
        "joint_vel", _numbers(7), "rad/s", -_MAX_JOINT_VEL, _MAX_JOINT_VEL, "arm joint velocity"
    ),
    Field(
        "gripper_pos", _numbers(2), "m",
        _GRIPPER_LOW - _FINGER_SLACK, _GRIPPER_HIGH + _FINGER_SLACK,
        "finger position, 0 closed, 0.04 open",
    ),
    Field("eef_pos", _XYZ, "m", -_WORKSPACE, _WORKSPACE, "origin of `panda_hand`, world frame"),
    Field(
        "eef_quat", _WXYZ, "", np.array([-1.0, 0.0, -1.0, -1.0]), 1.0,
        "orientation of `panda_hand`, world frame, unit quaternion, x >= 0",
    ),
)  # fmt: skip

ACTION = Layout(
    Field(
        "action_joint", _numbers(7), "rad", panda.JOINT_LOWER, panda.JOINT_UPPER,
        "arm joint position target",
    ),
    Field(
        "action_gripper", ("",), "m", _GRIPPER_LOW, _GRIPPER_HIGH,
        "finger position target, 0 closed, 0.04 open",
    ),
)  # fmt: skip

# Greatest change in one control period: at 30 Hz, about what the real joints can follow.
_MAX_JOINT_DELTA = 0.07  # rad
_MAX_TRANSLATION = 0.02  # m, each axis
_MAX_TURN = 0.07  # rad, each axis

JOINT_DELTA_ACTION = Layout(
    Field(
        "delta_joint", _numbers(7), "rad", -_MAX_JOINT_DELTA, _MAX_JOINT_DELTA,
        "change of the arm joint position target",
    ),
    ACTION.fields[-1],
)  # fmt: skip

EE_DELTA_ACTION = Layout(
    Field(
        "delta_eef_pos", _XYZ, "m", -_MAX_TRANSLATION, _MAX_TRANSLATION,
        "change of the target of the origin of `panda_hand`, world frame",
    ),
    Field(
        "delta_eef_rot", _XYZ, "rad", -_MAX_TURN, _MAX_TURN,
        "turn of that target, rotation vector, world frame",
    ),
    ACTION.fields[-1],
)  # fmt: skip

_REACH = 0.9  # m from the shoulder: more than the arm has
_SHOULDER = np.array(panda.ARM[0].position)

HAND_POSE_ACTION = Layout(
    Field(
        "action_eef_pos", _XYZ, "m", _SHOULDER - _REACH, _SHOULDER + _REACH,
        "target of the origin of `panda_hand`, world frame",
    ),
    Field(
        "action_eef_rot", tuple(f"{axis}_{i}" for axis in "xy" for i in _XYZ), "", -1.0, 1.0,
        "target of the x and y axes of `panda_hand`, world frame",
    ),
    ACTION.fields[-1],
)  # fmt: skip

_OBJECT_FIELDS = (
    Field("object_pos", _XYZ, "m", -_WORKSPACE, _WORKSPACE, "object's centre, world frame"),
    Field(
        "object_quat", _WXYZ, "", -1.0, 1.0,
        "object's orientation, world frame, unit quaternion, w >= 0 at reset, without sign flips",
    ),
)  # fmt: skip
_IS_GRASPED = Field("is_grasped", ("",), "", 0.0, 1.0, "1 while the gripper holds the object")

ENVIRONMENT_STATE = Layout(
    *_OBJECT_FIELDS,
    Field("goal_pos", _XYZ, "m", -_WORKSPACE, _WORKSPACE, "place target on the table, world frame"),
    _IS_GRASPED,
)

# The observation beside the two goals of a goal-conditioned policy: nothing reveals the goal.
GOAL_OBSERVATION = Layout(
    *OBSERVATION.fields,
    *_OBJECT_FIELDS,
    Field("object_vel", _XYZ, "m/s", -_MAX_SPEED, _MAX_SPEED, "object's linear velocity"),
    _IS_GRASPED,
)
GOAL = Layout(Field("pos", _XYZ, "m", -_WORKSPACE, _WORKSPACE, "object's centre, world frame"))
