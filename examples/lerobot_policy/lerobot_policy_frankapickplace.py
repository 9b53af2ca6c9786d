"""LeRobot's ACT and Diffusion Policy as `--policy.type=pickplace_act` and `pickplace_diffusion`.

They are LeRobot's own policies, with what its options do not offer:

- Only some numbers of the state are inputs: joint velocities predict the expert's next action, so a
  policy that has them copies the motion and does not look.
- In training, images are shifted at random, each on its own.
- ACT's backbone has group normalisation. LeRobot's has frozen batch normalisation, which needs
  pretrained weights.
- ACT's learning rate rises and falls back to zero, as Diffusion's does.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.act.processor_act import make_act_pre_post_processors
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

Stats = dict[str, dict[str, Any]]

_CHANNELS_PER_GROUP = 16  # as in Diffusion Policy


@dataclass
class PickPlaceConfig:
    """What both policies have beside LeRobot's options.

    Attributes:
        state_inputs: Names of numbers in `observation.state` that are inputs, or their prefixes.
        image_shift: Largest random shift of an image in training, pixels; its edges are repeated.
        state_names: Names of all numbers in `observation.state`; taken from the dataset.
    """

    state_inputs: list[str] = field(default_factory=lambda: ["joint_pos", "gripper_pos"])
    image_shift: int = 4
    state_names: list[str] = field(default_factory=list)

    def set_dataset_feature_metadata(self, features: dict[str, dict[str, Any]]) -> None:
        """Take the names from a dataset's features; called by `lerobot.policies.make_policy`.

        Raises:
            ValueError: The dataset's state lacks an input.
        """
        names = features.get(OBS_STATE, {}).get("names") or []
        for prefix in self.state_inputs:
            if not any(name.startswith(prefix) for name in names):
                raise ValueError(
                    f"--policy.state_inputs has {prefix!r}, but the dataset's {OBS_STATE} has "
                    f"only {names}; name some of these, or their prefixes"
                )
        self.state_names = list(names)

    def without_other_inputs(self, stats: Stats) -> Stats:
        """Return statistics by which normalisation makes all other numbers of the state constant.

        Args:
            stats: Of the dataset, by feature.
        """
        chosen = [name.startswith(tuple(self.state_inputs)) for name in self.state_names]
        is_input = torch.tensor(chosen)
        state = {key: torch.as_tensor(value) for key, value in stats[OBS_STATE].items()}
        spread = {key: torch.where(is_input, state[key], torch.inf) for key in ("std", "max")}
        return {**stats, OBS_STATE: {**state, **spread}}


@PreTrainedConfig.register_subclass("pickplace_act")
@dataclass
class PickPlaceACTConfig(PickPlaceConfig, ACTConfig):
    """ACT's options.

    Attributes:
        group_norm: Whether the backbone has group normalisation, for training from scratch.
        warmup_steps: Steps in which the learning rate rises.

    Raises:
        ValueError: Pretrained weights are to have group normalisation.
    """

    group_norm: bool = True
    warmup_steps: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_norm and self.pretrained_backbone_weights is not None:
            raise ValueError(
                f"{self.pretrained_backbone_weights} was trained with batch normalisation: give "
                "--policy.group_norm=false, or --policy.pretrained_backbone_weights=null"
            )

    def get_scheduler_preset(self) -> Any:
        """Return a rise to the learning rate, then half a cosine down to zero."""
        from lerobot.optim.schedulers import CosineAnnealingWithWarmupSchedulerConfig  # from 0.6 on

        return CosineAnnealingWithWarmupSchedulerConfig(num_warmup_steps=self.warmup_steps)


@PreTrainedConfig.register_subclass("pickplace_diffusion")
@dataclass
class PickPlaceDiffusionConfig(PickPlaceConfig, DiffusionConfig):
    """Diffusion Policy's options."""


class PickPlaceACTPolicy(ACTPolicy):
    """ACT; see the module."""

    config_class = PickPlaceACTConfig
    name = "pickplace_act"

    def __init__(self, config: PickPlaceACTConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if config.group_norm:
            use_group_norm(self.model.backbone)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Return ACT's loss of a batch and, for ACT with a VAE, its parts as numbers."""
        if self.training:
            batch = shift_images(batch, self.config)
        if self.config.use_vae:
            return super().forward(batch)
        # Super's forward asks the GPU for the loss, which a CUDA graph cannot answer.
        images = [batch[key] for key in self.config.image_features]
        planned, _ = self.model({**batch, OBS_IMAGES: images})
        is_valid = ~batch["action_is_pad"].unsqueeze(-1).expand_as(planned)
        error = (batch[ACTION] - planned).abs() * is_valid
        return error.sum() / is_valid.sum().clamp_min(1), {}


class PickPlaceDiffusionPolicy(DiffusionPolicy):
    """Diffusion Policy; see the module."""

    config_class = PickPlaceDiffusionConfig
    name = "pickplace_diffusion"

    def __init__(self, config: PickPlaceDiffusionConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if config.use_group_norm:
            use_group_norm(self.diffusion.rgb_encoder)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, None]:
        """Return Diffusion Policy's loss of a batch."""
        if self.training:
            batch = shift_images(batch, self.config)
        return super().forward(batch)


def make_pickplace_act_pre_post_processors(
    config: PickPlaceACTConfig, dataset_stats: Stats
) -> tuple[Any, Any]:
    """Return ACT's processors, which hide what is no input."""
    return make_act_pre_post_processors(config, config.without_other_inputs(dataset_stats))


def make_pickplace_diffusion_pre_post_processors(
    config: PickPlaceDiffusionConfig, dataset_stats: Stats
) -> tuple[Any, Any]:
    """Return Diffusion Policy's processors, which hide what is no input."""
    return make_diffusion_pre_post_processors(config, config.without_other_inputs(dataset_stats))


class GroupNorm(nn.GroupNorm):
    """Group normalisation in the type of its input.

    In mixed precision torch's own computes in float32, for which the largest tensors of the network
    are converted back and forth.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised tensor, of the input's shape (batch, channels, ...) and type."""
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        with torch.autocast(input.device.type, enabled=False):
            return F.group_norm(input, self.num_groups, weight, bias, self.eps)


def use_group_norm(parent: nn.Module) -> None:
    """Replace the normalisation of images below a module by new group normalisation."""
    for name, child in parent.named_children():
        if isinstance(child, (FrozenBatchNorm2d, nn.GroupNorm)):
            channels = len(child.weight)
            setattr(parent, name, GroupNorm(channels // _CHANNELS_PER_GROUP, channels))
        else:
            use_group_norm(child)


def shift_images(
    batch: dict[str, Any], config: PickPlaceACTConfig | PickPlaceDiffusionConfig
) -> dict[str, Any]:
    """Return a batch with each image shifted at random, as far as the config allows."""
    if config.image_shift == 0:
        return batch
    return {**batch, **{k: shift(batch[k], config.image_shift) for k in config.image_features}}


def shift(images: Tensor, most: int) -> Tensor:
    """Return images (..., C, H, W), each shifted by up to `most` pixels in both directions."""
    *batch, channels, height, width = images.shape
    device = images.device

    def source(size: int) -> Tensor:
        offset = torch.randint(-most, most + 1, (*batch, 1), device=device)
        return (torch.arange(size, device=device) + offset).clamp(0, size - 1)

    rows = source(height)[..., None, :, None].expand(*batch, channels, height, width)
    columns = source(width)[..., None, None, :].expand(*batch, channels, height, width)
    return images.gather(-2, rows).gather(-1, columns)
