"""A reader of any LeRobot v3.0 dataset, by this project or not, that does not need lerobot."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pyarrow as pa

from pp_recorder.dataset import keys, tables
from pp_recorder.dataset.files import fill_in, locate, table_files
from pp_recorder.dataset.paths import media_url
from pp_recorder.dataset.schema import feature_fault, is_count, is_vector
from pp_recorder.dataset.stats import Stats
from pp_recorder.dataset.tables import DatasetError

__all__ = ["Dataset", "DatasetError", "decode", "to_array"]

_MAX_JSON = 64 * 2**20  # bytes
_SHOWN = 3  # datasets near a place where there is none


class Dataset:
    """A dataset on disk, as its `info.json` counts it.

    It ignores rows and files beyond the counted episodes, left by a collection that was killed.

    Args:
        root: The directory that holds meta/, data/ and, with cameras, videos/.

    Attributes:
        info: The contents of `info.json`.
        features: The entries of the columns in `info.json`, by name.
        fps: Frames per second.
        num_episodes: Episodes counted in `info.json`.
        num_frames: Frames counted in `info.json`.
        cameras: The features that are videos.
        episodes: The rows of `meta/episodes`, by episode, without their statistics.

    Raises:
        DatasetError: It is not a readable v3.0 dataset.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info = _read_info(root)
        self.features: dict[str, dict[str, Any]] = self.info["features"]
        self.fps: int = self.info["fps"]
        self.num_episodes: int = self.info["total_episodes"]
        self.num_frames: int = self.info["total_frames"]
        self.cameras = [k for k, f in self.features.items() if f["dtype"] == "video"]
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._video_paths: dict[str, Path] = {}
        self._episode_stats: dict[str, list[Stats]] = {}
        self._episode_table = pa.table({})
        self.episodes = self._read_episodes()

    @property
    def collection(self) -> dict[str, Any] | None:
        """Return the provenance that our recorder has stored; None in a foreign dataset."""
        return read_json(locate(self.root, keys.COLLECTION_PATH))

    @property
    def subtasks(self) -> tuple[str, ...]:
        """Return the texts that `subtask_index` counts; none in a dataset without them."""
        return tuple(read_texts(locate(self.root, keys.SUBTASKS_PATH), keys.SUBTASK_INDEX))

    @property
    def tasks(self) -> list[str]:
        """Return the texts that `task_index` counts."""
        return read_texts(locate(self.root, keys.TASKS_PATH), keys.TASK_INDEX)

    @property
    def stats(self) -> dict[str, dict[str, Any]] | None:
        """Return the contents of `stats.json`, or None where there is none."""
        return read_json(locate(self.root, keys.STATS_PATH))

    @cached_property
    def column_names(self) -> list[str]:
        """Return the columns of the data, in order, whether or not `info.json` declares them."""
        names = (tables.column_names(path) for path in self._files(keys.DATA_FOLDER))
        return list(dict.fromkeys(name for part in names for name in part))

    @property
    def table(self) -> pa.Table:
        """Return all columns of all counted rows, in plain types."""
        return pa.table({key: self.stored(key) for key in self.column_names})

    def stored(self, key: str) -> pa.ChunkedArray:
        """Return a column of all counted rows as it is stored, in a plain type.

        Raises:
            DatasetError: There is none, or not for all rows.
        """
        self._load([key])
        return self._columns[key]

    def column(self, key: str) -> np.ndarray:
        """Return a column of all rows, (frames, size)."""
        return self._to_array(key, self.stored(key))

    def rows(self, episode: int, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Return the columns of one episode that hold numbers or vectors, each (length, size).

        Args:
            episode: Its number.
            only: Those that are needed; by default all of them.
        """
        stored = set(self.column_names)
        names = [k for k, f in self.features.items() if is_vector(f) and k in stored]
        names = [key for key in names if only is None or key in only]
        self._load(names)  # all in one pass
        return {key: self._to_array(key, self.stored_rows(key, episode)) for key in names}

    def stored_rows(self, key: str, episode: int) -> pa.ChunkedArray:
        """Return a column of one episode as it is stored, in a plain type."""
        entry = self.episodes[episode]
        return self.stored(key).slice(entry[keys.FROM_INDEX], entry[keys.LENGTH])

    def episode_stats(self, key: str) -> list[Stats]:
        """Return the stored statistics of a feature, by episode; empty ones if there are none."""
        if key not in self._episode_stats:
            prefix = keys.stats_column(key, "")
            table = self._read_table(keys.EPISODES_FOLDER, lambda name: name.startswith(prefix))
            rows = table.slice(0, self.num_episodes).to_pylist()
            self._episode_stats[key] = [stored_stats(row, key) for row in rows]
        return self._episode_stats[key]

    @property
    def extra_schema(self) -> pa.Schema:
        """Return the columns of `meta/episodes` that LeRobot does not need, with their types."""
        fields = [f for f in self._episode_table.schema if not keys.is_needed_by_lerobot(f.name)]
        return pa.schema(fields)

    def extra(self, episode: int) -> dict[str, pa.Scalar]:
        """Return the values of `extra_schema` of an episode."""
        columns = self.extra_schema.names
        return {name: self._episode_table.column(name)[episode] for name in columns}

    def video_path(self, episode: int, camera: str) -> Path:
        """Return the file with an episode's images, which may hold other episodes, too."""
        entry = self.episodes[episode]
        where = {k: entry[keys.video_column(camera, k)] for k in ("chunk_index", "file_index")}
        try:
            name = fill_in(self.info["video_path"], video_key=camera, **where)
        except DatasetError as error:
            raise DatasetError(f"{self.root / keys.INFO_PATH}: video_path is {error}") from error
        if name not in self._video_paths:
            self._video_paths[name] = locate(self.root, name)
        return self._video_paths[name]

    def is_alone(self, episode: int, camera: str) -> bool:
        """Return True if an episode's video file holds no other episode."""
        return self._episodes_by_video[self.video_path(episode, camera)] == 1

    def frames(self, episode: int, camera: str) -> Iterator[np.ndarray]:
        """Yield the images of an episode, (H, W, 3) uint8.

        Raises:
            DatasetError: The file is missing or cannot be decoded.
        """
        entry, path = self.episodes[episode], self.video_path(episode, camera)
        begin = entry[keys.video_column(camera, "from_timestamp")]
        end = entry[keys.video_column(camera, "to_timestamp")]
        for time, frame in decode(path, begin):
            if time >= end - 0.5 / self.fps:
                return
            if time >= begin - 0.5 / self.fps:
                yield frame.to_ndarray(format="rgb24")

    @cached_property
    def _episodes_by_video(self) -> Counter[Path]:
        every = range(self.num_episodes)
        return Counter(self.video_path(e, camera) for camera in self.cameras for e in every)

    def _read_episodes(self) -> list[dict[str, Any]]:
        if self.num_episodes == 0:
            return []

        def is_wanted(name: str) -> bool:
            return not name.startswith(keys.STATS_PREFIX)

        for path in self._files(keys.EPISODES_FOLDER):
            tables.require_plausible(path, is_wanted)
        table = self._read_table(keys.EPISODES_FOLDER, is_wanted)
        self._episode_table = table.slice(0, self.num_episodes)
        rows = to_rows(self._episode_table, self.root / keys.EPISODES_FOLDER)
        numbers = [row.get(keys.EPISODE_INDEX) for row in rows]
        if len(rows) < self.num_episodes or numbers != list(range(len(rows))):
            raise DatasetError(
                f"{self.root}/{keys.EPISODES_FOLDER} must list the episodes "
                f"0..{self.num_episodes - 1} in order, as {keys.INFO_PATH} says in total_episodes, "
                f"but has {len(rows)} of them or another order"
            )
        for row in rows:
            if fault := entry_fault(row, self.cameras, self.num_frames):
                raise DatasetError(
                    f"{self.root}/{keys.EPISODES_FOLDER}: in episode {row[keys.EPISODE_INDEX]}, "
                    f"{fault}"
                )
        return rows

    def _load(self, names: list[str]) -> None:
        """Read columns of the data, unless they have been read."""
        wanted = set(names) - self._columns.keys()
        if not wanted:
            return
        table = self._read_table(keys.DATA_FOLDER, wanted.__contains__)
        if missing := sorted(wanted - set(table.column_names)):
            raise DatasetError(f"{self.root}/{keys.DATA_FOLDER} has no column {missing[0]}")
        if len(table) < self.num_frames:
            raise DatasetError(
                f"{self.root}/{keys.DATA_FOLDER} has {len(table)} rows, but {keys.INFO_PATH} says "
                f"total_frames is {self.num_frames}"
            )
        for name in wanted:
            self._columns[name] = table.column(name).slice(0, self.num_frames)

    def _files(self, folder: str) -> list[Path]:
        own = [keys.EPISODES_PATH]
        if folder == keys.DATA_FOLDER:
            own = [keys.DATA_PATH, self.info.get("data_path")]
        files = table_files(self.root, folder, *own)
        if not files:
            raise DatasetError(f"{self.root} has no parquet file in {folder}/chunk-*/")
        return files

    def _read_table(self, folder: str, wanted: Callable[[str], bool]) -> pa.Table:
        while True:
            files = self._files(folder)
            try:
                return tables.join([tables.read_table(path, wanted) for path in files], files)
            except DatasetError:
                if files == self._files(folder):
                    raise  # else a run has just joined them

    def _to_array(self, key: str, column: pa.ChunkedArray) -> np.ndarray:
        try:
            return to_array(column)
        except DatasetError as error:
            raise DatasetError(f"{self.root}/{keys.DATA_FOLDER}, column {key}: {error}") from error


def to_rows(table: pa.Table, path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table.

    Raises:
        DatasetError: A text is no UTF-8.
    """
    try:
        return table.to_pylist()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} has a text that is not UTF-8: {error}") from error


def entry_fault(entry: dict[str, Any], cameras: list[str], num_frames: float = math.inf) -> str:
    """Return what a row of `meta/episodes` lacks that is needed to read the episode, or ""."""
    for key in (keys.LENGTH, keys.FROM_INDEX):
        if not is_count(entry.get(key)):
            return f"{key} is {entry.get(key)!r}, expected a whole number"
    if not entry[keys.LENGTH] or entry[keys.FROM_INDEX] + entry[keys.LENGTH] > num_frames:
        return (
            f"{keys.FROM_INDEX} is {entry[keys.FROM_INDEX]} and {keys.LENGTH} "
            f"{entry[keys.LENGTH]}, expected rows within the {num_frames} frames"
        )
    texts = entry.get(keys.TASKS)
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        return f"{keys.TASKS} is {texts!r}, expected a list of texts"
    for camera in cameras:
        for field in ("chunk_index", "file_index"):
            name = keys.video_column(camera, field)
            if not is_count(entry.get(name)):
                return f"{name} is {entry.get(name)!r}, expected a whole number"
        for side in ("from", "to"):
            name = keys.video_column(camera, f"{side}_timestamp")
            time = entry.get(name)
            if not isinstance(time, int | float) or not 0 <= time < math.inf:
                return f"{name} is {time!r}, expected a time in s"
    return ""


def stored_stats(entry: dict[str, Any], key: str) -> Stats:
    """Return the statistics of a feature in a row of `meta/episodes`.

    Raises:
        DatasetError: They are no numbers.
    """
    prefix, found = keys.stats_column(key, ""), {}
    for name, value in entry.items():
        if name.startswith(prefix) and value is not None:
            try:
                array = np.atleast_1d(np.asarray(value, dtype=np.float64))
            except (ValueError, TypeError) as error:
                raise DatasetError(
                    f"{keys.EPISODES_FOLDER}: {name} is {value!r}, expected numbers"
                ) from error
            statistic = name.removeprefix(prefix)
            found[statistic] = array.astype(np.int64) if statistic == "count" else array
    return found


def decode(path: Path, begin: float = 0.0) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield the time in s and the image of every frame of a video file.

    Args:
        path: The file.
        begin: In s; what is before the last key frame until then is left out.

    Raises:
        DatasetError: The file is missing or cannot be decoded.
    """
    try:
        with av.open(media_url(path)) as container:
            stream = container.streams.video[0]
            if begin > 0:
                container.seek(round(begin / float(stream.time_base or 1)), stream=stream)
            for frame in container.decode(stream):
                yield float(frame.pts * stream.time_base), frame
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise DatasetError(f"{path} cannot be decoded: {error}") from error


def to_array(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of numbers, or of equally long lists of them, as an array (rows, size).

    Raises:
        DatasetError: Values are missing or no numbers, or lists have unequal lengths.
    """
    flat, rows, size = tables.to_plain(column).combine_chunks(), len(column), 1
    if isinstance(flat, pa.ChunkedArray):  # of no chunk, in older versions of pyarrow
        flat = pa.concat_arrays(flat.chunks) if flat.num_chunks else pa.array([], flat.type)
    while tables.is_list(flat.type):
        lengths = set(flat.value_lengths().to_pylist())
        if len(lengths) > 1 or None in lengths:
            raise DatasetError(f"a column must have lists of one length, got lengths {lengths}")
        size *= lengths.pop() if lengths else 1
        flat = flat.flatten()
    if flat.null_count:
        raise DatasetError(f"a column must have no empty values, got {flat.null_count}")
    if not tables.is_number(flat.type):
        raise DatasetError(f"a column must have numbers, got the type {flat.type}")
    return flat.to_numpy(zero_copy_only=False).reshape(rows, size)


def _read_info(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a directory{_nearest(root)}")
    info = read_json(locate(root, keys.INFO_PATH))
    if info is None:
        raise DatasetError(
            f"{root} is no LeRobot dataset: it has no {keys.INFO_PATH}{_nearest(root)}"
        )
    _check_version(root / keys.INFO_PATH, str(info.get("codebase_version")))
    if fault := _info_fault(info):
        raise DatasetError(f"{root / keys.INFO_PATH}: {fault}")
    return info


def _nearest(root: Path) -> str:
    """Return where there is a dataset near a place where there is none, or ""."""
    found: list[Path] = []
    with suppress(OSError):
        beside = get_close_matches(
            root.name, [path.name for path in root.absolute().parent.iterdir()]
        )
        near = [*root.parents, *(root.with_name(name) for name in beside if root.name)]
        inside = sorted(root.iterdir()) if root.is_dir() else []
        found = [path for path in (*near, *inside) if (path / keys.INFO_PATH).is_file()]
    return f"; try {' or '.join(map(str, found[:_SHOWN]))}" if found else ""


def _info_fault(info: dict[str, Any]) -> str:
    """Return what `info.json` lacks that is needed to read the dataset, or ""."""
    features = info.get("features")
    if not isinstance(features, dict):
        return f"features is {features!r}, expected a dictionary"
    for key, feature in features.items():
        if fault := feature_fault(key, feature):
            return fault
    if not is_count(info.get("fps")) or not info["fps"]:
        return f"fps is {info.get('fps')!r}, expected a whole number above 0"
    for key in ("total_episodes", "total_frames", "total_tasks"):
        if not is_count(info.get(key, 0 if key == "total_tasks" else None)):
            return f"{key} is {info.get(key)!r}, expected a whole number"
    has_cameras = any(feature["dtype"] == "video" for feature in features.values())
    if has_cameras and not isinstance(info.get("video_path"), str):
        return f"video_path is {info.get('video_path')!r}, expected a pattern for the videos"
    return ""


def read_texts(path: Path, index: str) -> list[str]:
    """Return the texts of a table by their numbers; none where there is no file.

    Raises:
        DatasetError: The file cannot be read, or does not number them 0, 1, 2, ...
    """
    if not path.is_file():
        return []
    table = tables.read_table(path)
    names = [name for name in table.column_names if name != index]
    if index not in table.column_names or not names:
        raise DatasetError(f"{path} has the columns {table.column_names}, not {index} and a text")
    rows = to_rows(table.select([index, names[0]]), path)
    if [row[index] for row in rows] != list(range(len(rows))):
        raise DatasetError(f"{path}: {index} is not 0, 1, 2, ... in order")
    texts = [row[names[0]] for row in rows]
    if not all(isinstance(text, str) for text in texts):
        raise DatasetError(f"{path}: the column {names[0]} must hold texts, got {texts[:3]}")
    return texts


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the dictionary in a JSON file, or None where there is no file.

    Raises:
        DatasetError: It holds anything else, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > _MAX_JSON:  # reading a pipe would wait
            raise DatasetError(f"{path} must be a file of at most {_MAX_JSON} bytes, has {size}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(f"{path} may not be read: {error.strerror}") from error
    except DatasetError:
        raise
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must hold a JSON object, got a {type(content).__name__}")
    return content


def _check_version(path: Path, version: str) -> None:
    if version == keys.FORMAT_VERSION:
        return
    number = re.fullmatch(r"v(\d+)\.(\d+)", version)
    if number and int(number[1]) < 3:
        raise DatasetError(
            f"{path}: it has format {version}, expected {keys.FORMAT_VERSION}; convert it with "
            "lerobot's own convert_dataset_v21_to_v30"
        )
    raise DatasetError(
        f"{path}: it has format {version}, expected {keys.FORMAT_VERSION}; a newer release of this "
        "project may read it"
    )
