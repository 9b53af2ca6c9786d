"""Write a Panda in USD, in place of Isaac Sim's own file, which cannot be shipped.

Prims and joints have the names and the places of Isaac's `franka.usd`: the links lie beside each
other below the root, at zero joint angles, and each joint lies below its parent link. Numbers come
from `pp_env.panda`, servo gains from `pp_env.config`. Collider shapes have purpose "guide", so they
are not rendered.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics, Vt

from pp_env import panda, rotation
from pp_env.config import ServoConfig, Vec3
from pp_env.panda import Link
from pp_env.sim import meshes

ROOT = "/panda"
FINGERS = (panda.LEFT_FINGER, panda.RIGHT_FINGER)
LINKS = (panda.BASE, *panda.ARM, panda.HAND, *FINGERS)

_GREY = (0.8, 0.8, 0.8)


def write_panda(path: Path, visual_detail: float = 0.0) -> None:
    """Write the Panda as a USD file whose default prim is `panda`.

    Args:
        path: A file that does not exist yet, .usda or .usdc.
        visual_detail: Share of the visual meshes' triangles to keep; 0 omits the meshes.
    """
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, ROOT).GetPrim()
    stage.SetDefaultPrim(root)
    UsdPhysics.ArticulationRootAPI.Apply(root)
    root.AddAppliedSchema("PhysxArticulationAPI")  # usd-core does not know PhysX's schemas
    self_collisions = "physxArticulation:enabledSelfCollisions"
    root.CreateAttribute(self_collisions, Sdf.ValueTypeNames.Bool).Set(False)
    iterations = "physxArticulation:solverPositionIterationCount"
    root.CreateAttribute(iterations, Sdf.ValueTypeNames.Int).Set(32)  # as in Isaac's file

    world = {panda.BASE.name: _pose(panda.BASE)}
    for parent, link in _tree():
        world[link.name] = _pose(link) * world[parent.name]
    for link in LINKS:
        _add_link(stage, link, world[link.name], visual_detail)
    _add_joints(stage)
    stage.GetRootLayer().Save()


def problems(path: Path) -> list[str]:
    """Return the findings of USD's own validators for a file and all that it refers to.

    They work from `usd-core` 26.3 on.
    """
    from pxr import UsdValidation

    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    found = UsdValidation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))
    return [f"{error.GetName()}: {error.GetMessage()}" for error in found]


def _tree() -> Iterator[tuple[Link, Link]]:
    """Yield parent and child of every joint between two links, the arm's seven first."""
    chain = (panda.BASE, *panda.ARM, panda.HAND)
    yield from zip(chain, chain[1:], strict=False)
    for finger in FINGERS:
        yield panda.HAND, finger


def _pose(link: Link) -> Gf.Matrix4d:
    """Return the link's pose in its parent at zero joint angle, for row vectors as all of Gf."""
    return Gf.Matrix4d(Gf.Rotation(Gf.Quatd(*link.quat_wxyz)), Gf.Vec3d(*link.position))


def _add_link(stage: Usd.Stage, link: Link, world: Gf.Matrix4d, visual_detail: float) -> None:
    xform = UsdGeom.Xform.Define(stage, f"{ROOT}/{link.name}")
    xform.AddTranslateOp().Set(world.ExtractTranslation())
    orient = xform.AddOrientOp(UsdGeom.XformOp.PrecisionDouble)
    orient.Set(world.ExtractRotationQuat())
    UsdPhysics.RigidBodyAPI.Apply(xform.GetPrim())
    _add_mass(xform.GetPrim(), link)
    if link in FINGERS:
        part = "finger"
        for i, (half_size, center) in enumerate(panda.FINGER_BOXES):
            _add_box_collider(stage, f"{ROOT}/{link.name}/collisions_{i}", half_size, center)
    else:
        part = link.name.removeprefix("panda_")
        mesh = _add_mesh(stage, f"{ROOT}/{link.name}/collisions", *meshes.load("collision", part))
        mesh.CreatePurposeAttr(UsdGeom.Tokens.guide)
        UsdPhysics.CollisionAPI.Apply(mesh.GetPrim())
        hull = UsdPhysics.MeshCollisionAPI.Apply(mesh.GetPrim())
        hull.CreateApproximationAttr(UsdPhysics.Tokens.convexHull)
    if visual_detail:
        vertices, faces = meshes.simplified("visual", part, visual_detail)
        visual = _add_mesh(stage, f"{ROOT}/{link.name}/visuals", vertices, faces)
        visual.CreateDisplayColorAttr([Gf.Vec3f(*_GREY)])


def _add_mass(prim: Usd.Prim, link: Link) -> None:
    """Add the mass; USD stores an inertia as its principal moments and axes."""
    xx, yy, zz, xy, xz, yz = link.inertia
    moments, axes = np.linalg.eigh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    axes[:, 2] *= np.linalg.det(axes)  # a rotation, not a reflection
    mass = UsdPhysics.MassAPI.Apply(prim)
    mass.CreateMassAttr(link.mass)
    mass.CreateCenterOfMassAttr(Gf.Vec3f(*link.center_of_mass))
    mass.CreateDiagonalInertiaAttr(Gf.Vec3f(*moments.tolist()))
    mass.CreatePrincipalAxesAttr(Gf.Quatf(*rotation.from_matrix(axes).tolist()))


def _add_joints(stage: Usd.Stage) -> None:
    servo, degree = ServoConfig(), math.pi / 180
    base = UsdPhysics.FixedJoint.Define(stage, f"{ROOT}/root_joint")
    base.CreateBody1Rel().SetTargets([f"{ROOT}/{panda.BASE.name}"])
    _place(base, panda.BASE)
    names = (*panda.ARM_JOINTS, "panda_hand_joint", *panda.FINGER_JOINTS)
    for i, (name, (parent, link)) in enumerate(zip(names, _tree(), strict=True)):
        path = f"{ROOT}/{parent.name}/{name}"
        if name in panda.ARM_JOINTS:
            joint = UsdPhysics.RevoluteJoint.Define(stage, path)
            joint.CreateAxisAttr(UsdGeom.Tokens.z)
            joint.CreateLowerLimitAttr(math.degrees(panda.JOINT_LOWER[i]))
            joint.CreateUpperLimitAttr(math.degrees(panda.JOINT_UPPER[i]))
            gains = (servo.arm_stiffness[i] * degree, servo.arm_damping[i] * degree)
            _add_drive(joint, "angular", gains, panda.JOINT_TORQUE_LIMIT[i])
        elif name in panda.FINGER_JOINTS:
            joint = UsdPhysics.PrismaticJoint.Define(stage, path)
            joint.CreateAxisAttr(UsdGeom.Tokens.y)
            joint.CreateLowerLimitAttr(panda.FINGER_CLOSED)
            joint.CreateUpperLimitAttr(panda.FINGER_OPEN)
            gains = (servo.finger_stiffness, servo.finger_damping)
            _add_drive(joint, "linear", gains, servo.finger_force)
        else:
            joint = UsdPhysics.FixedJoint.Define(stage, path)
        joint.CreateBody0Rel().SetTargets([f"{ROOT}/{parent.name}"])
        joint.CreateBody1Rel().SetTargets([f"{ROOT}/{link.name}"])
        _place(joint, link)


def _place(joint: UsdPhysics.Joint, link: Link) -> None:
    joint.CreateLocalPos0Attr(Gf.Vec3f(*link.position))
    joint.CreateLocalRot0Attr(Gf.Quatf(*link.quat_wxyz))
    joint.CreateLocalPos1Attr(Gf.Vec3f(0.0))
    joint.CreateLocalRot1Attr(Gf.Quatf(1.0))


def _add_drive(
    joint: UsdPhysics.Joint, kind: str, gains: tuple[float, float], force: float
) -> None:
    """Add a position servo with gains (stiffness, damping), per degree if it is angular."""
    drive = UsdPhysics.DriveAPI.Apply(joint.GetPrim(), kind)
    drive.CreateTypeAttr(UsdPhysics.Tokens.force)
    drive.CreateStiffnessAttr(gains[0])
    drive.CreateDampingAttr(gains[1])
    drive.CreateMaxForceAttr(float(force))


def _add_mesh(stage: Usd.Stage, path: str, vertices: np.ndarray, faces: np.ndarray) -> UsdGeom.Mesh:
    mesh = UsdGeom.Mesh.Define(stage, path)
    points = Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(vertices, np.float32))
    mesh.CreatePointsAttr(points)
    mesh.CreateExtentAttr(UsdGeom.PointBased.ComputeExtent(points))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray(len(faces), 3))
    indices = np.ascontiguousarray(faces, np.int32).ravel()
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(indices))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    return mesh


def _add_box_collider(stage: Usd.Stage, path: str, half_size: Vec3, center: Vec3) -> None:
    box = UsdGeom.Cube.Define(stage, path)
    box.CreateSizeAttr(2.0)
    box.AddTranslateOp().Set(Gf.Vec3d(*center))
    box.AddScaleOp().Set(Gf.Vec3f(*half_size))
    box.CreatePurposeAttr(UsdGeom.Tokens.guide)
    UsdPhysics.CollisionAPI.Apply(box.GetPrim())
