"""Measure the reactive expert from every start: success, sign flips, and replays bit for bit.

Usage: python -m benchmarks.reactive_success [--seeds 10000] [--starts 2000] [--objects 1000]

The cube from `policy`, `anywhere` and `random` (--starts) and from HOME (--seeds), then every
object of the pool from HOME (--objects), each in both grasp modes. For `policy`, a clumsy stand-in
drives: the waypoint expert with an error on its joints. Every episode from another start than HOME
is replayed from its recorded prelude and actions, and must give the same numbers.

Prints a line per setting and each failure with its seed, and writes them to
benchmarks/results/reactive.json. Exits with 1 below 99.9 % (cube from HOME) or 99.5 % (others), if
any hand quaternion changes its sign within an episode, or if a replay differs.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks import save
from experts.pick_place import PickPlaceExpert
from experts.reactive import ReactiveExpert
from pp_collect.starts import EpisodeStarts, Prelude, RecordedStart
from pp_env import ENV_ID, PickPlaceConfig
from pp_env.config import GraspConfig, TaskConfig
from pp_env.layout import OBSERVATION
from pp_env.objects import YCB_OBJECTS
from pp_env.processors import usable_processors
from pp_recorder.dataset.compare import ReplayPolicy
from pp_recorder.rollout import EpisodeSink, Step, episode_seed, run_episode

_SEED = 0
_REQUIRED, _REQUIRED_ELSEWHERE = 0.999, 0.995
_CLUMSINESS = 0.06  # rad


@dataclass(frozen=True)
class Setting:
    """A scene and a start.

    Attributes:
        start: Start kind.
        grasp: Grasp mode.
        object: Name of an object of the pool, or "cube".
    """

    start: str
    grasp: str
    object: str = "cube"

    @property
    def required_rate(self) -> float:
        """The lowest success rate that passes."""
        is_easy = self.start == "home" and self.object == "cube"
        return _REQUIRED if is_easy else _REQUIRED_ELSEWHERE

    @property
    def config(self) -> PickPlaceConfig:
        """The configuration of the scene; objects of the pool are turned at random."""
        is_cube = self.object == "cube"
        return PickPlaceConfig(
            grasp=GraspConfig(mode=self.grasp),  # pyright: ignore[reportArgumentType]
            task=TaskConfig(random_yaw=not is_cube),
            objects=() if is_cube else YCB_OBJECTS,
        )

    @property
    def options(self) -> dict[str, Any]:
        """What every reset fixes."""
        return {} if self.object == "cube" else {"object": self.object}


@dataclass(frozen=True)
class Outcome:
    """The outcome of an episode.

    Attributes:
        index: Its number, from which its seed derives.
        success: Whether it succeeded.
        length: Its number of steps.
        event: What went wrong before it began, or "".
        flips: How often the hand's quaternion changed its sign.
        replays: Whether a replay gave the same numbers.
        failure: Unmet conditions at the end, or "".
    """

    index: int
    success: bool
    length: int
    event: str
    flips: int
    replays: bool
    failure: str


class Tape(EpisodeSink):
    """A sink that keeps what a replay needs, and what it must give."""

    def __init__(self) -> None:
        self.actions: list[np.ndarray] = []
        self.seen: list[np.ndarray] = []

    def add(self, step: Step) -> None:
        """Keep one step."""
        self.actions.append(step.executed)
        self.seen.append(np.concatenate([step.observation, step.info["environment_state"]]))

    @property
    def flips(self) -> int:
        """How often the hand's quaternion changed its sign."""
        quat = OBSERVATION.unpack(np.array(self.seen)[:, : OBSERVATION.size])["eef_quat"]
        return int(((quat[1:] * quat[:-1]).sum(1) < 0).sum())


class Clumsy:
    """Stands in for a policy with errors: the waypoint expert, with its joints off by some."""

    needs_images = False

    def __init__(self, env: gym.Env) -> None:
        self.policy = self
        self._expert = PickPlaceExpert()
        self._error = np.zeros(8)

    def observation(self, observation: Any, info: dict[str, Any]) -> Any:
        """Return what the policy takes: the vector (23,)."""
        return observation

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Plan an episode and draw its error."""
        self._expert.reset(observation, info, rng)
        self._error = np.append(rng.uniform(-_CLUMSINESS, _CLUMSINESS, size=7), 0.0)

    def act(self, observation: Any) -> np.ndarray:
        """Return the expert's action with the error."""
        return (self._expert.act(observation) + self._error).astype(np.float32)


@lru_cache(maxsize=1)
def _environment(setting: Setting) -> gym.Env:
    """Return the environment of this process, made again when the setting changes."""
    return gym.make(
        ENV_ID,
        max_episode_steps=sys.maxsize,
        disable_env_checker=True,
        config=setting.config,
        terminate_on_success=False,
    )


def run_one(setting: Setting, index: int) -> Outcome:
    """Run one episode, and replay it if it did not start from HOME."""
    env, expert, tape = _environment(setting), ReactiveExpert(), Tape()
    starts = EpisodeStarts({setting.start: 1.0}, setting.config, ReactiveExpert, Clumsy)
    seed, steps = episode_seed(_SEED, index), expert.num_steps
    episode = run_episode(env, expert, [tape], seed, index, steps, setting.options, starts)
    prelude = episode.start_info["prelude"]
    return Outcome(
        index,
        episode.success,
        episode.length,
        prelude.event,
        tape.flips,
        setting.start == "home" or _replays(env, seed, setting, prelude, tape),
        ", ".join(episode.end_info["unmet_conditions"]),
    )


def _replays(env: gym.Env, seed: int, setting: Setting, prelude: Prelude, recorded: Tape) -> bool:
    """Return True if the stored prelude and the recorded actions give the same numbers."""
    start = RecordedStart(Prelude.from_entry(prelude.to_entry()))
    again, policy, steps = Tape(), ReplayPolicy(recorded.actions), len(recorded.actions)
    run_episode(env, policy, [again], seed, 0, steps, setting.options, start)
    return np.array_equal(again.seen, recorded.seen)


def measure(setting: Setting, count: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Run the episodes of a setting, print the result and return it."""
    outcomes = list(pool.map(run_one, [setting] * count, range(count), chunksize=10))
    good = sum(o.success for o in outcomes)
    flips = sum(o.flips for o in outcomes)
    differing = [o.index for o in outcomes if not o.replays]
    events = sorted({o.event for o in outcomes})
    by_event = {
        event or "none": [
            sum(o.success for o in outcomes if o.event == event),
            sum(o.event == event for o in outcomes),
        ]
        for event in events
    }
    passed = good >= setting.required_rate * count and not flips and not differing
    steps = np.median([o.length for o in outcomes])
    print(
        f"{setting.object} from {setting.start}, {setting.grasp}: {good} of {count} succeed "
        f"({good / count:.2%}), median {steps:.0f} steps, {flips} sign flips, "
        f"{len(differing)} replays differ; {by_event}",
        flush=True,
    )
    failed = [o for o in outcomes if not o.success]
    for outcome in failed:
        print(f"  failed: {outcome}", flush=True)
    return {
        **vars(setting),
        "episodes": count,
        "successes": good,
        "by_event": by_event,
        "median_steps": float(steps),
        "sign_flips": flips,
        "replays_differ": differing,
        "failed": [vars(o) for o in failed],
        "passed": bool(passed),
    }


def main() -> int:
    """Run all settings; return 0 if all pass."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=10_000, help="the cube from HOME")
    parser.add_argument("--starts", type=int, default=2_000, help="the cube from each other start")
    parser.add_argument("--objects", type=int, default=1_000, help="each object of the pool")
    parser.add_argument("--processes", type=int, default=usable_processors())
    options = parser.parse_args()
    grasps = ("fixed_joint", "friction")
    plan = [
        (Setting(start, grasp), options.starts)
        for start in ("policy", "anywhere", "random")
        for grasp in grasps
    ]
    plan += [(Setting("home", grasp), options.seeds) for grasp in grasps]
    plan += [
        (Setting("home", grasp, obj.name), options.objects)
        for obj in YCB_OBJECTS
        if obj.fits_gripper
        for grasp in grasps
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        results = [measure(setting, count, pool) for setting, count in plan if count]
    save("reactive", {"settings": results})
    return 0 if all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
