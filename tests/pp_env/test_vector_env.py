"""The vector environment equals as many single environments, bit for bit."""

import copy
import dataclasses
import multiprocessing
import os
import pickle
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

import pp_env
from experts.pick_place import PickPlaceExpert
from pp_collect.actions import in_control_mode
from pp_env import PickPlaceConfig, vector_env
from pp_env.config import HOME_JOINT_POS, RenderConfig
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.vector_env import (
    AUTORESET_MODES,
    AutoresetMode,
    PickPlaceVectorEnv,
    batched_infos,
    make_vector_env,
)
from pp_recorder.rollout import choose_action
from tests.fakes import FakeSimulator

COUNT = 2
SMALL = PickPlaceConfig(render=RenderConfig(resolution=32, preset="fast"))
HOLD = np.tile(np.append(HOME_JOINT_POS, 0.04).astype(np.float32), (COUNT, 1))


def make(mode=None, config=SMALL, **arguments):
    return gym.make_vec(
        pp_env.ENV_ID, num_envs=COUNT, vectorization_mode=mode, config=config, **arguments
    )


def make_sync(autoreset_mode="NextStep", **arguments):
    kwargs = {"autoreset_mode": AutoresetMode(autoreset_mode)} if AutoresetMode else {}
    return make("sync", vector_kwargs=kwargs, **arguments)


def is_objects(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "O"


def assert_same(ours, theirs, where=""):
    """Assert the same types, shapes and bits, at every level."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert set(ours) == set(theirs), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, (tuple, list)) or is_objects(ours):
        assert len(ours) == len(theirs), where
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{where}/{i}")
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype, where
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
    else:
        assert ours == theirs, where


class RandomActions:
    """Random actions within the bounds."""

    def __init__(self, space):
        self._space, self._rng = space, np.random.default_rng(0)

    def __call__(self, observations, infos, begins):
        low, high = self._space.low, self._space.high
        return self._rng.uniform(low, high, (COUNT, *low.shape)).astype(np.float32)


class Experts:
    """An expert per environment."""

    def __init__(self, control_mode="joint_pos"):
        experts = [PickPlaceExpert(steps_per_segment=20) for _ in range(COUNT)]
        self._experts = [in_control_mode(expert, control_mode) for expert in experts]

    def __call__(self, observations, infos, begins):
        actions = []
        for i, expert in enumerate(self._experts):
            if begins[i]:
                info = {k: v[i] for k, v in infos.items() if not k.startswith("_")}
                expert.reset(observations[i], info, np.random.default_rng(i))
            actions.append(choose_action(expert, observations[i], {}))
        return np.array(actions, dtype=np.float32)


def assert_same_rollouts(ours, theirs, policy, steps, next_step=True, seeds=(3, 8)):
    """Step both and assert that they are the same; return (ends, steps with a held object)."""
    seen = ours.reset(seed=seeds)
    assert_same(seen, theirs.reset(seed=seeds), "reset")
    begins, ends, held = np.ones(COUNT, bool), 0, 0
    done = np.zeros(COUNT, bool)
    for k in range(steps):
        actions = policy(seen[0], seen[-1], begins)
        seen = ours.step(actions)
        assert_same(seen, theirs.step(actions), f"step {k}")
        begins = done if next_step else seen[2] | seen[3]
        done = seen[2] | seen[3]
        ends += done.sum()
        held += seen[-1]["is_grasped"].sum()
    ours.close()
    theirs.close()
    return ends, held


@pytest.mark.parametrize(
    ("steps", "arguments"),
    [
        (410, {}),
        (310, {"obs_type": "environment_state_agent_pos", "control_mode": "joint_delta"}),
        (60, {"obs_type": "goal", "reward_type": "dense", "control_mode": "ee_delta"}),
        (40, {"control_mode": "ee_pose"}),
        (100, {"reward_type": "dense", "max_episode_steps": 30}),
    ],
)
def test_random_actions(steps, arguments):
    ours, theirs = make(**arguments), make_sync(**arguments)
    ends, _ = assert_same_rollouts(ours, theirs, RandomActions(ours.single_action_space), steps)
    assert ends == COUNT * (steps // (1 + arguments.get("max_episode_steps", 400)))


@pytest.mark.parametrize(("num_threads", "mode"), [(1, "joint_pos"), (2, "ee_pose")])
def test_experts_grasp_succeed_and_go_on(num_threads, mode):
    ours, theirs = make(num_threads=num_threads, control_mode=mode), make_sync(control_mode=mode)
    ends, held = assert_same_rollouts(ours, theirs, Experts(mode), 400)
    assert ends >= COUNT
    assert held > 100


def test_objects_of_many_kinds_in_scenes_that_vary():
    config = replace(
        SMALL, objects=YCB_OBJECTS, num_objects=3, randomization=RANDOMIZATION_PRESETS["full"]
    )
    ours, theirs = make(config=config), make_sync(config=config)
    seeds = (3, 4)
    assert list(ours.reset(seed=seeds)[1]["object"]) == [
        "010_potted_meat_can", "005_tomato_soup_can",
    ]  # fmt: skip
    ends, held = assert_same_rollouts(ours, theirs, Experts(), 400, seeds=seeds)
    assert ends >= COUNT
    assert held > 100


@pytest.mark.skipif(AutoresetMode is None, reason="before gymnasium 1.1")
def test_same_step_autoreset():
    ours = make(autoreset_mode="SameStep", max_episode_steps=30)
    theirs = make_sync("SameStep", max_episode_steps=30)
    policy = RandomActions(ours.single_action_space)
    assert assert_same_rollouts(ours, theirs, policy, 100, next_step=False)[0] == 3 * COUNT


def test_images_of_every_kind():
    arguments = {
        "obs_type": "pixels_agent_pos", "image_types": ["rgb", "depth", "segmentation"],
        "render_mode": "rgb_array", "max_episode_steps": 6,
    }  # fmt: skip
    ours, theirs = make(**arguments), make_sync(**arguments)
    for env in (ours, theirs):
        env.reset(seed=0, options={"color": (0.9, 0.1, 0.1)})
    assert_same(ours.render(), theirs.render())
    assert (ours.render()[0] != ours.render()[1]).any()
    assert_same_rollouts(ours, theirs, RandomActions(ours.single_action_space), 15)


def test_async():
    ours = make(max_episode_steps=3)
    # Forking a process with threads is what newer Pythons warn of.
    theirs = make("async", max_episode_steps=3, vector_kwargs={"context": "spawn"})
    assert_same_rollouts(ours, theirs, RandomActions(ours.single_action_space), 6)


@pytest.fixture(scope="module")
def envs():
    envs = PickPlaceVectorEnv(COUNT, max_episode_steps=5, render_mode="rgb_array", config=SMALL)
    yield envs
    envs.close()


class TestSharedEnvironment:
    """Tests on one vector environment, because making one takes a while."""

    def test_spaces(self, envs):
        observations, _ = envs.reset(seed=0)
        assert envs.observation_space.contains(observations)
        assert envs.action_space.shape == (COUNT, 8)
        assert envs.single_action_space.shape == (8,)

    def test_a_seed_counts_up(self, envs):
        _, counted = envs.reset(seed=4)
        _, listed = envs.reset(seed=[4, 5])
        assert_same(counted, listed)
        assert envs.np_random_seed == (4, 5)
        assert len(envs.np_random) == COUNT

    def test_options_go_to_every_environment_and_stay_as_they_are(self, envs):
        options = {"pick": (0.5, 0.1), "reset_mask": np.array([True, True])}
        _, infos = envs.reset(seed=0, options=options)
        np.testing.assert_allclose(infos["object_pos"][:, :2], [(0.5, 0.1)] * COUNT, atol=1e-5)
        assert set(options) == {"pick", "reset_mask"}

    def test_some_are_reset(self, envs):
        envs.reset(seed=0)
        before, *_ = envs.step(HOLD)
        after, infos = envs.reset(seed=9, options={"reset_mask": np.array([False, True])})
        np.testing.assert_array_equal(after[0], before[0])
        assert (after[1] != before[1]).any()
        np.testing.assert_array_equal(infos["_goal_pos"], [False, True])
        ends = [envs.step(HOLD)[3].tolist() for _ in range(5)]
        assert ends[3:] == [[True, False], [False, True]]

    def test_what_is_returned_does_not_change(self, envs):
        first, infos = envs.reset(seed=0)
        kept, kept_pos = first.copy(), infos["object_pos"].copy()
        envs.step(HOLD - 0.05)
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_array_equal(infos["object_pos"], kept_pos)

    def test_actions_of_an_environment_that_begins_are_ignored(self, envs):
        envs.reset(seed=0)
        for _ in range(5):
            *_, truncations, _ = envs.step(HOLD)
        assert truncations.all()
        _, rewards, _, truncations, infos = envs.step(np.full_like(HOLD, np.nan))
        assert not truncations.any()
        assert not rewards.any()
        assert np.isnan(infos["action"]).all()

    def test_attributes(self, envs):
        assert envs.get_attr("obs_type") == ("state",) * COUNT
        assert envs.call("render")[0].shape == (32, 32, 3)
        envs.set_attr("label", ["a", "b"])
        assert envs.get_attr("label") == ("a", "b")
        with pytest.raises(ValueError, match="label needs 2 values, got 3"):
            envs.set_attr("label", [1, 2, 3])

    @pytest.mark.parametrize(
        ("actions", "message"),
        [
            (HOLD[0], r"shape \(2, 8\), got \(8,\)"),
            (
                np.where(np.eye(COUNT, 8) > 0, np.inf, HOLD),
                r"\['action_joint_0', 'action_joint_1'\]",
            ),
        ],
    )
    def test_bad_actions(self, envs, actions, message):
        envs.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            envs.step(actions)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"seed": [1, 2, 3]}, "seed must be one number or 2, got 3"),
            ({"options": {"reset_mask": np.array([1, 0])}}, r"array \(2,\) of bool"),
            ({"options": {"reset_mask": np.zeros(COUNT, bool)}}, "at least one True"),
            ({"options": {"pose": 1}}, r"unknown reset options \['pose'\]"),
        ],
    )
    def test_bad_resets(self, envs, arguments, message):
        with pytest.raises(ValueError, match=message):
            envs.reset(**arguments)


def test_before_a_reset_and_without_autoreset():
    envs = PickPlaceVectorEnv(COUNT, max_episode_steps=1, autoreset_mode="Disabled", config=SMALL)
    with pytest.raises(RuntimeError, match="call reset first"):
        envs.step(HOLD)
    with pytest.raises(ValueError, match="never reset"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0)
    assert envs.step(HOLD)[3].all()
    envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(RuntimeError, match=r"environments \[1\] have ended; reset them"):
        envs.step(HOLD)
    envs.close()
    envs.close()


def test_it_is_what_make_vec_makes():
    envs = make()
    assert isinstance(envs, PickPlaceVectorEnv)
    assert envs.spec.id == pp_env.ENV_ID
    assert envs._max_episode_steps == 400
    if AutoresetMode is not None:
        assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    envs.unwrapped._max_episode_steps = 3
    envs.reset(seed=0)
    for _ in range(3):
        *_, infos = envs.step(HOLD)
    assert infos["episode"]["l"].tolist() == [3, 3]
    envs.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"num_threads": -1}, "num_threads must be at least 1, got -1"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1"),
        ({"autoreset_mode": "Never"}, r"autoreset_mode must be one of \['NextStep', .*'Never'"),
        ({"simulator": FakeSimulator}, "'sync' and 'async' take any"),
        ({"headless": False}, "headless must be left out"),
        ({"obs_type": "sound"}, "obs_type must be one of"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_vector_env(**arguments)


def test_old_gymnasium(monkeypatch):
    monkeypatch.setattr(vector_env.gym, "__version__", "0.29.1")
    with pytest.raises(RuntimeError, match="gymnasium 1.0 or newer, found 0.29.1; vectorization"):
        PickPlaceVectorEnv()


def test_infos_are_batched_as_gymnasium_does():
    infos = [
        {"a": 1.5, "b": np.arange(3), "c": {"d": True}},
        None,
        {"a": np.float64(2.5), "c": {"d": False, "e": "text"}, "f": [1, 2]},
    ]
    theirs = gym.vector.VectorEnv()
    theirs.num_envs = 3
    expected: dict = {}
    for i, info in enumerate(infos):
        expected = theirs._add_info(expected, info or {}, i)
    assert_same(batched_infos(infos), expected)


def test_the_modes_are_gymnasiums():
    if AutoresetMode is not None:
        assert {mode.value for mode in AutoresetMode} == set(AUTORESET_MODES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(autoreset_mode=AUTORESET_MODES[0]).close()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize("obs_type", ["state", "pixels"])
def test_a_copy_goes_on_like_the_original(obs_type, duplicate):
    config = PickPlaceConfig(render=RenderConfig(resolution=32))
    envs = PickPlaceVectorEnv(3, num_threads=2, obs_type=obs_type, config=config)
    envs.reset(seed=5)
    actions = envs.action_space.high
    envs.step(actions)
    twins = duplicate(envs)

    for _ in range(3):
        np.testing.assert_equal(envs.step(actions)[:4], twins.step(actions)[:4])
    np.testing.assert_equal(envs.reset()[0], twins.reset()[0])
    envs.close()
    twins.step(actions)
    twins.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_threads_of_its_own():
    envs = PickPlaceVectorEnv(3, num_threads=2)
    envs.reset(seed=0)
    actions = envs.action_space.high
    envs.step(actions)  # starts the threads
    child = multiprocessing.get_context("fork").Process(target=envs.step, args=(actions,))
    child.start()
    child.join(120)
    hangs = child.is_alive()
    child.kill()
    child.join()
    assert not hangs
    assert child.exitcode == 0
    envs.close()


@pytest.mark.skipif(AutoresetMode is None, reason="before Gymnasium 1.1")
@pytest.mark.parametrize("mode", AUTORESET_MODES)
def test_the_autoreset_mode_stands_where_gymnasium_has_it(mode):
    envs, reference = make(autoreset_mode=mode), make_sync(mode)
    assert envs.autoreset_mode == reference.autoreset_mode == AutoresetMode(mode)
    assert envs.metadata["autoreset_mode"] == reference.metadata["autoreset_mode"]


def test_a_configuration_may_be_a_dictionary():
    envs = make(config=dataclasses.asdict(SMALL), obs_type="pixels")
    assert {env.config for env in envs.envs} == {SMALL}
