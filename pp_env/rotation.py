"""Rotations as quaternions (w, x, y, z) in plain numpy; the last axis holds the numbers."""

import math

import numpy as np

_YZX, _ZXY = np.array([1, 2, 0]), np.array([2, 0, 1])
_SHORTEST = 1e-3  # length of a column below which its direction says nothing


def rotate(quat_wxyz: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return the vector (..., 3), rotated by the unit quaternion (..., 4)."""
    w, axis = quat_wxyz[..., :1], quat_wxyz[..., 1:]
    twice = 2.0 * cross(axis, vector)
    return vector + w * twice + cross(axis, twice)


def unrotate(quat_wxyz: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return the vector (..., 3), rotated by the inverse of the unit quaternion (..., 4)."""
    return rotate(inverse(quat_wxyz), vector)


def canonical(quat_wxyz: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,) of the same rotation that has w >= 0."""
    return -quat_wxyz if quat_wxyz[0] < 0 else quat_wxyz


def nearest(quat_wxyz: np.ndarray, reference_wxyz: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,) of the same rotation that is nearer to the reference (4,)."""
    return -quat_wxyz if quat_wxyz @ reference_wxyz < 0 else quat_wxyz


def from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,), w >= 0, of a rotation matrix (3, 3)."""
    m = matrix
    # The largest of the four squares keeps the division well conditioned.
    squares = 1.0 + np.array(
        [
            m[0, 0] + m[1, 1] + m[2, 2],
            m[0, 0] - m[1, 1] - m[2, 2],
            m[1, 1] - m[0, 0] - m[2, 2],
            m[2, 2] - m[0, 0] - m[1, 1],
        ]
    )
    rows = np.array(
        [
            [squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], squares[1], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], squares[2], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[3]],
        ]
    )
    best = rows[int(np.argmax(squares))]
    return canonical(best / np.linalg.norm(best))


def to_matrix(quat_wxyz: np.ndarray) -> np.ndarray:
    """Return the rotation matrix (..., 3, 3) of a unit quaternion (..., 4)."""
    return np.swapaxes(rotate(quat_wxyz[..., None, :], np.eye(3)), -1, -2)


def to_columns(matrix: np.ndarray) -> np.ndarray:
    """Return the first two columns (..., 6), one after the other, of matrices (..., 3, 3).

    They are a rotation without jumps, unlike a quaternion: Zhou et al., "On the Continuity of
    Rotation Representations in Neural Networks" (CVPR 2019).
    """
    return np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)


def from_columns(columns: np.ndarray) -> np.ndarray | None:
    """Return the rotation matrix (3, 3) whose first two columns (6,) are given, by Gram-Schmidt.

    They may have any length and angle. If one is almost zero or both are almost parallel, return
    None.
    """
    first, second = columns[:3], columns[3:]
    length = math.sqrt(first @ first)
    if length < _SHORTEST:
        return None
    first = first / length
    second = second - (first @ second) * first
    length = math.sqrt(second @ second)
    if length < _SHORTEST:
        return None
    second = second / length
    return np.stack([first, second, cross(first, second)], axis=-1)


def about_z(angle: float) -> np.ndarray:
    """Return the unit quaternion (4,) of a rotation by `angle`, rad, about z."""
    return np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])


def from_vector(vector: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,) of a rotation vector (3,), rad.

    The rotation is about the vector's direction, by its length.
    """
    half = np.linalg.norm(vector) / 2
    # sinc is sin(pi x) / (pi x), so that no angle is a division by zero.
    return np.append(np.cos(half), np.sinc(half / np.pi) / 2 * vector)


def yaw(quat_wxyz: np.ndarray) -> float:
    """Return the heading of a unit quaternion (4,), rad.

    It is the angle from the world's x axis to the rotated x axis, seen from above.
    """
    x_axis = rotate(quat_wxyz, np.array([1.0, 0.0, 0.0]))
    return float(np.arctan2(x_axis[1], x_axis[0]))


def cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cross products (..., 3) of vectors (..., 3), in a fifth of `np.cross`'s time."""
    return first.take(_YZX, -1) * second.take(_ZXY, -1) - first.take(_ZXY, -1) * second.take(
        _YZX, -1
    )


def inverse(quat_wxyz: np.ndarray) -> np.ndarray:
    """Return the inverse of a unit quaternion (..., 4)."""
    return quat_wxyz * np.array([1.0, -1.0, -1.0, -1.0])


def multiply(first_wxyz: np.ndarray, second_wxyz: np.ndarray) -> np.ndarray:
    """Return the rotation by `second_wxyz` and then by `first_wxyz`, unit quaternions (4,)."""
    (w, *u), (s, *v) = first_wxyz, second_wxyz
    u, v = np.array(u), np.array(v)
    return np.concatenate([[w * s - u @ v], w * v + s * u + cross(u, v)])
