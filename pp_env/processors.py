"""How many processors this process may use, with the limits of containers."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_processors(cgroups: Path = _CGROUPS, own_cgroups: Path = _OWN_CGROUPS) -> int:
    """Return the number of processors that this process may use, at least 1.

    These are the processors it may run on, or fewer if a control group, its own or one around it,
    has less processor time. A part of a processor counts as one, so that none of it stays unused.

    Args:
        cgroups: Where control groups are mounted, of version 1 or 2.
        own_cgroups: The file that lists the groups of this process.
    """
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        count = len(os.sched_getaffinity(0))
    quota = min(_quotas(cgroups, own_cgroups), default=math.inf)
    return max(1, count if quota > count else math.ceil(quota))


def _quotas(cgroups: Path, own_cgroups: Path) -> Iterator[float]:
    """Yield the processor time per time of each group around this process that has a limit."""
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            for folder in _folders_upwards(cgroups, group):
                yield from _quota_2(folder)
        elif "cpu" in controllers.split(","):
            for mount in {controllers, "cpu"}:  # one is often a link to the other
                for folder in _folders_upwards(cgroups / mount, group):
                    yield from _quota_1(folder)


def _folders_upwards(mount: Path, group: str) -> Iterator[Path]:
    """Yield the folder of a group and those around it.

    In a container the group may be named as the host sees it. Its folder is then the mount itself,
    and those between are missing.
    """
    parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _quota_2(folder: Path) -> Iterator[float]:
    with suppress(OSError, ValueError, ZeroDivisionError):  # "max" is no limit
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)


def _quota_1(folder: Path) -> Iterator[float]:
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (int((folder / name).read_text()) for name in names)
        if quota > 0:  # -1 is no limit
            yield quota / period
