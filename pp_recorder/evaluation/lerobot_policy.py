"""A policy trained by LeRobot, loaded from its checkpoint; only loading needs lerobot."""

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from pp_recorder.dataset import keys
from pp_recorder.dataset.schema import is_count

Shapes = dict[str, tuple[int, ...]]

STATE, ACTION, IMAGES = keys.STATE, keys.ACTION, keys.IMAGE_PREFIX
ENVIRONMENT_STATE, IMAGE = "observation.environment_state", "observation.image"

_FILES = (
    "config.json",
    "model.safetensors",
    "policy_preprocessor.json",
    "policy_postprocessor.json",
)
_WITHIN = ("", "pretrained_model", "checkpoints/last/pretrained_model")


class CheckpointError(ValueError):
    """A folder is no checkpoint that can be evaluated here; the message says why."""


class Checkpoint:
    """A checkpoint on disk; reading it does not need lerobot.

    Args:
        folder: A folder with config.json, model.safetensors and the two processors, or the output
            folder of `lerobot-train`.

    Attributes:
        inputs: Shapes of its inputs by name.
        outputs: Likewise.
        plan_length: How many actions of a plan can be executed; 0 for a policy without plans.

    Raises:
        CheckpointError: The folder is no checkpoint, or an incomplete one.
    """

    def __init__(self, folder: Path) -> None:
        found = [folder / part for part in _WITHIN if (folder / part / _FILES[0]).is_file()]
        if not found:
            raise CheckpointError(
                f"{folder} is no LeRobot checkpoint: it has no {_FILES[0]}; expected a folder like "
                "OUTPUT/checkpoints/last/pretrained_model of lerobot-train"
            )
        self.folder = found[0]
        if missing := [name for name in _FILES if not (self.folder / name).is_file()]:
            raise CheckpointError(
                f"{self.folder} lacks {missing}; expected {list(_FILES)}. A checkpoint from before "
                "lerobot 0.4 gets its processors from 'python -m "
                "lerobot.processor.migrate_policy_normalization'"
            )
        config = _read_json(self.folder / _FILES[0])
        self.inputs = _shapes(config, "input_features")
        self.outputs = _shapes(config, "output_features")
        self.plan_length = _plan_length(config)
        self._renamed = _renamed(self.folder / _FILES[2])

    @property
    def image_sizes(self) -> set[tuple[int, ...]]:
        """The different (height, width) of its images."""
        return {shape[-2:] for key, shape in self.inputs.items() if len(shape) == 3}

    @property
    def cameras(self) -> list[str]:
        """The environment's names of the cameras that its inputs ask for."""
        origin = {new: old for old, new in self._renamed.items()}
        keys = [origin.get(key, key) for key in self.inputs]
        return [key.removeprefix(IMAGES) for key in keys if key.startswith(IMAGES)]

    def require_fitting(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        """Check that an environment gives the inputs and takes the output.

        Raises:
            CheckpointError: It does not; the message lists the features of both.
        """
        given = _features(observation_space)
        given = {self._renamed.get(key, key): shape for key, shape in given.items()}
        given[ACTION] = action_space.shape or ()
        needed = {**self.inputs, **self.outputs}
        differing = [key for key, shape in needed.items() if given.get(key) != shape]
        if differing:
            raise CheckpointError(
                f"the checkpoint {self.folder} does not fit this environment in {differing}\n"
                f"  the policy has       {_list(needed)}\n"
                f"  the environment has  {_list(given)}\n"
                "make the environment with the pictures, the sizes and the state that the policy "
                "was trained on, or train it on data of this environment"
            )


class LeRobotPolicy:
    """A `Policy` from a checkpoint, with its processors and action chunks.

    On the CPU it computes in one thread, so that its actions depend neither on the number of cores
    nor on the number of processes that share them.

    Args:
        checkpoint: The checkpoint to load. A policy that takes language gets `info["task"]`.
        action_steps: Actions of each plan that are executed before the next; None for what the
            checkpoint says.

    Raises:
        CheckpointError: lerobot cannot load it.
        ImportError: lerobot is not installed.
    """

    def __init__(self, checkpoint: Checkpoint, action_steps: int | None = None) -> None:
        torch, factory, config_class = _import_lerobot()
        torch.set_num_threads(1)
        try:
            self._load(checkpoint, action_steps, factory, config_class)
        except ImportError:
            raise
        except (Exception, SystemExit) as error:  # whatever broken files lead lerobot to
            text = next(iter(str(error).strip().splitlines()), "")
            raise CheckpointError(
                f"lerobot cannot load {checkpoint.folder}: {type(error).__name__}: {text:.300}; is "
                "it complete, and from a version of lerobot like the one that is installed?"
            ) from error
        self._torch = torch
        device = torch.device(self._config.device).type
        self._autocast = torch.autocast(device) if self._config.use_amp else nullcontext()
        self._task = ""

    def _load(
        self, checkpoint: Checkpoint, action_steps: int | None, factory: Any, config_class: Any
    ) -> None:
        """Load configuration, policy and processors."""
        folder = str(checkpoint.folder)
        with redirect_stdout(sys.stderr):  # lerobot prints what it loads
            config = config_class.from_pretrained(folder)
            if hasattr(config, "pretrained_backbone_weights"):
                # The checkpoint contains them; lerobot would download them only to replace them.
                config.pretrained_backbone_weights = None
            if action_steps is not None:
                config.n_action_steps = action_steps
            policy_class = factory.get_policy_class(config.type)
            self._policy = policy_class.from_pretrained(folder, config=config)
            self._preprocess, self._postprocess = factory.make_pre_post_processors(
                config,
                folder,
                preprocessor_overrides={"device_processor": {"device": config.device}},
            )
        self._config = config

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Forget the last episode, and seed torch from the episode's generator."""
        self._task = str(info.get("task", ""))
        self._torch.manual_seed(int(rng.integers(2**63)))
        self._forget()

    def act(self, observation: Any) -> np.ndarray:
        """Return the next action of the policy's chunk."""
        with self._torch.inference_mode(), self._autocast:
            action = self._postprocess(self._policy.select_action(self._batch(observation)))
        return action.squeeze(0).float().cpu().numpy()

    def plan(self, observation: Any) -> np.ndarray:
        """Return the whole chunk (steps, action size) that the policy would begin an episode with.

        A policy that looks back sees the observation as often as it looks. Nothing of the episode
        before is used, and nothing is left of it.

        Raises:
            CheckpointError: The policy predicts one action at a time.
        """
        self._forget()
        try:
            with self._torch.inference_mode(), self._autocast:
                chunk = self._predict_chunk(self._batch(observation))
                actions = self._postprocess(chunk.squeeze(0))
        except NotImplementedError as error:
            raise CheckpointError(
                f"a plan is a chunk of actions, but the policy {self._policy.name!r} predicts one "
                f"action at a time ({error}); try a policy such as act or diffusion"
            ) from error
        finally:
            self._forget()
        return actions.float().cpu().numpy()

    def _predict_chunk(self, batch: Any) -> Any:
        """Return the chunk (1, steps, action size) from which `select_action` takes its first."""
        # Policies that look back predict from queues that only `select_action` fills.
        chunks, predict = [], self._policy.predict_action_chunk

        def predict_and_note(*args: Any, **kwargs: Any) -> Any:
            chunks.append(predict(*args, **kwargs))
            return chunks[-1]

        self._policy.predict_action_chunk = predict_and_note
        try:
            self._policy.select_action(batch)
        finally:
            del self._policy.predict_action_chunk
        return chunks[0] if chunks else predict(batch)

    def _batch(self, observation: Any) -> Any:
        """Return a batch of one observation for the policy."""
        batch: dict[str, Any] = {
            key: self._torch.from_numpy(value) for key, value in to_lerobot(observation).items()
        }
        batch["task"] = [self._task]
        return self._preprocess(batch)

    def _forget(self) -> None:
        """Begin anew: without queues of actions and observations."""
        self._policy.reset()
        self._preprocess.reset()
        self._postprocess.reset()


def to_lerobot(observation: Any) -> dict[str, np.ndarray]:
    """Return an observation for LeRobot's policies, as a batch of one.

    Images (H, W, 3) uint8 become (1, 3, H, W) float32 in [0, 1], vectors (1, n) float32.
    """
    named = _named(observation, lambda value: value)
    return {key: _batch_of_one(np.asarray(value)) for key, value in named.items()}


def _features(space: gym.Space) -> Shapes:
    """Return names and shapes of a space's observations in LeRobot, images channels first."""

    def shape(box: gym.Space) -> tuple[int, ...]:
        size = box.shape or ()
        return (size[2], *size[:2]) if len(size) == 3 else size

    return _named(space, shape)


def _named(observation: Any, convert: Any) -> dict[str, Any]:
    """Return the parts of an observation, or of its space, by LeRobot's names."""
    if not isinstance(observation, (Mapping, gym.spaces.Dict)):
        return {STATE: convert(observation)}
    named = {}
    for key, value in observation.items():
        if key == "pixels" and isinstance(value, (Mapping, gym.spaces.Dict)):
            named |= {f"{IMAGES}{camera}": convert(part) for camera, part in value.items()}
        else:
            name = {"pixels": IMAGE, "agent_pos": STATE}.get(key, f"observation.{key}")
            named[name] = convert(value)
    return named


def _batch_of_one(value: np.ndarray) -> np.ndarray:
    if value.ndim == 3:
        value = np.moveaxis(value, -1, 0).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(value, dtype=np.float32)[None]


def _import_lerobot() -> tuple[Any, Any, Any]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
        from lerobot.configs.policies import (  # pyright: ignore[reportMissingImports]
            PreTrainedConfig,
        )
        from lerobot.policies import factory  # pyright: ignore[reportMissingImports]
        from lerobot.utils.import_utils import (  # pyright: ignore[reportMissingImports]
            register_third_party_plugins,
        )
    except ImportError as error:
        raise ImportError(
            f"a LeRobot checkpoint needs lerobot, which cannot be imported ({error}); "
            "try 'pip install lerobot'"
        ) from error
    register_third_party_plugins()
    return torch, factory, PreTrainedConfig


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got a {type(content).__name__}")
    return content


def _shapes(config: dict[str, Any], name: str) -> Shapes:
    features = config.get(name)
    if not isinstance(features, dict) or not features:
        raise CheckpointError(f"the checkpoint's config.json has no {name}; is it a policy's?")
    for key, feature in features.items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        if not isinstance(shape, list) or not all(map(is_count, shape)):
            raise CheckpointError(
                f"the checkpoint's config.json has in {name} the feature {key}: {feature!r:.100}, "
                "expected a dictionary with its shape, a list of whole numbers"
            )
    # An empty camera stands for an image that the policy does not need.
    return {
        key: tuple(feature["shape"])
        for key, feature in features.items()
        if not key.startswith(f"{IMAGES}empty_camera_")
    }


def _renamed(path: Path) -> dict[str, str]:
    """Return the new names of features by the old ones, from the file of a processor."""
    renamed = {}
    try:
        for step in _read_json(path).get("steps", []):
            renamed |= step.get("config", {}).get("rename_map", {})
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: steps must be a list of dictionaries ({error})") from error
    if not all(isinstance(name, str) for name in renamed.values()):
        raise CheckpointError(f"{path}: rename_map must give names, got {renamed!r:.200}")
    return renamed


def _plan_length(config: dict[str, Any]) -> int:
    """Return how many actions of a plan can be executed, of ACT's kind or of Diffusion's."""
    if "n_action_steps" not in config:
        return 0
    defaults = {"chunk_size": 0, "horizon": 0, "n_obs_steps": 1}
    given = {name: config.get(name) for name in defaults}
    numbers = {name: defaults[name] if n is None else n for name, n in given.items()}
    for name, number in numbers.items():
        if not is_count(number):
            raise CheckpointError(
                f"the checkpoint's config.json: {name} is {number!r:.100}, expected a whole number"
            )
    return numbers["chunk_size"] or max(numbers["horizon"] - numbers["n_obs_steps"] + 1, 0)


def _list(shapes: Shapes) -> str:
    return ", ".join(f"{key} {list(shape)}" for key, shape in sorted(shapes.items()))
