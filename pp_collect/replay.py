"""Prove recorded episodes: replay their actions, or reproduce them from their seeds.

Console scripts: pp-replay and pp-reproduce.
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym

from pp_collect.factory import make_env, make_expert, simulator_description
from pp_collect.options import ReplayOptions, ReproduceOptions
from pp_collect.schema import describe_environment, make_row, stored_config, stored_options
from pp_collect.session import make_writer
from pp_env.config import RenderConfig
from pp_env.sim import shutdown_app
from pp_recorder.command_line import parse
from pp_recorder.dataset import keys
from pp_recorder.dataset.compare import Comparison, ComparisonSink, ReplayPolicy, compare_episodes
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.rollout import EpisodeSink, Policy, run_episode
from pp_recorder.sinks import setup_logging

_TOLERANCE = 1e-3  # rad, m, ...: between machines or versions, whose arithmetic differs


def replay_main(argv: list[str] | None = None) -> int:
    """Run `pp-replay`; return 0 if every episode replays as recorded."""
    options = parse(
        ReplayOptions,
        argv,
        prog="pp-replay",
        description="Replay recorded actions from the recorded start and compare the states.",
        example="pp-replay datasets/pick_place --episode 3 --render /tmp/sharp --preset pretty",
    )
    return _run(options, lambda dataset, episodes: replay(dataset, episodes, options))


def reproduce_main(argv: list[str] | None = None) -> int:
    """Run `pp-reproduce`; return 0 if every episode comes out again from its seed."""
    options = parse(
        ReproduceOptions,
        argv,
        prog="pp-reproduce",
        description="Make episodes again from the stored configuration and seed alone, and "
        "compare them.",
        example="pp-reproduce datasets/pick_place --episode 3",
    )
    return _run(options, reproduce)


def replay(dataset: Dataset, episodes: list[int], options: ReplayOptions) -> list[Comparison]:
    """Replay episodes and compare the states; with `render`, record them with other images.

    Args:
        dataset: The recording.
        episodes: Which of its episodes.
        options: What to render, and where.

    Returns:
        A comparison per episode.

    Raises:
        DatasetError: The dataset does not say how it came about.
    """
    provenance = require_ours(dataset)
    config, output = stored_config(provenance), options.render
    if output is not None:
        resolution = options.resolution or config.render.resolution
        render = RenderConfig(resolution, options.preset or config.render.preset)
        config = dataclasses.replace(config, render=render)
    session = stored_options(provenance, cameras=output is not None, output=output or Path())
    results = []
    with closing(make_env(session, config, session.record_cameras)) as env:
        writer = output and make_writer(session, config, simulator_description(env))
        row = make_row(session, config)
        try:
            for k in episodes:
                entry = dataset.episodes[k]
                compare = ComparisonSink(dataset, k, row, tolerance(provenance))
                policy = ReplayPolicy(dataset.rows(k)[keys.ACTION])
                sinks = [compare, writer] if writer else [compare]
                _run_again(env, policy, sinks, entry, entry[keys.LENGTH])
                results.append(compare.result)
            if writer:
                writer.close()
        finally:
            if writer:
                writer.release()
    return results


def reproduce(dataset: Dataset, episodes: list[int]) -> list[Comparison]:
    """Collect episodes again from their seeds and compare every column and every image.

    Raises:
        DatasetError: The dataset does not say how it came about.
    """
    provenance = require_ours(dataset)
    config, results = stored_config(provenance), []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "again"
        session = stored_options(provenance, provenance["record_cameras"], output)
        expert = make_expert(session, config)
        with closing(make_env(session, config, session.record_cameras)) as env:
            writer = make_writer(session, config, simulator_description(env))
            try:
                for k in episodes:
                    _run_again(env, expert, [writer], dataset.episodes[k], expert.num_steps)
                    again = Dataset(output)
                    last = writer.num_episodes - 1
                    results.append(compare_episodes(dataset, k, again, last, tolerance(provenance)))
                writer.close()
            finally:
                writer.release()
    return results


def require_ours(dataset: Dataset) -> dict[str, Any]:
    """Return the stored provenance.

    Raises:
        DatasetError: Nothing is, or not enough.
    """
    stored = dataset.collection
    if stored is None or "config" not in stored:
        raise DatasetError(
            f"{dataset.root} was not recorded by this project: without meta/collection.json its "
            "start states are unknown"
        )
    return stored


def tolerance(provenance: dict[str, Any]) -> float:
    """Return 0 on the machine and with the versions that recorded, else `_TOLERANCE`."""
    here = describe_environment()
    is_same = all(provenance.get(key) == value for key, value in here.items())
    return 0.0 if is_same else _TOLERANCE


def _run_again(
    env: gym.Env,
    policy: Policy,
    sinks: Sequence[EpisodeSink],
    entry: dict[str, Any],
    max_steps: int,
) -> None:
    """Run a recorded episode again: its seed, and its object, whether sampled or chosen."""
    options = {"object": entry[keys.EPISODE_OBJECT]} if keys.EPISODE_OBJECT in entry else None
    seed, attempt = entry[keys.EPISODE_SEED], entry[keys.EPISODE_ATTEMPT]
    run_episode(env, policy, sinks, seed, attempt, max_steps, options)


def _run(
    options: ReproduceOptions, command: Callable[[Dataset, list[int]], list[Comparison]]
) -> int:
    setup_logging()
    status = 2
    try:
        status = _compare(options, command)
    finally:
        shutdown_app(status)
    return status


def _compare(
    options: ReproduceOptions, command: Callable[[Dataset, list[int]], list[Comparison]]
) -> int:
    try:
        dataset = Dataset(options.dataset)
        results = command(dataset, _chosen(dataset, options.episode))
    except (DatasetError, ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    equal = sum(result.equal for result in results)
    if options.json:
        content = [vars(result) for result in results]
        print(json.dumps({"episodes": len(results), "equal": equal, "results": content}))
    else:
        for result in results:
            print(result)
        print(f"{equal} of {len(results)} episodes are equal")
    return 0 if equal == len(results) else 1


def _chosen(dataset: Dataset, episode: int | None) -> list[int]:
    if episode is None:
        return list(range(dataset.num_episodes))
    if not 0 <= episode < dataset.num_episodes:
        raise DatasetError(f"episode must be from 0 to {dataset.num_episodes - 1}, got {episode}")
    return [episode]
