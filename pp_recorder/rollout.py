"""Run episodes of any policy in any Gymnasium environment, and pass every step to any sinks."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np


class Policy(Protocol):
    """A function from observations to actions, with state that is reset before each episode.

    It may also have some of these attributes:

    - `phase`: a name for what its last action is for.
    - `done`: True once it has nothing more to do, which ends the episode.
    """

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Prepare for an episode; the default does nothing.

        Args:
            observation: The first one.
            info: The first one.
            rng: The only source of the policy's randomness.
        """

    def act(self, observation: Any) -> np.ndarray:
        """Return the action for an observation."""
        ...


class InformedPolicy(Protocol):
    """A `Policy` that also uses the `info`, which knows more than the observation."""

    uses_info: bool  # True

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Prepare for an episode, as a `Policy` does."""

    def act(self, observation: Any, info: dict[str, Any]) -> np.ndarray:
        """Return the action for an observation and the `info` of the same instant."""
        ...


AnyPolicy = Policy | InformedPolicy


@dataclass(frozen=True)
class Step:
    """An observation, the action chosen from it, and the outcome of that action.

    Attributes:
        index: Counts from 0 in each episode.
        observation: At time t.
        info: At time t.
        action: What the policy wanted at time t, within the environment's bounds.
        executed: What the environment applied at time t; it differs if the action was disturbed.
        reward: For the step from t to t + 1.
        done: True in the last step of the episode.
        success: True if the state at t + 1 is a success.
        phase: What the action is for, as the policy calls it, or "".
    """

    index: int
    observation: Any
    info: dict[str, Any]
    action: np.ndarray
    executed: np.ndarray
    reward: float
    done: bool
    success: bool
    phase: str


@dataclass(frozen=True)
class Episode:
    """An episode that ran to its end.

    Attributes:
        index: Its number in the collection.
        seed: The seed given to `env.reset`.
        length: Number of steps.
        success: True if the last state is a success.
        start_info: `info` of the first state.
        trace: Per step, the policy's phase of the action at time t and the `info` at time t + 1.
    """

    index: int
    seed: int
    length: int
    success: bool
    start_info: dict[str, Any]
    trace: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def end_info(self) -> dict[str, Any]:
        """Return the `info` of the last state."""
        return self.trace[-1][1]


class Disturbance(Protocol):
    """A change of actions between the policy and the environment."""

    def reset(self, rng: np.random.Generator) -> None:
        """Prepare for an episode; `rng` is the only source of randomness."""
        ...

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """Return what is executed in place of the action."""
        ...


class EpisodeSink(Protocol):
    """A receiver of every step of every episode: a dataset writer, a live view, a test.

    Each method does nothing unless a sink overrides it.
    """

    def begin(self, seed: int) -> None:
        """Start an episode."""

    def add(self, step: Step) -> None:
        """Take one step."""

    def end(self, episode: Episode) -> None:
        """Commit the episode, which ran to its end."""

    def abort(self) -> None:
        """Discard the episode, which was interrupted."""

    def close(self) -> None:
        """Release all resources; no episode follows."""


def episode_seed(seed: int, index: int) -> int:
    """Return the seed for `env.reset` of attempt `index` in the collection with `seed`.

    Attempt k of a collection depends on (seed, k) and the configuration alone, in any process.
    """
    low, high = np.random.SeedSequence([seed, index]).generate_state(2, np.uint32)
    return int(high) << 31 | int(low) >> 1  # 63 bits: fits a signed column


Start = Callable[[gym.Env, int, dict[str, Any] | None], tuple[Any, dict[str, Any]]]


def reset_env(
    env: gym.Env, seed: int, options: dict[str, Any] | None
) -> tuple[Any, dict[str, Any]]:
    """Start an episode with a reset and nothing else."""
    return env.reset(seed=seed, options=options)


def choose_action(policy: AnyPolicy, observation: Any, info: dict[str, Any]) -> Any:
    """Return the policy's action for an observation, and for the `info` if it uses that."""
    act: Any = policy.act
    return act(observation, info) if getattr(policy, "uses_info", False) else act(observation)


def run_episode(
    env: gym.Env,
    policy: AnyPolicy,
    sinks: Sequence[EpisodeSink],
    seed: int,
    index: int,
    max_steps: int,
    options: dict[str, Any] | None = None,
    start: Start = reset_env,
    disturbance: Disturbance | None = None,
) -> Episode:
    """Run one episode and pass it to the sinks; see `iterate_episode`."""
    steps = iterate_episode(env, policy, sinks, seed, index, max_steps, options, start, disturbance)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def iterate_episode(
    env: gym.Env,
    policy: AnyPolicy,
    sinks: Sequence[EpisodeSink],
    seed: int,
    index: int,
    max_steps: int,
    options: dict[str, Any] | None = None,
    start: Start = reset_env,
    disturbance: Disturbance | None = None,
) -> Generator[Step, None, Episode]:
    """Run one episode, one step per iteration.

    The episode depends on `seed` and on the environment's and the policy's configuration alone. An
    exception, or closing the iterator, aborts it in every sink.

    Args:
        env: The environment.
        policy: The source of the actions.
        sinks: The receivers of every step.
        seed: For `env.reset` and for the policy's generator; in a collection, `episode_seed`.
        index: The attempt's number in the collection, stored in the `Episode`.
        max_steps: Upper limit of the episode's length.
        options: For `env.reset`.
        start: Brings the environment to where the episode begins, and returns the first
            observation and `info`. What happens in it reaches no sink.
        disturbance: Changes the actions before they are executed.

    Returns:
        The `Episode`, as the iterator's value.
    """
    for sink in sinks:
        sink.begin(seed)
    try:
        observation, info = start(env, seed, options)
        if disturbance is not None:
            disturbance.reset(np.random.default_rng([seed, 2]))
        policy.reset(observation, info, np.random.default_rng([seed, 1]))
        episode = yield from _steps(
            env, policy, sinks, seed, index, max_steps, (observation, info), disturbance
        )
        for sink in sinks:
            sink.end(episode)
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return episode


def _steps(
    env: gym.Env,
    policy: AnyPolicy,
    sinks: Sequence[EpisodeSink],
    seed: int,
    index: int,
    max_steps: int,
    first: tuple[Any, dict[str, Any]],
    disturbance: Disturbance | None,
) -> Generator[Step, None, Episode]:
    observation, info = first
    start_info, trace = info, []
    done = False
    while not done:
        action = choose_action(policy, observation, info)
        phase = getattr(policy, "phase", "")
        given = action if disturbance is None else disturbance(action)
        next_observation, reward, terminated, truncated, next_info = env.step(given)
        executed = next_info.get("action", given)
        ended = terminated or truncated or getattr(policy, "done", False)
        done = bool(ended or len(trace) + 1 >= max_steps)
        step = Step(
            index=len(trace),
            observation=observation,
            info=info,
            action=executed if disturbance is None else action,
            executed=executed,
            reward=float(reward),
            done=done,
            success=bool(next_info.get("is_success", False)),
            phase=phase,
        )
        for sink in sinks:
            sink.add(step)
        trace.append((phase, next_info))
        observation, info = next_observation, next_info
        yield step
    success = bool(info.get("is_success", False))
    return Episode(index, seed, len(trace), success, start_info, tuple(trace))
