"""The cameras of all worlds in one launch, by ray tracing on the device."""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
# (Warp's kernels, arrays and structs have types of their own)

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle

import mujoco_warp as mjw
import numpy as np
import warp as wp

from pp_env.config import RENDER_PRESETS, PickPlaceConfig
from pp_env.sim.api import InitialState
from pp_env.sim.mujoco.groups import VISIBLE_GROUPS
from pp_env.sim.warp.worlds import WarpWorlds


@wp.kernel
def _unpack(
    packed: wp.array2d(dtype=wp.uint32), first: int, width: int, out: wp.array4d(dtype=wp.uint8)
):
    """Write one camera's pixels, which stand as 0xAARRGGBB, as bytes: red, green, blue."""
    w, i = wp.tid()
    pixel = packed[w, first + i]
    y, x = i // width, i % width
    out[w, y, x, 0] = wp.uint8((pixel >> wp.uint32(16)) & wp.uint32(255))
    out[w, y, x, 1] = wp.uint8((pixel >> wp.uint32(8)) & wp.uint32(255))
    out[w, y, x, 2] = wp.uint8(pixel & wp.uint32(255))


@wp.kernel
def _to_planes(
    packed: wp.array2d(dtype=wp.uint32),
    first: int,
    width: int,
    stride: int,
    planes: wp.array3d(dtype=wp.uint8),
    samples: wp.array4d(dtype=wp.uint8),
):
    """Write one camera's pixels as Y, U and V of BT.601 with limited range, and some as they are.

    A thread has a square of two by two pixels, which share their U and V.
    """
    w, i = wp.tid()
    half = width // 2
    x, y = i % half * 2, i // half * 2
    height = planes.shape[1] * 2 // 3
    rgb = wp.vec3()  # of all four
    for k in range(4):
        column, row = x + k % 2, y + k // 2
        pixel = packed[w, first + row * width + column]
        red = float((pixel >> wp.uint32(16)) & wp.uint32(255))
        green = float((pixel >> wp.uint32(8)) & wp.uint32(255))
        blue = float(pixel & wp.uint32(255))
        rgb += wp.vec3(red, green, blue) / 4.0
        luma = 16.0 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255.0
        planes[w, row, column] = wp.uint8(luma + 0.5)
        if row % stride == stride // 2 and column % stride == stride // 2:
            samples[w, row // stride, column // stride, 0] = wp.uint8(red)
            samples[w, row // stride, column // stride, 1] = wp.uint8(green)
            samples[w, row // stride, column // stride, 2] = wp.uint8(blue)
    blueness = 128.0 + (-37.797 * rgb[0] - 74.203 * rgb[1] + 112.0 * rgb[2]) / 255.0
    redness = 128.0 + (112.0 * rgb[0] - 93.786 * rgb[1] - 18.214 * rgb[2]) / 255.0
    # U and V stand one after the other in rows as long as those of Y
    planes[w, height + i // width, i % width] = wp.uint8(blueness + 0.5)
    after = i + half * (height // 2)
    planes[w, height + after // width, after % width] = wp.uint8(redness + 0.5)


class _Tracer:
    """Renders every camera of every world into packed pixels.

    Light, shadows and textures follow MuJoCo's model of them, so images look like those of
    `simulator="mujoco"`, but no pixel is promised to be the same: rays replace rasterized
    triangles, and a shadow is of what is seen, not of simpler shapes.

    Args:
        worlds: The worlds, made with `renders`.
    """

    def __init__(self, worlds: WarpWorlds) -> None:
        self._worlds = worlds
        config, host_model = worlds.config, worlds.host_model
        preset = RENDER_PRESETS[config.render.preset]
        head = host_model.vis.headlight
        ambient = np.array(head.ambient)
        head.ambient = 0.0, 0.0, 0.0  # it is the lamp's, which may vary from world to world
        with wp.ScopedDevice(worlds.device):
            self._context = mjw.create_render_context(
                host_model,
                worlds.num_worlds,
                cam_res=config.render.size,
                render_rgb=True,
                render_depth=False,
                render_seg=False,
                use_shadows=preset.shadow_map > 0,
                shadow_light_fraction=0.0,
                samples_per_pixel=preset.samples_per_axis,
                enabled_geom_groups=list(VISIBLE_GROUPS),
                cam_active=[camera.name for camera in config.cameras],
                background_color=(*config.floor_rgb, 1.0),
            )
        head.ambient = ambient

    def trace(self) -> Iterator[tuple[str, wp.array, int]]:
        """Render the worlds as they are now.

        Yields:
            Each camera's name, all pixels of each world, (n, p) 0xAARRGGBB, and which of them is
            the camera's first.
        """
        model, data, context = self._worlds.model, self._worlds.data, self._context
        config = self._worlds.config
        with wp.ScopedDevice(self._worlds.device):
            mjw.kinematics(model, data)
            mjw.com_pos(model, data)
            mjw.camlight(model, data)
            mjw.refit_bvh(model, data, context)
            mjw.render(model, data, context)
            for index, camera in enumerate(config.cameras):
                yield camera.name, context.rgb_data, index * math.prod(config.render.size)


class BatchRenderer:
    """Renders every camera of every world.

    Args:
        worlds: The worlds, made with `renders`.

    Attributes:
        images: By camera, (n, H, W, 3) uint8 on the device, as of the last `render`.
    """

    def __init__(self, worlds: WarpWorlds) -> None:
        self._tracer = _Tracer(worlds)
        width, height = worlds.config.render.size
        shape = worlds.num_worlds, height, width, 3
        self.images = {
            camera.name: wp.zeros(shape, dtype=wp.uint8, device=worlds.device)
            for camera in worlds.config.cameras
        }

    def render(self) -> None:
        """Render the worlds as they are now."""
        for name, packed, first in self._tracer.trace():
            count, height, width, _ = self.images[name].shape
            wp.launch(_unpack, (count, height * width), [packed, first, width, self.images[name]])


class EpisodeRenderer:
    """Renders states of one episode after another, as many at once as there are worlds.

    The images are what a video encoder takes, YUV 4:2:0, and some pixels of each as they are, for
    statistics. The host copies them while the device renders the next ones.

    Args:
        config: Scene, cameras, size and quality of the images.
        num_worlds: Number of states in one launch.
        stride: Every how many pixels one is kept as it is, in each direction, from the middle of
            the first such square on.
        device: Name of Warp's device; None is the first NVIDIA GPU.

    Raises:
        RuntimeError: There is no NVIDIA GPU.
    """

    def __init__(
        self, config: PickPlaceConfig, num_worlds: int, stride: int, device: str | None = None
    ) -> None:
        self._worlds = WarpWorlds(config, num_worlds, device, renders=True)
        self._tracer, self._stride = _Tracer(self._worlds), stride
        width, height = config.render.size
        kept = [len(range(stride // 2, side, stride)) for side in (height, width)]
        shapes = (height * 3 // 2, width), (*kept, 3)
        where = wp.get_device(self._worlds.device)
        self._images = {
            camera.name: [
                wp.zeros((num_worlds, *shape), dtype=wp.uint8, device=where) for shape in shapes
            ]
            for camera in config.cameras
        }
        self._stages = cycle([_Stage(where, self._images) for _ in range(2)])

    def render(
        self,
        initial: InitialState,
        poses: Sequence[np.ndarray],
        out: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Render states.

        Args:
            initial: Where the episode began.
            poses: MuJoCo's `qpos` of each state.
            out: By camera, where their images go, n of `len(poses)`: Y, U and V one after the
                other, BT.601 with limited range, (n, H * 3 / 2, W) uint8, and the pixels that are
                kept as they are, (n, h, w, 3) uint8, RGB.
        """
        worlds, count = self._worlds, self._worlds.num_worlds
        worlds.show(worlds.tabulate([initial]))
        before: Callable[[], None] | None = None
        for first in range(0, len(poses), count):
            worlds.pose(np.array(poses[first : first + count]))
            self._launch()
            stage = next(self._stages)
            stage.fetch()
            if before is not None:
                before()
            chunk = slice(first, first + count)
            before = partial(stage.unload, {k: [a[chunk] for a in out[k]] for k in out})
        if before is not None:
            before()

    def close(self) -> None:
        """Free what the host holds."""
        self._worlds.close()

    def _launch(self) -> None:
        for name, packed, first in self._tracer.trace():
            planes, samples = self._images[name]
            count, rows, width = planes.shape
            wp.launch(
                _to_planes,
                (count, rows * width // 6),
                [packed, first, width, self._stride, planes, samples],
            )


class _Stage:
    """Memory of the host that the device writes to by itself.

    Args:
        device: The device.
        images: By camera, arrays on it.
    """

    def __init__(self, device: wp.Device, images: dict[str, list[wp.array]]) -> None:
        self._device, self._images = device, images
        pinned = device.is_cuda
        self._copies = {
            name: [
                wp.empty(array.shape, dtype=wp.uint8, device="cpu", pinned=pinned)
                for array in arrays
            ]
            for name, arrays in images.items()
        }
        self._event = wp.Event(device) if pinned else None

    def fetch(self) -> None:
        """Have the images copied once the device has made them."""
        for name, arrays in self._images.items():
            for copy, array in zip(self._copies[name], arrays, strict=True):
                wp.copy(copy, array)
        if self._event is not None:
            self._device.stream.record_event(self._event)

    def unload(self, out: dict[str, list[np.ndarray]]) -> None:
        """Wait for the images, and copy as many of the first as `out` has room for."""
        if self._event is not None:
            wp.synchronize_event(self._event)
        for name, arrays in out.items():
            for array, copy in zip(arrays, self._copies[name], strict=True):
                array[:] = copy.numpy()[: len(array)]
