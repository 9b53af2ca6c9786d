"""One factor at a time: what it changes, what it leaves, and what is reported."""

import dataclasses
import json
from itertools import product

import numpy as np
import pytest

from pp_collect.evaluate import make_env, resolve_options
from pp_collect.options import EvaluateOptions
from pp_collect.robustness import (
    FACTORS,
    UNVARIED,
    comparison,
    factor_table,
    start_outside,
    vary_scene,
)
from pp_env import placement
from pp_env.config import PickPlaceConfig, TaskConfig
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS, RandomizationConfig
from pp_recorder.command_line import parse
from pp_recorder.evaluation.metrics import EpisodeResult, Grid, compute_metrics
from tests import ROOT, evaluation

FULL = RANDOMIZATION_PRESETS["full"]
TASK = TaskConfig()


def evaluate(*words):
    return evaluation.run(["--policy", *map(str, words)])


def result(tmp_path, *words):
    """Exit status and JSON of an evaluation."""
    path = tmp_path / "result.json"
    status = evaluate(*words, "--json", path)
    return status, json.loads(path.read_text())


def reset(factor, seed, **options):
    """The first `info` of an episode with a factor."""
    env = make_env(resolve_options(EvaluateOptions(policy="reactive", **options)), "state", factor)
    try:
        return env.reset(seed=seed)[1]
    finally:
        env.close()


def is_usual(point):
    (low_x, high_x), (low_y, high_y) = TASK.x_range, TASK.y_range
    return low_x <= point[0] <= high_x and low_y <= point[1] <= high_y


# What a factor changes


def test_every_range_of_the_randomization_belongs_to_one_factor():
    ranges = [name for factor in FACTORS.values() for name in factor.ranges]
    assert sorted(ranges) == sorted(field.name for field in dataclasses.fields(RandomizationConfig))


@pytest.mark.parametrize("preset", ["none", "light"])
@pytest.mark.parametrize("name", [name for name in FACTORS if FACTORS[name].ranges])
def test_ranges_are_those_of_full_and_the_rest_stays(name, preset):
    chosen = RANDOMIZATION_PRESETS[preset]
    config = PickPlaceConfig(randomization=chosen)
    varied = vary_scene(name, config)
    for field in dataclasses.fields(RandomizationConfig):
        source = FULL if field.name in FACTORS[name].ranges else chosen
        value = getattr(varied.randomization, field.name)
        assert value == getattr(source, field.name), field.name
    assert dataclasses.replace(varied, randomization=chosen) == config


def test_a_factor_reaches_the_episode():
    variations = [reset("mass", seed)["variation"] for seed in range(4)]
    assert len({variation.mass for variation in variations}) == 4
    assert {variation.friction for variation in variations} == {1.0}
    assert "variation" not in reset(UNVARIED, 0)


def test_other_ranges_keep_their_values():
    usual = reset(UNVARIED, 3, randomize="light")["variation"]
    varied = reset("light", 3, randomize="light")["variation"]
    assert varied.light_position == pytest.approx(2 * np.array(usual.light_position))
    changes = {"light_position": varied.light_position, "light_intensity": varied.light_intensity}
    assert varied == dataclasses.replace(usual, **changes)


@pytest.mark.parametrize("random_yaw", [False, True])
def test_positions_lie_outside_the_usual_area_and_on_the_table(random_yaw):
    usual = dataclasses.replace(TASK, random_yaw=random_yaw)
    config = PickPlaceConfig(task=usual)
    points = []
    for seed in range(300):
        chosen = start_outside(config, seed, {})
        assert not (is_usual(chosen["pick"]) and is_usual(chosen["place"]))
        points += [chosen["pick"], chosen["place"]]
    table = np.array(config.table.center[:2]), np.array(config.table.size[:2]) / 2
    from_edge = table[1] - np.abs(np.array(points) - table[0])
    assert from_edge.min() >= TASK.place_tolerance - 1e-9  # all that counts as placed is there
    assert from_edge.min() < TASK.place_tolerance + 0.005


def test_a_position_is_all_that_differs():
    usual, moved = reset(UNVARIED, 5, random_yaw=True), reset("position", 5, random_yaw=True)
    assert (moved["object"], moved["distractors"]) == ("cube", "")
    np.testing.assert_array_equal(moved["object_rgb"], usual["object_rgb"])
    np.testing.assert_allclose(np.abs(moved["object_quat"] @ usual["object_quat"]), 1, atol=1e-6)
    again = reset("position", 5, random_yaw=True)
    np.testing.assert_array_equal(moved["object_pos"], again["object_pos"])


def test_a_household_object_is_moved_too():
    usual = reset(UNVARIED, 5, use_ycb=True, num_objects=3)
    moved = reset("position", 5, use_ycb=True, num_objects=3)
    assert moved["object"] == usual["object"]
    assert len(list(moved["distractors"])) == 2
    assert not (is_usual(moved["object_pos"]) and is_usual(moved["goal_pos"]))


@pytest.mark.parametrize("seed", range(5))
def test_distractors_leave_the_cube_where_it_is(seed):
    usual = reset(UNVARIED, seed, random_yaw=True)
    beside = reset("distractors", seed, random_yaw=True)
    assert beside["object"] == "cube"
    assert len(set(beside["distractors"])) == 3
    assert set(beside["distractors"]) <= {obj.name for obj in YCB_OBJECTS}
    for name in ("object_pos", "object_quat", "goal_pos"):
        np.testing.assert_allclose(beside[name], usual[name], atol=1e-4)
    np.testing.assert_array_equal(beside["object_rgb"], usual["object_rgb"])


def test_over_distractors_the_arm_reaches_every_pick():
    config = vary_scene("distractors", PickPlaceConfig())
    cube, *others = config.object_pool
    travel = placement.travel_height(cube, others, config)
    for corner in product(TASK.x_range, TASK.y_range):
        assert placement.is_reachable(np.array(corner), 0.0, cube, travel, config)


# How factors are named


@pytest.mark.parametrize("words", [["light,camera"], ["camera,light"], ["light", "camera"]])
def test_names_are_separated_by_commas_or_spaces(words):
    words = ["--policy", "expert", "--vary", *words]
    options = parse(EvaluateOptions, words, prog="pp-evaluate", description="", example="")
    assert options.factors == ("light", "camera")


def test_all_are_all():
    assert EvaluateOptions(policy="expert", vary=("all",)).factors == tuple(FACTORS)
    assert EvaluateOptions(policy="expert").factors == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vary", "light,moon"], "must be all, or some of light,camera,"),
        (["--vary", "mass", "mass"], "each once, got mass,mass"),
        (["--vary", "all", "mass"], "got all,mass"),
        (["--vary"], "got none"),
        (
            ["--vary", "light,position", "--randomize", "full"],
            "--vary light: --randomize already varies it as much; these would work: "
            "--vary position,distractors\n",
        ),
        (
            ["--vary", "all", "--use-ycb"],
            "--vary distractors: stand beside the cube, not in the scene of --use-ycb; these "
            "would work: --vary light,camera,texture,mass,friction,sensing,position\n",
        ),
        (
            ["--vary", "light,mass", "--simulator", "isaacsim"],
            "--vary mass: isaacsim cannot vary mass; these would work: "
            "--vary light,camera,sensing,position,distractors\n",
        ),
    ],
)
def test_what_cannot_vary_is_said_before_the_first_episode(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate("reactive", *words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


# What is reported


def test_every_factor_is_measured_on_the_same_seeds(tmp_path, capsys):
    words = ["reactive", "--num-episodes", 2]
    _, plain = result(tmp_path, *words)
    assert plain["varied"] == {}
    capsys.readouterr()
    status, report = result(tmp_path, *words, "--vary", "distractors,light,position")
    table = capsys.readouterr().out
    assert status == 0
    assert report["episodes"] == plain["episodes"]
    assert report["scores"] == plain["scores"]
    assert list(report["varied"]) == ["light", "position", "distractors"]
    for rows in report["varied"].values():
        assert rows["scores"]["successes"] == 2
        assert [r["seed"] for r in rows["episodes"]] == [r["seed"] for r in plain["episodes"]]
    assert report["varied"]["light"]["episodes"] == plain["episodes"]  # it sees no light
    outside = [r["points"] for r in report["varied"]["position"]["episodes"]]
    assert not any(is_usual(points["pick"]) and is_usual(points["place"]) for points in outside)
    rows = [line.split() for line in table.splitlines() if " of 2 " in line]
    assert [row[0] for row in rows] == ["unvaried", "light", "position", "distractors"]
    assert "The policy observes no images, so it cannot see: light." in table


def test_the_numbers_are_the_same_with_workers(tmp_path):
    words = ["random", "--num-episodes", 3, "--max-steps", 9, "--vary", "position", "sensing"]
    assert result(tmp_path, *words, "--workers", 2) == result(tmp_path, *words)


def test_every_row_must_reach_the_least_success(tmp_path, capsys):
    words = ["random", "--num-episodes", 1, "--max-steps", 2, "--vary", "friction"]
    assert evaluate(*words, "--min-success", 0.5) == 1
    error = capsys.readouterr().err
    assert "the success rate of 0.0% (unvaried) is below --min-success 50.0%" in error
    assert "the success rate of 0.0% (friction) is below --min-success 50.0%" in error


def test_videos_have_a_folder_for_each_factor(tmp_path):
    words = ["random", "--num-episodes", 1, "--max-steps", 3, "--vary", "distractors"]
    evaluate(*words, "--videos", tmp_path, "--resolution", 32, "--preset", "fast")
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4")}
    assert found == {f"{row}/episode_00000_failure.mp4" for row in (UNVARIED, "distractors")}


def test_the_table_names_the_most_frequent_stage():
    def metrics(*stages):
        episodes = [
            EpisodeResult(k, k, not stage, 9, 0.3, 0.0, stage, stage, "cube", {}, "")
            for k, stage in enumerate(stages)
        ]
        return compute_metrics(episodes, Grid((0, 1), (0, 1)))

    scores = {
        UNVARIED: metrics("", "", "", ""),
        "camera": metrics("carry", "grasp", "carry", ""),
    }
    assert comparison(scores, has_images=True).splitlines() == [
        "factor    successes    rate    95 % interval  failures, most of them at",
        "unvaried     4 of 4  100.0%  51.0% to 100.0%  -",
        "camera       1 of 4   25.0%    4.6% to 69.9%  carry (2 of 3)",
    ]


def test_the_page_has_the_generated_table():
    page = (ROOT / "docs" / "evaluate.md").read_text()
    assert factor_table() in page, f"put this into it:\n{factor_table()}"
