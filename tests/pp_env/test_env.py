import dataclasses
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import pp_env
from pp_env import PickPlaceConfig, PickPlaceEnv
from pp_env.config import RenderConfig, TaskConfig, TimingConfig
from pp_env.control import hand_pose_action
from pp_env.env import OBS_TYPES, checked_config
from pp_env.layout import ACTION, GOAL_OBSERVATION
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.sim import default_timing
from tests.fakes import SIMULATOR, FakeSimulator

SMALL = PickPlaceConfig(render=RenderConfig(resolution=32))
HOLD = np.append(pp_env.config.HOME_JOINT_POS, 0.04).astype(np.float32)
INFO_KEYS = {
    "is_success", "is_grasped", "object_pos", "object_quat", "object_rgb", "goal_pos", "distance",
    "unmet_conditions", "environment_state", "object", "distractors", "task", "object_size",
    "grasp_height", "grasp_yaws", "travel_height", "scene_height", "action", "action_clipped",
}  # fmt: skip


@pytest.fixture
def env():
    env = PickPlaceEnv(SIMULATOR)
    yield env
    env.close()


def rollout(env, seed, steps=20):
    """Return everything that a seed decides, as one vector."""
    observation, info = env.reset(seed=seed)
    numbers = [observation, info["environment_state"], info["object_rgb"]]
    rng = np.random.default_rng(0)
    for _ in range(steps):
        action = rng.uniform(ACTION.low, ACTION.high).astype(np.float32)
        observation, *_, info = env.step(0.1 * action + 0.9 * HOLD)
        numbers += [observation, info["environment_state"]]
    return np.concatenate(numbers)


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_it_passes_gymnasiums_checker(obs_type):
    env = gym.make(
        pp_env.ENV_ID, obs_type=obs_type, render_mode="rgb_array", config=SMALL, simulator=SIMULATOR
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A recommendation that does not suit targets in rad and m.
        warnings.filterwarnings("ignore", ".*we recommend using a symmetric and normalized space")
        check_env(env.unwrapped)
    env.close()


def test_it_is_registered_with_its_step_limit():
    env = gym.make(pp_env.ENV_ID, simulator=SIMULATOR)
    assert env.spec.max_episode_steps == 400
    assert isinstance(env.unwrapped, PickPlaceEnv)
    env.reset(seed=0)
    ends = [env.step(HOLD)[2:4] for _ in range(400)]
    assert ends[-2:] == [(False, False), (False, True)]
    env.close()


def test_a_seed_repeats_in_the_same_env(env):
    first = rollout(env, 5)
    rollout(env, 6)
    np.testing.assert_array_equal(rollout(env, 5), first)


def test_a_seed_repeats_in_a_new_env(env):
    np.testing.assert_array_equal(rollout(PickPlaceEnv(SIMULATOR), 5), rollout(env, 5))


def test_a_seed_repeats_in_a_new_process(env):
    code = (
        "import sys, pickle; from tests.pp_env.test_env import SIMULATOR, PickPlaceEnv, rollout; "
        "pickle.dump(rollout(PickPlaceEnv(SIMULATOR), 5), sys.stdout.buffer)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    np.testing.assert_array_equal(pickle.loads(done.stdout), rollout(env, 5))


def test_different_seeds_differ(env):
    starts = {tuple(env.reset(seed=s)[1]["object_pos"]) for s in range(20)}
    assert len(starts) == 20


def test_reset_without_a_seed_goes_on_with_the_generator(env):
    def three():
        env.reset(seed=1)
        return [tuple(env.reset()[1]["goal_pos"]) for _ in range(3)]

    assert three() == three()
    assert len(set(three())) == 3


def test_options_fix_the_scene(env):
    options = {"pick": (0.4, 0.1), "place": (0.6, -0.1), "color": (0.2, 0.3, 0.4), "object": "cube"}
    _, info = env.reset(seed=0, options=options)
    np.testing.assert_allclose(info["object_pos"][:2], (0.4, 0.1), atol=1e-6)
    np.testing.assert_allclose(info["goal_pos"], (0.6, -0.1, 0.41), atol=1e-9)
    np.testing.assert_allclose(info["object_rgb"], (0.2, 0.3, 0.4))


def test_info_is_complete_at_reset_and_at_every_step(env):
    _, info = env.reset(seed=0)
    assert set(info) == INFO_KEYS
    assert info["is_success"] is False
    *_, info = env.step(HOLD)
    assert set(info) == INFO_KEYS
    assert info["distance"] == pytest.approx(
        np.linalg.norm(info["object_pos"][:2] - info["goal_pos"][:2])
    )


def test_observations_stay_in_the_space_whatever_the_actions(env):
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(300):
        observation, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)


def test_actions_out_of_bounds_are_clipped_and_reported(env):
    env.reset(seed=0)
    *_, info = env.step(HOLD)
    assert not info["action_clipped"]
    wild = HOLD.copy()
    wild[0], wild[7] = 99.0, -1.0
    *_, info = env.step(wild)
    assert info["action_clipped"]
    assert info["action"][0] == ACTION.high[0]
    assert info["action"][7] == 0.0


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(7), r"shape \(8,\), got \(7,\)"),
        (np.full(8, np.nan), r"action must be finite, but \['action_joint_0'"),
        (np.append(HOLD[:7], np.inf), r"but \['action_gripper'\]"),
    ],
)
def test_bad_actions(env, action, message):
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)


def test_step_before_reset(env):
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step(HOLD)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"obs_type": "sound"}, r"obs_type must be one of \['state', .*got 'sound'"),
        ({"render_mode": "ascii"}, "render_mode must be one of .*got 'ascii'"),
        ({"simulator": "bullet"}, "simulator must be one of .*got 'bullet'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PickPlaceEnv(**arguments)


def test_images_come_with_the_observation():
    env = PickPlaceEnv(simulator=FakeSimulator, obs_type="pixels_agent_pos", config=SMALL)
    observation, _ = env.reset(seed=0)
    assert set(observation["pixels"]) == {"cam_high", "cam_wrist"}
    assert observation["pixels"]["cam_high"].shape == (32, 32, 3)
    assert env.observation_space.contains(observation)


def test_render_fps_follows_the_control_rate():
    env = PickPlaceEnv(FakeSimulator, config=PickPlaceConfig(timing=TimingConfig(control_hz=60)))
    assert env.metadata["render_fps"] == 60
    assert PickPlaceEnv.metadata["render_fps"] == 30


def test_close_closes_the_simulator_and_may_be_repeated():
    env = PickPlaceEnv(FakeSimulator)
    env.close()
    env.close()
    assert env._simulator.closed


def test_it_terminates_on_success_unless_switched_off():
    from experts.pick_place import PickPlaceExpert

    for terminate in (True, False):
        env = PickPlaceEnv(FakeSimulator, terminate_on_success=terminate)
        expert = PickPlaceExpert(noise_rad=0.0)
        observation, info = env.reset(seed=0)
        expert.reset(observation, info, np.random.default_rng(0))
        for _ in range(expert.num_steps):
            observation, reward, terminated, _, info = env.step(expert.act(observation))
        assert (reward, terminated) == (1.0, terminate)


def test_import_is_light_and_has_no_side_effects():
    code = (
        "import sys, os; before = dict(os.environ); import pp_env; "
        "heavy = {'mujoco', 'pyarrow', 'av', 'tqdm', 'OpenGL', 'gymnasium_robotics'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("random_yaw", [False, True])
def test_no_quaternion_changes_its_sign_within_an_episode(random_yaw):
    from experts.pick_place import PickPlaceExpert

    config = PickPlaceConfig(task=TaskConfig(random_yaw=random_yaw))
    env = PickPlaceEnv(SIMULATOR, "goal", config=config, terminate_on_success=False)
    expert = PickPlaceExpert()
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        assert info["object_quat"][0] >= 0
        expert.reset(observation["observation"][:23], info, np.random.default_rng(seed))
        seen = [observation["observation"]]
        for _ in range(expert.num_steps):
            observation, *_ = env.step(expert.act(observation))
            seen.append(observation["observation"])
        fields = GOAL_OBSERVATION.unpack(np.array(seen))
        for name in ("eef_quat", "object_quat"):
            assert ((fields[name][1:] * fields[name][:-1]).sum(1) > 0.9).all()
        assert fields["eef_quat"][:, 1].min() > 0
    env.close()


def test_advance_is_a_step_without_images():
    stepped, advanced = (PickPlaceEnv(SIMULATOR, "pixels_agent_pos", config=SMALL) for _ in "ab")
    for env in (stepped, advanced):
        env.reset(seed=1)
    action = HOLD + np.float32(0.01)
    observation, _, _, _, info = stepped.step(action)
    vector, info_again = advanced.advance(action)
    np.testing.assert_array_equal(vector, observation["agent_pos"])
    assert info_again.keys() == info.keys()
    np.testing.assert_array_equal(info_again["environment_state"], info["environment_state"])
    seen, _ = advanced.observe()
    np.testing.assert_array_equal(seen["agent_pos"], vector)
    for name, image in observation["pixels"].items():
        np.testing.assert_array_equal(seen["pixels"][name], image)
    stepped.close()
    advanced.close()


def test_observing_draws_no_sensor_noise():
    config = PickPlaceConfig(randomization=RANDOMIZATION_PRESETS["full"])
    once, often = (PickPlaceEnv(SIMULATOR, config=config) for _ in "ab")
    once.reset(seed=2)
    often.reset(seed=2)
    for _ in range(3):
        observation, *_ = once.step(HOLD)
        vector, _ = often.advance(HOLD)
        np.testing.assert_array_equal(often.observe()[0], vector)
        np.testing.assert_array_equal(observation, vector)
    once.close()
    often.close()


def test_an_object_can_be_moved_while_it_is_not_held(env):
    _, info = env.reset(seed=0)
    x, y, z = info["object_pos"]
    _, moved = env.move_object(np.array([x + 0.05, y, z]), info["object_quat"])
    np.testing.assert_allclose(moved["object_pos"], [x + 0.05, y, z], atol=1e-6)
    *_, later = env.step(HOLD)
    np.testing.assert_allclose(later["object_pos"][:2], [x + 0.05, y], atol=2e-3)
    env._state = env._state._replace(is_grasped=True)
    with pytest.raises(RuntimeError, match="not held"):
        env.move_object(np.array([x, y, z]), info["object_quat"])


def test_observe_and_move_need_an_episode():
    env = PickPlaceEnv(SIMULATOR)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.observe()
    with pytest.raises(RuntimeError, match="needs a started episode"):
        env.move_object(np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0]))
    env.close()


def test_the_arm_can_start_elsewhere(env):
    joints = np.array([0.3, -0.5, 0.1, -2.0, 0.0, 1.6, 0.9])
    observation, info = env.reset(seed=3, options={"joint_pos": joints})
    np.testing.assert_allclose(observation[:7], joints, atol=0.01)
    _, home = env.reset(seed=3)
    np.testing.assert_array_equal(info["goal_pos"], home["goal_pos"])
    np.testing.assert_array_equal(info["object_pos"][:2], home["object_pos"][:2])


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (np.zeros(6), "seven finite numbers"),
        (np.full(7, np.nan), "seven finite numbers"),
        (np.zeros(7), r"joint_pos\[3\] must be within -3.0718..-0.0698 rad, got 0.0000"),
    ],
)
def test_an_impossible_posture_is_refused(env, joints, message):
    with pytest.raises(ValueError, match=message):
        env.reset(seed=0, options={"joint_pos": joints})


@pytest.mark.parametrize("through", ["json", "pickle"])
def test_a_spec_with_a_configuration_makes_the_same_environment(through):
    config = PickPlaceConfig(
        timing=TimingConfig(control_hz=20),
        task=TaskConfig(random_yaw=True),
        objects=YCB_OBJECTS,
        num_objects=2,
        randomization=list(RANDOMIZATION_PRESETS.values())[-1],
    )
    name = "test/WithConfiguration-v0"
    gym.register(name, "pp_env.env:PickPlaceEnv", kwargs={"config": config})
    try:
        spec = gym.make(name, reward_type="dense").spec if SIMULATOR == "mujoco" else gym.spec(name)
    finally:
        del gym.registry[name]
    if through == "json":
        again = gym.envs.registration.EnvSpec.from_json(spec.to_json())
    else:
        again = pickle.loads(pickle.dumps(spec))

    first, second = gym.make(spec, simulator=SIMULATOR), gym.make(again, simulator=SIMULATOR)

    assert second.unwrapped.config == config
    np.testing.assert_array_equal(first.reset(seed=4)[0], second.reset(seed=4)[0])


@pytest.mark.parametrize(
    ("config", "simulator", "warns"),
    [
        (PickPlaceConfig(), "warp", True),
        (dataclasses.asdict(PickPlaceConfig()), "isaacsim", True),
        (PickPlaceConfig(timing=default_timing("warp", 15)), "warp", False),
        (PickPlaceConfig(timing=TimingConfig(physics_hz=480)), "warp", False),
        ({"render": {"resolution": 64}}, "warp", False),
        (PickPlaceConfig(), "mujoco", False),
        (PickPlaceConfig(), FakeSimulator, False),
    ],
)
def test_a_configuration_with_another_simulators_rate_is_named(config, simulator, warns, caplog):
    checked_config(config, simulator)
    assert [r.args for r in caplog.records] == ([(240, simulator, 120, simulator)] if warns else [])


def test_what_a_dictionary_leaves_out_is_the_reference():
    env = PickPlaceEnv(SIMULATOR, config={"render": {"resolution": [48, 32]}})
    assert env.config == PickPlaceConfig(render=RenderConfig(resolution=(48, 32)))
    with pytest.raises(ValueError, match=r"PickPlaceConfig has no \['rendre'\]"):
        PickPlaceEnv(SIMULATOR, config={"rendre": {}})


def test_reset_options_of_other_tools_change_nothing(env):
    first = env.reset(seed=3, options={"lerobot_new_rollout": True, "pick": (0.5, 0.1)})[0]
    np.testing.assert_array_equal(env.reset(seed=3, options={"pick": (0.5, 0.1)})[0], first)
    with pytest.raises(ValueError, match=r"unknown reset options \['lerobt_x', 'picc'\]"):
        env.reset(options={"picc": (0.5, 0.1), "lerobt_x": 1, "lerobot_x": 1})


@pytest.mark.parametrize("kind", [gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv])
def test_infos_can_be_batched_and_keep_their_keys(kind):
    def make():
        return gym.make(pp_env.ENV_ID, simulator=SIMULATOR, control_mode="ee_pose")

    envs = kind([make, make])
    actions = np.stack([envs.single_action_space.low, hand_pose_action(HOLD)])
    _, at_reset = envs.reset(seed=0)
    *_, at_step = envs.step(actions)

    assert set(at_reset) == set(at_step)
    # Gymnasium 0.29 keeps arrays as objects.
    assert np.isnan(np.stack(at_reset["action"])).all()
    np.testing.assert_array_equal(np.stack(at_step["action"]), actions)
    assert at_step["action_limits"][0]
    assert at_step["action_limits"][1] == ""
    for name in ("unmet_conditions", "action_limits", "distractors"):
        assert np.array(at_step[name].tolist()).dtype.kind == "U"
    envs.close()


def test_a_function_that_makes_a_simulator_opens_no_window():
    with pytest.raises(ValueError, match="opens the window of a simulator that is given by its na"):
        PickPlaceEnv(FakeSimulator, render_mode="human")
