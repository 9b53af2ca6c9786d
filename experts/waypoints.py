"""The nine waypoints as one table, and the policy that interpolates between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from pp_env import panda


@dataclass(frozen=True)
class Waypoint:
    """Where the arm is at the end of one segment.

    Attributes:
        name: The segment's name; also the phase in which a failed episode is said to have failed.
        place: Which location it is above.
        is_raised: At the episode's travel height above its grasp there, else at the grasp.
        gripper: Finger target, m.
        is_free: In free space, where noise may move it; else contact is near and it may not.
    """

    name: str
    place: Literal["home", "pick", "place"]
    is_raised: bool
    gripper: float
    is_free: bool


_OPEN, _CLOSED = panda.FINGER_OPEN, panda.FINGER_CLOSED

WAYPOINTS = (  # the arm starts at HOME
    Waypoint("APPROACH_PICK", "pick", True, _OPEN, is_free=True),
    Waypoint("DOWN_PICK", "pick", False, _OPEN, is_free=False),
    Waypoint("CLOSE_GRIPPER", "pick", False, _CLOSED, is_free=False),
    Waypoint("LIFT", "pick", True, _CLOSED, is_free=True),
    Waypoint("MOVE_TO_PLACE", "place", True, _CLOSED, is_free=True),
    Waypoint("DOWN_PLACE", "place", False, _CLOSED, is_free=False),
    Waypoint("OPEN_GRIPPER", "place", False, _OPEN, is_free=False),
    Waypoint("RETRACT", "place", True, _OPEN, is_free=True),
    Waypoint("HOME", "home", False, _OPEN, is_free=False),
)


class Interpolation:
    """Lines in joint space, one segment per waypoint, then standing still at the last.

    Args:
        start: (8,) action at which the first segment begins.
        targets: (n, 8) action at the end of each segment.
        steps_per_segment: Actions per segment, at least 1.
        detours: By segment, an action (8,) that it passes on its way, at an even pace.
        wander: By segment without a detour, sizes (waves, 7) of what `strayed` adds to its line.
    """

    def __init__(
        self,
        start: np.ndarray,
        targets: np.ndarray,
        steps_per_segment: int,
        detours: Mapping[int, np.ndarray] | None = None,
        wander: Mapping[int, np.ndarray] | None = None,
    ) -> None:
        detours, wander = detours or {}, wander or {}
        share = np.arange(1, steps_per_segment + 1) / steps_per_segment
        lines = []
        for segment, (before, after) in enumerate(pairwise(np.vstack([start, targets]))):
            if segment in detours:
                line = _via(before, detours[segment], after, share)
            else:
                line = _line(before, after, share)
            if segment in wander:
                line[:, :7] += strayed(wander[segment], share)
            lines.append(line)
        self._actions = np.concatenate(lines).astype(np.float32)
        self._steps_per_segment = steps_per_segment
        self._step = 0

    @property
    def segment(self) -> int:
        """Index of the segment that the next action belongs to; the last one at the end."""
        return min(self._step, len(self._actions) - 1) // self._steps_per_segment

    def next_action(self) -> np.ndarray:
        """The next action (8,) float32."""
        action = self._actions[min(self._step, len(self._actions) - 1)]
        self._step += 1
        return action.copy()


def strayed(sizes: np.ndarray, share: np.ndarray) -> np.ndarray:
    """How far off its line a wandering arm is: sine waves, which fade out towards the end.

    Args:
        sizes: (waves, 7) rad, of half a wave, a whole one and so on.
        share: (...) of the segment that is done.

    Returns:
        (..., 7) rad.
    """
    waves = np.sin(np.pi * share[..., None] * np.arange(1, len(sizes) + 1))
    return (1.0 - share[..., None]) * (waves @ sizes)


def _line(before: np.ndarray, after: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Actions (n, 8) that have done shares (n,) of the way between two actions (8,)."""
    return before + share[:, None] * (after - before)


def _via(
    before: np.ndarray, middle: np.ndarray, after: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """As `_line`, with a third action on the way, at an even pace."""
    first, second = _duration(before, middle), _duration(middle, after)
    done = share * (first + second)
    to_middle = _line(before, middle, done[done < first] / first)
    rest = (done[done >= first] - first) / second if second else np.ones((done >= first).sum())
    return np.concatenate([to_middle, _line(middle, after, rest)])


def _duration(before: np.ndarray, after: np.ndarray) -> float:
    """Seconds that the arm's slowest joint needs between two actions (8,)."""
    return float((np.abs(after - before)[:7] / panda.JOINT_VELOCITY_LIMIT).max())
