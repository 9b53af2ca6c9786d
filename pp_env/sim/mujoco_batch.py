"""The physics of many MuJoCo simulators in one call, on several threads.

What a simulator does around its physics stays with it, so the results are those of one simulator
after the other, bit for bit, at any number of threads.
"""

# pyright: reportAttributeAccessIssue=false
# (the bindings are compiled and have no stubs)

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import mujoco
import numpy as np

from pp_env.config import PickPlaceConfig
from pp_env.sim.mujoco_sim import MujocoSimulator

try:
    from mujoco.batch import Batch
except ImportError:  # before MuJoCo 3.17
    Batch = None

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # everything that decides what mj_step does


class Stepper(Protocol):
    """Steps some of the simulators that it was made for."""

    def step(self, indices: Sequence[int], count: int) -> None:
        """Advances the simulators at these indices, ascending, by so many physics steps."""
        ...

    def close(self) -> None:
        """Ends its threads."""
        ...


def make_simulators(config: PickPlaceConfig, count: int) -> list[MujocoSimulator]:
    """So many simulators of one scene, compiled once, that share one OpenGL context."""
    first = MujocoSimulator(config)
    return [first, *(MujocoSimulator(config, twin=first) for _ in range(count - 1))]


def make_stepper(simulators: Sequence[MujocoSimulator], num_threads: int | None) -> Stepper:
    """The fastest way of stepping them that this version of MuJoCo has.

    Args:
        simulators: At least one; they have one scene.
        num_threads: None is as many as this process may use processors.
    """
    threads = min(num_threads or _usable_cpus(), len(simulators))
    if threads == 1:
        return LoopStepper(simulators)
    return (BatchStepper if Batch is not None else ThreadStepper)(simulators, threads)


class LoopStepper:
    """Steps with `mujoco.mj_step`, one after the other, in the caller's thread."""

    def __init__(self, simulators: Sequence[MujocoSimulator]) -> None:
        self._parts = [simulator.physics for simulator in simulators]

    def step(self, indices: Sequence[int], count: int) -> None:
        """Advances the simulators at these indices by so many physics steps."""
        for i in indices:
            mujoco.mj_step(*self._parts[i], count)

    def close(self) -> None:
        """Does nothing: it has no threads."""


class BatchStepper:
    """Steps with `mujoco.batch`."""

    def __init__(self, simulators: Sequence[MujocoSimulator], num_threads: int) -> None:
        assert Batch is not None
        self._parts = [simulator.physics for simulator in simulators]
        self._models = [model for model, _ in self._parts]
        self._batch = Batch(self._models[0], len(simulators), num_threads)

    def step(self, indices: Sequence[int], count: int) -> None:
        """Advances the simulators at these indices, ascending, by so many physics steps."""
        rows = self._batch.state
        for i in indices:
            mujoco.mj_getState(*self._parts[i], rows[i], _STATE)
        self._batch.set_models(self._models)  # it asks for that after every change of one
        self._batch.step(np.asarray(indices, dtype=np.int32), nstep=count)
        for i in indices:
            mujoco.mj_setState(*self._parts[i], rows[i], _STATE)

    def close(self) -> None:
        """Does nothing: the batch ends its threads when it is freed."""


class ThreadStepper:
    """Steps with `mujoco.mj_step`, which frees Python's lock, on several threads."""

    def __init__(self, simulators: Sequence[MujocoSimulator], num_threads: int) -> None:
        self._parts = [simulator.physics for simulator in simulators]
        self._num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads)

    def step(self, indices: Sequence[int], count: int) -> None:
        """Advances the simulators at these indices by so many physics steps."""
        shares = [indices[k :: self._num_threads] for k in range(self._num_threads)]

        def step_share(share: Sequence[int]) -> None:
            for i in share:
                mujoco.mj_step(*self._parts[i], count)

        list(self._pool.map(step_share, shares))

    def close(self) -> None:
        """Ends the threads; a second call has no effect."""
        self._pool.shutdown()


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
