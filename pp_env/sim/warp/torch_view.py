"""`TorchView`: the environments' arrays on the GPU as PyTorch's tensors, without a copy."""

from contextlib import contextmanager
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import warp as wp

from pp_env.sim.warp.kernels import COLUMNS

if TYPE_CHECKING:
    from pp_env.sim.warp.vector_env import WarpVectorEnv

try:
    import torch
except ModuleNotFoundError as error:
    raise ImportError(
        "to_torch needs PyTorch; install it as https://pytorch.org/get-started says"
    ) from error


class TorchView:
    """Steps the environments for a learner on the same device: the host waits for nothing.

    Every tensor is the environments' own memory and changes with the next step; copy what is to
    stay. It autoresets as the environments do.

    Args:
        envs: The environments.

    Attributes:
        num_envs: Number of environments.
        device: Of the tensors.
        observation: A tensor, or a dictionary of them, as the space says; "goal" is not offered.
        values: By name, what is known without sensor noise, (n, size): `pp_env.layout` has the
            names, and "gripper_vel", m/s.
        unmet: (n,) int32, bits of `pp_env.task.CONDITIONS`; 0 is a success.
        distance: (n,) m, from the object to the goal in the table's plane.
        reward: (n,) float32 of the last step.
        terminated: (n,) bool.
        truncated: (n,) bool.
        steps: (n,) int32 since each episode began; what is written here right after `reset` makes
            the first episodes shorter, so that they do not all end at once.
    """

    def __init__(self, envs: "WarpVectorEnv") -> None:
        if envs.obs_type == "goal":
            raise ValueError("to_torch has no obs_type 'goal'; its numbers are in `values`")
        self._envs, self.num_envs = envs, envs.num_envs
        self.device = torch.device(wp.device_to_torch(envs.device))
        tensors = {name: wp.to_torch(array) for name, array in envs.outputs.items()}
        self._actions = wp.to_torch(envs.actions)
        self.values = {name: tensors["values"][:, where] for name, where in COLUMNS.items()}
        self.unmet, self.distance = tensors["unmet"], tensors["distance"]
        self.observation: Any = _observation(tensors)
        self.reward = wp.to_torch(envs.outcome.reward)
        self.terminated = wp.to_torch(envs.outcome.terminated)
        self.truncated = wp.to_torch(envs.outcome.truncated)
        self.steps = wp.to_torch(envs.steps)

    def reset(self, seed: int | None = None) -> Any:
        """Start an episode in every environment, and return `observation`."""
        self._envs.reset(seed=seed)
        return self.observation

    def step(self, actions: "torch.Tensor") -> tuple[Any, Any, Any, Any]:
        """Apply actions (n, action size) on the device for one control period.

        Returns:
            `observation`, `reward`, `terminated` and `truncated`.
        """
        self._actions.copy_(actions)
        with self._on_torchs_stream():
            self._envs.launch_step()
        return self.observation, self.reward, self.terminated, self.truncated

    @contextmanager
    def _on_torchs_stream(self) -> Iterator[None]:
        """Have Warp launch where PyTorch does, so that each sees what the other has done."""
        if self.device.type != "cuda":
            yield
            return
        with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(self.device))):
            yield


def _observation(tensors: dict[str, Any]) -> Any:
    vectors = _parts(tensors, "vector/")
    if list(vectors) == ["state"]:
        return vectors["state"]
    images = _parts(tensors, "image/")
    return {**({"pixels": images} if images else {}), **vectors}


def _parts(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): tensor for k, tensor in tensors.items() if k.startswith(prefix)}
