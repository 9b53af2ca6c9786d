"""A quality report of any LeRobot v3.0 dataset: a table, JSON, or a page for the browser."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pp_recorder.checks import DatasetView, Finding, Result, run_checks
from pp_recorder.checks.html_report import render
from pp_recorder.command_line import folder
from pp_recorder.dataset.reader import DatasetError

_SHOWN_PER_CHECK = 10


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0 if the dataset is sound (perhaps with warnings), 1 if not, 2 if it is no dataset.
    """
    args = make_parser().parse_args(argv)
    try:
        evidence = DatasetView(args.dataset)
    except DatasetError as error:
        return _refuse(args, str(error))
    results = run_checks(evidence)
    out = sys.stderr if args.json == "-" else sys.stdout
    print(to_text(evidence, results), file=out)
    try:
        if args.json:
            _write(args.json, json.dumps(to_json(evidence, results), indent=2) + "\n")
        if args.html:
            _write(args.html, render(evidence, results))
    except OSError as error:
        print(f"error: the report cannot be written: {error}", file=sys.stderr)
        return 2
    return exit_status(results)


def exit_status(results: list[Result]) -> int:
    """0 if no check failed, else 1."""
    return int(any(result.status == "FAIL" for result in results))


def to_text(evidence: DatasetView, results: list[Result]) -> str:
    """The table of checks and the findings, for a terminal."""
    width = max(len(result.name) for result in results)
    lines = [str(evidence.root), ""]
    lines += [f"{r.status}  {r.name:<{width}}  {_note(r)}" for r in results]
    for result in results:
        if result.findings:
            lines += ["", f"{result.name}:"]
            lines += [f"  {f.severity}: {f.message}" for f in result.findings[:_SHOWN_PER_CHECK]]
            if (more := len(result.findings) - _SHOWN_PER_CHECK) > 0:
                lines.append(f"  and {more} more (all of them are in the JSON report)")
    return "\n".join([*lines, "", verdict(results)])


def verdict(results: list[Result]) -> str:
    """One sentence on the whole dataset."""
    errors, warnings = (
        sum(f.severity == kind for r in results for f in r.findings)
        for kind in ("error", "warning")
    )
    done = sum(r.status != "SKIP" for r in results)
    if errors:
        return f"UNSOUND: {_number(errors, 'error')}, {_number(warnings, 'warning')}"
    return f"SOUND: {done} checks, {_number(warnings, 'warning')}"


def to_json(evidence: DatasetView, results: list[Result]) -> dict[str, Any]:
    """The report for machines."""
    return {
        "dataset": str(evidence.root),
        "exit_status": exit_status(results),
        "verdict": verdict(results),
        "total_episodes": evidence.num_episodes,
        "total_frames": evidence.num_frames,
        "fps": evidence.fps,
        "checks": [
            {
                "name": r.name,
                "status": r.status,
                "note": r.note,
                "seconds": round(r.seconds, 3),
                "findings": [asdict(f) for f in r.findings],
            }
            for r in results
        ],
    }


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="pp-inspect",
        description="Checks a LeRobot v3.0 dataset. Exit status: 0 sound, 1 unsound, 2 no dataset.",
        epilog="Example: pp-inspect datasets/demo --html report.html",
    )
    parser.add_argument("dataset", type=folder, help="the directory that holds meta/ and data/")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - for stdout")
    parser.add_argument("--html", metavar="FILE", help="write the report as one page")
    return parser


def _note(result: Result) -> str:
    if result.status in ("PASS", "SKIP"):
        return result.note
    first = result.findings[0].message
    return first if len(first) <= 100 else first[:97] + "..."


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _refuse(args: argparse.Namespace, reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    if args.json:
        finding = Finding("dataset", "error", reason)
        content = {
            "dataset": str(args.dataset),
            "exit_status": 2,
            "verdict": "NOT A DATASET",
            "checks": [
                {"name": "dataset", "status": "FAIL", "note": reason, "findings": [asdict(finding)]}
            ],
        }
        _write(args.json, json.dumps(content, indent=2) + "\n")
    return 2


def _write(target: str, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
