"""Render a MuJoCo model's cameras through OpenGL, without a screen."""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import threading
from typing import Any

import mujoco
import numpy as np

from pp_env.config import RENDER_PRESETS, PickPlaceConfig, RenderPreset
from pp_env.sim.api import SEGMENTS
from pp_env.sim.mujoco import opengl
from pp_env.sim.mujoco.filament import FilamentRenderer
from pp_env.sim.mujoco.groups import CASTING_GROUPS, VISIBLE_GROUPS

_COLLISION_MARGIN = 0.025  # m by which collision shapes may stick out of the visible ones


class CameraRenderer:
    """A renderer of all cameras, created when the first image is rendered.

    Any thread may render. Copies and pickles have no OpenGL context; each makes its own. What the
    preset's other renderer does not draw, depth and segmentation, comes from OpenGL.
    """

    def __init__(self, config: PickPlaceConfig) -> None:
        self._config = config
        self._uses_filament = RENDER_PRESETS[config.render.preset].renderer == "filament"
        self._renderer: _Renderer | None = None
        self._filament: FilamentRenderer | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self._config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])

    def render(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, kind: str, target: int
    ) -> np.ndarray:
        """Render one image. Every model must have the meshes and textures of the first one.

        Args:
            model: The model to render.
            data: Its state.
            camera: Name of the camera.
            kind: One of `IMAGE_TYPES`.
            target: Id of the target object's body.

        Returns:
            See `pp_env.sim.api.Simulator.render`.

        Raises:
            RuntimeError: OpenGL or Vulkan is not available, or was used before this process was
                forked.
        """
        opengl.require_not_inherited()
        with self._lock:
            if kind == "rgb" and self._uses_filament:
                if self._filament is None:
                    self._filament = FilamentRenderer(model, self._config)
                return self._filament.render(model, data, camera)
            if self._renderer is None:
                self._renderer = _Renderer(model, self._config)
            return self._renderer.render(model, data, camera, kind, target)

    def close(self) -> None:
        """Free the renderers; a second call has no effect."""
        if opengl.is_inherited():  # the lock may be held by a thread that is not here
            self._renderer = self._filament = None
            return
        with self._lock:
            for renderer in (self._renderer, self._filament):
                if renderer is not None:
                    renderer.close()
            self._renderer = self._filament = None


class _Renderer:
    """A renderer of all cameras with one OpenGL context."""

    def __init__(self, model: mujoco.MjModel, config: PickPlaceConfig) -> None:
        size, preset = config.render.size, RENDER_PRESETS[config.render.preset]
        self._gl: opengl.Context | None = None
        try:
            self._gl = opengl.Context(size)
            with self._gl.current():
                self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
                self._images = None if preset.samples else _Framebuffer(size)
                if self._images is not None:
                    self._mujocos, self._context.offFBO = self._context.offFBO, self._images.name
                self._shadows = (
                    _ShadowMap(model, self._context, preset) if preset.shadow_map else None
                )
                mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        except Exception as error:  # each of mujoco's platforms raises its own
            raise RuntimeError(
                f"pictures need OpenGL without a screen, which failed with '{error}'; on Debian or "
                "Ubuntu try 'apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0'"
            ) from error
        self.model = model
        self._scene = _make_scene(model)
        self._option = _make_option(VISIBLE_GROUPS)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rect = mujoco.MjrRect(0, 0, *size)
        self._pixels = np.empty((*size[::-1], 3), dtype=np.uint8)

    def render(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, kind: str, target: int
    ) -> np.ndarray:
        """Render one image, see `CameraRenderer.render`."""
        assert self._gl is not None
        with self._gl.current():
            self.model = model
            self._camera.fixedcamid = model.camera(camera).id
            if kind == "depth":
                return self._depth(data)
            if kind == "segmentation":
                return self._segmentation(data, target)
            return self._rgb(data)

    def _rgb(self, data: mujoco.MjData) -> np.ndarray:
        """Render an RGB image, (H, W, 3) uint8."""
        if self._shadows is not None:
            self._shadows.update(self.model, data, self._camera)
        self._render(data, shadows=self._shadows is not None)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return self._pixels[::-1].copy()  # OpenGL counts rows from the bottom

    def _render(self, data: mujoco.MjData, shadows: bool = False) -> None:
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        _update_scene(self._scene, self.model, data, self._option, self._camera)
        if shadows:
            for geom in self._scene.geoms[: self._scene.ngeom]:
                geom.category = mujoco.mjtCatBit.mjCAT_DECOR  # which casts no shadow
        mujoco.mjr_render(self._rect, self._scene, self._context)

    def _depth(self, data: mujoco.MjData) -> np.ndarray:
        """Render a depth image, (H, W) float32, m along the viewing direction."""
        self._render(data)
        buffer = np.empty(self._pixels.shape[:2], dtype=np.float32)
        mujoco.mjr_readPixels(None, buffer, self._rect, self._context)
        scale = self.model.stat.extent
        near, far = self.model.vis.map.znear * scale, self.model.vis.map.zfar * scale
        return (near / (1.0 - buffer[::-1] * (1.0 - near / far))).astype(np.float32)

    def _segmentation(self, data: mujoco.MjData, target: int) -> np.ndarray:
        """Render a segmentation, (H, W) uint8 of `SEGMENTS`; `target` is the target's body."""
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        try:
            self._render(data)
        finally:
            flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        ids = self._pixels[::-1].astype(np.int32) @ [1, 256, 65536]  # 0 is the background
        segments = np.zeros(self._scene.ngeom + 1, dtype=np.uint8)
        for i, geom in enumerate(self._scene.geoms[: self._scene.ngeom]):
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                segments[i + 1] = SEGMENTS[self._segment_of(geom.objid, target)]
        return segments[ids]

    def _segment_of(self, geom: int, target: int) -> str:
        body = self.model.body(self.model.geom_bodyid[geom])
        if body.id == target:
            return "object"
        if body.name == "world":
            return self.model.geom(geom).name.partition("_")[0]
        if body.name.startswith("object"):
            return "distractor"
        return "marker" if body.name == "place_marker" else "robot"

    def close(self) -> None:
        """Free the context; a second call has no effect."""
        gl, self._gl = self._gl, None
        if gl is not None:
            with gl.current():  # else the textures of another context would be deleted
                if self._images is not None:
                    self._images.free()
                    self._context.offFBO = self._mujocos
                if self._shadows is not None:
                    self._shadows.free()
                self._context.free()
            gl.free()

    def __del__(self) -> None:
        try:  # not `suppress`, which may be gone at the interpreter's exit
            if opengl.is_inherited():
                opengl.abandon(self.__dict__)
            else:
                self.close()
        except Exception:
            pass


class _ShadowMap:
    """The shadow map, rendered once per state for all cameras, from simplified shapes.

    `mjr_render` renders the shadow map again for every image, from all of the image's scene. To
    avoid that, it is rendered together with an image of a single pixel. Then MuJoCo gets another
    framebuffer to render shadow maps into, and continues to read this one.

    Args:
        model: A model with the meshes of every model that is rendered.
        context: The context of the images.
        preset: Selects the geoms that cast shadows.
    """

    def __init__(
        self, model: mujoco.MjModel, context: mujoco.MjrContext, preset: RenderPreset
    ) -> None:
        self._context = context
        self._map, self._unused = context.shadowFBO, _Framebuffer((1, 1))
        _soften_shadows(context)
        self._scene = _make_scene(model)
        self._option = _make_option(VISIBLE_GROUPS if preset.exact_shadows else CASTING_GROUPS)
        self._only_cast = set(np.flatnonzero(model.geom_group == CASTING_GROUPS[1]).tolist())
        self._rendered: bytes | None = None

    def update(self, model: mujoco.MjModel, data: mujoco.MjData, camera: mujoco.MjvCamera) -> None:
        """Render the shadow map unless it shows this state already."""
        poses = data.geom_xpos, data.geom_xmat, data.light_xpos, data.light_xdir
        state = b"".join(values.tobytes() for values in poses)
        if state == self._rendered:
            return
        _update_scene(self._scene, model, data, self._option, camera)
        self._push_casters_back(data.light_xpos[0])
        self._context.shadowFBO = self._map
        mujoco.mjr_render(mujoco.MjrRect(0, 0, 1, 1), self._scene, self._context)
        self._context.shadowFBO = self._unused.name
        self._rendered = state

    def free(self) -> None:
        """Delete what MuJoCo's context does not know of. Needs its OpenGL context to be current."""
        self._unused.free()
        self._context.shadowFBO = self._map

    def _push_casters_back(self, light: np.ndarray) -> None:
        """Move the invisible shadow casters away from the light at (3,), m, world.

        They are slightly larger than the visible geoms, which would otherwise lie in their shadow.
        Moving them along the light's rays keeps the outline of the shadow.
        """
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objid in self._only_cast:
                ray = geom.pos - light
                geom.pos = geom.pos + _COLLISION_MARGIN * ray / np.linalg.norm(ray)


def _make_scene(model: mujoco.MjModel) -> mujoco.MjvScene:
    scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 16)
    scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
    return scene


def _make_option(groups: tuple[int, ...]) -> mujoco.MjvOption:
    """Return the option that shows the geoms of these groups only."""
    option = mujoco.MjvOption()
    option.geomgroup[:] = 0
    option.geomgroup[list(groups)] = 1
    return option


def _update_scene(
    scene: mujoco.MjvScene,
    model: mujoco.MjModel,
    data: mujoco.MjData,
    option: mujoco.MjvOption,
    camera: mujoco.MjvCamera,
) -> None:
    everything = mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)


class _Framebuffer:
    """A framebuffer of the current OpenGL context.

    Unlike MuJoCo's own, it has no stencil, which only reflections need: with half the bytes per
    pixel, depth tests in software take half the time.

    Attributes:
        name: As OpenGL calls it.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        # Not `OpenGL.GL`, which takes 0.3 s and 7 MB to import.
        from OpenGL.raw.GL.VERSION import GL_1_1, GL_3_0

        self._gl, gl, rgba8 = GL_3_0, GL_3_0, GL_1_1.GL_RGBA8
        self._names = names = np.zeros(3, dtype=np.uint32)
        gl.glGenFramebuffers(1, names[:1])
        gl.glGenRenderbuffers(2, names[1:])
        self.name, color, depth = (int(name) for name in names)
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self.name)
        for name, pixels, use in (
            (color, rgba8, gl.GL_COLOR_ATTACHMENT0),
            (depth, gl.GL_DEPTH_COMPONENT32F, gl.GL_DEPTH_ATTACHMENT),
        ):
            gl.glBindRenderbuffer(gl.GL_RENDERBUFFER, name)
            gl.glRenderbufferStorage(gl.GL_RENDERBUFFER, pixels, *size)
            gl.glFramebufferRenderbuffer(gl.GL_FRAMEBUFFER, use, gl.GL_RENDERBUFFER, name)
        status = gl.glCheckFramebufferStatus(gl.GL_FRAMEBUFFER)
        if status != gl.GL_FRAMEBUFFER_COMPLETE:
            raise RuntimeError(f"no framebuffer of {size[0]} x {size[1]} pixels: {status:#x}")

    def free(self) -> None:
        """Delete it; its context must be current."""
        self._gl.glDeleteFramebuffers(1, self._names[:1])
        self._gl.glDeleteRenderbuffers(2, self._names[1:])


def _soften_shadows(context: mujoco.MjrContext) -> None:
    """Blend the shadow map's texels, instead of deciding lit or not by the nearest.

    MuJoCo reads the comparison as alpha, and drops a pixel that is not all lit; as luminance, it
    scales the light.
    """
    from OpenGL.raw.GL.VERSION import GL_1_0, GL_1_1, GL_1_4

    texture = GL_1_0.GL_TEXTURE_2D
    GL_1_1.glBindTexture(texture, int(context.shadowTex))
    for name, value in (
        (GL_1_4.GL_DEPTH_TEXTURE_MODE, GL_1_0.GL_LUMINANCE),
        (GL_1_0.GL_TEXTURE_MIN_FILTER, GL_1_0.GL_LINEAR),
        (GL_1_0.GL_TEXTURE_MAG_FILTER, GL_1_0.GL_LINEAR),
    ):
        GL_1_0.glTexParameteri(texture, name, value)
    GL_1_1.glBindTexture(texture, 0)
