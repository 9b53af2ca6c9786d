"""A Franka Panda that picks and places, as a Gymnasium environment."""

import gymnasium as gym

from pp_env.config import PickPlaceConfig
from pp_env.env import PickPlaceEnv

__all__ = ["ENV_ID", "PickPlaceConfig", "PickPlaceEnv", "__version__"]
__version__ = "0.1.0"

ENV_ID = "FrankaPickPlace-v0"

gym.register(
    id=ENV_ID,
    entry_point="pp_env.env:PickPlaceEnv",
    vector_entry_point="pp_env.vector_env:make_vector_env",
    max_episode_steps=400,
)
