"""Collecting on a Ray cluster, whose three nodes are processes of this machine (make test-ray)."""

import os
import subprocess
import sys
from functools import partial

import pytest

import collect
from pp_collect.options import CollectOptions
from pp_recorder.parallel import ray_cluster
from pp_recorder.parallel.processes import Worker, WorkerError
from tests import ROOT, crash
from tests.pp_recorder.parallel.test_processes import HASTY, _num_episodes, _wait_for

MANY = ["--num-episodes", "24", "--keep", "all"]


def run(output, *options):
    return collect.main([*HASTY, "--output", str(output), *map(str, options)])


@pytest.mark.long
@pytest.mark.parametrize("output", ["{}", "file://{}"])
def test_a_node_that_is_lost_changes_nothing(tmp_path, output):
    pytest.importorskip("ray", reason="'make test-ray' installs it")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    victim = nodes.add_node(num_cpus=1)
    nodes.add_node(num_cpus=1)
    try:
        command = [
            sys.executable, "collect.py", *HASTY, *MANY, "--ray-address", nodes.address,
            "--output", output.format(tmp_path / "set"),
        ]  # fmt: skip
        env = {**os.environ, "HOME": str(tmp_path)}  # for what is on its way into the store
        pipes = {"stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=ROOT, env=env, **pipes) as process:
            _wait_for(lambda: _num_episodes(tmp_path / "set") >= 4, seconds=180)
            nodes.remove_node(victim, allow_graceful=False)
            before = _num_episodes(tmp_path / "set")
            _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert before < 24, "the node was lost too late to matter"
    finally:
        nodes.shutdown()
    assert run(tmp_path / "alone", *MANY, "--workers", 1) == 0
    assert crash.differences(tmp_path / "alone", tmp_path / "set") == []


class EnvironmentWorker(Worker):
    """A worker that returns an environment variable of its process."""

    def run(self, index):
        return index, os.environ["WHO"]


def who_environment(number):
    return {"WHO": str(number)}


@pytest.mark.parametrize(("gpus", "number"), [("1,0", 1), ("", None)])
def test_a_process_gets_the_environment_of_its_gpu(monkeypatch, gpus, number):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)  # as Ray does
    monkeypatch.setenv("WHO", "nobody")
    factory = partial(ray_cluster._call_with_environment, who_environment, EnvironmentWorker)
    result = ray_cluster._run_in_worker(f"run on {gpus}", factory, 7)
    assert result == (7, str(number or os.getpid()))


@pytest.mark.long
def test_processes_get_different_gpus_on_a_cluster():
    ray = pytest.importorskip("ray", reason="'make test-ray' installs it")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2})
    cluster = ray_cluster.RayCluster(nodes.address, gpu_share=1.0, environment=who_environment)
    try:
        assert cluster.run_once(os.getenv, "WHO") in "01"
        received = dict(
            value for _, value in cluster.run_all(EnvironmentWorker, range(6), lambda: False)
        )
    finally:
        cluster.close()
        nodes.shutdown()
    assert sorted(received) == list(range(6))
    assert set(received.values()) <= {"0", "1"}
    assert not ray.is_initialized()


def test_an_address_where_nothing_answers(monkeypatch):
    monkeypatch.setattr(ray_cluster, "require_library", lambda: None)
    with pytest.raises(WorkerError, match="nothing answers at the Ray address 127.0.0.1:1"):
        ray_cluster.RayCluster("127.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray-address", "auto", "--restart-every", "5"], "not for --ray-address"),
        (["--ray-address", "auto", "--restart-above", "5"], "not for --ray-address"),
        (["--ray-address", "auto", "--streaming"], "not for --ray-address"),
        (["--ray-address", "auto", "--simulator", "isaacsim", "--gpu-share", "0"], "needs a GPU"),
        (["--gpu-share", "0.1"], "--gpu-share is for --ray-address"),
        (["--ray-address", "auto", "--gpu-share", "2"], "must be from 0 to 1"),
    ],
)
def test_bad_options_stop_before_any_work(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "set", *options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit):
        run(tmp_path / "set", "--ray-address", "auto")
    assert "pip install 'franka-pick-place[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "share"),
    [
        ({}, 0.0),
        ({"gpu_share": 0.1}, 0.1),
        ({"simulator": "isaacsim"}, 1.0),
        ({"simulator": "isaacsim", "gpu_share": 0.5}, 0.5),
    ],
)
def test_the_gpu_that_an_attempt_takes(given, share):
    assert CollectOptions(ray_address="auto", **given).attempt_gpu_share == share
