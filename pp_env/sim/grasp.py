"""The rule for when the gripper holds the object, from command and state alone, for any simulator.

The rule requires fingers that were stopped by the object between them, so a learned policy must
really grasp: it cannot use the attachment as a magnet.
"""

import math

import numpy as np

from pp_env import panda
from pp_env.config import GraspConfig
from pp_env.objects import ObjectConfig
from pp_env.rotation import rotate, unrotate
from pp_env.sim.api import Command, SimState


def is_grasped(state: SimState, command: Command, config: GraspConfig, obj: ObjectConfig) -> bool:
    """Return True if the gripper holds the object after `command` was given in `state`.

    A held object stays held until the gripper is commanded open. Otherwise it becomes held when
    the gripper is commanded closed, both fingers have stopped short of closing and are no further
    apart than the object is wide, and the object is near `panda_hand` and between the fingers.
    """
    if command.gripper >= config.closed_below:
        return False
    if state.is_grasped:
        return True
    return (
        _fingers_have_stopped(state, config, obj)
        and all(position > command.gripper for position in state.gripper_pos.tolist())
        and _is_near_hand(state, config, obj)
        and _is_between_fingers(state, config, obj)
    )


def tcp_position(state: SimState) -> np.ndarray:
    """Return the point between the finger pads, (3,) m, world."""
    offset = np.array([0.0, 0.0, panda.TCP_OFFSET])
    return state.eef.position + rotate(state.eef.quat_wxyz, offset)


def _is_near_hand(state: SimState, config: GraspConfig, obj: ObjectConfig) -> bool:
    dx, dy, dz = (state.object.position - state.eef.position).tolist()
    dz += obj.grasp_height  # a tall object is grasped above its centre
    return math.hypot(dx, dy) < config.max_distance_xy and abs(dz) < config.max_distance_z


def _is_between_fingers(state: SimState, config: GraspConfig, obj: ObjectConfig) -> bool:
    tcp_in_object = unrotate(state.object.quat_wxyz, tcp_position(state) - state.object.position)
    reach = np.array(obj.size) / 2 + config.margin
    return bool((np.abs(tcp_in_object) < reach).all())


def _fingers_have_stopped(state: SimState, config: GraspConfig, obj: ObjectConfig) -> bool:
    velocities = state.gripper_vel.tolist()
    if not config.requires_touch:
        return all(abs(velocity) < config.stopped_speed for velocity in velocities)
    return abs(sum(velocities)) < config.stopped_speed and _fingers_touch(state, config, obj)


def _fingers_touch(state: SimState, config: GraspConfig, obj: ObjectConfig) -> bool:
    """Return True if the fingers are as near to each other as the object lets them.

    Without this, fingers that have not begun to move would count as stopped.
    """
    closing_axis = rotate(state.eef.quat_wxyz, np.array([0.0, 1.0, 0.0]))
    x, y, z = unrotate(state.object.quat_wxyz, closing_axis)
    width, depth, height = obj.size
    if obj.shape == "cylinder":
        extent = width * math.hypot(x, y) + height * abs(z)
    else:
        extent = width * abs(x) + depth * abs(y) + height * abs(z)
    return sum(state.gripper_pos.tolist()) < extent + config.margin
