"""The cameras of all worlds in one launch, by ray tracing on the device."""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false
# pyright: reportInvalidTypeForm=false, reportAssignmentType=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
# (Warp's kernels, arrays and structs have types of their own)

from collections.abc import Iterator, Sequence

import mujoco_warp as mjw
import numpy as np
import warp as wp

from pp_env.config import RENDER_PRESETS, PickPlaceConfig
from pp_env.sim.api import InitialState
from pp_env.sim.mujoco.groups import VISIBLE_GROUPS
from pp_env.sim.warp.worlds import WarpWorlds, to_host


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

    def render(
        self, initial: InitialState, poses: Sequence[np.ndarray]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the images of states, by camera (H, W, 3) uint8.

        Args:
            initial: Where the episode began.
            poses: MuJoCo's `qpos` of each state.
        """
        worlds, count = self._worlds, self._worlds.num_worlds
        table = worlds.tabulate([initial])
        for first in range(0, len(poses), count):
            chunk = np.array(poses[first : first + count])
            worlds.show(table, chunk)
            self._renderer.render()
            images = {name: to_host(image) for name, image in self._renderer.images.items()}
            for k in range(len(chunk)):
                yield {name: image[k] for name, image in images.items()}

    def close(self) -> None:
        """Free what the host holds."""
        self._worlds.close()
