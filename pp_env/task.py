"""The task: where an episode starts, and which conditions make it a success. Pure functions."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pp_env import panda, placement, rotation
from pp_env.colors import first_apart, variants
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig
from pp_env.objects import MAX_GRASPS, ObjectConfig
from pp_env.randomization import Variation, sample
from pp_env.sim.api import InitialState, PlacedObject, Pose, SimState

_MAX_SAMPLES = 1000
_MAX_ARRANGEMENTS = 50
OPTIONS = ("pick", "place", "object", "color", "yaw", "joint_pos")
OTHERS_OPTIONS = ("lerobot_",)  # prefixes of options that are meant for wrappers and other tools
CONDITIONS = (  # for success, in the order in which `unmet_conditions` names them
    "away_from_target", "not_on_table", "still_held", "object_moving", "gripper_not_open",
    "arm_not_home",
)  # fmt: skip


@dataclass(frozen=True)
class EpisodeStart:
    """The sampled start of an episode: where the object is, where it belongs, how it looks.

    Attributes:
        pick: (2,) x and y of the object's centre, m, world frame.
        place: (2,) x and y of the place target, m, world frame.
        object_rgb: (3,) the object's colour in [0, 1].
        target: Index of the object in the configuration's `object_pool`.
        yaw: The object's turn about the vertical, rad.
        others: The other objects on the table.
        joint_pos: (7,) the arm's joints, rad.
    """

    pick: np.ndarray
    place: np.ndarray
    object_rgb: np.ndarray
    target: int = 0
    yaw: float = 0.0
    others: tuple[PlacedObject, ...] = ()
    joint_pos: np.ndarray = field(default_factory=lambda: np.array(HOME_JOINT_POS))


def sample_start(
    rng: np.random.Generator, config: PickPlaceConfig, options: dict | None = None
) -> EpisodeStart:
    """Sample the start of an episode; `options` fixes any part of it.

    The same random numbers are used whatever is fixed. So for a single object, fixing one part
    leaves the others as they were for that seed. Sampled points are within reach and not below the
    hand at HOME; fixed points need only be on the table.

    Args:
        rng: Source of all randomness.
        config: The scene and the ranges.
        options: Any of "pick" (2,), m, "place" (2,), m, "color" (3,), "object" (a name), "yaw",
            rad, and "joint_pos" (7,), rad, for an arm that does not start at HOME. Names that begin
            with one of `OTHERS_OPTIONS` are ignored.

    Raises:
        ValueError: An option is unknown or does not fit the scene, or there is no room for the
            objects.
    """
    options = dict(options or {})
    _check_option_names(options)
    fixed = _Fixed(_point(options, "pick", config), _point(options, "place", config), _yaw(options))
    joint_pos = _joint_pos(options)
    rgb = rng.uniform(*config.task.color_range, size=3)
    target, others = _choose_objects(rng, config, options.get("object"))
    obj = config.object_pool[target]
    for _ in range(_MAX_ARRANGEMENTS):
        pick, place, yaw = _sample_pick_and_place(rng, config, fixed, obj, others)
        placed = _sample_others(rng, config, others, obj, (pick, place))
        if placed is not None:
            break
    else:
        raise ValueError(
            f"{config.num_objects} objects find no room on the table"
            f"{_where_fixed(fixed)}; try fewer of them (--num-objects)"
        )
    rgb = _color(options["color"]) if "color" in options else _own_color(obj, rgb, config)
    return EpisodeStart(pick, place, rgb, target, yaw, placed, joint_pos)


def sample_variation(
    rng: np.random.Generator, config: PickPlaceConfig, start: EpisodeStart
) -> Variation | None:
    """Sample how an episode's scene differs from the configuration; None without randomization."""
    carried = {camera.name: camera.parent != "world" for camera in config.cameras}
    others = np.array([start.object_rgb, *config.marker.colors])
    return sample(rng, config.randomization, others, carried)


def initial_state(
    start: EpisodeStart, config: PickPlaceConfig, variation: Variation | None = None
) -> InitialState:
    """Return the scene at reset: gripper open, objects at rest on the table."""
    height = config.rest_z_of(config.object_pool[start.target])
    return InitialState(
        joint_pos=start.joint_pos,
        gripper_pos=panda.FINGER_OPEN,
        object=Pose(np.append(start.pick, height), rotation.about_z(start.yaw)),
        object_rgb=start.object_rgb,
        goal_pos=np.append(start.place, config.table.top_z),
        variation=variation,
        target=start.target,
        others=start.others,
    )


def language_instruction(target: ObjectConfig, config: PickPlaceConfig) -> str:
    """Return the task text of an episode; it names the object if there is a pool of them."""
    if not config.objects:
        return "pick and place"
    return f"pick the {target.label} and place it on the marker"


def grasp_requirements(initial: InitialState, config: PickPlaceConfig) -> dict[str, Any]:
    """Return the part of `info` that describes how to grasp the target and clear the scene.

    Returns:
        `object_size` (3,), m; `grasp_height` of the TCP above the object's centre, m; `grasp_yaws`
        (`MAX_GRASPS`,) of the hand relative to the object's x axis, rad; `travel_height` above the
        grasp at which the hand passes over everything, m; and `scene_height`, that of the highest
        top above the table, m. Objects differ in their number of yaws; fewer are repeated, because
        only arrays of one shape can be batched.
    """
    target, *others = (config.object_pool[placed.pool_index] for placed in initial.placed)
    return {
        "object_size": np.array(target.size),
        "grasp_height": target.grasp_height,
        "grasp_yaws": np.resize(target.grasp_yaws, MAX_GRASPS),
        "travel_height": placement.travel_height(target, others, config),
        "scene_height": max(obj.height for obj in (target, *others)),
    }


def distance_to_goal(state: SimState, goal_pos: np.ndarray) -> float:
    """Return the distance of the object's centre from the target in the table's plane, m."""
    (x, y, _), (goal_x, goal_y, _) = state.object.position.tolist(), goal_pos.tolist()
    return math.hypot(x - goal_x, y - goal_y)


def is_success(
    state: SimState, goal_pos: np.ndarray, config: PickPlaceConfig, target: int = 0
) -> bool:
    """Return True if all conditions for success hold; `unmet_conditions` lists them."""
    return not unmet_conditions(state, goal_pos, config, target)


def unmet_conditions(
    state: SimState, goal_pos: np.ndarray, config: PickPlaceConfig, target: int = 0
) -> list[str]:
    """Return the names of the conditions for success that do not hold; empty for a success.

    Args:
        state: The state to judge.
        goal_pos: (3,) the place target on the table, m, world frame.
        config: The scene and the tolerances.
        target: Index of the object in the configuration's `object_pool`. An object that has fallen
            over has its centre at another height, so it counts as "not_on_table".
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
    """Return True if each of the joints, rad, is close to HOME; NaN is not."""
    for joint, home in zip(joint_pos, HOME_JOINT_POS, strict=True):
        if not abs(joint - home) <= tolerance:
            return False
    return True


@dataclass(frozen=True)
class _Fixed:
    """The points (2,), m, and the yaw, rad, that the options fix; None is sampled."""

    pick: np.ndarray | None
    place: np.ndarray | None
    yaw: float | None


def _choose_objects(
    rng: np.random.Generator, config: PickPlaceConfig, name: str | None
) -> tuple[int, list[int]]:
    """Return the target's index in the pool and those of the others, the widest first."""
    pool = config.object_pool
    fixed = None if name is None else config.target_index(name)
    if len(pool) == 1:
        return 0, []
    order = [int(i) for i in rng.permutation(len(pool))]
    sampled = next(i for i in order if pool[i].fits_gripper)
    target = sampled if fixed is None else fixed
    others = [i for i in order if i != target][: config.num_objects - 1]
    return target, sorted(others, key=lambda i: -pool[i].radius)


def _sample_pick_and_place(
    rng: np.random.Generator,
    config: PickPlaceConfig,
    fixed: _Fixed,
    obj: ObjectConfig,
    others: list[int],
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return pick and place (2,), m, world frame, and the object's yaw, rad: fixed or sampled."""
    task = config.task
    low, high = np.transpose([task.x_range, task.y_range])
    travel = placement.travel_height(obj, [config.object_pool[i] for i in others], config)

    def is_good(xy: np.ndarray, yaw: float | None) -> bool:
        return placement.is_clear_of_home(xy, obj, config) and placement.is_reachable(
            xy, yaw, obj, travel, config
        )

    for _ in range(_MAX_SAMPLES):
        sampled_pick, sampled_place = rng.uniform(low, high), rng.uniform(low, high)
        sampled_yaw = rng.uniform(-np.pi, np.pi) if task.random_yaw else 0.0
        yaw = sampled_yaw if fixed.yaw is None else fixed.yaw
        pick = sampled_pick if fixed.pick is None else fixed.pick
        place = sampled_place if fixed.place is None else fixed.place
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


def _sample_others(
    rng: np.random.Generator,
    config: PickPlaceConfig,
    indices: list[int],
    target: ObjectConfig,
    spots: tuple[np.ndarray, np.ndarray],
) -> tuple[PlacedObject, ...] | None:
    """Sample where the other objects stand; None if there is no room for them.

    Args:
        rng: Source of all randomness.
        config: The scene.
        indices: The other objects, as indices in the pool.
        target: The object that is to be moved.
        spots: Pick and place, (2,) each, m, world frame.
    """
    objects = [config.object_pool[i] for i in indices]
    points = placement.place_others(rng, objects, target, spots, config)
    if points is None:
        return None
    placed = []
    for index, obj, point in zip(indices, objects, points, strict=True):
        yaw = rng.uniform(-np.pi, np.pi) if config.task.random_yaw else 0.0
        rgb = _own_color(obj, rng.uniform(*config.task.color_range, size=3), config)
        pose = Pose(np.append(point, config.rest_z_of(obj)), rotation.about_z(yaw))
        placed.append(PlacedObject(index, pose, rgb))
    return tuple(placed)


def _own_color(obj: ObjectConfig, sampled: np.ndarray, config: PickPlaceConfig) -> np.ndarray:
    """Return the object's configured colour (3,), or one from the sampled where it has none.

    A sampled colour that looks like the table's or the marker's is changed.
    """
    if obj.rgb is not None:
        return np.array(obj.rgb)
    low, high = config.task.color_range
    shares = (sampled - low) / (high - low) if high > low else np.zeros(3)
    candidates = np.concatenate([sampled[None], low + (high - low) * variants(shares[None])])
    return first_apart(candidates, np.array([config.table.rgb, *config.marker.colors]))


def _where_fixed(fixed: _Fixed) -> str:
    """Return the part of an error message that names the fixed points."""
    if fixed.pick is None and fixed.place is None:
        return ""
    return f" with pick {fixed.pick} and place {fixed.place}"


def _check_option_names(options: dict) -> None:
    own = {name for name in options if not name.startswith(OTHERS_OPTIONS)}
    unknown = sorted(own - set(OPTIONS))
    if unknown:
        raise ValueError(f"unknown reset options {unknown}; these exist: {list(OPTIONS)}")


def _yaw(options: dict) -> float | None:
    """Return the fixed yaw, rad; None if the options have none."""
    if "yaw" not in options:
        return None
    yaw = float(options["yaw"])
    if not math.isfinite(yaw):
        raise ValueError(f"yaw must be a finite angle in rad, got {yaw}")
    return yaw


def _joint_pos(options: dict) -> np.ndarray:
    """Return the joints (7,), rad, at which the arm starts: those fixed, or HOME."""
    joint_pos = np.array(options.get("joint_pos", HOME_JOINT_POS), dtype=np.float64)
    if joint_pos.shape != (7,) or not np.isfinite(joint_pos).all():
        raise ValueError(f"joint_pos must be seven finite numbers in rad, got {joint_pos}")
    beyond = (joint_pos < panda.JOINT_LOWER) | (joint_pos > panda.JOINT_UPPER)
    if beyond.any():
        i = int(beyond.argmax())
        raise ValueError(
            f"joint_pos[{i}] must be within {panda.JOINT_LOWER[i]:.4f}..{panda.JOINT_UPPER[i]:.4f} "
            f"rad, got {joint_pos[i]:.4f}"
        )
    return joint_pos


def _point(options: dict, name: str, config: PickPlaceConfig) -> np.ndarray | None:
    """Return the fixed point (2,) of that name, m, world frame; None if the options have none."""
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
    """Return a colour option as an array (3,) in [0, 1]."""
    rgb = np.asarray(value, dtype=np.float64)
    if rgb.shape != (3,) or not ((rgb >= 0) & (rgb <= 1)).all():
        raise ValueError(f"color must be three numbers from 0 to 1, got {value}")
    return rgb
