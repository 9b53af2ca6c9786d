"""Prove recorded episodes: replay their actions, or reproduce them from their seeds.

Console scripts: pp-replay and pp-reproduce.
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from experts.waypoints import PHASES
from pp_collect.actions import set_control_mode
from pp_collect.factory import (
    acting_in,
    make_disturbance,
    make_env,
    make_expert,
    make_starts,
    simulator_description,
)
from pp_collect.options import RecordedOptions, ReplayOptions, ReproduceOptions, SessionOptions
from pp_collect.schema import (
    DATA_REVISION,
    as_recorded,
    make_row,
    stored_config,
    stored_options,
)
from pp_collect.session import make_writer
from pp_collect.starts import Prelude, RecordedStart
from pp_env.config import PickPlaceConfig, RenderConfig
from pp_env.sim import shutdown_app
from pp_recorder.command_line import parse
from pp_recorder.dataset import keys
from pp_recorder.dataset.compare import (
    Comparison,
    ComparisonSink,
    RecordedExecution,
    ReplayPolicy,
    compare_episodes,
)
from pp_recorder.dataset.merge import provenance_of
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.dataset.versions import describe_environment
from pp_recorder.dataset.writer import require_empty
from pp_recorder.interrupts import interrupted, raise_on_interrupt
from pp_recorder.output import describe_error
from pp_recorder.recording import replay as replay_in
from pp_recorder.rollout import AnyPolicy, Disturbance, EpisodeSink, Start, run_episode
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
    return _run(options, lambda dataset, episodes: reproduce(dataset, episodes, options))


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
    if is_recording(dataset):
        return _replay_recording(dataset, episodes, options)
    provenance = require_ours(dataset)
    config, output = stored_config(provenance), options.render
    if output is not None:
        resolution = options.resolution or config.render.resolution
        render = RenderConfig(resolution, options.preset or config.render.preset)
        config = dataclasses.replace(config, render=render)
    session = stored_options(provenance, cameras=output is not None, output=output or Path())
    results = []
    with closing(make_env(session, config, session.record_cameras)) as env:
        set_control_mode(env, session.control_mode)
        has_phases = _has_phases(dataset)
        writer = output and make_writer(session, config, simulator_description(env), has_phases)
        row = as_recorded(make_row(session, config, has_phases), provenance.get("revision", 1))
        needed = [keys.ACTION, keys.EXECUTED_ACTION, *([keys.SUBTASK_INDEX] * has_phases)]
        try:
            for k in episodes:
                entry = dataset.episodes[k]
                compare = ComparisonSink(dataset, k, row, tolerance(provenance))
                sinks = [compare, writer] if writer else [compare]
                rows, start = dataset.rows(k, needed), RecordedStart(Prelude.from_entry(entry))
                if keys.ACTION not in rows:
                    raise DatasetError(f"{dataset.root} has no column {keys.ACTION} to replay")
                executed = rows.get(keys.EXECUTED_ACTION)
                disturbance = None if executed is None else RecordedExecution(executed)
                policy = ReplayPolicy(rows[keys.ACTION], _phases(rows))
                _run_again(env, policy, sinks, entry, entry[keys.LENGTH], start, disturbance)
                results.append(compare.result)
            if writer:
                writer.finalize()
        finally:
            if writer:
                writer.release()
    return results


def reproduce(dataset: Dataset, episodes: list[int], options: ReproduceOptions) -> list[Comparison]:
    """Collect episodes again from their seeds and compare every column and every image.

    Args:
        dataset: The recording.
        episodes: Which of its episodes.
        options: Whether the dataset is trusted.

    Returns:
        A comparison per episode.

    Raises:
        DatasetError: The dataset does not say how it came about, or names code and is not trusted.
    """
    provenance = require_ours(dataset)
    if (revision := provenance.get("revision", 1)) != DATA_REVISION:
        raise DatasetError(
            f"{dataset.root} has data revision {revision}, and the same seeds give other episodes "
            f"in this version's revision {DATA_REVISION}; reproduce it with the version that "
            f"recorded it ({provenance.get('versions')}), or try pp-replay"
        )
    config, results = stored_config(provenance), []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "again"
        session = stored_options(provenance, provenance["record_cameras"], output)
        if session.policy is not None and not options.trust:
            raise _untrusted(dataset, session.policy, "what acted")
        expert, until_success = make_expert(session, config), session.policy is not None
        env = make_env(session, config, session.record_cameras, until_success=until_success)
        with closing(env):
            set_control_mode(env, session.control_mode)
            policy = acting_in(env, expert)
            writer = make_writer(session, config, simulator_description(env))
            try:
                starts_of = cache(partial(_make_starts, session, config))
                disturbance = make_disturbance(session)
                for k in episodes:
                    entry, steps = dataset.episodes[k], expert.num_steps
                    own = provenance_of(provenance, k)
                    mix = own.get("start_mix") or session.start_mix
                    start_policy = own.get("start_policy")
                    if not options.trust:
                        _require_no_code(dataset, start_policy)
                    starts = starts_of(mix, start_policy)
                    _run_again(env, policy, [writer], entry, steps, starts, disturbance)
                    again = Dataset(output)
                    last = writer.num_episodes - 1
                    results.append(compare_episodes(dataset, k, again, last, tolerance(provenance)))
                writer.close()
            finally:
                writer.release()
    return results


def is_recording(dataset: Dataset) -> bool:
    """Return True if a dataset is one of `pp_recorder.record`, in whatever environment."""
    return "env" in (dataset.collection or {}) and "config" not in (dataset.collection or {})


def _replay_recording(
    dataset: Dataset, episodes: list[int], options: ReplayOptions
) -> list[Comparison]:
    """Replay episodes in the environment that a dataset of `pp_recorder.record` names."""
    stored, path = dataset.collection or {}, dataset.root / keys.COLLECTION_PATH
    spec = stored["env"]
    if not isinstance(spec, dict) or "id" not in spec:
        raise DatasetError(
            f"{path} does not say how to make the environment ({spec}); in Python, "
            "pp_recorder.replay(env, dataset) replays it"
        )
    if options.render is not None:
        raise DatasetError("--render is for datasets of collect.py, this is one of record()")
    if not options.trust:
        raise DatasetError(
            f"{path} names the environment {spec['id']!r}. Making it runs its code: look at it, "
            "and give --trust"
        )
    try:
        env = gym.make(EnvSpec.from_json(json.dumps(spec)))
    except Exception as error:  # of the environment, or of a file that was changed
        raise DatasetError(
            f"the environment in {path} cannot be made ({type(error).__name__}: {error}); in "
            "Python, pp_recorder.replay(env, dataset) replays it"
        ) from error
    with closing(env):
        return replay_in(env, dataset, episodes, tolerance(stored))


def _require_no_code(dataset: Dataset, start_policy: str | None) -> None:
    """Raise a `DatasetError` if a policy is a module, which a stranger may have chosen."""
    if start_policy is not None and not Path(start_policy).is_dir():
        raise _untrusted(dataset, start_policy, "what drove up to the starts")


def _untrusted(dataset: Dataset, name: str, role: str) -> DatasetError:
    return DatasetError(
        f"{dataset.root / keys.COLLECTION_PATH} names {name!r} as {role}. Importing it runs its "
        "code: look at it, and give --trust"
    )


def _make_starts(
    session: SessionOptions, config: PickPlaceConfig, start_mix: str, start_policy: str | None
) -> Start:
    """Return how episodes of a part begin, which may differ between the parts of a dataset."""
    changed = dataclasses.replace(session, start_mix=start_mix, start_policy=start_policy)
    return make_starts(changed, config)


def require_ours(dataset: Dataset) -> dict[str, Any]:
    """Return the stored provenance.

    Raises:
        DatasetError: Nothing is, or not enough.
    """
    stored, path = dataset.collection, dataset.root / keys.COLLECTION_PATH
    if is_recording(dataset):
        raise DatasetError(
            f"{dataset.root} was recorded with pp_recorder.record, which stores no policy; "
            "pp-replay repeats its actions"
        )
    if stored is None or "config" not in stored:
        raise DatasetError(
            f"{dataset.root} does not say how it was recorded: it has no {keys.COLLECTION_PATH} of "
            "this project. LeRobot's delete, split and merge leave it and the columns episode/* "
            "out; take the dataset that it was made from, or copy the file from there"
        )
    try:
        stored_config(stored)
        stored_options(stored, bool(stored["record_cameras"]))
        for k in (0, dataset.num_episodes - 1):
            provenance_of(stored, k)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be used: {type(error).__name__}: {error}; it must be as it was recorded"
        ) from error
    return stored


def unknown_start(entry: dict[str, Any]) -> str:
    """Return what a row of `meta/episodes` lacks of where its episode began, or ""."""
    seed = entry.get(keys.EPISODE_SEED)
    if not isinstance(seed, int) or seed < 0:
        return f"{keys.EPISODE_SEED} is {seed!r}, expected a whole number"
    if not isinstance(entry.get(keys.EPISODE_OBJECT, ""), str):
        return f"{keys.EPISODE_OBJECT} is {entry[keys.EPISODE_OBJECT]!r}, expected a name"
    try:
        Prelude.from_entry(entry)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        return f"its prelude cannot be read ({type(error).__name__}: {error})"
    return ""


def tolerance(provenance: dict[str, Any]) -> float:
    """Return 0 on the machine and with the versions that recorded, else `_TOLERANCE`."""
    here = describe_environment()
    is_same = all(provenance.get(key) == value for key, value in here.items())
    return 0.0 if is_same else _TOLERANCE


def _run_again(
    env: gym.Env,
    policy: AnyPolicy,
    sinks: Sequence[EpisodeSink],
    entry: dict[str, Any],
    max_steps: int,
    start: Start,
    disturbance: Disturbance | None,
) -> None:
    """Run a recorded episode again: its seed, and its object, whether sampled or chosen."""
    options = {"object": entry[keys.EPISODE_OBJECT]} if keys.EPISODE_OBJECT in entry else None
    seed = entry[keys.EPISODE_SEED]
    attempt = entry.get(keys.EPISODE_ATTEMPT) or 0  # a number to be recorded, if anything is
    run_episode(env, policy, sinks, seed, attempt, max_steps, options, start, disturbance)


def _has_phases(dataset: Dataset) -> bool:
    """Return True if all rows say what their actions are for."""
    is_stored = keys.SUBTASK_INDEX in {*dataset.features} & {*dataset.column_names}
    return is_stored and not dataset.stored(keys.SUBTASK_INDEX).null_count


def _phases(rows: dict[str, np.ndarray]) -> list[str]:
    """Return the phase of each recorded action; none where they were not recorded."""
    return [PHASES[int(k)] for k in rows.get(keys.SUBTASK_INDEX, np.zeros((0, 1)))[:, 0]]


def _run(
    options: RecordedOptions, command: Callable[[Dataset, list[int]], list[Comparison]]
) -> int:
    setup_logging()
    status = 2
    try:
        raise_on_interrupt()
        status = _compare(options, command)
    except KeyboardInterrupt:
        render = getattr(options, "render", None)
        rest = f"; {render} is incomplete" if render else ""
        status = interrupted(f"{options.dataset} was only read{rest}")
    finally:
        shutdown_app(status)
    return status


def _compare(
    options: RecordedOptions, command: Callable[[Dataset, list[int]], list[Comparison]]
) -> int:
    try:
        dataset = Dataset(options.dataset)
        if isinstance(output := getattr(options, "render", None), Path):
            require_empty(output, can_resume=False)
        results = command(dataset, _chosen(dataset, options.episode))
    except (DatasetError, ValueError, OSError, RuntimeError, ImportError) as error:
        safe = f"{options.dataset} was only read; once there is room, the same command works"
        if render := getattr(options, "render", None):
            safe += f", after {render} has been deleted"
        print(f"error: {describe_error(error, safe)}", file=sys.stderr)
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
    """Return the episodes to run again: the one that is asked for, or all whose start is known."""
    if not is_recording(dataset):
        require_ours(dataset)
    if episode is not None and not 0 <= episode < dataset.num_episodes:
        raise DatasetError(f"episode must be from 0 to {dataset.num_episodes - 1}, got {episode}")
    faults = {k: unknown_start(entry) for k, entry in enumerate(dataset.episodes)}
    wanted = list(faults) if episode is None else [episode]
    known = [k for k in wanted if not faults[k]]
    unknown = [
        f"{dataset.root}/{keys.EPISODES_FOLDER}: the start of episode {k} is unknown, so it cannot "
        f"run again: {faults[k]}"
        for k in wanted
        if faults[k]
    ]
    if unknown and not known:
        raise DatasetError(unknown[0])
    for line in unknown:  # others have appended it
        print(line, file=sys.stderr)
    return known
