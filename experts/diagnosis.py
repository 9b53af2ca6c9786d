"""Where a failed episode went wrong: in which phase of the expert, or at which stage of the task.

The two are different facts. A phase is the name of a waypoint of the scripted expert, one of nine,
so `failure_phase` serves episodes of the expert alone. A stage is a part of the task, one of four,
and follows from the `info` alone, so `failure_stage` serves the episodes of any policy.
"""

from collections.abc import Sequence
from typing import Any

from experts.waypoints import PHASES

_RELEASE = "OPEN_GRIPPER"
_GRASP = "CLOSE_GRIPPER"


def failure_phase(trace: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Return the phase of the scripted expert in which a failed episode went wrong.

    For a part of the task instead of a name of the expert's, see `failure_stage`.

    Args:
        trace: Per step, the expert's phase and the `info` that the step led to.

    Returns:
        A name in `experts.waypoints.PHASES`: the phase in which a grasp was lost; CLOSE_GRIPPER
        if the object was never held; OPEN_GRIPPER if it was carried to the end but does not lie at
        the target; else the last phase.
    """
    held = [info["is_grasped"] for _, info in trace]
    if not any(held):
        return _GRASP
    lost = len(held) - 1 - held[::-1].index(True) + 1
    if lost < len(trace) and _order(trace[lost][0]) < _order(_RELEASE):
        return trace[lost][0]
    if "away_from_target" in trace[-1][1]["unmet_conditions"]:
        return _RELEASE
    return trace[-1][0]


def failure_stage(infos: Sequence[dict[str, Any]]) -> str:
    """Return the first stage of the task that a failed episode of any policy did not complete.

    It uses no phases, so it compares policies that have none or call them differently. For the
    phase of the scripted expert, see `failure_phase`.

    Args:
        infos: The `info` of every state.

    Returns:
        "grasp" if the object was never held; "carry" if it was held but ended away from the target;
        "release" if it is at the target but still held, moving, not on the table or between fingers
        that are not open; "return" if only the arm is not back at HOME.
    """
    unmet = set(infos[-1]["unmet_conditions"])
    if not any(info["is_grasped"] for info in infos):
        return "grasp"
    if "away_from_target" in unmet:
        return "carry"
    return "release" if unmet - {"arm_not_home"} else "return"


def _order(phase: str) -> int:
    """Return the position of a phase in an episode, from 0."""
    return PHASES.index(phase)
