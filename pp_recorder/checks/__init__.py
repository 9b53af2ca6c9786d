"""The checks of a LeRobot v3.0 dataset: what is wrong with it, in which episode and frame.

Each check looks at one thing, logs what it finds, and returns a note. A check that fails, or that
cannot be carried out because something else is broken, does not keep the others from running.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from pp_recorder.checks.findings import Finding, Result, UnavailableError, first_line
from pp_recorder.checks.metadata import check_episodes, check_info, check_leftovers, check_tasks
from pp_recorder.checks.robot import (
    check_joint_limits,
    check_joint_speed,
    check_saturation,
    check_success,
    check_tracking,
    tracking_error,
)
from pp_recorder.checks.rows import check_data, check_rows, check_timestamps
from pp_recorder.checks.stats import check_image_statistics, check_statistics
from pp_recorder.checks.videos import check_pictures, check_video, check_video_order
from pp_recorder.checks.view import DatasetView, feature_names

__all__ = [
    "DatasetView",
    "Finding",
    "Result",
    "UnavailableError",
    "feature_names",
    "run_checks",
    "tracking_error",
]

Check = Callable[[DatasetView, Result], str]


def all_checks(evidence: DatasetView) -> list[tuple[str, Check]]:
    """Name and function of every check, in the order in which they are reported."""
    checks: list[tuple[str, Check]] = [
        ("info", check_info),
        ("tasks", check_tasks),
        ("episodes", check_episodes),
        ("data", check_data),
        ("rows", check_rows),
        ("timestamps", check_timestamps),
        ("leftovers", check_leftovers),
        ("statistics", check_statistics),
    ]
    for camera in evidence.cameras:
        short = evidence.short(camera)
        checks += [
            (f"video {short}", partial(check_video, camera=camera)),
            (f"pictures {short}", partial(check_pictures, camera=camera)),
            (f"image statistics {short}", partial(check_image_statistics, camera=camera)),
        ]
    return checks + [
        ("video order", check_video_order),
        ("joint limits", check_joint_limits),
        ("joint speed", check_joint_speed),
        ("tracking", check_tracking),
        ("saturation", check_saturation),
        ("success", check_success),
    ]


def run_checks(evidence: DatasetView) -> list[Result]:
    """Runs every check, whatever becomes of the others."""
    return [_run(name, check, evidence) for name, check in all_checks(evidence)]


def _run(name: str, check: Check, evidence: DatasetView) -> Result:
    result, begin = Result(name), time.perf_counter()
    try:
        with np.errstate(all="ignore"):
            result.note = check(evidence, result)
    except UnavailableError as reason:
        result.skipped, result.note = True, str(reason)
    except Exception as error:  # a dataset may be broken in ways that nobody has thought of
        result.error(f"could not be checked: {type(error).__name__}: {first_line(error)}")
    result.seconds = time.perf_counter() - begin
    return result
