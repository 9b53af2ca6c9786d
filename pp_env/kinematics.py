"""Kinematics of the Panda in plain numpy: pose, Jacobian and differential steps of the hand.

Inverse kinematics in closed form is in `pp_env.inverse_kinematics`.
"""

import numpy as np

from pp_env import panda, rotation

_LINK_ROTATIONS = [rotation.to_matrix(np.array(link.quat_wxyz)) for link in panda.ARM]
_LINK_POSITIONS = [np.array(link.position) for link in panda.ARM]
_HAND_POSITION = np.array(panda.HAND.position)
_HAND_ROTATION = rotation.to_matrix(np.array(panda.HAND.quat_wxyz))
_DAMPING = (
    0.02  # of the least-squares step: small against a posture's gain, safe near singularities
)
_STEPS = 4  # Newton steps: enough for micrometres after a move of centimetres


def forward(joint_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pose of `panda_hand` for joints (..., 7), rad.

    Returns:
        Position (..., 3), m, and rotation matrix (..., 3, 3), base frame.
    """
    position = np.zeros((*joint_pos.shape[:-1], 3))
    orientation = np.broadcast_to(np.eye(3), (*joint_pos.shape[:-1], 3, 3))
    for i, (link, turn) in enumerate(zip(panda.ARM, _LINK_ROTATIONS, strict=True)):
        position = position + orientation @ np.array(link.position)
        orientation = orientation @ turn @ about_z(joint_pos[..., i])
    position = position + orientation @ np.array(panda.HAND.position)
    return position, orientation @ _HAND_ROTATION


def jacobian(joint_pos: np.ndarray) -> np.ndarray:
    """Return the geometric Jacobian of `panda_hand` for joints (7,), rad.

    Returns:
        (6, 7), base frame: rows 0 to 2 are the velocity of the hand's origin, m/s, rows 3 to 5 its
        angular velocity, rad/s, per rad/s of each joint.
    """
    position, orientation = np.zeros(3), np.eye(3)
    origins, axes = np.empty((7, 3)), np.empty((7, 3))
    for i, (link, turn) in enumerate(zip(panda.ARM, _LINK_ROTATIONS, strict=True)):
        position = position + orientation @ link.position
        orientation = orientation @ turn
        origins[i], axes[i] = position, orientation[:, 2]
        orientation = orientation @ about_z(joint_pos[i])
    hand = position + orientation @ panda.HAND.position
    return np.concatenate([rotation.cross(axes, hand - origins).T, axes.T])


def forward_and_jacobian(joint_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `forward` and `jacobian` do for joints (7,), rad, in a third of their time."""
    position, orientation = np.zeros(3), np.eye(3)
    origins, axes = np.empty((7, 3)), np.empty((7, 3))
    cosines, sines = np.cos(joint_pos).tolist(), np.sin(joint_pos).tolist()
    for i, (offset, turn) in enumerate(zip(_LINK_POSITIONS, _LINK_ROTATIONS, strict=True)):
        position = position + orientation @ offset
        orientation = orientation @ turn
        origins[i], axes[i] = position, orientation[:, 2]
        c, s = cosines[i], sines[i]
        orientation = orientation @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    hand = position + orientation @ _HAND_POSITION
    columns = np.concatenate([rotation.cross(axes, hand - origins).T, axes.T])
    return hand, orientation @ _HAND_ROTATION, columns


def move_hand(joint_pos: np.ndarray, translation: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return the joints (7,), rad, that move the hand a little, near the given joints.

    Solved by damped least squares within the joint limits. If the pose is out of reach, the hand
    ends near it.

    Args:
        joint_pos: (7,) the present joints, rad.
        translation: (3,) translation of the origin of `panda_hand`, m, base frame.
        turn: (3,) rotation vector, rad, base frame.
    """
    position, orientation = forward(joint_pos)
    target_position = position + translation
    target_orientation = rotation.to_matrix(rotation.from_vector(turn)) @ orientation
    joints = joint_pos
    for _ in range(_STEPS):
        position, orientation = forward(joints)
        # Twice the vector part of the quaternion is the remaining rotation vector, when small.
        remaining_turn = rotation.from_matrix(target_orientation @ orientation.T)[1:] * 2.0
        error = np.concatenate([target_position - position, remaining_turn])
        j = jacobian(joints)
        step = j.T @ np.linalg.solve(j @ j.T + _DAMPING**2 * np.eye(6), error)
        joints = np.clip(joints + step, panda.JOINT_LOWER, panda.JOINT_UPPER)
    return joints


def about_z(angle: np.ndarray) -> np.ndarray:
    """Return the rotation matrices (..., 3, 3) about z by angles (...), rad."""
    matrix = np.zeros((*np.shape(angle), 3, 3))
    matrix[..., 0, 0] = matrix[..., 1, 1] = np.cos(angle)
    matrix[..., 1, 0] = np.sin(angle)
    matrix[..., 0, 1] = -matrix[..., 1, 0]
    matrix[..., 2, 2] = 1.0
    return matrix
