"""Train a small network on the CPU to estimate the state from images, for train_bc.py's policy.

Usage, from the project's folder:
    python -m examples.train_state_estimator --dataset datasets/images --bc-policy runs/bc/policy.pt
    pp-evaluate --policy examples.train_state_estimator:make --obs-type pixels_agent_pos \
        --resolution 160 --preset fast --num-episodes 100

The state estimator predicts the environment state from both cameras' images, and the BC policy
(train_bc.py) acts on the estimate: together they need images and the arm's state alone. Of the
arm's state the estimator's input has the fingers only, because the arm's movement predicts the
object's position without any image: docs/training.md.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from examples.train_bc import ChunkPolicy, Executor, Settings, descend, run_collect
from pp_env.layout import ENVIRONMENT_STATE, OBSERVATION
from pp_recorder.dataset.reader import Dataset

CHECKPOINTS = ("STATE_ESTIMATOR", "EYES")  # variables with the path for `make`; EYES is 0.1.0's
DEFAULT_CHECKPOINT = "runs/state_estimator/policy.pt"
TRUTH = "environment_state"  # the dataset's column
RESOLUTION, PRESET = 160, "fast"
CAMERAS = ("cam_high", "cam_wrist")
TABLE_PIXELS, WRIST_PIXELS = 96, 40
TABLE_ROW, TABLE_COLUMN = 40, 44  # first pixel of the crop from cam_high's image
FINGERS = OBSERVATION.names.index("gripper_pos_0")
# Channels, size, stride and dilation of each layer.
CONVOLUTIONS = ((16, 5, 2, 1), (32, 3, 2, 1), (32, 3, 1, 1), (32, 3, 1, 2))
EARLY = 30  # frames of the first second, all of which are used
LEAST_SPREAD = 0.03  # m: limits the weight of values that hardly vary


@dataclass(frozen=True)
class Views:
    """The estimator's inputs for some frames.

    Attributes:
        table: (frames, 3, 96, 96) uint8 from cam_high.
        wrist: (frames, 3, 40, 40) uint8 from cam_wrist.
        fingers: (frames, 2) positions, m.
    """

    table: Tensor
    wrist: Tensor
    fingers: Tensor

    def __getitem__(self, rows: Tensor | slice) -> "Views":
        return Views(self.table[rows], self.wrist[rows], self.fingers[rows])

    def __len__(self) -> int:
        return len(self.fingers)


class Keypoints(nn.Module):
    """A network that locates 32 learned features in an image: (..., 64), axes from -1 to 1."""

    def __init__(self, features: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels, size, stride, dilation in CONVOLUTIONS:
            padding = dilation * (size // 2)
            layers += [
                nn.Conv2d(before, channels, size, stride, padding, dilation),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            before = channels
        self._layers = nn.Sequential(*layers, nn.Conv2d(before, features, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return positions (..., 64) in images (..., 3, H, W) uint8."""
        maps = self._layers(images.float() / 127.5 - 1)
        share = maps.flatten(2).softmax(-1).unflatten(2, maps.shape[2:])
        y, x = (torch.linspace(-1, 1, n) for n in maps.shape[2:])
        return torch.cat([share.sum(2) @ x, share.sum(3) @ y], dim=1)


class StateEstimator(nn.Module):
    """A network that estimates the environment state (..., 11) from both cameras' images."""

    def __init__(self) -> None:
        super().__init__()
        size = ENVIRONMENT_STATE.size
        self._table, self._wrist = Keypoints(), Keypoints()
        self._layers = nn.Sequential(
            nn.Linear(2 * 64 + 2, 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, size),
        )
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    def normalise(self, truth: Tensor) -> None:
        """Set means and standard deviations from environment states (frames, 11)."""
        self.mean.copy_(truth.mean(0))
        self.spread.copy_(truth.std(0).clamp_min(LEAST_SPREAD))

    def forward(self, views: Views) -> Tensor:
        """Return estimated environment states (frames, 11)."""
        parts = [self._table(views.table), self._wrist(views.wrist), 50 * views.fingers - 1]
        return self._layers(torch.cat(parts, dim=1)) * self.spread + self.mean

    def loss(self, views: Views, truth: Tensor) -> Tensor:
        """Return the mean absolute error, in standard deviations."""
        return ((self(views) - truth) / self.spread).abs().mean()


def make_views(pixels: dict[str, np.ndarray], state: np.ndarray) -> Views:
    """Return the estimator's inputs from images (n, 160, 160, 3) by camera and states (n, 23)."""
    table, wrist = (torch.from_numpy(pixels[camera]).permute(0, 3, 1, 2) for camera in CAMERAS)
    rows, columns = (slice(n, n + TABLE_PIXELS) for n in (TABLE_ROW, TABLE_COLUMN))
    return Views(
        table=table[:, :, rows, columns],
        wrist=nn.functional.avg_pool2d(wrist.float(), RESOLUTION // WRIST_PIXELS).to(torch.uint8),
        fingers=torch.from_numpy(state[:, FINGERS : FINGERS + 2].astype(np.float32)),
    )


def read(dataset: Dataset, episodes: Sequence[int], every: int) -> tuple[Views, Tensor]:
    """Read every n-th frame of some episodes, and its environment state (frames, 11).

    Frames of the first second are all read (early-frame oversampling), because only they have the
    arm far from the object: docs/training.md.
    """
    chosen = [
        [*range(EARLY), *range(EARLY, dataset.episodes[episode]["length"], every)]
        for episode in episodes
    ]
    counts = [len(frames) for frames in chosen]
    # Allocated at once: thousands of pieces among decoded images would fragment the memory.
    views = Views(
        table=torch.empty(sum(counts), 3, TABLE_PIXELS, TABLE_PIXELS, dtype=torch.uint8),
        wrist=torch.empty(sum(counts), 3, WRIST_PIXELS, WRIST_PIXELS, dtype=torch.uint8),
        fingers=torch.empty(sum(counts), 2),
    )
    truth, end = [], 0
    for episode, frames in zip(episodes, chosen, strict=True):
        rows, wanted = dataset.rows(episode), set(frames)
        pixels = {}
        for camera in CAMERAS:
            images = enumerate(dataset.frames(episode, f"observation.images.{camera}"))
            pixels[camera] = np.stack([image for i, image in images if i in wanted])
        new = make_views(pixels, rows["observation.state"][frames])
        part = slice(end, end := end + len(frames))
        for name in ("table", "wrist", "fingers"):
            getattr(views, name)[part] = getattr(new, name)
        truth.append(torch.tensor(rows[TRUTH][frames]))
    return views, torch.cat(truth)


def train(estimator: StateEstimator, views: Views, truth: Tensor, args: argparse.Namespace) -> None:
    """Train for `args.steps`; print the loss twenty times."""
    estimator.normalise(truth)
    optimizer = torch.optim.AdamW(estimator.parameters(), args.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, args.steps)

    def next_loss() -> Tensor:
        rows = torch.randint(len(views), (args.batch,))
        return estimator.loss(views[rows], truth[rows])

    descend(next_loss, optimizer, schedule, args.steps, every=max(1, args.steps // 20))
    estimator.eval()


@torch.no_grad()
def errors(estimator: StateEstimator, views: Views, truth: Tensor) -> dict[str, np.ndarray]:
    """Return the errors (frames,) in the plane, m, of "object" and "goal"."""
    estimate = torch.cat([estimator(views[rows]) for rows in torch.arange(len(views)).split(256)])
    estimate, real = (ENVIRONMENT_STATE.unpack(values.numpy()) for values in (estimate, truth))
    return {
        name: np.linalg.norm((estimate[f"{name}_pos"] - real[f"{name}_pos"])[:, :2], axis=1)
        for name in ("object", "goal")
    }


class EstimatorPolicy:
    """A state estimator and a BC policy, from images and the arm's state to the next actions."""

    def __init__(self, estimator: StateEstimator, bc_policy: ChunkPolicy) -> None:
        self._estimator, self._bc_policy = estimator, bc_policy

    @torch.no_grad()
    def actions(self, observation: dict[str, Any]) -> np.ndarray:
        """Return the next actions (chunk, 8), rad and m, for a `pixels_agent_pos` observation."""
        pixels = {name: image[None] for name, image in observation["pixels"].items()}
        state = observation["agent_pos"]
        estimate = self._estimator(make_views(pixels, state[None]))[0].numpy()
        return self._bc_policy.actions(np.concatenate([state, estimate]))


def make(env: gym.Env) -> Executor:
    """Return the trained policy, for `pp-evaluate`.

    Raises:
        ValueError: The environment renders other images than the estimator was trained on.
    """
    config = env.unwrapped.config.render
    if (config.resolution, config.preset) != (RESOLUTION, PRESET):
        raise ValueError(
            "the state estimator needs --obs-type pixels_agent_pos "
            f"--resolution {RESOLUTION} --preset {PRESET}"
        )
    torch.set_num_threads(1)
    given = [os.environ[name] for name in CHECKPOINTS if name in os.environ]
    path = given[0] if given else DEFAULT_CHECKPOINT
    saved = torch.load(path, weights_only=True)
    estimator = StateEstimator()
    estimator.load_state_dict(saved.get("estimator") or saved["eyes"])
    bc_policy, settings = load_bc_policy(saved.get("bc_policy") or saved["hands"])
    return Executor(EstimatorPolicy(estimator.eval(), bc_policy), settings.execute)


def load_bc_policy(saved: dict[str, Any]) -> tuple[ChunkPolicy, Settings]:
    """Return the policy that train_bc.py saved, and its settings."""
    settings = Settings(**saved["settings"])
    bc_policy = ChunkPolicy(settings, len(saved["weights"]["input_mean"]))
    bc_policy.load_state_dict(saved["weights"])
    return bc_policy.eval(), settings


def open_dataset(root: Path, episodes: int) -> Dataset:
    """Return the dataset, which is collected now if there is none.

    Raises:
        ValueError: It has too few episodes, or other images.
        RuntimeError: The collection failed.
    """
    if not root.exists():
        words = ["--num-episodes", str(episodes), "--output", str(root)]
        run_collect(*words, "--preset", PRESET, "--resolution", str(RESOLUTION))
    dataset = Dataset(root)
    shapes = {camera: tuple(dataset.features[camera]["shape"]) for camera in dataset.cameras}
    wanted = {f"observation.images.{name}": (RESOLUTION, RESOLUTION, 3) for name in CAMERAS}
    if dataset.num_episodes < episodes or shapes != wanted:
        raise ValueError(
            f"{root} must have at least {episodes} episodes with images {wanted}, but has "
            f"{dataset.num_episodes} with {shapes}; give another --dataset to have it collected"
        )
    return dataset


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = make_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    bc_policy = torch.load(args.bc_policy, weights_only=True)
    load_bc_policy(bc_policy)
    dataset = open_dataset(args.dataset, args.episodes)
    training_episodes = args.episodes - args.held_out
    views, truth = read(dataset, range(training_episodes), args.every)
    print(f"{len(views)} frames of {training_episodes} episodes", flush=True)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    estimator = StateEstimator()
    train(estimator, views, truth, args)
    result: dict[str, Any] = {
        "frames": len(views), "episodes": training_episodes, "steps": args.steps,
        "train_s": time.perf_counter() - begin, "train_cpu_s": time.process_time() - begin_cpu,
    }  # fmt: skip
    held_out = read(dataset, range(training_episodes, args.episodes), 5)
    for name, found in errors(estimator, *held_out).items():
        median, most = (1000 * float(np.quantile(found, share)) for share in (0.5, 0.9))
        result[f"{name}_mm"] = {"median": median, "90 %": most}
        print(f"unseen scenes: {name} to {median:.1f} mm (median), {most:.1f} mm (90 %)")
    args.output.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"estimator": estimator.state_dict(), "bc_policy": bc_policy}, args.output / "policy.pt"
    )
    (args.output / "estimator.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"training took {result['train_cpu_s']:.0f} s of CPU")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", type=Path, default=Path("datasets/images"), help="collected if absent")
    add(
        "--bc-policy",
        "--hands",
        type=Path,
        default=Path("runs/bc/policy.pt"),
        help="of train_bc.py",
    )
    add(
        "--output",
        type=Path,
        default=Path("runs/state_estimator"),
        help="for policy.pt and estimator.json",
    )
    add("--episodes", type=int, default=620, help="number of episodes to use, the first ones")
    add("--held-out", type=int, default=20, help="the last of them, only for measuring errors")
    add("--every", type=int, default=5, help="train on every n-th frame")
    add("--steps", type=int, default=4000, help="gradient steps")
    add("--batch", type=int, default=64, help="frames per gradient step")
    add("--learning-rate", type=float, default=3e-3, help="its peak")
    add("--seed", type=int, default=0, help="of the training")
    add("--threads", type=int, default=1, help="more may change the numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
