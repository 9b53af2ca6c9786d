"""A real service in its own process, for the bridge's tests and benchmark, or its web alone."""

import json
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from pp_bridge.service import INITIAL_STATUS
from pp_bridge.settings import WebSettings
from pp_bridge.shared_state import SharedState
from pp_bridge.web_process import WebProcess
from tests import ROOT

SMALL_IMAGES = ("--resolution", "64x48", "--preset", "fast")
TIMEOUT = 120.0  # s
# 18 frames each; too fast to succeed, which these tests do not need.
SHORT_EPISODES = {"steps_per_segment": 2, "keep": "all"}


class BridgeServer:
    """A running `python -m pp_bridge` on a free port.

    Args:
        root: The folder for datasets.
        options: Command-line options.
        variables: Environment variables.
        program: Arguments of Python that run another program; it takes the bridge's options, too.
    """

    def __init__(
        self,
        root: Path,
        *options: str,
        variables: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "pp_bridge"),
    ) -> None:
        command = [sys.executable, *program, "--root", str(root), "--port", "0", *options]
        self.root = root
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(variables or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._unread_lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self.wait_for_log("listening")["address"]
        self.client = httpx.Client(base_url=self.address, timeout=TIMEOUT)
        self.wait_for_log("ready")

    def __enter__(self) -> "BridgeServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.end(signal.SIGTERM)

    def end(self, number: signal.Signals) -> int:
        """End the service by a signal and return its exit status."""
        self.client.close()
        self.process.send_signal(number)
        status = self.process.wait(TIMEOUT)
        self._reader.join()
        return status

    @property
    def web_process(self) -> int:
        """The process id of the web's process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        (web,) = [
            int(pid)
            for pid in children.split()
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        return web

    def wait_for_log(self, message: str) -> dict[str, Any]:
        """Return the next log line with this message."""
        while True:
            line = self._unread_lines.get(timeout=TIMEOUT)
            if line == "":
                raise RuntimeError("the service has ended:\n" + "".join(self.lines))
            if line.startswith("{") and json.loads(line)["message"] == message:
                return json.loads(line)

    def start(self, output_dir: str, num_episodes: int = 1, **request: Any) -> httpx.Response:
        """Request a collection of short episodes."""
        request = {
            "output_dir": output_dir,
            "num_episodes": num_episodes,
            **SHORT_EPISODES,
            **request,
        }
        return self.client.post("/collect/start", json=request)

    def status(self) -> dict[str, Any]:
        """Return the status."""
        return self.client.get("/collect/status").json()

    def wait(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first status for which `reached` is true."""
        deadline = time.monotonic() + TIMEOUT
        while not reached(status := self.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        return status

    def wait_until_idle(self) -> dict[str, Any]:
        """Return the status once nothing is being collected."""
        return self.wait(lambda status: status["state"] == "idle")

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self.lines.append(line)
                self._unread_lines.put(line)
        self._unread_lines.put("")


class WebServer:
    """The web's process without a simulator, which answers no command unless the test does.

    Args:
        root: The folder for datasets.
        token: Secret of the service.
        open_files: Limit on the files that the process has open.
    """

    def __init__(self, root: Path, token: str | None = None, open_files: int | None = None) -> None:
        self.root = root
        self.shared_state = SharedState(["cam_high", "cam_wrist"], (32, 32))
        self.shared_state.publish_status({**INITIAL_STATUS, "state": "idle"})
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files or soft, hard))
        try:
            settings = WebSettings("127.0.0.1", 0, 49832, token, root)
            self.process = WebProcess(self.shared_state, settings)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.port = self.process.port
        self.address = f"http://127.0.0.1:{self.port}"
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=self.address, timeout=TIMEOUT, headers=headers)

    def __enter__(self) -> "WebServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.close()
