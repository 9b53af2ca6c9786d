"""The rows: their columns and types, the bookkeeping, the times."""

import numpy as np
import pyarrow as pa

from pp_recorder.checks.findings import Result, UnavailableError, text_of
from pp_recorder.checks.video_scan import TIME_TOLERANCE
from pp_recorder.checks.view import NOT_NUMBERS, DatasetView, by_episode


def check_data(evidence: DatasetView, log: Result) -> str:
    """The rows: files, columns, types, widths, count, no NaN."""
    if evidence.num_episodes == 0:
        return "no rows"
    for error in evidence.data.errors:
        log.error(error)
    table = evidence.table
    if table.num_rows < evidence.num_frames:
        log.error(f"data has {table.num_rows} rows, info.json says {evidence.num_frames} frames")
    declared = {k for k, f in evidence.features.items() if f["dtype"] != "video"}
    found = set(table.column_names)
    for key in sorted(declared - found):
        log.error(f"data lacks the column {key}, which info.json declares")
    for key in sorted(found - set(evidence.info["features"])):
        log.error(f"data has a column {key}, which info.json does not declare")
    for key in sorted(declared & found):
        _check_column(evidence, key, log)
    return f"{table.num_rows} rows, {len(found)} columns in {len(evidence.data.files)} file(s)"


def _check_column(evidence: DatasetView, key: str, log: Result) -> None:
    feature, column = evidence.features[key], evidence.table.column(key)
    if column.null_count:
        log.error(f"{key} has {column.null_count} empty rows, expected none")
    if feature["dtype"] in NOT_NUMBERS:
        return
    stored = _stored_dtype(column.type)
    if stored != feature["dtype"]:
        log.error(f"{key} is stored as {stored}, expected {feature['dtype']} as in info.json")
    try:
        values = evidence.column(key)
    except UnavailableError as error:
        log.error(f"{key}: {error}, expected shape {feature['shape']}")
        return
    if values.shape[1] != (size := int(np.prod(feature["shape"]))):
        log.error(f"{key} has {values.shape[1]} values in a row, expected {size}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        for episode, frames in by_episode(evidence, rows):
            text = f"episode {episode}, {text_of(frames)}: {key} is NaN or infinite"
            log.error(text, episode, int(frames[0]))


def _stored_dtype(kind: pa.DataType) -> str:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    names = {"float": "float32", "double": "float64", "halffloat": "float16"}
    return names.get(str(kind), str(kind))


def check_rows(evidence: DatasetView, log: Result) -> str:
    """The bookkeeping columns, the tasks and the ends of episodes."""
    spans, counted = evidence.spans, evidence.spans[-1][1]
    numbers = np.arange(counted)
    owners = np.repeat(np.arange(len(spans)), [end - begin for begin, end in spans])
    frames = numbers - np.array([begin for begin, _ in spans])[owners]
    expected = {"index": numbers, "episode_index": owners, "frame_index": frames}
    for key, want in expected.items():
        got = evidence.column(key)[:counted, 0]
        for episode, bad in by_episode(evidence, np.flatnonzero(got != want)):
            row = spans[episode][0] + int(bad[0])
            log.error(
                f"episode {episode}, {text_of(bad)}: {key} is {got[row]}, expected {want[row]}",
                episode,
                int(bad[0]),
            )
    _check_row_tasks(evidence, log)
    if "next.done" in evidence.features:
        _check_done(evidence, log)
    return f"{counted} rows in {len(spans)} episodes"


def _check_row_tasks(evidence: DatasetView, log: Result) -> None:
    tasks, index = evidence.tasks, evidence.column("task_index")[:, 0]
    wrong = np.flatnonzero((index < 0) | (index >= len(tasks)))
    for episode, bad in by_episode(evidence, wrong):
        row = evidence.spans[episode][0] + int(bad[0])
        log.error(
            f"episode {episode}, {text_of(bad)}: task_index is {index[row]}, expected 0 to "
            f"{len(tasks) - 1}",
            episode,
            int(bad[0]),
        )
    if wrong.size:
        return
    for i, (begin, end) in enumerate(evidence.spans):
        used = {tasks[k] for k in np.unique(index[begin:end])}
        listed = set(evidence.episodes[i].get("tasks") or ())
        if used != listed:
            log.error(
                f"episode {i}: its rows have the tasks {used}, meta/episodes lists {listed}", i
            )


def _check_done(evidence: DatasetView, log: Result) -> None:
    done = evidence.column("next.done")[:, 0].astype(bool)
    for i, (begin, end) in enumerate(evidence.spans):
        found = np.flatnonzero(done[begin:end]).tolist()
        if found != [end - begin - 1]:
            where = text_of(found) if found else "no frame"
            log.error(
                f"episode {i}: next.done is true at {where}, expected only at the last frame "
                f"{end - begin - 1}",
                i,
            )


def check_timestamps(evidence: DatasetView, log: Result) -> str:
    """`timestamp` must be frame_index / fps."""
    if not evidence.fps:
        raise UnavailableError("fps is not known")
    worst = 0.0
    for i, (begin, end) in enumerate(evidence.spans):
        found = evidence.column("timestamp")[begin:end, 0].astype(np.float64)
        want = (np.arange(end - begin) / evidence.fps).astype(np.float32)
        off = np.abs(found - want)
        tolerance = np.maximum(TIME_TOLERANCE, 2 * np.spacing(want))
        bad = np.flatnonzero(~(off <= tolerance))
        worst = max(worst, float(off.max()))
        if bad.size:
            k = int(bad[0])
            text = f"timestamp is {found[k]:.5f} s, expected {want[k]:.5f} s"
            log.error(f"episode {i}, {text_of(bad)}: {text}", i, k)
    return f"largest difference to the grid {worst * 1000:.3f} ms"
