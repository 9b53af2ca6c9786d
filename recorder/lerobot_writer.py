"""Writes episodes as a LeRobot v3.0 dataset, each one durable as soon as it has ended.

Every file is completed under another name, flushed to disk and then renamed; `meta/info.json`,
which says how many episodes there are, comes last. The layout is described in docs/dataset.md.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recorder import stats
from recorder.rollout import Episode, Step
from recorder.video import CODECS, PIXEL_FORMAT, VideoEncoder

FORMAT_VERSION = "v3.0"
CHUNK_SIZE = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
COLLECTION_PATH = "meta/collection.json"

_UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Feature:
    """A column of the dataset.

    Attributes:
        dtype: "float32", "int64", "bool" or "video".
        shape: (n,) for numbers, (H, W, 3) for pictures.
        names: One per number, or None.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    def to_json(self, fps: int, codec: str) -> dict[str, Any]:
        """As `info.json` has it."""
        names = list(self.names) if self.names else None
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape), "names": names}
        if self.dtype == "video":
            entry["info"] = {
                "video.height": self.shape[0],
                "video.width": self.shape[1],
                "video.channels": self.shape[2],
                "video.codec": CODECS[codec].name,
                "video.pix_fmt": PIXEL_FORMAT,
                "video.fps": fps,
                "video.is_depth_map": False,
                "has_audio": False,
            }
        return entry


_BOOKKEEPING = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
_OUTCOME = {
    "next.reward": Feature("float32", (1,)),
    "next.done": Feature("bool", (1,)),
    "next.success": Feature("bool", (1,)),
}


def picture(height: int, width: int) -> Feature:
    """The feature of a camera."""
    return Feature("video", (height, width, 3), ("height", "width", "channels"))


# What makes pandas read the column "task" as the frame's index, as LeRobot expects.
_TASKS_PANDAS = {
    "index_columns": ["task"],
    "column_indexes": [],
    "columns": [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind}
        for name, kind, numpy_kind in (
            ("task_index", "int64", "int64"), ("task", "unicode", "object")
        )
    ],
    "pandas_version": "2.0.0",
}  # fmt: skip


class LeRobotWriter:
    """An `EpisodeSink` that owns a dataset directory.

    Args:
        root: The directory, which must be absent or empty.
        features: The columns that `row` fills, by name.
        row: The values of those columns for a step: arrays of the features' shapes.
        fps: Frames per second, as the environment makes them.
        task: What the robot is told to do.
        robot_type: For `info.json`.
        collection: How the dataset came about, stored in `meta/collection.json`.
        describe: Extra columns of `meta/episodes` for an episode; always the same ones.
        codec: A name in `recorder.video.CODECS`.

    Raises:
        FileExistsError: The directory is not empty.
        ValueError: The codec is unknown.
    """

    def __init__(
        self,
        root: Path,
        features: dict[str, Feature],
        row: Callable[[Step], dict[str, np.ndarray]],
        fps: int,
        task: str,
        robot_type: str,
        collection: dict[str, Any],
        describe: Callable[[Episode], dict[str, Any]] = lambda episode: {},
        codec: str = "h264",
    ) -> None:
        if codec not in CODECS:
            raise ValueError(f"codec must be one of {sorted(CODECS)}, got {codec!r}")
        require_empty(root)
        self.root = root
        self.num_episodes = 0
        self.num_frames = 0
        self._features = {**features, **_OUTCOME, **_BOOKKEEPING}
        self._cameras = [key for key, f in features.items() if f.dtype == "video"]
        self._row = row
        self._fps = fps
        self._task = task
        self._robot_type = robot_type
        self._describe = describe
        self._codec = codec
        self._totals: dict[str, stats.Stats] = {}
        self._rows: list[dict[str, np.ndarray]] = []
        self._encoders: dict[str, VideoEncoder] = {}
        self._create(collection)

    def begin(self, seed: int) -> None:
        """Starts an episode; its frames stay aside until `end`."""
        self._rows = []
        self._encoders = {
            key: VideoEncoder(self._aside(f"{key}.mp4"), self._codec, self._fps)
            for key in self._cameras
        }

    def add(self, step: Step) -> None:
        """Takes one step; waits while the encoders are behind.

        Raises:
            ValueError: A value has not the shape that its feature declares.
            RuntimeError: An encoder failed.
        """
        row = self._row(step)
        self._check(row)
        for key, encoder in self._encoders.items():
            encoder.add(row.pop(key))
        row["next.reward"] = np.array([step.reward])
        row["next.done"] = np.array([step.done])
        row["next.success"] = np.array([step.success])
        self._rows.append(row)

    def end(self, episode: Episode) -> None:
        """Commits the episode: afterwards it is on disk for good.

        Raises:
            RuntimeError: An encoder failed, or a video has not one frame per row.
        """
        columns = self._columns()
        episode_stats = {key: stats.of_rows(values) for key, values in columns.items()}
        for key, encoder in self._encoders.items():
            frames, episode_stats[key] = encoder.finish()
            if frames != len(self._rows):
                raise RuntimeError(f"{key} has {frames} frames for {len(self._rows)} rows")
        self._publish_videos()
        chunk, file = divmod(self.num_episodes, CHUNK_SIZE)
        where = {"chunk_index": chunk, "file_index": file}
        self._publish_table(self._data_table(columns), DATA_PATH.format(**where))
        entry = self._episode_entry(episode, episode_stats)
        self._publish_table(pa.Table.from_pylist([entry]), EPISODES_PATH.format(**where))
        for key, values in episode_stats.items():
            self._totals[key] = stats.fold(self._totals.get(key), values)
        self.num_episodes += 1
        self.num_frames += len(self._rows)
        self._publish_json(_to_lists(self._totals), "meta/stats.json")
        self._publish_info()
        self._forget()

    def abort(self) -> None:
        """Forgets the episode in hand."""
        for encoder in self._encoders.values():
            encoder.cancel()
        self._forget()

    def close(self) -> None:
        """Joins the one-episode parquet files into one per chunk; a second call has no effect.

        The dataset is complete without this, only in more and smaller files.
        """
        shutil.rmtree(self.root / _UNFINISHED, ignore_errors=True)
        if self.num_episodes:
            self._compact(EPISODES_PATH)
            self._compact(DATA_PATH)

    def _create(self, collection: dict[str, Any]) -> None:
        (self.root / "meta").mkdir(parents=True, exist_ok=True)
        self._publish_json(collection, COLLECTION_PATH)
        tasks = pa.table({"task_index": pa.array([0], pa.int64()), "task": [self._task]})
        tasks = tasks.replace_schema_metadata({"pandas": json.dumps(_TASKS_PANDAS)})
        self._publish_table(tasks, "meta/tasks.parquet")
        legacy = json.dumps({"task_index": 0, "task": self._task}) + "\n"
        self._publish_bytes(legacy.encode(), "meta/tasks.jsonl")
        self._publish_info()

    def _check(self, row: dict[str, np.ndarray]) -> None:
        expected = set(self._features) - set(_OUTCOME) - set(_BOOKKEEPING)
        if set(row) != expected:
            raise ValueError(f"a row must have the columns {sorted(expected)}, got {sorted(row)}")
        wrong = [
            f"{key} {value.shape}, expected {self._features[key].shape}"
            for key, value in row.items()
            if value.shape != self._features[key].shape
        ]
        if wrong:
            raise ValueError(f"values of the wrong shape: {'; '.join(wrong)}")

    def _columns(self) -> dict[str, np.ndarray]:
        """The episode's numbers, (length, size) per column, in the order of the features."""
        length = len(self._rows)
        frames = np.arange(length)
        columns = {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]}
        columns["timestamp"] = frames / self._fps
        columns["frame_index"] = frames
        columns["episode_index"] = np.full(length, self.num_episodes)
        columns["index"] = self.num_frames + frames
        columns["task_index"] = np.zeros(length, dtype=np.int64)
        return {
            key: columns[key].reshape(length, -1).astype(feature.dtype)
            for key, feature in self._features.items()
            if feature.dtype != "video"
        }

    def _data_table(self, columns: dict[str, np.ndarray]) -> pa.Table:
        arrays = {}
        for key, values in columns.items():
            flat = pa.array(values.ravel())
            size = values.shape[1]
            arrays[key] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
        return pa.table(arrays)

    def _episode_entry(
        self, episode: Episode, episode_stats: dict[str, stats.Stats]
    ) -> dict[str, Any]:
        length = len(self._rows)
        chunk, file = divmod(self.num_episodes, CHUNK_SIZE)
        entry: dict[str, Any] = {
            "episode_index": self.num_episodes,
            "tasks": [self._task],
            "length": length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + length,
        }
        for key in self._cameras:
            entry[f"videos/{key}/chunk_index"] = chunk
            entry[f"videos/{key}/file_index"] = file
            entry[f"videos/{key}/from_timestamp"] = 0.0
            entry[f"videos/{key}/to_timestamp"] = length / self._fps
        for key, values in episode_stats.items():
            for name, value in values.items():
                entry[f"stats/{key}/{name}"] = value.tolist()
        entry["meta/episodes/chunk_index"] = chunk
        entry["meta/episodes/file_index"] = file
        return {**entry, **self._describe(episode)}

    def _publish_videos(self) -> None:
        chunk, file = divmod(self.num_episodes, CHUNK_SIZE)
        for key, encoder in self._encoders.items():
            name = VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=file)
            self._publish(encoder.path, name)
            alias = (self.root / name).with_name(f"episode_{self.num_episodes:05d}.mp4")
            try:
                os.link(self.root / name, alias)
            except OSError:  # a file system without hard links
                shutil.copyfile(self.root / name, alias)

    def _publish_info(self) -> None:
        self._publish_json(
            {
                "codebase_version": FORMAT_VERSION,
                "robot_type": self._robot_type,
                "total_episodes": self.num_episodes,
                "total_frames": self.num_frames,
                "total_tasks": 1,
                "chunks_size": CHUNK_SIZE,
                "data_files_size_in_mb": 100,
                "video_files_size_in_mb": 200,
                "fps": self._fps,
                "splits": {"train": f"0:{self.num_episodes}"},
                "data_path": DATA_PATH,
                "video_path": VIDEO_PATH if self._cameras else None,
                "features": {
                    key: feature.to_json(self._fps, self._codec)
                    for key, feature in self._features.items()
                },
            },
            "meta/info.json",
        )

    def _publish_json(self, content: Any, name: str) -> None:
        self._publish_bytes((json.dumps(content, indent=2) + "\n").encode(), name)

    def _publish_bytes(self, content: bytes, name: str) -> None:
        aside = self._aside(Path(name).name)
        aside.write_bytes(content)
        self._publish(aside, name)

    def _publish_table(self, table: pa.Table, name: str) -> None:
        aside = self._aside(Path(name).name)
        pq.write_table(table, aside)
        self._publish(aside, name)

    def _publish(self, aside: Path, name: str) -> None:
        """Flushes a finished file to disk and gives it its place in the dataset."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, target)

    def _aside(self, name: str) -> Path:
        folder = self.root / _UNFINISHED
        folder.mkdir(exist_ok=True)
        return folder / name

    def _compact(self, pattern: str) -> None:
        """One file per chunk instead of one per episode, one row group per episode."""
        kind = pattern.partition("/chunk-")[0]
        new, old = self.root / f"{kind}.new", self.root / f"{kind}.old"
        chunks = range((self.num_episodes - 1) // CHUNK_SIZE + 1)
        if len(list((self.root / kind).glob("*/*.parquet"))) == len(chunks):
            return
        for chunk in chunks:
            members = range(chunk * CHUNK_SIZE, min((chunk + 1) * CHUNK_SIZE, self.num_episodes))
            parts = [
                self.root / pattern.format(chunk_index=chunk, file_index=k % CHUNK_SIZE)
                for k in members
            ]
            target = new / f"chunk-{chunk:03d}" / "file-000.parquet"
            target.parent.mkdir(parents=True)
            _join(parts, target)
        os.rename(self.root / kind, old)
        os.rename(new, self.root / kind)
        shutil.rmtree(old)

    def _forget(self) -> None:
        self._rows, self._encoders = [], {}


def require_empty(root: Path) -> None:
    """Checks that a dataset may be begun at `root`.

    Raises:
        FileExistsError: Something is there already.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(
            f"the output {root} exists and is not an empty directory; nothing was written, "
            "choose another one or move it away"
        )


def _join(parts: list[Path], target: Path) -> None:
    with pq.ParquetWriter(target, pq.read_schema(parts[0])) as writer:
        for part in parts:
            table = pq.ParquetFile(part).read()
            for column in ("data/file_index", "meta/episodes/file_index"):
                if column in table.column_names:
                    zeros = pa.array([0] * len(table), pa.int64())
                    table = table.set_column(table.schema.get_field_index(column), column, zeros)
            writer.write_table(table)


def _to_lists(all_stats: dict[str, stats.Stats]) -> dict[str, dict[str, list]]:
    return {
        key: {name: value.tolist() for name, value in values.items()}
        for key, values in all_stats.items()
    }
