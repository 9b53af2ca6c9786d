"""Measure the speed of `collect.py --workers N`, from its start to the full dataset.

Usage: python -m benchmarks.scaling [--workers 1 2 4 8 16] [--episodes-per-worker 12]

Every run is the command line in a process of its own: two cameras of 512 x 512, rendered, encoded,
committed one by one. The rate counts from the moment at which there is an episode for every worker,
which excludes start-up; the rate of the whole run is reported, too. Prints a table and writes
benchmarks/results/scaling.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import report, save
from pp_env.config import RENDER_PRESETS

_POLL_PERIOD = 0.02  # s between two counts of the episodes


def measure(workers: int, episodes: int, preset: str) -> dict[str, float]:
    """Return the speed and cost of a collection with so many workers.

    Raises:
        RuntimeError: The collection failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "output": f"{folder}/set", "num-episodes": episodes, "workers": workers,
            "preset": preset,
        }  # fmt: skip
        command = [sys.executable, "-m", "collect", *(f"--{k}={v}" for k, v in options.items())]
        begin, cpu = time.perf_counter(), _cpu_of_children()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        times = _watch(process, Path(folder) / "set" / "meta" / "info.json", begin)
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed; see above")
        whole = time.perf_counter() - begin
    since, start = next((n, t) for n, t in times if n >= workers)
    count, end = times[-1]
    return {
        "episodes": count,
        "good_episodes_per_h": 3600 * (count - since) / (end - start),
        "with_start_up_per_h": 3600 * count / whole,
        "start_up_s": start,
        "cpu_s_per_episode": (_cpu_of_children() - cpu) / count,
        "success": _success(output),
    }


def _watch(process: subprocess.Popen, info: Path, begin: float) -> list[tuple[int, float]]:
    """Return each number of episodes, and the time at which it was reached, s after `begin`."""
    times: list[tuple[int, float]] = []
    ended = False
    while not ended:
        ended = process.poll() is not None
        count = json.loads(info.read_text())["total_episodes"] if info.exists() else 0
        if count > (times[-1][0] if times else 0):
            times.append((count, time.perf_counter() - begin))
        time.sleep(_POLL_PERIOD)
    return times


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _success(output: str) -> float:
    """Return the success rate of all attempts, from the final report."""
    words = next(line for line in output.splitlines() if line.startswith("success")).split()
    return int(words[1]) / int(words[3])


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", help="default: 1, 2, 4 ... cores")
    parser.add_argument("--episodes-per-worker", type=int, default=12, help="to record")
    parser.add_argument("--preset", choices=sorted(RENDER_PRESETS), default="default",
                        help="image quality")  # fmt: skip
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    counts = args.workers or [2**k for k in range(cores.bit_length()) if 2**k <= cores]
    runs = {}
    for workers in counts:
        print(f"{workers} workers, {args.episodes_per_worker} episodes each", flush=True)
        runs[workers] = measure(workers, workers * args.episodes_per_worker, args.preset)
        print(json.dumps(runs[workers]), flush=True)
    save("scaling", {"preset": args.preset, "workers": runs})
    report.show("scaling")
    return 0


if __name__ == "__main__":
    sys.exit(main())
