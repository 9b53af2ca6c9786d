import gymnasium as gym
import numpy as np
import pytest

import pp_env
from pp_env import PickPlaceConfig
from pp_env.config import RenderConfig
from pp_env.wrappers import FlatObservation
from tests.fakes import SIMULATOR

CONFIG = PickPlaceConfig(render=RenderConfig(resolution=32))


def make(obs_type, **arguments):
    return gym.make(
        pp_env.ENV_ID, simulator=SIMULATOR, config=CONFIG, obs_type=obs_type, **arguments
    )


def test_flat_observations_are_the_same_arrays_by_joined_names():
    env, flat = make("pixels_agent_pos"), FlatObservation(make("pixels_agent_pos"))
    observation, _ = env.reset(seed=1)
    expected = {f"pixels_{name}": image for name, image in observation["pixels"].items()}

    found, _ = flat.reset(seed=1)

    np.testing.assert_equal(found, {**expected, "agent_pos": observation["agent_pos"]})
    assert found in flat.observation_space
    assert flat.step(flat.action_space.low)[0] in flat.observation_space
    for space in flat.observation_space.values():
        assert isinstance(space, gym.spaces.Box)


def test_what_is_flat_stays_as_it_is():
    env = make("goal")
    flat = FlatObservation(env).observation_space
    assert dict(flat.spaces) == dict(env.observation_space.spaces)


def test_arrays_cannot_be_flattened():
    with pytest.raises(ValueError, match="dictionaries"):
        FlatObservation(make("state"))
