"""Measure many environments at once: the native vector environment, a loop, and Fetch.

Usage: python -m benchmarks.vector [--num-envs 1 16 256] [--steps 4096] [--no-fetch]

State only, random actions. "Native" is `gym.make_vec("FrankaPickPlace-v0")`. "Sync" is Gymnasium's
loop over single environments, without their wrappers and with one compiled scene, both of which
make it faster. Fetch is one environment, Gymnasium-Robotics' FetchPickAndPlace of
`benchmarks.baselines`. Reports wall time, and CPU time, which depends less on other processes.
Prints a table and writes benchmarks/results/vector.json.
"""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import cycle
from typing import NamedTuple

import gymnasium as gym
import numpy as np

import pp_env
from benchmarks import baselines, report, save
from pp_env import PickPlaceConfig, PickPlaceEnv
from pp_env.sim.mujoco.batch import make_simulators

_ROUNDS = 3
_ACTIONS = 64  # applied in a cycle
_WARM_UP = 30  # steps, until most arms are in contact with something


class Speed(NamedTuple):
    """Time that one step of one environment takes.

    Attributes:
        wall: Wall time, s.
        cpu: CPU time of all threads together, s.
    """

    wall: float
    cpu: float


def native(num_envs: int, steps: int) -> Speed:
    """Measure the vector environment with its default number of threads."""
    return _vector(gym.make_vec(pp_env.ENV_ID, num_envs=num_envs), steps)


def sync(num_envs: int, steps: int) -> Speed:
    """Measure Gymnasium's loop over single environments."""
    simulators = iter(make_simulators(PickPlaceConfig(), num_envs))

    def make_env() -> PickPlaceEnv:
        return PickPlaceEnv(lambda _: next(simulators))

    return _vector(gym.vector.SyncVectorEnv([make_env] * num_envs), steps)


def single(steps: int) -> Speed:
    """Measure one `PickPlaceEnv` without wrappers."""
    return _speed(PickPlaceEnv(), steps // _ROUNDS)


def make_seconds(num_envs: int) -> float:
    """Return the CPU time to make a vector environment, s."""
    begin = time.process_time()
    gym.make_vec(pp_env.ENV_ID, num_envs=num_envs).close()
    return time.process_time() - begin


def _vector(envs: gym.vector.VectorEnv, steps: int) -> Speed:
    speed = _speed(envs, max(steps // envs.num_envs // _ROUNDS, 2))
    return Speed(*(seconds / envs.num_envs for seconds in speed))


def _speed(env: gym.Env | gym.vector.VectorEnv, count: int) -> Speed:
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = cycle([env.action_space.sample() for _ in range(_ACTIONS)])
    speed = _timed(lambda: env.step(next(actions)), count)
    env.close()
    return speed


def _timed(call: Callable[[], object], count: int) -> Speed:
    """Return the time per call, the best of several rounds after a warm-up."""
    for _ in range(_WARM_UP):
        call()
    rounds = []
    for _ in range(_ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            call()
        rounds.append(((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count))
    return Speed(*np.min(rounds, axis=0).tolist())


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1, 16, 256],
                        help="environments")  # fmt: skip
    parser.add_argument("--steps", type=int, default=4096, help="total of all environments")
    parser.add_argument("--no-fetch", action="store_true", help="measure ours alone")
    args = parser.parse_args()
    results: dict = {
        "num_envs": args.num_envs,
        "period_s": PickPlaceConfig().timing.control_period,
    }
    for name, measure in (("native", native), ("sync", sync)):
        results[name] = [measure(count, args.steps)._asdict() for count in args.num_envs]
    results["single"] = single(args.steps)._asdict()
    results["make_cpu_s"] = make_seconds(max(args.num_envs))
    if not args.no_fetch:
        try:
            runs = baselines.compare("fetch", "state", rounds=3, seconds=2.0)
        except RuntimeError as error:
            print(f"Fetch was not measured: {error}", file=sys.stderr)
        else:
            results["fetch"] = baselines.medians(runs["theirs"])
    save("vector", results)
    report.show("vector")
    return 0


if __name__ == "__main__":
    sys.exit(main())
