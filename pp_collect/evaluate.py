"""Measures a policy: closed-loop episodes on fixed seeds, and what they came to.

Console script: pp-evaluate.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from traceback import format_exc
from typing import Any

import gymnasium as gym
from tqdm import tqdm

import collect
import pp_env
from experts.diagnosis import failure_stage
from experts.pick_place import PickPlaceExpert
from pp_collect import session as collection
from pp_env.config import PickPlaceConfig, RenderConfig
from pp_env.control import CONTROL_MODES
from pp_env.env import OBS_TYPES
from pp_env.sim import leave
from pp_recorder.command_line import not_negative, positive, share
from pp_recorder.dataset.compare import RecordedActions
from pp_recorder.evaluation.lerobot_policy import ENVIRONMENT_STATE, Checkpoint, LeRobotPolicy
from pp_recorder.evaluation.metrics import EpisodeResult, EvalMetrics, Grid, score
from pp_recorder.evaluation.runner import (
    Attempt,
    EvaluationError,
    FunctionPolicy,
    RandomPolicy,
    Runner,
    TaskOutcome,
    evaluate,
)
from pp_recorder.rollout import Policy, run_episode
from pp_recorder.sinks import SideBySide

_MAX_STEPS = gym.spec(pp_env.ENV_ID).max_episode_steps
_ABOUT_THE_RUN = {"workers", "json", "videos", "videos_of", "max_videos", "min_success"}


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns 0, or 1 below --min-success, or 2 if it cannot evaluate."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        settle(args)
        require_writable(args)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    status = 2
    try:
        status = run(args)
    except (EvaluationError, ValueError, RuntimeError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: there is no result", file=sys.stderr)
        status = 130
    finally:
        leave(status)
    return status


def run(args: argparse.Namespace) -> int:
    """Evaluates and reports; returns the exit status."""
    begin = time.perf_counter()
    attempts = run_episodes(args)
    scores = score([attempt.row for attempt in attempts], make_grid())
    seconds = time.perf_counter() - begin
    if args.json is not None:
        args.json.write_text(
            json.dumps(to_json(args, scores, attempts), indent=2, default=str) + "\n"
        )
    print(report(args, scores, seconds))
    if args.videos is not None:
        for path in write_videos(args, attempts):
            print(f"video      {path}")
    if args.min_success is not None and scores.success_rate < args.min_success:
        print(
            f"the success rate of {scores.success_rate:.1%} is below --min-success "
            f"{args.min_success:.1%}",
            file=sys.stderr,
        )
        return 1
    return 0


def run_episodes(args: argparse.Namespace) -> list[Attempt]:
    """Runs the episodes behind a progress bar."""
    successes = 0
    with tqdm(total=args.num_episodes, unit="episode", disable=None) as bar:

        def notice(text: str) -> None:
            bar.write(text, file=sys.stderr)

        def progress(row: EpisodeResult) -> None:
            nonlocal successes
            successes += row.success
            bar.update()
            bar.set_postfix(success=f"{successes}/{bar.n}")

        make = partial(make_runner, args)
        return evaluate(
            make,
            args.num_episodes,
            args.seed,
            args.workers,
            notice,
            progress,
            collection.worker_render_env,
        )


def make_runner(args: argparse.Namespace) -> Runner:
    """The environment with the policy in it."""
    env = make_env(args, args.obs_type)
    try:
        policy = make_policy(args.policy, env)
    except BaseException:
        env.close()
        raise
    return Runner(env, policy, judge, args.seed, args.max_steps, collection.reset_options(args))


def make_env(args: argparse.Namespace, obs_type: str) -> gym.Env:
    """The environment, whose episodes end with success; the loop counts the steps."""
    return gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,
        disable_env_checker=True,
        simulator=args.simulator,
        obs_type=obs_type,
        control_mode=args.control_mode,
        config=collect.make_config(args),
    )


def make_policy(name: str, env: gym.Env) -> Policy:
    """The policy that --policy names.

    Raises:
        EvaluationError: There is none, or it cannot be made.
        CheckpointError: A checkpoint is incomplete, or is for another environment.
        ImportError: A checkpoint needs lerobot, and that is not installed.
    """
    if name == "expert":
        return PickPlaceExpert()
    if name == "random":
        return RandomPolicy(env.action_space)
    if Path(name).is_dir():
        checkpoint = Checkpoint(Path(name))
        checkpoint.require_fitting(env.observation_space, env.action_space)
        return LeRobotPolicy(checkpoint)
    return load_policy(name, env)


def load_policy(name: str, env: gym.Env) -> Policy:
    """What the callable in "module:callable" makes of the environment.

    Raises:
        EvaluationError: There is no such module or callable, or it makes no policy.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise EvaluationError(f"--policy must be like my_module:make_policy, got {name!r}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # where a console script does not look
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise EvaluationError(
            f"--policy {name}: there is no module {error.name!r} in {Path.cwd()} or on the path"
        ) from error
    except Exception as error:
        raise EvaluationError(
            f"--policy {name} raised when imported\n{format_exc().rstrip()}"
        ) from error
    make = getattr(module, attribute, None)
    if not callable(make):
        raise EvaluationError(
            f"--policy {name}: {module.__file__} has no callable {attribute!r}, it has "
            f"{[key for key, value in vars(module).items() if callable(value)]}"
        )
    try:
        made = make(env)
    except Exception as error:
        raise EvaluationError(
            f"--policy {name} raised when called\n{format_exc().rstrip()}"
        ) from error
    return as_policy(made, name)


def as_policy(made: Any, name: str) -> Policy:
    """A policy as it is, a function as one.

    Raises:
        EvaluationError: It is neither.
    """
    if callable(getattr(made, "act", None)) and callable(getattr(made, "reset", None)):
        return made
    if callable(made):
        return FunctionPolicy(made)
    raise EvaluationError(
        f"--policy {name}: called with the environment it must return an object with "
        "reset(observation, info, rng) and act(observation), or a function from observation to "
        f"action; got {made!r}"
    )


def judge(infos: Sequence[dict[str, Any]]) -> TaskOutcome:
    """What the task says of an episode."""
    start, end = infos[0], infos[-1]
    return TaskOutcome(
        distance=end["distance"],
        reason=", ".join(end["failures"]),
        phase=failure_stage(infos),
        target=start["object"],
        points={
            "pick": tuple(start["object_pos"][:2].tolist()),
            "place": tuple(start["goal_pos"][:2].tolist()),
        },
    )


def make_grid() -> Grid:
    """The area from which picks and places are drawn."""
    task = PickPlaceConfig().task
    return Grid(task.x_range, task.y_range)


def write_videos(args: argparse.Namespace, attempts: list[Attempt]) -> list[Path]:
    """Plays chosen episodes again, with their seeds and actions, and draws them."""
    wanted = [a for a in attempts if a.actions and (args.videos_of == "all" or not a.row.success)]
    wanted = wanted[: args.max_videos] if args.videos_of != "none" else []
    if not wanted:
        return []
    env, paths = make_env(args, "pixels_agent_pos"), []
    try:
        for attempt in wanted:
            row = attempt.row
            outcome = "success" if row.success else "failure"
            paths.append(args.videos / f"episode_{row.index:05d}_{outcome}.mp4")
            again = RecordedActions(attempt.actions)
            sink = SideBySide(paths[-1], args.fps)
            steps = len(attempt.actions)
            run_episode(
                env, again, [sink], row.seed, row.index, steps, collection.reset_options(args)
            )
    finally:
        env.close()
    return paths


def report(args: argparse.Namespace, scores: EvalMetrics, seconds: float) -> str:
    """The table for the terminal."""
    return "\n".join(
        [
            f"policy     {args.policy}",
            f"episodes   {scores.episodes} with seed {args.seed}, at most {args.max_steps} steps "
            f"of 1/{args.fps} s, {args.simulator}, {args.grasp}; took {seconds:.1f} s",
            scores.to_text(),
        ]
    )


def to_json(
    args: argparse.Namespace, scores: EvalMetrics, attempts: list[Attempt]
) -> dict[str, Any]:
    """The report for machines; it depends on nothing but the options, versions and machine."""
    return {
        **{name: value for name, value in vars(args).items() if name not in _ABOUT_THE_RUN},
        **collection.environment_description(),
        "scores": scores.to_json(),
        "episodes": [vars(attempt.row) for attempt in attempts],
    }


def settle(args: argparse.Namespace) -> None:
    """Completes and checks the options; a checkpoint says which observations it was trained on.

    Raises:
        ValueError: An option is out of range, or names nothing.
    """
    checkpoint = None
    if args.policy not in ("expert", "random") and ":" not in args.policy:
        if not Path(args.policy).is_dir():
            raise ValueError(
                "--policy must be expert, random, module:callable or the folder of a LeRobot "
                f"checkpoint, got {args.policy!r}, and there is no such folder"
            )
        checkpoint = Checkpoint(Path(args.policy))
    if args.policy == "expert" and args.control_mode != "joint_pos":
        raise ValueError(
            f"the expert's actions are for --control-mode joint_pos, got {args.control_mode}"
        )
    if args.obs_type is None:
        args.obs_type = "state" if checkpoint is None else fitting_obs_type(checkpoint)
    if args.resolution is None:
        args.resolution = RenderConfig.resolution
        if checkpoint is not None and len(checkpoint.image_sizes) == 1:
            ((height, width),) = checkpoint.image_sizes
            args.resolution = width if width == height else (width, height)
    collect.make_config(args)


def fitting_obs_type(checkpoint: Checkpoint) -> str:
    """The kind of observation that a checkpoint's inputs ask for."""
    if checkpoint.image_sizes:
        return "pixels_agent_pos"
    return "environment_state_agent_pos" if ENVIRONMENT_STATE in checkpoint.inputs else "state"


def require_writable(args: argparse.Namespace) -> None:
    """Sees to it that the report and the videos have a place.

    Raises:
        OSError: They cannot have it.
    """
    if args.videos is not None:
        args.videos.mkdir(parents=True, exist_ok=True)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        if args.json.is_dir() or not os.access(args.json.parent, os.W_OK):
            raise OSError(f"--json must be a file that can be written, got {args.json}")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="pp-evaluate",
        description="Runs a policy in closed loop on fixed seeds and reports how well it does. "
        "Exit status: 0 done, 1 below --min-success, 2 it cannot be evaluated.",
        epilog="Example: pp-evaluate --policy outputs/train/act --num-episodes 100 --workers 4",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--policy",
        required=True,
        default=argparse.SUPPRESS,  # or help would name one
        help="expert, random, module:callable, or the folder of a LeRobot checkpoint",
    )
    add("--num-episodes", type=positive, default=50, help="how many")
    add("--seed", type=not_negative, default=0, help="episode k depends on this and k alone")
    add("--workers", type=positive, default=1, help="processes; the numbers are the same")
    add("--max-steps", type=positive, default=_MAX_STEPS, help="an episode ends after so many")
    add("--obs-type", choices=OBS_TYPES, help="default: state, or what the checkpoint needs")
    add("--control-mode", choices=CONTROL_MODES, default="joint_pos", help="what actions mean")
    collect.add_scene_options(parser)
    parser.set_defaults(resolution=None)  # a checkpoint says it
    add("--videos", type=Path, metavar="DIR", help="write videos, both cameras side by side")
    add("--videos-of", choices=("failures", "all", "none"), default="failures", help="which ones")
    add("--max-videos", type=positive, default=10, help="the first so many of them")
    add("--json", type=Path, metavar="FILE", help="write everything, episode by episode")
    add("--min-success", type=share, help="exit with 1 if the rate, from 0 to 1, is below")
    return parser


if __name__ == "__main__":
    sys.exit(main())
