"""A writer of LeRobot v3.0 datasets, which makes each episode durable as soon as it has ended.

The files of an episode are completed and flushed in a staging folder, then renamed, with the count
of episodes in `meta/info.json` last (`pp_recorder.dataset.commit`). docs/dataset.md describes the
layout.
"""

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.dataset import edits, keys, recovery, stats, tables
from pp_recorder.dataset.card import make_local_card
from pp_recorder.dataset.commit import LOCK, UNFINISHED, Commit, lock, staging_path, unlock
from pp_recorder.dataset.episode import EncodedEpisode, EpisodeRecorder
from pp_recorder.dataset.files import (
    foreign_files,
    listed,
    require_inside,
    table_files,
    video_files,
)
from pp_recorder.dataset.packing import Place, layout_of, pack_videos
from pp_recorder.dataset.paths import table_path
from pp_recorder.dataset.reader import Dataset, DatasetError, read_json, read_texts, stored_stats
from pp_recorder.dataset.schema import DatasetSchema
from pp_recorder.rollout import Episode, EpisodeSink, Step
from pp_recorder.storage.mirror import RemoteSync

# Tables of one row held at once: each takes far more memory than its row in a joint table.
_MAX_TABLES = 100
_LOG = logging.getLogger(__name__)


class LeRobotWriter(EpisodeSink):
    """A sink that owns a dataset directory and writes each episode into it.

    Args:
        root: The directory, absent or empty, or with `resume` one that this class wrote before.
        schema: The contents of the dataset.
        resume: Continue the dataset, after cutting it back to its longest valid prefix.
        remote: The object store that keeps the dataset, with `root` as its folder; or None. The
            writer releases it.
        video_files: Whether `finalize` joins the videos of many episodes in one file.

    Attributes:
        location: The directory or the store's URL, for messages.
        is_remote: True if the dataset is in an object store.
        num_episodes: Episodes in the dataset.
        num_frames: Frames in the dataset.
        episodes: The rows of `meta/episodes` that were there before, without their statistics.
        dropped: The parts that resuming has removed, each in words.
        scratch: Folder for unfinished files.

    Raises:
        FileExistsError: The directory is in use, or not empty and not to be resumed.
        DatasetError: The dataset was collected with other options, or cannot be repaired.
    """

    def __init__(
        self,
        root: Path,
        schema: DatasetSchema,
        resume: bool = False,
        remote: RemoteSync | None = None,
        video_files: keys.VideoFiles = "packed",
    ) -> None:
        self.root = root
        self.location = str(root) if remote is None else remote.url
        self.is_remote = remote is not None
        self._remote = remote
        self._lock: int | None = None
        self.scratch = root / UNFINISHED
        self.num_episodes = 0
        self.num_frames = 0
        self.episodes: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        # In the order of their first use. A constant text is listed before it is used.
        self._tasks: list[str] = [] if callable(schema.task) else [schema.task]
        self._schema = schema
        self._features = schema.all_features
        self._cameras = schema.cameras
        self._recorder = EpisodeRecorder(self.scratch, schema)
        self._video_files = video_files
        template, is_remote = keys.VIDEO_PATHS[video_files], self.is_remote
        self._videos = recovery.Videos(self._cameras, schema.fps, template, is_remote)
        self._totals: dict[str, stats.Stats] = {}
        self._stored_info = schema.info  # of the dataset that goes on, or of those that are joined
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
        """Start an episode; its frames stay in the scratch folder until `end`."""
        self.scratch.mkdir(exist_ok=True)
        self._recorder.begin(seed)

    def add(self, step: Step) -> None:
        """Record one step; see `EpisodeRecorder.add`."""
        self._recorder.add(step)

    def end(self, episode: Episode) -> None:
        """Commit the episode: afterwards it is durable.

        Raises:
            RuntimeError: An encoder failed, or a video does not hold exactly one image per row.
            OSError: The disk is full; the episodes before this one are intact.
        """
        self._recorder.end(episode)
        if (encoded := self._recorder.take()) is not None:
            self.add_episode(encoded)

    def add_episode(self, episode: EncodedEpisode) -> None:
        """Commit an episode from another recorder; its videos are on the dataset's file system.

        Raises:
            OSError: The disk is full; the episodes before this one are intact.
        """
        tasks = self._with_tasks(episode.tasks)
        columns = self._with_bookkeeping(episode, [tasks.index(task) for task in episode.tasks])
        length = len(columns[keys.INDEX])
        episode_stats = {key: stats.of_rows(values) for key, values in columns.items()}
        others = {**episode.videos, **episode.kept}
        episode_stats |= {key: values for key, (_, values) in others.items() if values}
        totals = {
            key: stats.fold(self._totals.get(key), episode_stats[key])
            for key in self._features
            if key in episode_stats
        }
        entry = {**self._episode_entry(length, episode_stats, episode.tasks), **episode.extra}
        where = _file_indices(self.num_episodes)
        commit = self._begin_commit()
        if tasks != self._tasks:  # before the rows that refer to them
            add_tasks(commit, tasks)
        for key, (path, _) in episode.videos.items():
            commit.add_file(self._videos.name(key, entry), path)
        kept = {key: column for key, (column, _) in episode.kept.items()}
        table = _data_table({key: {**columns, **kept}[key] for key in self._stored_columns})
        commit.add_table(keys.DATA_PATH.format(**where), table)
        commit.add_table(keys.EPISODES_PATH.format(**where), _episode_table(entry))
        commit.add_json(keys.STATS_PATH, _to_lists(totals))
        episodes, frames = self.num_episodes + 1, self.num_frames + length
        commit.add_json(keys.INFO_PATH, self._info(episodes, frames, tasks))
        commit.publish()
        self.num_episodes, self.num_frames, self._totals = episodes, frames, totals
        self._tasks = tasks
        if where["file_index"] == keys.CHUNK_SIZE - 1:
            self._join_chunk(where["chunk_index"])

    def add_tasks(self, texts: Sequence[str]) -> None:
        """List texts that no episode has so far."""
        tasks = self._with_tasks(texts)
        if tasks != self._tasks:
            commit = self._begin_commit()
            add_tasks(commit, tasks)
            commit.add_json(keys.INFO_PATH, self._info(self.num_episodes, self.num_frames, tasks))
            commit.publish()
            self._tasks = tasks

    def abort(self) -> None:
        """Discard the current episode."""
        self._recorder.abort()

    def finalize(self, processes: int = 1) -> None:
        """Tidy a complete dataset up: join videos, and close; a second call has no effect.

        Args:
            processes: Number of processes at most that join videos. With several, the program's
                main module must be one that can be imported (`if __name__ == "__main__"`).

        Raises:
            OSError: The disk is full; the dataset is valid, with all of its episodes.
            DatasetError: Videos cannot be joined; likewise.
        """
        if self._lock is None:
            return
        self._join_tables()
        if self._video_files == "packed" and self.num_episodes:
            pack_videos(self.root, self._cameras, self._remote, processes)
        self.close()

    def close(self) -> None:
        """Join the one-episode parquet files of the last chunk; a second call has no effect.

        Without this call the dataset is complete, too, but in more and smaller files.
        """
        if self._lock is None:
            return
        self._join_tables()
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Unlock the dataset without joining files: for use after a failure such as a full disk."""
        if self._lock is not None:
            unlock(self.root, self._lock)
            self._lock = None
        if self._remote is not None:
            self._remote.release()

    def size(self) -> int:
        """Return the bytes of the dataset."""
        if self._remote is not None:
            return self._remote.size()
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def _begin_commit(self) -> Commit:
        return Commit(self.root, self._remote)

    def _create(self) -> None:
        commit = self._begin_commit()
        if self._schema.collection is not None:
            commit.add_json(keys.COLLECTION_PATH, self._schema.collection)
        add_tasks(commit, self._tasks)
        if self._schema.subtasks:
            commit.add_table(keys.SUBTASKS_PATH, _text_table("subtask", self._schema.subtasks))
        info = self._info(0, 0, self._tasks)
        self._add_card(commit, info)
        commit.add_json(keys.INFO_PATH, info)
        commit.publish()

    def _add_card(self, commit: Commit, info: dict[str, Any]) -> None:
        """Write the dataset card, unless there is one, which somebody may have edited."""
        if not (self.root / keys.CARD_PATH).exists():
            commit.add_bytes(keys.CARD_PATH, make_local_card(info).encode())

    def _resume(self) -> None:
        require_inside(self.root)
        if not (self.root / keys.INFO_PATH).is_file():  # killed before its first commit
            self._require_ours()
            self._create()
            return
        require_same(self.root, self._schema.collection or {}, self.location)
        features = list(self._features)
        self._require_layout()
        if foreign := foreign_files(self.root, self._info(0, 0, [])):
            _LOG.warning(f"{self.location} has files of others, left alone: {listed(foreign)}")
        self._stored_info = self._read_stored_info()
        prefix = recovery.find_prefix(self.root, self._videos)
        edits.require_own_episodes(self.location, prefix.episodes, self._schema.needed, features)
        self._tasks = self._resumed_tasks(prefix)
        self.dropped = prefix.dropped
        self.episodes = [_without_stats(entry) for entry in prefix.episodes]
        for entry in prefix.episodes:
            for key in features:
                self._totals[key] = stats.fold(self._totals.get(key), stored_stats(entry, key))
        self.num_episodes = len(prefix.episodes)
        self.num_frames = sum(entry[keys.LENGTH] for entry in prefix.episodes)
        info = self._info(self.num_episodes, self.num_frames, self._tasks)
        recovery.cut_back(
            self.root, prefix, self._videos, info, _to_lists(self._totals), self._remote
        )
        commit = self._begin_commit()
        add_tasks(commit, self._tasks)
        self._add_card(commit, info)
        commit.publish()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _read_stored_info(self) -> dict[str, Any] | None:
        """Return `info.json` of the dataset to be resumed, or None if it is damaged.

        Raises:
            DatasetError: Others have changed the dataset so that we cannot go on.
        """
        try:
            dataset = Dataset(self.root)
        except DatasetError:
            return None  # the recovery finds out what is left
        edits.require_same_columns(
            self.root, self.location, dataset.info, self._info(0, 0, self._tasks)
        )
        edits.require_own_episodes(self.location, dataset.episodes, self._schema.needed, [])
        return dataset.info

    def _resumed_tasks(self, prefix: recovery.Prefix) -> list[str]:
        """Return the task texts as they are numbered, without those of episodes that are dropped.

        Texts beyond the count in `info.json` belong to an episode that was not finished.
        """
        stored = read_texts(self.root / keys.TASKS_PATH, keys.TASK_INDEX)
        used = [task for entry in prefix.episodes for task in entry[keys.TASKS]]
        count = 1 + max((stored.index(task) for task in used if task in stored), default=-1)
        info = self._stored_info
        if info is not None and info["total_episodes"] == len(prefix.episodes):
            count = max(count, info.get("total_tasks", 0))
        known = stored[:count] if stored else self._tasks
        return list(dict.fromkeys([*known, *used]))

    def _require_layout(self) -> None:
        """Raise a `DatasetError` if what is there has the other layout of video files."""
        if not self._cameras:
            return
        try:
            info = json.loads((self.root / keys.INFO_PATH).read_text())
        except ValueError:
            info = None
        if isinstance(info, dict):
            stored = layout_of(info)
        else:  # it is repaired, but not with videos taken for missing
            files = video_files(self.root, self._cameras)
            packed = any(path.name.startswith("file-") for path in files)
            stored = "packed" if packed else "per-episode"
        if stored != self._video_files:
            raise DatasetError(
                f"{self.location} has {stored} video files, not {self._video_files}; nothing was "
                f"changed. Go on with --video-files {stored}, or convert it with pp-pack first"
            )

    def _require_ours(self) -> None:
        ours = {keys.META_FOLDER, keys.CARD_PATH, LOCK, UNFINISHED}
        if foreign := sorted(p.name for p in self.root.iterdir() if p.name not in ours):
            raise DatasetError(
                f"{self.location} is no dataset of ours: it has no {keys.INFO_PATH} but {foreign}; "
                "nothing was changed, choose another output"
            )

    @property
    def _stored_columns(self) -> list[str]:
        return [key for key, feature in self._features.items() if feature.dtype != "video"]

    def _with_tasks(self, texts: Sequence[str]) -> list[str]:
        """Return the task texts with more of them, each once."""
        return list(dict.fromkeys([*self._tasks, *texts]))

    def _with_bookkeeping(
        self, episode: EncodedEpisode, task_indices: list[int]
    ) -> dict[str, np.ndarray]:
        """Return all columns of numbers, (length, size) each, in the order of the features."""
        columns = dict(episode.columns)
        length = len(next(iter(columns.values())))
        frames = np.arange(length)
        numbers = np.zeros(length, int) if episode.task_numbers is None else episode.task_numbers
        columns[keys.TIMESTAMP] = frames / self._schema.fps
        columns[keys.FRAME_INDEX] = frames
        columns[keys.EPISODE_INDEX] = np.full(length, self.num_episodes)
        columns[keys.INDEX] = self.num_frames + frames
        columns[keys.TASK_INDEX] = np.array(task_indices)[numbers]
        return {
            key: columns[key].reshape(length, -1).astype(self._features[key].dtype)
            for key in self._stored_columns
            if key not in episode.kept
        }

    def _episode_entry(
        self, length: int, episode_stats: dict[str, stats.Stats], tasks: Sequence[str]
    ) -> dict[str, Any]:
        where = _file_indices(self.num_episodes)
        entry: dict[str, Any] = {
            keys.EPISODE_INDEX: self.num_episodes,
            keys.TASKS: list(tasks),
            keys.LENGTH: length,
            keys.DATA_CHUNK_INDEX: where["chunk_index"],
            keys.DATA_FILE_INDEX: where["file_index"],
            keys.FROM_INDEX: self.num_frames,
            keys.TO_INDEX: self.num_frames + length,
        }
        place = Place.alone(self.num_episodes)
        for key in self._cameras:
            entry[keys.video_column(key, "chunk_index")] = place.chunk
            entry[keys.video_column(key, "file_index")] = place.file
            entry[keys.video_column(key, "from_timestamp")] = 0.0
            entry[keys.video_column(key, "to_timestamp")] = length / self._schema.fps
        for key, values in episode_stats.items():
            for name, value in values.items():
                entry[keys.stats_column(key, name)] = value.tolist()
        entry[keys.EPISODES_CHUNK_INDEX] = where["chunk_index"]
        entry[keys.EPISODES_FILE_INDEX] = where["file_index"]
        return entry

    def _info(self, episodes: int, frames: int, tasks: list[str]) -> dict[str, Any]:
        counts = {
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": len(tasks),
            "splits": {"train": f"0:{episodes}"},
        }
        if self._stored_info is not None:
            return {**self._stored_info, **counts}
        return {
            "codebase_version": keys.FORMAT_VERSION,
            "robot_type": self._schema.robot_type,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": len(tasks),
            "chunks_size": keys.CHUNK_SIZE,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": keys.VIDEO_FILE_SIZE,
            "fps": self._schema.fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": keys.DATA_PATH,
            "video_path": self._videos.template if self._cameras else None,
            "features": {
                key: feature.to_json(self._schema.fps, self._schema.codec)
                for key, feature in self._features.items()
            },
        }

    def _join_tables(self) -> None:
        """Drop the current episode, and join the parquet files of the last chunk."""
        self.abort()
        if self.num_episodes:
            self._join_chunk((self.num_episodes - 1) // keys.CHUNK_SIZE)

    def _join_chunk(self, chunk: int) -> None:
        """Replace the parquet files of a chunk, one per episode, by one.

        The joined files replace the first ones before anything refers to them, and before the
        others are removed: at every moment each episode's rows are where its entry says.
        """
        commit, is_joined = self._begin_commit(), False
        for folder, pattern, join in (
            (keys.DATA_FOLDER, keys.DATA_PATH, _join),
            (keys.EPISODES_FOLDER, keys.EPISODES_PATH, _join_in_one_group),
        ):
            target = self.root / pattern.format(chunk_index=chunk, file_index=0)
            parts = [
                p for p in table_files(self.root, folder, pattern) if p.parent == target.parent
            ]
            if len(parts) < 2:
                continue
            staged = staging_path(self.root, f"joined_{folder.replace('/', '_')}.parquet")
            join(parts, staged)
            commit.add_file(target.relative_to(self.root).as_posix(), staged)
            for part in parts[1:]:
                commit.remove(part)
            is_joined = True
        if is_joined:
            commit.publish()


def add_tasks(commit: Commit, tasks: list[str]) -> None:
    """Write the table of task texts, in both of its forms."""
    lines = [json.dumps({keys.TASK_INDEX: i, "task": task}) + "\n" for i, task in enumerate(tasks)]
    commit.add_table(keys.TASKS_PATH, _text_table("task", tasks))
    commit.add_bytes(keys.TASKS_JSONL_PATH, "".join(lines).encode())


def _text_table(name: str, texts: Sequence[str]) -> pa.Table:
    """Return a table of texts, which pandas and LeRobot take as its index, and their numbers."""
    indices = pa.array(range(len(texts)), pa.int64())
    table = pa.table({f"{name}_index": indices, name: pa.array(texts, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(_pandas_index(name))})


def _pandas_index(name: str) -> dict[str, Any]:
    """Return what tells pandas that the column `name` is the index of the table."""
    columns = ((f"{name}_index", "int64", "int64"), (name, "unicode", "object"))
    return {
        "index_columns": [name],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind}
            for name, kind, numpy_kind in columns
        ],
        "pandas_version": "2.0.0",
    }


def is_empty(root: Path) -> bool:
    """Return True if nothing is at `root`, or an empty directory."""
    return not root.exists() or (root.is_dir() and {p.name for p in root.iterdir()} <= {LOCK})


def require_empty(root: Path, can_resume: bool = True) -> None:
    """Raise an error unless a new dataset may be created at `root`.

    Args:
        root: Where.
        can_resume: Whether the program could go on with a dataset that is there.

    Raises:
        FileExistsError: Something is there already.
    """
    if root.is_file():
        raise FileExistsError(
            f"the output {root} is a file, expected an absent or empty folder; nothing was written"
        )
    if not is_empty(root):
        resume = ", or continue an interrupted collection with --resume" if can_resume else ""
        raise FileExistsError(
            f"the output {root} exists and is not an empty directory; nothing was written. "
            f"Choose another one{resume}"
        )


def require_same(root: Path, collection: dict[str, Any], location: str) -> None:
    """Raise an error unless a dataset has the provenance `collection`; warn of other versions.

    Args:
        root: The dataset's directory.
        collection: The provenance that is expected.
        location: The dataset's name in messages.

    Raises:
        DatasetError: It has another one, or none of ours.
    """
    stored = read_json(root / keys.COLLECTION_PATH)
    if stored is None:
        raise DatasetError(
            f"{location} was not recorded by this project: it has no {keys.COLLECTION_PATH}; "
            "nothing was changed, choose another output"
        )
    wanted = json.loads(json.dumps(collection))
    differing = _find_differences(stored, wanted)
    changed = [line for line in differing if not line.startswith(keys.MAY_DIFFER_ON_RESUME)]
    if changed:
        raise DatasetError(
            f"{location} was collected otherwise ({keys.COLLECTION_PATH}), so it cannot be "
            f"continued: {'; '.join(changed)}; give the same options or another output"
        )
    if differing:
        warnings.warn(f"{location} goes on with {'; '.join(differing)}", stacklevel=2)


def _find_differences(stored: Any, wanted: Any, name: str = "") -> list[str]:
    """Return one line per value that differs between two nested dictionaries."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        lines = []
        for key in sorted(stored.keys() | wanted.keys()):
            inner = f"{name}.{key}".lstrip(".")
            lines += _find_differences(stored.get(key), wanted.get(key), inner)
        return lines
    return [] if stored == wanted else [f"{name} was {stored!r}, is now {wanted!r}"]


def _file_indices(episode: int) -> dict[str, int]:
    chunk, file = divmod(episode, keys.CHUNK_SIZE)
    return {"chunk_index": chunk, "file_index": file}


def _data_table(columns: dict[str, np.ndarray | pa.ChunkedArray]) -> pa.Table:
    """Return the table of columns (length, size): numbers, or lists of more than one."""
    arrays = {}
    for key, values in columns.items():
        if isinstance(values, pa.ChunkedArray):
            arrays[key] = values
            continue
        flat = pa.array(values.ravel())
        size = values.shape[1]
        arrays[key] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
    return pa.table(arrays)


def _without_stats(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if not key.startswith(keys.STATS_PREFIX)}


def _join(parts: list[Path], target: Path) -> None:
    """Write all rows of the parts, one row group per episode."""
    schema = tables.common_schema([pq.read_schema(table_path(part)) for part in parts], parts)
    with pq.ParquetWriter(table_path(target), schema) as writer:
        for part in parts:
            table = tables.conform(tables.read_table(part), schema)
            episodes = table.column(keys.EPISODE_INDEX).to_numpy()
            starts = np.flatnonzero(np.diff(episodes, prepend=-1))
            for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
                writer.write_table(table.slice(start, end - start))


def _join_in_one_group(parts: list[Path], target: Path) -> None:
    """Write all rows of the parts, with references to the first file, in one row group.

    One row group for each row of hundreds of columns would take 300 MB for a chunk, and 42 MB on
    disk instead of 0.1.
    """
    joined: list[pa.Table] = []
    for part in parts:
        joined.append(_refer_to_first_file(tables.read_table(part)))
        if len(joined) == _MAX_TABLES:
            joined = [tables.join(joined, parts[: len(joined)]).combine_chunks()]
    pq.write_table(tables.join(joined, parts[: len(joined)]).combine_chunks(), table_path(target))


def _episode_table(entry: dict[str, Any]) -> pa.Table:
    """Return a row of `meta/episodes`; scalars of pyarrow keep their type, also where empty."""
    typed = {key: value for key, value in entry.items() if isinstance(value, pa.Scalar)}
    table = pa.Table.from_pylist([{k: v for k, v in entry.items() if k not in typed}])
    for key, value in typed.items():
        table = table.append_column(key, pa.array([value.as_py()], value.type))
    return table


def _refer_to_first_file(table: pa.Table) -> pa.Table:
    for column in (keys.DATA_FILE_INDEX, keys.EPISODES_FILE_INDEX):
        zeros = pa.array([0] * len(table), pa.int64())
        table = table.set_column(table.schema.get_field_index(column), column, zeros)
    return table


def _to_lists(all_stats: dict[str, stats.Stats]) -> dict[str, dict[str, list]]:
    return {
        key: {name: value.tolist() for name, value in values.items()}
        for key, values in all_stats.items()
    }
