"""Plant corruptions into a healthy dataset and count which of them `pp-inspect` finds.

Usage: python -m benchmarks.corruptions [NAME ...]

Names choose corruptions that contain them. All of them take about five minutes and are saved.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import collect
from benchmarks import report, save
from pp_recorder.checks import DatasetView, run_checks
from tests import planted


def judge(healthy: Path, root: Path, name: str) -> dict[str, Any]:
    """Plant a corruption and return what became of it: found, warned or missed."""
    own = planted.PLANTED[name]
    planted.spoil(healthy, root, name)
    findings = [f for result in run_checks(DatasetView(root)) for f in result.findings]
    about = [f for f in findings if f.check.startswith(own.checks)]
    errors = [f for f in about if f.severity == "error"]
    outcome = "found" if errors else "warned" if about else "missed"
    first = next(iter(errors or about), None)
    return {
        "kind": own.kind,
        "name": name,
        "outcome": outcome,
        "check": first.check if first else "",
    }


def main(argv: list[str]) -> int:
    """Run the command line; return the exit status."""
    chosen = [n for n in planted.PLANTED if not argv or any(part in n for part in argv)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        healthy = Path(folder) / "healthy"
        assert collect.main([*planted.OPTIONS, "--output", str(healthy)]) == 0
        for number, name in enumerate(chosen):
            rows.append(judge(healthy, Path(folder) / str(number), name))
            print(f"{rows[-1]['outcome']:7} {name}", flush=True)
    if not argv:
        save("corruptions", {"planted": rows})
        report.show("corruptions")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
