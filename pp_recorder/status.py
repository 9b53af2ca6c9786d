"""What a supervisor may know about a run, also when the process can't tell it any more."""

import json
import math
import os
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")


class StatusFile:
    """A small JSON file that is replaced as a whole, so that a reader never sees half of it.

    Args:
        path: Where it is; None writes nothing.
        facts: What does not change.
    """

    def __init__(self, path: Path | None, **facts: Any) -> None:
        self._path = path
        self._facts = {**facts, "pid": os.getpid()}

    def update(self, **facts: Any) -> None:
        """Writes these facts beside those known before, and the time."""
        self._facts.update(facts)
        if self._path is None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        aside.write_text(json.dumps({**self._facts, "updated": now}, indent=2) + "\n")
        os.replace(aside, self._path)


def resident_memory() -> int | None:
    """Bytes of memory that this process holds; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_memory() -> float:
    """Bytes of memory that this process and its children may still take.

    What the machine has available, or less where a container's limit says so; infinite where
    the system does not tell.
    """
    free = [math.inf]
    with suppress(FileNotFoundError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [1024.0 * int(line.split()[1]) for line in lines if "MemAvailable" in line]
    with suppress(FileNotFoundError, ValueError):  # "max" is no limit
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(float(limit - used))
    return min(free)
