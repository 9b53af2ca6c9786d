"""What a policy's episodes come to: its success rate, times, distances, and where it fails."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_Z_95 = 1.959963984540054  # 97.5th percentile of the normal distribution
_SHOWN_REASONS = 10


@dataclass(frozen=True)
class EpisodeResult:
    """What is reported of one episode.

    Attributes:
        index: Its number in the evaluation.
        seed: The seed given to `env.reset`.
        success: Whether its last state is a success.
        steps: Its length.
        seconds: Its length in simulated time.
        distance: From the goal at the end, m; None if the task has no distance.
        reason: Why it failed, in a few words; "" for a success.
        phase: How far a failed one had come; "" for a success.
        target: Which object it was about; "" if that is unknown.
        points: Places that the start decides, such as where the object lies, (x, y) in m by name.
        error: What the policy did wrong, with the traceback if it raised; "" if nothing.
    """

    index: int
    seed: int
    success: bool
    steps: int
    seconds: float
    distance: float | None
    reason: str
    phase: str
    target: str
    points: dict[str, tuple[float, float]]
    error: str


@dataclass(frozen=True)
class Grid:
    """The workspace, cut into equal cells.

    Attributes:
        x_range: m; row 0 begins at the first of the two.
        y_range: m; column 0 begins at the first of the two.
        rows: Cells along x.
        columns: Cells along y.
    """

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    rows: int = 3
    columns: int = 3

    def cell(self, point: tuple[float, float]) -> tuple[int, int]:
        """Row and column of a point (x, y), m; one outside belongs to the nearest cell."""
        return (
            _part(point[0], self.x_range, self.rows),
            _part(point[1], self.y_range, self.columns),
        )


@dataclass(frozen=True)
class Region:
    """How many episodes had a point in each cell of the grid, and how many of them succeeded.

    Attributes:
        episodes: [row][column].
        successes: [row][column].
    """

    episodes: list[list[int]]
    successes: list[list[int]]


@dataclass(frozen=True)
class EvalMetrics:
    """All episodes together.

    Attributes:
        episodes: How many.
        successes: How many of them succeeded.
        success_rate: Their share.
        interval: Wilson's 95 % interval of the rate.
        errors: Episodes that ended because the policy did something wrong.
        steps_mean: Steps to success, over the successes; None if there are none.
        steps_median: Likewise.
        seconds_mean: Likewise, in s.
        seconds_median: Likewise, in s.
        distance_median: Final distance, over all episodes that have one, m; None if none has.
        distance_p90: 90th percentile, m.
        failures_by_reason: The most frequent first.
        failures_by_phase: Likewise.
        targets: Successes and episodes of each object.
        grid: What the regions are cells of.
        regions: Per point.
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
    failures_by_phase: dict[str, int]
    targets: dict[str, tuple[int, int]]
    grid: Grid
    regions: dict[str, Region]

    def to_json(self) -> dict[str, Any]:
        """As a dictionary that `json.dump` takes."""
        return asdict(self)

    def to_text(self) -> str:
        """A table for the terminal."""
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
            lines += ["", "failures by phase", *_counts(self.failures_by_phase)]
        if len(self.targets) > 1:
            lines += ["", "successes by object"]
            lines += [f"  {f'{good}/{n}':>9}  {name}" for name, (good, n) in self.targets.items()]
        for name, region in self.regions.items():
            lines += ["", f"successes by {name} (far rows first, left to the left)"]
            lines += _table(region)
        return "\n".join(lines)


def score(rows: Sequence[EpisodeResult], grid: Grid) -> EvalMetrics:
    """Folds episodes, of which there is at least one."""
    good = [row for row in rows if row.success]
    distances = [row.distance for row in rows if row.distance is not None]
    return EvalMetrics(
        episodes=len(rows),
        successes=len(good),
        success_rate=len(good) / len(rows),
        interval=wilson_interval(len(good), len(rows)),
        errors=sum(bool(row.error) for row in rows),
        steps_mean=_fold(np.mean, [row.steps for row in good]),
        steps_median=_fold(np.median, [row.steps for row in good]),
        seconds_mean=_fold(np.mean, [row.seconds for row in good]),
        seconds_median=_fold(np.median, [row.seconds for row in good]),
        distance_median=_fold(np.median, distances),
        distance_p90=_fold(lambda values: np.percentile(values, 90), distances),
        failures_by_reason=_count(row.reason for row in rows if not row.success),
        failures_by_phase=_count(row.phase for row in rows if not row.success),
        targets=_targets(rows),
        grid=grid,
        regions={name: _region(rows, grid, name) for name in _point_names(rows)},
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a success rate, which is also right near 0 and 1.

    Args:
        successes: From 0 to `trials`.
        trials: At least 1.
    """
    rate, z2 = successes / trials, _Z_95**2
    scale = 1 + z2 / trials
    center = (rate + z2 / (2 * trials)) / scale
    spread = _Z_95 / scale * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    low = 0.0 if successes == 0 else center - spread  # exactly, not but for rounding
    high = 1.0 if successes == trials else center + spread
    return low, high


def _fold(how: Callable[..., Any], values: Sequence[float]) -> float | None:
    return float(how(values)) if values else None


def _count(words) -> dict[str, int]:
    counts = Counter(words)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _targets(rows: Sequence[EpisodeResult]) -> dict[str, tuple[int, int]]:
    names = sorted({row.target for row in rows if row.target})
    outcomes = {name: [row.success for row in rows if row.target == name] for name in names}
    return {name: (sum(good), len(good)) for name, good in outcomes.items()}


def _point_names(rows: Sequence[EpisodeResult]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.points))


def _region(rows: Sequence[EpisodeResult], grid: Grid, name: str) -> Region:
    episodes = np.zeros((grid.rows, grid.columns), dtype=int)
    successes = np.zeros_like(episodes)
    for row in rows:
        if name in row.points:
            cell = grid.cell(row.points[name])
            episodes[cell] += 1
            successes[cell] += row.success
    return Region(episodes.tolist(), successes.tolist())


def _part(value: float, interval: tuple[float, float], parts: int) -> int:
    low, high = interval
    return min(max(int((value - low) / (high - low) * parts), 0), parts - 1)


def _counts(counts: dict[str, int]) -> list[str]:
    items = list(counts.items())
    lines = [f"  {count:>5}  {what}" for what, count in items[:_SHOWN_REASONS]]
    if more := items[_SHOWN_REASONS:]:
        lines.append(f"  {sum(n for _, n in more):>5}  for {len(more)} other reasons")
    return lines


def _table(region: Region) -> list[str]:
    """One line per row of cells, as the workspace looks from behind the robot: y to the left."""
    pairs = zip(region.episodes, region.successes, strict=True)
    lines = [
        "  "
        + " ".join(
            f"{f'{good}/{n}' if n else '-':>9}"
            for n, good in zip(episodes[::-1], successes[::-1], strict=True)
        )
        for episodes, successes in pairs
    ]
    return lines[::-1]
