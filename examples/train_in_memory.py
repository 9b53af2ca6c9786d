"""Train a LeRobot policy on a dataset that is decoded once, into the GPU's memory.

    python examples/train_in_memory.py --config_path=examples/act.json \
        --dataset.root=datasets/anywhere --output_dir=outputs/act

The options are those of lerobot-train (0.6), and so are policy, normalisation, loss, optimizer and
checkpoints: `lerobot-eval`, `pp-evaluate` and `lerobot-train --resume=true` take what this leaves.
What differs is the loader: no step waits for video decoders, so a training takes minutes.
"""

import argparse
import json
import logging
import math
import mmap
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torch
    from lerobot.common.train_utils import (
        get_step_checkpoint_dir,
        load_training_state,
        save_checkpoint,
        update_last_checkpoint,
    )
    from lerobot.configs import parser
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.optim.factory import make_optimizer_and_scheduler
    from lerobot.policies.factory import make_policy, make_pre_post_processors
    from lerobot.policies.pretrained import PreTrainedPolicy
    from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
    from lerobot.utils.import_utils import register_third_party_plugins
    from torch import Tensor, nn
except ModuleNotFoundError as missing:
    if __name__ == "__main__":
        if {"-h", "--help"} & set(sys.argv):
            sys.exit(print(__doc__))
        wanted = "pip install 'lerobot[training]>=0.6,<0.8'"
        sys.exit(f"error: {missing.name} is not installed; try: {wanted}")
    raise

from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.evaluation.lerobot_policy import Checkpoint

_IMAGENET = {"mean": [[[0.485]], [[0.456]], [[0.406]]], "std": [[[0.229]], [[0.224]], [[0.225]]]}
LossFunction = Callable[[dict[str, Any]], Tensor]

_RESULT = "train_in_memory.json"
_START = time.perf_counter()
_GPU_RESERVE = 8e9  # bytes that training needs beside the images


@dataclass
class Frames:
    """Whole episodes in memory.

    Attributes:
        images: (frames, 3, H, W) uint8 by column.
        state: (frames, n) float32.
        action: (frames, m) float32.
        first: (frames,) index of the first frame of the frame's episode.
        last: (frames,) index of the last one.
    """

    images: dict[str, Tensor]
    state: Tensor
    action: Tensor
    first: Tensor
    last: Tensor

    def to(self, device: str) -> "Frames":
        """Return the same frames on another device."""
        images = {key: images.to(device) for key, images in self.images.items()}
        rest = (part.to(device) for part in (self.state, self.action, self.first, self.last))
        return Frames(images, *rest)

    def batch(
        self, frames: Tensor, observed: Sequence[int] | None, actions: Sequence[int]
    ) -> dict[str, Any]:
        """Return the batch that `LeRobotDataset` and its loader give for these frames.

        Args:
            frames: (batch,) indices.
            observed: Which frames are observed, relative to these; None for these alone, without a
                dimension for time.
            actions: Which actions are to be predicted, likewise.
        """
        rows, _ = (frames, None) if observed is None else self._around(frames, observed)
        action_rows, is_pad = self._around(frames, actions)
        batch: dict[str, Any] = {key: self.images[key][rows].float() / 255 for key in self.images}
        batch[OBS_STATE] = self.state[rows]
        batch[ACTION] = self.action[action_rows]
        batch["action_is_pad"] = is_pad
        batch["task"] = [""] * len(frames)
        return batch

    def _around(self, frames: Tensor, offsets: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return indices (batch, offsets) within the episodes, and where that repeats an end."""
        wanted = frames[:, None] + torch.tensor(offsets, device=frames.device)
        rows = wanted.clamp(self.first[frames, None], self.last[frames, None])
        return rows, rows != wanted


def load(dataset: Dataset, episodes: Sequence[int], cameras: Sequence[str]) -> Frames:
    """Decode episodes on all processors."""
    lengths = [dataset.episodes[i]["length"] for i in episodes]
    ends = np.cumsum(lengths)
    begins = ends - lengths
    images = {key: _shared((int(ends[-1]), *dataset.features[key]["shape"])) for key in cameras}
    # Forked: the workers share dataset and images without copies.
    with multiprocessing.get_context("fork").Pool(None, _set_job, (dataset, images)) as pool:
        jobs = [(key, i, b) for i, b in zip(episodes, begins, strict=True) for key in cameras]
        pool.starmap(_decode, jobs)
    first = dataset.column("episode_index")[:, 0]
    rows = np.flatnonzero(np.isin(first, episodes))
    return Frames(
        images={key: pixels.permute(0, 3, 1, 2) for key, pixels in images.items()},
        state=torch.tensor(dataset.column(OBS_STATE)[rows]),
        action=torch.tensor(dataset.column(ACTION)[rows]),
        first=torch.tensor(np.repeat(begins, lengths)),
        last=torch.tensor(np.repeat(ends - 1, lengths)),
    )


def _shared(shape: tuple[int, ...]) -> Tensor:
    """Return a uint8 tensor that forked processes can write to, too."""
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=torch.uint8).reshape(shape)


_job: tuple[Dataset, dict[str, Tensor]]


def _set_job(*job: Any) -> None:
    global _job
    _job = job


def _decode(camera: str, episode: int, begin: int) -> None:
    dataset, pixels = _job
    target = pixels[camera].numpy()[begin:]
    for i, image in enumerate(dataset.frames(episode, camera)):
        target[i] = image


@dataclass(frozen=True)
class Metadata:
    """What LeRobot's factories read of `LeRobotDatasetMetadata`."""

    features: dict[str, dict[str, Any]]
    stats: dict[str, dict[str, np.ndarray]]


def read_metadata(dataset: Dataset, imagenet: bool) -> Metadata:
    """Return features and statistics, with ImageNet's for images as in lerobot-train.

    Raises:
        DatasetError: The dataset has no statistics, no state or no action.
    """
    if missing := {OBS_STATE, ACTION} - set(dataset.features):
        raise DatasetError(f"{dataset.root} has no {sorted(missing)}, so it teaches no policy")
    stored = dataset.stats
    if stored is None:
        raise DatasetError(f"{dataset.root} has no statistics; record it with collect.py")
    stats = {
        feature: {name: np.asarray(value) for name, value in values.items()}
        for feature, values in stored.items()
    }
    if imagenet:
        for camera in dataset.cameras:
            stats[camera] |= {name: np.array(value) for name, value in _IMAGENET.items()}
    return Metadata(dataset.features, stats)


def choose_cameras(cfg: TrainPipelineConfig, dataset: Dataset) -> list[str]:
    """Return the images that the policy takes: those in its config, or all of the dataset.

    Raises:
        DatasetError: The dataset lacks one, or has none.
    """
    wanted = [key for key in cfg.policy.input_features or {} if key.startswith(OBS_IMAGES)]
    if missing := sorted(set(wanted) - set(dataset.cameras)):
        raise DatasetError(
            f"the policy takes {missing}, but {dataset.root} has only {dataset.cameras}; "
            "collect it with --cameras, or name others in --policy.input_features"
        )
    if not dataset.cameras:
        raise DatasetError(f"{dataset.root} has no images; collect it without --no-cameras")
    return wanted or dataset.cameras


def require_same_images(cfg: TrainPipelineConfig, dataset: Dataset, cameras: Sequence[str]) -> None:
    """Check that a policy from which the training goes on sees the same images.

    Raises:
        DatasetError: It sees other cameras, or images of another size.
    """
    if cfg.policy.pretrained_path is None:
        return
    seen = Checkpoint(Path(cfg.policy.pretrained_path)).inputs
    seen = {key: shape for key, shape in seen.items() if key.startswith(OBS_IMAGES)}
    sizes = {key: dataset.features[key]["shape"] for key in cameras}
    given = {key: (size[2], size[0], size[1]) for key, size in sizes.items()}
    if seen != given:
        raise DatasetError(
            f"the policy {cfg.policy.pretrained_path} sees {seen}, but of {dataset.root} it would "
            f"see {given}; collect with its cameras and resolution, or choose among the dataset's "
            "with --policy.input_features"
        )


def require_memory(cfg: TrainPipelineConfig, dataset: Dataset, cameras: Sequence[str]) -> None:
    """Check that there is a GPU, unless the CPU was asked for, and that the images fit.

    Raises:
        RuntimeError: There is none, or they do not.
    """
    if cfg.policy.device != "cuda":
        if not cfg.resume and parser.parse_arg("policy.device") != cfg.policy.device:
            raise RuntimeError(
                "torch finds no GPU: install a build of torch with CUDA, or give "
                "--policy.device=cpu and be patient"
            )
        return
    episodes = cfg.dataset.episodes or range(dataset.num_episodes)
    count = sum(dataset.episodes[i]["length"] for i in episodes)
    needed = count * sum(math.prod(dataset.features[key]["shape"]) for key in cameras)
    memory = torch.cuda.get_device_properties(0).total_memory
    if needed + _GPU_RESERVE > memory:
        raise RuntimeError(
            f"{count} frames of {len(cameras)} cameras take {needed / 1e9:.1f} GB and training "
            f"{_GPU_RESERVE / 1e9:.0f} GB more, but the GPU has {memory / 1e9:.1f} GB; give fewer "
            "--dataset.episodes, record smaller images, or use lerobot-train"
        )


@dataclass
class Training:
    """A policy, what trains it, and how far it is.

    Attributes:
        policy: The policy, on its device.
        optimizer: Of its weights.
        scheduler: Of the learning rate.
        preprocess: From a batch to the policy's input.
        postprocess: From the policy's output to actions.
        step: Optimizer steps so far.
    """

    policy: PreTrainedPolicy
    optimizer: Any
    scheduler: Any
    preprocess: Any
    postprocess: Any
    step: int = 0

    def loss(self, batch: dict[str, Any], bfloat16: bool) -> Tensor:
        """Return the loss of a batch, and make the gradients anew."""
        device = self.policy.config.device
        self.policy.zero_grad()
        # On the device by default: ACT makes a tensor on the CPU, which a graph cannot copy.
        with torch.device(device), torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss, _ = self.policy.forward(batch)
        loss.backward()
        return loss.detach()

    def update(self, most: float) -> None:
        """Make a step with the gradients, whose norm is limited."""
        nn.utils.clip_grad_norm_(self.policy.parameters(), most)
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1

    def save(self, cfg: TrainPipelineConfig) -> Path:
        """Write a checkpoint as lerobot-train does; return its folder."""
        folder = get_step_checkpoint_dir(cfg.output_dir, cfg.steps, self.step)
        trained = (self.policy, self.optimizer, self.scheduler)
        save_checkpoint(folder, self.step, cfg, *trained, self.preprocess, self.postprocess)
        update_last_checkpoint(folder)
        return folder


def prepare(cfg: TrainPipelineConfig, metadata: Metadata) -> Training:
    """Return a new training, or that of the checkpoint from which the config resumes."""
    torch.manual_seed(cfg.seed or 0)
    policy = make_policy(cfg.policy, ds_meta=metadata)
    policy.train()
    processors = make_pre_post_processors(
        cfg.policy,
        cfg.policy.pretrained_path,
        dataset_stats=metadata.stats,
        preprocessor_overrides={"device_processor": {"device": cfg.policy.device}},
    )
    training = Training(policy, *make_optimizer_and_scheduler(cfg, policy), *processors)
    if cfg.resume:
        training.step, training.optimizer, training.scheduler = load_training_state(
            cfg.checkpoint_path, training.optimizer, training.scheduler
        )
    torch.manual_seed((cfg.seed or 0) + training.step)  # a continuation draws other frames
    return training


def train(cfg: TrainPipelineConfig, own: argparse.Namespace) -> dict[str, Any]:
    """Train up to the config's steps or the minutes; return what was done."""
    dataset = Dataset(Path(cfg.dataset.root or ""))
    cameras = choose_cameras(cfg, dataset)
    metadata = read_metadata(dataset, cfg.dataset.use_imagenet_stats)
    require_same_images(cfg, dataset, cameras)
    require_memory(cfg, dataset, cameras)
    begin = time.perf_counter()
    frames = load(dataset, cfg.dataset.episodes or range(dataset.num_episodes), cameras)
    count = len(frames.state)
    print(f"{count} frames decoded in {time.perf_counter() - begin:.0f} s", flush=True)

    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    training = prepare(cfg, metadata)
    earlier = previous_seconds(cfg)  # before `last` is another checkpoint
    seconds = earlier + run(training, frames.to(cfg.policy.device), cfg, own)
    checkpoint = training.save(cfg)
    result = {
        "step": training.step,
        "samples": training.step * cfg.batch_size,
        "seconds": seconds,
        "episodes": len(cfg.dataset.episodes or dataset.episodes),
        "frames": count,
        "card": torch.cuda.get_device_name() if cfg.policy.device == "cuda" else "CPU",
    }
    (checkpoint / _RESULT).write_text(json.dumps(result, indent=1) + "\n")
    return result


def run(
    training: Training, frames: Frames, cfg: TrainPipelineConfig, own: argparse.Namespace
) -> float:
    """Make the steps, and save checkpoints between them; return the time it took, s."""
    device = cfg.policy.device
    # Of the last frames, policies such as Diffusion leave some out, whose actions are all padding.
    left_out = getattr(cfg.policy, "drop_n_last_frames", 0)
    position = torch.arange(len(frames.state), device=device)
    usable = position[position + left_out <= frames.last]
    observed, actions = cfg.policy.observation_delta_indices, cfg.policy.action_delta_indices

    def draw() -> dict[str, Any]:
        picks = usable[torch.randint(len(usable), (cfg.batch_size,), device=device)]
        return training.preprocess(frames.batch(picks, observed, actions))

    loss_of: LossFunction = partial(training.loss, bfloat16=own.bfloat16)
    if own.cuda_graph and device == "cuda":
        loss_of = graph(loss_of, draw())
    begin, done = time.perf_counter(), training.step
    while training.step < cfg.steps and time.perf_counter() - _START < 60 * own.minutes:
        loss = loss_of(draw())
        training.update(cfg.optimizer.grad_clip_norm)
        step = training.step
        if step % cfg.log_freq == 0:
            speed = (step - done) / (time.perf_counter() - begin)
            print(f"step {step} loss {loss.item():.4f} {speed:.1f} steps/s", flush=True)
        if cfg.save_freq > 0 and step % cfg.save_freq == 0 and step < cfg.steps:
            training.save(cfg)
    return time.perf_counter() - begin


def graph(loss_of: LossFunction, example: dict[str, Any]) -> LossFunction:
    """Return a loss and its gradients as a CUDA graph, which does not wait for Python.

    Args:
        loss_of: Function from a batch to its loss, which also makes the gradients anew.
        example: A batch.
    """
    batch = {key: part.clone() for key, part in example.items() if isinstance(part, Tensor)}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # CUDA's libraries prepare themselves in the first runs
        for _ in range(3):
            loss_of(batch)
    torch.cuda.current_stream().wait_stream(stream)
    whole = torch.cuda.CUDAGraph()
    with torch.cuda.graph(whole):
        loss = loss_of(batch)

    def replay(other: dict[str, Any]) -> Tensor:
        for key, part in batch.items():
            part.copy_(other[key])
        whole.replay()
        return loss

    return replay


def previous_seconds(cfg: TrainPipelineConfig) -> float:
    """Return how long the trainings took that this one continues, s."""
    path = (cfg.checkpoint_path or Path()) / _RESULT
    return json.loads(path.read_text())["seconds"] if cfg.resume and path.is_file() else 0.0


@parser.wrap()
def read_config(cfg: TrainPipelineConfig) -> TrainPipelineConfig:
    """Return the config of LeRobot's command line."""
    cfg.validate()
    return cfg


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options that lerobot-train does not have."""
    own = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="All other options are those of lerobot-train.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, flag = own.add_argument, argparse.BooleanOptionalAction
    add("--minutes", type=float, default=math.inf, help="end in time, to be resumed")
    add("--cuda-graph", action=flag, default=torch.cuda.is_available(), help="of each step")
    add("--bfloat16", action=flag, default=torch.cuda.is_available(), help="compute in bfloat16")
    return own


def main() -> None:
    """Run the command line."""
    own, sys.argv[1:] = make_parser().parse_known_args()
    # Without FFmpeg's libraries that would be two pages of tracebacks, and PyAV decodes here.
    logging.getLogger("lerobot.utils.import_utils").addFilter(
        lambda record: "torchcodec" not in record.getMessage()
    )
    register_third_party_plugins()
    try:
        print(json.dumps(train(read_config(), own)))
    except (DatasetError, RuntimeError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
