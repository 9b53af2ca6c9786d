"""The trials of benchmarks.policies fit together, and collect.py takes their commands."""

import json
from pathlib import Path

import pytest

from benchmarks.policies import DATASETS, TRIALS, input_features
from pp_collect.options import CollectOptions
from pp_recorder.command_line import parse

_ROOT = Path(__file__).parent.parent
_ORDER = list(TRIALS)


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_is_a_command_of_collect(name):
    demonstrations = DATASETS[name]
    words = demonstrations.command.split()
    if demonstrations.driver:
        words += ["--start-policy", "a checkpoint"]
    options = parse(CollectOptions, words, prog="collect.py", description="", example="")
    assert options.cameras == demonstrations.cameras
    assert options.resolution == 128


@pytest.mark.parametrize("name", TRIALS)
def test_every_trial_can_begin(name):
    trial = TRIALS[name]
    demonstrations = DATASETS[trial.dataset]
    assert (_ROOT / "examples" / f"{trial.config}.json").is_file()
    assert set(trial.cameras) <= set(demonstrations.cameras)
    for earlier in filter(None, (trial.start, demonstrations.driver)):
        assert _ORDER.index(earlier) < _ORDER.index(name), "it would wait for ever"


@pytest.mark.parametrize("name", [name for name, d in DATASETS.items() if d.joined])
def test_joined_datasets_have_the_same_pictures(name):
    assert DATASETS[name].cameras == DATASETS[DATASETS[name].joined].cameras
    assert list(DATASETS).index(DATASETS[name].joined) < list(DATASETS).index(name)


def test_a_policy_sees_the_state_and_its_cameras(tmp_path):
    shapes = {"observation.state": [23], "observation.images.cam_front": [96, 128, 3]}
    shapes |= {
        "observation.images.cam_wrist": [96, 128, 3],
        "observation.images.cam_high": [1, 1, 3],
    }
    features = {key: {"shape": shape} for key, shape in shapes.items()}
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(json.dumps({"features": features}))
    inputs = input_features(TRIALS["act"], tmp_path)
    assert inputs["observation.images.cam_front"] == {"type": "VISUAL", "shape": [3, 96, 128]}
    assert list(inputs) == list(shapes)[:3]


@pytest.mark.parametrize("name", ["act", "diffusion"])
def test_the_configs_take_the_dataset_that_the_page_collects(name):
    config = json.loads((_ROOT / "examples" / f"{name}.json").read_text())
    assert f"--output {config['dataset']['root']}" in (_ROOT / "docs/tutorial.md").read_text()
    assert config["policy"]["type"] == f"pickplace_{name}"
    assert config["policy"]["pretrained_backbone_weights"] is None
