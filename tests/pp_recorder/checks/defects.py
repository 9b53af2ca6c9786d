"""Ways to break a dataset, and the finding that names each defect."""

import json
import shutil
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HIGH = "observation.images.cam_high"
WRIST = "observation.images.cam_wrist"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/{}/chunk-000/episode_{:05d}.mp4"
LENGTH = 180


def edit_json(root, name, change):
    content = json.loads((root / name).read_text())
    change(content)
    (root / name).write_text(json.dumps(content))


def edit_info(**changes):
    return lambda root: edit_json(root, "meta/info.json", lambda info: info.update(changes))


def edit_rows(name, change):
    """`change` gets the table as a dictionary of lists."""

    def plant(root):
        table = pq.ParquetFile(root / name).read()
        columns = table.to_pydict()
        change(columns)
        known = {f.name: f.type for f in table.schema}
        arrays = {k: pa.array(v, known.get(k)) for k, v in columns.items()}
        pq.write_table(pa.table(arrays).replace_schema_metadata(table.schema.metadata), root / name)

    return plant


def edit_cell(name, column, row, value):
    def change(columns):
        old = columns[column][row]
        columns[column][row] = value(old) if callable(value) else value

    return edit_rows(name, change)


def edit_stats(key, name, value):
    def change(content):
        content[key][name] = (np.array(content[key][name]) * value).tolist()

    return lambda root: edit_json(root, "meta/stats.json", change)


def read_video(path):
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def write_video(path, images, fps=30, options=None):
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "23", "g": "2"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for k, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def edit_video(change, fps=30, name=VIDEO.format(HIGH, 1)):
    def plant(root):
        path = root / name
        images = change(read_video(path))
        path.unlink()
        write_video(path, images, fps)

    return plant


def cut_file(name, share, faststart=False):
    def plant(root):
        path = root / name
        if faststart:
            images = read_video(path)
            path.unlink()
            write_video(path, images, options={"movflags": "faststart"})
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[: int(len(content) * share)])

    return plant


def swap(first, second):
    def plant(root):
        (root / first).rename(root / "aside")
        (root / second).rename(root / first)
        (root / "aside").rename(root / second)

    return plant


def remove(name):
    return lambda root: (root / name).unlink()


def damage(name):
    def plant(root):
        content = bytearray((root / name).read_bytes())
        middle = len(content) // 2
        content[middle : middle + 2000] = bytes(2000)
        (root / name).unlink()
        (root / name).write_bytes(content)

    return plant


def drop_column(name, column):
    return edit_rows(name, lambda columns: columns.pop(column))


def shuffle_index(columns):
    columns["index"][200], columns["index"][300] = 300, 200


def tasks_as_plain_column(root):
    path = root / "meta/tasks.parquet"
    pq.write_table(pq.ParquetFile(path).read().replace_schema_metadata({}), path)


def zero_image_std(root):
    def change(columns):
        for row in range(2):
            columns[f"stats/{HIGH}/std"][row] = [[[0.0]], [[0.0]], [[0.0]]]

    edit_rows(EPISODES, change)(root)
    edit_stats(HIGH, "std", 0)(root)


def limits(**changes):
    """Limits that the data keep, but for the changed ones."""

    def plant(root):
        values = {
            "joint_low": [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973],
            "joint_high": [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973],
            "joint_velocity": [20.0] * 7,
        }
        edit_json(root, "meta/collection.json", lambda c: c.update(limits={**values, **changes}))

    return plant


def stuck_action(columns):
    for row in range(300):
        columns["action"][row][2] = 2.8973


def repeat_images(images):
    return [*images[:20], *[images[20]] * 30, *images[50:]]


def repeat_last_row(root):
    edit_rows(DATA, lambda columns: [c.append(c[-1]) for c in columns.values()])(root)


def black(images):
    return [*images[:40], *[np.zeros_like(images[0])] * 5, *images[45:]]


def flat(images):
    return [*images[:40], np.full_like(images[0], 90), *images[41:]]


def extra_video(root):
    shutil.copy(root / VIDEO.format(HIGH, 0), root / VIDEO.format(HIGH, 7))


# name: (plant, check, severity, what the message must say)
DEFECTS = {
    "mp4 without its end": (
        cut_file(VIDEO.format(HIGH, 1), 0.6), "video cam_high", "error",
        r"cam_high/chunk-000/episode_00001.mp4 \(episode 1\) cannot be decoded"),
    "mp4 cut after its index": (
        cut_file(VIDEO.format(HIGH, 1), 0.6, faststart=True), "video cam_high", "error",
        r"episode_00001.mp4.*(after \d+ of 180 frames|episode 1 has \d+ frames for 180 rows)"),
    "mp4 with zeros": (
        damage(VIDEO.format(HIGH, 1)), "video cam_high", "error", r"episode_00001.mp4.*episode 1"),
    "mp4 of nothing": (
        cut_file(VIDEO.format(WRIST, 0), 0.0), "video cam_wrist", "error",
        r"episode_00000.mp4 \(episode 0\) cannot be decoded"),
    "mp4 short": (
        edit_video(lambda images: images[:-3]), "video cam_high", "error",
        "episode_00001.mp4: episode 1 has 177 frames for 180 rows"),
    "mp4 long": (
        edit_video(lambda images: [*images, images[-1]]), "video cam_high", "error",
        r"episode_00001.mp4 \(episode 1\): 1 frame\(s\) from 6.0000 s on belong to no episode"),
    "mp4 missing": (
        remove(VIDEO.format(WRIST, 0)), "video cam_wrist", "error",
        r"cam_wrist/chunk-000/episode_00000.mp4 \(episode 0\) is missing"),
    "mp4 of another size": (
        edit_video(lambda images: [i[:, :32] for i in images]), "video cam_high", "error",
        r"episode_00001.mp4 \(episode 1\) is 32 x 64, expected 64 x 64"),
    "mp4 of 25 fps": (
        edit_video(lambda images: images, fps=25), "video cam_high", "error",
        r"episode_00001.mp4 \(episode 1\) has 25 fps, expected 30"),
    "mp4 off the grid": (
        edit_video(lambda images: images, fps=25), "video cam_high", "error",
        "frame 1 of episode 1 is at 0.0400 s, expected 0.0333 s"),
    "black": (
        edit_video(black), "pictures cam_high", "error",
        r"episode 1, frames 40..44 \(5 of them\): the picture is black"),
    "flat": (
        edit_video(flat), "pictures cam_high", "error",
        "episode 1, frame 40: the picture is one flat colour"),
    "frozen": (
        edit_video(lambda images: [images[0]] * LENGTH), "pictures cam_high", "error",
        "episode 1: the picture is frozen"),
    "repeated": (
        edit_video(repeat_images), "pictures cam_high", "warning",
        r"episode 1, frames 2\d\.\..*the same picture is repeated"),
    "episodes swapped": (
        swap(VIDEO.format(HIGH, 0), VIDEO.format(HIGH, 1)), "video order", "error",
        r"cam_high/.*episode_00000.mp4 \(episode 0, cam_high\) seems to be swapped.*episode 1"),
    "cameras swapped": (
        swap(f"videos/{HIGH}", f"videos/{WRIST}"), "video order", "error",
        r"\(episode 0, cam_high\) seems to be swapped.*episode 0, cam_wrist"),
    "data missing": (
        remove(DATA), "data", "error", "no parquet file in data/chunk-"),
    "data without footer": (
        cut_file(DATA, 0.7), "data", "error", "data/chunk-000/file-000.parquet cannot be read"),
    "data short": (
        edit_rows(DATA, lambda columns: [c.pop() for c in columns.values()]), "data", "error",
        "data has 359 rows, info.json says 360 frames"),
    "data long": (
        repeat_last_row, "leftovers", "warning", "data has 1 rows beyond the counted 360"),
    "episodes missing": (
        remove(EPISODES), "episodes", "error", "no parquet file in meta/episodes/chunk-"),
    "episodes without footer": (
        cut_file(EPISODES, 0.7), "episodes", "error",
        "meta/episodes/chunk-000/file-000.parquet cannot be read"),
    "wrong length": (
        edit_cell(EPISODES, "length", 1, 170), "episodes", "error",
        "episode 1 has the rows 180..360, expected 180..350"),
    "wrong span": (
        edit_cell(EPISODES, "dataset_from_index", 1, 181), "episodes", "error",
        "episode 1 has the rows 181..360, expected 180..360"),
    "wrong video file": (
        edit_cell(EPISODES, f"videos/{HIGH}/file_index", 1, 4), "video cam_high", "error",
        r"episode_00004.mp4 \(episode 1\) is missing"),
    "wrong data file": (
        edit_cell(EPISODES, "data/file_index", 1, 3), "episodes", "error",
        "episode 1: its data file data/chunk-000/file-003.parquet is missing"),
    "from_timestamp off": (
        edit_cell(EPISODES, f"videos/{HIGH}/from_timestamp", 1, 1 / 30), "episodes", "error",
        "episode 1, cam_high: from_timestamp 0.0333 .* is 5.9667 s, expected 6.0000 s"),
    "index shuffled": (
        edit_rows(DATA, shuffle_index), "rows", "error",
        "episode 1, frames 20..120 .*index is 300, expected 200"),
    "episode_index wrong": (
        edit_cell(DATA, "episode_index", 200, 0), "rows", "error",
        "episode 1, frame 20: episode_index is 0, expected 1"),
    "frame_index wrong": (
        edit_cell(DATA, "frame_index", 200, 7), "rows", "error",
        "episode 1, frame 20: frame_index is 7, expected 20"),
    "task_index wrong": (
        edit_cell(DATA, "task_index", 200, 3), "rows", "error",
        "episode 1, frame 20: task_index is 3, expected 0 to 0"),
    "next.done early": (
        edit_cell(DATA, "next.done", 200, True), "rows", "error",
        r"episode 1: next.done is true at frames 20..179 \(2 of them\)"),
    "next.done missing": (
        drop_column(DATA, "next.done"), "data", "error", "data lacks the column next.done"),
    "column undeclared": (
        edit_rows(DATA, lambda columns: columns.update(extra=[1] * 360)), "data", "error",
        "data has a column extra, which info.json does not declare"),
    "timestamp off": (
        edit_cell(DATA, "timestamp", 190, lambda t: t + 0.01), "timestamps", "error",
        "episode 1, frame 10: timestamp is 0.34333 s, expected 0.33333 s"),
    "NaN": (
        edit_cell(DATA, "action", 190, [float("nan")] * 8), "data", "error",
        "episode 1, frame 10: action is NaN or infinite"),
    "stats zero": (
        edit_stats("action", "mean", 0), "statistics", "error",
        r"meta/stats.json, action: mean\[\d\] is 0, recomputed"),
    "stats of an episode zero": (
        edit_cell(EPISODES, "stats/action/std", 1, [0.0] * 8), "statistics", "error",
        r"meta/episodes, episode 1, action: std\[0\] is 0, recomputed"),
    "stats of the sample": (
        edit_stats("action", "std", 1.5), "statistics", "error", r"action: std\[0\]"),
    "stats count": (
        edit_stats("action", "count", 2), "statistics", "error", r"count is \[720\], expected"),
    "quantiles falling": (
        edit_stats("timestamp", "q90", 0), "statistics", "error", "q50 is above q90"),
    "stats stale": (
        edit_stats("index", "max", 3), "statistics", "warning", "index: max.*leave these"),
    "stats missing": (
        remove("meta/stats.json"), "statistics", "error", "meta/stats.json is missing"),
    "image stats zero": (
        edit_stats(HIGH, "mean", 0), "image statistics cam_high", "error",
        r"meta/stats.json: mean is \[0.0, 0.0, 0.0\], decoded pictures give"),
    "image stats x 255": (
        edit_stats(HIGH, "max", 255), "image statistics cam_high", "error",
        r"values go up to 2\d\d.*expected all within \[0, 1\]"),
    "image std zero": (
        zero_image_std, "image statistics cam_high", "error",
        "std is 0 in every episode; lerobot 0.5 and older write 0 here"),
    "total_frames wrong": (
        edit_info(total_frames=350), "episodes", "error",
        "lengths add up to 360, info.json says total_frames is 350"),
    "total_tasks wrong": (
        edit_info(total_tasks=2), "tasks", "error", "has 1 tasks, info.json says 2"),
    "fps wrong": (
        edit_info(fps=60), "timestamps", "error",
        "episode 0, .*timestamp is 0.03333 s, expected 0.01667 s"),
    "fps of no use": (
        edit_info(fps=0), "info", "error", "fps is 0, expected a positive number"),
    "splits wrong": (
        edit_info(splits={"train": "0:9"}), "info", "error", "split train is '0:9'"),
    "width wrong": (
        lambda root: edit_json(
            root, "meta/info.json",
            lambda info: info["features"]["action"].update(shape=[7], names=None)),
        "data", "error", "action has 8 values in a row, expected 7"),
    "feature without dtype": (
        lambda root: edit_json(
            root, "meta/info.json", lambda info: info["features"]["action"].pop("dtype")),
        "info", "error", r"feature action lacks \['dtype'\]"),
    "dtype wrong": (
        lambda root: edit_json(
            root, "meta/info.json",
            lambda info: info["features"]["action"].update(dtype="float64")),
        "data", "error", "action is stored as float32, expected float64"),
    "timestamp undeclared": (
        lambda root: edit_json(
            root, "meta/info.json", lambda info: info["features"].pop("timestamp")),
        "info", "error", "does not declare the feature timestamp"),
    "tasks missing": (
        remove("meta/tasks.parquet"), "tasks", "error", "meta/tasks.parquet is missing"),
    "task a plain column": (
        tasks_as_plain_column, "tasks", "error", "no pandas index but a plain column"),
    "tasks.jsonl differs": (
        lambda root: (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "x"}\n'),
        "tasks", "warning", r"tasks.jsonl says \[\(0, 'x'\)\]"),
    "success flipped": (
        edit_cell(EPISODES, "episode/success", 1, False), "success", "error",
        "episode 1: next.success of its last frame is True, expected False"),
    "joint limits broken": (
        limits(joint_high=[2.8973, -0.5, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]),
        "joint limits", "error",
        r"episode 1, frames .*joint_pos_1 is .* at frame \d+, expected -1.7628 to -0.5000"),
    "too fast": (
        limits(joint_velocity=[0.1] * 7), "joint speed", "warning",
        r"episode 1, frames .*joint_vel_\d is .* expected -0.1000 to 0.1000"),
    "not following": (
        edit_cell(DATA, "action", 190, lambda a: [a[0] + 0.5, *a[1:]]), "tracking", "warning",
        r"episode 1, frame 10: joint 0 is 0\.\d+ rad away from its target"),
    "saturated": (
        edit_rows(DATA, stuck_action), "saturation", "warning",
        "action_joint_2 is at a bound in 8.% of the frames"),
    "quaternion flips": (
        edit_cell(DATA, "observation.state", 190, lambda s: [*s[:19], *(-x for x in s[19:])]),
        "quaternions", "warning", "episode 1, frames 10..11 .*: eef_quat changes its sign"),
    "quaternion too long": (
        edit_cell(DATA, "observation.state", 190, lambda s: [*s[:19], *(2 * x for x in s[19:])]),
        "quaternions", "error", "episode 1, frame 10: eef_quat is not a unit quaternion"),
    "video left over": (
        extra_video, "leftovers", "warning", r"cam_high/chunk-000/episode_00007.mp4 belongs to no"),
    "unfinished": (
        lambda root: (root / ".unfinished").mkdir(), "leftovers", "warning",
        ".unfinished is not part of the dataset: left by a killed run"),
}  # fmt: skip
