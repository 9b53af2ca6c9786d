import numpy as np
import pytest

from experts.action_noise import ActionNoise
from experts.reach import heading
from experts.reactive import ReactiveExpert
from experts.waypoints import PHASES
from pp_env import PickPlaceConfig, PickPlaceEnv, panda, rotation
from pp_env.config import GraspConfig, TaskConfig, TimingConfig
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_recorder.rollout import run_episode
from tests.fakes import SIMULATOR, FakeSimulator, Log


@pytest.fixture(scope="module")
def env():
    env = PickPlaceEnv(SIMULATOR, terminate_on_success=False)
    yield env
    env.close()


def run(env, expert=None, seed=0, options=None, disturb=None):
    """Run an episode; `disturb(env, step, info)` may interfere and returns None or (obs, info)."""
    expert = expert or ReactiveExpert()
    observation, info = env.reset(seed=seed, options=options)
    expert.reset(observation, info, np.random.default_rng(seed))
    actions, phases = [], []
    for step in range(expert.num_steps):
        actions.append(expert.act(observation, info))
        phases.append(expert.phase)
        observation, _, _, _, info = env.step(actions[-1])
        if disturb is not None:
            observation, info = disturb(env, step, info) or (observation, info)
        if expert.done:
            break
    return np.array(actions), phases, info


def test_it_succeeds_and_names_its_phases_in_order(env):
    actions, phases, info = run(env)
    assert info["is_success"]
    assert set(phases) == set(PHASES)
    firsts = [phases.index(phase) for phase in PHASES]
    assert firsts == sorted(firsts)
    assert len(actions) < 270


def test_it_needs_no_physics():
    env = PickPlaceEnv(FakeSimulator, terminate_on_success=False)
    _, _, info = run(env)
    assert info["is_success"]


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_joint_speed_and_acceleration_are_bounded(env, speed):
    actions, _, info = run(env, ReactiveExpert(joint_speed=speed))
    assert info["is_success"]
    velocity = np.diff(actions[:, :7].astype(float), axis=0) * 30
    assert np.abs(velocity).max() <= speed * 1.01
    assert np.abs(np.diff(velocity, axis=0)).max() * 30 <= 2.5 * 4.0


@pytest.mark.parametrize("hz", [10, 15, 20, 30])
def test_every_rate_will_do(hz):
    env = PickPlaceEnv(
        SIMULATOR, config=PickPlaceConfig(timing=TimingConfig(hz)), terminate_on_success=False
    )
    actions, _, info = run(env, ReactiveExpert(control_hz=hz))
    assert info["is_success"]
    assert 4 < len(actions) / hz < 10
    env.close()


def test_the_gripper_is_commanded_at_once_or_by_a_ramp(env):
    binary, _, _ = run(env)
    assert set(binary[:, 7]) == {np.float32(0.0), np.float32(0.04)}
    ramped, _, info = run(env, ReactiveExpert(gripper="ramped"))
    assert info["is_success"]
    assert np.abs(np.diff(ramped[:, 7])).max() < 0.08 / 30 * 1.01


def test_it_plans_anew_when_the_object_is_moved(env):
    def move(env, step, info):
        if step == 25:
            x, y, z = info["object_pos"]
            side = 0.1 if y < 0 else -0.1
            return env.move_object(np.array([x, y + side, z]), info["object_quat"])
        return None

    _, phases, info = run(env, disturb=move)
    assert info["is_success"]


def test_it_grasps_again_after_a_miss(env):
    moved = []

    def snatch(env, step, info):
        if not moved and info["unmet_conditions"] and env_is_closing(env):
            moved.append(step)
            x, y, z = info["object_pos"]
            side = 0.12 if y < 0 else -0.12
            return env.move_object(np.array([x, y + side, z]), info["object_quat"])
        return None

    def env_is_closing(env):
        return not env._state.is_grasped and env._command.gripper == 0.0

    _, phases, info = run(env, disturb=snatch)
    assert moved
    assert info["is_success"]
    begins = [k for k, phase in enumerate(phases[1:]) if phase == "CLOSE_GRIPPER" != phases[k]]
    assert len(begins) == 2


def test_it_picks_up_what_was_dropped(env):
    dropped = []

    def drop(env, step, info):
        if not dropped and info["is_grasped"] and info["object_pos"][2] > 0.5:
            dropped.append(step)
            arm = env._command.arm
            for _ in range(15):
                observation, info = env.advance(np.append(arm, panda.FINGER_OPEN))
            return observation, info
        return None

    _, phases, info = run(env, disturb=drop)
    assert dropped
    assert info["is_success"]
    assert phases[dropped[0] + 1 :].count("LIFT") > 0


def test_it_recovers_from_a_push_of_the_arm(env):
    def push(env, step, info):
        if step == 40:
            arm = env._command.arm
            for share in np.linspace(0.1, 1.0, 10):
                drift = np.array([0.3, -0.1, 0.2, 0.1, 0.0, 0.0, 0.0])
                observation, info = env.advance(np.append(arm + share * drift, panda.FINGER_OPEN))
            return observation, info
        return None

    _, _, info = run(env, disturb=push)
    assert info["is_success"]


def test_an_object_in_hand_goes_straight_to_the_goal(env):
    expert = ReactiveExpert()
    observation, info = env.reset(seed=3)
    expert.reset(observation, info, np.random.default_rng(0))
    while not (info["is_grasped"] and info["object_pos"][2] > 0.48):
        observation, _, _, _, info = env.step(expert.act(observation, info))
    other = ReactiveExpert()
    other.reset(observation, info, np.random.default_rng(1))
    phases = []
    while not other.done:
        observation, _, _, _, info = env.step(other.act(observation, info))
        phases.append(other.phase)
        assert len(phases) < 300
    assert info["is_success"]
    assert "APPROACH_PICK" not in phases


@pytest.mark.parametrize("grasp", ["fixed_joint", "friction"])
def test_noise_delay_and_friction_are_no_obstacle(grasp):
    config = PickPlaceConfig(
        grasp=GraspConfig(mode=grasp), randomization=RANDOMIZATION_PRESETS["full"],
        task=TaskConfig(random_yaw=True),
    )  # fmt: skip
    env = PickPlaceEnv(SIMULATOR, config=config, terminate_on_success=False)
    for seed in range(3):
        assert run(env, seed=seed)[2]["is_success"]
    env.close()


def test_an_unreachable_object_is_left_alone(env):
    _, phases, info = run(env, options={"pick": (0.79, 0.39), "place": (0.5, 0.0)})
    assert not info["is_success"]
    assert set(phases) == {"HOME"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"joint_speed": 0.0}, "joint_speed must be above 0"),
        ({"joint_speed": 3.0}, "joint_speed must be above 0 and at most"),
        ({"gripper": "soft"}, "gripper must be"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReactiveExpert(**arguments)


def test_the_heading_of_a_cube_on_its_side():
    for axis in np.eye(3):
        tipped = rotation.from_vector(axis * np.pi / 2)
        turned = rotation.multiply(rotation.about_z(0.3), tipped)
        assert (heading(turned) - 0.3) % (np.pi / 2) == pytest.approx(0.0, abs=1e-9) or (
            heading(turned) - 0.3
        ) % (np.pi / 2) == pytest.approx(np.pi / 2, abs=1e-9)


# Action noise


def test_noise_is_in_proportion_to_the_motion():
    noise = ActionNoise(0.1)
    noise.reset(np.random.default_rng(0))
    still, gripper = np.zeros(8, np.float32), np.zeros(8, np.float32)
    gripper[7] = 0.04
    np.testing.assert_array_equal(noise(still), still)
    np.testing.assert_array_equal(noise(gripper), gripper)  # only the fingers move
    errors = []
    for step in range(1, 2000):
        action = np.zeros(8, np.float32)
        action[0] = step * 0.5
        errors.append(noise(action) - action)
    errors = np.array(errors)
    assert errors[:, 7].max() == 0.0
    np.testing.assert_allclose(errors[:, :7].std(), 0.05, rtol=0.05)


def test_executed_and_wanted_action_are_told_apart(env):
    log, noise = Log(), ActionNoise(0.2)
    expert = ReactiveExpert()
    episode = run_episode(env, expert, [log], 1, 0, expert.num_steps, disturbance=noise)
    wanted = np.array([step.action for step in log.steps])
    executed = np.array([step.executed for step in log.steps])
    assert episode.success
    assert (wanted != executed).any()
    np.testing.assert_array_equal(wanted[:, 7], executed[:, 7])
    phases = np.array([step.phase for step in log.steps])
    still = phases == "CLOSE_GRIPPER"
    np.testing.assert_array_equal(wanted[still][2:], executed[still][2:])


def test_the_share_of_noise_is_checked():
    with pytest.raises(ValueError, match="share must be from 0 to"):
        ActionNoise(-0.1)
