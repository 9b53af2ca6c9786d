"""What processes do when many videos are joined: measure clips, and write files that have many.

They put nothing in its place; `packing.py` does. They start with this module, so it imports little.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pp_recorder.dataset.remux import Clip, read_index, remux
from pp_recorder.parallel.processes import Worker


@dataclass(frozen=True)
class Extent:
    """What decides whether a clip shares a file with those before it.

    Attributes:
        codec: The codec's name and its configuration.
        size: Bytes that it takes in a file.
    """

    codec: tuple[str, bytes]
    size: int


@dataclass(frozen=True, eq=False)
class Measure:
    """A job: to find the extent of clips."""

    clips: list[Clip]

    def __str__(self) -> str:
        return f"measuring {self.clips[0].path} and {len(self.clips) - 1} more"


@dataclass(frozen=True, eq=False)
class Join:
    """A job: to write clips, one after the other, in a new file."""

    clips: list[Clip]
    target: Path

    def __str__(self) -> str:
        return f"joining {self.clips[0].path} and {len(self.clips) - 1} more"


class Joiner(Worker):
    """Measures and joins clips, in this process or another.

    Args:
        fps: Frames per second of all of them.
    """

    def __init__(self, fps: int) -> None:
        self._fps = fps
        self._read_index = lru_cache(1)(read_index)  # clips that follow each other share files

    def run(self, index: Measure | Join) -> list[Extent]:
        """Do a job; return the extents that were to be measured.

        Raises:
            RemuxError: A clip lacks an image, or cannot be read.
            OSError: The disk is full.
        """
        if isinstance(index, Measure):
            return [self.measure(clip) for clip in index.clips]
        remux(index.clips, index.target, self._fps)
        return []

    def measure(self, clip: Clip) -> Extent:
        """Return the extent of a clip.

        Raises:
            RemuxError: Its file cannot be opened.
        """
        index = self._read_index(clip.path, self._fps)
        return Extent(index.codec, index.size(clip.begin, clip.length))
