"""Check machine and installation before Isaac Sim starts, where its own messages come late or not.

What can't work is refused. What NVIDIA only does not support, or what was not verified, is a
warning. The numbers are those of NVIDIA's requirement pages; docs/isaac-sim.md says which of them
were read second-hand.
"""

import csv
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pp_env.gpus import ask_nvidia_smi


class IsaacSimError(RuntimeError):
    """An error of Isaac Sim or its installation; the message names the fix."""


class Requirements(NamedTuple):
    """What a version needs.

    Attributes:
        python: The only version of Python that its compiled modules load in.
        driver: The Linux driver that NVIDIA has tested it with.
        gpu_memory: GB of the smallest GPU that NVIDIA supports.
        numpy: Major version that its modules are compiled for.
    """

    python: tuple[int, int]
    driver: str
    gpu_memory: int
    numpy: int


class Gpu(NamedTuple):
    """A GPU that the driver shows.

    Attributes:
        name: Its model.
        memory: GB; None if unknown.
    """

    name: str
    memory: float | None = None


OLDEST, NEWEST = (4, 5), (6, 0)  # whose sources were read; newer ones below 7 may work, too

# From this version on. For 5.0 no tested driver was found.
REQUIREMENTS = {
    (4, 5): Requirements((3, 10), "535.129.03", 8, 1),
    (5, 0): Requirements((3, 11), "535.129.03", 16, 1),
    (5, 1): Requirements((3, 11), "580.65.06", 16, 1),
    (6, 0): Requirements((3, 12), "580.95.05", 16, 2),
    (6, 1): Requirements((3, 12), "595.58.03", 16, 2),
}
# Below it the renderer of every version refuses to start, and all images are empty.
OLDEST_DRIVER = (535, 129)
MEMORY = 32  # GB, of the smallest machine that NVIDIA supports

_TOLERANCE = 0.9  # of a size in GB: firmware and driver keep a part
_NO_RT_CORES = re.compile(
    r"\b(GTX|GT|MX\d+|CMP|TITAN (V|X|Xp)|[KMP]\d{1,4}|V100S?|GV100|T[46]00|T1[02]?00"
    r"|A30X?|A100X?|A800|H\d{2,3}|GH200|B\d{3}|GB[23]00)\b"
)
_PROC = Path("/proc/driver/nvidia")
_WINDOWS_DRIVER = Path("/dev/dxg")  # in WSL
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
_ACCEPTED = ("y", "yes", "1")


def check() -> None:
    """Check what the application will need; warn of what NVIDIA does not support.

    Raises:
        IsaacSimError: There is no driver, it or Python is of a wrong version, or the licence was
            not accepted.
    """
    _require_driver_visible()
    _require_licence()
    driver, gpus = query_gpus()
    found = read_version()
    wanted = None
    if found is not None and OLDEST <= found < (NEWEST[0] + 1, 0):  # others are refused later
        wanted = requirements(found)
        _warn_of_newer(found)
        _require_python(wanted)
        _check_packages(wanted)
    _check_driver(driver, wanted)
    _check_gpus(gpus, wanted)
    _check_memory()


def version_file() -> Path:
    """Return the file with the version of the installation that `import isaacsim` would load."""
    if folder := os.environ.get("ISAAC_PATH"):
        return Path(folder) / "VERSION"
    return (_package() or Path()) / "VERSION"


def read_version() -> tuple[int, int] | None:
    """Return the installation's major and minor version, None if it is unknown."""
    with suppress(OSError, ValueError):
        major, minor = version_file().read_text().strip().split("-")[0].split(".")[:2]
        return int(major), int(minor)
    return None


def requirements(version: tuple[int, int]) -> Requirements:
    """Return what a version, not older than the oldest, needs: as the newest known one up to it."""
    return REQUIREMENTS[max(key for key in REQUIREMENTS if key <= version)]


def query_gpus() -> tuple[str | None, list[Gpu]]:
    """Return the driver's version, None if unknown, and the GPUs of this machine or container.

    `CUDA_VISIBLE_DEVICES` hides none of them, neither here nor from the renderer.
    """
    try:
        lines = ask_nvidia_smi("driver_version,memory.total,name", units=False)
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip().splitlines() or ["nothing"]
        warnings.warn(
            f"nvidia-smi fails and says {said[0]!r}; if Isaac Sim fails, too: after an update of "
            "the driver reboot, in a container pass the GPU with '--gpus all' or "
            "'nvidia.com/gpu: 1'",
            stacklevel=2,
        )
        return _query_proc()
    except (OSError, subprocess.TimeoutExpired):
        return _query_proc()
    driver, gpus = None, []
    for row in csv.reader(lines, skipinitialspace=True):
        if len(row) == 3:
            driver = row[0] if re.fullmatch(r"\d+(\.\d+)+", row[0]) else None
            megabytes = float(row[1]) if row[1].isdecimal() else None  # some show [N/A]
            gpus.append(Gpu(row[2].strip(), None if megabytes is None else megabytes * 2**20 / 1e9))
    return driver, gpus


def _query_proc() -> tuple[str | None, list[Gpu]]:
    text = ""
    with suppress(OSError):
        text = (_PROC / "version").read_text()
    driver = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    files = sorted(_PROC.glob("gpus/*/information"))
    models = [re.search(r"^Model:\s*(.+?)\s*$", f.read_text(), re.MULTILINE) for f in files]
    return driver and driver[0], [Gpu(model[1]) for model in models if model]


def _package() -> Path | None:
    """Return the folder of the package `isaacsim`, without importing it."""
    with suppress(ValueError):  # imported, but without a specification
        spec = importlib.util.find_spec("isaacsim")
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).resolve().parent
    return None


def _require_driver_visible() -> None:
    if not any(path.exists() for path in (_PROC / "version", _WINDOWS_DRIVER)):
        raise IsaacSimError(
            "Isaac Sim needs an NVIDIA RTX GPU, and no NVIDIA driver is visible "
            f"({_PROC / 'version'} is missing); in a container pass it with '--gpus all' or "
            "'nvidia.com/gpu: 1'"
        )


def _require_licence() -> None:
    """Ask for what the start scripts of NVIDIA's container and the pip package ask for.

    `python.sh` goes round the first. The second reads an answer, for which nobody may be there.
    """
    package = _package()
    if Path(os.environ.get("ISAAC_PATH", ""), "license.sh").is_file():
        if not os.environ.get("ACCEPT_EULA"):
            raise IsaacSimError(
                "NVIDIA's licence for Isaac Sim has not been accepted; if you accept it, start the "
                "container with '-e ACCEPT_EULA=Y'"
            )
        return
    if package is None or package.parent.name == "python_packages":
        return  # there is none, or it was accepted at the download
    if os.environ.get("OMNI_KIT_ACCEPT_EULA", "").lower() in _ACCEPTED:
        return
    for file in (package / "kit/EULA_ACCEPTED", package.parent / "omni/EULA_ACCEPTED"):
        with suppress(OSError):
            if file.read_text().strip().lower() in _ACCEPTED:
                return
    if sys.stdin is None or not sys.stdin.isatty():
        raise IsaacSimError(
            "NVIDIA's licence for Isaac Sim has not been accepted, and there is no terminal on "
            "which it could ask; if you accept it, type 'export OMNI_KIT_ACCEPT_EULA=YES' first"
        )


def _warn_of_newer(found: tuple[int, int]) -> None:
    if found > NEWEST:
        newer, known = (".".join(map(str, version)) for version in (found, NEWEST))
        warnings.warn(
            f"Isaac Sim {newer} is newer than {known}, the newest whose sources this project was "
            "compared with; run the self-test first: python -m pp_collect.isaac_check",
            stacklevel=3,
        )


def _require_python(wanted: Requirements) -> None:
    if sys.version_info[:2] != wanted.python:
        python = ".".join(map(str, wanted.python))
        raise IsaacSimError(
            f"Isaac Sim in {version_file().parent} needs Python {python}, this is "
            f"{sys.version.split()[0]}; use its python.sh, or install it with pip in a virtual "
            f"environment made by 'python{python} -m venv'"
        )


def _check_packages(wanted: Requirements) -> None:
    if int(np.__version__.split(".")[0]) > wanted.numpy:
        warnings.warn(
            f"numpy {np.__version__} is installed, and this Isaac Sim is compiled for numpy "
            f"{wanted.numpy}; type 'python -m pip install \"numpy<{wanted.numpy + 1}\"' with Isaac "
            "Sim's Python",
            stacklevel=3,
        )
    with suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("usd-core")
        warnings.warn(
            "usd-core is installed, and Isaac Sim has its own pxr; type 'python -m pip uninstall "
            "usd-core' with Isaac Sim's Python",
            stacklevel=3,
        )


def _check_driver(driver: str | None, wanted: Requirements | None) -> None:
    if driver is None or _WINDOWS_DRIVER.exists():  # Windows numbers its drivers otherwise
        return
    tested = (wanted or requirements(OLDEST)).driver
    numbers = _numbers(driver)
    if numbers[:2] < OLDEST_DRIVER:
        raise IsaacSimError(
            f"the NVIDIA driver {driver} is too old: Isaac Sim's renderer refuses drivers below "
            f"{'.'.join(map(str, OLDEST_DRIVER))}; install {tested} or newer on the host"
        )
    # IsaacLab#4244: a driver of 535 with a higher second number was taken for 535.18. Vulkan gives
    # it 8 bits.
    seen = (numbers[0], numbers[1] % 256)
    if seen < OLDEST_DRIVER:
        warnings.warn(
            f"Isaac Sim may take the NVIDIA driver {driver} for {seen[0]}.{seen[1]} and refuse it "
            f"as too old; if images stay empty, install a driver of 550 or newer on the host",
            stacklevel=3,
        )
    elif numbers < _numbers(tested):
        warnings.warn(
            f"NVIDIA has tested this Isaac Sim with driver {tested}, this is {driver}; if it "
            f"fails or images are wrong, install {tested} or newer on the host",
            stacklevel=3,
        )


def _check_gpus(gpus: list[Gpu], wanted: Requirements | None) -> None:
    without = [gpu.name for gpu in gpus if _NO_RT_CORES.search(gpu.name)]
    if without:
        others = " beside another" if len(without) < len(gpus) else ""
        fix = (
            "pass only the other to the container, as '--gpus device=N' (CUDA_VISIBLE_DEVICES does "
            "not hide it from the renderer)"
            if others
            else "use one of the series RTX, L4, L40 or A10"
        )
        warnings.warn(
            f"the GPU {', '.join(sorted(set(without)))} has no RT cores{others}, and NVIDIA does "
            f"not support it: Isaac Sim fails at the start or draws noisy images; {fix}",
            stacklevel=3,
        )
    sizes = [gpu.memory for gpu in gpus if gpu.memory is not None]
    least = (wanted or requirements(OLDEST)).gpu_memory
    if sizes and max(sizes) < _TOLERANCE * least:
        warnings.warn(
            f"the GPU has {max(sizes):.0f} GB, and NVIDIA asks for {least}; if memory is short, "
            "lower --resolution or use a larger GPU",
            stacklevel=3,
        )


def _check_memory() -> None:
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # "max" is no limit
        size = min(size, int(_MEMORY_LIMIT.read_text()))
    if size < _TOLERANCE * MEMORY * 1e9:
        warnings.warn(
            f"this machine or container has {size / 1e9:.0f} GB of memory, and NVIDIA asks for "
            f"{MEMORY}; if it is killed, give it more",
            stacklevel=3,
        )


def _numbers(driver: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", driver))
