"""Kill a collection at random moments and resume it, again and again.

Usage: python -m tests.crash [--kills 200]       (make crash-test)

After every kill the dataset must load, must hold every episode that was finished before, and in
the end must equal one that was never interrupted. Exits with 1 if any of this fails.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pp_recorder.dataset.reader import Dataset, DatasetError
from tests import ROOT

LENGTH = 72  # frames of an episode
OPTIONS = [
    "--steps-per-segment", str(LENGTH // 9), "--resolution", "64", "--preset", "fast",
    "--seed", "3", "--workers", "1",
]  # fmt: skip


@dataclass
class CrashStats:
    """The effects of the kills.

    Attributes:
        kills: Number of kills.
        lost: Finished episodes that were lost.
        unloadable: Kills after which the dataset could not be loaded.
        problems: One line per kill with an effect.
    """

    kills: int = 0
    lost: int = 0
    unloadable: int = 0
    problems: list[str] = field(default_factory=list)


def command(output: Path, episodes: int) -> list[str]:
    """Return the command of a collection that resumes."""
    options = ["--num-episodes", str(episodes), "--output", str(output), "--resume"]
    return [sys.executable, "collect.py", *OPTIONS, *options]


def collect(output: Path, episodes: int) -> None:
    """Collect without interruption."""
    subprocess.run(command(output, episodes), cwd=ROOT, check=True, capture_output=True)


def finished(output: Path) -> int:
    """Return the number of episodes of a dataset; -1 if it cannot be loaded, 0 before it exists."""
    if not (output / "meta/info.json").exists():
        return 0
    try:
        dataset = Dataset(output)
        if dataset.num_episodes:
            dataset.rows(dataset.num_episodes - 1)
            last = [
                sum(1 for _ in dataset.frames(dataset.num_episodes - 1, c)) for c in dataset.cameras
            ]
            if any(count != dataset.episodes[-1]["length"] for count in last):
                return -1
    except DatasetError:
        return -1
    return dataset.num_episodes


def kill_and_resume(output: Path, kills: int, seed: int, per_kill: float = 1.5) -> CrashStats:
    """Resume an endless collection and kill it, this number of times."""
    rng, stats, before = random.Random(seed), CrashStats(), 0
    for _ in range(kills):
        process = subprocess.Popen(
            command(output, 100_000),
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        # Most kills come while it works, some while it starts; starting takes about a second.
        time.sleep(rng.uniform(0.2, 1.0) if rng.random() < 0.15 else 1.0 + rng.uniform(0, per_kill))
        process.kill()
        process.wait()
        stats.kills += 1
        now = finished(output)
        if now < 0:
            stats.unloadable += 1
            stats.problems.append(f"kill {stats.kills}: the dataset cannot be loaded")
        elif now < before:
            stats.lost += before - now
            stats.problems.append(f"kill {stats.kills}: {before} episodes before, {now} after")
        before = max(now, before)
    return stats


def differences(one: Path, other: Path) -> list[str]:
    """Return the files in which two datasets differ; videos differ if their images do."""
    names = [
        sorted(str(p.relative_to(d)) for p in d.rglob("*") if p.is_file()) for d in (one, other)
    ]
    if names[0] != names[1]:
        return [f"files: {sorted(set(names[0]) ^ set(names[1]))}"]
    found = []
    for name in names[0]:
        if (one / name).read_bytes() == (other / name).read_bytes():
            continue
        if not name.endswith(".mp4") or not _has_same_images(one / name, other / name):
            found.append(name)
    return found


def _has_same_images(one: Path, other: Path) -> bool:
    from pp_recorder.dataset.reader import decode

    pairs = zip(decode(one), decode(other), strict=True)
    return all(np.array_equal(a[1].to_ndarray(), b[1].to_ndarray()) for a, b in pairs)


def main() -> int:
    """Run the test; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder) / "killed", Path(folder) / "whole"
        stats = kill_and_resume(killed, args.kills, args.seed)
        episodes = finished(killed) + 1
        collect(killed, episodes)
        collect(whole, episodes)
        differing = differences(killed, whole)
    print(
        f"{stats.kills} kills, {episodes} episodes: {stats.lost} finished episodes lost, "
        f"{stats.unloadable} times not loadable, {len(differing)} files differ from the "
        "uninterrupted run"
    )
    for problem in [*stats.problems, *differing]:
        print(f"  {problem}")
    return int(bool(stats.problems or differing))


if __name__ == "__main__":
    sys.exit(main())
