"""Build the scene as a MuJoCo model: Panda, table, objects, place marker, lights and cameras."""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import mujoco
import numpy as np

from pp_env import panda, rotation
from pp_env.config import (
    MUJOCO_LIGHTS,
    RENDER_PRESETS,
    CameraConfig,
    MujocoLightConfig,
    PickPlaceConfig,
)
from pp_env.objects import ObjectConfig, Vec3
from pp_env.sim import meshes, surfaces
from pp_env.sim.mujoco.groups import CASTING, HIDDEN, VISIBLE, VISIBLE_AND_CASTING
from pp_env.sim.mujoco.randomization import add_textures

_ARM_ARMATURE = 0.1  # kg m^2, reflected rotor inertia
_FINGER_ARMATURE = 0.1  # kg

# The attachment of a held object, stiffer than MuJoCo's default so that it follows within 0.1 mm.
_WELD_SOLREF = (0.01, 1.0)
_WELD_SOLIMP = (0.99, 0.999, 0.001, 0.5, 2.0)

_SHADOW_ANGLE_DEG = 12.0  # off the light's axis: the table and the arm above it

_GROUND_HALF_SIZE = 10.0  # m

_SLEEP_SPEED = 1e-3  # m/s, below which a body counts as at rest

# The robot collides with the scene and the scene with itself, but the robot not with itself.
_ROBOT_BIT, _SCENE_BIT = 1, 2


def build_model(config: PickPlaceConfig, flat: bool = False) -> mujoco.MjModel:
    """Build and compile the scene of `config`.

    Args:
        config: The scene.
        flat: Whether table and floor look as they do by an image on the shapes that collide, and
            not by meshes, which take rays longer and leave seams between them.
    """
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = 1.0 / config.timing.physics_hz
    # Not an implicit integrator: it changes the fingers' velocity after the friction was solved,
    # and a held object creeps out of the grip (docs/decisions/002).
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0  # so that friction holds instead of creeping
    # Resting bodies are skipped until something touches them (docs/decisions/014).
    spec.option.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
    spec.option.sleep_tolerance = _SLEEP_SPEED
    _set_render_quality(spec, config)
    _add_lights(spec, MUJOCO_LIGHTS)
    add_textures(spec)
    _add_table(spec, config)
    _add_floor(spec, config)  # rendered after the table, which hides much of it
    if flat:
        _flatten(spec, config)
    for index in range(len(config.object_pool)):
        _add_object(spec, config, index)
    _add_marker(spec, config)
    bodies = _add_robot(spec, config)
    for camera in config.cameras:
        parent = spec.worldbody if camera.parent == "world" else bodies[camera.parent]
        _add_camera(parent, camera, config.render.size)
    for index in range(len(config.object_pool)):
        spec.add_equality(
            name=numbered("grasp", index),
            type=mujoco.mjtEq.mjEQ_WELD,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            name1=panda.HAND.name,
            name2=numbered("object", index),
            active=False,
            solref=_WELD_SOLREF,
            solimp=_WELD_SOLIMP,
        )
    return spec.compile()


def numbered(name: str, index: int) -> str:
    """Return a pool object's own name for an element: `object`, `object_1`, `object_2`."""
    return f"{name}_{index}" if index else name


def _set_render_quality(spec: mujoco.MjSpec, config: PickPlaceConfig) -> None:
    preset = RENDER_PRESETS[config.render.preset]
    spec.visual.quality.offsamples = preset.samples
    spec.visual.quality.shadowsize = max(preset.shadow_map, 1)
    # Shapes have more triangles than their looks need: a disc of the marker 1,000.
    spec.visual.quality.numstacks = 2
    spec.visual.quality.numquads = 2
    spec.visual.global_.offwidth, spec.visual.global_.offheight = config.render.size
    spec.stat.extent = 1.0  # so that the clipping planes below are in metres
    spec.stat.center = config.table.center
    spec.visual.map.znear = 0.01
    spec.visual.map.zfar = 30.0
    spec.visual.map.shadowscale = _SHADOW_ANGLE_DEG / MUJOCO_LIGHTS.key_cutoff_deg


def _add_lights(spec: mujoco.MjSpec, lights: MujocoLightConfig) -> None:
    head = spec.visual.headlight
    head.ambient = [lights.head_ambient] * 3
    head.diffuse = [lights.head_diffuse] * 3
    head.specular = [lights.head_specular] * 3
    spec.worldbody.add_light(
        name="key",
        type=mujoco.mjtLightType.mjLIGHT_SPOT,
        pos=lights.key_position,
        dir=lights.key_direction,
        cutoff=lights.key_cutoff_deg,
        exponent=lights.key_exponent,
        attenuation=lights.key_attenuation,
        diffuse=[lights.key_diffuse] * 3,
        specular=[lights.key_specular] * 3,
        castshadow=True,
    )


def _add_floor(spec: mujoco.MjSpec, config: PickPlaceConfig) -> None:
    """Add the floor: what is seen of it, and a plane, with which collisions are fast."""
    for surface in surfaces.floor():
        _add_surface(spec, surface, config.floor_rgb, VISIBLE)
    spec.worldbody.add_geom(
        name="ground",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[_GROUND_HALF_SIZE, _GROUND_HALF_SIZE, 0.1],
        contype=_SCENE_BIT,
        conaffinity=_ROBOT_BIT | _SCENE_BIT,
        group=HIDDEN,
    )


def _add_table(spec: mujoco.MjSpec, config: PickPlaceConfig) -> None:
    """Add the table: a box that collides, and what is seen of it."""
    for surface in reversed(surfaces.table_top(config.table)):  # the uppermost first
        _add_surface(spec, surface, config.table.rgb, VISIBLE)
    _add_surface(spec, surfaces.table_legs(config.table), surfaces.LEG_RGB, VISIBLE)
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=config.table.center,
        size=np.array(config.table.size) / 2,
        rgba=[*config.table.rgb, 1.0],
        contype=_SCENE_BIT,
        conaffinity=_ROBOT_BIT | _SCENE_BIT,
        group=CASTING,
    )


def _flatten(spec: mujoco.MjSpec, config: PickPlaceConfig) -> None:
    """Show table and floor by images on the shapes that collide, in place of their meshes."""
    ground = np.full(2, 2 * _GROUND_HALF_SIZE)
    for geom, parts, size, texel, rgb in (
        ("table", surfaces.table_top(config.table), np.array(config.table.size[:2]), 1e-3, None),
        ("ground", surfaces.floor(), ground, 2.5e-2, config.floor_rgb),
    ):
        image = surfaces.shade_image(parts, size, texel)
        texture = spec.add_texture(
            name=f"{geom}_shades",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            width=image.shape[1],
            height=image.shape[0],
            nchannel=3,
        )
        texture.data = np.repeat(image[..., None], 3, axis=2).tobytes()
        material = spec.add_material(name=f"{geom}_shades", texrepeat=[1, 1])
        if rgb is not None:
            material.rgba = [*rgb, 1.0]
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name
        shape = spec.geom(geom)
        shape.material, shape.group = material.name, VISIBLE_AND_CASTING
        for part in parts:
            spec.geom(part.name).group = HIDDEN


def _add_surface(spec: mujoco.MjSpec, surface: surfaces.Surface, rgb: Vec3, group: int) -> None:
    mesh = spec.add_mesh(
        name=surface.name, uservert=surface.vertices.ravel(), userface=surface.faces.ravel()
    )
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL  # it has no volume
    spec.worldbody.add_geom(
        name=surface.name,
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=surface.name,
        rgba=[*np.multiply(surface.shade, rgb), 1.0],
        contype=0,
        conaffinity=0,
        group=group,
    )


def _add_object(spec: mujoco.MjSpec, config: PickPlaceConfig, index: int) -> None:
    obj, name = config.object_pool[index], numbered("object", index)
    position = [*config.table.center[:2], config.rest_z_of(obj)]
    body = spec.worldbody.add_body(name=name, pos=position)
    body.add_freejoint(name=numbered("object_free", index))
    is_cylinder = obj.shape == "cylinder"
    geom = body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER if is_cylinder else mujoco.mjtGeom.mjGEOM_BOX,
        size=_half_size(obj, obj.size),
        mass=obj.mass,
        # MuJoCo has one sliding coefficient. Static friction is what a grip needs.
        friction=[obj.static_friction, 0.005, 0.0001],
        condim=4,  # a grip also resists twisting; two geoms have the larger of their condims
        contype=_SCENE_BIT,
        conaffinity=_ROBOT_BIT | _SCENE_BIT,
    )
    if obj.mesh is not None:
        geom.group = CASTING
        _add_object_mesh(spec, body, obj, obj.mesh)
        return
    for k, band in enumerate(obj.bands):
        middle, extents = obj.band_box(band)
        body.add_geom(
            name=f"{name}_band_{k}",
            type=geom.type,
            pos=[0.0, 0.0, middle],
            size=_half_size(obj, extents),
            rgba=[*band.rgb, 1.0],
            mass=0,
            contype=0,
            conaffinity=0,
            group=VISIBLE,
        )


def _half_size(obj: ObjectConfig, extents: Vec3) -> list[float]:
    """Return what MuJoCo calls the size of the object's shape with full extents, m."""
    x, y, z = (extent / 2 for extent in extents)
    return [x, z, 0.0] if obj.shape == "cylinder" else [x, y, z]


def _add_object_mesh(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, obj: ObjectConfig, file: str
) -> None:
    """Add an object's visual mesh, turned and moved so that it fills the object's box."""
    turn, position = meshes.fit(file, obj)
    mesh = spec.add_mesh(name=f"{body.name}_visual", file=file)
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL  # a scan may have holes
    image = meshes.texture(file)
    if image is not None:
        texture = spec.add_texture(
            name=f"{body.name}_texture", type=mujoco.mjtTexture.mjTEXTURE_2D, file=str(image)
        )
        material = spec.add_material(name=f"{body.name}_material", rgba=[1.0, 1.0, 1.0, 1.0])
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name
    body.add_geom(
        name=f"{body.name}_visual",
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=mesh.name,
        material="" if image is None else f"{body.name}_material",
        pos=position,
        quat=turn,
        mass=0,
        contype=0,
        conaffinity=0,
        group=VISIBLE,
    )


def _add_marker(spec: mujoco.MjSpec, config: PickPlaceConfig) -> None:
    body = spec.worldbody.add_body(
        name="place_marker", mocap=True, pos=[*config.table.center[:2], config.table.top_z]
    )
    for disc in config.marker.discs:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            # The disc is centred on the table's surface, so only half of its height is above it.
            size=[config.task.place_tolerance * disc.radius, disc.height / 2, 0],
            rgba=[*disc.rgb, 1.0],
            contype=0,
            conaffinity=0,
            group=VISIBLE,
        )


def _add_camera(parent: mujoco.MjsBody, camera: CameraConfig, size: tuple[int, int]) -> None:
    parent.add_camera(
        name=camera.name,
        pos=camera.position,
        quat=rotation.from_matrix(camera.rotation()),
        fovy=camera.vertical_fov_deg(size),
    )


def _add_robot(spec: mujoco.MjSpec, config: PickPlaceConfig) -> dict[str, mujoco.MjsBody]:
    mesh_detail, servo = RENDER_PRESETS[config.render.preset].mesh_detail, config.servo
    bodies: dict[str, mujoco.MjsBody] = {}
    parent = spec.worldbody
    for link in (panda.BASE, *panda.ARM, panda.HAND):
        parent = bodies[link.name] = _add_link(parent, link)
        _add_meshes(spec, parent, link.name, mesh_detail)
    for i, (joint, link) in enumerate(zip(panda.ARM_JOINTS, panda.ARM, strict=True)):
        limits = (panda.JOINT_LOWER[i], panda.JOINT_UPPER[i])
        bodies[link.name].add_joint(
            name=joint, axis=[0, 0, 1], range=limits, armature=_ARM_ARMATURE
        )
        gains = (servo.arm_stiffness[i], servo.arm_damping[i])
        _add_servo(spec, joint, gains, panda.JOINT_TORQUE_LIMIT[i], limits)
    for joint, link in zip(
        panda.FINGER_JOINTS, (panda.LEFT_FINGER, panda.RIGHT_FINGER), strict=True
    ):
        body = _add_link(bodies[panda.HAND.name], link)
        _add_finger(spec, body, mesh_detail)
        limits = (panda.FINGER_CLOSED, panda.FINGER_OPEN)
        body.add_joint(
            name=joint,
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, 1, 0],
            range=limits,
            armature=_FINGER_ARMATURE,
        )
        gains = (servo.finger_stiffness, servo.finger_damping)
        _add_servo(spec, joint, gains, servo.finger_force, limits)
    return bodies


def _add_link(parent: mujoco.MjsBody, link: panda.Link) -> mujoco.MjsBody:
    return parent.add_body(
        name=link.name,
        pos=link.position,
        quat=link.quat_wxyz,
        mass=link.mass,
        ipos=link.center_of_mass,
        fullinertia=link.inertia,
        explicitinertial=True,
        gravcomp=1.0,  # as in the real controller: the servos carry no weight, so nothing sags
    )


def _add_servo(
    spec: mujoco.MjSpec,
    joint: str,
    gains: tuple[float, float],
    force: float,
    limits: tuple[float, float],
) -> None:
    """Add a position servo with gains (stiffness, damping)."""
    actuator = spec.add_actuator(
        name=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        target=joint,
        forcerange=[-force, force],
        ctrlrange=limits,
    )
    actuator.set_to_position(kp=gains[0], kv=gains[1])


_LINK_RGBA = [0.86, 0.87, 0.88, 1.0]
_DARK_RGBA = [0.2, 0.21, 0.23, 1.0]


def _add_meshes(spec: mujoco.MjSpec, body: mujoco.MjsBody, link: str, mesh_detail: float) -> None:
    part = link.removeprefix("panda_")
    rgba = _DARK_RGBA if part == "link7" else _LINK_RGBA
    _add_visual(spec, body, part, mesh_detail, rgba)
    name = f"{part}_collision"
    spec.add_mesh(name=name, file=str(meshes.path("collision", part)))
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=name,
        contype=_ROBOT_BIT,
        conaffinity=_SCENE_BIT,
        group=CASTING,
    )


def _add_finger(spec: mujoco.MjSpec, body: mujoco.MjsBody, mesh_detail: float) -> None:
    _add_visual(spec, body, "finger", mesh_detail, _LINK_RGBA)
    for half_size, center in panda.FINGER_BOXES:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=half_size,
            pos=center,
            friction=[1.0, 0.005, 0.0001],
            contype=_ROBOT_BIT,
            conaffinity=_SCENE_BIT,
            group=CASTING,
        )


def _add_visual(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, part: str, mesh_detail: float, rgba: list[float]
) -> None:
    name = f"{part}_visual"
    if spec.mesh(name) is None:
        vertices, faces = meshes.simplified("visual", part, mesh_detail)
        spec.add_mesh(name=name, uservert=vertices.ravel(), userface=faces.ravel())
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=name,
        rgba=rgba,
        contype=0,
        conaffinity=0,
        group=VISIBLE,
    )
