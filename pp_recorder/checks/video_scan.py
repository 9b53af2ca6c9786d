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
from pp_recorder.dataset.video import ONE_THREAD

# 8-bit levels. An image with a lower mean is black, with a lower standard deviation one colour.
BLACK, FLAT = 4.0, 2.0
# An image repeats the one before if no block changes by more than STILL, and the blocks by less
# than STILL_MEAN on average: codecs make small differences even then.
STILL, STILL_MEAN = 3.0, 0.1
REPEAT_FRAMES = 10
ODD = 12.0  # 8-bit levels by which a block may differ from its neighbours in time
# A piece of at most so many frames is cut in if so large a share of its blocks differs.
MOST_CUT_IN, CUT_IN = 6, 0.15
TIME_TOLERANCE = 1e-4  # s; lerobot refuses more
SAMPLE_SIDE = 128  # pixels; larger images are sampled at a grid of about so many points each way
BLOCKS = 16
KEY_IMAGE_SIDE = 224  # pixels of the images kept for the report
_LEVELS = np.arange(256.0)


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
        steps: (frames,) mean change of the blocks since the image before, in 8-bit levels; 0 for
            the first image.
        where: (frames, 2) the middle of that change: its row and column, from -1 to 1.
        still: (frames,) whether an image repeats the one before.
        odd: (frames,) share of the blocks that differ from both neighbours in time, which are
            alike.
        pieces: Begin, length and such a share of some frames that differ from both neighbours.
        thumbs: (frames, rows, columns) brightness of a coarse grid.
        mean: (rows, columns, 3) mean of all images, in blocks.
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
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    where: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    still: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    odd: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    pieces: list[tuple[int, int, float]] = field(default_factory=list)
    thumbs: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1), np.float16))
    mean: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 3), np.float32))
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
        codec: Name of the codec, such as "h264".
        pix_fmt: Name of the pixel format, such as "yuv420p".
        frames: Number of decoded images.
        unassigned_times: Times in s of the frames that belong to no episode.
    """

    name: str
    episodes: list[int]
    error: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    codec: str = ""
    pix_fmt: str = ""
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
        mean, deviation = _mean_and_deviation(sample)
        if mean < BLACK:
            scan.black.append(k)
        elif deviation < FLAT:
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
            pictures = np.stack(self._blocks).astype(np.float32)
            scan.thumbs, scan.mean = _thumbs(pictures), pictures.mean(axis=0)
            scan.odd, scan.pieces = _odd(pictures)
            blocks = pictures.reshape(scan.frames, -1)
            low, high = np.percentile(blocks, (2.5, 97.5), axis=0)
            scan.change = float((high - low).max())
            steps = np.abs(np.diff(blocks, axis=0))
            equal = (steps.max(axis=1) <= STILL) & (steps.mean(axis=1) <= STILL_MEAN)
            scan.steps = np.append(np.float32(0), steps.mean(axis=1))
            scan.still = np.append(False, equal)
            scan.where = _where(pictures)
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
    small = shrinker.reformat(
        frame, width, height, format="rgb24", interpolation=interpolation, **ONE_THREAD
    )
    return small.to_ndarray()


def _mean_and_deviation(sample: np.ndarray) -> tuple[float, float]:
    """Return the mean and the standard deviation of 8-bit levels, by how often there is each."""
    share = np.bincount(sample.ravel(), minlength=256) / sample.size
    mean = float(share @ _LEVELS)
    return mean, float(share @ (_LEVELS - mean) ** 2) ** 0.5


def _blocks(sample: np.ndarray) -> np.ndarray:
    """Return the means of about BLOCKS x BLOCKS blocks."""
    size = max(1, min(sample.shape[:2]) // BLOCKS)
    rows, columns = sample.shape[0] // size, sample.shape[1] // size
    cut = sample[: rows * size, : columns * size].reshape(rows, size, columns * size * 3)
    lines = cut.sum(axis=1, dtype=np.float32)  # one axis at a time takes a sixth of the time
    return lines.reshape(rows, columns, size, 3).sum(axis=2) / np.float32(size**2)


def _thumbs(pictures: np.ndarray) -> np.ndarray:
    """Return the brightness of every second block each way, (frames, rows, columns) float16."""
    light = pictures @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    rows, columns = (max(1, size // 2) for size in light.shape[1:])
    if min(light.shape[1:]) < 2:
        return light.astype(np.float16)
    cut = light[:, : rows * 2, : columns * 2].reshape(len(light), rows, 2, columns, 2)
    return cut.mean(axis=(2, 4)).astype(np.float16)


def _where(pictures: np.ndarray) -> np.ndarray:
    """Return row and column of the middle of the change, (frames, 2), each from -1 to 1."""
    change = np.abs(np.diff(pictures, axis=0)).sum(axis=-1) ** 2  # large changes, not noise
    total = np.maximum(change.sum(axis=(1, 2)), 1e-6)
    rows, columns = (np.linspace(-1, 1, size) for size in change.shape[1:])
    middle = [change.sum(axis=2) @ rows / total, change.sum(axis=1) @ columns / total]
    return np.concatenate([np.zeros((1, 2)), np.stack(middle, axis=1)]).astype(np.float32)


def _odd(pictures: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, float]]]:
    """Return how unlike images are to both neighbours in time, and pieces that are cut in.

    Returns:
        (frames,) share of the blocks; and begin, length and share of the longer pieces.
    """
    odd, pieces = np.zeros(len(pictures), dtype=np.float32), []
    for length in range(1, min(MOST_CUT_IN, len(pictures) - 2) + 1):
        before, after = pictures[: -length - 1], pictures[length + 1 :]
        middle = (before + after) / 2
        limit = ODD + 2 * _largest(after - before)
        first_share = (_largest(pictures[1:-length] - middle) > limit).mean(axis=(1, 2))
        if length == 1:
            odd[1:-1] = first_share
            continue
        last_share = (_largest(pictures[length:-1] - middle) > limit).mean(axis=(1, 2))
        both = np.minimum(first_share, last_share)
        for begin in np.flatnonzero(both > CUT_IN).tolist():
            pieces.append((begin + 1, length, float(both[begin])))
    return odd, pieces


def _largest(change: np.ndarray) -> np.ndarray:
    """Return the largest change of a colour; several times as fast as `max` over a short axis."""
    red, green, blue = np.moveaxis(np.abs(change), -1, 0)
    return np.maximum(np.maximum(red, green), blue)


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
            file.codec = stream.codec_context.codec.canonical_name
            file.pix_fmt = str(stream.pix_fmt)
    except (FFmpegError, IndexError) as error:
        raise DatasetError(f"cannot be decoded: {error}") from error
