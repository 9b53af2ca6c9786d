"""Our kinematics compared with MuJoCo's and with those of an independent library, mink."""

import mink
import mujoco
import numpy as np
import pytest

from pp_env import inverse_kinematics, kinematics, panda
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig
from pp_env.sim.mujoco.model import build_model
from tests.pp_env.test_inverse_kinematics import JOINTS


@pytest.fixture(scope="module")
def model():
    return build_model(PickPlaceConfig())


def arm_configuration(model, joints):
    qpos = np.zeros(model.nq)
    for name, value in zip(panda.ARM_JOINTS, joints, strict=True):
        qpos[model.joint(name).qposadr[0]] = value
    qpos[model.joint("object_free").qposadr[0] + 3] = 1.0
    return qpos


def test_forward_agrees_with_mujoco(model):
    data = mujoco.MjData(model)
    positions, orientations = kinematics.forward(JOINTS)
    for joints, position, orientation in zip(JOINTS, positions, orientations, strict=True):
        data.qpos = arm_configuration(model, joints)
        mujoco.mj_kinematics(model, data)
        hand = data.body(panda.HAND.name)
        np.testing.assert_allclose(position, hand.xpos, atol=1e-9)
        np.testing.assert_allclose(orientation, hand.xmat.reshape(3, 3), atol=1e-9)


def test_mink_converges_to_the_pose_of_our_solution(model):
    """mink, started 0.1 rad away, reaches the pose, and our solution has no error in mink."""
    position, orientation = kinematics.forward(np.array(HOME_JOINT_POS) + 0.2)
    ours = inverse_kinematics.inverse(position, orientation, np.array(HOME_JOINT_POS[6] + 0.2))
    ours = ours[np.isfinite(ours).all(-1)][0]
    task = mink.FrameTask(panda.HAND.name, "body", position_cost=1.0, orientation_cost=1.0)
    target = mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(orientation), position)
    task.set_target(target)
    configuration = mink.Configuration(model, arm_configuration(model, ours + 0.1))
    for _ in range(200):
        velocity = mink.solve_ik(configuration, [task], 0.05, solver="daqp")
        configuration.integrate_inplace(velocity, 0.05)
    assert np.abs(task.compute_error(configuration)).max() < 1e-4
    mine = mink.Configuration(model, arm_configuration(model, ours))
    assert np.abs(task.compute_error(mine)).max() < 1e-6
