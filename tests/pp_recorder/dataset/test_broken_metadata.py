"""Broken or foreign metadata: every command names the file and writes nothing."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import collect
from pp_bridge.catalog import DatasetCatalog
from pp_collect import replay
from pp_recorder.checks.cli import main as inspect_main
from pp_recorder.dataset import hub
from pp_recorder.dataset.merge import main as merge_main
from pp_recorder.dataset.reader import Dataset, DatasetError
from tests.pp_recorder.dataset import foreign_edits as edits

pytestmark = pytest.mark.long

OPTIONS = ["--steps-per-segment", "20", "--seed", "3", "--workers", "1", "--resolution", "32"]
OPTIONS += ["--preset", "fast", "--cameras", "cam_high"]
VIDEO = "observation.images.cam_high"
JSON = ("meta/info.json", "meta/collection.json", "meta/stats.json")
TABLES = (edits.EPISODES, edits.DATA, "meta/tasks.parquet", "meta/subtasks.parquet")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "recorded"
    assert collect.main([*OPTIONS, "--num-episodes", "1", "--output", str(root)]) == 0
    return root


def run_all(root, tmp_path, capfd):
    """Run every command; return what each printed, and whether it found an error."""
    options = ["--num-episodes", "1", "--output", str(root), "--resume"]
    commands = {
        "inspect": lambda: inspect_main([str(root)]),
        "merge": lambda: merge_main([str(root), "--output", str(tmp_path / "joint")]),
        "replay": lambda: replay.replay_main([str(root)]),
        "push": lambda: hub.main([str(root), "me/cubes"]),
        "bridge": lambda: browse(root),
        "resume": lambda: collect.main([*OPTIONS, *options]),
    }
    found = {}
    for name, command in commands.items():
        before = edits.contents(root)
        capfd.readouterr()
        status = command()
        printed = capfd.readouterr()
        found[name] = (status, printed.out + printed.err)
        if status:
            assert edits.contents(root) == before, name
            assert name != "merge" or not (tmp_path / "joint").exists()
        if name == "merge" and not status and not found["inspect"][0]:
            assert inspect_main([str(tmp_path / "joint")]) == 0, capfd.readouterr().out
    return found


def browse(root):
    catalog = DatasetCatalog(root.parent)
    catalog.summaries()
    try:
        catalog.episodes(root.name, 5)
        catalog.thumbnail(root.name, 0, "cam_high")
    except DatasetError as error:
        print(error)
        return 1
    return 0


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def api():
        raise hub.HubUnreachableError("not uploaded")

    monkeypatch.setattr(hub, "_make_api", api)


BAD_JSON = {"cut": '{"a"', "list": "[1]", "empty": "", "binary": b"\xff\xfe\x00", "{}": "{}"}


@pytest.mark.parametrize("content", BAD_JSON)
@pytest.mark.parametrize("name", JSON)
def test_json_that_is_none(recorded, tmp_path, capfd, name, content):
    root, text = edits.copy(recorded, tmp_path / "set"), BAD_JSON[content]
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    found = run_all(root, tmp_path, capfd)
    for command, (status, printed) in found.items():
        assert not status or name in printed or command == "push", (command, printed)


BAD_INFO = {
    "features": [None, [], {"action": 3}, {"action": {}}, {"action": {"dtype": 3, "shape": 4}}],
    "fps": [None, 0, -30, "30", 30.5, True],
    "total_episodes": [None, -1, "1", 10**9],
    "total_frames": [None, -1, 1.5, 10**12],
    "total_tasks": ["many", -1],
    "video_path": [
        None,
        3,
        "{nothing}",
        "{video_key",
        "/etc/passwd",
        "{0}",
        "{video_key.x}",
        "../../x",
    ],
    "data_path": [None, "elsewhere"],
    "codebase_version": [None, "v2.1", 3],
    "splits": [None, "all"],
}


@pytest.mark.parametrize("key", BAD_INFO)
def test_entries_of_info(recorded, tmp_path, capfd, key):
    for k, value in enumerate(BAD_INFO[key]):
        folder = tmp_path / str(k)
        folder.mkdir()
        root = edits.copy(recorded, folder / "set")
        info = json.loads((root / "meta/info.json").read_text())
        (root / "meta/info.json").write_text(json.dumps({**info, key: value}))
        for command, (status, printed) in run_all(root, folder, capfd).items():
            named = key in printed or "format" in printed or "feature" in printed
            assert not status or named or command in ("push", "bridge"), (value, command, printed)


BAD_COLUMNS = {
    "episode_index": [None, 5, "0"],
    "length": [None, 0, -3, "many", 10**7],
    "tasks": [None, [], "text", [None], [3]],
    "dataset_from_index": [None, -1, 7, 10**9],
    f"videos/{VIDEO}/chunk_index": [None, -1, "0", 9],
    f"videos/{VIDEO}/from_timestamp": [None, "0", -5.0, float("nan"), 1e9],
    f"videos/{VIDEO}/to_timestamp": [None, float("inf")],
    "stats/action/mean": [None, [], ["x"], [1.0], 3],
    "stats/action/count": [None, [], [0], "n"],
    f"stats/{VIDEO}/mean": [None, [1.0], "x"],
    "episode/seed": [None, "x", -1, 1.5],
    "episode/object": [None, 3, "unknown thing"],
    "episode/prelude": ["{", "[]", 3, None],
    "episode/start_kind": [None, "other"],
    "episode/attempt": [None, "x"],
}


@pytest.mark.parametrize("column", BAD_COLUMNS)
def test_columns_of_episodes(recorded, tmp_path, capfd, column):
    for k, value in enumerate(BAD_COLUMNS[column]):
        folder = tmp_path / str(k)
        folder.mkdir()
        root = edits.copy(recorded, folder / "set")
        edits.edit(root / edits.EPISODES, lambda t, value=value: edits.put(t, column, [value]))
        run_all(root, folder, capfd)
    root = edits.copy(recorded, tmp_path / "set")
    edits.edit(root / edits.EPISODES, lambda t: t.drop([column]))
    run_all(root, tmp_path, capfd)


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_are_none(recorded, tmp_path, capfd, name):
    changes = {
        "text": lambda path: path.write_text("no parquet"),
        "empty": lambda path: path.write_bytes(b""),
        "missing": lambda path: path.unlink(),
        "no rows": lambda path: edits.edit(path, lambda t: t.slice(0, 0)),
        "no columns": lambda path: pq.write_table(pa.table({"x": [1]}), path),
        "twice": lambda path: edits.edit(path, lambda t: pa.concat_tables([t, t])),
    }
    for change, apply in changes.items():
        folder = tmp_path / change
        folder.mkdir()
        root = edits.copy(recorded, folder / "set")
        apply(root / name)
        run_all(root, folder, capfd)


@pytest.mark.parametrize("column", ["action", "task_index", "episode_index", "index", "next.done"])
def test_columns_of_rows(recorded, tmp_path, capfd, column):
    count = Dataset(recorded).num_frames
    values = {
        "text": ["x"] * count,
        "empty": [None] * count,
        "ragged": [[1.0] * (k % 3) for k in range(count)],
        "negative": [-1] * count,
        "fractions": [0.5] * count,
    }
    for name, column_values in values.items():
        folder = tmp_path / name
        folder.mkdir()
        root = edits.copy(recorded, folder / "set")
        edits.edit(root / edits.DATA, lambda t, v=column_values: edits.put(t, column, v))
        run_all(root, folder, capfd)


def test_collections_that_do_not_fit(recorded, tmp_path, capfd):
    stored = json.loads((recorded / "meta/collection.json").read_text())
    changes = [
        {"config": None}, {"config": {"task": 3}}, {"config": {"nothing": 1}}, {"config": []},
        {"simulator": 3}, {"simulator": "none such"}, {"codec": None}, {"revision": "x"},
        {"parts": 3}, {"parts": [3]}, {"parts": [{}]}, {"parts": [{"episodes": "x"}]},
        {"seed": None}, {"steps_per_segment": "x"}, {"record_cameras": None}, {"control_mode": 1},
        {"limits": 3}, {"limits": {"joint_low": "x"}}, {"cameras": 3},
    ]  # fmt: skip
    for k, change in enumerate(changes):
        folder = tmp_path / str(k)
        folder.mkdir()
        root = edits.copy(recorded, folder / "set")
        (root / "meta/collection.json").write_text(json.dumps({**stored, **change}))
        run_all(root, folder, capfd)
