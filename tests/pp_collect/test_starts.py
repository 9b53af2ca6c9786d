"""Starts anywhere: what leads to them, what is stored of it, and that it comes out again."""

import json
import sys

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest

import collect
import pp_env
from experts.reach import tcp_position
from experts.reactive import ReactiveExpert
from pp_collect import replay
from pp_collect.starts import (
    EVENTS,
    EpisodeStarts,
    Prelude,
    RecordedStart,
    parse_start_mix,
    sample_posture,
)
from pp_env import PickPlaceConfig, panda
from pp_env.config import TaskConfig
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_recorder.dataset.reader import Dataset
from pp_recorder.rollout import run_episode
from tests.fakes import SIMULATOR, Log

MIX = "home=0.2,random=0.2,anywhere=0.6"
STATE_ONLY = ["--no-cameras", "--expert", "reactive", "--seed", "5"]


def make_env(config=None, **arguments):
    return gym.make(
        pp_env.ENV_ID, max_episode_steps=sys.maxsize, disable_env_checker=True,
        simulator=SIMULATOR, config=config or PickPlaceConfig(), terminate_on_success=False,
        **arguments,
    )  # fmt: skip


@pytest.fixture(scope="module")
def env():
    env = make_env()
    yield env
    env.close()


def starts_of(mix, config=None, starter=None):
    return EpisodeStarts(parse_start_mix(mix), config or PickPlaceConfig(), ReactiveExpert, starter)


def collected(root, *words):
    assert collect.main([*STATE_ONLY, *words, "--output", str(root)]) == 0
    return Dataset(root)


# The mix


def test_a_mix_is_parsed():
    assert parse_start_mix("home=0.4, random=0.3,anywhere=0.3") == {
        "home": 0.4, "random": 0.3, "anywhere": 0.3,
    }  # fmt: skip
    assert parse_start_mix("random") == {"random": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("home=0.5,random=0.6", "add up to 1, got 1.1"),
        ("home=-0.5,random=1.5", "from 0 to 1, got -0.5"),
        ("home=nan", "from 0 to 1"),
        ("nowhere=1", "start kinds are .* got 'nowhere'"),
        ("home=a", "must be a number, got 'a'"),
        ("home=0.5,home=0.5", "home is given twice"),
        ("", "start kinds are"),
    ],
)
def test_a_bad_mix_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_start_mix(text)


def test_shares_are_kept():
    env = make_env()
    starts = starts_of("home=0.2500003,random=0.75")  # as near to 1 as one types
    kinds = [starts(env, seed, None)[1]["prelude"].kind for seed in range(200)]
    assert 30 < kinds.count("home") < 70
    assert set(kinds) == {"home", "random"}
    env.close()


# Where it leads


def test_random_postures_are_above_everything_and_vary():
    for config in (PickPlaceConfig(), PickPlaceConfig(objects=YCB_OBJECTS)):
        rng = np.random.default_rng(0)
        postures = np.array([sample_posture(rng, config) for _ in range(200)])
        assert ((postures > panda.JOINT_LOWER) & (postures < panda.JOINT_UPPER)).all()
        top = config.table.top_z + max(obj.height for obj in config.object_pool)
        tcp = tcp_position(postures)
        assert (tcp[:, 2] > top + 0.02).all()
        assert (np.ptp(tcp, axis=0) > [0.3, 0.6, 0.15]).all()
        assert (postures.std(0) > 0.1).all()


def test_a_random_start_begins_there_with_the_same_scene(env):
    _, home = starts_of("home")(env, 4, None)
    observation, info = starts_of("random")(env, 4, None)
    prelude = info["prelude"]
    np.testing.assert_allclose(observation[:7], prelude.reset["joint_pos"], atol=0.01)
    np.testing.assert_array_equal(info["object_pos"][:2], home["object_pos"][:2])
    np.testing.assert_array_equal(info["goal_pos"], home["goal_pos"])


def test_every_event_happens_and_is_put_right(env):
    expert, starts, events = ReactiveExpert(), starts_of("anywhere"), set()
    for seed in range(16):
        log = Log()
        episode = run_episode(env, expert, [log], seed, seed, expert.num_steps, None, starts)
        prelude = episode.start_info["prelude"]
        assert episode.success, (seed, prelude.event)
        assert not episode.start_info["is_success"]
        assert prelude.actions or prelude.moves
        events.add(prelude.event)
    assert events >= set(EVENTS)


def test_a_start_depends_on_the_seed_alone():
    first, second = make_env(), make_env()
    starts_of("anywhere")(first, 1, None)  # another history
    for seed in (2, 3):
        (a, _), (b, _) = (starts_of("anywhere")(e, seed, None) for e in (first, second))
        np.testing.assert_array_equal(a, b)
    first.close()
    second.close()


@pytest.mark.parametrize("randomize", ["none", "full"])
def test_a_stored_prelude_leads_to_the_same_start(randomize):
    config = PickPlaceConfig(randomization=RANDOMIZATION_PRESETS[randomize])
    env = make_env(config)
    for seed in range(4):
        recorded, info = starts_of("anywhere", config)(env, seed, None)
        entry = json.loads(json.dumps(info["prelude"].to_entry()))
        again, info_again = RecordedStart(Prelude.from_entry(entry))(env, seed, None)
        np.testing.assert_array_equal(recorded, again)
        np.testing.assert_array_equal(info["environment_state"], info_again["environment_state"])
    env.close()


def test_objects_of_the_pool_start_anywhere_and_stand():
    config = PickPlaceConfig(objects=YCB_OBJECTS, num_objects=3, task=TaskConfig(random_yaw=True))
    env, starts = make_env(config), starts_of("anywhere", config)
    for seed in range(4):
        _, info = starts(env, seed, None)
        upright = 1 - 2 * (info["object_quat"][1] ** 2 + info["object_quat"][2] ** 2)
        assert info["is_grasped"] or upright > 0.9
    env.close()


def test_a_prelude_renders_nothing():
    pytest.importorskip("mujoco")
    from pp_env.config import RenderConfig

    config = PickPlaceConfig(render=RenderConfig(resolution=32, preset="fast"))
    env = make_env(config, obs_type="pixels_agent_pos")
    rendered, render = [], env.unwrapped._simulator.render

    def count(*arguments):
        rendered.append(arguments)
        return render(*arguments)

    env.unwrapped._simulator.render = count
    _, info = starts_of("anywhere")(env, 0, None)
    assert len(info["prelude"].actions) > 10
    assert len(rendered) <= 2 * (2 + 20)  # resets and the first observation, no step
    env.close()


# Policies that drive


class Wanderer:
    """Moves joint 1 back and forth: it never does the task."""

    needs_images = False

    def __init__(self, env) -> None:
        self.policy = self
        self.seen = []

    def observation(self, observation, info):
        return observation

    def reset(self, observation, info, rng) -> None:
        self._rng = rng

    def act(self, observation):
        self.seen.append(observation)
        turned = observation[:7] + self._rng.uniform(-0.05, 0.05, 7)
        return np.append(turned, 0.04).astype(np.float32)


def test_a_policy_drives_until_the_expert_takes_over(env):
    expert, starts = ReactiveExpert(), starts_of("policy", starter=Wanderer)
    lengths = []
    for seed in range(4):
        episode = run_episode(env, expert, [], seed, seed, expert.num_steps, None, starts)
        prelude = episode.start_info["prelude"]
        assert (prelude.kind, prelude.event) == ("policy", "takeover")
        assert episode.success
        lengths.append(len(prelude.actions))
    assert len(set(lengths)) > 1
    assert max(lengths) < 13 * 30


def test_a_policy_that_succeeds_is_interrupted_before(env):
    from benchmarks.reactive_success import Clumsy

    starts = starts_of("policy", starter=Clumsy)
    for seed in range(6):
        _, info = starts(env, seed, None)
        assert not info["is_success"]


# Datasets


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("starts") / "set"
    words = ["--num-episodes", "8", "--start-mix", MIX, "--action-noise", "0.1"]
    return collected(root, *words, "--workers", "1")


def test_the_metadata_tell_where_an_episode_began(dataset):
    kinds = [entry["episode/start_kind"] for entry in dataset.episodes]
    assert set(kinds) == {"home", "random", "anywhere"}
    for entry in dataset.episodes:
        prelude = json.loads(entry["episode/prelude"])
        assert (entry["episode/start_event"] != "") == (entry["episode/start_kind"] == "anywhere")
        assert bool(prelude["actions"]) <= (entry["episode/start_kind"] == "anywhere")
        assert entry["episode/success"]


def test_wanted_and_executed_action_are_columns(dataset):
    assert np.abs(dataset.column("action") - dataset.column("executed_action")).max() > 1e-3


def test_every_frame_has_its_subtask(dataset):
    table = pq.read_table(dataset.root / "meta/subtasks.parquet").to_pydict()
    assert table["subtask_index"] == list(range(9))
    assert table["subtask"][0] == "move above the object"
    found = dataset.column("subtask_index")[:, 0]
    assert set(found) <= set(range(9))
    assert len(set(found)) == 9
    rows = dataset.rows(0)
    assert rows["subtask_index"][-1, 0] == 8


def test_they_replay_and_come_out_again_bit_for_bit(dataset, capsys):
    assert replay.replay_main([str(dataset.root)]) == 0
    assert replay.reproduce_main([str(dataset.root)]) == 0
    assert capsys.readouterr().out.count("equal bit for bit") == 16


def same_files(one, other):
    for part in ("data", "meta/episodes"):
        (a,), (b,) = (sorted((root / part).glob("*/*.parquet")) for root in (one, other))
        assert a.read_bytes() == b.read_bytes()


def test_workers_and_resumes_give_the_same_bytes(dataset, tmp_path):
    words = ["--start-mix", MIX, "--action-noise", "0.1"]
    two = collected(tmp_path / "two", *words, "--num-episodes", "8", "--workers", "2")
    same_files(dataset.root, two.root)
    collected(tmp_path / "parts", *words, "--num-episodes", "3", "--workers", "1")
    parts = collected(
        tmp_path / "parts", *words, "--num-episodes", "8", "--workers", "1", "--resume"
    )
    same_files(dataset.root, parts.root)


def test_a_policy_of_ones_own_drives_in_a_collection(tmp_path, capsys):
    mix = ["--start-mix", "policy=1", "--start-policy", "tests.policies:Expert"]
    root = tmp_path / "set"
    found = collected(root, *mix, "--num-episodes", "2", "--workers", "1")
    assert [entry["episode/start_event"] for entry in found.episodes] == ["takeover"] * 2
    assert replay.replay_main([str(root)]) == 0
    assert replay.reproduce_main([str(root)]) == 2
    assert "look at it, and give --trust" in capsys.readouterr().err
    assert replay.reproduce_main([str(root), "--trust"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--start-mix", "home=0.5,random=0.6"], "shares must add up to 1"),
        (["--expert", "waypoints", "--start-mix", "anywhere"], "cannot start from anywhere"),
        (["--start-mix", "policy=1"], "need each other"),
        (["--start-policy", "tests.policies:Expert"], "need each other"),
        (
            ["--start-mix", "policy", "--start-policy", "tests.policies:Missing"],
            "has no callable 'Missing'",
        ),
        (["--start-mix", "policy", "--start-policy", "nowhere"], "must be like my_module:make"),
        (["--steps-per-segment", "20"], "--steps-per-segment is for --expert waypoints"),
        (["--path-noise-rad", "0.2"], "--path-noise-rad is for --expert waypoints"),
        (["--expert", "waypoints", "--joint-speed", "1"], "--joint-speed is for --expert reactive"),
        (["--joint-speed", "3"], "joint"),
        (["--action-noise", "-1"], "action"),
    ],
)
def test_bad_options_stop_before_any_work(words, message, tmp_path, capsys):
    output = tmp_path / "set"
    with pytest.raises(SystemExit) as stop:
        collect.main([*STATE_ONLY, *words, "--output", str(output)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_a_checkpoint_that_does_not_fit_stops_before_any_work(tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    shape = {"observation.images.other": {"type": "VISUAL", "shape": [3, 64, 64]}}
    config = {"input_features": shape, "output_features": {"action": {"shape": [8]}}}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    words = ["--start-mix", "policy", "--start-policy", str(folder)]
    with pytest.raises(SystemExit) as stop:
        collect.main([*STATE_ONLY, *words, "--output", str(tmp_path / "set")])
    assert stop.value.code == 2
    assert "does not fit this environment" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
