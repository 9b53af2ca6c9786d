"""Datasets that others have edited: what is stored is kept, or nothing is changed."""

import json
import re
import shutil
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import collect
from pp_collect import replay
from pp_recorder.checks.cli import main as inspect_main
from pp_recorder.dataset.merge import main as merge_main
from pp_recorder.dataset.reader import Dataset, DatasetError
from tests.pp_recorder.dataset import foreign_edits as edits

OPTIONS = ["--no-cameras", "--steps-per-segment", "20", "--seed", "3", "--workers", "1"]
LEROBOT_06 = partial(edits.append_episode, leaf=pa.float64())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "recorded"
    assert collect.main([*OPTIONS, "--num-episodes", "2", "--output", str(root)]) == 0
    return root


def resume(root, episodes=2):
    options = ["--num-episodes", str(episodes), "--output", str(root), "--resume"]
    return collect.main([*OPTIONS, *options])


def texts(root):
    dataset = Dataset(root)
    numbers = dataset.column("task_index")[:, 0]
    spans = [(e["dataset_from_index"], e["dataset_to_index"]) for e in dataset.episodes]
    by_rows = [[dataset.tasks[k] for k in dict.fromkeys(numbers[a:b])] for a, b in spans]
    assert by_rows == [entry["tasks"] for entry in dataset.episodes]
    return by_rows


EDITS = {
    "modify_tasks": [edits.modify_tasks],
    "annotate": [edits.annotate],
    "annotate, keep subtasks": [partial(edits.annotate, drop_subtasks=False)],
    "append with 0.4.4": [edits.append_episode],
    "append with 0.6.1": [LEROBOT_06],
    "split tasks": [edits.split_task],
    "everything": [edits.modify_tasks, edits.append_episode],
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_set_is_replayed_and_merged_with_all_that_it_holds(
    recorded, tmp_path, capsys, edit
):
    root = edits.copy(recorded, tmp_path / "set", *EDITS[edit])
    before, joint = Dataset(root), tmp_path / "joint"
    assert replay.replay_main([str(root)]) == 0
    assert "2 of 2 episodes are equal" in capsys.readouterr().out
    assert merge_main([str(root), "--output", str(joint)]) == 0
    after = Dataset(joint)
    assert after.num_frames == before.num_frames
    assert set(after.column_names) == set(before.column_names)
    for key in set(before.column_names) - {"task_index"}:
        assert after.stored(key).to_pylist() == before.stored(key).to_pylist(), key
    assert [set(t) for t in texts(joint)] == [set(t) for t in texts(root)]
    assert set(after.tasks) == set(before.tasks)
    for old, new in zip(before.episodes, after.episodes, strict=True):
        assert {k: new[k] for k in old if k.startswith("episode/")} == {
            k: v for k, v in old.items() if k.startswith("episode/")
        }
    assert inspect_main([str(joint)]) == 0
    assert "SOUND" in capsys.readouterr().out


def test_resume_keeps_edited_texts(recorded, tmp_path):
    root = edits.copy(recorded, tmp_path / "set", edits.modify_tasks)
    before = texts(root)
    assert resume(root) == 0  # there is nothing to record
    assert texts(root) == before
    assert Dataset(root).tasks == ["y: number 1", "z: number 0"]
    assert resume(root, 3) == 0
    assert texts(root) == [*before, ["pick and place"]]
    assert Dataset(root).info["total_tasks"] == 3
    assert inspect_main([str(root)]) == 0


def add_rating(root):
    table = pq.read_table(root / edits.EPISODES)
    edits.edit(root / edits.EPISODES, lambda t: edits.put(t, "rating", [5] * len(table)))
    edits.edit_info(root, tools=[{"name": "say"}])


def test_resume_keeps_columns_and_entries_that_do_no_harm(recorded, tmp_path):
    root = edits.copy(recorded, tmp_path / "set", add_rating)
    assert resume(root, 3) == 0
    assert [entry["rating"] for entry in Dataset(root).episodes] == [5, 5, None]
    assert Dataset(root).info["tools"] == [{"name": "say"}]
    assert inspect_main([str(root)]) == 0


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edits.annotate, "info.json: the feature language_events is language"),
        (edits.append_episode, "episode 2 has no episode/attempt"),
        (LEROBOT_06, "episode 2 has no episode/attempt"),
        (edits.rewrite, "it has no meta/collection.json"),
        (lambda root: edits.edit_info(root, fps=15), "info.json: fps is 15, expected 30"),
        (
            lambda root: edits.edit_info(root, data_path="data/{file_index}.parquet"),
            "info.json: data_path is",
        ),
        (
            lambda root: edits.edit(root / edits.DATA, lambda t: t.drop(["subtask_index"])),
            "file-000.parquet: the columns .'subtask_index'.",
        ),
        (
            lambda root: edits.edit(root / edits.EPISODES, lambda t: t.drop(["stats/action/std"])),
            "episode 0 has no stats/action/std",
        ),
    ],
)
def test_what_cannot_be_continued_is_refused_and_stays_as_it_is(
    recorded, tmp_path, capfd, edit, message
):
    root = edits.copy(recorded, tmp_path / "set", edit)
    before = edits.contents(root)
    assert resume(root, 3) == 1
    error = capfd.readouterr().err
    assert re.search(message, error), error
    assert edits.contents(root) == before


def test_a_set_without_our_own_files_is_merged(recorded, tmp_path, capsys):
    rewritten = edits.copy(recorded, tmp_path / "rewritten", edits.rewrite)
    joint = tmp_path / "joint"
    assert merge_main([str(rewritten), str(recorded), "--output", str(joint)]) == 0
    dataset = Dataset(joint)
    assert [entry["episode/seed"] is None for entry in dataset.episodes] == [True] * 2 + [False] * 2
    assert dataset.collection is not None
    assert [part["seed"] for part in dataset.collection["parts"]] == [None, 3]
    assert inspect_main([str(joint)]) == 0
    capsys.readouterr()
    assert replay.replay_main([str(joint)]) == 0
    printed = capsys.readouterr()
    assert "2 of 2 episodes are equal" in printed.out
    assert "the start of episode 1 is unknown" in printed.err
    assert replay.reproduce_main([str(joint), "--episode", "3"]) == 0
    assert replay.replay_main([str(joint), "--episode", "0"]) == 2
    assert "episode/seed is None, expected a whole number" in capsys.readouterr().err


def test_sets_without_our_own_files_are_merged(recorded, tmp_path, capsys):
    rewritten = edits.copy(recorded, tmp_path / "rewritten", edits.rewrite)
    joint = tmp_path / "joint"
    again = shutil.copytree(rewritten, tmp_path / "again")
    assert merge_main([str(rewritten), str(again), "--output", str(joint)]) == 0
    assert not (joint / "meta/collection.json").exists()
    assert Dataset(joint).num_episodes == 4
    assert inspect_main([str(joint)]) == 0
    assert replay.replay_main([str(joint)]) == 2
    assert "or copy the file from there" in capsys.readouterr().err


def test_the_provenance_may_be_copied_back(recorded, tmp_path):
    root = edits.copy(recorded, tmp_path / "set")
    content = (root / "meta/collection.json").read_bytes()
    (root / "meta/collection.json").unlink()
    assert replay.replay_main([str(root)]) == 2
    (root / "meta/collection.json").write_bytes(content)
    assert replay.replay_main([str(root)]) == 0


def test_a_merge_that_fails_leaves_nothing(recorded, tmp_path, capsys):
    broken = edits.copy(recorded, tmp_path / "broken")
    edits.edit(broken / edits.DATA, lambda t: edits.put(t, "task_index", [7] * len(t)))
    for existing in (False, True):
        joint = tmp_path / "joint"
        if existing:
            joint.mkdir()
        assert merge_main([str(recorded), str(broken), "--output", str(joint)]) == 2
        assert "episode 0 has the task_index 7, but meta/tasks.parquet" in capsys.readouterr().err
        assert joint.exists() == existing
        assert not existing or not list(joint.iterdir())


def test_columns_that_nobody_declares_are_not_lost_in_a_merge(recorded, tmp_path, capsys):
    root = edits.copy(recorded, tmp_path / "set")
    edits.edit(root / edits.DATA, lambda t: edits.put(t, "force", [1.0] * len(t)))
    assert merge_main([str(root), "--output", str(tmp_path / "joint")]) == 2
    assert "has a column force, which meta/info.json does not declare" in capsys.readouterr().err
    assert replay.replay_main([str(root)]) == 0


def test_a_stored_reference_to_nothing_is_an_error(recorded, tmp_path):
    root = edits.copy(recorded, tmp_path / "set")
    edits.edit(root / edits.DATA, lambda t: t.slice(0, 10))
    with pytest.raises(DatasetError, match="data has 10 rows, but meta/info.json says total_fra"):
        Dataset(root).column("action")


def test_the_card_is_written_once_and_an_edited_one_stays(recorded, tmp_path):
    root = edits.copy(recorded, tmp_path / "set")
    card = (root / "README.md").read_text()
    assert "data_files: data/*/*.parquet" in card
    (root / "README.md").write_text("mine")
    assert resume(root, 3) == 0
    assert (root / "README.md").read_text() == "mine"
    (root / "README.md").unlink()
    assert resume(root, 3) == 0
    assert (root / "README.md").read_text() == card
    assert merge_main([str(root), "--output", str(tmp_path / "joint")]) == 0
    assert (tmp_path / "joint/README.md").read_text() == card


def test_info_names_what_others_need_to_encode_again(tmp_path):
    options = ["--resolution", "32", "--preset", "fast", "--num-episodes", "1"]
    root = tmp_path / "set"
    assert collect.main([*OPTIONS[1:], *options, "--output", str(root)]) == 0
    features = json.loads((root / "meta/info.json").read_text())["features"]
    info = features["observation.images.cam_high"]["info"]
    assert [info[f"video.{key}"] for key in ("g", "crf", "preset")] == [2, 26, "ultrafast"]

    def respell(target):
        details = dict(info)
        details["is_depth_map"] = details.pop("video.is_depth_map")
        details |= {"video.codec": "libx264", "video.g": None, "video.video_backend": "pyav"}
        names = ["height", "width", "channel"]
        changed = {
            key: {**f, "info": details, "names": names} if f["dtype"] == "video" else f
            for key, f in features.items()
        }
        edits.edit_info(target, features=changed)

    other = edits.copy(root, tmp_path / "other", respell)
    joint = tmp_path / "joint"
    for sources in ([root, other], [other, root]):
        assert merge_main([*map(str, sources), "--output", str(joint)]) == 0
        merged = Dataset(joint).features["observation.images.cam_high"]["info"]
        assert merged["video.codec"] == "h264"
        assert merged["video.is_depth_map"] is False
        assert merged["video.crf"] == 26
        assert "video.g" not in merged
        assert inspect_main([str(joint)]) == 0
        shutil.rmtree(joint)
