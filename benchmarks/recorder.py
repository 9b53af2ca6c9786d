"""Measure the cost of recording: ours with and without durability, and lerobot's own writer.

Usage: python -m benchmarks.recorder [--lerobot .venv-lerobot/bin/python] [--steps 270]

All writers record the same frames, two cameras of 512 x 512 from an expert episode, which are
rendered before and in memory. Figures are wall and CPU time of the whole process per step, and wall
time per episode.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks import report, save
from benchmarks.prepared import prepared
from pp_collect.factory import make_config
from pp_collect.options import SessionOptions
from pp_collect.session import make_writer
from pp_recorder.dataset import video
from pp_recorder.rollout import episode_seed, run_episode
from pp_recorder.sinks import EpisodeBuffer

_EPISODES = 2  # after the first, which is not measured


def record(folder: Path, steps: int) -> tuple[SessionOptions, EpisodeBuffer]:
    """Return the options, and an expert episode that was rendered once."""
    buffer = EpisodeBuffer()
    with prepared(folder / "unused", "fast") as ready:
        run_episode(ready.env, ready.expert, [buffer], episode_seed(0, 0), 0, steps)
    return ready.options, buffer


def ours(
    folder: Path, options: SessionOptions, buffer: EpisodeBuffer, durable: bool
) -> dict[str, float]:
    """Return the figures of our writer.

    Without durability, nothing is flushed to disk and no video is read back.
    """
    output = folder / ("durable" if durable else "not_durable")
    options = dataclasses.replace(options, output=output)
    length = len(buffer.steps)
    patches = (
        mock.patch.object(os, "fsync"),
        mock.patch.object(video, "count_images", return_value=length),
    )
    if not durable:
        for patch in patches:
            patch.start()
    writer = make_writer(options, make_config(options), {})
    seconds = []
    for k in range(1 + _EPISODES):
        wall, cpu = time.perf_counter(), time.process_time()
        writer.begin(0)
        for step in buffer.steps:
            writer.add(step)
        writer.end(buffer.episode)
        if k:
            seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    writer.close()
    if not durable:
        for patch in patches:
            patch.stop()
    return _figures(seconds, length)


def theirs(folder: Path, python: str, buffer: EpisodeBuffer, streaming: bool) -> dict[str, float]:
    """Return the figures of lerobot's writer, in its own environment, on the same frames.

    Raises:
        RuntimeError: The writer failed.
    """
    names = list(buffer.steps[0].observation["pixels"])
    frames = np.stack([[s.observation["pixels"][n] for n in names] for s in buffer.steps])
    np.save(folder / "frames.npy", frames)
    script = Path(__file__).with_name("lerobot_writer.py")
    command = [python, str(script), str(folder / "frames.npy"), str(int(streaming)), str(_EPISODES)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"lerobot's writer failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return {"version": result["version"], **_figures(result["seconds"], len(buffer.steps))}


def _figures(seconds: list[tuple[float, float]], length: int) -> dict[str, float]:
    wall, cpu = np.median(np.array(seconds), axis=0)
    return {
        "wall_ms_per_step": 1e3 * wall / length,
        "cpu_ms_per_step": 1e3 * cpu / length,
        "wall_ms_per_episode": 1e3 * wall,
    }


def compare(lerobot: str | None, steps: int) -> dict[str, dict]:
    """Return the figures of every writer, by its label, for an episode of so many steps.

    Args:
        lerobot: A Python with lerobot, or None to measure ours alone.
        steps: Length of the episode.

    Raises:
        RuntimeError: lerobot's writer failed.
    """
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options, buffer = record(folder, steps)
        results["ours"] = ours(folder, options, buffer, durable=True)
        results["ours, not durable"] = ours(folder, options, buffer, durable=False)
        if lerobot:
            for label, streaming in (("lerobot", False), ("lerobot, streaming", True)):
                results[label] = theirs(folder, lerobot, buffer, streaming)
    return results


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lerobot", help="a Python with lerobot; without it, only ours")
    parser.add_argument("--steps", type=int, default=270, help="length of the episode")
    args = parser.parse_args()
    results = compare(args.lerobot, args.steps)
    save("recorder", {"writers": results})
    report.show("recorder")
    return 0


if __name__ == "__main__":
    sys.exit(main())
