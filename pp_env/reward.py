"""Rewards, each in [0, 1]. Pure functions.

Sparse: 1 in every state that is a success, else 0.

Dense: in stages. Each begins at the most that the one before can give:

| stage | reward |
|---|---|
| the gripper is not at the object | 0 to 0.15, more the nearer the TCP is to it |
| it holds the object | 0.15 to 0.4, more the nearer the object is to its place on the target |
| the object lies on the target, let go | 0.4 to 1, more the wider the gripper, and nearer HOME |
| success | 1 |

Half of it is for the way home, which is learned last and from small differences. What the joints
add grows with the gripper's opening: it can also clamp the object where `pp_env.sim.grasp` sees no
grasp, and would move it on the way home.

With goals (`obs_type="goal"`) only the object's position counts, so that there is a reward for any
goal: sparse 1 where the object is on the target, dense `1 - tanh(5 d)` with d its distance in m.
"""

import math

import numpy as np

from pp_env import panda
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig
from pp_env.sim.api import SimState
from pp_env.sim.grasp import tcp_position

REWARD_TYPES = ("sparse", "dense")

REACHED, CARRIED = 0.15, 0.4  # greatest reward of the first and of the second stage
OPENED = 0.1  # that is added to it by a gripper that is open, wherever the arm is
PER_METRE = 5.0
PER_RADIAN = 1.0  # of the joints' Euclidean distance from HOME
_UNPLACED = {"away_from_target", "not_on_table", "still_held"}


def dense(state: SimState, goal: np.ndarray, unmet: list[str], config: PickPlaceConfig) -> float:
    """Return the staged reward of a state, in [0, 1].

    Args:
        state: The state.
        goal: (3,) where the object's centre belongs, m, world frame.
        unmet: Conditions for success that do not hold (`pp_env.task.unmet_conditions`).
        config: The scene; only its tolerances matter.
    """
    if not unmet:
        return 1.0
    if not _UNPLACED & set(unmet):
        opening = min(max(state.gripper_pos.min().item() / panda.FINGER_OPEN, 0.0), 1.0)
        away = math.dist(state.joint_pos, HOME_JOINT_POS)
        home = (1.0 - CARRIED - OPENED) * _near(PER_RADIAN * away)
        return CARRIED + opening * (OPENED + home)
    if state.is_grasped:
        distance = math.dist(state.object.position, goal)
        return REACHED + (CARRIED - REACHED) * _near(PER_METRE * distance)
    return REACHED * _near(PER_METRE * math.dist(tcp_position(state), state.object.position))


def of_goals(
    achieved: np.ndarray, desired: np.ndarray, kind: str, config: PickPlaceConfig
) -> np.ndarray:
    """Return the rewards (...) of `obs_type="goal"`.

    Args:
        achieved: (..., 3) where the object is, m, world frame.
        desired: (..., 3) where it belongs, m, world frame.
        kind: One of `REWARD_TYPES`.
        config: The scene and its tolerances.
    """
    offset = np.asarray(achieved, dtype=np.float64) - np.asarray(desired, dtype=np.float64)
    if kind == "dense":
        return 1.0 - np.tanh(PER_METRE * np.linalg.norm(offset, axis=-1))
    in_plane = np.hypot(offset[..., 0], offset[..., 1]) <= config.task.place_tolerance
    on_table = np.abs(offset[..., 2]) <= config.task.height_tolerance
    return (in_plane & on_table).astype(np.float64)


def _near(x: float) -> float:
    """Return a score that falls from 1 at zero distance to 0 far away."""
    return 1.0 - math.tanh(x)
