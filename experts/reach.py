"""Where the arm can grasp and place: postures from poses of the hand, and grasps of objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pp_env import inverse_kinematics, kinematics, panda, rotation
from pp_env.config import HOME_JOINT_POS, HOME_TCP, TaskConfig
from pp_env.objects import ObjectConfig

HOME = np.array(HOME_JOINT_POS)
BESIDE_HEIGHT = 0.05  # m above the grasp: below, the fingers are beside the object
_TOP_CLEARANCE = 0.05  # m from the highest top to the TCP, on the way out and home
MAX_TCP_SHIFT = 0.02  # m that noise may move the TCP beside and above tall objects

_TILTS = np.radians(np.arange(0, 50, 5))
_MOUNT_ANGLE = np.pi / 4  # by which joint 7 must turn for a hand that looks along the arm
# Around the joint 7 that leaves the elbow in the vertical plane of base and hand, densely near it.
_JOINT_7_OFFSETS = 2.0 * np.linspace(-1, 1, 41) * np.abs(np.linspace(-1, 1, 41))
_PLACE_CLEARANCE = 0.002  # m above the table at which the object is released
_PLACE_SHIFTS = (0.0, 0.015, 0.03)  # m towards the base, where the goal is out of reach
_PLACE_TURNS = np.radians([30, -30, 60, -60, 90, -90])  # of the hand from the outward direction
_LIMIT_MARGIN = 0.02  # rad between a planned posture and the joint limits
_POINTING_DOWN = np.diag([1.0, -1.0, -1.0])  # panda_hand's axes at HOME
_MAX_PALM_TILT = np.radians(30)  # beyond it the palm's edge touches an object held near its top
_TALL_SCENE = 0.045  # m: higher tops come too near to the fingertips at HOME
_SWING_COST = 1.0  # weight of a joint's way up from a tall object, beside its distance from HOME
_UP = np.array([0.0, 0.0, 1.0])


class UnreachableError(ValueError):
    """No posture of the arm reaches the pick or the place."""


@dataclass(frozen=True)
class GraspRequirements:
    """Grasp of the target and clearance of the scene. By default, those of a small cube alone.

    Attributes:
        grasp_height: Height of the TCP above the object's centre, m.
        grasp_yaws: Headings at which the hand fits, relative to the object's x axis, rad.
        travel_height: Height of the TCP above the grasp where it passes over everything, m.
        scene_height: Height of the highest top above the table, m.
        object_size: Full extents of the object along its own axes, m.
    """

    grasp_height: float = ObjectConfig().grasp_height
    grasp_yaws: tuple[float, ...] = tuple(ObjectConfig().grasp_yaws.tolist())
    travel_height: float = TaskConfig.travel_height
    scene_height: float = ObjectConfig().height
    object_size: tuple[float, ...] = ObjectConfig().size

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> "GraspRequirements":
        """Read the fields from an environment's `info`; missing ones keep their defaults."""
        given = {name: info[name] for name in cls.__dataclass_fields__ if name in info}
        if "grasp_yaws" in given:
            given["grasp_yaws"] = tuple(dict.fromkeys(given["grasp_yaws"]))  # without repetitions
        return cls(**given)

    @property
    def is_tall(self) -> bool:
        """True if the hand cannot go straight from HOME to the object."""
        return self.scene_height > _TALL_SCENE

    @property
    def max_tcp_shift(self) -> float:
        """Most that noise may move the TCP in free space, m."""
        return MAX_TCP_SHIFT if self.is_tall else np.inf

    @property
    def swing_cost(self) -> float:
        """Weight of the way between a posture at the grasp and the one above it."""
        return _SWING_COST if self.is_tall else 0.0


@dataclass(frozen=True)
class Column:
    """Two postures (7,), rad, of one pose of the hand at two heights.

    Attributes:
        low: At the grasp, or where the object is released.
        raised: Above it, at the travel height.
    """

    low: np.ndarray
    raised: np.ndarray


def reach_pick_and_place(
    object_pos: np.ndarray,
    object_quat_wxyz: np.ndarray,
    goal_pos: np.ndarray,
    requirements: GraspRequirements,
) -> tuple[Column, Column]:
    """Return the postures above and at the pick, and above and at the place.

    One tilt serves the whole episode, the smallest with which everything is reachable, so that
    the object stays upright between pick and place. The object keeps its heading, or one that
    looks the same; where that is out of reach, it is placed with the hand pointing outward.

    Args:
        object_pos: (3,) the object's centre, m, world frame.
        object_quat_wxyz: (4,) its orientation, world frame.
        goal_pos: (3,) the target on the table, m, world frame.
        requirements: How to grasp the object.

    Raises:
        UnreachableError: The arm cannot reach the pick or the place.
    """
    grasp_pos = object_pos + requirements.grasp_height * _UP
    place_pos = np.append(goal_pos[:2], grasp_pos[2] + _PLACE_CLEARANCE)
    yaws = heading(np.asarray(object_quat_wxyz)) + np.array(requirements.grasp_yaws)
    tilts = _TILTS if requirements.grasp_height == 0.0 else _TILTS[_TILTS <= _MAX_PALM_TILT + 1e-9]
    outward = np.array([np.arctan2(goal_pos[1], goal_pos[0])])
    for place_yaws in (yaws, outward):
        for tilt in tilts:
            pick = _reach_above(grasp_pos, yaws, tilt, requirements)
            if pick is None:
                continue
            place = _reach_above(place_pos, place_yaws, tilt, requirements)
            if place is not None:
                return pick, place
    raise UnreachableError(
        f"the arm reaches no grasp at pick {_xy(object_pos)} and place {_xy(goal_pos)}; "
        "try points within 0.75 m of the robot's base and at least 0.3 m in front of it"
    )


def reach_place(
    hand: tuple[np.ndarray, np.ndarray],
    object_pos: np.ndarray,
    object_quat_wxyz: np.ndarray,
    goal_pos: np.ndarray,
    requirements: GraspRequirements,
) -> Column | None:
    """Return the postures above and at the place for an object as it is held now.

    The object is put upright. It keeps its heading, or one that looks the same; where that is out
    of reach, the hand points outward, or the object is put a little nearer to the base. None if
    that is out of reach, too.

    Args:
        hand: Position (3,), m, and rotation matrix (3, 3) of `panda_hand`, world frame.
        object_pos: (3,) the object's centre, m, world frame.
        object_quat_wxyz: (4,) its orientation, world frame.
        goal_pos: (3,) the target on the table, m, world frame.
        requirements: How the object is to be grasped, and its size.
    """
    position, orientation = hand
    axis, upright = _straighten(object_quat_wxyz)
    orientation = upright @ orientation
    tcp_offset = upright @ (position - object_pos) + panda.TCP_OFFSET * orientation[:, 2]
    center = np.append(
        goal_pos[:2], goal_pos[2] + requirements.object_size[axis] / 2 + _PLACE_CLEARANCE
    )
    radial = np.arctan2(goal_pos[1], goal_pos[0])
    now = np.arctan2(orientation[1, 0], orientation[0, 0])
    yaws = now + np.array(requirements.grasp_yaws) - requirements.grasp_yaws[0]
    inward = -np.array([np.cos(radial), np.sin(radial), 0.0])
    for shift in _PLACE_SHIFTS:
        for yaw in (*_headings(yaws, radial), radial, *(radial + _PLACE_TURNS)):
            turn = kinematics.about_z(np.array(yaw - now))
            tcp = center + shift * inward + turn @ tcp_offset
            column = _reach_column(tcp, turn @ orientation, requirements)
            if column is not None:
                return column
    return None


def vertical_axis(quat_wxyz: np.ndarray) -> int:
    """Return the index of the axis of an object (4,) that is nearest to the vertical: 0, 1 or 2."""
    return int(np.abs(rotation.to_matrix(quat_wxyz)[2]).argmax())


def heading(quat_wxyz: np.ndarray) -> float:
    """Return the heading of an object that lies on any of its sides, rad.

    It is the angle from the world's x axis to the object's axis that follows its vertical one; for
    an object that stands upright, to its x axis.
    """
    x, y, _ = rotation.to_matrix(quat_wxyz)[:, (vertical_axis(quat_wxyz) + 1) % 3]
    return float(np.arctan2(y, x))


def _straighten(quat_wxyz: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the index of an object's all but vertical axis, and the rotation that straightens it.

    Args:
        quat_wxyz: (4,) the object's orientation, world frame.

    Returns:
        0, 1 or 2, and the smallest rotation (3, 3), world frame, that makes this axis vertical.
    """
    axes, index = rotation.to_matrix(quat_wxyz), vertical_axis(quat_wxyz)
    up = axes[:, index] * np.sign(axes[2, index])
    axis = rotation.cross(up, _UP)
    sine = np.linalg.norm(axis)
    if sine < 1e-9:
        return index, np.eye(3)
    angle = np.arctan2(sine, up[2])
    return index, rotation.to_matrix(rotation.from_vector(axis / sine * angle))


def raise_hand(posture: np.ndarray, height: float, towards: np.ndarray) -> np.ndarray:
    """Return a posture (7,) with the hand raised by `height`, m, near the way to `towards` (7,).

    If none is within reach, return `towards`. Joint 7 may move a little, because near HOME joints 1
    and 3 may be almost parallel and with a fixed joint 7 the arm could swing.
    """
    hand, orientation = kinematics.forward(posture)
    tcp = hand + panda.TCP_OFFSET * orientation[:, 2] + height * _UP
    candidates = _postures(tcp, orientation, posture[6] + 0.1 * _JOINT_7_OFFSETS).reshape(-1, 7)
    costs = _cost(candidates, posture) + _cost(candidates, towards)
    return candidates[costs.argmin()] if np.isfinite(costs).any() else towards


def raise_over(highest_top: float) -> np.ndarray:
    """Return the posture (7,) above HOME in which the hand clears tops of this height, m, world."""
    return raise_hand(HOME, max(0.0, highest_top + _TOP_CLEARANCE - HOME_TCP[2]), HOME)


def vary_posture(posture: np.ndarray, joint_7_noise: float) -> np.ndarray:
    """Return another posture (7,) with the same pose of the hand, and joint 7 moved by noise, rad.

    If there is none, return the posture itself.
    """
    hand, orientation = kinematics.forward(posture)
    tcp = hand + panda.TCP_OFFSET * orientation[:, 2]
    candidates = _postures(tcp, orientation, posture[6] + np.array(joint_7_noise))
    costs = _cost(candidates, posture)
    return candidates[costs.argmin()] if np.isfinite(costs).any() else posture


def add_joint_noise(posture: np.ndarray, noise: np.ndarray, max_tcp_shift: float) -> np.ndarray:
    """Return the posture (7,) plus noise (7,), rad, within the joint limits.

    The noise is halved until it moves the TCP by at most `max_tcp_shift`, m.
    """
    noisy = np.clip(posture + noise, panda.JOINT_LOWER, panda.JOINT_UPPER)
    if np.isinf(max_tcp_shift):
        return noisy
    tcp = tcp_position(posture)
    while np.linalg.norm(tcp_position(noisy) - tcp) > max_tcp_shift:
        noisy = (noisy + posture) / 2
    return noisy


def tcp_position(posture: np.ndarray) -> np.ndarray:
    """Return the position (..., 3) of the TCP in postures (..., 7), m, world frame."""
    hand, orientation = kinematics.forward(posture)
    return hand + panda.TCP_OFFSET * orientation[..., :, 2]


def hand_orientation(heading: float, tilt: float) -> np.ndarray:
    """Return the rotation matrix (3, 3), world frame, of a hand that points down.

    Args:
        heading: Direction of the hand's x axis seen from above, rad from world x.
        tilt: Angle by which the fingers point away from the base, along the heading, rad.
    """
    cosine, sine = np.cos(tilt), np.sin(tilt)
    outward = np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
    return kinematics.about_z(np.array(heading)) @ outward @ _POINTING_DOWN


def hand_posture(tcp: np.ndarray, orientation: np.ndarray) -> np.ndarray | None:
    """Return the posture (7,), rad, nearest to HOME for a pose of the hand; None out of reach.

    Args:
        tcp: (3,) position of the TCP, m, world frame.
        orientation: (3, 3) rotation matrix of `panda_hand`.
    """
    candidates = _postures(tcp, orientation, _joint_7_of(tcp, orientation)).reshape(-1, 7)
    costs = _cost(candidates, HOME)
    return candidates[costs.argmin()] if np.isfinite(costs).any() else None


def _reach_above(
    grasp_pos: np.ndarray, yaws: np.ndarray, tilt: float, requirements: GraspRequirements
) -> Column | None:
    """Return the postures at and above a grasp, or None where one is out of reach.

    Args:
        grasp_pos: (3,) the TCP in the grasp, m, world frame.
        yaws: (n,) headings of the hand, rad from world x.
        tilt: Angle by which the fingers point away from the base, rad.
        requirements: How to grasp the object.
    """
    radial = np.arctan2(grasp_pos[1], grasp_pos[0])
    for yaw in _headings(yaws, radial):
        column = _reach_column(grasp_pos, hand_orientation(yaw, tilt), requirements)
        if column is not None:
            return column
    return None


def _reach_column(
    tcp: np.ndarray, orientation: np.ndarray, requirements: GraspRequirements
) -> Column | None:
    """Return the postures at and above a pose of the hand, or None where one is out of reach.

    Both heights share joint 7, so that going up and down is all but a straight line. Of all pairs
    it takes the one nearest to HOME.

    Args:
        tcp: (3,) position of the TCP at the lower height, m, world frame.
        orientation: (3, 3) rotation matrix of `panda_hand`.
        requirements: Height of the upper one, and the cost of the way between them.
    """
    heights = np.array([0.0, requirements.travel_height])[:, None, None]
    postures = _postures(tcp + heights * _UP, orientation, _joint_7_of(tcp, orientation))
    low, high = postures[0][:, :, None], postures[1][:, None]  # to be paired, branch by branch
    costs = _cost(low, HOME) + _cost(high, HOME)
    if requirements.swing_cost:
        costs = costs + requirements.swing_cost * _cost(low, high)
    if not np.isfinite(costs).any():
        return None
    joint, below, above = np.unravel_index(costs.argmin(), costs.shape)
    return Column(postures[0, joint, below], postures[1, joint, above])


def _joint_7_of(tcp: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Return candidates (n,) for joint 7, rad, of a hand that points down more or less."""
    yaw = np.arctan2(orientation[1, 0], orientation[0, 0])
    return _MOUNT_ANGLE + np.arctan2(tcp[1], tcp[0]) - yaw + _JOINT_7_OFFSETS


def _headings(yaws: np.ndarray, radial: float) -> list[float]:
    """Return the two headings, rad, that point outward the most, the better one first."""
    off_radial = np.abs((yaws - radial + np.pi) % (2 * np.pi) - np.pi)
    return [float(yaws[i]) for i in np.argsort(off_radial, kind="stable")[:2]]


def _postures(tcp: np.ndarray, orientation: np.ndarray, joint_7: np.ndarray) -> np.ndarray:
    """Return postures (..., 4, 7), rad, well within the joint limits; NaN where there is none.

    Args:
        tcp: (..., 3) position of the TCP, m, world frame.
        orientation: (3, 3) rotation matrix of `panda_hand`.
        joint_7: (...) rad.
    """
    hand = tcp - panda.TCP_OFFSET * orientation[:, 2]
    postures = inverse_kinematics.inverse(hand, orientation, joint_7)
    inside = (postures > panda.JOINT_LOWER + _LIMIT_MARGIN) & (
        postures < panda.JOINT_UPPER - _LIMIT_MARGIN
    )
    return np.where(inside.all(-1, keepdims=True), postures, np.nan)


def _cost(postures: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return squared distances (...) of postures (..., 7) from one, rad^2; infinite for NaN."""
    return np.nan_to_num(((postures - reference) ** 2).sum(-1), nan=np.inf)


def _xy(position: np.ndarray) -> str:
    return f"({position[0]:.3f}, {position[1]:.3f})"
