"""Where objects can stand: what the arm reaches, and what the hand must not bump into.

Pure functions with cheap rules: every object is the circle around its footprint. The tests hold
the reach against the expert's inverse kinematics, and the gaps against each other.
"""

import numpy as np

from pp_env import panda
from pp_env.config import HOME_TCP, PickPlaceConfig
from pp_env.objects import ObjectConfig

_PASSING = 0.04  # m between what moves and the tops below it; noise may take up half of it
_BELOW_TCP = panda.FINGERTIP_OFFSET - panda.TCP_OFFSET
_ABOVE_TCP = panda.TCP_OFFSET - panda.PALM_OFFSET
_MAX_DRAWS = 300

# How far from the base's axis the TCP gets, m, with the hand tilted outward by 30 degrees at most:
# at a height, less per metre above it, and less if the hand's heading is turned from the outward
# direction, because it can be tilted along its heading only.
_REACH, _REACH_HEIGHT, _REACH_SLOPE, _REACH_LOST_SIDEWAYS = 0.77, 0.58, 0.85, 0.14


def tcp_height(obj: ObjectConfig) -> float:
    """Height of the TCP above the table when it grasps the standing object, m."""
    return obj.height / 2 + obj.grasp_height


def travel_height(
    target: ObjectConfig, others: list[ObjectConfig], config: PickPlaceConfig
) -> float:
    """How far above the grasp hand and object pass over everything on the table, m."""
    highest = max((obj.height for obj in others), default=0.0)
    for_fingers = max(highest, target.height) + _BELOW_TCP - tcp_height(target)
    return max(config.task.travel_height, highest + _PASSING, for_fingers + _PASSING)


def reach(height: float, off_outward: float) -> float:
    """How far from the base's axis the TCP gets, m.

    Args:
        height: Of the TCP in the world, m.
        off_outward: Angle between the hand's heading and the outward direction, rad.
    """
    sideways = 1.0 - abs(np.cos(off_outward))
    return _REACH - _REACH_SLOPE * (height - _REACH_HEIGHT) - _REACH_LOST_SIDEWAYS * sideways


def is_reachable(
    xy: np.ndarray, yaw: float | None, target: ObjectConfig, travel: float, config: PickPlaceConfig
) -> bool:
    """Whether the target can be grasped at a point and lifted by `travel`, m.

    Args:
        xy: (2,) m.
        yaw: The object's, rad; None where it may be turned as the hand likes.
        target: The object.
        travel: As `travel_height` has it.
        config: The scene.
    """
    off = 0.0
    if yaw is not None:
        turned = yaw + target.grasp_yaws - np.arctan2(xy[1], xy[0])
        off = np.arccos(np.abs(np.cos(turned)).max())
    height = config.table.top_z + tcp_height(target) + travel
    return bool(np.hypot(*xy) <= reach(height, off))


def is_clear_of_home(xy: np.ndarray, obj: ObjectConfig, config: PickPlaceConfig) -> bool:
    """Whether the hand at HOME hangs beside or above an object at a point (2,), m."""
    gap = _gap_to_hand(obj, HOME_TCP[2] - config.table.top_z, config.task.spacing)
    return gap == 0.0 or bool(np.hypot(*(xy - HOME_TCP[:2])) >= obj.radius + gap)


def least_distance(other: ObjectConfig, target: ObjectConfig, config: PickPlaceConfig) -> float:
    """Between the centres of an object and of the target, with a hand around the latter, m."""
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
    """Points (2,), m, on the table for the other objects; None if they find no room.

    They keep clear of each other, of the hand at HOME, and of target and gripper at both spots.
    """
    points: list[np.ndarray] = []
    for i, obj in enumerate(others):
        margin = obj.radius + config.task.spacing
        middle = np.array(config.table.center[:2])
        half = np.array(config.table.size[:2]) / 2 - margin
        apart = [(spot, least_distance(obj, target, config)) for spot in spots]
        apart += [(p, margin + o.radius) for p, o in zip(points, others[:i], strict=True)]
        for _ in range(_MAX_DRAWS):
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
    """What an object must leave free around the TCP at a height above the table, m."""
    if obj.height > tcp + _ABOVE_TCP - spacing:
        return panda.HAND_HALF_WIDTH + spacing
    if obj.height > tcp - _BELOW_TCP - spacing:
        return panda.OPEN_FINGER_REACH + spacing
    return 0.0  # it passes below the fingers
