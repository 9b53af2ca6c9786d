"""The reactive expert: it decides from what is now, in closed loop, and corrects itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experts.reach import (
    BESIDE_HEIGHT,
    HOME,
    Column,
    GraspRequirements,
    UnreachableError,
    add_joint_noise,
    heading,
    raise_hand,
    raise_over,
    reach_pick_and_place,
    reach_place,
    tcp_position,
    vertical_axis,
)
from experts.servo import JointServo, Knot
from pp_env import panda, rotation
from pp_env.config import TimingConfig
from pp_env.layout import OBSERVATION

MAX_JOINT_SPEED = float(panda.JOINT_VELOCITY_LIMIT.min())  # rad/s
JOINT_SPEED = 1.0  # rad/s
_JOINT_ACCELERATION = 4.0  # rad/s^2
_CONTACT_SPEED = 0.5  # share of the speed on the way down
_GRIPPER_SPEED = 0.08  # m/s of each finger, where the gripper's command is a ramp
_TIME_LIMIT = 30.0  # s
_TYPICAL_TIME = 6.0  # s

_OPEN, _CLOSED = panda.FINGER_OPEN, panda.FINGER_CLOSED
_IS_OPEN = 0.9 * panda.FINGER_OPEN  # m, beyond which a finger counts as open
_IS_SHUT = 0.002  # m, below which there is nothing between the fingers
_ARRIVED = 0.004  # m from the TCP to where it is to be
_PATIENCE = 0.5  # s for an arm to arrive, and for fingers to get hold
_OFF_COURSE = 0.3, 0.1  # rad and m between command and arm, as after a push
_MOVED = 0.005  # m that an object may move without a new plan
_TURNED = 0.05  # rad likewise
_SLIPPED = 0.04  # m between TCP and grasp point, from which the object counts as lost
_AT_GOAL = 0.045  # m from the object to the goal
_RESTING = 0.01  # m between the object's height and that at rest
_NEAR = 0.12  # m in the plane, within which the hand may touch the object
_CLEAR_HEIGHT = 0.07  # m above the grasp, at which the hand is clear of a small object
_DIP_HEIGHT = 0.05  # m above the grasp, that the TCP keeps above a small object on its way
_DETOUR_HEIGHT = 0.1  # m above a posture, from where the way down to it is free
_LEAST_HEIGHT = 0.03  # m that the TCP keeps above the table on its way
_ON_COLUMN = (0.02, 0.05)  # rad off the way down: at its end, and more above

GripperCommand = Literal["binary", "ramped"]


@dataclass(frozen=True)
class _Scene:
    """What the expert knows at one instant; world frame, m and rad.

    Attributes:
        joints: (7,) of the arm.
        fingers: (2,) positions.
        hand: Position (3,) and rotation matrix (3, 3) of `panda_hand`.
        object_pos: (3,) its centre.
        object_quat_wxyz: (4,) its orientation.
        goal_pos: (3,) the target on the table.
        is_grasped: What the environment says.
    """

    joints: np.ndarray
    fingers: np.ndarray
    hand: tuple[np.ndarray, np.ndarray]
    object_pos: np.ndarray
    object_quat_wxyz: np.ndarray
    goal_pos: np.ndarray
    is_grasped: bool

    @classmethod
    def read(cls, observation: Any, info: dict[str, Any]) -> "_Scene":
        vector = observation["agent_pos"] if isinstance(observation, dict) else observation
        seen = OBSERVATION.unpack(np.asarray(vector, dtype=np.float64))
        return cls(
            joints=seen["joint_pos"],
            fingers=seen["gripper_pos"],
            hand=(seen["eef_pos"], rotation.to_matrix(seen["eef_quat"])),
            object_pos=np.asarray(info["object_pos"]),
            object_quat_wxyz=np.asarray(info["object_quat"]),
            goal_pos=np.asarray(info["goal_pos"]),
            is_grasped=bool(info["is_grasped"]),
        )

    @property
    def tcp(self) -> np.ndarray:
        """Position (3,) between the finger pads."""
        position, orientation = self.hand
        return position + panda.TCP_OFFSET * orientation[:, 2]


class ReactiveExpert:
    """A scripted policy in closed loop: pick the object, place it on the target, go home.

    At every step it decides from the arm, the fingers, the object, the goal and whether the object
    is held, in any posture and at any stage of the task. It grasps again after a miss or a loss and
    plans anew when the object was moved. Nothing waits for a clock: a phase ends when what it is
    for is done. It depends on no simulator.

    Args:
        joint_speed: Greatest joint speed, rad/s.
        gripper: "binary" commands the fingers open or closed at once, "ramped" at 0.08 m/s.
        noise_rad: The postures above pick and place are moved by uniform noise of this size on
            every joint.
        control_hz: Actions per second.

    Attributes:
        phase: Name of what the last action is for, one of `experts.waypoints.PHASES`.
        done: True once the object rests on the target and the arm is at HOME.
        uses_info: True: `act` takes the `info`, too, which says where the object is.
        num_steps: Most actions that an episode can need.
        typical_steps: Number of actions in an episode, for estimates.

    Raises:
        ValueError: An argument is out of range.
    """

    uses_info = True

    def __init__(
        self,
        joint_speed: float = JOINT_SPEED,
        gripper: GripperCommand = "binary",
        noise_rad: float = 0.05,
        control_hz: int = TimingConfig.control_hz,
    ) -> None:
        if not 0.0 < joint_speed <= MAX_JOINT_SPEED:
            raise ValueError(
                f"joint_speed must be above 0 and at most {MAX_JOINT_SPEED} rad/s, the limit of "
                f"the slowest joint, got {joint_speed}"
            )
        if gripper not in ("binary", "ramped"):
            raise ValueError(f"gripper must be 'binary' or 'ramped', got {gripper!r}")
        self._noise_rad = noise_rad
        self._finger_step = _GRIPPER_SPEED / control_hz if gripper == "ramped" else np.inf
        self._patience = round(_PATIENCE * control_hz)
        self._servo = JointServo(joint_speed, _JOINT_ACCELERATION, 1.0 / control_hz)
        self.num_steps = round(_TIME_LIMIT * control_hz)
        self.typical_steps = round(_TYPICAL_TIME * control_hz)
        self.phase = ""
        self.done = False
        self._requirements = GraspRequirements()

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Start from any state.

        Args:
            observation: The vector (23,), or a dictionary that has it as `agent_pos`.
            info: `object_pos` (3,), m, `object_quat` (4,) w, x, y, z, `goal_pos` (3,), m, world
                frame, `is_grasped`, `is_success`, and the fields of `GraspRequirements`.
            rng: Generator of the noise.
        """
        scene = _Scene.read(observation, info)
        self._rng = rng
        self._requirements = GraspRequirements.from_info(info)
        self._servo.restart(scene.joints)
        self._fingers = _CLOSED if scene.is_grasped else float(scene.fingers.mean())
        self._goal_of_path: tuple[Any, ...] = ()
        self._waited = self._opening = 0
        self._closing = False
        self.phase, self.done = "", False

    def act(self, observation: Any, info: dict[str, Any]) -> np.ndarray:
        """Return the next action (8,).

        Args:
            observation: As for `reset`.
            info: As for `reset`, of the same instant.
        """
        scene = _Scene.read(observation, info)
        if self._is_off_course(scene):
            self._servo.restart(scene.joints)
            self._forget_path()
        if scene.is_grasped and self._has_slipped(scene):
            arm, fingers = self._stand("OPEN_GRIPPER", _OPEN)
        elif scene.is_grasped:
            arm, fingers = self._place(scene)
        elif self._is_at_goal(scene):
            arm, fingers = self._go_home(scene)
            self.done = self.done and bool(info["is_success"])
        else:
            arm, fingers = self._pick(scene)
        step = self._finger_step
        self._fingers += float(np.clip(fingers - self._fingers, -step, step))
        return np.append(arm, self._fingers).astype(np.float32)

    # What to do, by what is now

    def _pick(self, scene: _Scene) -> tuple[np.ndarray, float]:
        """Return arm (7,) and fingers that bring the gripper around the object and close it."""
        if self._closing:
            if not self._has_missed(scene):
                return self._stand("CLOSE_GRIPPER", _CLOSED)
            self._closing = False
        is_open, is_shut = scene.fingers.min() > _IS_OPEN, scene.fingers.max() < _IS_SHUT
        if not is_shut and self._must_open_first(scene):
            return self._stand("OPEN_GRIPPER", _OPEN)
        yaw = heading(scene.object_quat_wxyz)
        if self._wants_path("pick", scene.object_pos, yaw):
            self._follow(self._path_to_pick(scene, is_open))
        rises_shut = is_shut and self._is_beside_object(scene)
        fingers = _CLOSED if rises_shut else _OPEN
        if self._servo.phase == "DOWN_PICK" and not is_open:
            return self._move(hold=True), fingers
        arm = self._move()
        if self._has_arrived(scene) and is_open and self._servo.phase == "DOWN_PICK":
            self._closing, self._waited = True, 0
        return arm, fingers

    def _place(self, scene: _Scene) -> tuple[np.ndarray, float]:
        """Return arm (7,) and fingers that carry the held object to the goal and release it."""
        self._closing = False
        if self._wants_path("place", scene.goal_pos, 0.0):
            self._follow(self._path_to_place(scene))
        arm = self._move()
        if self.phase == "DOWN_PLACE" and self._has_arrived(scene):
            self.phase = "OPEN_GRIPPER"
            return arm, _OPEN
        return arm, _CLOSED

    def _go_home(self, scene: _Scene) -> tuple[np.ndarray, float]:
        """Return arm (7,) and fingers that leave the object where it is and go HOME."""
        self._closing = False
        if self._must_open_first(scene):
            return self._stand("OPEN_GRIPPER", _OPEN)
        if self._wants_path("home", np.zeros(3), 0.0):
            self._follow(self._path_home(scene))
        arm = self._move()
        self.done = self._servo.at_end and self._has_arrived(scene)
        return arm, _OPEN

    def _stand(self, phase: str, fingers: float) -> tuple[np.ndarray, float]:
        """Return arm (7,) at rest, and the fingers' target."""
        self._forget_path()
        self._waited += 1
        self.phase = phase
        return self._servo.advance(hold=True), fingers

    def _move(self, hold: bool = False) -> np.ndarray:
        """Return arm (7,) on its way."""
        arm = self._servo.advance(hold)
        self.phase = self._servo.phase
        return arm

    # What is the case

    def _is_off_course(self, scene: _Scene) -> bool:
        """Return True if arm and hand are far from the command.

        An arm that follows poses of the hand may have another elbow: that alone does not matter.
        """
        off_joints, off_tcp = _OFF_COURSE
        if np.abs(scene.joints - self._servo.command).max() <= off_joints:
            return False
        off = np.linalg.norm(scene.tcp - tcp_position(self._servo.command))
        return bool(off > off_tcp)

    def _grasp_point(self, scene: _Scene) -> np.ndarray:
        return scene.object_pos + np.array([0.0, 0.0, self._requirements.grasp_height])

    def _has_slipped(self, scene: _Scene) -> bool:
        """Return True if the object left the gripper, though the environment has it as held."""
        return bool(np.linalg.norm(scene.tcp - self._grasp_point(scene)) > _SLIPPED)

    def _is_at_goal(self, scene: _Scene) -> bool:
        off = scene.object_pos - scene.goal_pos
        rest = off[2] - self._half_height(scene)
        return bool(np.hypot(off[0], off[1]) < _AT_GOAL and abs(rest) < _RESTING)

    def _half_height(self, scene: _Scene) -> float:
        """Return half the object's extent along its all but vertical axis, m."""
        return float(self._requirements.object_size[vertical_axis(scene.object_quat_wxyz)]) / 2

    def _is_beside_object(self, scene: _Scene) -> bool:
        """Return True if the hand is so near that the fingers may touch the object."""
        off = scene.tcp - self._grasp_point(scene)
        return bool(np.hypot(off[0], off[1]) < _NEAR and off[2] < self._clear_height)

    @property
    def _clear_height(self) -> float:
        """Height of the TCP above the grasp at which it may move sideways, m."""
        return (
            self._requirements.travel_height - 0.01 if self._requirements.is_tall else _CLEAR_HEIGHT
        )

    def _must_open_first(self, scene: _Scene) -> bool:
        """Return True if the fingers must open before the hand leaves the object.

        Fingers that the object keeps from opening have to leave as they are.
        """
        if scene.fingers.min() > _IS_OPEN or not self._is_beside_object(scene):
            self._opening = 0
            return False
        self._opening += 1
        return self._opening <= self._patience

    def _has_missed(self, scene: _Scene) -> bool:
        """Return True if the closing fingers do not hold the object and will not."""
        return scene.fingers.max() < _IS_SHUT or self._waited > self._patience

    def _has_arrived(self, scene: _Scene) -> bool:
        """Return True if the arm is at the end of its path, or has had the time to be."""
        if not self._servo.at_end:
            self._waited = 0
            return False
        self._waited += 1
        off = scene.tcp - tcp_position(self._servo.command)
        return bool(np.linalg.norm(off) < _ARRIVED) or self._waited > self._patience

    # Paths

    def _wants_path(self, aim: str, position: np.ndarray, yaw: float) -> bool:
        """Return True, and remember it, if there is no path to this aim at this place yet."""
        if self._goal_of_path:
            known_aim, known_position, known_yaw = self._goal_of_path
            turned = abs((yaw - known_yaw + np.pi) % (2 * np.pi) - np.pi)
            moved = np.linalg.norm(position - known_position)
            if aim == known_aim and moved < _MOVED and turned < _TURNED:
                return False
        self._goal_of_path = (aim, position.copy(), yaw)
        return True

    def _forget_path(self) -> None:
        self._goal_of_path = ()

    def _follow(self, knots: Sequence[Knot]) -> None:
        self._waited = 0
        self._servo.follow(knots)

    def _path_to_pick(self, scene: _Scene, is_open: bool) -> list[Knot]:
        try:
            pick, _ = reach_pick_and_place(
                scene.object_pos, scene.object_quat_wxyz, scene.goal_pos, self._requirements
            )
        except UnreachableError:
            return self._path_home(scene)
        down = self._way_down(pick, "DOWN_PICK")
        if is_open and self._is_on(pick):
            return down[-1:]
        raised = self._noisy(pick.raised)
        grasp = self._grasp_point(scene)
        return [
            *self._way_out(scene, raised, grasp[2] + self._clear_height, "RETRACT"),
            Knot(raised, "APPROACH_PICK"),
            *down,
        ]

    def _path_to_place(self, scene: _Scene) -> list[Knot]:
        place = self._reach_place(scene, scene.goal_pos)
        if place is None:  # with this grasp: put it down where it is, and grasp it in another way
            below = np.append(scene.object_pos[:2], scene.goal_pos[2])
            place = self._reach_place(scene, below)
        if place is None:
            return self._path_home(scene)
        down = self._way_down(place, "DOWN_PLACE")
        if self._is_on(place):
            return down[-1:]
        raised = self._noisy(place.raised)
        travel = tcp_position(place.raised)[2] - 0.01
        return [
            *self._way_out(scene, raised, travel, "LIFT", near=np.inf),
            Knot(raised, "MOVE_TO_PLACE"),
            *down,
        ]

    def _reach_place(self, scene: _Scene, position: np.ndarray) -> Column | None:
        hand, pos, quat = scene.hand, scene.object_pos, scene.object_quat_wxyz
        return reach_place(hand, pos, quat, position, self._requirements)

    def _path_home(self, scene: _Scene) -> list[Knot]:
        knots = []
        if self._requirements.is_tall:
            top = scene.goal_pos[2] + self._requirements.scene_height
            knots.append(Knot(raise_over(top), "HOME"))
        towards = knots[0].posture if knots else HOME
        level = self._grasp_point(scene)[2] + self._clear_height
        return [*self._way_out(scene, towards, level, "RETRACT"), *knots, Knot(HOME, "HOME")]

    def _way_down(self, column: Column, phase: str) -> list[Knot]:
        """Return the knots from above to the lower end, vertically beside a tall object."""
        knots = [Knot(column.low, phase, _CONTACT_SPEED)]
        if self._requirements.is_tall:
            beside = raise_hand(column.low, BESIDE_HEIGHT, column.raised)
            knots.insert(0, Knot(beside, phase))
        return knots

    def _way_out(
        self, scene: _Scene, towards: np.ndarray, level: float, phase: str, near: float = _NEAR
    ) -> list[Knot]:
        """Return the knots up to a level, or around, where the way to a posture would touch.

        Args:
            scene: What is now.
            towards: (7,) where the way leads, rad.
            level: Height of the TCP from which it may move sideways, m, world frame.
            phase: Name of the way up.
            near: Distance from the object, m, within which the hand must rise.
        """
        start, knots = self._servo.command, []
        tcp = tcp_position(start)
        rise = level - tcp[2]
        is_near = np.hypot(*(tcp - self._grasp_point(scene))[:2]) < near
        if rise > 0.0 and (is_near or self._touches(scene, start, towards)):
            if self._requirements.is_tall and rise > BESIDE_HEIGHT:
                beside = raise_hand(start, BESIDE_HEIGHT, towards)
                knots.append(Knot(beside, phase, _CONTACT_SPEED))
            start = raise_hand(start, rise, towards)
            knots.append(Knot(start, phase))
        if self._touches(scene, start, towards):
            over = raise_hand(towards, _DETOUR_HEIGHT, HOME)
            knots.append(Knot(HOME if self._touches(scene, start, over) else over, phase))
        return knots

    def _touches(self, scene: _Scene, start: np.ndarray, end: np.ndarray) -> bool:
        """Return True if the hand dips to the table or the object between two postures (7,)."""
        line = start + np.linspace(0.0, 1.0, 11)[:, None] * (end - start)
        tcp = tcp_position(line)
        lowest = np.full(len(tcp), scene.goal_pos[2] + _LEAST_HEIGHT)
        point = self._grasp_point(scene)
        over_object = np.hypot(*(tcp - point)[:, :2].T) < _NEAR
        if not scene.is_grasped:
            lowest[over_object] = point[2] + _DIP_HEIGHT
        # The ends are what they are: a way that only leads up from the one or down to the other.
        return bool((tcp[1:-1, 2] < np.minimum(lowest[1:-1], tcp[[0, -1], 2].min())).any())

    def _is_on(self, column: Column) -> bool:
        """Return True if the command is so near the way down that it may go on there."""
        way = column.raised - column.low
        done = np.clip((self._servo.command - column.low) @ way / (way @ way), 0.0, 1.0)
        off = np.abs(self._servo.command - column.low - done * way).max()
        at_end, more_above = _ON_COLUMN
        return bool(off < at_end + done * more_above)

    def _noisy(self, posture: np.ndarray) -> np.ndarray:
        """Return a posture (7,) in free space, varied by noise."""
        noise = self._rng.uniform(-self._noise_rad, self._noise_rad, size=7)
        return add_joint_noise(posture, noise, self._requirements.max_tcp_shift)
