"""What a person meets before Isaac Sim starts, with a script in place of nvidia-smi."""

import importlib.metadata
import os
import pty
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from pp_env import gpus
from pp_env.sim.isaac import machine
from pp_env.sim.isaac.machine import Gpu, IsaacSimError

GIB = 2**30
RTX = "535.183.01, 24564, NVIDIA GeForce RTX 4090"


@pytest.fixture
def computer(tmp_path, monkeypatch):
    """Return a machine on which Isaac Sim 4.5 runs, to be spoilt."""
    return Computer(tmp_path, monkeypatch)


class Computer:
    def __init__(self, folder: Path, monkeypatch):
        self.folder, self._patch = folder, monkeypatch
        self.proc, self.isaac = folder / "proc", folder / "isaac-sim"
        self.isaac.mkdir()
        (self.proc / "gpus/0000:01:00.0").mkdir(parents=True)
        self.show_in_proc("535.183.01", "NVIDIA GeForce RTX 4090")
        (folder / "bin").mkdir()
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
        self.nvidia_smi(RTX)
        monkeypatch.setattr(machine, "_PROC", self.proc)
        monkeypatch.setattr(machine, "_WINDOWS_DRIVER", folder / "dxg")
        self.limit_memory("max")
        monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 64 * GIB, "SC_PAGE_SIZE": 1}.get)
        monkeypatch.setenv("ISAAC_PATH", str(self.isaac))
        for name in ("ACCEPT_EULA", "OMNI_KIT_ACCEPT_EULA"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(np, "__version__", "1.26.0")
        self.install(None)
        self.set_version("4.5.0-rc.36+release.19112.f59b3005.gl")
        self.set_python((3, 10))

    def nvidia_smi(self, *lines: str, status: int = 0) -> None:
        script = self.folder / "bin/nvidia-smi"
        (self.folder / "answer").write_text("".join(f"{line}\n" for line in lines))
        script.write_text(
            f'#!/bin/sh\necho "$@" > {self.folder}/asked\ncat {self.folder}/answer\nexit {status}\n'
        )
        script.chmod(0o755)

    def show_in_proc(self, driver: str, model: str, kind: str = "Kernel Module ") -> None:
        (self.proc / "version").write_text(
            f"NVRM version: NVIDIA UNIX x86_64 {kind} {driver}  Thu Jun 27\nGCC version: 12.2.0\n"
        )
        information = self.proc / "gpus/0000:01:00.0/information"
        information.write_text(f"Model: \t\t {model}\nIRQ:   \t\t 64\n")

    def set_version(self, text: str) -> None:
        (self.isaac / "VERSION").write_text(text)

    def set_python(self, version: tuple[int, int]) -> None:
        self._patch.setattr(sys, "version_info", (*version, 0, "final", 0))

    def limit_memory(self, text: str) -> None:
        (self.folder / "memory.max").write_text(text)
        self._patch.setattr(machine, "_MEMORY_LIMIT", self.folder / "memory.max")

    def install(self, package: str | None) -> None:
        """Let one distribution be installed, and no other."""

        def version(name: str) -> str:
            if name != package:
                raise importlib.metadata.PackageNotFoundError(name)
            return "1.0"

        self._patch.setattr(importlib.metadata, "version", version)

    def pip_install(self) -> Path:
        """Install the package `isaacsim` as pip does; return its folder."""
        folder = self.folder / "site-packages/isaacsim"
        (folder / "kit").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
        (folder / "VERSION").write_text("4.5.0")
        self._patch.delenv("ISAAC_PATH")
        self._patch.delitem(sys.modules, "isaacsim", raising=False)
        self._patch.syspath_prepend(str(folder.parent))
        return folder

    def warnings(self) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            machine.check()
        return [str(warning.message) for warning in caught]

    def warning(self) -> str:
        (found,) = self.warnings()
        return found


def test_a_machine_that_fits_has_nothing_to_say(computer):
    assert computer.warnings() == []
    asked = (computer.folder / "asked").read_text()
    assert asked == "--query-gpu=driver_version,memory.total,name --format=csv,noheader,nounits\n"


def test_without_a_driver(computer):
    (computer.proc / "version").unlink()
    with pytest.raises(IsaacSimError, match=r"no NVIDIA driver is visible.*'--gpus all'"):
        machine.check()
    assert not (computer.folder / "asked").exists(), "found out first"


def test_in_windows_the_numbers_of_its_driver_are_not_judged(computer):
    (computer.proc / "version").unlink()
    (computer.folder / "dxg").touch()
    computer.nvidia_smi("32.0.15, 24564, NVIDIA GeForce RTX 4090")
    assert computer.warnings() == []


WITHOUT_RT_CORES = [
    "NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe", "NVIDIA A800-SXM4-80GB", "NVIDIA A30",
    "GRID A100-7C", "NVIDIA H100 80GB HBM3", "NVIDIA H100 NVL", "NVIDIA H200", "NVIDIA H20",
    "NVIDIA H800 PCIe", "NVIDIA GH200 480GB", "NVIDIA B200", "NVIDIA GB200", "NVIDIA B300 SXM6 AC",
    "Tesla V100-SXM2-16GB", "Quadro GV100", "Tesla P100-PCIE-16GB", "Tesla P4", "Tesla K80",
    "Tesla M60", "NVIDIA GeForce GTX 1080 Ti", "NVIDIA GeForce GTX 1660 SUPER", "NVIDIA T1000 8GB",
    "NVIDIA T400 4GB", "NVIDIA TITAN V", "NVIDIA TITAN Xp", "Quadro P4000", "NVIDIA CMP 170HX",
]  # fmt: skip
WITH_RT_CORES = [
    "NVIDIA GeForce RTX 2080 Ti", "NVIDIA GeForce RTX 3070", "NVIDIA RTX A2000 12GB",
    "NVIDIA RTX A6000", "NVIDIA A10", "NVIDIA A10G", "NVIDIA A16", "NVIDIA A2", "NVIDIA A40",
    "NVIDIA L4", "NVIDIA L40", "NVIDIA L40S", "NVIDIA L20", "Tesla T4", "Quadro RTX 8000",
    "NVIDIA RTX 6000 Ada Generation", "NVIDIA TITAN RTX", "NVIDIA GB10", "NVIDIA L40S-24Q",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA GeForce RTX 5090", "GRID T4-16Q",
    "NVIDIA GeForce RTX 3080 Ti Laptop GPU", "NVIDIA RTX 4000 SFF Ada Generation",
]  # fmt: skip


def test_gpus_without_rt_cores_are_known_by_name():
    for name in WITHOUT_RT_CORES:
        with pytest.warns(
            UserWarning, match=f"the GPU {name} has no RT cores, and NVIDIA does not"
        ):
            machine._check_gpus([Gpu(name)], None)
    machine._check_gpus([Gpu(name) for name in WITH_RT_CORES], None)


def test_a_gpu_without_rt_cores(computer):
    computer.nvidia_smi("535.183.01, 81920, NVIDIA A100-SXM4-80GB")
    text = computer.warning()
    assert "Isaac Sim fails at the start or draws noisy images; use one of the series RTX" in text


def test_a_gpu_without_rt_cores_beside_another(computer, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    computer.nvidia_smi(RTX, "535.183.01, 81920, NVIDIA A100-SXM4-80GB")
    text = computer.warning()
    assert "NVIDIA A100-SXM4-80GB has no RT cores beside another" in text
    assert "'--gpus device=N' (CUDA_VISIBLE_DEVICES does not hide it from the renderer)" in text


def test_eight_equal_gpus_are_named_once(computer):
    computer.nvidia_smi(*["535.183.01, 81920, NVIDIA H100"] * 8)
    assert computer.warning().count("H100") == 1


@pytest.mark.parametrize("driver", ["470.256.02", "525.147.05", "535.54.03", "535.128"])
@pytest.mark.parametrize("version", ["4.5.0", "nonsense"])
def test_a_driver_that_the_renderer_refuses(computer, driver, version):
    computer.set_version(version)
    computer.nvidia_smi(f"{driver}, 24564, NVIDIA GeForce RTX 4090")
    with pytest.raises(
        IsaacSimError, match=r"below 535\.129; install 535\.129\.03 or newer"
    ) as error:
        machine.check()
    assert f"the NVIDIA driver {driver} is too old" in str(error.value)


def test_a_driver_that_the_renderer_misreads(computer):
    computer.nvidia_smi("535.274.02, 24564, NVIDIA GeForce RTX 4090")
    assert "may take the NVIDIA driver 535.274.02 for 535.18 and refuse it" in computer.warning()


@pytest.mark.parametrize(
    ("version", "python", "driver", "tested"),
    [
        ("4.5.0", (3, 10), "535.129.01", "535.129.03"),
        ("5.1.0", (3, 11), "570.169", "580.65.06"),
        ("6.0.1-rc.7", (3, 12), "580.65.06", "580.95.05"),
    ],
)
def test_a_driver_that_nvidia_has_not_tested(computer, version, python, driver, tested):
    computer.set_version(version)
    computer.set_python(python)
    computer.nvidia_smi(f"{driver}, 24564, NVIDIA GeForce RTX 4090")
    assert f"with driver {tested}, this is {driver}" in computer.warning()
    computer.nvidia_smi(f"{tested}, 24564, NVIDIA GeForce RTX 4090")
    assert computer.warnings() == []


def test_without_nvidia_smi_the_driver_s_own_files_tell(computer):
    (computer.folder / "bin/nvidia-smi").unlink()
    assert computer.warnings() == []
    for kind in ("Kernel Module ", "Open Kernel Module for x86_64 "):
        computer.show_in_proc("550.54.15", "NVIDIA H100 80GB HBM3", kind)
        assert "NVIDIA H100 80GB HBM3 has no RT cores" in computer.warning()
        computer.show_in_proc("525.85.12", "NVIDIA L4", kind)
        with pytest.raises(IsaacSimError, match=r"driver 525\.85\.12 is too old"):
            machine.check()


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        (["Failed to initialize NVML: Driver/library version mismatch"], 18, "Driver/library"),
        (["No devices were found"], 6, "No devices were found"),
        ([], 1, "nothing"),
    ],
)
def test_nvidia_smi_that_fails(computer, lines, status, said):
    computer.nvidia_smi(*lines, status=status)
    text = computer.warning()
    assert "nvidia-smi fails and says" in text
    assert said in text
    assert "reboot, in a container pass the GPU with '--gpus all'" in text


@pytest.mark.parametrize("lines", [[], ["", "what?"], ["[N/A], [N/A], NVIDIA GeForce RTX 4090"]])
def test_an_answer_that_says_nothing_is_no_reason_to_refuse(computer, lines):
    computer.nvidia_smi(*lines)
    assert computer.warnings() == []


def test_nvidia_smi_that_hangs(computer, monkeypatch):
    monkeypatch.setattr(gpus, "_TIMEOUT", 0.2)
    (computer.folder / "bin/nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    assert computer.warnings() == []


def test_too_little_memory(computer):
    computer.nvidia_smi("535.183.01, 6144, NVIDIA GeForce RTX 2060")
    assert "the GPU has 6 GB, and NVIDIA asks for 8" in computer.warning()
    computer.nvidia_smi(RTX)
    computer.limit_memory(str(16 * GIB))
    assert "machine or container has 17 GB of memory, and NVIDIA asks for 32" in computer.warning()
    computer.limit_memory(str(32 * GIB))
    assert computer.warnings() == []


def test_a_python_of_another_version(computer):
    computer.set_python((3, 12))
    with pytest.raises(IsaacSimError, match=r"needs Python 3\.10.*'python3\.10 -m venv'"):
        machine.check()


@pytest.mark.parametrize("version", ["4.2.0", "7.0.0", ""])
def test_a_version_that_is_refused_later_is_not_judged(computer, version):
    computer.set_version(version)
    computer.set_python((3, 14))
    assert computer.warnings() == []


@pytest.mark.parametrize("version", ["6.1.0", "6.2.0-rc.1"])
def test_a_version_newer_than_the_sources_that_were_read(computer, version):
    computer.set_version(version)
    computer.set_python((3, 12))
    computer.nvidia_smi("595.58.03, 24564, NVIDIA GeForce RTX 5090")
    text = computer.warning()
    assert f"Isaac Sim {version[:3]} is newer than 6.0" in text
    assert "run the self-test first" in text


def test_packages_that_do_not_fit(computer, monkeypatch):
    monkeypatch.setattr(np, "__version__", "2.2.6")
    assert "compiled for numpy 1; type 'python -m pip install \"numpy<2\"'" in computer.warning()
    computer.set_version("6.0.1")
    computer.set_python((3, 12))
    computer.nvidia_smi("580.95.05, 24564, NVIDIA GeForce RTX 4090")
    assert computer.warnings() == [], "6.0 has numpy 2"
    computer.install("usd-core")
    assert "type 'python -m pip uninstall usd-core'" in computer.warning()


class TestLicence:
    def refused(self, match):
        with pytest.raises(IsaacSimError, match=match):
            machine.check()

    def test_in_nvidia_s_container(self, computer, monkeypatch):
        (computer.isaac / "license.sh").touch()
        self.refused("licence.*has not been accepted.*'-e ACCEPT_EULA=Y'")
        monkeypatch.setenv("ACCEPT_EULA", "Y")
        assert computer.warnings() == []

    def test_after_pip_without_a_terminal(self, computer, monkeypatch):
        computer.pip_install()
        monkeypatch.setattr(sys, "stdin", None)
        match = "no terminal.*type 'export OMNI_KIT_ACCEPT_EULA=YES' first"
        self.refused(match)
        with Path("/dev/null").open() as nothing:
            monkeypatch.setattr(sys, "stdin", nothing)
            self.refused(match)
            for answer in ("", "no", "0"):
                monkeypatch.setenv("OMNI_KIT_ACCEPT_EULA", answer)
                self.refused(match)
            for answer in ("YES", "y", "1"):
                monkeypatch.setenv("OMNI_KIT_ACCEPT_EULA", answer)
                assert computer.warnings() == []

    @pytest.mark.parametrize("place", ["isaacsim/kit", "omni"])
    def test_accepted_at_an_earlier_start(self, computer, monkeypatch, place):
        folder = computer.pip_install().parent / place
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(sys, "stdin", None)
        (folder / "EULA_ACCEPTED").write_text("no\n")
        self.refused("has not been accepted")
        (folder / "EULA_ACCEPTED").write_text("yes\n")
        assert computer.warnings() == []

    def test_on_a_terminal_isaac_sim_asks(self, computer, monkeypatch):
        computer.pip_install()
        ours, theirs = pty.openpty()
        with os.fdopen(ours), os.fdopen(theirs) as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            assert computer.warnings() == []

    def test_of_a_downloaded_installation_was_accepted_there(self, computer, monkeypatch):
        folder = computer.pip_install()
        moved = folder.parent.with_name("python_packages")
        folder.parent.rename(moved)
        monkeypatch.setattr(sys, "stdin", None)
        monkeypatch.setenv("ISAAC_PATH", str(computer.isaac))
        monkeypatch.syspath_prepend(str(moved))
        assert computer.warnings() == []


def test_the_version_of_a_package_is_known_before_it_is_imported(computer):
    folder = computer.pip_install()
    assert machine.version_file() == folder / "VERSION"
    assert machine.read_version() == (4, 5)
