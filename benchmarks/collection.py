"""A collection as `collect.py` makes it, in this process, open to be measured."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym

import collect
from experts.pick_place import PickPlaceExpert
from recorder.lerobot_writer import LeRobotWriter
from recorder.rollout import EpisodeSink
from recorder.status import StatusFile


class Collection(NamedTuple):
    """What one is made of."""

    args: argparse.Namespace
    env: gym.Env
    expert: PickPlaceExpert
    writer: LeRobotWriter

    def run(self, sinks: Sequence[EpisodeSink] = ()) -> collect.Tally:
        """Records what the options ask for; the sinks see it, too."""
        every = [self.writer, *sinks]
        stop, status = collect.StopRequest(), StatusFile(None)
        return collect.run_attempts(
            self.env, self.expert, every, self.writer, self.args, stop, status
        )


@contextmanager
def collection(
    folder: Path | str, preset: str = "default", episodes: int = 1, seed: int = 0
) -> Iterator[Collection]:
    """A collection into `folder`/set; the first scene is drawn, so shaders and meshes are there."""
    options = {"output": f"{folder}/set", "preset": preset, "num-episodes": episodes, "seed": seed}
    args = collect.make_parser().parse_args([f"--{key}={value}" for key, value in options.items()])
    config = collect.make_config(args)
    env = collect.make_env(args, config)
    writer = collect.make_writer(args, config, collect.simulator_description(env))
    try:
        env.reset(seed=0)
        yield Collection(args, env, PickPlaceExpert(), writer)
    finally:
        writer.close()
        env.close()
