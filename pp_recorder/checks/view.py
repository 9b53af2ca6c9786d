"""A view of a dataset that reads it piece by piece, so that broken pieces hide nothing else."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pp_recorder.checks.findings import UnavailableError
from pp_recorder.checks.video_scan import CameraScan, scan_file
from pp_recorder.dataset import keys, tables
from pp_recorder.dataset.files import fill_in, locate, table_files
from pp_recorder.dataset.reader import Dataset, DatasetError, to_array
from pp_recorder.dataset.schema import feature_fault

_READS = 10  # of two small files that a run may be writing


@dataclass(frozen=True)
class Tables:
    """The parquet files of a folder.

    Attributes:
        table: All rows of the readable files, or None.
        files: Name and number of rows of each readable file.
        errors: The problems of the other files.
    """

    table: pa.Table | None
    files: list[tuple[str, int]]
    errors: list[str]


class DatasetView:
    """A dataset, read piece by piece, so that a broken piece does not hide the others.

    Args:
        root: The directory of the dataset.

    Attributes:
        stats: The contents of `stats.json`; empty if there is none.

    Raises:
        DatasetError: There is no usable `info.json`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._fingerprint = _fingerprint(root, keys.EPISODES_FOLDER, keys.DATA_FOLDER)
        # A run that is under way writes in the opposite order: what is read later covers at least
        # as many episodes.
        self.info = _read_info(root)
        stats = None
        for _ in range(_READS):  # until both are of one commit, or the statistics of the next one
            stats = _read_json(root, keys.STATS_PATH)
            if self.info == (now := _read_json(root, keys.INFO_PATH)) or not _is_info(now):
                break
            self.info = now
        self.stats: dict[str, dict[str, Any]] = stats if isinstance(stats, dict) else {}
        declared = self.info["features"]
        self.features = {k: f for k, f in declared.items() if not feature_fault(k, f)}
        self.fps = self.info.get("fps", 0) if is_number(self.info.get("fps")) else 0
        self.num_episodes = count(self.info.get("total_episodes"))
        self.num_frames = count(self.info.get("total_frames"))
        self.cameras = [k for k, f in self.features.items() if f["dtype"] == "video"]
        self._scans: dict[str, CameraScan] = {}
        self._columns: dict[str, np.ndarray] = {}

    def has_changed(self) -> bool:
        """Return True if a run has joined or packed files since this view was made.

        Episodes that are added change nothing in what was there before.
        """
        now = _fingerprint(self.root, keys.EPISODES_FOLDER, keys.DATA_FOLDER)
        return not self._fingerprint.items() <= now.items()

    @property
    def data(self) -> Tables:
        """The rows of all frames, including those beyond the counted ones."""
        return self._tables[1]

    @property
    def episode_tables(self) -> Tables:
        """The rows of all episodes, including those beyond the counted ones."""
        return self._tables[0]

    @cached_property
    def _tables(self) -> tuple[Tables, Tables]:
        own = (keys.DATA_PATH, self.info.get("data_path"))
        while True:
            before = _fingerprint(self.root, keys.EPISODES_FOLDER)
            episodes = _read_tables(self.root, keys.EPISODES_FOLDER, keys.EPISODES_PATH)
            data = _read_tables(self.root, keys.DATA_FOLDER, *own)
            after = _fingerprint(self.root, keys.EPISODES_FOLDER)
            if before.items() <= after.items():  # else a run has just joined files
                return episodes, data

    @cached_property
    def uncounted(self) -> list[dict[str, Any]]:
        """The row of an episode that `stats.json` covers and `info.json` does not count, if any.

        A run that adds an episode, or was killed then, has written the first and not the second.
        """
        table = self.episode_tables.table
        if table is None or keys.LENGTH not in table.column_names:
            return []
        following = table.slice(self.num_episodes, 1).to_pylist()
        frames = self.num_frames + sum(count(row[keys.LENGTH]) for row in following)
        return following if _count_in(self.stats) == frames else []

    def column_of_stats(self, key: str) -> np.ndarray:
        """Return a column of the rows that `stats.json` covers, (frames, size).

        Raises:
            UnavailableError: There is none, or it does not hold numbers of one width.
        """
        if not self.uncounted or self.data.table is None:
            return self.column(key)
        frames = self.num_frames + sum(count(row[keys.LENGTH]) for row in self.uncounted)
        return _numbers(self.data.table.slice(0, frames), key)

    @cached_property
    def table(self) -> pa.Table:
        """The rows of the counted frames."""
        if not self.num_episodes:
            raise UnavailableError("the dataset has no episode")
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
        names = [c for c in self.episode_table.column_names if not c.startswith(keys.STATS_PREFIX)]
        return self.episode_table.select(names).to_pylist()

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """First row and row after the last of each counted episode, from their lengths."""
        lengths = [count(row.get(keys.LENGTH)) for row in self.episodes]
        ends = np.cumsum(lengths, dtype=np.int64)
        if not lengths or min(lengths) < 1 or ends[-1] > self.table.num_rows:
            raise UnavailableError("the episodes' lengths do not fit the rows")
        return [(int(e) - n, int(e)) for e, n in zip(ends, lengths, strict=True)]

    @cached_property
    def collection(self) -> dict[str, Any]:
        """The provenance stored by our recorder; empty if there is none."""
        content = _read_json(self.root, keys.COLLECTION_PATH)
        return content if isinstance(content, dict) else {}

    @property
    def config(self) -> dict[str, Any]:
        """The environment's configuration in the provenance; empty if there is none."""
        return self.collection.get("config") or {}

    @property
    def randomization(self) -> dict[str, Any]:
        """What the configuration varies from episode to episode; empty if that is not known."""
        return self.config.get("randomization") or {}

    @cached_property
    def tasks(self) -> list[str]:
        """The task strings by index."""
        try:
            table = tables.read_table(locate(self.root, keys.TASKS_PATH))
        except DatasetError as error:
            raise UnavailableError("meta/tasks.parquet cannot be read") from error
        name = next((n for n in table.column_names if n != keys.TASK_INDEX), None)
        if name is None:
            raise UnavailableError("meta/tasks.parquet has no texts")
        return table.column(name).to_pylist()

    def column(self, key: str) -> np.ndarray:
        """Return a column of the counted rows, (frames, size).

        Raises:
            UnavailableError: There is none, or it does not hold numbers of one width.
        """
        if key not in self._columns:
            self._columns[key] = _numbers(self.table, key)
        return self._columns[key]

    def episode_column(self, name: str) -> np.ndarray:
        """Return a column of the counted episodes, (episodes, size).

        Raises:
            UnavailableError: There is none, or it does not hold numbers of one width.
        """
        return _numbers(self.episode_table, name)

    def named(self, key: str, prefix: str) -> np.ndarray:
        """Return the columns of a feature whose names begin with `prefix`, (frames, size).

        Raises:
            UnavailableError: No name begins with it.
        """
        names = feature_names(self.features.get(key, {}))
        chosen = [k for k, name in enumerate(names) if name.startswith(prefix)]
        if not chosen:
            raise UnavailableError(f"{key} has no numbers called {prefix}*")
        return self.column(key)[:, chosen]

    def short(self, camera: str) -> str:
        """Return the last part of a camera's name if it is unambiguous, else the whole name."""
        tail = camera.rsplit(".", 1)[-1]
        return tail if sum(c.rsplit(".", 1)[-1] == tail for c in self.cameras) == 1 else camera

    def scan(self, camera: str) -> CameraScan:
        """Scan the videos of a camera in one pass; a second call returns the same result."""
        if camera not in self._scans:
            self._scans[camera] = _scan_camera(self, camera)
        return self._scans[camera]

    @cached_property
    def key_frames(self) -> dict[int, list[int]]:
        """First, grasp, place and last frame of up to 12 episodes, evenly chosen."""
        count = len(self.episodes)
        chosen = np.unique(np.linspace(0, count - 1, min(12, count)).round().astype(int))
        return {int(e): _key_frames(self, int(e)) for e in chosen}


def _is_info(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("features"), dict)


def _fingerprint(root: Path, *folders: str) -> dict[str, tuple[int, int, int]]:
    """Return what changes when the files of a dataset's tables do, by file."""
    found = {}
    for folder in folders:
        for parent, _, names in os.walk(root / folder):
            for path in (os.path.join(parent, name) for name in names):
                with suppress(OSError):
                    stat = os.stat(path)
                    found[path] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    return found


def _read_info(root: Path) -> dict[str, Any]:
    """Return `info.json`, even an incomplete one if it declares features."""
    try:
        return Dataset(root).info
    except DatasetError as error:
        reason = str(error)
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        reason = f"{root / keys.INFO_PATH} cannot be read: {error}"
    content = _read_json(root, keys.INFO_PATH)
    if not isinstance(content, dict) or content.get("codebase_version") != keys.FORMAT_VERSION:
        raise DatasetError(reason)
    if not isinstance(content.get("features"), dict):
        raise DatasetError(f"{root / keys.INFO_PATH} declares no features")
    return content


def _count_in(stats: dict[str, Any]) -> int:
    """Return the number of rows that statistics cover, or 0."""
    own = stats.get(keys.INDEX)
    numbers = own.get("count") if isinstance(own, dict) else None
    return count(numbers[0]) if isinstance(numbers, list) and numbers else 0


def _read_json(root: Path, name: str) -> Any:
    try:
        return json.loads(locate(root, name).read_text())
    except (OSError, ValueError, RecursionError):
        return None


def _read_tables(root: Path, folder: str, *patterns: Any) -> Tables:
    parts, files, errors = [], [], []
    try:
        found = table_files(root, folder, *patterns)
    except DatasetError as error:
        return Tables(None, [], [str(error)])
    for path in found:
        name = path.relative_to(root).as_posix()
        try:
            table = tables.read_table(path)
        except DatasetError as error:
            errors.append(str(error).replace(str(path), name))
            continue
        parts.append(table)
        files.append((name, table.num_rows))
    if not files and not errors:
        errors.append(f"there is no parquet file in {folder}/chunk-*/")
    return Tables(_join(parts), files, errors)


def _join(parts: list[pa.Table]) -> pa.Table | None:
    """Return the rows of all parts, with the columns whose types fit together."""
    names = dict.fromkeys(name for part in parts for name in part.column_names)
    joined = {}
    for name in names:
        having = [part.select([n for n in part.column_names if n == name]) for part in parts]
        try:
            joined[name] = tables.join(having, [Path()] * len(parts)).column(0)
        except DatasetError:
            continue  # files by different programs may differ in a column's type
    return pa.table(joined) if parts else None


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        raise UnavailableError(f"there is no column {name}")
    column = table.column(name)
    if column.null_count:
        raise UnavailableError(f"the column {name} has {column.null_count} empty rows")
    try:
        values = to_array(column)
    except ValueError as error:
        raise UnavailableError(f"the column {name} has not one width") from error
    if values.dtype.kind not in "biuf":
        raise UnavailableError(f"the column {name} does not hold numbers")
    return values


def feature_names(feature: dict[str, Any]) -> list[str]:
    """Return the names of a feature's numbers; empty if it has none."""
    names = feature.get("names")
    if isinstance(names, dict):
        parts = [v if isinstance(v, list) else [v] for v in names.values()]
        names = [name for part in parts for name in part]
    return [str(name) for name in names] if isinstance(names, list) else []


def is_depth(feature: dict[str, Any]) -> bool:
    """Return True if a camera shows depth, not colours."""
    details = feature.get("info") or {}
    return any(bool(details.get(k)) for k in ("video.is_depth_map", "is_depth_map"))


def file_name(pattern: Any, **values: Any) -> str:
    """Return a path from a pattern of `info.json`.

    Raises:
        UnavailableError: The pattern cannot be filled in with the values.
    """
    try:
        return fill_in(pattern, **values)
    except DatasetError as error:
        raise UnavailableError(f"the pattern is {error}") from error


def is_number(value: Any) -> bool:
    """Return True if the value is a number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def count(value: Any) -> int:
    """Return the value if it is a whole number above 0, else 0."""
    return value if isinstance(value, int) and value > 0 else 0


def array(value: Any) -> np.ndarray | None:
    """Return the value as numbers, or None if it holds anything else."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError):
        return None


def by_episode(view: DatasetView, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield row numbers as (episode, frames in it)."""
    begins = np.array([begin for begin, _ in view.spans])
    owners = np.searchsorted(begins, rows, side="right") - 1
    for episode in np.unique(owners):
        yield int(episode), rows[owners == episode] - begins[episode]


def _key_frames(view: DatasetView, episode: int) -> list[int]:
    length = count(view.episodes[episode].get(keys.LENGTH))
    grasp, place = length // 3, 2 * length // 3
    try:
        begin, end = view.spans[episode]
        grip = view.named(keys.ACTION, "action_gripper")[begin:end, 0]
    except UnavailableError:
        grip = np.zeros(0)
    if grip.size and np.ptp(grip) > 0:
        closed = np.abs(grip - grip[0]) > np.ptp(grip) / 2  # it starts open
        changes = np.flatnonzero(np.diff(closed))
        if len(changes) >= 2:
            grasp, place = int(changes[0]) + 1, int(changes[-1]) + 1
    return [0, grasp, place, max(length - 1, 0)]


def _scan_camera(view: DatasetView, camera: str) -> CameraScan:
    if not view.fps:
        raise UnavailableError("fps is not known")
    by_file: dict[str, list[int]] = {}
    for episode in range(len(view.episodes)):
        by_file.setdefault(video_name(view, camera, episode), []).append(episode)
    scan = CameraScan([], {})
    for name, members in by_file.items():
        spans = {e: video_span(view, camera, e) for e in members}
        spans = dict(sorted(spans.items(), key=lambda item: item[1][0]))
        file, episodes = scan_file(view.root, name, spans, view.fps, view.key_frames)
        scan.files.append(file)
        scan.episodes.update(episodes)
    return scan


def video_name(view: DatasetView, camera: str, episode: int) -> str:
    """Return the path of an episode's video, relative to the dataset's directory."""
    row = view.episodes[episode]
    where = {key: row.get(keys.video_column(camera, key)) for key in ("chunk_index", "file_index")}
    return file_name(view.info.get("video_path"), video_key=camera, **where)


def video_span(view: DatasetView, camera: str, episode: int) -> tuple[float, float]:
    """Return begin and end in s of an episode in its video file.

    Raises:
        UnavailableError: The table of episodes has no such times.
    """
    row = view.episodes[episode]
    begin, end = (
        row.get(keys.video_column(camera, f"{side}_timestamp")) for side in ("from", "to")
    )
    if begin is None or end is None:
        raise UnavailableError(f"episode {episode} has no times for {camera}")
    return float(begin), float(end)
