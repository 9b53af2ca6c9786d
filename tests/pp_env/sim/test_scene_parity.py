"""MuJoCo and Isaac Sim have the same scene: both descriptions are compared."""

import mujoco
import numpy as np
import pytest
from pxr import Usd, UsdGeom, UsdPhysics

from pp_env import PickPlaceConfig, kinematics, panda, rotation
from pp_env.objects import YCB_OBJECTS
from pp_env.sim.isaac import usd_stage
from pp_env.sim.mujoco.model import build_model, numbered
from pp_env.sim.mujoco.randomization import SceneVariation
from pp_env.sim.surfaces import floor, table_legs, table_top
from tests.pp_env.sim.isaac.test_usd_stage import (
    CONFIG,
    attribute,
    box_of,
    put,
    rgb_of,
    world_matrix,
)
from tests.pp_env.sim.mujoco.test_randomization import EVERYTHING

RESOLUTION = CONFIG.render.size[0]


@pytest.fixture(scope="module")
def model():
    return build_model(CONFIG)


def geom(model, name):
    geom = model.geom(name)
    return geom.pos, 2 * geom.size, geom.rgba[:3]


def test_table(usd_scene, model):
    position, size, rgb = geom(model, "table")
    center, extent = box_of(usd_scene, usd_stage.TABLE)
    np.testing.assert_allclose(center, position, atol=1e-6)
    np.testing.assert_allclose(extent, size, atol=1e-6)
    np.testing.assert_allclose(rgb_of(usd_scene, usd_stage.TABLE), rgb, atol=1e-6)


def test_ground(usd_scene, model):
    center, extent = box_of(usd_scene, usd_stage.GROUND)
    assert model.geom("ground").pos[2] == 0.0
    assert center[2] + extent[2] / 2 == pytest.approx(0.0, abs=1e-6)


SURFACES = (*table_top(CONFIG.table), table_legs(CONFIG.table), *floor())


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_surfaces(usd_scene, model, surface):
    """Both have the same meshes, at the same place and in the same colour."""
    path, found = usd_stage.surface_path(surface), model.geom(surface.name)
    mesh = model.mesh(found.dataid[0])
    first, count = mesh.vertadr[0], mesh.vertnum[0]
    turn = rotation.to_matrix(found.quat)
    theirs = model.mesh_vert[first : first + count] @ turn.T + found.pos
    np.testing.assert_allclose(theirs, surface.vertices, atol=1e-5)
    np.testing.assert_allclose(attribute(usd_scene, path, "points"), surface.vertices, atol=1e-6)
    indices = np.reshape(attribute(usd_scene, path, "faceVertexIndices"), (-1, 3))
    np.testing.assert_array_equal(indices, surface.faces)
    np.testing.assert_allclose(rgb_of(usd_scene, path), found.rgba[:3], atol=1e-6)
    assert not usd_scene.GetPrimAtPath(path).HasAPI(UsdPhysics.CollisionAPI)
    assert found.contype == found.conaffinity == 0


def test_object(usd_scene, model):
    center, extent = box_of(usd_scene, usd_stage.OBJECT)
    np.testing.assert_allclose(extent, 2 * model.geom("object").size, atol=1e-6)
    np.testing.assert_allclose(center, model.body("object").pos, atol=1e-6)
    mass = attribute(usd_scene, usd_stage.OBJECT, "physics:mass")
    assert mass == pytest.approx(model.body("object").mass[0])


@pytest.fixture(scope="module")
def pools(robot_file):
    """Return the scene with the whole object pool for both simulators, without asset files."""
    stage = Usd.Stage.CreateInMemory()
    config = PickPlaceConfig(objects=YCB_OBJECTS)
    usd_stage.build(stage, config, robot_file)
    return stage, build_model(config)


@pytest.mark.parametrize("index", range(len(YCB_OBJECTS)))
def test_every_candidate(pools, index):
    stage, model = pools
    obj, path = YCB_OBJECTS[index], usd_stage.numbered(usd_stage.OBJECT, index)
    name = numbered("object", index)
    shape = stage.GetPrimAtPath(f"{path}/shape")
    center, extent = box_of(stage, f"{path}/shape")
    half = model.geom(name).size
    if obj.shape == "cylinder":
        assert shape.IsA(UsdGeom.Cylinder)
        assert model.geom(name).type == mujoco.mjtGeom.mjGEOM_CYLINDER
        half = half[[0, 0, 1]]
    np.testing.assert_allclose(extent, 2 * half, atol=1e-6)
    np.testing.assert_allclose(extent, obj.size, atol=1e-6)
    assert attribute(stage, path, "physics:mass") == pytest.approx(model.body(name).mass[0])
    resting = CONFIG.table.top_z if index == 0 else 0.0
    assert center[2] - obj.height / 2 == pytest.approx(resting, abs=1e-6)
    grip = usd_stage.numbered(f"{usd_stage.MATERIALS}/grip", index)
    friction = attribute(stage, grip, "physics:staticFriction")
    assert friction == pytest.approx(model.geom(name).friction[0])
    joint = UsdPhysics.FixedJoint(
        stage.GetPrimAtPath(usd_stage.numbered(usd_stage.GRASP_JOINT, index))
    )
    assert joint.GetBody1Rel().GetTargets() == [path]
    weld = model.equality(numbered("grasp", index))
    assert model.body(name).id in (weld.obj1id, weld.obj2id)


@pytest.mark.parametrize("index", range(len(YCB_OBJECTS)))
def test_bands(pools, index):
    stage, model = pools
    obj = YCB_OBJECTS[index]
    assert obj.bands
    for k in range(len(obj.bands)):
        path = f"{usd_stage.numbered(usd_stage.OBJECT, index)}/band_{k}"
        found = model.geom(f"{numbered('object', index)}_band_{k}")
        half = found.size[[0, 0, 1]] if obj.shape == "cylinder" else found.size
        center, extent = box_of(stage, path)
        np.testing.assert_allclose(extent, 2 * half, atol=1e-6)
        middle, _ = box_of(stage, path.replace(f"band_{k}", "shape"))
        np.testing.assert_allclose(center - middle, found.pos, atol=1e-6)
        np.testing.assert_allclose(rgb_of(stage, path), found.rgba[:3], atol=1e-6)
        assert not stage.GetPrimAtPath(path).HasAPI(UsdPhysics.CollisionAPI)


def test_friction(usd_scene, model):
    grip = attribute(usd_scene, f"{usd_stage.MATERIALS}/grip", "physics:staticFriction")
    assert grip == pytest.approx(model.geom("object").friction[0])


def test_marker(usd_scene, model):
    discs = np.flatnonzero(model.geom_bodyid == model.body("place_marker").id)
    for i, geom in enumerate(discs):
        path = f"{usd_stage.MARKER}/disc_{i}"
        assert attribute(usd_scene, path, "radius") == pytest.approx(model.geom_size[geom, 0])
        assert attribute(usd_scene, path, "height") == pytest.approx(2 * model.geom_size[geom, 1])
        np.testing.assert_allclose(rgb_of(usd_scene, path), model.geom_rgba[geom, :3], atol=1e-6)
    position = world_matrix(usd_scene, usd_stage.MARKER)[:3, 3]
    np.testing.assert_allclose(position, model.body("place_marker").pos, atol=1e-9)


def test_limits_and_gains(model):
    for i, name in enumerate(panda.ARM_JOINTS):
        wanted = panda.JOINT_LOWER[i], panda.JOINT_UPPER[i]
        np.testing.assert_allclose(model.joint(name).range, wanted)
        actuator = model.actuator(name)
        assert actuator.gainprm[0] == CONFIG.servo.arm_stiffness[i]
        assert -actuator.biasprm[2] == CONFIG.servo.arm_damping[i]
        assert actuator.forcerange[1] == panda.JOINT_TORQUE_LIMIT[i]
    for name in panda.FINGER_JOINTS:
        assert model.actuator(name).gainprm[0] == CONFIG.servo.finger_stiffness
        assert model.actuator(name).forcerange[1] == CONFIG.servo.finger_force


def test_a_variation_means_the_same(usd_scene):
    """Both have the same table colour and camera views."""
    model, variation = build_model(CONFIG), EVERYTHING
    SceneVariation(model, CONFIG).apply(variation, model.body("object").id)
    usd_stage.set_variation(usd_scene, CONFIG, variation)
    rgb = geom(model, "table")[2]
    np.testing.assert_allclose(rgb_of(usd_scene, usd_stage.TABLE), rgb, atol=1e-6)
    for surface in table_top(CONFIG.table):
        rgb = model.geom(surface.name).rgba[:3]
        path = usd_stage.surface_path(surface)
        np.testing.assert_allclose(rgb_of(usd_scene, path), rgb, atol=1e-6)
    test_cameras_see_what_mujocos_cameras_see(usd_scene, model)


def test_cameras_see_what_mujocos_cameras_see(usd_scene, model):
    """Project the same 1,000 points at 20 postures of the arm, to within a pixel."""
    rng, data = np.random.default_rng(0), mujoco.MjData(model)
    arm = [model.joint(name).qposadr[0] for name in panda.ARM_JOINTS]
    points = rng.uniform([0.0, -0.7, 0.0], [1.0, 0.7, 0.8], (1000, 3))
    seen = dict.fromkeys([camera.name for camera in CONFIG.cameras], 0)
    for _ in range(20):
        joint_pos = rng.uniform(panda.JOINT_LOWER, panda.JOINT_UPPER)
        data.qpos[arm] = joint_pos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        position, orientation = kinematics.forward(joint_pos)
        put(usd_scene, usd_stage.HAND, position, rotation.from_matrix(orientation))
        for camera in CONFIG.cameras:
            ours = usd_pixels(usd_scene, camera, points)
            theirs = mujoco_pixels(model, data, camera.name, points)
            visible = ((theirs > 0) & (theirs < RESOLUTION)).all(axis=1)
            np.testing.assert_allclose(ours[visible], theirs[visible], atol=0.5)
            np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
            seen[camera.name] += int(visible.sum())
    assert min(seen.values()) > 1000, seen


def usd_pixels(usd_scene, camera, points):
    """Return columns and rows (n, 2), through USD's own camera; NaN behind it."""
    prim = UsdGeom.Camera(usd_scene.GetPrimAtPath(usd_stage.camera_path(camera)))
    frustum = prim.GetCamera().frustum
    matrix = np.array(frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix()).T
    clip = np.c_[points, np.ones(len(points))] @ matrix.T
    screen = clip[:, :2] / clip[:, 3:]
    pixels = (screen * [1, -1] + 1) / 2 * RESOLUTION
    return np.where(clip[:, 3:] > 0, pixels, np.nan)


def mujoco_pixels(model, data, name, points):
    camera = model.camera(name).id
    local = (points - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
    focal = RESOLUTION / 2 / np.tan(np.radians(model.cam_fovy[camera]) / 2)
    depth = -local[:, 2:]
    pixels = RESOLUTION / 2 + focal * local[:, :2] * [1, -1] / depth
    return np.where(depth > 0, pixels, np.nan)
