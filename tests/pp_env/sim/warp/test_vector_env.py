"""Many worlds on Warp against the same environments on MuJoCo."""

import dataclasses
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("mujoco_warp")

import pp_env
from pp_env import PickPlaceConfig
from pp_env.config import RENDER_PRESETS, RenderConfig
from pp_env.layout import OBSERVATION
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RandomizationConfig
from pp_env.sim.warp import worlds
from pp_env.sim.warp.kernels import COLUMNS
from pp_env.sim.warp.servos import take_force_within_steps
from pp_env.sim.warp.vector_env import WarpVectorEnv
from pp_env.vector_env import AUTORESET_MODES, PickPlaceVectorEnv, make_vector_env
from tests.pp_env.test_vector_env import COUNT, HOLD, SMALL, RandomActions, is_objects

pytestmark = [
    pytest.mark.usefixtures("warp_device"),
    pytest.mark.skipif(gym.__version__.startswith("0."), reason="before Gymnasium 1.0"),
]

TOLERANCE = 2e-3  # rad, rad/s, m and m/s; numbers are float32, and the solver ends earlier
NUM_STARTS = 2
SEEDS = (3, 8)


def make(**arguments):
    return WarpVectorEnv(COUNT, **{"config": SMALL, "num_starts": NUM_STARTS, **arguments})


def make_theirs(**arguments):
    """Make environments on MuJoCo, with the servos of Warp."""
    envs = PickPlaceVectorEnv(COUNT, **{"config": SMALL, **arguments})
    models = {id(simulator.physics[0]): simulator.physics[0] for simulator in envs._simulators}
    for model in models.values():
        take_force_within_steps(model)
    return envs


def assert_alike(ours, theirs, where="", tolerance=TOLERANCE):
    """Assert the same structure, dtypes and shapes, and numbers that are nearly the same."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert set(ours) == set(theirs), where
        for key in ours:
            assert_alike(ours[key], theirs[key], f"{where}/{key}", tolerance)
    elif isinstance(ours, tuple) or is_objects(ours):
        assert len(ours) == len(theirs), where
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_alike(*pair, f"{where}/{i}", tolerance)
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype, where
        assert ours.shape == theirs.shape, where
        if ours.dtype == np.uint8:
            assert np.abs(ours.astype(float) - theirs).mean() < 8, where
        else:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=where)
    else:
        assert ours == theirs, where


def first_episodes(steps, seeds=SEEDS, **arguments):
    """Step both with the same actions until the first episodes have ended, and compare them."""
    theirs = make_theirs(**arguments)
    ours = make(**arguments)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata == theirs.metadata
    policy = RandomActions(ours.single_action_space)
    found, expected = ours.reset(seed=seeds), theirs.reset(seed=seeds)
    assert_alike(found, expected, "reset")
    assert ours.observation_space.contains(found[0])
    for k in range(steps):
        # Small motions: what is in contact with random arms is not the same for long.
        actions = 0.9 * HOLD + 0.1 * policy(None, None, None)
        if arguments.get("control_mode") == "joint_delta":
            actions = policy(None, None, None)
            actions[:, 7] = 0.04
        found, expected = ours.step(actions), theirs.step(actions)
        assert_alike(found, expected, f"step {k}")
        assert ours.observation_space.contains(found[0])
    return ours, theirs, found


@pytest.mark.parametrize(
    "arguments",
    [
        {"reward_type": "dense"},
        {"obs_type": "environment_state_agent_pos", "control_mode": "joint_delta"},
        {"obs_type": "goal", "reward_type": "dense"},
        {"obs_type": "goal"},
        {"obs_type": "pixels_agent_pos", "render_mode": "rgb_array"},
    ],
    ids=lambda arguments: "-".join(arguments.values()),
)
def test_episodes_are_those_of_mujoco(arguments):
    ours, theirs, _ = first_episodes(6, **arguments)
    if "render_mode" in arguments:
        assert_alike(ours.render(), theirs.render())
        assert (ours.render()[0] != ours.render()[1]).any()
    ours.close()
    ours.close()


@pytest.mark.parametrize("mode", AUTORESET_MODES)
def test_an_end(mode):
    """The step that ends an episode is the same; what begins then is drawn from the starts."""
    ours, theirs, last = first_episodes(3, max_episode_steps=4, autoreset_mode=mode)
    found, expected = ours.step(HOLD), theirs.step(HOLD)
    assert found[3].all()
    assert_alike(found[1:4], expected[1:4])
    if mode == "SameStep":
        finals = ("final_obs", "_final_obs", "final_info", "_final_info")
        assert_alike(*({name: each[4][name] for name in finals} for each in (found, expected)))
        assert_same_keys(found[4], expected[4])
        begun = found
    else:
        assert_alike(found, expected)
        if mode == "Disabled":
            with pytest.raises(RuntimeError, match=r"environments \[0, 1\] have ended; reset"):
                ours.step(HOLD)
            mask = np.array([False, True])
            begun = ours.reset(options={"reset_mask": mask})
            assert_same_keys(begun[1], theirs.reset(options={"reset_mask": mask})[1])
            np.testing.assert_array_equal(begun[1]["_goal_pos"], mask)
            np.testing.assert_array_equal(begun[0][0], found[0][0])
            with pytest.raises(RuntimeError, match=r"environments \[0\] have ended; reset"):
                ours.step(HOLD)
            ours.reset(options={"reset_mask": ~mask})
            assert not ours.step(HOLD)[3].any()
            return
        begun = ours.step(np.full_like(HOLD, np.nan))
        assert_same_keys(begun[4], theirs.step(np.full_like(HOLD, np.nan))[4])
        assert not begun[1].any()
    infos = begun[-1]
    assert np.isnan(infos["action"]).all()
    assert not infos["action_clipped"].any()
    np.testing.assert_allclose(begun[0][:, :7], HOLD[:, :7], atol=1e-3)
    assert (infos["object_pos"] != last[4]["object_pos"]).any(axis=1).all()
    np.testing.assert_allclose(infos["environment_state"][:, :3], infos["object_pos"], atol=1e-6)
    ends = [ours.step(HOLD)[3].all() for _ in range(4)]
    assert ends == [False, False, False, True]


def assert_same_keys(ours, theirs):
    """Assert the same keys, dtypes and shapes of infos of different episodes."""
    assert set(ours) == set(theirs)
    for key, values in ours.items():
        if isinstance(values, dict):
            assert_same_keys(values, theirs[key])
        else:
            assert (values.dtype, values.shape) == (theirs[key].dtype, theirs[key].shape), key


@pytest.fixture(scope="module")
def envs(warp_device):
    envs = WarpVectorEnv(
        3, max_episode_steps=50, autoreset_mode="Disabled", config=SMALL, num_starts=NUM_STARTS
    )
    yield envs
    envs.close()


HOLD_3 = np.tile(HOLD[:1], (3, 1))
MASK = np.array([False, True, False])


@pytest.fixture(scope="module")
def undisturbed(envs):
    """Return the observations of an episode without another reset."""
    envs.reset(seed=5)
    return [envs.step(HOLD_3 + 0.1 * np.sin(k))[0] for k in range(6)]


class TestSomeAreReset:
    """What is not in the mask goes on as if nothing had happened."""

    @pytest.mark.parametrize(
        ("seed", "options"), [(None, {}), (9, {"pick": (0.6, 0.2), "place": (0.4, -0.2)})]
    )
    def test_the_others_do_not_move(self, envs, undisturbed, seed, options):
        envs.reset(seed=5)
        for k in range(3):
            before, *_, infos = envs.step(HOLD_3 + 0.1 * np.sin(k))
        after, begun = envs.reset(seed=seed, options={**options, "reset_mask": MASK})
        np.testing.assert_array_equal(after[~MASK], before[~MASK])
        assert (after[MASK] != before[MASK]).any()
        np.testing.assert_array_equal(begun["_object_pos"], MASK)
        if options:
            np.testing.assert_allclose(begun["goal_pos"][1, :2], (0.4, -0.2), atol=1e-6)
            np.testing.assert_allclose(begun["object_pos"][1, :2], (0.6, 0.2), atol=1e-5)
        for k in range(3, 6):
            after, *_, went_on = envs.step(HOLD_3 + 0.1 * np.sin(k))
            np.testing.assert_allclose(after[~MASK], undisturbed[k][~MASK], rtol=0, atol=1e-4)
        for name in ("goal_pos", "object_rgb", "object_size"):
            np.testing.assert_array_equal(went_on[name][~MASK], infos[name][~MASK])

    def test_a_seed_gives_the_same_episode_to_one_and_to_all(self, envs):
        everything, infos = envs.reset(seed=[4, 5, 6])
        envs.reset(seed=0)
        some, some_infos = envs.reset(seed=[None, 5, None], options={"reset_mask": MASK})
        np.testing.assert_allclose(some[1], everything[1], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(some_infos["goal_pos"][1], infos["goal_pos"][1])

    def test_seeds_repeat_what_is_drawn_later(self, envs):
        drawn = []
        for _ in range(2):
            envs.reset(seed=11)
            drawn.append([envs.reset()[1]["goal_pos"] for _ in range(4)])
        np.testing.assert_array_equal(*drawn)
        assert len(np.unique(np.reshape(drawn[0], (-1, 3)), axis=0)) == NUM_STARTS

    def test_options_for_all_leave_what_is_drawn_later_going_on(self, envs):
        envs.reset(seed=11)
        through = [envs.reset()[1]["goal_pos"] for _ in range(4)]
        envs.reset(seed=11)
        begun = [envs.reset()[1]["goal_pos"] for _ in range(2)]
        envs.reset(options={"pick": (0.5, 0.1)})
        begun += [envs.reset()[1]["goal_pos"] for _ in range(2)]
        np.testing.assert_array_equal(begun, through)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"seed": [1, 2]}, "seed must be one number or 3, got 2"),
            ({"options": {"reset_mask": np.array([1, 0, 1])}}, r"array \(3,\) of bool"),
            ({"options": {"reset_mask": np.zeros(3, bool)}}, "at least one True"),
            ({"options": {"pose": 1}}, r"unknown reset options \['pose'\]"),
        ],
    )
    def test_bad_resets(self, envs, arguments, message):
        with pytest.raises(ValueError, match=message):
            envs.reset(**arguments)

    @pytest.mark.parametrize(
        ("actions", "message"),
        [
            (HOLD_3[0], r"shape \(3, 8\), got \(8,\)"),
            (np.where(np.eye(3, 8) > 0, np.nan, HOLD_3), "action_joint_0"),
        ],
    )
    def test_bad_actions(self, envs, actions, message):
        envs.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            envs.step(actions)

    def test_what_is_returned_does_not_change(self, envs):
        first, infos = envs.reset(seed=0)
        second, reward, *_ = envs.step(HOLD_3)
        kept = [each.copy() for each in (first, infos["object_pos"], second, reward)]
        envs.step(HOLD_3 - 0.05)
        for now, then in zip((first, infos["object_pos"], second, reward), kept, strict=True):
            np.testing.assert_array_equal(now, then)


def test_before_a_reset():
    envs = make(autoreset_mode="Disabled")
    with pytest.raises(RuntimeError, match="call reset first"):
        envs.step(HOLD)
    with pytest.raises(ValueError, match="never reset"):
        envs.reset(options={"reset_mask": np.array([True, False])})


def test_what_varies_reaches_every_world():
    ranges = RandomizationConfig(
        friction=(0.5, 1.5), mass=(0.5, 2.0), action_delay=(0, 3), joint_pos_noise=(0.001, 0.002),
        joint_vel_noise=(0.01, 0.02), light_position=0.2, camera_position=0.02,
    )  # fmt: skip
    config = dataclasses.replace(SMALL, randomization=ranges)
    theirs = make_theirs(config=config)
    ours = make(config=config)
    found, expected = ours.reset(seed=SEEDS), theirs.reset(seed=SEEDS)
    variations = found[1]["variation"]
    assert variations.tolist() == expected[1]["variation"].tolist()
    assert len({variation.mass for variation in variations}) == COUNT
    assert_alike(*({k: v for k, v in each[1].items()} for each in (found, expected)))
    model, host = ours.worlds.model, ours.worlds.host_model
    body, geom = host.body("object").id, host.geom("object").id
    for i, simulator in enumerate(theirs._simulators):
        there = simulator.physics[0]
        assert model.body_mass.numpy()[i, body] == pytest.approx(there.body_mass[body])
        np.testing.assert_allclose(
            model.body_inertia.numpy()[i, body], there.body_inertia[body], rtol=1e-5
        )
        np.testing.assert_allclose(
            model.geom_friction.numpy()[i, geom], there.geom_friction[geom], rtol=1e-5
        )
    # The delay: where the arm goes is what it does there, without noise.
    errors, steps = [], 12
    for k in range(steps):
        actions = HOLD + np.float32(0.05 * np.sin(k))
        found, expected = ours.step(actions), theirs.step(actions)
        true = [simulator.end_step().joint_pos for simulator in theirs._simulators]
        values = ours.worlds.seen.values.numpy()
        known = np.hstack([values[:, COLUMNS[name]] for name in ("joint_pos", "joint_vel")])
        np.testing.assert_allclose(known[:, :7], true, rtol=0, atol=TOLERANCE)
        errors.append(found[0][:, :14] - known)
    # The noise: of the size that was sampled, and not the same twice.
    noise = np.array(errors)
    assert len(np.unique(noise)) > 0.9 * noise.size
    for i, variation in enumerate(variations):
        of_positions, of_velocities = noise[:, i, :7].std(), noise[:, i, 7:].std()
        assert of_positions == pytest.approx(variation.joint_pos_noise, rel=0.35)
        assert of_velocities == pytest.approx(variation.joint_vel_noise, rel=0.35)


@pytest.mark.long
def test_objects_of_many_kinds():
    config = dataclasses.replace(SMALL, objects=YCB_OBJECTS, num_objects=2)
    ours, *_ = first_episodes(2, seeds=(3, 4), config=config)
    _, infos = ours.reset(seed=(3, 4))
    assert list(infos["object"]) == list(
        PickPlaceVectorEnv(COUNT, config=config).reset(seed=(3, 4))[1]["object"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"num_starts": 0}, "num_starts must be at least 1, got 0"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1, got 0"),
        ({"autoreset_mode": "Never"}, r"autoreset_mode must be one of \['NextStep', .*'Never'"),
        (
            {"control_mode": "ee_delta"},
            r"takes control_mode \['joint_pos', 'joint_delta'\], got 'ee_delta'",
        ),
        (
            {"obs_type": "pixels", "image_types": ["rgb", "depth"]},
            r"renders 'rgb', got image_types \['rgb', 'depth'\]",
        ),
        (
            {"config": {"randomization": {"object_textures": ["stripes"]}}},
            r"cannot randomize \['object_textures'\]; leave them out, or take simulator='mujoco'",
        ),
        ({"obs_type": "sound"}, "obs_type must be one of"),
        ({"headless": False}, "headless must be left out"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_vector_env("warp", **arguments)


def test_it_is_what_make_vec_makes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gym.make_vec(
            pp_env.ENV_ID, num_envs=COUNT, simulator="warp", config=SMALL, num_starts=NUM_STARTS
        )
    assert isinstance(envs.unwrapped, WarpVectorEnv)
    assert envs.spec.id == pp_env.ENV_ID
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (COUNT, OBSERVATION.size)
    assert envs.unwrapped._step_limit == 400
    envs.step(envs.action_space.sample())
    envs.close()


def test_a_configuration_may_be_a_dictionary():
    envs = make(config=dataclasses.asdict(SMALL))
    assert envs.worlds.config == SMALL
    envs = make(config={"render": {"resolution": 32, "preset": "fast"}})
    assert envs.worlds.config == PickPlaceConfig(
        render=RenderConfig(32, "fast"), timing=envs.worlds.config.timing
    )
    assert "fast" in RENDER_PRESETS


def test_later_starts_may_have_options():
    def place(rng):
        return {"pick": (0.5, 0.1), "place": (0.4, rng.uniform(-0.2, -0.1))}

    envs = make(start_options=place)
    _, own = envs.reset(seed=SEEDS)
    _, later = envs.reset()
    np.testing.assert_allclose(later["object_pos"][:, :2], [[0.5, 0.1]] * COUNT, atol=1e-3)
    np.testing.assert_allclose(later["goal_pos"][:, 0], 0.4, atol=1e-6)
    assert (later["goal_pos"][:, 1] < -0.1).all()
    np.testing.assert_array_equal(envs.reset(seed=SEEDS)[1]["goal_pos"], own["goal_pos"])
    theirs = make_theirs().reset(seed=SEEDS)[1]
    np.testing.assert_allclose(own["goal_pos"], theirs["goal_pos"], atol=1e-6)
    with pytest.raises(ValueError, match=r"unknown reset options \['pose'\]"):
        make(start_options=lambda _: {"pose": 1}).reset(seed=0)


@pytest.mark.parametrize("simulator", ["isaacsim", "wrap"])
def test_other_simulators(simulator):
    with pytest.raises(ValueError, match=rf"one of the simulators .*'warp'\], got '{simulator}'"):
        make_vector_env(simulator)


def test_without_a_gpu(monkeypatch):
    monkeypatch.delenv("WARP_GPU", raising=False)
    monkeypatch.setattr(worlds.wp, "is_cuda_available", lambda: False)
    with pytest.raises(RuntimeError, match="found none; simulator 'mujoco' runs the same scene"):
        make_vector_env("warp", num_envs=COUNT)


def test_without_the_packages(monkeypatch):
    for name in [each for each in sys.modules if each.startswith("pp_env.sim.warp")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(ImportError, match=r"needs the package 'mujoco_warp'; .*\[gpu\]"):
        make_vector_env("warp", num_envs=COUNT)
