"""Pictures of a MuJoCo model through OpenGL, without a screen."""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import os
import sys
from typing import Any

import mujoco
import numpy as np

from pp_env.config import RENDER_PRESETS, PickPlaceConfig, RenderPreset
from pp_env.sim.api import SEGMENTS
from pp_env.sim.mujoco.model import CASTING_GROUPS, SEEN_GROUPS

_LARGER = 0.025  # m by which colliding shapes may stick out of the visible ones


class Pictures:
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
        size, preset = config.render.size, RENDER_PRESETS[config.render.preset]
        self._gl: Any = None
        try:
            self._gl = _make_gl_context(size)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
            if not preset.samples:
                self._context.offFBO = _make_framebuffer(size)
            self._shadows = _Shadows(model, self._context, preset) if preset.shadow_map else None
        except Exception as error:  # each platform of mujoco raises its own
            raise RuntimeError(
                f"pictures need OpenGL without a screen, which failed with '{error}'; on Debian or "
                "Ubuntu try 'apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0'"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self.model = model
        self._scene = _make_scene(model)
        self._option = _option(SEEN_GROUPS)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rect = mujoco.MjrRect(0, 0, *size)
        self._pixels = np.empty((*size[::-1], 3), dtype=np.uint8)

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """(H, W, 3) uint8."""
        self._aim(camera)
        if self._shadows is not None:
            self._shadows.draw(self.model, data, self._camera)
        self._draw(data, shadows=self._shadows is not None)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return self._pixels[::-1].copy()  # OpenGL counts rows from the bottom

    def _aim(self, camera: str) -> None:
        self._gl.make_current()
        self._camera.fixedcamid = self.model.camera(camera).id

    def _draw(self, data: mujoco.MjData, shadows: bool = False) -> None:
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        _update(self._scene, self.model, data, self._option, self._camera)
        if shadows:
            for geom in self._scene.geoms[: self._scene.ngeom]:
                geom.category = mujoco.mjtCatBit.mjCAT_DECOR  # which casts no shadow
        mujoco.mjr_render(self._rect, self._scene, self._context)

    def depth(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """(H, W) float32, m along the viewing direction."""
        self._aim(camera)
        self._draw(data)
        buffer = np.empty(self._pixels.shape[:2], dtype=np.float32)
        mujoco.mjr_readPixels(None, buffer, self._rect, self._context)
        scale = self.model.stat.extent
        near, far = self.model.vis.map.znear * scale, self.model.vis.map.zfar * scale
        return (near / (1.0 - buffer[::-1] * (1.0 - near / far))).astype(np.float32)

    def segmentation(self, data: mujoco.MjData, camera: str, target: int) -> np.ndarray:
        """(H, W) uint8 of `SEGMENTS`; `target` is the body of the object to be moved."""
        self._aim(camera)
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        try:
            self._draw(data)
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
            try:  # noqa: SIM105  (the interpreter may be on its way out, and `suppress` gone)
                self.close()
            except Exception:
                pass


class _Shadows:
    """The shadow map, drawn once for both cameras, and from simpler shapes than those seen.

    `mjr_render` draws it anew for every picture, from everything in the picture's scene. So it is
    drawn with a picture of a single pixel, and then MuJoCo is handed another map to draw into,
    while it goes on reading this one.

    Args:
        model: With the meshes of every model that is drawn.
        context: For the pictures.
        preset: Says what casts shadows.
    """

    def __init__(
        self, model: mujoco.MjModel, context: mujoco.MjrContext, preset: RenderPreset
    ) -> None:
        self._context = context
        self._map, self._unused = context.shadowFBO, _make_framebuffer((1, 1))
        self._scene = _make_scene(model)
        self._option = _option(SEEN_GROUPS if preset.exact_shadows else CASTING_GROUPS)
        self._only_cast = set(np.flatnonzero(model.geom_group == CASTING_GROUPS[1]).tolist())
        self._drawn: bytes | None = None

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: mujoco.MjvCamera) -> None:
        """Draws the shadow map, unless it shows this state already."""
        poses = data.geom_xpos, data.geom_xmat, data.light_xpos, data.light_xdir
        state = b"".join(values.tobytes() for values in poses)
        if state == self._drawn:
            return
        _update(self._scene, model, data, self._option, camera)
        self._push_casters_back(data.light_xpos[0])
        self._context.shadowFBO = self._map
        mujoco.mjr_render(mujoco.MjrRect(0, 0, 1, 1), self._scene, self._context)
        self._context.shadowFBO = self._unused
        self._drawn = state

    def _push_casters_back(self, light: np.ndarray) -> None:
        """Moves what is only cast along the rays of the light at (3,), m, world.

        It is a little larger than what is seen, which would stand in its shadow. Along the rays,
        the shadow's outline stays.
        """
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objid in self._only_cast:
                ray = geom.pos - light
                geom.pos = geom.pos + _LARGER * ray / np.linalg.norm(ray)


def _make_scene(model: mujoco.MjModel) -> mujoco.MjvScene:
    scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 16)
    scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
    return scene


def _option(groups: tuple[int, ...]) -> mujoco.MjvOption:
    """Shows the geoms of these groups."""
    option = mujoco.MjvOption()
    option.geomgroup[:] = 0
    option.geomgroup[list(groups)] = 1
    return option


def _update(
    scene: mujoco.MjvScene,
    model: mujoco.MjModel,
    data: mujoco.MjData,
    option: mujoco.MjvOption,
    camera: mujoco.MjvCamera,
) -> None:
    everything = mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)


def _make_framebuffer(size: tuple[int, int]) -> int:
    """The name of a framebuffer that lives as long as the OpenGL context.

    Unlike MuJoCo's own it has no stencil, which only reflections need: with half the bytes per
    pixel, depth tests in software take half the time.
    """
    # Not `OpenGL.GL`, which takes 0.3 s and 7 MB to import. These need a current context.
    from OpenGL.raw.GL.VERSION import GL_1_1, GL_3_0

    gl, rgba8 = GL_3_0, GL_1_1.GL_RGBA8
    names = np.zeros(3, dtype=np.uint32)
    gl.glGenFramebuffers(1, names[:1])
    gl.glGenRenderbuffers(2, names[1:])
    framebuffer, color, depth = (int(name) for name in names)
    gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, framebuffer)
    for name, pixels, use in (
        (color, rgba8, gl.GL_COLOR_ATTACHMENT0),
        (depth, gl.GL_DEPTH_COMPONENT32F, gl.GL_DEPTH_ATTACHMENT),
    ):
        gl.glBindRenderbuffer(gl.GL_RENDERBUFFER, name)
        gl.glRenderbufferStorage(gl.GL_RENDERBUFFER, pixels, *size)
        gl.glFramebufferRenderbuffer(gl.GL_FRAMEBUFFER, use, gl.GL_RENDERBUFFER, name)
    status = gl.glCheckFramebufferStatus(gl.GL_FRAMEBUFFER)
    if status != gl.GL_FRAMEBUFFER_COMPLETE:
        raise RuntimeError(f"no framebuffer of {size[0]} x {size[1]} pixels: status {status:#x}")
    return framebuffer


def _make_gl_context(size: tuple[int, int]):
    platform = os.environ.get("MUJOCO_GL", "egl" if sys.platform == "linux" else "")
    if platform == "egl":
        from mujoco.egl import GLContext
    elif platform == "osmesa":
        from mujoco.osmesa import GLContext
    else:
        from mujoco.gl_context import GLContext
    return GLContext(*size)
