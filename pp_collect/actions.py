"""Actions of experts, which give joint targets, in the control mode of the environment."""

from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np

from pp_env.control import hand_pose_action
from pp_recorder.rollout import AnyPolicy, choose_action

ExpertControlMode = Literal["joint_pos", "ee_pose"]  # those that can express joint targets
EXPERT_CONTROL_MODES: tuple[str, ...] = get_args(ExpertControlMode)


class HandPosePolicy:
    """A policy that gives the hand poses (10,) of another one's joint targets (8,).

    Args:
        policy: Gives joint targets, `pp_env.layout.ACTION`.
    """

    uses_info = True

    def __init__(self, policy: AnyPolicy) -> None:
        self._policy = policy

    @property
    def phase(self) -> str:
        """Name of what the policy is doing, or ""."""
        return getattr(self._policy, "phase", "")

    @property
    def done(self) -> bool:
        """True once the policy has nothing more to do."""
        return getattr(self._policy, "done", False)

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Prepare the policy for an episode."""
        self._policy.reset(observation, info, rng)

    def act(self, observation: Any, info: dict[str, Any]) -> np.ndarray:
        """Return the action (10,) float32, `pp_env.layout.HAND_POSE_ACTION`."""
        return hand_pose_action(choose_action(self._policy, observation, info))


def to_control_mode(targets: np.ndarray, control_mode: str) -> np.ndarray:
    """Return joint targets (8,) as an action of a mode of `EXPERT_CONTROL_MODES`."""
    return targets if control_mode == "joint_pos" else hand_pose_action(targets)


def in_control_mode(policy: AnyPolicy, control_mode: str) -> AnyPolicy:
    """Return a policy that gives joint targets (8,) as one for a mode of `EXPERT_CONTROL_MODES`."""
    return policy if control_mode == "joint_pos" else HandPosePolicy(policy)


def set_control_mode(env: gym.Env, control_mode: str) -> None:
    """Choose what the environment's actions mean; the next call must be its `reset`."""
    unwrapped: Any = env.unwrapped
    unwrapped.set_control_mode(control_mode)
