"""The scripted expert: it plans waypoints from an episode's pick and place, and actions between."""

import numpy as np

from experts.reach import (
    BESIDE_HEIGHT,
    HOME,
    Column,
    GraspRequirements,
    add_joint_noise,
    raise_hand,
    raise_over,
    reach_pick_and_place,
    vary_posture,
)
from experts.waypoints import WAYPOINTS, Interpolation, Waypoint, path_offset
from pp_env import panda
from pp_env.config import TimingConfig
from pp_env.layout import OBSERVATION

MAX_NOISE_RAD = 0.2  # rad
MAX_PATH_NOISE_RAD = 0.5  # rad
_PATH_NOISE_WAVES = 3  # the k-th has 1/k of the amplitude
# Joints 2, 4 and 6 raise and lower the hand, which must stay clear of table and object.
_PATH_NOISE_WEIGHTS = np.array([1.0, 0.3, 1.0, 0.3, 1.0, 0.3, 1.0])
_PATH_NOISE_SEGMENTS = tuple(
    i for i, w in enumerate(WAYPOINTS) if w.name in ("APPROACH_PICK", "MOVE_TO_PLACE")
)


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
    def typical_steps(self) -> int:
        """Number of actions in an episode, for estimates."""
        return self.num_steps

    @property
    def phase(self) -> str:
        """Name of the waypoint that the last action leads to.

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
        targets = _add_noise(targets, noise, requirements.max_tcp_shift)
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

    Args:
        object_pos: (3,) the object's centre, m, world frame.
        object_quat_wxyz: (4,) its orientation, world frame.
        goal_pos: (3,) the target on the table, m, world frame.
        requirements: How to grasp the object; by default as a small cube.

    Raises:
        UnreachableError: The arm cannot reach the pick or the place.
    """
    requirements = requirements or GraspRequirements()
    pick, place = reach_pick_and_place(object_pos, object_quat_wxyz, goal_pos, requirements)
    return np.array([_action(w, {"pick": pick, "place": place}) for w in WAYPOINTS])


def _action(waypoint: Waypoint, columns: dict[str, Column]) -> np.ndarray:
    """Return the action (8,) at a waypoint, from the postures at pick and place."""
    if waypoint.place == "home":
        return np.append(HOME, waypoint.gripper)
    column = columns[waypoint.place]
    return np.append(column.raised if waypoint.is_raised else column.low, waypoint.gripper)


def _via_points(targets: np.ndarray, highest_top: float) -> dict[int, np.ndarray]:
    """Return actions (8,) by segment, where a straight line would touch something.

    The way out and home leads above HOME, so high that the hand clears all tops. Down to the
    object and up from it, the hand moves vertically while the fingers are beside it.

    Args:
        targets: Actions (9, 8) at the waypoints.
        highest_top: Height of the highest top, m, world frame.
    """
    above_home = raise_over(highest_top)
    last = len(WAYPOINTS) - 1
    via_points = {i: np.append(above_home, WAYPOINTS[i].gripper) for i in (0, last)}
    for i in range(1, last):
        if WAYPOINTS[i].is_raised != WAYPOINTS[i - 1].is_raised:
            low, high = sorted((i - 1, i), key=lambda k: WAYPOINTS[k].is_raised)
            beside = raise_hand(targets[low, :7], BESIDE_HEIGHT, targets[high, :7])
            via_points[i] = np.append(beside, targets[low, 7])
    return via_points


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
            noisy[i, :7] = add_joint_noise(targets[i, :7], noise[i], max_tcp_shift)
        elif waypoint.place != "home":
            same_pose = i > 0 and np.array_equal(targets[i, :7], targets[i - 1, :7])
            noisy[i, :7] = (
                noisy[i - 1, :7] if same_pose else vary_posture(targets[i, :7], noise[i, 6])
            )
    return noisy
