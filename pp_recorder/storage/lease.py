"""Leases, in place of the locks that object stores do not have."""

import logging
import os
import socket
import threading
import time
from contextlib import suppress

from pp_recorder.storage.object_store import ObjectStore, StoreError

_LOG = logging.getLogger(__name__)
_HEARTBEAT_INTERVAL = 10.0  # s between two heartbeats
_LEASE_DURATION = 40.0  # s without a heartbeat, after which the lease expires
_PREFIX = ".lock-"


class Lease:
    """A file in a store that gives one run the right to write there, renewed by a heartbeat.

    Each run writes its own file first and reads those of others afterwards: of two runs that start
    at once, at least the later one sees the other's, in a store that lists what was written before.
    A file that is not renewed while a run watches it belongs to a dead run, and that run removes
    it.

    Args:
        store: The store.
        owner: Name of the run, different from all others'; the same as that of a dead run of this
            machine which it continues.

    Raises:
        FileExistsError: Another run is alive.
        StoreError: The store cannot be used.
    """

    def __init__(self, store: ObjectStore, owner: str) -> None:
        self._store = store
        self._name = f"{_PREFIX}{owner}"
        self._released = threading.Event()
        self._write(0)
        self._heartbeat = threading.Thread(target=self._send_heartbeats, daemon=True)
        self._heartbeat.start()
        try:
            for name in store.sizes():
                if name.startswith(_PREFIX) and name != self._name:
                    self._wait_for_expiry(name)
        except BaseException:
            self.release()
            raise

    def require_valid(self) -> None:
        """Raise an error unless this run still has the lease.

        Raises:
            FileExistsError: Another run has found the lease expired and has taken over.
            StoreError: The store cannot be used.
        """
        if self._store.read(self._name) is None:
            raise FileExistsError(
                f"another run has taken over {self._store.url}, because this one gave no sign for "
                f"{_LEASE_DURATION:.0f} s"
            )

    def release(self) -> None:
        """Remove the file; if that fails, the next run waits until the lease expires."""
        self._released.set()
        self._heartbeat.join()
        with suppress(StoreError):
            self._store.delete(self._name)

    def _write(self, count: int) -> None:
        """Write the file; `count` makes its content differ from the previous one."""
        content = f"process {os.getpid()} on {socket.gethostname()}, sign of life {count}"
        self._store.write(self._name, content.encode())

    def _send_heartbeats(self) -> None:
        """Renew the file until it is released, or removed by another run."""
        count = 0
        while not self._released.wait(_HEARTBEAT_INTERVAL):
            count += 1
            with suppress(StoreError):  # the next commit raises it
                if self._store.read(self._name) is None:
                    return
                self._write(count)

    def _wait_for_expiry(self, name: str) -> None:
        """Remove another run's file after its lease has expired.

        Raises:
            FileExistsError: The other run renews it.
        """
        before = self._store.read(name)
        if before is None:
            return
        owner = before.decode(errors="replace").partition(",")[0]
        _LOG.warning(
            f"{self._store.url} is claimed by {owner}; waiting {_LEASE_DURATION:.0f} s whether it "
            "is alive"
        )
        end = time.monotonic() + _LEASE_DURATION
        while time.monotonic() < end:
            time.sleep(_HEARTBEAT_INTERVAL / 2)
            now = self._store.read(name)
            if now is None:
                return
            if now != before:
                raise FileExistsError(
                    f"another run is writing into {self._store.url} ({owner}); wait for it, or "
                    "choose another output"
                )
        self._store.delete(name)
