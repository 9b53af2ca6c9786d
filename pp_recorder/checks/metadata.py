"""The format: `info.json`, the tables of tasks and of episodes, files that belong to nothing."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.checks.findings import Result, UnavailableError, first_line
from pp_recorder.checks.view import (
    DatasetView,
    count,
    feature_fault,
    feature_names,
    file_name,
    is_number,
    video_name,
    video_span,
)
from pp_recorder.dataset.schema import BOOKKEEPING

LEFTOVER_HINT = "left by a killed run; resume or recording again cleans it"


def check_info(evidence: DatasetView, log: Result) -> str:
    """`info.json`: keys, types, declarations of features."""
    info = evidence.info
    counts = ("total_episodes", "total_frames", "total_tasks", "chunks_size")
    for key in counts:
        value = info.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            log.error(f"info.json: {key} is {value!r}, expected a count")
    if not is_number(info.get("fps")):
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
    for key, expected in BOOKKEEPING.items():
        feature = features.get(key)
        if feature is None:
            log.error(f"info.json does not declare the feature {key}")
        elif not feature_fault(key, feature) and (feature["dtype"], feature["shape"]) != (
            expected.dtype,
            [1],
        ):
            found = f"{feature['dtype']} {feature['shape']}"
            log.error(f"info.json: {key} is declared as {found}, expected {expected.dtype} [1]")


def _check_splits(info: dict[str, Any], log: Result) -> None:
    splits, total = info.get("splits"), info.get("total_episodes")
    if not isinstance(splits, dict) or not splits:
        log.warning(f"info.json: splits is {splits!r}, expected names and ranges of episodes")
        return
    for name, text in splits.items():
        found = re.fullmatch(r"(\d+):(\d+)", str(text))
        if not found or not int(found[1]) <= int(found[2]) <= count(total):
            log.error(f"info.json: split {name} is {text!r}, expected a range within 0:{total}")


def check_tasks(evidence: DatasetView, log: Result) -> str:
    """The table of tasks."""
    path = evidence.root / "meta/tasks.parquet"
    if not path.is_file():
        log.error("meta/tasks.parquet is missing")
        return ""
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        log.error(f"meta/tasks.parquet cannot be read: {first_line(error)}")
        return ""
    if "task_index" not in table.column_names:
        log.error(f"meta/tasks.parquet has the columns {table.column_names}, not task_index")
        return ""
    _check_task_index(table, log)
    numbers, total = table.column("task_index").to_pylist(), evidence.info.get("total_tasks")
    if numbers != list(range(len(numbers))):
        log.error(f"meta/tasks.parquet: task_index is {numbers[:5]}..., expected 0, 1, 2, ...")
    if isinstance(total, int) and len(numbers) > total:
        log.warning(f"meta/tasks.parquet has {len(numbers)} tasks, info.json counts {total}")
    elif len(numbers) != total:
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


def _check_legacy_tasks(evidence: DatasetView, log: Result) -> None:
    path = evidence.root / "meta/tasks.jsonl"
    if not path.is_file():
        return
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        found = [(row["task_index"], row["task"]) for row in rows]
    except (ValueError, LookupError, TypeError) as error:
        log.error(f"meta/tasks.jsonl cannot be read: {first_line(error)}")
        return
    if found != list(enumerate(evidence.tasks)):
        log.error(f"meta/tasks.jsonl says {found[:3]}, meta/tasks.parquet {evidence.tasks[:3]}")


def check_episodes(evidence: DatasetView, log: Result) -> str:
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
    lengths = [count(row["length"]) for row in rows]
    return f"{len(rows)} rows, lengths {min(lengths)} to {max(lengths)}"


def _check_episode_rows(evidence: DatasetView, log: Result) -> None:
    at = 0
    for i, row in enumerate(evidence.episodes):
        length = count(row["length"])
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


def _check_data_files(evidence: DatasetView, log: Result) -> None:
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


def _check_video_spans(evidence: DatasetView, camera: str, log: Result) -> None:
    """Times must fit the lengths, and episodes in one file must not overlap."""
    short, ends = evidence.short(camera), {}
    for i, row in enumerate(evidence.episodes):
        try:
            name, (begin, end) = video_name(evidence, camera, i), video_span(evidence, camera, i)
        except UnavailableError as error:
            log.error(f"episode {i}, {short}: {error}", i)
            continue
        seconds = count(row["length"]) / (evidence.fps or 1)
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


def check_leftovers(evidence: DatasetView, log: Result) -> str:
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


def _known_videos(evidence: DatasetView) -> set[str] | None:
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
