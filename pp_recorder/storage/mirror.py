"""A dataset in an object store, kept up to date with a local folder by repeating each commit.

docs/decisions/013 says why. In the folder, a video that is in the store is an empty file.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath

from pp_recorder.dataset import keys
from pp_recorder.dataset.commit import LOCK, RemoteTarget, lock, unlock
from pp_recorder.dataset.reader import DatasetError
from pp_recorder.storage.lease import Lease
from pp_recorder.storage.object_store import ObjectStore, StoreError, dataset_names, require_empty

_LOG = logging.getLogger(__name__)
_MAX_TRANSFERS = 16  # at once
_RETRY_DELAYS = (5.0, 15.0, 40.0)  # s before an upload is repeated
_IDENTITY = "identity"


class RemoteSync(RemoteTarget):
    """An object store that holds a dataset, and the local folder in which a writer works.

    Args:
        url: The dataset's place in a store.
        staging: An absent or empty folder, or one that another run has left; it is deleted when
            everything is in the store.
        resume: Continue the dataset in the store.

    Attributes:
        url: The dataset's place in a store.
        root: The dataset's local folder.

    Raises:
        FileExistsError: Another run writes there, or something is there that is not to be resumed;
            or the folder holds something else.
        StoreError: The store cannot be used.
    """

    def __init__(self, url: str, staging: Path, resume: bool) -> None:
        self.url = url
        self.root = staging / "dataset"
        self._store = ObjectStore(url)
        self._staging = staging
        self._pending = staging / "pending.json"
        self._lease: Lease | None = None
        self._remote_info: str | None = None  # info.json in the store
        staging.mkdir(parents=True, exist_ok=True)
        _require_ours(staging)
        self._lock: int | None = lock(staging)
        try:
            self._lease = Lease(self._store, _read_identity(staging))
            if resume:
                self._upload_pending()
            else:
                require_empty(self._store)
                if self._pending.exists():
                    _LOG.warning(f"what an earlier run could not upload from {staging} is dropped")
            self._pending.unlink(missing_ok=True)
            shutil.rmtree(self.root, ignore_errors=True)
            self._download()
        except BaseException:
            self.release()
            raise

    def publish(self, files: Sequence[tuple[Path, str]], removed: Sequence[str]) -> None:
        """Write files to the store, the last two last and in order, and then remove others there.

        Args:
            files: The present path of each, in the folder, and its name in the dataset.
            removed: Names in the dataset.

        Raises:
            StoreError: An upload failed several times. The next `RemoteSync` of this folder
                repeats it.
            FileExistsError: Another run has taken over.
        """
        record = {
            "before": self._remote_info,
            "files": [(str(path.relative_to(self.root)), name) for path, name in files],
            "removed": list(removed),
        }
        staged = self._pending.with_suffix(".part")
        staged.write_text(json.dumps(record))
        os.replace(staged, self._pending)
        for delay in (*_RETRY_DELAYS, None):
            try:
                if self._lease is not None:
                    self._lease.require_valid()
                self._upload(files, removed)
                break
            except StoreError as error:
                if delay is None:
                    raise StoreError(
                        f"{error}. What is there is a valid dataset; what could not be uploaded is "
                        f"in {self._staging}, and --resume on this machine goes on with it"
                    ) from error
                _LOG.warning(f"{error}; trying again in {delay:.0f} s")
                time.sleep(delay)
        self._pending.unlink()
        for path, name in files:
            if _is_video(name):
                os.truncate(path, 0)

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file of the store to a local path.

        Raises:
            StoreError: It is not there, or the store fails.
        """
        content = self._store.read(name)
        if content is None:
            raise StoreError(f"{self.url} has no {name} any more")
        target.write_bytes(content)

    def size(self) -> int:
        """Return the bytes of the dataset in the store."""
        return sum(size for n, size in self._store.sizes().items() if not n.startswith("."))

    def release(self) -> None:
        """Release lease and lock, and delete the folder unless it holds files to be uploaded."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        if self._lock is None:
            return
        finished = not self._pending.exists()
        if finished:
            shutil.rmtree(self.root, ignore_errors=True)
            (self._staging / _IDENTITY).unlink(missing_ok=True)
        unlock(self._staging, self._lock)
        self._lock = None
        if finished:
            with suppress(OSError):  # another run uses it already
                self._staging.rmdir()

    def _upload(self, files: Sequence[tuple[Path, str]], removed: Sequence[str]) -> None:
        """Write files to the store, the last two last and in order, and remove others there."""

        def write(file: tuple[Path, str]) -> None:
            path, name = file
            self._store.write(name, path.read_bytes())

        with ThreadPoolExecutor(_MAX_TRANSFERS) as pool:
            list(pool.map(write, files[:-2]))
            for file in files[-2:]:  # statistics, and then the count of what they are of
                write(file)
            list(pool.map(self._store.delete, removed))
        for path, name in files:
            if name == keys.INFO_PATH:
                self._remote_info = path.read_text()

    def _upload_pending(self) -> None:
        """Upload what an earlier run here could not, unless the store has changed since."""
        if not self._pending.exists():
            return
        record = json.loads(self._pending.read_text())
        files = [(self.root / path, name) for path, name in record["files"]]
        info = self._read_remote_info()
        if info == record["before"]:
            self._upload(files, record["removed"])
        elif info not in [path.read_text() for path, name in files if name == keys.INFO_PATH]:
            _LOG.warning(
                f"resume: {self.url} has changed; what was still to be uploaded is dropped"
            )

    def _download(self) -> None:
        """Copy the store into the folder, with empty files for videos and for a foreign dataset."""
        self._remote_info = self._read_remote_info()
        names = dataset_names(self._store)
        if strange := [name for name in names if ".." in PurePosixPath(name).parts]:
            raise DatasetError(f"{self.url} is no dataset of ours: it has {strange}")
        is_ours = keys.COLLECTION_PATH in names
        downloaded = (f"{keys.META_FOLDER}/", f"{keys.DATA_FOLDER}/")

        def fetch(name: str) -> None:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            wanted = is_ours and name.startswith(downloaded)
            path.write_bytes((self._store.read(name) or b"") if wanted else b"")

        with ThreadPoolExecutor(_MAX_TRANSFERS) as pool:
            list(pool.map(fetch, names))

    def _read_remote_info(self) -> str | None:
        content = self._store.read(keys.INFO_PATH)
        return None if content is None else content.decode()


def default_staging(url: str) -> Path:
    """Return the folder for a URL on this machine, the same for every run."""
    name = re.sub(r"[^\w.-]+", "_", url.partition("?")[0])
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    return Path.home() / ".cache" / "franka-pick-place" / f"{name}-{digest}"


def _require_ours(staging: Path) -> None:
    """Raise an error if the folder, of which parts will be deleted, holds anything else.

    Raises:
        FileExistsError: It does.
    """
    found = {path.name for path in staging.iterdir()}
    if _IDENTITY not in found and found - {LOCK}:
        raise FileExistsError(
            f"{staging} must be an absent or empty folder, or one that an earlier run has left, "
            f"got {sorted(found)}; choose another --staging"
        )


def _read_identity(staging: Path) -> str:
    """Return the lease's owner for runs on this folder, of which there is one at a time."""
    file = staging / _IDENTITY
    if not file.exists():
        file.write_text(uuid.uuid4().hex)
    return file.read_text()


def _is_video(name: str) -> bool:
    return name.endswith(".mp4")
