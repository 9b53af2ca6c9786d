"""The task: where an episode starts, and when it has succeeded. Pure functions."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pp_env import panda, placement, rotation
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig
from pp_env.objects import ObjectConfig
from pp_env.randomization import Variation, sample
from pp_env.sim.api import InitialState, PlacedObject, Pose, SimState

_MAX_DRAWS = 1000
_MAX_ARRANGEMENTS = 50
OPTIONS = ("pick", "place", "object", "color", "yaw")


@dataclass(frozen=True)
class EpisodeStart:
    """What `reset` decides: where the object lies, where it belongs, what it looks like.

    Attributes:
        pick: (2,) x and y of the object's centre, m, world.
        place: (2,) x and y of the target, m, world.
        object_rgb: (3,) in [0, 1].
        target: Which of the configuration's candidates the object is.
        yaw: Its turn about the vertical, rad.
        others: What else is on the table.
    """

    pick: np.ndarray
    place: np.ndarray
    object_rgb: np.ndarray
    target: int = 0
    yaw: float = 0.0
    others: tuple[PlacedObject, ...] = ()


def sample_start(
    rng: np.random.Generator, config: PickPlaceConfig, options: dict | None = None
) -> EpisodeStart:
    """Draws an episode's start; `options` fixes any part of it.

    The same numbers are drawn whatever is fixed. So for a single object, fixing one part leaves
    the others as they were for that seed. What is drawn is within reach and not below the hand at
    HOME; what is fixed need only be on the table.

    Args:
        rng: Where all randomness comes from.
        config: The ranges.
        options: Any of "pick" (2,), "place" (2,), "color" (3,), "object" (a name), "yaw" (rad).

    Raises:
        ValueError: An option is unknown or does not fit the scene, or the objects find no room.
    """
    options = dict(options or {})
    _check_names(options)
    fixed = _Fixed(_point(options, "pick", config), _point(options, "place", config), _yaw(options))
    rgb = rng.uniform(*config.task.color_range, size=3)
    target, others = _choose_objects(rng, config, options.get("object"))
    obj = config.object_pool[target]
    for _ in range(_MAX_ARRANGEMENTS):
        pick, place, yaw = _draw_spots(rng, config, fixed, obj, others)
        placed = _place_others(rng, config, others, obj, (pick, place))
        if placed is not None:
            break
    else:
        raise ValueError(
            f"{config.num_objects} objects find no room on the table"
            f"{_where_fixed(fixed)}; try fewer of them (--num-objects)"
        )
    rgb = _color(options["color"]) if "color" in options else _own_color(obj, rgb)
    return EpisodeStart(pick, place, rgb, target, yaw, placed)


def sample_variation(
    rng: np.random.Generator, config: PickPlaceConfig, start: EpisodeStart
) -> Variation | None:
    """Draws how an episode's scene differs from the configuration; None if nothing is to vary."""
    carried = {camera.name: camera.parent != "world" for camera in config.cameras}
    return sample(rng, config.randomization, start.object_rgb, carried)


def initial_state(
    start: EpisodeStart, config: PickPlaceConfig, variation: Variation | None = None
) -> InitialState:
    """The scene at reset: arm at HOME, gripper open, objects at rest on the table."""
    height = config.rest_z_of(config.object_pool[start.target])
    return InitialState(
        joint_pos=np.array(HOME_JOINT_POS),
        gripper_pos=panda.FINGER_OPEN,
        object=Pose(np.append(start.pick, height), rotation.about_z(start.yaw)),
        object_rgb=start.object_rgb,
        goal_pos=np.append(start.place, config.table.top_z),
        variation=variation,
        target=start.target,
        others=start.others,
    )


def language_instruction(target: ObjectConfig, config: PickPlaceConfig) -> str:
    """What the robot is told to do; the object is named where there is a choice of them."""
    if not config.objects:
        return "pick and place"
    return f"pick the {target.label} and place it on the marker"


def grasp_requirements(initial: InitialState, config: PickPlaceConfig) -> dict[str, Any]:
    """What the objects of an episode ask of whoever moves the target.

    Returns:
        `object_size` (3,) m, `grasp_height` of the TCP above the object's centre, m, `grasp_yaws`
        of the hand against the object's x axis, rad, `travel_height` above the grasp at which the
        hand passes over everything, m, and `scene_height` of the highest top above the table. The
        yaws are a tuple, because Gymnasium batches arrays of one shape only and objects differ.
    """
    target, *others = (config.object_pool[placed.pool_index] for placed in initial.placed)
    return {
        "object_size": np.array(target.size),
        "grasp_height": target.grasp_height,
        "grasp_yaws": tuple(target.grasp_yaws.tolist()),
        "travel_height": placement.travel_height(target, others, config),
        "scene_height": max(obj.height for obj in (target, *others)),
    }


def distance_to_goal(state: SimState, goal_pos: np.ndarray) -> float:
    """From the object's centre to the target in the table's plane, m."""
    (x, y, _), (goal_x, goal_y, _) = state.object.position.tolist(), goal_pos.tolist()
    return math.hypot(x - goal_x, y - goal_y)


def is_success(
    state: SimState, goal_pos: np.ndarray, config: PickPlaceConfig, target: int = 0
) -> bool:
    """Whether the object lies at the target, let go and at rest, with the arm back at HOME."""
    return not unmet_conditions(state, goal_pos, config, target)


def unmet_conditions(
    state: SimState, goal_pos: np.ndarray, config: PickPlaceConfig, target: int = 0
) -> list[str]:
    """The conditions for success that do not hold, by name; none for a success.

    Args:
        state: The state to judge.
        goal_pos: (3,) where the object belongs, m, world.
        config: The scene.
        target: Which of the configuration's candidates the object is. One that has fallen over
            has its centre at another height.
    """
    task = config.task
    rest_z = config.rest_z_of(config.object_pool[target])
    unmet: list[str] = []
    if not distance_to_goal(state, goal_pos) <= task.place_tolerance:  # nor is NaN a success
        unmet.append("away_from_target")
    if not abs(state.object.position.item(2) - rest_z) <= task.height_tolerance:
        unmet.append("not_on_table")
    if state.is_grasped:
        unmet.append("still_held")
    if not math.hypot(*state.object_vel.tolist()) <= task.rest_speed:
        unmet.append("object_moving")
    if task.require_home:
        if not min(state.gripper_pos.tolist()) >= panda.FINGER_OPEN - task.open_tolerance:
            unmet.append("gripper_not_open")
        if not _is_home(state.joint_pos.tolist(), task.home_tolerance):
            unmet.append("arm_not_home")
    return unmet


def _is_home(joint_pos: list[float], tolerance: float) -> bool:
    for joint, home in zip(joint_pos, HOME_JOINT_POS, strict=True):
        if not abs(joint - home) <= tolerance:
            return False
    return True


@dataclass(frozen=True)
class _Fixed:
    """What the options fix; None is drawn."""

    pick: np.ndarray | None
    place: np.ndarray | None
    yaw: float | None


def _choose_objects(
    rng: np.random.Generator, config: PickPlaceConfig, name: str | None
) -> tuple[int, list[int]]:
    """The target's index and those of the others, the widest first."""
    candidates = config.object_pool
    fixed = None if name is None else config.target_index(name)
    if len(candidates) == 1:
        return 0, []
    order = [int(i) for i in rng.permutation(len(candidates))]
    drawn = next(i for i in order if candidates[i].fits_gripper)
    target = drawn if fixed is None else fixed
    others = [i for i in order if i != target][: config.num_objects - 1]
    return target, sorted(others, key=lambda i: -candidates[i].radius)


def _draw_spots(
    rng: np.random.Generator,
    config: PickPlaceConfig,
    fixed: _Fixed,
    obj: ObjectConfig,
    others: list[int],
) -> tuple[np.ndarray, np.ndarray, float]:
    """Pick and place (2,), m, and the object's yaw, rad."""
    task = config.task
    low, high = np.transpose([task.x_range, task.y_range])
    travel = placement.travel_height(obj, [config.object_pool[i] for i in others], config)

    def is_good(xy: np.ndarray, yaw: float | None) -> bool:
        return placement.is_clear_of_home(xy, obj, config) and placement.is_reachable(
            xy, yaw, obj, travel, config
        )

    for _ in range(_MAX_DRAWS):
        drawn_pick, drawn_place = rng.uniform(low, high), rng.uniform(low, high)
        drawn_yaw = rng.uniform(-np.pi, np.pi) if task.random_yaw else 0.0
        yaw = drawn_yaw if fixed.yaw is None else fixed.yaw
        pick = drawn_pick if fixed.pick is None else fixed.pick
        place = drawn_place if fixed.place is None else fixed.place
        if (
            np.hypot(*(pick - place)) >= task.min_distance
            and (fixed.pick is not None or is_good(pick, yaw))
            and (fixed.place is not None or is_good(place, None))
        ):
            return pick, place, yaw
        if fixed.pick is not None and fixed.place is not None:
            break
    raise ValueError(
        f"pick and place must be at least {task.min_distance} m apart and within reach, got pick "
        f"{fixed.pick} and place {fixed.place} for a {obj.label}"
    )


def _place_others(
    rng: np.random.Generator,
    config: PickPlaceConfig,
    indices: list[int],
    target: ObjectConfig,
    spots: tuple[np.ndarray, np.ndarray],
) -> tuple[PlacedObject, ...] | None:
    objects = [config.object_pool[i] for i in indices]
    points = placement.place_others(rng, objects, target, spots, config)
    if points is None:
        return None
    placed = []
    for index, obj, point in zip(indices, objects, points, strict=True):
        yaw = rng.uniform(-np.pi, np.pi) if config.task.random_yaw else 0.0
        rgb = _own_color(obj, rng.uniform(*config.task.color_range, size=3))
        pose = Pose(np.append(point, config.rest_z_of(obj)), rotation.about_z(yaw))
        placed.append(PlacedObject(index, pose, rgb))
    return tuple(placed)


def _own_color(obj: ObjectConfig, drawn: np.ndarray) -> np.ndarray:
    return drawn if obj.rgb is None else np.array(obj.rgb)


def _where_fixed(fixed: _Fixed) -> str:
    if fixed.pick is None and fixed.place is None:
        return ""
    return f" with pick {fixed.pick} and place {fixed.place}"


def _check_names(options: dict) -> None:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"unknown reset options {unknown}; these exist: {list(OPTIONS)}")


def _yaw(options: dict) -> float | None:
    if "yaw" not in options:
        return None
    yaw = float(options["yaw"])
    if not math.isfinite(yaw):
        raise ValueError(f"yaw must be a finite angle in rad, got {yaw}")
    return yaw


def _point(options: dict, name: str, config: PickPlaceConfig) -> np.ndarray | None:
    if name not in options:
        return None
    point = np.asarray(options[name], dtype=np.float64)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise ValueError(f"{name} must be two finite numbers, x and y in metres, got {point}")
    if not config.table.holds(point):
        center, size = config.table.center, config.table.size
        spans = [f"{center[i] - size[i] / 2:.2f}..{center[i] + size[i] / 2:.2f}" for i in (0, 1)]
        raise ValueError(
            f"{name} must lie on the table, x in {spans[0]} m and y in {spans[1]} m, "
            f"got ({point[0]:.3f}, {point[1]:.3f})"
        )
    return point


def _color(value: object) -> np.ndarray:
    rgb = np.asarray(value, dtype=np.float64)
    if rgb.shape != (3,) or not ((rgb >= 0) & (rgb <= 1)).all():
        raise ValueError(f"color must be three numbers from 0 to 1, got {value}")
    return rgb
