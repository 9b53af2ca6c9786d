"""One pass over a video file: what its pictures show, and when."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from pp_recorder.checks.findings import first_line
from pp_recorder.dataset import stats
from pp_recorder.dataset.reader import DatasetError, decode

# 8-bit levels. A picture with a lower mean is black, with a lower standard deviation one colour.
BLACK, FLAT = 4.0, 2.0
# It repeats the one before if no block changes by more than STILL, and the blocks by less than
# STILL_MEAN on average: codecs make small differences even then.
STILL, STILL_MEAN = 3.0, 0.1
REPEAT_FRAMES = 10
TIME_TOLERANCE = 1e-4  # s; lerobot refuses more
SAMPLE_SIDE = 128  # pixels; larger pictures are looked at through a grid of about so many points
BLOCKS = 16
PICTURE_SIDE = 224  # pixels of the pictures kept for the report


@dataclass
class EpisodeScan:
    """What one pass over the video of an episode gave.

    Attributes:
        frames: Pictures decoded.
        off_grid: (frame, time found, time expected in s) of the first one at a wrong time.
        damaged: Frames that the decoder marked as damaged.
        black: Frames that are black.
        flat: Frames of one colour.
        runs: (first frame, length) of runs of equal pictures.
        repeated: Share of the pictures that repeat the one before.
        change: The largest change of a block over the episode, in 8-bit levels, without the
            extreme moments.
        image_stats: Statistics of all pictures.
        pictures: (h, w, 3) uint8 of the frames that were asked for, made smaller.
    """

    frames: int = 0
    off_grid: tuple[int, float, float] | None = None
    damaged: list[int] = field(default_factory=list)
    black: list[int] = field(default_factory=list)
    flat: list[int] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    repeated: float = 0.0
    change: float = 0.0
    image_stats: stats.Stats | None = None
    pictures: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass
class FileScan:
    """What one pass over a video file gave.

    Attributes:
        name: Below the dataset's directory.
        episodes: Those that the file should hold, in order of time.
        error: Why it could not be read to its end, or "".
        width: Pixels.
        height: Pixels.
        fps: Frames per second, or 0.
        frames: Pictures decoded.
        strays: Times in s of pictures that belong to no episode.
    """

    name: str
    episodes: list[int]
    error: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    frames: int = 0
    strays: list[float] = field(default_factory=list)


@dataclass
class CameraScan:
    """What one pass over all videos of a camera gave."""

    files: list[FileScan]
    episodes: dict[int, EpisodeScan]


class _PointStats(stats.ImageStats):
    """Statistics of pictures that are sampled already."""

    STRIDE = 1


class EpisodeVideoScan:
    """Looks at the pictures of one episode as they come."""

    def __init__(self, keep: Iterable[int]) -> None:
        self.scan = EpisodeScan()
        self._keep = set(keep)
        self._stats = _PointStats()
        self._shrinker = VideoReformatter()  # much faster than `frame.reformat`, which forgets
        self._blocks: list[np.ndarray] = []

    def add(self, frame: av.VideoFrame, late: tuple[float, float] | None) -> None:
        """Takes the next picture; `late` is (found, expected) if its time is wrong."""
        scan, k = self.scan, self.scan.frames
        sample = _shrink(self._shrinker, frame, SAMPLE_SIDE, "POINT")
        if late and scan.off_grid is None:
            scan.off_grid = (k, *late)
        if frame.is_corrupt:
            scan.damaged.append(k)
        if sample.mean() < BLACK:
            scan.black.append(k)
        elif sample.std() < FLAT:
            scan.flat.append(k)
        self._blocks.append(_blocks(sample).astype(np.float16))
        self._stats.add(sample)
        if k in self._keep:
            scan.pictures[k] = _shrink(VideoReformatter(), frame, PICTURE_SIDE, "AREA")
        scan.frames += 1

    def finish(self) -> EpisodeScan:
        """The result."""
        scan = self.scan
        if scan.frames:
            blocks = np.stack(self._blocks).reshape(scan.frames, -1).astype(np.float32)
            low, high = np.percentile(blocks, (2.5, 97.5), axis=0)
            scan.change = float((high - low).max())
            steps = np.abs(np.diff(blocks, axis=0))
            equal = (steps.max(axis=1) <= STILL) & (steps.mean(axis=1) <= STILL_MEAN)
            scan.repeated = float(equal.mean()) if equal.size else 0.0
            scan.runs = [(k, n + 1) for k, n in _runs(equal) if n + 1 >= REPEAT_FRAMES]
            scan.image_stats = self._stats.result()
        return scan


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First index and length of every run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]


def _shrink(shrinker: VideoReformatter, frame: av.VideoFrame, side: int, how: str) -> np.ndarray:
    """The picture with at most `side` pixels each way, (h, w, 3) uint8."""
    step = max(1.0, max(frame.width, frame.height) / side)
    width, height = max(1, round(frame.width / step)), max(1, round(frame.height / step))
    small = shrinker.reformat(frame, width, height, format="rgb24", interpolation=how)
    return small.to_ndarray()


def _blocks(sample: np.ndarray) -> np.ndarray:
    """Means of about BLOCKS x BLOCKS blocks."""
    size = max(1, min(sample.shape[:2]) // BLOCKS)
    rows, columns = sample.shape[0] // size, sample.shape[1] // size
    cut = sample[: rows * size, : columns * size]
    return cut.reshape(rows, size, columns, size, 3).mean((1, 3), dtype=np.float32)


def scan_file(
    root: Path,
    name: str,
    spans: dict[int, tuple[float, float]],
    fps: float,
    keep: Mapping[int, list[int]],
) -> tuple[FileScan, dict[int, EpisodeScan]]:
    """One pass over a video file.

    Args:
        root: The directory of the dataset.
        name: The file, below `root`.
        spans: Begin and end in s of the file's episodes, in order of time.
        fps: Frames per second.
        keep: The frames of each episode whose pictures are wanted.
    """
    members = list(spans)
    scan, path = FileScan(name, members), root / name
    eyes = {e: EpisodeVideoScan(keep.get(e, ())) for e in members}
    begins = [begin for begin, _ in spans.values()]
    half = 0.5 / fps
    try:
        _read_header(path, scan)
        for at, frame in decode(path):
            scan.frames += 1
            k = int(np.searchsorted(begins, at + half, side="right")) - 1
            owner = members[max(k, 0)]
            begin, end = spans[owner]
            if not begin - half <= at < end - half:
                scan.strays.append(at)
                continue
            expected = begin + eyes[owner].scan.frames / fps
            late = abs(at - expected) > TIME_TOLERANCE
            eyes[owner].add(frame, (at, expected) if late else None)
    except (DatasetError, FFmpegError, OSError, TypeError) as error:
        scan.error = first_line(error).replace(f"{path} ", "")
    return scan, {e: eye.finish() for e, eye in eyes.items()}


def _read_header(path: Path, scan: FileScan) -> None:
    if not path.is_file():
        raise DatasetError("is missing")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            scan.width, scan.height = stream.width, stream.height
            scan.fps = float(stream.average_rate or 0)
    except (FFmpegError, IndexError) as error:
        raise DatasetError(f"cannot be decoded: {error}") from error
