"""Commits of several files, as atomic as a file system allows, and the lock of a dataset."""

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.dataset import tables
from pp_recorder.dataset.files import locate
from pp_recorder.dataset.paths import table_path

UNFINISHED = ".unfinished"
LOCK = ".lock"

_LOG = logging.getLogger(__name__)
_LOCK_ATTEMPTS = 100  # each but the last ends because another run has just finished
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
# What file systems answer that lack an operation: Lustre, DVS, NFS without locks, FUSE, SMB.
_LACKING = {
    *(errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK),
    *(errno.EINVAL, errno.ENOTTY, errno.EISDIR),
}


class RemoteTarget(Protocol):
    """A remote copy of a dataset, which receives every commit before the local directory does.

    There videos are kept; here they are empty files.
    """

    def publish(self, files: Sequence[tuple[Path, str]], removed: Sequence[str]) -> None:
        """Store files in this order, each with its name, and then remove others."""
        ...

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file that is stored to a local path."""
        ...


class Commit:
    """A set of files that are completed and flushed first, and then renamed in the order added.

    Everything that can fail for lack of space happens before the first rename.

    Args:
        root: The dataset's directory.
        remote: The target that receives the files before they are renamed here; or None.
    """

    def __init__(self, root: Path, remote: RemoteTarget | None = None) -> None:
        self._root = root
        self._remote = remote
        self._files: list[tuple[Path, str]] = []
        self._removed: list[str] = []

    def add_file(self, name: str, staged: Path) -> None:
        """Add a finished file, which must be on the dataset's file system.

        Args:
            name: Its final path, relative to the dataset's directory.
            staged: Its present path.
        """
        _flush(staged)
        self._files.append((staged, name))

    def add_link(self, name: str, source: Path) -> None:
        """Add another name of a file of the dataset: a hard link where possible, else a copy."""
        staged = self._staging_path(name)
        staged.unlink(missing_ok=True)
        try:
            os.link(source, staged)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, staged)
        self.add_file(name, staged)

    def add_json(self, name: str, content: Any) -> None:
        """Add a JSON file."""
        self.add_bytes(name, (json.dumps(content, indent=2) + "\n").encode())

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add a file with this content."""
        staged = self._staging_path(name)
        staged.write_bytes(content)
        self.add_file(name, staged)

    def add_table(self, name: str, table: pa.Table) -> None:
        """Add a parquet file; its bytes depend on the values, not on who wrote them."""
        staged = self._staging_path(name)
        pq.write_table(tables.with_plain_types(table, staged), table_path(staged))
        self.add_file(name, staged)

    def remove(self, path: Path) -> None:
        """Delete a file of the dataset after all files have been renamed."""
        self._removed.append(str(path.relative_to(self._root)))

    def publish(self) -> None:
        """Rename every file to its final path, and delete those to be removed."""
        if self._remote is not None:
            self._remote.publish(self._files, self._removed)
        targets = [(staged, locate(self._root, name)) for staged, name in self._files]
        folders = {target.parent for _, target in targets}
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for staged, target in targets:
            os.replace(staged, target)
        for name in self._removed:
            (self._root / name).unlink()
        for folder in folders:
            _flush(folder)

    def _staging_path(self, name: str) -> Path:
        return staging_path(self._root, name.replace("/", "_"))


def staging_path(root: Path, name: str) -> Path:
    """Return the path of an unfinished file of the dataset; create its folder."""
    folder = locate(root, UNFINISHED)
    folder.mkdir(exist_ok=True)
    return folder / name


def lock(root: Path) -> int:
    """Lock a dataset's directory for this process, until it ends or calls `unlock`.

    On a file system without locks, warn once and go on.

    Returns:
        The handle for `unlock`.

    Raises:
        FileExistsError: Another process has locked it.
        OSError: The lock cannot be used.
    """
    for _ in range(_LOCK_ATTEMPTS):
        handle = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LACKING:
                _warn_once(
                    "this file system has no locks, so nothing keeps a second run out of the "
                    "output; start only one"
                )
                return handle
            os.close(handle)
            if error.errno not in _HELD:
                raise
            break
        if _is_named(root, handle):
            return handle
        os.close(handle)  # of a file that its owner has removed since it was opened
    raise FileExistsError(
        f"another run is writing into {root}; wait for it, or choose another output"
    )


def unlock(root: Path, handle: int) -> None:
    """Release the lock of `lock`, and remove its file if it is still that of this lock."""
    if _is_named(root, handle):  # and stays so: only its owner removes it
        (root / LOCK).unlink()
    os.close(handle)


def _is_named(root: Path, handle: int) -> bool:
    """Return True if the lock's name is that of this open file, and not of one that came later."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(root / LOCK))
    except FileNotFoundError:
        return False


def _flush(path: Path) -> None:
    """Flush a file, or the renames in a folder, to the disk, so that they survive a power cut.

    Where the file system cannot, warn once and go on.

    Raises:
        OSError: The disk is full or broken.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        _warn_once(
            "this file system does not flush on request, so a power cut may take the newest "
            "episodes; everything else is as safe as elsewhere"
        )


@cache
def _warn_once(text: str) -> None:
    # A log message, for a warning that has become an error would break a commit off.
    _LOG.warning(text)
