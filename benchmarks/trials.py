"""The published trainings, and what the table in docs/training.md says of them.

benchmarks/results/trials.json has a row for each evaluation, and one for a training without any.
benchmarks/policies.py adds rows; those of trainings that it cannot repeat are transcribed from
docs/training.md as it was. What was not recorded or not measured is null.
"""

from collections.abc import Callable, Iterable
from typing import Any

from pp_recorder.evaluation.metrics import wilson_interval

Row = dict[str, Any]

HEAD = (
    "trial", "demonstrations", "policy", "million samples", "minutes", "actions executed",
    "successes (95 % interval)", "failures by stage", "release", "note",
)  # fmt: skip
STAGES = ("grasp", "carry", "release", "return")  # in the order of the task


def cells(row: Row, rows: Iterable[Row]) -> list[str]:
    """Return a row of the table, a cell for each of `HEAD`.

    Args:
        row: A row of trials.json.
        rows: All of them, among which are the trainings from which this one goes on.
    """
    chain = _chain(row, list(rows))
    return [
        f"`{row['trial']}`",
        _demonstrations(row),
        _policy(row),
        _sum(chain, "samples", lambda samples: f"{samples / 1e6:.2f}"),
        _minutes(row, chain),
        _or_dash(row["action_steps"]),
        _successes(row),
        _failures(row),
        row["release"],
        row["note"] or "-",
    ]


def order(row: Row) -> tuple[bool, list[int], float]:
    """Return what rows are sorted by: the newest release first, in it the best rate first."""
    released = row["release"] != "unreleased"
    version = [-int(part) for part in row["release"].split(".")] if released else []
    return released, version, -_rate(row)


def _rate(row: Row) -> float:
    return -1.0 if row["successes"] is None else row["successes"] / row["starts"]


def _chain(row: Row, rows: list[Row]) -> list[Row | None]:
    """Return the trainings that lead to a policy, its own last, and None for one without a row."""
    if not row["start"]:
        return [row]
    earlier = [other for other in rows if other["trial"] == row["start"]]
    if not earlier:
        return [None, row]
    # A repeated trial has several trainings; this one goes on from the newest of its time.
    before = [other for other in earlier if rows.index(other) < rows.index(row)]
    return [*_chain(before[-1] if before else earlier[0], rows), row]


def _sum(chain: list[Row | None], key: str, form: Callable[[float], str]) -> str:
    """Return the figures of consecutive trainings, "?" for an unknown one, "-" for a lone one."""
    figures = ["?" if not row or row[key] is None else form(row[key]) for row in chain]
    return "-" if figures == ["?"] else " + ".join(figures)


def _minutes(row: Row, chain: list[Row | None]) -> str:
    minutes = _sum(chain, "minutes", lambda minutes: f"{minutes:.1f}")
    if row["card"] is None:
        return minutes
    card = row["card"].removeprefix("NVIDIA ")
    share = f"1/{row['trainings_at_once']} " if (row["trainings_at_once"] or 1) > 1 else ""
    return f"{share}{card}" if minutes == "-" else f"{minutes} on {share}{card}"


def _demonstrations(row: Row) -> str:
    """Return how many episodes, of which expert and from which starts."""
    words = row["dataset"].split()

    def option(name: str, default: str) -> str:
        return words[words.index(name) + 1] if name in words else default

    starts = option("--start-mix", "home=1").replace("=1", "").replace("=", " ").replace(",", ", ")
    count = "" if row["episodes"] is None else f"{row['episodes']:,} "
    text = f"{count}{option('--expert', 'waypoints')}, {starts}"
    text += ", path noise" if "--path-noise-rad" in words else ""
    text += ", hand poses" if "ee_pose" in words else ""
    text += f", varied {option('--randomize', '')}" if "--randomize" in words else ""
    return f"{text}, with `{row['joined']}`" if row["joined"] else text


def _policy(row: Row) -> str:
    names = [camera.removeprefix("cam_") for camera in row["cameras"]]
    return f"{row['policy']}: {', '.join(names)}" if names else row["policy"]


def _successes(row: Row) -> str:
    if row["successes"] is None:
        return "-"
    successes, starts = row["successes"], row["starts"]
    low, high = (100 * bound for bound in wilson_interval(successes, starts))
    rate = 100 * successes / starts
    return f"{successes} of {starts}: {rate:.1f} % ({low:.1f} to {high:.1f})"


def _failures(row: Row) -> str:
    """Return the failures by stage, and how many have no known one."""
    counts = row["failures_by_stage"]
    if not counts:
        return "-"
    known = [f"{counts[stage]} {stage}" for stage in STAGES if counts.get(stage)]
    rest = row["starts"] - row["successes"] - sum(counts.values())
    return ", ".join([*known, f"{rest} unknown"] if rest else known)


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)
