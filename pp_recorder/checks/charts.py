"""The geometry of the report's charts, which the page's template renders as SVG."""

from typing import Any, NamedTuple

import numpy as np

STATE_COLOUR, ACTION_COLOUR = "#1d4ed8", "#c2410c"
SUCCESS_COLOUR, FAILURE_COLOUR, UNKNOWN_COLOUR = "#15803d", "#b91c1c", "#475569"
_MAX_POINTS = 300  # of a line
_REGIONS = 3  # along x and along y


class Line(NamedTuple):
    """A polyline.

    Attributes:
        points: (x, y) in pixels.
        colour: As in CSS.
        width: In pixels.
        dashes: As in SVG's `stroke-dasharray`; "" for a solid line.
    """

    points: list[tuple[float, float]]
    colour: str
    width: float
    dashes: str


class Mark(NamedTuple):
    """A point, in pixels, with its colour as in CSS."""

    x: float
    y: float
    colour: str


class Bar(NamedTuple):
    """A rectangle, in pixels; x and y are its upper left corner."""

    x: float
    y: float
    width: float
    height: float


class Tick(NamedTuple):
    """A value on an axis and its place, in pixels."""

    pixel: float
    value: float


class Chart:
    """A chart with two axes and shapes, which maps values to pixels.

    Args:
        x: Lowest and highest value.
        y: Lowest and highest value.
        labels: The names of the x and the y axis.
        width: In pixels.
        height: In pixels.
    """

    LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 38  # pixels around the plot

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        labels: tuple[str, str],
        width: int = 360,
        height: int = 200,
    ) -> None:
        self.title = ""
        self.labels, self.width, self.height = labels, width, height
        self.lines: list[Line] = []
        self.crosses: list[Mark] = []
        self.circles: list[Mark] = []
        self.bars: list[Bar] = []
        self._x, self._y = _widened(*x), _widened(*y)

    def at(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the pixels of a point, or of arrays of points."""
        across = (np.asarray(x) - self._x[0]) / (self._x[1] - self._x[0])
        up = (np.asarray(y) - self._y[0]) / (self._y[1] - self._y[0])
        return (
            self.LEFT + across * (self.width - self.LEFT - self.RIGHT),
            self.height - self.BOTTOM - up * (self.height - self.TOP - self.BOTTOM),
        )

    def add_line(
        self, x: np.ndarray, y: np.ndarray, colour: str, width: float, dashes: str = ""
    ) -> None:
        """Add a line through some points (n,) each, without those that are not finite."""
        step = max(1, -(-len(x) // _MAX_POINTS))
        known = np.isfinite(y)
        across, down = self.at(x[known][::step], y[known][::step])
        points = list(zip(across.tolist(), down.tolist(), strict=True))
        self.lines.append(Line(points, colour, width, dashes))

    def add_cross(self, point: np.ndarray, colour: str) -> None:
        """Add a cross at a point (x, y)."""
        self.crosses.append(Mark(*self.at(*point[:2]), colour))

    def add_circle(self, point: np.ndarray, colour: str) -> None:
        """Add a circle around a point (x, y)."""
        self.circles.append(Mark(*self.at(*point[:2]), colour))

    def add_bar(self, left: float, right: float, top: float) -> None:
        """Add a bar from 0 up to `top`."""
        (x0, y0), (x1, y1) = self.at(left, 0), self.at(right, top)
        self.bars.append(Bar(x0 + 1, y1, max(x1 - x0 - 2, 1), y0 - y1))

    @property
    def x_ticks(self) -> list[Tick]:
        """The ticks of the x axis."""
        return [Tick(self.at(value, self._y[0])[0], value) for value in _ticks(*self._x)]

    @property
    def y_ticks(self) -> list[Tick]:
        """The ticks of the y axis."""
        return [Tick(self.at(self._x[0], value)[1], value) for value in _ticks(*self._y)]


def places_chart(pick: np.ndarray, place: np.ndarray, outcomes: list[bool | None]) -> Chart:
    """Return a map of where objects were picked and placed.

    Args:
        pick: (episodes, 2), m.
        place: (episodes, 2), m.
        outcomes: The success of each episode; None is unknown.
    """
    both = np.concatenate([pick, place])
    low, high = both.min(0), both.max(0)
    middle, half = (low + high) / 2, max((high - low).max() / 2 * 1.1, 0.02)
    chart = Chart(
        (middle[0] - half, middle[0] + half),
        (middle[1] - half, middle[1] + half),
        ("x, m", "y, m"),
        height=348,
    )
    for point, outcome in zip(place, outcomes, strict=True):
        chart.add_cross(point, _colour(outcome))
    for point, outcome in zip(pick, outcomes, strict=True):
        chart.add_circle(point, _colour(outcome))
    chart.title = f"Where the object was picked and placed in {len(pick)} episodes, seen in x and y"
    return chart


def curves_chart(
    name: str, times: np.ndarray, state: np.ndarray | None, action: np.ndarray | None
) -> Chart | None:
    """Return a state and an action over time, or None if nothing in them is finite.

    Args:
        name: The name of both.
        times: (frames,), s.
        state: (frames,) or None.
        action: (frames,) or None; not both are None.
    """
    curves = {"state": state, "action": action}
    known = {kind: v.astype(np.float64) for kind, v in curves.items() if v is not None}
    both = np.concatenate(list(known.values()))
    both = both[np.isfinite(both)]
    if not both.size:
        return None
    margin = 0.05 * np.ptp(both)
    y = (float(both.min() - margin), float(both.max() + margin))
    chart = Chart((0, float(times[-1])), y, ("s", ""))
    if "state" in known:
        chart.add_line(times, known["state"], STATE_COLOUR, 2.5)
    if "action" in known:
        chart.add_line(times, known["action"], ACTION_COLOUR, 1.5, "6 3")
    kinds = " and ".join(known)
    chart.title = f"{name}: {kinds} over time, from {both.min():.3g} to {both.max():.3g}"
    return chart


def histogram(values: np.ndarray, labels: tuple[str, str]) -> Chart:
    """Return a histogram of whole numbers (n,)."""
    low, high = values.min(), values.max()
    bins = 1 if high == low else int(min(20, max(5, np.sqrt(len(values)))))
    edges = np.linspace(*((low - 0.5, high + 0.5) if bins == 1 else (low, high)), bins + 1)
    counts, _ = np.histogram(values, edges)
    x = (edges[0] - (bins == 1), edges[-1] + (bins == 1))
    chart = Chart(x, (0, counts.max() * 1.1), labels)
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        chart.add_bar(left, right, count)
    return chart


class Region(NamedTuple):
    """A part of the table.

    Attributes:
        episodes: The number of episodes in it.
        successes: How many of them succeeded.
    """

    episodes: int
    successes: int

    @property
    def share(self) -> float:
        """The share of successes."""
        return self.successes / self.episodes

    @property
    def percentage(self) -> str:
        """The share of successes in whole per cent."""
        return f"{self.share:.0%}"

    @property
    def background(self) -> str:
        """The colour as in CSS: green for successes, red for failures, pale near one half."""
        hue = "21,128,61" if self.share >= 0.5 else "185,28,28"
        return f"rgba({hue},{0.12 + 0.2 * abs(2 * self.share - 1):.2f})"


class RegionMap(NamedTuple):
    """The table in regions.

    Attributes:
        columns: The range of x of each column, as text.
        rows: The range of y of each row, as text, and its regions; the largest y first.
    """

    columns: list[str]
    rows: list[tuple[str, list[Region]]]


def region_map(points: np.ndarray, outcomes: np.ndarray) -> RegionMap:
    """Return the successes by region.

    Args:
        points: (episodes, 2), m.
        outcomes: (episodes,) bool.
    """
    edges = [
        np.linspace(*_widened(points[:, d].min(), points[:, d].max()), _REGIONS + 1)
        for d in range(2)
    ]
    cells = [
        np.clip(np.searchsorted(edges[d], points[:, d], side="right") - 1, 0, _REGIONS - 1)
        for d in range(2)
    ]
    columns, row_labels = (
        [f"{name} {a:.2f} to {b:.2f}" for a, b in zip(e[:-1], e[1:], strict=True)]
        for name, e in zip("xy", edges, strict=True)
    )
    rows = []
    for row in reversed(range(_REGIONS)):  # y upwards, as in the chart
        inside = [outcomes[(cells[0] == column) & (cells[1] == row)] for column in range(_REGIONS)]
        rows.append((row_labels[row], [Region(part.size, int(part.sum())) for part in inside]))
    return RegionMap(columns, rows)


def _colour(outcome: bool | None) -> str:
    if outcome is None:
        return UNKNOWN_COLOUR
    return SUCCESS_COLOUR if outcome else FAILURE_COLOUR


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Return about four round numbers."""
    raw = (high - low) / 4
    unit = 10.0 ** np.floor(np.log10(raw))
    step = unit * min((1, 2, 2.5, 5, 10), key=lambda n: abs(n * unit - raw))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]
