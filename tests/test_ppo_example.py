"""The PPO example learns a little on the GPU simulator, goes on, and acts on the CPU's."""

import csv
import math
import os
import subprocess
import sys

import pytest

from tests import ROOT

pytestmark = pytest.mark.long  # compiles kernels for minutes
for package in ("torch", "rsl_rl", "mujoco_warp"):
    pytest.importorskip(package)

EXAMPLE = ROOT / "examples" / "train_ppo.py"
SMALL = ("--num-envs", "2", "--num-starts", "2", "--horizon", "4", "--print-every", "1")


def run(*words):
    env = {"WARP_GPU": "cpu", **os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLE), *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)


def test_it_trains_goes_on_and_is_evaluated(tmp_path):
    first = run(*SMALL, "--iterations", 1, "--output", tmp_path / "ppo")
    assert first.returncode == 0, first.stderr
    model = tmp_path / "ppo" / "model.pt"
    again = run(*SMALL, "--iterations", 1, "--output", tmp_path / "ppo")
    assert again.returncode == 1
    assert f"{model} exists; go on with --resume" in again.stderr
    second = run(*SMALL, "--iterations", 1, "--output", tmp_path / "ppo", "--resume", model)
    assert second.returncode == 0, second.stderr
    rows = list(csv.DictReader((tmp_path / "ppo" / "progress.csv").open()))
    assert [int(row["decisions"]) for row in rows] == [8, 16]
    assert all(0.0 < float(row["reward"]) < 1.0 for row in rows)
    assert math.isfinite(float(rows[1]["learning_rate"]))
    result = run("--evaluate", model, "--episodes", 2)
    assert result.returncode == 0, result.stderr
    assert "2 unseen starts: grasped" in result.stdout
