"""The Isaac Sim backend with fakes of Isaac's Python modules, and with the real ones if installed.

The fakes check calls, their order and error handling, not physics: see `tests/fake_isaac`.
"""

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pxr import Usd, UsdGeom, UsdPhysics

import collect
from experts.pick_place import PickPlaceExpert
from pp_env import panda
from pp_env.config import HOME_JOINT_POS, GraspConfig, PickPlaceConfig, RenderConfig, TaskConfig
from pp_env.env import PickPlaceEnv
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.sim import default_timing, make_simulator, shutdown_app
from pp_env.sim.api import Command
from pp_env.sim.isaac import app as isaac_app
from pp_env.sim.isaac import cameras, machine, usd_stage
from pp_env.sim.isaac.app import IsaacSimError
from pp_env.sim.isaac.simulator import ATTACHMENTS, IsaacSimulator
from pp_recorder.dataset.reader import Dataset
from pp_recorder.rollout import run_episode
from tests.fake_isaac import VERSIONS, FakeIsaac
from tests.fake_isaac.models import ProcessEnded
from tests.pp_env.sim.isaac.test_usd_stage import write_can
from tests.sim_contract import SimulatorContract, start

SIZE = 64
STEPS = 110  # of an episode
HOLD = Command(np.array(HOME_JOINT_POS), panda.FINGER_OPEN)
CONFIG = PickPlaceConfig(timing=default_timing("isaacsim"), render=RenderConfig(resolution=SIZE))


@pytest.fixture(scope="module")
def assets(tmp_path_factory, robot_file):
    root = tmp_path_factory.mktemp("assets")
    for folder in ("Franka", "FrankaRobotics/FrankaPanda"):
        path = root / "Isaac/Robots" / folder / "franka.usd"
        path.parent.mkdir(parents=True)
        shutil.copyfile(robot_file, path)
    (root / "NVIDIA").mkdir()
    return root


@pytest.fixture
def isaac(assets, monkeypatch):
    """Return `isaac(version, **faults)`, a context in which the fake Isaac Sim is installed."""
    monkeypatch.setattr(machine, "check", lambda: None)  # tests/pp_env/sim/isaac/test_machine.py
    monkeypatch.setattr(sys, "argv", ["collect.py", "--output", "x"])
    monkeypatch.delenv("ISAAC_ASSETS_ROOT", raising=False)
    monkeypatch.setattr(cameras, "_TIME_TO_WARM_UP", 0.0)

    def end(status):
        raise ProcessEnded(status)

    monkeypatch.setattr(os, "_exit", end)

    @contextmanager
    def installed(version="4.5.0", root=assets, **faults):
        with FakeIsaac(version, root, **faults) as fake:
            yield fake
        isaac_app._started = None

    yield installed
    isaac_app._started = None


def quick_expert():
    """Return an expert in a hurry, which waits at HOME for the joints that lag behind."""
    return PickPlaceExpert(steps_per_segment=10)


def names(fake):
    return [name for name, _ in fake.calls]


@pytest.mark.parametrize("attachment", ATTACHMENTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_two_episodes_with_images(isaac, version, attachment):
    with isaac(version) as fake:
        env = PickPlaceEnv(
            lambda config: IsaacSimulator(config, attachment=attachment),
            "pixels_agent_pos",
            config=CONFIG,
            terminate_on_success=False,
        )
        expert = quick_expert()
        for seed in (0, 1):
            episode = run_episode(env, expert, [], seed, seed, STEPS)
            assert episode.success, episode.trace[-1][1]["unmet_conditions"]
        observation, _ = env.reset(seed=2)
        for image in observation["pixels"].values():
            assert image.shape == (SIZE, SIZE, 3)
            assert image.std() > 2
        description = env.simulator_description
        assert description["version"].startswith(version)
        assert description["attachment"] == attachment
        json.dumps(description)
        assert len(fake.products) == 2, "one picture of each camera"
        assert not fake.viewport.updates_enabled, "or it would draw a third"
        env.close()
        env.close()
        assert fake.products == [], "or a shared application would draw them for ever"
        assert names(fake).count("World.reset") == 1, "one hard reset, then teleports"
        assert fake.leaked_arguments == []


def ycb_config(*shown):
    """Return a configuration of the YCB pool where only the objects named have Isaac's files."""
    pool = tuple(
        obj if obj.name in shown else dataclasses.replace(obj, asset=None) for obj in YCB_OBJECTS
    )
    return dataclasses.replace(
        CONFIG, objects=pool, num_objects=3, task=TaskConfig(random_yaw=True)
    )


def positions(simulator):
    return [prim.get_world_pose()[0] for prim in simulator._objects]


@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_a_pool_of_objects_without_files(isaac, attachment):
    config = ycb_config()
    with isaac() as fake:
        env = PickPlaceEnv(
            lambda config: IsaacSimulator(config, attachment=attachment),
            config=config,
            terminate_on_success=False,
        )
        expert, simulator = quick_expert(), env._simulator
        for seed, name in enumerate(("tomato soup can", "mustard bottle", "sugar box")):
            options = {"object": name}
            episode = run_episode(env, expert, [], seed, seed, STEPS, options)
            assert episode.success, episode.trace[-1][1]["unmet_conditions"]
            info = episode.start_info
            there = {info["object"], *info["distractors"]}
            for index, (obj, place) in enumerate(
                zip(YCB_OBJECTS, positions(simulator), strict=True)
            ):
                path = usd_stage.numbered(usd_stage.OBJECT, index)
                seen = UsdGeom.Imageable(fake.world.stage.GetPrimAtPath(path))
                is_there = obj.name in there
                assert (seen.ComputeVisibility() != "invisible") == is_there
                floor = config.table.top_z if is_there else 0.0
                assert place[2] - obj.height / 2 == pytest.approx(floor, abs=2e-3)
                assert (place[0] > 0) == is_there
        env.close()


def test_a_pool_of_objects_with_isaacs_files(isaac, assets):
    soup, sugar = YCB_OBJECTS[1], YCB_OBJECTS[0]
    for obj, order in ((soup, (2, 0, 1)), (sugar, (1, 2, 0))):
        path = assets / obj.asset
        path.parent.mkdir(parents=True, exist_ok=True)
        lying = dataclasses.replace(obj, shape="box", size=tuple(obj.size[i] for i in order))
        write_can(path, 100.0, True, lying)
    with isaac():
        config = ycb_config(soup.name, sugar.name)
        env = PickPlaceEnv("isaacsim", config=config, terminate_on_success=False)
        expert = quick_expert()
        for seed, obj in enumerate((soup, sugar)):
            options = {"object": obj.name}
            episode = run_episode(env, expert, [], seed, seed, STEPS, options)
            assert episode.success, episode.trace[-1][1]["unmet_conditions"]
        env.close()
    with isaac(), pytest.raises(usd_stage.StageError, match="did not load .*--no-ycb-assets"):
        IsaacSimulator(ycb_config("006_mustard_bottle"))


class TestFakeIsaac(SimulatorContract):
    @pytest.fixture
    def simulator(self, isaac):
        with isaac():
            yield IsaacSimulator(CONFIG)


@pytest.mark.skipif(
    importlib.util.find_spec("isaacsim") is None,
    reason="Isaac Sim is not installed in this Python; run with its python.sh",
)
class TestIsaacSim(SimulatorContract):
    @pytest.fixture
    def simulator(self):
        simulator = IsaacSimulator(CONFIG)
        yield simulator
        simulator.close()


@pytest.mark.parametrize("lag", range(5))
def test_the_frame_lag_is_measured_and_made_up_for(isaac, lag):
    with isaac(frame_lag=lag):
        simulator = IsaacSimulator(CONFIG)
        assert simulator.description["renders_per_frame"] == lag + 1
        images = []
        for pick in ((0.5, -0.2), (0.5, 0.2), (0.5, -0.2)):
            simulator.reset(start(pick=pick))
            images.append(simulator.render("cam_high"))
        np.testing.assert_array_equal(images[0], images[2])
        assert (images[0] != images[1]).any()


def test_shaders_may_compile_for_longer_than_200_frames(isaac, monkeypatch):
    monkeypatch.setattr(cameras, "_TIME_TO_WARM_UP", 60.0)
    with isaac(warmup_renders=300):
        IsaacSimulator(CONFIG)


@pytest.mark.parametrize(
    ("toggle", "chosen"), [("holds", "toggle"), ("ignored", "carry"), ("breaks", "carry")]
)
def test_the_first_way_to_hold_an_object_that_works_is_used(isaac, toggle, chosen):
    with isaac(toggle=toggle):
        env = PickPlaceEnv("isaacsim", config=CONFIG, terminate_on_success=False)
        assert env.simulator_description["attachment"] == chosen
        expert = quick_expert()
        for seed in (3, 4):
            assert run_episode(env, expert, [], seed, seed, STEPS).success


def test_a_way_that_breaks_the_handles_does_not_hide_the_next(isaac):
    with isaac(toggle="breaks"):
        simulator = IsaacSimulator(CONFIG)
        assert simulator.working_attachments() == ["carry"]
        simulator.reset(start())
        simulator.step(HOLD)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_prim_that_somebody_removes_costs_an_episode(isaac, version):
    with isaac(version) as fake, pytest.MonkeyPatch.context() as monkeypatch:
        simulator = IsaacSimulator(CONFIG)
        stage = fake.world.stage
        for moment in ("before a step", "in a step", "before a reset"):
            stage.DefinePrim("/World/Somebody", "Xform")
            simulator.reset(start())
            simulator.step(HOLD)
            if moment == "in a step":
                monkeypatch.setattr(fake, "advance", partial(stage.RemovePrim, "/World/Somebody"))
            else:
                stage.RemovePrim("/World/Somebody")
            if moment != "before a reset":
                with pytest.raises(IsaacSimError, match="a prim was removed .* reset first"):
                    simulator.step(HOLD)
            monkeypatch.undo()
        state = simulator.reset(start())
        np.testing.assert_allclose(state.joint_pos, HOME_JOINT_POS, atol=1e-3)
        np.testing.assert_allclose(simulator.read_gains()[0][:7], CONFIG.servo.arm_stiffness)


def test_one_noisy_velocity_does_not_decide_that_the_fingers_have_stopped(isaac):
    with isaac() as fake:
        simulator = IsaacSimulator(CONFIG)
        state = simulator.reset(start())
        for _ in range(3):
            before, state = state, simulator.step(Command(HOLD.arm, 0.0))
            moved = (state.gripper_pos - before.gripper_pos) * CONFIG.timing.control_hz
            np.testing.assert_allclose(state.gripper_vel, moved)
            assert abs(moved - fake.physics.qd[7:]).max() > 1e-3, "which are those of an instant"


def test_physics_repeats_itself_and_the_robot_keeps_its_solver(isaac):
    with isaac() as fake:
        IsaacSimulator(CONFIG)
        stage = fake.world.stage
        scene = stage.GetPrimAtPath("/physicsScene")
        assert scene.GetAttribute("physxScene:enableEnhancedDeterminism").Get()
        robot = stage.GetPrimAtPath(usd_stage.ROBOT)
        assert robot.GetAttribute("physxArticulation:solverPositionIterationCount").Get() == 32


@pytest.mark.parametrize("version", VERSIONS)
def test_threads_are_limited(isaac, version, monkeypatch):
    monkeypatch.setattr(isaac_app, "usable_processors", lambda: 3)
    for name in ("PXR_WORK_THREAD_LIMIT", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "8")
    with isaac(version) as fake:
        IsaacSimulator(CONFIG)
        given = launch(fake)["extra_args"]
        if version < "5":
            assert "--/plugins/carb.tasking.plugin/threadCount=3" in given
            assert os.environ["PXR_WORK_THREAD_LIMIT"] == "3"
        assert launch(fake)["limit_cpu_threads"] == 3


def test_a_given_mechanism_is_not_probed(isaac):
    with isaac(toggle="ignored"):
        assert IsaacSimulator(CONFIG, attachment="toggle").description["attachment"] == "toggle"
    with isaac(), pytest.raises(ValueError, match="attachment must be one of"):
        IsaacSimulator(CONFIG, attachment="glue")


def test_friction_leaves_the_joint_alone(isaac):
    config = PickPlaceConfig(CONFIG.timing, render=CONFIG.render, grasp=GraspConfig("friction"))
    with isaac():
        env = PickPlaceEnv("isaacsim", config=config)
        expert = quick_expert()
        episode = run_episode(env, expert, [], 0, 0, 150)
        assert any(info["is_grasped"] for _, info in episode.trace)
        assert not episode.success, "the fake has no friction"


def test_servos_have_the_configured_gains_also_after_someone_stopped_the_timeline(isaac):
    with isaac(reset_forgets_gains=True) as fake:
        simulator = IsaacSimulator(CONFIG)
        for _ in range(2):
            simulator.reset(start())
            stiffness, damping = simulator.read_gains()
            np.testing.assert_allclose(stiffness[:7], CONFIG.servo.arm_stiffness)
            np.testing.assert_allclose(damping[7:], CONFIG.servo.finger_damping)
            fake.world.stop()
            with pytest.raises(IsaacSimError, match="paused or stopped.* reset first"):
                simulator.step(HOLD)


def test_it_lives_in_an_application_that_runs_already(isaac):
    with isaac() as fake:
        from isaacsim import SimulationApp

        sys.argv = sys.argv[:1]
        app = SimulationApp({"headless": True})
        from isaacsim.core.api import World

        world = World(
            physics_dt=1 / 120, rendering_dt=1 / 30, stage_units_in_meters=1.0, device="cpu"
        )
        world.stage.DefinePrim("/World/Somebody", "Xform")
        env = PickPlaceEnv(
            lambda config: IsaacSimulator(config, app=app, world=world), config=CONFIG
        )
        expert = quick_expert()
        assert run_episode(env, expert, [], 0, 0, STEPS).success
        env.close()
        assert world.stage.GetPrimAtPath("/World/Somebody")
        assert World.instance() is world, "not ours to clear"
        assert names(fake).count("SimulationApp") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"physics_dt": 1 / 60, "device": "cpu"}, r"step physics by 1/120 s, found 0.0166"),
        ({"physics_dt": 1 / 120, "device": "cuda:0"}, "physics must run on the CPU"),
    ],
)
def test_a_world_that_does_not_fit_is_refused(isaac, options, message):
    with isaac():
        from isaacsim import SimulationApp

        sys.argv = sys.argv[:1]
        app = SimulationApp({"headless": True})
        from isaacsim.core.api import World

        world = World(rendering_dt=1 / 30, stage_units_in_meters=1.0, **options)
        with pytest.raises(IsaacSimError, match=message):
            IsaacSimulator(CONFIG, app=app, world=world)


def test_one_environment_after_another_but_not_two_at_once(isaac):
    with isaac() as fake:
        first = IsaacSimulator(CONFIG)
        with pytest.raises(IsaacSimError, match="has a World already"):
            IsaacSimulator(CONFIG)
        first.close()
        second = IsaacSimulator(CONFIG)
        second.reset(start())
        assert names(fake).count("SimulationApp") == 1


def test_the_command_line_and_ctrl_c_stay_ours(isaac):
    def handler(*_):
        pass

    before = signal.signal(signal.SIGINT, handler)
    try:
        with isaac() as fake:
            IsaacSimulator(CONFIG)
            assert fake.leaked_arguments == []
            assert sys.argv == ["collect.py", "--output", "x"]
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def launch(fake):
    return next(arguments for name, arguments in fake.calls if name == "SimulationApp")[
        "launch_config"
    ]


def test_the_application_renders_without_delay(isaac, assets):
    with isaac() as fake:
        IsaacSimulator(CONFIG, assets_root=str(assets))
        config = launch(fake)
        assert config["headless"] is True
        assert "--/app/hydraEngine/waitIdle=true" in config["extra_args"]
        assert f"--/persistent/isaac/asset_root/default={assets}" in config["extra_args"]
        assert "get_assets_root_path" not in names(fake), "which may block without a network"


@pytest.mark.parametrize(
    ("version", "extension", "setting"),
    [
        ("4.5.0", "omni.kit.livestream.webrtc", "--/app/livestream/port=49102"),
        ("5.1.0", "omni.services.livestream.nvcf", "--/app/livestream/port=49102"),
        (
            "6.0.1",
            "omni.kit.livestream.app",
            "--/exts/omni.kit.livestream.app/primaryStream/signalPort=49102",
        ),
    ],
)
def test_livestream(isaac, version, extension, setting):
    with isaac(version) as fake:
        simulator = IsaacSimulator(CONFIG, streaming_port=49102)
        assert setting in launch(fake)["extra_args"]
        assert launch(fake)["hide_ui"] is False
        enabled = [a for name, a in fake.calls if name == "enable_extension"]
        assert {"extension_name": extension} in enabled
        simulator.reset(start())
        before = names(fake).count("World.render")
        simulator.step(HOLD)
        assert names(fake).count("World.render") > before, "or the stream would freeze"


class TestBadSurroundings:
    def fails(self, match, error=IsaacSimError, **options):
        with pytest.raises(error, match=match):
            IsaacSimulator(CONFIG, **options)

    def test_no_isaac_sim(self, monkeypatch):
        monkeypatch.setattr(machine, "check", lambda: None)
        with pytest.raises(ImportError, match=r"not installed in this Python.*python\.sh"):
            make_simulator("isaacsim", CONFIG)

    def test_a_machine_that_can_not_run_it(self, isaac, monkeypatch, tmp_path):
        with isaac() as fake:
            monkeypatch.undo()
            monkeypatch.setattr(machine, "_PROC", tmp_path)
            self.fails("needs an NVIDIA RTX GPU.*'--gpus all'")
            assert fake.calls == [], "found out before the application starts"

    @pytest.mark.parametrize("text", ["4.2.0-rc.18+release", "7.0.0", "", "nonsense"])
    def test_another_version(self, isaac, text):
        with isaac():
            (Path(os.environ["ISAAC_PATH"]) / "VERSION").write_text(text)
            self.fails("not supported|version is unknown")

    def test_a_missing_extension(self, isaac):
        name = "omni.replicator.core"
        with isaac(missing_extensions=(name,)):
            self.fails(f"has no extension '{name}'; start it with the standard experience")

    def test_an_extension_that_is_switched_off_is_switched_on(self, isaac):
        with isaac(disabled_extensions=("omni.replicator.core",)):
            IsaacSimulator(CONFIG).reset(start())

    def test_assets_that_can_not_be_reached(self, isaac):
        with isaac(assets_reachable=False):
            self.fails("assets can't be reached.*--assets-root or ISAAC_ASSETS_ROOT")

    def test_an_asset_root_without_assets(self, isaac, tmp_path):
        with isaac() as fake:
            self.fails("must be a folder that holds Isaac/", assets_root=str(tmp_path))
            assert fake.calls == [], "found out before the application starts"

    def test_a_robot_that_did_not_resolve(self, isaac, tmp_path):
        (tmp_path / "Isaac").mkdir()
        with isaac():
            self.fails("file did not load", RuntimeError, assets_root=str(tmp_path))

    def test_black_frames(self, isaac):
        with isaac(black_frames=True):
            self.fails("still sees one colour")

    def test_no_frames(self, isaac):
        with isaac(never_a_frame=True):
            self.fails("should give a picture of 64 x 64 pixels, but gave")

    def test_not_the_main_thread(self, isaac):
        caught = []

        def make():
            try:
                IsaacSimulator(CONFIG)
            except IsaacSimError as error:
                caught.append(str(error))

        with isaac():
            thread = threading.Thread(target=make)
            thread.start()
            thread.join()
        assert "driven by the main thread" in caught[0]

    def test_two_livestreams(self, isaac):
        with isaac(), pytest.raises(ValueError, match="sets up its own livestream"):
            IsaacSimulator(CONFIG, app=object(), streaming_port=49102)


def test_light_randomization_is_applied_and_taken_back(isaac):
    config = dataclasses.replace(CONFIG, randomization=RANDOMIZATION_PRESETS["light"])
    with isaac() as fake:
        env = PickPlaceEnv("isaacsim", config=config)
        dome = fake.world.stage.GetPrimAtPath("/World/PickPlace/Lights/dome")
        for seed in (0, 1, 0):
            _, info = env.reset(seed=seed)
            intensity = config.usd_lights.dome * info["variation"].light_intensity
            assert dome.GetAttribute("inputs:intensity").Get() == pytest.approx(intensity)
        env._simulator.reset(start())
        assert dome.GetAttribute("inputs:intensity").Get() == config.usd_lights.dome


def test_what_can_not_be_randomized_there_is_refused(isaac, tmp_path, capsys):
    with isaac() as fake:
        options = ["--simulator", "isaacsim", "--randomize", "full"]
        assert collect.main([*options, "--output", str(tmp_path / "set")]) == 1
        assert fake.calls == [], "found out before the application starts"
    error = capsys.readouterr().err
    assert "'table_textures', 'object_textures', 'friction', 'mass'] is not available" in error
    assert "use the preset 'light' (collect.py --randomize light)" in error


def test_collecting_with_it(isaac, tmp_path):
    output, status = tmp_path / "set", tmp_path / "status.json"
    with isaac(frame_lag=1, close_hangs=True), pytest.raises(ProcessEnded) as ended:
        collect.main(
            ["--simulator", "isaacsim", "--num-episodes", "2", "--resolution", "96x64",
             "--steps-per-segment", "15", "--output", str(output), "--status-file", str(status)]
        )  # fmt: skip
    assert ended.value.args == (0,)
    dataset = Dataset(output)
    assert (dataset.num_episodes, dataset.num_frames) == (2, 270)
    assert next(dataset.frames(0, "observation.images.cam_high")).shape == (64, 96, 3)
    details = dataset.collection["simulator_details"]
    assert details["renders_per_frame"] == 2
    assert dataset.collection["config"]["timing"]["physics_hz"] == 120
    assert json.loads(status.read_text())["state"] == "complete"


def test_a_complete_dataset_starts_no_application(isaac, tmp_path, monkeypatch):
    output, status = tmp_path / "set", tmp_path / "status.json"
    options = [
        "--simulator", "isaacsim", "--resolution", str(SIZE), "--output", str(output), "--resume",
        "--steps-per-segment", "15", "--status-file", str(status), "--restart-every", "1",
        "--num-episodes",
    ]  # fmt: skip
    with isaac(), pytest.raises(ProcessEnded):
        collect.main([*options, "1"])
    monkeypatch.setattr(isaac_app, "start", lambda *_: pytest.fail("the application started"))
    assert collect.main([*options, "1"]) == 0
    assert json.loads(status.read_text())["state"] == "complete"
    with pytest.raises(pytest.fail.Exception, match="application started"):
        collect.main([*options, "2"])


def test_a_failure_ends_the_process_with_its_status(isaac, tmp_path, capsys):
    options = ["--simulator", "isaacsim", "--output", str(tmp_path / "set")]
    with isaac(black_frames=True), pytest.raises(ProcessEnded) as ended:
        collect.main([*options, "--resolution", str(SIZE)])
    assert ended.value.args == (1,)
    assert "still sees one colour" in capsys.readouterr().err


def test_an_exception_is_seen_before_the_process_ends(isaac, monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", lambda status: None)
    with isaac():
        IsaacSimulator(CONFIG)

        def program():
            try:
                raise KeyError("a bug")
            finally:
                shutdown_app(1)

        with pytest.raises(KeyError):
            program()
    assert "KeyError: 'a bug'" in capsys.readouterr().err


def test_without_the_application_leaving_is_nothing():
    assert shutdown_app(3) == 3


def soft_robot(root, assets):
    """Copy the assets with a robot whose own gains are not the configured ones."""
    shutil.copytree(assets, root)
    stage = Usd.Stage.Open(str(root / "Isaac/Robots/Franka/franka.usd"))
    for prim in stage.Traverse():
        if prim.HasAPI(UsdPhysics.DriveAPI, "angular"):
            UsdPhysics.DriveAPI(prim, "angular").GetStiffnessAttr().Set(1.0)
    stage.GetRootLayer().Save()
    return root
