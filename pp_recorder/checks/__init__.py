"""Checks of a LeRobot v3.0 dataset, which name the episode and frame of every problem.

Each check covers one aspect, adds its findings to a `CheckResult` and returns a note. A check that
fails, or that cannot be carried out because something else is broken, does not stop the others.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pp_recorder.checks.agreement import (
    check_hand_pose,
    check_lag,
    check_outcome,
    check_repetition,
    check_velocities,
)
from pp_recorder.checks.findings import CheckResult, Finding, UnavailableError, first_line
from pp_recorder.checks.metadata import check_episodes, check_info, check_leftovers, check_tasks
from pp_recorder.checks.motion import check_motion
from pp_recorder.checks.robot import (
    check_bounds,
    check_joint_limits,
    check_joint_speed,
    check_quaternions,
    check_saturation,
    check_success,
    check_tracking,
    tracking_error,
)
from pp_recorder.checks.rows import check_data, check_rows, check_timestamps
from pp_recorder.checks.stats import check_image_statistics, check_statistics
from pp_recorder.checks.videos import check_images, check_intrinsics, check_video, check_video_order
from pp_recorder.checks.view import DatasetView, feature_names

__all__ = [
    "CheckResult",
    "DatasetView",
    "Finding",
    "UnavailableError",
    "feature_names",
    "inspect_dataset",
    "run_checks",
    "tracking_error",
]

Check = Callable[[DatasetView, CheckResult], str]

_LOOKS = 5  # at a dataset that changes


def all_checks(view: DatasetView) -> list[tuple[str, Check]]:
    """Return name and function of every check, in the order of the report."""
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
    for camera in view.cameras:
        short = view.short(camera)
        checks += [
            (f"video {short}", partial(check_video, camera=camera)),
            (f"pictures {short}", partial(check_images, camera=camera)),
            (f"motion {short}", partial(check_motion, camera=camera)),
            (f"image statistics {short}", partial(check_image_statistics, camera=camera)),
        ]
    return checks + [
        ("video order", check_video_order),
        ("intrinsics", check_intrinsics),
        ("bounds", check_bounds),
        ("joint limits", check_joint_limits),
        ("joint speed", check_joint_speed),
        ("tracking", check_tracking),
        ("saturation", check_saturation),
        ("quaternions", check_quaternions),
        ("success", check_success),
        ("velocities", check_velocities),
        ("hand pose", check_hand_pose),
        ("lag", check_lag),
        ("outcome", check_outcome),
        ("repetition", check_repetition),
    ]


def run_checks(view: DatasetView) -> list[CheckResult]:
    """Run every check, even if others fail."""
    return [_run(name, check, view) for name, check in all_checks(view)]


def inspect_dataset(root: Path, looks: int = _LOOKS) -> tuple[DatasetView, list[CheckResult]]:
    """Return a dataset as it is at one moment, and the results of every check.

    What may be wrong only because a run has joined files in the meantime is looked at again.

    Args:
        root: The dataset's directory.
        looks: How often at most.

    Raises:
        DatasetError: There is no usable `info.json`.
    """
    view = DatasetView(root)
    results = run_checks(view)
    if any(result.status == "FAIL" for result in results) and view.has_changed():
        if looks > 1:
            return inspect_dataset(root, looks - 1)
        results[0].add_warning("a run is writing the dataset; look again when it has ended")
    return view, results


def _run(name: str, check: Check, view: DatasetView) -> CheckResult:
    result, begin = CheckResult(name), time.perf_counter()
    try:
        with np.errstate(all="ignore"):
            result.note = check(view, result)
    except UnavailableError as reason:
        result.skipped, result.note = True, str(reason)
    except Exception as error:  # a dataset may be broken in a way that no check expects
        result.add_error(f"could not be checked: {type(error).__name__}: {first_line(error)}")
    result.seconds = time.perf_counter() - begin
    return result
