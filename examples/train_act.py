"""Train LeRobot's ACT on a dataset that is decoded once, into the GPU's memory.

Policy, normalisation, loss and checkpoint are lerobot's own (0.6.1), the same that
`lerobot-train --policy.type=act` uses, and `lerobot-eval` runs the result. What differs:

- The loader: the GPU does not wait for video decoders, so training takes minutes.
- The use of images: the expert's first movement predicts its end, so a policy can learn to
  continue a movement without using the images. `--state` therefore removes most of the arm's state
  from the input, and `--auxiliary-weight` adds an auxiliary loss, in training only: the images'
  features must also predict the ground truth.

See docs/training.md.
"""

import argparse
import json
import math
import mmap
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from pp_recorder.dataset.reader import Dataset

_IMAGENET = {"mean": [[[0.485]], [[0.456]], [[0.406]]], "std": [[[0.229]], [[0.224]], [[0.225]]]}
_TRUTH = "environment_state"
_LEAST_SPREAD = 0.03  # m: limits the weight of values that hardly vary
_BACKBONE_STRIDE = 32  # pixels
_GRADIENT_NORM = 10.0  # as in lerobot-train
_WARM_UP = 0.02  # share of the training in which the learning rate rises
_ADAPT_NORM = 0.9  # share of the training in which a new backbone's normalisation adapts
_EARLY = 30  # frames of the first second
_LOG_EVERY, _MEASURE_EVERY = 100, 1000  # steps


@dataclass
class Frames:
    """Consecutive episodes in memory.

    Attributes:
        images: (frames, 3, H, W) uint8 by column.
        state: (frames, n) float32.
        truth: (frames, k) float32, the environment state.
        action: (frames, m) float32.
        last: (frames,) index of the last frame of the frame's episode.
    """

    images: dict[str, Tensor]
    state: Tensor
    truth: Tensor
    action: Tensor
    last: Tensor

    def __len__(self) -> int:
        return len(self.state)

    @property
    def starts(self) -> Tensor:
        """Return (episodes,) indices of the first frames."""
        return nn.functional.pad(self.last.unique()[:-1] + 1, (1, 0))

    def first_second(self) -> Tensor:
        """Return (n,) indices of the frames in each episode's first second.

        They are oversampled, because only they require the object's position to be seen from a
        distance: in later ones the arm in the images shows where it is going.
        """
        return (self.starts[:, None] + torch.arange(_EARLY, device=self.last.device)).flatten()

    def to(self, device: str) -> "Frames":
        """Return the same frames on another device."""
        images = {key: images.to(device) for key, images in self.images.items()}
        rest = (tensor.to(device) for tensor in (self.state, self.truth, self.action, self.last))
        return Frames(images, *rest)

    def batch(self, frames: Tensor, chunk_size: int, shift: int = 0) -> dict[str, Tensor]:
        """Return the batch that `LeRobotDataset` and its loader give for these frames.

        Args:
            frames: (batch,) indices.
            chunk_size: Actions per frame.
            shift: Largest random shift of an image, pixels; its edges are repeated.
        """
        chunk = frames[:, None] + torch.arange(chunk_size, device=frames.device)
        last = self.last[frames, None]
        batch = {k: _pick(images, frames, shift).float() / 255 for k, images in self.images.items()}
        batch[OBS_STATE] = self.state[frames]
        batch[ACTION] = self.action[chunk.minimum(last)]
        batch["action_is_pad"] = chunk > last
        return batch


def _pick(images: Tensor, frames: Tensor, shift: int) -> Tensor:
    """Return selected images (batch, 3, H, W), each shifted by up to `shift` pixels."""
    if shift == 0:
        return images[frames]
    height, width = images.shape[2:]
    device = frames.device
    dy, dx = torch.randint(-shift, shift + 1, (2, len(frames), 1), device=device)
    y = (torch.arange(height, device=device) + dy).clamp(0, height - 1)
    x = (torch.arange(width, device=device) + dx).clamp(0, width - 1)
    channel = torch.arange(3, device=device)[None, :, None, None]
    return images[frames[:, None, None, None], channel, y[:, None, :, None], x[:, None, None, :]]


def load(dataset: Dataset, episodes: range) -> Frames:
    """Decode consecutive episodes on all processors; call this before CUDA is used."""
    entries = [dataset.episodes[i] for i in episodes]
    first = entries[0]["dataset_from_index"]
    rows = slice(first, entries[-1]["dataset_to_index"])
    last = [torch.full([e["length"]], e["dataset_to_index"] - 1 - first) for e in entries]
    count = rows.stop - rows.start
    images = {key: _shared((count, *dataset.features[key]["shape"])) for key in dataset.cameras}
    # Forked: the workers share dataset and images without copies.
    with multiprocessing.get_context("fork").Pool(None, _set_job, (dataset, images)) as pool:
        pool.starmap(_decode, [(key, i, first) for i in episodes for key in dataset.cameras])
    return Frames(
        images={key: pixels.permute(0, 3, 1, 2) for key, pixels in images.items()},
        state=torch.tensor(dataset.column(OBS_STATE)[rows]),
        truth=torch.tensor(dataset.column(_TRUTH)[rows]),
        action=torch.tensor(dataset.column(ACTION)[rows]),
        last=torch.cat(last),
    )


def _shared(shape: tuple[int, ...]) -> Tensor:
    """Return a uint8 tensor that forked processes can write to, too."""
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=torch.uint8).reshape(shape)


_job: tuple[Dataset, dict[str, Tensor]]


def _set_job(*job: Any) -> None:
    global _job
    _job = job


def _decode(camera: str, episode: int, first: int) -> None:
    dataset, pixels = _job
    begin = dataset.episodes[episode]["dataset_from_index"] - first
    target = pixels[camera].numpy()[begin:]
    for i, image in enumerate(dataset.frames(episode, camera)):
        target[i] = image


def replace_modules(parent: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    """Replace every `old` below `parent` by a `new` with the same tensors."""
    for name, child in parent.named_children():
        if isinstance(child, old):
            tensors = {k: v for k, v in child.state_dict().items() if "num_batches" not in k}
            size = len(tensors["weight"])
            module = new(size).to(tensors["weight"].device)
            module.load_state_dict(tensors, strict=False)
            setattr(parent, name, module)
        else:
            replace_modules(child, old, new)


def make_act(args: argparse.Namespace, meta: LeRobotDatasetMetadata) -> ACTPolicy:
    """Return a policy for the dataset's features, new or from a checkpoint.

    Raises:
        RuntimeError: The checkpoint's weights have other shapes.
    """
    config = ACTConfig(
        device=args.device,
        chunk_size=args.chunk_size,
        n_action_steps=args.action_steps,
        dim_model=args.dim_model,
        dim_feedforward=args.dim_feedforward,
        use_vae=False,  # ACT's paper: it does not help with scripted demonstrations
        pretrained_backbone_weights=args.backbone_weights,
        optimizer_lr=args.learning_rate,
        optimizer_lr_backbone=args.backbone_learning_rate,
        push_to_hub=False,
    )
    policy = make_policy(config, ds_meta=meta)
    if args.start_from is not None:
        policy.load_state_dict(load_file(args.start_from / "model.safetensors"))
    return policy


def statistics(
    meta: LeRobotDatasetMetadata, inputs: Sequence[str]
) -> dict[str, dict[str, np.ndarray | Tensor]]:
    """Return the dataset's statistics, with ImageNet's for images as in lerobot-train.

    Values of the state that are not an input get an infinite standard deviation, so that the
    checkpoint's own normalisation makes them zero wherever the policy runs.

    Args:
        meta: Of the dataset.
        inputs: Names in `observation.state`, or prefixes of names.

    Raises:
        ValueError: There is no such name.
    """
    stats = dict(meta.stats)
    names = meta.features[OBS_STATE]["names"]
    for prefix in inputs:
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"--state has {prefix!r}, but {OBS_STATE} has only {names}")
    is_input = np.array([name.startswith(tuple(inputs)) for name in names])
    std = np.where(is_input, stats[OBS_STATE]["std"], np.inf).astype(np.float32)
    stats[OBS_STATE] = {**stats[OBS_STATE], "std": std}
    for camera in meta.camera_keys:
        stats[camera] = {**stats[camera], **{k: torch.tensor(v) for k, v in _IMAGENET.items()}}
    return stats


def held_out_errors(
    policy: ACTPolicy, frames: Frames, preprocess, args: argparse.Namespace
) -> dict[str, float]:
    """Return mean absolute errors of predicted chunks, in standard deviations of the actions.

    The error at the start shows whether the policy uses the images, because the arm's state there
    is the same in all episodes.
    """
    some = torch.arange(0, len(frames), 7, device=args.device)
    return {
        "held_out_l1": _error(policy, frames, some, preprocess, args),
        "held_out_l1_start": _error(policy, frames, frames.starts, preprocess, args),
    }


@torch.no_grad()
def _error(
    policy: ACTPolicy, frames: Frames, rows: Tensor, preprocess, args: argparse.Namespace
) -> float:
    total = 0.0
    for part in rows.split(args.batch_size):
        with autocast(args):
            _, losses = policy.forward(preprocess(frames.batch(part, args.chunk_size)))
        total += losses["l1_loss"] * len(part)
    return total / len(rows)


def autocast(args: argparse.Namespace) -> torch.autocast:
    """Return a context for bfloat16, if that is selected."""
    return torch.autocast(args.device, torch.bfloat16, enabled=args.bfloat16)


def learning_rate_share(progress: float) -> float:
    """Return the learning rate as a share of its peak: a linear rise, then half a cosine.

    Args:
        progress: Share of the training that is done.
    """
    if progress < _WARM_UP:
        return progress / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class JointBackbone(nn.Module):
    """A policy's backbone that processes the images of all cameras as one batch, in training only.

    ACT passes one camera's images after the other. Batch normalisation would use each camera's own
    statistics in training, and those of all cameras in evaluation.

    Args:
        backbone: Of the policy.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self._maps: list[Tensor] = []

    def encode(self, images: Sequence[Tensor]) -> Tensor:
        """Process all cameras' images for the next forward pass; return features (batch, n)."""
        self._maps = list(self.backbone(torch.cat(list(images)))["feature_map"].chunk(len(images)))
        return torch.cat([features.flatten(1) for features in self._maps], dim=1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the features of the next camera's images."""
        if not self._maps:
            return self.backbone(image)
        return {"feature_map": self._maps.pop(0)}


class AuxiliaryLoss(nn.Module):
    """A layer that predicts the ground truth from a policy's image features, in training only.

    Args:
        policy: The policy with the features.
        truth: (frames, k) of the dataset.
    """

    def __init__(self, policy: ACTPolicy, truth: Tensor) -> None:
        super().__init__()
        channels = policy.model.encoder_img_feat_input_proj.in_channels
        shapes = [feature.shape for feature in policy.config.image_features.values()]
        cells = sum(
            math.ceil(h / _BACKBONE_STRIDE) * math.ceil(w / _BACKBONE_STRIDE) for _, h, w in shapes
        )
        self._layer = nn.Linear(channels * cells, truth.shape[1])
        self._mean, self._spread = truth.mean(0), truth.std(0).clamp_min(_LEAST_SPREAD)

    def loss(self, features: Tensor, truth: Tensor) -> Tensor:
        """Return the mean absolute error, in standard deviations.

        Args:
            features: (batch, n).
            truth: (batch, k).
        """
        predicted = self._layer(features)
        return (predicted - (truth - self._mean) / self._spread).abs().mean()


def set_mode(policy: ACTPolicy, training: bool, adapt_norm: bool) -> None:
    """Switch dropout, and batch normalisation between the batch's and the learned statistics."""
    policy.train(training)
    for module in policy.model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(training and adapt_norm)


def train(
    policy: ACTPolicy, frames: Frames, held_out: Frames | None, preprocess, args: argparse.Namespace
) -> dict[str, float]:
    """Train for `args.steps` or `args.minutes`, whichever is shorter; return the result."""
    backbone = policy.model.backbone
    if args.backbone_weights is None and args.start_from is None:
        # LeRobot's backbone has the frozen normalisation of pretrained weights. A new backbone has
        # no statistics yet that could be frozen.
        replace_modules(backbone, FrozenBatchNorm2d, nn.BatchNorm2d)
    backbone.to(memory_format=torch.channels_last)
    joint_backbone = policy.model.backbone = JointBackbone(backbone)
    images = list(policy.config.image_features)
    early_frames = frames.first_second()
    auxiliary = AuxiliaryLoss(policy, frames.truth).to(args.device)
    optimizer = torch.optim.AdamW(
        [*policy.get_optim_params(), {"params": auxiliary.parameters()}],
        lr=args.learning_rate,
        weight_decay=policy.config.optimizer_weight_decay,
        fused=args.device == "cuda",
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    begin, step, seconds, log = time.perf_counter(), 0, 0.0, {}
    while (progress := max(step / args.steps, seconds / (60 * args.minutes))) < 1:
        set_mode(policy, training=True, adapt_norm=progress < _ADAPT_NORM)
        for group, rate in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = rate * learning_rate_share(progress)
        picks = _sample(len(frames), early_frames, args)
        batch = preprocess(frames.batch(picks, args.chunk_size, args.shift))
        with autocast(args):
            auxiliary_loss = auxiliary.loss(
                joint_backbone.encode([batch[key] for key in images]), frames.truth[picks]
            )
            loss, losses = policy.forward(batch)
        optimizer.zero_grad()
        (loss + args.auxiliary_weight * auxiliary_loss).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), _GRADIENT_NORM)
        optimizer.step()
        step, seconds = step + 1, time.perf_counter() - begin
        if step % _LOG_EVERY == 0:
            log = {"step": step, "seconds": round(seconds), "l1": losses["l1_loss"]}
            log["auxiliary"] = auxiliary_loss.item()
            if held_out is not None and step % _MEASURE_EVERY == 0:
                set_mode(policy, training=False, adapt_norm=False)
                log |= held_out_errors(policy, held_out, preprocess, args)
            print(json.dumps(log), flush=True)
    set_mode(policy, training=False, adapt_norm=False)
    policy.model.backbone = backbone
    replace_modules(backbone, nn.BatchNorm2d, FrozenBatchNorm2d)
    errors = held_out_errors(policy, held_out, preprocess, args) if held_out else {}
    return {"steps": step, "seconds": seconds, **errors}


def _sample(count: int, early_frames: Tensor, args: argparse.Namespace) -> Tensor:
    """Return indices (batch,) of random frames, a share of them from the first second.

    Args:
        count: Number of all frames.
        early_frames: (n,) indices of the frames in the first second.
        args: The command line.
    """
    size = (args.batch_size,)
    picks = torch.randint(count, size, device=args.device)
    early = early_frames[torch.randint(len(early_frames), size, device=args.device)]
    chance = torch.rand(args.batch_size, device=args.device)
    return torch.where(chance < args.early_share, early, picks)


def main() -> None:
    """Run the command line."""
    args = make_parser().parse_args()
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    dataset = Dataset(args.dataset)
    episodes = args.episodes or dataset.num_episodes
    training_episodes = episodes - args.held_out
    begin = time.perf_counter()
    frames = load(dataset, range(training_episodes))
    held_out = load(dataset, range(training_episodes, episodes)) if args.held_out else None
    print(f"{len(frames)} frames decoded in {time.perf_counter() - begin:.0f} s", flush=True)
    meta = LeRobotDatasetMetadata(f"local/{args.dataset.name}", root=args.dataset)
    policy = make_act(args, meta)
    preprocess, postprocess = make_pre_post_processors(
        policy.config,
        args.start_from,  # its weights fit its own normalisation
        dataset_stats=statistics(meta, args.state),
        preprocessor_overrides={"device_processor": {"device": args.device}},
    )
    result = train(
        policy,
        frames.to(args.device),
        held_out.to(args.device) if held_out else None,
        preprocess,
        args,
    )
    for part in (policy, preprocess, postprocess):
        part.save_pretrained(args.output)
    result |= {"episodes": training_episodes, "frames": len(frames), "batch_size": args.batch_size}
    (args.output / "train_act.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("dataset", type=Path, help="LeRobot v3.0 dataset with images")
    add("--output", type=Path, default=Path("outputs/act"), help="folder of the checkpoint")
    add("--steps", type=int, default=15000, help="optimizer steps")
    add("--minutes", type=float, default=math.inf, help="stop at the latest after so many")
    add("--batch-size", type=int, default=256, help="frames per step")
    add("--learning-rate", type=float, default=2e-4, help="its peak")
    add("--backbone-learning-rate", type=float, default=1e-3, help="the same for the backbone")
    add("--chunk-size", type=int, default=50, help="actions predicted at once")
    add("--action-steps", type=int, default=50, help="of these, executed before predicting again")
    add("--dim-model", type=int, default=512, help="width of the transformer")
    add("--dim-feedforward", type=int, default=3200, help="width of its feed-forward layers")
    add(
        "--early-share",
        "--early",
        type=float,
        default=0.3,
        help="share of frames that are sampled from the first second",
    )
    add("--state", nargs="*", default=["gripper_pos"], help="names, or prefixes, of inputs from it")
    add(
        "--auxiliary-weight",
        "--lesson",
        type=float,
        default=1.0,
        help="weight of the auxiliary loss on the ground truth; 0: none",
    )
    add("--shift", type=int, default=0, help="largest random shift of images, pixels")
    add("--episodes", type=int, help="use only the first so many; default: all")
    add("--held-out", type=int, default=20, help="the last of them, only for measuring errors")
    add("--start-from", type=Path, metavar="CHECKPOINT", help="of this program, to continue from")
    add("--backbone-weights", help="such as ResNet18_Weights.IMAGENET1K_V1; default: none")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="for torch")
    add(
        "--bfloat16",
        action=argparse.BooleanOptionalAction,
        default=torch.cuda.is_available(),
        help="faster on GPUs, and on CPUs with instructions for it",
    )
    add("--seed", type=int, default=0, help="of the training")
    return parser


if __name__ == "__main__":
    main()
