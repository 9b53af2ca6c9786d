"""The composition root: options become environment, expert and writer, and they an episode loop."""

import argparse
import dataclasses
import itertools
import json
import os
import platform
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import pp_env
from experts.diagnosis import failure_phase
from experts.pick_place import PickPlaceExpert
from pp_env import panda, rotation
from pp_env.config import (
    RENDER_PRESETS,
    YCB_OBJECTS,
    GraspConfig,
    ObjectConfig,
    PickPlaceConfig,
    RenderConfig,
    TaskConfig,
)
from pp_env.layout import ACTION, ENVIRONMENT_STATE, OBSERVATION
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.sim import SIMULATORS, default_timing, leave
from pp_env.sim.meshes import ycb_mesh
from recorder import hub
from recorder.dataset import DatasetError
from recorder.features import Feature, picture
from recorder.lerobot_writer import LeRobotWriter, Recording, require_empty
from recorder.rollout import Episode, EpisodeSink, Step, episode_seed, iterate_episode
from recorder.sinks import Progress, SuccessOnly
from recorder.status import StatusFile, resident_memory
from recorder.video import CODECS

_GIVE_UP_AFTER = 20  # failed attempts in a row
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PACKAGES = ("franka-pick-place", "numpy", "gymnasium", "mujoco", "pyarrow", "av")


class CollectionError(RuntimeError):
    """The collection cannot go on."""


@dataclass
class Tally:
    """What the attempts came to.

    Attributes:
        attempts: Episodes that ran to their end.
        successes: Those that succeeded.
        failures: How often each reason and phase ended a failed one.
        seconds: Wall time of this run.
        frames: Recorded by this run.
        restart: Whether the run ended because the process is to start anew.
    """

    attempts: int = 0
    successes: int = 0
    failures: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    frames: int = 0
    restart: bool = False

    @classmethod
    def of(cls, entries: list[dict[str, Any]], first_attempt: int) -> "Tally":
        """What the attempts from the first to the last of these recorded episodes came to."""
        tally = cls()
        for entry in entries:
            tally.attempts = entry["episode/attempt"] + 1 - first_attempt
            tally.successes += entry["episode/success"]
            if not entry["episode/success"]:
                reason, phase = entry["episode/failure_reason"], entry["episode/failure_phase"]
                tally.failures[f"{reason} in {phase}"] += 1
        return tally

    def count(self, episode: Episode) -> None:
        """Counts one more attempt."""
        self.attempts += 1
        self.successes += episode.success
        if not episode.success:
            self.failures[f"{failure_reason(episode)} in {failure_phase(episode.trace)}"] += 1


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
        expert = make_expert(args.steps_per_segment, args.noise_rad, config)
        require_fitting(args)
        require_writable(args.output, args.resume)
        if args.push_to_hub:
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
    env = make_env(args, config)
    try:
        env.reset(seed=0)  # draws, if cameras are recorded: no OpenGL, no dataset
        writer = make_writer(args, config, simulator_description(env))
        for what in writer.dropped:
            print(f"resume: dropped {what}", file=sys.stderr)
        progress = Progress(
            args.num_episodes, expert.num_steps, args.keep == "all", writer.num_episodes
        )
        sinks = [writer if args.keep == "all" else SuccessOnly(writer), progress]
        try:
            tally = run_attempts(env, expert, sinks, writer, args, stop, file)
            writer.close()
        finally:
            writer.release()
            progress.close()
    finally:
        env.close()
    if tally.restart and not stop.requested:
        file.update(state="restarting")
        start_anew(args)
    print(report(writer, tally))
    if args.push_to_hub and not stop.requested:
        print(f"uploaded   {hub.push(writer.root, args.push_to_hub)}")
    if stop.requested:
        print(
            f"stopped: the episode in hand was dropped; {writer.root} is a valid dataset of "
            f"{writer.num_episodes} of the {args.num_episodes} episodes; --resume goes on"
        )
        return 130
    return 0


def run_attempts(
    env: gym.Env,
    expert: PickPlaceExpert,
    sinks: list[EpisodeSink],
    writer: LeRobotWriter,
    args: argparse.Namespace,
    stop: StopRequest,
    file: StatusFile,
) -> Tally:
    """Attempts episodes until the writer has enough of them, or the process is to start anew.

    Raises:
        CollectionError: Too many attempts in a row have failed.
    """
    tally, failed_in_a_row = Tally.of(writer.episodes, args.first_attempt), 0
    begin, frames_before = time.perf_counter(), writer.num_frames
    kept_before = writer.num_episodes
    for index in itertools.count(args.first_attempt + tally.attempts):
        file.update(
            state="running",
            episodes=writer.num_episodes,
            attempts=tally.attempts,
            successes=tally.successes,
            memory=resident_memory(),
        )
        if writer.num_episodes >= args.num_episodes:
            break
        if restart_is_due(args, writer.num_episodes - kept_before):
            tally.restart = True
            break
        episode = run_attempt(env, expert, sinks, args, index, stop)
        if episode is None:
            break
        tally.count(episode)
        failed_in_a_row = 0 if episode.success else failed_in_a_row + 1
        if args.keep == "success" and failed_in_a_row >= _GIVE_UP_AFTER:
            raise CollectionError(
                f"{failed_in_a_row} attempts in a row failed ({dict(tally.failures)}); "
                f"{writer.root} holds the {writer.num_episodes} episodes that succeeded before; "
                "try less --noise-rad or more --steps-per-segment"
            )
    tally.seconds = time.perf_counter() - begin
    tally.frames = writer.num_frames - frames_before
    return tally


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


def run_attempt(
    env: gym.Env,
    expert: PickPlaceExpert,
    sinks: list[EpisodeSink],
    args: argparse.Namespace,
    index: int,
    stop: StopRequest,
) -> Episode | None:
    """One episode, or None if a stop was requested while it ran."""
    options = reset_options(args)
    reset_seed = episode_seed(args.seed, index)
    steps = iterate_episode(env, expert, sinks, reset_seed, index, expert.num_steps, options)
    while not stop.requested:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
    steps.close()
    return None


def make_expert(
    steps_per_segment: int, noise_rad: float, config: PickPlaceConfig
) -> PickPlaceExpert:
    """The expert, whose episodes are long enough for the longest delay of its actions.

    Raises:
        ValueError: An argument is out of range.
    """
    longest_delay = config.randomization.action_delay[1]
    return PickPlaceExpert(steps_per_segment, noise_rad, hold_steps=longest_delay)


def make_env(args: argparse.Namespace, config: PickPlaceConfig) -> gym.Env:
    """The environment, with episodes of full length."""
    return gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,  # the loop counts; -1 is for Gymnasium 1.0 and up
        disable_env_checker=True,
        simulator=args.simulator,
        obs_type="pixels_agent_pos" if args.cameras else "state",
        config=config,
        terminate_on_success=False,
        headless=args.headless,
        simulator_options=simulator_options(args),
    )


def simulator_options(args: argparse.Namespace) -> dict[str, Any]:
    """What only the chosen simulator understands."""
    if args.simulator != "isaacsim":
        return {}
    port = args.streaming_port if args.streaming else None
    return {"assets_root": args.assets_root, "streaming_port": port}


def simulator_description(env: gym.Env) -> dict[str, Any]:
    """What the simulator says of itself."""
    unwrapped: Any = env.unwrapped
    return unwrapped.simulator_description


def make_writer(
    args: argparse.Namespace, config: PickPlaceConfig, simulator: dict[str, Any]
) -> LeRobotWriter:
    """The dataset writer, with this environment's features and the simulator's description."""
    size = config.render.resolution
    features = {
        "observation.state": _vector(OBSERVATION),
        "action": _vector(ACTION),
        ground_truth_key(args): _vector(ENVIRONMENT_STATE),
    }
    for name in camera_names(args, config):
        features[f"observation.images.{name}"] = picture(size, size)
    recording = Recording(
        features=features,
        row=make_row(args, config),
        fps=config.timing.control_hz,
        task=fixed_task(args, config) or _task_of,
        robot_type="franka_panda",
        collection={**describe_collection(args, config), "simulator_details": simulator},
        describe=describe_episode,
        codec=args.codec,
    )
    return LeRobotWriter(args.output, recording, args.resume)


def fixed_task(args: argparse.Namespace, config: PickPlaceConfig) -> str | None:
    """The text of all episodes; None where each episode has its own."""
    if args.task is None and not config.objects:
        return pp_env.PickPlaceEnv.task_description
    return args.task


def make_row(
    args: argparse.Namespace, config: PickPlaceConfig
) -> Callable[[Step], dict[str, np.ndarray]]:
    """The function that gives the dataset's columns for a step."""
    cameras, truth = camera_names(args, config), ground_truth_key(args)

    def row(step: Step) -> dict[str, np.ndarray]:
        observation = step.observation
        values = {
            "observation.state": observation["agent_pos"] if cameras else observation,
            "action": step.action,
            truth: step.info["environment_state"],
        }
        for name in cameras:
            values[f"observation.images.{name}"] = observation["pixels"][name]
        return values

    return row


def camera_names(args: argparse.Namespace, config: PickPlaceConfig) -> list[str]:
    """The cameras that are recorded."""
    return [camera.name for camera in config.cameras] if args.cameras else []


def ground_truth_key(args: argparse.Namespace) -> str:
    """The column of the object's true pose.

    With pictures it must not look like an input for a policy, so its name lacks the prefix by
    which training code recognises inputs (docs/decisions/003).
    """
    return "environment_state" if args.cameras else "observation.environment_state"


def describe_episode(episode: Episode) -> dict[str, Any]:
    """The columns of `meta/episodes` that tell where an episode came from and how it went."""
    start = episode.start_info
    varied = {}
    if "variation" in start:
        varied["episode/variation"] = json.dumps(start["variation"].to_dict())
    return {
        "episode/attempt": episode.index,
        "episode/seed": episode.seed,
        "episode/success": episode.success,
        "episode/failure_reason": "" if episode.success else failure_reason(episode),
        "episode/failure_phase": "" if episode.success else failure_phase(episode.trace),
        "episode/pick": start["object_pos"][:2].tolist(),
        "episode/place": start["goal_pos"][:2].tolist(),
        "episode/object_rgb": start["object_rgb"].tolist(),
        **varied,
        "episode/object": start["object"],
        "episode/object_size": start["object_size"].tolist(),
        "episode/distractors": ", ".join(start["distractors"]),
    }


def failure_reason(episode: Episode) -> str:
    """Which conditions for success did not hold at the end."""
    return ", ".join(episode.trace[-1][1]["failures"])


def describe_collection(args: argparse.Namespace, config: PickPlaceConfig) -> dict[str, Any]:
    """Everything that is needed to collect the same dataset again."""
    return {
        "seed": args.seed,
        "first_attempt": args.first_attempt,
        "simulator": args.simulator,
        "steps_per_segment": args.steps_per_segment,
        "noise_rad": args.noise_rad,
        "keep": args.keep,
        "record_cameras": args.cameras,
        "codec": args.codec,
        "task": fixed_task(args, config),
        "object": args.object,
        "config": dataclasses.asdict(config),
        "render_preset": dataclasses.asdict(RENDER_PRESETS[config.render.preset]),
        "limits": {
            "joint_low": panda.JOINT_LOWER.tolist(),
            "joint_high": panda.JOINT_UPPER.tolist(),
            "joint_velocity": panda.JOINT_VELOCITY_LIMIT.tolist(),
        },
        "cameras": {
            camera.name: {
                "parent": camera.parent,
                "position_in_parent_m": list(camera.position),
                "quat_wxyz_in_parent": rotation.from_matrix(camera.rotation()).tolist(),
                "axes": "x right, y up, z backward",
                "fov_deg": camera.fov_deg,
                "intrinsics_px": camera.intrinsics(config.render.resolution).tolist(),
            }
            for camera in config.cameras
        },
        **environment_description(),
    }


def environment_description() -> dict[str, Any]:
    """What may change the bits of an episode beside its configuration."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": platform.platform(),
    }


def report(writer: LeRobotWriter, tally: Tally) -> str:
    """The closing lines."""
    size = sum(f.stat().st_size for f in writer.root.rglob("*") if f.is_file())
    size -= sum(f.stat().st_size for f in writer.root.rglob("episode_*.mp4"))  # the same files
    rate = tally.successes / tally.attempts if tally.attempts else 0.0
    frames_per_second = tally.frames / tally.seconds if tally.seconds else 0.0
    lines = [
        f"episodes   {writer.num_episodes}",
        f"success    {tally.successes} of {tally.attempts} attempts ({rate:.1%})",
        f"frames     {writer.num_frames} ({frames_per_second:.1f} per second)",
        f"size       {size / 1e6:.1f} MB",
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


def reset_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """What the options fix at every reset."""
    return None if args.object is None else {"object": args.object}


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
    if args.simulator != "isaacsim" and (args.streaming or args.assets_root):
        raise ValueError(
            "--streaming and --assets-root are for --simulator isaacsim, got "
            f"--simulator {args.simulator}"
        )


def require_writable(output: Path, resume: bool) -> None:
    """Checks that a dataset can be written at `output`.

    Raises:
        OSError: It cannot.
    """
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
    add("--num-episodes", type=_positive, default=50, help="episodes in the dataset")
    add("--output", type=Path, default=Path("datasets/pick_place"), help="absent or empty folder")
    add("--resume", action="store_true", help="go on with an interrupted collection")
    add("--seed", type=_not_negative, default=12345, help="episode k depends on this and k alone")
    add(
        "--first-attempt",
        type=_not_negative,
        default=0,
        help="number of the first attempt, for parts",
    )
    add("--steps-per-segment", type=_positive, default=30, help="steps per waypoint; nine segments")
    add("--noise-rad", type=float, default=0.05, help="uniform noise on the waypoints' joints")
    add("--keep", choices=("success", "all"), default="success", help="which episodes to keep")
    add_scene_options(parser)
    add("--headless", action=switch, default=True, help="without the simulator's window")
    add("--cameras", action=switch, default=True, help="record both cameras")
    add("--codec", choices=sorted(CODECS), default="h264", help="video compression")
    add("--task", type=_text, help="text of every frame; default: what the environment says")
    add("--status-file", type=Path, help="JSON file that tells how the run goes, and how it ended")
    add("--restart-every", type=_positive, help="start the process anew after so many episodes")
    add("--restart-above", type=float, metavar="GB", help="or when it holds more memory than this")
    add("--assets-root", help="folder of Isaac Sim's assets; default: ISAAC_ASSETS_ROOT")
    add("--streaming", action="store_true", help="Isaac Sim's livestream")
    add("--streaming-port", type=_positive, default=49102, help="its TCP port")
    add("--push-to-hub", metavar="USER/NAME", help="upload the complete dataset; needs [hub]")
    return parser


def add_scene_options(parser: argparse.ArgumentParser) -> None:
    """The options that `make_config` and `reset_options` read."""
    add = parser.add_argument
    switch = argparse.BooleanOptionalAction
    add("--fps", type=_positive, default=30, help="control and camera rate, Hz")
    add("--simulator", choices=sorted(SIMULATORS), default="mujoco", help="physics and pictures")
    add("--grasp", choices=("fixed_joint", "friction"), default="fixed_joint", help="grasp mode")
    add(
        "--randomize",
        choices=tuple(RANDOMIZATION_PRESETS),
        default="none",
        help="how much light, table, cameras, physics, sensors and delays vary",
    )
    add("--resolution", type=_positive, default=512, help="width and height of pictures")
    add("--preset", choices=sorted(RENDER_PRESETS), default="default", help="picture quality")
    add("--use-ycb", action="store_true", help="household objects of the YCB set, not the cube")
    add("--num-objects", type=_positive, default=1, help="on the table: the target and others")
    add("--object", metavar="NAME", help="the only target, such as tomato_soup_can")
    add("--random-yaw", action="store_true", help="turn objects about the vertical")
    add("--ycb-meshes", type=Path, metavar="DIR", help="MuJoCo: show them by the set's meshes")
    add("--ycb-assets", action=switch, default=True, help="Isaac Sim: show them by its own files")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {number}")
    return number


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _task_of(start_info: dict[str, Any]) -> str:
    return start_info["task"]


def _vector(layout) -> Feature:
    return Feature("float32", (layout.size,), tuple(layout.names))


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
