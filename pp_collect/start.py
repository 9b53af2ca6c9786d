"""The start of a collection's process: the console script pp-collect, and Ctrl-C during imports.

Importing what a collection needs takes about a second, in which Python would answer Ctrl-C with a
traceback of whatever module is being imported.
"""

import os
import signal
from importlib import import_module


def main() -> int:
    """Run `collect.py`; return the exit status."""
    leave_on_interrupt()
    return import_module("collect").main()


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
