"""The simulator on MuJoCo's CPU physics, in this process."""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import atexit
import copy
import os
import threading
import warnings
from typing import Any

import mujoco
import numpy as np

from pp_env import panda, rotation
from pp_env.config import SETTLE_TIME, PickPlaceConfig
from pp_env.sim import has_screen
from pp_env.sim.api import Command, InitialState, PlacedObject, Pose, SimState
from pp_env.sim.grasp import is_grasped
from pp_env.sim.mujoco.model import build_model, numbered
from pp_env.sim.mujoco.randomization import SceneVariation
from pp_env.sim.mujoco.renderer import CameraRenderer

_PARKED_Z = -5.0  # m, below the floor
_AWAKE = ("nbody_awake", "nparent_awake", "ntree_awake", "nv_awake")  # not in a pickled `MjData`


_CLOSE_TIMEOUT = 5.0  # s for the window's thread to end


class MujocoSimulator:
    """A `Simulator` on MuJoCo's CPU physics.

    Args:
        config: Scene, timing, grasp mode and rendering.
        headless: False opens MuJoCo's viewer window.
        share_model_with: A simulator of the same configuration that was never reset. Its model is
            copied instead of compiled again, and both render through one OpenGL context.
        flat: Of `build_model`.

    Attributes:
        bodies: The objects of the pool.

    Raises:
        RuntimeError: `headless` is False and there is no display.
    """

    def __init__(
        self,
        config: PickPlaceConfig,
        headless: bool = True,
        share_model_with: "MujocoSimulator | None" = None,
        flat: bool = False,
    ) -> None:
        self._config = config
        shared = share_model_with
        self._model = copy.copy(shared._model) if shared else build_model(config, flat)
        self._variation = SceneVariation(self._model, config)
        self._data = mujoco.MjData(self._model)
        self._renderer = shared._renderer if shared else CameraRenderer(config)
        self._viewer, self._close_viewer = None, None
        self._settle_steps = round(SETTLE_TIME * config.timing.physics_hz)
        self._index()
        self._state = self._observe(grasped=False)
        if not headless:
            self._open_viewer()

    def __getstate__(self) -> dict[str, Any]:
        awake = {name: getattr(self._data, name) for name in _AWAKE}
        no_window = {"_viewer": None, "_close_viewer": None}  # of a copy
        return {**self.__dict__, **no_window, "_awake": awake}

    def __setstate__(self, state: dict[str, Any]) -> None:
        awake = state.pop("_awake")
        self.__dict__.update(state)
        for name, count in awake.items():
            setattr(self._data, name, count)

    @property
    def description(self) -> dict[str, Any]:
        """Name and version, as a dataset records them."""
        return {"name": "MuJoCo", "version": mujoco.__version__}

    def reset(self, initial: InitialState) -> SimState:
        """Set the initial state and let the object settle."""
        self.place(initial)
        mujoco.mj_step(self._model, self._data, self._settle_steps)
        self._state = self._observe(grasped=False)
        return self._state

    def place(self, initial: InitialState) -> None:
        """Run the part of `reset` before the physics."""
        model, data = self._model, self._data
        self._variation.apply(initial.variation, self.bodies[initial.target].id)
        mujoco.mj_resetData(model, data)
        data.qpos[self._arm_qpos] = initial.joint_pos
        data.qpos[self._finger_qpos] = initial.gripper_pos
        self._place_objects(initial)
        data.ctrl[:7] = initial.joint_pos
        data.ctrl[7:] = initial.gripper_pos
        data.mocap_pos[0] = initial.goal_pos

    def step(self, command: Command) -> SimState:
        """Advance one control period with `command` as the servos' targets."""
        self.begin_step(command)
        mujoco.mj_step(self._model, self._data, self._config.timing.substeps)
        if self._viewer is not None:
            self._viewer.sync()
        return self.end_step()

    def begin_step(self, command: Command) -> None:
        """Run the part of `step` before the physics, which the caller may then run on its own."""
        self._grasped = self._update_grasp(command)
        self._data.ctrl[:7] = command.arm
        self._data.ctrl[7:] = command.gripper

    def end_step(self) -> SimState:
        """Run the part of `step` after the physics, and return the new state."""
        self._state = self._observe(self._grasped)
        return self._state

    def move_object(self, pose: Pose) -> SimState:
        """Put the target object, which must not be held, at rest at a pose."""
        self.bodies[self._target].move(self._data, pose)
        self._state = self._observe(grasped=False)
        return self._state

    @property
    def physics(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The model and the data that the physics works on."""
        return self._model, self._data

    def render(self, camera: str, kind: str = "rgb") -> np.ndarray:
        """Return an image of the current state: "rgb", "depth" or "segmentation".

        Raises:
            RuntimeError: OpenGL is not available.
            ValueError: There is no such camera.
        """
        self._config.camera(camera)
        mujoco.mj_camlight(self._model, self._data)  # like `_observe`: poses of the current state
        target = self.bodies[self._target].id
        return self._renderer.render(self._model, self._data, camera, kind, target)

    def close(self) -> None:
        """Free the renderer and the viewer; a second call has no effect."""
        self._renderer.close()
        if self._close_viewer is not None:
            atexit.unregister(self._close_viewer)
            self._close_viewer()
            self._viewer, self._close_viewer = None, None

    def _index(self) -> None:
        model = self._model
        self._arm_qpos = _slice([model.joint(j).qposadr[0] for j in panda.ARM_JOINTS])
        self._finger_qpos = _slice([model.joint(j).qposadr[0] for j in panda.FINGER_JOINTS])
        self._arm_dof = _slice([model.joint(j).dofadr[0] for j in panda.ARM_JOINTS])
        self._finger_dof = _slice([model.joint(j).dofadr[0] for j in panda.FINGER_JOINTS])
        self._hand = model.body(panda.HAND.name).id
        self.bodies = [PoolBody(model, i) for i in range(len(self._config.object_pool))]
        self._target = 0

    def _place_objects(self, initial: InitialState) -> None:
        """Place the objects of the episode on the table, and park the rest of the pool."""
        self._target = initial.target
        present = {placed.pool_index: placed for placed in initial.placed}
        for index, body in enumerate(self.bodies):
            if index in present:
                body.place(self._model, self._data, present[index])
            else:
                body.park(self._model, self._data)

    def _observe(self, grasped: bool) -> SimState:
        data, hand, body = self._data, self._hand, self.bodies[self._target]
        obj = body.id
        mujoco.mj_kinematics(self._model, data)  # else poses are the last substep's first
        qpos, qvel, xpos, xquat = data.qpos.copy(), data.qvel.copy(), data.xpos, data.xquat
        return SimState(
            joint_pos=qpos[self._arm_qpos],
            joint_vel=qvel[self._arm_dof],
            gripper_pos=qpos[self._finger_qpos],
            gripper_vel=qvel[self._finger_dof],
            eef=Pose(xpos[hand].copy(), xquat[hand].copy()),
            object=Pose(xpos[obj].copy(), xquat[obj].copy()),
            object_vel=qvel[body.velocity],
            is_grasped=grasped,
        )

    def _update_grasp(self, command: Command) -> bool:
        config, state = self._config, self._state
        obj = config.object_pool[self._target]
        grasped = is_grasped(state, command, config.grasp, obj)
        if config.grasp.mode == "fixed_joint" and grasped != state.is_grasped:
            if grasped:
                self._weld_at_current_pose()
            self._data.eq_active[self.bodies[self._target].weld] = grasped
        return grasped

    def _weld_at_current_pose(self) -> None:
        """Set the weld's frame to the object's current pose, so that attaching moves nothing."""
        data, hand, body = self._data, self._hand, self.bodies[self._target]
        obj = body.id
        offset = rotation.unrotate(data.xquat[hand], data.xpos[obj] - data.xpos[hand])
        hand_to_world, relative = np.empty(4), np.empty(4)
        mujoco.mju_negQuat(hand_to_world, data.xquat[hand])
        mujoco.mju_mulQuat(relative, hand_to_world, data.xquat[obj])
        # eq_data of a weld: anchor (3, in the object), relative pose (7), torque scale (1)
        self._model.eq_data[body.weld, :11] = [0, 0, 0, *offset, *relative, 1]

    def _open_viewer(self) -> None:
        if not has_screen():
            raise RuntimeError(
                "a window (render_mode='human', --no-headless) needs a screen, but neither DISPLAY "
                "nor WAYLAND_DISPLAY is set; try render_mode='rgb_array', or 'xvfb-run python ...'"
            )
        import glfw  # comes with MuJoCo, whose viewer would end the process where this fails
        import mujoco.viewer

        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            is_ready = glfw.init()
        if not is_ready:
            reason = ", ".join(str(warning.message) for warning in said) or "GLFW does not say why"
            raise RuntimeError(
                "the window (render_mode='human', --no-headless) cannot be opened on the display "
                f"{os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')}: {reason}"
            )
        before = set(threading.enumerate())
        viewer = mujoco.viewer.launch_passive(
            self._model, self._data, show_left_ui=False, show_right_ui=False
        )
        threads = set(threading.enumerate()) - before

        def close() -> None:
            viewer.close()
            for thread in threads:  # which still draws: GLFW, ended meanwhile, would hang
                thread.join(_CLOSE_TIMEOUT)

        self._viewer, self._close_viewer = viewer, close
        atexit.register(close)


class PoolBody:
    """An object of the pool in the model: its indices, and how to place or park it.

    Attributes:
        id: Of its body.
        weld: Of the equality constraint that holds it in the hand.
        qpos: Its numbers in `qpos`: position, m, and quaternion, w, x, y, z.
        dofs: Its numbers in `qvel`.
        velocity: The linear ones of these, m/s.
    """

    def __init__(self, model: mujoco.MjModel, index: int) -> None:
        name = numbered("object", index)
        free = model.joint(numbered("object_free", index))
        self.id = model.body(name).id
        self.weld = model.equality(numbered("grasp", index)).id
        self.velocity = slice(free.dofadr[0], free.dofadr[0] + 3)  # linear
        self.dofs = slice(free.dofadr[0], free.dofadr[0] + 6)
        self.qpos = slice(free.qposadr[0], free.qposadr[0] + 7)
        self._geom = model.geom(name).id
        geoms = np.flatnonzero(model.geom_bodyid == self.id).tolist()
        self._painted = [geom for geom in geoms if "_band_" not in model.geom(geom).name]
        self._collides = model.geom_contype[self._geom], model.geom_conaffinity[self._geom]
        self._parked = np.array([0.0, 0.0, _PARKED_Z - index, 1.0, 0.0, 0.0, 0.0])

    def place(self, model: mujoco.MjModel, data: mujoco.MjData, placed: PlacedObject) -> None:
        """Put the object on the table in its colour; a textured mesh keeps its own."""
        data.qpos[self.qpos] = np.concatenate(placed.pose)
        model.geom_rgba[self._painted, :3] = placed.rgb
        model.geom_contype[self._geom], model.geom_conaffinity[self._geom] = self._collides
        model.body_gravcomp[self.id] = 0.0

    def move(self, data: mujoco.MjData, pose: Pose) -> None:
        """Put the object at a pose, at rest."""
        data.qpos[self.qpos] = np.concatenate(pose)
        data.qvel[self.dofs] = 0.0

    def park(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Put the object below the floor, weightless, where it touches nothing."""
        data.qpos[self.qpos] = self._parked
        model.geom_contype[self._geom] = model.geom_conaffinity[self._geom] = 0
        model.body_gravcomp[self.id] = 1.0


def _slice(indices: list[int]) -> slice:
    """Return the slice of consecutive indices: reading through it is one cheap copy."""
    assert indices == list(range(indices[0], indices[0] + len(indices)))
    return slice(indices[0], indices[-1] + 1)
