"""Workers without a simulator; their processes import little, so they start soon."""

import multiprocessing
import os
import signal
import time

from pp_recorder.dataset.joining import Join, Joiner
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


class DiesJoining(Joiner):
    """A joiner whose process is killed while it writes a file; once, or always."""

    always = False

    def run(self, index):
        if isinstance(index, Join):
            before = index.target.parent.parent / "died"
            if self.always or not before.exists():
                index.target.write_bytes(b"begun")
                before.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().run(index)


class DiesAlways(DiesJoining):
    """A joiner whose process is killed each time it writes a file."""

    always = True


class DiesAtOnce(Joiner):
    """A joiner whose process is killed before it can begin."""

    def __init__(self, fps):
        super().__init__(fps)
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)


class HangsJoining(Joiner):
    """A joiner that hangs while it writes a file."""

    def run(self, index):
        if isinstance(index, Join):
            index.target.write_bytes(b"begun")
            os.write(1, b"joining\n")  # whole, for two processes do
            time.sleep(600)
        return super().run(index)
