"""Collecting in several processes, each with its own fake Isaac Sim on a GPU of its own."""

import shutil

import pytest

import collect
from pp_collect import runs
from pp_collect.factory import make_config, make_expert
from pp_collect.options import CollectOptions
from pp_collect.process import StopRequest
from pp_env import gpus
from pp_env.sim.isaac import app as isaac_app
from pp_env.sim.isaac import cameras, machine
from pp_recorder.command_line import parse
from pp_recorder.status import StatusFile
from tests import crash
from tests.fake_isaac import FakeIsaac
from tests.fake_isaac.workers import Describe, MakeWorker, Plan
from tests.fakes import forget_gpus, pretend_nvidia_smi

OPTIONS = [
    "--simulator", "isaacsim", "--num-episodes", "3", "--resolution", "32", "--preset", "fast",
    "--steps-per-segment", "6", "--keep", "all", "--seed", "3",
]  # fmt: skip


@pytest.fixture(scope="module")
def assets(tmp_path_factory, robot_file):
    root = tmp_path_factory.mktemp("assets")
    robot = root / "Isaac/Robots/Franka/franka.usd"
    robot.parent.mkdir(parents=True)
    shutil.copyfile(robot_file, robot)
    return root


@pytest.fixture(scope="module")
def alone(tmp_path_factory, assets):
    """Return the dataset that this process makes."""
    root = tmp_path_factory.mktemp("sets") / "alone"
    words = [*OPTIONS, "--workers", "1", "--output", str(root)]
    options = parse(CollectOptions, words, prog="collect.py", description="", example="")
    config = make_config(options)
    expert = make_expert(options, config)
    with pytest.MonkeyPatch.context() as patch, FakeIsaac("4.5.0", assets):
        patch.setattr(machine, "check", lambda: None)
        patch.setattr(isaac_app, "_started", None)
        patch.setattr(cameras, "_TIME_TO_WARM_UP", 0.0)
        runs.run_local(options, config, expert, StopRequest(), StatusFile(None))
    return root


@pytest.fixture
def run(monkeypatch, tmp_path, assets):
    """Return `run(num_gpus, **plan)`, which collects into `tmp_path / "set"`.

    It returns the GPUs of each application, in the order of their start: that which draws, and that
    which computes.
    """
    forget_gpus(monkeypatch)

    def run(num_gpus, **fields):
        plan = Plan(tmp_path, assets, **fields)
        pretend_nvidia_smi(tmp_path, monkeypatch, [f"GPU-{k}aa" for k in range(num_gpus)])
        monkeypatch.setattr(runs, "describe_simulator", Describe(plan))
        monkeypatch.setattr(runs, "RolloutWorker", MakeWorker(plan))
        monkeypatch.setattr(runs, "free_memory", lambda: 100e9)
        assert collect.main([*OPTIONS, "--output", str(tmp_path / "set")]) == 0
        assert not any(each["multi_gpu"] for each in plan.started())
        return [(each["active_gpu"], each["physics_gpu"]) for each in plan.started()]

    yield run
    gpus.installed_gpus.cache_clear()


def test_each_worker_has_a_gpu_and_the_dataset_is_that_of_one(run, alone, tmp_path, caplog):
    first, *workers = run(2)
    assert first == (0, 0), "this one describes the simulator, before the workers start"
    assert sorted(workers) == [(0, 0), (1, 1)]
    assert crash.differences(alone, tmp_path / "set") == []
    assert "died" not in caplog.text


def test_a_worker_that_dies_is_replaced_on_its_gpu(run, alone, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-1")
    first, *workers = run(4, killed_at=1)
    assert first == (3, 0)
    assert sorted(workers) in ([(1, 1), (1, 1), (3, 0)], [(1, 1), (3, 0), (3, 0)])
    assert "the process of episode 1 died (SIGKILL); it is tried again" in caplog.text
    assert crash.differences(alone, tmp_path / "set") == []
