"""Collections whose attempts run together on Warp."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("mujoco_warp")

import collect
from pp_recorder.checks import cli

pytestmark = pytest.mark.usefixtures("warp_device")

FRAMES = 144  # of an episode that is as quick as pp-inspect finds plausible
QUICK = [
    "--steps-per-segment", str(FRAMES // 9), "--resolution", "64", "--preset", "fast",
    "--workers", "1", "--seed", "5",
]  # fmt: skip
ON_WARP = ["--simulator", "warp", "--num-envs", "2"]


def run(output, *options):
    return collect.main([*QUICK, "--output", str(output), *options])


def episodes(root):
    (path,) = root.glob("meta/episodes/*/*.parquet")
    return pq.ParquetFile(path).read().to_pylist()


def assert_same_starts(root, other):
    ours, theirs = episodes(root), episodes(other)
    for name in ("episode/seed", "episode/attempt", "episode/place"):
        assert [e[name] for e in ours] == [e[name] for e in theirs]
    picks = [[e["episode/pick"] for e in each] for each in (ours, theirs)]
    np.testing.assert_allclose(*picks, rtol=0, atol=1e-5)  # settled, in float32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, warp_device):
    root = tmp_path_factory.mktemp("sets") / "warp"
    assert run(root, "--num-episodes", "2", *ON_WARP) == 0
    return root


def test_the_dataset_is_sound(dataset):
    assert cli.main(["--strict", str(dataset)]) == 0
    found = episodes(dataset)
    assert [episode["length"] for episode in found] == [FRAMES] * 2
    assert all(episode["episode/success"] for episode in found)
    stored = json.loads((dataset / "meta/collection.json").read_text())
    assert stored["simulator_details"]["name"] == "MuJoCo Warp"


def test_starts_are_those_of_mujoco(dataset, tmp_path):
    assert run(tmp_path / "set", "--num-episodes", "2", "--no-cameras") == 0
    assert_same_starts(tmp_path / "set", dataset)


@pytest.mark.long
def test_resume_goes_on(dataset, tmp_path):
    whole = tmp_path / "set"
    assert run(whole, "--num-episodes", "1", *ON_WARP) == 0
    first = episodes(whole)
    assert run(whole, "--num-episodes", "2", "--resume", *ON_WARP) == 0
    assert_same_starts(whole, dataset)
    assert episodes(whole)[0]["episode/seed"] == first[0]["episode/seed"]
    assert cli.main(["--strict", str(whole)]) == 0


@pytest.mark.long
def test_the_reactive_expert_from_mixed_starts(tmp_path):
    output = tmp_path / "set"
    options = ["--expert", "reactive", "--start-mix", "random", "--num-episodes", "2"]
    assert collect.main([*QUICK[2:], "--output", str(output), *options, *ON_WARP]) == 0
    assert cli.main([str(output)]) == 0
    assert len(episodes(output)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-envs", "2"], "--num-envs is for --simulator warp, got --simulator mujoco"),
        (
            ["--simulator", "warp", "--ray-address", "auto"],
            "--simulator warp is for this machine, not --ray-address",
        ),
        (["--simulator", "warp", "--num-envs", "0"], "--num-envs"),
        (
            ["--simulator", "warp", "--no-headless"],
            "--no-headless is for --simulator mujoco, isaacsim, got --simulator warp, which has no",
        ),
    ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "set", *options)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_without_a_gpu(tmp_path, capsys, monkeypatch, warp_device):
    if warp_device != "cpu":
        pytest.skip("there is a GPU")
    monkeypatch.delenv("WARP_GPU")
    assert run(tmp_path / "set", "--simulator", "warp", "--num-episodes", "1") == 1
    assert "error: simulator 'warp' needs an NVIDIA GPU" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.parquet"))
