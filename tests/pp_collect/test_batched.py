"""Collections whose attempts run together on Warp."""

import json

import pyarrow.parquet as pq
import pytest

pytest.importorskip("mujoco_warp")

import collect
from pp_collect.options import CollectOptions
from pp_env.sim.warp import worlds
from pp_recorder.checks import cli

pytestmark = pytest.mark.usefixtures("warp_device")

FRAMES = 72  # of a quick episode
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


def starts(root):
    names = ("seed", "attempt", "pick", "place")
    return [[episode[f"episode/{name}"] for name in names] for episode in episodes(root)]


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
    assert starts(tmp_path / "set") == starts(dataset)


def test_resume_goes_on(dataset, tmp_path):
    whole = tmp_path / "set"
    assert run(whole, "--num-episodes", "1", *ON_WARP) == 0
    first = starts(whole)
    assert run(whole, "--num-episodes", "2", "--resume", *ON_WARP) == 0
    assert starts(whole) == starts(dataset)
    assert starts(whole)[:1] == first
    assert cli.main(["--strict", str(whole)]) == 0


@pytest.mark.long
def test_the_reactive_expert_from_mixed_starts(tmp_path):
    output = tmp_path / "set"
    options = ["--expert", "reactive", "--start-mix", "random=1", "--num-episodes", "2"]
    assert run(output, *options, *ON_WARP) == 0
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
        ([*ON_WARP, "--num-envs", "0"], "--num-envs"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "set", *options)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_there_is_no_window(tmp_path, capsys):
    assert run(tmp_path / "set", "--simulator", "warp", "--no-headless") != 0
    assert "simulator='warp' has no window" in capsys.readouterr().err
