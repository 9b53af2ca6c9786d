"""The GPUs that can be used, and how they are shared."""

import pytest

from pp_collect.session import worker_render_env
from pp_env import gpus
from pp_env.sim.isaac import app as isaac_app
from tests.fakes import forget_gpus, pretend_nvidia_smi

UUIDS = ("GPU-1a2b-0", "GPU-1a2c-1", "GPU-9f00-2", "GPU-77aa-3")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    forget_gpus(monkeypatch)
    yield
    gpus.installed_gpus.cache_clear()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return `install(count)`, which pretends that the machine has so many GPUs."""
    return lambda count: pretend_nvidia_smi(tmp_path, monkeypatch, UUIDS[:count])


def write_driver(tmp_path, monkeypatch):
    for bus, uuid in (("0000:b1:00.0", UUIDS[1]), ("0000:17:00.0", UUIDS[0])):
        folder = tmp_path / "gpus" / bus
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t RTX\nGPU UUID: \t {uuid}\nBus: x\n")
    monkeypatch.setattr(gpus, "_DRIVER", tmp_path / "gpus")


def test_nvidia_smi_lists_them(tmp_path, monkeypatch):
    pretend_nvidia_smi(tmp_path, monkeypatch, UUIDS[:2])
    write_driver(tmp_path / "other", monkeypatch)
    assert gpus.installed_gpus() == UUIDS[:2]
    assert gpus.usable_gpus() == (0, 1)


@pytest.mark.parametrize("end", [None, "exit 9", "exec sleep 60"])
def test_without_nvidia_smi_the_driver_does(tmp_path, monkeypatch, end):
    if end is None:
        monkeypatch.setattr(gpus, "_PROGRAM", "nvidia-smi-that-is-not-there")
    else:
        monkeypatch.setattr(gpus, "_TIMEOUT", 0.2)
        pretend_nvidia_smi(tmp_path, monkeypatch, ["it has failed"], end)
    write_driver(tmp_path, monkeypatch)
    assert gpus.installed_gpus() == UUIDS[:2], "in the order of the bus"


def test_without_a_driver_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "_PROGRAM", "nvidia-smi-that-is-not-there")
    monkeypatch.setattr(gpus, "_DRIVER", tmp_path)
    assert gpus.usable_gpus() == ()
    assert "ISAAC_GPU" not in worker_render_env(1)
    assert isaac_app._gpu_settings() == {}


@pytest.mark.parametrize(
    ("visible", "usable"),
    [
        (None, (0, 1, 2, 3)),
        ("", (0, 1, 2, 3)),
        ("2", (2,)),
        ("3, 1", (3, 1)),
        ("GPU-77aa,GPU-1a2b-0", (3, 0)),
        ("1,7,2", (1,)),
        ("GPU-1a2", ()),
        ("-1", ()),
        ("MIG-1a2b", ()),
    ],
)
def test_cuda_visible_devices_chooses(install, monkeypatch, visible, usable):
    install(4)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.usable_gpus() == usable


@pytest.mark.parametrize(
    ("count", "visible", "number", "shares"),
    [
        (1, None, 3, None),
        (4, None, 6, "2"),
        (4, "3,1", 0, "0"),
        (4, "3,1", 5, "1"),
        (4, "3", 3, None),
    ],
)
def test_workers_take_turns(install, monkeypatch, count, visible, number, shares):
    install(count)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    chosen = worker_render_env(number)
    assert chosen.get("ISAAC_GPU") == shares
    assert chosen.get("MUJOCO_EGL_DEVICE_ID") == ("3" if visible == "3" else shares)
    monkeypatch.setenv("ISAAC_GPU", "0")
    assert "ISAAC_GPU" not in worker_render_env(number), "the user's choice holds"


@pytest.mark.parametrize(
    ("count", "visible", "chosen", "settings"),
    [
        (1, None, None, {}),
        (4, None, None, {}),
        (4, None, "2", {"active_gpu": 2, "physics_gpu": 2}),
        (4, "3,1", "1", {"active_gpu": 1, "physics_gpu": 1}),
        (4, "3,1", None, {"active_gpu": 3, "physics_gpu": 0}),
        (4, "0,1", None, {}),
    ],
)
def test_the_gpu_that_isaac_sim_starts_on(install, monkeypatch, count, visible, chosen, settings):
    install(count)
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("ISAAC_GPU", chosen)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert isaac_app._gpu_settings() == settings


@pytest.mark.parametrize(
    ("visible", "chosen", "message"),
    [
        (None, "4", "ISAAC_GPU=4 must be one of 0, 1, 2, 3"),
        (None, "first", "ISAAC_GPU=first must be"),
        ("2", "1", "ISAAC_GPU=1 must be one of 0, a number among the GPUs that CUDA_VISIBLE"),
        ("7", None, "must be one of none, .* CUDA_VISIBLE_DEVICES=7 leaves of the 4 here"),
    ],
)
def test_a_gpu_that_does_not_exist(install, monkeypatch, visible, chosen, message):
    install(4)
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("ISAAC_GPU", chosen)):
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(isaac_app.IsaacSimError, match=message):
        isaac_app._gpu_settings()


@pytest.mark.parametrize("screen", ["", ":0"])
def test_workers_look_for_no_library_of_windows_without_a_screen(monkeypatch, screen):
    monkeypatch.delenv("PYGLFW_LIBRARY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", screen)
    assert ("PYGLFW_LIBRARY" in worker_render_env(0)) == (not screen)
