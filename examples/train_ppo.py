"""Train PPO of rsl_rl on thousands of worlds of FrankaPickPlace-v0 on one GPU, from scratch.

    pip install rsl-rl-lib matplotlib
    python examples/train_ppo.py --minutes 9 --output runs/ppo
    python examples/train_ppo.py --evaluate runs/ppo/model.pt --episodes 200

It learns from state and the dense reward, without demonstrations. The output folder gets
`progress.csv`, `learning_curve.png` and `model.pt`, from which `--resume` goes on. The evaluation
runs on the CPU's simulator. docs/training.md says what to expect.
"""

# pyright: reportPossiblyUnboundVariable=false
# (`main` and `policy` end first where the optional packages are missing)

import argparse
import csv
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import pp_env
from experts.reach import hand_orientation, hand_posture
from pp_env import PickPlaceConfig, panda
from pp_env.config import HOME_JOINT_POS, TaskConfig, TimingConfig
from pp_env.layout import ENVIRONMENT_STATE, OBSERVATION
from pp_env.reward import CARRIED
from pp_env.sim import default_timing
from pp_recorder.evaluation.metrics import wilson_interval

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # rsl_rl imports GitPython, git may be missing
try:
    import torch
    from rsl_rl.env import VecEnv
    from rsl_rl.models import MLPModel
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict
except ModuleNotFoundError as error:  # --help works without them
    _MISSING: str | None = error.name
    VecEnv: Any = object
else:
    _MISSING = None

OBS_TYPE = "environment_state_agent_pos"  # of an environment in which the policy acts
EPISODE_SECONDS = 8.0
EVALUATION_STEPS = 400  # of 1/30 s, the registered limit
EVALUATION_SEED = 1_000_000  # and above: not used in training
REWARD_SCALE = 0.1  # returns of about unit size
NEAR_TARGET = 0.08  # m in x and in y, of objects that the hand is at when an episode begins
ABOVE_OBJECT = 0.1  # m, of the highest of these hands
EFFORT = 1e-3  # reward that an action of unit size costs; without it nothing bounds actions
COLUMNS: tuple[str, ...] = (
    "iteration", "decisions", "seconds", "reward", "grasped", "released", "succeeded", "ended_well",
    "action_std", "learning_rate",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What a policy's inputs and outputs mean; kept with its weights.

    Attributes:
        decision_hz: Decisions per second.
        joint_step: Greatest change of a joint in one decision, rad.
        require_home: Whether success requires the arm at HOME and open fingers.
    """

    decision_hz: int = 15
    joint_step: float = 0.1
    require_home: bool = True

    def config(self, simulator: str, control_hz: int, **task: Any) -> PickPlaceConfig:
        """Return the scene of a simulator at a rate of control; `task` are other numbers of it."""
        return PickPlaceConfig(
            timing=default_timing(simulator, control_hz),
            task=TaskConfig(require_home=self.require_home, **task),
        )


@cache
def _constant(numbers: tuple[float, ...], device: "torch.device") -> "torch.Tensor":
    """Return numbers on a device; a copy in every step would wait for it."""
    return torch.tensor(numbers, dtype=torch.float32, device=device)


def features(values: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
    """Return what the networks see, (n, 34) float32, of the fields of `pp_env.layout`.

    Joints from HOME (7), rad, and their velocities (7), rad/s; fingers (2), m; the hand's
    orientation (4); TCP (3), object - TCP (3), goal - object (3), m, world axes; the object's
    orientation (4); is_grasped (1).
    """
    quat = values["eef_quat"]
    fingertips = torch.stack(  # the hand's z axis
        [
            2.0 * (quat[:, 1] * quat[:, 3] + quat[:, 0] * quat[:, 2]),
            2.0 * (quat[:, 2] * quat[:, 3] - quat[:, 0] * quat[:, 1]),
            1.0 - 2.0 * (quat[:, 1] ** 2 + quat[:, 2] ** 2),
        ],
        dim=1,
    )
    tcp = values["eef_pos"] + panda.TCP_OFFSET * fingertips
    thing, joints = values["object_pos"], values["joint_pos"]
    parts = [
        joints - _constant(HOME_JOINT_POS, joints.device),
        values["joint_vel"],
        values["gripper_pos"],
        quat,
        tcp,
        (thing - tcp).clamp(-1.0, 1.0),  # an object may fly away
        (values["goal_pos"] - thing).clamp(-1.0, 1.0),
        values["object_quat"],
        values["is_grasped"],
    ]
    return torch.cat(parts, dim=1).nan_to_num()  # one broken world must not spoil the others


def to_commands(
    actions: "torch.Tensor", joint_pos: "torch.Tensor", settings: Settings
) -> "torch.Tensor":
    """Return targets (n, 8) of joints, rad, and fingers, m, for actions (n, 8).

    The first seven numbers, in [-1, 1], move the joints from where they are; the sign of the last
    opens or closes the gripper.
    """
    joints = joint_pos + settings.joint_step * actions[:, :7].clamp(-1.0, 1.0)
    fingers = torch.where(actions[:, 7:] > 0, panda.FINGER_OPEN, panda.FINGER_CLOSED)
    low = _constant(tuple(panda.JOINT_LOWER.tolist()), joints.device)
    high = _constant(tuple(panda.JOINT_UPPER.tolist()), joints.device)
    return torch.cat([joints.clamp(low, high), fingers], dim=1)


def start_near_the_end(rng: np.random.Generator) -> dict[str, Any] | None:
    """Return options of a start with an open hand at or above an object that lies near its target.

    None where the hand can't be there.
    """
    scene = PickPlaceConfig()
    pick = rng.uniform(*zip(scene.task.x_range, scene.task.y_range, strict=True))
    place = pick + rng.uniform(-NEAR_TARGET, NEAR_TARGET, size=2)
    height = scene.rest_z_of(scene.object_pool[0]) + rng.uniform(0.0, ABOVE_OBJECT)
    posture = hand_posture(np.append(pick, height), hand_orientation(0.0, 0.0))
    return None if posture is None else {"pick": pick, "place": place, "joint_pos": posture}


class Worlds(VecEnv):
    """The environments on the GPU as rsl_rl takes them: nothing waits for the device.

    An episode continues after a success: every step's reward is at least 0, so if success ended
    it, hovering short of success until the time limit would have the larger return.

    Args:
        num_envs: Number of worlds.
        seed: Of the starts.
        settings: Rate and meaning of the actions.
        num_starts: Number of starts that the episodes are drawn from.
        near_end: Share of these in which the hand is already at an object near the target.
    """

    num_actions = 8
    cfg: Any = {}  # noqa: RUF012 (rsl_rl asks every instance for it)

    def __init__(
        self, num_envs: int, seed: int, settings: Settings, num_starts: int, near_end: float
    ) -> None:
        self.max_episode_length = round(EPISODE_SECONDS * settings.decision_hz)
        self._envs: Any = gym.make_vec(
            pp_env.ENV_ID,
            num_envs=num_envs,
            simulator="warp",
            reward_type="dense",
            terminate_on_success=False,
            max_episode_steps=self.max_episode_length,
            autoreset_mode="SameStep",
            config=settings.config("warp", settings.decision_hz, min_distance=0.0),
            num_starts=num_starts,
            start_options=lambda rng: start_near_the_end(rng) if rng.random() < near_end else None,
        )
        self._settings, self.num_envs = settings, num_envs
        self._view = self._envs.unwrapped.to_torch()
        self._view.reset(seed=seed)
        self.device = self._view.device
        self._held, self._released, self._succeeded = torch.zeros(
            (3, num_envs), dtype=torch.bool, device=self.device
        )
        self._counts = torch.zeros(5, device=self.device)
        self._reward, self._decisions = torch.zeros((), device=self.device), 0

    @property
    def episode_length_buf(self) -> "torch.Tensor":
        """Decisions since each episode began; rsl_rl gives the first episodes random lengths."""
        return self._view.steps

    @episode_length_buf.setter
    def episode_length_buf(self, steps: "torch.Tensor") -> None:
        self._view.steps.copy_(steps)

    def get_observations(self) -> "TensorDict":
        """Return the features."""
        return TensorDict({"policy": features(self._view.values)}, batch_size=[self.num_envs])

    def step(
        self, actions: "torch.Tensor"
    ) -> "tuple[TensorDict, torch.Tensor, torch.Tensor, dict]":
        """Take a decision in every world."""
        view = self._view
        view.step(to_commands(actions, view.values["joint_pos"], self._settings))
        reward, ended = view.reward.nan_to_num(), view.terminated | view.truncated
        self._count(reward, ended)
        effort = EFFORT * actions.square().mean(dim=1)
        return (
            self.get_observations(),
            REWARD_SCALE * (reward - effort),
            ended,
            {"time_outs": view.truncated},
        )

    def close(self) -> None:
        """Free what the worlds hold."""
        self._envs.close()

    def _count(self, reward: "torch.Tensor", ended: "torch.Tensor") -> None:
        """Count on the device what came of the episodes, of those that ended in this step."""
        succeeds = reward >= 1.0  # only success has the whole reward
        self._held |= self._view.values["is_grasped"][:, 0] > 0  # no world begins holding
        self._released |= reward >= CARRIED
        self._succeeded |= succeeds
        ever = torch.stack([ended, self._held, self._released, self._succeeded, succeeds])
        self._counts += (ever & ended).sum(dim=1)
        self._reward += reward.mean()
        self._decisions += 1
        for flags in (self._held, self._released, self._succeeded):
            flags &= ~ended

    def take_statistics(self) -> dict[str, float]:
        """Return the mean reward and the shares of ended episodes since the last call; waits.

        `grasped`, `released` (on the target) and `succeeded` at any time, `ended_well` at the end;
        NaN if none has ended.
        """
        episodes, *counts = self._counts.tolist()
        shares = [count / episodes if episodes else math.nan for count in counts]
        found = {"reward": float(self._reward) / max(self._decisions, 1)}
        names = ("grasped", "released", "succeeded", "ended_well")
        found |= dict(zip(names, shares, strict=True))
        self._counts.zero_()
        self._reward.zero_()
        self._decisions = 0
        return found


def network(init_std: float | None = None) -> dict[str, Any]:
    """Return rsl_rl's settings of a network; the actor's with the first noise on actions."""
    noise = {"class_name": "GaussianDistribution", "init_std": init_std, "std_type": "log"}
    return {
        "class_name": "MLPModel",
        "hidden_dims": [256, 256, 128],
        "activation": "elu",
        "obs_normalization": True,
        **({} if init_std is None else {"distribution_cfg": noise}),
    }


def learner_config(args: argparse.Namespace) -> dict[str, Any]:
    """Return rsl_rl's settings."""
    return {
        "num_steps_per_env": args.horizon,
        "save_interval": sys.maxsize,  # `Run` saves
        "check_for_nan": False,  # it would wait for the device at every step
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": network(args.action_std),
        "critic": network(),
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": 5,
            "num_mini_batches": args.mini_batches,
            "gamma": args.gamma,
            "lam": 0.95,
            "entropy_coef": args.entropy,
            "learning_rate": 1e-3,
            "schedule": "adaptive",
            "desired_kl": 0.01,
            "use_clipped_value_loss": False,  # values move by more than 0.2 in an iteration
        },
    }


class Run:
    """A training in a folder: its curve, its checkpoints, and going on from them.

    Args:
        args: The command line's.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._began = time.monotonic()
        self._folder: Path = args.output
        self._args = args
        self._settings = Settings(args.decision_hz, args.joint_step, not args.no_home)
        self._table = self._folder / "progress.csv"
        self._rows: list[dict[str, str]] = []
        self._spent = 0.0
        self._decisions = 0
        _check_output(args)
        self._folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(args.seed)
        self._worlds = Worlds(
            args.num_envs, args.seed, self._settings, args.num_starts, args.near_end
        )
        self._runner = OnPolicyRunner(
            self._worlds, learner_config(args), device=str(self._worlds.device)
        )
        if args.resume:
            self._resume(args.resume)
        self._write_table()

    def _resume(self, path: Path) -> None:
        saved = self._runner.load(str(path), map_location=str(self._worlds.device))
        if saved["settings"] != asdict(self._settings):
            raise SystemExit(
                f"error: {path} was trained with {saved['settings']}, and this command asks for "
                f"{asdict(self._settings)}; give the same --decision-hz, --joint-step and --no-home"
            )
        self._spent, self._decisions = saved["seconds"], saved["decisions"]
        torch.manual_seed(self._args.seed + self._iteration)
        if self._table.exists():
            with self._table.open(newline="") as table:
                rows = list(csv.DictReader(table))
            self._rows = [row for row in rows if int(row["iteration"]) <= self._iteration]

    @property
    def _iteration(self) -> int:
        """Iterations that were completed."""
        return self._runner.current_learning_iteration

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def learn(self) -> None:
        """Train until the time or the iterations are over."""
        first, args = self._iteration, self._args
        per_iteration = args.num_envs * args.horizon
        limit = args.minutes * 60
        while self._seconds < limit and self._iteration - first < args.iterations:
            left = max(0.0, 1.0 - self._seconds / limit)
            self._runner.alg.entropy_coef = args.entropy * left
            self._runner.learn(1, init_at_random_ep_len=self._iteration == first)
            self._runner.current_learning_iteration += 1
            self._decisions += per_iteration
            self._record()
            if self._iteration % args.save_every == 0:
                self._save()
        self._save()
        self._worlds.close()

    def _record(self) -> None:
        algorithm = self._runner.alg
        row = {
            "iteration": self._iteration,
            "decisions": self._decisions,
            "seconds": self._spent + self._seconds,
            **self._worlds.take_statistics(),
            "action_std": algorithm.get_policy().output_std.mean().item(),
            "learning_rate": algorithm.learning_rate,
        }
        self._rows.append({name: _text(row[name]) for name in COLUMNS})
        with self._table.open("a", newline="") as table:
            csv.DictWriter(table, COLUMNS).writerow(self._rows[-1])
        if self._iteration % self._args.print_every == 0:
            shown = ", ".join(f"{name} {value}" for name, value in self._rows[-1].items())
            print(shown, flush=True)

    def _save(self) -> None:
        """Write checkpoint, table and plot."""
        unfinished = self._folder / "unfinished.pt"
        about = {
            "settings": asdict(self._settings),
            "seconds": self._spent + self._seconds,
            "decisions": self._decisions,
        }
        self._runner.save(str(unfinished), about)
        unfinished.replace(self._folder / "model.pt")
        plot(self._rows, self._folder / "learning_curve.png")

    def _write_table(self) -> None:
        with self._table.open("w", newline="") as table:
            writer = csv.DictWriter(table, COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)


def _check_output(args: argparse.Namespace) -> None:
    """End the process if the run would overwrite another one, or has nothing to go on from."""
    if args.resume and not args.resume.exists():
        raise SystemExit(f"error: --resume {args.resume}: there is no such file")
    model = args.output / "model.pt"
    if not args.resume and model.exists():
        raise SystemExit(
            f"error: {model} exists; go on with --resume {model}, or take a new --output"
        )


def _text(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.5g}"


def plot(rows: list[dict[str, str]], path: Path) -> None:
    """Plot reward and shares over time, if matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    minutes = [float(row["seconds"]) / 60 for row in rows]
    labels = {
        "reward": "mean reward of a step",
        "grasped": "grasped",
        "released": "released on the target",
        "succeeded": "succeeded",
        "ended_well": "success in the last step",
    }
    for name, label in labels.items():
        axes.plot(minutes, [float(row[name]) for row in rows], label=label)
    axes.set(xlabel="minutes", ylabel="share of episodes", ylim=(-0.03, 1.03))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


class Policy:
    """A trained policy in an environment with absolute joint targets, on any simulator.

    Args:
        path: Of `model.pt`.
        control_hz: The environment's; a multiple of the decisions' rate.

    Attributes:
        settings: What its inputs and outputs mean.
    """

    def __init__(self, path: Path, control_hz: int) -> None:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        self.settings = Settings(**saved["infos"]["settings"])
        self._repeats, rest = divmod(control_hz, self.settings.decision_hz)
        if rest or not self._repeats:
            raise ValueError(
                f"{path} decides {self.settings.decision_hz} times per second: the environment's "
                f"rate must be a multiple, got {control_hz} Hz"
            )
        weights = saved["actor_state_dict"]
        size = weights["mlp.0.weight"].shape[1]
        example = TensorDict({"policy": torch.zeros(1, size)}, batch_size=[1])
        options = network(init_std=1.0)
        options.pop("class_name")
        self._actor = MLPModel(
            example, {"actor": ["policy"]}, "actor", Worlds.num_actions, **options
        )
        self._actor.load_state_dict(weights)
        self._actor.eval()
        self.reset()

    def reset(self, *_: Any) -> None:
        """Begin an episode; called with its first observation, `info` and a generator."""
        self._period, self._held = 0, np.zeros(0, dtype=np.float32)

    def act(self, observation: Any) -> np.ndarray:
        """Return the action (8,), rad and m, for an observation, or (n, 8) for n of them."""
        if self._period % self._repeats == 0:
            self._held = self._decide(observation)
        self._period += 1
        return self._held

    def _decide(self, observation: Any) -> np.ndarray:
        if not isinstance(observation, Mapping) or "environment_state" not in observation:
            raise ValueError(f"the policy needs the object's state; take --obs-type {OBS_TYPE}")
        scene = ENVIRONMENT_STATE.unpack(np.atleast_2d(observation["environment_state"]))
        robot = OBSERVATION.unpack(np.atleast_2d(observation["agent_pos"]))
        values = {name: torch.from_numpy(np.array(x)) for name, x in (scene | robot).items()}
        seen = TensorDict({"policy": features(values)}, batch_size=[len(values["joint_pos"])])
        with torch.inference_mode():
            commands = to_commands(self._actor(seen), values["joint_pos"], self.settings)
        return commands.numpy().reshape(*observation["agent_pos"].shape[:-1], 8)


def policy(env: gym.Env) -> Policy:
    """Return the policy of `PPO_MODEL`, or else of runs/ppo/model.pt; for `pp-evaluate`."""
    _require_packages()
    unwrapped: Any = env.unwrapped
    path = Path(os.environ.get("PPO_MODEL", "runs/ppo/model.pt"))
    return Policy(path, unwrapped.config.timing.control_hz)


def evaluate(path: Path, episodes: int, workers: int | None) -> tuple[int, int, np.ndarray]:
    """Run a policy on the CPU's simulator, without exploration, all episodes side by side.

    Args:
        path: Of `model.pt`.
        episodes: Number of unseen starts.
        workers: Threads for the physics; None is one per processor.

    Returns:
        How many episodes ever held the object, how many succeeded, and after how many seconds each
        of these first did.
    """
    control_hz = TimingConfig().control_hz
    actor = Policy(path, control_hz)
    envs: Any = gym.make_vec(
        pp_env.ENV_ID,
        num_envs=episodes,
        simulator="mujoco",
        obs_type=OBS_TYPE,
        terminate_on_success=False,  # all episodes end together; the first success counts
        max_episode_steps=EVALUATION_STEPS,
        num_threads=workers,
        config=actor.settings.config("mujoco", control_hz),
    )
    observation, _ = envs.reset(seed=EVALUATION_SEED)
    held, first = np.zeros(episodes, dtype=bool), np.full(episodes, math.inf)
    for step in range(1, EVALUATION_STEPS + 1):
        observation, _, _, _, infos = envs.step(actor.act(observation))
        held |= infos["is_grasped"]
        first = np.where(infos["is_success"], np.minimum(first, step / control_hz), first)
    envs.close()
    return int(held.sum()), int(np.isfinite(first).sum()), first[np.isfinite(first)]


def report(path: Path, episodes: int, workers: int | None) -> None:
    """Print how a policy does on unseen starts."""
    held, successes, seconds = evaluate(path, episodes, workers)
    low, high = wilson_interval(successes, episodes)
    median = f", first after {np.median(seconds):.1f} s (median)" if successes else ""
    print(
        f"{episodes} unseen starts: grasped {held}, success {successes} = "
        f"{successes / episodes:.1%} (95 % interval {low:.1%} to {high:.1%}){median}"
    )


def _require_packages() -> None:
    if _MISSING is not None:
        raise SystemExit(
            f"error: this example needs PyTorch and rsl_rl, and {_MISSING!r} is not installed; "
            "install PyTorch as https://pytorch.org/get-started says, then: pip install rsl-rl-lib"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--minutes", type=float, default=math.inf, help="longest time, with what it takes to begin")
    add("--iterations", type=int, default=sys.maxsize, help="most iterations")
    add("--num-envs", type=int, default=8192, help="worlds")
    add("--num-starts", type=int, default=8192, help="starts that the episodes are drawn from")
    add("--near-end", type=float, default=0.25, help="share of these near the end of the task")
    add("--horizon", type=int, default=24, help="decisions per world and iteration")
    add("--mini-batches", type=int, default=4, help="per iteration and epoch")
    add("--decision-hz", type=int, default=15, help="decisions per second; must divide 30")
    add("--joint-step", type=float, default=0.1, help="greatest change per decision, rad")
    add("--gamma", type=float, default=0.98, help="discount factor")
    add("--entropy", type=float, default=0.003, help="its first coefficient; 0 after --minutes")
    add("--action-std", type=float, default=0.7, help="first standard deviation of the actions")
    add("--no-home", action="store_true", help="success without the return to HOME")
    add("--seed", type=int, default=0, help="of starts and networks")
    add("--output", type=Path, default=Path("runs/ppo"), help="folder")
    add("--resume", type=Path, metavar="PT", help="go on from this checkpoint")
    add("--save-every", type=int, default=50, help="iterations between checkpoints")
    add("--print-every", type=int, default=10, help="iterations between lines")
    add("--evaluate", type=Path, metavar="PT", help="only evaluate this checkpoint, on the CPU")
    add("--episodes", type=int, default=200, help="unseen starts of the evaluation")
    add("--workers", type=int, help="threads of the evaluation; default: one per processor")
    args = parser.parse_args(arguments)
    _require_packages()
    if args.evaluate:
        report(args.evaluate, args.episodes, args.workers)
        return
    Run(args).learn()


if __name__ == "__main__":
    main()
