"""Prepare a collection as `collect.py` runs it, in this process, to be measured."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym

from experts.pick_place import PickPlaceExpert
from pp_collect.factory import make_config, make_env, make_expert
from pp_collect.options import SessionOptions
from pp_collect.session import CollectionSession


class Prepared(NamedTuple):
    """A collection and its parts."""

    options: SessionOptions
    env: gym.Env
    expert: PickPlaceExpert
    session: CollectionSession


@contextmanager
def prepared(
    folder: Path | str,
    preset: str = "default",
    episodes: int = 1,
    seed: int = 0,
    resolution: int = 512,
) -> Iterator[Prepared]:
    """Yield a collection into `folder`/set, after its first images: the meshes are loaded."""
    options = SessionOptions(
        output=Path(folder) / "set",
        preset=preset,
        num_episodes=episodes,
        seed=seed,
        resolution=resolution,
    )
    config = make_config(options)
    expert = make_expert(options, config)
    with closing(make_env(options, config, options.record_cameras)) as env:
        session = CollectionSession(options, config, expert, env)
        with closing(session):
            yield Prepared(options, env, expert, session)
