"""A collection in this process, frame by frame, and the workers that make its episodes elsewhere.

Attempt k depends on the seed, k and the configuration alone, so `CollectionSession`, which drives a
simulator here, and any number of `RolloutWorker`s elsewhere give the same dataset, if the simulator
repeats itself.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np

from pp_collect.actions import set_control_mode
from pp_collect.factory import (
    Expert,
    acting_in,
    make_disturbance,
    make_env,
    make_starts,
    reset_options,
    simulator_description,
)
from pp_collect.options import SessionOptions
from pp_collect.policies import DemonstratingPolicy
from pp_collect.schema import describe_collection, failure_place, failure_reason, make_schema
from pp_env.config import PickPlaceConfig
from pp_env.gpus import usable_gpus
from pp_env.sim import SIMULATORS, has_screen
from pp_recorder.dataset import keys
from pp_recorder.dataset.episode import EpisodePayload, EpisodeRecorder
from pp_recorder.evaluation.runner import EvaluationError
from pp_recorder.rollout import (
    AnyPolicy,
    Episode,
    EpisodeSink,
    Step,
    episode_seed,
    iterate_episode,
)
from pp_recorder.sinks import SuccessOnly

# Worker processes import this module, too, and write no dataset: without what comes with pyarrow
# each is 40 MB smaller.
if TYPE_CHECKING:
    from pp_recorder.dataset.writer import LeRobotWriter

_GIVE_UP_AFTER = 20  # failed attempts in a row


class CollectionError(RuntimeError):
    """The collection cannot go on."""


@dataclass(frozen=True)
class EpisodeOutcome:
    """How an attempt ended.

    Attributes:
        success: Whether it succeeded.
        frames: Its length.
        failure: Reason and phase of what went wrong, or "".
    """

    success: bool
    frames: int
    failure: str

    @classmethod
    def from_episode(cls, episode: Episode) -> "EpisodeOutcome":
        """Return the outcome of an episode."""
        failure = (
            ""
            if episode.success
            else _describe_failure(failure_reason(episode), failure_place(episode))
        )
        return cls(episode.success, episode.length, failure)


class RolloutResult(NamedTuple):
    """What a worker returns of an attempt.

    Attributes:
        outcome: How it ended.
        payload: The encoded episode, if it is to be kept.
    """

    outcome: EpisodeOutcome
    payload: EpisodePayload | None


@dataclass
class CollectionStats:
    """Counts of a collection's attempts.

    Attributes:
        attempts: Episodes that ran to their end.
        successes: Those that succeeded.
        failures: How often each reason and phase ended a failed one.
        failed_in_a_row: The length of the streak of failures at the end.
    """

    attempts: int = 0
    successes: int = 0
    failures: Counter = field(default_factory=Counter)
    failed_in_a_row: int = 0

    @classmethod
    def from_entries(cls, entries: list[dict[str, Any]], first_attempt: int) -> "CollectionStats":
        """Return the counts of recorded episodes, given as rows of `meta/episodes`."""
        stats = cls()
        for entry in entries:
            stats.attempts = entry[keys.EPISODE_ATTEMPT] + 1 - first_attempt
            stats.successes += entry[keys.EPISODE_SUCCESS]
            if not entry[keys.EPISODE_SUCCESS]:
                reason = entry[keys.EPISODE_FAILURE_REASON]
                stats.failures[_describe_failure(reason, entry[keys.EPISODE_FAILURE_PHASE])] += 1
        return stats

    @property
    def success_rate(self) -> float:
        """The share of attempts that succeeded; 0 before the first."""
        return self.successes / self.attempts if self.attempts else 0.0

    def count(self, outcome: EpisodeOutcome) -> None:
        """Count one more attempt."""
        self.attempts += 1
        self.successes += outcome.success
        self.failed_in_a_row = 0 if outcome.success else self.failed_in_a_row + 1
        if not outcome.success:
            self.failures[outcome.failure] += 1

    def check_failure_streak(self, options: SessionOptions, kept: int) -> None:
        """Check that the last attempts did not all fail.

        Args:
            options: Of the collection.
            kept: Episodes in the dataset.

        Raises:
            CollectionError: Too many attempts in a row have failed.
        """
        if options.keep == "success" and self.failed_in_a_row >= _GIVE_UP_AFTER:
            of_expert = "less --noise-rad or more --steps-per-segment"
            raise CollectionError(
                f"{self.failed_in_a_row} attempts in a row failed ({dict(self.failures)}); "
                f"{options.output} holds the {kept} episodes that succeeded before; "
                f"try {of_expert if options.policy is None else '--keep all'}"
            )


class EpisodeRunner:
    """Runs the attempts of a collection, one frame at a time.

    With `render_after`, each attempt is first run without images, and only a success is run again
    with them. Both runs are the same, since no state depends on whether it is rendered.

    Args:
        options: Of the collection.
        config: Of the environment.
        expert: Chooses the actions.
        env: From `make_env`.
    """

    def __init__(
        self,
        options: SessionOptions,
        config: PickPlaceConfig,
        expert: Expert,
        env: gym.Env,
    ) -> None:
        self._options = options
        self._num_steps = expert.num_steps
        self._env = env
        self._starts, self._disturbance = make_starts(options, config), make_disturbance(options)
        self._dry_run_env = (
            make_env(options, config, cameras=False) if options.render_after else None
        )
        for each in (self._env, self._dry_run_env):
            if each is not None:
                set_control_mode(each, options.control_mode)
        self._policy = acting_in(env, expert)

    def require_working(self) -> None:
        """Start an episode and ask for its first action; the next call must be `run`.

        Raises:
            RuntimeError: Images cannot be rendered, or the policy gives no action.
        """
        require_action(self._policy, self._env)

    def run(
        self, index: int, sinks: Sequence[EpisodeSink]
    ) -> Generator[Step, None, EpisodeOutcome]:
        """Run one attempt and show it to the sinks, unless its state-only dry run fails."""
        if self._dry_run_env is not None:
            outcome = exhaust(self._steps(self._dry_run_env, [], index))
            if not outcome.success:
                return outcome
        return (yield from self._steps(self._env, sinks, index))

    def close(self) -> None:
        """Close the environment of dry runs."""
        if self._dry_run_env is not None:
            self._dry_run_env.close()

    def _steps(
        self, env: gym.Env, sinks: Sequence[EpisodeSink], index: int
    ) -> Generator[Step, None, EpisodeOutcome]:
        seed, steps = episode_seed(self._options.seed, index), self._num_steps
        options = reset_options(self._options)
        try:
            episode = yield from iterate_episode(
                *(env, self._policy, sinks, seed, index, steps, options),
                *(self._starts, self._disturbance),
            )
        except EvaluationError as error:
            raise CollectionError(
                f"{error}\nattempt {index} was dropped, and what was finished is intact; once the "
                "policy is mended, --resume goes on"
            ) from error
        return EpisodeOutcome.from_episode(episode)


class CollectionSession:
    """A collection in this process, driven frame by frame.

    Args:
        options: Of the collection.
        config: Of the environment.
        expert: Chooses the actions.
        env: From `make_env`; the caller closes it.
        watchers: Sinks that see every frame of every episode, beside the dataset's writer.

    Attributes:
        writer: Owns the dataset.
        stats: Counts of the attempts, those before a resume included.
        watchers: As above; a change takes effect with the next episode.

    Raises:
        FileExistsError: The output is in use, or not empty and not to be resumed.
        DatasetError: What is to be resumed was collected otherwise, or cannot be repaired.
        RuntimeError: Images cannot be rendered.
    """

    def __init__(
        self,
        options: SessionOptions,
        config: PickPlaceConfig,
        expert: Expert,
        env: gym.Env,
        watchers: Sequence[EpisodeSink] = (),
    ) -> None:
        self._options = options
        self._runner = EpisodeRunner(options, config, expert, env)
        try:
            self._runner.require_working()  # or no dataset is begun
        except BaseException:
            self._runner.close()
            raise
        self.writer = make_writer(options, config, simulator_description(env))
        self.stats = CollectionStats.from_entries(self.writer.episodes, options.first_attempt)
        self.watchers = list(watchers)
        self._dataset = self.writer if options.keep == "all" else SuccessOnly(self.writer)
        self._steps: Generator[Step, None, EpisodeOutcome] | None = None

    @property
    def complete(self) -> bool:
        """Whether the dataset holds as many episodes as the options ask for."""
        return self.writer.num_episodes >= self._options.num_episodes

    @property
    def between_episodes(self) -> bool:
        """Whether no episode is under way."""
        return self._steps is None

    def step(self) -> bool:
        """Drive one frame; return False once the collection is complete.

        Raises:
            CollectionError: Too many attempts in a row have failed.
            RuntimeError: The simulator or an encoder failed; the current episode is dropped.
            OSError: The disk is full; the episodes before this one are intact.
        """
        if self._steps is None:
            if self.complete:
                return False
            index = self._options.first_attempt + self.stats.attempts
            self._steps = self._runner.run(index, [self._dataset, *self.watchers])
        try:
            next(self._steps)
        except StopIteration as done:
            self._steps = None
            self.stats.count(done.value)
            self.stats.check_failure_streak(self._options, self.writer.num_episodes)
        return True

    def close(self) -> None:
        """Drop the current episode and tidy the dataset up; a second call has no effect."""
        try:
            self._drop()
            close_writer(self.writer, self._options)
        finally:
            self.release()

    def release(self) -> None:
        """Drop the current episode and let others write there, also when the disk is full."""
        try:
            self._drop()
            self._runner.close()
        finally:
            self.writer.release()

    def _drop(self) -> None:
        if self._steps is not None:
            self._steps.close()
            self._steps = None


class RolloutWorker:
    """Runs and encodes attempts in a worker process; a `pp_recorder.parallel.processes.Worker`.

    Args:
        options: Of the collection.
        config: Of the environment.
        expert: Chooses the actions.
        scratch: Folder for videos while they grow; default the system's.
    """

    def __init__(
        self,
        options: SessionOptions,
        config: PickPlaceConfig,
        expert: Expert,
        scratch: Path | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=scratch, prefix="worker-")
        until_success = options.policy is not None
        self._env = make_env(options, config, options.record_cameras, until_success=until_success)
        self._runner = EpisodeRunner(options, config, expert, self._env)
        self._recorder = EpisodeRecorder(
            Path(self._folder.name), make_schema(options, config, provenance={})
        )
        self._dataset = self._recorder if options.keep == "all" else SuccessOnly(self._recorder)

    def run(self, index: int) -> RolloutResult:
        """Run one attempt."""
        outcome = exhaust(self._runner.run(index, [self._dataset]))
        encoded = self._recorder.take()
        return RolloutResult(outcome, None if encoded is None else EpisodePayload.pack(encoded))

    def close(self) -> None:
        """Close the environments and delete the scratch folder."""
        self._runner.close()
        self._env.close()
        self._folder.cleanup()


def make_writer(
    options: SessionOptions,
    config: PickPlaceConfig,
    simulator: dict[str, Any],
    has_phases: bool = True,
) -> "LeRobotWriter":
    """Return the dataset's writer.

    Args:
        options: Of the collection.
        config: Of the environment.
        simulator: How the simulator describes itself, for the provenance.
        has_phases: Whether the policy says what each action is for.

    Raises:
        FileExistsError: The output is in use, or not empty and not to be resumed.
        DatasetError: What is to be resumed was collected otherwise, or cannot be repaired.
    """
    from pp_recorder.dataset.writer import LeRobotWriter
    from pp_recorder.storage.mirror import RemoteSync, default_staging

    provenance = describe_collection(options, config, simulator)
    schema = make_schema(options, config, provenance, has_phases)
    if isinstance(options.output, Path):
        return LeRobotWriter(
            options.output, schema, options.resume, video_files=options.video_files
        )
    staging = options.staging or default_staging(options.output)
    remote = RemoteSync(options.output, staging, options.resume)
    return LeRobotWriter(remote.root, schema, options.resume, remote, options.video_files)


def close_writer(writer: "LeRobotWriter", options: SessionOptions, processes: int = 1) -> None:
    """Close a dataset; once it has as many episodes as the options ask for, pack its videos.

    Args:
        writer: The dataset's.
        options: Of the collection.
        processes: Number of processes at most that join videos.
    """
    if writer.num_episodes >= options.num_episodes:
        writer.finalize(processes)
    else:
        writer.close()


def describe_simulator(
    options: SessionOptions, config: PickPlaceConfig, expert: Expert
) -> dict[str, Any]:
    """Return how the simulator describes itself, after one reset, rendered if cameras are recorded.

    Args:
        options: Of the collection.
        config: Of the environment.
        expert: Chooses the actions.

    Raises:
        RuntimeError: Images cannot be rendered, or the policy gives no action.
    """
    env = make_env(options, config, options.record_cameras)
    try:
        set_control_mode(env, options.control_mode)
        require_action(acting_in(env, expert), env)
        return simulator_description(env)
    finally:
        env.close()


def require_action(policy: AnyPolicy, env: gym.Env) -> None:
    """Start an episode, which renders if cameras are recorded, and have a user's policy act.

    Raises:
        RuntimeError: Images cannot be rendered, or the policy gives no action.
    """
    observation, info = env.reset(seed=0)
    if isinstance(policy, DemonstratingPolicy):
        policy.reset(observation, info, np.random.default_rng(0))
        policy.act(observation, info)


def worker_render_env(number: int) -> dict[str, str]:
    """Return environment variables with which the worker of that number renders beside others.

    Where there are several GPUs, they take turns. CUDA is to count them as `usable_gpus` does.
    NVIDIA's driver sleeps until an image is rendered, instead of polling, which takes the
    processors from the encoders. In software, Mesa has no threads of its own: there is a worker for
    each core, and threads would wait for each other. Without a screen there is no use for GLFW,
    which starts a process to look for its library; a Ctrl-C meanwhile has that print a traceback.
    """
    gpus = usable_gpus()
    chosen = {"LP_NUM_THREADS": "0", "__GL_YIELD": "USLEEP"}
    if not has_screen():
        chosen["PYGLFW_LIBRARY"] = os.devnull
    if len(gpus) > 1:
        chosen["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        chosen |= {row.gpu_variable: str(number % len(gpus)) for row in SIMULATORS.values()}
    elif gpus and gpus[0]:  # MuJoCo before 4 does not look at CUDA_VISIBLE_DEVICES
        chosen[SIMULATORS["mujoco"].gpu_variable] = str(gpus[0])
    return {name: value for name, value in chosen.items() if name not in os.environ}


def exhaust(steps: Generator[Step, None, EpisodeOutcome]) -> EpisodeOutcome:
    """Run a generator to its end and return its value."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def _describe_failure(reason: str, phase: str) -> str:
    return f"{reason} in {phase}"
