"""Connections that send or read too slowly, and those of others meanwhile."""

import asyncio
import contextlib
import socket
import threading
import time

import httpx
import pytest
import uvicorn

from pp_bridge import connections
from pp_bridge.connections import BoundedProtocol
from tests.pp_bridge.server import TIMEOUT, WebServer

PATIENCE = 0.5  # s


async def app(scope, receive, send):
    """Answer with many bytes, late, or at once."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/late":
        await send({"type": "http.response.body", "body": b"later", "more_body": True})
        await asyncio.sleep(4 * PATIENCE)
    for _ in range(200 if scope["path"] == "/large" else 1):
        await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE", PATIENCE)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=BoundedProtocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture
def connect():
    """Open connections that end with the test."""
    with contextlib.ExitStack() as stack:

        def open_one(port: int, sent: bytes = b"") -> socket.socket:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT))
            client.sendall(sent)
            return client

        yield open_one


def send_for_ever(client: socket.socket, drop: bytes) -> None:
    """Send drops until the server, when it has gone, answers with a reset."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        client.sendall(drop)
        time.sleep(PATIENCE / 5)


def ends(client: socket.socket) -> bool:
    """Return whether the server ends a connection; what it says before does not matter."""
    with contextlib.suppress(ConnectionError):
        while client.recv(1 << 20):
            pass
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
def test_half_a_request_is_not_waited_for(port, connect, sent):
    assert ends(connect(port, sent))


def test_a_request_in_drops_is_not_waited_for(port, connect):
    client = connect(port, b"GET / HTTP/1.1\r\n")
    with pytest.raises(ConnectionError):
        send_for_ever(client, b"X: y\r\n")


def test_who_does_not_read_is_not_waited_for(port):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionError):
            send_for_ever(client, b"x")


def test_an_answer_may_take_its_time(port):
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT) as client:
        assert client.get("/late").status_code == 200
        for _ in range(3):
            time.sleep(PATIENCE / 2)
            assert client.get("/").status_code == 200
        assert len(client.get("/large").content) == 20_000_000


def test_the_newest_connection_always_finds_a_place(port, connect):
    served = [connect(port, b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(5)]
    assert all(client.recv(12) == b"HTTP/1.1 200" for client in served)
    for _ in range(100):
        with contextlib.suppress(ConnectionError):  # it may have had to make room already
            connect(port, b"GET / HT")
    assert httpx.get(f"http://127.0.0.1:{port}/", timeout=TIMEOUT).status_code == 200
    for client in served:
        with client.makefile("rb") as answer:
            assert sum(map(len, iter(answer.readline, b"0\r\n"))) > 100_000, "it owed nothing"


def test_where_all_are_served_the_newest_connection_still_finds_a_place(port, connect):
    for _ in range(25):
        assert connect(port, b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n").recv(12)
    assert httpx.get(f"http://127.0.0.1:{port}/", timeout=TIMEOUT).status_code == 200


def test_more_connections_than_files_end_no_answer_and_fill_no_log(tmp_path, capfd, connect):
    with WebServer(tmp_path, token="t" * 16, open_files=512) as web:
        assert web.client.get("/healthz").status_code == 200
        head = b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
        parts = [head, head + b"\r\n{"]
        for number in range(700):
            with contextlib.suppress(ConnectionError):
                connect(web.port, parts[number % 2])
        for _ in range(5):
            assert httpx.get(f"{web.address}/healthz", timeout=TIMEOUT).status_code == 200
            assert web.client.get("/collect/status").status_code == 200
        for _ in range(100):
            assert ends(connect(web.port, b"no HTTP\r\n\r\n"))
    assert len(capfd.readouterr().err) < 80_000  # a line for each would be more
