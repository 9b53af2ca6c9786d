import dataclasses
import fcntl
import json
import os
import pickle
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import av
import gymnasium as gym
import numpy as np
import pytest

import collect
from experts.diagnosis import failure_stage
from pp_collect import evaluate as pp_evaluate
from pp_collect.evaluate import resolve_options
from pp_collect.options import EvaluateOptions
from pp_recorder.evaluation import lerobot_policy
from pp_recorder.evaluation.lerobot_policy import (
    Checkpoint,
    CheckpointError,
    LeRobotPolicy,
    to_lerobot,
)
from pp_recorder.evaluation.metrics import EpisodeResult, Grid, compute_metrics, wilson_interval
from pp_recorder.evaluation.runner import FunctionPolicy, PolicyRunner, RandomPolicy, TaskOutcome
from pp_recorder.parallel.processes import WorkerError, run_all
from tests import ROOT, evaluation


def run(policy, *options, apart=False):
    return evaluation.run(["--policy", policy, *map(str, options)], apart)


def result(tmp_path, policy, *options, apart=False):
    """Exit status and JSON of an evaluation."""
    path = tmp_path / "result.json"
    status = run(policy, "--json", path, *options, apart=apart)
    return status, json.loads(path.read_text())


def episode(
    index=0, success=True, steps=100, distance=0.001, reason="", stage="", point=(0.5, 0.0)
):
    return EpisodeResult(
        index, 7, success, steps, steps / 30, distance, reason, stage, "cube", {"pick": point}, ""
    )  # fmt: skip


# Metrics of episodes


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("trials", [1, 7, 200])
def test_wilson_intervals_at_the_ends_have_a_closed_form(trials):
    z2 = 1.959963984540054**2
    assert wilson_interval(0, trials) == (0.0, pytest.approx(z2 / (trials + z2)))
    assert wilson_interval(trials, trials) == (pytest.approx(trials / (trials + z2)), 1.0)


def test_metrics_take_times_from_successes_and_distances_from_all():
    episodes = [
        episode(steps=90),
        episode(steps=120),
        episode(steps=150),
        episode(steps=400, success=False),
    ]
    episodes = [episode(k, r.success, r.steps, distance=k / 10) for k, r in enumerate(episodes)]
    metrics = compute_metrics(episodes, Grid((0, 1), (0, 1)))
    assert (metrics.successes, metrics.success_rate) == (3, 0.75)
    assert (metrics.steps_mean, metrics.steps_median) == (120, 120)
    assert metrics.seconds_mean == pytest.approx(4.0)
    assert metrics.distance_median == pytest.approx(0.15)
    assert metrics.distance_p90 == pytest.approx(0.27)


def test_failures_are_counted_by_reason_stage_and_region():
    episodes = [
        episode(point=(0.31, 0.29)),
        episode(success=False, reason="dropped", stage="carry", point=(0.31, 0.29)),
        episode(success=False, reason="dropped", stage="carry", point=(0.69, -0.29)),
        episode(success=False, reason="missed", stage="grasp", point=(0.9, -0.9)),
    ]
    metrics = compute_metrics(episodes, Grid((0.3, 0.7), (-0.3, 0.3)))
    assert list(metrics.failures_by_reason.items()) == [("dropped", 2), ("missed", 1)]
    assert metrics.failures_by_stage == {"carry": 2, "grasp": 1}
    assert metrics.regions["pick"].episodes == [[0, 0, 2], [0, 0, 0], [2, 0, 0]]
    assert metrics.regions["pick"].successes == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    lines = metrics.to_text().splitlines()
    table = lines[lines.index("successes by pick (far rows first, left to the left)") + 1 :]
    assert [line.split() for line in table] == [
        ["-", "-", "0/2"],
        ["-", "-", "-"],
        ["1/2", "-", "-"],
    ]


def test_without_a_success_there_is_no_time():
    metrics = compute_metrics([episode(success=False, distance=None)], Grid((0, 1), (0, 1)))
    assert metrics.steps_mean is None
    assert metrics.distance_p90 is None
    assert "time" not in metrics.to_text()
    json.dumps(metrics.to_json(), allow_nan=False)


def test_the_stage_of_a_failure():
    def info(held, *unmet):
        return {"is_grasped": held, "unmet_conditions": list(unmet)}

    start = info(False, "away_from_target", "arm_not_home")
    assert failure_stage([start, start]) == "grasp"
    assert failure_stage([start, info(True), info(True, "away_from_target")]) == "carry"
    assert failure_stage([start, info(True, "still_held", "arm_not_home")]) == "release"
    assert failure_stage([start, info(True), info(False, "arm_not_home")]) == "return"


# Any environment


def test_any_environment_will_do():
    def task_outcome(infos):
        return TaskOutcome(None, "fell", "balance", "", {})

    env = gym.make("CartPole-v1")
    runner = PolicyRunner(env, RandomPolicy(env.action_space), task_outcome, seed=3, max_steps=1000)
    first, again = runner.run(4), runner.run(4)
    assert first.result == again.result
    assert first.result.reason == "fell"
    assert first.result.seconds == pytest.approx(first.result.steps / 50)
    assert first.actions == again.actions
    runner.close()


def test_an_action_outside_a_discrete_space_is_a_mistake():
    env = gym.make("CartPole-v1")
    policy = FunctionPolicy(lambda observation: 5)
    runner = PolicyRunner(env, policy, lambda infos: TaskOutcome(None, "", "", "", {}), 3, 10)
    assert runner.run(0).result.reason == "the action must be in Discrete(2), got a int"
    runner.close()


# The real environment


def test_the_expert_succeeds(tmp_path, capsys):
    status, report = result(tmp_path, "expert", "--num-episodes", 3, "--min-success", 1.0)
    assert status == 0
    scores = report["scores"]
    assert (scores["successes"], scores["success_rate"]) == (3, 1.0)
    assert 200 < scores["steps_median"] <= 270
    assert scores["seconds_median"] == pytest.approx(scores["steps_median"] / 30)
    assert scores["distance_p90"] < 0.01
    assert sum(map(sum, scores["regions"]["pick"]["episodes"])) == 3
    assert [r["reason"] for r in report["episodes"]] == [""] * 3
    assert "success    3 of 3: 100.0% (95 % interval 43.9% to 100.0%)" in capsys.readouterr().out


def test_the_experts_actions_may_be_poses_of_the_hand_at_another_rate(tmp_path):
    options = ["--num-episodes", 2, "--control-mode", "ee_pose", "--fps", 10]
    status, report = result(tmp_path, "expert", *options, "--min-success", 1.0)
    assert status == 0
    assert (report["control_mode"], report["max_steps"]) == ("ee_pose", 133)
    assert 70 < report["scores"]["steps_median"] <= 90
    assert report["scores"]["seconds_median"] == report["scores"]["steps_median"] / 10


def test_random_actions_fail(tmp_path, capsys):
    options = ["--num-episodes", 2, "--max-steps", 40]
    status, report = result(tmp_path, "random", *options, "--min-success", 0.5)
    assert status == 1
    assert "below --min-success 50.0%" in capsys.readouterr().err
    assert report["scores"]["failures_by_stage"] == {"grasp": 2}
    assert [r["steps"] for r in report["episodes"]] == [40, 40]
    assert result(tmp_path, "random", *options)[1] == report


def test_actions_may_mean_something_else(tmp_path):
    options = ["--num-episodes", 1, "--max-steps", 9, "--control-mode", "ee_delta"]
    options += ["--obs-type", "goal", "--videos", tmp_path, "--resolution", "48x32"]
    _, report = result(tmp_path, "random", *options)
    assert report["episodes"][0]["steps"] == 9
    assert report["control_mode"] == "ee_delta"
    assert list(tmp_path.glob("*.mp4"))


def test_objects_are_told_apart(tmp_path, capsys):
    options = ["--num-episodes", 3, "--use-ycb", "--num-objects", 2, "--max-steps", 2]
    _, report = result(tmp_path, "random", *options)
    targets = [r["target"] for r in report["episodes"]]
    assert len(set(targets)) > 1
    assert report["scores"]["targets"][targets[0]] == [0, targets.count(targets[0])]
    assert f"{targets[0]}\n" in capsys.readouterr().out
    _, report = result(tmp_path, "random", *options, "--object", targets[0])
    assert [r["target"] for r in report["episodes"]] == [targets[0]] * 3
    assert report["object"] == targets[0]


def test_a_class_and_a_function_are_policies(tmp_path):
    assert run("tests.policies:Expert", "--num-episodes", 1, "--min-success", 1) == 0
    _, report = result(tmp_path, "tests.policies:hold", "--num-episodes", 1, "--max-steps", 5)
    assert report["episodes"][0]["error"] == ""


def test_pictures_are_for_those_who_ask(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(
        "pp_env.sim.mujoco.simulator.MujocoSimulator.render",
        lambda self, *what: drawn.append(what) or np.zeros((64, 64, 3), np.uint8),
    )
    options = ["--num-episodes", 1, "--max-steps", 3, "--resolution", 64, "--preset", "fast"]
    run("random", *options)
    assert not drawn
    run("random", *options, "--obs-type", "pixels_agent_pos")
    assert len(drawn) == 2 * 4


WRONG = {
    "nan": "the action must be finite, got NaN or infinity",
    "huge": "the action must be finite as float32, got 1e+39",
    "short": "the action must have shape (8,), got (7,)",
    "wide": "the action must have shape (8,), got (1, 8)",
    "complex_": "the action must be of type float32, got complex64",
    "none": "the action must be of type float32, got object",
    "ragged": "act raised ValueError: setting an array element with a sequence",
    "raises": "act raised ZeroDivisionError: by zero",
    "leaves": "act raised SystemExit: enough",
    "cancels": "act raised CancelledError",
    "interrupts": "act raised KeyboardInterrupt",
    "unspeakable": "act raised UnspeakableError: its text cannot be had: RuntimeError",
    "unprintable": "act raised ValueError: \\udcff",
    "dies": "its process died twice (SIGKILL)",
    "exits": "its process died twice (exit status 7)",
    "dies_in_a_thread": "its process died twice (exit status 8)",
}


def test_what_a_policy_does_wrong_is_one_failed_episode(tmp_path, capsys):
    count = len(WRONG) + 2
    options = ["--num-episodes", count, "--max-steps", 3, "--workers", 1]
    status, report = result(tmp_path, "tests.policies:WrongInTurn", *options, apart=True)
    assert status == 0
    found = [episode["reason"] for episode in report["episodes"]]
    for reason, expected in zip(found[1:-1], WRONG.values(), strict=True):
        assert reason.startswith(expected), (reason, expected)
    assert not report["episodes"][0]["error"]
    assert not report["episodes"][-1]["error"]
    assert report["scores"]["errors"] == len(WRONG)
    assert "ZeroDivisionError: by zero" in report["episodes"][8]["error"]
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_is_no_mistake_of_a_policy():
    def act(observation):
        raise KeyboardInterrupt

    env = gym.make("CartPole-v1")
    outcome = TaskOutcome(None, "", "", "", {})
    runner = PolicyRunner(env, FunctionPolicy(act), lambda infos: outcome, 0, 5)
    with pytest.raises(KeyboardInterrupt):
        runner.run(0)


def test_a_mistake_halfway_spoils_only_its_episode(tmp_path):
    status, report = result(tmp_path, "tests.policies:Forgetful", "--num-episodes", 5)
    assert status == 0
    assert {(r["success"], r["steps"]) for r in report["episodes"] if r["error"]} == {(False, 100)}
    assert {r["success"] for r in report["episodes"] if not r["error"]} == {True}
    assert report["scores"]["failures_by_stage"] == {"carry": report["scores"]["errors"]}


def test_a_policy_that_only_does_wrong_is_given_up(capsys):
    assert run("tests.policies:raises", "--num-episodes", 50) == 2
    error = capsys.readouterr().err
    assert "in each of the first 3 episodes, so the rest was not run" in error
    assert "in act" in error
    assert "ZeroDivisionError: by zero" in error


# Several processes


def test_the_numbers_do_not_depend_on_the_number_of_processes(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    options = ["--num-episodes", 4, "--seed", 5]
    assert run("tests.policies:Forgetful", *options, "--json", one) == 0
    assert run("tests.policies:Forgetful", *options, "--json", two, "--workers", 2) == 0
    assert one.read_bytes() == two.read_bytes()


def test_an_episode_whose_process_dies_is_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TEST_MARKER", str(tmp_path / "marker"))
    options = ["--num-episodes", 2, "--max-steps", 3, "--workers", 2]
    status, report = result(tmp_path, "tests.policies:dies_once", *options)
    assert status == 0
    assert report["scores"]["errors"] == 0
    assert "died (SIGKILL); it is tried again" in capsys.readouterr().err


def test_an_episode_whose_process_dies_twice_has_failed(tmp_path, capsys):
    options = ["--num-episodes", 1, "--workers", 2]
    status, report = result(tmp_path, "tests.policies:dies", *options)
    assert status == 0
    assert report["scores"]["failures_by_reason"] == {"its process died twice (SIGKILL)": 1}
    assert capsys.readouterr().err.count("the process of episode 0 died (SIGKILL)") == 2


def test_processes_that_cannot_begin(capsys):
    assert run("tests.policies:dies_early", "--num-episodes", 2, "--workers", 2) == 2
    assert "died before it could begin (SIGKILL)" in capsys.readouterr().err


def test_what_is_wrong_before_the_first_episode_is_said_by_any_process(capsys):
    assert run("tests.policies:no_policy", "--num-episodes", 2, "--workers", 2) == 2
    assert "must return an object with reset" in capsys.readouterr().err


class _UnsendableError(Exception):
    def __init__(self, one, two):
        super().__init__(one)


class _Breaks:
    def run(self, index):
        raise _UnsendableError("the scene broke", 2)

    def close(self):
        pass


def test_an_error_of_the_environment_ends_the_evaluation():
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(_UnsendableError("x", 2)))
    with pytest.raises(WorkerError, match="_UnsendableError: the scene broke"):
        list(run_all(_Breaks, range(3), 2))


# Videos


def test_failures_are_drawn(tmp_path):
    small = ["--resolution", 64, "--preset", "fast", "--videos", tmp_path]
    assert run("tests.policies:Forgetful", "--num-episodes", 4, "--seed", 5, *small) == 0
    paths = sorted(tmp_path.glob("*.mp4"))
    assert paths
    assert {path.stem.split("_")[2] for path in paths} == {"failure"}
    with av.open(str(paths[0])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.shape(frames) == (100, 64, 128, 3)
    assert np.abs(frames[-1].astype(int) - frames[0]).mean() > 5
    high, wrist = frames[-1][:, :64].astype(int), frames[-1][:, 64:]
    assert np.abs(high - wrist).mean() > 10


@pytest.mark.parametrize(("which", "count"), [("all", 2), ("none", 0), ("failures", 0)])
def test_which_episodes_are_drawn(which, count, tmp_path):
    options = ["--resolution", 32, "--preset", "fast", "--videos", tmp_path, "--videos-of", which]
    assert run("expert", "--num-episodes", 3, "--max-videos", 2, *options) == 0
    assert len(list(tmp_path.glob("episode_*_success.mp4"))) == count


def test_an_episode_without_a_step_has_no_video(tmp_path):
    assert run("tests.policies:raises", "--num-episodes", 1, "--videos", tmp_path) == 0
    assert not list(tmp_path.iterdir())


# Wrong use


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("no_such_module:make", "there is no module 'no_such_module' in"),
        ("tests.policies:no_such", "has no callable 'no_such', it has Expert, "),
        ("tests.policies:NUMBER", "has no callable 'NUMBER'"),
        ("tests.policies:Forgetfull", "no callable 'Forgetfull'; did you mean Forgetful?"),
        ("tests.policies:", "must be like my_module:make_policy"),
        ("tests.policies:no_policy", "got 7"),
        ("tests.policies:bad_maker", "LookupError: no weights"),
    ],
)
def test_a_callable_that_is_none(policy, message, capsys):
    assert run(policy, "--num-episodes", 1) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "no/such/folder"], "there is no such folder"),
        (["--policy", "expert", "--num-episodes", "0"], "must be at least 1, got 0"),
        (["--policy", "expert", "--seed", "-1"], "must not be negative, got -1"),
        (["--policy", "expert", "--min-success", "90"], "must be from 0 to 1, got 90"),
        (
            ["--policy", "expert", "--control-mode", "ee_delta"],
            "--control-mode joint_pos or ee_pose",
        ),
        (["--policy", "expert", "--fps", "7"], "must divide the physics rate"),
        (["--policy", "expert", "--json", "/"], "must be a file that can be written, got /, which"),
        (
            ["--policy", "expert", "--videos", "/proc/nowhere"],
            "--videos must be a folder that can be written, got /proc/nowhere: No such file",
        ),
        (["--policy", ""], "--policy must not be empty"),
        (["--policy", "expert", "--hepl"], "there is no option --hepl; did you mean --help?"),
        ([], "--policy"),
    ],
)
def test_options_that_are_wrong(options, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        pp_evaluate.main(options)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["here", "workers"])
def test_on_a_terminal_the_bar_moves_before_the_first_episode_ends(options, tmp_path):
    marker = tmp_path / "marker"
    terminal, stream = pty.openpty()
    fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    words = ["--policy", "tests.policies:waits", "--num-episodes", "2", "--max-steps", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pp_collect.evaluate", *words, *options],
        cwd=ROOT, env=os.environ | {"TEST_MARKER": str(marker)}, stdout=stream, stderr=stream,
    )  # fmt: skip
    os.close(stream)
    shown = ""
    with suppress(OSError):  # once the program has closed its side
        while part := os.read(terminal, 4096).decode(errors="replace"):
            shown += part
            if re.search(r"0/2 \[00:00<.*0/2 \[00:0[1-9]<", shown, re.DOTALL):
                marker.touch()
    os.close(terminal)
    assert process.wait() == 0, shown
    assert marker.exists()
    assert "2/2 [" in shown
    assert "success    0 of 2" in shown


def test_it_is_a_program_too(tmp_path):
    (tmp_path / "mine.py").write_text("def make(env):\n    return lambda o: env.action_space.low\n")
    command = [sys.executable, "-m", "pp_collect.evaluate", "--policy", "mine:make"]
    command += ["--num-episodes", "1", "--max-steps", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "success    0 of 1" in done.stdout


# Checkpoints of LeRobot


@pytest.fixture
def checkpoint(tmp_path):
    """A folder that looks like one, for the state alone, without weights."""
    folder = tmp_path / "checkpoints/last/pretrained_model"
    folder.mkdir(parents=True)
    config = {
        "type": "act",
        "input_features": {"observation.state": {"type": "STATE", "shape": [23]}},
        "output_features": {"action": {"type": "ACTION", "shape": [8]}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "policy_preprocessor.json").write_text('{"steps": []}')
    (folder / "policy_postprocessor.json").write_text('{"steps": []}')
    (folder / "model.safetensors").touch()
    return folder


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def image(width, height=None):
    return {"type": "VISUAL", "shape": [3, height or width, width]}


def test_a_checkpoint_without_lerobot(checkpoint, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lerobot", None)
    assert run(str(checkpoint), "--num-episodes", 1) == 2
    assert "try 'pip install lerobot'" in capsys.readouterr().err


def test_a_checkpoint_for_another_robot(checkpoint, capsys):
    features = {
        "observation.state": {"type": "STATE", "shape": [14]},
        "observation.images.top": image(96),
    }
    change(checkpoint, "config.json", input_features=features)
    assert run(str(checkpoint), "--num-episodes", 1) == 2
    error = capsys.readouterr().err
    assert "does not fit this environment in ['observation.state', 'observation.images.top']" in (
        error
    )
    assert "the policy has       action [8], observation.images.top [3, 96, 96]" in error
    assert "observation.images.cam_high [3, 96, 96]" in error
    assert "observation.state [23]" in error


def test_a_folder_that_is_no_checkpoint(tmp_path, checkpoint, capsys):
    with pytest.raises(SystemExit):
        run(str(ROOT / "docs"))
    assert "is no LeRobot checkpoint: it has no config.json" in capsys.readouterr().err
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks \['model.safetensors'\]"):
        Checkpoint(tmp_path)
    (checkpoint / "model.safetensors").touch()
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        Checkpoint(tmp_path)
    (checkpoint / "config.json").write_text('{"type": "act"}')
    with pytest.raises(CheckpointError, match="has no input_features"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config.json", {"input_features": [1]}, "has no input_features"),
        ("config.json", {"input_features": {"a": 3}}, "feature a: 3, expected a dictionary"),
        ("config.json", {"input_features": {"a": {}}}, "feature a: {}, expected a dictionary"),
        ("config.json", {"output_features": {"a": {"shape": "8"}}}, "a list of whole numbers"),
        ("config.json", {"output_features": {"a": {"shape": [None]}}}, "a list of whole numbers"),
        ("config.json", {"n_action_steps": 8, "chunk_size": "x"}, "chunk_size is 'x'"),
        ("config.json", {"n_action_steps": 8, "horizon": 1.5}, "horizon is 1.5"),
        ("policy_preprocessor.json", {"steps": 3}, "steps must be a list"),
        ("policy_preprocessor.json", {"steps": [3]}, "steps must be a list"),
        ("policy_preprocessor.json", {"steps": [{"config": None}]}, "steps must be a list"),
        ("policy_preprocessor.json", {"steps": [{"config": {"rename_map": 3}}]}, "steps must be"),
        (
            "policy_preprocessor.json",
            {"steps": [{"config": {"rename_map": {"a": 3}}}]},
            "rename_map must give names",
        ),
    ],
)
def test_a_malformed_checkpoint_is_refused_in_a_sentence(checkpoint, capsys, name, values, message):
    change(checkpoint, name, **values)
    with pytest.raises(SystemExit) as ended:
        run(str(checkpoint))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    words = ["--expert", "reactive", "--start-mix", "policy", "--start-policy", str(checkpoint)]
    with pytest.raises(SystemExit) as ended:
        collect.main(["--output", str(checkpoint / "set"), *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("type"), SystemExit(2), RuntimeError("header\ntoo")])
def test_a_checkpoint_that_lerobot_cannot_load(checkpoint, monkeypatch, error):
    class Config:
        @staticmethod
        def from_pretrained(folder):
            raise error

    class Torch:
        @staticmethod
        def set_num_threads(count):
            pass

    monkeypatch.setattr(lerobot_policy, "_import_lerobot", lambda: (Torch, None, Config))
    with pytest.raises(CheckpointError, match=rf"lerobot cannot load .*: {type(error).__name__}"):
        LeRobotPolicy(Checkpoint(checkpoint))


def test_a_checkpoint_says_what_it_must_see(checkpoint):
    asked = EvaluateOptions(policy=str(checkpoint))
    options = resolve_options(asked)
    assert (options.obs_type, options.resolution) == ("state", 512)
    change(checkpoint, "config.json", input_features={"observation.images.cam_high": image(96)})
    options = resolve_options(asked)
    assert (options.obs_type, options.resolution) == ("pixels_agent_pos", 96)
    change(checkpoint, "config.json", input_features={"observation.images.cam_high": image(96, 64)})
    options = resolve_options(asked)
    assert options.resolution == (96, 64)
    truth = {"observation.environment_state": {"type": "ENV", "shape": [11]}}
    change(checkpoint, "config.json", input_features=truth)
    options = resolve_options(asked)
    assert options.obs_type == "environment_state_agent_pos"


@pytest.mark.parametrize(
    ("plan", "length"),
    [
        ({"chunk_size": 48, "n_action_steps": 36}, 48),
        ({"horizon": 16, "n_obs_steps": 2, "n_action_steps": 8}, 15),
    ],
)
def test_no_more_actions_are_executed_than_are_planned(plan, length, checkpoint, capsys):
    change(checkpoint, "config.json", **plan)
    resolve_options(EvaluateOptions(policy=str(checkpoint), action_steps=length))
    with pytest.raises(SystemExit):
        run(str(checkpoint), "--action-steps", length + 1)
    assert f"must be from 1 to {length}, as long as the plans" in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["expert", "a checkpoint without plans"])
def test_who_plans_nothing_has_no_actions_to_choose_among(policy, checkpoint, capsys):
    with pytest.raises(SystemExit):
        run(policy if policy == "expert" else str(checkpoint), "--action-steps", 4)
    assert "for a LeRobot checkpoint that plans several actions" in capsys.readouterr().err


def test_a_probe_is_for_a_checkpoint_with_pictures(checkpoint, capsys):
    with pytest.raises(SystemExit):
        run(str(checkpoint), "--probe")
    error = capsys.readouterr().err
    assert "--probe swaps the pictures that a policy sees, but the inputs of" in error
    assert "are observation.state; evaluate it without --probe" in error
    change(checkpoint, "config.json", input_features={"observation.images.cam_high": image(96)})
    options = resolve_options(EvaluateOptions(policy=str(checkpoint), probe=True))
    assert (options.obs_type, options.resolution) == ("pixels_agent_pos", 96)


@pytest.mark.parametrize(
    ("size", "mode"), [(8, "joint_pos"), (7, "ee_delta"), (10, "ee_pose"), (3, "joint_pos")]
)
def test_a_checkpoint_says_what_its_actions_mean(checkpoint, size, mode):
    change(checkpoint, "config.json", output_features={"action": {"shape": [size]}})
    asked = EvaluateOptions(policy=str(checkpoint))
    assert resolve_options(asked).control_mode == mode
    asked = EvaluateOptions(policy=str(checkpoint), control_mode="joint_delta")
    assert resolve_options(asked).control_mode == "joint_delta"


def test_a_checkpoint_gets_the_cameras_that_it_asks_for(checkpoint):
    asked = EvaluateOptions(policy=str(checkpoint))
    assert resolve_options(asked).cameras == ("cam_high", "cam_wrist")
    features = {f"observation.images.{name}": image(96) for name in ("cam_wrist", "base", "extra")}
    rename = {"observation.images.cam_front": "observation.images.base"}
    change(checkpoint, "config.json", input_features=features)
    change(checkpoint, "policy_preprocessor.json", steps=[{"config": {"rename_map": rename}}])
    assert resolve_options(asked).cameras == ("cam_wrist", "cam_front")
    given = dataclasses.replace(asked, cameras=("cam_side",))
    assert resolve_options(given).cameras == ("cam_side",)


def test_renamed_and_empty_cameras_fit(checkpoint):
    features = {
        "observation.images.base": image(32),
        "observation.images.empty_camera_0": image(32),
    }
    change(checkpoint, "config.json", input_features=features)
    space = gym.spaces.Dict(
        {
            "pixels": gym.spaces.Dict({"cam_high": gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)}),
            "agent_pos": gym.spaces.Box(-1, 1, (23,)),
        }
    )
    action = gym.spaces.Box(-1, 1, (8,))
    with pytest.raises(CheckpointError, match=r"in \['observation.images.base'\]"):
        Checkpoint(checkpoint).require_fitting(space, action)
    rename = {"observation.images.cam_high": "observation.images.base"}
    change(checkpoint, "policy_preprocessor.json", steps=[{"config": {"rename_map": rename}}])
    Checkpoint(checkpoint).require_fitting(space, action)
    with pytest.raises(CheckpointError, match=r"in \['action'\]"):
        Checkpoint(checkpoint).require_fitting(space, gym.spaces.Box(-1, 1, (7,)))


def test_observations_get_lerobots_names_and_shapes():
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[1, 2] = (255, 51, 0)
    observation = {
        "pixels": {"cam_high": picture},
        "agent_pos": np.arange(3.0),
        "environment_state": np.arange(2.0),
    }
    batch = to_lerobot(observation)
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "observation.images.cam_high": ((1, 3, 4, 6), np.float32),
        "observation.state": ((1, 3), np.float32),
        "observation.environment_state": ((1, 2), np.float32),
    }
    np.testing.assert_allclose(
        batch["observation.images.cam_high"][0, :, 1, 2], (1, 0.2, 0), atol=1e-7
    )
    assert set(to_lerobot(np.zeros(23))) == {"observation.state"}
    assert set(to_lerobot({"pixels": picture})) == {"observation.image"}


def test_a_checkpoint_of_the_real_lerobot():
    pytest.importorskip("lerobot", reason="'make check-lerobot' trains and evaluates one")
    subprocess.run([sys.executable, "-m", "tests.check_policy"], cwd=ROOT, check=True)
