"""Measure the parts of a recorded step's time, in one process with its encoders.

Usage: python -m benchmarks.breakdown [--presets fast default pretty]

Prints a table, milliseconds per step with two cameras of 512 x 512, and writes JSON to
benchmarks/results/breakdown.json.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import av

from benchmarks import report, save
from benchmarks.prepared import prepared
from pp_env.config import RENDER_PRESETS
from pp_recorder.dataset.video import VideoEncoder
from pp_recorder.rollout import run_episode


def breakdown(preset: str) -> dict[str, float]:
    """Return the ms per step of each part, over one episode."""
    spent: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder, prepared(folder, preset) as ready:
        env, expert, writer = ready.env, ready.expert, ready.session.writer
        simulator = env.unwrapped._simulator
        for target, method, label in (
            (simulator, "step", "physics"),
            (simulator, "render", "rendering"),
            (writer, "add", "waiting for the encoders"),
            (writer, "end", "commit"),
        ):
            setattr(target, method, _timed(getattr(target, method), spent, label))
        wall, cpu = time.perf_counter(), time.process_time()
        run_episode(env, expert, [writer], 0, 0, expert.num_steps)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        encoding = _encoding_seconds(writer.root / "videos", Path(folder))
    seconds = {
        **spent, "the rest": wall - sum(spent.values()), "whole step": wall,
        "whole step, CPU": cpu, "of which encoding, CPU": encoding,
    }  # fmt: skip
    return {label: 1e3 * value / expert.num_steps for label, value in seconds.items()}


def _timed(call: Callable, spent: dict[str, float], label: str) -> Callable:
    def timed(*args):
        begin = time.perf_counter()
        result = call(*args)
        spent[label] += time.perf_counter() - begin
        return result

    return timed


def _encoding_seconds(videos: Path, folder: Path) -> float:
    """Return the CPU time to encode all videos in a folder again, without decoding, s."""
    total = 0.0
    for path in videos.rglob("file-*.mp4"):
        with av.open(str(path)) as container:
            images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        begin = time.process_time()
        encoder = VideoEncoder(folder / "again.mp4", "h264", 30)
        for image in images:
            encoder.add(image)
        encoder.finish(len(images))
        total += time.process_time() - begin
    return total


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=sorted(RENDER_PRESETS),
                        default=["fast", "default", "pretty"],
                        help="image quality")  # fmt: skip
    args = parser.parse_args()
    save("breakdown", {"ms_per_step": {preset: breakdown(preset) for preset in args.presets}})
    report.show("breakdown")
    return 0


if __name__ == "__main__":
    sys.exit(main())
