"""Show benchmarks/results in tables and a plot, and write both to docs/.

Usage: python -m benchmarks.report

Replaces the text between `<!-- results: NAME -->` and `<!-- end -->` in the pages, for every NAME
that was measured, and renders docs/images/performance.png.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import load
from benchmarks.trials import HEAD, cells, order

Results = dict[str, Any]

_DOCS = Path(__file__).parent.parent / "docs"
_PLOT = _DOCS / "images" / "performance.png"


class TableRow(NamedTuple):
    """A row of a table, with one figure of each column's results.

    Attributes:
        label: The first cell.
        path: Keys that lead to the figure.
        form: Its format string.
    """

    label: str
    path: tuple[str, ...]
    form: str

    def cells(self, columns: Iterable[Results]) -> list[str]:
        """Return the label and the figures, with a dash for a missing one."""
        return [self.label, *map(self._cell, columns)]

    def _cell(self, column: Results) -> str:
        value: Any = column
        for key in self.path:
            value = value.get(key, {})
        return self.form.format(value) if value or value == 0 else "-"


_SPEED_ROWS = (
    TableRow("good episodes per hour", ("good_episodes_per_h",), "{:,.0f}"),
    TableRow("success", ("success",), "{:.1%}"),
    TableRow("attempts", ("attempts",), "{:,}"),
    TableRow("CPU s per episode", ("cpu_s_per_episode",), "{:.2f}"),
    TableRow("MB per episode", ("mb_per_episode",), "{:.1f}"),
    TableRow("peak memory per process, MB", ("peak_memory_mb",), "{:.0f}"),
    TableRow("images per second", ("images_per_s",), "{:.1f}"),
    TableRow("images per CPU s", ("images_per_cpu_s",), "{:.1f}"),
    TableRow("simulated s per CPU s", ("sim_s_per_cpu_s",), "{:,.1f}"),
)
_PRESET_ROWS = (
    TableRow("images per second", ("images_per_s",), "{:,.1f}"),
    TableRow("CPU ms per image", ("cpu_ms_per_image",), "{:.1f}"),
    TableRow("peak memory per process, MB", ("peak_memory_mb",), "{:.0f}"),
)
_SCALING_ROWS = (
    TableRow("good episodes per hour", ("good_episodes_per_h",), "{:,.0f}"),
    TableRow("efficiency", ("efficiency",), "{:.0%}"),
    TableRow("the same with start-up", ("with_start_up_per_h",), "{:,.0f}"),
    TableRow("start-up, s", ("start_up_s",), "{:.1f}"),
    TableRow("CPU s per episode", ("cpu_s_per_episode",), "{:.2f}"),
    TableRow("success", ("success",), "{:.1%}"),
    TableRow("episodes", ("episodes",), "{:,}"),
)
_BASELINE_ROWS = (
    TableRow("images per CPU s", ("images", "images_per_cpu_s"), "{:.1f}"),
    TableRow("ours is faster", ("images", "ratio"), "{:.1f} times"),
    TableRow("simulated s per CPU s, state only", ("state", "sim_s_per_cpu_s"), "{:.1f}"),
    TableRow("ours is faster", ("state", "ratio"), "{:.1f} times"),
    TableRow("control period, s", ("state", "period_s"), "{:.3f}"),
    TableRow("reset, state only, CPU s", ("state", "reset_cpu_s"), "{:.4f}"),
    TableRow("reset with images, CPU s", ("images", "reset_cpu_s"), "{:.4f}"),
    TableRow("import and make, state only, CPU s", ("state", "make_cpu_s"), "{:.1f}"),
    TableRow("import and make with images, CPU s", ("images", "make_cpu_s"), "{:.1f}"),
    TableRow("peak memory, state only, MB", ("state", "peak_memory_mb"), "{:.0f}"),
    TableRow("peak memory with images, MB", ("images", "peak_memory_mb"), "{:.0f}"),
)


def speed(results: Results) -> str:
    """Return good episodes per hour and their cost, state only and by preset."""
    columns = results["columns"]
    head = [f"{results['processes']} processes side by side", *columns]
    return _table(head, [row.cells(columns.values()) for row in _SPEED_ROWS])


def presets(results: Results) -> str:
    """Return the images per second and their cost, by preset."""
    columns, edge = results["columns"], results["resolution"]
    head = [f"{edge} x {edge}, processes: {results['processes']}", *columns]
    table = _table(head, [row.cells(columns.values()) for row in _PRESET_ROWS])
    return f"{table}\n\n{results['machine']['gpu'] or 'No GPU'}."


def scaling(results: Results) -> str:
    """Return good episodes per hour and efficiency, by number of workers."""
    runs = results["workers"]
    fewest, slowest = next(iter(runs.items()))
    alone = slowest["good_episodes_per_h"] / int(fewest)
    for workers, run in runs.items():
        run["efficiency"] = run["good_episodes_per_h"] / (int(workers) * alone)
    text = f"Preset `{results['preset']}`. {results['machine']['gpu'] or 'No GPU'}"
    table = _table(["workers", *runs], [row.cells(runs.values()) for row in _SCALING_ROWS])
    return f"{table}\n\n{text}"


def breakdown(results: Results) -> str:
    """Return the parts of a recorded step's time, by preset."""
    columns = results["ms_per_step"]
    rows = [TableRow(label, (label,), "{:.1f}") for label in next(iter(columns.values()))]
    return _table(["ms per step", *columns], [row.cells(columns.values()) for row in rows])


def baselines(results: Results) -> str:
    """Return the figures of ours and its baselines; below the table, errors and versions."""
    columns = results["environments"]
    notes = []
    for label, kinds in columns.items():
        for kind, figures in kinds.items():
            if "error" in figures:
                notes.append(f"{label}, {kind}: not measured, {figures['error']}")
        versions = {
            k: v for figures in kinds.values() for k, v in figures.get("versions", {}).items()
        }
        notes.append(f"{label}: " + ", ".join(f"{name} {v}" for name, v in versions.items()))
    table = _table(["", *columns], [row.cells(columns.values()) for row in _BASELINE_ROWS])
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes)


def recorder(results: Results) -> str:
    """Return the cost of recording a step, by our and by lerobot's writer."""
    columns = (("wall per step, ms", "wall_ms_per_step"), ("CPU per step, ms", "cpu_ms_per_step"))
    rows = [
        [
            label.replace("lerobot", figures.get("version", "")),
            *(f"{figures[key]:.1f}" for _, key in columns),
        ]
        for label, figures in results["writers"].items()
    ]
    return _table(["", *(label for label, _ in columns)], rows)


def vector(results: Results) -> str:
    """Return the steps of many environments per second of CPU time and of wall time."""
    counts = results["num_envs"]
    rows = [
        [f"{label}, per {per}", *(f"{1 / speed[key]:,.0f}" for speed in results[name])]
        for per, key in (("CPU s", "cpu"), ("second", "wall"))
        for label, name in (("native", "native"), ("`SyncVectorEnv`, without wrappers", "sync"))
    ]
    simulated = [results["period_s"] / speed["cpu"] for speed in results["native"]]
    rows.append(["native, simulated s per CPU s", *(f"{each:,.0f}" for each in simulated)])
    text = (
        f"One `PickPlaceEnv` without a vector around it: {1 / results['single']['cpu']:,.0f} steps "
        f"per CPU s. Making {max(counts)} takes {results['make_cpu_s']:.1f} CPU s."
    )
    if "fetch" in results:
        fetch = results["fetch"]["sim_s_per_cpu_s"]
        rows.append(["beside one Fetch, times", *(f"{each / fetch:.1f}" for each in simulated)])
        text += (
            " Fetch is Gymnasium-Robotics' FetchPickAndPlace: in the same run one made "
            f"{fetch:.0f} simulated s per CPU s."
        )
    return _table(["steps of any one environment", *map(str, counts)], rows) + f"\n\n{text}"


def objects(results: Results) -> str:
    """Return the expert's successes with each object alone on the table."""

    def column(result: Results) -> str:
        return f"`{result['grasp']}`, {'turned' if result['turned'] else 'as it stands'}"

    own = [r for r in results["settings"] if r["object"] != "cube" and r["num_objects"] == 1]
    return _success(own, lambda result: f"`{result['object']}`", column)


def randomization(results: Results) -> str:
    """Return the expert's successes with the cube, by preset of randomization."""
    usual = {"object": "cube", "grid": None, "control_mode": "joint_pos", "fps": 30}
    own = [r for r in results["settings"] if {**usual, **r}.items() >= usual.items()]
    return _success(own, lambda r: f"`{r['grasp']}`", lambda r: f"`{r['randomize']}`")


def _success(results: list[Results], row: Callable, column: Callable) -> str:
    """Return successes and distances, a cell for each result; below the table, the failures."""
    cells = {
        (row(r), column(r)): f"{r['successes']:,} of {r['episodes']:,}; "
        f"{r['distance_median_mm']:.2f} / {r['distance_p99_mm']:.1f}"
        for r in results
    }
    heads = list(dict.fromkeys(column(r) for r in results))
    rows = [
        [name, *(cells.get((name, head), "-") for head in heads)]
        for name in sorted({row(r) for r in results})
    ]
    failures = Counter(
        f"{row(r)}, {column(r)}: {failure['failure']}" for r in results for failure in r["failures"]
    )
    text = "\n".join(f"- {count} x {how}" for how, count in failures.items()) or "None failed."
    title = "successes; distance to the target, median / 99th percentile, mm"
    return f"{_table([title, *heads], rows)}\n\n{text}"


def trials(rows: list[Results]) -> str:
    """Return an evaluation of a policy per line, those from images in a table of their own."""

    def table(some: list[Results]) -> str:
        return _table([*HEAD], [cells(row, rows) for row in sorted(some, key=order)])

    images = [row for row in rows if row["cameras"]]
    state = [row for row in rows if not row["cameras"]]
    return f"From images:\n\n{table(images)}\n\nFrom state:\n\n{table(state)}"


def clients(rows: list[Results]) -> str:
    """Return what each client did, a line for each."""
    columns = ("client", "version", "what", "result", "sentence")
    return _table([*columns], [[row[column] for column in columns] for row in rows])


def corruptions(results: Results) -> str:
    """Return how many planted corruptions of each kind are found, and which are not."""
    rows = results["planted"]
    outcomes = ("found", "warned", "missed")
    kinds = dict.fromkeys(row["kind"] for row in rows)
    table = [
        [kind, *(str(sum(r["kind"] == kind and r["outcome"] == o for r in rows)) for o in outcomes)]
        for kind in kinds
    ]
    table.append(["all", *(str(sum(r["outcome"] == o for r in rows)) for o in outcomes)])
    lists = [
        f"- {outcome}: {'; '.join(row['name'] for row in rows if row['outcome'] == outcome)}"
        for outcome in ("warned", "missed")
        if any(row["outcome"] == outcome for row in rows)
    ]
    return "\n\n".join([_table(["planted", *outcomes], table), "\n".join(lists)])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        table: Formats results as Markdown.
        file: Name of the results' file, without .json.
        page: Name of the page in docs/.
    """

    table: Callable[[Any], str]
    file: str
    page: str


SECTIONS = {
    "speed": Section(speed, "speed", "performance.md"),
    "presets": Section(presets, "presets", "performance.md"),
    "scaling": Section(scaling, "scaling", "scaling.md"),
    "breakdown": Section(breakdown, "breakdown", "performance.md"),
    "vector": Section(vector, "vector", "performance.md"),
    "baselines": Section(baselines, "baselines", "performance.md"),
    "recorder": Section(recorder, "recorder", "performance.md"),
    "objects": Section(objects, "success", "objects.md"),
    "randomization": Section(randomization, "success", "randomization.md"),
    "clients": Section(clients, "clients", "clients.md"),
    "corruptions": Section(corruptions, "corruptions", "inspect.md"),
    "trials": Section(trials, "trials", "training.md"),
}


def text_of(name: str) -> str | None:
    """Return a section's table and machine, or None if it was not measured.

    The machines of trials are cells of their table.
    """
    section = SECTIONS[name]
    results = load(section.file)
    if results is None:
        return None
    if isinstance(results, list):
        return section.table(results)
    machine = results["machine"]
    return (
        f"{section.table(results)}\n\n{machine['processor']}, {machine['cores']} cores, Python "
        f"{machine['python']}, MuJoCo {machine['mujoco']}; load at the end {machine['load']:.1f}."
    )


def write(name: str, text: str) -> None:
    """Replace a section's text in its page.

    Raises:
        ValueError: The page has no place for it.
    """
    page, mark = _DOCS / SECTIONS[name].page, f"<!-- results: {name} -->"
    before, begin, rest = page.read_text().partition(mark)
    _, end, after = rest.partition("<!-- end -->")
    if not end:
        raise ValueError(f"{page} needs '{mark}', and below it '<!-- end -->'")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def charts() -> dict[str, dict[str, float]]:
    """Return the bar charts: for each title, the length of each bar by its label."""
    found: dict[str, dict[str, float]] = {}
    if speeds := load("speed"):
        found["good episodes per hour,\ntwo cameras of 512 x 512"] = {
            name: column["good_episodes_per_h"]
            for name, column in speeds["columns"].items()
            if "images_per_s" in column
        }
    if baselines := load("baselines"):
        for title, kind, key in (
            ("images of 512 x 512\nper second of one core", "images", "images_per_cpu_s"),
            ("simulated seconds, state only,\nper second of one core", "state", "sim_s_per_cpu_s"),
        ):
            found[title] = {
                label.replace(" ", "\n"): kinds[kind][key]
                for label, kinds in baselines["environments"].items()
                if key in kinds.get(kind, {})
            }
    return found


def render(bars: dict[str, dict[str, float]], path: Path) -> None:
    """Render one chart beside the other to a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(bars), 3.5), layout="constrained")
    all_axes = figure.subplots(1, len(bars), squeeze=False)[0]
    for axes, (title, lengths) in zip(all_axes, bars.items(), strict=True):
        container = axes.barh(list(lengths), list(lengths.values()))
        axes.bar_label(container, fmt=lambda n: f"{n:,.0f}" if n >= 100 else f"{n:.3g}", padding=2)
        axes.set_title(title)
        axes.margins(x=0.2)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def show(name: str) -> None:
    """Print a section."""
    print(f"\n{text_of(name)}")


def main() -> int:
    """Write the sections that were measured and the plot; return the exit status."""
    for name in SECTIONS:
        text = text_of(name)
        if text is not None:
            write(name, text)
            print(f"wrote '{name}' into docs/{SECTIONS[name].page}")
    bars = charts()
    if bars:
        render(bars, _PLOT)
        print(f"rendered {_PLOT.relative_to(_DOCS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
