"""Train a small network by behaviour cloning on the CPU, and evaluate it.

Usage: python examples/train_bc.py --dataset datasets/state --output runs/bc

Collects the dataset first if there is none, trains, and evaluates the policy from 200 starts that
are not in the dataset. The policy's input is the observation and the environment state, without
time or phase. docs/training.md has the results and what they depend on.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

try:
    import torch
    from torch import Tensor, nn
except ModuleNotFoundError as missing:
    if __name__ == "__main__":
        if {"-h", "--help"} & set(sys.argv):
            sys.exit(print(__doc__))
        sys.exit(f"error: {missing.name} is not installed; try: pip install torch")
    raise

import pp_env
from pp_env.layout import ACTION, ENVIRONMENT_STATE, OBSERVATION
from pp_recorder.dataset.reader import Dataset
from pp_recorder.rollout import Episode, episode_seed, run_episode

COLLECT = Path(__file__).parent.parent / "collect.py"
JOINTS = 7
MAX_STEPS = 400  # the expert needs 270


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of a policy.

    Attributes:
        episodes: Number of episodes to train on, the first ones of the dataset.
        steps: Gradient steps.
        batch: Frames per gradient step.
        width: Units in each of the three hidden layers.
        learning_rate: Its peak.
        chunk: Actions predicted at once.
        execute: Actions executed before the next prediction.
        seed: Of the network's initial weights and the order of the frames.
    """

    episodes: int = 1000
    steps: int = 24000
    batch: int = 256
    width: int = 512
    learning_rate: float = 1e-3
    chunk: int = 30
    execute: int = 25
    seed: int = 0


@dataclass(frozen=True)
class Demonstrations:
    """The concatenated frames of several episodes.

    Attributes:
        inputs: (frames, 34) observation and environment state.
        actions: (frames, 8), rad and m.
        last: (frames,) index of the last frame of the frame's episode.
    """

    inputs: Tensor
    actions: Tensor
    last: Tensor

    def targets(self, rows: Tensor, chunk: int) -> Tensor:
        """Return the actions (rows, chunk, 8) from each row on, relative to the current arm joints.

        After an episode's end its last action is repeated.
        """
        ahead = torch.minimum(rows[:, None] + torch.arange(chunk), self.last[rows][:, None])
        return self.actions[ahead] - joint_offset(self.inputs[rows])[:, None]


def joint_offset(inputs: Tensor) -> Tensor:
    """Return arm joint positions and a zero for the gripper, (..., 8), from inputs (..., 34)."""
    return nn.functional.pad(inputs[..., :JOINTS], (0, 1))


def read(dataset: Dataset, episodes: int) -> Demonstrations:
    """Read the first episodes of a dataset that was recorded without cameras."""
    entries = dataset.episodes[:episodes]
    lengths = torch.tensor([entry["length"] for entry in entries])
    frames = int(lengths.sum())
    names = ("observation.state", "observation.environment_state")
    inputs = np.hstack([dataset.column(name)[:frames] for name in names])
    return Demonstrations(
        inputs=torch.tensor(inputs),
        actions=torch.tensor(dataset.column("action")[:frames]),
        last=torch.repeat_interleave(lengths.cumsum(0) - 1, lengths),
    )


def features(inputs: Tensor) -> Tensor:
    """Return the network's features (..., 36) from inputs (..., 34).

    The movements depend on relative positions. Joint velocities are left out: they predict the
    expert's next action, so the network would follow them instead of the object.
    """
    observation = OBSERVATION.unpack(inputs[..., : OBSERVATION.size])
    truth = ENVIRONMENT_STATE.unpack(inputs[..., OBSERVATION.size :])
    eef, thing, goal = observation["eef_pos"], truth["object_pos"], truth["goal_pos"]
    seen = [part for name, part in observation.items() if name != "joint_vel"]
    return torch.cat([*seen, *truth.values(), thing - eef, goal - eef, goal - thing], dim=-1)


class ChunkPolicy(nn.Module):
    """A network of three hidden layers that predicts the next `chunk` actions from one frame.

    Args:
        settings: Its width and chunk.
        size: Number of features.
    """

    def __init__(self, settings: Settings, size: int) -> None:
        super().__init__()
        self._shape = (settings.chunk, ACTION.size)
        width = settings.width
        self._layers = nn.Sequential(
            nn.Linear(size, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, math.prod(self._shape)),
        )  # fmt: skip
        for name, count in (("input", size), ("target", ACTION.size)):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_std", torch.ones(count))

    def normalise(self, demonstrations: Demonstrations) -> None:
        """Set means and standard deviations from the data.

        All steps of a chunk share one deviation per joint: with one per step, the first steps, in
        which the arm hardly moves, would outweigh the later ones.
        """
        rows = torch.arange(len(demonstrations.inputs))
        seen = features(demonstrations.inputs)
        targets = demonstrations.targets(rows, self._shape[0]).flatten(0, 1)
        for name, values in (("input", seen), ("target", targets)):
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_std").copy_(values.std(0).clamp_min(1e-3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return normalised targets (..., chunk, 8) for inputs (..., 34)."""
        seen = (features(inputs) - self.input_mean) / self.input_std
        return self._layers(seen).unflatten(-1, self._shape)

    def loss(self, demonstrations: Demonstrations, rows: Tensor) -> Tensor:
        """Return the mean absolute error over some rows, in standard deviations."""
        targets = demonstrations.targets(rows, self._shape[0])
        wanted = (targets - self.target_mean) / self.target_std
        return nn.functional.l1_loss(self(demonstrations.inputs[rows]), wanted)

    @torch.no_grad()
    def actions(self, inputs: np.ndarray) -> np.ndarray:
        """Return the next actions (chunk, 8), rad and m, for one frame's inputs (34,)."""
        frame = torch.tensor(inputs)
        targets = self(frame) * self.target_std + self.target_mean
        return (targets + joint_offset(frame)).numpy()


def train(demonstrations: Demonstrations, settings: Settings) -> ChunkPolicy:
    """Return a policy trained on demonstrations; print the loss ten times."""
    torch.manual_seed(settings.seed)
    frames = len(demonstrations.inputs)
    policy = ChunkPolicy(settings, features(demonstrations.inputs[:1]).shape[-1])
    policy.normalise(demonstrations)
    optimizer = torch.optim.AdamW(policy.parameters(), settings.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    descend(
        lambda: policy.loss(demonstrations, torch.randint(frames, (settings.batch,))),
        optimizer, schedule, settings.steps, every=max(1, settings.steps // 10),
    )  # fmt: skip
    return policy


def descend(
    next_loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    steps: int,
    every: int,
) -> None:
    """Minimise a loss.

    Args:
        next_loss: Returns the loss of a new batch.
        optimizer: Of the parameters.
        schedule: Of the learning rate.
        steps: Gradient steps.
        every: Steps between two prints of the mean loss.
    """
    total = 0.0
    for step in range(1, steps + 1):
        loss = next_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % every == 0:
            print(f"step {step} of {steps}: loss {total / every:.4f}", flush=True)
            total = 0.0


class WithTruth(gym.Wrapper):
    """A wrapper that appends the environment state to the observation: (34,) in all."""

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(**kwargs)
        return np.concatenate([observation, info["environment_state"]]), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply an action."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation = np.concatenate([observation, info["environment_state"]])
        return observation, float(reward), terminated, truncated, info


class Executor:
    """A `pp_recorder` `Policy` that executes the first actions of each predicted chunk.

    Args:
        policy: Predicts the chunks.
        execute: Number of actions to execute before the next prediction.
    """

    def __init__(self, policy: ChunkPolicy, execute: int) -> None:
        self._policy, self._execute = policy, execute
        self._pending: list[np.ndarray] = []

    def reset(self, observation: np.ndarray, info: dict, rng: np.random.Generator) -> None:
        """Drop the pending actions of the last episode."""
        self._pending = []

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the next action (8,), rad and m."""
        if not self._pending:
            self._pending = list(self._policy.actions(observation)[: self._execute])
        return self._pending.pop(0)


def evaluate(policy: ChunkPolicy, execute: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Run an episode per seed; return the success rate with its interval, and the failures."""
    env = WithTruth(gym.make(pp_env.ENV_ID, max_episode_steps=MAX_STEPS))
    executor = Executor(policy, execute)
    runs = [run_episode(env, executor, [], s, i, MAX_STEPS) for i, s in enumerate(seeds)]
    env.close()
    succeeded = [run for run in runs if run.success]
    failed = [run for run in runs if not run.success]
    return {
        "episodes": len(runs),
        "successes": len(succeeded),
        "rate": len(succeeded) / len(runs),
        "wilson_95": wilson(len(succeeded), len(runs)),
        "mean_length": float(np.mean([r.length for r in succeeded])) if succeeded else None,
        "failures": dict(Counter(failure(run) for run in failed)),
        "failed_seeds": [run.seed for run in failed],
    }


def failure(episode: Episode) -> str:
    """Return the part of the task in which an episode failed, and its unmet conditions."""
    unmet = episode.trace[-1][1]["unmet_conditions"]
    if not any(info["is_grasped"] for _, info in episode.trace):
        part = "pick"
    elif {"away_from_target", "not_on_table", "still_held"} & set(unmet):
        part = "place"
    else:
        part = "return"
    return f"{part}: {', '.join(unmet)}"


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson interval of a success rate, 95 % by default."""
    rate, spread = successes / trials, z * z / trials
    middle = rate + spread / 2
    half = z * math.sqrt((rate * (1 - rate) + spread / 4) / trials)
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def held_out_seeds(dataset: Dataset, seed: int, count: int) -> list[int]:
    """Return seeds of episodes that are not in the dataset.

    Raises:
        ValueError: One of them is in the dataset.
    """
    seeds = [episode_seed(seed, index) for index in range(count)]
    if set(seeds) & {entry["episode/seed"] for entry in dataset.episodes}:
        raise ValueError(f"the dataset was collected with seed {seed}; give another --eval-seed")
    return seeds


def open_dataset(root: Path, episodes: int) -> Dataset:
    """Return the dataset, which is collected now if there is none.

    Raises:
        ValueError: It has too few episodes, or cameras.
        RuntimeError: The collection failed.
    """
    if not root.exists():
        run_collect("--no-cameras", "--num-episodes", str(episodes), "--output", str(root))
    dataset = Dataset(root)
    if dataset.cameras or dataset.num_episodes < episodes:
        raise ValueError(
            f"{root} must have at least {episodes} episodes and no cameras, but has "
            f"{dataset.num_episodes} and {dataset.cameras or 'none'}; give another --dataset to "
            "have it collected"
        )
    return dataset


def run_collect(*words: str) -> None:
    """Run collect.py in a process of its own.

    Args:
        words: Its options.

    Raises:
        RuntimeError: The collection failed.
    """
    if subprocess.call([sys.executable, str(COLLECT), *words]) != 0:
        raise RuntimeError(f"collect.py {' '.join(words)} failed")


def report(result: dict[str, Any]) -> str:
    """Return the final report."""
    low, high = result["wilson_95"]
    lines = [
        f"success    {result['successes']} of {result['episodes']} unseen starts "
        f"({result['rate']:.1%}, 95 % interval {low:.1%} to {high:.1%})",
        f"training   {result['train_cpu_s']:.0f} s of CPU, {result['train_s']:.0f} s",
        f"evaluation {result['evaluation_s']:.0f} s",
    ]
    counts = sorted(result["failures"].items(), key=lambda item: -item[1])
    return "\n".join(lines + [f"failed     {n} x {what}" for what, n in counts])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = make_parser().parse_args(argv)
    chosen = {name: getattr(args, name) for name in asdict(Settings())}
    settings = Settings(**chosen)
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    dataset = open_dataset(args.dataset, settings.episodes)
    seeds = held_out_seeds(dataset, args.eval_seed, args.eval_episodes)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    policy = train(read(dataset, settings.episodes), settings)
    trained, trained_cpu = time.perf_counter(), time.process_time()
    result = {"settings": asdict(settings), **evaluate(policy, settings.execute, seeds)}
    result["train_s"], result["train_cpu_s"] = trained - begin, trained_cpu - begin_cpu
    result["evaluation_s"] = time.perf_counter() - trained
    args.output.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"settings": asdict(settings), "weights": policy.state_dict()}, args.output / "policy.pt"
    )
    (args.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(report(result))
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description="Train a state policy by behaviour cloning, and evaluate it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", type=Path, default=Path("datasets/state"), help="collected if absent")
    add("--output", type=Path, default=Path("runs/bc"), help="for policy.pt and result.json")
    for name, value in asdict(Settings()).items():
        add(f"--{name.replace('_', '-')}", type=type(value), default=value, help="see Settings")
    add("--eval-episodes", type=int, default=200, help="starts that are not in the dataset")
    add("--eval-seed", type=int, default=777, help="of these starts; not the dataset's seed")
    add("--threads", type=int, default=1, help="more may change the numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
