"""What stands between the environment and the simulator in a randomized episode."""

from collections import deque

import numpy as np

from pp_env.randomization import Variation
from pp_env.sim.api import Command, SimState


class SensorNoise:
    """Noise on the joints as they are observed. Call it once per state.

    Args:
        variation: How much, and the seed; None is no noise.
    """

    def __init__(self, variation: Variation | None) -> None:
        variation = variation or Variation()
        self._position, self._velocity = variation.joint_pos_noise, variation.joint_vel_noise
        self._rng = np.random.default_rng(variation.sensor_seed)

    def __call__(self, state: SimState) -> SimState:
        """The state as the sensors show it; the state itself if there is no noise."""
        if not (self._position or self._velocity):
            return state
        noise = self._rng.standard_normal((2, state.joint_pos.size))
        return state._replace(
            joint_pos=state.joint_pos + self._position * noise[0],
            joint_vel=state.joint_vel + self._velocity * noise[1],
        )


class ActionDelay:
    """Hands out commands some control periods after they were given.

    Args:
        variation: How many; None is no delay.
        initial: What is commanded until the first one has its effect.
    """

    def __init__(self, variation: Variation | None, initial: Command) -> None:
        self._waiting = deque([initial] * (variation.action_delay if variation else 0))

    def __call__(self, command: Command) -> Command:
        """The command that is due now."""
        self._waiting.append(command)
        return self._waiting.popleft()
