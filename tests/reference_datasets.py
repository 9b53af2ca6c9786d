"""Collect small datasets of every kind and print the hash of each.

Run it before and after a change that must not alter what is recorded, and compare the lines:

    python -m tests.reference_datasets OUT_BEFORE --collect path/to/old/collect.py
    python -m tests.reference_datasets OUT_AFTER
    python -m tests.reference_datasets --compare OUT_BEFORE OUT_AFTER
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

from tests import ROOT

CONFIGURATIONS = {
    "cube": ["--resolution", "128"],
    "ycb": ["--resolution", "128", "--use-ycb", "--random-yaw"],
    "three-objects": ["--resolution", "128", "--use-ycb", "--num-objects", "3"],
    "full": ["--resolution", "128", "--randomize", "full"],
    "no-cameras": ["--no-cameras"],
    "workers-1": ["--resolution", "128", "--workers", "1", "--num-episodes", "4"],
    "workers-2": ["--resolution", "128", "--workers", "2", "--num-episodes", "4"],
    "640x480": ["--resolution", "640x480", "--num-episodes", "1"],
    "success": ["--no-cameras", "--keep", "success", "--grasp", "friction", "--noise-rad", "0.2"],
    "wandering": ["--resolution", "128", "--wander-rad", "0.05"],
    "friction": ["--resolution", "128", "--grasp", "friction", "--keep", "all"],
}
# How the dataset came about: the only file that may differ, since it names options and versions.
PROVENANCE = "meta/collection.json"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 where two folders differ."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="OUT")
    parser.add_argument("--collect", type=Path, default=ROOT / "collect.py")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--compare", action="store_true", help="compare two folders, file by file")
    args = parser.parse_args(argv)
    if args.compare:
        return compare(*args.folders)
    (out,) = args.folders
    for name in args.only:
        collect(args.collect.resolve(), out.resolve() / name, CONFIGURATIONS[name])
        print(f"{digest(files(out / name))}  {name}", flush=True)
    return 0


def collect(script: Path, output: Path, options: list[str]) -> None:
    """Collect one dataset, two episodes unless the options say otherwise."""
    command = [sys.executable, str(script), "--num-episodes", "2", "--output", str(output)]
    subprocess.run([*command, *options], cwd=script.parent, check=True, capture_output=True)


def files(dataset: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but the provenance, by its path in the dataset."""
    paths = sorted(path for path in dataset.rglob("*") if path.is_file())
    names = {path.relative_to(dataset).as_posix(): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if name != PROVENANCE
    }


def digest(hashes: dict[str, str]) -> str:
    """Return one SHA-256 over names and contents."""
    lines = "".join(f"{value}  {name}\n" for name, value in hashes.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def compare(before: Path, after: Path) -> int:
    """Print what differs; return 0 if nothing does."""
    status = 0
    for name in CONFIGURATIONS:
        old, new = files(before / name), files(after / name)
        differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        print(f"{name}: {', '.join(differing) or f'{len(new)} files equal'}")
        status |= bool(differing) or not new
    return status


if __name__ == "__main__":
    sys.exit(main())
