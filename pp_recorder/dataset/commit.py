"""All or nothing, as far as a file system allows: an episode's files, and who may write them."""

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

UNFINISHED = ".unfinished"
LOCK = ".lock"


class RemoteTarget(Protocol):
    """Where the dataset is kept, if its directory is only where it comes about."""

    def publish(self, files: Sequence[tuple[Path, str]], removed: Sequence[str]) -> None:
        """Takes files, each with its name, in this order, and then removes others."""
        ...


class Commit:
    """Files that are completed and flushed aside first, and then renamed in the order added.

    Everything that can fail for lack of space happens before the first rename.

    Args:
        root: The dataset's directory.
        elsewhere: Takes everything before it is renamed here.
    """

    def __init__(self, root: Path, elsewhere: RemoteTarget | None = None) -> None:
        self._root = root
        self._elsewhere = elsewhere
        self._files: list[tuple[Path, str]] = []
        self._removed: list[str] = []

    def add_file(self, name: str, aside: Path) -> None:
        """Takes a finished file, which must lie on the dataset's file system."""
        _flush(aside)
        self._files.append((aside, name))

    def add_link(self, name: str, aside: Path) -> None:
        """Takes a finished file a second time, without its content where that can be."""
        link = aside.with_name(f"{aside.name}.link")
        link.unlink(missing_ok=True)
        try:
            os.link(aside, link)
        except OSError:  # a file system without hard links
            shutil.copyfile(aside, link)
        self._files.append((link, name))

    def add_json(self, name: str, content: Any) -> None:
        """Writes a JSON file."""
        self.add_bytes(name, (json.dumps(content, indent=2) + "\n").encode())

    def add_bytes(self, name: str, content: bytes) -> None:
        """Writes a file."""
        aside = self._aside(name)
        aside.write_bytes(content)
        self.add_file(name, aside)

    def add_table(self, name: str, table: pa.Table) -> None:
        """Writes a parquet file."""
        aside = self._aside(name)
        pq.write_table(table, aside)
        self.add_file(name, aside)

    def remove(self, path: Path) -> None:
        """Deletes a file of the dataset once the others have their place."""
        self._removed.append(str(path.relative_to(self._root)))

    def publish(self) -> None:
        """Gives every file its place."""
        if self._elsewhere is not None:
            self._elsewhere.publish(self._files, self._removed)
        targets = [(aside, self._root / name) for aside, name in self._files]
        folders = {target.parent for _, target in targets}
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for aside, target in targets:
            os.replace(aside, target)
        for name in self._removed:
            (self._root / name).unlink()
        for folder in folders:
            _flush(folder)

    def _aside(self, name: str) -> Path:
        return aside(self._root, name.replace("/", "_"))


def aside(root: Path, name: str) -> Path:
    """Where a file of the dataset grows until it is finished."""
    folder = root / UNFINISHED
    folder.mkdir(exist_ok=True)
    return folder / name


def lock(root: Path) -> int:
    """Makes sure that nobody else writes into `root`, until the process ends or `unlock`.

    Raises:
        FileExistsError: Somebody does.
    """
    handle = os.open(root / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise FileExistsError(
            f"another run is writing into {root}; wait for it, or choose another output"
        ) from None
    return handle


def unlock(root: Path, handle: int) -> None:
    """Undoes `lock`."""
    (root / LOCK).unlink(missing_ok=True)
    os.close(handle)


def _flush(path: Path) -> None:
    """Makes a file, or the renames in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
