"""Checks of the stored statistics of numbers and images against recomputed ones."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pp_recorder.checks.findings import CheckResult, UnavailableError
from pp_recorder.checks.view import DatasetView, array, is_depth
from pp_recorder.dataset import keys, stats
from pp_recorder.dataset.reader import stored_stats
from pp_recorder.dataset.schema import is_vector

# lerobot's own delete, split and merge do not update the statistics of these features.
STALE_IN_LEROBOT = (keys.INDEX, keys.EPISODE_INDEX, keys.TASK_INDEX)
SQUARES_MARGIN = 1e-4  # share of the largest square
IMAGE_MEAN_MARGIN = 0.02  # of [0, 1]; stored before compression, recomputed after it
IMAGE_STD_MARGIN = 0.03
IMAGE_SQUARES_MARGIN = 0.03  # share of the mean square
IMAGE_EXTREME_MARGIN = 0.15
ZERO_STD_HINT = (
    "lerobot 0.5 and older write 0 here because squares overflow in 8 bits: recompute the "
    "statistics before training"
)


def check_statistics(view: DatasetView, result: CheckResult) -> str:
    """Check the statistics of numbers, of the dataset and of each episode."""
    if view.num_episodes == 0:
        return "no rows"
    if not view.stats:
        result.add_error("meta/stats.json is missing or cannot be read")
    checked = 0
    for key, feature in view.features.items():
        if not is_vector(feature):
            continue
        try:
            values = view.column(key).astype(np.float64)
        except UnavailableError:
            continue
        checked += 1
        faults = []
        if view.stats:
            stored = view.stats.get(key)
            covered = view.column_of_stats(key).astype(np.float64)
            faults += [(None, f"meta/stats.json, {key}", f) for f in _stats_faults(stored, covered)]
        faults += _episode_stats_faults(view, key, values)
        _report_stats(key, faults, result)
    return f"{checked} features recomputed"


def _report_stats(key: str, faults: list[tuple[int | None, str, str]], result: CheckResult) -> None:
    """Add one finding per place, or one warning for a feature that lerobot leaves stale."""
    by_place: dict[str, list[tuple[int | None, str]]] = {}
    for episode, place, fault in faults:
        by_place.setdefault(place, []).append((episode, fault))
    for place, found in by_place.items():
        episode, fault = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        if key in STALE_IN_LEROBOT:
            more = f" ({len(by_place)} such); lerobot's own tools leave these statistics stale"
            result.add_warning(f"{place}: {fault}{more}", episode)
            return
        result.add_error(f"{place}: {fault}{more}", episode)


def _stats_faults(stored: Any, values: np.ndarray) -> Iterator[str]:
    if not isinstance(stored, dict):
        yield "there are no statistics"
        return
    expected = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
    }
    scale = np.abs(values).max(0)
    for name, numbers in expected.items():
        found = array(stored.get(name))
        if found is None or found.size != numbers.size:
            yield f"{name} has {0 if found is None else found.size} values, expected {numbers.size}"
        elif (bad := _first_deviation(name, found.ravel(), numbers, scale)) is not None:
            yield f"{name}[{bad}] is {found.ravel()[bad] + 0:.6g}, recomputed {numbers[bad]:.6g}"
    count = array(stored.get("count"))
    if count is None or count.size != 1 or count.ravel()[0] != len(values):
        yield f"count is {stored.get('count')}, expected [{len(values)}]"
    yield from _quantile_faults(stored, scale)


def _first_deviation(
    name: str, found: np.ndarray, expected: np.ndarray, scale: np.ndarray
) -> int | None:
    """Return the index of the first number that deviates, or None.

    The margin of std is wider because lerobot sums squares in float32: of a constant 1 in 3,000
    rows it makes a deviation of 0.005.
    """
    margin = (2e-3 if name == "std" else 1e-4) * scale + 1e-6
    is_near = np.abs(found - expected) <= margin
    if name == "std":
        is_near |= np.abs(found**2 - expected**2) <= SQUARES_MARGIN * scale**2
    bad = np.flatnonzero(~is_near & np.isfinite(expected))
    return int(bad[0]) if bad.size else None


def _quantile_faults(stored: dict[str, Any], scale: np.ndarray | float) -> Iterator[str]:
    ladder = [(n, array(stored.get(n))) for n in ("min", *stats.QUANTILES, "max") if n in stored]
    for (low, a), (high, b) in zip(ladder, ladder[1:], strict=False):
        if a is None or b is None or a.size != b.size:
            continue
        margin = 1e-3 * np.asarray(scale).ravel() + 1e-6
        if not (a.ravel() <= b.ravel() + margin).all():
            yield f"{low} is above {high}, expected rising quantiles"


def _episode_stats_faults(
    view: DatasetView, key: str, values: np.ndarray
) -> list[tuple[int | None, str, str]]:
    """Return episode, place and fault of statistics in meta/episodes, which may be absent."""
    try:
        stored = _stored_columns(view, key)
        spans = view.spans if stored else []
    except UnavailableError as error:
        return [(None, f"meta/episodes, {key}", str(error))]
    faults: list[tuple[int | None, str, str]] = []
    for i, (begin, end) in enumerate(spans):
        own = {name: column[i] for name, column in stored.items()}
        place = f"meta/episodes, episode {i}, {key}"
        faults += [(i, place, fault) for fault in _stats_faults(own, values[begin:end])]
    return faults


def _stored_columns(view: DatasetView, key: str) -> dict[str, np.ndarray]:
    """Return the columns stats/<key>/* of meta/episodes, each (episodes, size)."""
    names = ("min", "max", "mean", "std", "count", *stats.QUANTILES)
    present = [n for n in names if keys.stats_column(key, n) in view.episode_table.column_names]
    if present and (missing := sorted({"min", "max", "mean", "std", "count"} - set(present))):
        raise UnavailableError(f"there are no columns stats/{key}/ for {missing}")
    return {n: view.episode_column(keys.stats_column(key, n)) for n in present}


def check_image_statistics(view: DatasetView, result: CheckResult, camera: str) -> str:
    """Check the statistics of a camera against its decoded images."""
    if view.num_episodes == 0:
        return "no pictures"
    if view.features[camera]["shape"][-1] != 3 or is_depth(view.features[camera]):
        raise UnavailableError("it shows no colours")
    try:
        columns = _stored_columns(view, camera)
    except UnavailableError as error:
        result.add_error(f"meta/episodes: {error}")
        columns = {}
    per_episode = {i: s.image_stats for i, s in view.scan(camera).episodes.items()}
    zero_bug = "std" in columns and not columns["std"].any()
    total, worst = None, 0.0
    # Every fourth pixel, from the corner on, lies up to 1.5 pixels off the middle of the image.
    margin = IMAGE_MEAN_MARGIN + 1.5 / min(view.features[camera]["shape"][:2])
    for i, decoded in sorted(per_episode.items()):
        if decoded is None:
            continue
        total = stats.fold(total, decoded)
        own = {name: column[i].reshape(-1, 1, 1) for name, column in columns.items()}
        if columns and not zero_bug:
            for fault in _image_faults(own, decoded, margin, not own["std"].any()):
                result.add_error(f"meta/episodes, episode {i}: {fault}", i)
            worst = max(worst, float(np.abs(own["mean"] - decoded["mean"]).max()))
    if zero_bug:
        result.add_error(f"meta/episodes: std is 0 in every episode; {ZERO_STD_HINT}")
    if total is None:
        raise UnavailableError("no picture could be decoded")
    complete = all(decoded is not None for decoded in per_episode.values())
    for row in view.uncounted:
        own = stored_stats(row, camera)
        if own.keys() >= {*stats.BASIC}:
            shaped = {name: value.reshape(-1, 1, 1) for name, value in own.items()}
            total = stats.fold(total, {**shaped, "count": own["count"]})
    for fault in _image_faults(view.stats.get(camera), total, margin, zero_bug, complete):
        result.add_error(f"meta/stats.json: {fault}")
    return f"largest difference of an episode's mean {worst:.4f}" if columns else "no episodes'"


def _image_faults(
    stored: Any, decoded: stats.Stats, margin: float, zero_bug: bool, complete: bool = True
) -> Iterator[str]:
    if not isinstance(stored, dict):
        yield "there are no statistics of the pictures"
        return
    arrays = {n: array(stored.get(n)) for n in ("min", "max", "mean", "std")}
    for name, value in arrays.items():
        if value is None or value.shape != (3, 1, 1):
            found = None if value is None else value.shape
            yield f"{name} has shape {found}, expected (3, 1, 1)"
            return
    good = {n: v for n, v in arrays.items() if v is not None}
    top = max(float(v.max()) for v in good.values())
    if top > 1 + 1e-6 or min(float(v.min()) for v in good.values()) < -1e-6:
        yield f"values go up to {top:.4g}, expected all within [0, 1]"
        return
    yield from _quantile_faults(stored, 1.0)
    count = array(stored.get("count"))
    if count is None or count.size != 1 or not count.ravel()[0] > 0:
        yield f"count is {stored.get('count')}, expected the number of pictures"
    if complete:
        yield from _image_values_faults(good, decoded, margin, zero_bug)


def _image_values_faults(
    stored: dict[str, np.ndarray], decoded: stats.Stats, margin: float, zero_bug: bool
) -> Iterator[str]:
    if np.abs(stored["mean"] - decoded["mean"]).max() > margin:
        yield f"mean is {_rgb(stored['mean'])}, decoded pictures give {_rgb(decoded['mean'])}"
    zero = zero_bug or not stored["std"].any()
    off = np.abs(stored["std"] - decoded["std"]) > IMAGE_STD_MARGIN
    if not zero:  # lerobot 0.6 sums squares in float32, which adds up to some per cent of them
        squares = decoded["mean"] ** 2 + decoded["std"] ** 2
        off &= np.abs(stored["std"] ** 2 - decoded["std"] ** 2) > IMAGE_SQUARES_MARGIN * squares
    if off.any():
        hint = f"; {ZERO_STD_HINT}" if zero else ""
        yield f"std is {_rgb(stored['std'])}, decoded pictures give {_rgb(decoded['std'])}{hint}"
    # The stored values may come from fewer pixels, so they may miss extremes of a few pixels.
    margin = IMAGE_EXTREME_MARGIN
    low, high = stored["min"], stored["max"]
    if (low < decoded["min"] - margin).any() or (low > decoded["q01"] + margin).any():
        yield f"min is {_rgb(low)}, decoded pictures give {_rgb(decoded['min'])}"
    if (high > decoded["max"] + margin).any() or (high < decoded["q99"] - margin).any():
        yield f"max is {_rgb(high)}, decoded pictures give {_rgb(decoded['max'])}"


def _rgb(value: np.ndarray) -> list[float]:
    return np.round(value.ravel(), 3).tolist()
