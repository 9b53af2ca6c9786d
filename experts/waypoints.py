"""The nine waypoints as one table, and the interpolation between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from pp_env import panda


@dataclass(frozen=True)
class Waypoint:
    """Arm and gripper at the end of one segment.

    Attributes:
        name: Name of the segment, and of the phase that ends at this waypoint.
        text: What the arm does in it, in words.
        place: Location that the hand is above.
        is_raised: True at the episode's travel height above the grasp, False at the grasp.
        gripper: Finger position target, m.
        is_free: True in free space, where noise may move the waypoint; False where contact is
            near.
    """

    name: str
    text: str
    place: Literal["home", "pick", "place"]
    is_raised: bool
    gripper: float
    is_free: bool


_OPEN, _CLOSED = panda.FINGER_OPEN, panda.FINGER_CLOSED

WAYPOINTS = (  # the arm starts at HOME
    Waypoint("APPROACH_PICK", "move above the object", "pick", True, _OPEN, is_free=True),
    Waypoint("DOWN_PICK", "move down to the object", "pick", False, _OPEN, is_free=False),
    Waypoint("CLOSE_GRIPPER", "close the gripper", "pick", False, _CLOSED, is_free=False),
    Waypoint("LIFT", "lift the object", "pick", True, _CLOSED, is_free=True),
    Waypoint("MOVE_TO_PLACE", "move above the marker", "place", True, _CLOSED, is_free=True),
    Waypoint("DOWN_PLACE", "move down to the marker", "place", False, _CLOSED, is_free=False),
    Waypoint("OPEN_GRIPPER", "open the gripper", "place", False, _OPEN, is_free=False),
    Waypoint("RETRACT", "move up from the object", "place", True, _OPEN, is_free=True),
    Waypoint("HOME", "move home", "home", False, _OPEN, is_free=False),
)

PHASES = tuple(waypoint.name for waypoint in WAYPOINTS)


class Interpolation:
    """Straight lines in joint space, one segment per waypoint; afterwards the last action repeats.

    Args:
        start: (8,) action at which the first segment begins: joint positions, rad, and finger
            position, m.
        targets: (n, 8) action at the end of each segment.
        steps_per_segment: Actions per segment, at least 1.
        via_points: By segment index, an action (8,) that the segment passes, at an even pace.
        path_noise: By segment index, amplitudes (waves, 7), rad, of the `path_offset` that is
            added to the segment; for segments without a via point.
    """

    def __init__(
        self,
        start: np.ndarray,
        targets: np.ndarray,
        steps_per_segment: int,
        via_points: Mapping[int, np.ndarray] | None = None,
        path_noise: Mapping[int, np.ndarray] | None = None,
    ) -> None:
        via_points, path_noise = via_points or {}, path_noise or {}
        progress = np.arange(1, steps_per_segment + 1) / steps_per_segment
        lines = []
        for segment, (before, after) in enumerate(pairwise(np.vstack([start, targets]))):
            if segment in via_points:
                line = _line_via(before, via_points[segment], after, progress)
            else:
                line = _line(before, after, progress)
            if segment in path_noise:
                line[:, :7] += path_offset(path_noise[segment], progress)
            lines.append(line)
        self._actions = np.concatenate(lines).astype(np.float32)
        self._steps_per_segment = steps_per_segment
        self._step = 0

    @property
    def segment(self) -> int:
        """Index of the segment that the last action belongs to; 0 before the first."""
        return (min(max(self._step, 1), len(self._actions)) - 1) // self._steps_per_segment

    def next_action(self) -> np.ndarray:
        """Return the next action (8,) float32, and advance."""
        action = self._actions[min(self._step, len(self._actions) - 1)]
        self._step += 1
        return action.copy()


def path_offset(amplitudes: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """Return the offset of a noisy path from its line: sine waves that fade out towards the end.

    Args:
        amplitudes: (waves, 7) rad; the k-th wave has k half periods per segment.
        progress: (...) share of the segment that is done, in [0, 1].

    Returns:
        (..., 7) rad.
    """
    waves = np.sin(np.pi * progress[..., None] * np.arange(1, len(amplitudes) + 1))
    return (1.0 - progress[..., None]) * (waves @ amplitudes)


def _line(before: np.ndarray, after: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """Return the actions (n, 8) at shares (n,) of the way between two actions (8,)."""
    return before + progress[:, None] * (after - before)


def _line_via(
    before: np.ndarray, via_point: np.ndarray, after: np.ndarray, progress: np.ndarray
) -> np.ndarray:
    """Return what `_line` does, through a third action (8,), at an even pace."""
    first, second = _duration(before, via_point), _duration(via_point, after)
    elapsed = progress * (first + second)
    to_via_point = _line(before, via_point, elapsed[elapsed < first] / first)
    late = elapsed >= first
    rest = (elapsed[late] - first) / second if second else np.ones(late.sum())
    return np.concatenate([to_via_point, _line(via_point, after, rest)])


def _duration(before: np.ndarray, after: np.ndarray) -> float:
    """Return the time, s, that the slowest joint needs between two actions (8,)."""
    return float((np.abs(after - before)[:7] / panda.JOINT_VELOCITY_LIMIT).max())
