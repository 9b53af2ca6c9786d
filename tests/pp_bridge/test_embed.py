"""Collections inside other programs."""

import os
import subprocess
import sys
import threading
import time

import gymnasium as gym
import httpx
import pytest

import pp_env
from pp_bridge import make_collection, run_collection_in_process
from pp_env.config import PickPlaceConfig, RenderConfig
from pp_recorder.dataset.reader import Dataset
from tests.fakes import FakeSimulator
from tests.pp_bridge.server import ROOT, TIMEOUT

SHORT_EPISODES = {"steps_per_segment": 2, "keep": "all"}


@pytest.fixture
def env():
    made = gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,
        disable_env_checker=True,
        simulator=FakeSimulator,
        obs_type="pixels_agent_pos",
        config=PickPlaceConfig(render=RenderConfig(resolution=32)),
        terminate_on_success=False,
    )
    yield made
    made.close()


def test_progress_is_reported_and_the_end_returned(env, tmp_path):
    seen = []
    end = run_collection_in_process(
        env, 2, tmp_path / "set", progress_callback=seen.append, seed=7, **SHORT_EPISODES
    )
    assert (end.episodes, end.frames, end.attempts) == (2, 36, 2)
    assert len(seen) == 36 + 2
    assert seen[-1] == end
    assert Dataset(tmp_path / "set").collection["seed"] == 7


def test_each_collection_chooses_what_actions_mean(env, tmp_path):
    for mode, size in (("ee_pose", 10), ("joint_pos", 8)):
        root = tmp_path / mode
        end = run_collection_in_process(env, 1, root, control_mode=mode, **SHORT_EPISODES)
        assert end.frames == 18
        assert Dataset(root).features["action"]["shape"] == [size]


def test_a_stop_drops_the_current_episode(env, tmp_path):
    stop = threading.Event()

    def stop_within_the_second(progress):
        if progress.attempts == 1:
            stop.set()

    end = run_collection_in_process(
        env, 9, tmp_path / "set", stop, stop_within_the_second, **SHORT_EPISODES
    )
    assert end.episodes == Dataset(tmp_path / "set").num_episodes == 1
    assert (
        run_collection_in_process(env, 2, tmp_path / "set", resume=True, **SHORT_EPISODES).episodes
        == 2
    )


def test_the_caller_steps_every_frame_and_keeps_the_environment(env, tmp_path):
    collection = make_collection(env, 1, tmp_path / "set", **SHORT_EPISODES)
    for _ in range(5):
        assert collection.step()
    collection.close()
    assert collection.writer.num_episodes == 0
    env.reset(seed=0)
    env.step(env.action_space.sample())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_episodes": 0}, "must be at least 1, got 0"),
        ({"colour": "red"}, "colour is no option; there are .*noise_rad"),
        ({"num_episode": 3}, "num_episode is no option; did you mean num_episodes\\?"),
        ({"keep": "some"}, "keep must be one of success, all, got 'some'"),
        ({"noise_rad": 3.0}, "noise_rad must be from 0 to"),
    ],
)
def test_bad_options_stop_before_any_work(env, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_collection(env, **{"num_episodes": 1, "output": tmp_path / "set", **options})
    assert not (tmp_path / "set").exists()


def test_another_kind_of_observation_is_refused(tmp_path):
    with (
        gym.make(pp_env.ENV_ID, simulator=FakeSimulator, obs_type="pixels") as env,
        pytest.raises(ValueError, match="must have obs_type 'pixels_agent_pos'"),
    ):
        make_collection(env, 1, tmp_path)


def test_the_example_switches_between_its_jobs(tmp_path):
    command = [sys.executable, "examples/embed_in_app.py", "--port", "0", "--resolution", "64"]
    command += ["--num-episodes", "1", "--output", str(tmp_path / "own")]
    environment = {"PYTHONPATH": str(ROOT), **os.environ}
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        address = program.stdout.readline().strip()

        def wait_for(job, episodes=0):
            deadline = time.monotonic() + TIMEOUT
            while (found := httpx.get(address, timeout=60).json()) and (
                found["job"] != job or found["episodes"] < episodes
            ):
                assert time.monotonic() < deadline, found
                time.sleep(0.05)

        for job in ("step", "collect", "idle", "collect"):
            httpx.post(f"{address}/{job}", timeout=60)
            wait_for(job)
        wait_for("idle", episodes=1)
        assert httpx.post(f"{address}/dance", timeout=60).status_code == 404
        httpx.post(f"{address}/quit", timeout=60)
        assert program.wait(TIMEOUT) == 0
    assert Dataset(tmp_path / "own").num_episodes == 1


def test_collect_shows_its_cameras(tmp_path):
    command = [sys.executable, "collect.py", "--streaming", "--streaming-port", "49732"]
    command += ["--output", str(tmp_path / "set"), "--num-episodes", "500", "--resolution", "64"]
    command += ["--preset", "fast"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while "live view: " not in (line := process.stderr.readline()):
            assert line, "it ended"
        address = line.split()[-1]
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        with httpx.Client(base_url=address, timeout=60) as client:
            with client.stream("GET", "/live/cam_wrist.mjpeg") as response:
                received = next(part for part in response.iter_raw() if b"\xff\xd8\xff" in part)
            assert len(received) > 500
            assert client.get("/collect/status").status_code == 404
        process.terminate()
        assert process.wait(TIMEOUT) == 130
        drain.join()
    assert Dataset(tmp_path / "set").num_episodes < 500
