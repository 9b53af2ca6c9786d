"""Evaluation of any policy on fixed seeds; an error of the policy is a failed episode."""

import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from pp_recorder.evaluation.metrics import EpisodeResult
from pp_recorder.parallel.processes import Died, run_all
from pp_recorder.rollout import AnyPolicy, Policy, choose_action, episode_seed, run_episode

_GIVE_UP_AFTER = 3  # episodes; the evaluation ends if each of the first ones has an error
_LONGEST_REASON = 120


class EvaluationError(RuntimeError):
    """The policy cannot be evaluated; the message says why and what would work."""


class PolicyError(Exception):
    """A policy raised or gave an invalid action; the same error has the same message."""


class TaskOutcome(NamedTuple):
    """The outcome of an episode as the task defines it; see `EpisodeResult`."""

    distance: float | None
    reason: str
    failure_stage: str
    target: str
    points: dict[str, tuple[float, float]]


TaskOutcomeFunction = Callable[[Sequence[dict[str, Any]]], TaskOutcome]


@dataclass(frozen=True)
class EvaluatedEpisode:
    """An episode of an evaluation.

    Attributes:
        result: For the report.
        actions: The actions that the environment applied, one per step; they allow a replay.
    """

    result: EpisodeResult
    actions: list[np.ndarray]


class PolicyRunner:
    """A `Worker` that runs a policy in an environment.

    Args:
        env: The environment; closed by `close`.
        policy: The policy to evaluate.
        task_outcome: Function from an episode's `info`s, including that of the first state, to its
            outcome.
        seed: Episode k depends on this seed, k and the configuration alone.
        max_steps: The largest number of steps of an episode.
        options: Options of every `env.reset`.
    """

    def __init__(
        self,
        env: gym.Env,
        policy: AnyPolicy,
        task_outcome: TaskOutcomeFunction,
        seed: int,
        max_steps: int,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._env = _EpisodeRecorder(env)
        self._policy = CheckedPolicy(policy, env.action_space)
        self._task_outcome = task_outcome
        self._seed = seed
        self._max_steps = max_steps
        self._options = options
        self._period = 1.0 / env.metadata["render_fps"]

    def run(self, index: int) -> EvaluatedEpisode:
        """Run one episode; an error of the policy makes it a failure."""
        seed, success, reason, error = episode_seed(self._seed, index), False, "", ""
        try:
            episode = run_episode(
                self._env, self._policy, [], seed, index, self._max_steps, self._options
            )
            success = episode.success
        except PolicyError as policy_error:
            reason, error = str(policy_error), traceback_of(policy_error)
        infos, actions = self._env.infos, self._env.actions
        outcome = self._task_outcome(infos)
        result = EpisodeResult(
            index=index,
            seed=seed,
            success=success,
            steps=len(actions),
            seconds=len(actions) * self._period,
            distance=outcome.distance,
            reason="" if success else reason or outcome.reason,
            failure_stage="" if success else outcome.failure_stage,
            target=outcome.target,
            points=outcome.points,
            error=error,
        )
        return EvaluatedEpisode(result, actions)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


class RandomPolicy:
    """A `Policy` that samples its actions from the action space."""

    def __init__(self, space: gym.Space) -> None:
        self._space = space

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Seed the space from the episode's generator."""
        self._space.seed(int(rng.integers(2**31)))

    def act(self, observation: Any) -> Any:
        """Return a random action."""
        return self._space.sample()


class FunctionPolicy(Policy):
    """A `Policy` that is a function from observation to action."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def act(self, observation: Any) -> Any:
        """Return the function's value."""
        return self._function(observation)


class _ScenesRunner:
    """A `Worker` that runs the episodes of several scenes, those of the first one first."""

    def __init__(
        self, make_runner: Callable[[str], PolicyRunner], scenes: Sequence[str], num_episodes: int
    ) -> None:
        self._make_runner = make_runner
        self._scenes = scenes
        self._num_episodes = num_episodes
        self._scene = scenes[0]
        self._runner = make_runner(self._scene)

    def run(self, index: int) -> EvaluatedEpisode:
        """Run one episode, counted over all scenes."""
        number, index = divmod(index, self._num_episodes)
        if self._scene != self._scenes[number]:
            self.close()
            self._scene = self._scenes[number]
            self._runner = self._make_runner(self._scene)
        return self._runner.run(index)

    def close(self) -> None:
        """Close the environment."""
        self._runner.close()


def evaluate(
    make_runner: Callable[[str], PolicyRunner],
    scenes: Sequence[str],
    num_episodes: int,
    seed: int,
    processes: int,
    progress: Callable[[str, EpisodeResult], None],
    environment: Callable[[int], dict[str, str]] = lambda number: {},
    apart: bool = False,
) -> dict[str, list[EvaluatedEpisode]]:
    """Run episodes 0..num_episodes-1 in each scene, with as many processes as one likes.

    Args:
        make_runner: Function from a scene to its runner; with several processes it is called in
            each, so it must be picklable.
        scenes: What `make_runner` takes, each once.
        num_episodes: At least 1.
        seed: The seed of the runners.
        processes: Number of processes at once; 1 runs the episodes in this process. The results do
            not depend on it.
        progress: Function called with the scene and the result of every episode.
        environment: Function from a process's number to its environment variables.
        apart: Have a process of its own for the episodes even if it is one: a policy may end it.

    Returns:
        The episodes by scene and number. An episode that has killed two processes is a failure.

    Raises:
        EvaluationError: The policy had an error in each of the first three episodes.
        Exception: Any other error of the environment or of `make_runner`.
    """
    episodes: dict[str, list[EvaluatedEpisode]] = {scene: [] for scene in scenes}
    worker_factory = partial(_ScenesRunner, make_runner, scenes, num_episodes)
    indices = range(len(scenes) * num_episodes)
    running = run_all(worker_factory, indices, processes, environment=environment, apart=apart)
    with closing(running) as results:
        for index, result in results:
            scene = scenes[int(index) // num_episodes]
            if isinstance(result, Died):
                result = _episode_of_dead_process(index % num_episodes, seed, result)
            episodes[scene].append(result)
            progress(scene, result.result)
            if len(episodes[scene]) == _GIVE_UP_AFTER < num_episodes:
                _require_one_without_error(episodes[scene])
    return episodes


def _episode_of_dead_process(index: int, seed: int, died: Died) -> EvaluatedEpisode:
    reason = f"its process died twice ({died.cause})"
    result = EpisodeResult(
        index, episode_seed(seed, index), False, 0, 0.0, None, reason, "unknown", "", {}, reason
    )
    return EvaluatedEpisode(result, [])


def _require_one_without_error(episodes: list[EvaluatedEpisode]) -> None:
    errors = [episode.result.error for episode in episodes]
    if all(errors):
        raise EvaluationError(
            f"the policy did something wrong in each of the first {len(errors)} episodes, so the "
            f"rest was not run:\n{errors[0].rstrip()}"
        )


class _EpisodeRecorder(gym.Wrapper):
    """A recorder of an episode's `info`s and applied actions, which remain after an error."""

    infos: list[dict[str, Any]]
    actions: list[np.ndarray]

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.infos, self.actions = [], []
        observation, info = self.env.reset(**options)
        self.infos.append(info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.infos.append(info)
        self.actions.append(info.get("action", action))
        return observation, reward, terminated, truncated, info


class CheckedPolicy:
    """A `Policy` that raises only `PolicyError`, and gives only actions of the space."""

    uses_info = True

    def __init__(self, policy: AnyPolicy, space: gym.Space) -> None:
        self._policy = policy
        self._space = space

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Prepare the policy for an episode.

        Raises:
            PolicyError: It raised something.
        """
        try:
            self._policy.reset(observation, info, rng)
        except BaseException as error:
            _let_interrupt_pass(error)
            raise PolicyError(f"reset raised {_first_line(error)}") from error

    def act(self, observation: Any, info: dict[str, Any]) -> Any:
        """Return the policy's action.

        Raises:
            PolicyError: It raised something, or the action is not of the space.
        """
        try:
            action = choose_action(self._policy, observation, info)
            if isinstance(self._space, gym.spaces.Box):
                action = np.array(action)  # a copy, which no thread of the policy changes
        except BaseException as error:
            _let_interrupt_pass(error)
            raise PolicyError(f"act raised {_first_line(error)}") from error
        _require_action_in(self._space, action)
        return action


def _require_action_in(space: gym.Space, action: Any) -> None:
    """Check an action, except for a Box's bounds, to which the environment may clip it.

    Raises:
        PolicyError: It is not of the space.
    """
    if not isinstance(space, gym.spaces.Box):
        if not space.contains(action):
            raise PolicyError(f"the action must be in {space}, got a {type(action).__name__}")
        return
    if not np.can_cast(action.dtype, space.dtype, "same_kind"):
        raise PolicyError(f"the action must be of type {space.dtype}, got {action.dtype}")
    if action.shape != space.shape:
        raise PolicyError(f"the action must have shape {space.shape}, got {action.shape}")
    with np.errstate(over="ignore"):
        given = action.astype(space.dtype)
    if not np.isfinite(action).all():
        raise PolicyError("the action must be finite, got NaN or infinity")
    if not np.isfinite(given).all():
        raise PolicyError(f"the action must be finite as {space.dtype}, got {np.abs(action).max()}")


def _let_interrupt_pass(error: BaseException) -> None:
    """Raise Ctrl-C again; a process without that signal, as a worker, has it from its policy."""
    if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        raise error


def _first_line(error: BaseException) -> str:
    """Return class and message of an error in one printable line of limited length."""
    try:
        message = str(error)
    except BaseException as other:
        message = f"its text cannot be had: {type(other).__name__}"
    text = _printable(f"{type(error).__name__}: {message}").splitlines()[0].rstrip(": ")
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


def traceback_of(error: PolicyError) -> str:
    """Return the policy's own traceback, or the message if the policy raised nothing."""
    if error.__cause__ is None:
        return str(error)
    return _printable("".join(traceback.format_exception(error.__cause__)))


def _printable(text: str) -> str:
    """Return a text that every stream takes, whatever the policy has put in it."""
    return text.encode("utf-8", "backslashreplace").decode()
