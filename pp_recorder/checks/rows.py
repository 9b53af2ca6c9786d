"""Checks of the rows: columns and types, bookkeeping, times."""

import numpy as np
import pyarrow as pa

from pp_recorder.checks.findings import CheckResult, UnavailableError, text_of
from pp_recorder.checks.video_scan import TIME_TOLERANCE
from pp_recorder.checks.view import DatasetView, by_episode
from pp_recorder.dataset import keys
from pp_recorder.dataset.schema import NOT_NUMBERS


def check_data(view: DatasetView, result: CheckResult) -> str:
    """Check files, columns, types, widths and number of rows, and that nothing is NaN."""
    if view.num_episodes == 0:
        return "no rows"
    for error in view.data.errors:
        result.add_error(error)
    table = view.table
    if table.num_rows < view.num_frames:
        result.add_error(f"data has {table.num_rows} rows, info.json says {view.num_frames} frames")
    declared = {k for k, f in view.features.items() if f["dtype"] != "video"}
    found = set(table.column_names)
    for key in sorted(declared - found):
        result.add_error(f"data lacks the column {key}, which info.json declares")
    for key in sorted(found - set(view.info["features"])):
        result.add_error(f"data has a column {key}, which info.json does not declare")
    for key in sorted(declared & found):
        _check_column(view, key, result)
    return f"{table.num_rows} rows, {len(found)} columns in {len(view.data.files)} file(s)"


def _check_column(view: DatasetView, key: str, result: CheckResult) -> None:
    feature, column = view.features[key], view.table.column(key)
    if column.null_count:
        result.add_error(f"{key} has {column.null_count} empty rows, expected none")
    if feature["dtype"] in NOT_NUMBERS:
        return
    stored = _stored_dtype(column.type)
    if stored != feature["dtype"]:
        result.add_error(
            f"{key} is stored as {stored}, expected {feature['dtype']} as in info.json"
        )
    try:
        values = view.column(key)
    except UnavailableError as error:
        result.add_error(f"{key}: {error}, expected shape {feature['shape']}")
        return
    if values.shape[1] != (size := int(np.prod(feature["shape"]))):
        result.add_error(f"{key} has {values.shape[1]} values in a row, expected {size}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        for episode, frames in by_episode(view, rows):
            text = f"episode {episode}, {text_of(frames)}: {key} is NaN or infinite"
            result.add_error(text, episode, int(frames[0]))


def _stored_dtype(kind: pa.DataType) -> str:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    names = {"float": "float32", "double": "float64", "halffloat": "float16"}
    return names.get(str(kind), str(kind))


def check_rows(view: DatasetView, result: CheckResult) -> str:
    """Check the bookkeeping columns, the tasks and the ends of episodes."""
    spans, counted = view.spans, view.spans[-1][1]
    numbers = np.arange(counted)
    owners = np.repeat(np.arange(len(spans)), [end - begin for begin, end in spans])
    frames = numbers - np.array([begin for begin, _ in spans])[owners]
    expected = {keys.INDEX: numbers, keys.EPISODE_INDEX: owners, keys.FRAME_INDEX: frames}
    for key, want in expected.items():
        got = view.column(key)[:counted, 0]
        for episode, bad in by_episode(view, np.flatnonzero(got != want)):
            row = spans[episode][0] + int(bad[0])
            result.add_error(
                f"episode {episode}, {text_of(bad)}: {key} is {got[row]}, expected {want[row]}",
                episode,
                int(bad[0]),
            )
    _check_row_tasks(view, result)
    if keys.DONE in view.features:
        _check_done(view, result)
    return f"{counted} rows in {len(spans)} episodes"


def _check_row_tasks(view: DatasetView, result: CheckResult) -> None:
    tasks, index = view.tasks, view.column(keys.TASK_INDEX)[:, 0]
    wrong = np.flatnonzero((index < 0) | (index >= len(tasks)))
    for episode, bad in by_episode(view, wrong):
        row = view.spans[episode][0] + int(bad[0])
        result.add_error(
            f"episode {episode}, {text_of(bad)}: task_index is {index[row]}, expected 0 to "
            f"{len(tasks) - 1}",
            episode,
            int(bad[0]),
        )
    if wrong.size:
        return
    for i, (begin, end) in enumerate(view.spans):
        used = {tasks[k] for k in np.unique(index[begin:end])}
        listed = set(view.episodes[i].get(keys.TASKS) or ())
        if used != listed:
            result.add_error(
                f"episode {i}: its rows have the tasks {used}, meta/episodes lists {listed}", i
            )


def _check_done(view: DatasetView, result: CheckResult) -> None:
    done = view.column(keys.DONE)[:, 0].astype(bool)
    for i, (begin, end) in enumerate(view.spans):
        found = np.flatnonzero(done[begin:end]).tolist()
        if found != [end - begin - 1]:
            where = text_of(found) if found else "no frame"
            result.add_error(
                f"episode {i}: next.done is true at {where}, expected only at the last frame "
                f"{end - begin - 1}",
                i,
            )


def check_timestamps(view: DatasetView, result: CheckResult) -> str:
    """Check that `timestamp` is frame_index / fps."""
    if not view.fps:
        raise UnavailableError("fps is not known")
    worst = 0.0
    for i, (begin, end) in enumerate(view.spans):
        found = view.column(keys.TIMESTAMP)[begin:end, 0].astype(np.float64)
        want = (np.arange(end - begin) / view.fps).astype(np.float32)
        off = np.abs(found - want)
        tolerance = np.maximum(TIME_TOLERANCE, 2 * np.spacing(want))
        bad = np.flatnonzero(~(off <= tolerance))
        worst = max(worst, float(off.max()))
        if bad.size:
            k = int(bad[0])
            text = f"timestamp is {found[k]:.5f} s, expected {want[k]:.5f} s"
            result.add_error(f"episode {i}, {text_of(bad)}: {text}", i, k)
    return f"largest difference to the grid {worst * 1000:.3f} ms"
