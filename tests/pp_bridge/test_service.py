"""The simulator's side of the bridge, tick by tick, without the web and without physics."""

import errno
import json
import multiprocessing
import sys
import time
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

import pp_env
from pp_bridge import live_view, service
from pp_bridge.messages import SCENE, BridgeCommand, StartRequest, name_fields
from pp_bridge.options import BridgeOptions
from pp_bridge.service import Service
from pp_bridge.shared_state import SharedState
from pp_collect.factory import make_config
from pp_recorder.dataset.reader import Dataset
from tests.fakes import FakeSimulator

REQUEST = {
    "num_episodes": 2, "output_dir": "set", "skill": "pick_place", "seed": 1,
    "steps_per_segment": 2, "noise_rad": 0.05, "path_noise_rad": 0.0, "task": None,
    "expert": "waypoints", "start_mix": "home", "action_noise": 0.0, "joint_speed": None,
    "gripper": None, "control_mode": "joint_pos", "first_attempt": 0,
    "keep": "all", "resume": False, "fps": 30, "grasp": "fixed_joint", "randomize": "none",
    "preset": "default", "cameras": ["cam_high", "cam_wrist"], "use_ycb": False,
    "num_objects": 1, "object": None, "random_yaw": False,
}  # fmt: skip


class StuckArm(FakeSimulator):
    """An arm that does not move."""

    def step(self, command):
        return self._state


class ServiceHarness:
    """A service and the web process's end of its pipe."""

    def __init__(self, root, simulator=FakeSimulator) -> None:
        options = BridgeOptions(resolution=32)
        self.config = make_config(options)
        self.shared_state = SharedState(["cam_high", "cam_wrist"], (32, 32))
        self.env = gym.make(
            pp_env.ENV_ID,
            max_episode_steps=sys.maxsize,
            disable_env_checker=True,
            simulator=simulator,
            obs_type="pixels_agent_pos",
            config=self.config,
            terminate_on_success=False,
        )
        self.env.reset(seed=0)
        self.web, theirs = multiprocessing.Pipe()
        self.service = Service(options, self.config, self.env, self.shared_state, theirs, root)

    def send_command(self, name, **arguments):
        request = StartRequest(**{**REQUEST, **arguments}) if name == "start" else None
        self.web.send(BridgeCommand(name, request))
        self.service.tick()
        return self.web.recv()


@pytest.fixture
def harness(tmp_path):
    return ServiceHarness(tmp_path)


def test_a_tick_records_one_frame(harness):
    assert harness.send_command("start").reason is None
    frames = [harness.service.status()["frame"]]
    for _ in range(3):
        harness.service.tick()
        frames.append(harness.service.status()["frame"])
    assert frames == [1, 2, 3, 4]


def test_a_collection_ends_by_itself(harness, tmp_path):
    harness.send_command("start")
    while harness.service.status()["state"] == "collecting":
        harness.service.tick()
    status = harness.shared_state.status()
    assert (status["outcome"], status["episodes"], status["attempts"]) == ("complete", 2, 2)
    assert status["totals"] == {
        "attempts": 2,
        "successes": status["successes"],
        "episodes": 2,
        "frames": 36,
    }
    assert Dataset(tmp_path / "set").num_episodes == 2


def test_the_estimate_of_the_time_left_counts_failures(tmp_path):
    harness = ServiceHarness(tmp_path, StuckArm)
    harness.send_command("start", num_episodes=10, keep="success")
    status = harness.service.status()
    while status["attempts"] < 2:
        harness.service.tick()
        status = harness.service.status()
    assert status["successes"] == 0
    rate, frames = status["frames_per_second"], 10 * 18 * 2
    assert status["eta_seconds"] == pytest.approx(frames / rate, rel=0.01)


def test_an_error_ends_the_collection_and_not_the_service(tmp_path):
    class Broken(FakeSimulator):
        def step(self, command):
            raise ZeroDivisionError("the arm fell off")

    harness = ServiceHarness(tmp_path, Broken)
    assert harness.send_command("start").reason is None
    status = harness.service.status()
    assert (status["state"], status["outcome"]) == ("idle", "failed")
    assert status["last_error"] == "the arm fell off"
    assert harness.send_command("start", output_dir="next").reason is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("less --noise-rad or --steps-per-segment", "less 'noise_rad' or 'steps_per_segment'"),
        ("control_hz (--fps) must divide", "'fps' must divide"),
        ("continue with --resume", "continue with 'resume'"),
        ("choose another --output", "choose another 'output_dir'"),
        ("--ycb-meshes is the service's", "--ycb-meshes is the service's"),
        ("a -- b --- c --", "a -- b --- c --"),
    ],
)
def test_messages_name_fields_of_the_request(text, expected):
    assert name_fields(text) == expected


def test_a_streak_of_failures_ends_the_collection_with_its_reason(tmp_path):
    harness = ServiceHarness(tmp_path, StuckArm)
    harness.send_command("start", keep="success", num_episodes=1)
    while harness.service.status()["state"] == "collecting":
        harness.service.tick()
    assert harness.service.status()["outcome"] == "failed"
    assert "20 attempts in a row failed" in harness.service.status()["last_error"]


def test_a_scene_that_cannot_be_made_leaves_all_as_it_was(harness, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(service, "make_env", fail)
    refused = harness.send_command("start", cameras=["cam_side"])
    assert (refused.reason, refused.detail) == (
        "unavailable",
        "the scene can't be made: no memory",
    )
    assert harness.shared_state.cameras == ("cam_high", "cam_wrist")
    assert harness.send_command("start").reason is None


def test_a_request_names_no_code_and_no_file():
    assert SCENE
    for name, field in StartRequest.model_fields.items():
        assert "Path" not in str(field.annotation), name
    withheld = {"policy", "start_policy", "simulator", "resolution"}
    assert not withheld & StartRequest.model_fields.keys()


def test_an_interrupted_collection_is_remembered_and_a_finished_one_is_not(tmp_path):
    harness = ServiceHarness(tmp_path)
    harness.send_command("start")
    after = ServiceHarness(tmp_path)
    assert after.service.status()["outcome"] == "interrupted"
    assert after.service.status()["request"] == REQUEST
    harness.send_command("stop")
    assert ServiceHarness(tmp_path).service.status()["outcome"] is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": "collecting", "request": {}}'])
def test_a_damaged_run_file_is_ignored(tmp_path, content):
    (tmp_path / ".bridge.json").write_text(content)
    assert ServiceHarness(tmp_path).service.status()["outcome"] is None


def test_nothing_is_rendered_without_viewers(harness):
    harness.service.tick()
    assert harness.shared_state.image_count == 0
    harness.shared_state.viewers = 1
    harness.service.tick()
    harness.service.tick()
    assert harness.shared_state.image_count == 1, "two a second are enough"
    assert harness.shared_state.images()["cam_high"].std() > 0


def test_viewers_see_the_recorded_images(harness):
    harness.shared_state.viewers = 1
    harness.send_command("start")
    seen = harness.env.unwrapped.render_cameras()["cam_high"]
    time.sleep(0.02)  # or the images would be too soon after those before
    harness.service.tick()
    assert (harness.shared_state.images()["cam_high"] == seen).all()


def test_no_more_images_are_copied_than_viewers_can_get(monkeypatch):
    clock = iter(np.arange(0.0, 1.0, 0.001))
    monkeypatch.setattr(live_view, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    shared_state = SharedState(["a"], (4, 4))
    shared_state.viewers = 1
    publisher = live_view.FramePublisher(shared_state)
    step = SimpleNamespace(observation={"pixels": {"a": np.zeros((4, 4, 3), np.uint8)}})
    for _ in range(1000):
        publisher.add(step)
    assert 90 <= shared_state.image_count <= 100


def test_idling_costs_next_to_nothing(harness):
    began, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < began + 0.5:
        harness.service.tick()
    assert time.process_time() - cpu < 0.1


def test_a_reader_never_makes_the_writer_wait():
    shared_state = SharedState(["a"], (4, 4))
    image = np.full((4, 4, 3), 7, np.uint8)
    with shared_state._pixels_lock, shared_state._status_lock:
        assert not shared_state.publish_images({"a": image})
        assert not shared_state.publish_status({})
    assert shared_state.publish_images({"a": image})
    assert shared_state.publish_status({"x": 1})
    assert (shared_state.images()["a"] == image).all()
    assert (shared_state.status(), shared_state.image_count) == ({"x": 1}, 1)


def test_images_of_the_last_cameras_are_gone_with_them():
    shared_state = SharedState(["a", "b"], (4, 4))
    assert shared_state.images() == {}
    image = np.full((4, 4, 3), 7, np.uint8)
    shared_state.publish_images({"a": image, "b": image})
    shared_state.show(["b"])
    assert (shared_state.image_count, shared_state.images()) == (0, {})
    shared_state.publish_images({"b": image})
    assert list(shared_state.images()) == ["b"]


def test_the_run_file_is_small_json(harness, tmp_path):
    harness.send_command("start")
    harness.send_command("stop")
    found = json.loads((tmp_path / ".bridge.json").read_text())
    assert (found["state"], found["request"]) == ("stopped", REQUEST)


def test_a_full_disk_says_what_is_safe(tmp_path):
    class Full(FakeSimulator):
        def step(self, command):
            raise OSError(errno.ENOSPC, "No space left on device")

    harness = ServiceHarness(tmp_path, Full)
    harness.send_command("start")
    harness.service.tick()
    status = harness.service.status()
    assert status["outcome"] == "failed"
    assert status["last_error"] == (
        "the disk is full ([Errno 28] No space left on device); what was finished is intact in "
        "set; once there is room, start it again with 'resume'"
    )
