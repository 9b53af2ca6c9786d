"""Proves recorded episodes: plays their actions again, or makes them anew from their seeds.

Console scripts: pp-replay and pp-reproduce.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from pp_collect import session as collection
from pp_env.config import PickPlaceConfig, RenderConfig, from_dict
from pp_env.sim import leave
from pp_recorder.command_line import folder, pixels
from pp_recorder.dataset.compare import Compare, Comparison, RecordedActions, compare_episodes
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.dataset.writer import LeRobotWriter
from pp_recorder.rollout import run_episode

_TOLERANCE = 1e-3  # rad, m, ...: between machines or versions, whose arithmetic differs


def replay_main(argv: list[str] | None = None) -> int:
    """`pp-replay`: returns 0 if every episode replays as recorded."""
    parser = _parser(
        "pp-replay",
        "Replays recorded actions from the recorded start and compares the states.",
        "Example: pp-replay datasets/pick_place --episode 3 --render /tmp/sharp --preset pretty",
    )
    parser.add_argument(
        "--render", type=folder, metavar="OUT", help="write a dataset with new pictures"
    )
    parser.add_argument(
        "--resolution", type=pixels, help="of the new pictures; default: as recorded"
    )
    parser.add_argument("--preset", help="of the new pictures; default: as recorded")
    args = parser.parse_args(argv)
    if args.render is None and (args.resolution or args.preset):
        parser.error("--resolution and --preset need --render OUT")
    return _run(args, replay)


def reproduce_main(argv: list[str] | None = None) -> int:
    """`pp-reproduce`: returns 0 if every episode can be made again from its seed."""
    parser = _parser(
        "pp-reproduce",
        "Makes episodes again from the stored configuration and seed alone, and compares them.",
        "Example: pp-reproduce datasets/pick_place --episode 3",
    )
    return _run(parser.parse_args(argv), reproduce)


def replay(dataset: Dataset, episodes: list[int], args: Namespace) -> list[Comparison]:
    """Replays episodes; with `args.render`, records them with other pictures."""
    stored = require_ours(dataset)
    config = stored_config(stored)
    options = stored_options(stored, cameras=False)
    if args.render is not None:
        resolution = args.resolution or config.render.resolution
        render = RenderConfig(resolution, args.preset or config.render.preset)
        config = dataclasses.replace(config, render=render)
        options = stored_options(stored, cameras=True, output=args.render)
    env = collection.make_env(options, config)
    simulator = collection.simulator_description(env)
    writer = collection.make_writer(options, config, simulator) if args.render is not None else None
    row = collection.make_row(options, config)
    results = []
    try:
        for k in episodes:
            entry = dataset.episodes[k]
            compare = Compare(dataset, k, row, tolerance(stored))
            sinks = [compare] if writer is None else [compare, writer]
            seed, attempt = entry["episode/seed"], entry["episode/attempt"]
            policy = RecordedActions(dataset.rows(k)["action"])
            options = start_options(entry)
            run_episode(env, policy, sinks, seed, attempt, entry["length"], options)
            results.append(compare.result)
        if writer is not None:
            writer.close()
    finally:
        if writer is not None:
            writer.release()
        env.close()
    return results


def reproduce(dataset: Dataset, episodes: list[int], args: Namespace) -> list[Comparison]:
    """Collects episodes anew and compares every column and every picture."""
    stored = require_ours(dataset)
    config, results = stored_config(stored), []
    with tempfile.TemporaryDirectory() as folder:
        options = stored_options(stored, stored["record_cameras"], Path(folder) / "again")
        env = collection.make_env(options, config)
        expert = collection.make_expert(
            options.steps_per_segment, options.noise_rad, options.wander_rad, config
        )
        simulator = collection.simulator_description(env)
        writer: LeRobotWriter = collection.make_writer(options, config, simulator)
        try:
            for k in episodes:
                entry = dataset.episodes[k]
                seed, attempt = entry["episode/seed"], entry["episode/attempt"]
                start = start_options(entry)
                run_episode(env, expert, [writer], seed, attempt, expert.num_steps, start)
                again = Dataset(options.output)
                last = writer.num_episodes - 1
                results.append(compare_episodes(dataset, k, again, last, tolerance(stored)))
            writer.close()
        finally:
            writer.release()
            env.close()
    return results


def require_ours(dataset: Dataset) -> dict[str, Any]:
    """What is stored about how the dataset came about.

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


def stored_config(stored: dict[str, Any]) -> PickPlaceConfig:
    """The environment's configuration."""
    return from_dict(PickPlaceConfig, stored["config"])


def stored_options(stored: dict[str, Any], cameras: bool, output: Path = Path()) -> Namespace:
    """The options of the collection, as `collect` takes them."""
    names = (
        "seed", "first_attempt", "simulator", "steps_per_segment", "noise_rad", "keep", "codec",
        "task",
    )  # fmt: skip
    options = {name: stored[name] for name in names}
    return Namespace(
        **options, wander_rad=stored.get("wander_rad", 0.0), object=stored.get("object"),
        cameras=cameras, output=output, headless=True, resume=False, assets_root=None,
        streaming=False,
    )  # fmt: skip


def start_options(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The reset options of a recorded episode: its object, whether it was drawn or asked for."""
    return {"object": entry["episode/object"]} if "episode/object" in entry else None


def tolerance(stored: dict[str, Any]) -> float:
    """0 on the machine and with the versions that recorded, else `_TOLERANCE`."""
    here = collection.environment_description()
    return 0.0 if all(stored.get(key) == value for key, value in here.items()) else _TOLERANCE


def _parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=example)
    parser.add_argument("dataset", type=folder)
    parser.add_argument("--episode", type=int, help="which one; default: all")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _run(args: Namespace, command) -> int:
    status = 2
    try:
        status = _compare(args, command)
    finally:
        leave(status)
    return status


def _compare(args: Namespace, command) -> int:
    try:
        dataset = Dataset(args.dataset)
        results = command(dataset, _chosen(dataset, args.episode), args)
    except (DatasetError, ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    equal = sum(result.equal for result in results)
    if args.json:
        print(json.dumps({"episodes": len(results), "equal": equal,
                          "results": [vars(result) for result in results]}))  # fmt: skip
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
