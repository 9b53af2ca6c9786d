r"""`FrankaPickPlace-v0` for LeRobot's EnvHub.

Upload this file to a repository of your own on the Hugging Face Hub, and whoever has installed
franka-pick-place evaluates there:

    make_env("you/franka-pick-place", n_envs=2, trust_remote_code=True)    # of lerobot.envs.factory

    lerobot-eval --env.type=frankapickplace --env.hub_path=you/franka-pick-place \\
        --trust_remote_code=true ...      # with lerobot_env_frankapickplace and its options
"""

from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

import pp_env

DEFAULTS = {"obs_type": "pixels_agent_pos", "render_mode": "rgb_array"}


def make_env(
    n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None
) -> dict[str, dict[int, VectorEnv]]:
    """Return a vector environment by suite and number of the task, as LeRobot asks for it.

    Args:
        n_envs: Number of environments.
        use_async_envs: Whether each has a process of its own.
        cfg: LeRobot's `EnvConfig`, whose `gym_kwargs` are those of the environment.
    """
    make = partial(gym.make, pp_env.ENV_ID, **{**DEFAULTS, **(cfg.gym_kwargs if cfg else {})})
    mode = AutoresetMode.SAME_STEP
    if use_async_envs and n_envs > 1:
        envs = AsyncVectorEnv([make] * n_envs, context="spawn", autoreset_mode=mode)
    else:
        envs = SyncVectorEnv([make] * n_envs, autoreset_mode=mode)
    return {"frankapickplace": {0: envs}}
