"""A report as one self-contained HTML page: no scripts, no other files, images and charts inline.

The page itself is the template `report.html.j2`; here is the data that it shows.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from pp_recorder.checks import (
    CheckResult,
    DatasetView,
    UnavailableError,
    charts,
    feature_names,
    tracking_error,
)
from pp_recorder.dataset import keys
from pp_recorder.dataset.video import encode_jpeg

_TEMPLATE = "report.html.j2"
_KEY_FRAMES = ("first", "grasp", "place", "last")
_MAX_CURVES = 16
_MAX_FINDINGS = 200
_MAX_EPISODES = 12  # listed for one kind of failure
_STATISTICS = ("min", "max", "mean", "std")


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        content: The data that the template shows.
        problem: The reason why there is none, shown instead; or "".
    """

    content: Any
    problem: str = ""


class KeyFrame(NamedTuple):
    """An image of an episode; `url` holds the whole image, or "" if there is none."""

    label: str
    frame: int
    url: str = ""
    width: int = 0
    height: int = 0


class Failure(NamedTuple):
    """A kind of failure and the episodes that failed so."""

    reason: str
    phase: str
    episodes: list[int]


class StatisticsRow(NamedTuple):
    """The stored statistics of one number of a feature, as text."""

    feature: str
    name: str
    values: list[str]


def render(view: DatasetView, results: list[CheckResult]) -> str:
    """Return the page.

    Args:
        view: The dataset.
        results: The results of its checks.

    Returns:
        HTML, complete in itself.
    """
    findings = [finding for result in results for finding in result.findings]
    findings.sort(key=lambda finding: finding.severity != "error")
    sections = {
        "checks": Section(results),
        "findings": Section(
            {
                "findings": findings[:_MAX_FINDINGS],
                "num_more": max(0, len(findings) - _MAX_FINDINGS),
            }
        ),
        "images": _section(_key_images, view),
        "table": _section(_table, view),
        "failures": _section(_failures, view),
        "motion": _section(_motion, view),
        "lengths": _section(_lengths, view),
        "statistics": _section(_statistics, view),
    }
    statuses = [result.status for result in results]
    environment = page_environment(Path(__file__).parent)
    environment.filters["pixels"] = lambda value: f"{value:.1f}"
    return environment.get_template(_TEMPLATE).render(
        name=view.root.resolve().name,
        root=view.root,
        totals=_totals(view),
        failed=statuses.count("FAIL"),
        warned=statuses.count("WARN"),
        done=len(statuses) - statuses.count("SKIP"),
        sections=sections,
        charts=charts,
    )


def page_environment(folder: Path) -> jinja2.Environment:
    """Return an environment for the templates of pages in a folder, which escapes all values."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )


def _section(compute: Callable[[DatasetView], Any], view: DatasetView) -> Section:
    """Return a section; one that cannot be shown does not keep the others from being shown."""
    try:
        return Section(compute(view))
    except UnavailableError as reason:
        return Section(None, f"Not shown: {reason}.")
    except Exception as error:  # a broken dataset must not cost the rest of the page
        return Section(None, f"Could not be drawn: {type(error).__name__}: {error}")


def _totals(view: DatasetView) -> list[tuple[str, str]]:
    seconds = view.num_frames / view.fps if view.fps else 0
    files = [f for f in view.root.rglob("*") if f.is_file()]
    size = sum({(s := f.stat()).st_ino: s.st_size for f in files}.values())  # hard links once
    totals = [
        ("Episodes", f"{view.num_episodes:,}"),
        ("Frames", f"{view.num_frames:,}"),
        ("Duration", f"{seconds / 60:.1f} min at {view.fps:g} fps"),
        ("Robot", str(view.info.get("robot_type") or "not stated")),
        ("Cameras", ", ".join(map(view.short, view.cameras)) or "none"),
        ("Size", f"{size / 1e6:,.1f} MB"),
    ]
    try:
        tasks = [str(task) for task in view.tasks]
        success = [bool(value) for value in _episode_values(view, keys.EPISODE_SUCCESS)]
    except UnavailableError:
        return totals
    totals.append(("Tasks", "; ".join(tasks[:3]) + (" ..." if len(tasks) > 3 else "")))
    share = sum(success) / len(success)
    return [*totals, ("Success", f"{sum(success)} of {len(success)} ({share:.0%})")]


def _episode_values(view: DatasetView, name: str) -> list[Any]:
    values = [row.get(name) for row in view.episodes]
    if not values or any(value is None for value in values):
        raise UnavailableError(f"the episodes have no column {name}")
    return values


# ------------------------------------------------------------------------------------------ images


def _key_images(view: DatasetView) -> dict[str, Any]:
    if not view.cameras:
        raise UnavailableError("there are no cameras")
    return {
        "episodes": [_episode(view, e, frames) for e, frames in view.key_frames.items()],
        "num_episodes": view.num_episodes,
    }


def _episode(view: DatasetView, episode: int, frames: list[int]) -> dict[str, Any]:
    row = view.episodes[episode]
    return {
        "number": episode,
        "length": row.get(keys.LENGTH),
        "success": row.get(keys.EPISODE_SUCCESS),
        "reason": str(row.get(keys.EPISODE_FAILURE_REASON) or "no reason given"),
        "phase": str(row.get(keys.EPISODE_FAILURE_PHASE) or "unknown phase"),
        "cameras": [
            (view.short(c), _camera_frames(view, c, episode, frames)) for c in view.cameras
        ],
    }


def _camera_frames(
    view: DatasetView, camera: str, episode: int, frames: list[int]
) -> list[KeyFrame]:
    try:
        images = view.scan(camera).episodes[episode].key_images
    except (UnavailableError, KeyError):
        images = {}
    return [
        _key_frame(label, frame, images.get(frame))
        for label, frame in zip(_KEY_FRAMES, frames, strict=True)
    ]


def _key_frame(label: str, frame: int, image: np.ndarray | None) -> KeyFrame:
    if image is None:
        return KeyFrame(label, frame)
    text = base64.b64encode(encode_jpeg(image)).decode()
    height, width = image.shape[:2]
    return KeyFrame(label, frame, f"data:image/jpeg;base64,{text}", width, height)


# ---------------------------------------------------------------------------------------- outcomes


def _table(view: DatasetView) -> dict[str, Any]:
    pick, place = _points(view, "episode/pick"), _points(view, "episode/place")
    try:
        outcomes = [bool(value) for value in _episode_values(view, keys.EPISODE_SUCCESS)]
    except UnavailableError:
        unknown: list[bool | None] = [None] * len(pick)
        return {"places": charts.places_chart(pick, place, unknown), "regions": None}
    return {
        "places": charts.places_chart(pick, place, [*outcomes]),
        "regions": charts.region_map(pick, np.array(outcomes)),
    }


def _points(view: DatasetView, name: str) -> np.ndarray:
    """Return a column of points on the table, (episodes, 2), m."""
    points = np.array(_episode_values(view, name), dtype=np.float64)
    if points.ndim != 2 or points.shape[1] < 2:
        raise UnavailableError(f"{name} does not hold points")
    return points[:, :2]


def _failures(view: DatasetView) -> dict[str, Any]:
    outcomes = _episode_values(view, keys.EPISODE_SUCCESS)
    kinds: dict[tuple[str, str], list[int]] = {}
    for i, (row, success) in enumerate(zip(view.episodes, outcomes, strict=True)):
        if not success:
            reason = str(row.get(keys.EPISODE_FAILURE_REASON) or "not stated")
            phase = str(row.get(keys.EPISODE_FAILURE_PHASE) or "")
            kinds.setdefault((reason, phase), []).append(i)
    failures = [Failure(*kind, episodes) for kind, episodes in kinds.items()]
    failures.sort(key=lambda failure: -len(failure.episodes))
    return {"failures": failures, "max_episodes": _MAX_EPISODES}


# ----------------------------------------------------------------------------------------- numbers


def _motion(view: DatasetView) -> dict[str, Any]:
    episode = 0
    begin, end = view.spans[episode]
    pairs = _state_action_pairs(view)
    times = np.arange(end - begin) / (view.fps or 1)
    curves = [
        (
            name,
            charts.curves_chart(
                name,
                times,
                None if state is None else state[begin:end],
                None if action is None else action[begin:end],
            ),
        )
        for name, state, action in pairs[:_MAX_CURVES]
    ]
    return {
        "episode": episode,
        "num_frames": end - begin,
        "tracking": _tracking(view),
        "num_curves": len(pairs),
        "max_curves": _MAX_CURVES,
        "curves": [(name, chart) for name, chart in curves if chart],
    }


def _tracking(view: DatasetView) -> dict[str, float] | None:
    """Return the largest tracking error and the 99th percentile in rad, or None if unknown."""
    try:
        error = tracking_error(view)
    except UnavailableError:
        return None
    known = error[np.isfinite(error)]
    if not known.size:
        return None
    return {"largest": float(known.max()), "percentile_99": float(np.percentile(known, 99))}


def _state_action_pairs(
    view: DatasetView,
) -> list[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """Return label, state and action of numbers that belong together, each (frames,) or None."""
    action, state = _optional(view, keys.ACTION), _optional(view, keys.STATE)
    if action is None and state is None:
        raise UnavailableError("there are neither states nor actions")
    if action is None or state is None:
        only = state if action is None else action
        key = keys.STATE if action is None else keys.ACTION
        names = _labels(view, key, only.shape[1] if only is not None else 0)
        values = [only[:, k] for k in range(len(names))] if only is not None else []
        return [
            (n, v if action is None else None, None if action is None else v)
            for n, v in zip(names, values, strict=True)
        ]
    names = _labels(view, keys.ACTION, action.shape[1])
    state_names = _labels(view, keys.STATE, state.shape[1])
    same_width = action.shape[1] == state.shape[1]
    pairs = []
    for k, name in enumerate(names):
        match = name.replace("action_joint_", "joint_pos_").replace(
            "action_gripper", "gripper_pos_0"
        )
        at = state_names.index(match) if match in state_names else k if same_width else None
        pairs.append((name, None if at is None else state[:, at], action[:, k]))
    return pairs


def _optional(view: DatasetView, key: str) -> np.ndarray | None:
    try:
        return view.column(key)
    except UnavailableError:
        return None


def _labels(view: DatasetView, key: str, size: int) -> list[str]:
    names = feature_names(view.features.get(key, {}))
    return names if len(names) == size else [f"{key}[{k}]" for k in range(size)]


def _lengths(view: DatasetView) -> dict[str, Any]:
    lengths = np.array(_episode_values(view, keys.LENGTH), dtype=np.float64)
    chart = charts.histogram(lengths, ("frames", "episodes"))
    text = (
        f"From {lengths.min():.0f} to {lengths.max():.0f} frames, "
        f"median {np.median(lengths):.0f}, {len(lengths)} episodes."
    )
    chart.title = f"Histogram of the lengths. {text}"
    return {"text": text, "chart": chart}


def _statistics(view: DatasetView) -> dict[str, Any]:
    if not view.stats:
        raise UnavailableError("there is no meta/stats.json")
    rows = [
        row
        for key in view.features
        if isinstance(stored := view.stats.get(key), dict)
        for row in _statistics_rows(view, key, stored)
    ]
    return {"columns": _STATISTICS, "rows": rows}


def _statistics_rows(view: DatasetView, key: str, stored: dict[str, Any]) -> list[StatisticsRow]:
    columns = [np.ravel(stored.get(name, [])) for name in _STATISTICS]
    size = min(column.size for column in columns)
    is_image = view.features[key]["dtype"] in ("video", "image")
    names = ["red", "green", "blue"] if is_image else _labels(view, key, size)
    names = names if len(names) == size else [str(k) for k in range(size)]
    return [
        StatisticsRow(
            key, "" if size == 1 else name, [f"{float(column[k]):.4g}" for column in columns]
        )
        for k, name in enumerate(names)
    ]
