"""Output that outlives whoever reads it, places that can be written, and full disks."""

import errno
import io
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO


def outlive_readers(full_disks: bool = False) -> None:
    """Let what is printed get lost once its terminal has closed or its pipe ended.

    Otherwise the next line printed would end the program, as would a stream that was closed from
    the start. It has no effect on streams that have been replaced.

    Args:
        full_disks: Whether it may get lost on a full disk, too.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _tolerant(sys.stdout, full_disks)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _tolerant(sys.stderr, full_disks)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that there is no room left for what was to be written."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


def describe_error(error: object, if_full: str = "") -> str:
    """Return the text of an error; that of a full disk ends with what is safe and what to do.

    Args:
        error: Of a command.
        if_full: What is safe, and what to do.
    """
    if if_full and isinstance(error, OSError) and is_disk_full(error):
        return f"the disk is full ({error}); {if_full}"
    if isinstance(error, OSError) and error.filename is not None and error.filename2 is None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def make_folder(folder: Path, what: str) -> None:
    """Make a folder in which files can be written.

    Args:
        folder: Where it is, or shall be.
        what: The option that asks for it.

    Raises:
        OSError: Something else is there, or this user may not write there.
    """
    _make_folder(folder, f"{what} must be a folder that can be written, got {folder}")


def require_file(path: Path, what: str) -> None:
    """Check that a file can be written, and make its folder.

    Args:
        path: Where it is, or shall be.
        what: The option that asks for it.

    Raises:
        OSError: It cannot.
    """
    problem = f"{what} must be a file that can be written, got {path}"
    if not os.path.exists(path):
        _make_folder(path.parent, problem)
    elif path.is_dir():
        raise OSError(f"{problem}, which is a folder")
    elif not os.access(path, os.W_OK):
        raise OSError(f"{problem}: {os.strerror(errno.EACCES)}")


def _make_folder(folder: Path, problem: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{problem}: {error.strerror}") from error


class _TolerantFile(io.FileIO):
    """A file whose writes do not fail because nobody reads them.

    Attributes:
        full_disks: Whether they do not fail on a full disk, either.
    """

    full_disks = False

    def write(self, data: Any) -> int | None:
        """Write, or lose the data."""
        try:
            return super().write(data)
        except OSError as error:
            if is_disk_full(error) and not self.full_disks:
                raise
            return memoryview(data).nbytes


def _tolerant(stream: TextIO | None, full_disks: bool) -> TextIO:
    """Return a stream to the same descriptor; for None, which is a closed one, to nowhere."""
    if stream is None:
        return open(os.devnull, "w")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    with suppress(OSError):
        stream.flush()
    file: Any = _TolerantFile(stream.fileno(), "w", closefd=False)
    file.full_disks = full_disks
    return io.TextIOWrapper(
        file if stream.write_through else io.BufferedWriter(file),  # as PYTHONUNBUFFERED asks for
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.isatty() or stream.line_buffering,
        write_through=stream.write_through,
    )
