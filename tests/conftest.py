"""What several test modules share."""

import importlib.util

import pytest

if importlib.util.find_spec("mujoco") is None:  # as in Isaac Sim's Python
    collect_ignore_glob = ["test_bridge_*.py"]
    collect_ignore = [
        "test_benchmarks.py", "test_cluster.py", "test_collect.py", "test_deploy.py",
        "test_durability.py", "test_workers.py",
        "test_evaluate.py", "test_hub.py", "test_inspect.py", "test_kinematics_peers.py",
        "test_merge.py", "test_mujoco_sim.py", "test_mujoco_variation.py", "test_replay.py",
        "test_scene_parity.py", "test_store.py", "test_vector_env.py",
    ]  # fmt: skip

if importlib.util.find_spec("fastapi") is None:  # the extra [bridge]
    collect_ignore_glob = ["test_bridge_*.py"]


@pytest.fixture(scope="session")
def robot_file(tmp_path_factory):
    """A Panda in USD, in place of Isaac Sim's."""
    from tests.pp_env.sim.isaac.usd_panda import write_panda

    path = tmp_path_factory.mktemp("robot") / "franka.usdc"
    write_panda(path)
    return str(path)


@pytest.fixture
def usd_scene(robot_file):
    """The Isaac Sim scene on a stage in memory."""
    from pxr import Usd

    from pp_env.config import PickPlaceConfig
    from pp_env.sim.isaac import usd_stage

    stage = Usd.Stage.CreateInMemory()
    usd_stage.build(stage, PickPlaceConfig(), robot_file)
    return stage
