"""What `pp-evaluate --vary` varies, one factor at a time, and the table of what comes of it.

A factor changes the scene, or where its objects stand. For the same seed, the rest stays as it is
without the factor.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.utils.seeding import np_random

from pp_env.config import PickPlaceConfig, TaskConfig
from pp_env.names import did_you_mean
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS, Interval
from pp_env.sim import SIMULATORS
from pp_env.task import EpisodeStart, sample_start
from pp_recorder.evaluation.metrics import EvalMetrics

UNVARIED = "unvaried"
ALL = "all"

_MARGIN = 0.05  # m around the area of picks and places; the whole marker still lies on the table
_DISTRACTORS = 3
_TALLEST = 0.12  # m; over taller ones the hand moves so high that it does not reach every pick

ResetOptions = dict[str, Any]
StartChooser = Callable[[PickPlaceConfig, int | None, ResetOptions], ResetOptions]


@dataclass(frozen=True)
class Factor:
    """Something that can vary.

    Attributes:
        meaning: What varies, in a few words.
        ranges: Fields of `RandomizationConfig` that get their values in the preset "full".
        is_seen: True if it varies nothing but images.
        change_scene: What else changes in the configuration; raises ValueError where it cannot.
        choose_start: Function from the configuration without the factor, an episode's seed and its
            reset options to the options in their place; None leaves them.
    """

    meaning: str
    ranges: tuple[str, ...] = ()
    is_seen: bool = False
    change_scene: Callable[[PickPlaceConfig], PickPlaceConfig] = lambda config: config
    choose_start: StartChooser | None = None


def add_distractors(config: PickPlaceConfig) -> PickPlaceConfig:
    """Return the scene with household objects beside its only object.

    Raises:
        ValueError: It has a pool of objects already.
    """
    if config.objects:
        raise ValueError(f"stand beside the {config.object.label}, not in the scene of --use-ycb")
    low = tuple(obj for obj in YCB_OBJECTS if obj.height <= _TALLEST)
    return dataclasses.replace(config, objects=(config.object, *low), num_objects=1 + _DISTRACTORS)


def keep_start(config: PickPlaceConfig, seed: int | None, options: ResetOptions) -> ResetOptions:
    """Return options for the start that a seed has in the scene of `config`, for another scene."""
    start = sample_start(np_random(seed)[0], config, options)
    return {**_keep_object(start, config, options), "pick": start.pick, "place": start.place}


def start_outside(config: PickPlaceConfig, seed: int | None, options: ResetOptions) -> ResetOptions:
    """Return options for the seed's start with other places, one or both outside the usual area.

    They are sampled up to `_MARGIN` around the ranges of `config.task`, within the arm's reach,
    until the pick, the place or both lie outside the ranges.
    """
    rng, _ = np_random(seed)
    usual = config.task
    wide = dataclasses.replace(usual, x_range=_widen(usual.x_range), y_range=_widen(usual.y_range))
    wide_config = dataclasses.replace(config, task=wide)
    options = _keep_object(sample_start(rng, config, options), config, options)
    while True:
        start = sample_start(rng, wide_config, options)
        if not (_is_inside(start.pick, usual) and _is_inside(start.place, usual)):
            return {**options, "pick": start.pick, "place": start.place}


FACTORS = {
    "light": Factor(
        "position and intensity of the light", ("light_position", "light_intensity"), is_seen=True
    ),
    "camera": Factor(
        "poses of the cameras",
        ("camera_position", "camera_rotation", "hand_camera_position", "hand_camera_rotation"),
        is_seen=True,
    ),
    "texture": Factor(
        "colour of the table, patterns on table and object",
        ("table_rgb", "table_textures", "object_textures"),
        is_seen=True,
    ),
    "mass": Factor("mass of the object", ("mass",)),
    "friction": Factor("friction of the object", ("friction",)),
    "sensing": Factor(
        "noise on the observed joints, delay of actions",
        ("joint_pos_noise", "joint_vel_noise", "action_delay"),
    ),
    "position": Factor(
        f"object, goal or both up to {100 * _MARGIN:g} cm outside the area of the demonstrations",
        choose_start=start_outside,
    ),
    "distractors": Factor(
        f"{_DISTRACTORS} household objects beside the cube",
        change_scene=add_distractors,
        choose_start=keep_start,
    ),
}
_FACTORS = {UNVARIED: Factor("nothing"), **FACTORS}


def choose_factors(names: Sequence[str]) -> tuple[str, ...]:
    """Return the factors that are named, in the order of the table; `ALL` stands for all.

    Raises:
        ValueError: A name is unknown or given twice, or there is none.
    """
    if tuple(names) == (ALL,):
        return tuple(FACTORS)
    if not names or set(names) - set(FACTORS) or len(set(names)) < len(names):
        got = ",".join(names) or "none"
        raise ValueError(
            f"must be {ALL}, or some of {','.join(FACTORS)}, each once, got {got}"
            f"{did_you_mean(names, [ALL, *FACTORS])}"
        )
    return tuple(name for name in FACTORS if name in names)


def require_factors(names: Sequence[str], config: PickPlaceConfig, simulator: str) -> None:
    """Check that every one of the factors changes something that the simulator can vary.

    Args:
        names: The factors.
        config: Of the environment without any of them.
        simulator: One of `SIMULATORS`.

    Raises:
        ValueError: One does not; the message names those that do.
    """
    problems = {name: _problem(name, config, simulator) for name in FACTORS}
    if wrong := [f"{name}: {problems[name]}" for name in names if problems[name]]:
        able = ",".join(name for name, problem in problems.items() if not problem)
        raise ValueError(f"--vary {'; '.join(wrong)}; these would work: --vary {able}")


def vary_scene(name: str, config: PickPlaceConfig) -> PickPlaceConfig:
    """Return the configuration with a factor, or with `UNVARIED` the same.

    Raises:
        ValueError: The factor does not fit the scene.
    """
    factor = _FACTORS[name]
    full = RANDOMIZATION_PRESETS["full"]
    ranges = {field: getattr(full, field) for field in factor.ranges}
    randomization = dataclasses.replace(config.randomization, **ranges)
    return factor.change_scene(dataclasses.replace(config, randomization=randomization))


def vary_starts(name: str, config: PickPlaceConfig, env: gym.Env) -> gym.Env:
    """Return the environment with the starts of a factor.

    Args:
        name: The factor, or `UNVARIED`.
        config: Of the environment without the factor.
        env: The environment of the scene that `vary_scene` returns.
    """
    choose = _FACTORS[name].choose_start
    return env if choose is None else _ChosenStarts(env, config, choose)


def comparison(scores: Mapping[str, EvalMetrics], has_images: bool) -> str:
    """Return a table for the terminal with one row per factor.

    Args:
        scores: What was measured, by factor.
        has_images: Whether the policy observes images.
    """
    rows = [("factor", "successes", "rate", "95 % interval", "failures, most of them at")]
    for name, metrics in scores.items():
        low, high = metrics.interval
        counts = f"{metrics.successes} of {metrics.episodes}"
        interval = f"{low:.1%} to {high:.1%}"
        rows.append((name, counts, f"{metrics.success_rate:.1%}", interval, _failures(metrics)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{name:<{widths[0]}}  {counts:>{widths[1]}}  {rate:>{widths[2]}}  "
        f"{interval:>{widths[3]}}  {failures}"
        for name, counts, rate, interval, failures in rows
    ]
    unseen = [name for name in scores if _FACTORS[name].is_seen and not has_images]
    if unseen:
        lines += ["", f"The policy observes no images, so it cannot see: {', '.join(unseen)}."]
    return "\n".join(lines)


def factor_table() -> str:
    """Return a Markdown table of the factors."""
    rows = ["| factor | what varies | ranges |", "|---|---|---|"]
    for name, factor in FACTORS.items():
        ranges = ", ".join(f"`{field}`" for field in factor.ranges) or "-"
        rows.append(f"| `{name}` | {factor.meaning} | {ranges} |")
    return "\n".join(rows)


class _ChosenStarts(gym.Wrapper):
    """An environment whose episodes begin where a factor wants it."""

    def __init__(self, env: gym.Env, config: PickPlaceConfig, choose: StartChooser) -> None:
        super().__init__(env)
        self._config = config
        self._choose = choose

    def reset(
        self, *, seed: int | None = None, options: ResetOptions | None = None
    ) -> tuple[Any, dict[str, Any]]:
        chosen = self._choose(self._config, seed, options or {})
        return self.env.reset(seed=seed, options=chosen)


def _keep_object(
    start: EpisodeStart, config: PickPlaceConfig, options: ResetOptions
) -> ResetOptions:
    """Return the options, and with them the target of a start and how it is turned."""
    return {**options, "object": config.object_pool[start.target].name, "yaw": start.yaw}


def _widen(interval: Interval) -> Interval:
    return interval[0] - _MARGIN, interval[1] + _MARGIN


def _is_inside(point: Any, task: TaskConfig) -> bool:
    """Return True if a point (2,), m, world frame, is in the area of picks and places."""
    ranges = zip(point, (task.x_range, task.y_range), strict=True)
    return all(low <= value <= high for value, (low, high) in ranges)


def _problem(name: str, config: PickPlaceConfig, simulator: str) -> str:
    """Return why a factor cannot be measured in a scene; "" if it can."""
    factor = _FACTORS[name]
    if unable := [r for r in factor.ranges if r in SIMULATORS[simulator].not_randomized]:
        return f"{simulator} cannot vary {', '.join(unable)}"
    try:
        varied = vary_scene(name, config)
    except ValueError as error:
        return str(error)
    if varied == config and factor.choose_start is None:
        return "--randomize already varies it as much"
    return ""


def _failures(metrics: EvalMetrics) -> str:
    """Return the most frequent stage of the failures, and how many of them; "-" for none."""
    if not metrics.failures_by_stage:
        return "-"
    stage, count = next(iter(metrics.failures_by_stage.items()))
    return f"{stage} ({count} of {metrics.episodes - metrics.successes})"
