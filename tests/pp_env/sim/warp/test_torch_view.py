import numpy as np
import pytest

pytest.importorskip("mujoco_warp")
pytest.importorskip("torch")

import torch

from pp_env.sim.warp.vector_env import WarpVectorEnv
from pp_env.task import CONDITIONS
from tests.pp_env.test_vector_env import COUNT, HOLD, SMALL

pytestmark = pytest.mark.usefixtures("warp_device")


def make(**arguments):
    return WarpVectorEnv(COUNT, config=SMALL, num_starts=2, reward_type="dense", **arguments)


def host(part):
    if isinstance(part, dict):
        return {name: host(each) for name, each in part.items()}
    return part.cpu().numpy().copy()


@pytest.fixture(scope="module")
def pair(warp_device):
    """Return the same environments twice: one for tensors, one for arrays."""
    envs = make(max_episode_steps=4), make(max_episode_steps=4)
    yield envs
    for each in envs:
        each.close()


def test_numbers_are_those_of_step(pair, warp_device):
    tolerance = 0 if warp_device == "cpu" else 1e-4
    view, envs = pair[0].to_torch(), pair[1]
    assert view.num_envs == COUNT
    observation = view.reset(seed=3)
    np.testing.assert_allclose(host(observation), envs.reset(seed=3)[0], atol=tolerance)
    for k in range(6):  # an episode's end, and the step that begins the next one
        actions = HOLD + np.float32(0.02 * k)
        found = view.step(torch.as_tensor(actions, device=view.device))
        expected = envs.step(actions)
        for ours, theirs in zip(found, expected[:4], strict=True):
            np.testing.assert_allclose(host(ours), theirs, rtol=0, atol=max(tolerance, 1e-7))
        infos = expected[4]
        np.testing.assert_allclose(host(view.distance), infos["distance"], atol=1e-4)
        names = [[n for b, n in enumerate(CONDITIONS) if bits >> b & 1] for bits in view.unmet]
        assert names == [list(unmet) for unmet in infos["unmet_conditions"]]
        for name in ("object_pos", "object_quat", "goal_pos"):
            np.testing.assert_allclose(host(view.values[name]), infos[name], atol=1e-4)


def test_nothing_is_copied(pair):
    view = pair[0].to_torch()
    observation = view.reset(seed=3)
    kept = host(observation)
    found = view.step(torch.as_tensor(HOLD + 0.1, device=view.device))
    assert found[0] is observation
    assert (host(observation) != kept).any()
    outputs, outcome = pair[0].outputs, pair[0].outcome
    for tensor, array in (
        (observation, outputs["vector/state"]),
        (view.unmet, outputs["unmet"]),
        (view.distance, outputs["distance"]),
        (view.reward, outcome.reward),
        (view.terminated, outcome.terminated),
        (view.truncated, outcome.truncated),
        (view.values["joint_pos"], outputs["values"]),
    ):
        assert tensor.untyped_storage().data_ptr() == array.ptr


def test_images_and_vectors_have_the_structure_of_the_space():
    envs = make(obs_type="pixels_agent_pos")
    view = envs.to_torch()
    view.reset(seed=3)
    view.step(torch.as_tensor(HOLD, device=view.device))
    assert envs.observation_space.contains(host(view.observation))
    assert host(view.observation)["pixels"]["cam_wrist"].std() > 2
    envs.close()


def test_goals_are_not_offered():
    envs = make(obs_type="goal")
    with pytest.raises(ValueError, match="no obs_type 'goal'; its numbers are in `values`"):
        envs.to_torch()
    envs.close()
