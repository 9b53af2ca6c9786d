"""Train tiny policies with the real lerobot, and evaluate their checkpoints.

Usage: python -m tests.check_policy       (make check-lerobot)

Needs this project and lerobot 0.4.x or 0.6.x. `lerobot-train` makes five steps of an ACT,
`pp-evaluate` runs two short episodes with videos, and the actions of the first must equal those of
`lerobot-eval`'s own loop, bit for bit. Then the expert takes over where the checkpoint has driven
to. With pictures, the ACT and a Diffusion Policy, which looks back, are probed, and their plans
must be what they do. Exits with 1 if any of this fails.
"""

import io
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np

from tests.check_dataset import import_lerobot

_VERSION, _ = import_lerobot()  # also in the processes that run a policy, which import this module
_STEPS = 30


_ACT = (
    "--policy.type=act", "--policy.chunk_size=10", "--policy.n_action_steps=10",
    "--policy.dim_model=64", "--policy.dim_feedforward=64", "--policy.n_heads=2",
)  # fmt: skip
_DIFFUSION = (
    "--policy.type=diffusion", "--policy.down_dims=[32,64]", "--policy.horizon=8",
    "--policy.n_action_steps=6", "--policy.num_inference_steps=3",
)  # fmt: skip


def train(dataset: Path, output: Path, policy: Sequence[str] = _ACT) -> None:
    """Train for five steps."""
    from lerobot.scripts import lerobot_train

    sys.argv = [
        "lerobot-train", "--dataset.repo_id=local/tiny", f"--dataset.root={dataset}",
        "--dataset.video_backend=pyav", f"--output_dir={output}", "--wandb.enable=false",
        "--policy.device=cpu", "--policy.push_to_hub=false",
        "--policy.pretrained_backbone_weights=null", "--steps=5", "--batch_size=2",
        "--num_workers=0", *policy,
    ]  # fmt: skip
    with redirect_stderr(io.StringIO()):  # progress bars
        lerobot_train.main()


def our_actions(options) -> np.ndarray:
    """Return the actions (steps, 8) of episode 0 in `pp-evaluate`."""
    from pp_collect import evaluate as pp_evaluate

    runner = pp_evaluate.make_runner(options)
    try:
        return np.array(runner.run(0).actions)
    finally:
        runner.close()


def actions_of_lerobot(options, folder: str) -> np.ndarray:
    """Return the same episode's actions (steps, 8) in `lerobot-eval`, clipped as when applied."""
    import gymnasium as gym
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors
    from lerobot.scripts.lerobot_eval import rollout

    from pp_collect import evaluate as pp_evaluate
    from pp_env.layout import ACTION
    from pp_recorder.rollout import episode_seed

    class SeedOnly(gym.Wrapper):
        """A wrapper that drops the reset option which lerobot 0.6 passes to its own wrappers."""

        def reset(self, *, seed=None, options=None):
            return self.env.reset(seed=seed)

    def make():
        env = pp_evaluate.make_env(options, options.obs_type)
        return gym.wrappers.TimeLimit(SeedOnly(env.unwrapped), _STEPS)

    def unchanged(batch):
        return batch

    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder)
    processors = make_pre_post_processors(config, folder)
    env = gym.vector.SyncVectorEnv([make], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    try:
        seeds = [episode_seed(options.seed, 0)]
        result = rollout(env, policy, unchanged, unchanged, *processors, seeds=seeds)
    finally:
        env.close()
    return result["action"][0].numpy().clip(ACTION.low, ACTION.high)


def check(folder: Path, *words: str) -> None:
    """Collect with these options, train, evaluate, and compare."""
    import collect
    from pp_collect import evaluate as pp_evaluate
    from pp_collect.options import EvaluateOptions
    from pp_recorder.evaluation.lerobot_policy import Checkpoint

    dataset, output = folder / "dataset", folder / "train"
    tiny = ["--num-episodes", "1", "--steps-per-segment", "20", "--output", str(dataset)]
    assert collect.main([*tiny, *words]) == 0
    train(dataset, output)

    report, videos = folder / "report.json", folder / "videos"
    command = ["--policy", str(output), "--num-episodes", "2", "--max-steps", str(_STEPS)]
    command += ["--preset", "fast", "--json", str(report), "--videos", str(videos)]
    assert pp_evaluate.main(command) == 0
    rows = json.loads(report.read_text())["episodes"]
    assert [(row["steps"], row["error"]) for row in rows] == [(_STEPS, "")] * 2, rows
    assert len(list(videos.glob("*.mp4"))) == 2

    given = EvaluateOptions(policy=str(output), num_episodes=2, max_steps=_STEPS, preset="fast")
    options = pp_evaluate.resolve_options(given)
    ours = our_actions(options)
    with redirect_stderr(io.StringIO()):
        theirs = actions_of_lerobot(options, str(Checkpoint(output).folder))
    assert np.ptp(ours, axis=0).max() > 0, "the policy does not move"
    np.testing.assert_array_equal(ours, theirs)
    take_over(output, folder / "taken-over", words)
    if "--no-cameras" not in words:
        probe(output, folder / "probe.json", steps=10)
        train(dataset, folder / "diffusion", _DIFFUSION)
        probe(folder / "diffusion", folder / "probe.json", steps=6)


def probe(checkpoint: Path, report: Path, steps: int) -> None:
    """Ask a checkpoint for plans of a length, which must be what it does."""
    from pp_collect import evaluate as pp_evaluate
    from pp_collect.options import EvaluateOptions
    from pp_recorder.evaluation.lerobot_policy import Checkpoint, LeRobotPolicy

    command = ["--policy", str(checkpoint), "--probe", "--num-episodes", "2", "--preset", "fast"]
    assert pp_evaluate.main([*command, "--json", str(report)]) == 0
    found = json.loads(report.read_text())["probe"]
    assert (found["scenes"], found["plan_steps"]) == (2, steps), found

    options = pp_evaluate.resolve_options(EvaluateOptions(policy=str(checkpoint), preset="fast"))
    policy = LeRobotPolicy(Checkpoint(checkpoint))
    env = pp_evaluate.make_env(options, options.obs_type)
    try:
        observation, info = env.reset(seed=0)
    finally:
        env.close()

    def start():
        policy.reset(observation, info, np.random.default_rng(0))

    start()
    plan = policy.plan(observation)
    start()
    done = [policy.act(observation) for _ in range(steps)]
    np.testing.assert_allclose(plan, done, rtol=0, atol=1e-6)
    other = {**observation, "agent_pos": observation["agent_pos"] + 1}
    start()
    assert np.abs(policy.plan(other) - plan).max() > 0, "the plan does not depend on the state"
    start()
    np.testing.assert_array_equal(policy.plan(observation), plan, "a plan leaves something behind")


def take_over(checkpoint: Path, output: Path, words: Sequence[str]) -> None:
    """Collect an episode that begins where the checkpoint has driven to, and replay it."""
    import collect
    from pp_collect.replay import replay_main
    from pp_recorder.dataset.reader import Dataset

    start = ["--start-mix", "policy", "--start-policy", str(checkpoint), "--workers", "1"]
    asked = ["--num-episodes", "1", "--expert", "reactive", "--output", str(output)]
    assert collect.main([*asked, *start, *words]) == 0
    assert Dataset(output).episodes[0]["episode/start_event"] == "takeover"
    assert replay_main([str(output)]) == 0


def main() -> int:
    """Run the check with and without cameras; return the exit status."""
    logging.disable(logging.INFO)
    for options in (["--resolution", "64", "--preset", "fast"], ["--no-cameras"]):
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder), *options)
    print(f"OK: checkpoints of lerobot-train act as in lerobot-eval (lerobot {_VERSION})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
