import json
import sys

import gymnasium as gym
import numpy as np
import pytest

import pp_env
from experts.reach import HOME
from experts.waypoints import PHASES
from pp_collect import evaluate as pp_evaluate
from pp_collect.probe import INSTANTS, demonstrate, swap
from pp_env.config import PickPlaceConfig, RenderConfig
from pp_env.layout import OBSERVATION

SMALL = ["--probe", "--num-episodes", "3", "--resolution", "32", "--preset", "fast"]
SEEDS = (3, 4)  # in the second, the hand must rise before it can approach the object
ON_THE_WAY = [instant.name for instant in INSTANTS][1:]


def run(policy, *options):
    return pp_evaluate.main(["--policy", f"tests.policies:{policy}", *SMALL, *map(str, options)])


def findings(tmp_path, policy, *options):
    """Exit status, and findings by instant."""
    path = tmp_path / "result.json"
    status = run(policy, "--json", path, *options)
    report = json.loads(path.read_text())
    assert report["probe"]["scenes"] == report["num_episodes"]
    assert report["probe"]["plan_steps"] == 5
    return status, {finding["instant"]: finding for finding in report["probe"]["instants"]}


@pytest.fixture(scope="module")
def scenes():
    """The moments of two scenes, with pictures."""
    env = gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,
        disable_env_checker=True,
        obs_type="pixels_agent_pos",
        config=PickPlaceConfig(render=RenderConfig(resolution=32, preset="fast")),
    )
    yield [demonstrate(env.unwrapped, seed, None) for seed in SEEDS]
    env.close()


# What a plan follows


def test_a_plan_that_follows_the_pictures(tmp_path, capsys):
    status, found = findings(tmp_path, "Looks", "--min-pictures-share", 0.99)
    assert status == 0
    for finding in found.values():
        assert finding["pictures_share"] == pytest.approx(1.0)
        assert finding["state_share"] == pytest.approx(0.0)
        assert finding["moved_by_pictures"] == finding["apart"] > 0.1
        assert finding["moved_by_state"] == 0.0
    out = capsys.readouterr().out
    assert "The plan follows the pictures: they bring it at least 100% of the way" in out


def test_a_plan_that_follows_the_state(tmp_path, capsys):
    status, found = findings(tmp_path, "Copies", "--min-pictures-share", 0.01)
    assert status == 1
    for name in ON_THE_WAY:
        assert found[name]["pictures_share"] == pytest.approx(0.0)
        assert found[name]["state_share"] == pytest.approx(1.0)
        assert found[name]["moved_by_pictures"] == 0.0
        assert found[name]["moved_by_state"] == found[name]["apart"] > 0.1
    captured = capsys.readouterr()
    assert "follows the arm's own state: halfway to the object, the pictures bring it 0%" in (
        captured.out
    )
    assert "at the start, the pictures' share of the plan is none, below --min-pictures-share" in (
        captured.err
    )


def test_a_plan_that_follows_both(tmp_path):
    """Independent parts of 2/3 and 1/3 are 4/5 and 1/5 of what they move."""
    status, found = findings(tmp_path, "Mixes", "--num-episodes", 6, "--min-pictures-share", 0.5)
    assert status == 0
    shares = [found[name]["pictures_share"] for name in ON_THE_WAY]
    assert np.mean(shares) == pytest.approx(0.8, abs=0.1)
    for name in ON_THE_WAY:
        assert found[name]["pictures_share"] + found[name]["state_share"] == pytest.approx(1.0)
        assert 0.0 < found[name]["moved_by_state"] < found[name]["moved_by_pictures"]


def test_a_plan_that_follows_nothing(tmp_path, capsys):
    status, found = findings(tmp_path, "Insists", "--min-pictures-share", 0.01)
    assert status == 1
    assert {finding["pictures_share"] for finding in found.values()} == {None}
    captured = capsys.readouterr()
    assert "does not tell scenes apart: at the start, those of two scenes are 0.0 cm" in (
        captured.out
    )
    assert "the pictures' share of the plan is none, below" in captured.err


def test_a_plan_to_stay_follows_the_state(tmp_path, capsys):
    _, found = findings(tmp_path, "Stands")
    assert found["at the start"]["pictures_share"] is None
    assert found["halfway to the object"]["state_share"] == pytest.approx(1.0)
    assert "The plan follows the arm's own state: halfway to the object" in capsys.readouterr().out


def test_chance_is_the_same_in_every_plan(tmp_path):
    _, found = findings(tmp_path, "Guesses")
    assert found["halfway to the object"]["pictures_share"] == pytest.approx(1.0)


def test_a_probe_repeats_itself(tmp_path):
    once = findings(tmp_path, "Mixes")
    assert findings(tmp_path, "Mixes") == once
    assert findings(tmp_path, "Mixes", "--seed", 1) != once


@pytest.mark.parametrize(
    ("mode", "policy"),
    [("ee_pose", "Stands"), ("ee_delta", "Stands"), ("joint_delta", "StandsByDeltas")],
)
def test_the_path_of_the_hand_is_that_of_any_control_mode(mode, policy, tmp_path):
    _, found = findings(tmp_path, "Stands")
    _, again = findings(tmp_path, policy, "--control-mode", mode)
    for name, finding in found.items():
        assert again[name]["apart"] == pytest.approx(finding["apart"], abs=1e-4)
        assert again[name]["demonstrations_apart"] == finding["demonstrations_apart"]
    assert found["above the object"]["apart"] > 0.1


# Moments


def test_moments_are_what_they_are_called(scenes):
    assert {instant.phase for instant in INSTANTS} <= {"", *PHASES}
    for moments in scenes:
        start, halfway, above, in_hand, to_marker = moments
        joints = OBSERVATION.unpack(start.observation["agent_pos"])["joint_pos"]
        np.testing.assert_allclose(joints, HOME, atol=1e-6)
        whole, half, rest = (distance(m, "object_pos") for m in (start, halfway, above))
        assert 0.4 * whole < half <= 0.5 * whole
        assert rest < 0.03
        assert [m.info["is_grasped"] for m in moments] == [False, False, False, True, True]
        assert distance(to_marker, "goal_pos") <= 0.55 * distance(in_hand, "goal_pos")
        lengths = [len(m.hand) for m in moments]
        assert lengths == sorted(lengths, reverse=True)


def test_a_demonstration_leads_the_hand_to_the_object(scenes):
    for start, *_ in scenes:
        off = np.hypot(*(start.hand - start.info["object_pos"])[:, :2].T)
        assert off.min() < 0.01


def test_swapped_pictures_are_those_of_the_other_scene(scenes):
    (_, one, *_), (_, other, *_) = scenes
    mixed = swap(pictures_of=one, state_of=other)
    np.testing.assert_array_equal(mixed["agent_pos"], other.observation["agent_pos"])
    for name, picture in one.observation["pixels"].items():
        np.testing.assert_array_equal(mixed["pixels"][name], picture)
        assert (picture != other.observation["pixels"][name]).any()


def distance(moment, target):
    hand = OBSERVATION.unpack(moment.observation["agent_pos"])["eef_pos"]
    return np.hypot(*(hand - moment.info[target])[:2])


# Wrong use


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "expert"], "asks a policy that sees pictures for its plan, got --policy exp"),
        (["--policy", "random"], "try the folder of a LeRobot checkpoint, or module:callable"),
        (["--obs-type", "state"], "--obs-type pixels_agent_pos, got state"),
        (["--num-episodes", "1"], "--num-episodes 2 or more, got 1"),
        (["--workers", "2", "--min-success", "0.5"], "leave out --workers, --min-success"),
        (["--max-steps", "100"], "leave out --max-steps"),
        (["--min-pictures-share", "50"], "must be from 0 to 1, got 50"),
    ],
)
def test_options_that_do_not_fit(options, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        pp_evaluate.main(["--policy", "tests.policies:Looks", "--probe", *options])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_a_share_is_for_a_probe(capsys):
    with pytest.raises(SystemExit):
        pp_evaluate.main(["--policy", "tests.policies:Looks", "--min-pictures-share", "0.5"])
    assert "--min-pictures-share is for --probe; give that, too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("Expert", "--probe asks --policy tests.policies:Expert for its plan, but it has no plan"),
        ("hold", "returns the next actions as an array (steps, action size)"),
        ("PlansNaN", "plan must return finite numbers, got NaN or infinity"),
        ("PlansOneAction", "of shape ('steps', 8), got float64 (8,)"),
        ("PlansText", "must return an array of numbers of shape (5, 8), got <U4 (5, 8)"),
        ("PlansMoreAndMore", "of shape (6, 8), got float64 (7, 8)"),
        ("PlansNothing", "ZeroDivisionError: by zero"),
    ],
)
def test_a_policy_without_a_plan(policy, message, capsys):
    assert run(policy) == 2
    assert message in capsys.readouterr().err
