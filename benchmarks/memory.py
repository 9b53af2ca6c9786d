"""Measure the memory of a recording process over many episodes.

Usage: python -m benchmarks.memory [--episodes 200] [--preset fast] [--resolution 512]

Prints the figures and writes benchmarks/results/memory.json.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import peak_memory_mb, save
from benchmarks.prepared import prepared
from pp_env.config import RENDER_PRESETS


def memory(episodes: int, preset: str, resolution: int) -> dict[int, float]:
    """Return the memory after every tenth episode, MB."""
    samples: dict[int, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        prepared(folder, preset, episodes, resolution=resolution) as ready,
    ):
        session = ready.session
        while session.step():
            count = session.writer.num_episodes
            if session.between_episodes and count % 10 == 0:
                samples[count] = _memory_mb()
                print(f"  {count} episodes: {samples[count]:.0f} MB", flush=True)
    return samples


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=200, help="to record")
    parser.add_argument("--preset", choices=sorted(RENDER_PRESETS), default="fast",
                        help="image quality")  # fmt: skip
    parser.add_argument("--resolution", type=int, default=512, help="of images, pixels")
    args = parser.parse_args()
    samples = memory(args.episodes, args.preset, args.resolution)
    save("memory", {**vars(args), "mb": samples, "peak_mb": peak_memory_mb()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
