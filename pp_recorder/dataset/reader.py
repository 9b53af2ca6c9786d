"""A reader of any LeRobot v3.0 dataset, by this project or not, that does not need lerobot."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.dataset import keys
from pp_recorder.dataset.paths import media_url, table_path


class DatasetError(ValueError):
    """A directory is not a dataset that can be read; the message says why and what to do."""


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
        episodes: The rows of `meta/episodes`, by episode.

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
        self._table: pa.Table | None = None
        self.episodes = self._read_episodes()

    @property
    def collection(self) -> dict[str, Any] | None:
        """Return the provenance that our recorder has stored; None in a foreign dataset."""
        return _read_json(self.root / keys.COLLECTION_PATH)

    @property
    def subtasks(self) -> tuple[str, ...]:
        """Return the texts that `subtask_index` counts; none in a dataset without them."""
        path = self.root / keys.SUBTASKS_PATH
        if not path.is_file():
            return ()
        return tuple(pq.ParquetFile(table_path(path)).read(["subtask"]).column(0).to_pylist())

    @property
    def stats(self) -> dict[str, dict[str, Any]] | None:
        """Return the contents of `stats.json`, or None where there is none."""
        return _read_json(self.root / keys.STATS_PATH)

    @property
    def table(self) -> pa.Table:
        """Return all counted rows, in order."""
        if self._table is None:
            self._table = self._read_table(keys.DATA_FOLDER).slice(0, self.num_frames)
        return self._table

    def column(self, key: str) -> np.ndarray:
        """Return a column of all rows, (frames, size)."""
        return to_array(self.table.column(key))

    def rows(self, episode: int) -> dict[str, np.ndarray]:
        """Return the columns of one episode, each (length, size)."""
        entry = self.episodes[episode]
        part = self.table.slice(entry[keys.FROM_INDEX], entry[keys.LENGTH])
        return {key: to_array(part.column(key)) for key in part.column_names}

    def video_path(self, episode: int, camera: str) -> Path:
        """Return the file with an episode's images, which may hold other episodes, too."""
        entry = self.episodes[episode]
        name = self.info["video_path"].format(
            video_key=camera,
            chunk_index=entry[keys.video_column(camera, "chunk_index")],
            file_index=entry[keys.video_column(camera, "file_index")],
        )
        return self.root / name

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
        rows = self._read_table(keys.EPISODES_FOLDER).slice(0, self.num_episodes).to_pylist()
        if [row.get(keys.EPISODE_INDEX) for row in rows] != list(range(self.num_episodes)):
            raise DatasetError(
                f"{self.root}/{keys.EPISODES_FOLDER} must list the episodes "
                f"0..{self.num_episodes - 1} in order, but has {len(rows)} of them or another order"
            )
        return rows

    def _read_table(self, folder: str) -> pa.Table:
        files = sorted((self.root / folder).glob("*/*.parquet"))
        if not files:
            raise DatasetError(f"{self.root} has no parquet file in {folder}/chunk-*/")
        tables = []
        for path in files:
            try:
                tables.append(pq.ParquetFile(table_path(path)).read())
            except (pa.ArrowInvalid, OSError) as error:
                raise DatasetError(f"{path} cannot be read: {error}") from error
        return pa.concat_tables(tables, promote_options="permissive")


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
        DatasetError: Values are missing, or lists have unequal lengths.
    """
    flat, rows, size = column.combine_chunks(), len(column), 1
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        lengths = set(flat.value_lengths().to_pylist())
        if len(lengths) > 1 or None in lengths:
            raise DatasetError(f"a column must have lists of one length, got lengths {lengths}")
        size *= lengths.pop() if lengths else 1
        flat = flat.flatten()
    if flat.null_count:
        raise DatasetError(f"a column must have no empty values, got {flat.null_count}")
    return flat.to_numpy(zero_copy_only=False).reshape(rows, size)


def _read_info(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a directory")
    info = _read_json(root / keys.INFO_PATH)
    if info is None:
        raise DatasetError(f"{root} is no LeRobot dataset: it has no {keys.INFO_PATH}")
    _check_version(root, str(info.get("codebase_version")))
    expected = {"features": dict, "fps": int, "total_episodes": int, "total_frames": int}
    wrong = [key for key, kind in expected.items() if not isinstance(info.get(key), kind)]
    if wrong:
        raise DatasetError(f"{root / keys.INFO_PATH} lacks {wrong}, or they have the wrong type")
    return info


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the dictionary in a JSON file, or None where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise DatasetError(f"{path} may not be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must hold a JSON object, got a {type(content).__name__}")
    return content


def _check_version(root: Path, version: str) -> None:
    if version == keys.FORMAT_VERSION:
        return
    number = re.fullmatch(r"v(\d+)\.(\d+)", version)
    if number and int(number[1]) < 3:
        raise DatasetError(
            f"{root} has format {version}, expected {keys.FORMAT_VERSION}; convert it with "
            "lerobot's own convert_dataset_v21_to_v30"
        )
    raise DatasetError(
        f"{root} has format {version}, expected {keys.FORMAT_VERSION}; a newer release of this "
        "project may read it"
    )
