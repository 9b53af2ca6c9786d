"""The command line: options become a collection, here or in several processes, and a report."""

import argparse
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experts.pick_place import PickPlaceExpert
from pp_collect.session import (
    Attempt,
    Collection,
    CollectionError,
    CollectionStats,
    RolloutWorker,
    describe_simulator,
    make_env,
    make_expert,
    make_writer,
    worker_render_env,
)
from pp_env.config import (
    RENDER_PRESETS,
    YCB_OBJECTS,
    GraspConfig,
    ObjectConfig,
    PickPlaceConfig,
    RenderConfig,
    TaskConfig,
)
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.sim import SIMULATORS, default_timing, leave
from pp_env.sim.meshes import ycb_mesh
from pp_recorder.command_line import not_negative, pixels, place, positive, share
from pp_recorder.dataset.video import CODECS
from pp_recorder.parallel.processes import Died, Processes
from pp_recorder.parallel.ray_cluster import Cluster, require_library
from pp_recorder.rollout import EpisodeSink
from pp_recorder.sinks import Progress, notice
from pp_recorder.status import StatusFile, free_memory, resident_memory

# Worker processes import this module, too, and write no dataset: without what comes with pyarrow
# each is 40 MB smaller.
if TYPE_CHECKING:
    from pp_recorder.dataset.writer import LeRobotWriter

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Bytes a process may need, most of it for pictures: more than was measured (docs/performance.md).
_WORKER_MEMORY = 600e6
_WORKER_MEMORY_WITHOUT_CAMERAS = 250e6


class StopRequest:
    """Whether the user has asked to stop; a second request interrupts at once."""

    requested = False

    def __call__(self, *_: object) -> None:
        """Takes a signal."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    args.command = sys.orig_argv[1:] if argv is None else ["-m", "collect", *argv]
    try:
        config = make_config(args)
        expert = make_expert(args.steps_per_segment, args.noise_rad, args.wander_rad, config)
        require_fitting(args)
        settle_workers(args)
        require_writable(args.output, args.resume)
        if args.push_to_hub:
            from pp_recorder.dataset import hub

            hub.require_library()
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    status = 1
    try:
        status = run(args, config, expert)
    finally:
        leave(status)
    return status


def run(args: argparse.Namespace, config: PickPlaceConfig, expert: PickPlaceExpert) -> int:
    """Collects, and says how it went in words and in the status file; returns the exit status."""
    from pp_recorder.dataset.reader import DatasetError

    file = StatusFile(args.status_file, output=str(args.output), wanted=args.num_episodes)
    file.update(state="starting")
    state, error_text = "failed", None
    try:
        with stop_on_signal() as stop:
            status = collect(args, config, expert, stop, file)
        state = "complete" if status == 0 else "stopped"
    except (CollectionError, DatasetError, RuntimeError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        status, error_text = 1, str(error)
    except KeyboardInterrupt:
        print("interrupted: what was finished is intact; --resume goes on", file=sys.stderr)
        status, state = 130, "stopped"
    file.update(state=state, exit_status=status, error=error_text)
    return status


def collect(
    args: argparse.Namespace,
    config: PickPlaceConfig,
    expert: PickPlaceExpert,
    stop: StopRequest,
    file: StatusFile,
) -> int:
    """Collects and reports; returns the exit status."""
    begin = time.perf_counter()
    here = args.workers == 1 and args.ray_address is None
    run = (collect_here if here else collect_with_workers)(args, config, expert, stop, file)
    if run.restart and not stop.requested:
        file.update(state="restarting")
        start_anew(args)
    writer = run.writer
    print(report(run, time.perf_counter() - begin))
    if args.push_to_hub and not stop.requested:
        from pp_recorder.dataset import hub

        print(f"uploaded   {hub.push(writer.root, args.push_to_hub)}")
    if stop.requested:
        print(
            f"stopped: the episode in hand was dropped; {writer.place} is a valid dataset of "
            f"{writer.num_episodes} of the {args.num_episodes} episodes; --resume goes on"
        )
        return 130
    return 0


class Run:
    """Shows how a collection goes: progress bar, status file, and what is left to say at the end.

    Attributes:
        restart: Whether the run ended because the process is to start anew.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        writer: "LeRobotWriter",
        tally: CollectionStats,
        frames_per_episode: int,
        file: StatusFile,
    ) -> None:
        self.writer = writer
        self.tally = tally
        self.restart = False
        self.frames_before, self.episodes_before = writer.num_frames, writer.num_episodes
        self.progress = Progress(args.num_episodes, frames_per_episode, writer.num_episodes)
        self._file = file
        for what in writer.dropped:
            print(f"resume: dropped {what}", file=sys.stderr)
        self.update()

    def update(self) -> None:
        """Tells how far it is."""
        tally = self.tally
        self.progress.show(self.writer.num_episodes, tally.successes, tally.attempts)
        self._file.update(
            state="running",
            episodes=self.writer.num_episodes,
            attempts=tally.attempts,
            successes=tally.successes,
            memory=resident_memory(),
        )


def collect_here(
    args: argparse.Namespace,
    config: PickPlaceConfig,
    expert: PickPlaceExpert,
    stop: StopRequest,
    file: StatusFile,
) -> Run:
    """EpisodeRunner episodes in this process, until there are enough or it is to start anew."""
    with closing(make_env(args, config)) as env:
        collection = Collection(args, config, expert, env)
        run = Run(args, collection.writer, collection.tally, expert.num_steps, file)
        collection.watchers.append(run.progress)
        try:
            collection.watchers += live_view(args, config)
            while not stop.requested and collection.step():
                if collection.between_episodes:
                    run.update()
                    run.restart = not collection.complete and restart_is_due(
                        args, collection.writer.num_episodes - run.episodes_before
                    )
                    if run.restart:
                        break
            collection.close()
        finally:
            collection.release()
            for watcher in collection.watchers:
                watcher.close()
    return run


def live_view(args: argparse.Namespace, config: PickPlaceConfig) -> list[EpisodeSink]:
    """What shows the cameras to browsers, if asked for; Isaac Sim has its own livestream."""
    if not args.streaming or args.simulator == "isaacsim":
        return []
    from pp_bridge.live_view import LiveView  # needs the extra [bridge]

    view = LiveView(args, config)
    print(f"live view: {view.address}", file=sys.stderr)
    return [view]


def collect_with_workers(
    args: argparse.Namespace,
    config: PickPlaceConfig,
    expert: PickPlaceExpert,
    stop: StopRequest,
    file: StatusFile,
) -> Run:
    """EpisodeRunner episodes in several processes and writes them down in their order, here."""
    team = make_team(args)
    try:
        simulator = team.ask(describe_simulator, args, config)  # so that this process needs none
        writer = make_writer(args, config, simulator)
        tally = CollectionStats.of(writer.episodes, args.first_attempt)
        run = Run(args, writer, tally, expert.num_steps, file)
        nearby = None if args.ray_address else writer.scratch
        make = partial(RolloutWorker, args, config, expert, nearby)
        try:
            while writer.num_episodes < args.num_episodes and not stop.requested:
                writer.scratch.mkdir(exist_ok=True)
                first = args.first_attempt + tally.attempts
                indices = range(first, first + args.num_episodes - writer.num_episodes)
                with closing(team.run_all(make, indices, lambda: stop.requested)) as results:
                    for index, attempt in results:
                        take(index, attempt, run, args)
            writer.close()
        finally:
            writer.release()
            run.progress.close()
    finally:
        team.close()
    return run


def make_team(args: argparse.Namespace) -> Processes | Cluster:
    """Who makes the attempts.

    Raises:
        WorkerError: There is no cluster at --ray-address.
    """
    if args.ray_address is not None:
        return Cluster(args.ray_address, args.workers, args.gpu_share, worker_render_env)
    return Processes(args.workers, notice, worker_render_env)


def take(index: int, attempt: Attempt | Died, run: Run, args: argparse.Namespace) -> None:
    """Counts an attempt, and makes its recording part of the dataset.

    Raises:
        CollectionError: It could not be made, or too many in a row have failed.
    """
    if isinstance(attempt, Died):
        raise CollectionError(
            f"attempt {index} ended its process twice ({attempt.how}); {run.writer.place} holds "
            f"{run.writer.num_episodes} episodes; if memory is short, try fewer --workers"
        )
    run.tally.count(attempt.outcome)
    if attempt.parcel is not None:
        run.writer.add_episode(attempt.parcel.unpack(run.writer.scratch))
    run.update()
    run.tally.check_failure_streak(args, run.writer.num_episodes)


def restart_is_due(args: argparse.Namespace, finished: int) -> bool:
    """Whether the process is to start anew, having finished so many episodes."""
    if finished == 0:
        return False
    enough = args.restart_every is not None and finished >= args.restart_every
    memory = resident_memory() or 0
    return enough or (args.restart_above is not None and memory > args.restart_above * 1e9)


def start_anew(args: argparse.Namespace) -> None:
    """Replaces this process by one that goes on with the collection; does not return.

    What a simulator has leaked goes with the old one, of which the system keeps only the number.
    """
    command = [sys.executable, *args.command]
    if not args.resume:
        command.append("--resume")
    sys.stdout.flush()
    sys.stderr.flush()
    # Both the mask and what it holds back survive, so no request to stop falls between the two.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # or a GPU's context would be kept
    os.execv(sys.executable, command)


def report(run: Run, seconds: float) -> str:
    """The closing lines."""
    writer, tally = run.writer, run.tally
    rate = tally.successes / tally.attempts if tally.attempts else 0.0
    frames_per_second = (writer.num_frames - run.frames_before) / seconds
    lines = [
        f"episodes   {writer.num_episodes}",
        f"success    {tally.successes} of {tally.attempts} attempts ({rate:.1%})",
        f"frames     {writer.num_frames} ({frames_per_second:.1f} per second)",
        f"size       {writer.size() / 1e6:.1f} MB",
    ]
    if writer.mirrored:
        lines += [f"path       {writer.place}"]
    else:
        lines += [
            f"path       {writer.root.resolve()}",
            "load it    from lerobot.datasets.lerobot_dataset import LeRobotDataset",
            f'           LeRobotDataset("local/{writer.root.name}", root="{writer.root}", '
            'video_backend="pyav")',
        ]
    lines += [f"failed     {n} x {what}" for what, n in sorted(tally.failures.items())]
    return "\n".join(lines)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turns Ctrl-C and SIGTERM into a request to stop between two steps."""
    stop = StopRequest()
    before = {s: signal.signal(s, stop) for s in _STOP_SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_config(args: argparse.Namespace) -> PickPlaceConfig:
    """The environment's configuration.

    Raises:
        ValueError: An option is out of range.
        OSError: A mesh is missing.
    """
    config = PickPlaceConfig(
        timing=default_timing(args.simulator, args.fps),
        render=RenderConfig(resolution=args.resolution, preset=args.preset),
        grasp=GraspConfig(mode=args.grasp),
        randomization=RANDOMIZATION_PRESETS[args.randomize],
        task=TaskConfig(random_yaw=args.random_yaw),
        objects=make_pool(args),
        num_objects=args.num_objects,
    )
    if args.object is not None:
        config.target_index(args.object)
    return config


def make_pool(args: argparse.Namespace) -> tuple[ObjectConfig, ...]:
    """The objects to choose from; none is the cube alone.

    Raises:
        ValueError: Meshes are given for a pool that is not used.
        OSError: A mesh is missing.
    """
    if not args.use_ycb:
        if args.ycb_meshes is not None or not args.ycb_assets:
            raise ValueError("--ycb-meshes and --no-ycb-assets are for --use-ycb; give that, too")
        return ()
    folder = args.ycb_meshes
    return tuple(
        dataclasses.replace(
            obj,
            asset=obj.asset if args.ycb_assets else None,
            mesh=None if folder is None else str(ycb_mesh(folder.resolve(), obj.name)),
        )
        for obj in YCB_OBJECTS
    )


def require_fitting(args: argparse.Namespace) -> None:
    """Checks options that depend on each other.

    Raises:
        ValueError: They don't fit.
    """
    if args.render_after and args.simulator == "isaacsim":
        raise ValueError("--render-after needs a simulator that repeats itself: mujoco")
    if args.render_after and (args.keep == "all" or not args.cameras):
        raise ValueError(
            "--render-after saves pictures of failures: not with --keep all or --no-cameras"
        )
    in_store = not isinstance(args.output, Path)
    if in_store and args.push_to_hub:
        raise ValueError("--push-to-hub uploads a folder, not what is in a store; copy it first")
    if args.staging is not None and not in_store:
        raise ValueError(f"--staging is for an --output with a URL, got {args.output}")
    if args.simulator != "isaacsim" and args.assets_root:
        raise ValueError(
            f"--assets-root is for --simulator isaacsim, got --simulator {args.simulator}"
        )
    if args.simulator != "isaacsim" and args.streaming:
        if not args.cameras:
            raise ValueError("--streaming shows what the cameras record: not with --no-cameras")
        from pp_bridge.live_view import require_live_view

        require_live_view(args)


def settle_workers(args: argparse.Namespace) -> None:
    """Completes and checks the number of processes: one per processor, as far as memory goes.

    Raises:
        ValueError: There is not enough memory, or something that allows only one.
        ImportError: A cluster needs Ray, and that is not installed.
    """
    if args.ray_address is None and args.gpu_share:
        raise ValueError("--gpu-share is for --ray-address")
    alone = {
        "--simulator isaacsim": args.simulator == "isaacsim" and args.workers is None,
        "--no-headless": not args.headless,
        "--streaming": args.streaming,
        "--restart-every": args.restart_every is not None,
        "--restart-above": args.restart_above is not None,
    }
    reason = next((option for option, given in alone.items() if given), None)
    if reason is not None and args.workers not in (None, 1):
        raise ValueError(f"{reason} is for one worker, got --workers {args.workers}")
    if args.ray_address is not None:
        if reason is not None:
            raise ValueError(f"{reason} is for one worker, not for --ray-address")
        require_library()
        return
    each = _WORKER_MEMORY if args.cameras else _WORKER_MEMORY_WITHOUT_CAMERAS
    memory = free_memory()
    most = max(int(memory / each), 1)
    if args.workers is None:
        one_each = min(len(os.sched_getaffinity(0)), most, args.num_episodes)
        args.workers = 1 if reason else one_each
    if args.workers > most:
        raise ValueError(
            f"--workers {args.workers} may need {args.workers * each / 1e9:.1f} GB of memory, of "
            f"which {memory / 1e9:.1f} GB are free; try --workers {most}"
        )


def require_writable(output: Path | str, resume: bool) -> None:
    """Checks that a dataset can be written at `output`.

    Raises:
        OSError: It cannot.
        ValueError: It is no URL of a store.
        ImportError: Its store needs what is not installed.
    """
    if isinstance(output, str):
        from pp_recorder.storage.object_store import ObjectStore

        ObjectStore(output).require_writable(resume)
        return
    from pp_recorder.dataset.writer import require_empty

    if not resume:
        require_empty(output)
    output.mkdir(parents=True, exist_ok=True)
    probe = output / ".probe"
    probe.touch()
    probe.unlink()


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="collect.py",
        description="Collects expert demonstrations as a LeRobot v3.0 dataset.",
        epilog="Example: collect.py --num-episodes 50 --output datasets/pick_place --seed 12345",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    switch = argparse.BooleanOptionalAction
    add("--num-episodes", type=positive, default=50, help="episodes in the dataset")
    add(
        "--output",
        type=place,
        default=Path("datasets/pick_place"),
        help="absent or empty folder, or one in a store: s3://bucket/path, gs://...",
    )
    add("--staging", type=Path, metavar="DIR", help="for a store: where files come about")
    add("--resume", action="store_true", help="go on with an interrupted collection")
    add("--seed", type=not_negative, default=12345, help="episode k depends on this and k alone")
    add(
        "--first-attempt",
        type=not_negative,
        default=0,
        help="number of the first attempt, for parts",
    )
    add("--steps-per-segment", type=positive, default=30, help="steps per waypoint; nine segments")
    add("--noise-rad", type=float, default=0.05, help="uniform noise on the waypoints' joints")
    add("--wander-rad", type=float, default=0.0, help="how far the arm wanders off its lines")
    add("--keep", choices=("success", "all"), default="success", help="which episodes to keep")
    add_scene_options(parser)
    add("--headless", action=switch, default=True, help="without the simulator's window")
    add("--cameras", action=switch, default=True, help="record both cameras")
    add("--codec", choices=sorted(CODECS), default="h264", help="video compression")
    add("--task", type=_text, help="text of every frame; default: what the environment says")
    add("--workers", type=positive, help="processes; default one per processor, as memory allows")
    add("--ray-address", help="or on a Ray cluster: auto, or host:port of its head; needs [ray]")
    add("--gpu-share", type=share, default=0.0, help="of a GPU, for each attempt on the cluster")
    add(
        "--render-after",
        action="store_true",
        help="rehearse each attempt without pictures, draw only what is kept; the same dataset",
    )
    add("--status-file", type=Path, help="JSON file that tells how the run goes, and how it ended")
    add("--restart-every", type=positive, help="start the process anew after so many episodes")
    add("--restart-above", type=float, metavar="GB", help="or when it holds more memory than this")
    add("--assets-root", help="folder of Isaac Sim's assets; default: ISAAC_ASSETS_ROOT")
    add("--streaming", action="store_true", help="show the cameras to browsers; needs [bridge]")
    add(
        "--streaming-port",
        type=positive,
        default=49102,
        help="TCP port of the page, first UDP port of the pictures; or of Isaac Sim's livestream",
    )
    add("--streaming-host", default="127.0.0.1", help="address of the page (docs/bridge.md)")
    add("--push-to-hub", metavar="USER/NAME", help="upload the complete dataset; needs [hub]")
    return parser


def add_scene_options(parser: argparse.ArgumentParser) -> None:
    """The options that `make_config` and `reset_options` read."""
    add = parser.add_argument
    switch = argparse.BooleanOptionalAction
    add("--fps", type=positive, default=30, help="control and camera rate, Hz")
    add("--simulator", choices=sorted(SIMULATORS), default="mujoco", help="physics and pictures")
    add("--grasp", choices=("fixed_joint", "friction"), default="fixed_joint", help="grasp mode")
    add(
        "--randomize",
        choices=tuple(RANDOMIZATION_PRESETS),
        default="none",
        help="how much light, table, cameras, physics, sensors and delays vary",
    )
    add("--resolution", type=pixels, default=512, help="of pictures: 512, or 640x480")
    add("--preset", choices=sorted(RENDER_PRESETS), default="default", help="picture quality")
    add("--use-ycb", action="store_true", help="household objects of the YCB set, not the cube")
    add("--num-objects", type=positive, default=1, help="on the table: the target and others")
    add("--object", metavar="NAME", help="the only target, such as tomato_soup_can")
    add("--random-yaw", action="store_true", help="turn objects about the vertical")
    add("--ycb-meshes", type=Path, metavar="DIR", help="MuJoCo: show them by the set's meshes")
    add("--ycb-assets", action=switch, default=True, help="Isaac Sim: show them by its own files")


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


if __name__ == "__main__":
    sys.exit(main())
