"""What a collection is made of: its environment, expert and recording, and its attempts.

Attempt k depends on the seed, k and the configuration alone, so `Collection`, which drives a
simulator here frame by frame, and any number of `RolloutWorker`s elsewhere give the same dataset.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np

import pp_env
from experts.diagnosis import failure_phase
from experts.pick_place import PickPlaceExpert
from pp_env import panda, rotation
from pp_env.config import RENDER_PRESETS, PickPlaceConfig
from pp_env.layout import ACTION, ENVIRONMENT_STATE, OBSERVATION
from pp_recorder.dataset.episode import EpisodePayload, EpisodeRecorder
from pp_recorder.dataset.schema import DatasetSchema, Feature, picture
from pp_recorder.rollout import Episode, EpisodeSink, Step, episode_seed, iterate_episode
from pp_recorder.sinks import SuccessOnly, notice

if TYPE_CHECKING:  # see collect.py
    from pp_recorder.dataset.writer import LeRobotWriter

_GIVE_UP_AFTER = 20  # failed attempts in a row
_REVISION = 2  # one more whenever attempt k of a seed comes out otherwise than before
_PACKAGES = ("franka-pick-place", "numpy", "gymnasium", "mujoco", "pyarrow", "av")


class CollectionError(RuntimeError):
    """The collection cannot go on."""


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        success: Whether it succeeded.
        frames: Its length.
        failure: Reason and phase of what went wrong, or "".
    """

    success: bool
    frames: int
    failure: str

    @classmethod
    def of(cls, episode: Episode) -> "Outcome":
        """The outcome of an episode."""
        failure = (
            ""
            if episode.success
            else _failure(failure_reason(episode), failure_phase(episode.trace))
        )
        return cls(episode.success, episode.length, failure)


class Attempt(NamedTuple):
    """An attempt made elsewhere, and its recording if it is to be kept."""

    outcome: Outcome
    parcel: EpisodePayload | None


@dataclass
class CollectionStats:
    """What the attempts came to.

    Attributes:
        attempts: Episodes that ran to their end.
        successes: Those that succeeded.
        failures: How often each reason and phase ended a failed one.
        failed_in_a_row: The last ones.
    """

    attempts: int = 0
    successes: int = 0
    failures: Counter = field(default_factory=Counter)
    failed_in_a_row: int = 0

    @classmethod
    def of(cls, entries: list[dict[str, Any]], first_attempt: int) -> "CollectionStats":
        """What the attempts from the first to the last of these recorded episodes came to."""
        tally = cls()
        for entry in entries:
            tally.attempts = entry["episode/attempt"] + 1 - first_attempt
            tally.successes += entry["episode/success"]
            if not entry["episode/success"]:
                reason, phase = entry["episode/failure_reason"], entry["episode/failure_phase"]
                tally.failures[_failure(reason, phase)] += 1
        return tally

    def count(self, outcome: Outcome) -> None:
        """Counts one more attempt."""
        self.attempts += 1
        self.successes += outcome.success
        self.failed_in_a_row = 0 if outcome.success else self.failed_in_a_row + 1
        if not outcome.success:
            self.failures[outcome.failure] += 1

    def check_failure_streak(self, args: argparse.Namespace, kept: int) -> None:
        """Checks that it makes sense to go on.

        Raises:
            CollectionError: Too many attempts in a row have failed.
        """
        if args.keep == "success" and self.failed_in_a_row >= _GIVE_UP_AFTER:
            raise CollectionError(
                f"{self.failed_in_a_row} attempts in a row failed ({dict(self.failures)}); "
                f"{args.output} holds the {kept} episodes that succeeded before; "
                "try less --noise-rad or more --steps-per-segment"
            )


class EpisodeRunner:
    """Makes attempts, one frame at a time.

    With --render-after, each is rehearsed without pictures, and only a success is made once more
    with them: the same again, for nothing depends on whether it is drawn.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        config: PickPlaceConfig,
        expert: PickPlaceExpert,
        env: gym.Env,
    ) -> None:
        self._args = args
        self._expert = expert
        self._env = env
        self._rehearsal = make_env(args, config, cameras=False) if args.render_after else None

    def run(self, index: int, sinks: Sequence[EpisodeSink]) -> Generator[Step, None, Outcome]:
        """Makes one attempt and shows it to the sinks, unless its rehearsal fails."""
        if self._rehearsal is not None:
            outcome = _exhaust(self._steps(self._rehearsal, [], index))
            if not outcome.success:
                return outcome
        return (yield from self._steps(self._env, sinks, index))

    def close(self) -> None:
        """Frees what rehearsals need."""
        if self._rehearsal is not None:
            self._rehearsal.close()

    def _steps(
        self, env: gym.Env, sinks: Sequence[EpisodeSink], index: int
    ) -> Generator[Step, None, Outcome]:
        seed, steps = episode_seed(self._args.seed, index), self._expert.num_steps
        options = reset_options(self._args)
        episode = yield from iterate_episode(env, self._expert, sinks, seed, index, steps, options)
        return Outcome.of(episode)


class Collection:
    """A collection in this process, driven frame by frame.

    Args:
        args: The options of collect.py.
        config: The environment's.
        expert: Chooses the actions.
        env: From `make_env`; whoever made it closes it.
        watchers: See every frame of every episode, beside the dataset's writer.

    Attributes:
        writer: Owns the dataset.
        tally: What the attempts came to, those before a resume included.
        watchers: As above; a change takes effect with the next episode.

    Raises:
        FileExistsError: The output is in use, or not empty and not to be resumed.
        DatasetError: What is to be resumed was collected otherwise, or cannot be repaired.
        RuntimeError: Pictures cannot be drawn.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        config: PickPlaceConfig,
        expert: PickPlaceExpert,
        env: gym.Env,
        watchers: Sequence[EpisodeSink] = (),
    ) -> None:
        env.reset(seed=0)  # draws, if cameras are recorded: no OpenGL, no dataset
        self._args = args
        self._attempts = EpisodeRunner(args, config, expert, env)
        self.writer = make_writer(args, config, simulator_description(env))
        self.tally = CollectionStats.of(self.writer.episodes, args.first_attempt)
        self.watchers = list(watchers)
        self._dataset = self.writer if args.keep == "all" else SuccessOnly(self.writer)
        self._steps: Generator[Step, None, Outcome] | None = None

    @property
    def complete(self) -> bool:
        """Whether the dataset holds as many episodes as are wanted."""
        return self.writer.num_episodes >= self._args.num_episodes

    @property
    def between_episodes(self) -> bool:
        """Whether no episode is under way."""
        return self._steps is None

    def step(self) -> bool:
        """Drives one frame; returns False once the collection is complete.

        Raises:
            CollectionError: Too many attempts in a row have failed.
            RuntimeError: The simulator or an encoder failed; the episode in hand is dropped.
            OSError: The disk is full; the episodes before this one are intact.
        """
        if self._steps is None:
            if self.complete:
                return False
            index = self._args.first_attempt + self.tally.attempts
            self._steps = self._attempts.run(index, [self._dataset, *self.watchers])
        try:
            next(self._steps)
        except StopIteration as done:
            self._steps = None
            self.tally.count(done.value)
            self.tally.check_failure_streak(self._args, self.writer.num_episodes)
        return True

    def close(self) -> None:
        """Drops the episode in hand and tidies the dataset up; a second call has no effect."""
        try:
            self._drop()
            self.writer.close()
        finally:
            self.release()

    def release(self) -> None:
        """Drops the episode in hand and lets others write there: for when the disk is full."""
        try:
            self._drop()
            self._attempts.close()
        finally:
            self.writer.release()

    def _drop(self) -> None:
        if self._steps is not None:
            self._steps.close()
            self._steps = None


class RolloutWorker:
    """Makes attempts for a collection elsewhere; a `pp_recorder.parallel.processes.Worker`.

    Args:
        args: The options of collect.py.
        config: The environment's.
        expert: Chooses the actions.
        scratch: Folder for videos that grow; default the system's.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        config: PickPlaceConfig,
        expert: PickPlaceExpert,
        scratch: Path | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=scratch, prefix="worker-")
        self._env = make_env(args, config)
        self._attempts = EpisodeRunner(args, config, expert, self._env)
        self._recorder = EpisodeRecorder(
            Path(self._folder.name), make_recording(args, config, collected={})
        )
        self._dataset = self._recorder if args.keep == "all" else SuccessOnly(self._recorder)

    def run(self, index: int) -> Attempt:
        """Makes one attempt."""
        outcome = _exhaust(self._attempts.run(index, [self._dataset]))
        recorded = self._recorder.take()
        return Attempt(outcome, None if recorded is None else EpisodePayload.pack(recorded))

    def close(self) -> None:
        """Frees the environment."""
        self._attempts.close()
        self._env.close()
        self._folder.cleanup()


def worker_render_env(number: int) -> dict[str, str]:
    """Environment variables that make the worker of that number draw apart from the others.

    On a GPU of its own, where there are several; NVIDIA's driver sleeps until a picture is drawn,
    instead of asking all the time, which takes the processors from the encoders. In software (Mesa)
    with no threads of its own: there is a worker for each core, and threads would wait for each
    other.
    """
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    wanted = {"LP_NUM_THREADS": "0", "__GL_YIELD": "USLEEP"}
    if gpus > 1:
        wanted["MUJOCO_EGL_DEVICE_ID"] = str(number % gpus)
    return {name: value for name, value in wanted.items() if name not in os.environ}


def describe_simulator(args: argparse.Namespace, config: PickPlaceConfig) -> dict[str, Any]:
    """What the simulator says of itself, having drawn a picture if cameras are recorded.

    Raises:
        RuntimeError: Pictures cannot be drawn.
    """
    env = make_env(args, config)
    try:
        env.reset(seed=0)
        return simulator_description(env)
    finally:
        env.close()


def make_expert(
    steps_per_segment: int, noise_rad: float, wander_rad: float, config: PickPlaceConfig
) -> PickPlaceExpert:
    """The expert, whose episodes are long enough for the longest delay of its actions.

    Raises:
        ValueError: An argument is out of range.
    """
    longest_delay = config.randomization.action_delay[1]
    return PickPlaceExpert(steps_per_segment, noise_rad, longest_delay, wander_rad)


def make_env(
    args: argparse.Namespace, config: PickPlaceConfig, cameras: bool | None = None
) -> gym.Env:
    """The environment, with episodes of full length, and pictures unless `cameras` says else."""
    cameras = args.cameras if cameras is None else cameras
    return gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,  # the loop counts; -1 is for Gymnasium 1.0 and up
        disable_env_checker=True,
        simulator=args.simulator,
        obs_type="pixels_agent_pos" if cameras else "state",
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
) -> "LeRobotWriter":
    """The dataset writer, with this environment's features and the simulator's description."""
    from pp_recorder.dataset.writer import LeRobotWriter
    from pp_recorder.storage.mirror import RemoteSync, default_staging

    collected = {**describe_collection(args, config), "simulator_details": simulator}
    recording = make_recording(args, config, collected)
    if isinstance(args.output, Path):
        return LeRobotWriter(args.output, recording, args.resume)
    staging = args.staging or default_staging(args.output)
    mirror = RemoteSync(args.output, staging, args.resume, notice)
    return LeRobotWriter(mirror.root, recording, args.resume, mirror)


def make_recording(
    args: argparse.Namespace, config: PickPlaceConfig, collected: dict[str, Any]
) -> DatasetSchema:
    """What is recorded; `collected` says how the dataset comes about."""
    width, height = config.render.size
    features = {
        "observation.state": _vector(OBSERVATION),
        "action": _vector(ACTION),
        ground_truth_key(args): _vector(ENVIRONMENT_STATE),
    }
    for name in camera_names(args, config):
        features[f"observation.images.{name}"] = picture(height, width)
    return DatasetSchema(
        features=features,
        row=make_row(args, config),
        fps=config.timing.control_hz,
        task=fixed_task(args, config) or _task_of,
        robot_type="franka_panda",
        collection=collected,
        describe=describe_episode,
        codec=args.codec,
    )


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
        "revision": _REVISION,
        "seed": args.seed,
        "first_attempt": args.first_attempt,
        "simulator": args.simulator,
        "steps_per_segment": args.steps_per_segment,
        "noise_rad": args.noise_rad,
        "wander_rad": args.wander_rad,
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
                "intrinsics_px": camera.intrinsics(config.render.size).tolist(),
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


def reset_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """What the options fix at every reset."""
    return None if args.object is None else {"object": args.object}


def _exhaust(steps: Generator[Step, None, Outcome]) -> Outcome:
    """What a generator returns in the end."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def _failure(reason: str, phase: str) -> str:
    return f"{reason} in {phase}"


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
