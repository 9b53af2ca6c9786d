"""Standard output and error of a program that outlives whoever reads them; and full disks."""

import errno
import io
import sys
from contextlib import suppress
from typing import Any, TextIO


def outlive_readers() -> None:
    """Let what is printed get lost once its terminal has closed, its pipe ended or its disk filled.

    Otherwise the next line printed would end the program. It has no effect on streams that have
    been replaced.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _tolerant(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _tolerant(sys.stderr)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that there is no room left for what was to be written."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


def describe_error(error: BaseException, if_full: str) -> str:
    """Return the text of an error; that of a full disk ends with what is safe and what to do.

    Args:
        error: Of a command that writes.
        if_full: What is safe, and what to do.
    """
    return f"the disk is full ({error}); {if_full}" if is_disk_full(error) else str(error)


class _TolerantFile(io.FileIO):
    """A file whose writes never fail."""

    def write(self, data: Any) -> int | None:
        """Write, or lose the data."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _tolerant(stream: TextIO | None) -> TextIO | None:
    """Return a stream to the same descriptor; None, as Python has it for a closed one, stays."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    with suppress(OSError):
        stream.flush()
    file: Any = _TolerantFile(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        file if stream.write_through else io.BufferedWriter(file),  # as PYTHONUNBUFFERED asks for
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.isatty() or stream.line_buffering,
        write_through=stream.write_through,
    )
