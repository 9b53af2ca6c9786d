"""A simulator without physics, for the layers above it, and policies for tests."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pp_env import gpus, kinematics, rotation
from pp_env.config import PickPlaceConfig
from pp_env.sim import SIMULATORS
from pp_env.sim.api import Command, InitialState, Pose, SimState
from pp_env.sim.grasp import is_grasped, tcp_position
from pp_recorder.rollout import Policy


class FakeSimulator:
    """A simulator without physics: joints reach their targets at once.

    A held object moves with the hand, a released one lands on the table.
    """

    def __init__(self, config: PickPlaceConfig) -> None:
        self.config = config
        self.closed = False

    @property
    def description(self) -> dict:
        return {"name": "fake"}

    def reset(self, initial: InitialState) -> SimState:
        fingers = np.full(2, initial.gripper_pos)
        self._offset = np.zeros(3)
        self._object = self.config.object_pool[initial.target]
        self._state = self._make_state(
            initial.joint_pos, fingers, np.zeros(2), initial.object, False
        )
        return self._state

    def step(self, command: Command) -> SimState:
        before, config = self._state, self.config
        held = is_grasped(before, command, config.grasp, self._object)
        if held and not before.is_grasped:
            offset = before.object.position - before.eef.position
            self._offset = rotation.unrotate(before.eef.quat_wxyz, offset)
        stop = self._object.grasp_width / 2 if self._is_between_fingers() else 0.0
        fingers = np.full(2, max(command.gripper, stop))
        speed = (fingers - before.gripper_pos) * config.timing.control_hz
        state = self._make_state(command.arm, fingers, speed, before.object, held)
        position = state.object.position
        if held:
            position = state.eef.position + rotation.rotate(state.eef.quat_wxyz, self._offset)
        elif before.is_grasped:
            position = np.append(position[:2], config.rest_z_of(self._object))
        self._state = state._replace(object=Pose(position, state.object.quat_wxyz))
        return self._state

    def move_object(self, pose: Pose) -> SimState:
        self._state = self._state._replace(object=pose)
        return self._state

    def render(self, camera: str, kind: str = "rgb") -> np.ndarray:
        width, height = self.config.render.size
        row = np.arange(height, dtype=np.uint8)[:, None, None]
        shade = int(abs(self._state.joint_pos[0]) * 100) % 100
        tint = len(camera) * 10
        return np.broadcast_to(row, (height, width, 3)) // 4 + np.uint8(shade + tint)

    def close(self) -> None:
        self.closed = True

    def _is_between_fingers(self) -> bool:
        offset = self._state.object.position - tcp_position(self._state)
        return bool((np.abs(offset) < np.array(self._object.size) / 2).all())

    def _make_state(self, joints, fingers, speed, obj: Pose, held: bool) -> SimState:
        position, orientation = kinematics.forward(joints)
        hand = Pose(position, rotation.from_matrix(orientation))
        still = np.zeros(7)
        return SimState(joints.copy(), still, fingers, speed, hand, obj, np.zeros(3), held)


# The simulator of the environment's tests: Isaac Sim's Python has no MuJoCo.
SIMULATOR = "mujoco" if importlib.util.find_spec("mujoco") else FakeSimulator


class StillPolicy(Policy):
    """A policy that always returns the same action."""

    def __init__(self, action: np.ndarray) -> None:
        self.action = action

    def act(self, observation) -> np.ndarray:
        return self.action


class RandomPolicy:
    """A policy that samples from the action space, seeded by the episode's generator."""

    def __init__(self, space) -> None:
        self._space = space

    def reset(self, observation, info, rng) -> None:
        self._space.seed(int(rng.integers(2**31)))

    def act(self, observation):
        return self._space.sample()


class Log:
    """A sink that records its calls, steps and episodes."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.steps = []
        self.episodes = []

    def begin(self, seed) -> None:
        self.calls.append("begin")

    def add(self, step) -> None:
        self.steps.append(step)

    def end(self, episode) -> None:
        self.calls.append("end")
        self.episodes.append(episode)

    def abort(self) -> None:
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")


def pretend_nvidia_smi(
    folder: Path, monkeypatch: pytest.MonkeyPatch, uuids: Sequence[str], end: str = ""
) -> None:
    """Have `nvidia-smi` list GPUs and run a command, in processes that are started here, too."""
    program = folder / "nvidia-smi"
    program.write_text("\n".join(["#!/bin/sh", *(f"echo {uuid}" for uuid in uuids), end]))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    gpus.installed_gpus.cache_clear()


def forget_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the GPUs that this machine has, and which of them the environment chooses."""
    for name in ("CUDA_VISIBLE_DEVICES", *(row.gpu_variable for row in SIMULATORS.values())):
        monkeypatch.delenv(name, raising=False)
    gpus.installed_gpus.cache_clear()
