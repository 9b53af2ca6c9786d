"""In which phase an attempt went wrong."""

from collections.abc import Sequence
from typing import Any

from experts.waypoints import WAYPOINTS

_RELEASE = "OPEN_GRIPPER"
_GRASP = "CLOSE_GRIPPER"


def failure_phase(trace: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The waypoint on the way to which a failed attempt failed.

    Args:
        trace: Per step, the expert's phase and the `info` that the step led to.

    Returns:
        The phase in which a grasp was lost; CLOSE_GRIPPER if there never was one; OPEN_GRIPPER if
        the object was carried to the end but does not lie at the target; else the last phase.
    """
    held = [info["is_grasped"] for _, info in trace]
    if not any(held):
        return _GRASP
    lost = len(held) - 1 - held[::-1].index(True) + 1
    if lost < len(trace) and _order(trace[lost][0]) < _order(_RELEASE):
        return trace[lost][0]
    if "away_from_target" in trace[-1][1]["failures"]:
        return _RELEASE
    return trace[-1][0]


def _order(phase: str) -> int:
    return [waypoint.name for waypoint in WAYPOINTS].index(phase)
