import json
import shutil
from pathlib import Path

import pytest

import collect
from pp_collect import replay
from pp_recorder.checks.cli import main as inspect_main
from pp_recorder.dataset.merge import main as merge_main
from pp_recorder.dataset.reader import Dataset
from pp_recorder.dataset.writer import LeRobotWriter
from tests import crash

SLOW = ("--steps-per-segment", "20")  # else pp-inspect finds joints that are too fast


def record(root, *options, episodes=2):
    arguments = ["--num-episodes", str(episodes), "--output", str(root)]
    assert collect.main([*crash.OPTIONS, *arguments, *options]) == 0
    return root


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return record(folder / "a"), record(folder / "b", "--first-attempt", "2")


def test_parts_of_a_collection_give_the_whole(parts, tmp_path):
    whole = record(tmp_path / "whole", episodes=4)
    joint = tmp_path / "joint"
    assert merge_main([*map(str, parts), "--output", str(joint)]) == 0
    assert crash.differences(whole, joint) == []


def test_other_seeds_are_kept_apart_and_still_reproduce(parts, tmp_path):
    other = record(tmp_path / "other", "--seed", "8", episodes=1)
    joint = tmp_path / "joint"
    assert merge_main([str(parts[0]), str(other), "--output", str(joint)]) == 0
    collection = json.loads((joint / "meta/collection.json").read_text())
    assert [(p["seed"], p["episodes"]) for p in collection["parts"]] == [(3, 2), (8, 1)]
    assert Dataset(joint).num_frames == 3 * crash.LENGTH
    assert replay.reproduce_main([str(joint), "--episode", "2"]) == 0


def test_demonstrations_from_other_starts_join_and_still_reproduce(tmp_path, capsys):
    reactive = ["--expert", "reactive", "--no-cameras", "--workers", "1"]
    clumsy = ["--start-policy", "tests.policies:Expert"]
    parts = {
        "home=0.5,random=0.5": ["--num-episodes", "3"],
        "anywhere": ["--num-episodes", "2", "--seed", "9"],
        "policy": ["--num-episodes", "1", "--seed", "10", *clumsy],
    }
    for number, (mix, words) in enumerate(parts.items()):
        folder = str(tmp_path / str(number))
        assert collect.main([*reactive, "--start-mix", mix, *words, "--output", folder]) == 0
    sources = [str(tmp_path / str(number)) for number in range(len(parts))]
    joint = tmp_path / "joint"
    assert merge_main([*sources, "--output", str(joint)]) == 0
    collection = json.loads((joint / "meta/collection.json").read_text())
    assert [part["start_mix"] for part in collection["parts"]] == list(parts)
    assert [part["start_policy"] for part in collection["parts"]] == [None, None, clumsy[1]]
    assert inspect_main([str(joint)]) == 0
    assert replay.replay_main([str(joint)]) == 0
    assert replay.reproduce_main([str(joint), "--trust"]) == 0
    assert "6 of 6" in capsys.readouterr().out


def test_demonstrations_of_other_actions_do_not_join(tmp_path, capsys):
    words = ["--expert", "reactive", "--no-cameras", "--num-episodes", "1", "--workers", "1"]
    for mode in ("joint_pos", "ee_pose"):
        assert collect.main([*words, "--control-mode", mode, "--output", str(tmp_path / mode)]) == 0
    sources = [str(tmp_path / mode) for mode in ("joint_pos", "ee_pose")]
    assert merge_main([*sources, "--output", str(tmp_path / "joint")]) == 2
    assert "control_mode" in capsys.readouterr().err


YCB = [*SLOW, "--use-ycb", "--num-objects", "2", "--random-yaw"]


def test_parts_with_different_tasks(tmp_path, capsys):
    whole = record(tmp_path / "whole", *YCB, episodes=3)
    parts = [
        record(tmp_path / "a", *YCB, episodes=2),
        record(tmp_path / "b", *YCB, "--first-attempt", "2", episodes=1),
    ]
    texts = [{entry["tasks"][0] for entry in Dataset(part).episodes} for part in parts]
    assert texts[0] != texts[1]
    assert merge_main([*map(str, parts), "--output", str(tmp_path / "joint")]) == 0
    assert crash.differences(whole, tmp_path / "joint") == []
    assert inspect_main([str(tmp_path / "joint")]) == 0
    assert "SOUND" in capsys.readouterr().out
    assert replay.replay_main([str(tmp_path / "joint")]) == 0
    assert replay.reproduce_main([str(tmp_path / "joint"), "--episode", "2"]) == 0


def test_parts_of_one_object_each(tmp_path):
    names = ("mustard bottle", "pudding box")
    parts = [record(tmp_path / n, "--use-ycb", "--object", n, episodes=1) for n in names]
    joint = tmp_path / "joint"
    assert merge_main([*map(str, parts), "--output", str(joint)]) == 0
    dataset = Dataset(joint)
    assert dataset.column("task_index")[[0, -1]].ravel().tolist() == [0, 1]
    assert dataset.collection is not None
    assert dataset.collection["object"] is None
    assert [part["object"] for part in dataset.collection["parts"]] == list(names)
    assert replay.reproduce_main([str(joint), "--trust"]) == 0


def test_the_sources_are_left_alone(parts, tmp_path):
    before = {p: p.read_bytes() for p in parts[0].rglob("*") if p.is_file()}
    merge_main([*map(str, parts), "--output", str(tmp_path / "joint")])
    assert {p: p.read_bytes() for p in parts[0].rglob("*") if p.is_file()} == before


def test_parts_of_different_configurations_are_refused(parts, tmp_path, capsys):
    other = record(tmp_path / "other", "--noise-rad", "0", episodes=1)
    assert merge_main([str(parts[0]), str(other), "--output", str(tmp_path / "joint")]) == 2
    assert "differ in noise_rad, so they are not parts of one" in capsys.readouterr().err
    assert not (tmp_path / "joint").exists()


@pytest.mark.parametrize("again", ["same", "spelling", "link"])
def test_a_dataset_is_not_joined_with_itself(parts, tmp_path, capsys, again):
    (tmp_path / "link").symlink_to(parts[0])
    other = {
        "same": parts[0],
        "spelling": parts[0].parent / ".." / parts[0].parent.name / parts[0].name,
        "link": tmp_path / "link",
    }[again]
    words = [str(parts[0]), str(parts[1]), str(other), "--output", str(tmp_path / "whole")]
    assert merge_main(words) == 2
    assert f"error: {other} is given twice" in capsys.readouterr().err
    assert not (tmp_path / "whole").exists()


def test_episodes_that_are_there_twice_are_named(parts, tmp_path, caplog):
    copy, again = tmp_path / "copy", record(tmp_path / "again", episodes=1)
    shutil.copytree(parts[0], copy)
    for other, count in ((copy, "2 of 2"), (again, "1 of 1")):
        caplog.clear()
        sources = [str(parts[1]), str(parts[0]), str(other)]
        assert merge_main([*sources, "--output", str(tmp_path / f"with_{other.name}")]) == 0
        expected = f"there twice: episode 0 of {other} is episode 0 of {parts[0]}; parts of a"
        assert expected in caplog.text
        assert f"{count} episodes" in caplog.text


def test_parts_are_not_called_repeated(parts, tmp_path, caplog):
    assert merge_main([*map(str, parts), "--output", str(tmp_path / "joint")]) == 0
    assert "twice" not in caplog.text


def test_an_output_inside_a_source_is_refused(parts, capsys):
    output = parts[1] / "whole"
    assert merge_main([str(parts[0]), str(parts[1]), "--output", str(output)]) == 2
    assert f"the output {output} is inside the source {parts[1]}" in capsys.readouterr().err
    assert not output.exists()


def test_a_used_output_is_refused(parts, capsys):
    assert merge_main([str(parts[0]), "--output", str(parts[1])]) == 2
    assert capsys.readouterr().err.endswith("nothing was written. Choose another one\n")
    assert merge_main([str(parts[0]), "--output", __file__]) == 2
    assert f"the output {__file__} is a file, expected an absent" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_of_the_output(parts, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    output = tmp_path / "joined"
    monkeypatch.setattr(LeRobotWriter, "finalize", interrupt)
    assert merge_main([str(parts[0]), str(parts[1]), "--output", str(output)]) == 130
    error = capsys.readouterr().err
    assert error == f"interrupted: the sources are as they were, and nothing is left in {output}\n"
    assert not output.exists()


def test_every_command_takes_a_folder_with_an_awkward_name(tmp_path, monkeypatch):
    """Each kind of name is tried by itself in test_paths.py."""
    monkeypatch.chdir(tmp_path)
    name = "-a%03d b münchen 東京:1 12:30"
    words = [f"./{name}{k}" for k in range(2)]
    for k, word in enumerate(words):
        record(word, *SLOW, "--first-attempt", str(2 * k), episodes=1)
    record(words[0], *SLOW, "--resume", episodes=2)
    assert [inspect_main([word, "--html", f"{word}.html"]) for word in words] == [0, 0]
    assert merge_main([*words, "--output", f"./{name}"]) == 0
    render = ["--render", f"./{name} again", "--resolution", "32", "--preset", "fast"]
    assert replay.replay_main([f"./{name}", *render]) == 0
    assert inspect_main([f"./{name} again"]) == 0
    assert Dataset(Path(f"{name} again")).num_episodes == 3
