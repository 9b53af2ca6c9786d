"""The reports of `pp-inspect`: made in the background, each once, one after the other."""

import asyncio
import json
import os
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pp_recorder.dataset.reader import DatasetError

TIME_LIMIT = 600.0  # s for one report, beside waiting for its turn

_GRACE = 30.0  # s in which somebody may ask again for a report whose clients have left
_MAX_KEPT = 16
_MAX_BYTES = 16 * 2**20  # of a report
_MAX_MEMORY = 8 * 2**30  # bytes of addresses
# What a stranger's dataset makes it do ends with its process. Python of the working directory is
# left out of the path before anything else is imported; -P would do so from Python 3.11 on.
_PROGRAM = f"""
import os, sys
sys.path[:] = sys.argv.pop().split(os.pathsep)
import resource
for kind, most in ("AS", {_MAX_MEMORY}), ("FSIZE", {_MAX_BYTES}), ("CPU", {{seconds}}):
    kind = getattr(resource, "RLIMIT_" + kind)
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))
from pp_recorder.checks.cli import main
sys.exit(main())
"""


@dataclass
class _Job:
    """A report that is being made, or waits for its turn.

    Attributes:
        task: Returns the report.
        clients: The number of those who wait for it.
    """

    task: asyncio.Task[str]
    clients: int = 0

    def end_if_abandoned(self) -> None:
        """End it unless somebody waits."""
        if not self.clients:
            self.task.cancel()


class Reports:
    """Makes reports, keeps the newest ones, and gives up those that nobody waits for any more.

    Args:
        clean: Applied to every text in a report.
        time_limit: For each, s.
    """

    def __init__(self, clean: Callable[[str], str], time_limit: float = TIME_LIMIT) -> None:
        self._clean = clean
        self._time_limit = time_limit
        self._import_path = _import_path()
        self._turn = asyncio.Lock()  # a report keeps a core busy
        self._jobs: dict[Path, _Job] = {}
        self._kept: OrderedDict[Path, tuple[str, str]] = OrderedDict()

    async def get(self, root: Path, version: str) -> str:
        """Return the report of a dataset as JSON, perhaps that of a moment ago if it grows.

        Args:
            root: The dataset.
            version: A text that changes with the dataset.

        Raises:
            DatasetError: It can't be inspected.
        """
        if root in self._kept and self._kept[root][0] == version:
            self._kept.move_to_end(root)
            return self._kept[root][1]
        job = self._jobs.get(root)
        if job is None:
            job = self._jobs[root] = _Job(asyncio.ensure_future(self._make(root, version)))
            job.task.add_done_callback(lambda task: self._forget(root, task))
        job.clients += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            job.clients -= 1
            asyncio.get_running_loop().call_later(_GRACE, job.end_if_abandoned)

    async def close(self) -> None:
        """End all processes."""
        tasks = [job.task for job in self._jobs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, root: Path, task: asyncio.Task[str]) -> None:
        del self._jobs[root]
        if not task.cancelled():
            task.exception()  # it counts as seen, also where no client is left

    async def _make(self, root: Path, version: str) -> str:
        async with self._turn:
            output, log = await self._run(root)
        report = await asyncio.to_thread(self._finish, root.name, output, log)
        self._kept[root] = version, report
        while len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return report

    def _finish(self, name: str, output: str, log: str) -> str:
        """Return the report in the form for clients."""

        def clean(values: dict[str, Any]) -> dict[str, Any]:
            return {k: self._clean(v) if isinstance(v, str) else v for k, v in values.items()}

        try:
            # JSON has no NaN and no infinite numbers, though Python's module writes them
            report = json.loads(output, parse_constant=lambda _: None, object_hook=clean)
        except ValueError:
            reason = (log.strip().splitlines() or ["it gave no report"])[-1]
            raise DatasetError(f"{name} can't be inspected: {reason[:1000]}") from None
        return json.dumps({**report, "dataset": name})

    async def _run(self, root: Path) -> tuple[str, str]:
        """Return what pp-inspect writes to stdout and to stderr."""
        program = _PROGRAM.format(seconds=round(self._time_limit) + 1)
        command = [sys.executable, "-c", program, str(root), "--json", "-", self._import_path]
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=log
            )
            try:
                await asyncio.wait_for(process.wait(), self._time_limit)
            except asyncio.TimeoutError:
                raise DatasetError(
                    f"{root.name} was not inspected within {self._time_limit:.0f} s; "
                    "run pp-inspect where it is stored"
                ) from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            texts = []
            for file in (output, log):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return texts[0], texts[1]


def _import_path() -> str:
    """Return where Python finds modules: as here, and this project, but not the working folder."""
    places = [place for place in sys.path if place and os.path.abspath(place) != os.getcwd()]
    return os.pathsep.join([*places, str(Path(__file__).parents[1])])
