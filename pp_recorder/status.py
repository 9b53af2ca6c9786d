"""The status file of a run for a supervisor, and the memory of processes."""

import json
import logging
import math
import os
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
_CGROUP = Path("/sys/fs/cgroup")


class StatusFile:
    """A small JSON file that is replaced as a whole, so that a reader never sees half of it.

    It keeps its last content after the process has died.

    Args:
        path: The file; None writes nothing.
        facts: Entries that do not change.
    """

    def __init__(self, path: Path | None, **facts: Any) -> None:
        self._path = path
        self._facts = {**facts, "pid": os.getpid()}
        self._has_failed = False

    def update(self, **facts: Any) -> None:
        """Write these entries beside the earlier ones, and the time.

        Where that cannot be done, warn once and go on: a run is worth more than news of it.
        """
        try:
            self.write(**facts)
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                _LOG.warning(f"the status file {self._path} cannot be kept up to date: {error}")
            self._has_failed = True

    def write(self, **facts: Any) -> None:
        """Write these entries beside the earlier ones, and the time.

        Raises:
            OSError: It cannot be done, or there is something other than a file.
        """
        self._facts.update(facts)
        if self._path is None:
            return
        if self._path.exists() and not self._path.is_file():  # a device or a pipe would be gone
            raise OSError("it is no regular file")
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        staged = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            staged.write_text(json.dumps({**self._facts, "updated": now}, indent=2) + "\n")
            os.replace(staged, self._path)
        except OSError:
            with suppress(OSError):
                staged.unlink()
            raise


def resident_memory(pid: int | None = None) -> int | None:
    """Return the bytes of memory that a process holds, this one by default.

    None where the system does not tell, or the process has ended.
    """
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_memory() -> float:
    """Return the bytes of memory that this process and its children may still take.

    The machine's available memory, or the rest of a container's limit if that is less; infinite
    where the system does not tell.
    """
    free = [math.inf]
    with suppress(FileNotFoundError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [1024.0 * int(line.split()[1]) for line in lines if "MemAvailable" in line]
    with suppress(FileNotFoundError, ValueError):  # "max" is no limit
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(float(limit - used))
    return min(free)
