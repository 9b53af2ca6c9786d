"""Attacks a running bridge on loopback for some minutes, and prints what it did meanwhile.

The table has the frames per second of the simulator, which collects all the time, the answers to
somebody who asks for `/healthz`, `/collect/status` and `/datasets` five times a second, the growth
of the log, and what was found: answers with status 500, no answers, an end of the service. It exits
with 1 if anything was found. schemathesis starts and stops collections, too, which costs frames.

Usage: python -m tests.attack [--requests 5000]       (make attack)
"""

import argparse
import json
import random
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from pp_bridge.settings import TOKEN_VARIABLE
from tests import hostile
from tests.pp_bridge.server import SHORT_EPISODES, SMALL_IMAGES, BridgeServer

TOKEN = "correct-horse-battery-staple"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}

_TIMEOUT = 30.0  # s for an answer that is due
_SAFE_FAILURES = (503, 507)  # starting or ending, and the disk
_HALVES = (
    b"",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
    b"POST /session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
)
_METHODS = ["GET"] * 8 + ["POST"] * 4 + ["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "X"]
_NUMBERS = ["0", "1", "-1", "1.0", "1e400", "NaN", "true", "9" * 20, "9" * 5000, "%D9%A1", ""]
_TEXTS = ["", "..", "%2e%2e%2f", "%00", "%ff%fe", "a" * 5000, "%0d%0aX: y", "'\"<>", ".bridge.json"]
_JSONS: list[Any] = [None, True, 1.0, 10**30, -1, "x", "\u0000", "x" * 70_000, [], {}, [[]], 1e308]
_HEADER_LINES = [
    *("Origin: http://evil.example", "Origin: null", "Origin:", "Sec-Fetch-Site: cross-site"),
    *("Sec-Fetch-Site: same-origin", "Host: evil.example", "Host: [::1", "Host:"),
    "Upgrade: websocket",
    *("Connection: Upgrade", "Connection: close", "Range: bytes=0-1", "Range: bytes=9-1,-5"),
    *("Range: bytes=" + "0-0," * 500, "Expect: 100-continue", "Content-Type: text/plain"),
    *("Cookie: bridge_token=\xff", "Cookie: " + "a=b;" * 2000, "Authorization: Bearer \xe4"),
    *("Accept-Encoding: \x00", "If-Range: x", "Content-Length: 5", "Transfer-Encoding: chunked"),
    *("Content-Encoding: gzip", "X: " + "y" * 100_000, "Content-Length: -1", "bad header"),
]  # fmt: skip


def half_open(port: int, count: int, seconds: float) -> Counter[str]:
    """Hold connections with half a request each, and open new ones for those that are ended."""
    held: set[socket.socket] = set()
    seen: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end or seen["opened"] < count:
        for _ in range(min(100, count - len(held))):
            with suppress(ConnectionError):
                client = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
                held.add(client)
                client.sendall(random.choice(_HALVES))
            seen["opened"] += 1
        ended = set(filter(_is_ended, held))
        seen["ended by the bridge"] += len(ended)
        held -= ended
        for client in ended:
            client.close()
    for client in held:
        client.close()
    return seen


def _is_ended(client: socket.socket) -> bool:
    try:
        return not client.recv(4096, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def abandon(port: int, method: str, path: str, body: str = "") -> None:
    """Send a request and leave."""
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as client:
        client.sendall(_request(method, path, body))


def visit(client: httpx.Client, name: str) -> Counter[int]:
    """Ask for everything of a dataset but its report."""
    seen: Counter[int] = Counter()
    for path in ("episodes", "episodes/0/cam_high.mp4", "episodes/1/cam_wrist.jpg"):
        response = client.get(f"/datasets/{name}/{path}")
        seen[response.status_code] += 1
        if response.status_code != 200:
            detail = response.json()["detail"]
            assert len(detail) <= 1000
            assert str(Path(tempfile.gettempdir())) not in detail, detail
    return seen


def fuzz(port: int, names: list[str], count: int, seed: int) -> Counter[str]:
    """Send requests that no client would; return how often each status was the answer."""
    rng, seen = random.Random(seed), Counter()
    for _ in range(count):
        sent, is_whole = _fuzzed(rng, names)
        status = _status_of(port, sent, _TIMEOUT if is_whole else 0.01)
        if status.isdigit() and int(status) >= 500 and int(status) not in _SAFE_FAILURES:
            raise AssertionError(f"{status} to {sent[:2000]!r}")
        if status == "nothing" and is_whole:
            raise AssertionError(f"no answer to {sent[:2000]!r}")
        seen[status] += 1
    return seen


def _fuzzed(rng: random.Random, names: list[str]) -> tuple[bytes, bool]:
    """Return a request, and whether it must be answered at once."""
    name = rng.choice([*names, *_TEXTS])
    place = f"/datasets/{name}/episodes/{rng.choice(_NUMBERS)}/{rng.choice(['cam_high', *_TEXTS])}"
    path = rng.choice(
        [
            *("/", "/healthz", "/openapi.json", "/metrics", "/live/cameras", "/collect/status"),
            *("/collect/start", "/live/offer", "/session", "/datasets"),
            f"/datasets/{name}/episodes?last={rng.choice(_NUMBERS)}",
            f"{place}.mp4",
            f"{place}.jpg",
            f"/live/{rng.choice(_TEXTS)}.mjpeg",
            "/" + rng.choice(_TEXTS),
            "/" + "".join(chr(rng.randrange(33, 127)) for _ in range(rng.randrange(50))),
        ]
    )
    body = rng.choice(["", "", json.dumps(_body(rng)), "{", "[" * rng.randrange(1100), "\ud800"])
    if rng.random() < 0.1:
        body = "[" * (depth := rng.randrange(1100)) + "]" * depth
    if rng.random() < 0.3:
        path = "/v1/sim/bridge" + path
    lines = rng.sample(_HEADER_LINES, rng.choice([0, 0, 1, 3]))
    sent = _request(rng.choice(_METHODS), path, body, *lines)
    if rng.random() < 0.2:
        data = bytearray(sent)
        for _ in range(rng.randrange(1, 9)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data[: rng.randrange(1, len(data) + 1)]), False
    odd = ("Content-Length", "Transfer-Encoding", "Expect")
    return sent, not any(line.startswith(odd) for line in lines)


def _body(rng: random.Random) -> Any:
    from pp_bridge.messages import StartRequest

    sound = {"output_dir": "fuzzed", "num_episodes": 1, **SHORT_EPISODES}
    fields = [*StartRequest.model_fields, "type", "sdp", "token", "x", "\ud800"]
    changes = {rng.choice(fields): rng.choice(_JSONS) for _ in range(rng.randrange(3))}
    return rng.choice([{**sound, **changes}, changes, rng.choice(_JSONS)])


def _request(method: str, path: str, body: str, *lines: str) -> bytes:
    content = body.encode(errors="surrogatepass")
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}"]
    head += ["Content-Type: application/json", *lines]
    if content and not any(line.startswith("Content-Length") for line in lines):
        head.append(f"Content-Length: {len(content)}")
    return "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + content


def _status_of(port: int, sent: bytes, timeout: float) -> str:
    """Return the status of the answer, "ended" without one, or "nothing" after the timeout."""
    with socket.create_connection(("127.0.0.1", port), timeout) as client:
        try:
            client.sendall(sent)
            line = client.recv(16)
        except TimeoutError:
            return "nothing"
        except ConnectionError:
            return "ended"
    return line.split()[1].decode() if line.startswith(b"HTTP/1.1 ") else "ended"


class Attack:
    """A bridge that collects, somebody who asks it meanwhile, and the table of what happened.

    Args:
        server: The bridge.
    """

    def __init__(self, server: BridgeServer) -> None:
        self._server = server
        self._times: list[float] = []
        self._failures: list[str] = []
        self._ended = threading.Event()
        self._asker = threading.Thread(target=self._ask)
        self._collected = 0
        print(f"{'':<24}{'frames/s':>9}{'asked':>7}{'slowest':>9}{'log, kB':>9}  seen")

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask, and start a collection whenever none runs."""
        self._asker.start()
        try:
            yield
        finally:
            self._ended.set()
            self._asker.join()

    def phase(self, title: str, work: Callable[[], Any]) -> bool:
        """Do something, and print a row; return whether nothing was found."""
        self._times.clear()
        self._failures.clear()
        began, frames, logged = time.monotonic(), self._frames(), self._log_size()
        try:
            seen: Any = work()
        except Exception as error:
            seen = f"{type(error).__name__}: {error}"
            self._failures.append(seen)
        rate = (self._frames() - frames) / (time.monotonic() - began)
        if self._server.process.poll() is not None:
            self._failures.append("the service has ended")
        found = "; ".join(self._failures) or (
            ", ".join(f"{count} {key}" for key, count in sorted(seen.items(), key=str))
            if isinstance(seen, Counter)
            else ""
        )
        slowest = f"{max(self._times, default=0):.2f} s"
        kilobytes = (self._log_size() - logged) / 1000
        print(f"{title:<24}{rate:>9.1f}{len(self._times):>7}{slowest:>9}{kilobytes:>9.1f}  {found}")
        sys.stdout.flush()
        return not self._failures

    def _ask(self) -> None:
        with httpx.Client(
            base_url=self._server.address, timeout=_TIMEOUT, headers=HEADERS
        ) as client:
            while not self._ended.wait(0.2):
                try:
                    for path in ("/healthz", "/collect/status", "/datasets"):
                        began = time.monotonic()
                        response = client.get(path)
                        self._times.append(time.monotonic() - began)
                        if response.status_code != 200:
                            self._failures.append(f"{response.status_code} from {path}")
                    status = client.get("/collect/status").json()
                    if status["state"] != "idle":
                        if not status["request"]["output_dir"].startswith("own"):
                            client.post("/collect/stop")
                    else:
                        self._collected += 1
                        request = {"output_dir": f"own{self._collected}", "num_episodes": 100_000}
                        client.post("/collect/start", json={**request, **SHORT_EPISODES})
                except httpx.TransportError as error:
                    self._failures.append(f"{type(error).__name__} while asking")

    def _frames(self) -> float:
        """Return the frames of finished episodes since the service has started."""
        metrics = httpx.get(f"{self._server.address}/metrics", headers=HEADERS, timeout=_TIMEOUT)
        return float(metrics.text.split("\npp_bridge_frames_total ")[1].split()[0])

    def _log_size(self) -> int:
        return sum(map(len, self._server.lines))


def main(argv: list[str] | None = None) -> int:
    """Run the attacks; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--requests", type=int, default=5000, help="fuzzed requests")
    parser.add_argument("--connections", type=int, default=1100, help="half-open ones")
    parser.add_argument("--seconds", type=float, default=8.0, help="of holding them")
    parser.add_argument("--examples", type=int, default=6, help="of schemathesis, per operation")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp())
    hostile.make_sound(folder / "sound")
    names = ["sound", *hostile.make_all(folder / "sound", folder)]
    variables = {TOKEN_VARIABLE: TOKEN}
    try:
        with BridgeServer(folder, *SMALL_IMAGES, variables=variables) as server:
            server.client.headers.update(HEADERS)
            return int(not _attack(server, names, options))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _attack(server: BridgeServer, names: list[str], options: argparse.Namespace) -> bool:
    from tests.pp_bridge.test_openapi import hold_to_document

    port = int(server.address.rpartition(":")[2])
    attack = Attack(server)

    def abandon_many() -> Counter[str]:
        sent: Counter[str] = Counter()
        for k in range(44):
            abandon(port, "GET", f"/datasets/{names[k]}/report")
            abandon(port, "POST", "/collect/start", '{"output_dir": "a", "num_episodes": 1}')
            sent["reports and starts abandoned"] += 1
        time.sleep(options.seconds)
        return sent

    def visit_all() -> Counter[int]:
        return sum((visit(server.client, name) for name in names), Counter())

    with attack.asking():
        server.wait(lambda status: status["episodes"] > 0)
        results = [
            attack.phase("nothing", lambda: time.sleep(options.seconds)),
            attack.phase(
                "half-open connections",
                lambda: half_open(port, options.connections, options.seconds),
            ),
            attack.phase("abandoned reports", abandon_many),
            attack.phase(f"{len(names) - 1} hostile datasets", visit_all),
            attack.phase("fuzzed requests", lambda: fuzz(port, names, options.requests, seed=1)),
            attack.phase(
                "schemathesis", lambda: hold_to_document(server, HEADERS, options.examples)
            ),
            attack.phase("nothing", lambda: time.sleep(options.seconds)),
        ]
    status = Path(f"/proc/{server.web_process}/status").read_text()
    print("memory of the web's process at most:", status.split("VmHWM:")[1].splitlines()[0].strip())
    return all(results)


if __name__ == "__main__":
    sys.exit(main())
