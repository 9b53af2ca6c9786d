"""Recovery of a dataset after an interruption, by cutting it back to its longest valid prefix."""

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pp_recorder.dataset import keys, tables
from pp_recorder.dataset.commit import UNFINISHED, Commit, RemoteTarget
from pp_recorder.dataset.files import fill_in, locate, table_files, video_files
from pp_recorder.dataset.reader import Dataset, DatasetError, entry_fault, to_rows
from pp_recorder.dataset.remux import RemuxError, VideoIndex, read_index

_TABLES = ((keys.DATA_FOLDER, keys.DATA_PATH), (keys.EPISODES_FOLDER, keys.EPISODES_PATH))


@dataclass(frozen=True)
class Prefix:
    """The valid episodes of a dataset, from the first on.

    Attributes:
        episodes: Their rows of `meta/episodes`, in order.
        dropped: The parts beyond them or damaged, each in words.
    """

    episodes: list[dict[str, Any]]
    dropped: list[str]


@dataclass(frozen=True)
class Videos:
    """What is known of a dataset's videos.

    Attributes:
        cameras: The features that are videos.
        fps: Frames per second.
        template: Pattern of their names, as in `info.json`.
        are_remote: True if they are empty files here; then their existence is enough.
    """

    cameras: list[str]
    fps: int
    template: str
    are_remote: bool = False

    def name(self, camera: str, entry: dict[str, Any]) -> str:
        """Return the file with the images of an episode, given as its row of `meta/episodes`."""
        fields = ("chunk_index", "file_index")
        where = {field: entry[keys.video_column(camera, field)] for field in fields}
        return fill_in(self.template, video_key=camera, **where)

    def names(self, entries: Iterable[dict[str, Any]]) -> set[str]:
        """Return the files with the images of episodes."""
        entries = list(entries)
        return {self.name(camera, entry) for camera in self.cameras for entry in entries}


def find_prefix(root: Path, videos: Videos) -> Prefix:
    """Find the complete episodes from the first on, without changing anything.

    An episode is complete if `info.json` counts it, its row in `meta/episodes` and its rows of
    data are there, and each of its videos can be opened and has a packet per frame of it.

    Args:
        root: The dataset's directory.
        videos: What is known of its videos.

    Raises:
        DatasetError: `info.json` cannot be read.
    """
    entries, counted = _readable_entries(root), None
    try:
        counted = Dataset(root).num_episodes
        entries = entries[:counted]
    except DatasetError as error:
        faults = [entry_fault(entry, videos.cameras) for entry in entries]
        if not (root / keys.INFO_PATH).is_file() or not entries or any(faults):
            raise DatasetError(f"{root} cannot be repaired: {error}") from error
    rows = _rows_by_episode(root)
    read = lru_cache(len(videos.cameras) + 1)(read_index)  # each file is read once
    for k, entry in enumerate(entries):
        expected = entry[keys.FROM_INDEX], entry[keys.LENGTH]
        reason = "" if rows.get(k) == expected else _describe_rows(rows.get(k), expected)
        if reason := reason or _find_video_damage(root, videos, entry, read):
            dropped = f"episodes {k} to {len(entries) - 1}, because {reason}"
            return Prefix(entries[:k], [dropped])
    if counted is None:
        return Prefix(entries, [])
    return Prefix(entries, _find_leftovers(root, videos.cameras, entries, rows))


def cut_back(
    root: Path,
    prefix: Prefix,
    videos: Videos,
    info: dict[str, Any],
    stats: dict[str, Any],
    remote: RemoteTarget | None = None,
) -> None:
    """Remove everything but the prefix from the directory.

    The counts in `info.json` change first, so that the dataset is valid at every moment.

    Args:
        root: The dataset's directory.
        prefix: The result of `find_prefix`.
        videos: What is known of its videos.
        info: The contents of `info.json` for it.
        stats: The contents of `stats.json` for it.
        remote: The target that keeps the dataset, if it is not the directory.
    """
    shutil.rmtree(root / UNFINISHED, ignore_errors=True)
    commit = Commit(root, remote)
    commit.add_json(keys.STATS_PATH, stats)
    commit.add_json(keys.INFO_PATH, info)
    commit.publish()
    commit = Commit(root, remote)
    for folder, pattern in _TABLES:
        files = table_files(root, folder, pattern)
        wanted = _episodes_to_keep(root, files, prefix.episodes, folder == keys.DATA_FOLDER)
        for path in files:
            _keep_rows(commit, root, path, wanted[path])
    for path in unreferenced_videos(root, videos.cameras, videos.names(prefix.episodes)):
        commit.remove(path)
    commit.publish()
    shutil.rmtree(root / UNFINISHED, ignore_errors=True)


def unreferenced_videos(root: Path, cameras: Iterable[str], names: set[str]) -> list[Path]:
    """Return the video files, named as we name them, to which no episode refers.

    A run that was killed leaves some, while it records or while it packs; and older versions gave
    every video a second name.

    Args:
        root: The dataset's directory.
        cameras: The features that are videos.
        names: The files that are needed, relative to it.
    """
    found = video_files(root, cameras)
    return [path for path in found if path.relative_to(root).as_posix() not in names]


def _readable_entries(root: Path) -> list[dict[str, Any]]:
    """Return the rows of `meta/episodes` from the first on, as far as they can be read."""
    entries: list[dict[str, Any]] = []
    for path in table_files(root, keys.EPISODES_FOLDER, keys.EPISODES_PATH):
        try:
            entries += to_rows(tables.read_table(path), path)
        except DatasetError:
            break
    return [e for k, e in enumerate(entries) if e.get(keys.EPISODE_INDEX) == k]


def _rows_by_episode(root: Path) -> dict[int, tuple[int, int]]:
    """Return the index of the first row and the number of rows of each episode."""
    found: dict[int, tuple[int, int]] = {}
    for path in table_files(root, keys.DATA_FOLDER, keys.DATA_PATH):
        needed = {keys.EPISODE_INDEX, keys.INDEX}
        try:
            table = tables.read_table(path, needed.__contains__)
        except DatasetError:
            continue
        if missing := sorted(needed - set(table.column_names)):
            raise DatasetError(f"{path} has no column {missing[0]}; nothing was changed")
        grouped = table.group_by(keys.EPISODE_INDEX).aggregate(
            [(keys.INDEX, "min"), (keys.INDEX, "count")]
        )
        for row in grouped.to_pylist():
            first_and_count = (row[f"{keys.INDEX}_min"], row[f"{keys.INDEX}_count"])
            found.setdefault(row[keys.EPISODE_INDEX], first_and_count)
    return found


def _describe_rows(found: tuple[int, int] | None, expected: tuple[int, int]) -> str:
    return f"its data has (first row, rows) {found}, expected {expected}"


def _find_video_damage(
    root: Path, videos: Videos, entry: dict[str, Any], read: Callable[[Path, int], VideoIndex]
) -> str:
    """Return the reason why a video of an episode is incomplete, or ""."""
    length = entry[keys.LENGTH]
    for camera in videos.cameras:
        name = videos.name(camera, entry)
        if videos.are_remote and locate(root, name).exists():
            continue
        begin = round(entry[keys.video_column(camera, "from_timestamp")] * videos.fps)
        try:
            found = read(locate(root, name), videos.fps).count(begin, length)
        except RemuxError:
            return f"{name} cannot be opened, expected {length} frames"
        if found != length:
            return f"{name} has {found} frames, expected {length} frames"
    return ""


def _find_leftovers(
    root: Path, cameras: list[str], entries: list[dict[str, Any]], rows: dict[int, Any]
) -> list[str]:
    """Return what there is beyond the counted episodes, in words."""
    count = len(entries)
    beyond = any(k >= count for k in rows) or any(
        _episode_of(path) >= count for path in video_files(root, cameras)
    )
    unfinished = (root / UNFINISHED).exists()
    return ["the unfinished episode"] if beyond or unfinished else []


def _episodes_to_keep(
    root: Path, files: list[Path], entries: list[dict[str, Any]], is_data: bool
) -> dict[Path, set[int]]:
    """Return the episodes whose rows each file is to keep.

    An interrupted join leaves episodes in two files: rows of data stay where their entry says.
    """
    holders: dict[int, list[Path]] = {}
    for path in files:
        try:
            table = tables.read_table(path, keys.EPISODE_INDEX.__eq__)
        except DatasetError:
            continue
        for column in table.columns:
            for episode in column.unique().to_pylist():
                holders.setdefault(episode, []).append(path)
    wanted: dict[Path, set[int]] = {path: set() for path in files}
    for episode, entry in enumerate(entries):
        found = holders[episode]
        named = root / _data_name(entry) if is_data else None
        wanted[named if named in found else found[0]].add(episode)
    return wanted


def _data_name(entry: dict[str, Any]) -> str:
    """Return the file with the rows of an episode, as its entry names it, or ""."""
    where = (entry.get(keys.DATA_CHUNK_INDEX), entry.get(keys.DATA_FILE_INDEX))
    try:
        return fill_in(keys.DATA_PATH, chunk_index=where[0], file_index=where[1])
    except DatasetError:
        return ""


def _keep_rows(commit: Commit, root: Path, path: Path, wanted: set[int]) -> None:
    """Keep only the rows of the wanted episodes in a parquet file."""
    if not wanted:
        commit.remove(path)
        return
    table = tables.read_table(path)
    mask = np.isin(table.column(keys.EPISODE_INDEX).to_numpy(), sorted(wanted))
    if not mask.all():
        commit.add_table(str(path.relative_to(root)), table.filter(pa.array(mask)))


def _episode_of(path: Path) -> int:
    """Return the episode that has a video file of this name to itself."""
    number = int(re.split("[-_]", path.stem)[1])
    if path.stem.startswith("episode") or number >= keys.CHUNK_SIZE:
        return number
    # as versions before packing counted; packed files have lower numbers than their episodes
    return int(path.parent.name.removeprefix("chunk-")) * keys.CHUNK_SIZE + number
