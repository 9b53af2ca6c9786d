"""Runs any policy for many episodes on fixed seeds; what it does wrong is a failed episode."""

import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from pp_recorder.evaluation.metrics import EpisodeResult
from pp_recorder.parallel.processes import Died, run_all
from pp_recorder.rollout import Policy, episode_seed, run_episode

_FIRST = 3  # a policy that does something wrong in each of so many is not tried further
_LONGEST_REASON = 120


class EvaluationError(RuntimeError):
    """The policy cannot be evaluated; the message says why and what would work."""


class PolicyError(Exception):
    """A policy raised, or its action is none; the message is the same for the same mistake."""


class TaskOutcome(NamedTuple):
    """What the task says of an episode; see `EpisodeResult`."""

    distance: float | None
    reason: str
    phase: str
    target: str
    points: dict[str, tuple[float, float]]


Judge = Callable[[Sequence[dict[str, Any]]], TaskOutcome]


@dataclass(frozen=True)
class Attempt:
    """An episode of an evaluation.

    Attributes:
        row: What is reported.
        actions: What the environment applied, one per step; enough to see the episode again.
    """

    row: EpisodeResult
    actions: list[np.ndarray]


class Runner:
    """A `Worker`: a policy in an environment.

    Args:
        env: The environment; closed by `close`.
        policy: Chooses the actions.
        judge: Gives the task's verdict on an episode from its `info`s, the first state's included.
        seed: Episode k depends on this, k and the configuration alone.
        max_steps: An episode ends after so many.
        options: For every `env.reset`.
    """

    def __init__(
        self,
        env: gym.Env,
        policy: Policy,
        judge: Judge,
        seed: int,
        max_steps: int,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._env = _Watched(env)
        self._policy = _Checked(policy, env.action_space)
        self._judge = judge
        self._seed = seed
        self._max_steps = max_steps
        self._options = options
        self._period = 1.0 / env.metadata["render_fps"]

    def run(self, index: int) -> Attempt:
        """Runs an episode."""
        seed, success, reason, error = episode_seed(self._seed, index), False, "", ""
        try:
            episode = run_episode(
                self._env, self._policy, [], seed, index, self._max_steps, self._options
            )
            success = episode.success
        except PolicyError as mistake:
            reason, error = str(mistake), _explain(mistake)
        infos, actions = self._env.infos, self._env.actions
        verdict = self._judge(infos)
        row = EpisodeResult(
            index=index,
            seed=seed,
            success=success,
            steps=len(actions),
            seconds=len(actions) * self._period,
            distance=verdict.distance,
            reason="" if success else reason or verdict.reason,
            phase="" if success else verdict.phase,
            target=verdict.target,
            points=verdict.points,
            error=error,
        )
        return Attempt(row, actions)

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()


class RandomPolicy:
    """A `Policy` that draws its actions from the action space."""

    def __init__(self, space: gym.Space) -> None:
        self._space = space

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Seeds the space from the episode's generator."""
        self._space.seed(int(rng.integers(2**31)))

    def act(self, observation: Any) -> Any:
        """A random action."""
        return self._space.sample()


class FunctionPolicy(Policy):
    """A `Policy` that is a function from observation to action."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def act(self, observation: Any) -> Any:
        """The function's value."""
        return self._function(observation)


def evaluate(
    make: Callable[[], Runner],
    num_episodes: int,
    seed: int,
    processes: int,
    progress: Callable[[EpisodeResult], None],
    environment: Callable[[int], dict[str, str]] = lambda number: {},
) -> list[Attempt]:
    """Runs episodes 0..num_episodes-1; their results do not depend on the number of processes.

    Args:
        make: Makes a runner; with several processes it is called in each, so it must be picklable.
        num_episodes: At least 1.
        seed: What the runners have as theirs.
        processes: How many at once; 1 runs here.
        progress: Is told of every episode when it has ended.
        environment: Variables for the process of that number, where there are several.

    Returns:
        The attempts by number. An episode that has killed two processes is a failed one.

    Raises:
        EvaluationError: The policy did something wrong in each of the first three episodes.
        Exception: What `make` raises, or the environment.
    """
    attempts: list[Attempt] = []
    results = run_all(make, range(num_episodes), processes, environment=environment)
    with closing(results):
        for index, result in results:
            attempts.append(_dead(index, seed, result) if isinstance(result, Died) else result)
            progress(attempts[-1].row)
            if len(attempts) == _FIRST < num_episodes:
                _require_one_without_error(attempts)
    return attempts


def _dead(index: int, seed: int, died: Died) -> Attempt:
    reason = f"its process died twice ({died.cause})"
    row = EpisodeResult(
        index, episode_seed(seed, index), False, 0, 0.0, None, reason, "unknown", "", {}, reason
    )
    return Attempt(row, [])


def _require_one_without_error(attempts: list[Attempt]) -> None:
    errors = [attempt.row.error for attempt in attempts]
    if all(errors):
        raise EvaluationError(
            f"the policy did something wrong in each of the first {len(errors)} episodes, so the "
            f"rest was not run:\n{errors[0].rstrip()}"
        )


class _Watched(gym.Wrapper):
    """Writes down an episode's `info`s and applied actions, which outlive a policy's error."""

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


class _Checked:
    """A `Policy` that raises nothing but `PolicyError`, and gives only actions of the space."""

    def __init__(self, policy: Policy, space: gym.Space) -> None:
        self._policy = policy
        self._space = space

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        try:
            self._policy.reset(observation, info, rng)
        except (Exception, SystemExit) as error:
            raise PolicyError(f"reset raised {_first_line(error)}") from error

    def act(self, observation: Any) -> Any:
        try:
            action = self._policy.act(observation)
            if isinstance(self._space, gym.spaces.Box):
                action = np.asarray(action)
        except (Exception, SystemExit) as error:
            raise PolicyError(f"act raised {_first_line(error)}") from error
        _require_in(self._space, action)
        return action


def _require_in(space: gym.Space, action: Any) -> None:
    """Checks an action; a Box's bounds are the environment's affair, which may clip."""
    if not isinstance(space, gym.spaces.Box):
        if not space.contains(action):
            raise PolicyError(f"the action must be in {space}, got a {type(action).__name__}")
        return
    if not np.can_cast(action.dtype, space.dtype, "same_kind"):
        raise PolicyError(f"the action must be of type {space.dtype}, got {action.dtype}")
    if action.shape != space.shape:
        raise PolicyError(f"the action must have shape {space.shape}, got {action.shape}")
    if not np.isfinite(action).all():
        raise PolicyError("the action must be finite, got NaN or infinity")


def _first_line(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


def _explain(mistake: PolicyError) -> str:
    """The policy's own traceback, or the mistake where it raised nothing."""
    if mistake.__cause__ is None:
        return str(mistake)
    return "".join(traceback.format_exception(mistake.__cause__))
