"""Make the configuration, the environment and the expert that options describe."""

import dataclasses
import sys
from typing import Any

import gymnasium as gym

import pp_env
from experts.pick_place import PickPlaceExpert
from pp_collect.options import DemonstrationOptions, SceneOptions, SimulatorOptions
from pp_env.config import (
    GraspConfig,
    PickPlaceConfig,
    RenderConfig,
    TaskConfig,
    choose_cameras,
)
from pp_env.objects import YCB_OBJECTS, ObjectConfig
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.sim import SIMULATORS, default_timing
from pp_env.sim.meshes import ycb_mesh


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
) -> gym.Env:
    """Return an environment for demonstrations, whose episodes have their full length.

    Args:
        options: Which simulator, and how it is started.
        config: Of the environment.
        cameras: Whether observations have images.
        livestream_port: TCP port of the simulator's own livestream; None is no livestream.
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
        terminate_on_success=False,
        headless=options.headless,
        simulator_options={name: all_options[name] for name in takes},
    )


def make_expert(options: DemonstrationOptions, config: PickPlaceConfig) -> PickPlaceExpert:
    """Return the expert, whose episodes are long enough for the longest delay of its actions.

    Raises:
        ValueError: An option is out of range.
    """
    longest_delay = config.randomization.action_delay[1]
    return PickPlaceExpert(
        options.steps_per_segment, options.noise_rad, longest_delay, options.path_noise_rad
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
