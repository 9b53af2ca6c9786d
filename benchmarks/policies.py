"""Train policies from images on our own demonstrations, and measure them in closed loop.

Usage: python -m benchmarks.policies [TRIAL ...] [--output outputs/policies] [--minutes 9]

Each trial is a dataset, a training and an evaluation from unseen starts, all by the commands that
users have: collect.py, examples/train_in_memory.py, pp-evaluate. It needs a GPU and what
docs/training.md installs. What is complete is not done again, and a training that --minutes has cut
short goes on in the next run.

Writes a row for each evaluation to benchmarks/results/trials.json; `benchmarks.report` makes the
table in docs/training.md from them.
"""

import argparse
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import RESULTS
from pp_env.processors import usable_processors

_ROOT = Path(__file__).parent.parent
_TRIALS = RESULTS / "trials.json"
_IMAGES = "--resolution 128 --preset fast --cameras"
_MIX = "home=0.4,random=0.3,anywhere=0.3"
_ALL_CAMERAS = ("cam_front", "cam_wrist", "cam_high")
_STEPS = 6_000  # of 128 frames: 0.77 million samples
_MORE = 7_500  # 0.96 million
_LEAST_MINUTES = 1.5  # for which starting a training or an evaluation is worth it
_SPARE_MINUTES = 1.0  # of a training, for imports and its last checkpoint


class NotYetError(Exception):
    """Something needed is not complete; another run of this program goes on from here."""


@dataclass(frozen=True)
class Demonstrations:
    """A dataset.

    Attributes:
        options: Of collect.py, beside the images'.
        cameras: Their names.
        episodes: How many.
        driver: The trial whose policy drives up to the starts, or "".
        joined: The dataset with which it is joined, or "".
    """

    options: str
    cameras: tuple[str, ...] = ("cam_front", "cam_wrist")
    episodes: int = 1000
    driver: str = ""
    joined: str = ""

    @property
    def command(self) -> str:
        """The options of collect.py."""
        return " ".join([_IMAGES, *self.cameras, self.options])


@dataclass(frozen=True)
class Trial:
    """A training.

    Attributes:
        dataset: Name in `DATASETS`.
        config: Name of a file in examples/, without its ending.
        steps: Optimizer steps.
        seed: Of the training.
        cameras: Which images the policy sees.
        options: More of lerobot-train's.
        start: The trial from whose policy it goes on, or "".
        action_steps: How many actions of each plan are executed, one evaluation for each.
    """

    dataset: str
    config: str = "act"
    steps: int = _STEPS
    seed: int = 0
    cameras: tuple[str, ...] = ("cam_front", "cam_wrist")
    options: tuple[str, ...] = ()
    start: str = ""
    action_steps: tuple[int, ...] = (36,)


DATASETS = {
    "anywhere": Demonstrations(f"--expert reactive --start-mix {_MIX}", _ALL_CAMERAS),
    "plain": Demonstrations("--expert waypoints"),
    "random": Demonstrations("--expert reactive --start-mix home=0.5,random=0.5"),
    "hand-pose": Demonstrations(f"--expert reactive --start-mix {_MIX} --control-mode ee_pose"),
    "varied": Demonstrations(f"--expert reactive --start-mix {_MIX} --randomize full"),
    "takeover": Demonstrations(
        "--expert reactive --start-mix policy=1 --seed 777",
        _ALL_CAMERAS,
        episodes=400,
        driver="act-longer",
        joined="anywhere",
    ),
}
_HAND_INPUTS = '--policy.state_inputs=["eef_pos","eef_quat","gripper_pos"]'
_AGAIN = ("--policy.optimizer_lr=5e-5", "--policy.optimizer_lr_backbone=5e-5")
# All with 6,000 steps compare at equal samples.
TRIALS = {
    "act": Trial("anywhere"),
    "act-seed-1": Trial("anywhere", seed=1),
    "act-longer": Trial("anywhere", steps=_MORE, start="act"),
    "act-longer-seed-1": Trial("anywhere", steps=_MORE, seed=1, start="act-seed-1"),
    "no-front": Trial("anywhere", cameras=("cam_high", "cam_wrist")),
    "three-cameras": Trial("anywhere", cameras=_ALL_CAMERAS),
    "plain": Trial("plain"),
    "random": Trial("random"),
    "hand-pose": Trial("hand-pose", options=(_HAND_INPUTS,)),
    "varied": Trial("varied"),
    "varied-longer": Trial("varied", steps=_MORE, start="varied"),
    "takeover": Trial("takeover", start="act-longer", options=_AGAIN),
    "no-takeover": Trial("anywhere", start="act-longer", options=_AGAIN),
    "diffusion": Trial("anywhere", "diffusion", 2 * _STEPS, action_steps=(12,)),
    "diffusion-longer": Trial(
        "anywhere", "diffusion", 2 * _STEPS, start="diffusion", action_steps=(12,)
    ),
}


@dataclass
class Run:
    """The trials of one call, and where their files are.

    Attributes:
        output: Folder of datasets and trainings.
        trials: Names in `TRIALS`, in the order in which they start.
        end: Time at which to stop, s, as `time.monotonic` counts.
        episodes: Of an evaluation.
        workers: Processes of a collection or an evaluation.
        at_once: Trainings that share a GPU.
    """

    output: Path
    trials: list[str]
    end: float
    episodes: int
    workers: int
    at_once: int
    collected: dict[str, Future] = field(default_factory=dict)
    ended: dict[str, threading.Event] = field(default_factory=dict)

    def minutes_left(self) -> float:
        """Return the time until the end."""
        return (self.end - time.monotonic()) / 60

    def checkpoint(self, trial: str) -> Path:
        """Return the folder of a trial's newest checkpoint."""
        return self.output / "train" / trial / "checkpoints" / "last"

    def is_trained(self, trial: str) -> bool:
        """Return whether a trial has all its steps."""
        state = self.checkpoint(trial) / "training_state" / "training_step.json"
        return state.is_file() and json.loads(state.read_text())["step"] >= TRIALS[trial].steps

    def require_trained(self, trial: str) -> None:
        """Wait for a trial of this run.

        Raises:
            NotYetError: It does not have all its steps even then.
        """
        self.ended[trial].wait()
        if not self.is_trained(trial):
            raise NotYetError(f"{trial} is not trained")

    def collect(self, name: str) -> Path:
        """Record a dataset, or what is missing of it; return its folder."""
        demonstrations, folder = DATASETS[name], self.output / "data" / name
        done = folder.with_name(f"{name}.done")
        if not done.is_file():
            command = f"collect.py {demonstrations.command} --resume".split()
            command += ["--num-episodes", str(demonstrations.episodes)]
            command += ["--workers", str(self.workers)]
            part = folder.with_name(f"{name}-part") if demonstrations.joined else folder
            if demonstrations.driver:
                self.require_trained(demonstrations.driver)
                command += ["--start-policy", str(self.checkpoint(demonstrations.driver))]
            self.run([*command, "--output", str(part)], f"data-{name}")
            if demonstrations.joined:
                whole = self.collected[demonstrations.joined].result()
                command = ["-m", "pp_recorder.dataset.merge", str(whole), str(part)]
                self.run([*command, "--output", str(folder)], f"merge-{name}")
            done.write_text("")
        return folder

    def train(self, name: str, gpu: int) -> None:
        """Train a policy on a GPU up to its steps or the end."""
        trial = TRIALS[name]
        dataset = self.collected[trial.dataset].result()
        if trial.start:
            self.require_trained(trial.start)
        if self.is_trained(name):
            return
        checkpoint = self.checkpoint(name)
        minutes = self.minutes_left() - _SPARE_MINUTES
        command = ["examples/train_in_memory.py", f"--minutes={minutes:.2f}"]
        if checkpoint.exists():
            command += [f"--config_path={checkpoint}/pretrained_model/train_config.json"]
            command += ["--resume=true"]
        else:
            command += [f"--config_path=examples/{trial.config}.json", *trial.options]
            command += [f"--dataset.root={dataset}", f"--steps={trial.steps}"]
            command += [f"--output_dir={self.output / 'train' / name}", f"--seed={trial.seed}"]
            command += [f"--policy.input_features={json.dumps(input_features(trial, dataset))}"]
            if trial.start:
                weights = self.checkpoint(trial.start) / "pretrained_model"
                command += [f"--policy.pretrained_path={weights}"]
        self.run(command, f"train-{name}", {"CUDA_VISIBLE_DEVICES": str(gpu)})

    def evaluate(self, name: str) -> None:
        """Measure a trained policy, once for each number of executed actions, and keep the rows."""
        self.require_trained(name)
        for count in TRIALS[name].action_steps:
            report = self.output / "train" / name / f"{self.episodes}-starts-{count}-actions.json"
            if not report.is_file():
                command = ["-m", "pp_collect.evaluate", "--preset", "fast", "--json", str(report)]
                command += ["--policy", str(self.checkpoint(name)), "--action-steps", str(count)]
                command += ["--num-episodes", str(self.episodes), "--workers", str(self.workers)]
                # On the CPU: the processes would not share the trainings' GPUs well.
                self.run(command, f"evaluate-{name}-{count}", {"CUDA_VISIBLE_DEVICES": ""})
            add_row(self.row(name, count, json.loads(report.read_text())))

    def row(self, name: str, action_steps: int, report: dict[str, Any]) -> dict[str, Any]:
        """Return what is published of an evaluation."""
        trial, scores = TRIALS[name], report["scores"]
        training = json.loads((self.checkpoint(name) / "train_in_memory.json").read_text())
        return {
            "trial": name,
            "dataset": f"collect.py {DATASETS[trial.dataset].command}",
            "joined": DATASETS[trial.dataset].joined,
            "episodes": training["episodes"],
            "frames": training["frames"],
            "policy": trial.config,
            "cameras": list(trial.cameras),
            "options": list(trial.options),
            "start": trial.start,
            "seed": trial.seed,
            "samples": training["samples"],
            "minutes": round(training["seconds"] / 60, 1),
            "card": training["card"],
            "trainings_at_once": self.at_once,
            "action_steps": action_steps,
            "starts": scores["episodes"],
            "successes": scores["successes"],
            "failures_by_stage": scores["failures_by_stage"],
            "release": "unreleased",
            "note": "",
        }

    def run(self, command: list[str], log: str, variables: dict[str, str] | None = None) -> None:
        """Run a Python program, its output in a log file.

        Raises:
            CalledProcessError: It failed; the end of its log is shown.
            NotYetError: The time is over.
        """
        if self.minutes_left() < _LEAST_MINUTES:
            raise NotYetError(f"{log}: no time left")
        path = self.output / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        say(f"{log}: {' '.join(command)}")
        begin = time.monotonic()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(variables or {})}
        with path.open("a") as file:
            try:
                done = subprocess.run(
                    [sys.executable, *command],
                    cwd=_ROOT,
                    env=environment,
                    stdout=file,
                    stderr=file,
                    timeout=60 * self.minutes_left() if self.end < math.inf else None,
                )
            except subprocess.TimeoutExpired:
                raise NotYetError(f"{log}: stopped, as the time is over") from None
        lines = path.read_text().splitlines()
        say(f"{log}: {time.monotonic() - begin:.0f} s, {lines[-1] if lines else ''}")
        if done.returncode:
            say("\n".join(lines[-25:]))
            done.check_returncode()


def input_features(trial: Trial, dataset: Path) -> dict[str, Any]:
    """Return the policy's inputs in LeRobot's form."""
    features = json.loads((dataset / "meta" / "info.json").read_text())["features"]
    state = features["observation.state"]["shape"]
    images = {f"observation.images.{camera}": camera for camera in trial.cameras}
    height, width, channels = features[next(iter(images))]["shape"]
    visual = {"type": "VISUAL", "shape": [channels, height, width]}
    return {"observation.state": {"type": "STATE", "shape": state}, **dict.fromkeys(images, visual)}


_rows_lock = threading.Lock()


def add_row(row: dict[str, Any]) -> None:
    """Write a row of the table, in place of one of the same evaluation, or of none."""
    with _rows_lock:
        rows = json.loads(_TRIALS.read_text()) if _TRIALS.is_file() else []
        same = ("trial", "action_steps", "card", "starts")
        older = [r for r in rows if all(r[key] in (row[key], None) for key in same)]
        rows = [r for r in rows if r not in older]
        _TRIALS.write_text(json.dumps([*rows, row], indent=1) + "\n")
    say(f"{row['trial']}, {row['action_steps']} actions: {row['successes']} of {row['starts']}")


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"[{time.strftime('%X')}] {text}", flush=True)


def run_trials(run: Run, gpus: int) -> None:
    """Collect, train and evaluate, each as soon as it can begin.

    Raises:
        CalledProcessError: One of the programs failed; the others went on.
    """
    run.ended = {name: threading.Event() for name in TRIALS}
    for name in TRIALS.keys() - set(run.trials):
        run.ended[name].set()
    free = queue.SimpleQueue()
    for _ in range(run.at_once):
        for gpu in range(gpus):
            free.put(gpu)

    def train(name: str) -> Future:
        gpu = free.get()
        try:
            run.train(name, gpu)
        finally:
            free.put(gpu)
            run.ended[name].set()  # also if it failed: nobody waits in vain
        return evaluator.submit(run.evaluate, name)

    needed = dict.fromkeys(TRIALS[name].dataset for name in run.trials)
    with (
        ThreadPoolExecutor(1) as evaluator,
        ThreadPoolExecutor(1) as collector,
        ThreadPoolExecutor(free.qsize()) as trainer,
    ):
        run.collected = {name: collector.submit(run.collect, name) for name in needed}
        trainings = [trainer.submit(train, name) for name in run.trials]
    for training in trainings:
        try:
            training.result().result()
        except NotYetError as reason:
            say(str(reason))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("trials", nargs="*", metavar="TRIAL", help=f"some of {', '.join(TRIALS)}; default: all")
    add("--output", type=Path, default=Path("outputs/policies"), help="datasets and checkpoints")
    add("--minutes", type=float, default=math.inf, help="stop in time, to be resumed")
    add("--episodes", type=int, default=200, help="unseen starts of each evaluation")
    add("--workers", type=int, default=usable_processors(), help="processes that simulate")
    add("--gpus", type=int, default=1, help="how many train")
    add("--at-once", type=int, default=1, help="trainings that share a GPU")
    args = parser.parse_args()
    if unknown := sorted(set(args.trials) - set(TRIALS)):
        parser.error(f"there are no trials {unknown}, only {list(TRIALS)}")
    end = time.monotonic() + 60 * args.minutes
    trials = args.trials or list(TRIALS)
    run = Run(args.output.resolve(), trials, end, args.episodes, args.workers, args.at_once)
    run_trials(run, args.gpus)


if __name__ == "__main__":
    main()
