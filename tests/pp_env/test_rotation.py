import numpy as np
import pytest

from pp_env import rotation

RNG = np.random.default_rng(0)
QUATS_WXYZ = [q / np.linalg.norm(q) for q in RNG.normal(size=(20, 4))]


@pytest.mark.parametrize("quat_wxyz", QUATS_WXYZ)
def test_matrix_and_back(quat_wxyz):
    matrix = rotation.to_matrix(quat_wxyz)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    np.testing.assert_allclose(
        rotation.from_matrix(matrix), rotation.canonical(quat_wxyz), atol=1e-12
    )


def test_columns_and_back():
    for quat_wxyz in QUATS_WXYZ:
        matrix = rotation.to_matrix(quat_wxyz)
        columns = rotation.to_columns(matrix)
        np.testing.assert_array_equal(columns, [*matrix[:, 0], *matrix[:, 1]])
        np.testing.assert_allclose(rotation.from_columns(columns), matrix, atol=1e-12)


def test_columns_need_no_length_and_no_right_angle():
    matrix = rotation.from_columns(np.array([0.5, 0.0, 0.0, 0.3, 0.2, 0.0]))
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    "columns", [np.zeros(6), [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [1, 0, 0, -0.7, 1e-4, 0]]
)
def test_columns_that_are_no_rotation(columns):
    assert rotation.from_columns(np.array(columns, dtype=np.float64)) is None


def test_cross_is_numpys():
    first, second = RNG.normal(size=(4, 1, 3)), RNG.normal(size=(5, 3))
    np.testing.assert_array_equal(rotation.cross(first, second), np.cross(first, second))


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_survive_the_matrix(axis):
    quat_wxyz = np.zeros(4)
    quat_wxyz[axis + 1] = 1.0
    np.testing.assert_allclose(
        np.abs(rotation.from_matrix(rotation.to_matrix(quat_wxyz))), quat_wxyz
    )


@pytest.mark.parametrize("quat_wxyz", QUATS_WXYZ)
def test_unrotate_undoes_rotate(quat_wxyz):
    vector = RNG.normal(size=3)
    turned = rotation.rotate(quat_wxyz, vector)
    np.testing.assert_allclose(turned, rotation.to_matrix(quat_wxyz) @ vector, atol=1e-12)
    np.testing.assert_allclose(rotation.unrotate(quat_wxyz, turned), vector, atol=1e-12)


def test_nearest_has_the_sign_of_the_reference():
    quat = np.array([0.1, -0.7, 0.7, 0.1])
    quat /= np.linalg.norm(quat)
    for sign in (1, -1):
        assert rotation.nearest(sign * quat, np.array([0.0, 1.0, 0.0, 0.0]))[1] > 0
        assert np.array_equal(rotation.nearest(sign * quat, quat), quat)


def test_canonical_has_a_positive_w():
    assert rotation.canonical(np.array([-0.5, 0.5, 0.5, 0.5]))[0] == 0.5


@pytest.mark.parametrize("angle", [-2.0, 0.0, 0.7])
def test_yaw_of_a_turn_about_z(angle):
    assert rotation.yaw(rotation.about_z(angle)) == pytest.approx(angle)


@pytest.mark.parametrize("angle", [-2.0, 0.0, 1e-9, 0.7])
def test_a_rotation_vector_turns_about_its_direction(angle):
    quat_wxyz = rotation.from_vector(np.array([0.0, 0.0, angle]))
    np.testing.assert_allclose(quat_wxyz, rotation.about_z(angle), atol=1e-15)
    axis = np.array([1.0, 2.0, -2.0]) / 3
    quat_wxyz = rotation.from_vector(angle * axis)
    np.testing.assert_allclose(np.linalg.norm(quat_wxyz), 1.0)
    np.testing.assert_allclose(rotation.rotate(quat_wxyz, axis), axis, atol=1e-12)
