"""Make the configuration, the environment and the expert that options describe."""

import dataclasses
import sys
from functools import partial
from typing import Any

import gymnasium as gym

import pp_env
from experts.action_noise import ActionNoise
from experts.pick_place import PickPlaceExpert
from experts.reactive import JOINT_SPEED, ReactiveExpert
from pp_collect.actions import in_control_mode, to_control_mode
from pp_collect.options import DemonstrationOptions, SceneOptions, SimulatorOptions
from pp_collect.policies import DemonstratingPolicy, NamedPolicy, StartPolicy, find_callable
from pp_collect.starts import EpisodeStarts
from pp_env.config import (
    GraspConfig,
    PickPlaceConfig,
    RenderConfig,
    TaskConfig,
    choose_cameras,
)
from pp_env.control import CONTROL_MODES
from pp_env.objects import YCB_OBJECTS, ObjectConfig
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.sim import SIMULATORS, default_timing
from pp_env.sim.meshes import ycb_mesh
from pp_recorder.evaluation.runner import EvaluationError
from pp_recorder.rollout import AnyPolicy

Expert = PickPlaceExpert | ReactiveExpert | NamedPolicy
_NO_SIMULATOR: Any = None  # for an environment of which only the spaces are used


def make_config(options: SceneOptions) -> PickPlaceConfig:
    """Return the environment's configuration.

    Raises:
        ValueError: An option is out of range.
        OSError: A mesh is missing.
    """
    config = PickPlaceConfig(
        timing=default_timing(options.simulator, options.fps),
        render=RenderConfig(resolution=options.resolution, preset=options.preset),
        grasp=GraspConfig(mode=options.grasp),
        cameras=choose_cameras(options.cameras),
        randomization=RANDOMIZATION_PRESETS[options.randomize],
        task=TaskConfig(random_yaw=options.random_yaw),
        objects=_make_object_pool(options),
        num_objects=options.num_objects,
    )
    if options.object is not None:
        config.target_index(options.object)
    return config


def make_env(
    options: SimulatorOptions,
    config: PickPlaceConfig,
    cameras: bool,
    livestream_port: int | None = None,
    until_success: bool = False,
) -> gym.Env:
    """Return an environment for demonstrations, without a limit of the steps.

    Args:
        options: Which simulator, and how it is started.
        config: Of the environment.
        cameras: Whether observations have images.
        livestream_port: TCP port of the simulator's own livestream; None is no livestream.
        until_success: Whether success ends an episode; an expert's have their full length.
    """
    all_options = {"assets_root": options.assets_root, "streaming_port": livestream_port}
    takes = SIMULATORS[options.simulator].options
    return gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,  # the loop counts; -1 is for Gymnasium 1.0 and up
        disable_env_checker=True,
        simulator=options.simulator,
        obs_type="pixels_agent_pos" if cameras else "state",
        config=config,
        terminate_on_success=until_success,
        headless=options.headless,
        simulator_options={name: all_options.get(name) for name in takes},
    )


def make_expert(options: DemonstrationOptions, config: PickPlaceConfig) -> Expert:
    """Return the expert, whose episodes are long enough for the longest delay of its actions.

    With `options.policy` it is that policy, which acts in place of an expert.

    Raises:
        ValueError: An option is out of range.
    """
    if options.policy is not None:
        return NamedPolicy(options.policy, options.policy_steps(config.timing.control_hz))
    if options.expert == "reactive":
        return make_reactive_expert(options, config)
    longest_delay = config.randomization.action_delay[1]
    return PickPlaceExpert(
        options.segment_steps(config.timing.control_hz) or config.timing.control_hz,
        options.noise_rad,
        longest_delay,
        options.path_noise_rad,
        config.timing.control_hz,
    )


def make_reactive_expert(options: DemonstrationOptions, config: PickPlaceConfig) -> ReactiveExpert:
    """Return the reactive expert of these options.

    Raises:
        ValueError: An option is out of range.
    """
    return ReactiveExpert(
        options.joint_speed or JOINT_SPEED,
        options.gripper or "binary",
        options.noise_rad,
        config.timing.control_hz,
    )


def acting_in(env: gym.Env, expert: Expert) -> AnyPolicy:
    """Return what acts in an environment: the expert in its control mode, or the policy.

    Raises:
        EvaluationError: The policy cannot be made.
    """
    if isinstance(expert, NamedPolicy):
        return DemonstratingPolicy(expert.name, env)
    unwrapped: Any = env.unwrapped
    return in_control_mode(expert, unwrapped.control_mode)


def make_starts(options: DemonstrationOptions, config: PickPlaceConfig) -> EpisodeStarts:
    """Return what brings each attempt to its start."""
    name = options.start_policy
    return EpisodeStarts(
        options.start_shares,
        config,
        partial(make_reactive_expert, options, config),
        None if name is None else partial(StartPolicy, name),
        partial(to_control_mode, control_mode=options.control_mode),
    )


def make_disturbance(options: DemonstrationOptions) -> ActionNoise | None:
    """Return what disturbs the actions before they are executed, or None."""
    if not options.action_noise:
        return None
    return ActionNoise(options.action_noise, CONTROL_MODES[options.control_mode].layout)


def require_policies(
    options: DemonstrationOptions, config: PickPlaceConfig, cameras: bool, dry_run: bool
) -> None:
    """Check that there is such a policy, and that one that drives up to the start fits.

    Args:
        options: Of the demonstrations.
        config: Of the environment.
        cameras: Whether observations have images.
        dry_run: Whether attempts are also run without images.

    Raises:
        ValueError: It does not fit, or cannot be made.
        ImportError: A checkpoint needs lerobot, and that is not installed.
    """
    if options.policy is not None:
        try:
            find_callable(options.policy)
        except EvaluationError as error:
            raise ValueError(str(error)) from error
    if options.start_policy is None:
        return
    obs_type = "pixels_agent_pos" if cameras else "state"
    env = pp_env.PickPlaceEnv(
        lambda _: _NO_SIMULATOR, obs_type, config=config, control_mode=options.control_mode
    )
    try:
        policy = StartPolicy(options.start_policy, env)
    except EvaluationError as error:
        raise ValueError(str(error)) from error
    if dry_run and policy.needs_images:
        raise ValueError(
            "--render-after runs attempts without images first, but --start-policy needs images"
        )


def reset_options(options: SceneOptions) -> dict[str, Any] | None:
    """Return what the options fix at every reset, for `env.reset`."""
    return None if options.object is None else {"object": options.object}


def simulator_description(env: gym.Env) -> dict[str, Any]:
    """Return how the environment's simulator describes itself."""
    unwrapped: Any = env.unwrapped
    return unwrapped.simulator_description


def _make_object_pool(options: SceneOptions) -> tuple[ObjectConfig, ...]:
    """Return the objects to choose from; none is the cube alone."""
    if not options.use_ycb:
        return ()
    folder = options.ycb_meshes
    return tuple(
        dataclasses.replace(
            obj,
            asset=obj.asset if options.ycb_assets else None,
            mesh=None if folder is None else str(ycb_mesh(folder.resolve(), obj.name)),
        )
        for obj in YCB_OBJECTS
    )
