import dataclasses
import itertools

import numpy as np
import pytest
from pxr import Gf, Usd, UsdGeom, UsdLux, UsdPhysics, UsdShade

from pp_env import rotation
from pp_env.config import NAMED_CAMERAS, PickPlaceConfig
from pp_env.objects import YCB_OBJECTS, ObjectConfig
from pp_env.randomization import CameraShift, Variation
from pp_env.sim.api import Pose
from pp_env.sim.isaac import usd_stage
from tests.pp_env.sim.isaac.test_usd_panda import needs_validators
from tests.pp_env.sim.isaac.usd_panda import problems

CONFIG = PickPlaceConfig(cameras=NAMED_CAMERAS)


def attribute(stage, path, name):
    return stage.GetPrimAtPath(path).GetAttribute(name).Get()


def world_matrix(stage, path):
    """Return (4, 4), for column vectors."""
    matrix = UsdGeom.XformCache().GetLocalToWorldTransform(stage.GetPrimAtPath(path))
    return np.array(matrix).T


def box_of(stage, path):
    """Return centre and size, m, world."""
    boxes = UsdGeom.BBoxCache(Usd.TimeCode.Default(), [UsdGeom.Tokens.default_])
    extent = boxes.ComputeWorldBound(stage.GetPrimAtPath(path)).ComputeAlignedRange()
    return np.array(extent.GetMidpoint()), np.array(extent.GetSize())


def rgb_of(stage, path):
    material = UsdShade.MaterialBindingAPI(stage.GetPrimAtPath(path)).ComputeBoundMaterial()[0]
    shader = material.ComputeSurfaceSource()[0]
    linear = np.array(shader.GetInput("diffuseColor").Get(), dtype=float)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def put(stage, path, position, quat_wxyz):
    prim = UsdGeom.Xformable(stage.GetPrimAtPath(path))
    prim.ClearXformOpOrder()
    matrix = Gf.Matrix4d(Gf.Rotation(Gf.Quatd(*map(float, quat_wxyz))), Gf.Vec3d(*position))
    prim.MakeMatrixXform().Set(matrix)


def random_pose(rng):
    quat = rng.normal(size=4)
    return Pose(rng.uniform(-1, 1, 3), quat / np.linalg.norm(quat))


def test_units_axes_and_gravity(usd_scene):
    assert UsdGeom.GetStageMetersPerUnit(usd_scene) == 1.0
    assert UsdGeom.GetStageUpAxis(usd_scene) == "Z"
    assert UsdPhysics.GetStageKilogramsPerUnit(usd_scene) == 1.0
    scene = UsdPhysics.Scene(usd_scene.GetPrimAtPath(usd_stage.PHYSICS_SCENE))
    assert scene.GetGravityDirectionAttr().Get() == (0, 0, -1)
    assert scene.GetGravityMagnitudeAttr().Get() == pytest.approx(9.81)


def test_every_prim_is_there_with_its_type(usd_scene):
    found = {
        str(prim.GetPath()).removeprefix(f"{usd_stage.ROOT}/"): prim.GetTypeName()
        for prim in Usd.PrimRange(usd_scene.GetPrimAtPath(usd_stage.ROOT))
        if "/Franka/panda_" not in str(prim.GetPath()) or prim.IsA(UsdGeom.Camera)
    }
    wanted = {
        "Ground": "Cube", "Table": "Cube", "Object": "Xform", "Object/shape": "Cube",
        "PlaceMarker": "Xform", "PlaceMarker/disc_0": "Cylinder", "PlaceMarker/disc_1": "Cylinder",
        "GraspJoint": "PhysicsFixedJoint", "Franka": "Xform", "cam_high": "Camera",
        "Franka/panda_hand/cam_wrist": "Camera", "Lights/dome": "DomeLight",
        "Lights/key": "DistantLight", "Lights/work": "SphereLight", "Materials/grip": "Material",
    }  # fmt: skip
    assert {path: found.get(path) for path in wanted} == wanted


def test_only_object_and_robot_are_rigid_bodies_and_the_marker_can_not_be_touched(usd_scene):
    scene = [
        p for p in Usd.PrimRange(usd_scene.GetPrimAtPath(usd_stage.ROOT)) if "Franka" not in str(p)
    ]
    rigid = [str(p.GetPath()) for p in scene if p.HasAPI(UsdPhysics.RigidBodyAPI)]
    assert rigid == [usd_stage.OBJECT]
    touched = {p.GetName() for p in scene if p.HasAPI(UsdPhysics.CollisionAPI)}
    assert touched == {"Ground", "Table", "shape"}


def test_contacts_are_closer_than_the_objects_size(usd_scene):
    for path in (usd_stage.TABLE, f"{usd_stage.OBJECT}/shape"):
        schemas = usd_scene.GetPrimAtPath(path).GetMetadata("apiSchemas").GetAddedOrExplicitItems()
        assert "PhysxCollisionAPI" in schemas
        offset = attribute(usd_scene, path, "physxCollision:contactOffset")
        assert 0 < offset < min(CONFIG.object.size) / 4
        assert attribute(usd_scene, path, "physxCollision:restOffset") == 0.0


def test_the_object_has_its_mass_and_the_grip_material(usd_scene):
    prim = usd_scene.GetPrimAtPath(usd_stage.OBJECT)
    mass = attribute(usd_scene, usd_stage.OBJECT, "physics:mass")
    assert mass == pytest.approx(CONFIG.object.mass)
    assert attribute(usd_scene, usd_stage.OBJECT, "physxRigidBody:sleepThreshold") == 0.0
    shape = UsdShade.MaterialBindingAPI(usd_scene.GetPrimAtPath(f"{usd_stage.OBJECT}/shape"))
    grip = shape.ComputeBoundMaterial("physics")[0].GetPrim()
    material = UsdPhysics.MaterialAPI(grip)
    assert material.GetStaticFrictionAttr().Get() == CONFIG.object.static_friction == 1.5
    assert material.GetDynamicFrictionAttr().Get() == CONFIG.object.dynamic_friction == 1.0
    assert material.GetRestitutionAttr().Get() == CONFIG.object.restitution == 0.0
    assert grip.GetAttribute("physxMaterial:frictionCombineMode").Get() == "max"
    assert shape.ComputeBoundMaterial()[0].GetPath().name == "object_paint", "and keeps its look"
    assert prim.HasAPI(UsdPhysics.FilteredPairsAPI)


def test_the_grasp_joint_waits_outside_the_articulation(usd_scene):
    joint = UsdPhysics.FixedJoint(usd_scene.GetPrimAtPath(usd_stage.GRASP_JOINT))
    assert joint.GetJointEnabledAttr().Get() is False
    assert joint.GetExcludeFromArticulationAttr().Get() is True
    assert joint.GetBody0Rel().GetTargets() == [usd_stage.HAND]
    assert joint.GetBody1Rel().GetTargets() == [usd_stage.OBJECT]
    for path in (usd_stage.HAND, usd_stage.OBJECT):
        assert usd_scene.GetPrimAtPath(path).HasAPI(UsdPhysics.RigidBodyAPI)


def test_attaching_moves_nothing(usd_scene):
    rng = np.random.default_rng(0)
    for _ in range(100):
        hand, obj = random_pose(rng), random_pose(rng)
        put(usd_scene, usd_stage.HAND, *hand)
        put(usd_scene, usd_stage.OBJECT, *obj)
        usd_stage.attach(usd_scene, hand, obj)
        joint = UsdPhysics.FixedJoint(usd_scene.GetPrimAtPath(usd_stage.GRASP_JOINT))
        assert joint.GetJointEnabledAttr().Get() is True
        assert joint.GetExcludeFromArticulationAttr().Get() is True
        frames = []
        for body, side in ((usd_stage.HAND, 0), (usd_stage.OBJECT, 1)):
            position = getattr(joint, f"GetLocalPos{side}Attr")().Get()
            quat = getattr(joint, f"GetLocalRot{side}Attr")().Get()
            local = Gf.Matrix4d(Gf.Rotation(Gf.Quatd(quat)), Gf.Vec3d(position))
            frames.append(world_matrix(usd_scene, body) @ np.array(local).T)
        mismatch = frames[0] - frames[1]
        assert np.linalg.norm(mismatch[:3, 3]) < 1e-6
        assert np.abs(mismatch[:3, :3]).max() < 1e-6
        usd_stage.detach(usd_scene)


def test_a_held_object_does_not_touch_the_gripper(usd_scene):
    pose = Pose(np.zeros(3), rotation.about_z(0.0))
    pairs = UsdPhysics.FilteredPairsAPI(usd_scene.GetPrimAtPath(usd_stage.OBJECT))
    usd_stage.attach(usd_scene, pose, pose)
    targets = [str(path) for path in pairs.GetFilteredPairsRel().GetTargets()]
    assert targets == [usd_stage.HAND, *usd_stage.FINGERS]
    usd_stage.detach(usd_scene)
    assert pairs.GetFilteredPairsRel().GetTargets() == []
    joint = UsdPhysics.FixedJoint(usd_scene.GetPrimAtPath(usd_stage.GRASP_JOINT))
    assert joint.GetJointEnabledAttr().Get() is False


def test_what_an_episode_changes(usd_scene):
    usd_stage.set_marker(usd_scene, np.array([0.45, -0.1, 0.41]))
    np.testing.assert_allclose(world_matrix(usd_scene, usd_stage.MARKER)[:3, 3], [0.45, -0.1, 0.41])
    usd_stage.set_object_rgb(usd_scene, np.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(rgb_of(usd_scene, f"{usd_stage.OBJECT}/shape"), [0.1, 0.2, 0.3])


def test_building_again_replaces_the_scene_and_nothing_else(usd_scene, robot_file):
    usd_scene.DefinePrim("/World/Somebody", "Xform")
    usd_stage.set_marker(usd_scene, np.array([0.6, 0.2, 0.41]))
    usd_stage.build(usd_scene, CONFIG, robot_file)
    assert usd_scene.GetPrimAtPath("/World/Somebody")
    np.testing.assert_allclose(world_matrix(usd_scene, usd_stage.MARKER)[:2, 3], [0.5, 0.0])
    assert sum(prim.IsA(UsdPhysics.Scene) for prim in usd_scene.Traverse()) == 1


def test_usd_composes_it_without_an_error(usd_scene):
    assert usd_scene.GetCompositionErrors() == []


@needs_validators
def test_usds_own_validators_find_nothing(usd_scene, tmp_path):
    usd_scene.GetRootLayer().Export(str(tmp_path / "scene.usda"))
    assert problems(tmp_path / "scene.usda") == []


def test_lights_have_the_configured_intensities(usd_scene):
    lights = CONFIG.usd_lights
    wanted = {"dome": lights.dome, "key": lights.distant, "work": lights.sphere}
    for name, intensity in wanted.items():
        light = UsdLux.LightAPI(usd_scene.GetPrimAtPath(f"{usd_stage.LIGHTS}/{name}"))
        assert light.GetIntensityAttr().Get() == pytest.approx(intensity)
    work = world_matrix(usd_scene, f"{usd_stage.LIGHTS}/work")[:3, 3]
    assert work[2] > CONFIG.table.top_z + 1.0
    shines = -world_matrix(usd_scene, f"{usd_stage.LIGHTS}/key")[:3, 2]
    assert shines[2] < -0.9, "from above"


def test_cameras_see_near_things(usd_scene):
    for camera in CONFIG.cameras:
        near, far = attribute(usd_scene, usd_stage.camera_path(camera), "clippingRange")
        assert near == pytest.approx(0.01)
        assert far > 3.0


CAN = ObjectConfig(name="can", size=(0.066, 0.066, 0.101), mass=0.349, asset="can.usd")


def write_can(path, scale, physics, obj=None):
    """Write a can whose origin is not its centre, as in real assets."""
    stage = Usd.Stage.CreateNew(str(path))
    root = UsdGeom.Xform.Define(stage, "/can")
    stage.SetDefaultPrim(root.GetPrim())
    mesh = UsdGeom.Mesh.Define(stage, "/can/mesh")
    half = np.array((obj or CAN).size) / 2
    corners = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T * half + [0.01, -0.02, 0.03]
    mesh.CreatePointsAttr((corners * scale).tolist())
    mesh.CreateFaceVertexCountsAttr([4] * 2)
    mesh.CreateFaceVertexIndicesAttr([0, 1, 3, 2, 4, 5, 7, 6])
    mesh.CreateExtentAttr(UsdGeom.PointBased.ComputeExtent(mesh.GetPointsAttr().Get()))
    if physics:
        UsdPhysics.RigidBodyAPI.Apply(root.GetPrim())
        UsdPhysics.MassAPI.Apply(root.GetPrim()).CreateMassAttr(7.0)
        UsdPhysics.CollisionAPI.Apply(mesh.GetPrim())
    stage.GetRootLayer().Save()
    return str(path)


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("physics", [False, True])
def test_an_asset_becomes_one_rigid_body_whichever_folder_it_is_from(
    robot_file, tmp_path, scale, physics
):
    config = dataclasses.replace(CONFIG, object=CAN)
    stage = Usd.Stage.CreateInMemory()
    usd_stage.build(stage, config, robot_file, [write_can(tmp_path / "can.usda", scale, physics)])
    prims = list(Usd.PrimRange(stage.GetPrimAtPath(usd_stage.OBJECT)))
    assert [p.GetName() for p in prims if p.HasAPI(UsdPhysics.RigidBodyAPI)] == ["Object"]
    assert [p.GetName() for p in prims if p.HasAPI(UsdPhysics.MassAPI)] == ["Object"]
    assert attribute(stage, usd_stage.OBJECT, "physics:mass") == pytest.approx(CAN.mass)
    (mesh,) = [p for p in prims if p.HasAPI(UsdPhysics.CollisionAPI)]
    assert UsdPhysics.MeshCollisionAPI(mesh).GetApproximationAttr().Get() == "convexHull"
    center, size = box_of(stage, usd_stage.OBJECT)
    np.testing.assert_allclose(size, CAN.size, atol=1e-6)
    np.testing.assert_allclose(center, world_matrix(stage, usd_stage.OBJECT)[:3, 3], atol=1e-6)


def build_lying(robot_file, tmp_path, obj, measured, order):
    """Build a stage with a file of these extents, lying on some side, that must fill the object."""
    lying = dataclasses.replace(obj, size=tuple(measured[i] for i in order))
    stage = Usd.Stage.CreateInMemory()
    url = write_can(tmp_path / "box.usda", 100.0, True, lying)
    usd_stage.build(stage, PickPlaceConfig(objects=(obj,)), robot_file, [url])
    center, size = box_of(stage, usd_stage.OBJECT)
    np.testing.assert_allclose(size, obj.size, atol=1e-6)
    np.testing.assert_allclose(center, world_matrix(stage, usd_stage.OBJECT)[:3, 3], atol=1e-6)
    return stage


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_an_asset_may_lie_on_any_side(robot_file, tmp_path, order):
    obj = dataclasses.replace(YCB_OBJECTS[0], asset="box.usd")
    stage = build_lying(robot_file, tmp_path, obj, obj.size, order)
    matrix = world_matrix(stage, f"{usd_stage.OBJECT}/shape")[:3, :3]
    assert np.linalg.det(matrix) > 0, "turned, not mirrored"


# Isaac's own files, as measured: up to a fifth larger than the published sizes along one axis.
@pytest.mark.parametrize(
    ("obj", "measured"),
    [(YCB_OBJECTS[0], (0.175, 0.0451, 0.089)), (YCB_OBJECTS[5], (0.101, 0.0576, 0.0835))],
    ids=["sugar box", "potted meat can"],
)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_an_asset_that_is_somewhat_larger_is_scaled_to_the_published_size(
    robot_file, tmp_path, obj, measured, order
):
    build_lying(robot_file, tmp_path, obj, measured, order)


@pytest.mark.parametrize(("in_file", "expected"), [(None, 16), (4, 16), (32, 32)])
def test_the_robot_has_enough_solver_iterations(robot_file, tmp_path, in_file, expected):
    path = tmp_path / "robot.usda"
    robot = Usd.Stage.Open(str(robot_file)).Flatten()
    robot.Export(str(path))
    edited = Usd.Stage.Open(str(path))
    name = "physxArticulation:solverPositionIterationCount"
    root = edited.GetDefaultPrim()
    root.RemoveProperty(name) if in_file is None else root.GetAttribute(name).Set(in_file)
    edited.GetRootLayer().Save()
    stage = Usd.Stage.CreateInMemory()
    usd_stage.build(stage, CONFIG, str(path))
    assert attribute(stage, usd_stage.ROBOT, name) == expected


def test_an_asset_of_another_size_is_refused(robot_file, tmp_path):
    config = dataclasses.replace(CONFIG, object=CAN)
    url = write_can(tmp_path / "can.usda", 3.0, False)
    with pytest.raises(usd_stage.StageError, match=r"can should measure .* but .* measures"):
        usd_stage.build(Usd.Stage.CreateInMemory(), config, robot_file, [url])


def test_an_object_without_a_collider_is_refused(robot_file, tmp_path):
    path = tmp_path / "empty.usda"
    empty = Usd.Stage.CreateNew(str(path))
    empty.SetDefaultPrim(UsdGeom.Xform.Define(empty, "/nothing").GetPrim())
    empty.GetRootLayer().Save()
    config = dataclasses.replace(CONFIG, object=CAN)
    with pytest.raises(usd_stage.StageError, match="has no collider"):
        usd_stage.build(Usd.Stage.CreateInMemory(), config, robot_file, [str(path)])


def test_a_robot_that_is_not_there_is_named():
    with pytest.raises(usd_stage.StageError, match=r"/nowhere/franka.usd; give the folder"):
        usd_stage.build(Usd.Stage.CreateInMemory(), CONFIG, "/nowhere/franka.usd")


def test_a_robot_without_a_hand_is_named(tmp_path):
    path = tmp_path / "arm.usda"
    arm = Usd.Stage.CreateNew(str(path))
    arm.SetDefaultPrim(UsdGeom.Xform.Define(arm, "/panda").GetPrim())
    UsdGeom.Xform.Define(arm, "/panda/panda_link0")
    arm.GetRootLayer().Save()
    with pytest.raises(usd_stage.StageError, match=r"rigid link 'panda_hand'.*panda_link0"):
        usd_stage.build(Usd.Stage.CreateInMemory(), CONFIG, str(path))


def test_a_stage_in_centimetres_is_refused(robot_file):
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, 0.01)
    with pytest.raises(usd_stage.StageError, match=r"metres with z up, found 0.01 m"):
        usd_stage.build(stage, CONFIG, robot_file)


def looks(stage):
    """Return what a variation may change: intensities, positions, colours, cameras."""
    lights = [f"{usd_stage.LIGHTS}/{name}" for name in ("dome", "key", "work")]
    found = [attribute(stage, path, "inputs:intensity") for path in lights]
    found += [*rgb_of(stage, usd_stage.TABLE), *world_matrix(stage, lights[2]).ravel()]
    for camera in CONFIG.cameras:
        found += [*world_matrix(stage, usd_stage.camera_path(camera)).ravel()]
    return np.array(found)


def test_a_variation_is_applied_and_taken_back(usd_scene):
    before = looks(usd_scene)
    variation = Variation(
        light_position=(0.1, -0.2, 0.3),
        light_intensity=0.5,
        table_rgb=(0.2, 0.5, 0.3),
        cameras=(CameraShift("cam_high", (0.01, 0.02, 0.03), (0.0, 0.0, 0.1)),),
    )
    usd_stage.set_variation(usd_scene, CONFIG, variation)
    np.testing.assert_allclose(looks(usd_scene)[:3], before[:3] / 2)
    np.testing.assert_allclose(rgb_of(usd_scene, usd_stage.TABLE), (0.2, 0.5, 0.3), atol=1e-6)
    work = attribute(usd_scene, f"{usd_stage.LIGHTS}/work", "xformOp:translate")
    np.testing.assert_allclose(work, (0.6, -0.2, CONFIG.table.top_z + 1.8))
    high, wrist = (world_matrix(usd_scene, usd_stage.camera_path(c)) for c in CONFIG.cameras[:2])
    np.testing.assert_allclose(high[:3, 3], np.add(CONFIG.cameras[0].position, (0.01, 0.02, 0.03)))
    usd_stage.set_variation(usd_scene, CONFIG, Variation())
    np.testing.assert_allclose(looks(usd_scene), before, atol=1e-12)
    again = world_matrix(usd_scene, usd_stage.camera_path(CONFIG.cameras[1]))
    np.testing.assert_allclose(again, wrist, err_msg="it was not moved", atol=1e-12)
