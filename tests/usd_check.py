"""Check the USD scene without Isaac Sim: load, simulate and render it with Newton.

Usage: python -m tests.usd_check OUTPUT_DIR      (make check-usd)

OUTPUT_DIR gets the scene with a substitute for Isaac's Panda, an image from each camera and
results.json. Exits with 1 if a check fails. Newton's physics here is MuJoCo's: this says nothing
about PhysX on the same stage.
"""

import json
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import newton
import numpy as np
import warp as wp
from newton.sensors import SensorCamera
from newton.solvers import SolverMuJoCo
from newton.usd import SchemaResolverNewton, SchemaResolverPhysx
from PIL import Image
from pxr import Gf, Usd, UsdGeom

from pp_env import inverse_kinematics, kinematics, panda, rotation
from pp_env.config import HOME_JOINT_POS, CameraConfig, PickPlaceConfig, ServoConfig
from pp_env.sim.api import Pose
from pp_env.sim.isaac import usd_stage
from pp_env.sim.surfaces import table_top
from tests.pp_env.sim.isaac.usd_panda import FINGERS, LINKS, problems, write_panda

HOME = np.array(HOME_JOINT_POS)
LIFT = 0.1  # m
# Where the object is held, in the hand: at the TCP and turned, so that no frame is an identity.
GRIP = Pose(np.array([0.0, 0.0, panda.TCP_OFFSET]), rotation.about_z(0.3))
DEFAULT_FRICTION = 0.123  # unlike any of the scene's: shows whether a friction was read


@dataclass
class Report:
    """The results of named checks."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def equal(self, name: str, found: Any, expected: Any) -> None:
        """Check that both are equal; two lists in any order."""
        if isinstance(expected, list):
            found, expected = sorted(found), sorted(expected)
            note = f"{len(found)} as meant"
            odd = sorted(set(found) ^ set(expected)) or found
        else:
            note = odd = f"{found}"
        self._add(name, found == expected, note if found == expected else f"odd: {odd}")

    def close(self, name: str, found: Any, expected: Any, tolerance: float, unit: str) -> None:
        """Check that every number is within the tolerance of the expected one."""
        worst = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
        note = f"off by {worst:.2g} {unit}, allowed {tolerance:g}".replace(" ,", ",")
        self._add(name, worst <= tolerance, note)

    def above(self, name: str, found: float, least: float) -> None:
        """Check that the number is at least `least`."""
        self._add(name, found >= least, f"{found:.3g}, at least {least:g}")

    def _add(self, name: str, passed: bool, note: str) -> None:
        self.rows.append({"check": name, "passed": bool(passed), "note": note})
        print(f"{'ok  ' if passed else 'FAIL'}  {name:<46}  {note}", flush=True)


class World:
    """A simulation of a stage by Newton."""

    def __init__(self, stage: Usd.Stage, config: PickPlaceConfig) -> None:
        builder = newton.ModelBuilder()
        builder.default_shape_cfg.mu = DEFAULT_FRICTION
        SolverMuJoCo.register_custom_attributes(builder)
        with warnings.catch_warnings(record=True) as self.warnings:
            warnings.simplefilter("always")
            found = builder.add_usd(
                stage,
                schema_resolvers=[SchemaResolverNewton(), SchemaResolverPhysx()],
                # In the order of the joints, Newton 1.8.0 drops a body that only a joint excluded
                # from the articulation ties to the robot, as the grasp joint does.
                bodies_follow_joint_ordering=False,
            )
        self.stage, self.period = stage, 1.0 / config.timing.physics_hz
        self.bodies: dict[str, int] = found["path_body_map"]
        self.joints: dict[str, int] = found["path_joint_map"]
        self.shapes: dict[str, int] = found["path_shape_map"]
        self.model = builder.finalize(device="cpu")
        # Of an enabled grasp joint MuJoCo gets a weld that keeps the poses of this moment: Newton
        # 1.8.0 gives it the bodies, not the frames. The frames are compared in `check_held`.
        self.solver = SolverMuJoCo(self.model, use_mujoco_cpu=True)
        self.state, self._next = self.model.state(), self.model.state()
        self.control = self.model.control()
        names = {path.rsplit("/", 1)[-1]: index for path, index in self.joints.items()}
        moving = [names[name] for name in (*panda.ARM_JOINTS, *panda.FINGER_JOINTS)]
        self.dofs = self.model.joint_qd_start.numpy()[moving]  # of the nine joints
        self._coordinates = self.model.joint_q_start.numpy()[moving]
        loose = self.model.joint_type.numpy() == int(newton.JointType.FREE)
        self._object = int(self.model.joint_q_start.numpy()[np.flatnonzero(loose)[0]])

    def start(self, arm: np.ndarray, finger: float, obj: Pose | None = None) -> None:
        """Set everything at rest, the object at `obj` or else where the stage has it."""
        joint_q = self.model.joint_q.numpy()
        joint_q[self._coordinates] = [*arm, finger, finger]
        if obj is not None:
            joint_q[self._object : self._object + 7] = [*obj.position, *_xyzw(obj.quat_wxyz)]
        self.state.joint_q.assign(joint_q)
        self.state.joint_qd.zero_()
        newton.eval_fk(self.model, self.state.joint_q, self.state.joint_qd, self.state)

    def simulate(self, seconds: float, arm: np.ndarray, finger: float) -> None:
        """Simulate so many seconds with these joint targets."""
        targets = self.control.joint_target_q.numpy()
        targets[self._coordinates] = [*arm, finger, finger]
        self.control.joint_target_q.assign(targets)
        for _ in range(round(seconds / self.period)):
            self.state.clear_forces()
            self.solver.step(self.state, self._next, self.control, None, self.period)
            self.state, self._next = self._next, self.state

    def joint_pos(self) -> np.ndarray:
        """Return the positions of the nine joints, (9,) rad and m."""
        return self.state.joint_q.numpy()[self._coordinates]

    def pose(self, path: str) -> Pose:
        """Return the frame of a body, world."""
        return _pose(self.state.body_q.numpy()[self.bodies[path]])

    def speed(self, path: str) -> float:
        """Return the speed of a body's centre, m/s."""
        return float(np.linalg.norm(self.state.body_qd.numpy()[self.bodies[path], :3]))

    def held(self) -> Pose:
        """Return the frame of the object in the hand."""
        hand, obj = self.pose(usd_stage.HAND), self.pose(usd_stage.OBJECT)
        offset = rotation.unrotate(hand.quat_wxyz, obj.position - hand.position)
        return Pose(offset, rotation.multiply(rotation.inverse(hand.quat_wxyz), obj.quat_wxyz))


def hand_pose(arm: np.ndarray) -> Pose:
    """Return the frame of `panda_hand` by forward kinematics."""
    position, orientation = kinematics.forward(arm)
    return Pose(position, rotation.from_matrix(orientation))


def raised() -> np.ndarray:
    """Return joint positions with the hand `LIFT` above its place at HOME, (7,) rad."""
    position, orientation = kinematics.forward(HOME)
    arms = inverse_kinematics.inverse(position + np.array([0.0, 0.0, LIFT]), orientation, HOME[6])
    return arms[np.nanargmin(np.abs(arms - HOME).max(-1))]


def gripped(arm: np.ndarray) -> Pose:
    """Return the frame of the object that the hand holds at `GRIP`."""
    hand = hand_pose(arm)
    position = hand.position + rotation.rotate(hand.quat_wxyz, GRIP.position)
    return Pose(position, rotation.multiply(hand.quat_wxyz, GRIP.quat_wxyz))


def write_scene(path: Path, config: PickPlaceConfig) -> Usd.Stage:
    """Write the scene as a file, with the substitute for the robot's file beside it."""
    stage = Usd.Stage.CreateNew(str(path))
    usd_stage.build(stage, config, "./panda.usdc")
    stage.GetRootLayer().Save()
    return stage


def write_held_scene(path: Path, config: PickPlaceConfig) -> Usd.Stage:
    """Write the scene with the object in the hand and the grasp joint enabled.

    A file has the arm at zero joint angles, so the hand holds the object there.
    """
    stage, arm = write_scene(path, config), np.zeros(7)
    obj = gripped(arm)
    turn = Gf.Rotation(Gf.Quatd(*map(float, obj.quat_wxyz)))
    xform = UsdGeom.Xformable(stage.GetPrimAtPath(usd_stage.OBJECT))
    xform.MakeMatrixXform().Set(Gf.Matrix4d(turn, Gf.Vec3d(*map(float, obj.position))))
    usd_stage.attach(stage, hand_pose(arm), obj)
    stage.GetRootLayer().Save()
    return stage


def check_bodies(report: Report, world: World, config: PickPlaceConfig) -> None:
    """Check the twelve bodies and their masses."""
    paths = [f"{usd_stage.ROBOT}/{link.name}" for link in LINKS]
    report.equal("bodies", list(world.bodies), [*paths, usd_stage.OBJECT])
    order, model = [world.bodies[path] for path in paths], world.model
    masses = model.body_mass.numpy()
    report.close("masses of the links", masses[order], [li.mass for li in LINKS], 1e-5, "kg")
    centers = model.body_com.numpy()[order]
    report.close("their centres", centers, [li.center_of_mass for li in LINKS], 1e-6, "m")
    inertias, turned = model.body_inertia.numpy(), [_inertia(link.inertia) for link in LINKS]
    report.close("their inertias", inertias[order], turned, 1e-6, "kg m^2")
    obj, body = config.object, world.bodies[usd_stage.OBJECT]
    report.close("mass of the object", masses[body], obj.mass, 1e-6, "kg")
    squares = np.square(obj.size)
    solid = np.diag(obj.mass / 12 * (squares.sum() - squares))
    report.close("its inertia", inertias[body], solid, 1e-9, "kg m^2")


def check_joints(report: Report, world: World) -> None:
    """Check the joints with limits and servos in Newton's units: radians, metres, newtons."""
    model, servo = world.model, ServoConfig()
    chain = [panda.BASE.name, *(link.name for link in panda.ARM)]
    names = ["root_joint", f"{chain[-1]}/panda_hand_joint"]
    names += [f"{parent}/{j}" for parent, j in zip(chain, panda.ARM_JOINTS, strict=False)]
    names += [f"{panda.HAND.name}/{j}" for j in panda.FINGER_JOINTS]
    meant = [f"{usd_stage.ROBOT}/{name}" for name in names]
    report.equal("joints, the disabled one not among them", list(world.joints), meant)
    for name, found, arm, finger, tolerance in (
        ("lower limits", model.joint_limit_lower, panda.JOINT_LOWER, panda.FINGER_CLOSED, 1e-5),
        ("upper limits", model.joint_limit_upper, panda.JOINT_UPPER, panda.FINGER_OPEN, 1e-5),
        ("stiffness", model.joint_target_ke, servo.arm_stiffness, servo.finger_stiffness, 1e-2),
        ("damping", model.joint_target_kd, servo.arm_damping, servo.finger_damping, 1e-3),
        ("force", model.joint_effort_limit, panda.JOINT_TORQUE_LIMIT, servo.finger_force, 1e-4),
    ):
        found, nine = found.numpy()[world.dofs], [*arm, finger, finger]
        report.close(f"joints' {name}", found, nine, tolerance, "SI")
    rng = np.random.default_rng(0)
    worst = 0.0
    for arm in rng.uniform(panda.JOINT_LOWER, panda.JOINT_UPPER, (20, 7)):
        world.start(arm, panda.FINGER_OPEN)
        found, meant = world.pose(usd_stage.HAND), hand_pose(arm)
        worst = max(worst, float(np.abs(found.position - meant.position).max()))
    report.close("hand by forward kinematics, 20 postures", worst, 0.0, 1e-5, "m")


def check_colliders(report: Report, world: World, config: PickPlaceConfig) -> None:
    """Check the colliders: position, size and friction."""
    model, obj = world.model, config.object
    collides = model.shape_flags.numpy() & int(newton.ShapeFlags.COLLIDE_SHAPES) != 0
    place, half = model.shape_transform.numpy()[:, :3], model.shape_scale.numpy()
    table = world.shapes[usd_stage.TABLE]
    report.close("table's place", place[table], config.table.center, 1e-6, "m")
    report.close("table's size", 2 * half[table], config.table.size, 1e-6, "m")
    ground = world.shapes[usd_stage.GROUND]
    report.close("ground's surface", place[ground, 2] + half[ground, 2], 0.0, 1e-6, "m")
    (shape,) = [i for i in model.body_shapes[world.bodies[usd_stage.OBJECT]] if collides[i]]
    report.close("object's place in its body", place[shape], 0.0, 1e-6, "m")
    report.close("object's size", 2 * half[shape], obj.size, 1e-6, "m")
    friction = model.shape_material_mu.numpy()
    report.close("object's friction", friction[shape], obj.dynamic_friction, 1e-6, "")
    marker = [i for path, i in world.shapes.items() if path.startswith(f"{usd_stage.MARKER}/")]
    report.equal("marker's discs that collide", int(collides[marker].sum()), 0)
    kinds = model.shape_type.numpy()
    found = {link.name: sorted(kinds[_colliders(world, link.name)].tolist()) for link in LINKS}
    hull, box = int(newton.GeoType.CONVEX_MESH), int(newton.GeoType.BOX)
    meant = {link.name: [box, box] if link in FINGERS else [hull] for link in LINKS}
    wrong = [name for name in found if found[name] != meant[name]]
    report.equal("links without their hull or boxes", wrong, [])
    report.equal("shapes that collide", int(collides.sum()), 3 + sum(map(len, meant.values())))


def check_rest(report: Report, world: World, config: PickPlaceConfig) -> None:
    """Check that the arm holds HOME against gravity and the object, not attached, rests."""
    gravity = world.model.gravity.numpy().reshape(-1, 3)
    report.close("gravity", gravity, [[0.0, 0.0, -9.81]], 1e-5, "m/s^2")
    world.start(HOME, panda.FINGER_OPEN)
    world.simulate(2.0, HOME, panda.FINGER_OPEN)
    report.close("arm after 2 s at HOME", world.joint_pos()[:7], HOME, 0.02, "rad")
    report.close("fingers", world.joint_pos()[7:], panda.FINGER_OPEN, 1e-4, "m")
    resting = world.pose(usd_stage.OBJECT).position
    report.close("object's height", resting[2], config.rest_z_of(config.object), 1e-3, "m")
    report.close("object's speed", world.speed(usd_stage.OBJECT), 0.0, 1e-3, "m/s")
    before = world.pose(usd_stage.HAND).position[2]
    world.simulate(1.0, raised(), panda.FINGER_OPEN)
    report.close("hand's way up", world.pose(usd_stage.HAND).position[2] - before, LIFT, 0.01, "m")
    after = world.pose(usd_stage.OBJECT).position
    report.close("object meanwhile", after, resting, 1e-4, "m")


def check_held(report: Report, world: World, config: PickPlaceConfig) -> None:
    """Check that the enabled joint holds the object at its pose in the hand."""
    joint, model = world.joints[usd_stage.GRASP_JOINT], world.model
    ends = (int(model.joint_parent.numpy()[joint]), int(model.joint_child.numpy()[joint]))
    bodies = (world.bodies[usd_stage.HAND], world.bodies[usd_stage.OBJECT])
    report.equal("grasp joint's two bodies", ends, bodies)
    report.equal("and in no articulation", int(model.joint_articulation.numpy()[joint]), -1)
    frame = _pose(model.joint_X_p.numpy()[joint])
    report.close("its place in the hand", frame.position, GRIP.position, 1e-6, "m")
    turn = _angle(frame.quat_wxyz, GRIP.quat_wxyz)
    report.close("its turn in the hand", turn, 0.0, 1e-3, "rad")
    other = model.joint_X_c.numpy()[joint]
    report.close("its frame in the object", other, [0, 0, 0, 0, 0, 0, 1], 1e-6, "")
    shapes = [s for link in (panda.HAND, *FINGERS) for s in _colliders(world, link.name)]
    (own,) = model.body_shapes[world.bodies[usd_stage.OBJECT]]
    filtered = {tuple(sorted(map(int, pair))) for pair in model.shape_collision_filter_pairs}
    felt = [s for s in shapes if (min(own, s), max(own, s)) not in filtered]
    report.equal("hand's colliders that the object feels", felt, [])
    finger = config.object.size[1] / 2
    world.start(HOME, finger, gripped(HOME))
    before = world.pose(usd_stage.OBJECT).position[2]
    world.simulate(1.0, raised(), finger)
    way = world.pose(usd_stage.OBJECT).position[2] - before
    report.close("object's way up with the hand", way, LIFT, 0.01, "m")
    held = world.held()
    report.close("object in the hand after 1 s", held.position, GRIP.position, 1e-3, "m")
    turn = _angle(held.quat_wxyz, GRIP.quat_wxyz)
    report.close("its turn", turn, 0.0, 0.01, "rad")


def check_camera(
    report: Report, world: World, config: PickPlaceConfig, camera: CameraConfig, path: Path
) -> None:
    """Render with the stage's camera and check that the table is at its configured place."""
    color, depth, shape = render(world, camera, config.render.size[0])
    Image.fromarray(color).save(path)
    parent = Pose(np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0]))
    if camera.parent != "world":
        parent = hand_pose(world.joint_pos()[:7])
    paths = {usd_stage.TABLE, *map(usd_stage.surface_path, table_top(config.table))}
    rows, columns = np.nonzero(np.isin(shape, [world.shapes[p] for p in paths & set(world.shapes)]))
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], axis=-1)
    rays = np.linalg.solve(camera.intrinsics(config.render.size), pixels.T).T
    rays *= [1.0, -1.0, -1.0]  # from right, down, forward to right, up, backward
    local = rays * depth[rows, columns, None] @ camera.rotation().T + camera.position
    points = rotation.rotate(parent.quat_wxyz, local) + parent.position
    name, table = camera.name, config.table
    report.above(f"{name}: share that shows the table", len(rows) / shape.size, 0.1)
    # The rim is seen from the side, so the median: all of the rest lies on the top.
    report.close(f"{name}: table's height", np.median(points[:, 2]), table.top_z, 1e-3, "m")
    corners = np.array(table.center[:2]) + np.outer([-0.5, 0.5], table.size[:2])
    found = np.stack([points.min(0), points.max(0)])[:, :2]
    if camera.parent != "world":  # it sees no more than the near edge
        corners, found = corners[0, 0], found[0, 0]
    report.close(f"{name}: table's edges", found, corners, 5e-3, "m")


def render(
    world: World, camera: CameraConfig, resolution: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render colours (h, w, 3), depths along the view (h, w), m, and shape indices (h, w)."""
    prim = world.stage.GetPrimAtPath(usd_stage.camera_path(camera))
    matrix = UsdGeom.XformCache().GetLocalTransformation(prim)[0]
    turn = matrix.ExtractRotationQuat()
    pose = wp.transformf(
        wp.vec3f(*matrix.ExtractTranslation()), wp.quatf(*turn.GetImaginary(), turn.GetReal())
    )
    body = world.bodies.get(str(prim.GetParent().GetPath()))
    if body is not None:  # on the robot: the stage has it at zero joint angles
        pose = wp.transformf(*world.state.body_q.numpy()[body].tolist()) * pose
    sensor = SensorCamera(world.model)
    sensor.create_default_light(enable_shadows=True)
    sensor.default_render_config.enable_shadows = True
    size = (1, resolution, resolution)
    color, shape = sensor.allocate_image_color(*size), sensor.allocate_image_shape_index(*size)
    depth = sensor.allocate_image_depth_forward(*size)
    rays = sensor.compute_camera_rays_pinhole_usd(resolution, resolution, prim, device="cpu")
    world.model.bvh_refit_shapes(world.state)
    sensor.update(
        world.state,
        wp.array([pose], dtype=wp.transformf, device="cpu"),
        rays,
        color_image=color,
        shape_index_image=shape,
        forward_depth_image=depth,
    )
    rgba = color.numpy()[0].view(np.uint8).reshape(resolution, resolution, 4)
    return rgba[..., :3], depth.numpy()[0], shape.numpy()[0]


def _colliders(world: World, link: str) -> list[int]:
    flags = world.model.shape_flags.numpy()
    shapes = world.model.body_shapes[world.bodies[f"{usd_stage.ROBOT}/{link}"]]
    return [i for i in shapes if flags[i] & int(newton.ShapeFlags.COLLIDE_SHAPES)]


def _inertia(numbers: tuple[float, ...]) -> list[list[float]]:
    xx, yy, zz, xy, xz, yz = numbers
    return [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]


def _xyzw(quat_wxyz: np.ndarray) -> np.ndarray:
    return np.roll(quat_wxyz, -1)


def _pose(numbers: np.ndarray) -> Pose:
    """Return the pose of Newton's seven numbers, in which w comes last."""
    return Pose(numbers[:3].astype(float), np.roll(numbers[3:], 1).astype(float))


def _angle(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.arccos(min(abs(one @ other), 1.0)))


def main() -> int:
    """Run the checks and return the exit status."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder, config, report = Path(sys.argv[1]), PickPlaceConfig(), Report()
    folder.mkdir(parents=True, exist_ok=True)
    wp.config.log_level = wp.LOG_WARNING
    started = time.perf_counter()
    write_panda(folder / "panda.usdc", visual_detail=0.1)
    stage = write_scene(folder / "scene.usda", config)
    report.equal("what USD's validators find", problems(folder / "scene.usda"), [])
    world = World(stage, config)
    report.equal("what Newton warns of", [str(w.message) for w in world.warnings], [])
    check_bodies(report, world, config)
    check_joints(report, world)
    check_colliders(report, world, config)
    check_rest(report, world, config)
    world.start(HOME, panda.FINGER_OPEN)
    for camera in config.cameras:
        check_camera(report, world, config, camera, folder / f"{camera.name}.png")
    held = World(write_held_scene(folder / "held.usda", config), config)
    check_held(report, held, config)
    for camera in config.cameras:
        color, *_ = render(held, camera, config.render.size[0])
        Image.fromarray(color).save(folder / f"held_{camera.name}.png")
    failed = sum(not row["passed"] for row in report.rows)
    versions = {"newton": newton.__version__, "mujoco": mujoco.__version__}
    versions["usd"] = ".".join(map(str, Usd.GetVersion()[1:]))
    results = {"versions": versions, "failed": failed, "checks": report.rows}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    seconds = time.perf_counter() - started
    print(f"{len(report.rows) - failed} of {len(report.rows)} checks passed in {seconds:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
