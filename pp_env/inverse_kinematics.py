"""Inverse kinematics of the Panda in plain numpy, batched, in closed form.

The arm has seven joints for a pose of six numbers, so one joint is free: given joint 7, a pose of
the hand has at most four solutions. The construction follows He and Liu, "Analytical Inverse
Kinematics for Franka Emika Panda" (ICMCC 2021), in the link frames of `pp_env.panda`. Forward
kinematics is in `pp_env.kinematics`.
"""

import numpy as np

from pp_env import panda, rotation
from pp_env.kinematics import about_z

_SHOULDER = np.array(panda.ARM[0].position)  # joints 1 and 2 meet here
_UPPER_ARM = -panda.ARM[2].position[1]  # shoulder to the height of the elbow, along link 3's z
_ELBOW = panda.ARM[3].position[0]  # the elbow's sideways offset
_FOREARM = panda.ARM[4].position[1]
_WRIST = panda.ARM[6].position[0]
_FLANGE = panda.HAND.position[2]

_HAND_TO_LINK7 = rotation.to_matrix(np.array(panda.HAND.quat_wxyz)).T
_LENGTH_UPPER = np.hypot(_UPPER_ARM, _ELBOW)
_LENGTH_FORE = np.hypot(_FOREARM, _ELBOW)
# Joint 4 and the angle at the elbow between shoulder and wrist differ by a constant.
_ELBOW_ANGLE_OFFSET = np.arctan2(-_UPPER_ARM, -_ELBOW) - np.arctan2(_FOREARM, -_ELBOW)
LARGEST_JOINT_4 = float(_ELBOW_ANGLE_OFFSET + np.pi)  # rad, where the arm reaches farthest

_ROLL_PLUS_90 = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_ROLL_MINUS_90 = _ROLL_PLUS_90.T


def inverse(position: np.ndarray, orientation: np.ndarray, joint_7: np.ndarray) -> np.ndarray:
    """Return the arm postures with a bent elbow that put `panda_hand` at a pose, given joint 7.

    Postures with joint 4 above `LARGEST_JOINT_4`, -0.47 rad (the arm all but straight), are left
    out: the same pose can then be reached with the elbow bent.

    Args:
        position: (..., 3) origin of `panda_hand`, m, base frame.
        orientation: (..., 3, 3) its rotation matrix, base frame.
        joint_7: (...) rad. The leading axes of all three broadcast.

    Returns:
        (..., 4, 7) joint positions, rad. A solution that does not exist or that breaks a joint
        limit is NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return _within_limits(_solve(position, orientation, joint_7))


def _solve(position: np.ndarray, orientation: np.ndarray, joint_7: np.ndarray) -> np.ndarray:
    """Return what `inverse` does, without regard to the joint limits."""
    link6 = orientation @ _HAND_TO_LINK7 @ about_z(-joint_7) @ _ROLL_MINUS_90
    wrist = position - _FLANGE * orientation[..., :, 2] - _WRIST * link6[..., :, 0]
    to_shoulder = _SHOULDER - wrist

    # The triangle shoulder, elbow, wrist has three known sides: that is joint 4.
    reach_squared = (to_shoulder**2).sum(-1)
    cosine = (_LENGTH_UPPER**2 + _LENGTH_FORE**2 - reach_squared) / (
        2 * _LENGTH_UPPER * _LENGTH_FORE
    )
    joint_4 = _ELBOW_ANGLE_OFFSET + np.arccos(cosine)

    # The shoulder relative to the wrist, in link 4, whose y axis is the axis of joint 5.
    cos_4, sin_4 = np.cos(joint_4), np.sin(joint_4)
    along_x = -_ELBOW * cos_4 - _UPPER_ARM * sin_4 + _ELBOW
    along_y = _ELBOW * sin_4 - _UPPER_ARM * cos_4 - _FOREARM

    # Joint 6 turns joint 5's axis until the shoulder is `along_y` along it: two ways.
    in_link6 = (np.swapaxes(link6, -1, -2) @ to_shoulder[..., None])[..., 0]
    middle = np.arctan2(in_link6[..., 0], in_link6[..., 1])
    spread = np.arccos(along_y / np.hypot(in_link6[..., 0], in_link6[..., 1]))
    joint_6 = np.stack([middle + spread, middle - spread], axis=-1)  # (..., 2)

    link5 = link6[..., None, :, :] @ about_z(-joint_6) @ _ROLL_MINUS_90
    axis_y = link5[..., :, 2]
    axis_x = to_shoulder[..., None, :] - along_y[..., None, None] * axis_y
    axis_x = axis_x / along_x[..., None, None]
    link4 = np.stack([axis_x, axis_y, rotation.cross(axis_x, axis_y)], axis=-1)
    turn_5 = _ROLL_PLUS_90 @ np.swapaxes(link4, -1, -2) @ link5
    joint_5 = np.arctan2(turn_5[..., 1, 0], turn_5[..., 0, 0])

    # Joints 1, 2, 3 are the Euler angles z, y, z of link 3: again two ways.
    turn_4 = _ROLL_PLUS_90 @ about_z(joint_4)
    link3 = link4 @ np.swapaxes(turn_4, -1, -2)[..., None, :, :]
    sign = np.array([1.0, -1.0])
    joint_2 = sign * np.arccos(np.clip(link3[..., 2, 2], -1.0, 1.0))[..., None]  # (..., 2, 2)
    joint_1 = np.arctan2(sign * link3[..., 1, 2, None], sign * link3[..., 0, 2, None])
    joint_3 = np.arctan2(sign * link3[..., 2, 1, None], -sign * link3[..., 2, 0, None])

    parts = [
        joint_1, joint_2, joint_3, joint_4[..., None, None], joint_5[..., None],
        joint_6[..., None], joint_7[..., None, None],
    ]  # fmt: skip
    joints = np.stack(np.broadcast_arrays(*parts), axis=-1)  # (..., 2, 2, 7)
    return joints.reshape(*joints.shape[:-3], 4, 7)


def _within_limits(joints: np.ndarray) -> np.ndarray:
    """Return joints (..., 7), rad, wrapped to the middle of their ranges; NaN beyond a limit."""
    middle = (panda.JOINT_LOWER + panda.JOINT_UPPER) / 2
    joints = middle + (joints - middle + np.pi) % (2 * np.pi) - np.pi
    inside = ((joints > panda.JOINT_LOWER) & (joints < panda.JOINT_UPPER)).all(-1, keepdims=True)
    return np.where(inside, joints, np.nan)
