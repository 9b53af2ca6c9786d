"""Measure a policy in closed-loop episodes on fixed seeds, or ask what its plan follows.

Console script: pp-evaluate.
"""

if __name__ == "__main__":
    from pp_recorder import interrupts

    interrupts.leave_on_interrupt()  # before the imports below, which take long

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from tqdm import tqdm

import pp_env
from experts.diagnosis import failure_stage
from pp_collect.factory import make_config, reset_options
from pp_collect.options import PROBED_OBS_TYPE, EvaluateOptions, PolicyOptions, SceneOptions
from pp_collect.policies import OWN_POLICIES, make_policy
from pp_collect.probe import probe, require_planner
from pp_collect.robustness import (
    UNVARIED,
    comparison,
    require_factors,
    vary_scene,
    vary_starts,
)
from pp_collect.session import worker_render_env
from pp_env.config import NAMED_CAMERAS, PickPlaceConfig, RenderConfig
from pp_env.control import CONTROL_MODES
from pp_env.names import did_you_mean
from pp_env.sim import SIMULATORS, shutdown_app
from pp_recorder.command_line import fail, parse
from pp_recorder.dataset.compare import ReplayPolicy
from pp_recorder.dataset.versions import describe_environment
from pp_recorder.evaluation.lerobot_policy import ACTION, ENVIRONMENT_STATE, Checkpoint
from pp_recorder.evaluation.metrics import EpisodeResult, EvalMetrics, Grid, compute_metrics
from pp_recorder.evaluation.runner import (
    EvaluatedEpisode,
    EvaluationError,
    PolicyRunner,
    TaskOutcome,
    evaluate,
)
from pp_recorder.interrupts import interrupted, raise_on_interrupt
from pp_recorder.output import describe_error, make_folder, require_file
from pp_recorder.rollout import episode_seed, run_episode
from pp_recorder.sinks import SideBySide, moving, setup_logging

_POLICY_OPTIONS = [f.name for f in dataclasses.fields(PolicyOptions)]
_PROG = "pp-evaluate"
_IF_FULL = (
    "what has been printed is right, but --json or --videos is incomplete; once there is room, the "
    "same command gives the same result"
)


class Measured(NamedTuple):
    """The episodes of one scene, and what comes of them."""

    metrics: EvalMetrics
    episodes: list[EvaluatedEpisode]

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that `json.dump` takes."""
        return {
            "scores": self.metrics.to_json(),
            "episodes": [vars(episode.result) for episode in self.episodes],
        }


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, 1 below a minimum, or 2 if it cannot evaluate."""
    options = parse(
        EvaluateOptions,
        argv,
        prog=_PROG,
        description="Run a policy in closed loop on fixed seeds and report how well it does. "
        "Exit status: 0 done, 1 below --min-success or --min-pictures-share, 2 it cannot be "
        "evaluated.",
        example="pp-evaluate --policy outputs/train/act --num-episodes 100 --workers 4",
    )
    setup_logging()
    status = 2
    try:
        raise_on_interrupt()
        options = prepare(options)
        status = run_probe(options) if options.probe else run(options)
    except (EvaluationError, ValueError, RuntimeError, ImportError, OSError) as error:
        print(f"error: {describe_error(error, _IF_FULL)}", file=sys.stderr)
    except KeyboardInterrupt:
        status = interrupted("there is no result")
    finally:
        shutdown_app(status)
    return status


def prepare(options: EvaluateOptions) -> EvaluateOptions:
    """Return the options with what was left open; end the process if they cannot be meant."""
    try:
        options = resolve_options(options)
        require_writable(options)
    except (ValueError, OSError) as error:
        fail(_PROG, error)
    return options


def run(options: EvaluateOptions) -> int:
    """Evaluate and report; return the exit status."""
    begin = time.perf_counter()
    measured = {
        factor: Measured(compute_metrics([e.result for e in episodes], make_grid()), episodes)
        for factor, episodes in run_episodes(options).items()
    }
    seconds = time.perf_counter() - begin
    print(report(options, measured, seconds))
    if options.json is not None:
        options.json.write_text(
            json.dumps(to_json(options, measured), indent=2, default=str) + "\n"
        )
    if options.videos is not None:
        for name, (_, episodes) in measured.items():
            folder = options.videos / name if options.factors else options.videos
            for path in write_videos(options, folder, episodes, name):
                print(f"video      {path}")
    return min_success_status(options, measured)


def run_probe(options: EvaluateOptions) -> int:
    """Ask the policy what its plan follows, and report; return the exit status."""
    begin = time.perf_counter()
    seeds = [episode_seed(options.seed, index) for index in range(options.num_episodes)]
    bar = tqdm(total=len(seeds), unit="scene", disable=None)
    with moving(bar), closing(make_env(options, options.obs_type or PROBED_OBS_TYPE)) as env:
        planner = require_planner(make_policy(options.policy, env), options.policy)
        result = probe(env, planner, seeds, reset_options(options), bar.update)
    seconds = time.perf_counter() - begin
    if options.json is not None:
        report = {**describe_run(options), "probe": result.to_json()}
        options.json.write_text(json.dumps(report, indent=2, default=str) + "\n")
    print(
        f"policy     {options.policy}\n"
        f"scenes     {result.scenes} with seed {options.seed}, plans of {result.steps} steps of "
        f"1/{options.fps} s, {options.simulator}; took {seconds:.1f} s\n\n{result.to_text()}"
    )
    weakest, least = result.reach[0], options.min_pictures_share
    if least is not None and (weakest.pictures_share or 0.0) < least:
        share = "none" if weakest.pictures_share is None else f"{weakest.pictures_share:.1%}"
        print(
            f"{weakest.instant.name}, the pictures' share of the plan is {share}, below "
            f"--min-pictures-share {least:.1%}",
            file=sys.stderr,
        )
        return 1
    return 0


def min_success_status(options: EvaluateOptions, measured: Mapping[str, Measured]) -> int:
    """Return the exit status: 1, after a message, if a success rate is below --min-success."""
    status = 0
    for name, (metrics, _) in measured.items():
        if options.min_success is not None and metrics.success_rate < options.min_success:
            row = f" ({name})" if options.factors else ""
            print(
                f"the success rate of {metrics.success_rate:.1%}{row} is below --min-success "
                f"{options.min_success:.1%}",
                file=sys.stderr,
            )
            status = 1
    return status


def run_episodes(options: EvaluateOptions) -> dict[str, list[EvaluatedEpisode]]:
    """Run the episodes, without any factor first, and show a progress bar."""
    factors = (UNVARIED, *options.factors)
    successes = Counter[str]()
    episodes = len(factors) * options.num_episodes
    with moving(tqdm(total=episodes, unit="episode", disable=None)) as bar:

        def progress(factor: str, result: EpisodeResult) -> None:
            successes[factor] += result.success
            bar.set_description(factor if options.factors else None)
            bar.update()
            of = (bar.n - 1) % options.num_episodes + 1
            bar.set_postfix(success=f"{successes[factor]}/{of}")

        return evaluate(
            partial(make_runner, options),
            factors,
            options.num_episodes,
            options.seed,
            options.workers,
            progress,
            worker_render_env,
            apart=may_end_its_process(options),
        )


def may_end_its_process(options: EvaluateOptions) -> bool:
    """Return True for a policy that is not ours, where the simulator can have a process for it."""
    is_ours = options.policy in OWN_POLICIES
    return not is_ours and SIMULATORS[options.simulator].process_memory is None


def make_runner(options: EvaluateOptions, factor: str = UNVARIED) -> PolicyRunner:
    """Return the policy in its environment."""
    env = make_env(options, options.obs_type or "state", factor)
    try:
        policy = make_policy(options.policy, env, options.action_steps)
    except BaseException:
        env.close()
        raise
    return PolicyRunner(
        env, policy, task_outcome, options.seed, options.step_limit, reset_options(options)
    )


def make_env(options: EvaluateOptions, obs_type: str, factor: str = UNVARIED) -> gym.Env:
    """Return an environment whose episodes end with success; the loop counts the steps."""
    config = make_config(options)
    env = gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,
        disable_env_checker=True,
        simulator=options.simulator,
        obs_type=obs_type,
        control_mode=options.control_mode,
        config=vary_scene(factor, config),
    )
    return vary_starts(factor, config, env)


def task_outcome(infos: Sequence[dict[str, Any]]) -> TaskOutcome:
    """Return how an episode ended, from its infos, that of the first state included."""
    start, end = infos[0], infos[-1]
    return TaskOutcome(
        distance=end["distance"],
        reason=", ".join(end["unmet_conditions"]),
        failure_stage=failure_stage(infos),
        target=start["object"],
        points={
            "pick": tuple(start["object_pos"][:2].tolist()),
            "place": tuple(start["goal_pos"][:2].tolist()),
        },
    )


def make_grid() -> Grid:
    """Return the area from which picks and places are sampled."""
    task = PickPlaceConfig().task
    return Grid(task.x_range, task.y_range)


def write_videos(
    options: EvaluateOptions,
    folder: Path,
    episodes: list[EvaluatedEpisode],
    factor: str = UNVARIED,
) -> list[Path]:
    """Replay chosen episodes with their seeds and actions, and render them to videos."""
    wanted = [
        e for e in episodes if e.actions and (options.videos_of == "all" or not e.result.success)
    ]
    wanted = wanted[: options.max_videos] if options.videos_of != "none" else []
    if not wanted:
        return []
    folder.mkdir(exist_ok=True)
    env, paths = make_env(options, "pixels_agent_pos", factor), []
    try:
        for episode in wanted:
            result = episode.result
            outcome = "success" if result.success else "failure"
            paths.append(folder / f"episode_{result.index:05d}_{outcome}.mp4")
            again = ReplayPolicy(episode.actions)
            sink = SideBySide(paths[-1], options.fps)
            steps = len(episode.actions)
            run_episode(
                env, again, [sink], result.seed, result.index, steps, reset_options(options)
            )
    finally:
        env.close()
    return paths


def report(options: EvaluateOptions, measured: Mapping[str, Measured], seconds: float) -> str:
    """Return the table for the terminal."""
    scores = {name: metrics for name, (metrics, _) in measured.items()}
    metrics = scores[UNVARIED]
    has_images = "pixels" in (options.obs_type or "")
    return "\n".join(
        [
            f"policy     {options.policy}",
            f"episodes   {metrics.episodes} with seed {options.seed}, at most {options.step_limit} "
            f"steps of 1/{options.fps} s, {options.simulator}, {options.grasp}; "
            f"took {seconds:.1f} s",
            f"\n{comparison(scores, has_images)}" if options.factors else metrics.to_text(),
        ]
    )


def to_json(options: EvaluateOptions, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Return the report for machines; it says nothing of when, where and how fast it was made."""
    return {
        **describe_run(options),
        **measured[UNVARIED].to_json(),
        "varied": {name: measured[name].to_json() for name in options.factors},
    }


def describe_run(options: EvaluateOptions) -> dict[str, Any]:
    """Return what a report says about how it came about."""
    return {
        **{name: getattr(options, name) for name in _POLICY_OPTIONS},
        **describe_environment(),
    }


def resolve_options(options: EvaluateOptions) -> EvaluateOptions:
    """Return the options with what was left open; a checkpoint says what it needs.

    Raises:
        ValueError: An option is out of range, or names nothing.
    """
    checkpoint = None
    if options.policy not in OWN_POLICIES and ":" not in options.policy:
        if not Path(options.policy).is_dir():
            raise ValueError(
                "--policy must be expert, reactive, random, module:callable or the folder of a "
                f"LeRobot checkpoint, got {options.policy!r}, and there is no such folder"
                f"{did_you_mean([options.policy], OWN_POLICIES)}"
            )
        checkpoint = Checkpoint(Path(options.policy))
        if options.probe and not checkpoint.image_sizes:
            raise ValueError(
                "--probe swaps the pictures that a policy sees, but the inputs of "
                f"{checkpoint.folder} are {', '.join(checkpoint.inputs)}; evaluate it without "
                "--probe"
            )
    require_action_steps(options, checkpoint)
    obs_type = options.obs_type
    if obs_type is None and options.probe:
        obs_type = PROBED_OBS_TYPE
    elif obs_type is None:
        obs_type = "state" if checkpoint is None else fitting_obs_type(checkpoint)
    resolution = options.resolution
    if resolution is None:
        resolution = RenderConfig.resolution
        if checkpoint is not None and len(checkpoint.image_sizes) == 1:
            ((height, width),) = checkpoint.image_sizes
            resolution = width if width == height else (width, height)
    options = dataclasses.replace(
        options,
        obs_type=obs_type,
        resolution=resolution,
        cameras=options.cameras or fitting_cameras(checkpoint),
        control_mode=options.control_mode or fitting_control_mode(checkpoint),
        max_steps=None if options.probe else options.step_limit,
    )
    require_factors(options.factors, make_config(options), options.simulator)
    return options


def require_action_steps(options: EvaluateOptions, checkpoint: Checkpoint | None) -> None:
    """Check that so many actions can be executed of each plan.

    Raises:
        ValueError: They cannot.
    """
    count = options.action_steps
    if count is None:
        return
    if checkpoint is None or checkpoint.plan_length == 0:
        raise ValueError(
            "--action-steps is for a LeRobot checkpoint that plans several actions, "
            f"got --policy {options.policy}"
        )
    if count > checkpoint.plan_length:
        raise ValueError(
            f"--action-steps must be from 1 to {checkpoint.plan_length}, as long as the plans of "
            f"{options.policy}, got {count}"
        )


def fitting_obs_type(checkpoint: Checkpoint) -> str:
    """Return the kind of observation that a checkpoint's inputs need."""
    if checkpoint.image_sizes:
        return "pixels_agent_pos"
    return "environment_state_agent_pos" if ENVIRONMENT_STATE in checkpoint.inputs else "state"


def fitting_control_mode(checkpoint: Checkpoint | None) -> str:
    """Return the first control mode whose actions have the size of a checkpoint's."""
    size = None if checkpoint is None else checkpoint.outputs.get(ACTION)
    fitting = [name for name, mode in CONTROL_MODES.items() if (mode.layout.size,) == size]
    return fitting[0] if fitting else next(iter(CONTROL_MODES))


def fitting_cameras(checkpoint: Checkpoint | None) -> tuple[str, ...]:
    """Return the names of the cameras that a checkpoint asks for, as far as there are such."""
    wanted = [] if checkpoint is None else checkpoint.cameras
    known = [camera.name for camera in NAMED_CAMERAS if camera.name in wanted]
    return tuple(known) or SceneOptions.cameras


def require_writable(options: EvaluateOptions) -> None:
    """Check that the report and the videos can be written, and make their folders.

    Raises:
        OSError: They cannot have it.
    """
    if options.videos is not None:
        make_folder(options.videos, "--videos")
    if options.json is not None:
        require_file(options.json, "--json")


if __name__ == "__main__":
    sys.exit(main())
