"""A real service in a process of its own, for the bridge's tests and benchmark."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests import ROOT

SMALL = ("--resolution", "64x48", "--preset", "fast")
PATIENCE = 120.0  # s
# Episodes of 18 frames: too fast to succeed, which is not what these tests are about.
HASTE = {"steps_per_segment": 2, "keep": "all"}


class BridgeServer:
    """Runs `python -m pp_bridge` on a free port.

    Args:
        root: The folder for datasets.
        options: Of its command line.
        variables: Of its environment.
        program: What runs, if not that; it takes the bridge's options after its own.
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
        self._news: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self.wait_for_log("listening")["address"]
        self.client = httpx.Client(base_url=self.address, timeout=PATIENCE)
        self.wait_for_log("ready")

    def __enter__(self) -> "BridgeServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.end(signal.SIGTERM)

    def end(self, number: signal.Signals) -> int:
        """Ends it by a signal; returns the exit status."""
        self.client.close()
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self._reader.join()
        return status

    @property
    def web_process(self) -> int:
        """The web's process id."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        (web,) = [
            int(pid)
            for pid in children.split()
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        return web

    def wait_for_log(self, message: str) -> dict[str, Any]:
        """The next line with this message."""
        while True:
            line = self._news.get(timeout=PATIENCE)
            if line == "":
                raise RuntimeError("the service has ended:\n" + "".join(self.lines))
            if line.startswith("{") and json.loads(line)["message"] == message:
                return json.loads(line)

    def start(self, output_dir: str, num_episodes: int = 1, **request: Any) -> httpx.Response:
        """Asks for a collection of hasty episodes."""
        request = {"output_dir": output_dir, "num_episodes": num_episodes, **HASTE, **request}
        return self.client.post("/collect/start", json=request)

    def status(self) -> dict[str, Any]:
        """How it is doing."""
        return self.client.get("/collect/status").json()

    def wait(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status of which this is true."""
        deadline = time.monotonic() + PATIENCE
        while not reached(status := self.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        return status

    def wait_until_idle(self) -> dict[str, Any]:
        """The status once nothing is collected any more."""
        return self.wait(lambda status: status["state"] == "idle")

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self.lines.append(line)
                self._news.put(line)
        self._news.put("")
