"""The kernels say what the numpy functions say, on thousands of random states."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("mujoco_warp")
import warp as wp

from pp_env import panda, reward, rotation, task
from pp_env.config import HOME_JOINT_POS, GraspConfig, PickPlaceConfig, TaskConfig
from pp_env.control import CONTROL_MODES
from pp_env.disturbances import ActionDelay
from pp_env.objects import ObjectConfig
from pp_env.randomization import Variation
from pp_env.sim.api import Command, Pose, SimState
from pp_env.sim.grasp import is_grasped
from pp_env.sim.warp import kernels

pytestmark = pytest.mark.usefixtures("warp_device")

COUNT = 2000
POOL = (
    ObjectConfig(),
    ObjectConfig("brick", (0.04, 0.06, 0.05)),
    ObjectConfig("can", (0.05, 0.05, 0.1), shape="cylinder"),
)
CONFIG = PickPlaceConfig(objects=POOL)
HAND, OBJECT, NUM_BODIES = 0, 1, 2  # the world of these tests: no table, and one object
ARM, FINGERS, FREE = slice(0, 7), slice(7, 9), slice(9, 15)
HOME = np.array(HOME_JOINT_POS)


@dataclasses.dataclass
class States:
    """States of many worlds, (n, ...) float32 each, and what else the rules read."""

    joints: np.ndarray  # (n, 9): arm and fingers
    velocities: np.ndarray  # (n, 15): arm, fingers and object
    positions: np.ndarray  # (n, 2, 3): hand and object
    quats: np.ndarray  # (n, 2, 4) w, x, y, z
    target: np.ndarray
    was_held: np.ndarray
    goals: np.ndarray
    seen_quat: np.ndarray  # (n, 4): the object's, at the last look

    def state(self, i):
        """Return one as the environment has it."""
        joints, velocities = self.joints[i].astype(float), self.velocities[i].astype(float)
        hand, obj = zip(self.positions[i].astype(float), self.quats[i].astype(float), strict=True)
        return SimState(
            joints[ARM], velocities[ARM], joints[FINGERS], velocities[FINGERS], Pose(*hand),
            Pose(*obj), velocities[FREE][:3], bool(self.was_held[i]),
        )  # fmt: skip


def normalized(quats):
    return quats / np.linalg.norm(quats, axis=-1, keepdims=True)


def random_states(seed, count=COUNT):
    """Return states near a grasp, near a success, and near neither."""
    rng = np.random.default_rng(seed)

    def choose(near, *far):
        """Take each row from one of the alternatives, most of them from the first."""
        which = rng.choice(1 + len(far), size=count, p=[0.7, *[0.3 / len(far)] * len(far)])
        return np.choose(which.reshape(-1, *[1] * (np.ndim(near) - 1)), [near, *far])

    target = rng.integers(len(POOL), size=count)
    sizes = np.array([obj.size for obj in POOL])[target]
    rest_z = np.array([CONFIG.rest_z_of(obj) for obj in POOL])[target]
    yaws = rng.choice([0.0, np.pi / 2], size=count) + rng.normal(0, 0.1, count)
    upright = np.array([rotation.about_z(yaw) for yaw in yaws])
    quats = normalized(upright + rng.normal(0, 0.02, (count, 4)))
    quats = choose(quats, normalized(rng.normal(size=(count, 4))))
    quats *= rng.choice([-1.0, 1.0], (count, 1))
    goals = np.column_stack([rng.uniform(0.3, 0.7, (count, 2)), np.full(count, 0.41)])
    at_goal = goals + rng.normal(0, 0.02, (count, 3))
    at_goal[:, 2] = rest_z + rng.normal(0, 0.003, count)
    obj = choose(at_goal, rng.uniform([0.2, -0.4, 0.3], [0.8, 0.4, 0.9], (count, 3)))
    hand_quats = normalized(panda.HAND_DOWN_QUAT_WXYZ + rng.normal(0, 0.02, (count, 4)))
    tcp = obj + rng.normal(0, 0.01, (count, 3))
    tcp[:, 2] += np.array([o.grasp_height for o in POOL])[target]
    hand = tcp - [rotation.rotate(q, np.array([0, 0, panda.TCP_OFFSET])) for q in hand_quats]
    far = rng.uniform([0.2, -0.4, 0.3], [0.8, 0.4, 0.9], (count, 3))
    grasp = sizes[:, :1] / 2 + rng.normal(0, 0.004, (count, 2))
    fingers = np.where(rng.random((count, 1)) < 0.5, grasp, 0.04 - rng.random((count, 2)) * 0.007)
    arm = choose(HOME + rng.normal(0, 0.015, (count, 7)), HOME + rng.normal(0, 0.5, (count, 7)))
    scale = choose(np.full((count, 1), 0.003), np.full((count, 1), 0.05))
    numbers = (
        np.hstack([arm, fingers]), rng.normal(size=(count, 15)) * scale,
        np.stack([choose(hand, far), obj], axis=1), np.stack([hand_quats, quats], axis=1),
    )  # fmt: skip
    return States(
        *(each.astype(np.float32) for each in numbers),
        target.astype(np.int32),
        rng.random(count) < 0.1,
        goals.astype(np.float32),
        normalized(rng.normal(size=(count, 4))).astype(np.float32),
    )


def with_nan(states):
    """Put NaN into one number of the first worlds, each, one after the other; return how many."""
    k = 0
    for array in (states.joints, states.velocities[:, :12], states.positions, states.quats):
        for place in np.ndindex(array.shape[1:]):
            array[(k, *place)] = np.nan
            k += 1
    return k


def launch(kernel, arguments, shape=COUNT):
    wp.launch(kernel, shape, arguments)


def on_device(states, config=CONFIG):
    """Return rules, scene and worlds of these states, as kernels take them."""
    rules = kernels.make_rules(config)
    scene, worlds = kernels.Scene(), kernels.Worlds()
    scene.hand, scene.arm_qpos, scene.finger_qpos = HAND, 0, 7
    scene.arm_dof, scene.finger_dof = 0, 7
    for name, values, dtype in (
        ("body", [OBJECT] * len(POOL), wp.int32),
        ("dof", [9] * len(POOL), wp.int32),
        ("weld", range(len(POOL)), wp.int32),
        ("size", [obj.size for obj in POOL], wp.vec3),
        ("is_cylinder", [obj.shape == "cylinder" for obj in POOL], wp.bool),
        ("grasp_height", [obj.grasp_height for obj in POOL], wp.float32),
        ("rest_z", [config.rest_z_of(obj) for obj in POOL], wp.float32),
    ):
        setattr(scene, name, wp.array(list(values), dtype=dtype))
    for name, values, dtype in (
        ("qpos", states.joints, wp.float32),
        ("qvel", states.velocities, wp.float32),
        ("xpos", states.positions, wp.vec3),
        ("xquat", states.quats, wp.quat),  # as MuJoCo stores them
        ("target", states.target, wp.int32),
        ("is_grasped", states.was_held, wp.bool),
        ("goal", states.goals[:, None], wp.vec3),
        ("object_quat", states.seen_quat, wp.vec4),
    ):
        setattr(worlds, name, wp.array(values, dtype=dtype))
    return rules, scene, worlds


def observed(states, config=CONFIG):
    """Return what `observe` sees, and the structs that it reads and writes."""
    rules, scene, worlds = on_device(states, config)
    seen = kernels.Seen()
    seen.values = wp.zeros((COUNT, kernels.NUM_VALUES), dtype=wp.float32)
    seen.unmet = wp.zeros(COUNT, dtype=wp.int32)
    seen.distance = wp.zeros(COUNT, dtype=wp.float32)
    seen.dense = wp.zeros(COUNT, dtype=wp.float32)
    chosen = wp.ones(COUNT, dtype=wp.bool)
    launch(kernels.observe, [chosen, rules, scene, worlds, seen])
    return seen, rules, scene, worlds


def held_on_device(states, gripper, config):
    rules, scene, worlds = on_device(states, config)
    rules.attaches = False  # there is no weld here; the physics has tests of its own
    command = np.zeros((COUNT, 8), dtype=np.float32)
    command[:, 7] = gripper
    launch(
        kernels.command_servos,
        [rules, scene, worlds, wp.array(command), wp.zeros((COUNT, 9), dtype=wp.float32),
         wp.zeros((COUNT, len(POOL)), dtype=wp.bool), wp.zeros((COUNT, 33), dtype=wp.float32), 11],
    )  # fmt: skip
    return worlds.is_grasped.numpy().copy()


@pytest.mark.parametrize("requires_touch", [True, False])
def test_the_grasp_rule(requires_touch):
    states = random_states(0)
    with_nan(states)
    gripper = np.random.default_rng(1).choice([0.0, 0.015, 0.04], COUNT, p=[0.6, 0.3, 0.1])
    config = dataclasses.replace(CONFIG, grasp=GraspConfig(requires_touch=requires_touch))
    expected = np.array(
        [
            is_grasped(states.state(i), Command(HOME, gripper[i]), config.grasp, POOL[k])
            for i, k in enumerate(states.target)
        ]
    )
    np.testing.assert_array_equal(held_on_device(states, gripper, config), expected)
    newly = expected & ~states.was_held
    assert all(newly[states.target == k].sum() > 20 for k in range(len(POOL)))
    assert (~expected & states.was_held).any()


@pytest.mark.parametrize("require_home", [True, False])
def test_the_conditions_of_success(require_home):
    states = random_states(2)
    broken = with_nan(states)
    config = dataclasses.replace(CONFIG, task=TaskConfig(require_home=require_home))
    seen, *_ = observed(states, config)
    unmet = seen.unmet.numpy()
    found = [[n for k, n in enumerate(task.CONDITIONS) if bits >> k & 1] for bits in unmet]
    expected = [
        task.unmet_conditions(states.state(i), states.goals[i].astype(float), config, k)
        for i, k in enumerate(states.target)
    ]
    assert found == expected
    assert (unmet[broken:] == 0).sum() > 20
    assert {name for names in expected for name in names} == set(
        task.CONDITIONS if require_home else task.CONDITIONS[:4]
    )


def test_a_success_with_any_number_missing_is_none():
    """What the conditions read is NaN, one number after the other, in states of success."""
    states = random_states(3)
    seen, *_ = observed(states)
    first = int(np.flatnonzero(seen.unmet.numpy() == 0)[0])
    for field in dataclasses.fields(states):
        values = getattr(states, field.name)
        values[:] = values[first]
    places = [
        *((states.joints, k) for k in range(9)),
        *((states.velocities, 9 + k) for k in range(3)),
        *((states.positions, (OBJECT, k)) for k in range(3)),
    ]
    for world, (array, place) in enumerate(places):
        array[(world, *np.atleast_1d(place))] = np.nan
    seen, *_ = observed(states)
    unmet = seen.unmet.numpy()
    assert (unmet[: len(places)] != 0).all()
    assert (unmet[len(places) :] == 0).all()


def test_the_dense_reward():
    states = random_states(4)
    seen, *_ = observed(states)
    stages = {"success": 0, "placed": 0, "held": 0, "reached for": 0}
    dense, distance = seen.dense.numpy(), seen.distance.numpy()
    for i, k in enumerate(states.target):
        state, goal = states.state(i), states.goals[i].astype(float)
        unmet = task.unmet_conditions(state, goal, CONFIG, k)
        center = np.array([*goal[:2], CONFIG.rest_z_of(POOL[k])])
        assert dense[i] == pytest.approx(reward.dense(state, center, unmet, CONFIG), abs=2e-6)
        assert distance[i] == pytest.approx(task.distance_to_goal(state, goal), abs=1e-6)
        placed = not set(unmet) & {"away_from_target", "not_on_table", "still_held"}
        reached = "held" if state.is_grasped else "reached for"
        stages["success" if not unmet else "placed" if placed else reached] += 1
    assert min(stages.values()) > 20


def test_the_values_are_those_of_the_environment():
    states = random_states(5)
    seen, *_, worlds = observed(states)
    values, quats = seen.values.numpy(), worlds.object_quat.numpy()
    for i in range(COUNT):
        state = states.state(i)
        expected = {
            "joint_pos": state.joint_pos, "joint_vel": state.joint_vel,
            "gripper_pos": state.gripper_pos, "gripper_vel": state.gripper_vel,
            "eef_pos": state.eef.position,
            "eef_quat": rotation.nearest(state.eef.quat_wxyz, panda.HAND_DOWN_QUAT_WXYZ),
            "object_pos": state.object.position,
            "object_quat": rotation.nearest(state.object.quat_wxyz, states.seen_quat[i]),
            "object_vel": state.object_vel, "goal_pos": states.goals[i],
            "is_grasped": state.is_grasped,
        }  # fmt: skip
        assert expected.keys() == kernels.COLUMNS.keys()
        for name, where in kernels.COLUMNS.items():
            np.testing.assert_array_equal(values[i, where], expected[name], err_msg=name)
        np.testing.assert_array_equal(quats[i], expected["object_quat"])


@pytest.mark.parametrize("kind", reward.REWARD_TYPES)
def test_the_reward_of_goals(kind):
    states = random_states(6)
    seen, rules, scene, worlds = observed(states)
    outcome = kernels.Outcome()
    outcome.reward = wp.zeros(COUNT, dtype=wp.float32)
    outcome.terminated = wp.zeros(COUNT, dtype=wp.bool)
    outcome.truncated = wp.zeros(COUNT, dtype=wp.bool)
    steps, ended = wp.zeros(COUNT, dtype=wp.int32), wp.zeros(COUNT, dtype=wp.bool)
    launch(
        kernels.score,
        [kind == "dense", True, True, 0, True, False, rules, scene, worlds, seen, steps, ended,
         outcome, wp.zeros(COUNT, dtype=wp.bool)],
    )  # fmt: skip
    desired = states.goals.astype(float)
    desired[:, 2] = [CONFIG.rest_z_of(POOL[k]) for k in states.target]
    expected = reward.of_goals(states.positions[:, OBJECT].astype(float), desired, kind, CONFIG)
    np.testing.assert_allclose(outcome.reward.numpy(), expected, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(outcome.terminated.numpy(), seen.unmet.numpy() == 0)
    if kind == "sparse":
        assert 0.2 < expected.mean() < 0.9


@pytest.mark.parametrize("mode", ["joint_pos", "joint_delta"])
def test_commands_and_their_delay(mode):
    rng, longest, count, num_steps = np.random.default_rng(7), 3, 200, 12
    layout, command = CONTROL_MODES[mode].layout, CONTROL_MODES[mode].command
    delays = rng.integers(longest + 1, size=count)
    first = np.append(HOME, panda.FINGER_OPEN)
    commands = kernels.Commands()
    commands.last = wp.array(np.tile(first, (count, 1)), dtype=wp.float32)
    commands.queue = wp.array(np.tile(first, (count, longest + 1, 1)), dtype=wp.float32)
    commands.steps = wp.zeros(count, dtype=wp.int32)
    commands.delay = wp.array(delays, dtype=wp.int32)
    bounds = (layout.low, layout.high, panda.JOINT_LOWER, panda.JOINT_UPPER)
    bounds = [wp.array(bound, dtype=wp.float32) for bound in bounds]
    applied, out = (wp.zeros((count, 8), dtype=wp.float32) for _ in range(2))
    clipped = wp.zeros(count, dtype=wp.bool)
    previous = [Command(HOME, panda.FINGER_OPEN)] * count
    delayed = [ActionDelay(Variation(action_delay=int(d)), previous[0]) for d in delays]
    for _ in range(num_steps):
        reach = 1.3 * (layout.high - layout.low) * (rng.random((count, 1)) < 0.5)
        middle = (layout.high + layout.low) / 2
        given = (middle + reach * (rng.random((count, 8)) - 0.5)).astype(np.float32)
        arguments = [mode == "joint_delta", wp.array(given), *bounds, commands, applied, clipped]
        launch(kernels.command, [*arguments, out], count)
        wanted = layout.clip(given)
        np.testing.assert_array_equal(applied.numpy(), wanted)
        np.testing.assert_array_equal(clipped.numpy(), (wanted != given).any(axis=1))
        assert 0 < clipped.numpy().sum() < count
        for i in range(count):
            previous[i] = command(previous[i], wanted[i], 1 / 30).command
            due = delayed[i](previous[i])
            np.testing.assert_allclose(
                out.numpy()[i], [*due.arm, due.gripper], rtol=0, atol=num_steps * 1e-6
            )


def test_only_the_chosen_are_seen():
    states = random_states(8)
    rules, scene, worlds = on_device(states)
    _, *_ = observed(states)
    seen = kernels.Seen()
    seen.values = wp.full((COUNT, kernels.NUM_VALUES), -7.0, dtype=wp.float32)
    seen.unmet = wp.full(COUNT, -7, dtype=wp.int32)
    seen.distance = wp.full(COUNT, -7.0, dtype=wp.float32)
    seen.dense = wp.full(COUNT, -7.0, dtype=wp.float32)
    chosen = np.random.default_rng(0).random(COUNT) < 0.5
    launch(kernels.observe, [wp.array(chosen, dtype=wp.bool), rules, scene, worlds, seen])
    for array in (seen.unmet, seen.distance, seen.dense):
        np.testing.assert_array_equal(array.numpy() != -7, chosen)
    np.testing.assert_array_equal(worlds.object_quat.numpy()[~chosen], states.seen_quat[~chosen])
