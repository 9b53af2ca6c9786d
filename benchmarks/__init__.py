"""Repeatable measurements; `benchmarks.report` shows their results."""

import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def save(name: str, results: dict[str, Any]) -> None:
    """Write results, and the machine they were measured on, to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **results}, indent=2)
    (RESULTS / f"{name}.json").write_text(text)


def load(name: str) -> Any:
    """Return the results that `save` wrote or the rows of trials, or None if there are none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def machine() -> dict[str, Any]:
    """Return what speed depends on: processor, cores, GPU, versions, and the current load."""
    import mujoco

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "mujoco": mujoco.__version__,
        "gpu": _gpu(),
        "load": os.getloadavg()[1],  # over five minutes
    }


def peak_memory_mb() -> float:
    """Return the peak memory of this process, MB."""
    # Not getrusage: its peak includes the parent's, from before exec.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def _gpu() -> str | None:
    """Return the number of NVIDIA GPUs and the name of the first, or None without a driver."""
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    if not cards:
        return None
    name = cards[0].read_text().partition("Model:")[2].partition("\n")[0].strip()
    return f"{len(cards)} x {name}"


def _processor() -> str:
    name = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0]
    return name.strip(" \t:") or platform.machine()
