"""What the simulator's process shows to the web's process, written without ever waiting for it."""

import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAX_VIEWERS = 8  # by WebRTC, each on a UDP port of its own

_TEXT_BYTES = 65536
_CONTEXT = multiprocessing.get_context("spawn")


class SharedState:
    """Shared memory with the newest picture of every camera and the newest status.

    Only the newest counts: who is slow misses pictures, and nobody waits for a reader. It can be
    handed to a process that is being started.

    Args:
        cameras: Names of the cameras.
        size: Width and height of their pictures.

    Attributes:
        cameras: Names of the cameras.
    """

    def __init__(self, cameras: Sequence[str], size: tuple[int, int]) -> None:
        self.cameras = tuple(cameras)
        width, height = size
        self._shape = (len(self.cameras), height, width, 3)
        self._pixels = _CONTEXT.RawArray("B", int(np.prod(self._shape)))
        self._pixels_lock = _CONTEXT.Lock()
        self._count = _CONTEXT.RawValue("Q")
        self._text = _CONTEXT.RawArray("c", _TEXT_BYTES)
        self._text_lock = _CONTEXT.Lock()
        self._posted = _CONTEXT.RawValue("d")
        self._viewers = _CONTEXT.RawValue("i")

    @property
    def viewers(self) -> int:
        """How many are watching; set by the web's process."""
        return self._viewers.value

    @viewers.setter
    def viewers(self, count: int) -> None:
        self._viewers.value = count

    @property
    def image_count(self) -> int:
        """How many pictures were shown."""
        return self._count.value

    def publish_images(self, pictures: Mapping[str, np.ndarray]) -> bool:
        """Shows the cameras' pictures, (H, W, 3) uint8 each.

        Returns:
            Whether it did: not while a reader copies the ones before.
        """
        if not self._pixels_lock.acquire(block=False):
            return False
        try:
            np.stack([pictures[name] for name in self.cameras], out=self._view())
            self._count.value += 1
        finally:
            self._pixels_lock.release()
        return True

    def images(self) -> dict[str, np.ndarray]:
        """A copy of the newest pictures; black before the first."""
        with self._pixels_lock:
            copies = self._view().copy()
        return dict(zip(self.cameras, copies, strict=True))

    def publish_status(self, status: dict[str, Any], wait: float = 0.0) -> bool:
        """Replaces the status.

        Args:
            status: The new one.
            wait: How long to wait at most for a reader, s.

        Returns:
            Whether it did: not while a reader copies the one before.
        """
        text = json.dumps(status).encode()
        if not self._text_lock.acquire(timeout=wait):
            return False
        try:
            self._text.value = text
            self._posted.value = time.monotonic()
        finally:
            self._text_lock.release()
        return True

    def status(self) -> dict[str, Any]:
        """The newest status."""
        with self._text_lock:
            text = self._text.value
        return json.loads(text)

    def seconds_since_status(self) -> float:
        """Seconds since a status was posted."""
        return time.monotonic() - self._posted.value

    def _view(self) -> np.ndarray:
        return np.frombuffer(self._pixels, np.uint8).reshape(self._shape)
