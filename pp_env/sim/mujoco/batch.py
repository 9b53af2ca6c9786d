"""Step the physics of many MuJoCo simulators on several threads.

Everything else that a step does stays in the simulator, so the results equal those of stepping one
simulator after the other, bit for bit, with any number of threads.
"""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco

from pp_env.config import PickPlaceConfig
from pp_env.processors import usable_processors
from pp_env.sim.mujoco.simulator import MujocoSimulator


def make_simulators(config: PickPlaceConfig, count: int) -> list[MujocoSimulator]:
    """Return `count` simulators that share one compiled scene and one OpenGL context."""
    first = MujocoSimulator(config)
    return [first, *(MujocoSimulator(config, share_model_with=first) for _ in range(count - 1))]


class Stepper:
    """A thread pool that steps simulators with `mujoco.mj_step`, which releases Python's lock.

    The caller's thread is one of the threads.

    Args:
        simulators: At least one; all of the same scene.
        num_threads: None for the number of processors that this process may use.
    """

    def __init__(self, simulators: Sequence[MujocoSimulator], num_threads: int | None) -> None:
        self._simulators, self._wanted_threads = list(simulators), num_threads
        self._physics = [simulator.physics for simulator in simulators]
        self._num_threads = min(num_threads or usable_processors(), len(simulators))
        self._start_pool()

    def __getstate__(self) -> dict[str, Any]:
        return {"simulators": self._simulators, "num_threads": self._wanted_threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # a copy has its own threads

    def step(self, indices: Sequence[int], count: int) -> None:
        """Advance the simulators at these indices by `count` physics steps."""
        if self._process != os.getpid():  # a fork copies no threads
            self._start_pool()
        shares = [indices[k :: self._num_threads] for k in range(self._num_threads)]

        def step_share(share: Sequence[int]) -> None:
            for i in share:
                mujoco.mj_step(*self._physics[i], count)

        others = self._pool.map(step_share, shares[1:])
        step_share(shares[0])
        list(others)  # waits, and raises the threads' errors

    def _start_pool(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(max(self._num_threads - 1, 1))  # starts them when needed

    def close(self) -> None:
        """Stop the threads; a second call has no effect."""
        self._pool.shutdown()
