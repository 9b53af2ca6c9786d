"""The process of a collection: requests to stop it, and its restart."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from pp_collect.options import CollectOptions
from pp_recorder.parallel.processes import STOP_SIGNALS
from pp_recorder.status import resident_memory


class StopRequest:
    """A signal handler that notes the first request to stop; the second interrupts at once.

    Attributes:
        requested: Whether a stop was requested.
    """

    requested = False

    def __call__(self, *_: object) -> None:
        """Handle a signal."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a request to stop between two steps.

    SIGHUP, which a terminal sends when it closes, stays ignored if it was, as with `nohup`.
    """
    stop = StopRequest()
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    handled = [s for s in STOP_SIGNALS if s != signal.SIGHUP or not ignored]
    before = {s: signal.signal(s, stop) for s in handled}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def restart_is_due(options: CollectOptions, finished: int, pid: int | None = None) -> bool:
    """Return whether a process, this one by default, is to restart after so many episodes."""
    if finished == 0:
        return False
    enough = options.restart_every is not None and finished >= options.restart_every
    memory = resident_memory(pid) or 0
    return enough or (options.restart_above is not None and memory > options.restart_above * 1e9)


def restart_process(words: Sequence[str]) -> NoReturn:
    """Replace this process by one that resumes the collection.

    What a simulator has leaked goes with the old one, of which only the process number remains.

    Args:
        words: What Python was started with.
    """
    command = [sys.executable, *words]
    if "--resume" not in command:
        command.append("--resume")
    sys.stdout.flush()
    sys.stderr.flush()
    # Both the mask and what it holds back survive, so no request to stop falls between the two.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # or a GPU's context would be kept
    os.execv(sys.executable, command)
