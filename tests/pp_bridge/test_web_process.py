"""The bridge as a process: start, access by token, end and restart."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.context import SpawnProcess

import httpx
import pytest

from pp_bridge.__main__ import main
from pp_bridge.settings import TOKEN_VARIABLE, WebSettings
from pp_bridge.shared_state import SharedState
from pp_bridge.web_process import WebProcess
from pp_recorder.dataset.reader import Dataset
from tests.pp_bridge.server import ROOT, SMALL_IMAGES, TIMEOUT, BridgeServer

TOKEN = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], f"put a token into the environment variable {TOKEN_VARIABLE}"),
        (["--streaming-port", "80"], "must be from 1024 to 65528"),
        (["--fps", "31"], "must divide the physics rate"),
        (["--assets-root", "x"], "for --simulator isaacsim"),
        (
            ["--root", "/proc/nowhere"],
            "--root must be a folder that can be written, got /proc/nowhere: No such file",
        ),
        (["--root", __file__], "--root must be a folder that can be written, got "),
        (["--root", ""], "--root must not be empty"),
        (["--port", "99999"], "--port must be from 0 to 65535, got 99999"),
        (["--port", "-1"], "--port must be from 0 to 65535, got -1"),
    ],
)
def test_bad_options_stop_before_any_work(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as stopped:
        main(["--root", str(tmp_path / "datasets"), *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_token_that_can_be_guessed_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path)])
    assert "at least 16 ASCII characters, got 6" in capsys.readouterr().err


def test_a_taken_port_and_a_taken_root_are_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "pp_bridge", "--root", str(tmp_path), "--port", str(port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"pp-bridge: error: can't listen on 127.0.0.1 port {port}: another program uses it; "
        "choose another port"
    ]


@pytest.fixture
def own_logs():
    """Let logs that are set up in this process end with the test, as its stderr does."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("own_logs")
def test_an_address_of_another_machine_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path), "--host", "192.0.2.1"])
    assert (
        "can't listen on 192.0.2.1 port 8080: this machine has no such address; try 127.0.0.1"
        in (capsys.readouterr().err)
    )


def test_only_the_token_opens_the_service(tmp_path):
    variables = {TOKEN_VARIABLE: TOKEN}
    with BridgeServer(tmp_path, "--host", "0.0.0.0", *SMALL_IMAGES, variables=variables) as server:
        client = server.client
        assert client.get("/healthz").json()["status"] == "ok"
        for path in ("/collect/status", "/datasets", "/metrics", "/live/cameras", "/live/x.mjpeg"):
            assert client.get(path).status_code == 401, path
        refused = client.post("/collect/start", json={"output_dir": "a", "num_episodes": 1})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer wrong-wrong-wrong-wrong", f"Basic {TOKEN}", "Bearer", "Bearer \xe4"):
            headers = {"Authorization": wrong.encode("latin-1")}
            assert client.get("/collect/status", headers=headers).status_code == 401, wrong
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/collect/status", headers=right).status_code == 200
        assert client.post("/session", json={"token": "wrong"}).status_code == 401
        kept = client.post("/session", json={"token": TOKEN})
        assert kept.status_code == 204
        assert "HttpOnly" in kept.headers["set-cookie"]
        assert "SameSite=strict" in kept.headers["set-cookie"]
        assert client.get("/collect/status").status_code == 200, "by the cookie"
        foreign = {"Origin": "http://evil.example"}
        assert client.post("/collect/stop", headers=foreign).status_code == 403
        assert TOKEN not in "".join(server.lines)


def test_sigterm_leaves_a_valid_dataset_and_a_restart_goes_on(tmp_path):
    with BridgeServer(tmp_path, *SMALL_IMAGES) as server:
        server.start("set", num_episodes=1000)
        finished = server.wait(lambda status: status["episodes"] >= 2)["episodes"]
        assert server.end(signal.SIGTERM) == 0
    held = Dataset(tmp_path / "set").num_episodes
    assert held >= finished
    assert not (tmp_path / "set" / ".unfinished").exists()
    with BridgeServer(tmp_path, "--resume", *SMALL_IMAGES) as server:
        status = server.wait(lambda status: status["episodes"] > held)
        assert status["state"] == "collecting"
        assert status["request"]["output_dir"] == "set"
        server.client.post("/collect/stop")
    assert Dataset(tmp_path / "set").num_episodes > held


def test_kill_9_loses_nothing_finished_and_the_restart_reports_it(tmp_path):
    with BridgeServer(tmp_path, *SMALL_IMAGES) as server:
        server.start("set", num_episodes=1000)
        finished = server.wait(lambda s: s["episodes"] >= 2 and s["frame"] > 0)["episodes"]
        server.end(signal.SIGKILL)
        assert is_silent(server.address), "the web's process ends with the other one"
    with BridgeServer(tmp_path, *SMALL_IMAGES) as server:
        status = server.status()
        assert (status["state"], status["outcome"]) == ("idle", "interrupted")
        assert status["request"]["output_dir"] == "set"
        request = {**status["request"], "resume": True, "num_episodes": finished + 5}
        resumed = server.client.post("/collect/start", json=request).json()
        assert resumed["episodes"] >= finished
        status = server.wait_until_idle()
        assert (status["outcome"], status["episodes"]) == ("complete", finished + 5)
        assert server.client.get("/datasets/set/report").json()["exit_status"] == 0


def test_two_services_do_not_share_a_root(tmp_path):
    with BridgeServer(tmp_path, *SMALL_IMAGES):
        command = [sys.executable, "-m", "pp_bridge", "--root", str(tmp_path), "--port", "0"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"pp-bridge: error: another service uses {tmp_path}; stop that one, or choose another "
        "--root"
    ]


def test_the_service_ends_when_its_web_process_does(tmp_path):
    with BridgeServer(tmp_path, *SMALL_IMAGES) as server:
        server.start("set", num_episodes=1000)
        os.kill(server.web_process, signal.SIGKILL)
        assert server.process.wait(TIMEOUT) == 1
        assert server.wait_for_log("ended")["reason"].startswith("the web's process has ended")
        assert Dataset(tmp_path / "set").num_episodes >= 0


def is_silent(address: str) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            httpx.get(address + "/healthz")
        except httpx.TransportError:
            return True
    return False


@pytest.mark.parametrize("missing", ["pydantic", "fastapi", "aiortc"])
def test_without_the_extra_the_error_names_it(missing, tmp_path):
    program = (
        f"import sys; sys.modules[{missing!r}] = None; "
        f"from pp_bridge.__main__ import main; main(['--root', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "franka-pick-place[bridge]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_webs_process_starts_with_stop_signals_held_back(monkeypatch):
    masks = []
    monkeypatch.setattr(
        SpawnProcess, "start", lambda _: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    WebProcess(SharedState([], (8, 8)), WebSettings("127.0.0.1", 0, 8554, None, None, {}))
    assert {signal.SIGINT, signal.SIGHUP} <= masks[0] - before
    assert signal.SIGTERM not in masks[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
