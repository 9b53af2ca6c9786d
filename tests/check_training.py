"""Check examples/lerobot_policy and examples/train_in_memory.py with the real lerobot.

Usage: python -m tests.check_training       (make check-lerobot, make train-lerobot)

Needs this project, lerobot and the policies. The policies are checked with lerobot 0.4.4, too;
training needs 0.6. Exits with 1 if anything fails.
"""

# ruff: noqa: E402

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.check_dataset import import_lerobot

import_lerobot()  # before anything imports torchvision

import numpy as np
import pytest
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_STATE
from lerobot_policy_frankapickplace import (
    GroupNorm,
    PickPlaceACTConfig,
    PickPlaceACTPolicy,
    make_pickplace_act_pre_post_processors,
    shift,
)
from torch import Tensor, nn

import collect
from pp_collect import evaluate as pp_evaluate
from pp_env.layout import ACTION as ACTIONS
from pp_env.layout import OBSERVATION
from pp_recorder.evaluation.lerobot_policy import Checkpoint, LeRobotPolicy

_ROOT = Path(__file__).parent.parent
_CAMERA, _SIZE = "observation.images.cam_front", 32
_TRAIN = "examples/train_in_memory.py"
_TINY = {
    "act": ("--policy.dim_model=64", "--policy.dim_feedforward=64", "--policy.n_heads=2"),
    "diffusion": ("--policy.down_dims=[16,32,64]",),
}


def check_shift() -> None:
    """Each image is moved on its own, by whole pixels, and its edges are repeated."""
    torch.manual_seed(0)
    images = torch.rand(6, 2, 3, 8, 10)
    found = set()
    shifted = shift(images, 2).flatten(0, 1)
    for before, after in zip(images.flatten(0, 1), shifted, strict=True):
        padded = nn.functional.pad(before[None], (2, 2, 2, 2), mode="replicate")[0]
        places = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(padded[:, y : y + 8, x : x + 10], after)
        ]
        assert len(places) == 1, places
        found |= set(places)
    assert len(found) > 4, found


def check_group_norm() -> None:
    """It is torch's own, but of the input's type."""
    torch.manual_seed(0)
    ours, theirs = GroupNorm(2, 32), nn.GroupNorm(2, 32)
    nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(4, 32, 5, 5)
    assert torch.equal(ours(images), theirs(images))
    with torch.autocast("cpu", torch.bfloat16):
        half = ours(images.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), theirs(images), atol=0.05)


def random_checkpoint(folder: Path) -> Checkpoint:
    """Save a policy with random weights, that has only joint positions and fingers as inputs."""
    torch.manual_seed(0)
    config = PickPlaceACTConfig(
        device="cpu", push_to_hub=False, use_vae=False, pretrained_backbone_weights=None,
        chunk_size=8, n_action_steps=8, dim_model=64, dim_feedforward=64, n_heads=2,
    )  # fmt: skip
    config.input_features = {
        OBS_STATE: PolicyFeature(FeatureType.STATE, (OBSERVATION.size,)),
        _CAMERA: PolicyFeature(FeatureType.VISUAL, (3, _SIZE, _SIZE)),
    }
    config.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (ACTIONS.size,))}
    config.set_dataset_feature_metadata({OBS_STATE: {"names": OBSERVATION.names}})

    def stats(*shape: int) -> dict[str, Tensor]:
        names = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0}
        return {name: torch.full(shape, value) for name, value in names.items()}

    of_data = {OBS_STATE: stats(OBSERVATION.size), _CAMERA: stats(3, 1, 1), ACTION: stats(8)}
    parts = PickPlaceACTPolicy(config), *make_pickplace_act_pre_post_processors(config, of_data)
    for part in parts:
        part.save_pretrained(folder)
    return Checkpoint(folder)


def check_inputs(folder: Path) -> None:
    """A loaded checkpoint does not see what is no input, and sees what is one."""
    policy = LeRobotPolicy(random_checkpoint(folder), action_steps=3)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (_SIZE, _SIZE, 3), dtype=np.uint8)

    def plan(changed: Sequence[str]) -> np.ndarray:
        state = np.zeros(OBSERVATION.size, np.float32)
        for name in changed:
            OBSERVATION.unpack(state)[name][:] = 0.5
        return policy.plan({"agent_pos": state, "pixels": {"cam_front": image}})

    still = plan([])
    assert np.array_equal(still, plan(["joint_vel", "eef_pos", "eef_quat"]))
    assert not np.allclose(still, plan(["joint_pos"]))
    assert not np.allclose(still, plan(["gripper_pos"]))


def check_wrong_inputs() -> None:
    """Names that the data lack, and pretrained weights with another normalisation, are refused."""
    config = PickPlaceACTConfig(
        device="cpu", pretrained_backbone_weights=None, state_inputs=["joint_torque"]
    )
    features = {OBS_STATE: {"names": OBSERVATION.names}}
    expect("joint_torque", lambda: config.set_dataset_feature_metadata(features))
    weights = "ResNet18_Weights.IMAGENET1K_V1"
    expect("group_norm=false", lambda: PickPlaceACTConfig(pretrained_backbone_weights=weights))
    PickPlaceACTConfig(pretrained_backbone_weights=weights, group_norm=False)


def expect(text: str, action: Any) -> None:
    """Require a `ValueError` with a text in its message."""
    with pytest.raises(ValueError, match=text):
        action()


def train(*words: str) -> subprocess.CompletedProcess:
    """Run the program on the CPU, in two steps of two frames unless told otherwise."""
    few = ["--batch_size=2", "--steps=2", "--log_freq=1"]
    command = [sys.executable, _TRAIN, *few, *words]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)


def check_loader(dataset: Path) -> None:
    """A batch is what lerobot's own loader gives for the same frames."""
    from lerobot.datasets import LeRobotDataset

    from examples.train_in_memory import load
    from pp_recorder.dataset.reader import Dataset

    ours = Dataset(dataset)
    observed, planned = [-1, 0], list(range(-1, 15))
    frames = load(ours, range(ours.num_episodes), ours.cameras)
    ends = np.cumsum([entry["length"] for entry in ours.episodes])
    picks = [0, 1, 7, int(ends[0]) - 1, int(ends[0]), int(ends[-1]) - 3]
    batch = frames.batch(torch.tensor(picks), observed, planned)
    times = {key: [i / ours.fps for i in observed] for key in (OBS_STATE, *ours.cameras)}
    times[ACTION] = [i / ours.fps for i in planned]
    theirs = LeRobotDataset("local/x", root=dataset, delta_timestamps=times, video_backend="pyav")
    for row, index in enumerate(picks):
        item = theirs[index]
        for key in (OBS_STATE, ACTION, "action_is_pad"):
            assert torch.equal(batch[key][row], item[key]), (key, index)
        for key in ours.cameras:  # two decoders may round colours differently
            assert (batch[key][row] - item[key]).abs().max() <= 2 / 255, (key, index)


def check_program(folder: Path, dataset: Path) -> None:
    """Both policies are trained, go on, and run in the environment."""
    for policy, tiny in _TINY.items():
        output = folder / policy
        given = [f"--config_path=examples/{policy}.json", f"--dataset.root={dataset}"]
        done = train(*given, f"--output_dir={output}", "--policy.device=cpu", *tiny)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "torchcodec" not in done.stderr
        last = output / "checkpoints" / "last"
        first = json.loads((last / "train_in_memory.json").read_text())
        resumed = [f"--config_path={last}/pretrained_model/train_config.json", "--resume=true"]
        done = train(*resumed, "--steps=3")
        assert done.returncode == 0, done.stderr[-2000:]
        result = json.loads((last / "train_in_memory.json").read_text())
        assert (result["step"], result["samples"], result["episodes"]) == (3, 6, 2), result
        assert result["seconds"] > first["seconds"] > 0, (first, result)
        words = ["--num-episodes", "1", "--max-steps", "30", "--preset", "fast"]
        report = folder / "report.json"
        assert pp_evaluate.main(["--policy", str(output), *words, "--json", str(report)]) == 0
        assert json.loads(report.read_text())["episodes"][0]["error"] == ""


def check_bad_input(folder: Path, dataset: Path) -> None:
    """What cannot be trained on ends with a sentence, before any work."""
    blind = folder / "blind"
    words = ["--num-episodes", "1", "--steps-per-segment", "5", "--keep", "all", "--no-cameras"]
    assert collect.main([*words, "--output", str(blind)]) == 0
    to = f"--output_dir={folder / 'none'}"
    act, cpu = "--config_path=examples/act.json", "--policy.device=cpu"
    side = {
        OBS_STATE: {"type": "STATE", "shape": [OBSERVATION.size]},
        "observation.images.cam_side": {"type": "VISUAL", "shape": [3, _SIZE, _SIZE]},
    }
    refused = {
        "has no images": (act, f"--dataset.root={blind}", cpu),
        "cam_side": (
            act, f"--dataset.root={dataset}", cpu, f"--policy.input_features={json.dumps(side)}"
        ),
        "sees {'observation.images.cam_front': (3, 32, 32)}": (
            act, f"--dataset.root={dataset}", cpu, f"--policy.pretrained_path={folder / 'random'}"
        ),
        "is not a directory": (act, f"--dataset.root={folder / 'absent'}", cpu),
    }  # fmt: skip
    if not torch.cuda.is_available():
        refused["torch finds no GPU"] = (act, f"--dataset.root={dataset}")
    for text, given in refused.items():
        done = train(*given, to)
        assert done.returncode == 1, (text, done.returncode)
        assert text in done.stderr.splitlines()[-1], done.stderr[-2000:]
        assert not (folder / "none").exists()


def main() -> None:
    """Run all checks."""
    logging.disable()
    check_shift()
    check_group_norm()
    check_wrong_inputs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check_inputs(folder / "random")
        if metadata.version("lerobot") >= "0.6":
            dataset = folder / "dataset"
            words = ["--num-episodes", "2", "--expert", "reactive", "--start-mix", "random"]
            words += ["--resolution", "64", "--preset", "fast", "--output", str(dataset)]
            assert collect.main(words) == 0
            check_loader(dataset)
            check_program(folder, dataset)
            check_bad_input(folder, dataset)
    print("OK: the policies and their training")


if __name__ == "__main__":
    main()
