"""The simulator on MuJoCo Warp with one world: for tests of the batch, and to look at it."""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
# (Warp's kernels, arrays and structs have types of their own)

from collections.abc import Sequence
from typing import Any

import mujoco_warp
import numpy as np
import warp as wp

from pp_env.config import PickPlaceConfig
from pp_env.sim.api import Command, InitialState, Pose, SimState
from pp_env.sim.warp.kernels import COLUMNS
from pp_env.sim.warp.renderer import BatchRenderer
from pp_env.sim.warp.worlds import WarpWorlds, to_host


class WarpSimulator:
    """A `Simulator` with one world on a GPU. One world is slow there: many are what it is for.

    States are rounded to float32. The same start and commands give states that agree to about
    1e-4, not bit for bit: the GPU adds contact forces in no fixed order.

    Args:
        config: Scene, timing, grasp mode and rendering.
        headless: True; there is no window.
        device: Name of Warp's device; None is the first NVIDIA GPU. "cpu" is for tests.

    Raises:
        ValueError: `headless` is False.
        RuntimeError: There is no NVIDIA GPU.
    """

    def __init__(
        self, config: PickPlaceConfig, headless: bool = True, device: str | None = None
    ) -> None:
        if not headless:
            raise ValueError("simulator='warp' has no window; simulator='mujoco' has one")
        self._worlds = WarpWorlds(config, 1, device, renders=True)
        self._renderer: BatchRenderer | None = None
        self._advance: Any = None
        self._target = 0

    @property
    def description(self) -> dict[str, Any]:
        """Name, version and device, as a dataset records them."""
        return describe(self._worlds.device)

    def reset(self, initial: InitialState) -> SimState:
        """Set the initial state and let the object settle."""
        worlds, self._target = self._worlds, initial.target
        worlds.load(worlds.tabulate([initial]))
        worlds.start.zero_()
        worlds.begin()
        worlds.observe()
        return self._read()

    def step(self, command: Command) -> SimState:
        """Advance one control period with `command` as the servos' targets."""
        worlds = self._worlds
        worlds.command.assign(np.append(command.arm, command.gripper).astype(np.float32)[None])
        worlds.advance()
        worlds.observe()
        return self._read()

    def move_object(self, pose: Pose) -> SimState:
        """Put the target object, which must not be held, at rest at a pose."""
        worlds = self._worlds
        worlds.place_object(0, pose)
        worlds.observe()
        return self._read()

    def render(self, camera: str, kind: str = "rgb") -> np.ndarray:
        """Return an image of the current state, (H, W, 3) uint8.

        Raises:
            ValueError: There is no such camera, or the kind is not "rgb".
        """
        self._worlds.config.camera(camera)
        if kind != "rgb":
            raise ValueError(f"simulator='warp' renders 'rgb', got {kind!r}; 'mujoco' has it")
        if self._renderer is None:
            self._renderer = BatchRenderer(self._worlds)
        self._renderer.render()
        return to_host(self._renderer.images[camera])[0]

    def close(self) -> None:
        """Free what the host holds; a second call has no effect."""
        self._worlds.close()

    def _read(self) -> SimState:
        return read_states(self._worlds.seen.values.numpy(), [0])[0]


def read_states(values: np.ndarray, which: Sequence[int]) -> list[SimState]:
    """Return the states of some worlds, from all worlds' rows of values (n, NUM_VALUES)."""
    states = []
    for row in values[which].astype(np.float64):
        at = {name: row[where] for name, where in COLUMNS.items()}
        state = SimState(
            joint_pos=at["joint_pos"],
            joint_vel=at["joint_vel"],
            gripper_pos=at["gripper_pos"],
            gripper_vel=at["gripper_vel"],
            eef=Pose(at["eef_pos"], at["eef_quat"]),
            object=Pose(at["object_pos"], at["object_quat"]),
            object_vel=at["object_vel"],
            is_grasped=bool(at["is_grasped"][0]),
        )
        states.append(state)
    return states


def describe(device: str) -> dict[str, Any]:
    """Return name, versions and device, as a dataset records them."""
    return {
        "name": "MuJoCo Warp",
        "version": mujoco_warp.__version__,
        "warp": wp.__version__,
        "device": wp.get_device(device).name,
    }
