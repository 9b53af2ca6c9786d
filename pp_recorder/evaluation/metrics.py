"""Metrics of a policy's episodes: success rate, times, distances, failures."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_Z_95 = 1.959963984540054  # 97.5th percentile of the normal distribution
_SHOWN_REASONS = 10


@dataclass(frozen=True)
class EpisodeResult:
    """The result of one episode.

    Attributes:
        index: Its number in the evaluation.
        seed: The seed given to `env.reset`.
        success: True if its last state is a success.
        steps: Number of steps.
        seconds: Simulated time.
        distance: Distance from the goal at the end, m; None if the task has no distance.
        reason: The reason of a failure in a few words; "" for a success.
        failure_stage: The stage of the task that a failed episode reached; "" for a success.
        target: The object to move; "" if unknown.
        points: Places that the start decides, such as the object's, (x, y) in m by name.
        error: The policy's error, with the traceback if it raised; "" if there was none.
    """

    index: int
    seed: int
    success: bool
    steps: int
    seconds: float
    distance: float | None
    reason: str
    failure_stage: str
    target: str
    points: dict[str, tuple[float, float]]
    error: str


@dataclass(frozen=True)
class Grid:
    """The workspace, cut into equal cells.

    Attributes:
        x_range: In m; row 0 begins at the first of the two.
        y_range: In m; column 0 begins at the first of the two.
        rows: Number of cells along x.
        columns: Number of cells along y.
    """

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    rows: int = 3
    columns: int = 3

    def cell(self, point: tuple[float, float]) -> tuple[int, int]:
        """Return row and column of a point (x, y), m; one outside belongs to the nearest cell."""
        return (
            _cell_index(point[0], self.x_range, self.rows),
            _cell_index(point[1], self.y_range, self.columns),
        )


@dataclass(frozen=True)
class RegionCounts:
    """The episodes with a point in each cell of a grid, counted.

    Attributes:
        episodes: Number of episodes by [row][column].
        successes: Number of successes among them by [row][column].
    """

    episodes: list[list[int]]
    successes: list[list[int]]


@dataclass(frozen=True)
class EvalMetrics:
    """The metrics of all episodes together.

    Attributes:
        episodes: Number of episodes.
        successes: Number of successful episodes.
        success_rate: Their share.
        interval: Wilson's 95 % interval of the rate.
        errors: Number of episodes that ended with an error of the policy.
        steps_mean: Mean steps to success, over the successes; None if there are none.
        steps_median: Median steps to success, likewise.
        seconds_mean: Mean simulated time to success, s, likewise.
        seconds_median: Median simulated time to success, s, likewise.
        distance_median: Median of the final distances, m; None if no episode has one.
        distance_p90: 90th percentile of the final distances, m, likewise.
        failures_by_reason: Number of failures by reason, the most frequent first.
        failures_by_stage: Number of failures by the stage that they reached, likewise.
        targets: Successes and episodes of each object.
        grid: The grid of the regions.
        regions: Episodes and successes by region, for each kind of point.
    """

    episodes: int
    successes: int
    success_rate: float
    interval: tuple[float, float]
    errors: int
    steps_mean: float | None
    steps_median: float | None
    seconds_mean: float | None
    seconds_median: float | None
    distance_median: float | None
    distance_p90: float | None
    failures_by_reason: dict[str, int]
    failures_by_stage: dict[str, int]
    targets: dict[str, tuple[int, int]]
    grid: Grid
    regions: dict[str, RegionCounts]

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that `json.dump` takes."""
        return asdict(self)

    def to_text(self) -> str:
        """Return a table for the terminal."""
        low, high = self.interval
        lines = [
            f"success    {self.successes} of {self.episodes}: {self.success_rate:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%})"
        ]
        if self.successes:
            lines.append(
                f"time       median {self.steps_median:.0f} steps = {self.seconds_median:.2f} s, "
                f"mean {self.steps_mean:.1f} steps = {self.seconds_mean:.2f} s (successes)"
            )
        if self.distance_median is not None and self.distance_p90 is not None:
            lines.append(
                f"distance   median {self.distance_median * 1e3:.2f} mm, "
                f"90th percentile {self.distance_p90 * 1e3:.2f} mm (at the end, all episodes)"
            )
        if self.errors:
            lines.append(f"errors     the policy did something wrong in {self.errors} episodes")
        if self.failures_by_reason:
            lines += ["", "failures by reason", *_counts(self.failures_by_reason)]
            lines += ["", "failures by stage", *_counts(self.failures_by_stage)]
        if len(self.targets) > 1:
            lines += ["", "successes by object"]
            lines += [f"  {f'{won}/{n}':>9}  {name}" for name, (won, n) in self.targets.items()]
        for name, region in self.regions.items():
            lines += ["", f"successes by {name} (far rows first, left to the left)"]
            lines += _table(region)
        return "\n".join(lines)


def compute_metrics(results: Sequence[EpisodeResult], grid: Grid) -> EvalMetrics:
    """Return the metrics of some episodes.

    Args:
        results: At least one.
        grid: The regions to count.
    """
    successes = [result for result in results if result.success]
    failures = [result for result in results if not result.success]
    distances = [result.distance for result in results if result.distance is not None]
    return EvalMetrics(
        episodes=len(results),
        successes=len(successes),
        success_rate=len(successes) / len(results),
        interval=wilson_interval(len(successes), len(results)),
        errors=sum(bool(result.error) for result in results),
        steps_mean=_reduce(np.mean, [result.steps for result in successes]),
        steps_median=_reduce(np.median, [result.steps for result in successes]),
        seconds_mean=_reduce(np.mean, [result.seconds for result in successes]),
        seconds_median=_reduce(np.median, [result.seconds for result in successes]),
        distance_median=_reduce(np.median, distances),
        distance_p90=_reduce(lambda values: np.percentile(values, 90), distances),
        failures_by_reason=_count(result.reason for result in failures),
        failures_by_stage=_count(result.failure_stage for result in failures),
        targets=_targets(results),
        grid=grid,
        regions={name: _count_regions(results, grid, name) for name in _point_names(results)},
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a success rate, which also holds near 0 and 1.

    Args:
        successes: From 0 to `trials`.
        trials: At least 1.
    """
    rate, z2 = successes / trials, _Z_95**2
    scale = 1 + z2 / trials
    center = (rate + z2 / (2 * trials)) / scale
    spread = _Z_95 / scale * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    low = 0.0 if successes == 0 else center - spread  # exactly, without rounding errors
    high = 1.0 if successes == trials else center + spread
    return low, high


def _reduce(function: Callable[..., Any], values: Sequence[float]) -> float | None:
    return float(function(values)) if values else None


def _count(words: Iterable[str]) -> dict[str, int]:
    """Return the number of each word, the most frequent first."""
    counts = Counter(words)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _targets(results: Sequence[EpisodeResult]) -> dict[str, tuple[int, int]]:
    names = sorted({result.target for result in results if result.target})
    outcomes = {name: [r.success for r in results if r.target == name] for name in names}
    return {name: (sum(success), len(success)) for name, success in outcomes.items()}


def _point_names(results: Sequence[EpisodeResult]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.points))


def _count_regions(results: Sequence[EpisodeResult], grid: Grid, name: str) -> RegionCounts:
    episodes = np.zeros((grid.rows, grid.columns), dtype=int)
    successes = np.zeros_like(episodes)
    for result in results:
        if name in result.points:
            cell = grid.cell(result.points[name])
            episodes[cell] += 1
            successes[cell] += result.success
    return RegionCounts(episodes.tolist(), successes.tolist())


def _cell_index(value: float, interval: tuple[float, float], parts: int) -> int:
    low, high = interval
    return min(max(int((value - low) / (high - low) * parts), 0), parts - 1)


def _counts(counts: dict[str, int]) -> list[str]:
    items = list(counts.items())
    lines = [f"  {count:>5}  {word}" for word, count in items[:_SHOWN_REASONS]]
    if more := items[_SHOWN_REASONS:]:
        lines.append(f"  {sum(n for _, n in more):>5}  for {len(more)} other reasons")
    return lines


def _table(region: RegionCounts) -> list[str]:
    """Return one line per row of cells, as seen from behind the robot: y to the left."""
    pairs = zip(region.episodes, region.successes, strict=True)
    lines = [
        "  "
        + " ".join(
            f"{f'{won}/{n}' if n else '-':>9}"
            for n, won in zip(episodes[::-1], successes[::-1], strict=True)
        )
        for episodes, successes in pairs
    ]
    return lines[::-1]
