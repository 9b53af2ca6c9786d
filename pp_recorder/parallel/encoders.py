"""Processes that encode episodes whose images were made all at once, in memory that they share."""

import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pp_recorder.dataset.episode import EpisodePayload, EpisodeRecorder
from pp_recorder.dataset.schema import DatasetSchema
from pp_recorder.dataset.stats import ImageStats
from pp_recorder.dataset.video import PlanarImage
from pp_recorder.parallel.processes import Died, Worker, run_all
from pp_recorder.rollout import Episode, Step

_SPARE = 2  # episodes whose images wait for an encoder, or whose result for that of an earlier one


class PlanarImages(NamedTuple):
    """Images of one camera, as the encoder wants them (`PlanarImage`).

    Attributes:
        planes: (n, H * 3 / 2, W) uint8.
        samples: (n, h, w, 3) uint8.
    """

    planes: np.ndarray
    samples: np.ndarray


Images = dict[str, PlanarImages]  # by camera


@dataclass(frozen=True)
class UnseenEpisode:
    """An episode that has ended, and what makes its images.

    Attributes:
        episode: Its outcome.
        steps: Its steps, whose observation is a vector.
        draw: Function that fills arrays with the images of its steps.
    """

    episode: Episode
    steps: Sequence[Step]
    draw: Callable[[Images], None]


class EncoderPool:
    """Encodes episodes in several processes, while this one makes the images of the next.

    Args:
        make_schema: Makes the contents of an episode, here or there; it must be picklable.
        folder: For videos while they grow.
        cameras: By name, height and width of the images; without any there are no images.
        max_length: Steps of the longest episode.
        count: Number of processes; one encodes in this process.
    """

    def __init__(
        self,
        make_schema: Callable[[], DatasetSchema],
        folder: Path,
        cameras: Mapping[str, tuple[int, int]],
        max_length: int,
        count: int,
    ) -> None:
        self._rooms = [_ImageRoom(max_length, cameras) for _ in range(count + _SPARE)]
        self._free = deque(range(len(self._rooms)))
        self._waiting: deque[UnseenEpisode] = deque()
        factory = partial(_Encoder, make_schema, folder, self._rooms)
        self._results = run_all(factory, self._jobs(), count)

    def encode(self, episodes: Sequence[UnseenEpisode]) -> list[EpisodePayload | Died]:
        """Encode episodes; return them in their order, `Died` for one that ended two processes."""
        self._waiting.extend(episodes)
        encoded = []
        for job, result in islice(self._results, len(episodes)):
            self._free.append(job.room)
            encoded.append(result)
        return encoded

    def close(self) -> None:
        """End the processes at once."""
        self._results.close()

    def _jobs(self) -> Iterator["_Job | None"]:
        """Yield an episode with its images, None while there is none, or no room for it."""
        while True:
            if self._waiting and self._free:
                unseen, room = self._waiting.popleft(), self._free.popleft()
                unseen.draw(self._rooms[room].first(len(unseen.steps)))
                yield _Job(room, unseen.episode, unseen.steps)
            else:
                yield None


@dataclass(frozen=True, eq=False)
class _Job:
    room: int
    episode: Episode
    steps: Sequence[Step]

    def __str__(self) -> str:
        return f"episode {self.episode.index}"


class _Encoder(Worker):
    """Encodes episodes, in a process of the pool.

    Args:
        make_schema: Makes the contents of an episode.
        folder: For videos while they grow.
        rooms: Where images are.
    """

    def __init__(
        self,
        make_schema: Callable[[], DatasetSchema],
        folder: Path,
        rooms: "Sequence[_ImageRoom]",
    ) -> None:
        own_folder = tempfile.mkdtemp(dir=folder, prefix="encoder-")
        self._recorder = EpisodeRecorder(Path(own_folder), make_schema())
        self._rooms = rooms

    def run(self, index: _Job) -> EpisodePayload:
        """Encode one episode."""
        recorder, images = self._recorder, self._rooms[index.room].first(len(index.steps))
        recorder.begin(index.episode.seed)
        for k, step in enumerate(index.steps):
            views = {n: PlanarImage(each.planes[k], each.samples[k]) for n, each in images.items()}
            recorder.add(_with_images(step, views))
        recorder.end(index.episode)
        encoded = recorder.take()
        assert encoded is not None
        return EpisodePayload.pack(encoded)


def _with_images(step: Step, pixels: dict[str, PlanarImage]) -> Step:
    if not pixels:
        return step
    return replace(step, observation={"agent_pos": step.observation, "pixels": pixels})


class _ImageRoom:
    """Memory for the images of one episode, which processes share that are started with it.

    Linux gives memory for what has been written, so room for the longest episode costs no more than
    the longest yet. It is not in /dev/shm, which containers limit to 64 MB.

    Args:
        count: Most images of each camera.
        cameras: By name, height and width of the images.
        file: What another process has made; default a new one.
    """

    def __init__(
        self, count: int, cameras: Mapping[str, tuple[int, int]], file: int | None = None
    ) -> None:
        self._count, self._cameras = count, dict(cameras)
        self._images: Images = {}
        if not cameras:
            return
        shapes = [(count, *shape) for size in cameras.values() for shape in _shapes(*size)]
        sizes = [int(np.prod(shape)) for shape in shapes]
        self._file = os.memfd_create("images") if file is None else file
        if file is None:
            os.truncate(self._file, sum(sizes))
        memory = mmap.mmap(self._file, sum(sizes))
        ends = np.cumsum(sizes).tolist()
        arrays = (
            np.frombuffer(memory, np.uint8, size, end - size).reshape(shape)
            for shape, size, end in zip(shapes, sizes, ends, strict=True)
        )
        self._images = {name: PlanarImages(next(arrays), next(arrays)) for name in cameras}

    def first(self, count: int) -> Images:
        """Return the room for so many images of each camera."""
        return {
            name: PlanarImages(each.planes[:count], each.samples[:count])
            for name, each in self._images.items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        file = DupFd(self._file) if self._cameras else None
        return _attach, (self._count, self._cameras, file)


def _attach(count: int, cameras: Mapping[str, tuple[int, int]], file: Any) -> _ImageRoom:
    return _ImageRoom(count, cameras, None if file is None else file.detach())


def _shapes(height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of an image's planes, and of its sample."""
    sample = ImageStats.sample(np.broadcast_to(np.uint8(0), (height, width, 3)))
    return (height * 3 // 2, width), sample.shape
