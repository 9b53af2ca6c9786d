"""Replay of recorded actions, and comparison of episodes with their recording."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pp_recorder.dataset import keys
from pp_recorder.dataset.reader import Dataset
from pp_recorder.rollout import Disturbance, Episode, EpisodeSink, Policy, Step

_OUTCOME = (keys.REWARD, keys.DONE, keys.SUCCESS)


class ReplayPolicy(Policy):
    """A policy that repeats the actions of an episode, one per step.

    Args:
        actions: One per step.
        phases: What each action is for; by default nothing is known of it.

    Attributes:
        phase: That of the last action, or "".
    """

    def __init__(
        self, actions: Sequence[np.ndarray] | np.ndarray, phases: Sequence[str] = ()
    ) -> None:
        self._actions, self._phases = actions, phases
        self._next = 0
        self.phase = ""

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Start again with the first action."""
        self._next = 0

    def act(self, observation: Any) -> np.ndarray:
        """Return the next recorded action."""
        self.phase = self._phases[self._next] if self._phases else ""
        self._next += 1
        return self._actions[self._next - 1]


class RecordedExecution(Disturbance):
    """A disturbance that repeats what was executed in an episode.

    Args:
        executed: The executed actions, one per step.
    """

    def __init__(self, executed: np.ndarray) -> None:
        self._executed, self._next = executed, 0

    def reset(self, rng: np.random.Generator) -> None:
        """Start again with the first action."""
        self._next = 0

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """Return what was executed in place of the action."""
        self._next += 1
        return self._executed[self._next - 1]


@dataclass
class Comparison:
    """The differences between an episode and its recording.

    Attributes:
        episode: The episode's index in the dataset.
        tolerance: Largest absolute difference that counts as equal.
        largest: Largest absolute difference per column.
        differing: The first frame that differs, per column that differs.
    """

    episode: int
    tolerance: float
    largest: dict[str, float] = field(default_factory=dict)
    differing: dict[str, int] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Return True if no column differs."""
        return not self.differing

    def add(self, key: str, frame: int, difference: float) -> None:
        """Add the absolute difference in one column of one frame."""
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


class ComparisonSink(EpisodeSink):
    """A sink that compares an episode with its recording.

    Args:
        dataset: The recording.
        episode: The episode's index in it.
        row: Function from a step to the dataset's columns, as in `DatasetSchema.row`.
        tolerance: Largest absolute difference that counts as equal; 0 requires the same bits.

    Attributes:
        result: The differences so far.
    """

    def __init__(
        self,
        dataset: Dataset,
        episode: int,
        row: Callable[[Step], dict[str, np.ndarray]],
        tolerance: float = 0.0,
    ) -> None:
        self.result = Comparison(episode, tolerance)
        self._dataset, self._episode = dataset, episode
        self._rows: dict[str, np.ndarray] | None = None
        self._length = dataset.episodes[episode][keys.LENGTH]
        self._row = row

    def add(self, step: Step) -> None:
        """Compare one frame."""
        values = self._row(step)
        outcome = zip(_OUTCOME, (step.reward, step.done, step.success), strict=True)
        values |= {key: np.array([value]) for key, value in outcome}
        if self._rows is None:  # only what is compared: others may have added what is no number
            self._rows = self._dataset.rows(self._episode, values.keys())
        for key, value in values.items():
            if key in self._rows and step.index < self._length:
                recorded = self._rows[key][step.index]
                found = np.asarray(value).astype(recorded.dtype).ravel()
                difference = np.abs(found.astype(np.float64) - recorded.astype(np.float64)).max()
                self.result.add(key, step.index, float(difference))

    def end(self, episode: Episode) -> None:
        """Compare the lengths."""
        if episode.length != self._length:
            self.result.add("length", episode.length, abs(episode.length - self._length) + np.inf)


def compare_episodes(one: Dataset, k: int, other: Dataset, m: int, tolerance: float) -> Comparison:
    """Compare episode k of one dataset with episode m of another, images included.

    Columns and cameras that only the first has, because others have added them, are left out.
    """
    result = Comparison(k, tolerance)
    theirs = other.rows(m)
    ours = one.rows(k, theirs.keys())
    if one.episodes[k][keys.TASKS] != other.episodes[m][keys.TASKS]:
        result.add("task", 0, np.inf)
    for key in sorted(theirs.keys() - {keys.INDEX, keys.EPISODE_INDEX, keys.TASK_INDEX}):
        a, b = ours.get(key), theirs[key]
        if a is None or a.shape != b.shape:
            result.add(key, 0, np.inf)
            continue
        differences = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(axis=1)
        frame = int(np.argmax(~(differences <= tolerance)))
        result.add(key, frame, float(differences.max()))
    for camera in other.cameras:
        pairs = zip(one.frames(k, camera), other.frames(m, camera), strict=True)
        for frame, (a, b) in enumerate(pairs):
            result.add(camera, frame, float(np.abs(a.astype(int) - b.astype(int)).max()))
    return result
