"""Recovery of a dataset after an interruption, by cutting it back to its longest valid prefix."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.dataset import keys, tables
from pp_recorder.dataset.commit import UNFINISHED, Commit, RemoteTarget
from pp_recorder.dataset.paths import media_url, table_path
from pp_recorder.dataset.reader import Dataset, DatasetError, entry_fault, to_rows

_VIDEO_FILES = f"{keys.VIDEOS_FOLDER}/*/chunk-*/*.mp4"
_TABLE_FILES = "*/*.parquet"  # in the folder of a table


@dataclass(frozen=True)
class Prefix:
    """The valid episodes of a dataset, from the first on.

    Attributes:
        episodes: Their rows of `meta/episodes`, in order.
        dropped: The parts beyond them or damaged, each in words.
    """

    episodes: list[dict[str, Any]]
    dropped: list[str]


def find_prefix(root: Path, cameras: list[str], videos_are_remote: bool = False) -> Prefix:
    """Find the complete episodes from the first on, without changing anything.

    An episode is complete if `info.json` counts it, its row in `meta/episodes` and its rows of
    data are there, and each of its videos can be opened and has a packet per frame.

    Args:
        root: The dataset's directory.
        cameras: The features that are videos.
        videos_are_remote: True if videos are empty files here; then their existence is enough.

    Raises:
        DatasetError: `info.json` cannot be read.
    """
    entries, counted = _readable_entries(root), None
    try:
        counted = Dataset(root).num_episodes
        entries = entries[:counted]
    except DatasetError as error:
        faults = [entry_fault(entry, cameras) for entry in entries]
        if not (root / keys.INFO_PATH).is_file() or not entries or any(faults):
            raise DatasetError(f"{root} cannot be repaired: {error}") from error
    rows = _rows_by_episode(root)
    for k, entry in enumerate(entries):
        reason = _find_damage(root, cameras, k, entry, rows, videos_are_remote)
        if reason:
            dropped = f"episodes {k} to {len(entries) - 1}, because {reason}"
            return Prefix(entries[:k], [dropped])
    if counted is None:
        return Prefix(entries, [])
    return Prefix(entries, _find_leftovers(root, entries, rows))


def cut_back(
    root: Path,
    prefix: Prefix,
    info: dict[str, Any],
    stats: dict[str, Any],
    remote: RemoteTarget | None = None,
) -> None:
    """Remove everything but the prefix from the directory.

    The counts in `info.json` change first, so that the dataset is valid at every moment.

    Args:
        root: The dataset's directory.
        prefix: The result of `find_prefix`.
        info: The contents of `info.json` for it.
        stats: The contents of `stats.json` for it.
        remote: The target that keeps the dataset, if it is not the directory.
    """
    shutil.rmtree(root / UNFINISHED, ignore_errors=True)
    commit = Commit(root, remote)
    commit.add_json(keys.STATS_PATH, stats)
    commit.add_json(keys.INFO_PATH, info)
    commit.publish()
    count = len(prefix.episodes)
    commit = Commit(root, remote)
    for folder in (keys.DATA_FOLDER, keys.EPISODES_FOLDER):
        seen: set[int] = set()
        for path in sorted((root / folder).glob(_TABLE_FILES)):
            seen |= _keep_rows(commit, root, path, set(range(count)) - seen)
    for path in root.glob(_VIDEO_FILES):
        if _episode_of(path) >= count:
            commit.remove(path)
    commit.publish()
    shutil.rmtree(root / UNFINISHED, ignore_errors=True)


def count_packets(path: Path) -> int:
    """Return the number of video packets in a file; -1 if it cannot be opened."""
    try:
        with av.open(media_url(path)) as container:
            return sum(1 for packet in container.demux(video=0) if packet.pts is not None)
    except (av.error.FFmpegError, OSError, IndexError):
        return -1


def _readable_entries(root: Path) -> list[dict[str, Any]]:
    """Return the rows of `meta/episodes` from the first on, as far as they can be read."""
    entries: list[dict[str, Any]] = []
    for path in sorted((root / keys.EPISODES_FOLDER).glob(_TABLE_FILES)):
        try:
            entries += to_rows(tables.read_table(path), path)
        except DatasetError:
            break
    return [e for k, e in enumerate(entries) if e.get(keys.EPISODE_INDEX) == k]


def _rows_by_episode(root: Path) -> dict[int, tuple[int, int]]:
    """Return the index of the first row and the number of rows of each episode."""
    found: dict[int, tuple[int, int]] = {}
    for path in sorted((root / keys.DATA_FOLDER).glob(_TABLE_FILES)):
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


def _find_damage(
    root: Path,
    cameras: list[str],
    episode: int,
    entry: dict[str, Any],
    rows: dict[int, tuple[int, int]],
    videos_are_remote: bool,
) -> str:
    """Return the reason why an episode is incomplete, or ""."""
    expected = (entry[keys.FROM_INDEX], entry[keys.LENGTH])
    if rows.get(episode) != expected:
        return f"its data has (first row, rows) {rows.get(episode)}, expected {expected}"
    for camera in cameras:
        where = {
            name: entry[keys.video_column(camera, name)] for name in ("chunk_index", "file_index")
        }
        path = root / keys.VIDEO_PATH.format(video_key=camera, **where)
        if videos_are_remote and path.exists():
            continue
        packets = count_packets(path)
        if packets != entry[keys.LENGTH]:
            what = "cannot be opened" if packets < 0 else f"has {packets} frames"
            return f"{path.relative_to(root)} {what}, expected {entry[keys.LENGTH]} frames"
    return ""


def _find_leftovers(root: Path, entries: list[dict[str, Any]], rows: dict[int, Any]) -> list[str]:
    """Return what there is beyond the counted episodes, in words."""
    count = len(entries)
    beyond = any(k >= count for k in rows) or any(
        _episode_of(path) >= count for path in root.glob(_VIDEO_FILES)
    )
    unfinished = (root / UNFINISHED).exists()
    return ["the unfinished episode"] if beyond or unfinished else []


def _keep_rows(commit: Commit, root: Path, path: Path, wanted: set[int]) -> set[int]:
    """Keep only the rows of the wanted episodes in a parquet file; return the episodes found.

    An interrupted join leaves episodes in two files; the caller keeps those of the first one.
    """
    try:
        table = pq.ParquetFile(table_path(path)).read()
        mask = np.isin(table.column(keys.EPISODE_INDEX).to_numpy(), sorted(wanted))
        kept = table.filter(pa.array(mask))
    except (pa.ArrowInvalid, OSError):
        commit.remove(path)
        return set()
    if kept.num_rows == 0:
        commit.remove(path)
    elif kept.num_rows < table.num_rows:
        commit.add_table(str(path.relative_to(root)), kept)
    return set(kept.column(keys.EPISODE_INDEX).to_pylist())


def _episode_of(path: Path) -> int:
    """Return the episode of a video file with either of its two names."""
    number = int(path.stem.rpartition("_" if path.stem.startswith("episode") else "-")[2])
    if path.stem.startswith("episode"):
        return number
    return int(path.parent.name.removeprefix("chunk-")) * keys.CHUNK_SIZE + number
