"""The scripted expert: one episode's pick and place become waypoints, and those become actions."""

import numpy as np

from experts import kinematics
from experts.waypoints import WAYPOINTS, Interpolation, Waypoint
from pp_env import panda, rotation
from pp_env.config import HOME_JOINT_POS
from pp_env.layout import OBSERVATION

_HOME = np.array(HOME_JOINT_POS)
_TILTS = np.radians(np.arange(0, 50, 5))
_MOUNT_ANGLE = np.pi / 4  # by which joint 7 must turn for a hand that looks along the arm
# Around the joint 7 that leaves the elbow in the vertical plane of base and hand, densely near it.
_JOINT_7_OFFSETS = 2.0 * np.linspace(-1, 1, 41) * np.abs(np.linspace(-1, 1, 41))
_HEIGHTS = tuple(sorted({w.height for w in WAYPOINTS if w.place != "home"}))
_PLACE_CLEARANCE = 0.002  # m by which the object is let go above the table
_LIMIT_MARGIN = 0.02  # rad that a planned posture keeps from the joint limits
_POINTING_DOWN = np.diag([1.0, -1.0, -1.0])  # panda_hand's axes at HOME

_MAX_NOISE = 0.2  # rad


class UnreachableError(ValueError):
    """No posture of the arm reaches the pick or the place."""


class PickPlaceExpert:
    """Picks the object, places it on the target and goes home: 9 segments, then stands still.

    A `Policy`: it needs `object_pos`, `object_quat` and `goal_pos` from `info` at reset, and the
    arm's joints from the observation. It knows no simulator.

    Args:
        steps_per_segment: Actions per waypoint.
        noise_rad: Waypoints in free space are moved by uniform noise of this size on every joint.
            Where contact is near, the hand's pose stays exact and the noise goes into the arm's
            posture instead, so that episodes vary but the grasp does not suffer.
        hold_steps: Actions at HOME at the end, for an arm that follows with a delay.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self, steps_per_segment: int = 30, noise_rad: float = 0.05, hold_steps: int = 0
    ) -> None:
        if steps_per_segment < 1:
            raise ValueError(f"steps_per_segment must be at least 1, got {steps_per_segment}")
        if hold_steps < 0:
            raise ValueError(f"hold_steps must not be negative, got {hold_steps}")
        if not 0.0 <= noise_rad <= _MAX_NOISE:
            raise ValueError(f"noise_rad must be from 0 to {_MAX_NOISE}, got {noise_rad}")
        self._steps_per_segment = steps_per_segment
        self._noise_rad = noise_rad
        self._hold_steps = hold_steps
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
            info: With `object_pos` (3,), `object_quat` (4,) w first, `goal_pos` (3,), world frame.
            rng: Where the noise comes from.

        Raises:
            UnreachableError: The arm cannot reach the pick or the place.
        """
        vector = observation["agent_pos"] if isinstance(observation, dict) else observation
        start = OBSERVATION.unpack(np.asarray(vector, dtype=np.float64))
        targets = plan(info["object_pos"], info["object_quat"], info["goal_pos"])
        noise = rng.uniform(-self._noise_rad, self._noise_rad, size=(len(WAYPOINTS), 7))
        self._interpolation = Interpolation(
            np.append(start["joint_pos"], start["gripper_pos"].mean()),
            _with_noise(targets, noise),
            self._steps_per_segment,
        )

    def act(self, observation) -> np.ndarray:
        """The next action (8,), whatever the observation: the plan is open loop."""
        return self._plan().next_action()

    def _plan(self) -> Interpolation:
        if self._interpolation is None:
            raise RuntimeError("the expert has no episode yet; call reset first")
        return self._interpolation


def plan(object_pos: np.ndarray, object_quat: np.ndarray, goal_pos: np.ndarray) -> np.ndarray:
    """Actions (9, 8) at the waypoints, without noise.

    One tilt serves the whole episode, the smallest with which everything is reachable, so that
    the object stays upright between pick and place.

    Raises:
        UnreachableError: There is none.
    """
    place_pos = np.append(goal_pos[:2], object_pos[2] + _PLACE_CLEARANCE)
    object_yaw = rotation.yaw(np.asarray(object_quat))
    for tilt in _TILTS:
        pick = _reach_above(object_pos, object_yaw, tilt)
        place = _reach_above(place_pos, object_yaw, tilt) if pick is not None else None
        if pick is not None and place is not None:
            return np.array([_action(w, {"pick": pick, "place": place}) for w in WAYPOINTS])
    raise UnreachableError(
        f"the arm reaches no grasp at pick {_xy(object_pos)} and place {_xy(goal_pos)}; "
        "try points within 0.75 m of the robot's base and at least 0.3 m in front of it"
    )


def _action(waypoint: Waypoint, reached: dict[str, dict[float, np.ndarray]]) -> np.ndarray:
    arm = _HOME if waypoint.place == "home" else reached[waypoint.place][waypoint.height]
    return np.append(arm, waypoint.gripper)


def _reach_above(
    grasp_pos: np.ndarray, object_yaw: float, tilt: float
) -> dict[float, np.ndarray] | None:
    """Joints (7,) by height above a grasp, or None where a height is out of reach.

    All heights share joint 7, so that going up and down is all but a straight line. Of the
    choices, the one that stays nearest to HOME is taken.
    """
    radial = np.arctan2(grasp_pos[1], grasp_pos[0])
    raised = grasp_pos + np.array([0.0, 0.0, 1.0]) * np.array(_HEIGHTS)[:, None, None]
    for heading in _headings(object_yaw, radial):
        joint_7 = _MOUNT_ANGLE + radial - heading + _JOINT_7_OFFSETS
        postures = _postures(raised, hand_orientation(heading, tilt), joint_7)
        costs = _cost(postures, _HOME)  # (height, joint 7, branch)
        totals = costs.min(-1).sum(0)
        if np.isfinite(totals).any():
            best = int(totals.argmin())
            branches = costs[:, best].argmin(-1)
            return {h: postures[i, best, branches[i]] for i, h in enumerate(_HEIGHTS)}
    return None


def _headings(object_yaw: float, radial: float) -> list[float]:
    """Headings that align the fingers with the object's faces, the one most outward first."""
    quarter_turns = object_yaw + np.arange(4) * np.pi / 2
    off_radial = np.abs((quarter_turns - radial + np.pi) % (2 * np.pi) - np.pi)
    return [float(quarter_turns[i]) for i in np.argsort(off_radial, kind="stable")[:2]]


def hand_orientation(heading: float, tilt: float) -> np.ndarray:
    """Rotation matrix (3, 3) of a hand that points down.

    Args:
        heading: Direction of the hand's x axis seen from above, rad from world x.
        tilt: Angle by which the fingers point away from the base, along the heading, rad.
    """
    cosine, sine = np.cos(tilt), np.sin(tilt)
    outward = np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
    return rotation.to_matrix(rotation.about_z(heading)) @ outward @ _POINTING_DOWN


def _postures(tcp: np.ndarray, orientation: np.ndarray, joint_7: np.ndarray) -> np.ndarray:
    """Postures (..., 4, 7) well within the limits, NaN where there is none."""
    hand = tcp - panda.TCP_OFFSET * orientation[:, 2]
    postures = kinematics.inverse(hand, orientation, joint_7)
    inside = (postures > panda.JOINT_LOWER + _LIMIT_MARGIN) & (
        postures < panda.JOINT_UPPER - _LIMIT_MARGIN
    )
    return np.where(inside.all(-1, keepdims=True), postures, np.nan)


def _with_noise(targets: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The actions (9, 8) varied by noise (9, 7), rad, within the joint limits."""
    noisy = targets.copy()
    for i, waypoint in enumerate(WAYPOINTS):
        if waypoint.is_free:
            noisy[i, :7] = np.clip(targets[i, :7] + noise[i], panda.JOINT_LOWER, panda.JOINT_UPPER)
        elif waypoint.place != "home":
            same_pose = i > 0 and np.array_equal(targets[i, :7], targets[i - 1, :7])
            noisy[i, :7] = noisy[i - 1, :7] if same_pose else _vary(targets[i, :7], noise[i, 6])
    return noisy


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
