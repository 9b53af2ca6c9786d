"""A quality report of any LeRobot v3.0 dataset: a table, JSON, or a page for the browser."""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from pp_recorder.checks import CheckResult, DatasetView, Finding, inspect_dataset
from pp_recorder.checks.html_report import render
from pp_recorder.command_line import PATH_TEXT, DatasetFolder, Options, Typed, fail, parse
from pp_recorder.dataset.reader import DatasetError
from pp_recorder.interrupts import interrupted, raise_on_interrupt
from pp_recorder.output import describe_error, require_file

_PROG = "pp-inspect"
_SHOWN_PER_CHECK = 10


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options):
    """The options of `pp-inspect`."""

    dataset: Annotated[DatasetFolder, Doc("the directory that holds meta/ and data/")]
    json: Annotated[
        str | None,
        PATH_TEXT,
        Doc("write the report as JSON; - for stdout"),
        Typed("FILE"),
    ] = None
    html: Annotated[
        str | None,
        PATH_TEXT,
        Doc("write the report as one page"),
        Typed("FILE"),
    ] = None
    strict: Annotated[bool, Doc("warnings are errors")] = False


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 if the dataset is sound (perhaps with warnings), 1 if not, 2 if it is no dataset.
    """
    options = parse(
        InspectOptions,
        argv,
        prog=_PROG,
        description="Check a LeRobot v3.0 dataset. Exit status: 0 sound, 1 unsound, 2 no dataset.",
        example="pp-inspect datasets/demo --html report.html",
    )
    try:
        for name, path in (("--json", options.json), ("--html", options.html)):
            if path is not None and path != "-":
                require_file(Path(path), name)
    except OSError as error:
        fail(_PROG, error)
    try:
        raise_on_interrupt()
        return _inspect(options)
    except KeyboardInterrupt:
        return interrupted(f"{options.dataset} was only read")


def _inspect(options: InspectOptions) -> int:
    try:
        view, results = inspect_dataset(options.dataset)
    except (DatasetError, OSError) as error:
        return _report_no_dataset(options, describe_error(error))
    if options.strict:
        results = [as_errors(result) for result in results]
    out = sys.stderr if options.json == "-" else sys.stdout
    print(to_text(view, results), file=out)
    try:
        if options.json:
            _write(options.json, json.dumps(to_json(view, results), indent=2) + "\n")
        if options.html:
            _write(options.html, render(view, results))
    except OSError as error:
        safe = f"{options.dataset} was only read; once there is room, inspect it again"
        text = describe_error(error, safe)
        print(f"error: the report cannot be written: {text}", file=sys.stderr)
        return 2
    return exit_status(results)


def as_errors(result: CheckResult) -> CheckResult:
    """Return the result with its warnings as errors."""
    return replace(result, findings=[replace(f, severity="error") for f in result.findings])


def exit_status(results: list[CheckResult]) -> int:
    """Return 0 if no check failed, else 1."""
    return int(any(result.status == "FAIL" for result in results))


def to_text(view: DatasetView, results: list[CheckResult]) -> str:
    """Return the table of checks and the findings, for a terminal."""
    width = max(len(result.name) for result in results)
    lines = [str(view.root), ""]
    lines += [f"{r.status}  {r.name:<{width}}  {_note(r)}" for r in results]
    for result in results:
        if result.findings:
            lines += ["", f"{result.name}:"]
            lines += [f"  {f.severity}: {f.message}" for f in result.findings[:_SHOWN_PER_CHECK]]
            if (more := len(result.findings) - _SHOWN_PER_CHECK) > 0:
                lines.append(f"  and {more} more (all of them are in the JSON report)")
    return "\n".join([*lines, "", verdict(results)])


def verdict(results: list[CheckResult]) -> str:
    """Return one sentence about the whole dataset."""
    errors, warnings = (
        sum(f.severity == kind for r in results for f in r.findings)
        for kind in ("error", "warning")
    )
    done = sum(r.status != "SKIP" for r in results)
    if errors:
        return f"UNSOUND: {_number(errors, 'error')}, {_number(warnings, 'warning')}"
    return f"SOUND: {done} checks, {_number(warnings, 'warning')}"


def to_json(view: DatasetView, results: list[CheckResult]) -> dict[str, Any]:
    """Return the report as a dictionary for `json.dump`."""
    return {
        "dataset": str(view.root),
        "exit_status": exit_status(results),
        "verdict": verdict(results),
        "total_episodes": view.num_episodes,
        "total_frames": view.num_frames,
        "fps": view.fps,
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


def _note(result: CheckResult) -> str:
    if result.status in ("PASS", "SKIP"):
        return result.note
    first = result.findings[0].message
    return first if len(first) <= 100 else first[:97] + "..."


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _report_no_dataset(options: InspectOptions, reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    if options.json:
        finding = Finding("dataset", "error", reason)
        content = {
            "dataset": str(options.dataset),
            "exit_status": 2,
            "verdict": "NOT A DATASET",
            "checks": [
                {"name": "dataset", "status": "FAIL", "note": reason, "findings": [asdict(finding)]}
            ],
        }
        _write(options.json, json.dumps(content, indent=2) + "\n")
    return 2


def _write(target: str, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
