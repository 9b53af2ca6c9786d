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
from typing import Any

import numpy as np

from pp_recorder.dataset.episode import EpisodePayload, EpisodeRecorder
from pp_recorder.dataset.schema import DatasetSchema
from pp_recorder.parallel.processes import Died, Worker, run_all
from pp_recorder.rollout import Episode, Step

_SPARE = 2  # episodes whose images wait for an encoder, or whose result for that of an earlier one

Images = dict[str, np.ndarray]  # by camera, (n, H, W, 3) uint8


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
        cameras: By name, the shape (H, W, 3) of the images; without any there are no images.
        max_length: Steps of the longest episode.
        count: Number of processes; one encodes in this process.
    """

    def __init__(
        self,
        make_schema: Callable[[], DatasetSchema],
        folder: Path,
        cameras: Mapping[str, tuple[int, int, int]],
        max_length: int,
        count: int,
    ) -> None:
        shapes = {name: (max_length, *shape) for name, shape in cameras.items()}
        self._rooms = [_ImageRoom(shapes) for _ in range(count + _SPARE)]
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
            recorder.add(_with_images(step, {name: each[k] for name, each in images.items()}))
        recorder.end(index.episode)
        encoded = recorder.take()
        assert encoded is not None
        return EpisodePayload.pack(encoded)


def _with_images(step: Step, pixels: Images) -> Step:
    if not pixels:
        return step
    return replace(step, observation={"agent_pos": step.observation, "pixels": pixels})


class _ImageRoom:
    """Memory for the images of one episode, which processes share that are started with it.

    Linux gives memory for what has been written, so room for the longest episode costs no more than
    the longest yet. It is not in /dev/shm, which containers limit to 64 MB.

    Args:
        shapes: By camera, (most images, H, W, 3).
        file: What another process has made; default a new one.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], file: int | None = None) -> None:
        self._shapes = shapes
        self._arrays: Images = {}
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        if not sizes:
            return
        self._file = os.memfd_create("images") if file is None else file
        if file is None:
            os.truncate(self._file, sum(sizes.values()))
        memory = mmap.mmap(self._file, sum(sizes.values()))
        offset = 0
        for name, shape in shapes.items():
            flat = np.frombuffer(memory, np.uint8, sizes[name], offset)
            self._arrays[name] = flat.reshape(shape)
            offset += sizes[name]

    def first(self, count: int) -> Images:
        """Return the room for so many images of each camera."""
        return {name: array[:count] for name, array in self._arrays.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._shapes, DupFd(self._file) if self._shapes else None)


def _attach(shapes: dict[str, tuple[int, ...]], file: Any) -> _ImageRoom:
    return _ImageRoom(shapes, None if file is None else file.detach())
