"""Train SAC of Stable-Baselines3 on FrankaPickPlace-v0, from state and the dense reward.

    pip install stable-baselines3 matplotlib
    python examples/train_sb3.py --steps 60000 --demos 100 --output runs/sac

Writes `progress.csv`, `learning_curve.png` and `model.zip` to the output folder, at every
evaluation. docs/training.md says what to expect.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import gymnasium as gym
import numpy as np

try:
    import torch
    from matplotlib.figure import Figure
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor
except ModuleNotFoundError as missing:
    if __name__ == "__main__":
        if {"-h", "--help"} & set(sys.argv):
            sys.exit(print(__doc__))
        sys.exit(
            f"error: {missing.name} is not installed; try: pip install stable-baselines3 matplotlib"
        )
    raise

import pp_env
from pp_env import PickPlaceConfig, panda, rotation
from pp_env.config import TaskConfig, TimingConfig
from pp_env.layout import EE_DELTA_ACTION, ENVIRONMENT_STATE, OBSERVATION

CONTROL_HZ = 10  # decisions per second; at 30 an episode would have three times as many
DECISIONS = 100  # per episode, 10 s; the scripted policy needs 40 to 70
CONFIG = PickPlaceConfig(
    timing=TimingConfig(control_hz=CONTROL_HZ),
    # a hand that points straight down does not reach the far corners beyond x = 0.6 m
    task=TaskConfig(require_home=False, x_range=(0.3, 0.6)),
)
REST_Z = CONFIG.rest_z_of(CONFIG.object)  # m, of the centre of an object that lies on the table
BOX_LOW = np.array([0.25, -0.35, REST_Z - 0.01])  # m, world: box for the target of the TCP
BOX_HIGH = np.array([0.65, 0.35, REST_Z + 0.20])
EVALUATION_SEED = 1_000_000  # and above: not used in training or demonstrations


class Features(gym.ObservationWrapper):
    """A wrapper that observes 11 numbers of about unit size, most of them relative positions.

    tcp (3) from the middle of the table, object - tcp (3), goal - object (3), all in units of
    `UNIT` and along world axes; mean finger position (1), 0 closed, 1 open; is_grasped (1).
    """

    UNIT = 0.2  # m

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (11,), np.float32)

    def observation(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Return features (11,) of an `environment_state_agent_pos` observation."""
        scene = ENVIRONMENT_STATE.unpack(observation["environment_state"])
        robot = OBSERVATION.unpack(observation["agent_pos"])
        fingertips = rotation.rotate(robot["eef_quat"], np.array([0.0, 0.0, panda.TCP_OFFSET]))
        tcp = robot["eef_pos"] + fingertips
        goal = np.array([*scene["goal_pos"][:2], REST_Z])
        middle = np.array([*CONFIG.table.center[:2], REST_Z])
        thing = scene["object_pos"]
        places = np.concatenate([tcp - middle, thing - tcp, goal - thing])
        opening = robot["gripper_pos"].mean() / panda.FINGER_OPEN
        return np.array([*places / self.UNIT, opening, *scene["is_grasped"]], dtype=np.float32)


class HandDown(gym.ActionWrapper):
    """A wrapper with actions (4,) in [-1, 1]: the TCP's move, x, y, z, and the fingers, 1 is open.

    The hand keeps its orientation at HOME and stays in a box: the environment adds moves to a
    target, and without the box a target below the table would move ever further from the hand.
    """

    def __init__(self, env: Features) -> None:
        super().__init__(env)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._tcp = np.zeros(3)

    def reset(self, **kwargs):
        """Start an episode."""
        features, info = self.env.reset(**kwargs)
        self._store_tcp(features)
        return features, info

    def step(self, action):
        """Apply an action."""
        result = super().step(action)
        self._store_tcp(result[0])
        return result

    def action(self, action: np.ndarray) -> np.ndarray:
        """Return the action (7,), m and rad, of `control_mode="ee_delta"`."""
        move = np.clip(action[:3], -1, 1) * EE_DELTA_ACTION.high[:3]
        move = np.clip(move, BOX_LOW - self._tcp, BOX_HIGH - self._tcp)
        fingers = (np.clip(action[3], -1, 1) + 1) / 2 * panda.FINGER_OPEN
        return np.array([*move, 0.0, 0.0, 0.0, fingers], dtype=np.float32)

    def _store_tcp(self, features: np.ndarray) -> None:
        self._tcp = features[:3] * Features.UNIT + [*CONFIG.table.center[:2], REST_Z]


def make_env() -> gym.Env:
    """Return the environment for the learner.

    An episode continues after a success: every step's reward is at least 0, so if success ended
    it, hovering short of success until the time limit would have the larger return.
    """
    env = gym.make(
        pp_env.ENV_ID,
        obs_type="environment_state_agent_pos",
        control_mode="ee_delta",
        reward_type="dense",
        terminate_on_success=False,
        config=CONFIG,
        max_episode_steps=DECISIONS,
    )
    return HandDown(Features(env))


def scripted_action(features: np.ndarray) -> np.ndarray:
    """Return the action (4,) of a scripted policy for features (11,)."""
    to_object, to_goal = features[3:6] * Features.UNIT, features[6:9] * Features.UNIT
    tcp_z = features[2] * Features.UNIT
    placed = math.hypot(*to_goal[:2]) < 0.03 and abs(to_goal[2]) < 0.006
    fingers = 1.0
    if features[10] > 0.5:
        above = math.hypot(*to_goal[:2]) < 0.015
        move = np.array([*to_goal[:2], to_goal[2] if above else 0.08 - tcp_z])
        if not above and tcp_z < 0.05:
            move[:2] = 0.0
        fingers = 1.0 if placed else -1.0
    elif placed:
        move = np.array([0.0, 0.0, 0.1 - tcp_z])
    else:
        above = math.hypot(*to_object[:2]) < 0.01
        move = np.array([*to_object[:2], to_object[2] if above else to_object[2] + 0.06])
        fingers = -1.0 if np.abs(to_object).max() < 0.012 else 1.0
    # Half of the way: the arm lags behind its target, and would oscillate with the whole way.
    move = np.clip(0.5 * move / EE_DELTA_ACTION.high[:3], -1, 1)
    return np.append(move, fingers).astype(np.float32)


def add_demonstrations(model: SAC, count: int, noise: float, rng: np.random.Generator) -> float:
    """Add scripted episodes to the replay buffer; return their success rate.

    Args:
        model: The learner.
        count: Number of episodes.
        noise: Standard deviation of the noise on the moves, which are from -1 to 1.
        rng: Generator of the noise.
    """
    env, successes = make_env(), 0
    for episode in range(count):
        features, info = env.reset(seed=EVALUATION_SEED - 1 - episode)
        for _ in range(DECISIONS):
            action = scripted_action(features)
            action[:3] += rng.normal(0.0, noise, 3)
            action = action.clip(-1, 1)
            following, reward, _, truncated, info = env.step(action)
            infos = [{"TimeLimit.truncated": truncated}]
            model.replay_buffer.add(
                features[None], following[None], action[None], np.array([reward]),
                np.array([truncated]), infos,
            )  # fmt: skip
            features = following
        successes += info["is_success"]
    return successes / max(count, 1)


def evaluate(act, seeds: Iterable[int]) -> tuple[float, float, float]:
    """Run an episode per seed, without exploration.

    Args:
        act: Function from features (11,) to an action (4,).
        seeds: For `reset`.

    Returns:
        Mean dense reward of a step, in [0, 1]; share of episodes in which the gripper ever held the
        object; share whose last state was a success: object on the target, at rest, released.
    """
    env, rewards, grasped, ended_well = make_env(), [], [], []
    for seed in seeds:
        features, info = env.reset(seed=seed)
        truncated, held = False, False
        while not truncated:
            features, reward, _, truncated, info = env.step(act(features))
            rewards.append(reward)
            held |= info["is_grasped"]
        grasped.append(held)
        ended_well.append(info["is_success"])
    return float(np.mean(rewards)), float(np.mean(grasped)), float(np.mean(ended_well))


def report(model: SAC, episodes: int) -> None:
    """Print the results of a trained model on seeds that no evaluation in training had."""
    first = EVALUATION_SEED + 100_000
    seeds = range(first, first + episodes)
    reward, grasped, success = evaluate(lambda x: model.predict(x, deterministic=True)[0], seeds)
    low, high = wilson(round(success * episodes), episodes)
    print(
        f"{episodes} episodes: mean reward {reward:.3f}, grasped {grasped:.0%}, "
        f"success {success:.0%} (95 % interval {low:.0%} to {high:.0%})"
    )


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a success rate."""
    z, share = 1.96, successes / episodes
    middle = share + z * z / (2 * episodes)
    half = z * math.sqrt(share * (1 - share) / episodes + z * z / (4 * episodes**2))
    scale = 1 + z * z / episodes
    return (middle - half) / scale, (middle + half) / scale


class Progress(BaseCallback):
    """A callback that evaluates regularly, writes table, plot and model, and ends the training.

    The table's columns: decisions in training so far; mean dense reward of a step; share of
    episodes in which the gripper ever held the object; share that ended as a success; minutes of
    wall time and of CPU time since the start.

    Args:
        folder: Of the files.
        every: Steps between two evaluations.
        episodes: Per evaluation.
        minutes: After which training ends.
    """

    COLUMNS = ("steps", "reward", "grasped", "success", "wall_min", "cpu_min")

    def __init__(self, folder: Path, every: int, episodes: int, minutes: float) -> None:
        super().__init__()
        self._folder, self._every, self._episodes = folder, every, episodes
        self._minutes = minutes
        self._start = time.time(), time.process_time()
        self._table = folder / "progress.csv"
        self._table.write_text(",".join(self.COLUMNS) + "\n")

    def _on_training_start(self) -> None:
        self._evaluate()

    def _on_step(self) -> bool:
        if self.num_timesteps % self._every == 0:
            self._evaluate()
        return time.time() - self._start[0] < self._minutes * 60

    def _evaluate(self) -> None:
        seeds = range(EVALUATION_SEED, EVALUATION_SEED + self._episodes)
        shares = evaluate(lambda x: self.model.predict(x, deterministic=True)[0], seeds)
        wall, cpu = time.time() - self._start[0], time.process_time() - self._start[1]
        row = ",".join(f"{x:.4g}" for x in (*shares, wall / 60, cpu / 60))
        with self._table.open("a") as table:
            table.write(f"{self.num_timesteps},{row}\n")
        print(self.num_timesteps, row, flush=True)
        plot({"SAC": self._table}, self._folder / "learning_curve.png")
        self.model.save(self._folder / "unfinished.zip")
        (self._folder / "unfinished.zip").replace(self._folder / "model.zip")


def plot(tables: dict[str, Path], path: Path) -> None:
    """Plot reward, grasps and successes over steps, a line per table of `Progress`."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    titles = {"reward": "mean reward of a step", "grasped": "grasped", "success": "success"}
    for label, table in tables.items():
        rows = np.atleast_1d(np.genfromtxt(table, delimiter=",", names=True))
        for axis, name in zip(axes, titles, strict=True):
            axis.plot(rows["steps"] / 1000, rows[name], label=label)
    for axis, title in zip(axes, titles.values(), strict=True):
        axis.set(title=title, xlabel="decisions, thousands", ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=90)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60_000, help="decisions to train on")
    parser.add_argument("--minutes", type=float, default=math.inf, help="the longest time")
    parser.add_argument("--demos", type=int, default=100, help="scripted demonstrations; 0: none")
    parser.add_argument("--demo-noise", type=float, default=0.2, help="on their moves, std")
    parser.add_argument("--evaluate-every", type=int, default=2_500, help="decisions")
    parser.add_argument("--episodes", type=int, default=20, help="per evaluation")
    parser.add_argument("--final-episodes", type=int, default=100, help="of the last evaluation")
    parser.add_argument("--batch-size", type=int, default=256, help="per gradient step")
    parser.add_argument("--gamma", type=float, default=0.95, help="discount factor")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--output", type=Path, default=Path("runs/sac"), help="folder")
    parser.add_argument("--evaluate", type=Path, metavar="ZIP", help="only evaluate this model")
    parser.add_argument("--compare", nargs="+", metavar="NAME=CSV", help="only plot these tables")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the networks are too small for more to help
    args.output.mkdir(parents=True, exist_ok=True)
    if args.compare:
        tables = dict(pair.split("=", 1) for pair in args.compare)
        plot({name: Path(csv) for name, csv in tables.items()}, args.output / "learning_curve.png")
        return
    if args.evaluate:
        report(SAC.load(args.evaluate), args.final_episodes)
        return
    model = SAC(
        "MlpPolicy",
        Monitor(make_env()),
        learning_rate=1e-3,
        gamma=args.gamma,
        tau=0.02,
        ent_coef="auto_0.02",  # from 1, entropy would outweigh the rewards for thousands of steps
        batch_size=args.batch_size,
        buffer_size=args.steps + args.demos * DECISIONS + 1,
        learning_starts=0 if args.demos else min(1_000, args.steps // 2),
        policy_kwargs={"net_arch": [128, 128], "optimizer_kwargs": {"fused": True}},
        seed=args.seed,
    )
    rate = add_demonstrations(model, args.demos, args.demo_noise, np.random.default_rng(args.seed))
    print(f"{args.demos} demonstrations, {rate:.0%} successful")
    progress = Progress(args.output, args.evaluate_every, args.episodes, args.minutes)
    model.learn(args.steps, progress)
    report(model, args.final_episodes)


if __name__ == "__main__":
    main()
