import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pp_recorder.checks import DatasetView, run_checks
from pp_recorder.dataset.reader import Dataset
from pp_recorder.dataset.schema import DatasetSchema, Feature, image_feature
from pp_recorder.dataset.writer import LeRobotWriter
from pp_recorder.rollout import Episode, Step

FEATURES = {
    "observation.state": Feature("float32", (3,), ("a", "b", "c")),
    "action": Feature("float32", (2,), ("u", "v")),
    "observation.images.eye": image_feature(32, 48),
}


def row(step):
    return step.observation


def step(index, length):
    rng = np.random.default_rng(index)
    observation = {
        "observation.state": rng.normal(size=3),
        "action": rng.normal(size=2),
        "observation.images.eye": rng.integers(0, 256, (32, 48, 3), dtype=np.uint8),
    }
    return Step(
        index, observation, {}, np.zeros(2), np.zeros(2), 0.5, index == length - 1, False, ""
    )


def record(writer, length, index=0):
    writer.begin(0)
    for k in range(length):
        writer.add(step(k, length))
    writer.end(Episode(index, 99, length, True, {}, ()))


@pytest.fixture
def make(tmp_path):
    def make(root=tmp_path / "set", **changes):
        arguments = {
            "features": FEATURES, "row": row, "fps": 10, "task": "tidy up",
            "robot_type": "robot", "collection": {"seed": 3}, **changes,
        }  # fmt: skip
        return LeRobotWriter(root, DatasetSchema(**arguments))

    return make


def info(writer):
    return json.loads((writer.root / "meta/info.json").read_text())


def rows(writer):
    files = sorted((writer.root / "data").glob("*/*.parquet"))
    return pd.concat([pq.ParquetFile(f).read().to_pandas() for f in files], ignore_index=True)


def test_a_dataset_has_its_rows_in_order(make):
    writer = make()
    record(writer, 7)
    record(writer, 5)
    writer.close()
    table = rows(writer)
    assert table["index"].tolist() == list(range(12))
    assert table["episode_index"].tolist() == [0] * 7 + [1] * 5
    assert table["frame_index"].tolist() == [*range(7), *range(5)]
    np.testing.assert_array_equal(
        table["timestamp"], (table["frame_index"] / 10).astype(np.float32)
    )
    assert table["next.done"].tolist() == [False] * 6 + [True] + [False] * 4 + [True]
    assert table["next.reward"].tolist() == [0.5] * 12
    expected = [step(k, 7).observation["observation.state"] for k in range(7)]
    np.testing.assert_allclose(np.stack(table["observation.state"][:7]), expected, rtol=1e-6)


def test_info_counts_episodes_and_frames(make):
    writer = make()
    record(writer, 4)
    content = info(writer)
    assert (content["total_episodes"], content["total_frames"]) == (1, 4)
    assert content["splits"] == {"train": "0:1"}
    assert content["codebase_version"] == "v3.0"
    assert content["features"]["observation.images.eye"]["shape"] == [32, 48, 3]
    assert content["features"]["action"]["names"] == ["u", "v"]


def test_every_episode_is_complete_before_close(make):
    writer = make()
    for count in (1, 2, 3):
        record(writer, 4)
        assert info(writer)["total_episodes"] == count
        assert len(rows(writer)) == 4 * count
        episodes = sorted((writer.root / "meta/episodes").glob("*/*.parquet"))
        assert len(episodes) == count


def test_close_joins_the_small_files_and_may_be_repeated(make):
    writer = make()
    for _ in range(3):
        record(writer, 4)
    before = rows(writer)
    writer.close()
    writer.close()
    names = sorted(str(f.relative_to(writer.root)) for f in writer.root.rglob("*.parquet"))
    assert names == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/tasks.parquet",
    ]
    pd.testing.assert_frame_equal(rows(writer), before)
    assert pq.ParquetFile(writer.root / names[0]).num_row_groups == 3
    episodes = pq.read_table(writer.root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [e["data/file_index"] for e in episodes] == [0, 0, 0]
    assert [e["dataset_from_index"] for e in episodes] == [0, 4, 8]
    assert [e["videos/observation.images.eye/file_index"] for e in episodes] == [0, 1, 2]


def test_close_joins_several_chunks(make, monkeypatch):
    monkeypatch.setattr("pp_recorder.dataset.keys.CHUNK_SIZE", 2)
    writer = make()
    for _ in range(3):
        record(writer, 4)
    writer.close()
    names = sorted(str(f.relative_to(writer.root / "data")) for f in writer.root.glob("data/*/*"))
    assert names == ["chunk-000/file-000.parquet", "chunk-001/file-000.parquet"]
    assert rows(writer)["index"].tolist() == list(range(12))


def test_tasks_are_indexed_by_their_text(make):
    tasks = pd.read_parquet(make().root / "meta/tasks.parquet")
    assert tasks.index.tolist() == ["tidy up"]
    assert tasks.index.name == "task"
    assert tasks["task_index"].tolist() == [0]


def test_several_tasks(make, tmp_path):
    def episode(writer, task):
        writer.begin(0)
        writer.add(step(0, 1))
        writer.end(Episode(0, 0, 1, True, {"task": task}, ()))

    def texts(root):
        table = pd.read_parquet(root / "meta/tasks.parquet")
        assert table["task_index"].tolist() == list(range(len(table)))
        lines = (root / "meta/tasks.jsonl").read_text().splitlines()
        assert [json.loads(line)["task"] for line in lines] == table.index.tolist()
        assert json.loads((root / "meta/info.json").read_text())["total_tasks"] == len(table)
        return table.index.tolist()

    writer = make(task=lambda info: info["task"])
    assert texts(writer.root) == []
    for task, known in (("b", ["b"]), ("a", ["b", "a"]), ("b", ["b", "a"])):
        episode(writer, task)
        assert texts(writer.root) == known
    writer.release()
    entry = {"features": FEATURES, "row": row, "fps": 10, "robot_type": "robot"}
    schema = DatasetSchema(**entry, task=lambda info: info["task"], collection={"seed": 3})
    (writer.root / "meta/tasks.parquet").unlink()  # as if it had not been written
    writer = LeRobotWriter(writer.root, schema, resume=True)
    assert texts(writer.root) == ["b", "a"]
    episode(writer, "c")
    writer.close()
    dataset = Dataset(writer.root)
    assert dataset.column("task_index").ravel().tolist() == [0, 1, 0, 2]
    assert [e["tasks"] for e in dataset.episodes] == [["b"], ["a"], ["b"], ["c"]]
    results = {r.name: r for r in run_checks(DatasetView(writer.root))}
    assert results["tasks"].findings == results["rows"].findings == []


def test_resuming_drops_tasks_without_episodes(make):
    writer = make(task=lambda info: info["task"])
    for task in ("a", "b"):
        writer.begin(0)
        writer.add(step(0, 1))
        writer.end(Episode(0, 0, 1, True, {"task": task}, ()))
    writer.release()
    next(writer.root.glob("videos/*/*/file-001.mp4")).write_bytes(b"")
    writer = LeRobotWriter(writer.root, writer._schema, resume=True)
    assert pd.read_parquet(writer.root / "meta/tasks.parquet").index.tolist() == ["a"]
    assert info(writer)["total_tasks"] == 1
    writer.close()


def test_an_aborted_episode_leaves_no_trace(make):
    writer = make()
    record(writer, 4)
    writer.begin(1)
    writer.add(step(0, 4))
    writer.abort()
    record(writer, 3)
    writer.close()
    assert rows(writer)["index"].tolist() == list(range(7))
    assert not (writer.root / ".unfinished").exists()
    assert len(list(writer.root.rglob("file-*.mp4"))) == 2


def test_statistics_of_the_dataset(make):
    writer = make()
    for length in (4, 9):
        record(writer, length)
    stats = json.loads((writer.root / "meta/stats.json").read_text())
    states = np.stack(rows(writer)["observation.state"])
    np.testing.assert_allclose(stats["observation.state"]["std"], states.std(0), rtol=1e-5)
    assert stats["observation.state"]["count"] == [13]
    assert np.shape(stats["observation.images.eye"]["mean"]) == (3, 1, 1)
    assert set(stats) == set(info(writer)["features"])


def test_extra_columns_of_episodes(make):
    writer = make(describe=lambda episode: {"episode/seed": episode.seed})
    record(writer, 3)
    writer.close()
    table = pq.read_table(writer.root / "meta/episodes/chunk-000/file-000.parquet")
    assert table["episode/seed"].to_pylist() == [99]


def test_the_collection_is_stored(make):
    assert json.loads((make().root / "meta/collection.json").read_text()) == {"seed": 3}


def test_a_directory_in_use_is_refused_and_left_alone(make, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not an empty directory; nothing was written"):
        make(root=tmp_path / "mine")
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": np.zeros(3)}, r"wrong shape: action \(3,\), expected \(2,\)"),
        ({"extra": np.zeros(3)}, "must have the columns .* got .*'extra'"),
    ],
)
def test_rows_that_do_not_match_the_schema(make, change, message):
    writer = make()
    writer.begin(0)
    bad = step(0, 1)
    bad.observation.update(change)
    with pytest.raises(ValueError, match=message):
        writer.add(bad)
    writer.abort()


def test_unknown_codec(make):
    with pytest.raises(ValueError, match=r"codec must be one of \['av1', 'h264'\], got 'mpeg1'"):
        make(codec="mpeg1")
