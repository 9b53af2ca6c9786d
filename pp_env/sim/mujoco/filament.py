"""Render colour images by MuJoCo's Filament renderer, through Vulkan, without a screen.

Filament ends the process where it cannot go on: without Vulkan, or in another thread than the one
that made it. So Vulkan is tried before, and each renderer has a thread of its own.
"""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import atexit
import copy
import ctypes
import math
import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import mujoco
import numpy as np

from pp_env.config import FILAMENT_KEY_DISTANCE, MUJOCO_LIGHTS, RENDER_PRESETS, PickPlaceConfig
from pp_env.sim.mujoco import opengl
from pp_env.sim.mujoco.groups import VISIBLE_GROUPS

_EXPOSURE = 1.0 / (1.2 * 16.0**2 * 125.0)  # of Filament's camera: f/16, 1/125 s, ISO 100
_LUX = math.pi / _EXPOSURE  # with which a surface is as bright as its colour
_LOOKS = ("geom_rgba", "geom_matid", "geom_group")  # of the model, read when geoms are added
_LINEAR = 1  # of `mjtColorSpace`
_FLAGS = {
    # Colours as on the screen, like those of MuJoCo's other renderer. The alternative, tone mapping
    # after the image, adds noise that differs from image to image.
    "filament.material.base_color_type": "linear",
    # The other kinds of shadows come out otherwise in each context, by one level in some pixels.
    "filament.shadows.type": "pcf",
}
_quieting = threading.Lock()
_open: "weakref.WeakSet[FilamentRenderer]" = weakref.WeakSet()


class FilamentRenderer:
    """A renderer of all cameras. Any thread may render.

    Args:
        model: A model with the meshes and textures of every model that is rendered.
        config: Size, quality and lights of the images.

    Raises:
        RuntimeError: MuJoCo has no Filament renderer, or there is no Vulkan.
    """

    def __init__(self, model: mujoco.MjModel, config: PickPlaceConfig) -> None:
        self._stage: _Stage | None = None
        require()
        opengl.note_use()
        self._thread = _Thread()
        try:
            self._stage = self._thread.run(lambda: _Stage(model, config))
        except BaseException:
            self._thread.end()
            raise
        _open.add(self)
        atexit.unregister(_close_all)
        atexit.register(_close_all)  # before what MuJoCo and Filament have registered by now

    def render(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return a camera's image of a state, (H, W, 3) uint8."""
        stage = self._stage
        assert stage is not None
        return self._thread.run(lambda: stage.render(model, data, camera))

    def close(self) -> None:
        """Free everything; a second call has no effect."""
        stage, self._stage = self._stage, None
        if stage is not None:
            self._thread.run(stage.free)
            self._thread.end()

    def __del__(self) -> None:
        try:  # not `suppress`, which may be gone at the interpreter's exit
            if opengl.is_inherited():
                opengl.abandon(self._stage)
            else:
                self.close()
        except Exception:
            pass


class _Stage:
    """Filament's scene: geoms, lights, and the target of the images. For one thread."""

    def __init__(self, model: mujoco.MjModel, config: PickPlaceConfig) -> None:
        from mujoco import mjrf

        self._mjrf, self._config = mjrf, config
        preset, (width, height) = RENDER_PRESETS[config.render.preset], config.render.size
        self._samples = preset.samples_per_axis
        self._size = width * self._samples, height * self._samples
        self._model = copy.copy(model)  # Filament reads it whenever geoms are added
        self._model.tex_colorspace[:] = _LINEAR
        self._model.mat_specular[:] = 0.0  # or the sky's reflection pales the textures
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[list(VISIBLE_GROUPS)] = 1
        vulkan = mjrf.GraphicsApi.GRAPHICS_API_VULKAN
        default = mjrf.GraphicsApi.GRAPHICS_API_DEFAULT
        api = vulkan if sys.platform == "linux" else default  # elsewhere it needs no screen
        with _quiet():
            self._context = mjrf.Context(mjrf.ContextConfig(graphics_api=api))
        self._scene = self._context.create_scene(mjrf.SceneParams())
        self._scene.configure_from_model(_flags())
        self._resources = mjrf.ModelResources(self._context, self._model)
        self._add_lights(preset.shadow_map)
        self._geoms: Any = None
        self._target = self._context.create_render_target(
            mjrf.RenderTargetConfig(
                width=self._size[0],
                height=self._size[1],
                color_format=mjrf.PixelFormat.PIXEL_FORMAT_RGB8,
                depth_format=mjrf.PixelFormat.PIXEL_FORMAT_DEPTH32F,
            )
        )

    def _add_lights(self, shadow_map: int) -> None:
        """Add the spot light, and light from everywhere: a white sky all around."""
        mjrf, context = self._mjrf, self._context
        reach = np.linalg.norm(self._lamp(np.array(MUJOCO_LIGHTS.key_position)) - self._center)
        self._key = context.create_light(
            mjrf.LightParams(
                type=mjrf.LightType.LIGHT_SPOT,
                intensity=_LUX * reach**2,  # candela
                cast_shadow=True,
                range=10 * reach,
                cutoff=MUJOCO_LIGHTS.key_cutoff_deg,
                softness=1.0,
                shadow_map_size=shadow_map,
            )
        )
        self._sky = context.create_texture(
            mjrf.TextureConfig(
                width=1,
                height=6,
                format=mjrf.PixelFormat.PIXEL_FORMAT_RGB8,
                color_space=mjrf.ColorSpace.COLORSPACE_LINEAR,
                sampler_type=mjrf.SamplerType.TEXTURE_CUBE,
            )
        )
        self._white = mjrf.TextureData()
        self._white.set_image(b"\xff" * 6 * 3)
        self._sky.upload(self._white)
        self._everywhere = context.create_light(
            mjrf.LightParams(type=mjrf.LightType.LIGHT_IMAGE, texture=self._sky)
        )
        self._scene.add_light(self._key)
        self._scene.add_light(self._everywhere)

    @property
    def _center(self) -> np.ndarray:
        return np.array(self._config.table.center)

    def _lamp(self, position: np.ndarray) -> np.ndarray:
        """Return where the lamp of a spot light at a position (3,), m, world, is in this scene."""
        return self._center + FILAMENT_KEY_DISTANCE * (position - self._center)

    def render(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Return a camera's image of a state, (H, W, 3) uint8."""
        mjrf = self._mjrf
        self._show_geoms(model, data)
        self._light(model, data)
        pixels = np.empty((*self._size[::-1], 3), dtype=np.uint8)
        read = mjrf.ReadRequest(target=self._target)
        read.set_buffer(pixels)
        request = mjrf.RenderRequest(
            scene=self._scene,
            camera=self._camera(model, data, model.camera(camera).id),
            viewport=mjrf.Rect(0, 0, *self._size),
            target=self._target,
            post_processing=False,
            reflections=False,
            skybox=False,
            haze=False,
            headlight=True,
            headlight_color=np.array(model.vis.headlight.diffuse, dtype=np.float32),
            headlight_intensity=_LUX,
        )
        self._context.wait_for_frame(self._context.render([request], [read]))
        return _average(pixels, self._samples)

    def _show_geoms(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Put the geoms where they are; add them anew if any looks otherwise than before."""
        ours = self._model
        looks = [(getattr(ours, name), getattr(model, name)) for name in _LOOKS]
        if self._geoms is None or any((old != new).any() for old, new in looks):
            for old, new in looks:
                old[:] = new
            self._geoms = None  # these are removed first
            self._geoms = self._mjrf.ModelRenderables(self._scene, self._resources)
            self._geoms.set_options(self._option)
        self._geoms.update(data)

    def _light(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        direction = np.array(data.light_xdir[0], dtype=np.float32)
        self._key.set_pose(self._lamp(data.light_xpos[0]).astype(np.float32), direction)
        self._key.set_color(np.array(model.light_diffuse[0], dtype=np.float32))
        self._everywhere.set_intensity(float(model.vis.headlight.ambient[0]) / _EXPOSURE)

    def _camera(self, model: mujoco.MjModel, data: mujoco.MjData, camera: int) -> Any:
        axes = data.cam_xmat[camera].reshape(3, 3).astype(np.float32)  # right, up, backward
        near = model.vis.map.znear * model.stat.extent
        top = near * math.tan(math.radians(model.cam_fovy[camera]) / 2)
        return self._mjrf.Camera(
            pos=data.cam_xpos[camera].astype(np.float32),
            forward=-axes[:, 2],
            up=axes[:, 1].copy(),
            frustum_bottom=-top,
            frustum_top=top,
            frustum_near=near,
            frustum_far=model.vis.map.zfar * model.stat.extent,
        )

    def free(self) -> None:
        """Free everything, what needs another before that other."""
        for name in ("_geoms", "_key", "_everywhere", "_target", "_scene", "_sky", "_white"):
            delattr(self, name)
        del self._resources
        del self._context


class _Thread:
    """A thread that runs functions, one after the other, until it is ended."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="filament", daemon=True)
        self._thread.start()

    def run(self, job: Callable[[], Any]) -> Any:
        """Return what a function returns there; raise what it raises."""
        outcome: Future[Any] = Future()
        self._jobs.put((job, outcome))
        return outcome.result()

    def end(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (each := self._jobs.get()) is not None:
            job, outcome = each
            try:
                outcome.set_result(job())
            except BaseException as error:
                # Without the frames, or another thread would free what Filament has made in them.
                outcome.set_exception(error.with_traceback(None))
            del each, job, outcome


def _average(pixels: np.ndarray, samples: int) -> np.ndarray:
    """Return (H, W, 3) uint8, each the mean of `samples` by `samples` of the pixels."""
    if samples == 1:
        return pixels
    height, width, channels = pixels.shape
    blocks = pixels.reshape(height // samples, samples, width // samples, samples, channels)
    total = blocks.sum(axis=(1, 3), dtype=np.uint16)
    return ((total + samples**2 // 2) // samples**2).astype(np.uint8)


def _flags() -> mujoco.MjModel:
    """Return a model that has nothing but options of the renderer."""
    spec = mujoco.MjSpec()
    for name, value in _FLAGS.items():
        spec.add_text(name=name, data=value)
    spec.add_numeric(name="filament.ao.enabled", size=1, data=[0.0])  # it darkens the borders
    return spec.compile()


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what Filament prints to standard output: a line for each thing that it finds."""
    with _quieting, open(os.devnull, "wb") as nowhere:
        try:
            stdout = os.dup(1)
        except OSError:  # it is closed
            yield
            return
        if sys.stdout is not None:
            sys.stdout.flush()
        try:
            os.dup2(nowhere.fileno(), 1)
            yield
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)


def require() -> None:
    """Check that Filament works on this machine, and let it find its files.

    Raises:
        RuntimeError: MuJoCo has no Filament renderer, or there is no Vulkan.
    """
    advice = "or the preset 'pretty', which needs OpenGL alone"
    try:
        if int(mujoco.__version__.split(".")[0]) < 4:
            raise ImportError(f"this is mujoco {mujoco.__version__}")
        import_module("mujoco.mjrf")
        import_module("mujoco.studio.window")  # it registers Filament's files
    except ImportError as error:
        raise RuntimeError(
            "the preset 'filament' needs MuJoCo 4 with its packages mujoco-core and mujoco-studio, "
            f"but: {' '.join(str(error).split())}; try 'pip install --upgrade \"mujoco>=4\"' "
            f"(Python 3.11 or newer), {advice}"
        ) from error
    problem = _vulkan_problem() if sys.platform == "linux" else None
    if problem is not None:
        raise RuntimeError(
            f"the preset 'filament' needs Vulkan, but {problem}; on Debian or Ubuntu try 'apt-get "
            "install libvulkan1 mesa-vulkan-drivers' (NVIDIA's driver has its own, which a "
            f"container gets with NVIDIA_DRIVER_CAPABILITIES=all), {advice}"
        )


def _vulkan_problem() -> str | None:
    """Return why there is no Vulkan device; None if there is one."""
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError as error:
        return str(error)
    # VkInstanceCreateInfo of type 1: no layers, no extensions
    create_info = (ctypes.c_uint64 * 8)(1)
    instance, count = ctypes.c_void_p(), ctypes.c_uint32()
    if status := vulkan.vkCreateInstance(create_info, None, ctypes.byref(instance)):
        return f"no driver was found (vkCreateInstance: {status})"
    status = vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    vulkan.vkDestroyInstance(instance, None)
    return None if count.value else f"it has no device (vkEnumeratePhysicalDevices: {status})"


def _close_all() -> None:
    if not opengl.is_inherited():
        for renderer in list(_open):
            renderer.close()
