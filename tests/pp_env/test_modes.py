"""Observations, rewards and actions beyond the defaults."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import pp_env
from experts.pick_place import PickPlaceExpert
from experts.waypoints import WAYPOINTS
from pp_collect.actions import EXPERT_CONTROL_MODES, in_control_mode
from pp_env import PickPlaceConfig, PickPlaceEnv, kinematics, panda, reward, rotation
from pp_env.config import HOME_JOINT_POS, GraspConfig, RenderConfig, TaskConfig, TimingConfig
from pp_env.control import CONTROL_MODES, hand_pose_action
from pp_env.env import OBS_TYPES
from pp_env.kinematics import jacobian, move_hand
from pp_env.layout import EE_DELTA_ACTION, ENVIRONMENT_STATE, GOAL_OBSERVATION, JOINT_DELTA_ACTION
from pp_env.sim.api import IMAGE_TYPES, SEGMENTS
from pp_recorder.rollout import run_episode
from tests.fakes import SIMULATOR, Log
from tests.presets import skip_unless_rendered

SMALL = PickPlaceConfig(render=RenderConfig(resolution=32, preset="fast"))
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("control_mode", CONTROL_MODES)
@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_it_passes_gymnasiums_checker(obs_type, control_mode):
    """Each reward is tried with each kind of observations and with each control mode."""
    number = list(OBS_TYPES).index(obs_type) + list(CONTROL_MODES).index(control_mode)
    reward_type = ("sparse", "dense")[number % 2]
    env = gym.make(
        pp_env.ENV_ID, simulator=SIMULATOR, obs_type=obs_type, control_mode=control_mode,
        reward_type=reward_type, config=SMALL,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if control_mode in ("joint_pos", "ee_pose"):  # targets in rad and m can't be symmetric
            warnings.filterwarnings("ignore", message=".*symmetric and normalized space")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control_mode": "torque"}, r"control_mode must be one of \['joint_pos', .*'torque'"),
        ({"reward_type": "shaped"}, r"reward_type must be one of \['sparse', 'dense'\]"),
        ({"image_types": ["x-ray"], "obs_type": "pixels"}, "image_types must be some of .*x-ray"),
        ({"image_types": "depth", "obs_type": "pixels"}, "image_types must be some of"),
        ({"image_types": []}, "image_types must be some of"),
        ({"image_types": ["depth"]}, r"need obs_type 'pixels'.*got 'state'"),
    ],
)
def test_bad_modes(arguments, message):
    with pytest.raises(ValueError, match=message):
        PickPlaceEnv(SIMULATOR, **arguments)


class TestObservations:
    def test_images_alone(self):
        env = PickPlaceEnv(SIMULATOR, obs_type="pixels", config=SMALL)
        assert set(env.reset(seed=0)[0]) == {"pixels"}

    def test_environment_state(self):
        env = PickPlaceEnv(SIMULATOR, obs_type="environment_state_agent_pos")
        observation, info = env.reset(seed=0)
        np.testing.assert_array_equal(observation["environment_state"], info["environment_state"])
        np.testing.assert_array_equal(
            observation["agent_pos"], PickPlaceEnv(SIMULATOR).reset(seed=0)[0]
        )

    def test_goals(self):
        env = PickPlaceEnv(SIMULATOR, obs_type="goal")
        observation, info = env.reset(seed=0)
        np.testing.assert_allclose(observation["achieved_goal"], info["object_pos"], atol=1e-6)
        config = PickPlaceConfig()
        rest = [*info["goal_pos"][:2], config.rest_z_of(config.object)]
        np.testing.assert_allclose(observation["desired_goal"], rest, atol=1e-6)
        seen = GOAL_OBSERVATION.unpack(observation["observation"])
        np.testing.assert_allclose(seen["object_pos"], info["object_pos"], atol=1e-6)
        assert "goal_pos" not in seen, "or replaying with another goal would reveal the first"


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_only_environments_with_goals_compute_rewards(obs_type):
    env = gym.make(pp_env.ENV_ID, simulator=SIMULATOR, obs_type=obs_type)
    assert hasattr(env.unwrapped, "compute_reward") == (obs_type == "goal")


class TestGoalRewards:
    @pytest.mark.parametrize("reward_type", ["sparse", "dense"])
    def test_the_reward_of_a_step_is_that_of_its_goals(self, reward_type):
        env = PickPlaceEnv(SIMULATOR, obs_type="goal", reward_type=reward_type)
        env.action_space.seed(0)
        env.reset(seed=0)
        for _ in range(5):
            observation, got, *_, info = env.step(env.action_space.sample())
            goals = observation["achieved_goal"], observation["desired_goal"]
            assert got == env.compute_reward(*goals, info)

    @pytest.mark.parametrize("reward_type", ["sparse", "dense"])
    def test_many_at_once(self, reward_type):
        env = PickPlaceEnv(SIMULATOR, obs_type="goal", reward_type=reward_type)
        achieved = RNG.uniform(0.3, 0.5, (50, 3))
        desired = achieved + RNG.uniform(-0.06, 0.06, (50, 3)) * [1, 1, 0]
        together = env.compute_reward(achieved, desired, [{}] * 50)
        alone = [env.compute_reward(*goals, {}) for goals in zip(achieved, desired, strict=True)]
        np.testing.assert_array_equal(together, alone)
        assert together.shape == (50,)
        assert 0 <= together.min() < together.max() <= 1

    def test_sparse_requires_the_table(self):
        config = PickPlaceConfig()
        goal = np.array([0.5, 0.0, config.rest_z_of(config.object)])
        for offset, wanted in (([0.04, 0, 0], 1), ([0.06, 0, 0], 0), ([0, 0, 0.1], 0)):
            assert reward.of_goals(goal + offset, goal, "sparse", config) == wanted


def test_the_dense_reward_grows_along_a_demonstration():
    env = PickPlaceEnv(SIMULATOR, reward_type="dense", terminate_on_success=False)
    expert, log = PickPlaceExpert(), Log()
    assert run_episode(env, expert, [log], 0, 0, expert.num_steps).success
    rewards = np.array([step.reward for step in log.steps])
    best = {phase: rewards[[s.phase == phase for s in log.steps]].max() for phase in (
        "APPROACH_PICK", "LIFT", "DOWN_PLACE", "OPEN_GRIPPER", "RETRACT", "HOME")}  # fmt: skip
    assert rewards.min() >= 0
    reached, carried = reward.REACHED, reward.CARRIED
    assert best["APPROACH_PICK"] <= reached < best["LIFT"] < best["DOWN_PLACE"] <= carried
    assert all(carried < best[phase] < 1.0 for phase in ("OPEN_GRIPPER", "RETRACT"))
    assert best["HOME"] == 1.0
    assert (np.diff(rewards) > -0.1).all(), "it never falls back a stage"


def test_success_without_the_way_home():
    config = PickPlaceConfig(task=TaskConfig(require_home=False))
    ends = {}
    for name, each in (("home", PickPlaceConfig()), ("placed", config)):
        env, expert = PickPlaceEnv(SIMULATOR, config=each), PickPlaceExpert()
        ends[name] = run_episode(env, expert, [], 0, 0, expert.num_steps).length
    assert 180 < ends["placed"] < ends["home"] - 30


@pytest.mark.parametrize("fps", [10, 15, 20, 30])
@pytest.mark.parametrize("mode", EXPERT_CONTROL_MODES)
@pytest.mark.parametrize("grasp", ["fixed_joint", "friction"])
def test_the_expert_succeeds_at_every_rate(fps, mode, grasp):
    config = PickPlaceConfig(timing=TimingConfig(fps), grasp=GraspConfig(grasp))
    env = PickPlaceEnv(SIMULATOR, control_mode=mode, config=config, terminate_on_success=False)
    for seed in range(3):
        expert, log = PickPlaceExpert(control_hz=fps), Log()
        policy = in_control_mode(expert, mode)
        assert run_episode(env, policy, [log], seed, seed, expert.num_steps).success
        assert len(log.steps) == 9 * fps
        assert not any(step.info.get("action_clipped") for step in log.steps)
        assert {step.phase for step in log.steps} == {w.name for w in WAYPOINTS}


class TestControl:
    def test_the_jacobian_is_the_derivative(self):
        for joints in RNG.uniform(panda.JOINT_LOWER, panda.JOINT_UPPER, (20, 7)):
            steps = 1e-6 * np.eye(7)
            ahead, behind = kinematics.forward(joints + steps), kinematics.forward(joints - steps)
            np.testing.assert_allclose(
                jacobian(joints)[:3], (ahead[0] - behind[0]).T / 2e-6, atol=1e-6
            )
            spin = (ahead[1] - behind[1]) / 2e-6 @ kinematics.forward(joints)[1].T
            angular = np.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]])
            np.testing.assert_allclose(jacobian(joints)[3:], angular, atol=1e-6)

    def test_moving_the_hand(self):
        start = np.array(HOME_JOINT_POS)
        position, orientation = kinematics.forward(start)
        joints = move_hand(start, np.array([0.02, -0.01, 0.01]), np.array([0.0, 0.0, 0.07]))
        there, turned = kinematics.forward(joints)
        np.testing.assert_allclose(there - position, [0.02, -0.01, 0.01], atol=1e-5)
        c, s = np.cos(0.07), np.sin(0.07)
        about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        np.testing.assert_allclose(turned, about_z @ orientation, atol=1e-4)

    def test_out_of_reach_the_hand_stays_near_and_within_limits(self):
        joints = np.array(HOME_JOINT_POS)
        for _ in range(100):
            joints = move_hand(joints, np.array([0.02, 0.0, 0.0]), np.zeros(3))
            assert (joints >= panda.JOINT_LOWER).all()
            assert (joints <= panda.JOINT_UPPER).all()
        assert 0.6 < kinematics.forward(joints)[0][0] < 0.9

    def test_end_effector_deltas_add_up(self):
        env = PickPlaceEnv(SIMULATOR, control_mode="ee_delta")
        observation, _ = env.reset(seed=0)
        start = observation[16:19]
        action = np.array([0.01, 0.01, 0.0, 0, 0, 0, 0.04], dtype=np.float32)
        for _ in range(10):
            env.step(action)
        for _ in range(20):
            observation, *_ = env.step(action * [0, 0, 0, 0, 0, 0, 1])
        np.testing.assert_allclose(observation[16:19] - start, [0.1, 0.1, 0.0], atol=1e-3)

    def test_joint_deltas_add_up_and_stop_at_the_limits(self):
        env = PickPlaceEnv(SIMULATOR, control_mode="joint_delta")
        env.reset(seed=0)
        action = np.array([0.05, 0, 0, 0, 0, 0, 0, 0.04], dtype=np.float32)
        for _ in range(100):
            observation, *_ = env.step(action)
        assert observation[0] == pytest.approx(panda.JOINT_UPPER[0], abs=0.02)

    def test_a_too_large_step_is_clipped(self):
        for mode, layout in (("joint_delta", JOINT_DELTA_ACTION), ("ee_delta", EE_DELTA_ACTION)):
            env = PickPlaceEnv(SIMULATOR, control_mode=mode)
            env.reset(seed=0)
            *_, info = env.step(np.ones(layout.size, dtype=np.float32))
            np.testing.assert_array_equal(info["action"], layout.high)
            assert info["action_clipped"]

    def test_a_hand_pose_is_absolute(self):
        env = PickPlaceEnv(SIMULATOR, control_mode="ee_pose")
        env.reset(seed=0)
        action = hand_pose_action(np.append(HOME_JOINT_POS, 0.04))
        action[:3] += [0.05, -0.1, -0.03]
        for _ in range(30):
            observation, *_, info = env.step(action)
        np.testing.assert_allclose(observation[16:19], action[:3], atol=2e-3)
        np.testing.assert_array_equal(info["action"], action)
        assert (info["action_clipped"], info["action_limits"]) == (False, "")

    @pytest.mark.parametrize(
        ("change", "limits"),
        [
            ({0: 5.0}, ["bounds", "reach"]),
            ({0: 0.88}, ["reach"]),
            ({1: 0.4}, []),
            ({3: 0.0}, ["rotation"]),  # HOME's first column is x
            ({6: 1.0, 7: 0.0}, ["rotation"]),  # parallel
            ({3: 0.5, 6: 0.3}, []),  # neither of length one nor at right angles
        ],
    )
    def test_what_a_hand_pose_comes_to_is_told(self, change, limits):
        env = PickPlaceEnv(SIMULATOR, control_mode="ee_pose")
        env.reset(seed=0)
        home = hand_pose_action(np.append(HOME_JOINT_POS, 0.04))
        action = home.copy()
        for index, value in change.items():
            action[index] = value
        for _ in range(45):
            *_, info = env.step(action)
        assert list(info["action_limits"]) == limits
        assert info["action_clipped"] == bool(limits)
        turned = kinematics.forward(env._command.arm)[1]
        np.testing.assert_allclose(rotation.to_columns(turned), home[3:9], atol=1e-3)

    def test_a_hand_pose_that_is_too_far_for_one_step(self):
        env = PickPlaceEnv(SIMULATOR, control_mode="ee_pose")
        env.reset(seed=0)
        action = hand_pose_action(np.append(HOME_JOINT_POS, 0.04))
        action[1] += 0.4
        *_, info = env.step(action)
        assert info["action_limits"] == "speed"
        assert info["action_clipped"]

    def test_a_hand_pose_must_be_finite(self):
        env = PickPlaceEnv(SIMULATOR, control_mode="ee_pose")
        env.reset(seed=0)
        action = np.full(10, np.nan, dtype=np.float32)
        with pytest.raises(ValueError, match=r"must be finite, but \['action_eef_pos_x', "):
            env.step(action)

    def test_only_hand_poses_tell_of_limits(self):
        env = PickPlaceEnv(SIMULATOR)
        env.reset(seed=0)
        *_, info = env.step(env.action_space.high)
        assert "action_limits" not in info

    def test_the_mode_can_be_changed_between_episodes(self):
        env = PickPlaceEnv(SIMULATOR)
        env.reset(seed=0)
        env.set_control_mode("ee_pose")
        action = hand_pose_action(np.append(HOME_JOINT_POS, 0.04))
        with pytest.raises(RuntimeError, match="call reset first"):
            env.step(action)
        env.reset(seed=0)
        env.step(action)
        assert env.action_space.shape == (10,)
        with pytest.raises(ValueError, match="control_mode must be one of"):
            env.set_control_mode("torque")

    def test_the_shape_is_that_of_the_mode(self):
        env = PickPlaceEnv(SIMULATOR, control_mode="ee_delta")
        env.reset(seed=0)
        with pytest.raises(ValueError, match=r"shape \(7,\), got \(8,\)"):
            env.step(np.zeros(8))


@pytest.fixture(scope="module")
def observation():
    config = PickPlaceConfig(render=RenderConfig(resolution=128, preset="fast"))
    env = PickPlaceEnv(obs_type="pixels_agent_pos", image_types=IMAGE_TYPES, config=config)
    options = {"pick": (0.5, 0.15), "place": (0.5, -0.15)}
    yield config, env.reset(seed=0, options=options)[0]
    env.close()


@pytest.mark.skipif(SIMULATOR != "mujoco", reason="needs MuJoCo's images")
class TestDepthAndSegmentation:
    def project(self, config, point):
        """Return column, row and depth of a point (3,), m, in the image of cam_high."""
        camera = config.camera("cam_high")
        right, up, back = (np.array(point) - camera.position) @ camera.rotation()
        focal, center = camera.intrinsics((128, 128))[0, 0], 64
        return int(center + focal * right / -back), int(center - focal * up / -back), -back

    @pytest.mark.parametrize(
        ("name", "point"),
        [
            ("object", (0.5, 0.15, 0.45)),
            ("marker", (0.5, -0.15, 0.412)),
            ("table", (0.7, 0.3, 0.41)),
            ("floor", (1.2, 0.0, 0.0)),
        ],
    )
    def test_what_is_seen_and_how_far(self, observation, name, point):
        config, observation = observation
        column, row, depth = self.project(config, point)
        assert observation["segmentation"]["cam_high"][row, column] == SEGMENTS[name]
        assert observation["depth"]["cam_high"][row, column] == pytest.approx(depth, abs=0.01)

    @pytest.mark.parametrize("preset", ["fast", "pretty", "filament"])
    def test_a_wide_image_is_the_middle_of_a_square_one(self, preset):
        skip_unless_rendered(preset)
        observations = []
        for resolution in (128, (128, 96)):
            config = PickPlaceConfig(render=RenderConfig(resolution, preset))
            env = PickPlaceEnv(obs_type="pixels", image_types=IMAGE_TYPES, config=config)
            observations.append(env.reset(seed=0)[0])
            assert env.observation_space.contains(observations[-1])
            env.close()
        square, wide = observations
        for camera, image in wide["pixels"].items():
            assert image.shape == (96, 128, 3)
            middle = square["pixels"][camera][16:-16].astype(float)
            assert np.abs(image - middle).mean() < 1.0
            np.testing.assert_allclose(
                wide["depth"][camera], square["depth"][camera][16:-16], atol=0.05
            )

    def test_the_hand_is_in_its_own_camera(self, observation):
        segments = observation[1]["segmentation"]["cam_wrist"]
        assert (segments == SEGMENTS["robot"]).mean() > 0.05

    def test_colour_images_stay_complete_beside_them(self, observation):
        _, observation = observation
        assert observation["pixels"]["cam_high"].std() > 10, "rendered in colour"
        assert set(observation) == {"pixels", "depth", "segmentation", "agent_pos"}


def test_environment_state_is_the_default_order():
    assert ENVIRONMENT_STATE.names[:3] == ["object_pos_x", "object_pos_y", "object_pos_z"]
