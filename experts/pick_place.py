"""The scripted expert: one episode's pick and place become waypoints, and those become actions."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from experts import inverse_kinematics as kinematics
from experts.waypoints import WAYPOINTS, Interpolation, Waypoint, strayed
from pp_env import panda, rotation
from pp_env.config import HOME_JOINT_POS, HOME_TCP, ObjectConfig, TaskConfig, TimingConfig
from pp_env.layout import OBSERVATION

_HOME = np.array(HOME_JOINT_POS)
_TILTS = np.radians(np.arange(0, 50, 5))
_MOUNT_ANGLE = np.pi / 4  # by which joint 7 must turn for a hand that looks along the arm
# Around the joint 7 that leaves the elbow in the vertical plane of base and hand, densely near it.
_JOINT_7_OFFSETS = 2.0 * np.linspace(-1, 1, 41) * np.abs(np.linspace(-1, 1, 41))
_PLACE_CLEARANCE = 0.002  # m by which the object is let go above the table
_LIMIT_MARGIN = 0.02  # rad that a planned posture keeps from the joint limits
_POINTING_DOWN = np.diag([1.0, -1.0, -1.0])  # panda_hand's axes at HOME

_MAX_NOISE = 0.2  # rad
_MAX_WANDER = 0.5  # rad
_WANDER_WAVES = 3  # of which the k-th has a k-th of the size
# Joints 2, 4 and 6 raise and lower the hand, which must stay clear of table and object.
_WANDER_SHARES = np.array([1.0, 0.3, 1.0, 0.3, 1.0, 0.3, 1.0])
_WANDERING = tuple(
    i for i, w in enumerate(WAYPOINTS) if w.name in ("APPROACH_PICK", "MOVE_TO_PLACE")
)
_PALM_TILT = np.radians(30)  # beyond it the palm's edge touches an object that is held near its top
_TALL = 0.045  # m: what is higher comes too near to the fingertips at HOME
_STRAY = 0.02  # m that noise may move the TCP beside and above tall objects
_OVER_TOPS = 0.05  # m from the highest top to the TCP, on the way out and home
_SWING_COST = 1.0  # of a joint's way up from a tall object, beside its distance from HOME
_BESIDE = 0.05  # m above the grasp: from here down, the fingers are beside the object


class UnreachableError(ValueError):
    """No posture of the arm reaches the pick or the place."""


@dataclass(frozen=True)
class GraspRequirements:
    """What the objects on the table ask of the hand. By default, a small cube alone.

    Attributes:
        grasp_height: Of the TCP above the object's centre, m.
        grasp_yaws: Headings at which the hand fits, against the object's x axis, rad.
        travel_height: Of the TCP above the grasp where it passes over everything, m.
        scene_height: Of the highest top above the table, m.
    """

    grasp_height: float = ObjectConfig().grasp_height
    grasp_yaws: tuple[float, ...] = tuple(ObjectConfig().grasp_yaws.tolist())
    travel_height: float = TaskConfig.travel_height
    scene_height: float = ObjectConfig().height

    @classmethod
    def of(cls, info: dict[str, Any]) -> "GraspRequirements":
        """From an environment's `info`, which need not have all of it."""
        return cls(**{name: info[name] for name in cls.__dataclass_fields__ if name in info})

    @property
    def is_tall(self) -> bool:
        """Whether the hand can't go straight from HOME to where it is needed."""
        return self.scene_height > _TALL


class PickPlaceExpert:
    """Picks the object, places it on the target and goes home: 9 segments, then stands still.

    A `Policy`: it needs `object_pos`, `object_quat`, `goal_pos` and what `GraspRequirements` takes from
    `info` at reset, and the arm's joints from the observation. It knows no simulator.

    Args:
        steps_per_segment: Actions per waypoint.
        noise_rad: Waypoints in free space are moved by uniform noise of this size on every joint.
            Where contact is near, the hand's pose stays exact and the noise goes into the arm's
            posture instead, so that episodes vary but the grasp does not suffer.
        hold_steps: Actions at HOME at the end, for an arm that follows with a delay.
        wander_rad: On the way to pick and place the arm wanders off its line by up to about this.
            On a straight line the first movement betrays where it ends, and a policy that learns
            from it need not look at the object (docs/training.md). Not with tall objects.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        steps_per_segment: int = 30,
        noise_rad: float = 0.05,
        hold_steps: int = 0,
        wander_rad: float = 0.0,
    ) -> None:
        if steps_per_segment < 1:
            raise ValueError(f"steps_per_segment must be at least 1, got {steps_per_segment}")
        if hold_steps < 0:
            raise ValueError(f"hold_steps must not be negative, got {hold_steps}")
        if not 0.0 <= noise_rad <= _MAX_NOISE:
            raise ValueError(f"noise_rad must be from 0 to {_MAX_NOISE}, got {noise_rad}")
        if not 0.0 <= wander_rad <= _MAX_WANDER:
            raise ValueError(f"wander_rad must be from 0 to {_MAX_WANDER}, got {wander_rad}")
        self._steps_per_segment = steps_per_segment
        self._noise_rad = noise_rad
        self._hold_steps = hold_steps
        self._wander_rad = wander_rad
        self._interpolation: Interpolation | None = None

    @property
    def num_steps(self) -> int:
        """Actions in one episode."""
        return len(WAYPOINTS) * self._steps_per_segment + self._hold_steps

    @property
    def phase(self) -> str:
        """Name of the waypoint that the arm is on its way to."""
        return WAYPOINTS[self._plan().segment].name

    def reset(self, observation, info: dict, rng: np.random.Generator) -> None:
        """Plans an episode.

        Args:
            observation: Observation of the first state: the vector, or a dictionary with it as
                `agent_pos`.
            info: With `object_pos` (3,), `object_quat` (4,) w first, `goal_pos` (3,), world frame,
                and the fields of `GraspRequirements`.
            rng: Where the noise comes from.

        Raises:
            UnreachableError: The arm cannot reach the pick or the place.
        """
        vector = observation["agent_pos"] if isinstance(observation, dict) else observation
        start = OBSERVATION.unpack(np.asarray(vector, dtype=np.float64))
        handling = GraspRequirements.of(info)
        targets = plan(info["object_pos"], info["object_quat"], info["goal_pos"], handling)
        noise = rng.uniform(-self._noise_rad, self._noise_rad, size=(len(WAYPOINTS), 7))
        targets = _with_noise(targets, noise, _STRAY if handling.is_tall else np.inf)
        highest_top = info["goal_pos"][2] + handling.scene_height
        begin = np.append(start["joint_pos"], start["gripper_pos"].mean())
        may_wander = self._wander_rad > 0.0 and not handling.is_tall
        self._interpolation = Interpolation(
            begin,
            targets,
            self._steps_per_segment,
            _detours(targets, highest_top) if handling.is_tall else {},
            self._draw_wander(np.vstack([begin, targets])[:, :7], rng) if may_wander else {},
        )

    def act(self, observation) -> np.ndarray:
        """The next action (8,), whatever the observation: the plan is open loop."""
        return self._plan().next_action()

    def _draw_wander(self, knots: np.ndarray, rng: np.random.Generator) -> dict[int, np.ndarray]:
        """Sizes (waves, 7), rad, by segment between the knots (10, 7), such that the arm can."""
        share = np.linspace(0.0, 1.0, self._steps_per_segment + 1)
        drawn = {}
        for i in _WANDERING:
            sizes = rng.uniform(-1.0, 1.0, size=(_WANDER_WAVES, 7)) * _WANDER_SHARES
            sizes *= self._wander_rad / np.arange(1, _WANDER_WAVES + 1)[:, None]
            line = knots[i] + share[:, None] * (knots[i + 1] - knots[i])
            while not _is_feasible(line + strayed(sizes, share)) and _is_feasible(line):
                sizes /= 2
            drawn[i] = sizes
        return drawn

    def _plan(self) -> Interpolation:
        if self._interpolation is None:
            raise RuntimeError("the expert has no episode yet; call reset first")
        return self._interpolation


def plan(
    object_pos: np.ndarray,
    object_quat: np.ndarray,
    goal_pos: np.ndarray,
    handling: GraspRequirements | None = None,
) -> np.ndarray:
    """Actions (9, 8) at the waypoints, without noise.

    One tilt serves the whole episode, the smallest with which everything is reachable, so that
    the object stays upright between pick and place. The object keeps its heading, or one that
    looks the same; where that is out of reach, it is placed with the hand pointing outward.

    Args:
        object_pos: (3,) the object's centre, m, world.
        object_quat: (4,) its orientation, w first.
        goal_pos: (3,) where it belongs, on the table, m, world.
        handling: What the objects ask for; by default those of a small cube.

    Raises:
        UnreachableError: There is none.
    """
    handling = handling or GraspRequirements()
    grasp_pos = object_pos + np.array([0.0, 0.0, handling.grasp_height])
    place_pos = np.append(goal_pos[:2], grasp_pos[2] + _PLACE_CLEARANCE)
    heights = (0.0, handling.travel_height)
    swing_cost = _SWING_COST if handling.is_tall else 0.0
    yaws = rotation.yaw(np.asarray(object_quat)) + np.array(handling.grasp_yaws)
    tilts = _TILTS if handling.grasp_height == 0.0 else _TILTS[_TILTS <= _PALM_TILT + 1e-9]
    outward = np.array([np.arctan2(goal_pos[1], goal_pos[0])])
    for place_yaws in (yaws, outward):
        for tilt in tilts:
            pick = _reach_above(grasp_pos, yaws, tilt, heights, swing_cost)
            if not pick:
                continue
            place = _reach_above(place_pos, place_yaws, tilt, heights, swing_cost)
            if place:
                return np.array([_action(w, {"pick": pick, "place": place}) for w in WAYPOINTS])
    raise UnreachableError(
        f"the arm reaches no grasp at pick {_xy(object_pos)} and place {_xy(goal_pos)}; "
        "try points within 0.75 m of the robot's base and at least 0.3 m in front of it"
    )


def _action(waypoint: Waypoint, reached: dict[str, list[np.ndarray]]) -> np.ndarray:
    arm = _HOME if waypoint.place == "home" else reached[waypoint.place][waypoint.is_raised]
    return np.append(arm, waypoint.gripper)


def _detours(targets: np.ndarray, highest_top: float) -> dict[int, np.ndarray]:
    """Actions (8,) that segments pass on their way, where a straight line would touch something.

    The way out and home leads above HOME, so high that the hand clears all tops. Down to the
    object and up from it, the hand moves vertically while the fingers are beside it.

    Args:
        targets: Actions (9, 8) at the waypoints.
        highest_top: m, world.
    """
    above_home = _raised(_HOME, max(0.0, highest_top + _OVER_TOPS - HOME_TCP[2]), _HOME)
    last = len(WAYPOINTS) - 1
    detours = {i: np.append(above_home, WAYPOINTS[i].gripper) for i in (0, last)}
    for i in range(1, last):
        if WAYPOINTS[i].is_raised != WAYPOINTS[i - 1].is_raised:
            low, high = sorted((i - 1, i), key=lambda k: WAYPOINTS[k].is_raised)
            beside = _raised(targets[low, :7], _BESIDE, targets[high, :7])
            detours[i] = np.append(beside, targets[low, 7])
    return detours


def _raised(posture: np.ndarray, height: float, towards: np.ndarray) -> np.ndarray:
    """A posture with the hand higher by so much, m, on the way to another; or that, out of reach.

    Near it joints 1 and 3 may be almost parallel, so joint 7 is free to move a little: with a
    fixed one the arm could swing.
    """
    hand, orientation = kinematics.forward(posture)
    tcp = hand + panda.TCP_OFFSET * orientation[:, 2] + np.array([0.0, 0.0, height])
    candidates = _postures(tcp, orientation, posture[6] + 0.1 * _JOINT_7_OFFSETS).reshape(-1, 7)
    costs = _cost(candidates, posture) + _cost(candidates, towards)
    return candidates[costs.argmin()] if np.isfinite(costs).any() else towards


def _reach_above(
    grasp_pos: np.ndarray,
    yaws: np.ndarray,
    tilt: float,
    heights: tuple[float, float],
    swing_cost: float,
) -> list[np.ndarray] | None:
    """Joints (7,) at both heights above a grasp, or None where one is out of reach.

    Both heights share joint 7, so that going up and down is all but a straight line. Of the
    choices, the pair that stays nearest to HOME is taken; `swing_cost` is the weight of how far
    its two are from each other.
    """
    radial = np.arctan2(grasp_pos[1], grasp_pos[0])
    raised = grasp_pos + np.array([0.0, 0.0, 1.0]) * np.array(heights)[:, None, None]
    for heading in _headings(yaws, radial):
        joint_7 = _MOUNT_ANGLE + radial - heading + _JOINT_7_OFFSETS
        postures = _postures(raised, hand_orientation(heading, tilt), joint_7)
        low, high = postures[0][:, :, None], postures[1][:, None]  # to be paired, branch by branch
        costs = _cost(low, _HOME) + _cost(high, _HOME)
        if swing_cost:
            costs = costs + swing_cost * _cost(low, high)
        if np.isfinite(costs).any():
            joint, *branches = np.unravel_index(costs.argmin(), costs.shape)
            return [postures[i, joint, branch] for i, branch in enumerate(branches)]
    return None


def _headings(yaws: np.ndarray, radial: float) -> list[float]:
    """The two headings of the hand that point outward the most, the better one first."""
    off_radial = np.abs((yaws - radial + np.pi) % (2 * np.pi) - np.pi)
    return [float(yaws[i]) for i in np.argsort(off_radial, kind="stable")[:2]]


def hand_orientation(heading: float, tilt: float) -> np.ndarray:
    """Rotation matrix (3, 3) of a hand that points down.

    Args:
        heading: Direction of the hand's x axis seen from above, rad from world x.
        tilt: Angle by which the fingers point away from the base, along the heading, rad.
    """
    cosine, sine = np.cos(tilt), np.sin(tilt)
    outward = np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
    return kinematics.about_z(np.array(heading)) @ outward @ _POINTING_DOWN


def _postures(tcp: np.ndarray, orientation: np.ndarray, joint_7: np.ndarray) -> np.ndarray:
    """Postures (..., 4, 7) well within the limits, NaN where there is none."""
    hand = tcp - panda.TCP_OFFSET * orientation[:, 2]
    postures = kinematics.inverse(hand, orientation, joint_7)
    inside = (postures > panda.JOINT_LOWER + _LIMIT_MARGIN) & (
        postures < panda.JOINT_UPPER - _LIMIT_MARGIN
    )
    return np.where(inside.all(-1, keepdims=True), postures, np.nan)


def _with_noise(targets: np.ndarray, noise: np.ndarray, stray: float) -> np.ndarray:
    """The actions (9, 8) varied by noise (9, 7), rad, within the joint limits.

    Args:
        targets: The actions.
        noise: What is added in free space, and made less where it moves the TCP too far.
        stray: How far that is, m.
    """
    noisy = targets.copy()
    for i, waypoint in enumerate(WAYPOINTS):
        if waypoint.is_free:
            noisy[i, :7] = _moved(targets[i, :7], noise[i], stray)
        elif waypoint.place != "home":
            same_pose = i > 0 and np.array_equal(targets[i, :7], targets[i - 1, :7])
            noisy[i, :7] = noisy[i - 1, :7] if same_pose else _vary(targets[i, :7], noise[i, 6])
    return noisy


def _is_feasible(path: np.ndarray) -> bool:
    """Whether postures (n, 7) at control rate keep to the joints' limits and speeds."""
    speed = np.abs(np.diff(path, axis=0)) * TimingConfig.control_hz
    inside = (path >= panda.JOINT_LOWER) & (path <= panda.JOINT_UPPER)
    return bool(inside.all() and (speed <= panda.JOINT_VELOCITY_LIMIT).all())


def _moved(posture: np.ndarray, noise: np.ndarray, stray: float) -> np.ndarray:
    """The posture with noise, rad, of which at most so much is left that the TCP strays no more."""
    moved = np.clip(posture + noise, panda.JOINT_LOWER, panda.JOINT_UPPER)
    if np.isinf(stray):
        return moved
    tcp = _tcp(posture)
    while np.linalg.norm(_tcp(moved) - tcp) > stray:
        moved = (moved + posture) / 2
    return moved


def _tcp(posture: np.ndarray) -> np.ndarray:
    hand, orientation = kinematics.forward(posture)
    return hand + panda.TCP_OFFSET * orientation[:, 2]


def _vary(posture: np.ndarray, noise_joint_7: float) -> np.ndarray:
    """Another posture with the same pose of the hand, joint 7 moved by the noise, rad."""
    hand, orientation = kinematics.forward(posture)
    tcp = hand + panda.TCP_OFFSET * orientation[:, 2]
    candidates = _postures(tcp, orientation, posture[6] + np.array(noise_joint_7))
    costs = _cost(candidates, posture)
    return candidates[costs.argmin()] if np.isfinite(costs).any() else posture


def _cost(postures: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Squared distance (...) of postures (..., 7) from one, rad^2; infinite where there is none."""
    return np.nan_to_num(((postures - reference) ** 2).sum(-1), nan=np.inf)


def _xy(position: np.ndarray) -> str:
    return f"({position[0]:.3f}, {position[1]:.3f})"
