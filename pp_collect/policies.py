"""Policies by name: the expert, a function of one's own, or a LeRobot checkpoint."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from traceback import format_exc
from typing import Any

import gymnasium as gym
import numpy as np

from experts.pick_place import PickPlaceExpert
from experts.reactive import ReactiveExpert
from pp_collect.actions import in_control_mode
from pp_env.layout import ENVIRONMENT_STATE
from pp_env.names import did_you_mean
from pp_recorder.evaluation.lerobot_policy import ENVIRONMENT_STATE as STATE_INPUT
from pp_recorder.evaluation.lerobot_policy import Checkpoint, LeRobotPolicy
from pp_recorder.evaluation.runner import (
    CheckedPolicy,
    EvaluationError,
    FunctionPolicy,
    PolicyError,
    RandomPolicy,
    traceback_of,
)
from pp_recorder.rollout import AnyPolicy

OWN_POLICIES = ("expert", "reactive", "random")
_SHOWN = 10  # callables of a module that lacks the one asked for


def make_policy(name: str, env: gym.Env, action_steps: int | None = None) -> AnyPolicy:
    """Return the policy that --policy names.

    Args:
        name: The text.
        env: The environment.
        action_steps: For a checkpoint; see `LeRobotPolicy`.

    Raises:
        EvaluationError: There is none, or it cannot be made.
        CheckpointError: A checkpoint is incomplete, or is for another environment.
        ImportError: A checkpoint needs lerobot, and that is not installed.
    """
    if name in ("expert", "reactive"):
        unwrapped: Any = env.unwrapped
        make = PickPlaceExpert if name == "expert" else ReactiveExpert
        expert = make(control_hz=unwrapped.config.timing.control_hz)
        return in_control_mode(expert, unwrapped.control_mode)
    if name == "random":
        return RandomPolicy(env.action_space)
    if Path(name).is_dir():
        checkpoint = Checkpoint(Path(name))
        checkpoint.require_fitting(env.observation_space, env.action_space)
        return LeRobotPolicy(checkpoint, action_steps)
    return load_policy(name, env)


def load_policy(name: str, env: gym.Env, option: str = "--policy") -> AnyPolicy:
    """Return what the callable in "module:callable" makes of the environment.

    Args:
        name: The text.
        env: The environment.
        option: By which the name was given, for errors.

    Raises:
        EvaluationError: There is no such module or callable, or it makes no policy.
    """
    make = find_callable(name, option)
    try:
        made = make(env)
    except (Exception, SystemExit) as error:
        raise EvaluationError(
            f"{option} {name} raised when called\n{format_exc().rstrip()}"
        ) from error
    return as_policy(made, name, option)


def find_callable(name: str, option: str = "--policy") -> Callable[[gym.Env], Any]:
    """Return the callable in "module:callable".

    Args:
        name: The text.
        option: By which the name was given, for errors.

    Raises:
        EvaluationError: There is no such module or callable.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise EvaluationError(f"{option} must be like my_module:make_policy, got {name!r}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # where a console script does not look
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise EvaluationError(
            f"{option} {name}: there is no module {error.name!r} in {Path.cwd()} or on the path"
        ) from error
    except (Exception, SystemExit) as error:
        raise EvaluationError(
            f"{option} {name} raised when imported\n{format_exc().rstrip()}"
        ) from error
    make = getattr(module, attribute, None)
    if not callable(make):
        found = {k: v for k, v in vars(module).items() if callable(v) and not k.startswith("_")}
        own = [k for k, v in found.items() if getattr(v, "__module__", "") == module_name]
        listed = f", it has {', '.join((own or list(found))[:_SHOWN]) or 'none'}"
        raise EvaluationError(
            f"{option} {name}: {module.__file__} has no callable {attribute!r}"
            f"{did_you_mean([attribute], found) or listed}"
        )
    return make


def as_policy(made: Any, name: str, option: str = "--policy") -> AnyPolicy:
    """Return a policy as it is, and a function as a policy.

    Raises:
        EvaluationError: It is neither.
    """
    if callable(getattr(made, "act", None)) and callable(getattr(made, "reset", None)):
        return made
    if callable(made):
        return FunctionPolicy(made)
    raise EvaluationError(
        f"{option} {name}: called with the environment it must return an object with "
        "reset(observation, info, rng) and act(observation), or a function from observation to "
        f"action; got {made!r}"
    )


@dataclass(frozen=True)
class NamedPolicy:
    """A policy by name, for a collection, whose processes make it each for itself.

    Attributes:
        name: "module:callable".
        num_steps: Number of steps after which an episode ends.
    """

    name: str
    num_steps: int

    @property
    def typical_steps(self) -> int:
        """Number of steps of most episodes, as far as it is known."""
        return self.num_steps


class DemonstratingPolicy:
    """A policy that demonstrates in place of an expert, and gives only valid actions.

    Args:
        name: "module:callable".
        env: The environment of the collection.

    Attributes:
        name: As above.

    Raises:
        EvaluationError: There is no such policy, or it cannot be made.
    """

    uses_info = True

    def __init__(self, name: str, env: gym.Env) -> None:
        self.name = name
        self._made = load_policy(name, env)
        self._checked = CheckedPolicy(self._made, env.action_space)
        self._space: Any = env.action_space

    @property
    def done(self) -> bool:
        """True once the policy has nothing more to do."""
        return bool(getattr(self._made, "done", False))

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Prepare the policy for an episode.

        Raises:
            EvaluationError: It raised something.
        """
        with self._named_errors():
            self._checked.reset(observation, info, rng)

    def act(self, observation: Any, info: dict[str, Any]) -> np.ndarray:
        """Return the action within the space's bounds, as a dataset has it.

        Raises:
            EvaluationError: The policy raised something, or its action is not of the space.
        """
        with self._named_errors():
            action = self._checked.act(observation, info)
        return np.clip(action.astype(self._space.dtype), self._space.low, self._space.high)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except PolicyError as error:
            text = str(error)
            if error.__cause__ is not None:
                text = f"{text}\n{traceback_of(error).rstrip()}"
            raise EvaluationError(f"--policy {self.name}: {text}") from error


class StartPolicy:
    """The policy that drives up to the start of a recording; a `pp_collect.starts.Starter`.

    A checkpoint sees what its inputs are, the environment's state among them. Any other policy
    sees what the environment observes: with cameras a dictionary, else the vector (23,).

    Args:
        name: "module:callable", or the folder of a LeRobot checkpoint.
        env: The environment of the collection.

    Raises:
        EvaluationError: There is no such policy, or it cannot be made.
        CheckpointError: A checkpoint is incomplete, or is for another environment.
        ImportError: A checkpoint needs lerobot, and that is not installed.
    """

    def __init__(self, name: str, env: gym.Env) -> None:
        self._is_dict = isinstance(env.observation_space, gym.spaces.Dict)
        self._needs_truth = False
        if Path(name).is_dir():
            checkpoint = Checkpoint(Path(name))
            self._needs_truth = STATE_INPUT in checkpoint.inputs
            self.needs_images = bool(checkpoint.image_sizes)
            checkpoint.require_fitting(self._space(env.observation_space), env.action_space)
            self.policy: AnyPolicy = LeRobotPolicy(checkpoint)
        else:
            self.needs_images = self._is_dict
            self.policy = load_policy(name, env, "--start-policy")

    def observation(self, observation: Any, info: dict[str, Any]) -> Any:
        """Return what the policy takes; see `pp_collect.starts.Starter`."""
        if not self._needs_truth:
            return observation
        parts = observation if isinstance(observation, dict) else {"agent_pos": observation}
        return {**parts, "environment_state": info["environment_state"]}

    def _space(self, observed: gym.Space) -> gym.Space:
        """Return the space of what the policy takes, from that of the environment."""
        if not isinstance(observed, gym.spaces.Dict):
            parts: dict[str, gym.Space] = {"agent_pos": observed}
        else:
            parts = {k: v for k, v in observed.items() if k != "pixels" or self.needs_images}
        if self._needs_truth:
            parts["environment_state"] = ENVIRONMENT_STATE.space()
        return gym.spaces.Dict(parts)
