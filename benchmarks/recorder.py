"""What recording costs: ours with and without durability, beside lerobot's own writer.

Usage: python -m benchmarks.recorder [--lerobot .venv-lerobot/bin/python] [--steps 270]

All writers get the same frames, two cameras of 512 x 512 from an expert episode, already rendered
and in memory. Figures are per step, CPU of the whole process, and wall per episode.
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
from pp_recorder.rollout import Episode, EpisodeSink, Step, episode_seed, run_episode

_EPISODES = 2  # after one to warm up


class Keep(EpisodeSink):
    """A sink that keeps every step in memory."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.episode: Episode | None = None

    def add(self, step: Step) -> None:
        """Keeps it."""
        self.steps.append(step)

    def end(self, episode: Episode) -> None:
        """Keeps it."""
        self.episode = episode


def record(folder: Path, steps: int) -> tuple[SessionOptions, Keep]:
    """The options and an expert episode, rendered once."""
    keep = Keep()
    with prepared(folder / "unused", "fast") as ready:
        run_episode(ready.env, ready.expert, [keep], episode_seed(0, 0), 0, steps)
    return ready.options, keep


def ours(folder: Path, options: SessionOptions, keep: Keep, durable: bool) -> dict[str, float]:
    """Our writer; without durability nothing is flushed to disk and no video is read back."""
    output = folder / ("durable" if durable else "careless")
    options = dataclasses.replace(options, output=output)
    length = len(keep.steps)
    careless = (
        mock.patch.object(os, "fsync"),
        mock.patch.object(video, "count_images", return_value=length),
    )
    if not durable:
        for patch in careless:
            patch.start()
    writer = make_writer(options, make_config(options), {})
    seconds = []
    for k in range(1 + _EPISODES):
        wall, cpu = time.perf_counter(), time.process_time()
        writer.begin(0)
        for step in keep.steps:
            writer.add(step)
        writer.end(keep.episode)
        if k:
            seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    writer.close()
    if not durable:
        for patch in careless:
            patch.stop()
    return _figures(seconds, length)


def theirs(folder: Path, python: str, keep: Keep, streaming: bool) -> dict[str, float]:
    """The writer of lerobot, in its own environment, on the same frames."""
    names = list(keep.steps[0].observation["pixels"])
    frames = np.stack([[s.observation["pixels"][n] for n in names] for s in keep.steps])
    np.save(folder / "frames.npy", frames)
    script = Path(__file__).with_name("lerobot_writer.py")
    command = [python, str(script), str(folder / "frames.npy"), str(int(streaming)), str(_EPISODES)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"lerobot's writer failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return {"version": result["version"], **_figures(result["seconds"], len(keep.steps))}


def _figures(seconds: list[tuple[float, float]], length: int) -> dict[str, float]:
    wall, cpu = np.median(np.array(seconds), axis=0)
    return {
        "wall_ms_per_step": 1e3 * wall / length,
        "cpu_ms_per_step": 1e3 * cpu / length,
        "wall_ms_per_episode": 1e3 * wall,
    }


def compare(lerobot: str | None, steps: int) -> dict[str, dict]:
    """Figures of every writer over an episode of so many steps, by its label.

    Args:
        lerobot: A Python that has lerobot; None for ours alone.
        steps: Of the episode.

    Raises:
        RuntimeError: lerobot's writer failed.
    """
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        args, keep = record(folder, steps)
        results["ours"] = ours(folder, args, keep, durable=True)
        results["ours, not durable"] = ours(folder, args, keep, durable=False)
        if lerobot:
            for label, streaming in (("lerobot", False), ("lerobot, streaming", True)):
                results[label] = theirs(folder, lerobot, keep, streaming)
    return results


def main() -> int:
    """Runs all writers; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lerobot", help="a Python with lerobot; without it, only ours")
    parser.add_argument("--steps", type=int, default=270)
    options = parser.parse_args()
    results = compare(options.lerobot, options.steps)
    save("recorder", {"writers": results})
    report.show("recorder")
    return 0


if __name__ == "__main__":
    sys.exit(main())
