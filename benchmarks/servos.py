"""Measure how exact the servos' steps are: MuJoCo's on the processor, and those of `warp`.

    python -m benchmarks.servos

Twenty postures; from each, all joints move at up to 1 rad/s for half a second, and stop. What is
compared at each control period are positions and velocities with those of 960 steps per second.
Needs the extra [gpu], but no GPU.
"""

import dataclasses
from collections.abc import Callable

import mujoco
import numpy as np

from pp_env.config import HOME_JOINT_POS, PickPlaceConfig, TimingConfig
from pp_env.sim.api import Command
from pp_env.sim.mujoco.simulator import MujocoSimulator
from pp_env.task import EpisodeStart, initial_state

_EXACT_HZ = 960
_SPEED = np.array([1.0, 0.4, 0.8, -0.6, 0.7, 0.5, 0.9])  # rad/s
_SPREAD = np.array([0.8, 0.4, 0.8, 0.4, 0.8, 0.4, 0.8])  # rad, of the postures around HOME
_NUM_POSTURES, _MOVING, _STOPPING = 20, 14, 6  # control periods
_PICK, _PLACE = (0.5, 0.1), (0.4, -0.2)  # m, on the table, which nothing touches
_SEED = 0


def main() -> None:
    """Print the root of the mean square of the errors."""
    from pp_env.sim.warp.servos import take_force_within_steps

    def discrete(model: mujoco.MjModel) -> None:
        model.opt.integrator = mujoco.mjtIntegrator.mjINT_DISCRETE

    exact = _run(_EXACT_HZ, lambda model: None)
    rows: tuple[tuple[str, int, Callable[[mujoco.MjModel], None]], ...] = (
        ("Euler, as in `mujoco`", 240, lambda model: None),
        ("as in `warp`", 120, take_force_within_steps),
        ("`discrete`", 120, discrete),
        ("as in `warp`", 60, take_force_within_steps),
    )
    print("| | steps per second | positions, mrad | velocities, rad/s |\n|---|---|---|---|")
    for name, rate, change in rows:
        position, velocity = np.sqrt(((_run(rate, change) - exact) ** 2).mean((0, 2)))
        print(f"| {name} | {rate} | {1e3 * position:.1f} | {velocity:.3f} |")


def _run(physics_hz: int, change: Callable[[mujoco.MjModel], None]) -> np.ndarray:
    """Return positions and velocities (steps, 2, 7) of all motions, without contacts."""
    timing = TimingConfig(physics_hz=physics_hz)
    config = dataclasses.replace(PickPlaceConfig(), timing=timing)
    simulator = MujocoSimulator(config)
    model, _ = simulator.physics
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    change(model)
    rng, seen = np.random.default_rng(_SEED), []
    begin = initial_state(EpisodeStart(np.array(_PICK), np.array(_PLACE), np.zeros(3)), config)
    for _ in range(_NUM_POSTURES):
        target = HOME_JOINT_POS + rng.uniform(-1, 1, 7) * _SPREAD
        simulator.reset(dataclasses.replace(begin, joint_pos=target))
        for k in range(_MOVING + _STOPPING):
            if k < _MOVING:
                target = target + _SPEED * timing.control_period
            state = simulator.step(Command(target, 0.04))
            seen.append((state.joint_pos, state.joint_vel))
    simulator.close()
    return np.array(seen)


if __name__ == "__main__":
    main()
