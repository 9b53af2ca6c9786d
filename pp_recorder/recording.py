"""Record any policy in any Gymnasium environment, and replay what was recorded."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from pp_recorder.dataset import keys
from pp_recorder.dataset.compare import Comparison, ComparisonSink, ReplayPolicy
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.dataset.schema import DatasetSchema, Feature, image_feature
from pp_recorder.dataset.versions import describe_environment
from pp_recorder.dataset.writer import LeRobotWriter
from pp_recorder.evaluation.runner import FunctionPolicy
from pp_recorder.rollout import (
    AnyPolicy,
    Episode,
    EpisodeSink,
    Step,
    episode_seed,
    run_episode,
)
from pp_recorder.sinks import ProgressBar, SuccessOnly

_PIXELS = "pixels"  # as LeRobot and Gymnasium call pictures in an observation
_RENDERED = "render"  # the camera that shows what `env.render()` gives
_NAMES = {"agent_pos": keys.STATE, "environment_state": "observation.environment_state"}
_GIVE_UP_AFTER = 20  # attempts in a row without success


@dataclass(frozen=True)
class _Column:
    """Where in a step a column's values are: in the observation or the `info`, below these keys."""

    path: tuple[str, ...]
    feature: Feature
    in_info: bool = False

    def value(self, step: Step) -> np.ndarray:
        """Return the column's value in a step: a picture as it is, numbers as a vector."""
        value = step.info if self.in_info else step.observation
        for key in self.path:
            value = value[key]
        array = np.asarray(value)
        return array if self.feature.dtype == "video" else np.atleast_1d(array).ravel()


def record(
    env: gym.Env,
    policy: AnyPolicy | Callable[[Any], Any],
    output: str | Path,
    num_episodes: int,
    *,
    task: str,
    seed: int = 0,
    max_steps: int | None = None,
    keep: Literal["all", "success"] = "all",
    resume: bool = False,
    fps: int | None = None,
    robot_type: str = "unknown",
    codec: str = "h264",
    sinks: Sequence[EpisodeSink] = (),
    progress: bool = True,
) -> Dataset:
    """Record episodes of a policy in an environment as a LeRobot v3.0 dataset.

    Episode k begins with `env.reset(seed=s)`, where s depends on `seed` and the attempt's number
    alone. Each episode is durable once it has ended, whatever happens to the process afterwards.
    The environment is not closed.

    Args:
        env: With observations and actions as in `schema_of`. With `render_mode="rgb_array"`, and
            no picture in its observations, what `env.render()` gives is recorded, too.
        policy: A `Policy`, or a function from an observation to an action.
        output: The dataset's folder: absent, empty, or with `resume` one that `record` has begun.
        num_episodes: Episodes of the complete dataset.
        task: What the robot does, in words.
        seed: Of the collection.
        max_steps: Upper limit of an episode's length; default that of the environment's spec.
        keep: "success" drops episodes whose last `info` lacks a true `is_success`.
        resume: Go on with what is there.
        fps: Steps per second; default `env.metadata["render_fps"]`.
        robot_type: For `info.json`.
        codec: A name in `pp_recorder.dataset.video.CODECS`.
        sinks: They see every step, too.
        progress: Show a progress bar.

    Returns:
        The dataset.

    Raises:
        ValueError: An argument is wrong, or a space cannot be recorded; nothing was written.
        FileExistsError: The folder is in use, or not empty and not to be resumed.
        DatasetError: What is to be resumed was recorded otherwise.
        RuntimeError: Too many attempts in a row had no success, or an encoder failed.
        OSError: The disk is full; the episodes before are intact.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}")
    if keep not in ("all", "success"):
        raise ValueError(f"keep must be 'all' or 'success', got {keep!r}")
    root, max_steps = Path(output).expanduser(), _max_steps(env, max_steps)
    provenance = {"seed": seed, "keep": keep, "max_steps": max_steps, **_describe(env)}
    env = with_picture(env)
    schema = schema_of(env, task, fps, robot_type, codec, provenance)
    actor: Any = policy
    if not hasattr(policy, "act"):
        actor = FunctionPolicy(actor)
    writer = LeRobotWriter(root, schema, resume)
    shown = list(sinks)
    if progress:
        shown.append(ProgressBar(num_episodes, max_steps, writer.num_episodes))
    sink = writer if keep == "all" else SuccessOnly(writer)
    try:
        attempt, failed = _attempts(writer.episodes), 0
        while writer.num_episodes < num_episodes:
            number = episode_seed(seed, attempt)
            episode = run_episode(env, actor, [sink, *shown], number, attempt, max_steps)
            attempt, failed = attempt + 1, 0 if episode.success else failed + 1
            if keep == "success" and failed >= _GIVE_UP_AFTER:
                raise RuntimeError(
                    f"{failed} attempts in a row had no success; {root} holds the "
                    f"{writer.num_episodes} episodes before them. Try another policy, or "
                    "keep='all'"
                )
        writer.finalize()
    finally:
        for each in shown:
            each.close()
        writer.release()
    return Dataset(root)


def replay(
    env: gym.Env,
    dataset: str | Path | Dataset,
    episodes: Sequence[int] | None = None,
    tolerance: float = 0.0,
) -> list[Comparison]:
    """Repeat recorded actions from the recorded seeds, and compare all numbers.

    Args:
        env: As it was for `record`. It is not closed.
        dataset: From `record`, or its folder.
        episodes: Which; default all.
        tolerance: Largest absolute difference that counts as equal; 0 requires the same bits.

    Returns:
        A comparison per episode.

    Raises:
        DatasetError: The dataset is damaged, or does not say how an episode began.
        ValueError: There is no such episode, or the environment cannot be recorded.
    """
    if not isinstance(dataset, Dataset):
        dataset = Dataset(Path(dataset).expanduser())
    row = make_row(_columns(env))
    results = []
    for k in range(dataset.num_episodes) if episodes is None else episodes:
        if not 0 <= k < dataset.num_episodes:
            raise ValueError(f"episode must be from 0 to {dataset.num_episodes - 1}, got {k}")
        entry = dataset.episodes[k]
        if not isinstance(entry.get(keys.EPISODE_SEED), int):
            raise DatasetError(
                f"{dataset.root} does not say how episode {k} began: it has no column "
                f"{keys.EPISODE_SEED} of `record`"
            )
        actions = dataset.rows(k, [keys.ACTION])[keys.ACTION]
        policy = ReplayPolicy([_as_action(action, env.action_space) for action in actions])
        compare = ComparisonSink(dataset, k, row, tolerance)
        run_episode(env, policy, [compare], entry[keys.EPISODE_SEED], k, entry[keys.LENGTH])
        results.append(compare.result)
    return results


def schema_of(
    env: gym.Env,
    task: str,
    fps: int | None = None,
    robot_type: str = "unknown",
    codec: str = "h264",
    provenance: dict[str, Any] | None = None,
) -> DatasetSchema:
    """Return what is recorded of an environment.

    Pictures, (H, W, 3) uint8, become videos `observation.images.NAME`; anything else becomes one
    vector per entry of the observation: `observation.state` for `agent_pos`, or for the only one,
    `observation.NAME` for others. Numbers are float32, those of discrete spaces int64.

    Args:
        env: Its spaces are boxes and discrete ones, observations also dictionaries of them.
        task: What the robot does, in words.
        fps: Steps per second; default `env.metadata["render_fps"]`.
        robot_type: For `info.json`.
        codec: A name in `pp_recorder.dataset.video.CODECS`.
        provenance: For `meta/collection.json`.

    Raises:
        ValueError: Something of it cannot be recorded.
    """
    if not task:
        raise ValueError("task must say what the robot does, in words")
    fps = fps or env.metadata.get("render_fps")
    if not isinstance(fps, int) or fps < 1:
        raise ValueError(f"fps must be a whole number of steps per second, got {fps!r}; give fps=")
    columns = _columns(env)
    return DatasetSchema(
        features={key: column.feature for key, column in columns.items()}
        | {keys.ACTION: _vector(env.action_space, "the action")},
        row=make_row(columns),
        fps=fps,
        task=task,
        robot_type=robot_type,
        collection=provenance,
        describe=_describe_episode,
        codec=codec,
        needed=(keys.EPISODE_ATTEMPT, keys.EPISODE_SEED, keys.EPISODE_SUCCESS),
    )


def make_row(columns: dict[str, "_Column"]) -> Callable[[Step], dict[str, np.ndarray]]:
    """Return the function from a step to the values of the columns, and of the action."""

    def row(step: Step) -> dict[str, np.ndarray]:
        values = {key: column.value(step) for key, column in columns.items()}
        return {**values, keys.ACTION: np.atleast_1d(np.asarray(step.action)).ravel()}

    return row


def with_picture(env: gym.Env) -> gym.Env:
    """Return the environment, with what it renders in its `info` if it observes no picture."""
    observed = any(_is_picture(space) for _, space in _leaves(env.observation_space))
    return env if observed or env.render_mode != "rgb_array" else _WithPicture(env)


class _WithPicture(gym.Wrapper):
    """An environment whose `info` holds the picture that `render` gives, of the same instant.

    Attributes:
        picture: Space of the pictures.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        env.reset(seed=0)
        self.picture = spaces.Box(0, 255, np.asarray(env.render()).shape, np.uint8)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, _RENDERED: self.env.render()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, _RENDERED: self.env.render()}
        return observation, reward, terminated, truncated, info


def _columns(env: gym.Env) -> dict[str, _Column]:
    """Return the columns of an environment's observations, by name."""
    leaves = _leaves(env.observation_space)
    vectors = [path for path, space in leaves if not _is_picture(space)]
    columns = {}
    for path, space in leaves:
        if _is_picture(space):
            names = path[1:] if path[:1] == (_PIXELS,) and len(path) > 1 else path or (_PIXELS,)
            key = keys.IMAGE_PREFIX + "_".join(names)
            feature = image_feature(*_picture_size(space, key))
        else:
            only = len(vectors) == 1
            key = keys.STATE if only else _NAMES.get(path[0], f"observation.{'_'.join(path)}")
            feature = _vector(space, key)
        columns[key] = _Column(path, feature)
    if isinstance(env, _WithPicture):
        key = f"{keys.IMAGE_PREFIX}{_RENDERED}"
        feature = image_feature(*_picture_size(env.picture, key))
        columns[key] = _Column((_RENDERED,), feature, in_info=True)
    return columns


def _leaves(space: spaces.Space, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Return the spaces in a space of dictionaries, each with the keys that lead there."""
    if not isinstance(space, spaces.Dict):
        return [(path, space)]
    return [leaf for key, part in space.items() for leaf in _leaves(part, (*path, str(key)))]


def _is_picture(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 2


def _picture_size(space: spaces.Space, key: str) -> tuple[int, int]:
    shape = space.shape or ()
    if len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"{key} must have pictures of (height, width, 3), got {shape}")
    return shape[0], shape[1]


def _vector(space: spaces.Space, name: str) -> Feature:
    """Return the feature of a space of numbers.

    Raises:
        ValueError: It is another one.
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return Feature("int64", (int(np.prod(space.shape or (1,))),))
    if isinstance(space, spaces.Box):
        return Feature("float32", (int(np.prod(space.shape)) or 1,))
    raise ValueError(
        f"{name} is a {type(space).__name__}; boxes and discrete spaces can be recorded, and for "
        "observations dictionaries of them. A wrapper such as "
        "gymnasium.wrappers.TransformObservation can make one of it"
    )


def _as_action(row: np.ndarray, space: spaces.Space) -> Any:
    """Return a recorded action as the environment takes it."""
    if isinstance(space, spaces.Discrete):
        return int(row[0])
    return np.asarray(row, space.dtype).reshape(space.shape or ())


def _max_steps(env: gym.Env, given: int | None) -> int:
    """Return the upper limit of an episode's length: what is given, or the environment's own."""
    limit = env.spec.max_episode_steps if given is None and env.spec is not None else given
    if limit is None or limit < 1:
        raise ValueError(
            f"max_steps must be at least 1, got {limit}; give it for an environment without a limit"
        )
    return limit


def _attempts(entries: list[dict[str, Any]]) -> int:
    """Return the number of attempts after which the recorded episodes were there."""
    return entries[-1][keys.EPISODE_ATTEMPT] + 1 if entries else 0


def _describe_episode(episode: Episode) -> dict[str, Any]:
    return {
        keys.EPISODE_ATTEMPT: episode.index,
        keys.EPISODE_SEED: episode.seed,
        keys.EPISODE_SUCCESS: episode.success,
    }


def _address(entry_point: Any) -> str | None:
    """Return an entry point as a text, "module:name", which JSON can hold."""
    if callable(entry_point):
        return f"{entry_point.__module__}:{entry_point.__qualname__}"
    return entry_point


def _describe(env: gym.Env) -> dict[str, Any]:
    """Return how to make the environment again, if that is known, and what may change its bits."""
    described: dict[str, Any] = {"env": {"class": type(env.unwrapped).__name__}}
    if env.spec is not None:
        entry, vector = map(_address, (env.spec.entry_point, env.spec.vector_entry_point))
        spec = replace(env.spec, entry_point=entry, vector_entry_point=vector)
        with suppress(Exception):  # whatever its arguments raise that are no JSON
            described["env"] = json.loads(spec.to_json())
    return {**described, **describe_environment()}
