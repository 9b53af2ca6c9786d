"""The console scripts pp-collect and pp-evaluate, and Ctrl-C while they import what they need.

That takes about a second, in which Python would answer Ctrl-C with a traceback of whatever module
is being imported.
"""

import os
import signal
from importlib import import_module


def collect() -> int:
    """Run pp-collect; return the exit status."""
    return _run("collect")


def evaluate() -> int:
    """Run pp-evaluate; return the exit status."""
    return _run("pp_collect.evaluate")


def _run(module: str) -> int:
    leave_on_interrupt()
    return import_module(module).main()


def leave_on_interrupt() -> None:
    """End the process at Ctrl-C, as long as there is nothing to tidy up."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """Let Ctrl-C be a `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    os.write(2, b"interrupted: nothing was begun\n")
    os._exit(130)
