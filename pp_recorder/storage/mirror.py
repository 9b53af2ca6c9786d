"""Keeps a dataset in an object store, by repeating there what is done to a folder here.

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

from pp_recorder.dataset.commit import LOCK, lock, unlock
from pp_recorder.dataset.reader import DatasetError
from pp_recorder.storage.lease import Lease
from pp_recorder.storage.object_store import ObjectStore, StoreError, dataset_names, require_empty

_LOG = logging.getLogger(__name__)
_AT_ONCE = 16  # transfers
_PAUSES = (5.0, 15.0, 40.0)  # s before an upload is tried again
_INFO = "meta/info.json"
_IDENTITY = "identity"


class RemoteSync:
    """A store that holds a dataset, and the folder that a writer works on instead.

    Args:
        url: Where the dataset is kept.
        staging: An absent or empty folder, or what another run has left of it; it goes when
            everything is in the store.
        resume: Go on with what is in the store.

    Attributes:
        url: As above.
        root: The dataset's folder.

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
        self._claim: Lease | None = None
        self._info: str | None = None  # in the store
        staging.mkdir(parents=True, exist_ok=True)
        _require_ours(staging)
        self._lock: int | None = lock(staging)
        try:
            self._claim = Lease(self._store, _identity(staging))
            if resume:
                self._catch_up()
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
        """Writes files to the store, the last one last, and then removes others there.

        Args:
            files: Where each is now, in the folder, and its name in the dataset.
            removed: Names.

        Raises:
            StoreError: It did not work out. A `RemoteSync` of this folder makes up for it.
            FileExistsError: Another run has taken over.
        """
        record = {
            "before": self._info,
            "files": [(str(path.relative_to(self.root)), name) for path, name in files],
            "removed": list(removed),
        }
        aside = self._pending.with_suffix(".part")
        aside.write_text(json.dumps(record))
        os.replace(aside, self._pending)
        for pause in (*_PAUSES, None):
            try:
                if self._claim is not None:
                    self._claim.require()
                self._upload(files, removed)
                break
            except StoreError as error:
                if pause is None:
                    raise StoreError(
                        f"{error}. What is there is a valid dataset; what could not be uploaded is "
                        f"in {self._staging}, and --resume on this machine goes on with it"
                    ) from error
                _LOG.warning(f"{error}; trying again in {pause:.0f} s")
                time.sleep(pause)
        self._pending.unlink()
        for path, name in files:
            if _is_video(name):
                os.truncate(path, 0)

    def size(self) -> int:
        """Bytes of the dataset in the store."""
        return sum(size for n, size in self._store.sizes().items() if not n.startswith("."))

    def release(self) -> None:
        """Lets others write there; the folder stays only for what is not in the store yet."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None
        if self._lock is None:
            return
        finished = not self._pending.exists()
        if finished:
            shutil.rmtree(self.root, ignore_errors=True)
            (self._staging / _IDENTITY).unlink(missing_ok=True)
        unlock(self._staging, self._lock)
        self._lock = None
        if finished:
            with suppress(OSError):  # another run has begun
                self._staging.rmdir()

    def _upload(self, files: Sequence[tuple[Path, str]], removed: Sequence[str]) -> None:
        def write(file: tuple[Path, str]) -> None:
            path, name = file
            self._store.write(name, path.read_bytes())

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(write, files[:-1]))
            list(pool.map(write, files[-1:]))
            list(pool.map(self._store.delete, removed))
        for path, name in files:
            if name == _INFO:
                self._info = path.read_text()

    def _catch_up(self) -> None:
        """Uploads what an earlier run of this machine could not, if nobody has gone on since."""
        if not self._pending.exists():
            return
        record = json.loads(self._pending.read_text())
        files = [(self.root / path, name) for path, name in record["files"]]
        info = self._stored_info()
        if info == record["before"]:
            self._upload(files, record["removed"])
        elif info not in [path.read_text() for path, name in files if name == _INFO]:
            _LOG.warning(
                f"resume: {self.url} has changed; what was still to be uploaded is dropped"
            )

    def _download(self) -> None:
        """Copies the store into the folder; videos and what is not ours become empty files."""
        self._info = self._stored_info()
        names = dataset_names(self._store)
        if strange := [name for name in names if ".." in PurePosixPath(name).parts]:
            raise DatasetError(f"{self.url} is no dataset of ours: it has {strange}")
        ours = "meta/collection.json" in names

        def fetch(name: str) -> None:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            wanted = ours and name.startswith(("meta/", "data/"))
            path.write_bytes((self._store.read(name) or b"") if wanted else b"")

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(fetch, names))

    def _stored_info(self) -> str | None:
        content = self._store.read(_INFO)
        return None if content is None else content.decode()


def default_staging(url: str) -> Path:
    """The folder for a URL on this machine, the same for every run."""
    name = re.sub(r"[^\w.-]+", "_", url.partition("?")[0])
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    return Path.home() / ".cache" / "franka-pick-place" / f"{name}-{digest}"


def _require_ours(staging: Path) -> None:
    """Checks that nothing else is in the folder, of which parts will be deleted.

    Raises:
        FileExistsError: There is.
    """
    found = {path.name for path in staging.iterdir()}
    if _IDENTITY not in found and found - {LOCK}:
        raise FileExistsError(
            f"{staging} must be an absent or empty folder, or one that an earlier run has left, "
            f"got {sorted(found)}; choose another --staging"
        )


def _identity(staging: Path) -> str:
    """What tells runs on this folder, of which there is one at a time, from all others."""
    file = staging / _IDENTITY
    if not file.exists():
        file.write_text(uuid.uuid4().hex)
    return file.read_text()


def _is_video(name: str) -> bool:
    return name.endswith(".mp4")
