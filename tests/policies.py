"""Policies for `--policy tests.policies:NAME`, most of them wrong in some way."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from experts.pick_place import PickPlaceExpert


class Expert(PickPlaceExpert):
    """A class whose objects are policies."""

    def __init__(self, env) -> None:
        super().__init__()


class Forgetful(PickPlaceExpert):
    """In about half of the episodes, it gives NaN after 100 steps."""

    def __init__(self, env) -> None:
        super().__init__()

    def reset(self, observation, info, rng) -> None:
        super().reset(observation, info, rng)
        self.steps_left = 100 if rng.random() < 0.5 else sys.maxsize

    def act(self, observation):
        self.steps_left -= 1
        return super().act(observation) if self.steps_left >= 0 else np.full(8, np.nan)


class Hopeless:
    """Raises before the first action."""

    def __init__(self, env) -> None:
        pass

    def reset(self, observation, info, rng):
        raise KeyError("start")

    def act(self, observation):
        pass


def hold(env):
    """A plain function: stay where you are, gripper open."""
    return lambda observation: np.append(observation[:7], 0.04)


def nan(env):
    return lambda observation: np.full(8, np.nan, np.float32)


def short(env):
    return lambda observation: np.zeros(7, np.float32)


def complex_(env):
    return lambda observation: np.zeros(8, np.complex64)


def none(env):
    return lambda observation: None


def raises(env):
    def act(observation):
        raise ZeroDivisionError("by zero\nand more")

    return act


def leaves(env):
    return lambda observation: sys.exit("enough")


def dies_once(env):
    """Kills its process, the first time ever."""
    marker = Path(os.environ["TEST_MARKER"])

    def act(observation):
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.append(observation[:7], 0.04)

    return act


def dies(env):
    return lambda observation: os.kill(os.getpid(), signal.SIGKILL)


def dies_early(env):
    os.kill(os.getpid(), signal.SIGKILL)


def no_policy(env):
    return 7


def bad_maker(env):
    raise LookupError("no weights")


NUMBER = 3
