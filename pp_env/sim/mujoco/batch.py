"""The physics of many MuJoCo simulators, on several threads.

What a simulator does around its physics stays with it, so the results are those of one simulator
after the other, bit for bit, at any number of threads.
"""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import mujoco

from pp_env.config import PickPlaceConfig
from pp_env.sim.mujoco.simulator import MujocoSimulator


def make_simulators(config: PickPlaceConfig, count: int) -> list[MujocoSimulator]:
    """So many simulators of one scene, compiled once, that share one OpenGL context."""
    first = MujocoSimulator(config)
    return [first, *(MujocoSimulator(config, twin=first) for _ in range(count - 1))]


class Stepper:
    """Steps simulators with `mujoco.mj_step`, which frees Python's lock, on several threads.

    The caller's thread is one of them.

    Args:
        simulators: At least one; they have one scene.
        num_threads: None is as many as this process may use processors.
    """

    def __init__(self, simulators: Sequence[MujocoSimulator], num_threads: int | None) -> None:
        self._parts = [simulator.physics for simulator in simulators]
        self._num_threads = min(num_threads or _usable_cpus(), len(simulators))
        self._pool = ThreadPoolExecutor(max(self._num_threads - 1, 1))  # started when needed

    def step(self, indices: Sequence[int], count: int) -> None:
        """Advances the simulators at these indices by so many physics steps."""
        shares = [indices[k :: self._num_threads] for k in range(self._num_threads)]

        def step_share(share: Sequence[int]) -> None:
            for i in share:
                mujoco.mj_step(*self._parts[i], count)

        others = self._pool.map(step_share, shares[1:])
        step_share(shares[0])
        list(others)  # waits, and raises what went wrong

    def close(self) -> None:
        """Ends the threads; a second call has no effect."""
        self._pool.shutdown()


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
