"""The numbers of a dataset by their names: what belongs together, and how it moves."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pp_recorder.checks.findings import UnavailableError
from pp_recorder.checks.view import DatasetView, feature_names
from pp_recorder.dataset import keys
from pp_recorder.dataset.schema import is_vector

_FILLERS = {"action", "target", "goal", "command", "cmd", "desired", "main", "pos", "position"}
_POSITION, _VELOCITY = ("position", "qpos", "pos"), ("velocity", "qvel", "vel")


@dataclass(frozen=True)
class Signal:
    """One number of every frame.

    Attributes:
        key: The feature that holds it.
        name: Its name.
        values: (frames,) float64.
    """

    key: str
    name: str
    values: np.ndarray


def signals(view: DatasetView, key: str) -> list[Signal]:
    """Return the named numbers of a feature; none if it has no names or cannot be read."""
    names = feature_names(view.features.get(key, {}))
    values = _values(view, key, names)
    if values is None:
        return []
    columns = values.astype(np.float64).T
    return [Signal(key, name, column) for name, column in zip(names, columns, strict=True)]


def _values(view: DatasetView, key: str, names: list[str]) -> np.ndarray | None:
    """Return a feature's rows, (frames, names), or None if it cannot be read or named so."""
    try:
        values = view.column(key)[: view.spans[-1][1]]
    except UnavailableError:
        return None
    return values if len(names) == values.shape[1] else None


def all_signals(view: DatasetView) -> list[Signal]:
    """Return the named numbers of all vectors."""
    vectors = [key for key, feature in view.features.items() if is_vector(feature)]
    return [signal for key in vectors for signal in signals(view, key)]


def stack(chosen: list[Signal]) -> np.ndarray:
    """Return signals as columns, (frames, signals)."""
    return np.stack([signal.values for signal in chosen], axis=1)


def triples(view: DatasetView, suffixes: str) -> dict[tuple[str, str], np.ndarray]:
    """Return numbers called *_x, *_y, ... by feature and stem, each (frames, len(suffixes))."""
    found = {}
    for key, feature in view.features.items():
        names = feature_names(feature)
        for name in names:
            stem = name.removesuffix(f"_{suffixes[0]}")
            parts = [f"{stem}_{axis}" for axis in suffixes]
            values = _values(view, key, names) if stem != name and set(parts) <= {*names} else None
            if values is not None:
                columns = [names.index(part) for part in parts]
                found[key, stem] = values[:, columns].astype(np.float64)
    return found


def quaternions(view: DatasetView) -> dict[tuple[str, str], np.ndarray]:
    """Return the quaternions (frames, 4), w first, by feature and stem."""
    groups = triples(view, "wxyz")
    return {(key, stem): v for (key, stem), v in groups.items() if stem.endswith("quat")}


def rotations(quaternion: np.ndarray) -> np.ndarray:
    """Return rotation matrices (n, 3, 3) of quaternions (n, 4), w first, of any length."""
    length = np.linalg.norm(quaternion, axis=1, keepdims=True)
    w, x, y, z = (quaternion / np.where(length > 1e-9, length, 1)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def positions_and_velocities(view: DatasetView) -> dict[str, tuple[list[Signal], list[Signal]]]:
    """Return, by what their names have in common, positions and their velocities."""
    by_name = {(s.key, s.name): s for s in all_signals(view) if s.key != keys.ACTION}
    groups: dict[str, tuple[list[Signal], list[Signal]]] = {}
    for (key, name), position in by_name.items():
        for old, new in zip(_POSITION, _VELOCITY, strict=True):
            other = re.sub(rf"(?<![a-z]){old}(?![a-z])", new, name)
            velocity = by_name.get((key, other))
            if other != name and velocity is not None:
                group = groups.setdefault(re.sub(r"_?(\d+|[xyz])$", "", name), ([], []))
                group[0].append(position)
                group[1].append(velocity)
                break
    return groups


def targets(view: DatasetView) -> list[tuple[Signal, Signal]]:
    """Return the numbers of the action that are targets, each with the state that follows it."""
    states: dict[tuple[str, ...], Signal] = {}
    for signal in signals(view, keys.STATE):
        states.setdefault(_essence(signal.name), signal)
    found = []
    for action in signals(view, keys.ACTION):
        what = _essence(action.name)
        state = states.get(what) or states.get((*what, "0"))
        if state is not None:
            found.append((action, state))
    return found


def _essence(name: str) -> tuple[str, ...]:
    parts = [part for part in re.split(r"[._/\s-]+", name.lower()) if part]
    return tuple(part for part in parts if part not in _FILLERS)


def moving(values: np.ndarray) -> np.ndarray:
    """Return which columns of (frames, size) move: not rounding, nor next to nothing."""
    spread = values.std(axis=0)
    return spread > 1e-4 * (1e-3 + np.abs(values).max(axis=0))


def episodes_of(view: DatasetView, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and rows of every episode."""
    for episode, (begin, end) in enumerate(view.spans):
        yield episode, values[begin:end]


def lag_errors(action: np.ndarray, state: np.ndarray, lags: range) -> np.ndarray:
    """Return the mean squared difference of `state`, so many frames later, and `action`.

    All lags are compared at the same frames of the action, so that rest at an end favours none.

    Args:
        action: (frames, size) of one episode.
        state: (frames, size).
        lags: In frames.

    Returns:
        (lags, size); NaN where the episode is too short.
    """
    first, last = max(0, -lags[0]), len(action) - max(0, lags[-1])
    if last - first < 5:
        return np.full((len(lags), action.shape[1]), np.nan)
    rows = np.arange(first, last)
    return np.array([((state[rows + k] - action[rows]) ** 2).mean(axis=0) for k in lags])
