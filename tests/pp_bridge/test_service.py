"""The simulator's side of the bridge, turn by turn, without the web and without physics."""

import json
import multiprocessing
import time
from types import SimpleNamespace

import numpy as np
import pytest

import collect
from pp_bridge import live_view
from pp_bridge.messages import BridgeCommand, StartRequest
from pp_bridge.service import Service
from pp_bridge.shared_state import SharedState
from pp_collect import session as collection
from pp_recorder.dataset.reader import Dataset
from tests.fakes import FakeSimulator

REQUEST = {
    "num_episodes": 2, "output_dir": "set", "skill": "pick_place", "seed": 1,
    "steps_per_segment": 2, "noise_rad": 0.05, "keep": "all", "resume": False,
}  # fmt: skip


class Stuck(FakeSimulator):
    """An arm that does not move."""

    def step(self, command):
        return self._state


class Desk:
    """A service, and the web's end of its pipe."""

    def __init__(self, root, simulator=FakeSimulator) -> None:
        self.args = collect.make_parser().parse_args(["--resolution", "32"])
        self.args.simulator = simulator
        self.config = collect.make_config(collect.make_parser().parse_args(["--resolution", "32"]))
        self.shared_state = SharedState(["cam_high", "cam_wrist"], (32, 32))
        self.env = collection.make_env(self.args, self.config)
        self.env.reset(seed=0)
        self.args.simulator = "fake"
        self.web, theirs = multiprocessing.Pipe()
        self.service = Service(self.args, self.config, self.env, self.shared_state, theirs, root)

    def send_command(self, name, **arguments):
        request = StartRequest(**{**REQUEST, **arguments}) if name == "start" else None
        self.web.send(BridgeCommand(name, request))
        self.service.tick()
        return self.web.recv()


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_a_turn_drives_one_frame(desk):
    assert desk.send_command("start").reason is None
    frames = [desk.service.status()["frame"]]
    for _ in range(3):
        desk.service.tick()
        frames.append(desk.service.status()["frame"])
    assert frames == [1, 2, 3, 4]


def test_a_collection_ends_by_itself(desk, tmp_path):
    desk.send_command("start")
    while desk.service.status()["state"] == "collecting":
        desk.service.tick()
    status = desk.shared_state.status()
    assert (status["outcome"], status["episodes"], status["attempts"]) == ("complete", 2, 2)
    assert status["totals"] == {
        "attempts": 2,
        "successes": status["successes"],
        "episodes": 2,
        "frames": 36,
    }
    assert Dataset(tmp_path / "set").num_episodes == 2


def test_the_estimate_of_the_time_left_counts_failures(tmp_path):
    desk = Desk(tmp_path, Stuck)
    desk.send_command("start", num_episodes=10, keep="success")
    status = desk.service.status()
    while status["attempts"] < 2:
        desk.service.tick()
        status = desk.service.status()
    assert status["successes"] == 0
    rate, frames = status["frames_per_second"], 10 * 18 * 2
    assert status["eta_seconds"] == pytest.approx(frames / rate, rel=0.01)


def test_whatever_goes_wrong_the_service_lives(tmp_path):
    class Broken(FakeSimulator):
        def step(self, command):
            raise ZeroDivisionError("the arm fell off")

    desk = Desk(tmp_path, Broken)
    assert desk.send_command("start").reason is None
    status = desk.service.status()
    assert (status["state"], status["outcome"]) == ("idle", "failed")
    assert status["last_error"] == "the arm fell off"
    assert desk.send_command("start", output_dir="next").reason is None


def test_it_gives_up_where_there_is_no_hope_and_says_why(tmp_path):
    desk = Desk(tmp_path, Stuck)
    desk.send_command("start", keep="success", num_episodes=1)
    while desk.service.status()["state"] == "collecting":
        desk.service.tick()
    assert desk.service.status()["outcome"] == "failed"
    assert "20 attempts in a row failed" in desk.service.status()["last_error"]


def test_an_interrupted_collection_is_remembered_and_a_finished_one_is_not(tmp_path):
    desk = Desk(tmp_path)
    desk.send_command("start")
    after = Desk(tmp_path)
    assert after.service.status()["outcome"] == "interrupted"
    assert after.service.status()["request"] == REQUEST
    desk.send_command("stop")
    assert Desk(tmp_path).service.status()["outcome"] is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": "collecting", "request": {}}'])
def test_a_damaged_memory_is_none(tmp_path, content):
    (tmp_path / ".bridge.json").write_text(content)
    assert Desk(tmp_path).service.status()["outcome"] is None


def test_nothing_is_drawn_for_nobody(desk):
    desk.service.tick()
    assert desk.shared_state.image_count == 0
    desk.shared_state.viewers = 1
    desk.service.tick()
    desk.service.tick()
    assert desk.shared_state.image_count == 1, "two a second are enough"
    assert desk.shared_state.images()["cam_high"].std() > 0


def test_viewers_see_the_recorded_pictures(desk):
    desk.shared_state.viewers = 1
    desk.send_command("start")
    seen = desk.env.unwrapped.render_cameras()["cam_high"]
    time.sleep(0.02)  # or the turn would be too soon after the one before
    desk.service.tick()
    assert (desk.shared_state.images()["cam_high"] == seen).all()


def test_no_more_pictures_are_copied_than_viewers_can_get(monkeypatch):
    clock = iter(np.arange(0.0, 1.0, 0.001))
    monkeypatch.setattr(live_view, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    shared_state = SharedState(["a"], (4, 4))
    shared_state.viewers = 1
    watcher = live_view.FramePublisher(shared_state)
    step = SimpleNamespace(observation={"pixels": {"a": np.zeros((4, 4, 3), np.uint8)}})
    for _ in range(1000):
        watcher.add(step)
    assert 90 <= shared_state.image_count <= 100


def test_idling_costs_next_to_nothing(desk):
    began, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < began + 0.5:
        desk.service.tick()
    assert time.process_time() - cpu < 0.1


def test_a_reader_never_makes_the_board_wait():
    shared_state = SharedState(["a"], (4, 4))
    picture = np.full((4, 4, 3), 7, np.uint8)
    with shared_state._pixels_lock, shared_state._text_lock:
        assert not shared_state.publish_images({"a": picture})
        assert not shared_state.publish_status({})
    assert shared_state.publish_images({"a": picture})
    assert shared_state.publish_status({"x": 1})
    assert (shared_state.images()["a"] == picture).all()
    assert (shared_state.status(), shared_state.image_count) == ({"x": 1}, 1)


def test_the_memory_is_a_small_json_file(desk, tmp_path):
    desk.send_command("start")
    desk.send_command("stop")
    found = json.loads((tmp_path / ".bridge.json").read_text())
    assert (found["state"], found["request"]) == ("stopped", REQUEST)
