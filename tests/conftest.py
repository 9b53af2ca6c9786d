"""Fixtures that several test modules share, and the modules to skip without optional packages."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
    # The programs that tests start would inherit that and, rightly, go on after a SIGHUP.
    signal.signal(signal.SIGHUP, lambda *_: None)

# Without compiled modules, each of the hundreds of Python processes compiles what it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Pictures of tests are small: the threads of OpenGL in software cost more than they draw.
os.environ.setdefault("LP_NUM_THREADS", "0")

# GLFW, which comes with MuJoCo, would start a process to look for its library.
_glfw = importlib.util.find_spec("glfw")
if _glfw is not None and _glfw.origin is not None:
    _library = Path(_glfw.origin).with_name("x11") / "libglfw.so"
    if _library.exists():
        os.environ.setdefault("PYGLFW_LIBRARY", str(_library))

collect_ignore = []

if importlib.util.find_spec("mujoco") is None:  # as in Isaac Sim's Python
    collect_ignore += [
        "pp_env/test_inverse_kinematics_baselines.py", "pp_bridge", "pp_collect/test_evaluate.py",
        "pp_collect/test_policy.py", "pp_collect/test_probe.py", "pp_collect/test_robustness.py",
        "pp_collect/test_replay.py", "pp_collect/test_starts.py", "pp_env/sim/mujoco",
        "pp_env/sim/test_scene_parity.py", "pp_env/test_vector_env.py", "pp_recorder/checks",
        "pp_recorder/dataset/test_broken_metadata.py", "pp_recorder/dataset/test_commit.py",
        "pp_recorder/dataset/test_foreign_edits.py", "pp_recorder/dataset/test_hub.py",
        "pp_recorder/dataset/test_merge.py", "pp_recorder/parallel/test_processes.py",
        "pp_recorder/parallel/test_ray_cluster.py", "pp_recorder/storage/test_object_store.py",
        "test_benchmarks.py", "test_collect.py", "test_deploy.py", "test_docs.py",
        "test_full_disk.py", "test_reference.py", "test_wheel.py", "test_without_extras.py",
    ]  # fmt: skip

if importlib.util.find_spec("fastapi") is None:  # the extra [bridge]
    collect_ignore += ["pp_bridge"]


@pytest.fixture(scope="session")
def robot_file(tmp_path_factory):
    """Return a USD file of the Panda, in place of Isaac Sim's own."""
    from tests.pp_env.sim.isaac.usd_panda import write_panda

    path = tmp_path_factory.mktemp("robot") / "franka.usdc"
    write_panda(path)
    return str(path)


@pytest.fixture(scope="module")
def warp_device():
    """Have simulator "warp" compute on the processor where there is no GPU; return its device."""
    warp = pytest.importorskip("warp")
    with pytest.MonkeyPatch.context() as patch:
        if not warp.is_cuda_available():
            patch.setenv("WARP_GPU", "cpu")
        yield str(warp.get_device("cuda" if warp.is_cuda_available() else "cpu"))


@pytest.fixture
def usd_scene(robot_file):
    """Return the Isaac Sim scene on a stage in memory."""
    from pxr import Usd

    from pp_env.config import NAMED_CAMERAS, PickPlaceConfig
    from pp_env.sim.isaac import usd_stage

    stage = Usd.Stage.CreateInMemory()
    usd_stage.build(stage, PickPlaceConfig(cameras=NAMED_CAMERAS), robot_file)
    return stage
