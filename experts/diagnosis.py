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


def failure_stage(infos: Sequence[dict[str, Any]]) -> str:
    """How far a failed attempt of any policy had come, whatever it calls its phases.

    Args:
        infos: The `info` of every state.

    Returns:
        "grasp" if the object was never held; "carry" if it was but ended away from the target;
        "release" if it is at the target but not let go, at rest and on the table; "return" if only
        the arm is not back at HOME.
    """
    unmet = set(infos[-1]["failures"])
    if not any(info["is_grasped"] for info in infos):
        return "grasp"
    if "away_from_target" in unmet:
        return "carry"
    return "release" if unmet - {"arm_not_home"} else "return"


def _order(phase: str) -> int:
    return [waypoint.name for waypoint in WAYPOINTS].index(phase)
