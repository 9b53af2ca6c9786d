"""Who writes into a store, which has no locks."""

import logging
import os
import socket
import threading
import time
from contextlib import suppress

from pp_recorder.storage.object_store import ObjectStore, StoreError

_LOG = logging.getLogger(__name__)
_BEAT = 10.0  # s between two renewals
_LEASE = 40.0  # s without one, after which a run is taken for dead
_PREFIX = ".lock-"


class Lease:
    """A note in a store that a run writes there, renewed as long as the run lives.

    First it is put down, then the others are looked at: of two runs that begin at once at least
    the later one sees the other's, in a store that lists what was written before. A note that is
    not renewed while it is watched belongs to a dead run and is removed.

    Args:
        store: The store.
        who: Sets the run apart from all others; the same if it follows a dead one of this machine.

    Raises:
        FileExistsError: Another run is alive.
        StoreError: The store cannot be used.
    """

    def __init__(self, store: ObjectStore, who: str) -> None:
        self._store = store
        self._name = f"{_PREFIX}{who}"
        self._ended = threading.Event()
        self._put(0)
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()
        try:
            for name in store.sizes():
                if name.startswith(_PREFIX) and name != self._name:
                    self._wait_for_expiry(name)
        except BaseException:
            self.release()
            raise

    def require(self) -> None:
        """Checks that the note still stands.

        Raises:
            FileExistsError: Another run has taken this one for dead.
            StoreError: The store cannot be used.
        """
        if self._store.read(self._name) is None:
            raise FileExistsError(
                f"another run has taken over {self._store.url}, because this one gave no sign for "
                f"{_LEASE:.0f} s"
            )

    def release(self) -> None:
        """Withdraws the note; one that cannot be withdrawn is outlived by the next run."""
        self._ended.set()
        self._renewing.join()
        with suppress(StoreError):
            self._store.delete(self._name)

    def _put(self, beat: int) -> None:
        note = f"process {os.getpid()} on {socket.gethostname()}, sign of life {beat}"
        self._store.write(self._name, note.encode())

    def _renew(self) -> None:
        beat = 0
        while not self._ended.wait(_BEAT):
            beat += 1
            with suppress(StoreError):  # the next commit will tell
                if self._store.read(self._name) is None:
                    return
                self._put(beat)

    def _wait_for_expiry(self, name: str) -> None:
        """Waits for the other run to show that it is alive, and removes its note if it does not."""
        before = self._store.read(name)
        if before is None:
            return
        who = before.decode(errors="replace").partition(",")[0]
        _LOG.warning(
            f"{self._store.url} is claimed by {who}; waiting {_LEASE:.0f} s whether it is alive"
        )
        end = time.monotonic() + _LEASE
        while time.monotonic() < end:
            time.sleep(_BEAT / 2)
            now = self._store.read(name)
            if now is None:
                return
            if now != before:
                raise FileExistsError(
                    f"another run is writing into {self._store.url} ({who}); wait for it, or "
                    "choose another output"
                )
        self._store.delete(name)
