"""The narrow waist: what the environment asks of a simulator, and the values they exchange.

World frame: the robot's base, metres and radians; quaternions are w, x, y, z. Arrays are float64
and belong to the receiver: a simulator never changes one that it has returned.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from pp_env.randomization import Variation

IMAGE_TYPES = ("rgb", "depth", "segmentation")

# What a pixel of a segmentation shows.
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
    """What the arm shall do during one control period.

    Attributes:
        arm: (7,) joint position targets, rad.
        gripper: Position target of both fingers, m, 0 closed, 0.04 open.
    """

    arm: np.ndarray
    gripper: float


class SimState(NamedTuple):
    """Everything that the environment reads, at one instant.

    Attributes:
        joint_pos: (7,) arm joint positions, rad.
        joint_vel: (7,) arm joint velocities, rad/s.
        gripper_pos: (2,) finger positions, m, 0 closed, 0.04 open.
        gripper_vel: (2,) finger velocities, m/s.
        eef: Frame of `panda_hand`.
        object: Frame of the object that is to be moved, at its centre.
        object_vel: (3,) linear velocity of the object's centre, m/s.
        is_grasped: Whether the gripper holds the object (`pp_env.sim.grasp`).
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
    """An object of the scene, and where it stands.

    Attributes:
        candidate: Which of the configuration's candidates it is.
        pose: Its frame, resting on the table.
        rgb: (3,) colour in [0, 1].
    """

    candidate: int
    pose: Pose
    rgb: np.ndarray


@dataclass(frozen=True)
class InitialState:
    """Where an episode starts.

    Attributes:
        joint_pos: (7,) arm joint positions, rad; the arm is at rest.
        gripper_pos: Position of both fingers, m.
        object: Frame of the object that is to be moved, resting on the table.
        object_rgb: (3,) its colour in [0, 1].
        goal_pos: (3,) the place marker's centre, on the table's surface, m.
        variation: How the scene differs from the configuration; None is not at all.
        target: Which of the configuration's candidates the object is.
        others: What else is on the table. The other candidates are put away: nobody sees them
            and nothing touches them.
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
        """Everything on the table, the object that is to be moved first."""
        return (PlacedObject(self.target, self.object, self.object_rgb), *self.others)


class Simulator(Protocol):
    """One Franka, one table, objects. Coarse on purpose: one call per control period."""

    @property
    def description(self) -> dict[str, Any]:
        """What a dataset records about the simulator: name, version, what it has measured. JSON."""
        ...

    def reset(self, initial: InitialState) -> SimState:
        """Puts everything at its start, settled. Deterministic in `initial`."""
        ...

    def step(self, command: Command) -> SimState:
        """Advances exactly one control period."""
        ...

    def render(self, camera: str, kind: str = "rgb") -> np.ndarray:
        """A picture of the current state.

        "rgb" (H, W, 3) uint8; "depth" (H, W) float32, m along the viewing direction, "segmentation"
        (H, W) uint8 of `SEGMENTS`, where the simulator has them.
        """
        ...

    def close(self) -> None:
        """Frees everything; a second call has no effect."""
        ...
