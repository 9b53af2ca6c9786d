"""A collection as `collect.py` makes it, in this process, ready to be measured."""

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym

import collect
from experts.pick_place import PickPlaceExpert
from pp_collect.session import Collection, make_env, make_expert


class Prepared(NamedTuple):
    """A collection and what it is made of."""

    args: argparse.Namespace
    env: gym.Env
    expert: PickPlaceExpert
    collection: Collection


@contextmanager
def prepared(
    folder: Path | str,
    preset: str = "default",
    episodes: int = 1,
    seed: int = 0,
    resolution: int = 512,
) -> Iterator[Prepared]:
    """A collection into `folder`/set; the first pictures are drawn, so meshes are loaded."""
    options = {
        "output": f"{folder}/set", "preset": preset, "num-episodes": episodes, "seed": seed,
        "resolution": resolution,
    }  # fmt: skip
    args = collect.make_parser().parse_args([f"--{key}={value}" for key, value in options.items()])
    config = collect.make_config(args)
    expert = make_expert(args.steps_per_segment, args.noise_rad, args.wander_rad, config)
    with closing(make_env(args, config)) as env:
        collection = Collection(args, config, expert, env)
        with closing(collection):
            yield Prepared(args, env, expert, collection)
