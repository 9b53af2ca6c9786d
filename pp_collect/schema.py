"""What a dataset of this environment contains: features, episode metadata, and provenance."""

import dataclasses
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import pp_env
from experts.diagnosis import failure_phase, failure_stage
from experts.waypoints import PHASES, WAYPOINTS
from pp_collect.options import EXPERT_OPTIONS, DemonstrationOptions, SessionOptions
from pp_collect.starts import Prelude
from pp_env import panda, rotation
from pp_env.config import RENDER_PRESETS, PickPlaceConfig, from_dict
from pp_env.control import CONTROL_MODES
from pp_env.layout import ENVIRONMENT_STATE, OBSERVATION, Layout
from pp_recorder.dataset import keys
from pp_recorder.dataset.schema import DatasetSchema, Feature, image_feature
from pp_recorder.dataset.versions import describe_environment
from pp_recorder.evaluation.lerobot_policy import Checkpoint
from pp_recorder.rollout import Episode, Step

DATA_REVISION = 3  # one more whenever attempt k of a seed comes out otherwise than before

# Stored under the names that the options had in 0.1.0, so that old and new datasets fit together.
_STORED_NAMES = {"path_noise_rad": "wander_rad"}
_TRUTH, _TRUTH_AS_INPUT = "environment_state", "observation.environment_state"
_LAYOUTS = {
    keys.STATE: OBSERVATION,
    _TRUTH: ENVIRONMENT_STATE,
    _TRUTH_AS_INPUT: ENVIRONMENT_STATE,
}
_DEMONSTRATION = [f.name for f in dataclasses.fields(DemonstrationOptions)]


def make_schema(
    options: SessionOptions,
    config: PickPlaceConfig,
    provenance: dict[str, Any],
    has_phases: bool = True,
) -> DatasetSchema:
    """Return what is recorded.

    Args:
        options: Of the collection.
        config: Of the environment.
        provenance: How the dataset comes about, from `describe_collection`.
        has_phases: Whether the policy says what each action is for.
    """
    has_phases = has_phases and options.policy is None
    width, height = config.render.size
    features = {
        keys.STATE: _vector(OBSERVATION),
        keys.ACTION: _vector(CONTROL_MODES[options.control_mode].layout),
        _ground_truth_key(options): _vector(ENVIRONMENT_STATE),
    }
    if has_phases:
        features[keys.SUBTASK_INDEX] = Feature("int64", (1,))
    if options.action_noise:
        features[keys.EXECUTED_ACTION] = _vector(CONTROL_MODES[options.control_mode].layout)
    for name in _camera_names(options, config):
        features[keys.IMAGE_PREFIX + name] = image_feature(height, width)
    return DatasetSchema(
        features=features,
        row=make_row(options, config, has_phases),
        fps=config.timing.control_hz,
        task=_fixed_task(options, config) or _task_of,
        robot_type="franka_panda",
        collection=provenance,
        describe=describe_episode,
        subtasks=tuple(waypoint.text for waypoint in WAYPOINTS) if has_phases else (),
        codec=options.codec,
        needed=(
            *(keys.EPISODE_ATTEMPT, keys.EPISODE_SEED, keys.EPISODE_SUCCESS),
            *(keys.EPISODE_FAILURE_REASON, keys.EPISODE_FAILURE_PHASE),
        ),
    )


def make_row(
    options: SessionOptions, config: PickPlaceConfig, has_phases: bool = True
) -> Callable[[Step], dict[str, np.ndarray]]:
    """Return the function from a step to the dataset's columns, one array per feature."""
    cameras, ground_truth = _camera_names(options, config), _ground_truth_key(options)

    def row(step: Step) -> dict[str, np.ndarray]:
        observation = step.observation
        values = {
            keys.STATE: observation["agent_pos"] if cameras else observation,
            keys.ACTION: step.action,
            ground_truth: step.info["environment_state"],
        }
        if has_phases:
            values[keys.SUBTASK_INDEX] = np.array([PHASES.index(step.phase)])
        if options.action_noise:
            values[keys.EXECUTED_ACTION] = step.executed
        for name in cameras:
            values[keys.IMAGE_PREFIX + name] = observation["pixels"][name]
        return values

    return row


def as_recorded(
    row: Callable[[Step], dict[str, np.ndarray]], revision: int
) -> Callable[[Step], dict[str, np.ndarray]]:
    """Return `row`, with its numbers as a dataset of an older revision has them.

    Before revision 3 all quaternions had w >= 0.
    """
    if revision >= 3:
        return row

    def old_row(step: Step) -> dict[str, np.ndarray]:
        values = row(step)
        for key, layout in _LAYOUTS.items():
            if key in values:
                values[key] = values[key].copy()
                for name, part in layout.unpack(values[key]).items():
                    if name.endswith("_quat"):
                        part[:] = rotation.canonical(part)
        return values

    return old_row


def describe_episode(episode: Episode) -> dict[str, Any]:
    """Return the columns of `meta/episodes` that tell an episode's origin and outcome."""
    start = episode.start_info
    varied = {}
    if "variation" in start:
        varied["episode/variation"] = json.dumps(start["variation"].to_dict())
    return {
        keys.EPISODE_ATTEMPT: episode.index,
        keys.EPISODE_SEED: episode.seed,
        keys.EPISODE_SUCCESS: episode.success,
        keys.EPISODE_FAILURE_REASON: "" if episode.success else failure_reason(episode),
        keys.EPISODE_FAILURE_PHASE: "" if episode.success else failure_place(episode),
        "episode/pick": start["object_pos"][:2].tolist(),
        "episode/place": start["goal_pos"][:2].tolist(),
        "episode/object_rgb": start["object_rgb"].tolist(),
        **varied,
        **start.get("prelude", Prelude()).to_entry(),
        keys.EPISODE_OBJECT: start["object"],
        "episode/object_size": start["object_size"].tolist(),
        "episode/distractors": ", ".join(start["distractors"]),
    }


def failure_reason(episode: Episode) -> str:
    """Return the conditions for success that did not hold at the end, separated by commas."""
    return ", ".join(episode.end_info["unmet_conditions"])


def failure_place(episode: Episode) -> str:
    """Return the expert's phase in which an episode failed, or without phases the task's stage."""
    if episode.trace[0][0]:
        return failure_phase(episode.trace)
    return failure_stage([episode.start_info, *(info for _, info in episode.trace)])


def describe_collection(
    options: SessionOptions, config: PickPlaceConfig, simulator: dict[str, Any]
) -> dict[str, Any]:
    """Return the provenance: everything that is needed to collect the same dataset again.

    Args:
        options: Of the collection.
        config: Of the environment.
        simulator: How the simulator describes itself.
    """
    return {
        "revision": DATA_REVISION,
        **_demonstration_values(options),
        "steps_per_segment": options.segment_steps(config.timing.control_hz),
        "max_steps": options.policy and options.policy_steps(config.timing.control_hz),
        **_start_policy_digest(options),
        "phases": list(PHASES),
        "simulator": options.simulator,
        "record_cameras": options.record_cameras,
        "codec": options.codec,
        "task": _fixed_task(options, config),
        "object": options.object,
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
        **describe_environment(),
        "simulator_details": simulator,
    }


def stored_config(provenance: dict[str, Any]) -> PickPlaceConfig:
    """Return the environment's configuration in a stored provenance."""
    config = from_dict(PickPlaceConfig, provenance["config"])
    if provenance.get("revision", 1) >= 3:
        return config
    return dataclasses.replace(
        config, grasp=dataclasses.replace(config.grasp, requires_touch=False)
    )


def stored_options(
    provenance: dict[str, Any], cameras: bool, output: Path = Path()
) -> SessionOptions:
    """Return the options in a stored provenance; those of the scene are in `stored_config`.

    Args:
        provenance: From a dataset; an option that did not exist then has its default.
        cameras: Whether images are recorded.
        output: Of what is recorded now.
    """
    stored = {name: _STORED_NAMES.get(name, name) for name in _DEMONSTRATION}
    values = {name: provenance[key] for name, key in stored.items() if key in provenance}
    return SessionOptions(
        **values,
        simulator=provenance["simulator"],
        codec=provenance["codec"],
        object=provenance.get("object"),
        no_cameras=not cameras,
        output=output,
    )


def _demonstration_values(options: DemonstrationOptions) -> dict[str, Any]:
    """Return the options to store; a policy of one's own has none of an expert's."""
    left_out = () if options.policy is None else EXPERT_OPTIONS
    return {
        _STORED_NAMES.get(name, name): getattr(options, name)
        for name in _DEMONSTRATION
        if name not in left_out
    }


def _start_policy_digest(options: DemonstrationOptions) -> dict[str, str]:
    """Return what tells one checkpoint from another of the same name; nothing without one."""
    if options.start_policy is None or not Path(options.start_policy).is_dir():
        return {}
    weights = Checkpoint(Path(options.start_policy)).folder / "model.safetensors"
    with weights.open("rb") as file:
        return {"start_policy_sha256": sha256(file.read()).hexdigest()}


def _fixed_task(options: SessionOptions, config: PickPlaceConfig) -> str | None:
    """Return the text of all episodes; None where each episode has its own."""
    if options.task is None and not config.objects:
        return pp_env.PickPlaceEnv.task_description
    return options.task


def _task_of(start_info: dict[str, Any]) -> str:
    return start_info["task"]


def _camera_names(options: SessionOptions, config: PickPlaceConfig) -> list[str]:
    return [camera.name for camera in config.cameras] if options.record_cameras else []


def _ground_truth_key(options: SessionOptions) -> str:
    """Return the column of the object's true pose.

    With images it must not look like an input for a policy, so its name lacks the prefix by which
    training code recognises inputs (docs/decisions/003).
    """
    return _TRUTH if options.record_cameras else _TRUTH_AS_INPUT


def _vector(layout: Layout) -> Feature:
    return Feature("float32", (layout.size,), tuple(layout.names))
