"""The fake Isaac Sim itself: signatures, order of calls, quirks and faults."""

import os
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics, UsdShade

from pp_env import kinematics, panda, rotation
from pp_env.config import HOME_JOINT_POS
from tests.fake_isaac import RECORDS, VERSIONS, FakeIsaac, ProcessEnded
from tests.fake_isaac.models import MODELS, Functions
from tests.pp_env.sim.isaac.usd_panda import write_panda

NEWEST = VERSIONS[-1]
ROBOT, OBJECT, JOINT, HIGH = "/World/Franka", "/World/Object", "/World/Joint", "/World/high"
HAND, WRIST = f"{ROBOT}/panda_hand", f"{ROBOT}/panda_hand/wrist"
HOME = np.array([*HOME_JOINT_POS, 0.04, 0.04])
TABLE_TOP, SIZE = 0.4, 0.04
RED = (0.9, 0.1, 0.1)
# Members of the models for use by each other, not by the user of Isaac Sim.
HELPERS = {
    "construct", "wrap", "epoch", "take_handles", "has_handles", "body", "physics", "read", "write",
    "is_initialized", "is_ready", "robot", "has_view",
}  # fmt: skip


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    root = tmp_path_factory.mktemp("assets")
    write_panda(root / "franka.usda")
    return root


@pytest.fixture(autouse=True)
def bare_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["collect.py"])


def get(module, name):
    return getattr(import_module(f"isaacsim.{module}"), name)


def launch(config=None):
    from isaacsim import SimulationApp

    return SimulationApp(config)


def build(sim, joint=True):
    """Return a World with table, object, robot and cameras, before its first reset."""
    launch()
    world = get("core.api", "World")(1 / 120, 1 / 30, 1.0)
    stage = world.stage
    table = UsdGeom.Cube.Define(stage, "/World/Table")
    table.AddTranslateOp().Set(Gf.Vec3d(0.5, 0, TABLE_TOP - 0.5))
    UsdPhysics.CollisionAPI.Apply(table.GetPrim())
    table.CreateSizeAttr(1.0)
    cube = UsdGeom.Cube.Define(stage, OBJECT)
    cube.CreateSizeAttr(SIZE)
    cube.AddTranslateOp().Set(Gf.Vec3d(0.5, 0.1, TABLE_TOP + 0.1))
    cube.CreateDisplayColorAttr([Gf.Vec3f(*RED)])
    UsdPhysics.RigidBodyAPI.Apply(cube.GetPrim())
    UsdPhysics.CollisionAPI.Apply(cube.GetPrim())
    stage.DefinePrim(ROBOT).GetReferences().AddReference(str(sim.assets_root / "franka.usda"))
    if joint:
        write_joint(stage, enabled=False)
    for path in (HIGH, WRIST):
        UsdGeom.Camera.Define(stage, path).CreateClippingRangeAttr(Gf.Vec2f(0.01, 10))
    UsdGeom.Xformable(stage.GetPrimAtPath(HIGH)).AddTranslateOp().Set(Gf.Vec3d(0.5, 0.1, 1.4))
    return world


def write_joint(stage, enabled, offset=(0, 0, 0), turn=(1, 0, 0, 0), excluded=True):
    joint = UsdPhysics.FixedJoint.Define(stage, JOINT)
    with Sdf.ChangeBlock():
        joint.CreateExcludeFromArticulationAttr(excluded)
        joint.CreateLocalPos0Attr(Gf.Vec3f(*map(float, offset)))
        joint.CreateLocalRot0Attr(Gf.Quatf(*map(float, turn)))
        joint.CreateBody0Rel().SetTargets([HAND])
        joint.CreateBody1Rel().SetTargets([OBJECT])
        joint.CreateJointEnabledAttr(enabled)


def start(world):
    """Reset the World and wrap its robot, hand and object."""
    world.reset()
    robot = get("core.prims", "SingleArticulation")(ROBOT)
    hand, cube = (get("core.prims", "SingleRigidPrim")(path) for path in (HAND, OBJECT))
    for prim in (robot, hand, cube):
        prim.initialize()
    robot.set_joint_positions(HOME)
    steps(world, 1)
    return SimpleNamespace(robot=robot, hand=hand, cube=cube)


def steps(world, count):
    for _ in range(count):
        world.step(render=False)


def act(robot, positions, indices=None):
    action = get("core.utils.types", "ArticulationAction")
    robot.apply_action(action(joint_positions=positions, joint_indices=indices))


def put_into_hand(things):
    """Move the object between the fingers, and return its position in the hand."""
    position, turn = things.hand.get_world_pose()
    offset = np.array([0.0, 0.0, panda.TCP_OFFSET])
    things.cube.set_world_pose(position + rotation.rotate(turn.astype(float), offset), turn)
    return offset


def make_camera(path=HIGH, size=(64, 48)):
    """Return a function that reads the camera's picture."""
    replicator = import_module("omni.replicator.core")
    annotator = replicator.AnnotatorRegistry.get_annotator("rgb")
    annotator.attach([replicator.create.render_product(path, size).path])
    return annotator.get_data


def center_of_red(image):
    rows, columns = np.nonzero((image[..., 0] > 200) & (image[..., 1] < 50))
    return None if len(rows) == 0 else (columns.mean(), rows.mean())


# What is generated


def test_every_behaviour_is_of_a_recorded_name():
    recorded = {qualname for _, qualname, _, _ in RECORDS}
    assert set(MODELS) <= recorded
    for name, model in MODELS.items():
        public = {member for member in dir(model) if not member.startswith("_")}
        assert not {m for m in public - HELPERS if f"{name}.{m}" not in recorded}, name
    assert {name for name in vars(Functions) if not name.startswith("_")} <= recorded


def test_versions_are_those_of_the_record():
    assert {v for *_, signatures in RECORDS for versions, _ in signatures for v in versions} == set(
        VERSIONS
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_argument_is_refused(version, assets):
    with FakeIsaac(version, assets) as sim:
        world = build(sim)
        with pytest.raises(TypeError, match=r"World\(\) of Isaac Sim .* 'physics_rate'"):
            type(world)(physics_rate=120)
        with pytest.raises(TypeError, match=r"SingleArticulation\(\).*'prim_path'"):
            get("core.prims", "SingleArticulation")()


@pytest.mark.parametrize(
    ("oldest", "newest", "call"),
    [
        ("5.1.0", NEWEST, lambda world, prims: world.step(render=False, update_fabric=True)),
        ("5.0.0", NEWEST, lambda world, prims: prims(reset_xform_properties=True)),
        (VERSIONS[0], "5.1.0", lambda world, prims: prims(enable_residual_reports=False)),
    ],
)
def test_arguments_are_those_of_the_version(oldest, newest, call, assets):
    for version in VERSIONS:
        with FakeIsaac(version, assets) as sim:
            world = build(sim)
            prims = get("core.prims", "SingleArticulation")

            def make(prims=prims, **options):
                return prims(ROBOT, **options)

            if oldest <= version <= newest:
                call(world, make)
            else:
                with pytest.raises(TypeError, match="unexpected keyword argument"):
                    call(world, make)


def test_a_name_is_absent_where_the_version_lacks_it(assets):
    with FakeIsaac("4.5.0", assets):
        launch()
        assert not hasattr(get("sensors.camera", "Camera"), "attach_annotator")
    with FakeIsaac(NEWEST, assets):
        launch()
        assert hasattr(get("sensors.camera", "Camera"), "attach_annotator")
        with pytest.raises(ImportError, match="add_update_semantics"):
            from isaacsim.core.utils.semantics import add_update_semantics  # noqa: F401


def test_a_name_without_behaviour_says_so(assets):
    with FakeIsaac(NEWEST, assets) as sim:
        world = build(sim)
        with pytest.raises(NotImplementedError, match=r"no behaviour for World\.pause"):
            world.pause()
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            world.pause(now=True)


def test_calls_are_logged_with_their_arguments(assets):
    with FakeIsaac(NEWEST, assets) as sim:
        build(sim).step(render=False)
    assert sim.calls[-1] == ("World.step", {"render": False})


# The application


def test_nothing_is_importable_before_the_application_runs_or_afterwards(assets):
    before = os.environ.copy()
    with FakeIsaac("4.5.0", assets) as sim:
        with pytest.raises(ModuleNotFoundError, match=r"isaacsim\.core"):
            import_module("isaacsim.core.api")
        version = Path(os.environ["ISAAC_PATH"], "VERSION").read_text()
        assert version.startswith("4.5.0-rc")
        launch()
        assert get("core.api", "World").instance() is None
        with pytest.raises(ModuleNotFoundError):
            import_module("omni.usd")
        assert sim.settings["/persistent/isaac/asset_root/default"] == str(assets)
    assert os.environ.copy() == before
    assert not [name for name in sys.modules if name.split(".")[0] in ("isaacsim", "carb")]


def test_the_application_starts_once_in_the_main_thread(assets, monkeypatch):
    errors = []

    def launch_elsewhere():
        try:
            launch()
        except ValueError as error:
            errors.append(error)

    with FakeIsaac(NEWEST, assets) as sim:
        thread = threading.Thread(target=launch_elsewhere)
        thread.start()
        thread.join()
        assert "main thread" in str(errors[0])
        monkeypatch.setattr(sys, "argv", ["collect.py", "--num-episodes", "3"])
        app = launch({"extra_args": ["--/app/port=8", "--/app/name=a=b", "--/app/on=true"]})
        assert sim.leaked_arguments == ["--num-episodes", "3"]
        names = ("port", "name", "on")
        assert [sim.settings[f"/app/{name}"] for name in names] == [8, "a=b", True]
        with pytest.raises(RuntimeError, match="one SimulationApp"):
            launch()
        with pytest.raises(ProcessEnded) as end:
            app.close(exit_code=3)
        assert end.value.args == (3,)
        assert not app.is_running()


def test_extensions(assets):
    missing, disabled = "isaacsim.sensors.camera", "isaacsim.core.prims"
    with FakeIsaac(NEWEST, assets, missing_extensions=(missing,), disabled_extensions=(disabled,)):
        launch()
        enable = get("core.utils.extensions", "enable_extension")
        assert not enable(missing)
        for name in (missing, disabled):
            with pytest.raises(ModuleNotFoundError, match="isaacsim"):
                import_module(name)
        assert enable(disabled)
        import_module(disabled)


def test_assets_root(assets, tmp_path):
    root = f"--/persistent/isaac/asset_root/default={tmp_path}"
    with FakeIsaac(NEWEST, assets):
        launch()
        assert get("storage.native", "get_assets_root_path")() == str(assets)
    with FakeIsaac(NEWEST, assets, assets_reachable=False):
        launch()
        with pytest.raises(RuntimeError, match="Could not find assets root"):
            get("storage.native", "get_assets_root_path")()
    with FakeIsaac("4.5.0", assets):
        launch({"extra_args": [root]})
        find = get("storage.native", "get_assets_root_path")
        (tmp_path / "Isaac").mkdir()
        with pytest.raises(RuntimeError, match="Could not find assets root"):
            find()
        (tmp_path / "NVIDIA").mkdir()
        assert find() == str(tmp_path)
        with pytest.raises(Exception, match="Failed to determine"):
            get("storage.native", "is_file")(str(tmp_path / "nothing.usd"))


# The World


def test_the_world_is_a_singleton_of_its_stage(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        assert get("core.api", "World")(physics_dt=0.5) is world
        assert world.get_physics_dt() == 1 / 120
        assert get("core.utils.stage", "get_current_stage")() is world.stage
        get("core.utils.stage", "create_new_stage")()
        assert get("core.api", "World").instance() is None


def test_steps_and_time(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        world.step(render=False)
        assert world.current_time_step_index == 0  # it does not play yet
        world.reset()
        before = world.current_time_step_index
        world.step(render=False)
        world.step(render=True)
        world.render()
        assert world.current_time_step_index == before + 1 + 4
        assert world.current_time == pytest.approx((before + 5) / 120)


def test_the_scene_initialises_what_is_added_to_it(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        robot = world.scene.add(get("core.prims", "SingleArticulation")(ROBOT, name="franka"))
        with pytest.raises(Exception, match="not unique"):
            world.scene.add(robot)
        assert robot.get_joint_positions() is None
        assert sim.warnings
        world.reset()
        assert robot.dof_names == [*panda.ARM_JOINTS, *panda.FINGER_JOINTS]
        assert robot.get_joint_positions().shape == (9,)


# The robot


def test_calls_before_there_are_handles(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        robot = get("core.prims", "SingleArticulation")(ROBOT)
        robot.set_joint_positions(HOME)
        assert (robot.dof_names, robot.num_dof, robot.handles_initialized) == (None, None, False)
        with pytest.raises(AttributeError, match="NoneType"):
            robot.initialize()
        with pytest.raises(AttributeError, match="NoneType"):
            act(robot, HOME)
        world.reset()
        assert robot.get_joint_positions() is None
        robot.initialize()
        assert not np.allclose(robot.get_joint_positions(), HOME)
        world.stop()
        assert robot.get_joint_positions() is None
        with pytest.raises(Exception, match="is invalid"):
            get("core.prims", "SingleRigidPrim")("/World/Nothing")


def test_joints_follow_their_targets(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        robot = start(world).robot
        act(robot, [0.3, None], np.array([2, 3]))
        steps(world, 1)
        moved = robot.get_joint_positions() - HOME
        np.testing.assert_allclose(robot.get_joint_velocities(), moved * 120, atol=1e-3)
        steps(world, 35)
        wanted = HOME + np.array([0, 0, 0.3, 0, 0, 0, 0, 0, 0])
        np.testing.assert_allclose(robot.get_joint_positions(), wanted, atol=1e-3)
        assert robot.get_joint_positions().dtype == np.float32


@pytest.mark.parametrize(
    ("in_scene", "forgets", "kept"),
    [(True, False, 7.0), (True, True, 4500.0), (False, False, 4500.0)],
)
def test_gains_after_a_reset(in_scene, forgets, kept, assets):
    with FakeIsaac("4.5.0", assets, reset_forgets_gains=forgets) as sim:
        world = build(sim)
        robot = get("core.prims", "SingleArticulation")(ROBOT)
        if in_scene:
            world.scene.add(robot)
        world.reset()
        robot.initialize()
        controller = robot.get_articulation_controller()
        assert controller.get_gains()[0][0] == 4500.0
        controller.set_gains(kps=np.full(9, 7.0))
        controller.set_max_efforts(np.full(9, 5.0))
        robot.disable_gravity()
        world.reset()
        robot.initialize()
        assert controller.get_gains()[0][0] == kept
        assert controller.get_max_efforts()[0] == 87.0
        assert sim.physics.gravity_on_robot


def test_gains_can_be_ignored_and_physx_attributes_need_their_schema(assets):
    with FakeIsaac("4.5.0", assets, gains_ignored=True) as sim:
        world = build(sim)
        robot = start(world).robot
        robot.get_articulation_controller().set_gains(kps=np.full(9, 7.0))
        assert robot.get_articulation_controller().get_gains()[0][0] == 80.0
        robot.set_solver_position_iteration_count(16)
        name = "physxArticulation:solverPositionIterationCount"
        assert robot.prim.GetAttribute(name).Get() == 16
        with pytest.raises(Exception, match="Empty typeName"):
            get("core.prims", "SingleArticulation")(OBJECT).set_enabled_self_collisions(True)


def test_the_hand_is_where_the_kinematics_say_on_the_stage_too(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        before = UsdGeom.XformCache().GetLocalToWorldTransform(world.stage.GetPrimAtPath(WRIST))
        things = start(world)
        position, orientation = kinematics.forward(HOME[:7])
        np.testing.assert_allclose(things.hand.get_world_pose()[0], position, atol=1e-6)
        turn = rotation.to_matrix(things.hand.get_world_pose()[1].astype(float))
        np.testing.assert_allclose(turn, orientation, atol=1e-6)
        xform = get("core.prims", "SingleXFormPrim")(HAND)
        np.testing.assert_allclose(xform.get_world_pose()[0], position, atol=1e-6)
        wrist = UsdGeom.XformCache().GetLocalToWorldTransform(world.stage.GetPrimAtPath(WRIST))
        np.testing.assert_allclose(wrist.ExtractTranslation(), position, atol=1e-6)
        finger = world.stage.GetPrimAtPath(f"{ROBOT}/panda_rightfinger")
        finger = UsdGeom.XformCache().GetLocalToWorldTransform(finger).ExtractTranslation()
        offset = orientation @ np.array([0, -0.04, panda.RIGHT_FINGER.position[2]])
        np.testing.assert_allclose(finger, position + offset, atol=1e-6)
        world.stop()
        after = UsdGeom.XformCache().GetLocalToWorldTransform(world.stage.GetPrimAtPath(WRIST))
        assert after == before


def test_fingers_stop_at_the_object(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        things = start(world)
        act(things.robot, np.zeros(2), np.array([7, 8]))
        for _ in range(60):
            put_into_hand(things)
            steps(world, 1)
        fingers = things.robot.get_joint_positions(np.array([7, 8]))
        np.testing.assert_allclose(fingers, SIZE / 2, atol=1e-3)
        things.cube.set_world_pose(np.array([0.5, 0.3, 0.42]))
        steps(world, 60)
        np.testing.assert_allclose(things.robot.get_joint_positions()[7:], 0.0, atol=1e-3)


# The object


def test_an_object_falls_and_rests(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        cube = start(world).cube
        steps(world, 10)
        assert cube.get_linear_velocity()[2] < -0.5
        steps(world, 60)
        np.testing.assert_allclose(
            cube.get_world_pose()[0], [0.5, 0.1, TABLE_TOP + SIZE / 2], atol=1e-6
        )
        assert not cube.get_linear_velocity().any()
        cube.set_world_pose(np.array([0.6, 0.2, 0.6]), rotation.about_z(0.3))
        np.testing.assert_allclose(cube.get_world_pose()[1], rotation.about_z(0.3), atol=1e-6)
        cube.set_linear_velocity(np.array([1.0, 0, 0]))
        steps(world, 1)
        assert cube.get_world_pose()[0][0] == pytest.approx(0.6 + 1 / 120)


@pytest.mark.parametrize("toggle", ["holds", "ignored"])
def test_a_joint_holds_the_object_where_its_frames_say(toggle, assets):
    with FakeIsaac("4.5.0", assets, toggle=toggle) as sim:
        world = build(sim)
        things = start(world)
        offset = put_into_hand(things)
        before = things.cube.get_world_pose()[0]
        write_joint(world.stage, enabled=True, offset=offset)
        steps(world, 24)
        moved = np.linalg.norm(things.cube.get_world_pose()[0] - before)
        assert moved < 1e-5 if toggle == "holds" else moved > 0.05
        if toggle == "holds":
            act(things.robot, HOME + 0.2)
            steps(world, 60)
            above = things.cube.get_world_pose()[0]
            assert np.linalg.norm(above - before) > 0.05
            things.cube.set_linear_velocity(np.zeros(3))
            write_joint(world.stage, enabled=False)
            steps(world, 12)
            assert things.cube.get_world_pose()[0][2] < above[2] - 0.04


def test_a_joint_with_frames_left_at_identity_snaps_the_object(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        things = start(world)
        before = put_into_hand(things) + things.hand.get_world_pose()[0]
        write_joint(world.stage, enabled=True)
        steps(world, 1)
        jump = np.linalg.norm(things.cube.get_world_pose()[0] - before)
        assert jump > 0.1
        hand, cube = (thing.get_world_pose()[0] for thing in (things.hand, things.cube))
        np.testing.assert_allclose(cube, hand, atol=1e-6)


def test_joints_that_would_make_the_robot_anew_are_errors(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        write_joint(world.stage, enabled=True)
        with pytest.raises(AssertionError, match="enabled at a hard reset"):
            world.reset()
        write_joint(world.stage, enabled=False, excluded=False)
        with pytest.raises(AssertionError, match="not excluded"):
            world.reset()
        write_joint(world.stage, enabled=False)
        start(world)
        write_joint(world.stage, enabled=True, excluded=False)
        with pytest.raises(AssertionError, match="not excluded"):
            steps(world, 1)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cause", ["a prim is removed", "a joint is enabled"])
def test_the_robots_view_can_be_lost(version, cause, assets):
    with FakeIsaac(version, assets, toggle="breaks") as sim:
        world = build(sim)
        robot = start(world).robot
        other = world.stage.DefinePrim("/World/Other", "Xform")
        write_joint(world.stage, enabled=False)
        steps(world, 1)
        assert robot.handles_initialized, "adding prims does no harm"
        if cause == "a prim is removed":
            world.stage.RemovePrim(other.GetPath())
        else:
            write_joint(world.stage, enabled=True)
            steps(world, 1)
        for read in (
            lambda: robot.handles_initialized,
            robot.get_joint_positions,
            lambda: robot.set_joint_positions(HOME),
            robot.get_articulation_controller().get_gains,
        ):
            with pytest.raises(AttributeError, match="no attribute '_physics_view'"):
                read()
        write_joint(world.stage, enabled=False)
        world.reset()
        robot.initialize()
        assert robot.get_joint_positions() is not None


def test_a_wrapped_prim_gets_isaacs_operations_and_keeps_its_pose(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        prim = world.stage.DefinePrim("/World/Turned", "Xform")
        UsdGeom.Xformable(prim).AddRotateZOp().Set(90.0)
        xform = get("core.prims", "SingleXFormPrim")("/World/Turned")
        ops = [op.GetOpName() for op in UsdGeom.Xformable(prim).GetOrderedXformOps()]
        assert ops == ["xformOp:translate", "xformOp:orient", "xformOp:scale"]
        np.testing.assert_allclose(
            xform.get_world_pose()[1], rotation.about_z(np.pi / 2), atol=1e-6
        )


# Images


def test_before_the_first_frame(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        world.reset()
        picture = make_camera()
        for _ in range(3):
            world.render()
        assert picture().shape == (0,)
        world.render()
        assert picture().shape == (48, 64, 4)
        assert picture().dtype == np.uint8
        assert picture()[..., :3].std() > 20


@pytest.mark.parametrize("lag", [0, 1, 4])
def test_an_image_shows_after_some_renders_where_the_object_is(lag, assets):
    with FakeIsaac("4.5.0", assets, frame_lag=lag) as sim:
        world = build(sim)
        cube = start(world).cube
        steps(world, 60)
        picture = make_camera()
        for _ in range(6):
            world.render()
        u, v = center_of_red(picture())  # it lies right under the camera
        assert (u, v) == pytest.approx((31.5, 23.5), abs=1.0)
        cube.set_world_pose(np.array([0.5 + 0.05, 0.1, TABLE_TOP + SIZE / 2]))
        steps(world, 1)
        moved = []
        for _ in range(lag + 1):
            world.render()
            moved.append(center_of_red(picture())[0] > u + 2)
        assert moved == [False] * lag + [True]
        focal = 64 * 50 / 20.955  # USD's defaults
        expected = u + focal * 0.05 / (1.4 - TABLE_TOP - SIZE / 2)
        assert center_of_red(picture())[0] == pytest.approx(expected, abs=1.0)


def test_a_camera_on_the_hand_looks_from_the_hand(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        UsdGeom.Xformable(world.stage.GetPrimAtPath(WRIST)).AddRotateXOp().Set(180.0)
        things = start(world)
        picture = make_camera(WRIST)
        optics = UsdGeom.Camera(world.stage.GetPrimAtPath(WRIST))
        optics.CreateFocalLengthAttr(15.0)
        put_into_hand(things)
        for _ in range(5):
            world.render()
        things.cube.set_linear_velocity(np.zeros(3))
        steps(world, 1)
        for _ in range(2):
            world.render()
        assert center_of_red(picture()) == pytest.approx((31.5, 23.5), abs=1.5)
        optics.CreateClippingRangeAttr(Gf.Vec2f(1.0, 10.0))
        for _ in range(2):
            world.render()
        assert center_of_red(picture()) is None


def test_the_colour_is_that_of_the_bound_material(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        paint = UsdShade.Material.Define(world.stage, "/World/Paint")
        shader = UsdShade.Shader.Define(world.stage, "/World/Paint/surface")
        shader.CreateIdAttr("UsdPreviewSurface")
        color = shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
        color.Set(Gf.Vec3f(0, 0, 1))
        paint.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
        prim = world.stage.GetPrimAtPath(OBJECT)
        UsdShade.MaterialBindingAPI.Apply(prim).Bind(paint)
        start(world)
        picture = make_camera()
        for _ in range(5):
            world.render()
        assert picture()[24, 32].tolist() == [0, 0, 255, 255]


def test_faults_of_images(assets):
    for fault, shape in (("black_frames", (48, 64, 4)), ("never_a_frame", (0,))):
        with FakeIsaac("4.5.0", assets, **{fault: True}) as sim:
            world = build(sim)
            world.reset()
            picture = make_camera()
            for _ in range(9):
                world.render()
            assert picture().shape == shape
            assert not picture().any()


def test_a_render_product_is_drawn_until_it_is_destroyed(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        world = build(sim)
        world.reset()
        product = import_module("omni.replicator.core").create.render_product(HIGH, (64, 48))
        world.render()
        product.destroy()
        world.render()
        assert product.renders == 1
        with pytest.raises(ValueError, match="is no camera"):
            import_module("omni.replicator.core").create.render_product(OBJECT, (64, 48))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_viewport_draws_unless_it_is_told_not_to(version, assets):
    with FakeIsaac(version, assets) as sim:
        launch({"headless": True, "disable_viewport_updates": True})
        assert sim.viewport.updates_enabled == (version < "5"), "4.5 does not know that key"


def test_references_and_loading(assets):
    with FakeIsaac("4.5.0", assets) as sim:
        app = launch()
        stage = get("core.utils.stage", "get_current_stage")()
        assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0
        prim = get("core.utils.stage", "add_reference_to_stage")(
            str(assets / "none.usd"), "/World/A"
        )
        assert isinstance(prim, Usd.Prim)
        assert not prim.GetChildren()
        loading, updates = get("core.utils.stage", "is_stage_loading"), 0
        while loading():
            app.update()
            updates += 1
        assert updates > 0
        get("core.utils.prims", "delete_prim")("/World/A")
        assert not get("core.utils.prims", "is_prim_path_valid")("/World/A")
        assert sim.world is None
