"""Wrappers for learners that do not take the environment's own observations."""

from typing import Any

import gymnasium as gym
from gymnasium.spaces import Dict


class FlatObservation(gym.ObservationWrapper):
    """An environment whose dictionary of observations holds arrays only, no dictionaries.

    `{"pixels": {"cam_high": image}}` becomes `{"pixels_cam_high": image}`. Stable-Baselines3's
    policies take such observations, and no nested ones.

    Args:
        env: An environment with a dictionary of observations.

    Raises:
        ValueError: It has other observations.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        if not isinstance(env.observation_space, Dict):
            raise ValueError(f"expected a space of dictionaries, got {env.observation_space}")
        self.observation_space = Dict(_flat(env.observation_space.spaces))

    def observation(self, observation: Any) -> dict[str, Any]:
        """Return the arrays of an observation by their joined names."""
        return _flat(observation)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        nested = value.spaces if isinstance(value, Dict) else value
        if isinstance(nested, dict):
            flat.update(_flat(nested, f"{prefix}{name}_"))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
