"""Brings the directory of a collection that was cut short back to its longest valid prefix."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.dataset.commit import UNFINISHED, Commit, RemoteTarget
from pp_recorder.dataset.reader import CHUNK_SIZE, Dataset, DatasetError


@dataclass(frozen=True)
class Prefix:
    """What is valid.

    Attributes:
        episodes: The rows of `meta/episodes`, in order.
        dropped: What was there beyond them, or is damaged, in words.
    """

    episodes: list[dict[str, Any]]
    dropped: list[str]


def find_prefix(root: Path, cameras: list[str], videos_elsewhere: bool = False) -> Prefix:
    """Looks how many episodes from the first on are complete; changes nothing.

    An episode is complete if `info.json` counts it, its row in `meta/episodes` and its rows of
    data are there, and each of its videos can be opened and has a packet per frame.

    Args:
        root: The dataset's directory.
        cameras: The features that are videos.
        videos_elsewhere: Videos are empty files, and that they are there is enough.

    Raises:
        DatasetError: `info.json` cannot be read.
    """
    try:
        dataset = Dataset(root)
        entries, counted = dataset.episodes, dataset.num_episodes
    except DatasetError as error:
        if not (root / "meta" / "info.json").is_file():
            raise
        entries, counted = _readable_entries(root), None
        if not entries:
            raise DatasetError(f"{root} cannot be repaired: {error}") from error
    rows = _rows_by_episode(root)
    for k, entry in enumerate(entries):
        reason = _damage(root, cameras, k, entry, rows, videos_elsewhere)
        if reason:
            dropped = f"episodes {k} to {len(entries) - 1}, because {reason}"
            return Prefix(entries[:k], [dropped])
    if counted is None:
        return Prefix(entries, [])
    return Prefix(entries, _leftovers(root, entries, rows))


def cut_back(
    root: Path,
    prefix: Prefix,
    info: dict[str, Any],
    stats: dict[str, Any],
    elsewhere: RemoteTarget | None = None,
) -> None:
    """Makes the directory hold the prefix and nothing else.

    The counts in `info.json` come first, so that the dataset is valid throughout.

    Args:
        root: The dataset's directory.
        prefix: What `find_prefix` found.
        info: The contents of `info.json` for it.
        stats: The contents of `stats.json` for it.
        elsewhere: Where the dataset is kept, if not there.
    """
    shutil.rmtree(root / UNFINISHED, ignore_errors=True)
    commit = Commit(root, elsewhere)
    commit.add_json("meta/stats.json", stats)
    commit.add_json("meta/info.json", info)
    commit.publish()
    count = len(prefix.episodes)
    commit = Commit(root, elsewhere)
    for folder in ("data", "meta/episodes"):
        seen: set[int] = set()
        for path in sorted((root / folder).glob("*/*.parquet")):
            seen |= _keep_rows(commit, root, path, set(range(count)) - seen)
    for path in root.glob("videos/*/chunk-*/*.mp4"):
        if _episode_of(path) >= count:
            commit.remove(path)
    commit.publish()
    shutil.rmtree(root / UNFINISHED, ignore_errors=True)


def count_packets(path: Path) -> int:
    """How many pictures a video file claims to hold; -1 if it cannot be opened."""
    try:
        with av.open(str(path)) as container:
            return sum(1 for packet in container.demux(video=0) if packet.pts is not None)
    except (av.error.FFmpegError, OSError, IndexError):
        return -1


def _readable_entries(root: Path) -> list[dict[str, Any]]:
    """The rows of `meta/episodes` from the first on, as far as they can be read."""
    entries: list[dict[str, Any]] = []
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        try:
            entries += pq.ParquetFile(path).read().to_pylist()
        except (pa.ArrowInvalid, OSError):
            break
    return [e for k, e in enumerate(entries) if e.get("episode_index") == k]


def _rows_by_episode(root: Path) -> dict[int, tuple[int, int]]:
    """Per episode, the index of its first row and how many rows it has."""
    found: dict[int, tuple[int, int]] = {}
    for path in sorted((root / "data").glob("*/*.parquet")):
        try:
            table = pq.ParquetFile(path).read(columns=["episode_index", "index"])
        except (pa.ArrowInvalid, OSError):
            continue
        grouped = table.group_by("episode_index").aggregate([("index", "min"), ("index", "count")])
        for row in grouped.to_pylist():
            found.setdefault(row["episode_index"], (row["index_min"], row["index_count"]))
    return found


def _damage(
    root: Path,
    cameras: list[str],
    episode: int,
    entry: dict[str, Any],
    rows: dict[int, tuple[int, int]],
    videos_elsewhere: bool,
) -> str:
    """What is wrong with an episode, or nothing."""
    expected = (entry["dataset_from_index"], entry["length"])
    if rows.get(episode) != expected:
        return f"its data has (first row, rows) {rows.get(episode)}, expected {expected}"
    for camera in cameras:
        chunk, file = (entry[f"videos/{camera}/{part}_index"] for part in ("chunk", "file"))
        path = root / "videos" / camera / f"chunk-{chunk:03d}" / f"file-{file:03d}.mp4"
        if videos_elsewhere and path.exists():
            continue
        packets = count_packets(path)
        if packets != entry["length"]:
            what = "cannot be opened" if packets < 0 else f"has {packets} frames"
            return f"{path.relative_to(root)} {what}, expected {entry['length']} frames"
    return ""


def _leftovers(root: Path, entries: list[dict[str, Any]], rows: dict[int, Any]) -> list[str]:
    count = len(entries)
    beyond = any(k >= count for k in rows) or any(
        _episode_of(path) >= count for path in root.glob("videos/*/chunk-*/*.mp4")
    )
    unfinished = (root / UNFINISHED).exists()
    return ["the unfinished episode"] if beyond or unfinished else []


def _keep_rows(commit: Commit, root: Path, path: Path, wanted: set[int]) -> set[int]:
    """Leaves only the rows of the wanted episodes in a parquet file; returns which there are.

    A join that was cut short leaves episodes in two files: the first one's are kept.
    """
    try:
        table = pq.ParquetFile(path).read()
        mask = np.isin(table.column("episode_index").to_numpy(), sorted(wanted))
        kept = table.filter(pa.array(mask))
    except (pa.ArrowInvalid, OSError):
        commit.remove(path)
        return set()
    if kept.num_rows == 0:
        commit.remove(path)
    elif kept.num_rows < table.num_rows:
        commit.add_table(str(path.relative_to(root)), kept)
    return set(kept.column("episode_index").to_pylist())


def _episode_of(path: Path) -> int:
    """The episode whose video a file is, from either of its names."""
    number = int(path.stem.rpartition("_" if path.stem.startswith("episode") else "-")[2])
    if path.stem.startswith("episode"):
        return number
    return int(path.parent.name.removeprefix("chunk-")) * CHUNK_SIZE + number
