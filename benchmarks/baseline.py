"""Measure one environment in this process: ours or a baseline's, all in the same way.

Usage: python -m benchmarks.baseline NAME state|images [--seconds 2]

Runs in the virtual environment of the one that is measured, and imports no other. Actions are
random, the control rate is the environment's own, and resets do not count as steps. Prints JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from statistics import median
from typing import Any, NamedTuple

from benchmarks import peak_memory_mb

SIZE = 512  # pixels, of the square images
_ACTIONS = 256
_RESETS = 3


class EnvAdapter(NamedTuple):
    """An environment behind the interface that all baselines have in common.

    Attributes:
        packages: Packages whose versions are reported.
        period: Time between two actions, s.
        actions: Actions to apply in a cycle.
        reset: Starts an episode.
        step: Applies an action, renders two images if they are measured, and returns whether the
            episode has ended.
    """

    packages: tuple[str, ...]
    period: float
    actions: Sequence[Any]
    reset: Callable[[], object]
    step: Callable[[Any], bool]


def ours(images: bool) -> EnvAdapter:
    """Return our environment, with two cameras and the preset `default`."""
    import gymnasium as gym

    import pp_env

    env = gym.make(pp_env.ENV_ID, obs_type="pixels" if images else "state")
    period = env.unwrapped.config.timing.control_period
    return _of_gymnasium(env, ("mujoco",), period)


def fetch(images: bool) -> EnvAdapter:
    """Return Gymnasium-Robotics' Fetch, whose only view is rendered twice."""
    import gymnasium as gym
    import gymnasium_robotics

    gym.register_envs(gymnasium_robotics)
    name = max(i for i in gym.registry if i.startswith("FetchPickAndPlace-v"))
    size = {"render_mode": "rgb_array", "width": SIZE, "height": SIZE} if images else {}
    env = gym.make(name, **size)
    packages = ("gymnasium-robotics", "mujoco")
    return _of_gymnasium(env, packages, env.unwrapped.dt, 2 if images else 0)


def panda_gym(images: bool) -> EnvAdapter:
    """Return panda-gym, whose only view is rendered twice.

    PyBullet's own renderer is used, because its OpenGL needs a window.
    """
    import gymnasium as gym
    import panda_gym  # noqa: F401

    size = {"render_width": SIZE, "render_height": SIZE}
    env = gym.make("PandaPickAndPlace-v3", render_mode="rgb_array", renderer="Tiny", **size)
    period = env.unwrapped.sim.dt
    return _of_gymnasium(env, ("panda-gym", "pybullet"), period, 2 if images else 0)


def gym_hil(images: bool) -> EnvAdapter:
    """Return gym-hil, with two cameras."""
    import gym_hil  # noqa: F401
    import gymnasium as gym
    from gym_hil.mujoco_gym_env import GymRenderingSpec

    spec = GymRenderingSpec(SIZE, SIZE)
    env = gym.make("gym_hil/PandaPickCubeBase-v0", image_obs=images, render_spec=spec)
    return _of_gymnasium(env, ("gym-hil", "mujoco"), env.unwrapped.control_dt)


def robosuite(images: bool) -> EnvAdapter:
    """Return robosuite, with two cameras."""
    import numpy as np
    import robosuite

    env = robosuite.make(
        "Lift",
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=images,
        use_camera_obs=images,
        camera_names=["agentview", "robot0_eye_in_hand"],
        camera_heights=SIZE,
        camera_widths=SIZE,
    )
    low, high = env.action_spec
    actions = np.random.default_rng(0).uniform(low, high, (_ACTIONS, len(low)))

    def step(action: Any) -> bool:
        return env.step(action)[2]

    return EnvAdapter(("robosuite", "mujoco"), 1 / env.control_freq, actions, env.reset, step)


ADAPTERS: dict[str, Callable[[bool], EnvAdapter]] = {
    adapter.__name__: adapter for adapter in (ours, fetch, robosuite, panda_gym, gym_hil)
}


def _of_gymnasium(
    env: Any, packages: tuple[str, ...], period: float, renders: int = 0
) -> EnvAdapter:
    """Return the adapter of a Gymnasium environment, which renders `renders` times after a step."""
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(_ACTIONS)]

    def step(action: Any) -> bool:
        _, _, terminated, truncated, _ = env.step(action)
        for _ in range(renders):
            env.render()
        return terminated or truncated

    return EnvAdapter(packages, period, actions, env.reset, step)


def measure(adapter: EnvAdapter, seconds: float) -> dict[str, float]:
    """Return the cost of resets and steps, measured over so many seconds of CPU time."""
    resets = [_cpu_seconds(adapter.reset) for _ in range(_RESETS)]
    adapter.step(adapter.actions[0])  # the first one loads lazily
    steps, spent = 0, 0.0
    while spent < seconds:
        begin = time.process_time()
        ended = adapter.step(adapter.actions[steps % _ACTIONS])
        spent += time.process_time() - begin
        steps += 1
        if ended:
            adapter.reset()
    return {
        "reset_cpu_s": median(resets),
        "images_per_cpu_s": 2 * steps / spent,  # if images are rendered
        "sim_s_per_cpu_s": steps * adapter.period / spent,
    }


def _cpu_seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=ADAPTERS, help="environment")
    parser.add_argument("what", choices=("state", "images"), help="observation")
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time to measure, s")
    args = parser.parse_args()
    adapter = ADAPTERS[args.name](args.what == "images")
    figures = {
        "make_cpu_s": time.process_time(),  # since the process began
        **measure(adapter, args.seconds),
        "peak_memory_mb": peak_memory_mb(),
    }
    versions = {package: version(package) for package in adapter.packages}
    print(json.dumps({"versions": versions, "period_s": adapter.period, **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
