"""Memory that the simulator's process writes, without waiting, and the web's process reads."""

import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAX_VIEWERS = 8  # by WebRTC, each on a UDP port of its own

_STATUS_BYTES = 2**20  # its texts are bounded far below
_CONTEXT = multiprocessing.get_context("spawn")


class SharedState:
    """Shared memory with the newest image of every camera and the newest status.

    Only the newest values are kept: a slow reader misses images, and the writer never waits for a
    reader. The object can be passed to a process as it is started.

    Args:
        known_cameras: Names of the cameras there is room for; all are shown until `show`.
        size: Width and height of their images, pixels.

    Attributes:
        known_cameras: Names of the cameras there is room for.
    """

    def __init__(self, known_cameras: Sequence[str], size: tuple[int, int]) -> None:
        self.known_cameras = tuple(known_cameras)
        width, height = size
        self._shape = (len(self.known_cameras), height, width, 3)
        self._shown = _CONTEXT.RawArray("b", range(len(self.known_cameras)))  # -1: no more
        self._pixels = _CONTEXT.RawArray("B", int(np.prod(self._shape)))
        self._pixels_lock = _CONTEXT.Lock()
        self._image_count = _CONTEXT.RawValue("Q")
        self._status = _CONTEXT.RawArray("c", _STATUS_BYTES)
        self._status_lock = _CONTEXT.Lock()
        self._status_time = _CONTEXT.RawValue("d")
        self._viewers = _CONTEXT.RawValue("i")

    @property
    def cameras(self) -> tuple[str, ...]:
        """The names of the cameras that are shown."""
        return tuple(self.known_cameras[index] for index in self._shown[:] if index >= 0)

    def show(self, cameras: Sequence[str]) -> None:
        """Show these of the known cameras, in this order, once their images are published."""
        shown = [self.known_cameras.index(name) for name in cameras]
        with self._pixels_lock:
            self._shown[:] = shown + [-1] * (len(self.known_cameras) - len(shown))
            self._image_count.value = 0

    @property
    def viewers(self) -> int:
        """The number of viewers; set by the web's process."""
        return self._viewers.value

    @viewers.setter
    def viewers(self, count: int) -> None:
        self._viewers.value = count

    @property
    def image_count(self) -> int:
        """The number of times that images of the cameras shown were published."""
        return self._image_count.value

    def publish_images(self, images: Mapping[str, np.ndarray]) -> bool:
        """Replace the cameras' images, unless a reader is copying them.

        Args:
            images: By camera, (H, W, 3) uint8 each.

        Returns:
            Whether they were replaced.
        """
        if not self._pixels_lock.acquire(block=False):
            return False
        try:
            np.stack([images[name] for name in self.cameras], out=self._view())
            self._image_count.value += 1
        finally:
            self._pixels_lock.release()
        return True

    def images(self) -> dict[str, np.ndarray]:
        """Return a copy of the newest images, (H, W, 3) uint8 each; none before the first."""
        with self._pixels_lock:
            if self.image_count == 0:
                return {}
            return dict(zip(self.cameras, self._view().copy(), strict=True))

    def publish_status(self, status: dict[str, Any], wait: float = 0.0) -> bool:
        """Replace the status, unless a reader is copying it.

        Args:
            status: Values that JSON has, too.
            wait: How long to wait for a reader at most, s.

        Returns:
            Whether it was replaced.
        """
        text = json.dumps(status).encode()
        if not self._status_lock.acquire(timeout=wait):
            return False
        try:
            self._status.value = text
            self._status_time.value = time.monotonic()
        finally:
            self._status_lock.release()
        return True

    def status(self) -> dict[str, Any]:
        """Return the newest status."""
        with self._status_lock:
            text = self._status.value
        return json.loads(text)

    def seconds_since_status(self) -> float:
        """Return the time since a status was published, s."""
        return time.monotonic() - self._status_time.value

    def _view(self) -> np.ndarray:
        every = np.frombuffer(self._pixels, np.uint8).reshape(self._shape)
        return every[: len(self.cameras)]
