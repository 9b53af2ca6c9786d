"""Forward kinematics and velocities of the Panda in plain numpy, batched."""

import numpy as np

from pp_env import panda, rotation

_LINK_ROTATIONS = [rotation.to_matrix(np.array(link.quat_wxyz)) for link in panda.ARM]
_HAND_ROTATION = rotation.to_matrix(np.array(panda.HAND.quat_wxyz))
_DAMPING = 0.02  # of the least-squares step: small against a posture's gain, safe near singularity
_STEPS = 4  # Newton steps: enough for micrometres after a move of centimetres


def forward(joint_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pose of `panda_hand` in the base frame for joints (..., 7), rad.

    Returns:
        Position (..., 3), m, and rotation matrix (..., 3, 3).
    """
    position = np.zeros((*joint_pos.shape[:-1], 3))
    orientation = np.broadcast_to(np.eye(3), (*joint_pos.shape[:-1], 3, 3))
    for i, (link, turn) in enumerate(zip(panda.ARM, _LINK_ROTATIONS, strict=True)):
        position = position + orientation @ np.array(link.position)
        orientation = orientation @ turn @ about_z(joint_pos[..., i])
    position = position + orientation @ np.array(panda.HAND.position)
    return position, orientation @ _HAND_ROTATION


def jacobian(joint_pos: np.ndarray) -> np.ndarray:
    """How the hand moves with the joints (7,), rad.

    Returns:
        (6, 7): velocity of the origin of `panda_hand`, m/s, over its angular velocity, rad/s, both
        in the base frame, per rad/s of each joint.
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


def move_hand(joint_pos: np.ndarray, translation: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Joints (7,), rad, that put the hand a little elsewhere, near the joints that it has now.

    Damped least squares, within the joint limits: where the hand can't go, it stays near.

    Args:
        joint_pos: (7,) the joints now, rad.
        translation: (3,) of the origin of `panda_hand`, base frame, m.
        turn: (3,) rotation vector, base frame, rad.
    """
    position, orientation = forward(joint_pos)
    wanted = position + translation, rotation.to_matrix(rotation.from_vector(turn)) @ orientation
    joints = joint_pos
    for _ in range(_STEPS):
        position, orientation = forward(joints)
        # Twice the vector part of the quaternion is the remaining rotation vector, when small.
        rest = rotation.from_matrix(wanted[1] @ orientation.T)[1:] * 2.0
        error = np.concatenate([wanted[0] - position, rest])
        j = jacobian(joints)
        step = j.T @ np.linalg.solve(j @ j.T + _DAMPING**2 * np.eye(6), error)
        joints = np.clip(joints + step, panda.JOINT_LOWER, panda.JOINT_UPPER)
    return joints


def about_z(angle: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) about z by angles (...), rad."""
    matrix = np.zeros((*np.shape(angle), 3, 3))
    matrix[..., 0, 0] = matrix[..., 1, 1] = np.cos(angle)
    matrix[..., 1, 0] = np.sin(angle)
    matrix[..., 0, 1] = -matrix[..., 1, 0]
    matrix[..., 2, 2] = 1.0
    return matrix
