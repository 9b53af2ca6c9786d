import numpy as np
import pytest

from experts.diagnosis import failure_phase
from experts.pick_place import PickPlaceExpert, plan
from experts.reach import UnreachableError, hand_orientation
from experts.waypoints import WAYPOINTS, Interpolation
from pp_env import PickPlaceEnv, kinematics, panda
from pp_env.config import HOME_JOINT_POS
from pp_recorder.rollout import run_episode
from tests.fakes import SIMULATOR, FakeSimulator, Log

UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])
PHASES = [
    "APPROACH_PICK", "DOWN_PICK", "CLOSE_GRIPPER", "LIFT", "MOVE_TO_PLACE", "DOWN_PLACE",
    "OPEN_GRIPPER", "RETRACT", "HOME",
]  # fmt: skip


def tcp(action):
    position, orientation = kinematics.forward(np.asarray(action[..., :7], dtype=float))
    return position + panda.TCP_OFFSET * orientation[..., 2]


def planned(expert, pick=(0.5, 0.1), place=(0.4, -0.2), seed=0):
    observation = np.zeros(23)
    observation[:7], observation[14:16] = HOME_JOINT_POS, 0.04
    info = {
        "object_pos": np.array([*pick, 0.43]), "object_quat": UPRIGHT,
        "goal_pos": np.array([*place, 0.41]),
    }  # fmt: skip
    expert.reset(observation, info, np.random.default_rng(seed))
    return np.array([expert.act(observation) for _ in range(expert.num_steps)])


@pytest.fixture(scope="module")
def env():
    env = PickPlaceEnv(SIMULATOR, terminate_on_success=False)
    yield env
    env.close()


def test_there_are_nine_waypoints_and_270_steps():
    assert [w.name for w in WAYPOINTS] == PHASES
    assert PickPlaceExpert().num_steps == 270


def test_interpolation_is_linear_and_then_stands_still():
    actions = Interpolation(np.zeros(8), np.stack([np.ones(8), np.full(8, 3.0)]), 4)
    values = [float(actions.next_action()[0]) for _ in range(10)]
    assert values == [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0]


def test_contact_waypoints_are_exact_and_free_ones_are_not():
    expert = PickPlaceExpert(noise_rad=0.05)
    offsets = {name: [] for name in PHASES}
    for seed in range(20):
        ends = planned(expert, seed=seed)[29::30]
        targets = plan(np.array([0.5, 0.1, 0.43]), UPRIGHT, np.array([0.4, -0.2, 0.41]))
        for name, end, target in zip(PHASES, ends, targets, strict=True):
            offsets[name].append(np.linalg.norm(tcp(end) - tcp(target)))
    for waypoint in WAYPOINTS:
        worst = max(offsets[waypoint.name])
        assert (worst > 0.005) if waypoint.is_free else (worst < 1e-6), waypoint.name


def test_noise_varies_the_posture_at_contact():
    expert = PickPlaceExpert(noise_rad=0.05)
    downs = np.array([planned(expert, seed=seed)[59, :7] for seed in range(5)])
    assert (downs.std(axis=0) > 1e-3).any()


def test_path_noise_leaves_the_line_and_fades_out():
    straight, noisy = (
        np.array([planned(expert, seed=seed)[:, :7] for seed in range(20)])
        for expert in (
            PickPlaceExpert(noise_rad=0.0),
            PickPlaceExpert(noise_rad=0.0, path_noise_rad=0.4),
        )
    )
    apart = np.abs(noisy - straight).max(axis=(0, 2))
    for i, name in enumerate(PHASES):
        within = apart[30 * i : 30 * (i + 1)]
        assert within[-1] < 1e-5, name
        assert (within.max() > 0.2) == (name in ("APPROACH_PICK", "MOVE_TO_PLACE")), name
    assert (np.abs(np.diff(noisy, axis=1)) * 30 < panda.JOINT_VELOCITY_LIMIT + 1e-4).all()
    assert (noisy >= panda.JOINT_LOWER).all()
    assert (noisy <= panda.JOINT_UPPER).all()


@pytest.mark.parametrize("control_hz", [10, 15, 20, 60])
def test_path_noise_keeps_the_joint_speeds_at_every_rate(control_hz):
    expert = PickPlaceExpert(noise_rad=0.0, path_noise_rad=0.5, control_hz=control_hz)
    assert expert.num_steps == 9 * control_hz
    for seed in range(10):
        arm = planned(expert, seed=seed)[:, :7]
        speed = np.abs(np.diff(arm, axis=0)) * control_hz
        assert (speed < panda.JOINT_VELOCITY_LIMIT + 1e-4).all()


def test_without_noise_episodes_are_equal():
    expert = PickPlaceExpert(noise_rad=0.0)
    np.testing.assert_array_equal(planned(expert, seed=0), planned(expert, seed=1))


def test_the_same_generator_gives_the_same_actions():
    expert = PickPlaceExpert()
    np.testing.assert_array_equal(planned(expert, seed=3), planned(expert, seed=3))


def test_actions_keep_to_the_joint_limits_and_speeds():
    expert = PickPlaceExpert()
    for pick, place in [((0.7, 0.3), (0.3, -0.3)), ((0.3, -0.3), (0.7, -0.3))]:
        arm = planned(expert, pick, place)[:, :7]
        assert (arm >= panda.JOINT_LOWER).all()
        assert (arm <= panda.JOINT_UPPER).all()
        assert (np.abs(np.diff(arm, axis=0)) * 30 < panda.JOINT_VELOCITY_LIMIT).all()


def test_the_hand_does_not_turn_the_object_over():
    for pick, place in [((0.7, 0.3), (0.3, -0.3)), ((0.5, 0.0), (0.4, 0.2))]:
        targets = plan(np.array([*pick, 0.43]), UPRIGHT, np.array([*place, 0.41]))
        _, turns = kinematics.forward(targets[1:8, :7])
        vertical = turns[0].T @ np.array([0.0, 0.0, 1.0])
        np.testing.assert_allclose(
            turns.transpose(0, 2, 1)[..., 2], np.tile(vertical, (7, 1)), atol=1e-6
        )


def test_tilt_points_the_fingers_away_from_the_base():
    assert hand_orientation(0.0, 0.2)[0, 2] == pytest.approx(np.sin(0.2))
    np.testing.assert_allclose(hand_orientation(0.0, 0.0), np.diag([1.0, -1.0, -1.0]), atol=1e-12)


def test_an_unreachable_place_is_an_error_before_any_action():
    with pytest.raises(UnreachableError, match=r"pick \(0.500, 0.100\) and place \(0.790, 0.390\)"):
        planned(PickPlaceExpert(), place=(0.79, 0.39))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps_per_segment": 0}, "at least 1, got 0"),
        ({"noise_rad": -0.1}, "from 0 to 0.2, got -0.1"),
        ({"noise_rad": 1.0}, "from 0 to 0.2, got 1.0"),
        ({"path_noise_rad": 0.6}, "path_noise_rad must be from 0 to 0.5, got 0.6"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PickPlaceExpert(**arguments)


def test_act_before_reset():
    with pytest.raises(RuntimeError, match="call reset first"):
        PickPlaceExpert().act(np.zeros(23))


@pytest.mark.parametrize("seed", range(5))
def test_it_succeeds(env, seed):
    expert = PickPlaceExpert()
    episode = run_episode(env, expert, [], seed, 0, expert.num_steps)
    assert episode.success
    assert episode.length == 270


@pytest.mark.parametrize("pick", [(0.3, -0.3), (0.3, 0.3), (0.7, -0.3), (0.7, 0.3)])
def test_it_succeeds_from_every_corner(env, pick):
    expert = PickPlaceExpert()
    options = {"pick": pick, "place": (1.0 - pick[0], -pick[1])}
    assert run_episode(env, expert, [], 0, 0, expert.num_steps, options).success


def test_a_yawed_object_is_gripped_at_its_faces():
    yaw = 0.5
    quat_wxyz = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
    targets = plan(np.array([0.5, 0.1, 0.43]), quat_wxyz, np.array([0.4, -0.2, 0.41]))
    _, turn = kinematics.forward(targets[1, :7])
    closing = np.arctan2(turn[1, 1], turn[0, 1])
    quarter = np.pi / 2
    turned = closing - yaw  # a multiple of a quarter turn
    assert turned == pytest.approx(quarter * round(turned / quarter), abs=1e-6)


def test_it_runs_on_any_simulator():
    env = PickPlaceEnv(simulator=FakeSimulator, terminate_on_success=False)
    expert, log = PickPlaceExpert(), Log()
    episode = run_episode(env, expert, [log], 0, 0, expert.num_steps)
    assert episode.success
    assert [log.steps[k].phase for k in range(0, 270, 30)] == PHASES


class TestDiagnosis:
    HELD = {"is_grasped": True, "unmet_conditions": []}
    FREE = {"is_grasped": False, "unmet_conditions": ["away_from_target"]}

    def test_never_grasped(self):
        assert failure_phase([(name, self.FREE) for name in PHASES]) == "CLOSE_GRIPPER"

    def test_lost_on_the_way(self):
        trace = [("CLOSE_GRIPPER", self.HELD), ("LIFT", self.HELD), ("MOVE_TO_PLACE", self.FREE)]
        assert failure_phase([*trace, ("HOME", self.FREE)]) == "MOVE_TO_PLACE"

    def test_released_but_not_there(self):
        trace = [("DOWN_PLACE", self.HELD), ("OPEN_GRIPPER", self.FREE), ("HOME", self.FREE)]
        assert failure_phase(trace) == "OPEN_GRIPPER"

    def test_arm_did_not_come_home(self):
        last = {"is_grasped": False, "unmet_conditions": ["arm_not_home"]}
        assert failure_phase([("DOWN_PLACE", self.HELD), ("HOME", last)]) == "HOME"


def test_it_can_stand_still_at_the_end_for_an_arm_that_follows_with_a_delay():
    expert = PickPlaceExpert(noise_rad=0.0, hold_steps=3)
    assert expert.num_steps == 273
    observation, info = PickPlaceEnv(FakeSimulator).reset(seed=0)
    expert.reset(observation, info, np.random.default_rng(0))
    actions = np.array([expert.act(observation) for _ in range(expert.num_steps)])
    np.testing.assert_array_equal(actions[269:], np.repeat(actions[269:270], 4, axis=0))
    assert expert.phase == "HOME"
    with pytest.raises(ValueError, match="hold_steps must not be negative, got -1"):
        PickPlaceExpert(hold_steps=-1)
