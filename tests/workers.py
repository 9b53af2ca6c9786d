"""Workers without a simulator; their processes import little, so they start soon."""

import os
import time

from pp_recorder.parallel.processes import STOP_SIGNALS, Worker
from tests.stuck import Stuck


class Echo:
    """A worker, made by a factory that gets every request to stop before its process is ready."""

    def run(self, index):
        return index

    def close(self):
        pass

    def __call__(self):
        return self

    def __reduce__(self):
        return _echo_after_signals, ()


def _echo_after_signals():
    for number in STOP_SIGNALS:
        os.kill(os.getpid(), number)
    return Echo()


class SlowWorker(Worker):
    """A worker whose first episode takes longest."""

    def run(self, index):
        time.sleep(1.0 if index == 0 else 0.0)
        return os.environ["WHO"], time.monotonic()


class Who(Worker):
    """A worker that says in which process it is."""

    def run(self, index):
        return os.getpid()


class Ends(Worker):
    """A worker that ends its process in the first episode, or hangs as it is closed."""

    def __init__(self, folder, how):
        self._once, self._how = folder / "once", how

    def run(self, index):
        if self._how == "leaves" and not self._once.exists():
            self._once.touch()
            raise SystemExit(0)  # as Isaac Sim's handler of Ctrl-C does
        return index

    def close(self):
        Stuck().run(0)


class Interrupted(Worker):
    """A worker whose process ends while it begins, by a request to stop that all have heard."""

    def __init__(self, request):
        request.touch()
        raise SystemExit(0)
