"""The web's process: beside the simulator's and at lower priority, so that it costs it nothing."""

import asyncio
import ipaddress
import logging
import multiprocessing
import os
import socket
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pp_bridge import logs
from pp_bridge.shared_state import MOST_VIEWERS, SharedState

TOKEN_VARIABLE = "PP_BRIDGE_TOKEN"

_NICE = 10
_TOKEN_FROM = 16  # characters
_CONTEXT = multiprocessing.get_context("spawn")
_LOG = logging.getLogger("pp_bridge.web_process")


@dataclass(frozen=True)
class WebSettings:
    """What the web's process is told.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 is any.
        first_media_port: The first of `MOST_VIEWERS` UDP ports.
        token: Who has it may do everything; None lets in everybody who reaches the port.
        root: The folder that holds all datasets; None shows the cameras and nothing else.
    """

    host: str
    port: int
    first_media_port: int
    token: str | None
    root: Path | None


def is_local(host: str) -> bool:
    """Whether only this machine can reach a host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_token(token: str | None, host: str) -> None:
    """Checks that a service on `host` has the token it needs.

    Raises:
        ValueError: It has none, or one that can be guessed.
    """
    if token is None and not is_local(host):
        raise ValueError(
            f"on {host} everybody could use the service: put a token into the environment "
            f"variable {TOKEN_VARIABLE}, or keep to --host 127.0.0.1"
        )
    if token is not None and (len(token) < _TOKEN_FROM or not token.isascii()):
        raise ValueError(
            f"the token must have at least {_TOKEN_FROM} ASCII characters, got {len(token)}; "
            "try 'openssl rand -hex 32'"
        )


def require_library() -> None:
    """Checks that the extra [bridge] is installed.

    Raises:
        ImportError: It is not.
    """
    missing = [
        name
        for name in ("aiortc", "fastapi", "prometheus_client", "uvicorn")
        if not find_spec(name)
    ]
    if missing:
        raise ImportError(f"this needs {missing}; try 'pip install \"franka-pick-place[bridge]\"'")


def require_ports(first: int) -> None:
    """Checks the UDP ports of the live view.

    Raises:
        ValueError: There are no such ports.
    """
    if not 1024 <= first <= 65536 - MOST_VIEWERS:
        raise ValueError(
            f"the streaming port must be from 1024 to {65536 - MOST_VIEWERS}, because "
            f"{MOST_VIEWERS} ports from there on are used, got {first}"
        )


class WebProcess:
    """The running process; it ends with the one that has started it, however that ends.

    Args:
        board: What it shows.
        settings: What it is told.

    Attributes:
        commands: Where requests come from and replies go to.
        port: Where it listens.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, board: SharedState, settings: WebSettings) -> None:
        listener = _listen(settings.host, settings.port)
        self.port: int = listener.getsockname()[1]
        self.commands, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_serve, args=(board, settings, listener, theirs), name="web", daemon=True
        )
        with listener, theirs:  # they are the child's from here on
            self._process.start()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    def close(self) -> None:
        """Ends it, after it has answered what it is asked; a second call has no effect."""
        self._process.terminate()
        self._process.join()


class MediaLoop(asyncio.SelectorEventLoop):
    """An event loop whose UDP sockets on any port are on one of these, for firewalls.

    Args:
        ports: The ports.
    """

    def __init__(self, ports: range) -> None:
        super().__init__()
        self._ports = ports

    async def create_datagram_endpoint(
        self, protocol_factory: Any, local_addr: Any = None, *args: Any, **options: Any
    ) -> Any:
        """As always, but port 0 is the first free one of the range."""
        if local_addr is None or local_addr[1] != 0:
            return await super().create_datagram_endpoint(
                protocol_factory, local_addr, *args, **options
            )
        host, reasons = local_addr[0], []
        for port in self._ports:
            try:
                return await super().create_datagram_endpoint(
                    protocol_factory, (host, port), *args, **options
                )
            except OSError as error:
                reasons.append(error)
        raise OSError(f"no UDP port of {self._ports} is free on {host}: {reasons[0]}")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(f"can't listen on {host} port {port}: {error.strerror}") from error


def _serve(
    board: SharedState, settings: WebSettings, listener: socket.socket, commands: Connection
) -> None:
    """What the process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICE)
    logs.set_up()
    import uvicorn

    from pp_bridge import api
    from pp_bridge.catalog import DatasetCatalog
    from pp_bridge.messages import Command, Reply

    lock = threading.Lock()

    def ask(command: Command) -> Reply:
        if board.status()["state"] == "starting":
            return Reply("unavailable", "the simulator is starting; try again later", {})
        try:
            with lock:  # one at a time: replies come in the order of requests
                commands.send(command)
                return commands.recv()
        except (EOFError, OSError):
            return Reply("unavailable", "the service is ending", {})

    app = api.make_app(board, settings.token, local_only=settings.token is None)
    if settings.root is not None:
        api.add_collection(app, board, settings.token, DatasetCatalog(settings.root), ask)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=2
    )
    first = settings.first_media_port
    loop = MediaLoop(range(first, first + MOST_VIEWERS))
    asyncio.set_event_loop(loop)
    loop.run_until_complete(uvicorn.Server(config).serve(sockets=[listener]))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
