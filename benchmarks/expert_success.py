"""How reliable the expert is: over seeds, and over a grid of picks and places.

Usage: python -m benchmarks.expert_success [--seeds 1000] [--grid 9x7] [--grasp fixed_joint]
       [--randomize none]
       python -m benchmarks.expert_success --objects [--seeds 1000] [--num-objects 1]
       python -m benchmarks.expert_success --all [--seeds 1000]

Prints every setting's successes and each failure with its seed or place and its phase, and puts
them into benchmarks/results/success.json, where what other runs found stays. Exits with 1 if the
success rate over seeds is below 99.5 % (97 % with `--randomize full`) or, without randomization,
any place of the grid fails. With --objects it tries every object of the pool, held in both ways, as
they stand and turned at random; at least 99 % must succeed. --all is all of that, with the cube
held in both ways and every preset of randomization: half an hour on four cores.
"""

import argparse
import itertools
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import lru_cache

import numpy as np

from benchmarks import load, save
from experts.diagnosis import failure_phase
from experts.pick_place import PickPlaceExpert
from pp_env import PickPlaceConfig, PickPlaceEnv
from pp_env.config import GraspConfig, TaskConfig
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_recorder.rollout import EpisodeSink, episode_seed, run_episode

_REQUIRED_RATE = {"none": 0.995, "light": 0.995, "full": 0.97}
_REQUIRED_RATE_OF_OBJECTS = 0.99
_CUBE = "cube"
_GRASPS = ("fixed_joint", "friction")
_SEED = 0


@dataclass(frozen=True)
class Setting:
    """What is tried.

    Attributes:
        object: "cube", or a name of the pool.
        grasp: A mode of `GraspConfig`.
        randomize: A preset of randomization.
        turned: Whether objects are turned at random.
        num_objects: How many are on the table.
        grid: None for episodes of the seeds 0, 1, ...; else "NXxNY" picks and places.
    """

    object: str = _CUBE
    grasp: str = _GRASPS[0]
    randomize: str = "none"
    turned: bool = False
    num_objects: int = 1
    grid: str | None = None

    def __str__(self) -> str:
        words = [self.object, self.grasp, "turned" if self.turned else "straight"]
        words += [f"randomize {self.randomize}", f"{self.num_objects} on the table"]
        return ", ".join([*words, f"grid {self.grid}"] if self.grid else words)

    @property
    def config(self) -> PickPlaceConfig:
        """The scene."""
        return PickPlaceConfig(
            grasp=GraspConfig(mode=self.grasp),
            task=TaskConfig(random_yaw=self.turned),
            objects=() if self.object == _CUBE else YCB_OBJECTS,
            num_objects=self.num_objects,
            randomization=RANDOMIZATION_PRESETS[self.randomize],
        )

    @property
    def required_rate(self) -> float:
        """The success rate that is good enough."""
        if self.object != _CUBE:
            return _REQUIRED_RATE_OF_OBJECTS
        if self.grid and self.randomize == "none":
            return 1.0
        return _REQUIRED_RATE[self.randomize]

    def options(self, seeds: int) -> list[dict]:
        """For the reset of each episode."""
        if self.grid:
            return grid_options(*map(int, self.grid.split("x")))
        return [{} if self.object == _CUBE else {"object": self.object}] * seeds


@dataclass(frozen=True)
class Attempt:
    """One episode to run.

    Attributes:
        index: Its number, and seed.
        options: For the reset.
        setting: The scene.
    """

    index: int
    options: dict
    setting: Setting


@dataclass(frozen=True)
class Outcome:
    """How it went: where the object ended, the largest tracking error, and why it failed."""

    success: bool
    distance: float
    tracking_error: float
    failure: str


def attempt(work: Attempt) -> Outcome:
    """Runs one episode, state only, with the expert's default noise."""
    env = _environment(work.setting)
    expert = PickPlaceExpert(hold_steps=env.config.randomization.action_delay[1])
    tracking = TrackingError()
    seed = episode_seed(_SEED, work.index)
    episode = run_episode(env, expert, [tracking], seed, work.index, expert.num_steps, work.options)
    info = episode.trace[-1][1]
    failure = ""
    if not episode.success:
        failure = f"{', '.join(info['unmet_conditions'])} in {failure_phase(episode.trace)}"
    return Outcome(episode.success, info["distance"], tracking.largest, failure)


class TrackingError(EpisodeSink):
    """A sink: the largest difference between an arm target and the joint one period later, rad."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._target: np.ndarray | None = None

    def begin(self, seed: int) -> None:
        """Forgets the last target."""
        self._target = None

    def add(self, step) -> None:
        """Compares the observation with the target before it."""
        if self._target is not None:
            error = float(np.abs(step.observation[:7] - self._target).max())
            self.largest = max(self.largest, error)
        self._target = step.action[:7]


@lru_cache(maxsize=1)
def _environment(setting: Setting) -> PickPlaceEnv:
    """The environment of this process; settings come one after the other."""
    return PickPlaceEnv(config=setting.config, terminate_on_success=False)


def grid_options(nx: int, ny: int) -> list[dict]:
    """Every pair of points of an nx x ny grid over the full ranges that may be pick and place."""
    task = PickPlaceConfig().task
    points = [
        (float(x), float(y))
        for x in np.linspace(*task.x_range, nx)
        for y in np.linspace(*task.y_range, ny)
    ]
    return [
        {"pick": pick, "place": place}
        for pick, place in itertools.product(points, points)
        if np.hypot(pick[0] - place[0], pick[1] - place[1]) >= task.min_distance
    ]


def run(setting: Setting, seeds: int, processes: int) -> dict:
    """Runs the attempts of a setting and prints what came of them."""
    works = [Attempt(k, options, setting) for k, options in enumerate(setting.options(seeds))]
    with ProcessPoolExecutor(processes) as pool:
        outcomes = list(pool.map(attempt, works, chunksize=8))
    good = sum(o.success for o in outcomes)
    distances = np.array([o.distance for o in outcomes]) * 1e3
    tracking = max(o.tracking_error for o in outcomes)
    print(
        f"{setting}: {good} of {len(outcomes)} succeed ({good / len(outcomes):.2%}); distance to "
        f"the target median {np.median(distances):.2f} mm, 99th percentile "
        f"{np.percentile(distances, 99):.2f} mm; largest tracking error {tracking:.4f} rad"
    )
    failures = [
        {"index": work.index, "options": work.options, "failure": outcome.failure}
        for work, outcome in zip(works, outcomes, strict=True)
        if not outcome.success
    ]
    for failure in failures:
        print(f"  failed: {failure}", flush=True)
    return {
        **asdict(setting),
        "episodes": len(outcomes),
        "successes": good,
        "distance_median_mm": float(np.median(distances)),
        "distance_p99_mm": float(np.percentile(distances, 99)),
        "largest_tracking_error_rad": tracking,
        "failures": failures,
    }


def keep(result: dict) -> None:
    """Puts a result beside those of other settings, in the place of an earlier one of its own."""
    names = [field.name for field in fields(Setting)]
    others = [
        other
        for other in (load("success") or {"settings": []})["settings"]
        if any(other[name] != result[name] for name in names)
    ]
    save("success", {"settings": [*others, result]})


def object_settings(num_objects: int) -> list[Setting]:
    """Every object of the pool that can be grasped, in both ways, as it stands and turned."""
    return [
        Setting(obj.name, grasp, turned=turned, num_objects=num_objects)
        for turned, grasp in itertools.product((False, True), _GRASPS)
        for obj in YCB_OBJECTS
        if obj.fits_gripper
    ]


def chosen_settings(args: argparse.Namespace) -> list[Setting]:
    """What the options ask for."""
    if args.objects:
        cubes = []
    elif args.all:
        cubes = list(itertools.product(_GRASPS, RANDOMIZATION_PRESETS))
    else:
        cubes = [(args.grasp, args.randomize)]
    settings = [Setting(grasp=grasp, randomize=randomize) for grasp, randomize in cubes]
    if args.objects or args.all:
        settings += object_settings(args.num_objects)
    if not args.seeds:
        settings = []
    if args.grid and cubes:
        settings.append(Setting(grasp=args.grasp, randomize=args.randomize, grid=args.grid))
    return settings


def _grid(text: str) -> str | None:
    if not re.fullmatch(r"\d+x\d+", text):
        raise argparse.ArgumentTypeError(f"expected NXxNY such as 9x7, got {text!r}")
    return text if grid_options(*map(int, text.split("x"))) else None


def main() -> int:
    """Tries what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="episodes 0..N-1; 0 for none")
    parser.add_argument("--grid", type=_grid, default="9x7",
                        help="of picks and places, NXxNY; 0x0 for none")  # fmt: skip
    parser.add_argument("--grasp", choices=_GRASPS, default=_GRASPS[0])
    parser.add_argument("--randomize", choices=tuple(RANDOMIZATION_PRESETS), default="none")
    parser.add_argument("--objects", action="store_true", help="every object of the pool instead")
    parser.add_argument("--num-objects", type=int, default=1, help="on the table, with --objects")
    parser.add_argument("--all", action="store_true", help="cube and objects in every setting")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    bad = []
    for setting in chosen_settings(args):
        result = run(setting, args.seeds, args.processes)
        keep(result)
        if result["successes"] < setting.required_rate * result["episodes"]:
            bad.append(setting)
    for setting in bad:
        print(f"below {setting.required_rate:.1%}: {setting}", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
