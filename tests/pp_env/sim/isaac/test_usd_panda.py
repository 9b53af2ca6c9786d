import numpy as np
import pytest
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from pp_env import kinematics, panda, rotation
from pp_env.config import PickPlaceConfig, ServoConfig
from pp_env.sim.isaac import usd_stage
from tests.pp_env.sim.isaac.usd_panda import FINGERS, LINKS, ROOT, problems, write_panda

CHAIN = (*panda.ARM_JOINTS, "panda_hand_joint")
PARENTS = (panda.BASE, *panda.ARM, panda.HAND)

needs_validators = pytest.mark.skipif(
    Usd.GetVersion() < (0, 26, 3), reason="this usd-core has no working validators"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("usd") / "panda.usdc"
    write_panda(path, visual_detail=0.05)
    return path


@pytest.fixture(scope="module")
def stage(path):
    return Usd.Stage.Open(str(path))


def joint_prim(stage, i):
    return stage.GetPrimAtPath(f"{ROOT}/{PARENTS[i].name}/{CHAIN[i]}")


def matrix(position, quat, angle=0.0):
    turn = Gf.Rotation(Gf.Vec3d.ZAxis(), np.degrees(angle)) * Gf.Rotation(Gf.Quatd(quat))
    return Gf.Matrix4d(turn, Gf.Vec3d(position))


def hand_pose(stage, joint_pos):
    pose = Gf.Matrix4d(1.0)
    for i, angle in enumerate([*joint_pos, 0.0]):
        joint = UsdPhysics.Joint(joint_prim(stage, i))
        there = matrix(joint.GetLocalPos0Attr().Get(), joint.GetLocalRot0Attr().Get(), angle)
        back = matrix(joint.GetLocalPos1Attr().Get(), joint.GetLocalRot1Attr().Get())
        pose = back.GetInverse() * there * pose
    return pose


def assert_close(pose, expected):
    position, orientation = expected
    np.testing.assert_allclose(pose.ExtractTranslation(), position, atol=1e-6)
    np.testing.assert_allclose(np.array(pose.ExtractRotationMatrix()).T, orientation, atol=1e-6)


@needs_validators
def test_usd_finds_nothing_wrong_with_it_or_with_a_scene_that_refers_to_it(path):
    scene = path.parent / "scene.usda"
    stage = Usd.Stage.CreateNew(str(scene))
    usd_stage.build(stage, PickPlaceConfig(), f"./{path.name}")
    stage.GetRootLayer().Save()
    assert problems(path) == []
    assert problems(scene) == []


@needs_validators
def test_usd_finds_a_robot_that_is_missing(tmp_path):
    stage = Usd.Stage.CreateNew(str(tmp_path / "scene.usda"))
    stage.DefinePrim("/robot").GetReferences().AddReference("./nowhere.usdc")
    stage.GetRootLayer().Save()
    assert problems(tmp_path / "scene.usda")


def test_joint_frames_move_the_hand_as_forward_kinematics_says(stage):
    rng = np.random.default_rng(0)
    for joint_pos in rng.uniform(panda.JOINT_LOWER, panda.JOINT_UPPER, (20, 7)):
        assert_close(hand_pose(stage, joint_pos), kinematics.forward(joint_pos))


def test_links_stand_where_the_joints_at_zero_put_them(stage):
    hand = stage.GetPrimAtPath(f"{ROOT}/{panda.HAND.name}")
    assert_close(
        UsdGeom.XformCache().GetLocalToWorldTransform(hand), kinematics.forward(np.zeros(7))
    )


def test_links_are_rigid_bodies_with_the_published_inertias(stage):
    assert [p.GetName() for p in stage.GetDefaultPrim().GetChildren()][: len(LINKS)] == [
        link.name for link in LINKS
    ]
    for link in LINKS:
        prim = stage.GetPrimAtPath(f"{ROOT}/{link.name}")
        assert prim.HasAPI(UsdPhysics.RigidBodyAPI)
        mass = UsdPhysics.MassAPI(prim)
        assert mass.GetMassAttr().Get() == pytest.approx(link.mass)
        assert mass.GetCenterOfMassAttr().Get() == pytest.approx(link.center_of_mass)
        quat = mass.GetPrincipalAxesAttr().Get()
        axes = rotation.to_matrix(np.array([quat.GetReal(), *quat.GetImaginary()]))
        inertia = axes @ np.diag(mass.GetDiagonalInertiaAttr().Get()) @ axes.T
        xx, yy, zz, xy, xz, yz = link.inertia
        expected = [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]
        np.testing.assert_allclose(inertia, expected, atol=1e-6 * np.trace(expected))


def test_arm_joints_speak_degrees_and_the_fingers_metres(stage):
    for i in range(7):
        joint = UsdPhysics.RevoluteJoint(joint_prim(stage, i))
        limits = np.radians([joint.GetLowerLimitAttr().Get(), joint.GetUpperLimitAttr().Get()])
        assert limits == pytest.approx([panda.JOINT_LOWER[i], panda.JOINT_UPPER[i]])
        drive = UsdPhysics.DriveAPI(joint.GetPrim(), "angular")
        # A torque per degree is the smaller number: a radian is 57 degrees.
        stiffness = drive.GetStiffnessAttr().Get() * np.degrees(1.0)
        assert stiffness == pytest.approx(ServoConfig().arm_stiffness[i])
        damping = drive.GetDampingAttr().Get() * np.degrees(1.0)
        assert damping == pytest.approx(ServoConfig().arm_damping[i])
        assert drive.GetMaxForceAttr().Get() == panda.JOINT_TORQUE_LIMIT[i]
    for name in panda.FINGER_JOINTS:
        prim = stage.GetPrimAtPath(f"{ROOT}/{panda.HAND.name}/{name}")
        joint, drive = UsdPhysics.PrismaticJoint(prim), UsdPhysics.DriveAPI(prim, "linear")
        assert joint.GetUpperLimitAttr().Get() == pytest.approx(panda.FINGER_OPEN)
        assert drive.GetStiffnessAttr().Get() == pytest.approx(ServoConfig().finger_stiffness)


def test_every_link_can_be_touched_and_only_visuals_are_seen(stage):
    for link in LINKS:
        prims = stage.GetPrimAtPath(f"{ROOT}/{link.name}").GetChildren()
        colliders = [p for p in prims if p.HasAPI(UsdPhysics.CollisionAPI)]
        assert len(colliders) == (2 if link in FINGERS else 1)
        seen = [
            p.GetName()
            for p in prims
            if p.IsA(UsdGeom.Gprim) and UsdGeom.Imageable(p).ComputePurpose() == "default"
        ]
        assert seen == ["visuals"]
