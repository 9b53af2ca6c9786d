"""The memory of a recording process over many episodes.

Usage: python -m benchmarks.memory [--episodes 200] [--preset fast]

Prints and writes JSON to benchmarks/results/memory.json.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import peak_memory_mb, save
from benchmarks.collection import collection
from pp_env.config import RENDER_PRESETS


class Sampler:
    """A sink that reads the process's memory after every tenth episode.

    Attributes:
        mb: By the number of episodes.
    """

    def __init__(self) -> None:
        self.mb: dict[int, float] = {}
        self._count = 0

    def end(self, episode) -> None:
        """Samples now and then."""
        self._count += 1
        if self._count % 10 == 0:
            self.mb[self._count] = _memory_mb()
            print(f"  {self._count} episodes: {self.mb[self._count]:.0f} MB", flush=True)

    begin = add = lambda self, _: None
    abort = close = lambda self: None


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Records; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--preset", choices=sorted(RENDER_PRESETS), default="fast")
    args = parser.parse_args()
    sampler = Sampler()
    with (
        tempfile.TemporaryDirectory() as folder,
        collection(folder, args.preset, args.episodes) as recording,
    ):
        recording.run([sampler])
    save("memory", {"preset": args.preset, "mb": sampler.mb, "peak_mb": peak_memory_mb()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
