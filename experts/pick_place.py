"""The scripted expert: it plans waypoints from an episode's pick and place, and actions between."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from experts.waypoints import WAYPOINTS, Interpolation, Waypoint, path_offset
from pp_env import inverse_kinematics, kinematics, panda, rotation
from pp_env.config import HOME_JOINT_POS, HOME_TCP, TaskConfig, TimingConfig
from pp_env.layout import OBSERVATION
from pp_env.objects import ObjectConfig

_HOME = np.array(HOME_JOINT_POS)
_TILTS = np.radians(np.arange(0, 50, 5))
_MOUNT_ANGLE = np.pi / 4  # by which joint 7 must turn for a hand that looks along the arm
# Around the joint 7 that leaves the elbow in the vertical plane of base and hand, densely near it.
_JOINT_7_OFFSETS = 2.0 * np.linspace(-1, 1, 41) * np.abs(np.linspace(-1, 1, 41))
_PLACE_CLEARANCE = 0.002  # m above the table at which the object is released
_LIMIT_MARGIN = 0.02  # rad between a planned posture and the joint limits
_POINTING_DOWN = np.diag([1.0, -1.0, -1.0])  # panda_hand's axes at HOME

MAX_NOISE_RAD = 0.2  # rad
MAX_PATH_NOISE_RAD = 0.5  # rad
_PATH_NOISE_WAVES = 3  # the k-th has 1/k of the amplitude
# Joints 2, 4 and 6 raise and lower the hand, which must stay clear of table and object.
_PATH_NOISE_WEIGHTS = np.array([1.0, 0.3, 1.0, 0.3, 1.0, 0.3, 1.0])
_PATH_NOISE_SEGMENTS = tuple(
    i for i, w in enumerate(WAYPOINTS) if w.name in ("APPROACH_PICK", "MOVE_TO_PLACE")
)
_MAX_PALM_TILT = np.radians(30)  # beyond it the palm's edge touches an object held near its top
_TALL_SCENE = 0.045  # m: higher tops come too near to the fingertips at HOME
_MAX_TCP_SHIFT = 0.02  # m that noise may move the TCP beside and above tall objects
_TOP_CLEARANCE = 0.05  # m from the highest top to the TCP, on the way out and home
_SWING_COST = 1.0  # weight of a joint's way up from a tall object, beside its distance from HOME
_BESIDE_HEIGHT = 0.05  # m above the grasp: below, the fingers are beside the object


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
    """

    grasp_height: float = ObjectConfig().grasp_height
    grasp_yaws: tuple[float, ...] = tuple(ObjectConfig().grasp_yaws.tolist())
    travel_height: float = TaskConfig.travel_height
    scene_height: float = ObjectConfig().height

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> "GraspRequirements":
        """Read the fields from an environment's `info`; missing ones keep their defaults."""
        return cls(**{name: info[name] for name in cls.__dataclass_fields__ if name in info})

    @property
    def is_tall(self) -> bool:
        """True if the hand cannot go straight from HOME to the object."""
        return self.scene_height > _TALL_SCENE


class PickPlaceExpert:
    """A scripted policy: pick the object, place it on the target, go home, stand still.

    The nine segments between the waypoints are planned at `reset` and replayed open loop. `reset`
    reads `object_pos`, `object_quat`, `goal_pos` and the fields of `GraspRequirements` from `info`,
    and the arm's joints from the observation. It depends on no simulator.

    Args:
        steps_per_segment: Actions per waypoint; None is one second.
        noise_rad: Waypoints in free space are moved by uniform noise of this size on every joint.
            Where contact is near, the hand's pose stays exact and the noise changes the arm's
            posture instead, so that episodes vary but the grasp does not suffer.
        hold_steps: Actions at HOME at the end, for an arm that follows with a delay.
        path_noise_rad: On the way to pick and place, smooth noise of up to about this size moves
            the arm off its straight line. On a straight line the first movement reveals where it
            ends, and a policy that learns from it need not look at the object (docs/training.md).
            Not used with tall objects.
        control_hz: Actions per second.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        steps_per_segment: int | None = None,
        noise_rad: float = 0.05,
        hold_steps: int = 0,
        path_noise_rad: float = 0.0,
        control_hz: int = TimingConfig.control_hz,
    ) -> None:
        steps_per_segment = control_hz if steps_per_segment is None else steps_per_segment
        if steps_per_segment < 1:
            raise ValueError(f"steps_per_segment must be at least 1, got {steps_per_segment}")
        if hold_steps < 0:
            raise ValueError(f"hold_steps must not be negative, got {hold_steps}")
        if not 0.0 <= noise_rad <= MAX_NOISE_RAD:
            raise ValueError(f"noise_rad must be from 0 to {MAX_NOISE_RAD}, got {noise_rad}")
        if not 0.0 <= path_noise_rad <= MAX_PATH_NOISE_RAD:
            raise ValueError(
                f"path_noise_rad must be from 0 to {MAX_PATH_NOISE_RAD}, got {path_noise_rad}"
            )
        self._steps_per_segment = steps_per_segment
        self._noise_rad = noise_rad
        self._hold_steps = hold_steps
        self._path_noise_rad = path_noise_rad
        self._control_hz = control_hz
        self._interpolation: Interpolation | None = None

    @property
    def num_steps(self) -> int:
        """Number of actions in one episode."""
        return len(WAYPOINTS) * self._steps_per_segment + self._hold_steps

    @property
    def phase(self) -> str:
        """Name of the waypoint that the next action leads to.

        Raises:
            RuntimeError: `reset` was not called.
        """
        return WAYPOINTS[self._started_interpolation().segment].name

    def reset(self, observation, info: dict, rng: np.random.Generator) -> None:
        """Plan an episode.

        Args:
            observation: Observation of the first state: the vector (23,), or a dictionary that has
                it as `agent_pos`.
            info: `object_pos` (3,), m, `object_quat` (4,) w, x, y, z, and `goal_pos` (3,), m, all
                in the world frame, and the fields of `GraspRequirements`.
            rng: Generator of the noise.

        Raises:
            UnreachableError: The arm cannot reach the pick or the place.
        """
        vector = observation["agent_pos"] if isinstance(observation, dict) else observation
        start = OBSERVATION.unpack(np.asarray(vector, dtype=np.float64))
        requirements = GraspRequirements.from_info(info)
        targets = plan(info["object_pos"], info["object_quat"], info["goal_pos"], requirements)
        noise = rng.uniform(-self._noise_rad, self._noise_rad, size=(len(WAYPOINTS), 7))
        targets = _add_noise(targets, noise, _MAX_TCP_SHIFT if requirements.is_tall else np.inf)
        highest_top = info["goal_pos"][2] + requirements.scene_height
        begin = np.append(start["joint_pos"], start["gripper_pos"].mean())
        has_path_noise = self._path_noise_rad > 0.0 and not requirements.is_tall
        self._interpolation = Interpolation(
            begin,
            targets,
            self._steps_per_segment,
            _via_points(targets, highest_top) if requirements.is_tall else {},
            self._sample_path_noise(np.vstack([begin, targets])[:, :7], rng)
            if has_path_noise
            else {},
        )

    def act(self, observation) -> np.ndarray:
        """Return the next action (8,). The plan is open loop, so the observation is not used.

        Raises:
            RuntimeError: `reset` was not called.
        """
        return self._started_interpolation().next_action()

    def _sample_path_noise(
        self, knots: np.ndarray, rng: np.random.Generator
    ) -> dict[int, np.ndarray]:
        """Sample amplitudes (waves, 7), rad, by segment, small enough for the joints' limits.

        Args:
            knots: (10, 7) joints at the start and at the waypoints, rad.
            rng: Generator of the noise.
        """
        progress = np.linspace(0.0, 1.0, self._steps_per_segment + 1)
        sampled = {}
        for i in _PATH_NOISE_SEGMENTS:
            amplitudes = rng.uniform(-1.0, 1.0, size=(_PATH_NOISE_WAVES, 7)) * _PATH_NOISE_WEIGHTS
            amplitudes *= self._path_noise_rad / np.arange(1, _PATH_NOISE_WAVES + 1)[:, None]
            line = knots[i] + progress[:, None] * (knots[i + 1] - knots[i])
            while not self._is_feasible(
                line + path_offset(amplitudes, progress)
            ) and self._is_feasible(line):
                amplitudes /= 2
            sampled[i] = amplitudes
        return sampled

    def _is_feasible(self, path: np.ndarray) -> bool:
        """Return True if a path (n, 7), rad at control rate, keeps joint limits and speeds."""
        speed = np.abs(np.diff(path, axis=0)) * self._control_hz
        inside = (path >= panda.JOINT_LOWER) & (path <= panda.JOINT_UPPER)
        return bool(inside.all() and (speed <= panda.JOINT_VELOCITY_LIMIT).all())

    def _started_interpolation(self) -> Interpolation:
        if self._interpolation is None:
            raise RuntimeError("the expert has no episode yet; call reset first")
        return self._interpolation


def plan(
    object_pos: np.ndarray,
    object_quat_wxyz: np.ndarray,
    goal_pos: np.ndarray,
    requirements: GraspRequirements | None = None,
) -> np.ndarray:
    """Return the actions (9, 8) at the waypoints, without noise.

    One tilt serves the whole episode, the smallest with which everything is reachable, so that
    the object stays upright between pick and place. The object keeps its heading, or one that
    looks the same; where that is out of reach, it is placed with the hand pointing outward.

    Args:
        object_pos: (3,) the object's centre, m, world frame.
        object_quat_wxyz: (4,) its orientation, world frame.
        goal_pos: (3,) the target on the table, m, world frame.
        requirements: How to grasp the object; by default as a small cube.

    Raises:
        UnreachableError: The arm cannot reach the pick or the place.
    """
    requirements = requirements or GraspRequirements()
    grasp_pos = object_pos + np.array([0.0, 0.0, requirements.grasp_height])
    place_pos = np.append(goal_pos[:2], grasp_pos[2] + _PLACE_CLEARANCE)
    heights = (0.0, requirements.travel_height)
    swing_cost = _SWING_COST if requirements.is_tall else 0.0
    yaws = rotation.yaw(np.asarray(object_quat_wxyz)) + np.array(requirements.grasp_yaws)
    tilts = _TILTS if requirements.grasp_height == 0.0 else _TILTS[_TILTS <= _MAX_PALM_TILT + 1e-9]
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
    """Return the action (8,) at a waypoint, from the joints (7,) at both heights of each place."""
    arm = _HOME if waypoint.place == "home" else reached[waypoint.place][waypoint.is_raised]
    return np.append(arm, waypoint.gripper)


def _via_points(targets: np.ndarray, highest_top: float) -> dict[int, np.ndarray]:
    """Return actions (8,) by segment, where a straight line would touch something.

    The way out and home leads above HOME, so high that the hand clears all tops. Down to the
    object and up from it, the hand moves vertically while the fingers are beside it.

    Args:
        targets: Actions (9, 8) at the waypoints.
        highest_top: Height of the highest top, m, world frame.
    """
    above_home = _raise_hand(_HOME, max(0.0, highest_top + _TOP_CLEARANCE - HOME_TCP[2]), _HOME)
    last = len(WAYPOINTS) - 1
    via_points = {i: np.append(above_home, WAYPOINTS[i].gripper) for i in (0, last)}
    for i in range(1, last):
        if WAYPOINTS[i].is_raised != WAYPOINTS[i - 1].is_raised:
            low, high = sorted((i - 1, i), key=lambda k: WAYPOINTS[k].is_raised)
            beside = _raise_hand(targets[low, :7], _BESIDE_HEIGHT, targets[high, :7])
            via_points[i] = np.append(beside, targets[low, 7])
    return via_points


def _raise_hand(posture: np.ndarray, height: float, towards: np.ndarray) -> np.ndarray:
    """Return a posture (7,) with the hand raised by `height`, m, near the way to `towards` (7,).

    If none is within reach, return `towards`. Joint 7 may move a little, because near HOME joints 1
    and 3 may be almost parallel and with a fixed joint 7 the arm could swing.
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
    """Return joints (7,) at both heights above a grasp, or None where one is out of reach.

    Both heights share joint 7, so that going up and down is all but a straight line. Of all pairs
    it takes the one nearest to HOME.

    Args:
        grasp_pos: (3,) the TCP in the grasp, m, world frame.
        yaws: (n,) headings of the hand, rad from world x.
        tilt: Angle by which the fingers point away from the base, rad.
        heights: Heights above the grasp, m.
        swing_cost: Weight of the distance between the pair's two postures.
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
    """Return the two headings, rad, that point outward the most, the better one first."""
    off_radial = np.abs((yaws - radial + np.pi) % (2 * np.pi) - np.pi)
    return [float(yaws[i]) for i in np.argsort(off_radial, kind="stable")[:2]]


def hand_orientation(heading: float, tilt: float) -> np.ndarray:
    """Return the rotation matrix (3, 3), world frame, of a hand that points down.

    Args:
        heading: Direction of the hand's x axis seen from above, rad from world x.
        tilt: Angle by which the fingers point away from the base, along the heading, rad.
    """
    cosine, sine = np.cos(tilt), np.sin(tilt)
    outward = np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
    return kinematics.about_z(np.array(heading)) @ outward @ _POINTING_DOWN


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


def _add_noise(targets: np.ndarray, noise: np.ndarray, max_tcp_shift: float) -> np.ndarray:
    """Return the actions (9, 8) varied by noise, within the joint limits.

    Args:
        targets: (9, 8) actions at the waypoints.
        noise: (9, 7) rad.
        max_tcp_shift: Most that the noise may move the TCP in free space, m.
    """
    noisy = targets.copy()
    for i, waypoint in enumerate(WAYPOINTS):
        if waypoint.is_free:
            noisy[i, :7] = _add_joint_noise(targets[i, :7], noise[i], max_tcp_shift)
        elif waypoint.place != "home":
            same_pose = i > 0 and np.array_equal(targets[i, :7], targets[i - 1, :7])
            noisy[i, :7] = (
                noisy[i - 1, :7] if same_pose else _vary_posture(targets[i, :7], noise[i, 6])
            )
    return noisy


def _add_joint_noise(posture: np.ndarray, noise: np.ndarray, max_tcp_shift: float) -> np.ndarray:
    """Return the posture (7,) plus noise (7,), rad, within the joint limits.

    The noise is halved until it moves the TCP by at most `max_tcp_shift`, m.
    """
    noisy = np.clip(posture + noise, panda.JOINT_LOWER, panda.JOINT_UPPER)
    if np.isinf(max_tcp_shift):
        return noisy
    tcp = _tcp_position(posture)
    while np.linalg.norm(_tcp_position(noisy) - tcp) > max_tcp_shift:
        noisy = (noisy + posture) / 2
    return noisy


def _tcp_position(posture: np.ndarray) -> np.ndarray:
    """Return the position (3,) of the TCP in a posture (7,), m, world frame."""
    hand, orientation = kinematics.forward(posture)
    return hand + panda.TCP_OFFSET * orientation[:, 2]


def _vary_posture(posture: np.ndarray, joint_7_noise: float) -> np.ndarray:
    """Return another posture (7,) with the same pose of the hand, and joint 7 moved by noise, rad.

    If there is none, return the posture itself.
    """
    hand, orientation = kinematics.forward(posture)
    tcp = hand + panda.TCP_OFFSET * orientation[:, 2]
    candidates = _postures(tcp, orientation, posture[6] + np.array(joint_7_noise))
    costs = _cost(candidates, posture)
    return candidates[costs.argmin()] if np.isfinite(costs).any() else posture


def _cost(postures: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return squared distances (...) of postures (..., 7) from one, rad^2; infinite for NaN."""
    return np.nan_to_num(((postures - reference) ** 2).sum(-1), nan=np.inf)


def _xy(position: np.ndarray) -> str:
    return f"({position[0]:.3f}, {position[1]:.3f})"
