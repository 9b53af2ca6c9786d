import json
import os
import pty
import resource
import shutil
import subprocess
import sys
import time

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

import collect
from pp_collect import runs, session
from pp_collect.options import CollectOptions
from pp_collect.process import restart_is_due
from pp_env.config import HOME_JOINT_POS
from pp_env.control import hand_pose_action
from pp_env.layout import ACTION, HAND_POSE_ACTION, OBSERVATION
from pp_recorder.parallel.processes import STOP_SIGNALS, ProcessPool
from tests import ROOT

FRAMES = 72  # of a quick episode
QUICK = [
    "--steps-per-segment", str(FRAMES // 9), "--resolution", "64", "--preset", "fast",
    "--workers", "1",
]  # fmt: skip


def run(output, *options):
    return collect.main([*QUICK, "--output", str(output), *options])


def read(root, pattern="data/*/*.parquet"):
    files = sorted(root.glob(pattern))
    assert len(files) == 1
    return pq.ParquetFile(files[0]).read()


def frames(root):
    decoded = {}
    for path in sorted(root.rglob("file-*.mp4")):
        with av.open(str(path)) as container:
            images = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        decoded[str(path.relative_to(root))] = np.stack(images)
    return decoded


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "first"
    assert run(root, "--num-episodes", "2", "--seed", "5") == 0
    return root


def test_the_dataset_has_every_frame(dataset):
    table = read(dataset)
    assert table.num_rows == 2 * FRAMES
    assert {name: video.shape for name, video in frames(dataset).items()} == {
        f"videos/observation.images.{camera}/chunk-000/file-000.mp4": (2 * FRAMES, 64, 64, 3)
        for camera in ("cam_high", "cam_wrist")
    }


def test_features_are_those_of_the_layouts(dataset):
    features = json.loads((dataset / "meta/info.json").read_text())["features"]
    assert features["observation.state"]["names"] == OBSERVATION.names
    assert features["action"]["names"] == ACTION.names
    assert {"environment_state", "next.reward", "next.done", "next.success"} <= set(features)
    assert "observation.environment_state" not in features


def test_the_last_frame_is_the_success(dataset):
    success = np.array(read(dataset)["next.success"].to_pylist()).reshape(2, -1)
    assert success[:, -1].all()
    assert not success[:, : 8 * FRAMES // 9].any()


def test_frames_pair_state_and_action(dataset):
    """The arm is at rest in the first frame, whose action already leads away from there."""
    table = read(dataset)
    states = np.array(table["observation.state"].to_pylist())[:, :7]
    actions = np.array(table["action"].to_pylist())[:, :7]
    np.testing.assert_allclose(states[0], HOME_JOINT_POS, atol=1e-3)
    assert np.abs(actions[0] - states[0]).max() > 0.01
    moved = np.abs(states[1:FRAMES] - actions[: FRAMES - 1]).max()
    waited = np.abs(states[:FRAMES] - actions[:FRAMES]).max()
    assert moved < 0.5 * waited


def test_the_collection_can_be_repeated_from_what_is_stored(dataset):
    stored = json.loads((dataset / "meta/collection.json").read_text())
    assert stored["seed"] == 5
    assert stored["render_preset"] == {
        "samples": 0, "shadow_map": 0, "mesh_detail": 0.04, "exact_shadows": False,
        "renderer": "opengl",
    }  # fmt: skip
    assert stored["config"]["timing"]["control_hz"] == 30
    assert np.shape(stored["cameras"]["cam_wrist"]["intrinsics_px"]) == (3, 3)
    assert {"numpy", "mujoco", "python"} <= set(stored["versions"])


def test_episodes_tell_their_seed_and_outcome(dataset):
    episodes = read(dataset, "meta/episodes/*/*.parquet").to_pylist()
    assert [e["episode/attempt"] for e in episodes] == [0, 1]
    assert all(e["episode/success"] and e["episode/failure_reason"] == "" for e in episodes)
    assert episodes[0]["episode/seed"] != episodes[1]["episode/seed"]


def test_the_same_seed_gives_the_same_dataset(dataset, tmp_path):
    assert run(tmp_path / "again", "--num-episodes", "2", "--seed", "5") == 0
    for pattern in ("data/*/*.parquet", "meta/episodes/*/*.parquet"):
        first, again = (next(root.glob(pattern)) for root in (dataset, tmp_path / "again"))
        assert first.read_bytes() == again.read_bytes()
    assert (dataset / "meta/stats.json").read_bytes() == (
        tmp_path / "again/meta/stats.json"
    ).read_bytes()
    first, again = frames(dataset), frames(tmp_path / "again")
    assert first.keys() == again.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])


def test_another_seed_gives_another_dataset(dataset, tmp_path):
    assert run(tmp_path / "other", "--num-episodes", "1", "--seed", "6", "--no-cameras") == 0
    assert read(tmp_path / "other")["action"][:FRAMES] != read(dataset)["action"][:FRAMES]


def test_without_cameras(tmp_path):
    assert run(tmp_path / "set", "--num-episodes", "1", "--no-cameras") == 0
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert info["video_path"] is None
    assert "observation.environment_state" in info["features"]
    assert not (tmp_path / "set/videos").exists()


def collect_without_cameras(output, *options):
    return collect.main(["--output", str(output), "--no-cameras", "--workers", "1", *options])


@pytest.mark.parametrize("fps", [10, 15, 20, 30])
def test_a_segment_takes_a_second_at_every_rate(tmp_path, fps):
    assert collect_without_cameras(tmp_path / "set", "--num-episodes", "2", "--fps", str(fps)) == 0
    episodes = read(tmp_path / "set", "meta/episodes/*/*.parquet").to_pylist()
    assert [episode["length"] for episode in episodes] == [9 * fps] * 2
    times = np.array(read(tmp_path / "set")["timestamp"].to_pylist())[: 9 * fps]
    np.testing.assert_allclose(times, np.arange(9 * fps) / fps, atol=1e-6)
    stored = json.loads((tmp_path / "set/meta/collection.json").read_text())
    assert stored["steps_per_segment"] == fps


def test_a_number_of_steps_is_kept_at_every_rate(tmp_path):
    options = ["--num-episodes", "1", "--fps", "20", "--steps-per-segment", "30"]
    assert collect_without_cameras(tmp_path / "set", *options) == 0
    assert read(tmp_path / "set").num_rows == 270


def test_a_second_of_steps_is_what_30_were(tmp_path):
    for name, options in (("default", []), ("given", ["--steps-per-segment", "30"])):
        assert collect_without_cameras(tmp_path / name, "--num-episodes", "1", *options) == 0
    assert read(tmp_path / "default").equals(read(tmp_path / "given"))


def test_videos_have_the_control_rate(tmp_path):
    options = ["--resolution", "64", "--preset", "fast", "--workers", "1", "--fps", "10"]
    output = ["--output", str(tmp_path / "set"), "--num-episodes", "1"]
    assert collect.main([*output, *options]) == 0
    with av.open(str(next(tmp_path.rglob("file-000.mp4")))) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 10
        times = [frame.time for frame in container.decode(stream)]
    np.testing.assert_allclose(times, read(tmp_path / "set")["timestamp"].to_numpy(), atol=1e-4)


def test_actions_may_be_poses_of_the_hand(tmp_path):
    sets = {}
    for mode in ("joint_pos", "ee_pose"):
        root = tmp_path / mode
        options = ["--num-episodes", "1", "--seed", "5", "--control-mode", mode]
        assert collect_without_cameras(root, *options) == 0
        sets[mode] = read(root)
        stored = json.loads((root / "meta/collection.json").read_text())
        assert stored["control_mode"] == mode
    action = json.loads((root / "meta/info.json").read_text())["features"]["action"]
    assert (action["names"], action["shape"]) == (HAND_POSE_ACTION.names, [10])
    joints, poses = (np.array(sets[mode]["action"].to_pylist()) for mode in sets)
    np.testing.assert_array_equal(poses, hand_pose_action(joints.astype(np.float32)))
    states = np.array(sets["ee_pose"]["observation.state"].to_pylist())
    np.testing.assert_allclose(states[-1, :7], HOME_JOINT_POS, atol=0.05)


def test_fps_is_the_control_rate(tmp_path):
    options = ["--num-episodes", "1", "--no-cameras", "--fps", "60", "--steps-per-segment", "40"]
    assert run(tmp_path / "set", *options) == 0
    assert json.loads((tmp_path / "set/meta/info.json").read_text())["fps"] == 60
    assert read(tmp_path / "set")["timestamp"][60].as_py() == 1.0


def test_task_text(tmp_path):
    assert run(tmp_path / "set", "--num-episodes", "1", "--no-cameras", "--task", "move it") == 0
    legacy = json.loads((tmp_path / "set/meta/tasks.jsonl").read_text())
    assert legacy == {"task_index": 0, "task": "move it"}


def test_objects_are_named_in_texts_and_metadata(tmp_path):
    options = ["--use-ycb", "--num-objects", "3", "--object", "potted_meat_can", "--no-cameras"]
    assert run(tmp_path / "set", "--num-episodes", "1", *options) == 0
    (episode,) = read(tmp_path / "set", "meta/episodes/*/*.parquet").to_pylist()
    assert episode["tasks"] == ["pick the potted meat can and place it on the marker"]
    assert episode["episode/object"] == "010_potted_meat_can"
    assert episode["episode/object_size"] == [0.097, 0.050, 0.082]
    others = episode["episode/distractors"].split(", ")
    assert len(set(others)) == 2
    assert "010_potted_meat_can" not in others
    options[options.index("--object") + 1] = "mug"
    with pytest.raises(SystemExit):
        run(tmp_path / "other", *options)


HASTY = ["--no-cameras", "--steps-per-segment", "1"]  # too fast for the arm: every attempt fails


def test_keep_all_keeps_failures_with_their_reason(tmp_path, capsys):
    assert run(tmp_path / "set", "--num-episodes", "3", "--keep", "all", *HASTY) == 0
    episodes = read(tmp_path / "set", "meta/episodes/*/*.parquet").to_pylist()
    assert [e["episode/success"] for e in episodes] == [False] * 3
    assert all("away_from_target" in e["episode/failure_reason"] for e in episodes)
    assert {e["episode/failure_phase"] for e in episodes} == {"CLOSE_GRIPPER"}
    assert "success    0 of 3 attempts (0.0%)" in capsys.readouterr().out


def test_keep_success_gives_up_where_nothing_succeeds(tmp_path, capsys):
    assert run(tmp_path / "set", "--num-episodes", "3", *HASTY) == 1
    assert "20 attempts in a row failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-episodes", "0"], "must be at least 1, got 0"),
        (["--num-episodes", "-3"], "must be at least 1, got -3"),
        (["--steps-per-segment", "0"], "must be at least 1"),
        (["--seed", "-1"], "must not be negative"),
        (
            ["--simulator", "bullet"],
            "--simulator must be one of isaacsim, mujoco, warp, got 'bullet'",
        ),
        (["--num-objects", "2"], "['cube'], got 2; --use-ycb has six"),
        (["--use-ycb", "--num-objects", "7"], "must be from 1 to 6"),
        (["--use-ycb", "--object", "tuna_fish_can"], "85 mm wide"),
        (["--object", "mug"], "object must be one of ['cube'], got 'mug'"),
        (["--no-ycb-assets"], "are for --use-ycb"),
        (["--use-ycb", "--ycb-meshes", "nowhere"], "no mesh of 004_sugar_box"),
        (["--resolution", "511"], "even number of pixels"),
        (["--resolution", "100000"], "even number of pixels"),
        (["--resolution", "640x481"], "even number of pixels"),
        (["--resolution", "640x"], "--resolution"),
        (["--fps", "7"], "must divide the physics rate of 240 Hz, got 7; these do: [5, 6, 8, 10"),
        (["--control-mode", "ee_delta"], "got 'ee_delta'"),
        (["--fps", "31"], "must divide the physics rate of 240 Hz, got 31"),
        (["--noise-rad", "-0.1"], "--noise-rad must be from 0 to 0.2, got -0.1"),
        (["--wander-rad", "1"], "--path-noise-rad must be from 0 to 0.5, got 1.0"),
        (["--task", " "], "must not be empty"),
        (["--codec", "mpeg1"], "--codec must be one of "),
        (["--restart-every", "0"], "must be at least 1"),
        (["--nois-rad", "0.1"], "--noise-rad"),
        (["--num-episodes", "many"], "--num-episodes"),
        (["--assets-root", "/data"], "for --simulator isaacsim, got --simulator mujoco"),
        (["--streaming", "--no-cameras"], "not with --no-cameras"),
        (["--streaming", "--streaming-host", "0.0.0.0"], "PP_BRIDGE_TOKEN"),
    ],
)
def test_bad_options_stop_before_any_work(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        collect.main(["--output", str(tmp_path / "set"), *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


@pytest.fixture
def small_disk():
    """Let no file grow beyond 16 kB, which is said in the way of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("options", [("--workers", "1"), ("--workers", "2")])
def test_a_full_disk_says_what_is_safe(tmp_path, capsys, small_disk, options):
    words = ["--num-episodes", "3", "--keep", "all", "--resolution", "128", *options]
    assert collect.main(["--output", str(tmp_path / "set"), "--preset", "fast", *words]) == 1
    error = capsys.readouterr().err
    assert "error: the disk is full (" in error
    assert f"what was finished is intact in {tmp_path / 'set'}" in error
    assert "once there is room, --resume goes on" in error


def test_a_used_output_is_refused_and_left_alone(dataset, capsys):
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}
    with pytest.raises(SystemExit) as stopped:
        run(dataset)
    assert stopped.value.code == 2
    assert "not an empty directory" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in dataset.rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", __file__], f"the output {__file__} is a file, expected an absent or empty"),
        (["--output", __file__, "--resume"], f"a folder that can be written, got {__file__}: File"),
        (["--output", "/proc/nowhere"], "--output must be a folder that can be written, got /proc"),
        (["--status-file", "/proc/nowhere/s.json"], "--status-file must be a file that can be wr"),
        (["--status-file", "/"], "--status-file must be a file that can be written, got /, which"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    words, message, tmp_path, capsys
):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "set", "--num-episodes", "1", *words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_an_output_below_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "file" / "set")
    assert stopped.value.code == 2
    assert "Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_it_cleanly(tmp_path, number):
    output = tmp_path / "set"
    command = [sys.executable, "collect.py", *QUICK, "--num-episodes", "500", "--output", output]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(output.glob("data/*/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    kept = json.loads((output / "meta/info.json").read_text())["total_episodes"]
    assert kept >= 1
    assert f"a valid dataset of {kept} of the 500 episodes" in out
    assert read(output).num_rows == kept * FRAMES
    assert len(list(output.rglob("file-*.mp4"))) == 2 * kept
    assert not (output / ".unfinished").exists()


class InTerminal:
    """A collection of many episodes in a terminal.

    Args:
        folder: Where dataset and status file go.
        begin: The command that starts it, in a session of its own.
    """

    def __init__(self, folder, *options, begin=("setsid",)):
        self.output, self._status = folder / "set", folder / "status.json"
        self._terminal, stream = pty.openpty()
        self.process = subprocess.Popen(
            [
                *(*begin, sys.executable, "collect.py", *QUICK, "--no-cameras"),
                *("--output", self.output, "--status-file", self._status, *options),
            ],
            cwd=ROOT, stdin=stream, stdout=stream, stderr=stream,
        )  # fmt: skip
        os.close(stream)

    def wait_for_an_episode(self):
        deadline = time.monotonic() + 60
        while not list(self.output.glob("data/*/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.02)

    def close_terminal(self):
        """Return the exit status after the terminal has closed."""
        os.close(self._terminal)
        return self.process.wait(timeout=120)

    def status(self):
        status = json.loads(self._status.read_text())
        return status["state"], status["exit_status"], status["episodes"]


OF_TERMINAL = ("setsid", "--ctty")
NOHUP = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")


def test_a_terminal_that_closes_ends_it_cleanly(tmp_path):
    run = InTerminal(tmp_path, "--num-episodes", "2000", begin=OF_TERMINAL)
    run.wait_for_an_episode()
    assert run.close_terminal() == 130
    kept = json.loads((run.output / "meta/info.json").read_text())["total_episodes"]
    assert run.status() == ("stopped", 130, kept)
    assert 1 <= kept < 2000
    assert not (run.output / ".unfinished").exists()


@pytest.mark.parametrize("begin", [("setsid",), (*OF_TERMINAL, *NOHUP)], ids=["disown", "nohup"])
def test_without_a_hangup_it_outlives_its_terminal(tmp_path, begin):
    run = InTerminal(tmp_path, "--num-episodes", "20", begin=begin)
    run.wait_for_an_episode()
    assert run.close_terminal() == 0
    assert run.status() == ("complete", 0, 20)


def test_a_failure_is_told_without_a_terminal(tmp_path):
    run = InTerminal(tmp_path, "--num-episodes", "2000")
    run.wait_for_an_episode()
    run.output.rename(tmp_path / "moved")
    assert run.close_terminal() == 1
    assert run.status()[:2] == ("failed", 1)


@pytest.mark.parametrize("full", [False, True], ids=["pipe", "full disk"])
def test_output_that_cannot_be_written_does_not_matter(tmp_path, full):
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full" if full else writer, "w") as stream:
        status = subprocess.run(
            [
                *(sys.executable, "collect.py", "--no-cameras", "--workers", "1"),
                *("--output", tmp_path / "set", "--num-episodes", "1"),
            ],
            cwd=ROOT, stdout=stream, stderr=stream,
        ).returncode  # fmt: skip
    if full:
        os.close(writer)
    assert status == 0
    assert read(tmp_path / "set").num_rows == 270


def test_the_status_file_tells_of_an_error_that_nobody_expected(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(collect, "collect", fail)
    file = tmp_path / "status.json"
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "set", "--status-file", str(file))
    status = json.loads(file.read_text())
    assert (status["state"], status["error"]) == ("failed", "ZeroDivisionError: a bug")


def test_without_opengl_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", None)
    assert run(tmp_path / "set") == 1
    assert "pictures need OpenGL without a screen" in capsys.readouterr().err
    assert not (tmp_path / "set/meta").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_bar_is_there_before_a_simulator_starts(tmp_path, monkeypatch, capsys, workers):
    monkeypatch.setattr(runs, "make_env", lambda *_, **__: fails("here a simulator starts"))
    monkeypatch.setattr(ProcessPool, "run_once", lambda *_: fails("here a simulator starts"))
    assert run(tmp_path / "set", "--num-episodes", "2", "--workers", workers) == 1
    before, _, _ = capsys.readouterr().err.partition("error: here a simulator starts")
    assert f"0/{2 * FRAMES}" in before


def test_starting_anew_after_each_episode_gives_the_same_dataset(dataset, tmp_path):
    output, file = tmp_path / "set", tmp_path / "status.json"
    options = ["--num-episodes", "2", "--seed", "5", "--restart-every", "1"]
    done = subprocess.run(
        [sys.executable, "collect.py", *QUICK, *options, "--output", output, "--status-file", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("episodes   2") == 1
    for pattern in ("data/*/*.parquet", "meta/episodes/*/*.parquet"):
        assert read(output, pattern).equals(read(dataset, pattern))
    status = json.loads(file.read_text())
    assert (status["state"], status["exit_status"], status["episodes"]) == ("complete", 0, 2)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_complete_dataset_starts_no_simulator(dataset, tmp_path, monkeypatch, capsys, workers):
    output = tmp_path / "set"
    shutil.copytree(dataset, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for module in (runs, session):
        monkeypatch.setattr(module, "make_env", lambda *_, **__: pytest.fail("a simulator started"))
    monkeypatch.setattr(ProcessPool, "run_once", lambda *_: pytest.fail("a process started"))
    options = ["--resume", "--workers", workers, "--seed"]
    assert run(output, "--num-episodes", "2", *options, "5") == 0
    report = capsys.readouterr().out
    assert "episodes   2" in report
    assert f"frames     {2 * FRAMES}\n" in report  # and no rate: none was recorded
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert run(output, "--num-episodes", "1", *options, "6") == 1
    assert "seed was 5, is now 6" in capsys.readouterr().err
    with pytest.raises(pytest.fail.Exception, match="started"):
        run(output, "--num-episodes", "3", *options, "5")


def test_a_run_killed_before_it_packed_the_videos_is_completed_without_a_simulator(
    dataset, tmp_path, monkeypatch
):
    output = tmp_path / "set"
    options = ["--num-episodes", "2", "--seed", "5", "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr(session, "close_writer", lambda writer, _: writer.release())
        assert run(output, *options) == 0
    assert len(list(output.rglob("*.mp4"))) == 4
    monkeypatch.setattr(runs, "make_env", lambda *_, **__: pytest.fail("a simulator started"))
    assert run(output, *options) == 0
    assert frames(output).keys() == frames(dataset).keys()


@pytest.mark.parametrize("name", ["meta/info.json", "meta/collection.json"])
@pytest.mark.parametrize("content", ["", "[]", "null", '{"total_episodes": "9"}'])
def test_a_damaged_dataset_is_not_taken_for_complete(
    dataset, tmp_path, monkeypatch, capsys, name, content
):
    output = tmp_path / "set"
    shutil.copytree(dataset, output)
    (output / name).write_text(content)
    monkeypatch.setattr(runs, "make_env", lambda *_, **__: fails("a simulator started"))
    assert run(output, "--num-episodes", "2", "--seed", "5", "--resume") == 1
    error = capsys.readouterr().err
    assert "a simulator started" in error if "info" in name else "collection.json" in error


def fails(what):
    raise RuntimeError(what)


def test_memory_may_be_a_reason_to_start_anew():
    options = CollectOptions(restart_above=0.001)
    assert restart_is_due(options, finished=1)
    assert not restart_is_due(options, finished=0), "or it would never get anywhere"
    assert not restart_is_due(CollectOptions(restart_above=1000), finished=1)


def test_the_status_file_tells_of_a_failure(tmp_path):
    file = tmp_path / "status.json"
    options = ["--num-episodes", "3", "--status-file", str(file), *HASTY]
    assert run(tmp_path / "set", *options) == 1
    status = json.loads(file.read_text())
    assert (status["state"], status["exit_status"], status["attempts"]) == ("failed", 1, 19)
    assert "20 attempts in a row failed" in status["error"]


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        collect.main(["--help"])
    assert "Example: collect.py --num-episodes 50" in capsys.readouterr().out


@pytest.mark.long
def test_fifty_episodes_have_13500_frames(tmp_path):
    options = ["--num-episodes", "50", "--resolution", "64", "--preset", "fast"]
    assert collect.main(["--output", str(tmp_path / "set"), *options]) == 0
    lengths = read(tmp_path / "set", "meta/episodes/*/*.parquet")["length"].to_pylist()
    assert lengths == [270] * 50
    assert sum(len(video) for video in frames(tmp_path / "set").values()) == 2 * 13_500
