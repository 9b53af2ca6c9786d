"""Tests that the reinforcement learning example runs; docs/training.md has its results."""

import csv
import importlib.util

import numpy as np
import pytest

from tests import ROOT

pytest.importorskip("stable_baselines3", reason="the example needs stable-baselines3")
pytest.importorskip("matplotlib", reason="the example plots with matplotlib")

PROGRAM = ROOT / "examples" / "train_sb3.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("train_sb3", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_short_run(example, tmp_path, capsys):
    arguments = "--steps 200 --demos 1 --evaluate-every 100 --episodes 1 --final-episodes 1"
    example.main([*arguments.split(), "--output", str(tmp_path)])
    with (tmp_path / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["steps"]) for row in rows] == [0, 100, 200]
    assert all(0 <= float(row["reward"]) <= 1 for row in rows)
    assert (tmp_path / "learning_curve.png").stat().st_size < 100_000
    assert "1 episodes: mean reward" in capsys.readouterr().out
    model = str(tmp_path / "model.zip")
    example.main(["--evaluate", model, "--final-episodes", "1", "--output", str(tmp_path)])
    assert "success" in capsys.readouterr().out


def test_the_scripted_policy_succeeds(example):
    reward, grasped, success = example.evaluate(example.scripted_action, range(4))
    assert (grasped, success) == (1.0, 1.0)
    assert 0.5 < reward < 1


def test_the_hand_stays_in_its_box_and_points_down(example):
    env = example.make_env()
    features, _ = env.reset(seed=0)
    for _ in range(50):
        features, *_ = env.step(np.array([1.0, -0.3, -1.0, 1.0], dtype=np.float32))
    x, _, z = features[:3] * env.env.UNIT + [0.5, 0.0, example.REST_Z]
    assert x < example.BOX_HIGH[0] + 0.03
    assert z > example.BOX_LOW[2] - 0.01


def test_wilson(example):
    low, high = example.wilson(20, 20)
    assert (round(low, 3), round(high, 3)) == (0.839, 1.0)
