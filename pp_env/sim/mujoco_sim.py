"""The embedded simulator: MuJoCo's CPU physics and OpenGL pictures without a screen."""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import copy
import os
import sys
from contextlib import suppress
from typing import Any

import mujoco
import numpy as np

from pp_env import panda, rotation
from pp_env.config import RENDER_PRESETS, PickPlaceConfig
from pp_env.sim.api import SEGMENTS, Command, InitialState, PlacedObject, Pose, SimState
from pp_env.sim.grasp import is_grasped
from pp_env.sim.mujoco_model import build_model, numbered
from pp_env.sim.mujoco_variation import SceneVariation

_SETTLE_TIME = 0.2  # s, for the object to come to rest at reset
_AWAY_Z = -5.0  # m, below the floor


class MujocoSimulator:
    """A `Simulator` on MuJoCo's CPU physics.

    Args:
        config: Scene, timing, grasp mode and pictures.
        headless: False opens MuJoCo's viewer window.
        twin: A simulator of the same configuration that was never reset. Its model is copied, not
            compiled again, and both draw through one OpenGL context.

    Raises:
        RuntimeError: `headless` is False and there is no display.
    """

    def __init__(
        self,
        config: PickPlaceConfig,
        headless: bool = True,
        twin: "MujocoSimulator | None" = None,
    ) -> None:
        self._config = config
        self._model = copy.copy(twin._model) if twin else build_model(config)
        self._variation = SceneVariation(self._model, config)
        self._data = mujoco.MjData(self._model)
        self._pictures = twin._pictures if twin else _Pictures(config)
        self._viewer = None
        self._settle_steps = round(_SETTLE_TIME * config.timing.physics_hz)
        self._index()
        self._state = self._observe(grasped=False)
        if not headless:
            self._open_viewer()

    @property
    def description(self) -> dict[str, Any]:
        """What a dataset records about the simulator."""
        return {"name": "MuJoCo", "version": mujoco.__version__}

    def reset(self, initial: InitialState) -> SimState:
        """Puts everything at its start and lets the object settle."""
        model, data = self._model, self._data
        self._variation.apply(initial.variation, self._bodies[initial.target].id)
        mujoco.mj_resetData(model, data)
        data.qpos[self._arm_qpos] = initial.joint_pos
        data.qpos[self._finger_qpos] = initial.gripper_pos
        self._place_objects(initial)
        data.ctrl[:7] = initial.joint_pos
        data.ctrl[7:] = initial.gripper_pos
        data.mocap_pos[0] = initial.goal_pos
        mujoco.mj_step(model, data, self._settle_steps)
        self._state = self._observe(grasped=False)
        return self._state

    def step(self, command: Command) -> SimState:
        """Advances one control period with the servos' targets at `command`."""
        self.begin_step(command)
        mujoco.mj_step(self._model, self._data, self._config.timing.substeps)
        if self._viewer is not None:
            self._viewer.sync()
        return self.end_step()

    def begin_step(self, command: Command) -> None:
        """What `step` does before the physics, which may then run elsewhere."""
        self._grasped = self._update_grasp(command)
        self._data.ctrl[:7] = command.arm
        self._data.ctrl[7:] = command.gripper

    def end_step(self) -> SimState:
        """What `step` does after the physics."""
        self._state = self._observe(self._grasped)
        return self._state

    @property
    def physics(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """What the physics works on."""
        return self._model, self._data

    def render(self, camera: str, kind: str = "rgb") -> np.ndarray:
        """A picture of the current state: "rgb", "depth" or "segmentation".

        Raises:
            RuntimeError: OpenGL is not available.
            ValueError: There is no such camera.
        """
        self._config.camera(camera)
        mujoco.mj_camlight(self._model, self._data)  # as `_observe`: where they are now
        target = self._bodies[self._target].id
        return self._pictures.draw(self._model, self._data, camera, kind, target)

    def close(self) -> None:
        """Frees the renderer and the viewer; a second call has no effect."""
        self._pictures.close()
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    def _index(self) -> None:
        model = self._model
        self._arm_qpos = _slice([model.joint(j).qposadr[0] for j in panda.ARM_JOINTS])
        self._finger_qpos = _slice([model.joint(j).qposadr[0] for j in panda.FINGER_JOINTS])
        self._arm_dof = _slice([model.joint(j).dofadr[0] for j in panda.ARM_JOINTS])
        self._finger_dof = _slice([model.joint(j).dofadr[0] for j in panda.FINGER_JOINTS])
        self._hand = model.body(panda.HAND.name).id
        self._bodies = [_Body(model, i) for i in range(len(self._config.candidates))]
        self._target = 0

    def _place_objects(self, initial: InitialState) -> None:
        """Puts what is on the table there, and the other candidates away."""
        self._target = initial.target
        present = {placed.candidate: placed for placed in initial.placed}
        for index, body in enumerate(self._bodies):
            if index in present:
                body.put(self._model, self._data, present[index])
            else:
                body.put_away(self._model, self._data)

    def _observe(self, grasped: bool) -> SimState:
        data, hand, body = self._data, self._hand, self._bodies[self._target]
        obj = body.id
        mujoco.mj_kinematics(self._model, data)  # poses of now, not of the last substep's start
        return SimState(
            joint_pos=data.qpos[self._arm_qpos].copy(),
            joint_vel=data.qvel[self._arm_dof].copy(),
            gripper_pos=data.qpos[self._finger_qpos].copy(),
            gripper_vel=data.qvel[self._finger_dof].copy(),
            eef=Pose(data.xpos[hand].copy(), data.xquat[hand].copy()),
            object=Pose(data.xpos[obj].copy(), data.xquat[obj].copy()),
            object_vel=data.qvel[body.dof][:3].copy(),
            is_grasped=grasped,
        )

    def _update_grasp(self, command: Command) -> bool:
        config, state = self._config, self._state
        obj = config.candidates[self._target]
        grasped = is_grasped(state, command, config.grasp, obj)
        if config.grasp.mode == "fixed_joint" and grasped != state.is_grasped:
            if grasped:
                self._weld_at_current_pose()
            self._data.eq_active[self._bodies[self._target].weld] = grasped
        return grasped

    def _weld_at_current_pose(self) -> None:
        """Makes the weld hold the object where it is, so that attaching moves nothing."""
        data, hand, body = self._data, self._hand, self._bodies[self._target]
        obj = body.id
        offset = rotation.unrotate(data.xquat[hand], data.xpos[obj] - data.xpos[hand])
        hand_to_world, relative = np.empty(4), np.empty(4)
        mujoco.mju_negQuat(hand_to_world, data.xquat[hand])
        mujoco.mju_mulQuat(relative, hand_to_world, data.xquat[obj])
        # eq_data of a weld: anchor (3, in the object), relative pose (7), torque scale (1)
        self._model.eq_data[body.weld, :11] = [0, 0, 0, *offset, *relative, 1]

    def _open_viewer(self) -> None:
        if sys.platform == "linux" and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise RuntimeError(
                "--no-headless needs a screen, but neither DISPLAY nor WAYLAND_DISPLAY is set; "
                "leave it out to run headless"
            )
        import mujoco.viewer

        self._viewer = mujoco.viewer.launch_passive(
            self._model, self._data, show_left_ui=False, show_right_ui=False
        )


class _Body:
    """Where a candidate is in the model, and how it comes onto the table or leaves it."""

    def __init__(self, model: mujoco.MjModel, index: int) -> None:
        name = numbered("object", index)
        free = model.joint(numbered("object_free", index))
        self.id = model.body(name).id
        self.weld = model.equality(numbered("grasp", index)).id
        self.dof = slice(free.dofadr[0], free.dofadr[0] + 6)
        self._qpos = slice(free.qposadr[0], free.qposadr[0] + 7)
        self._geom = model.geom(name).id
        self._geoms = np.flatnonzero(model.geom_bodyid == self.id)
        self._collides = model.geom_contype[self._geom], model.geom_conaffinity[self._geom]
        self._away = np.array([0.0, 0.0, _AWAY_Z - index, 1.0, 0.0, 0.0, 0.0])

    def put(self, model: mujoco.MjModel, data: mujoco.MjData, placed: PlacedObject) -> None:
        """Stands on the table in its colour; a mesh with a texture keeps its own."""
        data.qpos[self._qpos] = np.concatenate(placed.pose)
        model.geom_rgba[self._geoms, :3] = placed.rgb
        model.geom_contype[self._geom], model.geom_conaffinity[self._geom] = self._collides
        model.body_gravcomp[self.id] = 0.0

    def put_away(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Floats below the floor, where it touches nothing."""
        data.qpos[self._qpos] = self._away
        model.geom_contype[self._geom] = model.geom_conaffinity[self._geom] = 0
        model.body_gravcomp[self.id] = 1.0


class _Pictures:
    """A renderer that is made when the first picture is asked for."""

    def __init__(self, config: PickPlaceConfig) -> None:
        self._config = config
        self._renderer: _Renderer | None = None

    def draw(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, kind: str, target: int
    ) -> np.ndarray:
        """A picture; every model must have the first one's meshes and textures.

        Args:
            model: What is drawn.
            data: Its state.
            camera: Which camera's.
            kind: One of `IMAGE_TYPES`.
            target: The body of the object that is to be moved.
        """
        if self._renderer is None:
            self._renderer = _Renderer(model, self._config)
        self._renderer.model = model
        if kind == "depth":
            return self._renderer.depth(data, camera)
        if kind == "segmentation":
            return self._renderer.segmentation(data, camera, target)
        return self._renderer.render(data, camera)

    def close(self) -> None:
        """Frees the renderer; a second call has no effect."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


class _Renderer:
    """Both cameras through one OpenGL context.

    Not `mujoco.Renderer`, because that takes its OpenGL platform from the environment at the
    moment when mujoco is first imported, which may be long before this package is.
    """

    def __init__(self, model: mujoco.MjModel, config: PickPlaceConfig) -> None:
        size = config.render.resolution
        self._gl: Any = None
        try:
            self._gl = _make_gl_context(size)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except Exception as error:  # each platform of mujoco raises its own
            raise RuntimeError(
                f"pictures need OpenGL without a screen, which failed with '{error}'; on Debian or "
                "Ubuntu try 'apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0'"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self.model = model
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 16)
        self._set_flags(RENDER_PRESETS[config.render.preset].shadow_map > 0)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.empty((size, size, 3), dtype=np.uint8)

    def _set_flags(self, shadows: bool) -> None:
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """(H, W, 3) uint8."""
        self._draw(data, camera)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return self._pixels[::-1].copy()  # OpenGL counts rows from the bottom

    def _draw(self, data: mujoco.MjData, camera: str) -> None:
        self._gl.make_current()
        self._camera.fixedcamid = self.model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self.model, data, self._option, None, self._camera, everything, self._scene
        )
        mujoco.mjr_render(self._rect, self._scene, self._context)

    def depth(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """(H, W) float32, m along the viewing direction."""
        self._draw(data, camera)
        buffer = np.empty(self._pixels.shape[:2], dtype=np.float32)
        mujoco.mjr_readPixels(None, buffer, self._rect, self._context)
        scale = self.model.stat.extent
        near, far = self.model.vis.map.znear * scale, self.model.vis.map.zfar * scale
        return (near / (1.0 - buffer[::-1] * (1.0 - near / far))).astype(np.float32)

    def segmentation(self, data: mujoco.MjData, camera: str, target: int) -> np.ndarray:
        """(H, W) uint8 of `SEGMENTS`; `target` is the body of the object to be moved."""
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        try:
            self._draw(data, camera)
        finally:
            flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        drawn = self._pixels[::-1].astype(np.int32) @ [1, 256, 65536]  # 0 is nothing
        segments = np.zeros(self._scene.ngeom + 1, dtype=np.uint8)
        for i, geom in enumerate(self._scene.geoms[: self._scene.ngeom]):
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                segments[i + 1] = SEGMENTS[self._segment_of(geom.objid, target)]
        return segments[drawn]

    def _segment_of(self, geom: int, target: int) -> str:
        body = self.model.body(self.model.geom_bodyid[geom])
        if body.id == target:
            return "object"
        if body.name == "world":
            return self.model.geom(geom).name
        if body.name.startswith("object"):
            return "distractor"
        return "marker" if body.name == "place_marker" else "robot"

    def close(self) -> None:
        self._gl.make_current()
        self._context.free()
        self._gl.free()
        self._gl = None

    def __del__(self) -> None:
        # Freed by whoever collects it, MuJoCo's context would take another's textures with it.
        if self._gl is not None:
            with suppress(Exception):  # the interpreter may be on its way out
                self.close()


def _make_gl_context(size: int):
    platform = os.environ.get("MUJOCO_GL", "egl" if sys.platform == "linux" else "")
    if platform == "egl":
        from mujoco.egl import GLContext
    elif platform == "osmesa":
        from mujoco.osmesa import GLContext
    else:
        from mujoco.gl_context import GLContext
    return GLContext(size, size)


def _slice(indices: list[int]) -> slice:
    """The slice that covers consecutive indices: reading through it is one cheap copy."""
    assert indices == list(range(indices[0], indices[0] + len(indices)))
    return slice(indices[0], indices[-1] + 1)
