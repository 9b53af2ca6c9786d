from functools import partial

import numpy as np
import pytest

pytest.importorskip("mujoco_warp")

from pp_env import PickPlaceConfig
from pp_env.config import RenderConfig
from pp_env.sim.api import Command, Pose
from pp_env.sim.warp.lockstep import Lockstep
from tests.sim_contract import HOME, numbers, start

pytestmark = pytest.mark.usefixtures("warp_device")

CONFIG = PickPlaceConfig(render=RenderConfig(resolution=64))
NUM_WORLDS = 3
TOLERANCE = 1e-4  # rad, rad/s, m and m/s: how soon the solver ends depends on the other worlds


@pytest.fixture(scope="module")
def lockstep(warp_device):
    lockstep = Lockstep(CONFIG, NUM_WORLDS)
    yield lockstep
    lockstep.close()


def sway(simulator, steps, sign=1.0):
    return [simulator.step(Command(HOME + sign * 0.02 * k, 0.04)) for k in range(steps)]


def long(simulator):
    return [simulator.reset(start()), *sway(simulator, 9)]


def short_and_again(simulator):
    states = [simulator.reset(start(pick=(0.6, -0.2))), *sway(simulator, 3, -1.0)]
    return [*states, simulator.reset(start(pick=(0.4, 0.2))), *sway(simulator, 2)]


def moved(simulator):
    states = [simulator.reset(start(pick=(0.5, -0.1))), *sway(simulator, 2)]
    there = Pose(states[-1].object.position + [0.05, 0.1, 0.0], states[-1].object.quat_wxyz)
    return [*states, simulator.move_object(there), *sway(simulator, 2)]


PROGRAMS = (long, short_and_again, moved)


def run(lockstep, programs):
    pairs = zip(programs, lockstep.simulators, strict=False)
    return lockstep.run([partial(program, simulator) for program, simulator in pairs])


def all_numbers(states):
    return np.array([numbers(state) for state in states])


@pytest.fixture(scope="module")
def ran(lockstep):
    """Return what the programs see together, and their poses."""
    return run(lockstep, PROGRAMS), [each.poses for each in lockstep.simulators]


def test_programs_that_wait_for_each_other_see_what_they_see_alone(lockstep, ran):
    together, poses = ran
    assert [len(states) for states in together] == [10, 7, 6]
    for k, program in enumerate(PROGRAMS):
        (states,) = run(lockstep, [program])
        alone = all_numbers(states)
        np.testing.assert_allclose(all_numbers(together[k]), alone, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(poses[k], lockstep.simulators[0].poses, rtol=0, atol=TOLERANCE)


def test_there_is_a_pose_for_every_state_since_the_reset(lockstep, ran):
    states, poses = ran
    # A moved object replaces the pose of the state that it is moved in.
    since = [states[0], states[1][4:], [*states[2][:2], *states[2][3:]]]
    model = lockstep._worlds.host_model
    arm, obj = model.joint("panda_joint1").qposadr[0], model.body("object").jntadr[0]
    at = model.jnt_qposadr[obj]
    for own, seen in zip(poses, since, strict=True):
        for pose, state in zip(own, seen, strict=True):
            np.testing.assert_array_equal(pose[arm : arm + 7], state.joint_pos)
            np.testing.assert_array_equal(pose[at : at + 3], state.object.position)


def test_an_exception_ends_all_and_the_worlds_can_be_used_again(lockstep, ran):
    def fail(simulator):
        simulator.reset(start())
        sway(simulator, 2)
        raise LookupError("in one program")

    with pytest.raises(LookupError, match="in one program"):
        run(lockstep, [long, fail, moved])
    for again, before in zip(run(lockstep, PROGRAMS), ran[0], strict=True):
        np.testing.assert_allclose(all_numbers(again), all_numbers(before), rtol=0, atol=TOLERANCE)


def test_programs_that_end_at_once_and_none_at_all(lockstep):
    assert run(lockstep, []) == []
    results = run(lockstep, [lambda _: 7, long])
    assert results[0] == 7
    assert len(results[1]) == 10


def test_images_come_later(lockstep):
    with pytest.raises(RuntimeError, match="rendered after their episodes"):
        lockstep.simulators[0].render("cam_high")
