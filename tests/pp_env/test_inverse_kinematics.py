import numpy as np

from pp_env import inverse_kinematics, kinematics, panda
from pp_env.config import HOME_JOINT_POS

RNG = np.random.default_rng(0)
SPAN = panda.JOINT_UPPER - panda.JOINT_LOWER
JOINTS = RNG.uniform(panda.JOINT_LOWER + 0.02 * SPAN, panda.JOINT_UPPER - 0.02 * SPAN, (300, 7))


def test_home_has_the_published_tcp():
    position, orientation = kinematics.forward(np.array(HOME_JOINT_POS))
    tcp = position + panda.TCP_OFFSET * orientation[:, 2]
    np.testing.assert_allclose(tcp, [0.307, 0.0, 0.487], atol=1e-3)


def test_every_inverse_solution_reaches_the_pose():
    positions, orientations = kinematics.forward(JOINTS)
    solutions = inverse_kinematics.inverse(positions, orientations, JOINTS[:, 6])
    again, turned = kinematics.forward(solutions)
    found = np.isfinite(solutions).all(-1)
    assert found.any(-1).mean() > 0.98
    np.testing.assert_allclose(
        again[found], np.broadcast_to(positions[:, None], again.shape)[found], atol=1e-9
    )
    np.testing.assert_allclose(
        turned[found], np.broadcast_to(orientations[:, None], turned.shape)[found], atol=1e-9
    )


def test_inverse_finds_the_posture_that_made_the_pose():
    bent = JOINTS[JOINTS[:, 3] < -0.5]
    positions, orientations = kinematics.forward(bent)
    solutions = inverse_kinematics.inverse(positions, orientations, bent[:, 6])
    nearest = np.nanmin(np.abs(solutions - bent[:, None]).max(-1), axis=-1)
    assert nearest.max() < 1e-6


def test_out_of_reach_is_nan():
    solutions = inverse_kinematics.inverse(np.array([1.5, 0.0, 0.5]), np.eye(3), np.array(0.0))
    assert np.isnan(solutions).all()


def test_solutions_keep_to_the_joint_limits():
    positions, orientations = kinematics.forward(JOINTS)
    solutions = inverse_kinematics.inverse(positions, orientations, JOINTS[:, 6])
    found = solutions[np.isfinite(solutions).all(-1)]
    assert (found > panda.JOINT_LOWER).all()
    assert (found < panda.JOINT_UPPER).all()
