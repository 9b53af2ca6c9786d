"""Noise on executed actions, in proportion to the commanded motion."""

import numpy as np

MAX_ACTION_NOISE = 1.0


class ActionNoise:
    """A `pp_recorder.rollout.Disturbance`: the faster the command moves, the more it is disturbed.

    Each number but the last, which is the gripper's, gets Gaussian noise whose standard deviation
    is a share of the largest change among them since the last action. At rest there is none, so
    that nothing trembles near contact.

    Args:
        share: Standard deviation as a share of the motion.

    Raises:
        ValueError: `share` is out of range.
    """

    def __init__(self, share: float) -> None:
        if not 0.0 <= share <= MAX_ACTION_NOISE:
            raise ValueError(f"share must be from 0 to {MAX_ACTION_NOISE}, got {share}")
        self._share = share
        self._last: np.ndarray | None = None
        self._rng = np.random.default_rng(0)

    def reset(self, rng: np.random.Generator) -> None:
        """Prepare for an episode."""
        self._rng, self._last = rng, None

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """Return what is executed in place of an action (n,)."""
        motion = 0.0 if self._last is None else float(np.abs(action - self._last)[:-1].max())
        self._last = action.copy()
        noise = self._rng.standard_normal(len(action)) * self._share * motion
        noise[-1] = 0.0
        return (action + noise).astype(action.dtype)
