"""The cameras of all worlds in one launch, by ray tracing on the device."""

# pyright: reportAttributeAccessIssue=false

import mujoco_warp as mjw
import numpy as np
import warp as wp

from pp_env.config import RENDER_PRESETS
from pp_env.sim.mujoco.groups import VISIBLE_GROUPS
from pp_env.sim.warp.worlds import WarpWorlds

_SAMPLES_PER_AXIS = {0: 1, 4: 2}  # of a pixel, by the preset's samples


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
        config, model = worlds.config, worlds.host_model
        width, height = config.render.size
        preset = RENDER_PRESETS[config.render.preset]
        head = model.vis.headlight
        ambient = np.array(head.ambient)
        head.ambient = 0.0, 0.0, 0.0  # it is the lamp's, which may vary from world to world
        with wp.ScopedDevice(worlds.device):
            self._context = mjw.create_render_context(
                model,
                worlds.num_worlds,
                cam_res=(width, height),
                render_rgb=True,
                render_depth=False,
                render_seg=False,
                use_shadows=preset.shadow_map > 0,
                shadow_light_fraction=0.0,
                samples_per_pixel=_SAMPLES_PER_AXIS[preset.samples],
                enabled_geom_groups=list(VISIBLE_GROUPS),
                cam_active=[camera.name for camera in config.cameras],
                background_color=(*config.floor_rgb, 1.0),
            )
            shape = (worlds.num_worlds, height, width, 3)
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
