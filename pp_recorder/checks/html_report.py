"""The report as one self-contained page: no scripts, no other files, pictures and charts inline."""

import base64
from collections.abc import Callable, Sequence
from fractions import Fraction
from html import escape
from typing import Any

import av
import numpy as np

from pp_recorder.checks import (
    CheckResult,
    DatasetView,
    UnavailableError,
    feature_names,
    tracking_error,
)

_STATE, _ACTION = "#1d4ed8", "#c2410c"
_GOOD, _BAD, _PLAIN = "#15803d", "#b91c1c", "#475569"
_KEY_FRAMES = ("first", "grasp", "place", "last")
_MAX_CURVES = 16
_MAX_POINTS = 300
_FINDINGS = 200
_NUMERIC = ("Number of episodes", "min", "max", "mean", "std")

_CSS = """
:root { color-scheme: light; --line: #d5dae1; --soft: #f4f6f8; --text: #16202c; --dim: #475569; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  color: var(--text); background: #fff; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 10px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 44px 0 10px; padding-top: 14px;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 6px; }
p { margin: 0 0 10px; max-width: 75ch; }
.dim, footer { color: var(--dim); font-size: .9rem; }
.verdict { display: inline-block; padding: 4px 12px; border-radius: 6px; color: #fff;
  font-weight: 600; }
.PASS { color: #15803d; } .WARN { color: #9a5b00; } .FAIL { color: #b91c1c; }
.SKIP { color: var(--dim); }
.status { font-weight: 700; white-space: nowrap; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px;
  margin: 18px 0 0; }
dl div { background: var(--soft); border-radius: 8px; padding: 8px 12px; min-width: 0; }
dt { color: var(--dim); font-size: .82rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; color: var(--dim); padding-bottom: 6px; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
tbody th { font-weight: 500; }
.wide { overflow-x: auto; }
.wide:focus-visible { outline: 3px solid #1d4ed8; outline-offset: 2px; }
.findings { padding-left: 20px; } .findings li { margin-bottom: 6px; overflow-wrap: anywhere; }
.episodes { display: grid; gap: 26px 28px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); }
.strip { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 6px;
  margin-bottom: 8px; }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; border-radius: 4px;
  background: var(--soft); }
figcaption { font-size: .78rem; color: var(--dim); }
.charts { display: grid; gap: 14px 20px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }
svg { width: 100%; height: auto; display: block; max-width: 460px; }
svg text { font: 12px system-ui, sans-serif; fill: var(--dim); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding: 0;
  margin: 0 0 10px; font-size: .9rem; }
.legend svg { width: 34px; display: inline-block; vertical-align: middle; margin-right: 6px; }
.regions { max-width: 560px; } .regions td { border: 1px solid #fff; text-align: center;
  padding: 12px 6px; }
.regions th { padding: 6px; vertical-align: middle; } .regions thead th { text-align: center; }
.pair { display: grid; gap: 26px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
footer { padding: 40px 20px; }
@media (max-width: 600px) {
  .checks thead { position: absolute; left: -9999px; }
  .checks tr { display: grid; grid-template-columns: 56px 1fr; padding: 6px 0;
    border-bottom: 1px solid var(--line); }
  .checks td, .checks th { border: 0; padding: 0; }
  .checks td:last-child { grid-column: 2; color: var(--dim); }
  .strip { gap: 4px; } figcaption { font-size: .7rem; }
}
"""


def render(view: DatasetView, results: list[CheckResult]) -> str:
    """The page.

    Args:
        view: The dataset.
        results: Of its checks.

    Returns:
        HTML, complete in itself.
    """
    name = view.root.resolve().name
    sections: list[tuple[str, Callable[[], str]]] = [
        ("Checks", lambda: _checks(results)),
        ("Findings", lambda: _findings(results)),
        ("Pictures", lambda: _contact_sheet(view)),
        ("Pick and place", lambda: _table_plane(view)),
        ("Failures", lambda: _failures(view)),
        ("Motion of one episode", lambda: _curves(view)),
        ("Lengths of the episodes", lambda: _lengths(view)),
        ("Statistics", lambda: _statistics(view)),
    ]
    body = "\n".join(_section(title, draw) for title, draw in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}: dataset report</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f"{_header(view, results, name)}\n<main>\n{body}\n</main>\n"
        f"<footer>Made by pp-inspect from {escape(str(view.root))}</footer>\n</body>\n</html>\n"
    )


def jpeg(image: np.ndarray) -> bytes:
    """A picture (h, w, 3) uint8 as a JPEG file; its sides are cut to even numbers of pixels."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
    context.time_base = Fraction(1, 1)
    context.qmin, context.qmax = 3, 5
    picture = np.ascontiguousarray(image[:height, :width])
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
    packets = [*context.encode(frame), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def _section(title: str, draw: Callable[[], str]) -> str:
    """One part of the page; what it cannot show does not keep the others from being shown."""
    try:
        content = draw()
    except UnavailableError as reason:
        content = f'<p class="dim">Not shown: {escape(str(reason))}.</p>'
    except Exception as error:  # a broken dataset must not cost the rest of the page
        text = escape(f"{type(error).__name__}: {error}")
        content = f'<p class="dim">Could not be drawn: {text}</p>'
    key = title.lower().replace(" ", "-")
    return f'<section aria-labelledby="{key}">\n<h2 id="{key}">{title}</h2>\n{content}\n</section>'


def _header(view: DatasetView, results: list[CheckResult], name: str) -> str:
    failed = sum(r.status == "FAIL" for r in results)
    warned = sum(r.status == "WARN" for r in results)
    done = sum(r.status != "SKIP" for r in results)
    text = f"Unsound: {failed} of {done} checks failed" if failed else f"Sound: {done} checks"
    if warned:
        text += f", {warned} with warnings"
    totals = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in _totals(view)
    )
    colour = _BAD if failed else _GOOD
    return (
        f"<header>\n<h1>{escape(name)}</h1>\n"
        f'<p class="verdict" style="background:{colour}">{escape(text)}</p>\n<dl>{totals}</dl>\n'
        "</header>"
    )


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
        success = [bool(x) for x in _episode_values(view, "episode/success")]
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


def _table(head: Sequence[str], rows: Sequence[str], caption: str, label: str = "") -> str:
    cells = "".join(
        f'<th scope="col"{" class=number" if text in _NUMERIC else ""}>{text}</th>' for text in head
    )
    return (
        f'<table class="{label}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _checks(results: list[CheckResult]) -> str:
    rows = [
        f'<tr><td class="status {r.status}">{r.status}</td><th scope="row">{escape(r.name)}</th>'
        f"<td>{escape(_note(r))}</td></tr>"
        for r in results
    ]
    return _table(
        ["Result", "Check", "Note"],
        rows,
        "SKIP: it does not apply or cannot be done.",
        "checks",
    )


def _note(result: CheckResult) -> str:
    if result.status in ("PASS", "SKIP"):
        return result.note
    count = len(result.findings)
    return f"{count} finding{'' if count == 1 else 's'}, below"


def _findings(results: list[CheckResult]) -> str:
    found = [f for r in results for f in r.findings]
    if not found:
        return "<p>None.</p>"
    items = [
        f'<li><span class="status {"FAIL" if f.severity == "error" else "WARN"}">{f.severity}'
        f"</span> ({escape(f.check)}) {escape(f.message)}</li>"
        for f in sorted(found, key=lambda f: f.severity != "error")[:_FINDINGS]
    ]
    if len(found) > _FINDINGS:
        items.append(f"<li>and {len(found) - _FINDINGS} more</li>")
    return f'<ul class="findings">{"".join(items)}</ul>'


# ---------------------------------------------------------------------------------------- pictures


def _contact_sheet(view: DatasetView) -> str:
    if not view.cameras:
        raise UnavailableError("there are no cameras")
    episodes = "".join(_episode(view, e, frames) for e, frames in view.key_frames.items())
    count = len(view.key_frames)
    intro = f"{count} of {view.num_episodes} episodes, evenly chosen."
    return f'<p class="dim">{intro}</p><div class="episodes">{episodes}</div>'


def _episode(view: DatasetView, episode: int, frames: list[int]) -> str:
    strips = "".join(_strip(view, camera, episode, frames) for camera in view.cameras)
    return f"<article><h3>{_episode_title(view, episode)}</h3>{strips}</article>"


def _episode_title(view: DatasetView, episode: int) -> str:
    row = view.episodes[episode]
    text = f"Episode {episode}, {row.get('length')} frames"
    if row.get("episode/success") is None:
        return text
    if row["episode/success"]:
        return f'{text}, <span class="PASS">success</span>'
    reason = escape(str(row.get("episode/failure_reason") or "no reason given"))
    phase = escape(str(row.get("episode/failure_phase") or "unknown phase"))
    return f'{text}, <span class="FAIL">failure</span>: {reason} in {phase}'


def _strip(view: DatasetView, camera: str, episode: int, frames: list[int]) -> str:
    try:
        pictures = view.scan(camera).episodes[episode].key_images
    except (UnavailableError, KeyError):
        pictures = {}
    short = escape(view.short(camera))
    figures = []
    for label, frame in zip(_KEY_FRAMES, frames, strict=True):
        caption = f"{label} ({frame})"
        if frame not in pictures:
            figures.append(f"<figure><figcaption>{caption}: no picture</figcaption></figure>")
            continue
        image = pictures[frame]
        text = base64.b64encode(jpeg(image)).decode()
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{text}" width="{image.shape[1]}" '
            f'height="{image.shape[0]}" loading="lazy" alt="Episode {episode}, {short}, {label}: '
            f'frame {frame}"><figcaption>{caption}</figcaption></figure>'
        )
    return f'<p class="dim" style="margin:0">{short}</p><div class="strip">{"".join(figures)}</div>'


# ------------------------------------------------------------------------------------------ charts


class _Axes:
    """A chart's frame: maps values to pixels and draws the ticks.

    Args:
        x: Lowest and highest value.
        y: Lowest and highest value.
        labels: Of the x and the y axis.
        width: Pixels.
        height: Pixels.
    """

    LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 38

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        labels: tuple[str, str],
        width: int = 360,
        height: int = 200,
    ) -> None:
        self.x, self.y = _padded(*x), _padded(*y)
        self.labels, self.width, self.height = labels, width, height

    def at(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Pixels of a point, or of arrays of them."""
        across = (np.asarray(x) - self.x[0]) / (self.x[1] - self.x[0])
        up = (np.asarray(y) - self.y[0]) / (self.y[1] - self.y[0])
        return (
            self.LEFT + across * (self.width - self.LEFT - self.RIGHT),
            self.height - self.BOTTOM - up * (self.height - self.TOP - self.BOTTOM),
        )

    def line(self, x: np.ndarray, y: np.ndarray, style: str) -> str:
        """A curve; gaps at values that are not finite."""
        step = max(1, -(-len(x) // _MAX_POINTS))
        known = np.isfinite(y)
        across, down = self.at(x[known][::step], y[known][::step])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        return f'<polyline points="{points}" fill="none" {style}/>'

    def draw(self, content: str, title: str) -> str:
        """The chart as SVG."""
        marks = [self._mark_x(v) for v in _ticks(*self.x)] + [
            self._mark_y(v) for v in _ticks(*self.y)
        ]
        bottom, middle = self.height - 6, (self.LEFT + self.width - self.RIGHT) / 2
        names = (
            f'<text x="{middle:.0f}" y="{bottom}" text-anchor="middle">{escape(self.labels[0])}'
            f'</text><text x="12" y="{(self.height - self.BOTTOM) / 2:.0f}" text-anchor="middle" '
            f'transform="rotate(-90 12 {(self.height - self.BOTTOM) / 2:.0f})">'
            f"{escape(self.labels[1])}</text>"
        )
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
            f"{''.join(marks)}{names}{content}</svg>"
        )

    def _mark_x(self, value: float) -> str:
        across, _ = self.at(value, self.y[0])
        low = self.height - self.BOTTOM
        return (
            f'<line x1="{across:.1f}" y1="{self.TOP}" x2="{across:.1f}" y2="{low}" '
            f'stroke="#e5e9ee"/><text x="{across:.1f}" y="{low + 15}" text-anchor="middle">'
            f"{value:g}</text>"
        )

    def _mark_y(self, value: float) -> str:
        _, down = self.at(self.x[0], value)
        return (
            f'<line x1="{self.LEFT}" y1="{down:.1f}" x2="{self.width - self.RIGHT}" '
            f'y2="{down:.1f}" stroke="#e5e9ee"/><text x="{self.LEFT - 5}" y="{down + 4:.1f}" '
            f'text-anchor="end">{value:g}</text>'
        )


def _padded(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers."""
    raw = (high - low) / 4
    unit = 10.0 ** np.floor(np.log10(raw))
    step = unit * min((1, 2, 2.5, 5, 10), key=lambda n: abs(n * unit - raw))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def _points(view: DatasetView, name: str) -> np.ndarray:
    """A column of points on the table, (episodes, 2), m."""
    points = np.array(_episode_values(view, name), dtype=np.float64)
    if points.ndim != 2 or points.shape[1] < 2:
        raise UnavailableError(f"{name} does not hold points")
    return points[:, :2]


def _outcomes(view: DatasetView) -> list[Any]:
    try:
        return [bool(value) for value in _episode_values(view, "episode/success")]
    except UnavailableError:
        return [None] * len(view.episodes)


def _table_plane(view: DatasetView) -> str:
    parts = [f"<div><h3>Places</h3>{_places(view)}</div>"]
    if None not in _outcomes(view):
        parts.append(f"<div><h3>Success by region</h3>{_regions(view)}</div>")
    return f'<div class="pair">{"".join(parts)}</div>'


def _places(view: DatasetView) -> str:
    pick, place = _points(view, "episode/pick"), _points(view, "episode/place")
    outcomes = _outcomes(view)
    both = np.concatenate([pick, place])
    low, high = both.min(0), both.max(0)
    middle, half = (low + high) / 2, max((high - low).max() / 2 * 1.1, 0.02)
    axes = _Axes(
        (middle[0] - half, middle[0] + half),
        (middle[1] - half, middle[1] + half),
        ("x, m", "y, m"),
        height=348,
    )
    marks = [
        _mark(axes, point, _colour(outcome), round_mark)
        for points, round_mark in ((place, False), (pick, True))
        for point, outcome in zip(points, outcomes, strict=True)
    ]
    title = f"Where the object was picked and placed in {len(pick)} episodes, seen in x and y"
    legend = _legend(
        [
            ("pick", '<circle cx="17" cy="7" r="4.5" fill="none" stroke="#475569" '
             'stroke-width="2"/>'),
            ("place", '<path d="M12 2l10 10M22 2l-10 10" stroke="#475569" stroke-width="2"/>'),
            ("success", f'<rect x="8" y="1" width="18" height="12" fill="{_GOOD}"/>'),
            ("failure", f'<rect x="8" y="1" width="18" height="12" fill="{_BAD}"/>'),
        ]
    )  # fmt: skip
    return legend + axes.draw("".join(marks), title)


def _colour(outcome: bool | None) -> str:
    return _PLAIN if outcome is None else _GOOD if outcome else _BAD


def _mark(axes: _Axes, point: np.ndarray, colour: str, is_round: bool) -> str:
    x, y = axes.at(point[0], point[1])
    if is_round:
        return (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" fill-opacity=".25" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
    return (
        f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{colour}" stroke-width="2" '
        'fill="none"/>'
    )


def _legend(entries: list[tuple[str, str]]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 34 14" aria-hidden="true">{mark}</svg>{escape(label)}</li>'
        for label, mark in entries
    )
    return f'<ul class="legend">{items}</ul>'


def _regions(view: DatasetView) -> str:
    pick = _points(view, "episode/pick")
    outcomes = np.array([bool(v) for v in _episode_values(view, "episode/success")])
    edges = [np.linspace(*_padded(pick[:, d].min(), pick[:, d].max()), 4) for d in range(2)]
    cells = [
        np.clip(np.searchsorted(edges[d], pick[:, d], side="right") - 1, 0, 2) for d in range(2)
    ]
    rows = []
    for k in (2, 1, 0):  # y upwards, as in the chart
        chosen = [outcomes[(cells[0] == j) & (cells[1] == k)] for j in range(3)]
        head = f'<th scope="row">y {edges[1][k]:.2f} to {edges[1][k + 1]:.2f}</th>'
        rows.append(f"<tr>{head}{''.join(map(_region, chosen))}</tr>")
    columns = [f"x {edges[0][j]:.2f} to {edges[0][j + 1]:.2f}" for j in range(3)]
    caption = "Share of successes by where the object was picked, m."
    table = _table(["", *columns], rows, caption, "regions")
    return f'<div class="wide" role="region" aria-label="{caption}" tabindex="0">{table}</div>'


def _region(outcomes: np.ndarray) -> str:
    if not outcomes.size:
        return '<td class="dim">no episode</td>'
    share = outcomes.mean()
    hue = "21,128,61" if share >= 0.5 else "185,28,28"
    colour = f"rgba({hue},{0.12 + 0.2 * abs(2 * share - 1):.2f})"
    return (
        f'<td style="background:{colour}">{share:.0%}<br>{outcomes.sum()} of {outcomes.size}</td>'
    )


def _failures(view: DatasetView) -> str:
    outcomes = _episode_values(view, "episode/success")
    kinds: dict[tuple[str, str], list[int]] = {}
    for i, (row, success) in enumerate(zip(view.episodes, outcomes, strict=True)):
        if not success:
            reason = str(row.get("episode/failure_reason") or "not stated")
            kinds.setdefault((reason, str(row.get("episode/failure_phase") or "")), []).append(i)
    if not kinds:
        return "<p>None: every episode is a success.</p>"
    rows = [
        f'<tr><th scope="row">{escape(reason)}</th><td>{escape(phase)}</td>'
        f"<td>{', '.join(map(str, found[:12]))}{' ...' if len(found) > 12 else ''}</td>"
        f'<td class="number">{len(found)}</td></tr>'
        for (reason, phase), found in sorted(kinds.items(), key=lambda item: -len(item[1]))
    ]
    return _table(
        ["Reason", "Phase", "Episodes", "Number of episodes"], rows, "Why episodes failed."
    )


def _curves(view: DatasetView) -> str:
    episode = 0
    begin, end = view.spans[episode]
    pairs = _curve_pairs(view)
    times = np.arange(end - begin) / (view.fps or 1)
    legend = _legend(
        [
            ("state", f'<path d="M1 7h32" stroke="{_STATE}" stroke-width="3"/>'),
            ("action (target)", f'<path d="M1 7h32" stroke="{_ACTION}" stroke-width="2" '
             'stroke-dasharray="6 3"/>'),
        ]
    )  # fmt: skip
    charts = "".join(
        _curve(
            name, times, None if s is None else s[begin:end], None if a is None else a[begin:end]
        )
        for name, s, a in pairs[:_MAX_CURVES]
    )
    more = f" The first {_MAX_CURVES} of {len(pairs)}." if len(pairs) > _MAX_CURVES else ""
    intro = f"<p>Episode {episode}, {end - begin} frames.{_tracking_text(view)}{more}</p>"
    return f'{intro}{legend}<div class="charts">{charts}</div>'


def _tracking_text(view: DatasetView) -> str:
    try:
        error = tracking_error(view)
    except UnavailableError:
        return ""
    known = error[np.isfinite(error)]
    if not known.size:
        return ""
    return (
        f" One step later a joint is at most {known.max():.4f} rad from its target in the whole "
        f"dataset, in 99 % of the cases less than {np.percentile(known, 99):.4f} rad."
    )


def _curve(
    name: str, times: np.ndarray, state: np.ndarray | None, action: np.ndarray | None
) -> str:
    shown = [v.astype(np.float64) for v in (state, action) if v is not None]
    both = np.concatenate(shown)
    both = both[np.isfinite(both)]
    if not both.size:
        return ""
    margin = 0.05 * np.ptp(both)
    axes = _Axes(
        (0, float(times[-1])), (float(both.min() - margin), float(both.max() + margin)), ("s", "")
    )
    lines = ""
    if state is not None:
        lines += axes.line(times, state.astype(np.float64), f'stroke="{_STATE}" stroke-width="2.5"')
    if action is not None:
        style = f'stroke="{_ACTION}" stroke-width="1.5" stroke-dasharray="6 3"'
        lines += axes.line(times, action.astype(np.float64), style)
    kinds = " and ".join(k for k, v in (("state", state), ("action", action)) if v is not None)
    title = f"{name}: {kinds} over time, from {both.min():.3g} to {both.max():.3g}"
    return f"<div><h3>{escape(name)}</h3>{axes.draw(lines, title)}</div>"


def _curve_pairs(view: DatasetView) -> list[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """Label, state and action of what belongs together, each (frames,)."""
    action, state = _optional(view, "action"), _optional(view, "observation.state")
    if action is None and state is None:
        raise UnavailableError("there are neither states nor actions")
    if action is None or state is None:
        only = state if action is None else action
        key = "observation.state" if action is None else "action"
        names = _labels(view, key, only.shape[1] if only is not None else 0)
        values = [only[:, k] for k in range(len(names))] if only is not None else []
        return [
            (n, v if action is None else None, None if action is None else v)
            for n, v in zip(names, values, strict=True)
        ]
    names = _labels(view, "action", action.shape[1])
    partners = _labels(view, "observation.state", state.shape[1])
    same_width = action.shape[1] == state.shape[1]
    pairs = []
    for k, name in enumerate(names):
        wanted = name.replace("action_joint_", "joint_pos_").replace(
            "action_gripper", "gripper_pos_0"
        )
        at = partners.index(wanted) if wanted in partners else k if same_width else None
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


def _lengths(view: DatasetView) -> str:
    lengths = np.array(_episode_values(view, "length"), dtype=np.float64)
    low, high = lengths.min(), lengths.max()
    bins = 1 if high == low else int(min(20, max(5, np.sqrt(len(lengths)))))
    edges = np.linspace(*((low - 0.5, high + 0.5) if bins == 1 else (low, high)), bins + 1)
    counts, _ = np.histogram(lengths, edges)
    axes = _Axes(
        (edges[0] - (bins == 1), edges[-1] + (bins == 1)),
        (0, counts.max() * 1.1),
        ("frames", "episodes"),
    )
    bars = []
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        (x0, y0), (x1, y1) = axes.at(left, 0), axes.at(right, count)
        bars.append(
            f'<rect x="{x0 + 1:.1f}" y="{y1:.1f}" width="{max(x1 - x0 - 2, 1):.1f}" '
            f'height="{y0 - y1:.1f}" fill="{_STATE}"/>'
        )
    text = (
        f"From {low:.0f} to {high:.0f} frames, median {np.median(lengths):.0f}, "
        f"{len(lengths)} episodes."
    )
    return f"<p>{text}</p>{axes.draw(''.join(bars), 'Histogram of the lengths. ' + text)}"


def _statistics(view: DatasetView) -> str:
    if not view.stats:
        raise UnavailableError("there is no meta/stats.json")
    rows = [
        row
        for key in view.features
        if isinstance(stored := view.stats.get(key), dict)
        for row in _stat_rows(view, key, stored)
    ]
    caption = "As stored in meta/stats.json; pictures in [0, 1]."
    table = _table(["Feature", "Name", "min", "max", "mean", "std"], rows, caption)
    return f'<div class="wide" role="region" aria-label="Statistics" tabindex="0">{table}</div>'


def _stat_rows(view: DatasetView, key: str, stored: dict[str, Any]) -> list[str]:
    columns = [np.ravel(stored.get(name, [])) for name in ("min", "max", "mean", "std")]
    size = min(column.size for column in columns)
    is_image = view.features[key]["dtype"] in ("video", "image")
    names = ["red", "green", "blue"] if is_image else _labels(view, key, size)
    names = names if len(names) == size else [str(k) for k in range(size)]
    return [
        f'<tr><th scope="row">{escape(key)}</th><td>{escape("" if size == 1 else name)}</td>'
        + "".join(f'<td class="number">{float(column[k]):.4g}</td>' for column in columns)
        + "</tr>"
        for k, name in enumerate(names)
    ]
