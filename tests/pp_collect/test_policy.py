"""Collections with a user's own policy."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import collect
from pp_collect import replay
from pp_collect.options import CollectOptions
from pp_collect.policies import find_callable
from pp_recorder.dataset.reader import Dataset
from pp_recorder.evaluation.runner import EvaluationError

BRISK = "tests.policies:Brisk"


def run(output, policy, *options):
    words = ["--output", str(output), "--policy", policy, "--no-cameras", "--num-episodes", "2"]
    return collect.main([*words, "--workers", "1", *options])


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "own"
    assert run(root, BRISK) == 0
    return root


def test_episodes_of_a_policy_end_with_success(dataset):
    recorded = Dataset(dataset)
    assert [entry["episode/success"] for entry in recorded.episodes] == [True, True]
    assert all(0 < entry["length"] < 9 * 8 + 10 for entry in recorded.episodes)
    assert "subtask_index" not in recorded.features
    success = np.array(recorded.rows(0)["next.success"])
    assert success[-1]
    assert not success[:-1].any()


def test_the_provenance_names_the_policy_and_no_expert(dataset):
    stored = json.loads((dataset / "meta/collection.json").read_text())
    assert (stored["policy"], stored["max_steps"]) == (BRISK, 400)
    assert not {"expert", "noise_rad", "joint_speed"} & stored.keys()


def test_several_workers_give_the_same_bytes(dataset, tmp_path):
    assert run(tmp_path / "set", BRISK, "--workers", "2") == 0
    assert files(tmp_path / "set") == files(dataset)


def test_a_stopped_collection_goes_on_to_the_same_bytes(dataset, tmp_path, capsys):
    root = tmp_path / "set"
    assert run(root, "tests.policies:Tiring") == 1
    error = capsys.readouterr().err
    assert "error: --policy tests.policies:Tiring: act raised ValueError: tired" in error
    assert 'raise ValueError("tired")' in error
    assert "attempt 1 was dropped, and what was finished is intact" in error
    assert Dataset(root).num_episodes == 1
    path = root / "meta/collection.json"
    path.write_text(path.read_text().replace("Tiring", "Brisk"))  # as if it had been mended
    assert run(root, BRISK, "--resume") == 0
    assert files(root) == files(dataset)


def test_it_replays_without_the_policy_and_reproduces_with_trust(dataset, capsys):
    assert replay.replay_main([str(dataset)]) == 0
    assert replay.reproduce_main([str(dataset)]) == 2
    expected = f"names '{BRISK}' as what acted. Importing it runs its code: look at it, and give -"
    assert expected in capsys.readouterr().err
    assert replay.reproduce_main([str(dataset), "--trust"]) == 0
    assert "2 of 2 episodes are equal" in capsys.readouterr().out


def test_with_cameras_a_policy_sees_what_is_recorded(tmp_path):
    options = ["--resolution", "64", "--preset", "fast", "--keep", "all", "--max-steps", "3"]
    words = ["--output", str(tmp_path / "set"), "--policy", "tests.policies:blink", *options]
    assert collect.main([*words, "--num-episodes", "1", "--workers", "1"]) == 0
    (path,) = (tmp_path / "set").glob("data/*/*.parquet")
    actions = np.array(pq.read_table(path)["action"].to_pylist())
    assert actions.shape == (3, 8)
    assert (actions[:, -1] == np.float32(0.04)).all()  # given beyond the bounds
    entry = Dataset(tmp_path / "set").episodes[0]
    assert entry["episode/failure_phase"] == "grasp"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "--policy tests.policies:three: the action must have shape (8,), got (3,)\n"),
        ("nan", "the action must be finite, got NaN or infinity"),
        ("Hopeless", "--policy tests.policies:Hopeless: reset raised KeyError: 'start'"),
        ("nothing", "called with the environment it must return an object with reset("),
    ],
)
def test_what_is_no_policy_ends_it_before_a_dataset_begins(tmp_path, capsys, name, message):
    assert run(tmp_path / "set", f"tests.policies:{name}") == 1
    assert f"error: {message}" in (error := capsys.readouterr().err) or message in error
    assert list((tmp_path / "set").iterdir()) == []


def test_a_worker_says_what_is_wrong_with_a_policy(tmp_path, capsys):
    assert run(tmp_path / "set", "tests.policies:three", "--workers", "2") == 1
    assert "the action must have shape (8,), got (3,)" in capsys.readouterr().err
    assert list((tmp_path / "set").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--expert", "reactive"], f"--expert is for experts, got --policy {BRISK}; leave one out"),
        (["--noise-rad", "0", "--steps-per-segment", "9"], "--noise-rad, --steps-per-segment is f"),
        (["--joint-speed", "1"], "--joint-speed is for experts, got --policy"),
        (["--render-after"], "images first, but --policy sees them; leave one of them out"),
        (["--policy", "nowhere_to_be_found:make"], "there is no module 'nowhere_to_be_found' in"),
        (["--policy", "tests.policies:zzz"], "has no callable 'zzz', it has Expert, "),
        (["--policy", "outputs/act"], "--policy must be like my_module:make_policy, got 'outputs"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        collect.main(["--output", str(tmp_path / "set"), "--policy", BRISK, *words])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_an_experts_episode_has_no_limit_to_choose():
    with pytest.raises(ValueError, match="--max-steps is for --policy; an expert knows when"):
        CollectOptions(max_steps=100)
    assert CollectOptions(policy=BRISK, fps=15).policy_steps(15) == 200


def test_a_module_in_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "policy_of_a_user.py").write_text("def make(env):\n    return env\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != ""])
    with pytest.raises(EvaluationError, match="has no callable 'mak'; did you mean make"):
        find_callable("policy_of_a_user:mak")
    assert find_callable("policy_of_a_user:make")("env") == "env"
