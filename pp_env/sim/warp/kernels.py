"""The environment's rules as kernels, one thread per world: grasp, success, reward, reset.

They say in float32 what `pp_env.sim.grasp`, `pp_env.task` and `pp_env.reward` say in numpy; the
tests compare them. Quaternions are w, x, y, z, as MuJoCo stores them in Warp's type.
"""

# pyright: reportGeneralTypeIssues=false, reportInvalidTypeForm=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportAssignmentType=false, reportMissingImports=false
# (Warp compiles the functions' source, in its own types)

from typing import Any

import numpy as np
import warp as wp

from pp_env import panda, reward
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig
from pp_env.layout import ENVIRONMENT_STATE, GOAL_OBSERVATION, OBSERVATION, Layout
from pp_env.task import CONDITIONS

wp.set_module_options({"enable_backward": False})


def _columns() -> dict[str, slice]:
    """Return where each field of the layouts stands in a row of `values`."""
    sizes = {"gripper_vel": 2}
    for layout in (OBSERVATION, ENVIRONMENT_STATE, GOAL_OBSERVATION):
        sizes |= {field.name: field.size for field in layout.fields}
    ends = np.cumsum(list(sizes.values())).tolist()
    return {
        name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)
    }


COLUMNS = _columns()
NUM_VALUES = max(where.stop for where in COLUMNS.values())

NUM_COLUMNS = wp.constant(NUM_VALUES)
_JOINT_POS = wp.constant(COLUMNS["joint_pos"].start)
_JOINT_VEL = wp.constant(COLUMNS["joint_vel"].start)
_GRIPPER_POS = wp.constant(COLUMNS["gripper_pos"].start)
_GRIPPER_VEL = wp.constant(COLUMNS["gripper_vel"].start)
_EEF_POS = wp.constant(COLUMNS["eef_pos"].start)
_EEF_QUAT = wp.constant(COLUMNS["eef_quat"].start)
_OBJECT_POS = wp.constant(COLUMNS["object_pos"].start)
_OBJECT_QUAT = wp.constant(COLUMNS["object_quat"].start)
_OBJECT_VEL = wp.constant(COLUMNS["object_vel"].start)
_GOAL_POS = wp.constant(COLUMNS["goal_pos"].start)
_IS_GRASPED = wp.constant(COLUMNS["is_grasped"].start)

_AWAY, _NOT_ON_TABLE, _HELD, _MOVING, _NOT_OPEN, _NOT_HOME = (
    wp.constant(1 << CONDITIONS.index(name))
    for name in (
        "away_from_target", "not_on_table", "still_held", "object_moving", "gripper_not_open",
        "arm_not_home",
    )
)  # fmt: skip

_TCP_OFFSET = wp.constant(panda.TCP_OFFSET)
_FINGER_OPEN = wp.constant(panda.FINGER_OPEN)
_HAND_DOWN = wp.constant(wp.vec4(*panda.HAND_DOWN_QUAT_WXYZ.tolist()))
_REACHED, _CARRIED = wp.constant(reward.REACHED), wp.constant(reward.CARRIED)
_OPENED = wp.constant(reward.OPENED)
_PER_METRE, _PER_RADIAN = wp.constant(reward.PER_METRE), wp.constant(reward.PER_RADIAN)

Vec7 = wp.types.vector(length=7, dtype=wp.float32)
_HOME = wp.constant(Vec7(*HOME_JOINT_POS))


@wp.struct
class Rules:
    """The numbers of a configuration's grasp and task."""

    attaches: wp.bool
    requires_touch: wp.bool
    closed_below: wp.float32
    stopped_speed: wp.float32
    max_distance_xy: wp.float32
    max_distance_z: wp.float32
    margin: wp.float32
    place_tolerance: wp.float32
    height_tolerance: wp.float32
    rest_speed: wp.float32
    home_tolerance: wp.float32
    open_tolerance: wp.float32
    require_home: wp.bool


@wp.struct
class Scene:
    """Where the robot and the objects of the pool stand in MuJoCo's arrays, and their shapes."""

    hand: wp.int32
    arm_qpos: wp.int32
    finger_qpos: wp.int32
    arm_dof: wp.int32
    finger_dof: wp.int32
    body: wp.array(dtype=wp.int32)
    dof: wp.array(dtype=wp.int32)
    weld: wp.array(dtype=wp.int32)
    size: wp.array(dtype=wp.vec3)
    is_cylinder: wp.array(dtype=wp.bool)
    grasp_height: wp.array(dtype=wp.float32)
    rest_z: wp.array(dtype=wp.float32)


@wp.struct
class Worlds:
    """The state of every world that the rules read, most of it MuJoCo's own arrays."""

    qpos: wp.array2d(dtype=wp.float32)
    qvel: wp.array2d(dtype=wp.float32)
    xpos: wp.array2d(dtype=wp.vec3)
    xquat: wp.array2d(dtype=wp.quat)
    target: wp.array(dtype=wp.int32)
    is_grasped: wp.array(dtype=wp.bool)
    goal: wp.array2d(dtype=wp.vec3)
    object_quat: wp.array(dtype=wp.vec4)


@wp.struct
class Seen:
    """What the rules find in every world.

    Attributes:
        values: (n, NUM_VALUES), `COLUMNS` says what.
        unmet: Bits of `CONDITIONS`.
        distance: m, from the object to the goal in the table's plane.
        dense: The dense reward.
    """

    values: wp.array2d(dtype=wp.float32)
    unmet: wp.array(dtype=wp.int32)
    distance: wp.array(dtype=wp.float32)
    dense: wp.array(dtype=wp.float32)


def make_rules(config: PickPlaceConfig) -> Rules:
    """Return the numbers of a configuration."""
    rules, grasp, task = Rules(), config.grasp, config.task
    rules.attaches = grasp.mode == "fixed_joint"
    for source in (grasp, task):
        for name in Rules.vars.keys() & source.__dataclass_fields__.keys():
            setattr(rules, name, getattr(source, name))
    return rules


def pick_columns(layout: Layout) -> np.ndarray:
    """Return the columns of `values`, (layout.size,) int32, that make up a vector."""
    parts = [
        np.arange(COLUMNS[field.name].start, COLUMNS[field.name].stop) for field in layout.fields
    ]
    return np.concatenate(parts).astype(np.int32)


@wp.func
def _rotate(quat_wxyz: wp.quat, vector: wp.vec3) -> wp.vec3:
    axis = wp.vec3(quat_wxyz[1], quat_wxyz[2], quat_wxyz[3])
    twice = 2.0 * wp.cross(axis, vector)
    return vector + quat_wxyz[0] * twice + wp.cross(axis, twice)


@wp.func
def _inverse(quat_wxyz: wp.quat) -> wp.quat:
    return wp.quat(quat_wxyz[0], -quat_wxyz[1], -quat_wxyz[2], -quat_wxyz[3])


@wp.func
def _multiply(p: wp.quat, q: wp.quat) -> wp.quat:
    u, v = wp.vec3(p[1], p[2], p[3]), wp.vec3(q[1], q[2], q[3])
    axis = p[0] * v + q[0] * u + wp.cross(u, v)
    return wp.quat(p[0] * q[0] - wp.dot(u, v), axis[0], axis[1], axis[2])


@wp.func
def _nearest(quat_wxyz: wp.quat, reference_wxyz: wp.vec4) -> wp.vec4:
    quat = wp.vec4(quat_wxyz[0], quat_wxyz[1], quat_wxyz[2], quat_wxyz[3])
    if wp.dot(quat, reference_wxyz) < 0.0:
        quat = -quat
    return quat


@wp.func
def _tcp(hand_pos: wp.vec3, hand_quat: wp.quat) -> wp.vec3:
    return hand_pos + _rotate(hand_quat, wp.vec3(0.0, 0.0, _TCP_OFFSET))


@wp.func
def _is_grasped(w: int, gripper: float, rules: Rules, scene: Scene, worlds: Worlds) -> bool:
    """`pp_env.sim.grasp.is_grasped`: no comparison with NaN holds, so NaN is no grasp."""
    if not gripper < rules.closed_below:
        return False
    if worlds.is_grasped[w]:
        return True
    k = worlds.target[w]
    hand_pos, hand_quat = worlds.xpos[w, scene.hand], worlds.xquat[w, scene.hand]
    pos, quat = worlds.xpos[w, scene.body[k]], worlds.xquat[w, scene.body[k]]
    size = scene.size[k]
    left, right = worlds.qpos[w, scene.finger_qpos], worlds.qpos[w, scene.finger_qpos + 1]
    left_vel, right_vel = worlds.qvel[w, scene.finger_dof], worlds.qvel[w, scene.finger_dof + 1]
    if rules.requires_touch:
        if not wp.abs(left_vel + right_vel) < rules.stopped_speed:
            return False
        axis = _rotate(_inverse(quat), _rotate(hand_quat, wp.vec3(0.0, 1.0, 0.0)))
        extent = size[0] * wp.abs(axis[0]) + size[1] * wp.abs(axis[1]) + size[2] * wp.abs(axis[2])
        if scene.is_cylinder[k]:
            flat = wp.sqrt(axis[0] * axis[0] + axis[1] * axis[1])
            extent = size[0] * flat + size[2] * wp.abs(axis[2])
        if not left + right < extent + rules.margin:
            return False
    elif not (wp.abs(left_vel) < rules.stopped_speed and wp.abs(right_vel) < rules.stopped_speed):
        return False
    if not (left > gripper and right > gripper):
        return False
    off = pos - hand_pos
    if not wp.sqrt(off[0] * off[0] + off[1] * off[1]) < rules.max_distance_xy:
        return False
    if not wp.abs(off[2] + scene.grasp_height[k]) < rules.max_distance_z:
        return False
    inside = _rotate(_inverse(quat), _tcp(hand_pos, hand_quat) - pos)
    for i in range(3):  # noqa: SIM110 - Warp has no generators
        if not wp.abs(inside[i]) < size[i] / 2.0 + rules.margin:
            return False
    return True


@wp.kernel
def command_servos(
    rules: Rules,
    scene: Scene,
    worlds: Worlds,
    command: wp.array2d(dtype=wp.float32),
    ctrl: wp.array2d(dtype=wp.float32),
    eq_active: wp.array2d(dtype=wp.bool),
    welds: wp.array2d(dtype=wp.float32),
    weld_size: int,
):
    """Apply the grasp rule and set the servos' targets: what comes before the physics.

    `welds` is MuJoCo's `eq_data`, `weld_size` numbers for each equality constraint.
    """
    w = wp.tid()
    held = _is_grasped(w, command[w, 7], rules, scene, worlds)
    if rules.attaches and held != worlds.is_grasped[w]:
        k = worlds.target[w]
        if held:  # the weld's frame is the object's pose now, so that attaching moves nothing
            to_hand = _inverse(worlds.xquat[w, scene.hand])
            offset = _rotate(to_hand, worlds.xpos[w, scene.body[k]] - worlds.xpos[w, scene.hand])
            turn = _multiply(to_hand, worlds.xquat[w, scene.body[k]])
            first = scene.weld[k] * weld_size
            for i in range(3):
                welds[w, first + i] = 0.0  # anchor, in the object's frame
                welds[w, first + 3 + i] = offset[i]
            for i in range(4):
                welds[w, first + 6 + i] = turn[i]
            welds[w, first + 10] = 1.0  # torque scale
        eq_active[w, scene.weld[k]] = held
    worlds.is_grasped[w] = held
    for i in range(7):
        ctrl[w, i] = command[w, i]
    ctrl[w, 7] = command[w, 7]
    ctrl[w, 8] = command[w, 7]


@wp.func
def _near(x: float) -> float:
    return 1.0 - wp.tanh(x)


@wp.kernel
def observe(
    chosen: wp.array(dtype=wp.bool), rules: Rules, scene: Scene, worlds: Worlds, seen: Seen
):
    """Look at the chosen worlds: `pp_env.task.unmet_conditions` and `pp_env.reward.dense`."""
    w = wp.tid()
    if not chosen[w]:
        return
    k = worlds.target[w]
    hand_pos, hand_quat = worlds.xpos[w, scene.hand], worlds.xquat[w, scene.hand]
    pos, quat = worlds.xpos[w, scene.body[k]], worlds.xquat[w, scene.body[k]]
    dof = scene.dof[k]
    vel = wp.vec3(worlds.qvel[w, dof], worlds.qvel[w, dof + 1], worlds.qvel[w, dof + 2])
    goal, held = worlds.goal[w, 0], worlds.is_grasped[w]
    square_off_home, is_home, is_open = 0.0, True, True  # `max` and `min` would lose NaN
    opening = float(_FINGER_OPEN)
    for i in range(7):
        joint = worlds.qpos[w, scene.arm_qpos + i]
        seen.values[w, _JOINT_POS + i] = joint
        seen.values[w, _JOINT_VEL + i] = worlds.qvel[w, scene.arm_dof + i]
        square_off_home += (joint - _HOME[i]) * (joint - _HOME[i])
        is_home = is_home and wp.abs(joint - _HOME[i]) <= rules.home_tolerance
    for i in range(2):
        finger = worlds.qpos[w, scene.finger_qpos + i]
        seen.values[w, _GRIPPER_POS + i] = finger
        seen.values[w, _GRIPPER_VEL + i] = worlds.qvel[w, scene.finger_dof + i]
        is_open = is_open and finger >= _FINGER_OPEN - rules.open_tolerance
        opening = wp.min(opening, finger)
    hand_wxyz = _nearest(hand_quat, _HAND_DOWN)
    object_wxyz = _nearest(quat, worlds.object_quat[w])
    worlds.object_quat[w] = object_wxyz
    for i in range(3):
        seen.values[w, _EEF_POS + i] = hand_pos[i]
        seen.values[w, _OBJECT_POS + i] = pos[i]
        seen.values[w, _OBJECT_VEL + i] = vel[i]
        seen.values[w, _GOAL_POS + i] = goal[i]
    for i in range(4):
        seen.values[w, _EEF_QUAT + i] = hand_wxyz[i]
        seen.values[w, _OBJECT_QUAT + i] = object_wxyz[i]
    seen.values[w, _IS_GRASPED] = wp.where(held, 1.0, 0.0)

    away = wp.sqrt(
        (pos[0] - goal[0]) * (pos[0] - goal[0]) + (pos[1] - goal[1]) * (pos[1] - goal[1])
    )
    seen.distance[w] = away
    unmet = 0  # a comparison with NaN is false, so NaN is no success
    if not away <= rules.place_tolerance:
        unmet = unmet | _AWAY
    if not wp.abs(pos[2] - scene.rest_z[k]) <= rules.height_tolerance:
        unmet = unmet | _NOT_ON_TABLE
    if held:
        unmet = unmet | _HELD
    if not wp.length(vel) <= rules.rest_speed:
        unmet = unmet | _MOVING
    if rules.require_home:
        if not is_open:
            unmet = unmet | _NOT_OPEN
        if not is_home:
            unmet = unmet | _NOT_HOME
    seen.unmet[w] = unmet

    center = wp.vec3(goal[0], goal[1], scene.rest_z[k])
    dense = _REACHED * _near(_PER_METRE * wp.length(_tcp(hand_pos, hand_quat) - pos))
    if unmet == 0:
        dense = 1.0
    elif (unmet & (_AWAY | _NOT_ON_TABLE | _HELD)) == 0:
        home = (1.0 - _CARRIED - _OPENED) * _near(_PER_RADIAN * wp.sqrt(square_off_home))
        dense = _CARRIED + wp.clamp(opening / _FINGER_OPEN, 0.0, 1.0) * (_OPENED + home)
    elif held:
        dense = _REACHED + (_CARRIED - _REACHED) * _near(_PER_METRE * wp.length(pos - center))
    seen.dense[w] = dense


@wp.struct
class Starts:
    """Where episodes begin, settled; row s of each array is one start.

    Attributes:
        joint_pos: (7,) rad, and the fingers' position, m: the servos' first targets.
        noise: Standard deviations of the noise on joint positions, rad, and velocities, rad/s.
        delay: Control periods from a command to its effect.
    """

    qpos: wp.array2d(dtype=wp.float32)
    qvel: wp.array2d(dtype=wp.float32)
    warmstart: wp.array2d(dtype=wp.float32)
    xpos: wp.array2d(dtype=wp.vec3)
    xquat: wp.array2d(dtype=wp.quat)
    goal: wp.array(dtype=wp.vec3)
    target: wp.array(dtype=wp.int32)
    command: wp.array2d(dtype=wp.float32)
    noise: wp.array(dtype=wp.vec2)
    delay: wp.array(dtype=wp.int32)


@wp.kernel
def choose_starts(
    chosen: wp.array(dtype=wp.bool),
    seed: wp.array(dtype=wp.int32),
    first: int,
    count: int,
    episode: wp.array(dtype=wp.int32),
    start: wp.array(dtype=wp.int32),
):
    """Draw the chosen worlds' next of `count` starts, from a world's seed and count of episodes."""
    w = wp.tid()
    if chosen[w]:
        episode[w] = episode[w] + 1
        start[w] = first + wp.randi(wp.rand_init(seed[w], episode[w]), 0, count)


@wp.kernel
def begin_episodes(
    chosen: wp.array(dtype=wp.bool),
    start: wp.array(dtype=wp.int32),
    starts: Starts,
    worlds: Worlds,
    warmstart: wp.array2d(dtype=wp.float32),
    ctrl: wp.array2d(dtype=wp.float32),
    eq_active: wp.array2d(dtype=wp.bool),
):
    """Put the chosen worlds into their start."""
    w = wp.tid()
    if not chosen[w]:
        return
    s = start[w]
    for i in range(worlds.qpos.shape[1]):
        worlds.qpos[w, i] = starts.qpos[s, i]
    for i in range(worlds.qvel.shape[1]):
        worlds.qvel[w, i] = starts.qvel[s, i]
        warmstart[w, i] = starts.warmstart[s, i]
    for i in range(1, worlds.xpos.shape[1]):  # the first body is the world, which stays
        worlds.xpos[w, i] = starts.xpos[s, i]
        worlds.xquat[w, i] = starts.xquat[s, i]
    for i in range(eq_active.shape[1]):
        eq_active[w, i] = False
    for i in range(8):
        ctrl[w, i] = starts.command[s, i]
    ctrl[w, 8] = starts.command[s, 7]
    worlds.goal[w, 0] = starts.goal[s]
    worlds.target[w] = starts.target[s]
    worlds.is_grasped[w] = False
    worlds.object_quat[w] = wp.vec4(1.0, 0.0, 0.0, 0.0)


@wp.kernel
def copy_rows(
    chosen: wp.array(dtype=wp.bool),
    start: wp.array(dtype=wp.int32),
    rows: wp.array2d(dtype=Any),
    out: wp.array2d(dtype=Any),
):
    """Copy each chosen world's row of its start, of a field of the model that varies."""
    w, i = wp.tid()
    if chosen[w]:
        out[w, i] = rows[start[w], i]


@wp.struct
class Commands:
    """From actions to commands.

    Attributes:
        last: (n, 8) the newest command: joints, rad, and fingers, m.
        queue: (n, longest delay + 1, 8) the newest commands, by step.
        steps: (n,) steps since the episode began.
        delay: (n,) control periods from a command to its effect.
    """

    last: wp.array2d(dtype=wp.float32)
    queue: wp.array3d(dtype=wp.float32)
    steps: wp.array(dtype=wp.int32)
    delay: wp.array(dtype=wp.int32)


@wp.kernel
def command(
    is_delta: bool,
    actions: wp.array2d(dtype=wp.float32),
    low: wp.array(dtype=wp.float32),
    high: wp.array(dtype=wp.float32),
    joint_low: wp.array(dtype=wp.float32),
    joint_high: wp.array(dtype=wp.float32),
    commands: Commands,
    applied: wp.array2d(dtype=wp.float32),
    clipped: wp.array(dtype=wp.bool),
    out: wp.array2d(dtype=wp.float32),
):
    """Turn actions into the commands that are due: `pp_env.control` and its delay."""
    w = wp.tid()
    beyond = False
    size, step = commands.queue.shape[1], commands.steps[w]
    due = (step - commands.delay[w] + size) % size
    for i in range(8):
        action = wp.clamp(actions[w, i], low[i], high[i])
        beyond = beyond or action != actions[w, i]
        applied[w, i] = action
        if is_delta and i < 7:
            action = wp.clamp(commands.last[w, i] + action, joint_low[i], joint_high[i])
        commands.last[w, i] = action
        commands.queue[w, step % size, i] = action
        out[w, i] = commands.queue[w, due, i]
    clipped[w] = beyond
    commands.steps[w] = step + 1


@wp.kernel
def begin_commands(
    chosen: wp.array(dtype=wp.bool),
    start: wp.array(dtype=wp.int32),
    starts: Starts,
    commands: Commands,
    applied: wp.array2d(dtype=wp.float32),
    clipped: wp.array(dtype=wp.bool),
):
    """Forget the chosen worlds' commands: the arm stands still until the first one is due."""
    w = wp.tid()
    if not chosen[w]:
        return
    s = start[w]
    commands.steps[w] = 0
    commands.delay[w] = starts.delay[s]
    clipped[w] = False
    for i in range(8):
        commands.last[w, i] = starts.command[s, i]
        applied[w, i] = wp.nan
        for k in range(commands.queue.shape[1]):
            commands.queue[w, k, i] = starts.command[s, i]


@wp.struct
class Outcome:
    """What an episode has come to after a step, one number per world."""

    reward: wp.array(dtype=wp.float32)
    terminated: wp.array(dtype=wp.bool)
    truncated: wp.array(dtype=wp.bool)


@wp.func
def _goal_reward(
    w: int, is_dense: bool, rules: Rules, scene: Scene, worlds: Worlds, seen: Seen
) -> float:
    """`pp_env.reward.of_goals`."""
    height = seen.values[w, _OBJECT_POS + 2] - scene.rest_z[worlds.target[w]]
    if is_dense:
        away = wp.sqrt(seen.distance[w] * seen.distance[w] + height * height)
        return _near(_PER_METRE * away)
    there = seen.distance[w] <= rules.place_tolerance and wp.abs(height) <= rules.height_tolerance
    return wp.where(there, 1.0, 0.0)


@wp.kernel
def score(
    is_dense: bool,
    is_of_goals: bool,
    ends_at_success: bool,
    step_limit: int,
    next_step: bool,
    same_step: bool,
    rules: Rules,
    scene: Scene,
    worlds: Worlds,
    seen: Seen,
    steps: wp.array(dtype=wp.int32),
    ended: wp.array(dtype=wp.bool),
    outcome: Outcome,
    chosen: wp.array(dtype=wp.bool),
):
    """Give rewards, end episodes, and choose the worlds that begin the next one in this step."""
    w = wp.tid()
    if next_step and ended[w]:  # the step that begins an episode
        outcome.reward[w] = 0.0
        outcome.terminated[w] = False
        outcome.truncated[w] = False
        ended[w] = False
        chosen[w] = True
        return
    success = seen.unmet[w] == 0
    reward = wp.where(success, 1.0, 0.0)
    if is_of_goals:
        reward = _goal_reward(w, is_dense, rules, scene, worlds, seen)
    elif is_dense:
        reward = seen.dense[w]
    outcome.reward[w] = reward
    outcome.terminated[w] = success and ends_at_success
    outcome.truncated[w] = step_limit > 0 and steps[w] >= step_limit
    has_ended = outcome.terminated[w] or outcome.truncated[w]
    chosen[w] = same_step and has_ended
    ended[w] = has_ended and not same_step


@wp.kernel
def pack(
    chosen: wp.array(dtype=wp.bool),
    values: wp.array2d(dtype=wp.float32),
    columns: wp.array(dtype=wp.int32),
    low: wp.array(dtype=wp.float32),
    high: wp.array(dtype=wp.float32),
    start: wp.array(dtype=wp.int32),
    starts: Starts,
    seed: wp.array(dtype=wp.int32),
    steps: wp.array(dtype=wp.int32),
    out: wp.array2d(dtype=wp.float32),
):
    """Make the chosen worlds' vectors of their values, with sensor noise, within the bounds."""
    w, i = wp.tid()
    if not chosen[w]:
        return
    column = columns[i]
    value, noise = float(values[w, column]), starts.noise[start[w]]
    deviation = 0.0
    if column >= _JOINT_POS and column < _JOINT_POS + 7:
        deviation = noise[0]
    if column >= _JOINT_VEL and column < _JOINT_VEL + 7:
        deviation = noise[1]
    if deviation > 0.0:
        state = wp.rand_init(seed[w] + start[w], steps[w] * NUM_COLUMNS + column)
        value = value + deviation * wp.randn(state)
    out[w, i] = wp.clamp(value, low[i], high[i])
