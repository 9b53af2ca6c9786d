"""From poses of the hand to joints: exact, continuous, and back to HOME."""

import numpy as np
import pytest

from pp_env import hand_pose, kinematics, panda, rotation
from pp_env.config import HOME_JOINT_POS, TaskConfig
from pp_env.control import CONTROL_MODES, hand_pose_action
from pp_env.hand_pose import follow
from pp_env.inverse_kinematics import inverse
from pp_env.sim.api import Command
from tests.pp_env.test_inverse_kinematics import JOINTS

HOME = np.array(HOME_JOINT_POS)
HAND, POINTING_DOWN = kinematics.forward(HOME)
BENT = JOINTS[JOINTS[:, 3] < -0.5][:60]
PERIODS = [1 / 30, 1 / 20, 1 / 15, 1 / 10]


def go(joints, position, orientation, steps=60, period=1 / 30):
    """Repeat a target; return the last joints and what limited the last step."""
    limits = []
    for _ in range(steps):
        before = joints
        joints, limits = follow(joints, np.asarray(position), orientation, period)
        assert (np.abs(joints - before) <= panda.JOINT_VELOCITY_LIMIT * period + 1e-9).all()
        assert (joints >= panda.JOINT_LOWER).all()
        assert (joints <= panda.JOINT_UPPER).all()
    return joints, limits


def way(count, seed):
    """Return poses of a hand that leaves HOME, turns, and comes back, `count` + 1 of them."""
    rng = np.random.default_rng(seed)
    aside, turn = rng.uniform(-1, 1, 3) * [0.12, 0.35, 0.2], rng.uniform(-0.5, 0.5, 3)
    poses = []
    for k in range(count + 1):
        share = np.sin(np.pi * k / count)
        turned = rotation.to_matrix(rotation.from_vector(share * turn)) @ POINTING_DOWN
        poses.append((HAND + share * aside, turned))
    return poses


def test_the_joint_jacobian_is_that_of_the_other_functions():
    for joints in BENT:
        position, orientation, jacobian = kinematics.forward_and_jacobian(joints)
        np.testing.assert_allclose(position, kinematics.forward(joints)[0], atol=1e-12)
        np.testing.assert_allclose(orientation, kinematics.forward(joints)[1], atol=1e-12)
        np.testing.assert_allclose(jacobian, kinematics.jacobian(joints), atol=1e-12)


@pytest.mark.parametrize("period", PERIODS)
def test_a_pose_of_near_joints_is_met_in_one_step(period):
    rng = np.random.default_rng(0)
    met = 0
    for joints in BENT:
        near = np.clip(joints + rng.uniform(-0.01, 0.01, 7), panda.JOINT_LOWER, panda.JOINT_UPPER)
        position, orientation = kinematics.forward(near)
        found, limits = follow(joints, position, orientation, period)
        if not limits:
            met += 1
            np.testing.assert_allclose(kinematics.forward(found)[0], position, atol=1e-6)
            np.testing.assert_allclose(kinematics.forward(found)[1], orientation, atol=1e-6)
    assert met > 0.9 * len(BENT)


def test_joints_to_pose_and_back():
    mode = CONTROL_MODES["ee_pose"]
    for offset in np.random.default_rng(1).uniform(-0.01, 0.01, (20, 7)):
        action = hand_pose_action(np.append(HOME + offset, 0.03).astype(np.float32))
        (arm, gripper), limits = mode.command(Command(HOME, 0.04), action, 1 / 30)
        assert limits == []
        assert gripper == pytest.approx(0.03)
        again = hand_pose_action(np.append(arm, gripper))
        np.testing.assert_allclose(again, action, atol=1e-6)


def test_many_actions_are_converted_at_once():
    actions = np.hstack([BENT, np.full((len(BENT), 1), 0.01)])
    together = hand_pose_action(actions)
    assert together.shape == (len(BENT), 10)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together[3], hand_pose_action(actions[3]), atol=1e-6)


def test_far_poses_are_reached_from_anywhere():
    joints = HOME
    for target in BENT:
        position, orientation = kinematics.forward(target)
        joints, limits = go(joints, position, orientation, period=1 / 10)
        assert limits == []
        np.testing.assert_allclose(kinematics.forward(joints)[0], position, atol=1e-6)


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("seed", range(5))
def test_a_way_back_to_home_brings_the_joints_home(period, seed):
    joints, seconds = HOME, 4
    poses = way(round(seconds / period), seed)
    for before, after in zip(poses, poses[1:], strict=False):
        last = joints
        joints, limits = follow(joints, *after, period)
        assert limits == []
        moved = np.linalg.norm(after[0] - before[0])
        assert np.abs(joints - last).max() < 8 * moved + 1.5 * period
        np.testing.assert_allclose(kinematics.forward(joints)[0], after[0], atol=1e-6)
    assert np.abs(joints - HOME).max() < TaskConfig.home_tolerance / 5


@pytest.mark.parametrize("period", PERIODS)
def test_the_free_joint_drifts_home_at_a_bounded_rate(period):
    postures = inverse(HAND, POINTING_DOWN, HOME[6] + np.array([0.5]))[0]
    postures = postures[np.isfinite(postures[:, 0])]
    joints = postures[np.abs(postures - HOME).max(-1).argmin()]
    assert np.abs(joints - HOME).max() > 0.3
    for _ in range(round(2 / period)):
        last = joints
        joints, limits = follow(joints, HAND, POINTING_DOWN, period)
        assert limits == []
        assert np.abs(joints - last).max() < 1.5 * period
        np.testing.assert_allclose(kinematics.forward(joints)[0], HAND, atol=1e-6)
    np.testing.assert_allclose(joints, HOME, atol=1e-4)


def test_where_joints_1_and_3_are_parallel_the_arm_does_not_swing():
    """Joint 2 passes zero, where the least change of joint 7 would turn them by a lot."""
    joints = HOME
    for share in np.linspace(0, 1, 61)[1:]:
        upright = HOME + share * np.array([0.1, 1.0, -0.1, 0.9, 0.0, -0.1, 0.0])
        last = joints
        joints, limits = follow(joints, *kinematics.forward(upright), 1 / 30)
        assert limits == []
        assert np.abs(joints - last).max() < 0.06
    assert joints[1] > 0.1


@pytest.mark.parametrize("target", [(1.2, 0.0, 0.3), (0.7, 0.7, 0.8), (0.05, 0.0, 0.35)])
def test_out_of_reach_the_hand_stops_at_the_edge(target):
    joints, limits = go(HOME, target, POINTING_DOWN)
    assert limits == ["reach"]
    position, orientation = kinematics.forward(joints)
    np.testing.assert_allclose(orientation, POINTING_DOWN, atol=1e-6)
    ahead, gone = np.asarray(target) - HAND, position - HAND
    share = gone @ ahead / (ahead @ ahead)
    assert 0 < share < 1
    np.testing.assert_allclose(gone, share * ahead, atol=1e-6)
    _, limits = go(joints, HAND + (share + 0.02) * ahead, POINTING_DOWN, steps=2)
    assert "reach" in limits, "a little further is out of reach, too"


def test_the_edge_is_followed_sideways():
    joints, _ = go(HOME, (1.2, 0.0, 0.3), POINTING_DOWN)
    aside, _ = go(joints, (1.2, 0.3, 0.3), POINTING_DOWN)
    apart = kinematics.forward(aside)[0] - kinematics.forward(joints)[0]
    assert apart[1] > 0.1


def test_a_rotation_that_is_nowhere_in_reach_leaves_the_arm_still(monkeypatch):
    monkeypatch.setattr(hand_pose, "inverse", lambda *_: np.full((25, 49, 4, 7), np.nan))
    joints, limits = follow(HOME, HAND + [0.9, 0, 0], POINTING_DOWN, 1 / 30)
    np.testing.assert_array_equal(joints, HOME)
    assert limits == ["reach"]


def test_without_a_rotation_the_last_one_stays():
    joints, limits = follow(HOME, HAND + [0.01, 0, 0], None, 1 / 30)
    assert limits == ["rotation"]
    np.testing.assert_allclose(kinematics.forward(joints)[0], HAND + [0.01, 0, 0], atol=1e-6)
    np.testing.assert_allclose(kinematics.forward(joints)[1], POINTING_DOWN, atol=1e-6)


def test_a_far_pose_is_approached_at_the_speed_limit():
    joints, limits = follow(HOME, HAND + [0.0, 0.3, 0.0], POINTING_DOWN, 1 / 30)
    assert limits == ["speed"]
    share = np.abs(joints - HOME) * 30 / panda.JOINT_VELOCITY_LIMIT
    assert share.max() == pytest.approx(1.0)
