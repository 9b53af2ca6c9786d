"""The checks of a LeRobot v3.0 dataset: what is wrong with it, in which episode and frame.

Each check looks at one thing, logs what it finds, and returns a note. A check that fails, or that
cannot be carried out because something else is broken, does not keep the others from running.
"""

import json
import re
import string
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from recorder import stats
from recorder.dataset import (
    COLLECTION_PATH,
    FORMAT_VERSION,
    INFO_PATH,
    STATS_PATH,
    Dataset,
    DatasetError,
    decode,
    to_array,
)

BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
# lerobot's own delete, split and merge leave these features' statistics as they were before.
STALE_IN_LEROBOT = ("index", "episode_index", "task_index")
NOT_NUMBERS = ("video", "image", "string", "language")

# 8-bit levels. A picture with a lower mean is black, with a lower standard deviation one colour.
BLACK, FLAT = 4.0, 2.0
# It repeats the one before if no block changes by more than STILL, and the blocks by less than
# STILL_MEAN on average: codecs make small differences even then. An episode is frozen if so large a
# share of it repeats and no block changes by more than FROZEN_CHANGE but for short moments.
STILL, STILL_MEAN, FROZEN_SHARE, FROZEN_CHANGE = 3.0, 0.1, 0.9, 16.0
REPEAT_FRAMES = 10
MOVED = 0.1  # share of its range that a state covers, on average over its numbers, when it moves
TIME_TOLERANCE = 1e-4  # s; lerobot refuses more
LIMIT_TOLERANCE = 0.005  # rad; limits in simulators are slightly soft
TRACKING_LIMIT = 0.1  # rad
SATURATED = 0.5  # share of the frames
IMAGE_MEAN_MARGIN = 0.02  # of [0, 1]; stored before compression, recomputed after it
IMAGE_STD_MARGIN = 0.03
IMAGE_SQUARES_MARGIN = 0.03  # share of the mean square
IMAGE_EXTREME_MARGIN = 0.15
SAMPLE_SIDE = 128  # pixels; larger pictures are looked at through a grid of about so many points
BLOCKS = 16
PICTURE_SIDE = 224  # pixels of the pictures kept for the report
SWAP_NOISE = 0.001  # of [0, 1]; smaller differences are the codec's
SWAP_DIFFERENCE = 0.003  # the least that one of some swapped videos must differ by
SWAP_SHIFT = 0.05
LEFTOVER_HINT = "left by a killed run; resume or recording again cleans it"
ZERO_STD_HINT = (
    "lerobot 0.5 and older write 0 here because squares overflow in 8 bits: recompute the "
    "statistics before training"
)


class UnavailableError(RuntimeError):
    """What a check needs is not there, or it does not apply; the message says which."""


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        check: The name of the check that found it.
        severity: "error" or "warning".
        message: A sentence with what was expected and what was found.
        episode: Where, or None if it is not about one episode.
        frame: Where in the episode, or None.
    """

    check: str
    severity: str
    message: str
    episode: int | None = None
    frame: int | None = None


@dataclass
class Result:
    """The outcome of one check.

    Attributes:
        name: Of the check.
        note: One line on what was looked at.
        findings: What is wrong.
        skipped: Whether the check could not be carried out or does not apply.
        seconds: Wall time.
    """

    name: str
    note: str = ""
    findings: list[Finding] = field(default_factory=list)
    skipped: bool = False
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """PASS, WARN, FAIL or SKIP."""
        if any(f.severity == "error" for f in self.findings):
            return "FAIL"
        if self.findings:
            return "WARN"
        return "SKIP" if self.skipped else "PASS"

    def error(self, message: str, episode: int | None = None, frame: int | None = None) -> None:
        """Logs something that makes the dataset unsound."""
        self.findings.append(Finding(self.name, "error", message, episode, frame))

    def warning(self, message: str, episode: int | None = None, frame: int | None = None) -> None:
        """Logs something to look at."""
        self.findings.append(Finding(self.name, "warning", message, episode, frame))


@dataclass(frozen=True)
class Tables:
    """The parquet files of a folder.

    Attributes:
        table: All rows of the readable ones, or None.
        files: Name and number of rows of each readable one.
        errors: What is wrong with the others.
    """

    table: pa.Table | None
    files: list[tuple[str, int]]
    errors: list[str]


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


class Evidence:
    """A dataset, read piece by piece, so that a broken piece does not hide the others.

    Args:
        root: The directory of the dataset.

    Raises:
        DatasetError: There is no `info.json` from which anything could be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info = _read_info(root)
        declared = self.info["features"]
        self.features = {k: f for k, f in declared.items() if not feature_fault(k, f)}
        self.fps = self.info.get("fps", 0) if _is_number(self.info.get("fps")) else 0
        self.num_episodes = _count(self.info.get("total_episodes"))
        self.num_frames = _count(self.info.get("total_frames"))
        self.cameras = [k for k, f in self.features.items() if f["dtype"] == "video"]
        self._scans: dict[str, CameraScan] = {}
        self._columns: dict[str, np.ndarray] = {}

    @cached_property
    def data(self) -> Tables:
        """The rows of all frames, also those beyond the counted ones."""
        return _read_tables(self.root, "data")

    @cached_property
    def episode_tables(self) -> Tables:
        """The rows of all episodes, also those beyond the counted ones."""
        return _read_tables(self.root, "meta/episodes")

    @cached_property
    def table(self) -> pa.Table:
        """The rows of the counted frames."""
        if self.data.table is None:
            raise UnavailableError("the data cannot be read")
        return self.data.table.slice(0, self.num_frames)

    @cached_property
    def episode_table(self) -> pa.Table:
        """The rows of the counted episodes."""
        if self.episode_tables.table is None:
            raise UnavailableError("the table of episodes cannot be read")
        return self.episode_tables.table.slice(0, self.num_episodes)

    @cached_property
    def episodes(self) -> list[dict[str, Any]]:
        """The rows of the counted episodes, without statistics."""
        names = [c for c in self.episode_table.column_names if not c.startswith("stats/")]
        return self.episode_table.select(names).to_pylist()

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """First row and row after the last of each counted episode, from their lengths."""
        lengths = [_count(row.get("length")) for row in self.episodes]
        ends = np.cumsum(lengths, dtype=np.int64)
        if not lengths or min(lengths) < 1 or ends[-1] > self.table.num_rows:
            raise UnavailableError("the episodes' lengths do not fit the rows")
        return [(int(e) - n, int(e)) for e, n in zip(ends, lengths, strict=True)]

    @cached_property
    def collection(self) -> dict[str, Any]:
        """What our recorder stored about how the dataset came about, or nothing."""
        content = _read_json(self.root / COLLECTION_PATH)
        return content if isinstance(content, dict) else {}

    @cached_property
    def stats(self) -> dict[str, dict[str, Any]]:
        """The contents of `stats.json`; empty where there is none."""
        content = _read_json(self.root / STATS_PATH)
        return content if isinstance(content, dict) else {}

    @cached_property
    def tasks(self) -> list[str]:
        """The task strings by index."""
        path = self.root / "meta/tasks.parquet"
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowInvalid, OSError) as error:
            raise UnavailableError("meta/tasks.parquet cannot be read") from error
        name = next((n for n in table.column_names if n != "task_index"), None)
        if name is None:
            raise UnavailableError("meta/tasks.parquet has no texts")
        return table.column(name).to_pylist()

    def column(self, key: str) -> np.ndarray:
        """A column of the counted rows, (frames, size).

        Raises:
            UnavailableError: There is none, or it does not hold numbers of one width.
        """
        if key not in self._columns:
            self._columns[key] = _numbers(self.table, key)
        return self._columns[key]

    def episode_column(self, name: str) -> np.ndarray:
        """A column of the counted episodes, (episodes, size).

        Raises:
            UnavailableError: There is none, or it does not hold numbers of one width.
        """
        return _numbers(self.episode_table, name)

    def named(self, key: str, prefix: str) -> np.ndarray:
        """The columns of a feature whose names begin with `prefix`, (frames, size)."""
        names = feature_names(self.features.get(key, {}))
        chosen = [k for k, name in enumerate(names) if name.startswith(prefix)]
        if not chosen:
            raise UnavailableError(f"{key} has no numbers called {prefix}*")
        return self.column(key)[:, chosen]

    def short(self, camera: str) -> str:
        """The last part of a camera's name, if that is unambiguous."""
        tail = camera.rsplit(".", 1)[-1]
        return tail if sum(c.rsplit(".", 1)[-1] == tail for c in self.cameras) == 1 else camera

    def scan(self, camera: str) -> CameraScan:
        """One pass over the videos of a camera; a second call costs nothing."""
        if camera not in self._scans:
            self._scans[camera] = _scan_camera(self, camera)
        return self._scans[camera]

    @cached_property
    def key_frames(self) -> dict[int, list[int]]:
        """First, grasp, place and last frame of up to 12 episodes, evenly chosen."""
        count = len(self.episodes)
        chosen = np.unique(np.linspace(0, count - 1, min(12, count)).round().astype(int))
        return {int(e): _key_frames(self, int(e)) for e in chosen}


# ------------------------------------------------------------------------------------- reading


def _read_info(root: Path) -> dict[str, Any]:
    """`info.json`, if it can be worked with at all."""
    try:
        return Dataset(root).info
    except DatasetError as error:
        reason = str(error)
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        reason = f"{root / INFO_PATH} cannot be read: {error}"
    content = _read_json(root / INFO_PATH)
    if not isinstance(content, dict) or content.get("codebase_version") != FORMAT_VERSION:
        raise DatasetError(reason)
    if not isinstance(content.get("features"), dict):
        raise DatasetError(f"{root / INFO_PATH} declares no features")
    return content


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _read_tables(root: Path, folder: str) -> Tables:
    tables, files, errors = [], [], []
    for path in sorted((root / folder).glob("*/*.parquet")):
        name = path.relative_to(root).as_posix()
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowInvalid, OSError) as error:
            errors.append(f"{name} cannot be read: {_first_line(error)}")
            continue
        tables.append(table)
        files.append((name, table.num_rows))
    if not files and not errors:
        errors.append(f"there is no parquet file in {folder}/chunk-*/")
    return Tables(_join(tables), files, errors)


def _join(tables: list[pa.Table]) -> pa.Table | None:
    if not tables:
        return None
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowInvalid:
        pass  # files by different programs may differ in a column's type: keep the others
    joined = {}
    for name in tables[0].column_names:
        try:
            parts = [t.select([name]) for t in tables]
            joined[name] = pa.concat_tables(parts, promote_options="permissive").column(0)
        except (pa.ArrowInvalid, KeyError):
            continue
    return pa.table(joined)


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        raise UnavailableError(f"there is no column {name}")
    column = table.column(name)
    if column.null_count:
        raise UnavailableError(f"the column {name} has {column.null_count} empty rows")
    if pa.types.is_list(column.type) and len({len(v) for v in column}) > 1:
        raise UnavailableError(f"the column {name} has not one width")
    try:
        values = to_array(column)
    except (ValueError, pa.ArrowInvalid, NotImplementedError) as error:
        raise UnavailableError(f"the column {name} has not one width") from error
    if values.dtype.kind not in "biuf":
        raise UnavailableError(f"the column {name} does not hold numbers")
    return values


def feature_fault(key: str, feature: Any) -> str:
    """What is wrong with a feature's declaration, or ""."""
    if not isinstance(feature, dict):
        return f"feature {key} is declared as {feature!r}, expected a dictionary"
    if missing := sorted({"dtype", "shape"} - set(feature)):
        return f"feature {key} lacks {missing}"
    shape = feature["shape"]
    if not isinstance(feature["dtype"], str) or not isinstance(shape, list):
        return f"feature {key} has dtype {feature['dtype']!r} and shape {shape!r}"
    if not all(isinstance(n, int) and n > 0 for n in shape):
        return f"feature {key} has shape {shape}, expected positive integers"
    return ""


def feature_names(feature: dict[str, Any]) -> list[str]:
    """The names of a feature's numbers; empty where it has none."""
    names = feature.get("names")
    if isinstance(names, dict):
        parts = [v if isinstance(v, list) else [v] for v in names.values()]
        names = [name for part in parts for name in part]
    return [str(name) for name in names] if isinstance(names, list) else []


def file_name(pattern: Any, **values: Any) -> str:
    """A path pattern of `info.json`, filled in.

    Raises:
        UnavailableError: The pattern or a value is of no use.
    """
    try:
        return string.Formatter().vformat(pattern, (), values)
    except (LookupError, ValueError, TypeError) as error:
        raise UnavailableError(f"the pattern {pattern!r} cannot be filled in") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _key_frames(evidence: Evidence, episode: int) -> list[int]:
    length = _count(evidence.episodes[episode].get("length"))
    grasp, place = length // 3, 2 * length // 3
    try:
        begin, end = evidence.spans[episode]
        grip = evidence.named("action", "action_gripper")[begin:end, 0]
    except UnavailableError:
        grip = np.zeros(0)
    if grip.size and np.ptp(grip) > 0:
        closed = np.abs(grip - grip[0]) > np.ptp(grip) / 2  # it starts open
        changes = np.flatnonzero(np.diff(closed))
        if len(changes) >= 2:
            grasp, place = int(changes[0]) + 1, int(changes[-1]) + 1
    return [0, grasp, place, max(length - 1, 0)]


# --------------------------------------------------------------------------------- one decode pass


class _EpisodeEye:
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


def _scan_camera(evidence: Evidence, camera: str) -> CameraScan:
    if not evidence.fps:
        raise UnavailableError("fps is not known")
    by_file: dict[str, list[int]] = {}
    for episode in range(len(evidence.episodes)):
        by_file.setdefault(video_name(evidence, camera, episode), []).append(episode)
    scan = CameraScan([], {})
    for name, members in by_file.items():
        members.sort(key=lambda e: _video_span(evidence, camera, e)[0])
        scan.files.append(_scan_file(evidence, camera, name, members, scan.episodes))
    return scan


def video_name(evidence: Evidence, camera: str, episode: int) -> str:
    """The file that holds an episode's pictures, below the dataset's directory."""
    row = evidence.episodes[episode]
    where = {key: row.get(f"videos/{camera}/{key}") for key in ("chunk_index", "file_index")}
    return file_name(evidence.info.get("video_path"), video_key=camera, **where)


def _video_span(evidence: Evidence, camera: str, episode: int) -> tuple[float, float]:
    row = evidence.episodes[episode]
    begin, end = (row.get(f"videos/{camera}/{side}_timestamp") for side in ("from", "to"))
    if begin is None or end is None:
        raise UnavailableError(f"episode {episode} has no times for {camera}")
    return float(begin), float(end)


def _scan_file(
    evidence: Evidence,
    camera: str,
    name: str,
    members: list[int],
    episodes: dict[int, EpisodeScan],
) -> FileScan:
    scan, path = FileScan(name, members), evidence.root / name
    eyes = {e: _EpisodeEye(evidence.key_frames.get(e, ())) for e in members}
    begins = [_video_span(evidence, camera, e)[0] for e in members]
    half = 0.5 / evidence.fps
    try:
        _read_header(path, scan)
        for at, frame in decode(path):
            scan.frames += 1
            k = int(np.searchsorted(begins, at + half, side="right")) - 1
            owner = members[max(k, 0)]
            begin, end = _video_span(evidence, camera, owner)
            if not begin - half <= at < end - half:
                scan.strays.append(at)
                continue
            expected = begin + eyes[owner].scan.frames / evidence.fps
            late = abs(at - expected) > TIME_TOLERANCE
            eyes[owner].add(frame, (at, expected) if late else None)
    except (DatasetError, FFmpegError, OSError, TypeError) as error:
        scan.error = _first_line(error).replace(f"{path} ", "")
    episodes.update({e: eye.finish() for e, eye in eyes.items()})
    return scan


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


# -------------------------------------------------------------------------------------- the format


def check_info(evidence: Evidence, log: Result) -> str:
    """`info.json`: keys, types, declarations of features."""
    info = evidence.info
    counts = ("total_episodes", "total_frames", "total_tasks", "chunks_size")
    for key in counts:
        value = info.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            log.error(f"info.json: {key} is {value!r}, expected a count")
    if not _is_number(info.get("fps")):
        log.error(f"info.json: fps is {info.get('fps')!r}, expected a positive number")
    elif not isinstance(info["fps"], int):
        log.warning(f"info.json: fps is {info['fps']}, LeRobot declares a whole number")
    for key in ("data_files_size_in_mb", "video_files_size_in_mb", "robot_type"):
        if key not in info:
            log.warning(f"info.json lacks {key}, which LeRobot writes")
    if not isinstance(info.get("data_path"), str):
        log.error(f"info.json: data_path is {info.get('data_path')!r}, expected a pattern")
    if evidence.cameras and not isinstance(info.get("video_path"), str):
        log.error("info.json: there are cameras, but video_path is no pattern")
    _check_features(info["features"], log)
    _check_splits(info, log)
    if evidence.num_episodes == 0:
        log.warning("the dataset has no episode")
    return (
        f"{evidence.num_episodes} episodes, {evidence.num_frames} frames, {evidence.fps} fps, "
        f"{len(info['features'])} features"
    )


def _check_features(features: dict[str, Any], log: Result) -> None:
    for key, feature in features.items():
        if fault := feature_fault(key, feature):
            log.error(f"info.json: {fault}")
            continue
        if "/" in key:
            log.error(f"info.json: the feature name {key!r} contains '/'")
        names, shape = feature_names(feature), feature["shape"]
        if names and len(shape) == 1 and len(names) != shape[0]:
            log.error(f"info.json: {key} has {len(names)} names for {shape[0]} numbers")
        elif len(shape) == 1 and len(set(names)) < len(names):
            log.warning(f"info.json: {key} has a name twice")
    for key, dtype in BOOKKEEPING.items():
        feature = features.get(key)
        if feature is None:
            log.error(f"info.json does not declare the feature {key}")
        elif not feature_fault(key, feature) and (feature["dtype"], feature["shape"]) != (
            dtype,
            [1],
        ):
            found = f"{feature['dtype']} {feature['shape']}"
            log.error(f"info.json: {key} is declared as {found}, expected {dtype} [1]")


def _check_splits(info: dict[str, Any], log: Result) -> None:
    splits, total = info.get("splits"), info.get("total_episodes")
    if not isinstance(splits, dict) or not splits:
        log.warning(f"info.json: splits is {splits!r}, expected names and ranges of episodes")
        return
    for name, text in splits.items():
        found = re.fullmatch(r"(\d+):(\d+)", str(text))
        if not found or not int(found[1]) <= int(found[2]) <= _count(total):
            log.error(f"info.json: split {name} is {text!r}, expected a range within 0:{total}")


def check_tasks(evidence: Evidence, log: Result) -> str:
    """The table of tasks."""
    path = evidence.root / "meta/tasks.parquet"
    if not path.is_file():
        log.error("meta/tasks.parquet is missing")
        return ""
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        log.error(f"meta/tasks.parquet cannot be read: {_first_line(error)}")
        return ""
    if "task_index" not in table.column_names:
        log.error(f"meta/tasks.parquet has the columns {table.column_names}, not task_index")
        return ""
    _check_task_index(table, log)
    numbers, total = table.column("task_index").to_pylist(), evidence.info.get("total_tasks")
    if numbers != list(range(len(numbers))):
        log.error(f"meta/tasks.parquet: task_index is {numbers[:5]}..., expected 0, 1, 2, ...")
    if len(numbers) != total:
        log.error(f"meta/tasks.parquet has {len(numbers)} tasks, info.json says {total}")
    _check_legacy_tasks(evidence, log)
    return f"{len(numbers)} task(s)"


def _check_task_index(table: pa.Table, log: Result) -> None:
    try:
        pandas = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
        index = [c for c in pandas.get("index_columns", []) if isinstance(c, str)]
    except (ValueError, AttributeError):
        index = []
    kind = table.schema.field(index[0]).type if index and index[0] in table.column_names else None
    if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        log.error(
            "meta/tasks.parquet: the task texts are no pandas index but a plain column; LeRobot "
            "looks tasks up by the index"
        )


def _check_legacy_tasks(evidence: Evidence, log: Result) -> None:
    path = evidence.root / "meta/tasks.jsonl"
    if not path.is_file():
        return
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        found = [(row["task_index"], row["task"]) for row in rows]
    except (ValueError, LookupError, TypeError) as error:
        log.error(f"meta/tasks.jsonl cannot be read: {_first_line(error)}")
        return
    if found != list(enumerate(evidence.tasks)):
        log.error(f"meta/tasks.jsonl says {found[:3]}, meta/tasks.parquet {evidence.tasks[:3]}")


def check_episodes(evidence: Evidence, log: Result) -> str:
    """The table of episodes."""
    for error in evidence.episode_tables.errors if evidence.num_episodes else ():
        log.error(error)
    if evidence.num_episodes == 0:
        return "no episodes"
    rows = evidence.episodes
    if len(rows) < evidence.num_episodes:
        expected = evidence.num_episodes
        log.error(f"meta/episodes has {len(rows)} rows, info.json says {expected} episodes")
    needed = ["episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"]
    needed += ["data/chunk_index", "data/file_index"]
    missing = [name for name in needed if name not in evidence.episode_table.column_names]
    if missing:
        log.error(f"meta/episodes lacks the columns {missing}")
        return ""
    for name in ("meta/episodes/chunk_index", "meta/episodes/file_index"):
        if name not in evidence.episode_table.column_names:
            log.warning(f"meta/episodes lacks the column {name}, which LeRobot writes")
    _check_episode_rows(evidence, log)
    _check_data_files(evidence, log)
    for camera in evidence.cameras:
        _check_video_spans(evidence, camera, log)
    lengths = [_count(row["length"]) for row in rows]
    return f"{len(rows)} rows, lengths {min(lengths)} to {max(lengths)}"


def _check_episode_rows(evidence: Evidence, log: Result) -> None:
    at = 0
    for i, row in enumerate(evidence.episodes):
        length = _count(row["length"])
        if row["episode_index"] != i:
            log.error(f"meta/episodes: row {i} holds episode {row['episode_index']}", i)
        if not length:
            log.error(f"episode {i} has length {row['length']}, expected at least 1", i)
        if not row["tasks"]:
            log.error(f"episode {i} has no task", i)
        found = (row["dataset_from_index"], row["dataset_to_index"])
        if found != (at, at + length):
            log.error(
                f"episode {i} has the rows {found[0]}..{found[1]}, expected {at}..{at + length} "
                f"from the lengths",
                i,
            )
        at += length
    if at != evidence.num_frames:
        log.error(
            f"the episodes' lengths add up to {at}, info.json says total_frames is "
            f"{evidence.num_frames}"
        )


def _check_data_files(evidence: Evidence, log: Result) -> None:
    """Each episode must be in the file that its row names."""
    begin, places = 0, {}
    for name, rows in evidence.data.files:
        places[name] = (begin, begin + rows)
        begin += rows
    for i, row in enumerate(evidence.episodes):
        where = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        try:
            name = file_name(evidence.info.get("data_path"), **where)
        except UnavailableError as error:
            log.error(f"episode {i}: {error} with {where}", i)
            continue
        if not (evidence.root / name).is_file():
            log.error(f"episode {i}: its data file {name} is missing", i)
        elif name in places and not evidence.data.errors:
            low, high = places[name]
            first, end = row["dataset_from_index"], row["dataset_to_index"]
            if None not in (first, end) and not low <= first <= end <= high:
                log.error(f"episode {i}: {name} has the rows {low}..{high}, not {first}..{end}", i)


def _check_video_spans(evidence: Evidence, camera: str, log: Result) -> None:
    """Times must fit the lengths, and episodes in one file must not overlap."""
    short, ends = evidence.short(camera), {}
    for i, row in enumerate(evidence.episodes):
        try:
            name, (begin, end) = video_name(evidence, camera, i), _video_span(evidence, camera, i)
        except UnavailableError as error:
            log.error(f"episode {i}, {short}: {error}", i)
            continue
        seconds = _count(row["length"]) / (evidence.fps or 1)
        if abs(end - begin - seconds) > 0.5 / (evidence.fps or 1):
            log.error(
                f"episode {i}, {short}: from_timestamp {begin:.4f} to to_timestamp {end:.4f} is "
                f"{end - begin:.4f} s, expected {seconds:.4f} s for {row['length']} frames",
                i,
            )
        if begin < ends.get(name, 0.0) - 0.5 / (evidence.fps or 1):
            log.error(
                f"episode {i}, {short}: begins at {begin:.4f} s of {name}, where the episode "
                f"before it lasts to {ends[name]:.4f} s",
                i,
            )
        ends[name] = end


def check_data(evidence: Evidence, log: Result) -> str:
    """The rows: files, columns, types, widths, count, no NaN."""
    if evidence.num_episodes == 0:
        return "no rows"
    for error in evidence.data.errors:
        log.error(error)
    table = evidence.table
    if table.num_rows < evidence.num_frames:
        log.error(f"data has {table.num_rows} rows, info.json says {evidence.num_frames} frames")
    declared = {k for k, f in evidence.features.items() if f["dtype"] != "video"}
    found = set(table.column_names)
    for key in sorted(declared - found):
        log.error(f"data lacks the column {key}, which info.json declares")
    for key in sorted(found - set(evidence.info["features"])):
        log.error(f"data has a column {key}, which info.json does not declare")
    for key in sorted(declared & found):
        _check_column(evidence, key, log)
    return f"{table.num_rows} rows, {len(found)} columns in {len(evidence.data.files)} file(s)"


def _check_column(evidence: Evidence, key: str, log: Result) -> None:
    feature, column = evidence.features[key], evidence.table.column(key)
    if column.null_count:
        log.error(f"{key} has {column.null_count} empty rows, expected none")
    if feature["dtype"] in NOT_NUMBERS:
        return
    stored = _stored_dtype(column.type)
    if stored != feature["dtype"]:
        log.error(f"{key} is stored as {stored}, expected {feature['dtype']} as in info.json")
    try:
        values = evidence.column(key)
    except UnavailableError as error:
        log.error(f"{key}: {error}, expected shape {feature['shape']}")
        return
    if values.shape[1] != (size := int(np.prod(feature["shape"]))):
        log.error(f"{key} has {values.shape[1]} values in a row, expected {size}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        for episode, frames in _by_episode(evidence, rows):
            text = f"episode {episode}, {_text_of(frames)}: {key} is NaN or infinite"
            log.error(text, episode, int(frames[0]))


def _stored_dtype(kind: pa.DataType) -> str:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    names = {"float": "float32", "double": "float64", "halffloat": "float16"}
    return names.get(str(kind), str(kind))


def _by_episode(evidence: Evidence, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Row numbers as (episode, frames in it)."""
    begins = np.array([begin for begin, _ in evidence.spans])
    owners = np.searchsorted(begins, rows, side="right") - 1
    for episode in np.unique(owners):
        yield int(episode), rows[owners == episode] - begins[episode]


def _text_of(frames: Any) -> str:
    """`frame 7` or `frames 7..19 (4 of them)`."""
    if len(frames) == 1:
        return f"frame {frames[0]}"
    return f"frames {frames[0]}..{frames[-1]} ({len(frames)} of them)"


def check_rows(evidence: Evidence, log: Result) -> str:
    """The bookkeeping columns, the tasks and the ends of episodes."""
    spans, counted = evidence.spans, evidence.spans[-1][1]
    numbers = np.arange(counted)
    owners = np.repeat(np.arange(len(spans)), [end - begin for begin, end in spans])
    frames = numbers - np.array([begin for begin, _ in spans])[owners]
    expected = {"index": numbers, "episode_index": owners, "frame_index": frames}
    for key, want in expected.items():
        got = evidence.column(key)[:counted, 0]
        for episode, bad in _by_episode(evidence, np.flatnonzero(got != want)):
            row = spans[episode][0] + int(bad[0])
            log.error(
                f"episode {episode}, {_text_of(bad)}: {key} is {got[row]}, expected {want[row]}",
                episode,
                int(bad[0]),
            )
    _check_row_tasks(evidence, log)
    if "next.done" in evidence.features:
        _check_done(evidence, log)
    return f"{counted} rows in {len(spans)} episodes"


def _check_row_tasks(evidence: Evidence, log: Result) -> None:
    tasks, index = evidence.tasks, evidence.column("task_index")[:, 0]
    wrong = np.flatnonzero((index < 0) | (index >= len(tasks)))
    for episode, bad in _by_episode(evidence, wrong):
        row = evidence.spans[episode][0] + int(bad[0])
        log.error(
            f"episode {episode}, {_text_of(bad)}: task_index is {index[row]}, expected 0 to "
            f"{len(tasks) - 1}",
            episode,
            int(bad[0]),
        )
    if wrong.size:
        return
    for i, (begin, end) in enumerate(evidence.spans):
        used = {tasks[k] for k in np.unique(index[begin:end])}
        listed = set(evidence.episodes[i].get("tasks") or ())
        if used != listed:
            log.error(
                f"episode {i}: its rows have the tasks {used}, meta/episodes lists {listed}", i
            )


def _check_done(evidence: Evidence, log: Result) -> None:
    done = evidence.column("next.done")[:, 0].astype(bool)
    for i, (begin, end) in enumerate(evidence.spans):
        found = np.flatnonzero(done[begin:end]).tolist()
        if found != [end - begin - 1]:
            where = _text_of(found) if found else "no frame"
            log.error(
                f"episode {i}: next.done is true at {where}, expected only at the last frame "
                f"{end - begin - 1}",
                i,
            )


def check_timestamps(evidence: Evidence, log: Result) -> str:
    """`timestamp` must be frame_index / fps."""
    if not evidence.fps:
        raise UnavailableError("fps is not known")
    worst = 0.0
    for i, (begin, end) in enumerate(evidence.spans):
        found = evidence.column("timestamp")[begin:end, 0].astype(np.float64)
        want = (np.arange(end - begin) / evidence.fps).astype(np.float32)
        off = np.abs(found - want)
        tolerance = np.maximum(TIME_TOLERANCE, 2 * np.spacing(want))
        bad = np.flatnonzero(~(off <= tolerance))
        worst = max(worst, float(off.max()))
        if bad.size:
            k = int(bad[0])
            text = f"timestamp is {found[k]:.5f} s, expected {want[k]:.5f} s"
            log.error(f"episode {i}, {_text_of(bad)}: {text}", i, k)
    return f"largest difference to the grid {worst * 1000:.3f} ms"


def check_leftovers(evidence: Evidence, log: Result) -> str:
    """Rows and files that no counted episode refers to."""
    for kind, tables, counted in (
        ("data", evidence.data, evidence.num_frames),
        ("meta/episodes", evidence.episode_tables, evidence.num_episodes),
    ):
        extra = (tables.table.num_rows if tables.table else 0) - counted
        if extra > 0:
            log.warning(f"{kind} has {extra} rows beyond the counted {counted}: {LEFTOVER_HINT}")
    known = _known_videos(evidence)
    for path in sorted((evidence.root / "videos").rglob("*.mp4")):
        name = path.relative_to(evidence.root).as_posix()
        if known is not None and name not in known:
            log.warning(f"{name} belongs to no counted episode: {LEFTOVER_HINT}")
    for pattern in (".unfinished", "*.new", "*.old", "meta/*.new", "meta/*.old"):
        for path in sorted(evidence.root.glob(pattern)):
            name = path.relative_to(evidence.root).as_posix()
            log.warning(f"{name} is not part of the dataset: {LEFTOVER_HINT}")
    return "none" if not log.findings else f"{len(log.findings)} kinds"


def _known_videos(evidence: Evidence) -> set[str] | None:
    """The video files of the counted episodes, under both of their names."""
    known = set()
    try:
        for camera in evidence.cameras:
            for episode in range(len(evidence.episodes)):
                name = video_name(evidence, camera, episode)
                known |= {name, str(Path(name).with_name(f"episode_{episode:05d}.mp4"))}
    except UnavailableError:
        return None  # which files are counted is not known; another check says why
    return known


# -------------------------------------------------------------------------------------- the videos


def check_video(evidence: Evidence, log: Result, camera: str) -> str:
    """The files of a camera: present, decodable, one frame per row, on the grid, as declared."""
    scan = evidence.scan(camera)
    for file in scan.files:
        _check_video_file(evidence, camera, file, log)
        if not file.error.startswith("is missing"):
            for i in file.episodes:
                _check_video_episode(evidence, file, i, scan.episodes[i], log)
    sizes = sorted({f"{f.width} x {f.height}" for f in scan.files if f.width})
    frames = sum(f.frames for f in scan.files)
    return f"{frames} frames in {len(scan.files)} file(s), {', '.join(sizes)}"


def _check_video_file(evidence: Evidence, camera: str, file: FileScan, log: Result) -> None:
    where = _episodes_text(file.episodes)
    if file.error:
        frames = sum(_count(evidence.episodes[i].get("length")) for i in file.episodes)
        reached = f" after {file.frames} of {frames} frames" if file.frames else ""
        log.error(f"{file.name} ({where}) {file.error}{reached}", file.episodes[0])
    if not file.width:
        return
    height, width = evidence.features[camera]["shape"][:2]
    if (file.width, file.height) != (width, height):
        found = f"{file.width} x {file.height}"
        log.error(f"{file.name} ({where}) is {found}, expected {width} x {height} (w x h)")
    if abs(file.fps - evidence.fps) > 0.005 * evidence.fps and file.frames > 1:
        log.error(f"{file.name} ({where}) has {file.fps:g} fps, expected {evidence.fps:g}")
    if file.strays:
        log.error(
            f"{file.name} ({where}): {len(file.strays)} frame(s) from {file.strays[0]:.4f} s on "
            f"belong to no episode, expected none"
        )


def _check_video_episode(
    evidence: Evidence, file: FileScan, i: int, scan: EpisodeScan, log: Result
) -> None:
    length = _count(evidence.episodes[i].get("length"))
    if scan.frames != length and not file.error:
        log.error(f"{file.name}: episode {i} has {scan.frames} frames for {length} rows", i)
    if scan.off_grid:
        frame, found, expected = scan.off_grid
        text = f"is at {found:.4f} s, expected {expected:.4f} s"
        log.error(f"{file.name}: frame {frame} of episode {i} {text}", i, frame)
    if scan.damaged:
        text = f"{_text_of(scan.damaged)} of episode {i} cannot be decoded without damage"
        log.error(f"{file.name}: {text}", i, scan.damaged[0])


def _episodes_text(episodes: list[int]) -> str:
    if len(episodes) == 1:
        return f"episode {episodes[0]}"
    return f"episodes {min(episodes)}..{max(episodes)}"


def check_pictures(evidence: Evidence, log: Result, camera: str) -> str:
    """What a camera shows: no black, flat or frozen pictures."""
    scan = evidence.scan(camera)
    if _is_depth(evidence.features[camera]):
        raise UnavailableError("it shows depth, not colours")
    seen = 0
    for i, episode in sorted(scan.episodes.items()):
        seen += episode.frames
        for kind, frames in (("black", episode.black), ("one flat colour", episode.flat)):
            if frames:
                text = f"episode {i}, {_text_of(frames)}: the picture is {kind}"
                log.error(text, i, frames[0])
        if not episode.black and not episode.flat and episode.frames > REPEAT_FRAMES:
            _check_motion(evidence, i, episode, log)
    if not seen:
        raise UnavailableError("no picture could be decoded")
    return f"{seen} pictures looked at"


def _is_depth(feature: dict[str, Any]) -> bool:
    details = feature.get("info") or {}
    return any(bool(details.get(k)) for k in ("video.is_depth_map", "is_depth_map"))


def _check_motion(evidence: Evidence, i: int, scan: EpisodeScan, log: Result) -> None:
    if scan.repeated >= FROZEN_SHARE and scan.change <= FROZEN_CHANGE:
        if _moves(evidence, i, 0, scan.frames):
            log.error(
                f"episode {i}: the picture is frozen, {scan.repeated:.0%} of its {scan.frames} "
                f"frames repeat the one before while the state moves",
                i,
            )
        return
    for begin, length in scan.runs:
        if _moves(evidence, i, begin, length):
            text = f"frames {begin}..{begin + length - 1} ({length} of them)"
            log.warning(
                f"episode {i}, {text}: the same picture is repeated while the state moves", i, begin
            )


def _moves(evidence: Evidence, episode: int, frame: int, length: int) -> bool:
    """Whether the state moves during some frames; unknown counts as yes for whole episodes."""
    try:
        try:
            state = evidence.named("observation.state", "joint_pos_")
        except UnavailableError:
            state = evidence.column("observation.state")
        begin, end = evidence.spans[episode]
    except UnavailableError:
        return frame == 0 and length == _count(evidence.episodes[episode].get("length"))
    rows = state[begin:end].astype(np.float64)
    spread = np.ptp(rows, axis=0)
    part = np.ptp(rows[frame : frame + length], axis=0)
    moving = spread > 1e-6
    return bool(moving.any() and (part[moving] / spread[moving]).mean() > MOVED)


def check_video_order(evidence: Evidence, log: Result) -> str:
    """Whether videos were swapped: each must fit its own stored statistics best."""
    labels, stored, found = _fingerprints(evidence)
    if len(labels) < 2:
        raise UnavailableError("there are not two videos with statistics of their own")
    swapped = {**_swapped(stored, found), **_swapped(stored, found - _shift(labels, stored, found))}
    for k, match in sorted(swapped.items()):
        (camera, i), (other, j) = labels[k], labels[match]
        name = video_name(evidence, camera, i)
        log.error(
            f"{name} (episode {i}, {evidence.short(camera)}) seems to be swapped: what should "
            f"be in it is in the video of episode {j}, {evidence.short(other)}",
            i,
        )
    return f"{len(labels)} videos compared with their statistics"


def _swapped(stored: np.ndarray, found: np.ndarray) -> dict[int, int]:
    """Video and the one that fits it, where they go round in a circle.

    Only then is it a swap: a difference common to all videos, such as the codec's, never makes
    each of them fit the next one's statistics all the way round.
    """
    own = np.abs(stored - found).max(axis=1)
    best = np.empty(len(own), dtype=int)
    nearest = np.empty(len(own))
    for k in range(len(own)):
        distance = np.abs(stored[k] - found).max(axis=1)
        best[k] = distance.argmin()
        nearest[k] = distance[best[k]]
    suspects = (own > SWAP_NOISE) & (nearest < 0.5 * own)
    circles = [_circle(k, best, suspects) for k in range(len(own))]
    return {c[0]: int(best[c[0]]) for c in circles if c and own[c].max() > SWAP_DIFFERENCE}


def _shift(labels: list[tuple[str, int]], stored: np.ndarray, found: np.ndarray) -> np.ndarray:
    """What is common to a camera's differences; swaps within the camera do not change it."""
    cameras = np.array([camera for camera, _ in labels])
    shift = np.zeros_like(found)
    for camera in set(cameras):
        rows = cameras == camera
        mean = (found[rows] - stored[rows]).mean(axis=0)
        if np.abs(mean).max() <= SWAP_SHIFT:  # more is no codec's doing
            shift[rows] = mean
    return shift


def _circle(start: int, best: np.ndarray, suspects: np.ndarray) -> list[int]:
    """The suspects from `start` on, each the best match of the one before; [] if no circle."""
    members, at = [], start
    while suspects[at] and at not in members:
        members.append(at)
        at = int(best[at])
    return members if members and at == start else []


def _fingerprints(evidence: Evidence) -> tuple[list[tuple[str, int]], np.ndarray, np.ndarray]:
    """Label, stored and recomputed statistics (n, k) of every video that has both."""
    labels, stored, found = [], [], []
    for camera in evidence.cameras:
        try:
            columns = {n: evidence.episode_column(f"stats/{camera}/{n}") for n in ("mean", "std")}
            episodes = evidence.scan(camera).episodes
        except UnavailableError:
            continue
        if columns["mean"].shape[1] != 3:
            continue
        with_std = columns["std"].any()  # not in datasets by lerobot 0.5 and older
        for i, episode in sorted(episodes.items()):
            if episode.image_stats is None:
                continue
            own = [columns["mean"][i], columns["std"][i] * with_std]
            seen = [episode.image_stats["mean"].ravel(), episode.image_stats["std"].ravel()]
            labels.append((camera, i))
            stored.append(np.concatenate(own))
            found.append(np.concatenate([seen[0], seen[1] * with_std]))
    return labels, np.array(stored), np.array(found)


# ---------------------------------------------------------------------------------- the statistics


def check_statistics(evidence: Evidence, log: Result) -> str:
    """The statistics of numbers, of the dataset and of each episode, against recomputation."""
    if evidence.num_episodes == 0:
        return "no rows"
    if not evidence.stats:
        log.error("meta/stats.json is missing or cannot be read")
    checked = 0
    for key, feature in evidence.features.items():
        if feature["dtype"] in NOT_NUMBERS or len(feature["shape"]) != 1:
            continue
        try:
            values = evidence.column(key).astype(np.float64)
        except UnavailableError:
            continue
        checked += 1
        faults = []
        if evidence.stats:
            stored = evidence.stats.get(key)
            faults += [(None, f"meta/stats.json, {key}", f) for f in _stats_faults(stored, values)]
        faults += _episode_stats_faults(evidence, key, values)
        _report_stats(key, faults, log)
    return f"{checked} features recomputed"


def _report_stats(key: str, faults: list[tuple[int | None, str, str]], log: Result) -> None:
    """One finding for each place; one warning for a feature that lerobot leaves stale."""
    by_place: dict[str, list[tuple[int | None, str]]] = {}
    for episode, place, fault in faults:
        by_place.setdefault(place, []).append((episode, fault))
    for place, found in by_place.items():
        episode, fault = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        if key in STALE_IN_LEROBOT:
            more = f" ({len(by_place)} such); lerobot's own tools leave these statistics stale"
            log.warning(f"{place}: {fault}{more}", episode)
            return
        log.error(f"{place}: {fault}{more}", episode)


def _stats_faults(stored: Any, values: np.ndarray) -> Iterator[str]:
    if not isinstance(stored, dict):
        yield "there are no statistics"
        return
    want = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
    }
    scale = np.abs(values).max(0)
    for name, numbers in want.items():
        got = _array(stored.get(name))
        if got is None or got.size != numbers.size:
            yield f"{name} has {0 if got is None else got.size} values, expected {numbers.size}"
        elif (bad := _off(name, got.ravel(), numbers, scale)) is not None:
            yield f"{name}[{bad}] is {got.ravel()[bad] + 0:.6g}, recomputed {numbers[bad]:.6g}"
    count = _array(stored.get("count"))
    if count is None or count.size != 1 or count.ravel()[0] != len(values):
        yield f"count is {stored.get('count')}, expected [{len(values)}]"
    yield from _quantile_faults(stored, scale)


def _off(name: str, got: np.ndarray, want: np.ndarray, scale: np.ndarray) -> int | None:
    """The first number that is off.

    lerobot sums squares in float32, hence the wider margin of std.
    """
    margin = (2e-3 if name == "std" else 1e-4) * scale + 1e-6
    bad = np.flatnonzero(~(np.abs(got - want) <= margin) & np.isfinite(want))
    return int(bad[0]) if bad.size else None


def _quantile_faults(stored: dict[str, Any], scale: np.ndarray | float) -> Iterator[str]:
    ladder = [(n, _array(stored.get(n))) for n in ("min", *stats.QUANTILES, "max") if n in stored]
    for (low, a), (high, b) in zip(ladder, ladder[1:], strict=False):
        if a is None or b is None or a.size != b.size:
            continue
        margin = 1e-3 * np.asarray(scale).ravel() + 1e-6
        if not (a.ravel() <= b.ravel() + margin).all():
            yield f"{low} is above {high}, expected rising quantiles"


def _array(value: Any) -> np.ndarray | None:
    try:
        return np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError):
        return None


def _episode_stats_faults(
    evidence: Evidence, key: str, values: np.ndarray
) -> list[tuple[int | None, str, str]]:
    """Episode, place and fault of the statistics in meta/episodes; there may be none of them."""
    try:
        stored = _stored_columns(evidence, key)
        spans = evidence.spans if stored else []
    except UnavailableError as error:
        return [(None, f"meta/episodes, {key}", str(error))]
    faults: list[tuple[int | None, str, str]] = []
    for i, (begin, end) in enumerate(spans):
        own = {name: column[i] for name, column in stored.items()}
        place = f"meta/episodes, episode {i}, {key}"
        faults += [(i, place, fault) for fault in _stats_faults(own, values[begin:end])]
    return faults


def _stored_columns(evidence: Evidence, key: str) -> dict[str, np.ndarray]:
    """The columns stats/<key>/* of meta/episodes, each (episodes, size)."""
    names = ("min", "max", "mean", "std", "count", *stats.QUANTILES)
    present = [n for n in names if f"stats/{key}/{n}" in evidence.episode_table.column_names]
    if present and (missing := sorted({"min", "max", "mean", "std", "count"} - set(present))):
        raise UnavailableError(f"there are no columns stats/{key}/ for {missing}")
    return {n: evidence.episode_column(f"stats/{key}/{n}") for n in present}


def check_image_statistics(evidence: Evidence, log: Result, camera: str) -> str:
    """The statistics of a camera against the decoded pictures."""
    if evidence.num_episodes == 0:
        return "no pictures"
    if evidence.features[camera]["shape"][-1] != 3 or _is_depth(evidence.features[camera]):
        raise UnavailableError("it shows no colours")
    try:
        columns = _stored_columns(evidence, camera)
    except UnavailableError as error:
        log.error(f"meta/episodes: {error}")
        columns = {}
    per_episode = {i: s.image_stats for i, s in evidence.scan(camera).episodes.items()}
    zero_bug = "std" in columns and not columns["std"].any()
    total, worst = None, 0.0
    # Every fourth pixel, from the corner on, lies up to 1.5 pixels off the middle of the picture.
    margin = IMAGE_MEAN_MARGIN + 1.5 / min(evidence.features[camera]["shape"][:2])
    for i, seen in sorted(per_episode.items()):
        if seen is None:
            continue
        total = stats.fold(total, seen)
        own = {name: column[i].reshape(-1, 1, 1) for name, column in columns.items()}
        if columns and not zero_bug:
            for fault in _image_faults(own, seen, margin, not own["std"].any()):
                log.error(f"meta/episodes, episode {i}: {fault}", i)
            worst = max(worst, float(np.abs(own["mean"] - seen["mean"]).max()))
    if zero_bug:
        log.error(f"meta/episodes: std is 0 in every episode; {ZERO_STD_HINT}")
    if total is None:
        raise UnavailableError("no picture could be decoded")
    complete = all(seen is not None for seen in per_episode.values())
    for fault in _image_faults(evidence.stats.get(camera), total, margin, zero_bug, complete):
        log.error(f"meta/stats.json: {fault}")
    return f"largest difference of an episode's mean {worst:.4f}" if columns else "no episodes'"


def _image_faults(
    stored: Any, seen: stats.Stats, margin: float, zero_bug: bool, complete: bool = True
) -> Iterator[str]:
    if not isinstance(stored, dict):
        yield "there are no statistics of the pictures"
        return
    arrays = {n: _array(stored.get(n)) for n in ("min", "max", "mean", "std")}
    for name, value in arrays.items():
        if value is None or value.shape != (3, 1, 1):
            found = None if value is None else value.shape
            yield f"{name} has shape {found}, expected (3, 1, 1)"
            return
    good = {n: v for n, v in arrays.items() if v is not None}
    top = max(float(v.max()) for v in good.values())
    if top > 1 + 1e-6 or min(float(v.min()) for v in good.values()) < -1e-6:
        yield f"values go up to {top:.4g}, expected all within [0, 1]"
        return
    yield from _quantile_faults(stored, 1.0)
    count = _array(stored.get("count"))
    if count is None or count.size != 1 or not count.ravel()[0] > 0:
        yield f"count is {stored.get('count')}, expected the number of pictures"
    if complete:
        yield from _image_values_faults(good, seen, margin, zero_bug)


def _image_values_faults(
    stored: dict[str, np.ndarray], seen: stats.Stats, margin: float, zero_bug: bool
) -> Iterator[str]:
    if np.abs(stored["mean"] - seen["mean"]).max() > margin:
        yield f"mean is {_rgb(stored['mean'])}, decoded pictures give {_rgb(seen['mean'])}"
    zero = zero_bug or not stored["std"].any()
    off = np.abs(stored["std"] - seen["std"]) > IMAGE_STD_MARGIN
    if not zero:  # lerobot 0.6 sums squares in float32, which adds up to some per cent of them
        squares = seen["mean"] ** 2 + seen["std"] ** 2
        off &= np.abs(stored["std"] ** 2 - seen["std"] ** 2) > IMAGE_SQUARES_MARGIN * squares
    if off.any():
        hint = f"; {ZERO_STD_HINT}" if zero else ""
        yield f"std is {_rgb(stored['std'])}, decoded pictures give {_rgb(seen['std'])}{hint}"
    # The stored ones may come from fewer pixels, so they may miss what only a few pixels show.
    wide = IMAGE_EXTREME_MARGIN
    if (stored["min"] < seen["min"] - wide).any() or (stored["min"] > seen["q01"] + wide).any():
        yield f"min is {_rgb(stored['min'])}, decoded pictures give {_rgb(seen['min'])}"
    if (stored["max"] > seen["max"] + wide).any() or (stored["max"] < seen["q99"] - wide).any():
        yield f"max is {_rgb(stored['max'])}, decoded pictures give {_rgb(seen['max'])}"


def _rgb(value: np.ndarray) -> list[float]:
    return np.round(value.ravel(), 3).tolist()


# --------------------------------------------------------------------------------------- the robot


def check_joint_limits(evidence: Evidence, log: Result) -> str:
    """Joint positions, and their targets, within the limits in `collection.json`."""
    low, high = _limit(evidence, "joint_low"), _limit(evidence, "joint_high")
    looked = []
    for key, prefix in (("observation.state", "joint_pos_"), ("action", "action_joint_")):
        try:
            values = evidence.named(key, prefix)
        except UnavailableError:
            continue
        if values.shape[1] != low.size:
            raise UnavailableError(f"{low.size} limits do not fit {values.shape[1]} {prefix}*")
        looked.append(prefix + "*")
        beyond = np.maximum(low - values, values - high)
        _report_beyond(evidence, log.error, prefix, values, beyond - LIMIT_TOLERANCE, (low, high))
    if not looked:
        raise UnavailableError("no numbers are called joint_pos_* or action_joint_*")
    return f"{', '.join(looked)} within the limits" if not log.findings else ", ".join(looked)


def _report_beyond(
    evidence: Evidence,
    report: Callable[[str, int | None, int | None], None],
    prefix: str,
    values: np.ndarray,
    beyond: np.ndarray,
    limits: tuple[np.ndarray, np.ndarray],
) -> None:
    """One finding per episode, at its worst frame."""
    for episode, frames in _by_episode(evidence, np.flatnonzero((beyond > 0).any(axis=1))):
        rows = evidence.spans[episode][0] + frames
        worst, joint = np.unravel_index(beyond[rows].argmax(), beyond[rows].shape)
        low, high = limits[0][joint], limits[1][joint]
        report(
            f"episode {episode}, {_text_of(frames)}: {prefix}{joint} is "
            f"{values[rows[worst], joint]:.4f} at frame {frames[worst]}, expected {low:.4f} to "
            f"{high:.4f}",
            episode,
            int(frames[worst]),
        )


def _limit(evidence: Evidence, name: str) -> np.ndarray:
    limits = evidence.collection.get("limits")
    value = _array(limits.get(name)) if isinstance(limits, dict) and name in limits else None
    if value is None or value.ndim != 1:
        raise UnavailableError(f"collection.json has no limits of {name}")
    return value


def check_joint_speed(evidence: Evidence, log: Result) -> str:
    """Joint velocities within the limits in `collection.json`."""
    top = _limit(evidence, "joint_velocity")
    speed = evidence.named("observation.state", "joint_vel_")
    if speed.shape[1] != top.size:
        raise UnavailableError(f"{top.size} limits do not fit {speed.shape[1]} joint_vel_*")
    _report_beyond(evidence, log.warning, "joint_vel_", speed, np.abs(speed) - top, (-top, top))
    return f"at most {(np.abs(speed) / top).max():.0%} of the limit"


def tracking_error(evidence: Evidence) -> np.ndarray:
    """|joint positions one step later - their targets| in rad, (frames, joints); NaN at ends.

    Raises:
        UnavailableError: State or action have no such names.
    """
    state = evidence.named("observation.state", "joint_pos_").astype(np.float64)
    target = evidence.named("action", "action_joint_").astype(np.float64)
    if state.shape != target.shape:
        raise UnavailableError("there are not as many joints in the action as in the state")
    error = np.full(state.shape, np.nan)
    error[:-1] = np.abs(state[1:] - target[:-1])
    error[[end - 1 for _, end in evidence.spans]] = np.nan
    return error


def check_tracking(evidence: Evidence, log: Result) -> str:
    """How well the arm follows its targets."""
    error = tracking_error(evidence)
    known = error[np.isfinite(error)]
    if not known.size:
        raise UnavailableError("no episode has two frames")
    for i, (begin, end) in enumerate(evidence.spans):
        part = np.nan_to_num(error[begin:end])
        frame, joint = np.unravel_index(part.argmax(), part.shape)
        if part[frame, joint] > TRACKING_LIMIT:
            log.warning(
                f"episode {i}, frame {frame}: joint {joint} is {part[frame, joint]:.3f} rad away "
                f"from its target one step later, expected at most {TRACKING_LIMIT}",
                i,
                int(frame),
            )
    return f"max {known.max():.4f} rad, 99th percentile {np.percentile(known, 99):.4f} rad"


def check_saturation(evidence: Evidence, log: Result) -> str:
    """How often the action is at a bound: of the joints if known, else its own extremes."""
    action = evidence.column("action")
    names = feature_names(evidence.features.get("action", {}))
    names = names if len(names) == action.shape[1] else [f"action[{k}]" for k in range(len(names))]
    names = names or [f"action[{k}]" for k in range(action.shape[1])]
    low, high = _action_bounds(evidence, names, action)
    highest = 0.0
    for k, name in enumerate(names):
        if "gripper" in name or len(np.unique(action[:1000, k])) < 5:
            continue  # a gripper, a switch or a constant is at a bound by nature
        near = 1e-4 * (high[k] - low[k])
        share = float(((action[:, k] <= low[k] + near) | (action[:, k] >= high[k] - near)).mean())
        highest = max(highest, share)
        if share > SATURATED:
            text = f"expected at most {SATURATED:.0%}"
            log.warning(f"{name} is at a bound in {share:.0%} of the frames, {text}")
    return f"at most {highest:.1%} of the frames"


def _action_bounds(
    evidence: Evidence, names: list[str], action: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    low, high = action.min(0).astype(np.float64), action.max(0).astype(np.float64)
    joints = [k for k, name in enumerate(names) if name.startswith("action_joint_")]
    try:
        known = _limit(evidence, "joint_low"), _limit(evidence, "joint_high")
    except UnavailableError:
        return low, high
    if joints and len(joints) == known[0].size == known[1].size:
        low[joints], high[joints] = known
    return low, high


def check_success(evidence: Evidence, log: Result) -> str:
    """The success of an episode against the success of its last frame."""
    labels = [row.get("episode/success") for row in evidence.episodes]
    if missing := [i for i, label in enumerate(labels) if label is None]:
        if len(missing) < len(labels):
            log.error(f"episode {missing[0]}: episode/success is empty", missing[0])
        raise UnavailableError("there is no episode/success")
    if "next.success" not in evidence.features:
        raise UnavailableError("there is no next.success")
    frames = evidence.column("next.success")[:, 0].astype(bool)
    for i, (_, end) in enumerate(evidence.spans):
        if bool(labels[i]) != bool(frames[end - 1]):
            log.error(
                f"episode {i}: next.success of its last frame is {bool(frames[end - 1])}, "
                f"expected {labels[i]} as in episode/success",
                i,
            )
    return f"{sum(map(bool, labels))} of {len(labels)} episodes succeeded"


# ------------------------------------------------------------------------------------- all of them


Check = Callable[[Evidence, Result], str]


def all_checks(evidence: Evidence) -> list[tuple[str, Check]]:
    """Name and function of every check, in the order in which they are reported."""
    checks: list[tuple[str, Check]] = [
        ("info", check_info),
        ("tasks", check_tasks),
        ("episodes", check_episodes),
        ("data", check_data),
        ("rows", check_rows),
        ("timestamps", check_timestamps),
        ("leftovers", check_leftovers),
        ("statistics", check_statistics),
    ]
    for camera in evidence.cameras:
        short = evidence.short(camera)
        checks += [
            (f"video {short}", partial(check_video, camera=camera)),
            (f"pictures {short}", partial(check_pictures, camera=camera)),
            (f"image statistics {short}", partial(check_image_statistics, camera=camera)),
        ]
    return checks + [
        ("video order", check_video_order),
        ("joint limits", check_joint_limits),
        ("joint speed", check_joint_speed),
        ("tracking", check_tracking),
        ("saturation", check_saturation),
        ("success", check_success),
    ]


def run_checks(evidence: Evidence) -> list[Result]:
    """Runs every check, whatever becomes of the others."""
    return [_run(name, check, evidence) for name, check in all_checks(evidence)]


def _run(name: str, check: Check, evidence: Evidence) -> Result:
    result, begin = Result(name), time.perf_counter()
    try:
        with np.errstate(all="ignore"):
            result.note = check(evidence, result)
    except UnavailableError as reason:
        result.skipped, result.note = True, str(reason)
    except Exception as error:  # a dataset may be broken in ways that nobody has thought of
        result.error(f"could not be checked: {type(error).__name__}: {_first_line(error)}")
    result.seconds = time.perf_counter() - begin
    return result
