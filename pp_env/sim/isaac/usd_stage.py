"""Author the Isaac Sim scene with pxr alone: everything but the robot's own asset.

Works with PyPI's `usd-core` and inside Kit. Metres, kilograms, z up; the robot is at the origin.
`build` authors the scene once, with the whole object pool and a grasp joint for each object. The
functions after it change what differs between episodes: marker, colours, lights, table, cameras,
visibility of the objects, and grasp joints.

PhysX's own schemas are not part of `usd-core`; the few attributes used are authored by name.
"""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

from collections.abc import Sequence

import numpy as np
from pxr import Gf, Sdf, Usd, UsdGeom, UsdLux, UsdPhysics, UsdShade

from pp_env import panda, rotation
from pp_env.config import CameraConfig, PickPlaceConfig, TableConfig, Vec3
from pp_env.objects import ObjectConfig
from pp_env.randomization import Variation
from pp_env.sim import meshes, surfaces
from pp_env.sim.api import Pose

ROOT = "/World/PickPlace"
ROBOT = f"{ROOT}/Franka"
HAND = f"{ROBOT}/{panda.HAND.name}"
FINGERS = tuple(f"{ROBOT}/{link.name}" for link in (panda.LEFT_FINGER, panda.RIGHT_FINGER))
GROUND = f"{ROOT}/Ground"
TABLE = f"{ROOT}/Table"
OBJECT = f"{ROOT}/Object"
MARKER = f"{ROOT}/PlaceMarker"
GRASP_JOINT = f"{ROOT}/GraspJoint"
SURFACES = f"{ROOT}/Surfaces"
LIGHTS = f"{ROOT}/Lights"
MATERIALS = f"{ROOT}/Materials"
PHYSICS_SCENE = "/physicsScene"  # where Isaac's World expects it

_SOLVER_ITERATIONS = 16  # of the robot, at least: a firm grip needs more than PhysX's default of 4
_ASSET_TOLERANCE = 0.25  # relative difference allowed between a file's box and the object's

_GRIP_MATERIAL = f"{MATERIALS}/grip"
_OBJECT_PAINT = f"{MATERIALS}/object_paint"
_TABLE_PAINT = f"{MATERIALS}/table_paint"
_CLIPPING_RANGE = (
    0.01,
    10.0,
)  # m; USD's default begins at 1, too far for a wrist camera
_CONTACT_OFFSET = 0.005  # m; Isaac's default of 0.1 is more than twice the object
_GROUND_SIZE = (20.0, 20.0, 0.1)  # m
_WORK_LIGHT_RADIUS = 0.15  # m
_WORK_LIGHT_HEIGHT = 1.5  # m above the table
_DOME_RGB = (0.75, 0.75, 0.75)
_PARKED_X = -8.0  # m, on the ground behind the robot, out of every camera's view


class StageError(RuntimeError):
    """An error of building the scene, or a part that it lacks; the message names the fix."""


def camera_path(camera: CameraConfig) -> str:
    """Return the path of a camera's prim."""
    return f"{HAND if camera.parent == panda.HAND.name else ROOT}/{camera.name}"


def numbered(path: str, index: int) -> str:
    """Return the path of a pool object's own prim: `Object`, `Object_1`, `Object_2`."""
    return f"{path}_{index}" if index else path


def parked_position(index: int, config: PickPlaceConfig) -> np.ndarray:
    """Return where a pool object stands while it is not on the table, (3,) m, world."""
    return np.array([_PARKED_X, float(index), config.object_pool[index].height / 2])


def build(
    stage: Usd.Stage,
    config: PickPlaceConfig,
    robot_url: str,
    object_urls: Sequence[str | None] = (),
) -> None:
    """Author the scene of `config`.

    Args:
        stage: An open stage in metres with z up; prims outside `ROOT` are left unchanged.
        config: The scene.
        robot_url: USD file of the Franka Panda, as Isaac Sim ships it.
        object_urls: USD file of each pool object; None or missing for its plain shape.

    Raises:
        StageError: The stage has other units, or a file is missing or lacks a part.
    """
    _require_units(stage)
    if stage.GetPrimAtPath(ROOT):
        stage.RemovePrim(ROOT)
    for path in ("/World", ROOT, SURFACES, LIGHTS, MATERIALS):
        UsdGeom.Xform.Define(stage, path)
    if not stage.GetDefaultPrim():
        stage.SetDefaultPrim(stage.GetPrimAtPath("/World"))
    _add_physics_scene(stage)
    _add_ground(stage, config)
    _add_table(stage, config.table)
    for index in range(len(config.object_pool)):
        url = object_urls[index] if index < len(object_urls) else None
        _add_materials(stage, config.object_pool[index], index)
        _add_object(stage, config, index, url)
    _add_marker(stage, config)
    _add_lights(stage, config)
    _add_robot(stage, robot_url)
    for camera in config.cameras:
        _add_camera(stage, camera, config.render.size)
    # The joints exist before physics starts and are never removed: Isaac's view of the robot does
    # not survive the removal of any prim.
    for index in range(len(config.object_pool)):
        _write_grasp_joint(stage, index, np.zeros(3), rotation.about_z(0.0), enabled=False)


def set_deterministic(stage: Usd.Stage) -> None:
    """Let PhysX give the same states for the same start, whatever it simulated before."""
    for scene in [prim for prim in stage.Traverse() if prim.IsA(UsdPhysics.Scene)]:
        _author_physx(scene, "PhysxSceneAPI", "physxScene:enableEnhancedDeterminism", True)


def set_marker(stage: Usd.Stage, position: np.ndarray) -> None:
    """Move the place marker's centre to (3,), m, world."""
    _move(stage.GetPrimAtPath(MARKER), position)


def set_object_rgb(stage: Usd.Stage, rgb: np.ndarray, index: int = 0) -> None:
    """Set a pool object's colour, (3,) in [0, 1]; an object with an asset keeps its own look."""
    _set_paint(stage, numbered(_OBJECT_PAINT, index), rgb)


def set_variation(stage: Usd.Stage, config: PickPlaceConfig, variation: Variation) -> None:
    """Set lights, table and cameras to the configured values with the variation applied.

    Of the lights, only the work light moves; the dome and the distant light have no position.
    """
    lights = config.usd_lights
    for name, intensity in (
        ("dome", lights.dome),
        ("key", lights.distant),
        ("work", lights.sphere),
    ):
        light = UsdLux.LightAPI(stage.GetPrimAtPath(f"{LIGHTS}/{name}"))
        light.GetIntensityAttr().Set(intensity * variation.light_intensity)
    place = np.add(_work_light_position(config.table), variation.light_position)
    _move(stage.GetPrimAtPath(f"{LIGHTS}/work"), place)
    table_rgb = variation.table_rgb or config.table.rgb
    _set_paint(stage, _TABLE_PAINT, table_rgb)
    for surface in surfaces.table_top(config.table):
        _set_paint(stage, _surface_paint(surface), np.multiply(surface.shade, table_rgb))
    shifts = {shift.name: shift for shift in variation.cameras}
    for camera in config.cameras:
        position, turn = np.array(camera.position), rotation.from_matrix(camera.rotation())
        if camera.name in shifts:
            shift = shifts[camera.name]
            position = position + shift.position
            turn = rotation.multiply(turn, rotation.from_vector(np.array(shift.rotation)))
        _move(stage.GetPrimAtPath(camera_path(camera)), position, turn)


def set_visible(stage: Usd.Stage, visible: bool, index: int = 0) -> None:
    """Show or hide a pool object."""
    imageable = UsdGeom.Imageable(stage.GetPrimAtPath(numbered(OBJECT, index)))
    tokens = UsdGeom.Tokens
    imageable.GetVisibilityAttr().Set(tokens.inherited if visible else tokens.invisible)


def attach(stage: Usd.Stage, hand: Pose, obj: Pose, index: int = 0) -> None:
    """Enable a pool object's grasp joint so that it holds the object at its current pose.

    A joint forces its two frames together; frames left at identity would pull the object's centre
    into the hand. The held object no longer collides with the fingers, which would fight the joint.

    Args:
        stage: The stage.
        hand: Pose of `panda_hand`, from the physics engine.
        obj: Pose of the object, from the physics engine.
        index: The object's index in the pool.
    """
    offset = rotation.unrotate(hand.quat_wxyz, obj.position - hand.position)
    turn = rotation.multiply(rotation.inverse(hand.quat_wxyz), obj.quat_wxyz)
    _write_grasp_joint(stage, index, offset, turn, enabled=True)
    _filtered_pairs(stage, index).SetTargets([HAND, *FINGERS])


def detach(stage: Usd.Stage, index: int = 0) -> None:
    """Disable a pool object's grasp joint, and let it collide with the hand again."""
    joint = UsdPhysics.FixedJoint(stage.GetPrimAtPath(numbered(GRASP_JOINT, index)))
    joint.GetJointEnabledAttr().Set(False)
    _filtered_pairs(stage, index).SetTargets([])


def _require_units(stage: Usd.Stage) -> None:
    if not stage.HasAuthoredMetadata("metersPerUnit"):
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    if not stage.HasAuthoredMetadata("upAxis"):
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    if not UsdPhysics.StageHasAuthoredKilogramsPerUnit(stage):
        UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    meters, up = UsdGeom.GetStageMetersPerUnit(stage), UsdGeom.GetStageUpAxis(stage)
    if meters != 1.0 or up != UsdGeom.Tokens.z:
        raise StageError(
            f"the stage must be in metres with z up, found {meters} m per unit and {up} up; "
            "open one with World(stage_units_in_meters=1.0)"
        )


def _add_physics_scene(stage: Usd.Stage) -> None:
    if any(prim.IsA(UsdPhysics.Scene) for prim in stage.Traverse()):
        return
    scene = UsdPhysics.Scene.Define(stage, PHYSICS_SCENE)
    scene.CreateGravityDirectionAttr(Gf.Vec3f(0.0, 0.0, -1.0))
    scene.CreateGravityMagnitudeAttr(9.81)


def _add_materials(stage: Usd.Stage, obj: ObjectConfig, index: int) -> None:
    grip = UsdShade.Material.Define(stage, numbered(_GRIP_MATERIAL, index)).GetPrim()
    physics = UsdPhysics.MaterialAPI.Apply(grip)
    physics.CreateStaticFrictionAttr(obj.static_friction)
    physics.CreateDynamicFrictionAttr(obj.dynamic_friction)
    physics.CreateRestitutionAttr(obj.restitution)
    # PhysX averages the two materials of a contact by default; MuJoCo takes the larger friction.
    _author_physx(grip, "PhysxMaterialAPI", "physxMaterial:frictionCombineMode", "max")
    _add_paint(stage, numbered(_OBJECT_PAINT, index), obj.rgb or (0.8, 0.2, 0.2))


def _add_paint(stage: Usd.Stage, path: str, rgb: Sequence[float] | np.ndarray) -> UsdShade.Material:
    material = UsdShade.Material.Define(stage, path)
    shader = UsdShade.Shader.Define(stage, f"{path}/surface")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set(_linear(rgb))
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(0.6)
    material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    return material


def _set_paint(stage: Usd.Stage, path: str, rgb: Sequence[float] | np.ndarray) -> None:
    shader = UsdShade.Shader(stage.GetPrimAtPath(f"{path}/surface"))
    shader.GetInput("diffuseColor").Set(_linear(rgb))


def _linear(rgb: Sequence[float] | np.ndarray) -> Gf.Vec3f:
    """Convert an sRGB colour of the configuration to a linear one, as USD's shaders expect."""
    srgb = np.asarray(rgb, dtype=float)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return Gf.Vec3f(*linear.tolist())


def _add_ground(stage: Usd.Stage, config: PickPlaceConfig) -> None:
    """Add the ground as a slab, on which objects rest at the same height as in MuJoCo."""
    center = (0.0, 0.0, -_GROUND_SIZE[2] / 2)
    _add_fixed_box(stage, GROUND, center, _GROUND_SIZE, config.floor_rgb)
    for surface in surfaces.floor():
        _add_surface(stage, surface, config.floor_rgb)


def _add_table(stage: Usd.Stage, table: TableConfig) -> None:
    _add_fixed_box(stage, TABLE, table.center, table.size, table.rgb)
    for surface in surfaces.table_top(table):
        _add_surface(stage, surface, table.rgb)
    _add_surface(stage, surfaces.table_legs(table), surfaces.LEG_RGB)


def surface_path(surface: surfaces.Surface) -> str:
    """Return the path of a surface's mesh."""
    return f"{SURFACES}/{surface.name}"


def _surface_paint(surface: surfaces.Surface) -> str:
    return f"{MATERIALS}/{surface.name}_paint"


def _add_surface(stage: Usd.Stage, surface: surfaces.Surface, rgb: Vec3) -> None:
    """Add a mesh that is only visual: it has no collider."""
    mesh = UsdGeom.Mesh.Define(stage, surface_path(surface))
    points = [Gf.Vec3f(*point) for point in surface.vertices.tolist()]
    mesh.CreatePointsAttr(points)
    mesh.CreateExtentAttr(UsdGeom.Mesh.ComputeExtent(points))
    mesh.CreateFaceVertexCountsAttr([3] * len(surface.faces))
    mesh.CreateFaceVertexIndicesAttr(surface.faces.ravel().tolist())
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    _bind(
        mesh.GetPrim(), _add_paint(stage, _surface_paint(surface), np.multiply(surface.shade, rgb))
    )


def _add_fixed_box(stage: Usd.Stage, path: str, center: Vec3, size: Vec3, rgb: Vec3) -> None:
    prim = _add_box(stage, path, center, size)
    _add_collider(prim)
    _bind(prim, _add_paint(stage, f"{MATERIALS}/{path.rsplit('/', 1)[-1].lower()}_paint", rgb))


def _add_object(stage: Usd.Stage, config: PickPlaceConfig, index: int, url: str | None) -> None:
    """Add a rigid body whose origin is the object's centre, with its shape below.

    The first object of the pool stands on the table, the others are parked.
    """
    obj, path = config.object_pool[index], numbered(OBJECT, index)
    body = UsdGeom.Xform.Define(stage, path).GetPrim()
    table = (*config.table.center[:2], config.rest_z_of(obj))
    _move(body, parked_position(index, config) if index else table)
    UsdPhysics.RigidBodyAPI.Apply(body)
    UsdPhysics.MassAPI.Apply(body).CreateMassAttr(obj.mass)
    # A sleeping object would stay in the air when the joint releases it.
    _author_physx(body, "PhysxRigidBodyAPI", "physxRigidBody:sleepThreshold", 0.0)
    if url is None:
        shape = _add_shape(stage, f"{path}/shape", obj, obj.size)
        _bind(shape, UsdShade.Material.Get(stage, numbered(_OBJECT_PAINT, index)))
        _add_bands(stage, obj, index)
    else:
        shape = _add_asset(stage, f"{path}/shape", url, obj)
    for geometry in _geometry(shape):
        _add_collider(geometry)
    _require_collider(stage, path)
    grip = UsdShade.Material.Get(stage, numbered(_GRIP_MATERIAL, index))
    UsdShade.MaterialBindingAPI.Apply(body).Bind(
        grip, UsdShade.Tokens.strongerThanDescendants, "physics"
    )
    UsdPhysics.FilteredPairsAPI.Apply(body).CreateFilteredPairsRel()


def _add_shape(stage: Usd.Stage, path: str, obj: ObjectConfig, size: Vec3) -> Usd.Prim:
    if obj.shape == "cylinder":
        return _add_cylinder(stage, path, size[0] / 2, size[2])
    return _add_box(stage, path, (0.0, 0.0, 0.0), size)


def _add_bands(stage: Usd.Stage, obj: ObjectConfig, index: int) -> None:
    """Add the bands around a pool object, which have no colliders."""
    for k, band in enumerate(obj.bands):
        middle, size = obj.band_box(band)
        shape = _add_shape(stage, f"{numbered(OBJECT, index)}/band_{k}", obj, size)
        _move(shape, (0.0, 0.0, middle))
        _bind(shape, _add_paint(stage, f"{numbered(_OBJECT_PAINT, index)}_band_{k}", band.rgb))


def _require_collider(stage: Usd.Stage, path: str) -> None:
    prim = stage.GetPrimAtPath(path)
    if not any(p.HasAPI(UsdPhysics.CollisionAPI) for p in _geometry(prim)):
        raise StageError(
            f"{path} has no collider: no geometry was found below it; check that its file loads "
            "and holds meshes, or leave `ObjectConfig.asset` out for a plain shape"
        )


def _add_asset(stage: Usd.Stage, path: str, url: str, obj: ObjectConfig) -> Usd.Prim:
    """Reference the object's file, turned, scaled and moved so that it fills the object's box.

    Isaac's files are up to a fifth larger than the published sizes along one axis. Each axis is
    scaled for itself, so that the object stands and is grasped as in MuJoCo. Some files have
    physics: it is removed from the reference, so that the body above is the only one.
    """
    shape = UsdGeom.Xform.Define(stage, path)
    asset = UsdGeom.Xform.Define(stage, f"{path}/asset").GetPrim()
    asset.GetReferences().AddReference(url)
    for prim in Usd.PrimRange(asset):
        for api in (UsdPhysics.RigidBodyAPI, UsdPhysics.MassAPI):
            if prim.HasAPI(api):
                prim.RemoveAPI(api)
    boxes = UsdGeom.BBoxCache(Usd.TimeCode.Default(), [UsdGeom.Tokens.default_, "render", "proxy"])
    extent = boxes.ComputeRelativeBound(asset, shape.GetPrim()).ComputeAlignedRange()
    if extent.IsEmpty():
        raise StageError(
            f"{path} has no collider: {url} did not load or holds no geometry; check "
            "--assets-root, or leave `ObjectConfig.asset` out (--no-ycb-assets) for a plain shape"
        )
    scale, turn = _fit(np.array(extent.GetSize()), obj, url)
    middle = turn @ (scale * np.array(extent.GetMidpoint()))
    _move(shape.GetPrim(), -middle, rotation.from_matrix(turn))
    shape.AddScaleOp().Set(Gf.Vec3f(*scale.tolist()))
    return shape.GetPrim()


def _fit(extent: np.ndarray, obj: ObjectConfig, url: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale (3,) and the rotation (3, 3) that give a file's box the object's size.

    The file is in metres or in centimetres. The axis that points up differs from file to file, so
    the rotation consists of quarter turns.
    """
    size = np.array(obj.size)
    for unit in (1.0, 0.01):
        turn = meshes.quarter_turns(unit * extent, size, _ASSET_TOLERANCE)
        if turn is not None:
            return np.abs(turn).T @ size / extent, turn
    raise StageError(
        f"{obj.name} should measure {obj.size} m in some order, within {_ASSET_TOLERANCE:.0%}, but "
        f"{url} measures {tuple(np.round(extent, 4).tolist())}; set `ObjectConfig.size` to its box "
        "in metres, or leave `ObjectConfig.asset` out (--no-ycb-assets) for a plain shape"
    )


def _add_marker(stage: Usd.Stage, config: PickPlaceConfig) -> None:
    """Add the place marker, which is only visual: it has no collider."""
    marker = UsdGeom.Xform.Define(stage, MARKER).GetPrim()
    _move(marker, (*config.table.center[:2], config.table.top_z))
    for i, disc in enumerate(config.marker.discs):
        radius = config.task.place_tolerance * disc.radius
        shape = _add_cylinder(stage, f"{MARKER}/disc_{i}", radius, disc.height)
        _bind(shape, _add_paint(stage, f"{MATERIALS}/marker_paint_{i}", disc.rgb))


def _add_lights(stage: Usd.Stage, config: PickPlaceConfig) -> None:
    lights, table = config.usd_lights, config.table
    dome = UsdLux.DomeLight.Define(stage, f"{LIGHTS}/dome")
    dome.CreateIntensityAttr(lights.dome)
    dome.CreateColorAttr(Gf.Vec3f(*_DOME_RGB))
    key = UsdLux.DistantLight.Define(stage, f"{LIGHTS}/key")
    key.CreateIntensityAttr(lights.distant)
    # A distant light shines along its own -z: from above, a little from the robot's left.
    key.AddRotateXYZOp().Set(Gf.Vec3f(20.0, 15.0, 0.0))
    work = UsdLux.SphereLight.Define(stage, f"{LIGHTS}/work")
    work.CreateIntensityAttr(lights.sphere)
    work.CreateRadiusAttr(_WORK_LIGHT_RADIUS)
    _move(work.GetPrim(), _work_light_position(table))


def _work_light_position(table: TableConfig) -> Vec3:
    return (table.center[0], table.center[1], table.top_z + _WORK_LIGHT_HEIGHT)


def _add_robot(stage: Usd.Stage, url: str) -> None:
    robot = UsdGeom.Xform.Define(stage, ROBOT).GetPrim()
    robot.GetReferences().AddReference(url)  # does not fail if there is no such file
    _require_robot(stage, url)
    for prim in [p for p in Usd.PrimRange(robot) if p.HasAPI(UsdPhysics.ArticulationRootAPI)]:
        name = "physxArticulation:solverPositionIterationCount"
        if (prim.GetAttribute(name).Get() or 0) < _SOLVER_ITERATIONS:  # Isaac's own file has 32
            _author_physx(prim, "PhysxArticulationAPI", name, _SOLVER_ITERATIONS)


def _require_robot(stage: Usd.Stage, robot_url: str) -> None:
    if not stage.GetPrimAtPath(ROBOT).GetChildren():
        raise StageError(
            f"the Franka's file did not load: {robot_url}; give the folder that holds Isaac/ and "
            "NVIDIA/ with --assets-root or ISAAC_ASSETS_ROOT, or allow access to NVIDIA's server"
        )
    for path in (HAND, *FINGERS):
        prim = stage.GetPrimAtPath(path)
        if not prim or not prim.HasAPI(UsdPhysics.RigidBodyAPI):
            found = [child.GetName() for child in stage.GetPrimAtPath(ROBOT).GetChildren()]
            raise StageError(
                f"{robot_url} should hold the rigid link {path.split('/')[-1]!r}, but has only "
                f"{found}; it must be Isaac Sim's own Franka Panda"
            )


def _add_camera(stage: Usd.Stage, camera: CameraConfig, size: tuple[int, int]) -> None:
    prim = UsdGeom.Camera.Define(stage, camera_path(camera))
    prim.CreateProjectionAttr(UsdGeom.Tokens.perspective)
    prim.CreateFocalLengthAttr(camera.focal_length_mm)
    prim.CreateHorizontalApertureAttr(camera.aperture_mm)
    prim.CreateVerticalApertureAttr(camera.vertical_aperture_mm(size))
    prim.CreateClippingRangeAttr(Gf.Vec2f(*_CLIPPING_RANGE))
    _move(prim.GetPrim(), camera.position, rotation.from_matrix(camera.rotation()))


def _add_box(stage: Usd.Stage, path: str, center: Vec3, size: Vec3) -> Usd.Prim:
    cube = UsdGeom.Cube.Define(stage, path)
    cube.CreateSizeAttr(1.0)
    cube.CreateExtentAttr([Gf.Vec3f(-0.5), Gf.Vec3f(0.5)])
    _move(cube.GetPrim(), center)
    cube.AddScaleOp().Set(Gf.Vec3f(*size))
    return cube.GetPrim()


def _add_cylinder(stage: Usd.Stage, path: str, radius: float, height: float) -> Usd.Prim:
    cylinder = UsdGeom.Cylinder.Define(stage, path)
    cylinder.CreateAxisAttr(UsdGeom.Tokens.z)
    cylinder.CreateRadiusAttr(radius)
    cylinder.CreateHeightAttr(height)
    corner = Gf.Vec3f(radius, radius, height / 2)
    cylinder.CreateExtentAttr([-corner, corner])
    return cylinder.GetPrim()


def _add_collider(prim: Usd.Prim) -> None:
    UsdPhysics.CollisionAPI.Apply(prim)
    if prim.IsA(UsdGeom.Mesh):  # PhysX moves convex shapes only
        UsdPhysics.MeshCollisionAPI.Apply(prim).CreateApproximationAttr("convexHull")
    _author_physx(prim, "PhysxCollisionAPI", "physxCollision:contactOffset", _CONTACT_OFFSET)
    _author_physx(prim, "PhysxCollisionAPI", "physxCollision:restOffset", 0.0)


def _geometry(prim: Usd.Prim) -> list[Usd.Prim]:
    return [p for p in Usd.PrimRange(prim) if p.IsA(UsdGeom.Gprim)]


def _bind(prim: Usd.Prim, material: UsdShade.Material) -> None:
    UsdShade.MaterialBindingAPI.Apply(prim).Bind(material)


def _move(prim: Usd.Prim, position: Sequence[float] | np.ndarray, quat_wxyz=None) -> None:
    """Set a prim's pose in its parent, with the operations that Isaac Sim itself writes."""
    xform = UsdGeom.Xformable(prim)
    ops = {op.GetOpName(): op for op in xform.GetOrderedXformOps()}
    translate = ops.get("xformOp:translate") or xform.AddTranslateOp()
    translate.Set(Gf.Vec3d(*map(float, position)))
    if quat_wxyz is not None:
        orient = ops.get("xformOp:orient") or xform.AddOrientOp(UsdGeom.XformOp.PrecisionDouble)
        orient.Set(Gf.Quatd(*map(float, quat_wxyz)))


def _write_grasp_joint(
    stage: Usd.Stage, index: int, offset: np.ndarray, turn_wxyz: np.ndarray, enabled: bool
) -> None:
    """Write the joint between the hand and a pool object, with the object's frame in the hand.

    The joint is excluded from the articulation, or PhysX would make the object a part of the robot.
    """
    joint = UsdPhysics.FixedJoint.Define(stage, numbered(GRASP_JOINT, index))
    with Sdf.ChangeBlock():  # so that PhysX never reads half a joint
        joint.CreateExcludeFromArticulationAttr(True)
        joint.CreateLocalPos0Attr(Gf.Vec3f(*map(float, offset)))
        joint.CreateLocalRot0Attr(Gf.Quatf(*map(float, turn_wxyz)))
        joint.CreateLocalPos1Attr(Gf.Vec3f(0.0))
        joint.CreateLocalRot1Attr(Gf.Quatf(1.0))
        joint.CreateBody0Rel().SetTargets([HAND])
        joint.CreateBody1Rel().SetTargets([numbered(OBJECT, index)])
        joint.CreateJointEnabledAttr(enabled)


def _filtered_pairs(stage: Usd.Stage, index: int) -> Usd.Relationship:
    body = stage.GetPrimAtPath(numbered(OBJECT, index))
    return UsdPhysics.FilteredPairsAPI(body).GetFilteredPairsRel()


_PHYSX_TYPES = {
    bool: Sdf.ValueTypeNames.Bool,
    int: Sdf.ValueTypeNames.Int,
    float: Sdf.ValueTypeNames.Float,
    str: Sdf.ValueTypeNames.Token,
}


def _author_physx(prim: Usd.Prim, schema: str, attribute: str, value: bool | float | str) -> None:
    prim.AddAppliedSchema(schema)
    prim.CreateAttribute(attribute, _PHYSX_TYPES[type(value)]).Set(value)
