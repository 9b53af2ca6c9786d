"""The interface between the environment and a simulator, and the values that they exchange.

World frame: the robot's base, metres and radians; quaternions are w, x, y, z. Arrays are float64
and belong to the receiver: a simulator never changes one that it has returned.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from pp_env.randomization import Variation

IMAGE_TYPES = ("rgb", "depth", "segmentation")

# Values of a segmentation's pixels.
SEGMENTS = {
    "background": 0, "floor": 1, "table": 2, "robot": 3, "object": 4, "marker": 5, "distractor": 6,
}  # fmt: skip


class Pose(NamedTuple):
    """A rigid frame in the world.

    Attributes:
        position: (3,) m.
        quat_wxyz: (4,) unit quaternion, w first.
    """

    position: np.ndarray
    quat_wxyz: np.ndarray


class Command(NamedTuple):
    """Targets of the servos for one control period.

    Attributes:
        arm: (7,) joint position targets, rad.
        gripper: Position target of both fingers, m, 0 closed, 0.04 open.
    """

    arm: np.ndarray
    gripper: float


class SimState(NamedTuple):
    """Everything that the environment reads from the simulator, at one instant.

    Attributes:
        joint_pos: (7,) arm joint positions, rad.
        joint_vel: (7,) arm joint velocities, rad/s.
        gripper_pos: (2,) finger positions, m, 0 closed, 0.04 open.
        gripper_vel: (2,) finger velocities, m/s.
        eef: Frame of `panda_hand`.
        object: Frame of the target object, at its centre.
        object_vel: (3,) linear velocity of the object's centre, m/s.
        is_grasped: True while the gripper holds the object (`pp_env.sim.grasp`).
    """

    joint_pos: np.ndarray
    joint_vel: np.ndarray
    gripper_pos: np.ndarray
    gripper_vel: np.ndarray
    eef: Pose
    object: Pose
    object_vel: np.ndarray
    is_grasped: bool


class PlacedObject(NamedTuple):
    """An object on the table, with its pose.

    Attributes:
        pool_index: Its index in the configuration's `object_pool`.
        pose: Its frame, resting on the table.
        rgb: (3,) colour in [0, 1].
    """

    pool_index: int
    pose: Pose
    rgb: np.ndarray


@dataclass(frozen=True)
class InitialState:
    """The state at which an episode starts.

    Attributes:
        joint_pos: (7,) arm joint positions, rad; the arm is at rest.
        gripper_pos: Position of both fingers, m.
        object: Frame of the target object, resting on the table.
        object_rgb: (3,) its colour in [0, 1].
        goal_pos: (3,) the place marker's centre, on the table's surface, m.
        variation: The episode's randomization; None for the scene as configured.
        target: Its index in the configuration's `object_pool`.
        others: The other objects on the table. The rest of the pool is parked: out of view, and
            touching nothing.
    """

    joint_pos: np.ndarray
    gripper_pos: float
    object: Pose
    object_rgb: np.ndarray
    goal_pos: np.ndarray
    variation: Variation | None = None
    target: int = 0
    others: tuple[PlacedObject, ...] = ()

    @property
    def placed(self) -> tuple[PlacedObject, ...]:
        """All objects on the table, the target first."""
        return (PlacedObject(self.target, self.object, self.object_rgb), *self.others)


class Simulator(Protocol):
    """A scene with a Franka, a table and objects; the interface is one call per control period."""

    @property
    def description(self) -> dict[str, Any]:
        """Name, version and measured properties as JSON values, which a dataset records."""
        ...

    def reset(self, initial: InitialState) -> SimState:
        """Set the initial state and let the objects settle. Deterministic in `initial`."""
        ...

    def step(self, command: Command) -> SimState:
        """Advance exactly one control period."""
        ...

    def move_object(self, pose: Pose) -> SimState:
        """Put the target object, which must not be held, at rest at a pose."""
        ...

    def render(self, camera: str, kind: str = "rgb") -> np.ndarray:
        """Render an image of the current state.

        Args:
            camera: Name of a camera of the configuration.
            kind: One of `IMAGE_TYPES`; not every simulator has all of them.

        Returns:
            "rgb" (H, W, 3) uint8; "depth" (H, W) float32, m along the viewing direction;
            "segmentation" (H, W) uint8 of `SEGMENTS`.
        """
        ...

    def close(self) -> None:
        """Free all resources; a second call has no effect."""
        ...
