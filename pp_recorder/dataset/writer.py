"""Writes episodes as a LeRobot v3.0 dataset, each one durable as soon as it has ended.

The files of an episode are completed and flushed aside, then renamed; `meta/info.json`, which says
how many episodes there are, comes last (`pp_recorder.dataset.commit`). docs/dataset.md describes the layout.
"""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.dataset import recovery, stats
from pp_recorder.dataset.commit import LOCK, UNFINISHED, Commit, aside, lock, unlock
from pp_recorder.dataset.episode import EncodedEpisode, EpisodeRecorder
from pp_recorder.dataset.reader import CHUNK_SIZE, COLLECTION_PATH, FORMAT_VERSION, DatasetError
from pp_recorder.dataset.schema import DatasetSchema
from pp_recorder.rollout import Episode, Step
from pp_recorder.storage.mirror import RemoteSync

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

_PIECES = 100  # tables of one row at once, which take far more memory than their rows in one

# What may differ between a collection and its continuation: worth a warning, not a refusal.
_MAY_DIFFER = ("versions", "machine", "simulator_details")


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
        root: The directory, absent or empty, or with `resume` one that this class wrote before.
        recording: What is recorded.
        resume: Go on with what is there, after cutting it back to its longest valid prefix.
        mirror: Keeps the dataset in a store; `root` is its folder. It is released with the writer.

    Attributes:
        place: Where the dataset is, to be told.
        is_remote: Whether that is a store.
        episodes: The rows of `meta/episodes` that were there when it was resumed.
        dropped: What resuming has removed, in words.
        scratch: Folder for what is not part of the dataset yet.

    Raises:
        FileExistsError: The directory is in use, or not empty and not to be resumed.
        DatasetError: What is to be resumed was collected otherwise, or cannot be repaired.
    """

    def __init__(
        self,
        root: Path,
        recording: DatasetSchema,
        resume: bool = False,
        mirror: RemoteSync | None = None,
    ) -> None:
        self.root = root
        self.place = str(root) if mirror is None else mirror.url
        self.is_remote = mirror is not None
        self._mirror = mirror
        self._lock: int | None = None
        self.scratch = root / UNFINISHED
        self.num_episodes = 0
        self.num_frames = 0
        self.episodes: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        # In the order of their first use. A single text is there before it is used.
        self._tasks: list[str] = [] if callable(recording.task) else [recording.task]
        self._recording = recording
        self._features = recording.all_features
        self._cameras = recording.cameras
        self._recorder = EpisodeRecorder(self.scratch, recording)
        self._totals: dict[str, stats.Stats] = {}
        resume = resume and not is_empty(root)
        try:
            if not resume:
                require_empty(root)
            root.mkdir(parents=True, exist_ok=True)
            self._lock = lock(root)
            self._resume() if resume else self._create()
        except BaseException:
            self.release()
            raise

    def begin(self, seed: int) -> None:
        """Starts an episode; its frames stay aside until `end`."""
        self.scratch.mkdir(exist_ok=True)
        self._recorder.begin(seed)

    def add(self, step: Step) -> None:
        """Takes one step; see `EpisodeRecorder.add`."""
        self._recorder.add(step)

    def end(self, episode: Episode) -> None:
        """Commits the episode: afterwards it is on disk for good.

        Raises:
            RuntimeError: An encoder failed, or a video has not exactly one picture per row.
            OSError: The disk is full; the episodes before this one are intact.
        """
        self._recorder.end(episode)
        if (recorded := self._recorder.take()) is not None:
            self.add_episode(recorded)

    def add_episode(self, episode: EncodedEpisode) -> None:
        """Commits an episode that was recorded elsewhere; its videos lie on this file system.

        Raises:
            OSError: The disk is full; the episodes before this one are intact.
        """
        task, columns = episode.task, episode.columns
        tasks = self._tasks if task in self._tasks else [*self._tasks, task]
        columns = self._with_bookkeeping(columns, tasks.index(task))
        length = len(columns["index"])
        episode_stats = {key: stats.of_rows(values) for key, values in columns.items()}
        episode_stats |= {key: pictures for key, (_, pictures) in episode.videos.items()}
        totals = {k: stats.fold(self._totals.get(k), episode_stats[k]) for k in self._features}
        entry = {**self._episode_entry(length, episode_stats, task), **episode.extra}
        where = _where(self.num_episodes)
        commit = self._commit()
        if tasks != self._tasks:  # before whatever counts on them
            add_tasks(commit, tasks)
        for key, (path, _) in episode.videos.items():
            name = VIDEO_PATH.format(video_key=key, **where)
            if self._mirror is None:  # a store has no links
                alias = Path(name).with_name(f"episode_{self.num_episodes:05d}.mp4")
                commit.add_link(str(alias), path)
            commit.add_file(name, path)
        commit.add_table(DATA_PATH.format(**where), self._data_table(columns))
        commit.add_table(EPISODES_PATH.format(**where), pa.Table.from_pylist([entry]))
        commit.add_json("meta/stats.json", _to_lists(totals))
        episodes, frames = self.num_episodes + 1, self.num_frames + length
        commit.add_json("meta/info.json", self._info(episodes, frames, tasks))
        commit.publish()
        self.num_episodes, self.num_frames, self._totals = episodes, frames, totals
        self._tasks = tasks
        if where["file_index"] == CHUNK_SIZE - 1:
            self._join_chunk(where["chunk_index"])

    def abort(self) -> None:
        """Forgets the episode in hand."""
        self._recorder.abort()

    def close(self) -> None:
        """Joins the one-episode parquet files of the last chunk; a second call has no effect.

        The dataset is complete without this, only in more and smaller files.
        """
        if self._lock is None:
            return
        self.abort()
        if self.num_episodes:
            self._join_chunk((self.num_episodes - 1) // CHUNK_SIZE)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Lets others write here, without tidying up: for when the disk is full."""
        if self._lock is not None:
            unlock(self.root, self._lock)
            self._lock = None
        if self._mirror is not None:
            self._mirror.release()

    def size(self) -> int:
        """Bytes of the dataset; what has two names counts once."""
        if self._mirror is not None:
            return self._mirror.size()
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return sum(p.stat().st_size for p in files if not p.match("episode_*.mp4"))

    def _commit(self) -> Commit:
        return Commit(self.root, self._mirror)

    def _create(self) -> None:
        commit = self._commit()
        commit.add_json(COLLECTION_PATH, self._recording.collection)
        add_tasks(commit, self._tasks)
        commit.add_json("meta/info.json", self._info(0, 0, self._tasks))
        commit.publish()

    def _resume(self) -> None:
        if not (self.root / "meta/info.json").is_file():  # killed before it had begun
            self._require_ours()
            self._create()
            return
        require_same(self.root, self._recording.collection, self.place)
        prefix = recovery.find_prefix(self.root, self._cameras, self.is_remote)
        self.dropped = prefix.dropped
        self.episodes = [_without_stats(entry) for entry in prefix.episodes]
        for entry in prefix.episodes:
            for key in self._features:
                self._totals[key] = stats.fold(self._totals.get(key), stored_stats(entry, key))
        self.num_episodes = len(prefix.episodes)
        self.num_frames = sum(entry["length"] for entry in prefix.episodes)
        for entry in prefix.episodes:
            self._tasks += [task for task in entry["tasks"] if task not in self._tasks]
        info = self._info(self.num_episodes, self.num_frames, self._tasks)
        recovery.cut_back(self.root, prefix, info, _to_lists(self._totals), self._mirror)
        commit = self._commit()
        add_tasks(commit, self._tasks)
        commit.publish()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _require_ours(self) -> None:
        ours = {"meta", LOCK, UNFINISHED}
        if strangers := sorted(p.name for p in self.root.iterdir() if p.name not in ours):
            raise DatasetError(
                f"{self.place} is no dataset of ours: it has no meta/info.json but {strangers}; "
                "nothing was changed, choose another output"
            )

    def _with_bookkeeping(
        self, columns: dict[str, np.ndarray], task_index: int
    ) -> dict[str, np.ndarray]:
        """The episode's numbers, (length, size) per column, in the order of the features."""
        columns = dict(columns)
        length = len(next(iter(columns.values())))
        frames = np.arange(length)
        columns["timestamp"] = frames / self._recording.fps
        columns["frame_index"] = frames
        columns["episode_index"] = np.full(length, self.num_episodes)
        columns["index"] = self.num_frames + frames
        columns["task_index"] = np.full(length, task_index)
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
        self, length: int, episode_stats: dict[str, stats.Stats], task: str
    ) -> dict[str, Any]:
        where = _where(self.num_episodes)
        entry: dict[str, Any] = {
            "episode_index": self.num_episodes,
            "tasks": [task],
            "length": length,
            "data/chunk_index": where["chunk_index"],
            "data/file_index": where["file_index"],
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + length,
        }
        for key in self._cameras:
            entry[f"videos/{key}/chunk_index"] = where["chunk_index"]
            entry[f"videos/{key}/file_index"] = where["file_index"]
            entry[f"videos/{key}/from_timestamp"] = 0.0
            entry[f"videos/{key}/to_timestamp"] = length / self._recording.fps
        for key, values in episode_stats.items():
            for name, value in values.items():
                entry[f"stats/{key}/{name}"] = value.tolist()
        entry["meta/episodes/chunk_index"] = where["chunk_index"]
        entry["meta/episodes/file_index"] = where["file_index"]
        return entry

    def _info(self, episodes: int, frames: int, tasks: list[str]) -> dict[str, Any]:
        return {
            "codebase_version": FORMAT_VERSION,
            "robot_type": self._recording.robot_type,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": len(tasks),
            "chunks_size": CHUNK_SIZE,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self._recording.fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._cameras else None,
            "features": {
                key: feature.to_json(self._recording.fps, self._recording.codec)
                for key, feature in self._features.items()
            },
        }

    def _join_chunk(self, chunk: int) -> None:
        """One parquet file for the last chunk instead of one per episode.

        The joined file replaces the first one before the others go, so that at every moment the
        rows counted from the beginning are the right ones.
        """
        for pattern, join in ((EPISODES_PATH, _join_in_one_group), (DATA_PATH, _join)):
            target = pattern.format(chunk_index=chunk, file_index=0)
            parts = sorted((self.root / target).parent.glob("*.parquet"))
            if len(parts) < 2:
                continue
            grown = aside(self.root, "joined.parquet")
            join(parts, grown)
            commit = self._commit()
            commit.add_file(target, grown)
            for part in parts[1:]:
                commit.remove(part)
            commit.publish()


def add_tasks(commit: Commit, tasks: list[str]) -> None:
    """Writes the table of task texts, in both of its forms."""
    indices = pa.array(range(len(tasks)), pa.int64())
    table = pa.table({"task_index": indices, "task": pa.array(tasks, pa.string())})
    table = table.replace_schema_metadata({"pandas": json.dumps(_TASKS_PANDAS)})
    lines = [json.dumps({"task_index": i, "task": task}) + "\n" for i, task in enumerate(tasks)]
    commit.add_table("meta/tasks.parquet", table)
    commit.add_bytes("meta/tasks.jsonl", "".join(lines).encode())


def is_empty(root: Path) -> bool:
    """Whether a dataset may be begun at `root`: nothing is there, or an empty directory."""
    return not root.exists() or (root.is_dir() and {p.name for p in root.iterdir()} <= {LOCK})


def require_empty(root: Path) -> None:
    """Checks that a dataset may be begun at `root`.

    Raises:
        FileExistsError: Something is there already.
    """
    if not is_empty(root):
        raise FileExistsError(
            f"the output {root} exists and is not an empty directory; nothing was written. "
            "Choose another one, or continue an interrupted collection with --resume"
        )


def require_same(root: Path, collection: dict[str, Any], place: str) -> None:
    """Checks that a dataset was collected as `collection` says; other versions are a warning.

    Args:
        root: The dataset's directory.
        collection: How the dataset is to come about.
        place: Where it is, to be told.

    Raises:
        DatasetError: It was not, or it was not collected by us.
    """
    try:
        stored = json.loads((root / COLLECTION_PATH).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        raise DatasetError(
            f"{place} was not recorded by this project: it has no {COLLECTION_PATH}; nothing was "
            "changed, choose another output"
        ) from None
    wanted = json.loads(json.dumps(collection))
    differing = _differences(stored, wanted)
    changed = [line for line in differing if not line.startswith(_MAY_DIFFER)]
    if changed:
        raise DatasetError(
            f"{place} was collected otherwise, so it cannot be continued: {'; '.join(changed)}; "
            "give the same options or another output"
        )
    if differing:
        warnings.warn(f"{place} goes on with {'; '.join(differing)}", stacklevel=2)


def _differences(stored: Any, wanted: Any, name: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        lines = []
        for key in sorted(stored.keys() | wanted.keys()):
            inner = f"{name}.{key}".lstrip(".")
            lines += _differences(stored.get(key), wanted.get(key), inner)
        return lines
    return [] if stored == wanted else [f"{name} was {stored!r}, is now {wanted!r}"]


def _where(episode: int) -> dict[str, int]:
    chunk, file = divmod(episode, CHUNK_SIZE)
    return {"chunk_index": chunk, "file_index": file}


def stored_stats(entry: dict[str, Any], key: str) -> stats.Stats:
    """The statistics of a feature in a row of `meta/episodes`."""
    prefix = f"stats/{key}/"
    return {k.removeprefix(prefix): np.array(v) for k, v in entry.items() if k.startswith(prefix)}


def _without_stats(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if not key.startswith("stats/")}


def _join(parts: list[Path], target: Path) -> None:
    """All rows of the parts, one row group per episode."""
    with pq.ParquetWriter(target, pq.read_schema(parts[0])) as writer:
        for part in parts:
            table = pq.ParquetFile(part).read()
            episodes = table.column("episode_index").to_numpy()
            starts = np.flatnonzero(np.diff(episodes, prepend=-1))
            for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
                writer.write_table(table.slice(start, end - start))


def _join_in_one_group(parts: list[Path], target: Path) -> None:
    """All rows of the parts, told that they are in the first file.

    One row group for each row of hundreds of columns would take 300 MB for a chunk, and 42 MB on
    disk instead of 0.1.
    """
    tables: list[pa.Table] = []
    for part in parts:
        tables.append(_in_first_file(pq.ParquetFile(part).read()))
        if len(tables) == _PIECES:
            tables = [pa.concat_tables(tables).combine_chunks()]
    pq.write_table(pa.concat_tables(tables).combine_chunks(), target)


def _in_first_file(table: pa.Table) -> pa.Table:
    for column in ("data/file_index", "meta/episodes/file_index"):
        zeros = pa.array([0] * len(table), pa.int64())
        table = table.set_column(table.schema.get_field_index(column), column, zeros)
    return table


def _to_lists(all_stats: dict[str, stats.Stats]) -> dict[str, dict[str, list]]:
    return {
        key: {name: value.tolist() for name, value in values.items()}
        for key, values in all_stats.items()
    }
