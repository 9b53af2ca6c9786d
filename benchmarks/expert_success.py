"""Measure the expert's success rate over seeds, and over a grid of picks and places.

Usage: python -m benchmarks.expert_success [--seeds 1000] [--grid 9x7] [--grasp fixed_joint]
       [--randomize none] [--control-mode joint_pos] [--fps 30]
       python -m benchmarks.expert_success --objects [--seeds 1000] [--num-objects 1]
       python -m benchmarks.expert_success --all [--seeds 1000]

Prints the successes of every setting, and each failure with its seed or place and its stage, and
writes them to benchmarks/results/success.json, beside the settings of other runs. Exits with 1 if
the success rate over seeds is below 99.5 % (97 % with `--randomize full`) or, without
randomization, any place of the grid fails. --objects measures every object of the pool, in both
grasp modes, unturned and turned at random; at least 99 % must succeed. --all measures all of that,
with the cube in both grasp modes and every preset of randomization: half an hour on four cores.
"""

import argparse
import itertools
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import lru_cache

import numpy as np

from benchmarks import load, save
from experts.diagnosis import failure_phase
from experts.pick_place import PickPlaceExpert
from pp_collect.actions import EXPERT_CONTROL_MODES, in_control_mode
from pp_env import PickPlaceConfig, PickPlaceEnv
from pp_env.config import GraspConfig, TaskConfig, TimingConfig
from pp_env.objects import YCB_OBJECTS
from pp_env.processors import usable_processors
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_recorder.rollout import EpisodeSink, episode_seed, run_episode

_REQUIRED_RATE = {"none": 0.995, "light": 0.995, "full": 0.97}
_REQUIRED_RATE_OF_OBJECTS = 0.99
_CUBE = "cube"
_GRASPS = ("fixed_joint", "friction")
_SEED = 0


@dataclass(frozen=True)
class Setting:
    """A scene, and the episodes to run in it.

    Attributes:
        object: "cube", or a name of the pool.
        grasp: Grasp mode.
        randomize: Preset of randomization.
        turned: Whether objects are turned at random.
        num_objects: Number of objects on the table.
        control_mode: What the actions mean that the expert's become.
        fps: Control rate, Hz.
        grid: "NXxNY" picks and places, or None for episodes with the seeds 0, 1, ...
    """

    object: str = _CUBE
    grasp: str = _GRASPS[0]
    randomize: str = "none"
    turned: bool = False
    num_objects: int = 1
    control_mode: str = EXPERT_CONTROL_MODES[0]
    fps: int = TimingConfig.control_hz
    grid: str | None = None

    def __str__(self) -> str:
        words = [self.object, self.grasp, "turned" if self.turned else "straight"]
        words += [f"randomize {self.randomize}", f"{self.num_objects} on the table"]
        words += [f"{self.control_mode} at {self.fps} Hz"]
        return ", ".join([*words, f"grid {self.grid}"] if self.grid else words)

    @property
    def config(self) -> PickPlaceConfig:
        """Return the configuration of the scene."""
        return PickPlaceConfig(
            timing=TimingConfig(self.fps),
            grasp=GraspConfig(mode=self.grasp),
            task=TaskConfig(random_yaw=self.turned),
            objects=() if self.object == _CUBE else YCB_OBJECTS,
            num_objects=self.num_objects,
            randomization=RANDOMIZATION_PRESETS[self.randomize],
        )

    @property
    def required_rate(self) -> float:
        """Return the lowest success rate that passes."""
        if self.object != _CUBE:
            return _REQUIRED_RATE_OF_OBJECTS
        if self.grid and self.randomize == "none":
            return 1.0
        return _REQUIRED_RATE[self.randomize]

    def options(self, seeds: int) -> list[dict]:
        """Return the reset options of each episode."""
        if self.grid:
            return grid_options(*map(int, self.grid.split("x")))
        return [{} if self.object == _CUBE else {"object": self.object}] * seeds


@dataclass(frozen=True)
class EpisodeSpec:
    """An episode to run.

    Attributes:
        index: Its number, from which its seed derives.
        options: For the reset.
        setting: The scene.
    """

    index: int
    options: dict
    setting: Setting


@dataclass(frozen=True)
class Outcome:
    """The outcome of an episode.

    Attributes:
        success: Whether it succeeded.
        distance: From the object to the target at the end, m.
        tracking_error: The largest one, rad; 0 if the actions are no joint targets.
        limited: Number of steps whose command did not bring the hand to the action's pose.
        failure: Unmet conditions and stage, or "".
    """

    success: bool
    distance: float
    tracking_error: float
    limited: int
    failure: str


def run_spec(spec: EpisodeSpec) -> Outcome:
    """Run one episode, state only, with the expert's default noise."""
    env, mode = _environment(spec.setting), spec.setting.control_mode
    delay = env.config.randomization.action_delay[1]
    expert = PickPlaceExpert(hold_steps=delay, control_hz=spec.setting.fps)
    tracking = TrackingError()
    sinks = [tracking] if mode == "joint_pos" else []
    seed, steps = episode_seed(_SEED, spec.index), expert.num_steps
    policy = in_control_mode(expert, mode)
    episode = run_episode(env, policy, sinks, seed, spec.index, steps, spec.options)
    info = episode.trace[-1][1]
    failure = ""
    if not episode.success:
        failure = f"{', '.join(info['unmet_conditions'])} in {failure_phase(episode.trace)}"
    limited = sum(bool(after.get("action_limits")) for _, after in episode.trace)
    return Outcome(episode.success, info["distance"], tracking.largest, limited, failure)


class TrackingError(EpisodeSink):
    """A sink that measures the largest difference between a joint and its last target, rad."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._target: np.ndarray | None = None

    def begin(self, seed: int) -> None:
        """Forget the last target."""
        self._target = None

    def add(self, step) -> None:
        """Compare the joints with the last target."""
        if self._target is not None:
            error = float(np.abs(step.observation[:7] - self._target).max())
            self.largest = max(self.largest, error)
        self._target = step.action[:7]


@lru_cache(maxsize=1)
def _environment(setting: Setting) -> PickPlaceEnv:
    """Return the environment of this process, which is made again when the setting changes."""
    return PickPlaceEnv(
        config=setting.config, terminate_on_success=False, control_mode=setting.control_mode
    )


def grid_options(nx: int, ny: int) -> list[dict]:
    """Return reset options for every valid pick and place on an nx x ny grid of the ranges."""
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
    """Run the episodes of a setting, print the result, and return it."""
    specs = [EpisodeSpec(k, options, setting) for k, options in enumerate(setting.options(seeds))]
    with ProcessPoolExecutor(processes) as pool:
        outcomes = list(pool.map(run_spec, specs, chunksize=8))
    good = sum(o.success for o in outcomes)
    distances = np.array([o.distance for o in outcomes]) * 1e3
    tracking = max(o.tracking_error for o in outcomes)
    limited = sum(o.limited for o in outcomes)
    print(
        f"{setting}: {good} of {len(outcomes)} succeed ({good / len(outcomes):.2%}); distance to "
        f"the target median {np.median(distances):.2f} mm, 99th percentile "
        f"{np.percentile(distances, 99):.2f} mm; largest tracking error {tracking:.4f} rad; "
        f"{limited} steps limited"
    )
    failures = [
        {"index": spec.index, "options": spec.options, "failure": outcome.failure}
        for spec, outcome in zip(specs, outcomes, strict=True)
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
        "limited_steps": limited,
        "failures": failures,
    }


_DEFAULTS = asdict(Setting())  # what results from before an option existed were measured with


def save_result(result: dict) -> None:
    """Save a result in place of an earlier one of the same setting; keep other settings."""
    names = [field.name for field in fields(Setting)]
    others = [
        other
        for other in (load("success") or {"settings": []})["settings"]
        if any(other.get(name, _DEFAULTS[name]) != result[name] for name in names)
    ]
    save("success", {"settings": [*others, result]})


def object_settings(num_objects: int) -> list[Setting]:
    """Return every graspable object of the pool, in both grasp modes, unturned and turned."""
    return [
        Setting(obj.name, grasp, turned=turned, num_objects=num_objects)
        for turned, grasp in itertools.product((False, True), _GRASPS)
        for obj in YCB_OBJECTS
        if obj.fits_gripper
    ]


def select_settings(args: argparse.Namespace) -> list[Setting]:
    """Return the settings that the command line selects."""
    if args.objects:
        cubes = []
    elif args.all:
        cubes = list(itertools.product(_GRASPS, RANDOMIZATION_PRESETS))
    else:
        cubes = [(args.grasp, args.randomize)]
    chosen = {"control_mode": args.control_mode, "fps": args.fps}
    settings = [Setting(grasp=grasp, randomize=each, **chosen) for grasp, each in cubes]
    if args.objects or args.all:
        settings += object_settings(args.num_objects)
    if not args.seeds:
        settings = []
    if args.grid and cubes:
        scene = {"grasp": args.grasp, "randomize": args.randomize, "grid": args.grid}
        settings.append(Setting(**scene, **chosen))
    return settings


def _grid(text: str) -> str | None:
    if not re.fullmatch(r"\d+x\d+", text):
        raise argparse.ArgumentTypeError(f"expected NXxNY such as 9x7, got {text!r}")
    return text if grid_options(*map(int, text.split("x"))) else None


def main() -> int:
    """Run the command line; return 1 if a success rate is too low."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds, from 0; 0: none")
    parser.add_argument("--grid", type=_grid, default="9x7",
                        help="picks and places, NXxNY; 0x0: none")  # fmt: skip
    parser.add_argument("--grasp", choices=_GRASPS, default=_GRASPS[0], help="grasp mode")
    parser.add_argument("--randomize", choices=tuple(RANDOMIZATION_PRESETS), default="none",
                        help="preset")  # fmt: skip
    parser.add_argument("--control-mode", choices=EXPERT_CONTROL_MODES,
                        default=EXPERT_CONTROL_MODES[0], help="of the cube's episodes")  # fmt: skip
    parser.add_argument("--fps", type=int, default=TimingConfig.control_hz,
                        help="control rate of the cube's episodes, Hz")  # fmt: skip
    parser.add_argument("--objects", action="store_true", help="measure every object of the pool")
    parser.add_argument("--num-objects", type=int, default=1, help="on the table, for --objects")
    parser.add_argument("--all", action="store_true", help="measure every setting")
    parser.add_argument("--processes", type=int, default=usable_processors(),
                        help="default: one per core")  # fmt: skip
    args = parser.parse_args()
    bad = []
    for setting in select_settings(args):
        result = run(setting, args.seeds, args.processes)
        save_result(result)
        if result["successes"] < setting.required_rate * result["episodes"]:
            bad.append(setting)
    for setting in bad:
        print(f"below {setting.required_rate:.1%}: {setting}", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
