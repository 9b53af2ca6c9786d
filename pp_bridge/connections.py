"""Connections that take no place from others: bounded in number, and in the time of a request.

uvicorn closes idle connections alone. Its `limit_concurrency` would refuse everybody for as long as
one client holds that many connections, so a place is made for the newest one here instead.
"""

import asyncio
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256  # each may have a file open, too, and 1,024 open files are usual
BACKLOG = 64  # asyncio accepts that many before it reads from one of them
QUEUE = 1024  # connections that wait in the kernel; where it is full, clients try again after 1 s
PATIENCE = 20.0  # s for a client to send a whole request, or to read on


class QueueingServer(uvicorn.Server):
    """uvicorn, which takes one number for `BACKLOG` and `QUEUE`, with both."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUE)


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a limit on connections, and on the time in which a client is idle.

    Whoever owes the rest of a request, or does not read the answer, is disconnected after
    `PATIENCE`. Beyond `MAX_CONNECTIONS`, one makes room: of those that never sent a whole request
    the oldest, else of those that owe the next one, else of those that are being served.
    """

    _is_served: bool | None = None
    _is_stalled = False
    _since = 0.0
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Take a connection, and make room for it."""
        super().connection_made(transport)
        self._update()
        while len(self.connections) > MAX_CONNECTIONS:
            others: Any = self.connections - {self}
            min(others, key=BoundedProtocol._place).give_up()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._is_stalled = True
        self._update()

    def resume_writing(self) -> None:
        """Go on, as the client has read."""
        super().resume_writing()
        self._is_stalled = False
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_clock()
        super().connection_lost(exc)

    def give_up(self) -> None:
        """End the connection at once."""
        self._stop_clock()
        self.connections.discard(self)
        self.transport.abort()

    def _place(self) -> tuple[bool, bool, float]:
        """Return what orders the connections: the first makes room."""
        return bool(self._is_served), self.cycle is not None, self._since

    def _update(self) -> None:
        """Let the clock run while the next step is the client's."""
        is_complete = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        is_answered = self.cycle is None or self.cycle.response_complete
        is_served = is_complete and not is_answered and not self._is_stalled
        if is_served == self._is_served:
            return
        self._is_served, self._since = is_served, self.loop.time()
        self._stop_clock()
        if not is_served:
            self._clock = self.loop.call_later(PATIENCE, self.give_up)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
