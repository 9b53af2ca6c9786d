"""The web's process: it runs beside the simulator's, at lower priority so as not to slow it."""

import asyncio
import errno
import logging
import multiprocessing
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from pp_bridge import logs
from pp_bridge.settings import WebSettings
from pp_bridge.shared_state import MAX_VIEWERS, SharedState
from pp_recorder.parallel.processes import stop_signals_held_back

_NICE = 10
_OF_PARENT = (signal.SIGHUP, signal.SIGINT)  # it handles them, and ends this process by SIGTERM
_CONTEXT = multiprocessing.get_context("spawn")
_LOG = logging.getLogger("pp_bridge.web_process")
_REASONS = {  # why an address can't be had, and what would work
    errno.EADDRINUSE: "another program uses it; choose another port",
    errno.EACCES: "this user may not use it; choose a port from 1024 to 65535",
    errno.EADDRNOTAVAIL: "this machine has no such address; try 127.0.0.1, or 0.0.0.0 for all",
}


class StartError(OSError):
    """A service can't start where it was asked to; the message says what would work."""


class WebProcess:
    """The running process, which ends whenever its parent does, killed or not.

    Args:
        shared_state: Source of images and status.
        settings: Addresses, ports, token and folder.

    Attributes:
        commands: Connection that yields `BridgeCommand`s and takes `Reply`s.
        port: TCP port it listens on.

    Raises:
        StartError: The port is taken.
    """

    def __init__(self, shared_state: SharedState, settings: WebSettings) -> None:
        listener = _listen(settings.host, settings.port)
        self.port: int = listener.getsockname()[1]
        self.commands, child_commands = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_serve,
            args=(shared_state, settings, listener, child_commands),
            name="web",
            daemon=True,
        )
        # The child owns listener and commands from here on.
        with listener, child_commands, stop_signals_held_back(_OF_PARENT):
            self._process.start()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def close(self) -> None:
        """End the process once it has answered pending requests; a second call has no effect."""
        self._process.terminate()
        self._process.join()


class MediaLoop(asyncio.SelectorEventLoop):
    """An event loop that binds UDP sockets to a fixed range of ports, for firewalls.

    Args:
        ports: The range.
    """

    def __init__(self, ports: range) -> None:
        super().__init__()
        self._ports = ports

    async def create_datagram_endpoint(
        self, protocol_factory: Any, local_addr: Any = None, *args: Any, **options: Any
    ) -> Any:
        """Create an endpoint as usual, but take port 0 for the first free port of the range."""
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
        reason = _REASONS.get(error.errno or 0, f"{error.strerror}")
        raise StartError(f"can't listen on {host} port {port}: {reason}") from error


def _serve(
    shared_state: SharedState, settings: WebSettings, listener: socket.socket, commands: Connection
) -> None:
    """Run the process: serve HTTP until SIGTERM."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for number in _OF_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_PARENT)
    os.nice(_NICE)
    logs.set_up()
    import uvicorn

    from pp_bridge import api
    from pp_bridge.catalog import DatasetCatalog
    from pp_bridge.connections import BACKLOG, BoundedProtocol, QueueingServer
    from pp_bridge.messages import BridgeCommand, Reply

    sender = ThreadPoolExecutor(1, "sender")  # one at a time: a reply belongs to the newest command

    def exchange(command: BridgeCommand) -> Reply:
        try:
            commands.send(command)
            return commands.recv()
        except (EOFError, OSError):
            return Reply("unavailable", "the service is ending", {})

    async def send_command(command: BridgeCommand) -> Reply:
        if shared_state.status()["state"] == "starting":
            return Reply("unavailable", "the simulator is starting; try again later", {})
        return await asyncio.get_running_loop().run_in_executor(sender, exchange, command)

    app = api.make_app(shared_state, settings.token, local_only=settings.token is None)
    if settings.root is not None:
        api.add_collection(
            app,
            shared_state,
            settings.token,
            DatasetCatalog(settings.root),
            send_command,
            settings.scene,
        )
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",  # none is served, so such a request is one by HTTP and checked like it
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    first = settings.first_media_port
    loop = MediaLoop(range(first, first + MAX_VIEWERS))
    asyncio.set_event_loop(loop)
    loop.run_until_complete(QueueingServer(config).serve(sockets=[listener]))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
