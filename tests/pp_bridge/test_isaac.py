"""The bridge with `--simulator isaacsim` in its own processes, on a fake Isaac Sim."""

import shutil
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from pp_recorder.dataset.reader import Dataset
from tests.pp_bridge.fake_isaac_bridge import counter
from tests.pp_bridge.server import SMALL_IMAGES, TIMEOUT, BridgeServer


@pytest.fixture
def assets(tmp_path, robot_file):
    root = tmp_path / "assets"
    robot = root / "Isaac/Robots/Franka/franka.usd"
    robot.parent.mkdir(parents=True)
    shutil.copyfile(robot_file, robot)
    return root


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_application_stays_alive_while_the_bridge_idles_and_while_it_collects(tmp_path, assets):
    count_file, root = tmp_path / "updates", tmp_path / "datasets"
    np.zeros((), np.int64).tofile(count_file)
    updates = counter(count_file)
    program = ("-m", "tests.pp_bridge.fake_isaac_bridge", str(count_file), str(assets))
    with BridgeServer(root, *SMALL_IMAGES, program=program) as server:

        def require_updates(state: str) -> None:
            before = int(updates)
            wait_for(lambda: updates > before + 5)
            assert server.status()["state"] == state

        require_updates("idle")
        assert server.start("set", num_episodes=1000).status_code == 202
        require_updates("collecting")
        server.wait(lambda status: status["episodes"] >= 1)
        server.client.post("/collect/stop")
        require_updates("idle")
        refused = server.start("other", randomize="light")
        assert refused.status_code == 409
        assert refused.json()["detail"].startswith("isaacsim keeps its first scene until the servi")
        with server.client.stream("GET", "/live/cam_high.mjpeg") as stream:
            assert any(b"\xff\xd8\xff" in piece for piece in stream.iter_raw())
        assert server.end(signal.SIGTERM) == 0
    dataset = Dataset(root / "set")
    assert dataset.num_episodes >= 1
    assert dataset.collection["simulator"] == "isaacsim"
