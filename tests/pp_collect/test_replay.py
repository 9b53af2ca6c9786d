import dataclasses
import json
import shutil

import pytest

import collect
from pp_collect import replay
from pp_env.config import PickPlaceConfig, RenderConfig, from_dict
from pp_env.objects import YCB_OBJECTS
from pp_recorder.dataset.compare import Comparison
from pp_recorder.dataset.merge import merge
from pp_recorder.dataset.reader import Dataset, DatasetError
from tests import ROOT, crash


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "recorded"
    arguments = ["--num-episodes", "2", "--output", str(root)]
    assert collect.main([*crash.OPTIONS, *arguments]) == 0
    return root


def falsify(root, target, name, change):
    """A copy of a dataset in which one value of `meta/collection.json` differs."""
    shutil.copytree(root, target)
    path = target / "meta/collection.json"
    stored = json.loads(path.read_text())
    stored[name] = change(stored[name])
    path.write_text(json.dumps(stored))
    return target


def test_recorded_actions_replay_bit_for_bit(dataset, capsys):
    assert replay.replay_main([str(dataset)]) == 0
    out = capsys.readouterr().out
    assert "episode 1: equal bit for bit" in out
    assert "2 of 2 episodes are equal" in out


# One episode, recorded by version 0.1.0: other quaternion signs, another grasp rule.
REVISION_2 = ROOT / "tests/data/revision_2"


def test_a_dataset_of_an_older_revision_replays_and_merges(tmp_path, capsys):
    pytest.importorskip("mujoco")
    assert replay.replay_main([str(REVISION_2)]) == 0
    merged, again = tmp_path / "merged", shutil.copytree(REVISION_2, tmp_path / "again")
    assert merge([REVISION_2, again], merged) == 2
    assert replay.replay_main([str(merged)]) == 0
    assert "2 of 2 episodes are equal" in capsys.readouterr().out


def test_a_dataset_of_an_older_revision_does_not_mix_with_this_one(dataset, tmp_path, capsys):
    with pytest.raises(DatasetError, match="differ in .*revision"):
        merge([REVISION_2, dataset], tmp_path / "merged")
    assert replay.reproduce_main([str(REVISION_2)]) == 2
    assert "has data revision 2" in capsys.readouterr().err


def test_another_scene_replays_otherwise(dataset, tmp_path, capsys):
    def lighter(config):
        config["object"]["mass"] = 0.05
        return config

    other = falsify(dataset, tmp_path / "other", "config", lighter)
    assert replay.replay_main([str(other), "--episode", "0"]) == 1
    assert "episode 0: differs in" in capsys.readouterr().out


def test_other_versions_are_compared_with_a_tolerance(dataset, tmp_path, capsys):
    other = falsify(dataset, tmp_path / "other", "machine", lambda _: "another")
    assert replay.replay_main([str(other), "--episode", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["tolerance"] == 1e-3


def test_replay_gives_new_pictures_without_collecting(dataset, tmp_path):
    output = tmp_path / "sharp"
    assert replay.replay_main([str(dataset), "--render", str(output), "--resolution", "96x64"]) == 0
    old, new = Dataset(dataset), Dataset(output)
    assert new.features["observation.images.cam_high"]["shape"] == [64, 96, 3]
    assert new.table.equals(old.table)
    assert sum(1 for _ in new.frames(1, "observation.images.cam_wrist")) == crash.LENGTH


def test_episodes_are_made_again_from_their_seeds(dataset, capsys):
    assert replay.reproduce_main([str(dataset)]) == 0
    assert "2 of 2 episodes are equal" in capsys.readouterr().out


def test_hand_poses_replay_and_reproduce_bit_for_bit(tmp_path, capsys):
    root = tmp_path / "set"
    options = ["--num-episodes", "2", "--no-cameras", "--fps", "20", "--control-mode", "ee_pose"]
    assert collect.main(["--output", str(root), "--workers", "1", *options]) == 0
    capsys.readouterr()
    for main in (replay.replay_main, replay.reproduce_main):
        assert main([str(root)]) == 0
        assert capsys.readouterr().out.count("equal bit for bit") == 2
    joints = falsify(root, tmp_path / "joints", "control_mode", lambda _: "joint_pos")
    assert replay.replay_main([str(joints)]) == 2
    assert "action must have shape (8,), got (10,)" in capsys.readouterr().err


def test_datasets_from_before_control_modes_have_joint_targets(dataset, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(dataset, old)
    path = old / "meta/collection.json"
    stored = json.loads(path.read_text())
    assert stored.pop("control_mode") == "joint_pos"
    path.write_text(json.dumps(stored))
    assert replay.replay_main([str(old), "--episode", "0"]) == 0


@pytest.mark.parametrize(("name", "value"), [("noise_rad", 0.02), ("wander_rad", 0.3)])
def test_another_expert_does_not_reproduce(dataset, tmp_path, capsys, name, value):
    other = falsify(dataset, tmp_path / "other", name, lambda _: value)
    assert replay.reproduce_main([str(other), "--episode", "1"]) == 1
    assert "differs in action from frame 0" in capsys.readouterr().out


@pytest.mark.parametrize("main", [replay.replay_main, replay.reproduce_main])
def test_ctrl_c_is_answered_in_a_sentence(main, dataset, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(replay, "run_episode", interrupt)
    assert main([str(dataset)]) == 130
    assert capsys.readouterr().err == f"interrupted: {dataset} was only read\n"


@pytest.mark.parametrize("main", [replay.replay_main, replay.reproduce_main])
def test_what_is_no_dataset_of_ours(main, dataset, tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is not a directory" in capsys.readouterr().err
    assert main([str(dataset), "--episode", "7"]) == 2
    assert "episode must be from 0 to 1, got 7" in capsys.readouterr().err


def test_new_pictures_need_a_place(dataset, capsys):
    with pytest.raises(SystemExit):
        replay.replay_main([str(dataset), "--preset", "pretty"])
    assert "need --render OUT" in capsys.readouterr().err


def test_new_pictures_need_an_empty_place_before_anything_runs(dataset, monkeypatch, capsys):
    monkeypatch.setattr(replay, "make_env", lambda *_: pytest.fail("a simulator started"))
    assert replay.replay_main([str(dataset), "--render", str(dataset)]) == 2
    assert capsys.readouterr().err.endswith("nothing was written. Choose another one\n")


def test_a_nan_is_a_difference():
    comparison = Comparison(0, 1.0)
    comparison.add("action", 3, float("nan"))
    assert comparison.differing == {"action": 3}


def test_a_configuration_survives_json():
    for objects in ((), YCB_OBJECTS):
        config = PickPlaceConfig(render=RenderConfig(64, "fast"), objects=objects)
        stored = json.loads(json.dumps(dataclasses.asdict(config)))
        assert from_dict(PickPlaceConfig, stored) == config
        hash(from_dict(PickPlaceConfig, stored))
    with pytest.raises(ValueError, match=r"PickPlaceConfig has no \['sky'\]"):
        from_dict(PickPlaceConfig, {"sky": "blue"})


@pytest.mark.long
def test_a_thousand_replays(tmp_path):
    options = ["--num-episodes", "1000", "--no-cameras", "--keep", "all"]
    assert collect.main(["--output", str(tmp_path / "set"), *options]) == 0
    assert replay.replay_main([str(tmp_path / "set")]) == 0
