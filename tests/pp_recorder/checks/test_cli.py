"""Plants one defect at a time into a healthy dataset and asks for the finding that names it."""

import json
import re
import shutil
from fractions import Fraction
from html.parser import HTMLParser

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import collect
from pp_recorder.checks import DatasetView, run_checks
from pp_recorder.checks.cli import main
from pp_recorder.dataset import stats

HIGH = "observation.images.cam_high"
WRIST = "observation.images.cam_wrist"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/{}/chunk-000/file-{:03d}.mp4"
LENGTH = 180


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "healthy"
    options = ["--num-episodes", "2", "--steps-per-segment", "20", "--resolution", "64"]
    assert collect.main([*options, "--preset", "fast", "--seed", "5", "--output", str(root)]) == 0
    return root


@pytest.fixture
def dataset(healthy, tmp_path):
    return shutil.copytree(healthy, tmp_path / "set")


def findings(root):
    return [f for result in run_checks(DatasetView(root)) for f in result.findings]


# ------------------------------------------------------------------------- ways to break a dataset


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


def edit_video(change, fps=30, camera=HIGH, episode=1):
    def plant(root):
        path = root / VIDEO.format(camera, episode)
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


def repeat_pictures(images):
    return [*images[:20], *[images[20]] * 30, *images[50:]]


def no_pictures(root):
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
        r"cam_high/chunk-000/file-001.mp4 \(episode 1\) cannot be decoded"),
    "mp4 cut after its index": (
        cut_file(VIDEO.format(HIGH, 1), 0.6, faststart=True), "video cam_high", "error",
        r"file-001.mp4.*(after \d+ of 180 frames|episode 1 has \d+ frames for 180 rows)"),
    "mp4 with zeros": (
        damage(VIDEO.format(HIGH, 1)), "video cam_high", "error", r"file-001.mp4.*episode 1"),
    "mp4 of nothing": (
        cut_file(VIDEO.format(WRIST, 0), 0.0), "video cam_wrist", "error",
        r"file-000.mp4 \(episode 0\) cannot be decoded"),
    "mp4 short": (
        edit_video(lambda images: images[:-3]), "video cam_high", "error",
        "file-001.mp4: episode 1 has 177 frames for 180 rows"),
    "mp4 long": (
        edit_video(lambda images: [*images, images[-1]]), "video cam_high", "error",
        r"file-001.mp4 \(episode 1\): 1 frame\(s\) from 6.0000 s on belong to no episode"),
    "mp4 missing": (
        remove(VIDEO.format(WRIST, 0)), "video cam_wrist", "error",
        r"cam_wrist/chunk-000/file-000.mp4 \(episode 0\) is missing"),
    "mp4 of another size": (
        edit_video(lambda images: [i[:, :32] for i in images]), "video cam_high", "error",
        r"file-001.mp4 \(episode 1\) is 32 x 64, expected 64 x 64"),
    "mp4 of 25 fps": (
        edit_video(lambda images: images, fps=25), "video cam_high", "error",
        r"file-001.mp4 \(episode 1\) has 25 fps, expected 30"),
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
        edit_video(repeat_pictures), "pictures cam_high", "warning",
        r"episode 1, frames 2\d\.\..*the same picture is repeated"),
    "episodes swapped": (
        swap(VIDEO.format(HIGH, 0), VIDEO.format(HIGH, 1)), "video order", "error",
        r"cam_high/.*file-000.mp4 \(episode 0, cam_high\) seems to be swapped.*episode 1"),
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
        no_pictures, "leftovers", "warning", "data has 1 rows beyond the counted 360"),
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
        r"file-004.mp4 \(episode 1\) is missing"),
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
        "tasks", "error", r"tasks.jsonl says \[\(0, 'x'\)\]"),
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
    "video left over": (
        extra_video, "leftovers", "warning", r"cam_high/chunk-000/file-007.mp4 belongs to no"),
    "unfinished": (
        lambda root: (root / ".unfinished").mkdir(), "leftovers", "warning",
        ".unfinished is not part of the dataset: left by a killed run"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(dataset, name):
    plant, check, severity, message = DEFECTS[name]
    plant(dataset)
    found = findings(dataset)
    about = [f for f in found if f.check == check and f.severity == severity]
    assert about, found
    assert any(re.search(message, f.message) for f in about), about
    assert not [f for f in found if "could not be checked" in f.message]


def test_several_defects_are_found_at_once(dataset):
    for name in ("data missing", "mp4 missing", "tasks missing", "black", "stats missing"):
        DEFECTS[name][0](dataset)
    wanted = {"data", "video cam_wrist", "tasks", "pictures cam_high", "statistics"}
    assert wanted <= {f.check for f in findings(dataset)}


def test_a_healthy_dataset_has_no_findings(healthy, capsys):
    assert findings(healthy) == []
    assert main([str(healthy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("SOUND: ")
    assert any(line.startswith("PASS  tracking ") for line in lines)


def test_healthy_within_limits(dataset):
    limits()(dataset)
    assert findings(dataset) == []
    statuses = {r.name: r.status for r in run_checks(DatasetView(dataset))}
    assert statuses["joint limits"] == statuses["joint speed"] == "PASS"


# ----------------------------------------------------------------------------- no dataset, reports


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (shutil.rmtree, "is not a directory"),
        (remove("meta/info.json"), "is no LeRobot dataset: it has no meta/info.json"),
        (cut_file("meta/info.json", 0.5), "info.json is not JSON"),
        (lambda root: (root / "meta/info.json").write_text("[]"), "info.json"),
        (lambda root: (root / "meta/info.json").write_bytes(b"\xff\xfe"), "info.json"),
        (edit_info(codebase_version="v2.1"), "has format v2.1, expected v3.0; convert it with"),
        (edit_info(codebase_version="v4.0"), "has format v4.0, expected v3.0; a newer release"),
        (edit_info(features=[]), "info.json declares no features"),
    ],
)
def test_what_is_no_dataset_is_refused(dataset, capsys, plant, message):
    plant(dataset)
    assert main([str(dataset), "--json", "-"]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert message in printed.err
    report = json.loads(printed.out)
    assert report["exit_status"] == 2
    assert message in report["checks"][0]["findings"][0]["message"]


def test_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "dataset" in capsys.readouterr().err


def test_a_report_that_cannot_be_written(healthy, tmp_path, capsys):
    assert main([str(healthy), "--html", str(tmp_path / "no" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "status"), [("NaN", 1), ("unfinished", 0)])
def test_exit_status(dataset, capsys, name, status):
    DEFECTS[name][0](dataset)
    assert main([str(dataset)]) == status
    assert re.search(DEFECTS[name][3], capsys.readouterr().out)


def test_json(dataset, tmp_path):
    DEFECTS["timestamp off"][0](dataset)
    assert main([str(dataset), "--json", str(tmp_path / "report.json")]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exit_status"] == 1
    assert report["total_episodes"] == 2
    check = next(c for c in report["checks"] if c["name"] == "timestamps")
    assert check["status"] == "FAIL"
    assert check["findings"][0]["episode"] == 1
    assert check["findings"][0]["frame"] == 10


class Page(HTMLParser):
    """Collects what a page has and whether its elements are closed."""

    VOID = ("meta", "img", "br", "line", "circle", "path", "rect", "polyline")

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html(healthy, tmp_path):
    assert main([str(healthy), "--html", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "Could not be drawn" not in text
    assert "script" not in page.seen
    assert "http" not in text
    assert len(page.images) == 2 * 2 * 4
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.images)
    assert page.images[1]["alt"] == "Episode 0, cam_high, grasp: frame 50"
    assert page.seen.count("h1") == 1
    assert page.seen.count("polyline") == 8 * 2


@pytest.mark.parametrize("name", ["data missing", "episodes missing", "mp4 missing", "NaN"])
def test_html_of_a_broken_dataset(dataset, tmp_path, name):
    DEFECTS[name][0](dataset)
    assert main([str(dataset), "--html", str(tmp_path / "page.html")]) == 1
    text = (tmp_path / "page.html").read_text()
    assert Page(text).open == []
    assert "Could not be drawn" not in text
    assert "Unsound" in text


def test_texts_of_the_dataset_are_escaped(dataset, tmp_path):
    edit_info(robot_type="<script>alert(1)</script>")(dataset)
    assert main([str(dataset), "--html", str(tmp_path / "page.html")]) == 0
    assert "<script" not in (tmp_path / "page.html").read_text()


# ------------------------------------------------------------------------------- datasets of others

FOREIGN_LENGTHS = (12, 15, 20)
FOREIGN_FPS = 12
BOOKKEEPING = {
    "timestamp": "float32", "frame_index": "int64", "episode_index": "int64",
    "index": "int64", "task_index": "int64",
}  # fmt: skip


def foreign_columns(rng):
    total = sum(FOREIGN_LENGTHS)
    frames = np.concatenate([np.arange(n) for n in FOREIGN_LENGTHS])
    return {
        "observation.state": rng.normal(size=(total, 5)).astype(np.float32),
        "action": rng.normal(size=(total, 2)).astype(np.float64),
        "force": rng.normal(size=total).astype(np.float32),
        "timestamp": (frames / FOREIGN_FPS).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.repeat(np.arange(3), FOREIGN_LENGTHS),
        "index": np.arange(total),
        "task_index": np.repeat([0, 1, 0], FOREIGN_LENGTHS),
    }


def foreign_picture(k):
    y, x = np.mgrid[0:48, 0:80]
    channels = [128 + 90 * np.sin((x + 2 * k) / 9), 2.5 * x, 120 + 100 * np.cos((y + k) / 7)]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def foreign_feature(values):
    size = values.shape[1] if values.ndim == 2 else 1
    names = {"motors": [f"m{k}" for k in range(size)]} if size == 5 else None
    return {"dtype": str(values.dtype), "shape": [size], "names": names}


def foreign_stats(columns, images):
    everything = {k: stats.of_rows(v.reshape(len(v), -1)) for k, v in columns.items()}
    pictures = stats.ImageStats()
    for image in images:
        pictures.add(image)
    everything["observation.image"] = pictures.result()
    return {k: {n: v.tolist() for n, v in own.items()} for k, own in everything.items()}


@pytest.fixture
def foreign(tmp_path):
    """No names or other ones, another fps, a picture that is not square, one file for all."""
    root = tmp_path / "foreign"
    columns = foreign_columns(np.random.default_rng(0))
    images = [foreign_picture(k) for k in range(sum(FOREIGN_LENGTHS))]
    for name in (DATA, EPISODES, VIDEO.format("observation.image", 0)):
        (root / name).parent.mkdir(parents=True)
    write_video(root / VIDEO.format("observation.image", 0), images, FOREIGN_FPS)
    arrays = {k: pa.array(v.tolist() if v.ndim == 2 else v) for k, v in columns.items()}
    arrays["observation.state"] = arrays["observation.state"].cast(pa.list_(pa.float32()))
    pq.write_table(pa.table(arrays), root / DATA)
    pq.write_table(pa.Table.from_pylist(foreign_episodes(columns, images)), root / EPISODES)
    features = {k: foreign_feature(v) for k, v in columns.items()}
    features["observation.image"] = {
        "dtype": "video", "shape": [48, 80, 3], "names": ["height", "width", "channel"],
    }  # fmt: skip
    info = {
        "codebase_version": "v3.0", "robot_type": None, "total_episodes": 3,
        "total_frames": 47, "total_tasks": 2, "chunks_size": 1000, "fps": FOREIGN_FPS,
        "data_files_size_in_mb": 100, "video_files_size_in_mb": 500,
        "splits": {"train": "0:2", "test": "2:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/stats.json").write_text(json.dumps(foreign_stats(columns, images)))
    tasks = pa.table({"task_index": [0, 1], "__index_level_0__": ["push", "pull"]})
    tasks = tasks.replace_schema_metadata({"pandas": '{"index_columns": ["__index_level_0__"]}'})
    pq.write_table(tasks, root / "meta/tasks.parquet")
    return root


def foreign_episodes(columns, images):
    rows, at = [], 0
    for k, length in enumerate(FOREIGN_LENGTHS):
        end = at + length
        own = foreign_stats({key: v[at:end] for key, v in columns.items()}, images[at:end])
        rows.append(
            {
                "episode_index": k, "tasks": [("push", "pull", "push")[k]], "length": length,
                "dataset_from_index": at, "dataset_to_index": end,
                "data/chunk_index": 0, "data/file_index": 0,
                "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
                "videos/observation.image/chunk_index": 0,
                "videos/observation.image/file_index": 0,
                "videos/observation.image/from_timestamp": at / FOREIGN_FPS,
                "videos/observation.image/to_timestamp": end / FOREIGN_FPS,
                **{f"stats/{key}/{n}": v for key, part in own.items() for n, v in part.items()},
            }
        )  # fmt: skip
        at = end
    return rows


def test_a_foreign_dataset_is_healthy(foreign, tmp_path):
    assert findings(foreign) == []
    assert main([str(foreign), "--html", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "Could not be drawn" not in text
    assert len(Page(text).images) == 3 * 4


def test_defects_of_a_shared_video_name_the_episode(foreign):
    plant = edit_video(lambda images: black(images)[:47], FOREIGN_FPS, "observation.image", 0)
    plant(foreign)
    messages = [f.message for f in findings(foreign)]
    assert "episode 2, frames 13..17 (5 of them): the picture is black" in messages


def test_overlapping_episodes_in_one_video(foreign):
    for side in ("from", "to"):
        name = f"videos/observation.image/{side}_timestamp"
        edit_cell(EPISODES, name, 2, lambda t: t - 1 / FOREIGN_FPS)(foreign)
    messages = [f.message for f in findings(foreign) if f.check == "episodes"]
    assert len(messages) == 1
    assert messages[0].startswith("episode 2, image: begins at 2.1667 s of videos/")


def test_a_dataset_without_cameras_or_collection(healthy, tmp_path):
    root = tmp_path / "set"
    options = ["--num-episodes", "1", "--steps-per-segment", "20", "--no-cameras"]
    assert collect.main([*options, "--output", str(root)]) == 0
    (root / "meta/collection.json").unlink()
    assert findings(root) == []


def test_a_dataset_without_episodes(foreign, tmp_path):
    for name in ("data", "meta/episodes", "videos"):
        shutil.rmtree(foreign / name)
    empty = {"total_episodes": 0, "total_frames": 0, "splits": {"train": "0:0"}}
    edit_info(**empty)(foreign)
    assert [f.message for f in findings(foreign)] == ["the dataset has no episode"]
    assert main([str(foreign), "--html", str(tmp_path / "page.html")]) == 0


@pytest.mark.parametrize("column", ["stats/action/mean", f"stats/{HIGH}/mean", "data/chunk_index"])
def test_an_empty_cell_is_found(dataset, column):
    edit_cell(EPISODES, column, 1, None)(dataset)
    found = findings(dataset)
    assert any(f.severity == "error" for f in found)
    assert not [f for f in found if "could not be checked" in f.message]
