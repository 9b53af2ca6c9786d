"""The cameras of all worlds in one launch, by ray tracing on the device."""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
# (Warp's kernels, arrays and structs have types of their own)

from collections.abc import Callable, Sequence
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


class BatchRenderer:
    """Renders every camera of every world.

    Light, shadows and textures follow MuJoCo's model of them, so images look like those of
    `simulator="mujoco"`, but no pixel is promised to be the same: rays replace rasterized
    triangles, and a shadow is of what is seen, not of simpler shapes.

    Args:
        worlds: The worlds, made with `renders`.

    Attributes:
        images: By camera, (n, H, W, 3) uint8 on the device, as of the last `render`.
    """

    def __init__(self, worlds: WarpWorlds) -> None:
        self._worlds = worlds
        config, host_model, count = worlds.config, worlds.host_model, worlds.num_worlds
        width, height = config.render.size
        preset = RENDER_PRESETS[config.render.preset]
        head = host_model.vis.headlight
        ambient = np.array(head.ambient)
        head.ambient = 0.0, 0.0, 0.0  # it is the lamp's, which may vary from world to world
        with wp.ScopedDevice(worlds.device):
            self._context = mjw.create_render_context(
                host_model,
                count,
                cam_res=(width, height),
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
            shape = (count, height, width, 3)
            self.images = {
                camera.name: wp.zeros(shape, dtype=wp.uint8) for camera in config.cameras
            }
        head.ambient = ambient

    def render(self) -> None:
        """Render the worlds as they are now."""
        model, data, context = self._worlds.model, self._worlds.data, self._context
        with wp.ScopedDevice(self._worlds.device):
            mjw.kinematics(model, data)
            mjw.com_pos(model, data)
            mjw.camlight(model, data)
            mjw.refit_bvh(model, data, context)
            mjw.render(model, data, context)
            for index, image in enumerate(self.images.values()):
                count, height, width, _ = image.shape
                first = index * height * width
                wp.launch(_unpack, (count, height * width), [context.rgb_data, first, width, image])


class EpisodeRenderer:
    """Renders states of one episode after another, as many at once as there are worlds.

    The host copies images while the device renders the next ones.

    Args:
        config: Scene, cameras, size and quality of the images.
        num_worlds: Number of states in one launch.
        device: Name of Warp's device; None is the first NVIDIA GPU.

    Raises:
        RuntimeError: There is no NVIDIA GPU.
    """

    def __init__(self, config: PickPlaceConfig, num_worlds: int, device: str | None = None) -> None:
        self._worlds = WarpWorlds(config, num_worlds, device, renders=True)
        self._renderer = BatchRenderer(self._worlds)
        device = wp.get_device(self._worlds.device)
        self._stages = cycle([_Stage(device, self._renderer.images) for _ in range(2)])

    def render(
        self, initial: InitialState, poses: Sequence[np.ndarray], out: dict[str, np.ndarray]
    ) -> None:
        """Render states.

        Args:
            initial: Where the episode began.
            poses: MuJoCo's `qpos` of each state.
            out: By camera, where their images go, (len(poses), H, W, 3) uint8.
        """
        worlds, count = self._worlds, self._worlds.num_worlds
        worlds.show(worlds.tabulate([initial]))
        before: Callable[[], None] | None = None
        for first in range(0, len(poses), count):
            worlds.pose(np.array(poses[first : first + count]))
            self._renderer.render()
            stage = next(self._stages)
            stage.fetch()
            if before is not None:
                before()
            chunk = slice(first, first + count)
            before = partial(stage.unload, {name: images[chunk] for name, images in out.items()})
        if before is not None:
            before()

    def close(self) -> None:
        """Free what the host holds."""
        self._worlds.close()


class _Stage:
    """Memory of the host that the device writes to by itself.

    Args:
        device: The device.
        images: By camera, on it.
    """

    def __init__(self, device: wp.Device, images: dict[str, wp.array]) -> None:
        self._device, self._images = device, images
        pinned = device.is_cuda
        self._copies = {
            name: wp.empty(image.shape, dtype=wp.uint8, device="cpu", pinned=pinned)
            for name, image in images.items()
        }
        self._views = {name: copy.numpy() for name, copy in self._copies.items()}
        self._event = wp.Event(device) if pinned else None

    def fetch(self) -> None:
        """Have the images copied once the device has made them."""
        for name, image in self._images.items():
            wp.copy(self._copies[name], image)
        if self._event is not None:
            self._device.stream.record_event(self._event)

    def unload(self, out: dict[str, np.ndarray]) -> None:
        """Wait for the images, and copy as many of the first as `out` has room for."""
        if self._event is not None:
            wp.synchronize_event(self._event)
        for name, image in out.items():
            image[:] = self._views[name][: len(image)]
