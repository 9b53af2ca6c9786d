"""From a pose of the hand to joints: which of the many postures, and what where there is none.

Seven joints for six numbers leave one free. `follow` moves the joints as little as the hand's way
needs, and lets them drift towards HOME as far as the hand's pose allows: so a hand back at its HOME
pose has joints at HOME.
"""

import numpy as np

from pp_env import kinematics, panda, rotation
from pp_env.config import HOME_JOINT_POS
from pp_env.inverse_kinematics import LARGEST_JOINT_4, inverse

_HOME = np.array(HOME_JOINT_POS)
_HOME_HAND = kinematics.forward(_HOME)[0]
_DRIFT = 1.0  # rad/s that a joint may move towards HOME while the hand keeps to its way

_NEAR = 0.5  # rad of the first Newton step: beyond, the closed form
_NEWTON_STEPS = 5
_DRIFTING_STEPS = 2  # of these; the others correct the hand
_EXACT = 1e-7  # m and rad
_DAMPING = 1e-9  # of the least-squares steps: only against a division by zero

# Tried values of joint 7: around the last one, densely near it, and some that are always the same.
# So what takes the place of a target out of reach depends on the target alone, and is in reach.
_OFFSETS = 2.0 * np.linspace(-1, 1, 41) * np.abs(np.linspace(-1, 1, 41))  # rad
_ALL_JOINT_7 = np.linspace(panda.JOINT_LOWER[6], panda.JOINT_UPPER[6], 51)[1:-1]  # rad
_SHARES = np.linspace(0.0, 1.0, 25)  # of the way to HOME's hand position

_LOWER, _UPPER = panda.JOINT_LOWER, panda.JOINT_UPPER.copy()
_UPPER[3] = LARGEST_JOINT_4


def follow(
    previous: np.ndarray, position: np.ndarray, orientation: np.ndarray | None, period: float
) -> tuple[np.ndarray, list[str]]:
    """Return the joints, rad, that bring the hand to a pose, or towards it.

    No joint moves faster than its limit, `panda.JOINT_VELOCITY_LIMIT`. A position out of reach is
    replaced by the first one in reach on the straight way to the hand's position at HOME, with the
    same rotation; where there is none, the arm keeps still.

    Args:
        previous: (7,) the last target of the joints, rad.
        position: (3,) origin of `panda_hand`, m, base frame.
        orientation: (3, 3) its rotation matrix, base frame; None is that of `previous`.
        period: Time until the next command, s.

    Returns:
        The joints (7,), and what keeps the hand from the pose: "rotation" if there is none,
        "reach" if it is out of reach, "speed" if it is too far for one period.
    """
    limits = [] if orientation is not None else ["rotation"]
    if orientation is None:
        orientation = kinematics.forward(previous)[1]
    joints = _posture(previous, position, orientation, _DRIFT * period)
    if joints is None:
        limits.append("reach")
        joints = _nearest_posture(previous, position, orientation, _DRIFT * period)
    step = joints - previous
    excess = float((np.abs(step) / (panda.JOINT_VELOCITY_LIMIT * period)).max())
    if excess > 1.0:
        limits.append("speed")
        joints = previous + step / excess
    return joints, limits


def _posture(
    previous: np.ndarray, position: np.ndarray, orientation: np.ndarray, drift: float
) -> np.ndarray | None:
    """Return the joints (7,), rad, that reach a pose; None where there are none.

    Args:
        previous: (7,) where the arm comes from, rad.
        position: (3,) m.
        orientation: (3, 3).
        drift: Most that a joint may move beyond the least motion, rad.
    """
    near = _near_posture(previous, position, orientation, drift)
    return _any_posture(previous, position, orientation, drift) if near is None else near


def _near_posture(
    previous: np.ndarray, position: np.ndarray, orientation: np.ndarray, drift: float
) -> np.ndarray | None:
    """Return what `_posture` does, by Newton steps; None where they do not lead there.

    Where joints 1 and 3 are almost parallel, the least change of joint 7 swings them, and the
    closed form, which needs joint 7, says little. Newton's steps do not single out a joint.
    """
    joints, left = previous, drift
    for k in range(_NEWTON_STEPS):
        hand, turned, jacobian = kinematics.forward_and_jacobian(joints)
        # Half the sum of these cross products is the remaining rotation vector, when small.
        turn = rotation.cross(turned.T, orientation.T).sum(0) / 2
        error = np.concatenate([position - hand, turn])
        if k >= _DRIFTING_STEPS and np.abs(error).max() < _EXACT:
            inside = (joints > _LOWER).all() and (joints < _UPPER).all()
            return joints if inside else None
        home = _HOME - joints
        weights = np.linalg.solve(
            jacobian @ jacobian.T + _DAMPING * np.eye(6), np.stack([error, jacobian @ home], -1)
        )
        step, along = (jacobian.T @ weights).T
        if np.abs(step).max() > _NEAR:
            return None
        if k < _DRIFTING_STEPS:
            free = home - along  # what leaves the hand where it is
            most = float(np.abs(free).max())
            step = step + free * min(1.0, left / max(most, 1e-12))
            left -= min(left, most)
        joints = joints + step
    return None


def _any_posture(
    previous: np.ndarray, position: np.ndarray, orientation: np.ndarray, drift: float
) -> np.ndarray | None:
    """Return what `_posture` does, in closed form.

    Of all postures that move no joint further than the one with the least motion does, and the
    drift, it is the one nearest to HOME.
    """
    coarse = np.sort(np.concatenate([previous[6] + _OFFSETS, _ALL_JOINT_7]))
    postures = inverse(position, orientation, coarse)
    motions = _motions(postures, previous)
    most = motions.min() + drift
    if not np.isfinite(most):
        return None
    distances = _distances_from_home(postures)
    allowed = np.where(motions <= most, distances, np.inf)
    k, branch = divmod(int(allowed.argmin()), 4)
    low, high = max(k - 1, 0), min(k + 1, len(coarse) - 1)
    vertex = _vertex(coarse[[low, k, high]].tolist(), distances[[low, k, high], branch].tolist())
    fine = np.concatenate([[coarse[k], vertex], np.linspace(coarse[low], coarse[high], 9)])
    postures = inverse(position, orientation, fine).reshape(-1, 7)
    allowed = np.where(_motions(postures, previous) <= most, _distances_from_home(postures), np.inf)
    return postures[allowed.argmin()]


def _nearest_posture(
    previous: np.ndarray, position: np.ndarray, orientation: np.ndarray, drift: float
) -> np.ndarray:
    """Return the joints (7,), rad, for the pose that stands in for one out of reach."""
    near = _pull_into_reach(position, orientation)
    if near is None:
        return previous
    joints = _posture(previous, near, orientation, drift)
    return previous if joints is None else joints


def _pull_into_reach(position: np.ndarray, orientation: np.ndarray) -> np.ndarray | None:
    """Return the first position (3,), m, in reach on the way to the hand's at HOME, or None."""
    way, begin, end = _HOME_HAND - position, 0.0, 1.0
    for _ in range(2):
        shares = begin + (end - begin) * _SHARES
        points = position + shares[:, None, None] * way
        inside = np.isfinite(inverse(points, orientation, _ALL_JOINT_7)[..., 0]).any((-1, -2))
        if not inside.any():
            return None
        first = int(inside.argmax())
        begin, end = shares[max(first - 1, 0)], shares[first]
    return position + end * way


def _motions(postures: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Return the largest motion (...) of a joint to postures (..., 7), rad; infinite for NaN."""
    return np.nan_to_num(np.abs(postures - previous).max(-1), nan=np.inf)


def _distances_from_home(postures: np.ndarray) -> np.ndarray:
    """Return the squared distances (...) of postures (..., 7) from HOME, rad^2."""
    return ((postures - _HOME) ** 2).sum(-1)


def _vertex(x: list[float], y: list[float]) -> float:
    """Return where the parabola through three points has its least value, within their span.

    Without one, return the middle point.
    """
    left, right = (y[1] - y[0]) / (x[1] - x[0] or 1.0), (y[2] - y[1]) / (x[2] - x[1] or 1.0)
    if not right > left:  # also NaN
        return x[1]
    bend = (right - left) / (x[2] - x[0])
    return min(max((x[0] + x[1]) / 2 - left / (2 * bend), x[0]), x[2])
