"""One episode of any policy in any Gymnasium environment, shown step by step to any sinks."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np


class Policy(Protocol):
    """Chooses actions. May also have `phase`, a name for what it is doing."""

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Prepares for an episode; all of the policy's randomness comes from `rng`."""
        ...

    def act(self, observation: Any) -> np.ndarray:
        """The action for an observation."""
        ...


@dataclass(frozen=True)
class Step:
    """An observation, the action chosen from it, and what came of that.

    Attributes:
        index: Counts from 0 in each episode.
        observation: At time t.
        info: At time t.
        action: What the environment applied at time t.
        reward: For the step from t to t + 1.
        done: Whether the episode ended with this step.
        success: Whether the state at t + 1 is a success.
        phase: What the policy said it was doing, or "".
    """

    index: int
    observation: Any
    info: dict[str, Any]
    action: np.ndarray
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
        length: Steps.
        success: Whether the last state is a success.
        start_info: `info` of the first state.
        trace: Per step, the policy's phase and the `info` that the step led to.
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


class EpisodeSink(Protocol):
    """Sees every step of every episode: a dataset writer, a live view, a test."""

    def begin(self, seed: int) -> None:
        """An episode starts."""
        ...

    def add(self, step: Step) -> None:
        """A step was made."""
        ...

    def end(self, episode: Episode) -> None:
        """The episode ran to its end: commit it."""
        ...

    def abort(self) -> None:
        """The episode was broken off: forget it."""
        ...

    def close(self) -> None:
        """There are no more episodes."""
        ...


def episode_seed(seed: int, index: int) -> int:
    """The seed for `env.reset` of attempt `index` in the collection with `seed`.

    So attempt k of a collection depends on (seed, k) and its configuration alone, whoever runs it.
    """
    low, high = np.random.SeedSequence([seed, index]).generate_state(2, np.uint32)
    return int(high) << 31 | int(low) >> 1  # 63 bits: fits a signed column


def run_episode(
    env: gym.Env,
    policy: Policy,
    sinks: Sequence[EpisodeSink],
    seed: int,
    index: int,
    max_steps: int,
    options: dict[str, Any] | None = None,
) -> Episode:
    """Runs one episode and shows it to the sinks; see `iterate_episode`."""
    steps = iterate_episode(env, policy, sinks, seed, index, max_steps, options)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def iterate_episode(
    env: gym.Env,
    policy: Policy,
    sinks: Sequence[EpisodeSink],
    seed: int,
    index: int,
    max_steps: int,
    options: dict[str, Any] | None = None,
) -> Generator[Step, None, Episode]:
    """Runs one episode, one step per iteration.

    It depends on `seed` and on the environment's and the policy's configuration alone. If it is
    broken off, by an exception or by closing the iterator, the sinks are told to forget it.

    Args:
        env: The environment.
        policy: Chooses the actions.
        sinks: See every step.
        seed: For `env.reset` and for the policy's generator; in a collection, `episode_seed`.
        index: The attempt's number in the collection, for the record.
        max_steps: The episode ends after so many.
        options: For `env.reset`.

    Returns:
        The `Episode`, as the iterator's value.
    """
    for sink in sinks:
        sink.begin(seed)
    try:
        episode = yield from _steps(env, policy, sinks, seed, index, max_steps, options)
        for sink in sinks:
            sink.end(episode)
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return episode


def _steps(
    env: gym.Env,
    policy: Policy,
    sinks: Sequence[EpisodeSink],
    seed: int,
    index: int,
    max_steps: int,
    options: dict[str, Any] | None,
) -> Generator[Step, None, Episode]:
    observation, info = env.reset(seed=seed, options=options)
    policy.reset(observation, info, np.random.default_rng([seed, 1]))
    start_info, trace = info, []
    done = False
    while not done:
        phase = getattr(policy, "phase", "")
        action = policy.act(observation)
        next_observation, reward, terminated, truncated, next_info = env.step(action)
        done = bool(terminated or truncated or len(trace) + 1 >= max_steps)
        step = Step(
            index=len(trace),
            observation=observation,
            info=info,
            action=next_info.get("action", action),
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
