"""Run a collection to its end, in this process or with rollout workers."""

import dataclasses
import json
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pp_collect.factory import Expert, make_env
from pp_collect.options import CollectOptions
from pp_collect.process import StopRequest, restart_is_due
from pp_collect.session import (
    CollectionError,
    CollectionSession,
    CollectionStats,
    RolloutResult,
    RolloutWorker,
    close_writer,
    describe_simulator,
    make_writer,
    worker_render_env,
)
from pp_env.config import PickPlaceConfig
from pp_env.gpus import usable_gpus
from pp_env.processors import usable_processors
from pp_env.sim import SIMULATORS
from pp_recorder.dataset import keys
from pp_recorder.output import make_folder, require_file
from pp_recorder.parallel.processes import Died, ProcessPool, WorkerPool
from pp_recorder.parallel.ray_cluster import RayCluster, require_library
from pp_recorder.rollout import EpisodeSink
from pp_recorder.sinks import ProgressBar
from pp_recorder.status import StatusFile, free_memory, resident_memory

if TYPE_CHECKING:  # see pp_collect/session.py
    from pp_recorder.dataset.writer import LeRobotWriter

# Bytes a process may need, most of it for images: more than was measured (docs/performance.md).
_WORKER_MEMORY = 600e6
_WORKER_MEMORY_WITHOUT_CAMERAS = 250e6
_PROCESSES_ON_A_GPU = 2  # one renders while the other steps
_WORLDS_PER_PROCESS = 256


class RunMonitor:
    """Shows how a collection goes, with a progress bar and in the status file.

    Args:
        options: Of the collection.
        writer: Owns the dataset.
        stats: Counts of the attempts, updated by the caller.
        progress: The progress bar.
        status: The status file.

    Attributes:
        writer: As above.
        stats: As above.
        progress: The progress bar.
        restart: Whether the run ended because the process is to restart.
        frames_before: Frames in the dataset when the run began.
        episodes_before: Likewise, episodes.
    """

    def __init__(
        self,
        options: CollectOptions,
        writer: "LeRobotWriter",
        stats: CollectionStats,
        progress: ProgressBar,
        status: StatusFile,
    ) -> None:
        self.writer = writer
        self.stats = stats
        self.restart = False
        self.frames_before, self.episodes_before = writer.num_frames, writer.num_episodes
        self.progress = progress
        progress.start_from(writer.num_episodes)
        self._status = status
        _report_dropped(writer)
        self.update()

    def update(self) -> None:
        """Show the counts as they are now."""
        self.progress.show(self.writer.num_episodes, self.stats.successes, self.stats.attempts)
        self._status.update(
            state="running",
            episodes=self.writer.num_episodes,
            attempts=self.stats.attempts,
            successes=self.stats.successes,
            memory=resident_memory(),
        )


def finish_complete(
    options: CollectOptions, config: PickPlaceConfig, expert: Expert, status: StatusFile
) -> RunMonitor | None:
    """Close a resumed dataset that has all its episodes; return None if any are missing.

    No simulator starts, which may take minutes and a GPU: what it says of itself is already stored.

    Args:
        options: Of the collection.
        config: Of the environment.
        expert: Chooses the actions.
        status: The status file.

    Raises:
        DatasetError: The dataset was collected otherwise, or cannot be repaired.
    """
    if not options.resume:
        return None
    count = _stored(options, keys.INFO_PATH).get("total_episodes")
    if not isinstance(count, int) or count < options.num_episodes:
        return None
    simulator = _stored(options, keys.COLLECTION_PATH).get("simulator_details")
    writer = make_writer(options, config, simulator or {})
    try:
        if writer.num_episodes < options.num_episodes:  # the last ones were damaged
            _report_dropped(writer)
            return None
        stats = CollectionStats.from_entries(writer.episodes, options.first_attempt)
        monitor = RunMonitor(options, writer, stats, _progress(options, expert), status)
        close_writer(writer, options, _joiners(options))
        monitor.progress.close()
    finally:
        writer.release()
    return monitor


def run_local(
    options: CollectOptions,
    config: PickPlaceConfig,
    expert: Expert,
    stop: StopRequest,
    status: StatusFile,
    make_watchers: Callable[[], Sequence[EpisodeSink]] = tuple,
) -> RunMonitor:
    """Run attempts in this process, until there are enough or the process is to restart.

    Args:
        options: Of the collection.
        config: Of the environment.
        expert: Chooses the actions.
        stop: Checked between two steps.
        status: The status file.
        make_watchers: Makes sinks that see every frame, after the simulator has started.

    Raises:
        CollectionError: Too many attempts in a row have failed.
    """
    with closing(_progress(options, expert)) as progress, ExitStack() as at_end:
        env = make_env(
            *(options, config, options.record_cameras, options.livestream_port),
            until_success=options.policy is not None,
        )
        at_end.callback(env.close)
        session = CollectionSession(options, config, expert, env)
        monitor = RunMonitor(options, session.writer, session.stats, progress, status)
        session.watchers.append(monitor.progress)
        try:
            session.watchers += make_watchers()
            while not stop.requested and session.step():
                if session.between_episodes:
                    monitor.update()
                    finished = session.writer.num_episodes - monitor.episodes_before
                    monitor.restart = not session.complete and restart_is_due(options, finished)
                    if monitor.restart:
                        break
            session.close()
        finally:
            session.release()
            for watcher in session.watchers:
                watcher.close()
    return monitor


def run_parallel(
    options: CollectOptions,
    config: PickPlaceConfig,
    expert: Expert,
    stop: StopRequest,
    status: StatusFile,
) -> RunMonitor:
    """Run attempts in several processes, and write them here in their order.

    Args:
        options: Of the collection.
        config: Of the environment.
        expert: Chooses the actions.
        stop: Checked several times a second.
        status: The status file.

    Raises:
        CollectionError: An attempt cannot be made, or too many in a row have failed.
        WorkerError: There is no cluster at `ray_address`, or processes cannot begin.
    """
    with closing(_progress(options, expert)) as progress, closing(_make_pool(options)) as pool:
        # In a process of its own, so that this one needs no simulator.
        simulator = pool.run_once(describe_simulator, options, config, expert)
        writer = make_writer(options, config, simulator)
        stats = CollectionStats.from_entries(writer.episodes, options.first_attempt)
        monitor = RunMonitor(options, writer, stats, progress, status)
        scratch = None if options.ray_address else writer.scratch
        try:
            writer.scratch.mkdir(exist_ok=True)
            wanted = partial(_wanted_attempts, options, writer, stats)
            if options.steps_together:
                results = _run_batches(options, config, scratch, pool, wanted, stop)
            else:
                worker_factory = partial(RolloutWorker, options, config, expert, scratch)
                single = (None if few is None else few.start for few in wanted(1))
                results = pool.run_all(worker_factory, single, lambda: stop.requested)
            with closing(results):
                for index, result in results:
                    _take(index, result, monitor, options)
            close_writer(writer, options, _joiners(options))
        finally:
            writer.release()
    return monitor


def resolve_workers(options: CollectOptions) -> CollectOptions:
    """Return the options with the number of processes, as far as memory goes.

    By default it is one per processor, or per GPU where a process should have one of its own.

    Raises:
        ValueError: There is not enough memory.
        ImportError: A cluster needs Ray, and that is not installed.
    """
    if options.ray_address is not None:
        require_library()
        return options
    each = SIMULATORS[options.simulator].process_memory or (
        _WORKER_MEMORY if options.record_cameras else _WORKER_MEMORY_WITHOUT_CAMERAS
    )
    memory = free_memory()
    most = max(int(memory / each), 1)
    workers = options.workers
    if workers is None:
        places = len(usable_gpus()) if options.needs_gpu else usable_processors()
        if options.steps_together:  # they take turns on the GPU
            places = min(places, _PROCESSES_ON_A_GPU * max(1, len(usable_gpus())))
        one_each = max(1, min(places, most, options.num_episodes))
        workers = 1 if options.single_worker_reason else one_each
    if options.steps_together and options.num_envs is None:
        options = dataclasses.replace(options, num_envs=_WORLDS_PER_PROCESS * workers)
    if workers > most:
        raise ValueError(
            f"--workers {workers} may need {workers * each / 1e9:.1f} GB of memory, of "
            f"which {memory / 1e9:.1f} GB are free; try --workers {most}"
        )
    return dataclasses.replace(options, workers=workers)


def require_writable(options: CollectOptions) -> None:
    """Check that a dataset can be written at the output.

    Raises:
        OSError: It cannot.
        ValueError: The output is no URL of an object store.
        ImportError: The object store needs what is not installed.
    """
    output = options.output
    if options.status_file is not None:
        require_file(options.status_file, "--status-file")
    if isinstance(output, str):
        from pp_recorder.storage.object_store import ObjectStore

        ObjectStore(output).require_writable(options.resume)
        return
    from pp_recorder.dataset.writer import require_empty

    if not options.resume:
        require_empty(output)
    make_folder(output, "--output")


def format_report(monitor: RunMonitor, seconds: float) -> str:
    """Return the closing lines for a terminal.

    Args:
        monitor: Of the run.
        seconds: Its duration.
    """
    writer, stats = monitor.writer, monitor.stats
    new = writer.num_frames - monitor.frames_before
    rate = f" ({new / seconds:.1f} per second)" if new else ""
    lines = [
        f"episodes   {writer.num_episodes}",
        f"success    {stats.successes} of {stats.attempts} attempts ({stats.success_rate:.1%})",
        f"frames     {writer.num_frames}{rate}",
        f"size       {writer.size() / 1e6:.1f} MB",
    ]
    if writer.is_remote:
        lines += [f"path       {writer.location}"]
    else:
        lines += [
            f"path       {writer.root.resolve()}",
            "load it    from lerobot.datasets.lerobot_dataset import LeRobotDataset",
            f'           LeRobotDataset("local/{writer.root.name}", root="{writer.root}", '
            'video_backend="pyav")',
        ]
    lines += [f"failed     {n} x {what}" for what, n in sorted(stats.failures.items())]
    return "\n".join(lines)


def _stored(options: CollectOptions, name: str) -> dict[str, Any]:
    """Return a JSON file of the dataset at the output; empty if none is to be found there."""
    from pp_recorder.dataset.files import locate
    from pp_recorder.dataset.reader import DatasetError, read_json

    try:
        if isinstance(options.output, Path):
            return read_json(locate(options.output, name)) or {}
        from pp_recorder.storage.object_store import ObjectStore

        found = json.loads(ObjectStore(options.output).read(name) or b"{}")
    except (DatasetError, ValueError):  # the writer will say what is wrong, or repair it
        return {}
    return found if isinstance(found, dict) else {}


def _progress(options: CollectOptions, expert: Expert) -> ProgressBar:
    """Return the bar, which is shown before a simulator starts: that may take long."""
    return ProgressBar(options.num_episodes, expert.typical_steps)


def _report_dropped(writer: "LeRobotWriter") -> None:
    for what in writer.dropped:
        tqdm.write(f"resume: dropped {what}", file=sys.stderr)  # above the bar


def _make_pool(options: CollectOptions) -> WorkerPool:
    if options.ray_address is not None:
        return RayCluster(
            options.ray_address, options.workers, options.attempt_gpu_share, worker_render_env
        )
    assert options.workers is not None  # resolve_workers
    return ProcessPool(
        options.workers,
        worker_render_env,
        partial(restart_is_due, options),
        keeps_first=SIMULATORS[options.simulator].replaceable,
    )


def _run_batches(
    options: CollectOptions,
    config: PickPlaceConfig,
    scratch: Path | None,
    pool: WorkerPool,
    wanted: Callable[[int], Iterator[range | None]],
    stop: StopRequest,
) -> Generator[tuple[int, Any], None, None]:
    """Run attempts in processes that each make many at once; yield index and result in order."""
    from pp_collect.batched import BatchWorker  # needs the extra [gpu]

    assert options.workers is not None  # resolve_workers
    assert options.num_envs is not None
    size = -(-options.num_envs // options.workers)
    encoders = _encoders_per_worker(options, options.workers)
    worker_factory = partial(BatchWorker, options, config, size, encoders, scratch)
    with closing(pool.run_all(worker_factory, wanted(size), lambda: stop.requested)) as batches:
        for batch, made in batches:
            results = [made] * len(batch) if isinstance(made, Died) else made
            yield from zip(batch, results, strict=True)


def _joiners(options: CollectOptions) -> int:
    """Return how many processes of this machine may join videos in the end."""
    if options.workers is None or options.ray_address is not None or options.steps_together:
        return usable_processors()
    return options.workers


def _encoders_per_worker(options: CollectOptions, workers: int) -> int:
    """Return how many processes encode what one worker renders, as far as memory goes."""
    if not options.record_cameras:
        return 1
    places = min(usable_processors(), int(free_memory() / _WORKER_MEMORY))
    return max(1, places // workers)


def _wanted_attempts(
    options: CollectOptions, writer: "LeRobotWriter", stats: CollectionStats, size: int
) -> Iterator[range | None]:
    """Yield ranges of attempts, None while those that run may be enough; end when they were.

    Args:
        options: Of the collection.
        writer: Owns the dataset.
        stats: Counts of the attempts that have ended.
        size: Of a range at most.
    """
    begun = stats.attempts
    while (missing := options.num_episodes - writer.num_episodes) > 0:
        count = min(size, missing - (begun - stats.attempts))
        if count <= 0:
            yield None
        else:
            first = options.first_attempt + begun
            yield range(first, first + count)
            begun += count


def _take(
    index: int, result: RolloutResult | Died, monitor: RunMonitor, options: CollectOptions
) -> None:
    """Count an attempt, and add its episode to the dataset.

    Raises:
        CollectionError: It could not be made, or too many in a row have failed.
    """
    writer = monitor.writer
    if isinstance(result, Died):
        raise CollectionError(
            f"attempt {index} ended its process twice ({result.cause}); {writer.location} holds "
            f"{writer.num_episodes} episodes; if memory is short, try fewer --workers"
        )
    monitor.stats.count(result.outcome)
    if result.payload is not None:
        writer.add_episode(result.payload.unpack(writer.scratch))
    monitor.update()
    monitor.stats.check_failure_streak(options, writer.num_episodes)
