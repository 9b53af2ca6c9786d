"""Which NVIDIA GPUs this process may use."""

import os
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

_PROGRAM = "nvidia-smi"
_TIMEOUT = 30.0  # s, in which the driver loads and wakes the GPUs
_DRIVER = Path("/proc/driver/nvidia/gpus")


def ask_nvidia_smi(columns: str, units: bool = True) -> list[str]:
    """Return properties of each GPU, a line of comma-separated values each.

    Args:
        columns: Their names, separated by commas, as `nvidia-smi --help-query-gpu` lists them.
        units: Whether values have their units.

    Raises:
        OSError: There is no `nvidia-smi`.
        subprocess.SubprocessError: It hangs, or fails; a `CalledProcessError` has what it said.
    """
    form = "--format=csv,noheader" if units else "--format=csv,noheader,nounits"
    command = (_PROGRAM, f"--query-gpu={columns}", form)
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True)
    return done.stdout.splitlines()


def usable_gpus() -> tuple[int, ...]:
    """Return the numbers of the GPUs that this process may use, as `nvidia-smi` counts them.

    CUDA_VISIBLE_DEVICES chooses them, by number or by the beginning of their UUID, in its order and
    up to the first that does not exist, as in CUDA. If it is empty, which Ray does for processes
    that do not compute on a GPU, they may still draw on any.
    """
    uuids = installed_gpus()
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not names:
        return tuple(range(len(uuids)))
    chosen: list[int] = []
    for name in (name.strip() for name in names.split(",")):
        found = [k for k, uuid in enumerate(uuids) if name == str(k) or _begins(uuid, name)]
        if len(found) != 1:
            break
        chosen += found
    return tuple(chosen)


def _begins(uuid: str, name: str) -> bool:
    return name.startswith("GPU-") and uuid.startswith(name)


@cache
def installed_gpus() -> tuple[str, ...]:
    """Return the UUIDs of this machine's GPUs, or of those that its container has.

    Where there is no `nvidia-smi`, the driver tells, though it may name more than a container has.
    """
    with suppress(OSError, subprocess.SubprocessError):
        lines = ask_nvidia_smi("uuid")
        return tuple(line.strip() for line in lines if line.startswith("GPU-"))
    return tuple(_uuid(folder) for folder in sorted(_DRIVER.glob("*")))


def _uuid(folder: Path) -> str:
    with suppress(OSError):
        for line in (folder / "information").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "GPU UUID":
                return value.strip()
    return ""
