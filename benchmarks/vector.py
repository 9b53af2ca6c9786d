"""Many environments at once: the native vector environment, the same in a loop, and Fetch.

Usage: python -m benchmarks.vector [--num-envs 1 16 256] [--steps 4096]

State only. "Native" is `gym.make_vec("FrankaPickPlace-v0")`, "sync" is Gymnasium's loop over single
environments, here without their wrappers and with one compiled scene, which favours it. Fetch is
`FetchPickAndPlace` of gymnasium-robotics, a single environment, if what it needs is installed. Wall
time is what a user waits; time of the processor is what the code costs, and depends less on what
else runs. Prints tables and writes JSON to benchmarks/results/vector.json.
"""

import argparse
import json
import os
import platform
import sys
import time
import types
from collections.abc import Callable
from typing import NamedTuple

import gymnasium as gym
import mujoco
import numpy as np

import pp_env
from benchmarks import RESULTS
from pp_env import PickPlaceConfig, PickPlaceEnv
from pp_env.sim.mujoco_batch import make_simulators

_ROUNDS = 3


class Speed(NamedTuple):
    """Seconds that one step of one environment takes.

    Attributes:
        wall: By the clock.
        cpu: Of the processor, all threads together.
    """

    wall: float
    cpu: float


def native(num_envs: int, steps: int) -> Speed:
    """The vector environment with its default threads."""
    return _vector(gym.make_vec(pp_env.ENV_ID, num_envs=num_envs), steps)


def sync(num_envs: int, steps: int) -> Speed:
    """Gymnasium's loop over single environments."""
    simulators = iter(make_simulators(PickPlaceConfig(), num_envs))

    def make_env() -> PickPlaceEnv:
        return PickPlaceEnv(lambda _: next(simulators))

    return _vector(gym.vector.SyncVectorEnv([make_env] * num_envs), steps)


def single(steps: int) -> Speed:
    """`PickPlaceEnv` alone, without wrappers."""
    return _single(PickPlaceEnv(), steps)


def fetch(steps: int) -> tuple[str, float, Speed]:
    """Name, control period in s, and speed of the newest installed `FetchPickAndPlace`.

    Raises:
        ImportError: gymnasium-robotics or something that it needs is not installed.
    """
    import gymnasium_robotics
    from gymnasium_robotics.utils import mujoco_utils

    # gymnasium-robotics 1.4 compares numbers with MuJoCo's enums, which MuJoCo 4 calls unequal.
    joints = {name: int(kind) for name, kind in mujoco.mjtJoint.__members__.items()}
    numbers = {"mjtJoint": types.SimpleNamespace(**joints)}
    mujoco_utils.mujoco = types.SimpleNamespace(**{**vars(mujoco), **numbers})
    gym.register_envs(gymnasium_robotics)
    name = max(i for i in gym.registry if i.startswith("FetchPickAndPlace-v"))
    env = gym.make(name).unwrapped
    return name, env.dt, _single(env, steps)


def _vector(envs: gym.vector.VectorEnv, steps: int) -> Speed:
    envs.reset(seed=0)
    actions = _actions(envs.single_action_space, envs.num_envs)
    speed = _timed(lambda: envs.step(actions), max(steps // envs.num_envs // _ROUNDS, 2))
    envs.close()
    return Speed(*(seconds / envs.num_envs for seconds in speed))


def _single(env: gym.Env, steps: int) -> Speed:
    env.reset(seed=0)
    action = _actions(env.action_space, 1)[0]
    speed = _timed(lambda: env.step(action), steps // _ROUNDS)
    env.close()
    return speed


def _actions(space: gym.spaces.Box, count: int) -> np.ndarray:
    """The arm moves from HOME to other targets and stays there, in free space."""
    if space.shape == (8,):
        home = np.append(pp_env.config.HOME_JOINT_POS, 0.04)
        spread = np.random.default_rng(0).uniform(-0.2, 0.2, (count, 8)) * [*[1] * 7, 0]
        return (home + spread).astype(space.dtype)
    return np.zeros((count, *space.shape), dtype=space.dtype)


def _timed(call: Callable[[], object], count: int) -> Speed:
    """Seconds per call, the best of some rounds, after a call to warm up."""
    call()
    rounds = []
    for _ in range(_ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            call()
        rounds.append(((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count))
    return Speed(*np.min(rounds, axis=0).tolist())


def main() -> int:
    """Runs everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--steps", type=int, default=4096, help="of all environments together")
    args = parser.parse_args()
    results: dict = {
        "machine": platform.platform(), "cores": os.cpu_count(), "mujoco": mujoco.__version__,
        "load": os.getloadavg(),
    }  # fmt: skip
    print(f"{'':24}{'steps per s':>14}{'per CPU s':>14}")
    for count in args.num_envs:
        for label, measure in (("native", native), ("sync", sync)):
            results[f"{label}_{count}"] = _report(f"{label}, {count}", measure(count, args.steps))
    begin = time.process_time()
    gym.make_vec(pp_env.ENV_ID, num_envs=max(args.num_envs)).close()
    results["make_cpu_s"] = time.process_time() - begin
    results["single"] = _report("one, without wrappers", single(args.steps))
    try:
        name, period, speed = fetch(args.steps // 4)
    except ImportError as error:
        print(f"Fetch was not measured: {error}")
    else:
        results[name] = _report(name, speed)
        ours = PickPlaceEnv().config.timing.control_period / results["single"]["cpu"]
        theirs = period / speed.cpu
        results["simulated_s_per_cpu_s"] = {"ours": ours, name: theirs, "ratio": ours / theirs}
        print(f"\nsimulated seconds per CPU second: {ours:.0f}, {name} {theirs:.0f}, "
              f"ratio {ours / theirs:.2f}")  # fmt: skip
    print(f"making {max(args.num_envs)}: {results['make_cpu_s']:.1f} s of the processor")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "vector.json").write_text(json.dumps(results, indent=2))
    return 0


def _report(label: str, speed: Speed) -> dict[str, float]:
    print(f"{label:24}{1 / speed.wall:14,.0f}{1 / speed.cpu:14,.0f}", flush=True)
    return speed._asdict()


if __name__ == "__main__":
    sys.exit(main())
