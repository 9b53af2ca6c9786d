import numpy as np
import pytest

from pp_env import rotation

RNG = np.random.default_rng(0)
QUATS = [q / np.linalg.norm(q) for q in RNG.normal(size=(20, 4))]


@pytest.mark.parametrize("quat", QUATS)
def test_matrix_and_back(quat):
    matrix = rotation.to_matrix(quat)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation.from_matrix(matrix), rotation.canonical(quat), atol=1e-12)


def test_cross_is_numpys():
    first, second = RNG.normal(size=(4, 1, 3)), RNG.normal(size=(5, 3))
    np.testing.assert_array_equal(rotation.cross(first, second), np.cross(first, second))


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_survive_the_matrix(axis):
    quat = np.zeros(4)
    quat[axis + 1] = 1.0
    np.testing.assert_allclose(np.abs(rotation.from_matrix(rotation.to_matrix(quat))), quat)


@pytest.mark.parametrize("quat", QUATS)
def test_unrotate_undoes_rotate(quat):
    vector = RNG.normal(size=3)
    turned = rotation.rotate(quat, vector)
    np.testing.assert_allclose(turned, rotation.to_matrix(quat) @ vector, atol=1e-12)
    np.testing.assert_allclose(rotation.unrotate(quat, turned), vector, atol=1e-12)


def test_canonical_has_a_positive_w():
    assert rotation.canonical(np.array([-0.5, 0.5, 0.5, 0.5]))[0] == 0.5


@pytest.mark.parametrize("angle", [-2.0, 0.0, 0.7])
def test_yaw_of_a_turn_about_z(angle):
    assert rotation.yaw(rotation.about_z(angle)) == pytest.approx(angle)


@pytest.mark.parametrize("angle", [-2.0, 0.0, 1e-9, 0.7])
def test_a_rotation_vector_turns_about_its_direction(angle):
    quat = rotation.from_vector(np.array([0.0, 0.0, angle]))
    np.testing.assert_allclose(quat, rotation.about_z(angle), atol=1e-15)
    axis = np.array([1.0, 2.0, -2.0]) / 3
    quat = rotation.from_vector(angle * axis)
    np.testing.assert_allclose(np.linalg.norm(quat), 1.0)
    np.testing.assert_allclose(rotation.rotate(quat, axis), axis, atol=1e-12)
