"""The physics and rendering of `tests.fake_isaac.FakeIsaac`, simple ones of a real USD stage.

Joints follow their targets with a first-order lag; an object falls, rests on the static box below
it, or is rigidly attached to the robot by an enabled joint. The stage is read when physics starts
and written after each step, in a layer of its own that is removed when physics stops.

Matrices are `Gf`'s, for row vectors: a pose in its parent comes before the parent's.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from pxr import Gf, Sdf, Tf, Usd, UsdGeom, UsdPhysics, UsdShade

from pp_env import panda
from pp_env.panda import Link

_DOFS = (*panda.ARM_JOINTS, *panda.FINGER_JOINTS)
_FINGERS = (panda.LEFT_FINGER, panda.RIGHT_FINGER)
_LAG = 0.03  # s, time constant of a joint
_BESIDE = 0.01  # m, how far beside the object a finger still touches it
_TOUCHES = 0.005  # m, how deep in a box an object may be to rest on it
_BLOCK = 8  # pixels, in which the background has one colour
_WAVES = 8.0  # rad/m, of the floor's pattern
_MIN_HALF = 0.05  # of the image's width, so that the object can be seen in a small one
_RELATIONS = ("physics:body0", "physics:body1", "material:binding")
_TURNS = [
    f"xformOp:rotate{axes}" for axes in ("X", "Y", "Z", "XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX")
]


# What enabling a joint while playing does: it holds, physics does not notice, or Isaac loses its
# view of the robot.
Toggle = Literal["holds", "ignored", "breaks"]


class Shown(NamedTuple):
    """A prim that cameras see, and the attribute of its color, (3,) or of several."""

    prim: Usd.Prim
    color: Usd.Attribute | None


class View(NamedTuple):
    """The view of a camera at one instant.

    Attributes:
        size: Width and height, pixels.
        to_world: (4, 4) the camera's transform, for row vectors.
        focal: Focal length, pixels.
        squares: The squares to render: middle u, middle v, half a side in pixels, and colour.
    """

    size: tuple[int, int]
    to_world: np.ndarray
    focal: float
    squares: list[tuple[float, float, float, tuple[float, ...]]]


@dataclass
class Body:
    """A free rigid body; `half` is half its box."""

    prim: Usd.Prim
    matrix: Gf.Matrix4d
    half: np.ndarray
    linear: np.ndarray
    angular: np.ndarray
    resting: Gf.Matrix4d | None = None  # where it was found to rest

    def half_in(self, frame: Gf.Matrix4d) -> tuple[np.ndarray, np.ndarray]:
        """Return its middle and half its box in another frame."""
        local = np.array(self.matrix * frame.GetInverse())
        return local[3, :3], np.abs(local[:3, :3]).T @ self.half


class Physics:
    """The simulation of one stage.

    Args:
        stage: With at most one articulation, the Panda.
        toggle: What enabling a joint does.
    """

    def __init__(self, stage: Usd.Stage, toggle: Toggle) -> None:
        self._stage, self._toggle = stage, toggle
        self.playing, self.has_view = False, False
        self.epoch = 0  # number of the run of physics
        self.changes = 0  # of the stage, while physics runs
        self.visible: list[Shown] = []

    def start(self) -> None:
        """Read the stage, as a hard reset does."""
        self.gravity_on_robot, self.has_view = True, True
        self._read_bodies()
        self._read_robot()
        self._refresh()
        for joint in [joint for joints in self._joints.values() for joint, _ in joints]:
            _require_excluded(joint)
            if joint.GetJointEnabledAttr().Get():
                raise AssertionError(
                    f"{joint.GetPath()} is enabled at a hard reset: PhysX would pull the object to "
                    "where the hand starts"
                )
        self._layer = Sdf.Layer.CreateAnonymous("physics")
        self._stage.GetSessionLayer().subLayerPaths.insert(0, self._layer.identifier)
        self._outputs = {path: self._output(path) for path in [*self._links, *self.bodies]}
        self._written: dict[Sdf.Path, Gf.Matrix4d] = {}
        notice = Usd.Notice.ObjectsChanged
        self._listener = Tf.Notice.Register(notice, self._on_change, self._stage)
        self.epoch, self.playing = self.epoch + 1, True

    def stop(self) -> None:
        self._listener.Revoke()
        self._stage.GetSessionLayer().subLayerPaths.remove(self._layer.identifier)
        self.playing, self.visible = False, []

    def step(self, dt: float) -> None:
        if self._stale:
            self._refresh()
        self._follow(dt)
        self._place_links()
        for path, body in self.bodies.items():
            before, held = body.matrix.ExtractTranslation(), self._held_pose(path)
            if held is None:
                self._fall(body, dt)
            else:
                body.matrix = held
                body.linear = np.array(held.ExtractTranslation() - before) / dt
        with Usd.EditContext(self._stage, self._layer), Sdf.ChangeBlock():
            for path, (ops, to_parent) in self._outputs.items():
                if self._written.get(path) != (now := self.matrix_of(path)):
                    write_ops(*ops, now * to_parent)
                    self._written[path] = now

    def matrix_of(self, path: Sdf.Path) -> Gf.Matrix4d:
        """Return the pose of a free body, of the hand or of a finger."""
        if path not in self.bodies and path not in self._links:
            raise NotImplementedError(f"the fake moves {list(self._links)}, but not {path}")
        return self.bodies[path].matrix if path in self.bodies else self._links[path]

    def _read_bodies(self) -> None:
        prims, boxes = list(self._stage.Traverse()), _boxes()
        roots = [p for p in prims if p.HasAPI(UsdPhysics.ArticulationRootAPI)]
        self._root = roots[0].GetPath() if roots else Sdf.Path("/no_robot")
        self._base = world_matrix(roots[0]) if roots else Gf.Matrix4d(1)
        self.bodies: dict[Sdf.Path, Body] = {}
        self._supports: list[tuple[np.ndarray, np.ndarray]] = []
        for prim in [p for p in prims if not p.GetPath().HasPrefix(self._root)]:
            if prim.HasAPI(UsdPhysics.RigidBodyAPI):
                size = boxes.ComputeUntransformedBound(prim).ComputeAlignedRange().GetSize()
                self.bodies[prim.GetPath()] = Body(
                    prim, world_matrix(prim), np.array(size) / 2, np.zeros(3), np.zeros(3)
                )
            elif prim.HasAPI(UsdPhysics.CollisionAPI) and not self._is_in_body(prim):
                box = boxes.ComputeWorldBound(prim).ComputeAlignedRange()
                self._supports.append((np.array(box.GetMin()), np.array(box.GetMax())))
        self._gravity = np.zeros(3)
        for scene in [UsdPhysics.Scene(p) for p in prims if p.IsA(UsdPhysics.Scene)]:
            down = np.array(scene.GetGravityDirectionAttr().Get())
            self._gravity = down * scene.GetGravityMagnitudeAttr().Get()

    def _read_robot(self) -> None:
        robot = self._stage.GetPrimAtPath(self._root)
        found = {p.GetName(): p for p in Usd.PrimRange(robot)} if robot else {}
        names = [link.name for link in (panda.HAND, *_FINGERS) if link.name in found]
        self._links = {found[name].GetPath(): Gf.Matrix4d(1) for name in names}
        self.dof_names = [name for name in _DOFS if name in found]
        rows = np.array([_read_joint(found[name]) for name in self.dof_names]).reshape(-1, 7)
        self.lower, self.upper, self.q, self.targets, self.kp, self.kd, self.effort = rows.T.copy()
        self.qd = np.zeros_like(self.q)
        self._place_links()

    def _refresh(self) -> None:
        """Read again what may change while physics runs: joints and visible prims."""
        self._stale = False
        self._joints: dict[Sdf.Path, list[tuple[UsdPhysics.FixedJoint, Sdf.Path]]]
        prims = [p for p in self._stage.Traverse() if not p.GetPath().HasPrefix(self._root)]
        joints = [UsdPhysics.FixedJoint(p) for p in prims if p.IsA(UsdPhysics.FixedJoint)]
        self._joints = {path: [] for path in self.bodies}
        for joint, ends in [(joint, self._ends(joint)) for joint in joints]:
            if ends is not None:
                link, body = ends
                self._joints[body].append((joint, link))
        shown = [p for p in prims if p.IsA(UsdGeom.Gprim) and not self._is_in_body(p)]
        shown = [p for p in shown if not p.HasAPI(UsdPhysics.CollisionAPI)]
        prims = shown + [body.prim for body in self.bodies.values()]
        self.visible = [Shown(prim, _color(prim)) for prim in prims]

    def _ends(self, joint: UsdPhysics.FixedJoint) -> tuple[Sdf.Path, Sdf.Path] | None:
        """Return the robot's link and the free body that a joint connects, if it connects such."""
        ends = [*joint.GetBody0Rel().GetTargets(), *joint.GetBody1Rel().GetTargets()]
        links = [path for path in ends if path.HasPrefix(self._root)]
        bodies = [path for path in ends if path in self.bodies]
        return (links[0], bodies[0]) if links and bodies else None

    def _held_pose(self, body: Sdf.Path) -> Gf.Matrix4d | None:
        """Return the pose at which an enabled joint holds the body, where its two frames meet."""
        for joint, link in self._joints[body]:
            if not joint.GetJointEnabledAttr().Get():
                continue
            _require_excluded(joint)
            if self._toggle != "holds":
                self.has_view = self.has_view and self._toggle != "breaks"
                continue
            frames = [
                matrix(joint.GetLocalPos0Attr().Get(), joint.GetLocalRot0Attr().Get()),
                matrix(joint.GetLocalPos1Attr().Get(), joint.GetLocalRot1Attr().Get()),
            ]
            if joint.GetBody0Rel().GetTargets() != [link]:
                frames.reverse()
            return frames[1].GetInverse() * frames[0] * self.matrix_of(link)
        return None

    def _follow(self, dt: float) -> None:
        goal = np.clip(self.targets, self.lower, self.upper)
        if len(goal) == len(_DOFS):
            goal[7:] = np.maximum(goal[7:], self._finger_stops())
        moved = (goal - self.q) * (1.0 - math.exp(-dt / _LAG)) * (self.kp > 0)
        self.q, self.qd = self.q + moved, moved / dt

    def _finger_stops(self) -> np.ndarray:
        """Return the positions at which the left and the right finger stop closing, m."""
        for body in self.bodies.values():
            (x, y, z), half = body.half_in(self._hand)
            is_beside = abs(x) < half[0] + _BESIDE and abs(z - panda.TCP_OFFSET) < half[2] + _BESIDE
            if is_beside and abs(y) < panda.FINGER_OPEN:
                return np.clip([half[1] + y, half[1] - y], 0.0, panda.FINGER_OPEN)
        return np.zeros(2)

    def _fall(self, body: Body, dt: float) -> None:
        """Let the body fall freely, down to the highest static box below it."""
        if body.matrix == body.resting and not body.linear.any():
            return
        place, (_, _, half) = body.half_in(Gf.Matrix4d(1))
        tops = [
            high[2]
            for low, high in self._supports
            if (low[:2] <= place[:2]).all()
            and (place[:2] <= high[:2]).all()
            and high[2] <= place[2] - half + _TOUCHES
        ]
        body.linear = body.linear + self._gravity * dt
        place = place + body.linear * dt
        rests = bool(tops) and place[2] - half < max(tops)
        if rests:
            place[2], body.linear = max(tops) + half, np.zeros(3)
        body.matrix = Gf.Matrix4d(body.matrix).SetTranslateOnly(Gf.Vec3d(*place))
        body.resting = body.matrix if rests else None

    def _place_links(self) -> None:
        if len(self.q) < len(_DOFS):
            return
        flange = self._base
        for link, angle in zip(panda.ARM, self.q, strict=False):
            turn = Gf.Rotation(Gf.Vec3d.ZAxis(), math.degrees(angle))
            flange = Gf.Matrix4d().SetRotate(turn) * _pose_in_parent(link) * flange
        self._hand = _pose_in_parent(panda.HAND) * flange
        poses = {panda.HAND.name: self._hand}
        for link, opening in zip(_FINGERS, self.q[7:], strict=True):
            slide = Gf.Matrix4d().SetTranslate(Gf.Vec3d(0.0, float(opening), 0.0))
            poses[link.name] = slide * _pose_in_parent(link) * self._hand
        self._links = {path: poses[path.name] for path in self._links}

    def _output(self, path: Sdf.Path) -> tuple[tuple[Usd.Attribute, ...], Gf.Matrix4d]:
        """Return the attributes of a prim's pose, and the transform from world to parent."""
        prim = self._stage.GetPrimAtPath(path)
        with Usd.EditContext(self._stage, self._layer):
            return pose_ops(prim), world_matrix(prim.GetParent()).GetInverse()

    def _on_change(self, notice: Usd.Notice.ObjectsChanged, _: object) -> None:
        """Notice prims that appear or vanish; Isaac loses its view of the robot if any vanishes."""
        self.changes += 1
        changed = notice.GetResyncedPaths()
        for path in [path for path in changed if path.IsPrimPath()]:
            self._stale = True
            if not self._stage.GetPrimAtPath(path):
                self.has_view = False
        paths = [*changed, *notice.GetChangedInfoOnlyPaths()]
        self._stale = self._stale or any(path.name in _RELATIONS for path in paths)

    def _is_in_body(self, prim: Usd.Prim) -> bool:
        return any(prefix in self.bodies for prefix in prim.GetPath().GetPrefixes())


def _require_excluded(joint: UsdPhysics.FixedJoint) -> None:
    if not joint.GetExcludeFromArticulationAttr().Get():
        raise AssertionError(
            f"{joint.GetPath()} is not excluded from the articulation: PhysX would make the object "
            "a part of the robot and create the robot anew"
        )


def look(camera: Usd.Prim, size: tuple[int, int], visible: list[Shown]) -> View:
    """Return the camera's current view of the prims."""
    to_world = UsdGeom.XformCache().GetLocalToWorldTransform(camera)
    to_camera, boxes, squares = to_world.GetInverse(), _boxes(), []
    names = ("focalLength", "horizontalAperture", "clippingRange")
    focal, aperture, (near, far) = (camera.GetAttribute(name).Get() for name in names)
    focal = focal / aperture * size[0]
    for prim, color in visible:
        box = boxes.ComputeWorldBound(prim).ComputeAlignedRange()
        x, y, z = to_camera.Transform(box.GetMidpoint())
        if near < -z < far:
            u, v = size[0] / 2 - focal * x / z, size[1] / 2 + focal * y / z
            half = max(max(box.GetSize()) / 2 * focal / -z, _MIN_HALF * size[0])
            squares.append((u, v, half, _rgb(color)))
    return View(size, np.array(to_world), focal, squares)


def render(view: View) -> np.ndarray:
    """Render a view, (H, W, 4) uint8."""
    width, height = view.size
    shade = _floor(view).repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[:height, :width]
    image = np.full((height, width, 4), 255, np.uint8)
    image[..., :3] = shade[..., None]
    for u, v, half, rgb in view.squares:
        left, right = np.clip([u - half, u + half], 0, width).astype(int)
        top, bottom = np.clip([v - half, v + half], 0, height).astype(int)
        image[top:bottom, left:right, :3] = np.array(rgb) * 255
    return image


def _floor(view: View) -> np.ndarray:
    """Return the brightness of a patterned floor at z = 0, which shows that a camera moves."""
    u, v = (np.arange(0, length, _BLOCK) + (_BLOCK - length) / 2 for length in view.size)
    rays = np.stack(np.broadcast_arrays(u / view.focal, -v[:, None] / view.focal, -1.0), axis=-1)
    rays, eye = rays @ view.to_world[:3, :3], view.to_world[3, :3]
    reach = eye[2] / np.maximum(-rays[..., 2], 1e-3)
    x, y = (eye[i] + rays[..., i] * reach for i in range(2))
    return 125.0 + 65.0 * np.sin(_WAVES * x) * np.cos(_WAVES * y)


def _color(prim: Usd.Prim) -> Usd.Attribute | None:
    """Return the attribute that holds the color of a prim or of the first part that has one."""
    for part in [p for p in Usd.PrimRange(prim) if p.IsA(UsdGeom.Gprim)]:
        material = UsdShade.MaterialBindingAPI(part).ComputeBoundMaterial()[0]
        if material:
            return material.ComputeSurfaceSource()[0].GetInput("diffuseColor").GetAttr()
        colors = UsdGeom.Gprim(part).GetDisplayColorAttr()
        if colors.Get():
            return colors
    return None


def _rgb(color: Usd.Attribute | None) -> tuple[float, ...]:
    value = None if color is None else color.Get()
    if not value:
        return (0.5, 0.5, 0.5)
    return tuple(value if isinstance(value, Gf.Vec3f) else value[0])


def matrix(position: Any, quat_wxyz: Any) -> Gf.Matrix4d:
    """Return a pose from its position (3,) and its quaternion, (4,) wxyz or Gf's."""
    if not isinstance(quat_wxyz, Gf.Quatf):
        quat_wxyz = Gf.Quatd(*map(float, quat_wxyz))
    turn = Gf.Matrix4d().SetRotate(Gf.Quatd(quat_wxyz).GetNormalized())
    return turn.SetTranslateOnly(Gf.Vec3d(*map(float, position)))


def pose(matrix: Gf.Matrix4d) -> tuple[np.ndarray, np.ndarray]:
    """Return position (3,) and quaternion wxyz (4,), in single precision as Isaac does."""
    quat = matrix.ExtractRotationQuat().GetNormalized()
    turn = np.array([quat.GetReal(), *quat.GetImaginary()], np.float32)
    return np.array(matrix.ExtractTranslation(), np.float32), turn


def world_matrix(prim: Usd.Prim) -> Gf.Matrix4d:
    """Return a prim's pose on the stage."""
    return UsdGeom.XformCache().GetLocalToWorldTransform(prim).RemoveScaleShear()


def local_matrix(prim: Usd.Prim) -> Gf.Matrix4d:
    """Return a prim's pose in its parent, on the stage."""
    return UsdGeom.Xformable(prim).GetLocalTransformation().RemoveScaleShear()


def write_world(prim: Usd.Prim, world: Gf.Matrix4d) -> None:
    """Set a prim's pose on the stage."""
    write_ops(*pose_ops(prim), world * world_matrix(prim.GetParent()).GetInverse())


def pose_ops(prim: Usd.Prim) -> tuple[Usd.Attribute, Usd.Attribute]:
    """Give the prim the operations translate, orient and, if it has one, scale."""
    types = (("translate", Sdf.ValueTypeNames.Double3), ("orient", Sdf.ValueTypeNames.Quatd))
    names = [(f"xformOp:{kind}", value_type) for kind, value_type in types]
    found = [prim.GetAttribute(name) or prim.CreateAttribute(name, kind) for name, kind in names]
    scale = prim.GetAttribute("xformOp:scale")
    ops = [UsdGeom.XformOp(attribute) for attribute in (*found, scale) if attribute]
    UsdGeom.Xformable(prim).SetXformOpOrder(ops)
    return found[0], found[1]


def write_ops(translate: Usd.Attribute, orient: Usd.Attribute, local: Gf.Matrix4d) -> None:
    quat = local.ExtractRotationQuat().GetNormalized()
    translate.Set(local.ExtractTranslation())
    orient.Set(Gf.Quatf(quat) if orient.GetTypeName() == "quatf" else quat)


def replace_ops(prim: Usd.Prim) -> None:
    """Rewrite the pose with the operations translate, orient and scale only."""
    local = local_matrix(prim)
    for name in [name for name in (*_TURNS, "xformOp:transform") if prim.HasProperty(name)]:
        prim.RemoveProperty(name)
    if not prim.HasProperty("xformOp:scale"):
        scale = prim.CreateAttribute("xformOp:scale", Sdf.ValueTypeNames.Double3)
        scale.Set(Gf.Vec3d(1.0))
    write_ops(*pose_ops(prim), local)


def _read_joint(prim: Usd.Prim) -> tuple[float, ...]:
    """Read limits, position, target, stiffness, damping and effort in rad or m; USD has degrees."""
    turns = prim.IsA(UsdPhysics.RevoluteJoint)
    unit, axis = (math.pi / 180, "angular") if turns else (1.0, "linear")
    drive = UsdPhysics.DriveAPI(prim, axis)

    def read(name: str, factor: float) -> float:
        return (prim.GetAttribute(name).Get() or 0.0) * factor

    return (
        read("physics:lowerLimit", unit), read("physics:upperLimit", unit),
        read(f"state:{axis}:physics:position", unit),
        read(drive.GetTargetPositionAttr().GetName(), unit),
        read(drive.GetStiffnessAttr().GetName(), 1 / unit),
        read(drive.GetDampingAttr().GetName(), 1 / unit),
        read(drive.GetMaxForceAttr().GetName(), 1.0),
    )  # fmt: skip


@functools.cache
def _pose_in_parent(link: Link) -> Gf.Matrix4d:
    return matrix(link.position, link.quat_wxyz)


def _boxes() -> UsdGeom.BBoxCache:
    return UsdGeom.BBoxCache(Usd.TimeCode.Default(), ["default", "render", "proxy", "guide"])
