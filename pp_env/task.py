"""The task: where an episode starts, and when it has succeeded. Pure functions."""

import math
from dataclasses import dataclass

import numpy as np

from pp_env import panda, rotation
from pp_env.config import HOME_JOINT_POS, ObjectConfig, PickPlaceConfig
from pp_env.sim.api import InitialState, Pose, SimState

_MAX_DRAWS = 1000
OPTIONS = ("pick", "place", "object", "color")


@dataclass(frozen=True)
class EpisodeStart:
    """What `reset` decides: where the object lies, where it belongs, what it looks like.

    Attributes:
        pick: (2,) x and y of the object's centre, m, world.
        place: (2,) x and y of the target, m, world.
        object_rgb: (3,) in [0, 1].
    """

    pick: np.ndarray
    place: np.ndarray
    object_rgb: np.ndarray


def sample_start(
    rng: np.random.Generator, config: PickPlaceConfig, options: dict | None = None
) -> EpisodeStart:
    """Draws an episode's start; `options` fixes any part of it.

    The same numbers are drawn whatever is fixed, so fixing one part leaves the others as they
    were for that seed.

    Args:
        rng: Where all randomness comes from.
        config: The ranges.
        options: Any of "pick" (2,), "place" (2,), "color" (3,), "object" (its name).

    Raises:
        ValueError: An option is unknown or does not fit the scene.
    """
    options = dict(options or {})
    _check_names(options, config.object)
    task = config.task
    fixed_pick = _point(options, "pick", config)
    fixed_place = _point(options, "place", config)
    rgb = rng.uniform(*task.color_range, size=3)
    pick, place = _draw_pair(rng, config, fixed_pick, fixed_place)
    if "color" in options:
        rgb = _color(options["color"])
    return EpisodeStart(pick=pick, place=place, object_rgb=rgb)


def initial_state(start: EpisodeStart, config: PickPlaceConfig) -> InitialState:
    """The scene at reset: arm at HOME, gripper open, object at rest on the table."""
    return InitialState(
        joint_pos=np.array(HOME_JOINT_POS),
        gripper_pos=panda.FINGER_OPEN,
        object=Pose(np.append(start.pick, config.rest_z), rotation.about_z(0.0)),
        object_rgb=start.object_rgb,
        goal_pos=np.append(start.place, config.table.top_z),
    )


def distance_to_goal(state: SimState, goal_pos: np.ndarray) -> float:
    """From the object's centre to the target in the table's plane, m."""
    (x, y, _), (goal_x, goal_y, _) = state.object.position.tolist(), goal_pos.tolist()
    return math.hypot(x - goal_x, y - goal_y)


def is_success(state: SimState, goal_pos: np.ndarray, config: PickPlaceConfig) -> bool:
    """Whether the object lies at the target, let go and at rest, with the arm back at HOME."""
    return not failures(state, goal_pos, config)


def failures(state: SimState, goal_pos: np.ndarray, config: PickPlaceConfig) -> list[str]:
    """The conditions for success that do not hold, by name; none for a success."""
    task = config.task
    height = state.object.position[2] - config.rest_z
    conditions: dict[str, bool] = {
        "away_from_target": distance_to_goal(state, goal_pos) <= task.place_tolerance,
        "not_on_table": abs(height) <= task.height_tolerance,
        "still_held": not state.is_grasped,
        "object_moving": math.hypot(*state.object_vel) <= task.rest_speed,
    }
    if task.require_home:
        least = panda.FINGER_OPEN - task.open_tolerance
        conditions["gripper_not_open"] = all(x >= least for x in state.gripper_pos.tolist())
        conditions["arm_not_home"] = all(
            abs(q - home) <= task.home_tolerance
            for q, home in zip(state.joint_pos.tolist(), HOME_JOINT_POS, strict=True)
        )
    return [name for name, holds in conditions.items() if not holds]


def _draw_pair(
    rng: np.random.Generator,
    config: PickPlaceConfig,
    fixed_pick: np.ndarray | None,
    fixed_place: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    task = config.task
    low, high = np.transpose([task.x_range, task.y_range])
    for _ in range(_MAX_DRAWS):
        drawn_pick, drawn_place = rng.uniform(low, high), rng.uniform(low, high)
        pick = drawn_pick if fixed_pick is None else fixed_pick
        place = drawn_place if fixed_place is None else fixed_place
        if np.hypot(*(pick - place)) >= task.min_distance:
            return pick, place
        if fixed_pick is not None and fixed_place is not None:
            break
    raise ValueError(
        f"pick and place must be at least {task.min_distance} m apart, got pick {fixed_pick} and "
        f"place {fixed_place}"
    )


def _check_names(options: dict, obj: ObjectConfig) -> None:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"unknown reset options {unknown}; these exist: {list(OPTIONS)}")
    if options.get("object", obj.name) != obj.name:
        raise ValueError(f"object must be one of ['{obj.name}'], got {options['object']!r}")


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
