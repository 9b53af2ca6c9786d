import numpy as np
import pytest

from experts.servo import JointServo, Knot

SPEED, ACCELERATION, PERIOD = 1.0, 4.0, 1 / 30


def run(knots, start=None, periods=400):
    servo = JointServo(SPEED, ACCELERATION, PERIOD)
    servo.restart(np.zeros(7) if start is None else start)
    servo.follow(knots)
    commands = [servo.command]
    while not servo.at_end and len(commands) < periods:
        commands.append(servo.advance())
    return servo, np.array(commands)


@pytest.fixture(params=range(5))
def knots(request):
    rng = np.random.default_rng(request.param)
    return [Knot(rng.uniform(-1, 1, 7), name) for name in ("A", "B", "C")]


def test_speed_and_acceleration_are_bounded(knots):
    _, commands = run(knots)
    velocity = np.diff(commands, axis=0) / PERIOD
    assert np.abs(velocity).max() <= SPEED * 1.001
    change = np.abs(np.diff(np.vstack([np.zeros(7), velocity]), axis=0)) / PERIOD
    # The last step onto the knot may brake harder, from a speed that is all but none.
    assert change[:-2].max() <= ACCELERATION * 1.001


def test_it_passes_near_every_knot_and_rests_at_the_last(knots):
    servo, commands = run(knots)
    for knot in knots:
        assert np.abs(commands - knot.posture).max(axis=1).min() < 0.04
    np.testing.assert_array_equal(commands[-1], knots[-1].posture)
    assert servo.at_end


def test_it_names_the_phase_of_the_present_knot():
    servo = JointServo(SPEED, ACCELERATION, PERIOD)
    servo.restart(np.zeros(7))
    assert servo.phase == ""
    servo.follow([Knot(np.full(7, 0.2), "A"), Knot(np.full(7, 0.4), "B")])
    seen = []
    while not servo.at_end:
        servo.advance()
        seen.append(servo.phase)
    assert seen == sorted(seen)
    assert set(seen) == {"A", "B"}


def test_holding_brakes_without_a_jump():
    servo = JointServo(SPEED, ACCELERATION, PERIOD)
    servo.restart(np.zeros(7))
    servo.follow([Knot(np.full(7, 2.0), "A")])
    commands = [servo.advance() for _ in range(20)]
    commands += [servo.advance(hold=True) for _ in range(20)]
    velocity = np.diff(commands, axis=0) / PERIOD
    assert np.abs(np.diff(velocity, axis=0)).max() <= ACCELERATION * PERIOD * 1.001
    assert np.abs(velocity[-1]).max() == 0.0


def test_a_slower_knot_is_approached_more_slowly():
    _, fast = run([Knot(np.full(7, 1.0), "A")])
    _, slow = run([Knot(np.full(7, 1.0), "A", speed=0.5)])
    assert np.abs(np.diff(slow, axis=0)).max() <= 0.5 * SPEED * PERIOD * 1.001
    assert len(slow) > 1.5 * len(fast)


def test_a_new_path_goes_on_at_the_same_velocity():
    servo = JointServo(SPEED, ACCELERATION, PERIOD)
    servo.restart(np.zeros(7))
    servo.follow([Knot(np.full(7, 2.0), "A")])
    commands = [servo.advance() for _ in range(20)]
    servo.follow([Knot(np.full(7, -2.0), "B")])
    commands += [servo.advance() for _ in range(5)]
    velocity = np.diff(commands, axis=0) / PERIOD
    assert np.abs(np.diff(velocity, axis=0)).max() <= ACCELERATION * PERIOD * 1.001
