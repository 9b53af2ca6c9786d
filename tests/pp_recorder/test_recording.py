"""Recording and replaying with any environment, by `pp_recorder`'s public functions."""

import json
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import pp_recorder
from pp_recorder import Dataset, DatasetError, record, replay, schema_of
from pp_recorder.checks import DatasetView, run_checks

SIZE = (32, 48, 3)
PICTURE = spaces.Box(0, 255, SIZE, np.uint8)
VECTOR = spaces.Box(-1.0, 1.0, (2,), np.float64)


class Walk(gym.Env):
    """A point that walks on a line, and the picture of it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, observed=VECTOR, action=None, render_mode=None, size=SIZE) -> None:
        self.observation_space = observed
        self.action_space = action or spaces.Box(-0.1, 0.1, (), np.float32)  # a scalar
        self.render_mode, self._size = render_mode, size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._place = np.array([self.np_random.uniform(-0.5, 0.5), 0.0])
        return self._observe(self.observation_space), {"is_success": False}

    def step(self, action):
        assert action in self.action_space
        self._place[1] = self._place[0]
        self._place[0] += 0.01 * float(np.sum(action))
        success = bool(self._place[0] > 0)
        return self._observe(self.observation_space), 1.0, False, False, {"is_success": success}

    def render(self):
        image = np.zeros(self._size, np.uint8)
        image[:, : max(int((self._place[0] + 1) / 2 * self._size[1]), 1)] = 200
        return image

    def _observe(self, space):
        if isinstance(space, spaces.Dict):
            return {key: self._observe(part) for key, part in space.items()}
        if space.shape == SIZE:
            return self.render()
        if isinstance(space, spaces.Box):
            return np.resize(self._place, space.shape).astype(space.dtype)
        return space.sample()


class Shifted(gym.ObservationWrapper):
    """An environment that sees the point elsewhere."""

    def observation(self, observation):
        return observation + 0.001


gym.register("tests/Walk-v0", Walk, max_episode_steps=6)


def ahead(observation):
    return np.array(0.05, np.float32)


@pytest.fixture
def env():
    return gym.make("tests/Walk-v0", render_mode="rgb_array")


def go(env, tmp_path, policy=ahead, episodes=2, **options):
    return record(
        env, policy, str(tmp_path / "set"), episodes, task="walk", progress=False, **options
    )


def test_a_dataset_of_a_strange_environment_with_what_it_renders(env, tmp_path):
    dataset = go(env, tmp_path)
    assert (dataset.num_episodes, dataset.num_frames, dataset.info["fps"]) == (2, 12, 10)
    rows = dataset.rows(1)
    assert rows["observation.state"].shape == (6, 2)
    assert rows["action"].shape == (6, 1), "a scalar action is a vector of one"
    shown = list(dataset.frames(1, "observation.images.render"))
    columns = (rows["observation.state"][:, 0] + 1) / 2 * SIZE[1]
    found = [int((image[16, :, 0] > 100).sum()) for image in shown]
    np.testing.assert_allclose(found, columns.astype(int), atol=1, err_msg="of the same instant")
    assert not [f for result in run_checks(DatasetView(dataset.root)) for f in result.findings]
    assert [str(c) for c in replay(env, dataset)] == [
        f"episode {k}: equal bit for bit" for k in range(2)
    ]


def test_the_policy_sees_the_environments_own_observation(env, tmp_path):
    seen = []
    go(env, tmp_path, lambda observation: seen.append(observation) or ahead(observation), 1)
    assert all(observation.shape == (2,) for observation in seen)


@pytest.mark.parametrize(
    ("observed", "names"),
    [
        (VECTOR, ["observation.state"]),
        (PICTURE, ["observation.images.pixels"]),
        (spaces.Discrete(4), ["observation.state"]),
        (
            spaces.Dict(pixels=PICTURE, agent_pos=VECTOR),
            ["observation.state", "observation.images.pixels"],
        ),
        (
            spaces.Dict(pixels=spaces.Dict(top=PICTURE, side=PICTURE), agent_pos=VECTOR),
            ["observation.state", "observation.images.side", "observation.images.top"],
        ),
        (
            spaces.Dict(agent_pos=VECTOR, environment_state=VECTOR),
            ["observation.state", "observation.environment_state"],
        ),
        (
            spaces.Dict(observation=VECTOR, desired_goal=VECTOR),
            ["observation.observation", "observation.desired_goal"],
        ),
        (
            spaces.Dict(front=PICTURE, touch=spaces.MultiBinary(3)),
            ["observation.images.front", "observation.state"],
        ),
    ],
)
def test_columns_follow_the_observation_space(observed, names, tmp_path):
    env = Walk(observed)
    dataset = go(env, tmp_path, max_steps=3)
    others = {"action", *schema_of(env, "walk").all_features} - set(schema_of(env, "walk").features)
    assert {key for key in dataset.features if key.startswith("observation")} == set(names)
    assert others <= set(dataset.features)


@pytest.mark.parametrize(
    ("action", "value", "dtype"),
    [
        (spaces.Discrete(3), 2, "int64"),
        (spaces.MultiDiscrete([3, 3]), np.array([1, 2]), "int64"),
        (spaces.Box(-0.1, 0.1, (2, 2), np.float32), np.full((2, 2), 0.05, np.float32), "float32"),
    ],
)
def test_actions_of_every_kind_are_recorded_and_replayed(action, value, dtype, tmp_path):
    env = Walk(action=action)
    dataset = go(env, tmp_path, lambda observation: value, max_steps=3)
    assert dataset.features["action"]["dtype"] == dtype
    np.testing.assert_array_equal(dataset.rows(0)["action"][0], np.ravel(value))
    assert all(comparison.equal for comparison in replay(env, dataset))


def test_a_resumed_recording_has_the_bytes_of_an_undisturbed_one(env, tmp_path):
    whole = go(env, tmp_path / "whole", episodes=3)
    with pytest.raises(ZeroDivisionError):
        go(env, tmp_path / "parts", _failing_after(8), episodes=3)
    parts = go(env, tmp_path / "parts", episodes=3, resume=True)
    files = sorted(p.relative_to(whole.root) for p in whole.root.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(parts.root) for p in parts.root.rglob("*") if p.is_file())
    for name in files:
        assert (whole.root / name).read_bytes() == (parts.root / name).read_bytes(), name


def _failing_after(steps):
    left = iter([1] * steps + [0])
    return lambda observation: ahead(observation) if 1 / next(left) else None


def test_only_successes_can_be_kept(env, tmp_path):
    dataset = go(env, tmp_path, keep="success", episodes=3, seed=1)
    assert all(entry["episode/success"] for entry in dataset.episodes)
    assert [entry["episode/attempt"] for entry in dataset.episodes] != [0, 1, 2]
    never = Walk(spaces.Discrete(2))
    never.step = lambda action: (0, 0.0, False, False, {"is_success": False})
    with pytest.raises(RuntimeError, match="20 attempts in a row had no success"):
        go(never, tmp_path / "b", keep="success", max_steps=1)


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (Walk(), {}, "max_steps must be at least 1, got None; give it for an environment"),
        (Walk(), {"max_steps": 0}, "max_steps must be at least 1, got 0"),
        (Walk(), {"max_steps": 3, "fps": 0.5}, "fps must be a whole number"),
        (Walk(), {"max_steps": 3, "task": ""}, "task must say what the robot does"),
        (Walk(), {"max_steps": 3, "keep": "some"}, "keep must be 'all' or 'success'"),
        (Walk(), {"max_steps": 3, "num_episodes": 0}, "num_episodes must be at least 1"),
        (Walk(spaces.Text(5)), {"max_steps": 3}, "observation.state is a Text; boxes and discrete"),
        (
            Walk(spaces.Box(0, 255, (4, 4), np.uint8)),
            {"max_steps": 3},
            r"\(height, width, 3\), got \(4, 4\)",
        ),
        (
            Walk(render_mode="rgb_array", size=(31, 48, 3)),
            {"max_steps": 3},
            "48 x 31; both sides must be even",
        ),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_is_written(
    made, options, message, tmp_path
):
    given = {"task": "walk", "num_episodes": 1, **options}
    with pytest.raises(ValueError, match=message):
        record(made, ahead, tmp_path / "set", progress=False, **given)
    assert not (tmp_path / "set").exists()


def test_pictures_that_are_no_bytes_are_named(tmp_path):
    env = Walk(render_mode="rgb_array")
    env.render = lambda: np.zeros(SIZE, np.float32)
    with pytest.raises(ValueError, match="uint8, observation.images.render has float32"):
        go(env, tmp_path, max_steps=2)


def test_a_replay_finds_what_differs_and_says_what_is_missing(env, tmp_path):
    dataset = go(env, tmp_path)
    shifted = Shifted(gym.make("tests/Walk-v0"))
    assert not any(comparison.equal for comparison in replay(shifted, dataset))
    with pytest.raises(ValueError, match="episode must be from 0 to 1, got 2"):
        replay(env, dataset, [2])
    for entry in dataset.episodes:
        del entry["episode/seed"]
    with pytest.raises(DatasetError, match="does not say how episode 0 began"):
        replay(env, dataset)


def test_the_commands_on_datasets_take_it(env, tmp_path, capsys):
    from pp_collect.replay import replay_main, reproduce_main
    from pp_recorder.dataset.merge import main as merge_main

    roots = [go(env, tmp_path / name).root for name in "ab"]
    assert merge_main([*map(str, roots), "--output", str(tmp_path / "joint")]) == 0
    assert Dataset(tmp_path / "joint").num_episodes == 4
    assert replay_main([str(tmp_path / "joint")]) == 2
    assert "names the environment 'tests/Walk-v0'" in capsys.readouterr().err
    assert replay_main([str(tmp_path / "joint"), "--trust"]) == 0
    assert "4 of 4 episodes are equal" in capsys.readouterr().out
    assert replay_main([str(roots[0]), "--trust", "--render", str(tmp_path / "r")]) == 2
    assert "--render is for datasets of collect.py" in capsys.readouterr().err
    assert reproduce_main([str(roots[0])]) == 2
    assert "stores no policy; pp-replay repeats its actions" in capsys.readouterr().err
    path = roots[0] / "meta/collection.json"
    stored = json.loads(path.read_text())
    for env_spec, message in (
        (
            {**stored["env"], "id": "tests/Nothing-v0", "entry_point": "no.such:Thing"},
            "cannot be made",
        ),
        ({"class": "Walk"}, "does not say how to make the environment"),
    ):
        path.write_text(json.dumps({**stored, "env": env_spec}))
        assert replay_main([str(roots[0]), "--trust"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "pp_recorder.replay(env, dataset)" in error


@pytest.mark.parametrize("block", range(3))
def test_the_pages_examples_run(block, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs/record.md").read_text()
    found = re.findall("```python\n(.*?)```", page, re.DOTALL)
    blocks = [text for text in found if "datasets/" in text]  # the other is a policy
    assert len(blocks) == 3
    pytest.importorskip({0: "pygame", 1: "mujoco"}.get(block, "numpy"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    exec(blocks[block], {"__name__": "__main__"})
    (folder,) = (tmp_path / "datasets").iterdir()
    assert Dataset(folder).num_episodes == (10, 2, 3)[block]


def test_the_public_names_are_those_of_the_page():
    assert set(pp_recorder.__all__) == set(pp_recorder._MODULE_OF)
    for name in pp_recorder.__all__:
        assert getattr(pp_recorder, name).__doc__
    page = (Path(__file__).parents[2] / "docs/record.md").read_text()
    assert [name for name in pp_recorder.__all__ if f"`{name}" not in page] == []
    with pytest.raises(AttributeError, match="has no attribute 'Recorder'"):
        pp_recorder.Recorder  # noqa: B018
