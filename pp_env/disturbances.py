"""Sensor noise and action delay between the environment and the simulator."""

from collections import deque

import numpy as np

from pp_env.randomization import Variation
from pp_env.sim.api import Command, SimState


class SensorNoise:
    """Gaussian noise on the observed joint positions and velocities. Call it once per state.

    Args:
        variation: Standard deviations and seed; None is no noise.
    """

    def __init__(self, variation: Variation | None) -> None:
        variation = variation or Variation()
        self._position, self._velocity = variation.joint_pos_noise, variation.joint_vel_noise
        self._rng = np.random.default_rng(variation.sensor_seed)

    def __call__(self, state: SimState) -> SimState:
        """Return the state with noise; the state itself if there is none."""
        if not (self._position or self._velocity):
            return state
        noise = self._rng.standard_normal((2, state.joint_pos.size))
        return state._replace(
            joint_pos=state.joint_pos + self._position * noise[0],
            joint_vel=state.joint_vel + self._velocity * noise[1],
        )


class ActionDelay:
    """A queue that delays commands by a number of control periods.

    Args:
        variation: Number of control periods; None is no delay.
        initial: Command until the first one has passed through.
    """

    def __init__(self, variation: Variation | None, initial: Command) -> None:
        self._queue = deque([initial] * (variation.action_delay if variation else 0))

    def __call__(self, command: Command) -> Command:
        """Append a command and return the one that is due now."""
        self._queue.append(command)
        return self._queue.popleft()
