"""What other people's tools do with a dataset and with the environment, for `check_clients`.

Each function gets the path of a dataset and an empty folder, and returns what it saw as a
sentence. What a tool cannot do raises or exits.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import pp_env
from pp_env import PickPlaceConfig
from pp_env.config import RenderConfig
from pp_env.env import OBS_TYPES
from pp_env.wrappers import FlatObservation

EPISODES = 3
CONFIG = PickPlaceConfig(render=RenderConfig(resolution=64, preset="fast"))
LINT = (
    "Takes all 23 numbers of the state for joint positions, and compares each with the action of "
    "the same index, of which there are 8: velocities and quaternions jump, and two of its checks "
    "end with an IndexError."
)
_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_SCENE = ("--env.type=frankapickplace", "--env.resolution=64", "--env.preset=fast")


def collect(dataset: Path) -> None:
    """Record the dataset of the checks."""
    options = ["--num-episodes", str(EPISODES), "--resolution", "64", "--preset", "fast"]
    _run(sys.executable, "-m", "collect", *options, "--output", str(dataset))


def make(obs_type: str = "state", **arguments: Any) -> gym.Env:
    """Return the environment with small pictures."""
    return gym.make(pp_env.ENV_ID, obs_type=obs_type, config=CONFIG, **arguments)


def _run(*command: str, **environment: str) -> str:
    """Run a command of this Python's environment; return its output.

    Raises:
        SystemExit: It failed; the message is its last line.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True
    )
    output = f"{done.stdout}\n{done.stderr}".strip()
    if done.returncode != 0:
        raise SystemExit(f"exit status {done.returncode}: {output.splitlines()[-1]}")
    return output


def _open(root: Path, **arguments: Any) -> Any:
    from tests.check_dataset import import_lerobot

    _, dataset_class = import_lerobot()
    return dataset_class(f"local/{root.name}", root=root, video_backend="pyav", **arguments)


def _check(root: Path, episodes: int) -> str:
    """Read every frame of a dataset, which must have so many episodes; return a sentence."""
    dataset = _open(root)
    assert dataset.num_episodes == episodes, (dataset.num_episodes, episodes)
    keys = {key for i in range(len(dataset)) for key in dataset[i]}
    assert set(dataset.meta.video_keys) <= keys, keys
    return f"{episodes} episodes, {len(dataset)} frames read"


def lerobot_load(dataset: Path, folder: Path) -> str:
    """Read every frame."""
    return _check(dataset, EPISODES)


def lerobot_stream(dataset: Path, folder: Path) -> str:
    """Stream every frame, whose pictures must be those of random access."""
    whole = _open(dataset)
    from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset

    frames = list(StreamingLeRobotDataset("local/dataset", root=dataset, shuffle=False))
    assert len(frames) == len(whole), (len(frames), len(whole))
    camera = whole.meta.video_keys[0]
    for frame in frames[:: len(frames) // 7]:
        other = whole[int(frame["index"])]
        assert np.abs(np.asarray(frame[camera]) - np.asarray(other[camera])).max() < 0.1, "picture"
    return f"{len(frames)} frames, pictures as by index"


def lerobot_delete(dataset: Path, folder: Path) -> str:
    """Delete the first episode."""
    source = _open(dataset)
    from lerobot.datasets.dataset_tools import delete_episodes

    delete_episodes(source, [0], output_dir=folder / "less", repo_id="local/less")
    return _check(folder / "less", EPISODES - 1)


def lerobot_split(dataset: Path, folder: Path) -> str:
    """Split into two."""
    source = _open(dataset)
    from lerobot.datasets.dataset_tools import split_dataset

    parts = split_dataset(source, {"train": [0, 1], "val": [2]}, output_dir=folder / "parts")
    return " and ".join(_check(Path(part.root), part.num_episodes) for part in parts.values())


def lerobot_merge(dataset: Path, folder: Path) -> str:
    """Merge the dataset with itself."""
    source = _open(dataset)
    from lerobot.datasets.dataset_tools import merge_datasets

    merge_datasets([source, source], output_repo_id="local/both", output_dir=folder / "both")
    return _check(folder / "both", 2 * EPISODES)


def pp_merge(dataset: Path, folder: Path) -> str:
    """Join the dataset with one of the same features that lerobot has recorded; ours does it.

    LeRobot's own merge refuses them: it compares how their videos are described.
    """
    _record(_open(dataset), folder / "theirs")
    parts = (str(dataset), str(folder / "theirs"))
    _run(sys.executable, "-m", "pp_recorder.dataset.merge", *parts, "--output", f"{folder}/both")
    return _check(folder / "both", EPISODES + 1)


def _record(like: Any, root: Path) -> None:
    """Record one episode with another dataset's first frames, as lerobot does."""
    features = {k: dict(v) for k, v in like.features.items() if k not in _BOOKKEEPING}
    for feature in features.values():
        feature.pop("info", None)
    theirs = type(like).create(
        "local/theirs", fps=like.fps, features=features, root=root,
        robot_type=like.meta.robot_type, image_writer_threads=2, **_h264(),
    )  # fmt: skip
    for i in range(20):
        frame = {key: np.asarray(like[i][key]).reshape(ft["shape"]) for key, ft in _numeric(like)}
        for key in like.meta.video_keys:
            frame[key] = np.ascontiguousarray(np.asarray(like[i][key]).transpose(1, 2, 0))
        theirs.add_frame({**frame, "task": like[i]["task"]})
    theirs.save_episode()
    theirs.finalize()


def _h264() -> dict[str, Any]:
    """Return the argument by which lerobot encodes with our codec."""
    try:
        from lerobot.configs.video import RGBEncoderConfig
    except ImportError:  # 0.4.4
        return {"vcodec": "h264"}
    return {"rgb_encoder": RGBEncoderConfig(vcodec="h264")}


def _numeric(dataset: Any) -> list[tuple[str, Any]]:
    own = [key for key in dataset.features if key not in _BOOKKEEPING]
    return [(key, dataset.features[key]) for key in own if key not in dataset.meta.video_keys]


def lerobot_train(dataset: Path, folder: Path) -> str:
    """Train a small ACT for five steps, and evaluate it with `pp-evaluate`."""
    _train(dataset, folder / "train")
    options = ["--num-episodes", "1", "--max-steps", "5", "--preset", "fast"]
    command = (sys.executable, "-m", "tests.evaluate_checkpoint", "--policy")
    _run(*command, str(folder / "train"), *options)
    return "five steps trained, and a checkpoint evaluated"


def _train(dataset: Path, output: Path) -> str:
    from tests.check_dataset import import_lerobot
    from tests.check_policy import train

    import_lerobot()
    train(dataset, output)
    return str(next(output.glob("checkpoints/*/pretrained_model")))


def lerobot_eval(dataset: Path, folder: Path) -> str:
    """Evaluate a checkpoint in the environment of examples/lerobot_env."""
    return _evaluate(dataset, folder)


def lerobot_hub(dataset: Path, folder: Path) -> str:
    """Evaluate in the environment that an `env.py` in the cache of the Hub makes."""
    source = Path(__file__).parent.parent / "examples" / "lerobot_env" / "env.py"
    repository, commit = folder / "hub" / "models--local--franka", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    shutil.copy(source, repository / "snapshots" / commit)
    hub = ("--env.hub_path=local/franka", "--trust_remote_code=true", "--eval.batch_size=2")
    return _evaluate(dataset, folder, *hub, HF_HUB_CACHE=str(folder / "hub"))


def _evaluate(dataset: Path, folder: Path, *options: str, **environment: str) -> str:
    policy = f"--policy.path={_train(dataset, folder / 'train')}"
    scene = (*_SCENE, "--env.episode_length=5", "--eval.n_episodes=2", *options)
    output = f"--output_dir={folder / 'eval'}"
    _run("lerobot-eval", policy, "--policy.device=cpu", output, *scene, **environment)
    report = json.loads((folder / "eval" / "eval_info.json").read_text())
    videos = len(list((folder / "eval" / "videos").rglob("*.mp4")))
    assert (report["overall"]["n_episodes"], videos) == (2, 2), (report["overall"], videos)
    return "2 episodes with videos"


def lerobot_annotate(dataset: Path, folder: Path) -> str:
    """Write language columns as `lerobot-annotate` does, with its stub in place of the model."""
    from unittest.mock import patch

    from lerobot.annotations.steerable_pipeline import config, vlm_client
    from lerobot.scripts import lerobot_annotate

    copy = folder / "annotated"
    shutil.copytree(dataset, copy)

    def answer(messages: Sequence[Any]) -> dict[str, Any]:
        return {"subtasks": [{"text": "move the cube", "start": 0.0, "end": 1.0}], "memory": "m"}

    options = config.AnnotationPipelineConfig(root=copy, video_backend="pyav")
    options.interjections.enabled = options.vqa.enabled = False
    stub = vlm_client.StubVlmClient(responder=answer)
    with patch.object(lerobot_annotate, "make_vlm_client", lambda _: stub):
        lerobot_annotate.annotate.__wrapped__(options)
    loaded = _open(copy)
    added = {"language_persistent", "language_events"} & set(loaded.hf_dataset.column_names)
    assert added, loaded.hf_dataset.column_names
    return f"columns {', '.join(sorted(added))}; {_check(copy, EPISODES)}"


def lerobot_viz(dataset: Path, folder: Path) -> str:
    """Write an episode as a file for rerun."""
    source = ("--repo-id", "local/dataset", "--root", str(dataset), "--episode-index", "1")
    save = ("--save", "1", "--output-dir", str(folder), "--num-workers", "0")
    _run("lerobot-dataset-viz", *source, *save)
    (file,) = folder.glob("*.rrd")
    _run("rerun", "rrd", "verify", str(file))
    return "a file that `rerun rrd verify` accepts"


def lance(dataset: Path, folder: Path) -> str:
    """Examine the dataset, and convert it to Lance."""
    output = _run("lerobot-lance-doctor", "--root", str(dataset))
    _run("lerobot-lance-convert", "--root", str(dataset), "--out", str(folder / "lance"))
    rows = json.loads((dataset / "meta" / "info.json").read_text())["total_frames"]
    import lancedb

    found = lancedb.connect(folder / "lance").open_table("frames").count_rows()
    assert found == rows, (found, rows)
    return f"{output.splitlines()[-1]}, {rows} rows converted"


def lerobot_doctor(dataset: Path, folder: Path) -> str:
    """Examine the dataset."""
    output = _run("lerobot-doctor", "check", str(dataset), "--ci")
    return next((line for line in output.splitlines() if line.startswith("Summary")), "no failure")


def lerobot_lint(dataset: Path, folder: Path) -> str:
    """Examine the dataset."""
    return _run("lelint", "check", str(dataset)).splitlines()[-1]


def load_dataset(dataset: Path, folder: Path) -> str:
    """Load the folder as it is."""
    import datasets

    loaded = datasets.load_dataset(str(dataset), split="train", cache_dir=str(folder))
    frames = json.loads((dataset / "meta" / "info.json").read_text())["total_frames"]
    assert len(loaded) == frames, f"{len(loaded)} rows, expected {frames}"
    return f"{frames} rows with {len(loaded.column_names)} columns"


def duckdb(dataset: Path, folder: Path) -> str:
    """Join frames with episodes."""
    import duckdb

    data, episodes = (f"'{dataset}/{name}/*/*.parquet'" for name in ("data", "meta/episodes"))
    rows = duckdb.sql(
        f"select e.episode_index, any_value(e.length), count(*), max(f.action[8]) from {data} f "
        f"join {episodes} e using (episode_index) group by 1"
    ).fetchall()
    assert len(rows) == EPISODES, rows
    assert all(length == count for _, length, count, _ in rows), rows
    return f"{sum(row[2] for row in rows)} frames of {EPISODES} episodes joined"


def rerun(dataset: Path, folder: Path) -> str:
    """Load the dataset with rerun's own importer, into a file."""
    file = folder / "dataset.rrd"
    _run("rerun", str(dataset), "--save", str(file))
    _run("rerun", "rrd", "verify", str(file))
    return "a file that `rerun rrd verify` accepts"


def forge(dataset: Path, folder: Path) -> str:
    """Inspect, rate and convert the dataset."""
    _run("forge", "inspect", str(dataset))
    _run("forge", "quality", str(dataset))
    output = _run("forge", "convert", str(dataset), str(folder / "mcap"), "--format", "mcap")
    done = next(line for line in output.splitlines() if "Episodes converted" in line)
    assert done.split()[-1] == str(EPISODES), done
    return f"{EPISODES} episodes converted"


def gymnasium_checker(dataset: Path, folder: Path) -> str:
    """Check every kind of observation."""
    from gymnasium.utils.env_checker import check_env

    for obs_type in OBS_TYPES:
        check_env(make(obs_type, render_mode="rgb_array").unwrapped)
    return f"{', '.join(OBS_TYPES)}"


def async_vector(dataset: Path, folder: Path) -> str:
    """Step environments in processes of their own."""
    envs = gym.make_vec(
        pp_env.ENV_ID, 2, vectorization_mode="async", obs_type="pixels", config=CONFIG
    )
    with contextlib.closing(envs):
        envs.reset(seed=0)
        _, _, _, _, infos = envs.step(envs.action_space.sample())
    objects = {key: value[0] for key, value in infos.items() if value.dtype == object}
    assert all(isinstance(value, str) for value in objects.values()), objects
    return "`info` is batched: numbers as arrays of numbers, texts as arrays of texts"


def sb3_checker(dataset: Path, folder: Path) -> str:
    """Check every kind of observation, those with pictures through `FlatObservation`."""
    from stable_baselines3.common.env_checker import check_env

    for obs_type in OBS_TYPES:
        env = make(obs_type).unwrapped
        check_env(FlatObservation(env) if obs_type.startswith("pixels") else env)
    return f"{', '.join(OBS_TYPES)}; pixels through `FlatObservation`"


def sb3_train(dataset: Path, folder: Path) -> str:
    """Train for some steps, and find the native vector environment refused."""
    from stable_baselines3 import PPO, SAC, HerReplayBuffer
    from stable_baselines3.common.env_util import make_vec_env

    SAC(
        "MultiInputPolicy", make("goal"), replay_buffer_class=HerReplayBuffer,
        learning_starts=420, buffer_size=1000, batch_size=16, device="cpu",
    ).learn(430)  # fmt: skip
    few = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu"}
    PPO("MultiInputPolicy", FlatObservation(make("pixels_agent_pos")), **few).learn(8)
    refused = False
    try:
        PPO("MlpPolicy", gym.make_vec(pp_env.ENV_ID, num_envs=2), **few)
    except ValueError as error:
        refused = "not a Gymnasium environment" in str(error)
    assert refused, "the native vector environment is no longer refused"
    PPO("MlpPolicy", make_vec_env(pp_env.ENV_ID, n_envs=2), **few).learn(16)
    return "trained; it refuses the native vector environment, its own `make_vec_env` works"


def torchrl_single(dataset: Path, folder: Path) -> str:
    """Check TorchRL's wrappers of single environments."""
    from torchrl.envs import GymEnv, GymWrapper, ParallelEnv
    from torchrl.envs.utils import check_env_specs

    for obs_type in OBS_TYPES:
        check_env_specs(GymEnv(pp_env.ENV_ID, obs_type=obs_type, config=CONFIG))
        GymWrapper(make(obs_type)).rollout(3)
    parallel = ParallelEnv(2, lambda: GymWrapper(make("pixels_agent_pos")))
    shape = parallel.rollout(3)["pixels", "cam_high"].shape
    parallel.close()
    assert tuple(shape[:2]) == (2, 3), shape
    return ", ".join(OBS_TYPES)


def torchrl_vector(dataset: Path, folder: Path) -> str:
    """Check TorchRL's wrapper of the native vector environment."""
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    def make_many(**arguments: Any) -> Any:
        return GymWrapper(gym.make_vec(pp_env.ENV_ID, 2, autoreset_mode="Disabled", **arguments))

    with contextlib.closing(make_many(obs_type="pixels", config=CONFIG)) as envs:
        check_env_specs(envs)
    with contextlib.closing(make_many()) as envs:
        ended = int(envs.rollout(450, break_when_any_done=False)["next", "done"].sum())
    assert ended == 2, ended
    return "autoreset mode Disabled, beyond the end of an episode"


def minari(dataset: Path, folder: Path) -> str:
    """Record two episodes of each kind of observation, and read them."""
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    import minari

    for obs_type in OBS_TYPES:
        name = f"{obs_type.replace('_', '-')}/test-v0"
        env = minari.DataCollector(make(obs_type), record_infos=True)
        for seed in range(2):
            env.reset(seed=seed)
            for _ in range(5):
                env.step(env.action_space.sample())
        env.create_dataset(name)
        env.close()
        loaded = minari.load_dataset(name)
        assert [len(episode) for episode in loaded.iterate_episodes()] == [5, 5]
        recovered = loaded.recover_environment()
        assert recovered.observation_space == loaded.observation_space
        recovered.reset(seed=0)
        recovered.close()
    return ", ".join(OBS_TYPES)


def rllib(dataset: Path, folder: Path) -> str:
    """Train PPO from state for two iterations."""
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune.registry import register_env

    register_env("pick-place", lambda options: gym.make(pp_env.ENV_ID, **options))
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=2 * 10**8)
    config = PPOConfig().environment("pick-place").env_runners(num_env_runners=0)
    config.training(train_batch_size_per_learner=200, minibatch_size=50, num_epochs=1)
    algorithm = config.learners(num_learners=0).build_algo()
    steps = [algorithm.train()["num_env_steps_sampled_lifetime"] for _ in range(2)][-1]
    algorithm.stop()
    ray.shutdown()
    return f"{int(steps)} steps"
