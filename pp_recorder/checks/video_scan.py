"""One pass over a video file, which measures its images and their times."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from pp_recorder.checks.findings import first_line
from pp_recorder.dataset import stats
from pp_recorder.dataset.files import locate
from pp_recorder.dataset.paths import media_url
from pp_recorder.dataset.reader import DatasetError, decode

# 8-bit levels. An image with a lower mean is black, with a lower standard deviation one colour.
BLACK, FLAT = 4.0, 2.0
# An image repeats the one before if no block changes by more than STILL, and the blocks by less
# than STILL_MEAN on average: codecs make small differences even then.
STILL, STILL_MEAN = 3.0, 0.1
REPEAT_FRAMES = 10
TIME_TOLERANCE = 1e-4  # s; lerobot refuses more
SAMPLE_SIDE = 128  # pixels; larger images are sampled at a grid of about so many points each way
BLOCKS = 16
KEY_IMAGE_SIDE = 224  # pixels of the images kept for the report


@dataclass
class EpisodeScan:
    """The result of one pass over the video of an episode.

    Attributes:
        frames: Number of decoded images.
        off_grid: (frame, time found, time expected in s) of the first image at a wrong time.
        damaged: Frames that the decoder marked as damaged.
        black: Frames that are black.
        flat: Frames of one colour.
        runs: (first frame, length) of runs of equal images.
        repeated: Share of the images that repeat the one before.
        change: The largest change of a block over the episode, in 8-bit levels, without the
            extreme moments.
        image_stats: Statistics of all images.
        key_images: The images (h, w, 3) uint8 of the requested frames, made smaller.
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
    key_images: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass
class FileScan:
    """The result of one pass over a video file.

    Attributes:
        name: The file's path, relative to the dataset's directory.
        episodes: The episodes that the file should hold, in order of time.
        error: The reason why it could not be read to its end, or "".
        width: In pixels.
        height: In pixels.
        fps: Frames per second, or 0.
        frames: Number of decoded images.
        unassigned_times: Times in s of the frames that belong to no episode.
    """

    name: str
    episodes: list[int]
    error: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    frames: int = 0
    unassigned_times: list[float] = field(default_factory=list)


@dataclass
class CameraScan:
    """The result of one pass over all videos of a camera."""

    files: list[FileScan]
    episodes: dict[int, EpisodeScan]


class _SampleStats(stats.ImageStats):
    """Statistics of images that are sampled already."""

    STRIDE = 1


class EpisodeVideoScan:
    """A scan of one episode's images, one after the other.

    Args:
        keep: The frames whose images are kept.
    """

    def __init__(self, keep: Iterable[int]) -> None:
        self.scan = EpisodeScan()
        self._keep = set(keep)
        self._stats = _SampleStats()
        self._shrinker = (
            VideoReformatter()
        )  # much faster than `frame.reformat`, which keeps nothing
        self._blocks: list[np.ndarray] = []

    def add(self, frame: av.VideoFrame, late: tuple[float, float] | None) -> None:
        """Measure the next image; `late` is its time (found, expected) in s if that is wrong."""
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
            scan.key_images[k] = _shrink(VideoReformatter(), frame, KEY_IMAGE_SIDE, "AREA")
        scan.frames += 1

    def finish(self) -> EpisodeScan:
        """Return the result."""
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
    """Return first index and length of every run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]


def _shrink(
    shrinker: VideoReformatter, frame: av.VideoFrame, side: int, interpolation: str
) -> np.ndarray:
    """Return the image with at most `side` pixels each way, (h, w, 3) uint8."""
    step = max(1.0, max(frame.width, frame.height) / side)
    width, height = max(1, round(frame.width / step)), max(1, round(frame.height / step))
    small = shrinker.reformat(frame, width, height, format="rgb24", interpolation=interpolation)
    return small.to_ndarray()


def _blocks(sample: np.ndarray) -> np.ndarray:
    """Return the means of about BLOCKS x BLOCKS blocks."""
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
    """Scan a video file in one pass.

    Args:
        root: The directory of the dataset.
        name: The file, below `root`.
        spans: Begin and end in s of the file's episodes, in order of time.
        fps: Frames per second.
        keep: The frames of each episode whose images are kept.
    """
    episodes, path = list(spans), root / name
    file = FileScan(name, episodes)
    scans = {e: EpisodeVideoScan(keep.get(e, ())) for e in episodes}
    done: dict[int, EpisodeScan] = {}
    begins = [begin for begin, _ in spans.values()]
    half = 0.5 / fps
    try:
        _read_header(locate(root, name), file)
        for at, frame in decode(path):
            file.frames += 1
            k = int(np.searchsorted(begins, at + half, side="right")) - 1
            episode = episodes[max(k, 0)]
            begin, end = spans[episode]
            for earlier in episodes[len(done) : max(k, 0)]:
                done[earlier] = scans.pop(earlier).finish()  # it holds a part of every image
            if episode in done or not begin - half <= at < end - half:
                file.unassigned_times.append(at)
                continue
            expected = begin + scans[episode].scan.frames / fps
            late = abs(at - expected) > TIME_TOLERANCE
            scans[episode].add(frame, (at, expected) if late else None)
    except (DatasetError, FFmpegError, OSError, TypeError) as error:
        file.error = first_line(error).replace(f"{path} ", "")
    return file, done | {e: scan.finish() for e, scan in scans.items()}


def _read_header(path: Path, file: FileScan) -> None:
    if not path.is_file():
        raise DatasetError("is missing")
    try:
        with av.open(media_url(path)) as container:
            stream = container.streams.video[0]
            file.width, file.height = stream.width, stream.height
            file.fps = float(stream.average_rate or 0)
    except (FFmpegError, IndexError) as error:
        raise DatasetError(f"cannot be decoded: {error}") from error
