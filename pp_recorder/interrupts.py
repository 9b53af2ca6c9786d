"""Ctrl-C while a command imports what it needs, and while it works.

Imports take about a second, in which Python would answer Ctrl-C with a traceback of whatever module
is being imported.
"""

import os
import signal
import sys


def leave_on_interrupt() -> None:
    """End the process at Ctrl-C, as long as there is nothing to tidy up."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """Let Ctrl-C be a `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted(safe: str) -> int:
    """Say what is safe after a `KeyboardInterrupt`; return the exit status."""
    print(f"interrupted: {safe}", file=sys.stderr)
    return 130


def _leave(*_: object) -> None:
    os.write(2, b"interrupted: nothing was begun\n")
    os._exit(130)
