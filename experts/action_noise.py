"""Noise on executed actions, in proportion to the commanded motion."""

import numpy as np

from pp_env.layout import ACTION, Layout

MAX_ACTION_NOISE = 1.0


class ActionNoise:
    """A `pp_recorder.rollout.Disturbance`: the faster the command moves, the more it is disturbed.

    Each field but the last, which is the gripper's, gets Gaussian noise whose standard deviation
    is a share of the largest change in that field since the last action. At rest there is none, so
    that nothing trembles near contact.

    Args:
        share: Standard deviation as a share of the motion.
        layout: The meaning of an action.

    Raises:
        ValueError: `share` is out of range.
    """

    def __init__(self, share: float, layout: Layout = ACTION) -> None:
        if not 0.0 <= share <= MAX_ACTION_NOISE:
            raise ValueError(f"share must be from 0 to {MAX_ACTION_NOISE}, got {share}")
        self._share, self._layout = share, layout
        self._last: np.ndarray | None = None
        self._rng = np.random.default_rng(0)

    def reset(self, rng: np.random.Generator) -> None:
        """Prepare for an episode."""
        self._rng, self._last = rng, None

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """Return what is executed in place of an action (n,)."""
        motion = np.zeros(len(action)) if self._last is None else np.abs(action - self._last)
        self._last = action.copy()
        noise = self._rng.standard_normal(len(action)) * self._share
        *fields, gripper = self._layout.unpack(np.arange(len(action))).values()
        for numbers in fields:
            noise[numbers] *= motion[numbers].max()
        noise[gripper] = 0.0
        return (action + noise).astype(action.dtype)
