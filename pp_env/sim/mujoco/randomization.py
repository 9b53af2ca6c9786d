"""Apply an episode's variation to a MuJoCo model, and undo it at the next reset."""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import mujoco
import numpy as np

from pp_env import rotation
from pp_env.config import PickPlaceConfig
from pp_env.randomization import Variation
from pp_env.sim.mujoco.groups import HIDDEN, VISIBLE_AND_CASTING
from pp_env.sim.surfaces import table_top
from pp_env.textures import PLAIN, TEXTURES, WOOD, shade

_TILES_PER_METRE = 5.0
_FIELDS = (
    "light_pos", "light_dir", "light_diffuse", "light_specular", "cam_pos", "cam_quat",
    "geom_matid", "geom_group", "geom_friction", "body_mass", "body_inertia", "body_subtreemass",
    "body_invweight0", "dof_invweight0",
)  # fmt: skip


def add_textures(spec: mujoco.MjSpec) -> None:
    """Add a material per pattern, for the table and for the object; no geom uses one yet."""
    for name in TEXTURES:
        if name == PLAIN:
            continue
        texels = np.repeat(np.round(shade(name) * 255).astype(np.uint8)[..., None], 3, axis=2)
        for surface, faces in (("table", 1), ("object", 6)):
            kind = (
                mujoco.mjtTexture.mjTEXTURE_2D if faces == 1 else mujoco.mjtTexture.mjTEXTURE_CUBE
            )
            texture = spec.add_texture(
                name=f"{surface}_{name}",
                type=kind,
                width=texels.shape[1],
                height=texels.shape[0] * faces,
                nchannel=3,
            )
            texture.data = np.tile(texels, (faces, 1, 1)).tobytes()
            material = spec.add_material(
                name=f"{surface}_{name}",
                rgba=[0.5, 0.5, 0.5, 1.0],  # the default, so that the geom's own colour counts
                texuniform=faces == 1,
                texrepeat=[_TILES_PER_METRE] * 2 if faces == 1 else [1, 1],
            )
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name


class SceneVariation:
    """The randomizable values of a model, always varied from their compiled values.

    Args:
        model: The model as compiled.
        config: The configuration that it was compiled from.
    """

    def __init__(self, model: mujoco.MjModel, config: PickPlaceConfig) -> None:
        self._model = model
        self._config = config
        self._table = model.geom("table").id
        self._nominal = {name: getattr(model, name).copy() for name in _FIELDS}
        self._planks = {
            model.geom(surface.name).id: surface.shade for surface in table_top(config.table)
        }
        self._table_rgba = {
            geom: model.geom_rgba[geom].copy() for geom in (self._table, *self._planks)
        }
        head = model.vis.headlight
        self._headlight = np.array(head.ambient), np.array(head.diffuse)

    def apply(self, variation: Variation | None, body: int) -> None:
        """Restore the compiled values, then apply the variation.

        Args:
            variation: The episode's sampled variation; None for none.
            body: Id of the target object's body.
        """
        model = self._model
        for name, values in self._nominal.items():
            getattr(model, name)[:] = values
        for geom, rgba in self._table_rgba.items():
            model.geom_rgba[geom] = rgba
        model.vis.headlight.ambient, model.vis.headlight.diffuse = self._headlight
        if variation is None:
            return
        self._apply_lights(variation)
        self._apply_table(variation)
        self._apply_cameras(variation)
        self._apply_object(variation, body)

    def _apply_lights(self, variation: Variation) -> None:
        model, factor = self._model, variation.light_intensity
        model.light_diffuse[:] *= factor
        model.light_specular[:] *= factor
        head, (ambient, diffuse) = model.vis.headlight, self._headlight
        head.ambient, head.diffuse = ambient * factor, diffuse * factor
        if any(variation.light_position):
            model.light_pos[:] += variation.light_position
            # The light is a spot: keep it pointed at the table.
            model.light_dir[:] = self._config.table.center - model.light_pos
            model.light_dir[:] /= np.linalg.norm(model.light_dir, axis=1, keepdims=True)

    def _apply_table(self, variation: Variation) -> None:
        model = self._model
        if variation.table_rgb:
            model.geom_rgba[self._table, :3] = variation.table_rgb
            for geom, shade in self._planks.items():
                model.geom_rgba[geom, :3] = np.multiply(shade, variation.table_rgb)
        if variation.table_texture != WOOD:
            model.geom_group[self._table] = VISIBLE_AND_CASTING
            model.geom_group[list(self._planks)] = HIDDEN
        if variation.table_texture not in (WOOD, PLAIN):
            model.geom_matid[self._table] = model.material(f"table_{variation.table_texture}").id

    def _apply_cameras(self, variation: Variation) -> None:
        model = self._model
        for shift in variation.cameras:
            camera = model.camera(shift.name).id
            turn = rotation.from_vector(np.array(shift.rotation))
            model.cam_pos[camera] += shift.position
            model.cam_quat[camera] = rotation.multiply(model.cam_quat[camera], turn)

    def _apply_object(self, variation: Variation, body: int) -> None:
        model, first = self._model, self._model.body_geomadr[body]
        geoms = slice(first, first + model.body_geomnum[body])
        model.geom_friction[geoms, 0] *= variation.friction
        if variation.object_texture != PLAIN:
            model.geom_matid[geoms] = model.material(f"object_{variation.object_texture}").id
        dofs = slice(model.body_dofadr[body], model.body_dofadr[body] + model.body_dofnum[body])
        # The body is free, so all that the compiler derives from its mass is proportional to it.
        added = (variation.mass - 1) * model.body_mass[body]
        model.body_mass[body] *= variation.mass
        model.body_inertia[body] *= variation.mass
        model.body_subtreemass[[0, body]] += added
        model.body_invweight0[body] /= variation.mass
        model.dof_invweight0[dofs] /= variation.mass
