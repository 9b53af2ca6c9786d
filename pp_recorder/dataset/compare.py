"""Plays recorded actions again, and compares what happens with what was recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pp_recorder.dataset.reader import Dataset
from pp_recorder.rollout import Episode, Step

_OUTCOME = ("next.reward", "next.done", "next.success")


class RecordedActions:
    """A `Policy` that repeats the actions of an episode, one per step."""

    def __init__(self, actions: Sequence[np.ndarray] | np.ndarray) -> None:
        self._actions = actions
        self._next = 0

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Begins with the first action."""
        self._next = 0

    def act(self, observation: Any) -> np.ndarray:
        """The next recorded action."""
        self._next += 1
        return self._actions[self._next - 1]


@dataclass
class Comparison:
    """How an episode differs from its recording.

    Attributes:
        episode: Its index in the dataset.
        tolerance: Differences up to this are none.
        largest: Greatest absolute difference per column.
        differing: The columns that differ, each with the first frame in which it does.
    """

    episode: int
    tolerance: float
    largest: dict[str, float] = field(default_factory=dict)
    differing: dict[str, int] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differing

    def add(self, key: str, frame: int, difference: float) -> None:
        """Takes the difference in one column of one frame."""
        self.largest[key] = max(self.largest.get(key, 0.0), difference)
        if not difference <= self.tolerance:  # NaN differs
            self.differing.setdefault(key, frame)

    def __str__(self) -> str:
        if self.equal:
            worst = max(self.largest.values(), default=0.0)
            how = "bit for bit" if worst == 0 else f"within {self.tolerance:g}"
            return f"episode {self.episode}: equal {how}"
        parts = [
            f"{key} from frame {frame} (largest difference {self.largest[key]:.3g})"
            for key, frame in self.differing.items()
        ]
        return f"episode {self.episode}: differs in {', '.join(parts)}"


class Compare:
    """A sink that holds an episode against the recording.

    Args:
        dataset: The recording.
        episode: Which of its episodes.
        row: The dataset's columns for a step, as the recorder was given it.
        tolerance: For numbers; 0 asks for the same bits.
    """

    def __init__(self, dataset: Dataset, episode: int, row, tolerance: float = 0.0) -> None:
        self.result = Comparison(episode, tolerance)
        self._rows = dataset.rows(episode)
        self._length = len(self._rows["index"])
        self._row = row

    def begin(self, seed: int) -> None:
        """Nothing to do."""

    def add(self, step: Step) -> None:
        """Compares one frame."""
        values = self._row(step)
        outcome = zip(_OUTCOME, (step.reward, step.done, step.success), strict=True)
        values |= {key: np.array([value]) for key, value in outcome}
        for key, value in values.items():
            if key in self._rows and step.index < self._length:
                recorded = self._rows[key][step.index]
                found = np.asarray(value).astype(recorded.dtype).ravel()
                difference = np.abs(found.astype(np.float64) - recorded.astype(np.float64)).max()
                self.result.add(key, step.index, float(difference))

    def end(self, episode: Episode) -> None:
        """Compares the lengths."""
        if episode.length != self._length:
            self.result.add("length", episode.length, abs(episode.length - self._length) + np.inf)

    def abort(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def compare_episodes(one: Dataset, k: int, other: Dataset, m: int, tolerance: float) -> Comparison:
    """How episode k of one dataset differs from episode m of another, pictures included."""
    result = Comparison(k, tolerance)
    ours, theirs = one.rows(k), other.rows(m)
    if one.episodes[k]["tasks"] != other.episodes[m]["tasks"]:
        result.add("task", 0, np.inf)
    for key in sorted(ours.keys() - {"index", "episode_index", "task_index"}):
        a, b = ours[key], theirs.get(key)
        if b is None or a.shape != b.shape:
            result.add(key, 0, np.inf)
            continue
        differences = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(axis=1)
        frame = int(np.argmax(~(differences <= tolerance)))
        result.add(key, frame, float(differences.max()))
    for camera in one.cameras:
        pairs = zip(one.frames(k, camera), other.frames(m, camera), strict=True)
        for frame, (a, b) in enumerate(pairs):
            result.add(camera, frame, float(np.abs(a.astype(int) - b.astype(int)).max()))
    return result
