"""Policies for `--policy tests.policies:NAME`, most of them wrong in some way."""

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from experts.pick_place import PickPlaceExpert
from experts.reach import HOME
from pp_env import rotation
from pp_env.layout import OBSERVATION
from pp_recorder.rollout import episode_seed


class Expert(PickPlaceExpert):
    """A class whose objects are policies."""

    def __init__(self, env) -> None:
        super().__init__()


class Brisk(PickPlaceExpert):
    """Eight steps per waypoint, and double precision, which the dataset does not have."""

    def __init__(self, env) -> None:
        super().__init__(steps_per_segment=8)

    def act(self, observation):
        return super().act(observation).astype(np.float64)


class Tiring(Brisk):
    """Raises an error in the second episode, counted by its resets."""

    resets = 0

    def reset(self, observation, info, rng) -> None:
        super().reset(observation, info, rng)
        self.resets += 1

    def act(self, observation):
        if self.resets == 3:  # the first is that of a trial
            raise ValueError("tired")
        return super().act(observation)


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


def waits(env):
    """Takes as long as a test wants: until there is a file, or a minute."""
    marker, deadline = Path(os.environ["TEST_MARKER"]), time.monotonic() + 60
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return lambda observation: np.append(observation[:7], 0.04)


def dies(env):
    return lambda observation: os.kill(os.getpid(), signal.SIGKILL)


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def huge(env):
    return lambda observation: np.full(8, 1e39)


def wide(env):
    return lambda observation: np.zeros((1, 8), np.float32)


def ragged(env):
    return lambda observation: [[1.0], [2.0, 3.0]]


def raising(error):
    def act(observation):
        raise error

    return act


def cancels(env):
    return raising(asyncio.CancelledError())


def interrupts(env):
    return raising(KeyboardInterrupt())


def unspeakable(env):
    return raising(UnspeakableError())


def unprintable(env):
    return raising(ValueError("\udcff"))


def exits(env):
    return lambda observation: os._exit(7)


def dies_in_a_thread(env):
    def act(observation):
        threading.Thread(target=os._exit, args=(8,)).start()
        time.sleep(60)

    return act


class WrongInTurn:
    """Right in episode 0, wrong in another way in each of the next ones, and right again."""

    names = (
        *("nan", "huge", "short", "wide", "complex_", "none", "ragged", "raises", "leaves"),
        *("cancels", "interrupts", "unspeakable", "unprintable"),
        *("dies", "exits", "dies_in_a_thread"),
    )

    def __init__(self, env):
        draws = (np.random.default_rng([episode_seed(0, k), 1]).random() for k in range(1000))
        self.episodes = {draw: k for k, draw in enumerate(draws)}
        self.env = env

    def reset(self, observation, info, rng):
        turn = self.episodes[rng.random()] - 1
        name = self.names[turn] if 0 <= turn < len(self.names) else "hold"
        self.choose = globals()[name](self.env)

    def act(self, observation):
        return self.choose(observation)


def dies_early(env):
    os.kill(os.getpid(), signal.SIGKILL)


def no_policy(env):
    return 7


def bad_maker(env):
    raise LookupError("no weights")


NUMBER = 3


class Planner:
    """Has a plan of five steps, by a share from the pictures and else from the state."""

    pictures_share = 1.0
    noise = 0.0

    def __init__(self, env) -> None:
        self.size = env.action_space.shape[0]

    def reset(self, observation, info, rng) -> None:
        self.rng = rng

    def act(self, observation):
        return self.plan(observation)[0]

    def plan(self, observation):
        pictures = np.concatenate([image.ravel() for image in observation["pixels"].values()])
        share = self.pictures_share
        joints = share * _scatter(pictures) + (1 - share) * _scatter(observation["agent_pos"] * 1e4)
        joints = HOME + joints + self.noise * self.rng.normal(size=7)
        return np.tile(np.append(joints, 0.04), (5, 1))


def _scatter(values):
    """Return seven numbers from -0.5 to 0.5 that any change of the values changes."""
    weights = np.random.default_rng(7).normal(size=(len(values), 7))
    return 0.5 * np.sin(values.astype(float) @ weights)


class Looks(Planner):
    """Sees only the pictures."""


class Guesses(Planner):
    """Sees only the pictures, and is not sure."""

    noise = 0.5


class Copies(Planner):
    """Sees only the arm's state."""

    pictures_share = 0.0


class Mixes(Planner):
    """Sees both, and of the pictures twice as much."""

    pictures_share = 2 / 3


class Insists(Planner):
    """Sees nothing."""

    def plan(self, observation):
        return np.tile(np.append(HOME, 0.04), (5, 1))


class Stands(Planner):
    """Plans to stay, in any control mode."""

    def plan(self, observation):
        state = OBSERVATION.unpack(observation["agent_pos"])
        columns = rotation.to_columns(rotation.to_matrix(state["eef_quat"]))
        arm = {
            "8": state["joint_pos"],
            "7": np.zeros(6),
            "10": np.concatenate([state["eef_pos"], columns]),
        }[str(self.size)]
        return np.tile(np.append(arm, 0.04), (5, 1))


class StandsByDeltas(Stands):
    """Plans to stay, in joint_delta."""

    def plan(self, observation):
        return np.zeros((5, 8))


class PlansNaN(Planner):
    def plan(self, observation):
        return np.full((5, 8), np.nan)


class PlansOneAction(Planner):
    def plan(self, observation):
        return np.zeros(8)


class PlansText(Planner):
    def plan(self, observation):
        return np.full((5, 8), "left")


class PlansMoreAndMore(Planner):
    steps = 5

    def plan(self, observation):
        self.steps += 1
        return np.zeros((self.steps, 8))


class PlansNothing(Planner):
    def plan(self, observation):
        raise ZeroDivisionError("by zero")


def three(env):
    """Too few numbers."""
    return lambda observation: np.zeros(3)


def nothing(env):
    """No policy."""


def blink(env):
    """Needs the pictures, and opens the gripper further than it goes."""

    def act(observation):
        assert observation["pixels"]["cam_high"].shape == (64, 64, 3)
        return np.append(observation["agent_pos"][:7], 1.0)

    return act
