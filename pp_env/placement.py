"""Where objects can stand: within reach of the arm, and clear of the hand and of each other.

Pure functions with cheap rules: every object is the circle around its footprint. The tests check
the reach against the expert's inverse kinematics, and the gaps between the sampled objects.
"""

import numpy as np

from pp_env import panda
from pp_env.config import HOME_TCP, PickPlaceConfig
from pp_env.objects import ObjectConfig

_TRAVEL_CLEARANCE = 0.04  # m from moving parts down to the tops; noise may use half of it
_FINGERTIP_BELOW_TCP = panda.FINGERTIP_OFFSET - panda.TCP_OFFSET
_PALM_ABOVE_TCP = panda.TCP_OFFSET - panda.PALM_OFFSET
_MAX_SAMPLES = 300

# Greatest distance of the TCP from the base's axis, with the hand tilted outward by 30 degrees at
# most. It is less the higher the TCP is, and less the further the hand's heading is turned from the
# outward direction, because the hand can be tilted along its heading only.
_REACH = 0.77  # m, at the height below and heading outward
_REACH_HEIGHT = 0.58  # m, world frame
_REACH_SLOPE = 0.85  # m of reach lost per m of height
_REACH_LOST_SIDEWAYS = 0.14  # m lost with the heading at a right angle to the outward direction


def tcp_height(obj: ObjectConfig) -> float:
    """Return the height of the TCP above the table when it grasps the standing object, m."""
    return obj.height / 2 + obj.grasp_height


def travel_height(
    target: ObjectConfig, others: list[ObjectConfig], config: PickPlaceConfig
) -> float:
    """Return the height above the grasp at which hand and object pass over everything, m.

    Args:
        target: The object that is to be moved.
        others: The other objects on the table.
        config: The scene.
    """
    highest = max((obj.height for obj in others), default=0.0)
    for_fingers = max(highest, target.height) + _FINGERTIP_BELOW_TCP - tcp_height(target)
    return max(
        config.task.travel_height, highest + _TRAVEL_CLEARANCE, for_fingers + _TRAVEL_CLEARANCE
    )


def reach(height: float, off_outward: float) -> float:
    """Return the greatest distance of the TCP from the base's axis, m.

    Args:
        height: Height of the TCP, m, world frame.
        off_outward: Angle between the hand's heading and the outward direction, rad.
    """
    sideways = 1.0 - abs(np.cos(off_outward))
    return _REACH - _REACH_SLOPE * (height - _REACH_HEIGHT) - _REACH_LOST_SIDEWAYS * sideways


def is_reachable(
    xy: np.ndarray, yaw: float | None, target: ObjectConfig, travel: float, config: PickPlaceConfig
) -> bool:
    """Return True if the target can be grasped at a point and lifted by `travel`.

    Args:
        xy: (2,) the point, m, world frame.
        yaw: The object's yaw, rad; None if the hand may choose it.
        target: The object.
        travel: Height of the lift, m, see `travel_height`.
        config: The scene.
    """
    off_outward = 0.0
    if yaw is not None:
        headings = yaw + target.grasp_yaws - np.arctan2(xy[1], xy[0])
        off_outward = np.arccos(np.abs(np.cos(headings)).max())
    height = config.table.top_z + tcp_height(target) + travel
    return bool(np.hypot(*xy) <= reach(height, off_outward))


def is_clear_of_home(xy: np.ndarray, obj: ObjectConfig, config: PickPlaceConfig) -> bool:
    """Return True if an object at a point (2,), m, world frame, is clear of the hand at HOME."""
    gap = _gap_to_hand(obj, HOME_TCP[2] - config.table.top_z, config.task.spacing)
    return gap == 0.0 or bool(np.hypot(*(xy - HOME_TCP[:2])) >= obj.radius + gap)


def least_distance(other: ObjectConfig, target: ObjectConfig, config: PickPlaceConfig) -> float:
    """Return the least distance between an object's centre and the target's, m.

    It leaves room for a hand around the target.
    """
    spacing = config.task.spacing
    gap = max(target.radius + spacing, _gap_to_hand(other, tcp_height(target), spacing))
    return other.radius + gap


def place_others(
    rng: np.random.Generator,
    others: list[ObjectConfig],
    target: ObjectConfig,
    spots: tuple[np.ndarray, np.ndarray],
    config: PickPlaceConfig,
) -> list[np.ndarray] | None:
    """Sample points (2,), m, world frame, for the other objects; None if there is no room.

    They keep clear of each other, of the hand at HOME, and of target and gripper at both spots.

    Args:
        rng: Source of all randomness.
        others: The objects to place.
        target: The object that is to be moved.
        spots: Pick and place, (2,) each, m, world frame.
        config: The scene.
    """
    points: list[np.ndarray] = []
    for i, obj in enumerate(others):
        margin = obj.radius + config.task.spacing
        middle = np.array(config.table.center[:2])
        half = np.array(config.table.size[:2]) / 2 - margin
        apart = [(spot, least_distance(obj, target, config)) for spot in spots]
        apart += [(p, margin + o.radius) for p, o in zip(points, others[:i], strict=True)]
        for _ in range(_MAX_SAMPLES):
            point = rng.uniform(middle - half, middle + half)
            if is_clear_of_home(point, obj, config) and all(
                np.hypot(*(point - other)) >= distance for other, distance in apart
            ):
                points.append(point)
                break
        else:
            return None
    return points


def _gap_to_hand(obj: ObjectConfig, tcp: float, spacing: float) -> float:
    """Return the gap that an object must leave around the TCP, m.

    Args:
        obj: The object.
        tcp: Height of the TCP above the table, m.
        spacing: Least gap to a part of the hand, m.
    """
    if obj.height > tcp + _PALM_ABOVE_TCP - spacing:
        return panda.HAND_HALF_WIDTH + spacing
    if obj.height > tcp - _FINGERTIP_BELOW_TCP - spacing:
        return panda.OPEN_FINGER_REACH + spacing
    return 0.0  # it passes below the fingers
