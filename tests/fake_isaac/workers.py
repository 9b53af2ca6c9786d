"""What `collect.py` runs in worker processes, on a fake Isaac Sim that each of them has."""

import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pp_collect import session
from pp_env.sim.isaac import cameras, machine
from pp_recorder.parallel.processes import STOP_SIGNALS
from tests.fake_isaac import FakeIsaac


@dataclass(frozen=True)
class Plan:
    """What happens in the processes.

    Attributes:
        folder: Where each process writes on which GPU it was started.
        assets: Isaac Sim's assets.
        killed_at: The attempt that kills the first process which comes to it.
    """

    folder: Path
    assets: Path
    killed_at: int | None = None

    def enter(self) -> None:
        """Install the fake in this process for good, and report how it is started."""
        machine.check = lambda: None
        cameras._TIME_TO_WARM_UP = 0.0
        fake = FakeIsaac("4.5.0", self.assets)
        fake.__enter__()
        start = fake.start

        def report(settings: dict[str, Any]) -> None:
            config = fake.app.model.config
            gpus = {name: config.get(name) for name in ("active_gpu", "physics_gpu", "multi_gpu")}
            with (self.folder / "started").open("a") as file:
                file.write(json.dumps(gpus) + "\n")
            start(settings)

        fake.start = report

    def started(self) -> list[dict[str, Any]]:
        """Return with which GPUs each process started its application, in that order."""
        return [json.loads(line) for line in (self.folder / "started").read_text().splitlines()]


@dataclass(frozen=True)
class Describe:
    """`describe_simulator` on the fake."""

    plan: Plan

    def __call__(self, *args: Any) -> dict[str, Any]:
        self.plan.enter()
        return session.describe_simulator(*args)


@dataclass(frozen=True)
class MakeWorker:
    """`RolloutWorker` on the fake. Requests to stop, which it leaves to the parent, do not end it.

    Isaac Sim has a handler of its own for Ctrl-C.
    """

    plan: Plan

    def __call__(self, *args: Any) -> session.RolloutWorker:
        self.plan.enter()
        worker = session.RolloutWorker(*args)
        for number in STOP_SIGNALS:
            signal.raise_signal(number)
        run = worker.run

        def run_or_die(index: int) -> session.RolloutResult:
            if index == self.plan.killed_at:
                with suppress(FileExistsError):
                    (self.plan.folder / "killed").touch(exist_ok=False)
                    os.kill(os.getpid(), signal.SIGKILL)
            return run(index)

        worker.run = run_or_die
        return worker
