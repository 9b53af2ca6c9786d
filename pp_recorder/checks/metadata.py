"""Checks of `info.json`, of the tables of tasks and episodes, and for leftover files."""

import json
import re
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.checks.findings import CheckResult, UnavailableError, first_line
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
from pp_recorder.dataset import keys
from pp_recorder.dataset.files import foreign_files, listed, locate
from pp_recorder.dataset.paths import table_path
from pp_recorder.dataset.reader import DatasetError, to_array
from pp_recorder.dataset.schema import BOOKKEEPING

_COURTESY = "it is for older readers, LeRobot v3.0 does not read it"
LEFTOVER_HINT = "left by a killed run, or of one that is under way; resuming cleans it"


def check_info(view: DatasetView, result: CheckResult) -> str:
    """Check keys, types and declarations of features in `info.json`."""
    info = view.info
    counts = ("total_episodes", "total_frames", "total_tasks", "chunks_size")
    for key in counts:
        value = info.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            result.add_error(f"info.json: {key} is {value!r}, expected a count")
    if not is_number(info.get("fps")):
        result.add_error(f"info.json: fps is {info.get('fps')!r}, expected a positive number")
    elif not isinstance(info["fps"], int):
        result.add_warning(f"info.json: fps is {info['fps']}, LeRobot declares a whole number")
    for key in ("data_files_size_in_mb", "video_files_size_in_mb", "robot_type"):
        if key not in info:
            result.add_warning(f"info.json lacks {key}, which LeRobot writes")
    if not isinstance(info.get("data_path"), str):
        result.add_error(f"info.json: data_path is {info.get('data_path')!r}, expected a pattern")
    if view.cameras and not isinstance(info.get("video_path"), str):
        result.add_error("info.json: there are cameras, but video_path is no pattern")
    _check_features(info["features"], result)
    _check_splits(info, result)
    if view.num_episodes == 0:
        result.add_warning("the dataset has no episode")
    return (
        f"{view.num_episodes} episodes, {view.num_frames} frames, {view.fps} fps, "
        f"{len(info['features'])} features"
    )


def _check_features(features: dict[str, Any], result: CheckResult) -> None:
    for key, feature in features.items():
        if fault := feature_fault(key, feature):
            result.add_error(f"info.json: {fault}")
            continue
        if "/" in key:
            result.add_error(f"info.json: the feature name {key!r} contains '/'")
        names, shape = feature_names(feature), feature["shape"]
        if names and len(shape) == 1 and len(names) != shape[0]:
            result.add_error(f"info.json: {key} has {len(names)} names for {shape[0]} numbers")
        elif len(shape) == 1 and len(set(names)) < len(names):
            result.add_warning(f"info.json: {key} has a name twice")
    for key, expected in BOOKKEEPING.items():
        feature = features.get(key)
        if feature is None:
            result.add_error(f"info.json does not declare the feature {key}")
        elif not feature_fault(key, feature) and (feature["dtype"], feature["shape"]) != (
            expected.dtype,
            [1],
        ):
            found = f"{feature['dtype']} {feature['shape']}"
            result.add_error(
                f"info.json: {key} is declared as {found}, expected {expected.dtype} [1]"
            )


def _check_splits(info: dict[str, Any], result: CheckResult) -> None:
    splits, total = info.get("splits"), info.get("total_episodes")
    if not isinstance(splits, dict) or not splits:
        result.add_warning(
            f"info.json: splits is {splits!r}, expected names and ranges of episodes"
        )
        return
    ranges: list[tuple[int, int, str]] = []
    for name, text in splits.items():
        found = re.fullmatch(r"(\d+):(\d+)", str(text))
        if not found or not int(found[1]) <= int(found[2]) <= count(total):
            result.add_error(
                f"info.json: split {name} is {text!r}, expected a range within 0:{total}"
            )
        elif int(found[1]) < int(found[2]):
            ranges.append((int(found[1]), int(found[2]), name))
    ranges.sort()
    for (_, end, first), (begin, _, second) in zip(ranges, ranges[1:], strict=False):
        if begin < end:
            result.add_error(
                f"info.json: the splits {first} and {second} overlap: both have episode {begin}"
            )


def check_tasks(view: DatasetView, result: CheckResult) -> str:
    """Check the table of tasks."""
    path = locate(view.root, keys.TASKS_PATH)
    if not path.is_file():
        result.add_error("meta/tasks.parquet is missing")
        return ""
    try:
        table = pq.ParquetFile(table_path(path)).read()
    except (pa.ArrowInvalid, OSError) as error:
        result.add_error(f"meta/tasks.parquet cannot be read: {first_line(error)}")
        return ""
    if keys.TASK_INDEX not in table.column_names:
        result.add_error(f"meta/tasks.parquet has the columns {table.column_names}, not task_index")
        return ""
    _check_task_index(table, result)
    numbers, total = table.column(keys.TASK_INDEX).to_pylist(), view.info.get("total_tasks")
    if numbers != list(range(len(numbers))):
        result.add_error(
            f"meta/tasks.parquet: task_index is {numbers[:5]}..., expected 0, 1, 2, ..."
        )
    if isinstance(total, int) and len(numbers) > total:
        result.add_warning(f"meta/tasks.parquet has {len(numbers)} tasks, info.json counts {total}")
    elif len(numbers) != total:
        result.add_error(f"meta/tasks.parquet has {len(numbers)} tasks, info.json says {total}")
    _check_task_texts(view, result)
    _check_legacy_tasks(view, result)
    return f"{len(numbers)} task(s)"


def _check_task_index(table: pa.Table, result: CheckResult) -> None:
    try:
        pandas = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
        index = [c for c in pandas.get("index_columns", []) if isinstance(c, str)]
    except (ValueError, AttributeError):
        index = []
    kind = table.schema.field(index[0]).type if index and index[0] in table.column_names else None
    if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        result.add_error(
            "meta/tasks.parquet: the task texts are no pandas index but a plain column; LeRobot "
            "looks tasks up by the index"
        )


def _check_task_texts(view: DatasetView, result: CheckResult) -> None:
    try:
        texts = view.tasks
    except UnavailableError:
        return
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not any(letter.isalnum() for letter in text):
            result.add_error(f"meta/tasks.parquet: task {number} is {text!r}, expected a text")
    normal = [" ".join(str(text).lower().split()) for text in texts]
    for text in sorted({text for text in normal if normal.count(text) > 1}):
        result.add_warning(f"meta/tasks.parquet has the task {text!r} more than once")


def _check_legacy_tasks(view: DatasetView, result: CheckResult) -> None:
    path = locate(view.root, keys.TASKS_JSONL_PATH)
    if not path.is_file():
        return
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        found = [(row[keys.TASK_INDEX], row["task"]) for row in rows]
    except (ValueError, LookupError, TypeError) as error:
        result.add_warning(f"meta/tasks.jsonl cannot be read: {first_line(error)}; {_COURTESY}")
        return
    if found != list(enumerate(view.tasks)):
        result.add_warning(
            f"meta/tasks.jsonl says {found[:3]}, meta/tasks.parquet {view.tasks[:3]}; {_COURTESY}"
        )


def check_episodes(view: DatasetView, result: CheckResult) -> str:
    """Check the table of episodes."""
    for error in view.episode_tables.errors if view.num_episodes else ():
        result.add_error(error)
    if view.num_episodes == 0:
        return "no episodes"
    rows = view.episodes
    if len(rows) < view.num_episodes:
        expected = view.num_episodes
        result.add_error(f"meta/episodes has {len(rows)} rows, info.json says {expected} episodes")
    needed = [keys.EPISODE_INDEX, keys.TASKS, keys.LENGTH, keys.FROM_INDEX, keys.TO_INDEX]
    needed += [keys.DATA_CHUNK_INDEX, keys.DATA_FILE_INDEX]
    missing = [name for name in needed if name not in view.episode_table.column_names]
    if missing:
        result.add_error(f"meta/episodes lacks the columns {missing}")
        return ""
    for name in (keys.EPISODES_CHUNK_INDEX, keys.EPISODES_FILE_INDEX):
        if name not in view.episode_table.column_names:
            result.add_warning(f"meta/episodes lacks the column {name}, which LeRobot writes")
    _check_episode_rows(view, result)
    _check_data_files(view, result)
    for camera in view.cameras:
        _check_video_spans(view, camera, result)
    lengths = [count(row[keys.LENGTH]) for row in rows]
    return f"{len(rows)} rows, lengths {min(lengths)} to {max(lengths)}"


def _check_episode_rows(view: DatasetView, result: CheckResult) -> None:
    at = 0
    for i, row in enumerate(view.episodes):
        length = count(row[keys.LENGTH])
        if row[keys.EPISODE_INDEX] != i:
            result.add_error(f"meta/episodes: row {i} holds episode {row[keys.EPISODE_INDEX]}", i)
        if not length:
            result.add_error(f"episode {i} has length {row[keys.LENGTH]}, expected at least 1", i)
        if not row[keys.TASKS]:
            result.add_error(f"episode {i} has no task", i)
        found = (row[keys.FROM_INDEX], row[keys.TO_INDEX])
        if found != (at, at + length):
            result.add_error(
                f"episode {i} has the rows {found[0]}..{found[1]}, expected {at}..{at + length} "
                f"from the lengths",
                i,
            )
        at += length
    if at != view.num_frames:
        result.add_error(
            f"the episodes' lengths add up to {at}, info.json says total_frames is "
            f"{view.num_frames}"
        )


def _check_data_files(view: DatasetView, result: CheckResult) -> None:
    """Check that each episode is in the file that its row names."""
    begin, places = 0, {}
    for name, rows in view.data.files:
        places[name] = (begin, begin + rows)
        begin += rows
    for i, row in enumerate(view.episodes):
        where = {
            "chunk_index": row[keys.DATA_CHUNK_INDEX],
            "file_index": row[keys.DATA_FILE_INDEX],
        }
        try:
            name = file_name(view.info.get("data_path"), **where)
            path = locate(view.root, name)
        except (UnavailableError, DatasetError) as error:
            result.add_error(f"episode {i}: data_path: {error}", i)
            continue
        if name not in places and not path.is_file():
            result.add_error(f"episode {i}: its data file {name} is missing", i)
        elif name in places and not view.data.errors:
            low, high = places[name]
            if low >= view.num_frames:  # until a join is complete, rows are in two files
                low, high = _indices_of(view, low, high)
            first, end = row[keys.FROM_INDEX], row[keys.TO_INDEX]
            if None not in (first, end) and not low <= first <= end <= high:
                result.add_error(
                    f"episode {i}: {name} has the rows {low}..{high}, not {first}..{end}", i
                )


def _indices_of(view: DatasetView, begin: int, end: int) -> tuple[int, int]:
    """Return the range of `index` in some rows, which may be beyond the counted ones."""
    table = view.data.table
    if table is None or begin == end or keys.INDEX not in table.column_names:
        return begin, end
    try:
        indices = to_array(table.column(keys.INDEX).slice(begin, end - begin))
    except DatasetError:
        return begin, end
    return int(indices.min()), int(indices.max()) + 1


def _check_video_spans(view: DatasetView, camera: str, result: CheckResult) -> None:
    """Check that times fit the lengths, and that episodes in one file do not overlap."""
    short, ends = view.short(camera), {}
    for i, row in enumerate(view.episodes):
        try:
            name, (begin, end) = video_name(view, camera, i), video_span(view, camera, i)
        except UnavailableError as error:
            result.add_error(f"episode {i}, {short}: {error}", i)
            continue
        seconds = count(row[keys.LENGTH]) / (view.fps or 1)
        if abs(end - begin - seconds) > 0.5 / (view.fps or 1):
            result.add_error(
                f"episode {i}, {short}: from_timestamp {begin:.4f} to to_timestamp {end:.4f} is "
                f"{end - begin:.4f} s, expected {seconds:.4f} s for {row[keys.LENGTH]} frames",
                i,
            )
        if begin < ends.get(name, 0.0) - 0.5 / (view.fps or 1):
            result.add_error(
                f"episode {i}, {short}: begins at {begin:.4f} s of {name}, where the episode "
                f"before it lasts to {ends[name]:.4f} s",
                i,
            )
        ends[name] = end


def check_leftovers(view: DatasetView, result: CheckResult) -> str:
    """Warn of rows and files that no counted episode refers to."""
    for kind, tables, counted in (
        (keys.DATA_FOLDER, view.data, view.num_frames),
        (keys.EPISODES_FOLDER, view.episode_tables, view.num_episodes),
    ):
        extra = (tables.table.num_rows if tables.table else 0) - counted
        if extra > 0:
            result.add_warning(
                f"{kind} has {extra} rows beyond the counted {counted}: {LEFTOVER_HINT}"
            )
    if view.uncounted:
        result.add_warning(
            f"meta/stats.json covers {len(view.uncounted)} episode(s) more than info.json counts: "
            f"{LEFTOVER_HINT}"
        )
    known, foreign = _known_videos(view), foreign_files(view.root, view.info)
    for path in sorted((view.root / keys.VIDEOS_FOLDER).rglob("*.mp4")):
        name = path.relative_to(view.root).as_posix()
        if known is not None and name not in {*known, *foreign}:
            result.add_warning(f"{name} belongs to no counted episode: {LEFTOVER_HINT}")
    for name in foreign:
        _report_foreign(view, name, result)
    for pattern in (".unfinished", "*.new", "*.old", "meta/*.new", "meta/*.old"):
        for path in sorted(view.root.glob(pattern)):
            name = path.relative_to(view.root).as_posix()
            result.add_warning(f"{name} is not part of the dataset: {LEFTOVER_HINT}")
    return "none" if not result.findings else f"{len(result.findings)} kinds"


def _report_foreign(view: DatasetView, name: str, result: CheckResult) -> None:
    """Warn of a file that is not named as a part of a dataset."""
    text = f"{listed([name])} is not part of the dataset and is left alone"
    for folder, tables in (
        (keys.DATA_FOLDER, view.data),
        (keys.EPISODES_FOLDER, view.episode_tables),
    ):
        if not PurePosixPath(name).match(f"{folder}/*/*.parquet"):
            continue
        text += "; LeRobot reads every parquet file there"
        if tables.files and name < tables.files[-1][0]:
            result.add_error(f"{text}, and takes its rows for those behind it: move it elsewhere")
            return
    result.add_warning(text)


def _known_videos(view: DatasetView) -> set[str] | None:
    """Return the video files of the counted episodes, and the second names of older versions."""
    known = set()
    try:
        for camera in view.cameras:
            for episode in range(len(view.episodes)):
                second = keys.VIDEO_PATHS["per-episode"].format(
                    video_key=camera, chunk_index=episode // keys.CHUNK_SIZE, file_index=episode
                )
                known |= {video_name(view, camera, episode), second}
    except UnavailableError:
        return None  # the counted files are unknown; another check says why
    return known
