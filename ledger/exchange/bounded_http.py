"""A served HTTP connection that holds no more of this process than a request needs.

uvicorn reads whatever comes, as slowly as it comes: a head without end, thousands of requests at once, a
connection that never says a word. Each is a few bytes of work for a stranger, and memory or a file descriptor
here for ever, until nobody else gets in. `BoundedConnection` ends connections that do so.

Promise: what a request has beside its body is bounded, in bytes and in lines, before and behind the body;
so are the requests that wait on a connection. Whoever has begun a connection or a request and brings almost
nothing for `LOOK_S` seconds, at most twice as long, is let go, and whoever reads nothing of an answer for
`STUCK` times as long. Of more than `MOST_WAITED_FOR` connections on which it is the caller's turn, the one
that began first gives way to a new one, so that a request which comes at once gets in.

Not promised: to hold out against a flood as wide as the line; that is for whoever runs the network.
"""

from __future__ import annotations

import asyncio
import time

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 32 * 1024
"""Bytes of a request beside its body, and as many again as the body has: chunks have heads, too."""
MAX_LINES = 100
MAX_PIPELINED = 8
LOOK_S = 20.0
LEAST = 512
"""Bytes that somebody who is waited for brings in `LOOK_S` seconds."""
STUCK = 15
MOST_WAITED_FOR = 512


class BoundedConnection(HttpToolsProtocol):
    """See the module's first lines; uvicorn makes one for each connection (``Config(http=...)``)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins."""
        super().connection_made(transport)
        self._beside = self._came = self._unsent = self._stuck = 0
        self._since = time.monotonic()
        self._reading, self._fresh = True, False
        self._looking = self.loop.call_later(LOOK_S, self._look)
        if len(self.connections) > MOST_WAITED_FOR:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection has ended."""
        self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._came += len(data)
        self._beside += len(data)
        if not self._reading:
            self._reading, self._fresh, self._since = True, True, time.monotonic()
        super().data_received(data)
        self._beside = max(0, self._beside)
        if self._beside > MAX_HEAD or len(self.pipeline) > MAX_PIPELINED:
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of a head, or behind a body."""
        super().on_header(name, value)
        if len(self.headers) > MAX_LINES:
            raise ValueError("too many header lines")  # the parser refuses the request

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._beside -= 2 * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is here to its end."""
        self._beside = 0
        self._reading = False
        super().on_message_complete()

    @property
    def _idle(self) -> bool:
        """Whether nothing is under way; uvicorn ends such connections by itself, after longer."""
        return self.timeout_keep_alive_task is not None

    @property
    def _unread(self) -> bool:
        """Whether nothing was said yet, or not all of a request."""
        return self._reading and not self._idle and not self.flow.read_paused

    def _look(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._stuck = self._stuck + 1 if unsent and unsent == self._unsent else 0
        silent = self._unread and self._came < LEAST
        if self._stuck >= STUCK or (silent and not self._fresh):
            self.transport.abort()
            return
        # A request that began since the last look may have begun just now.
        self._unsent, self._came, self._fresh = unsent, 0, False
        self._looking = self.loop.call_later(LOOK_S, self._look)

    def _make_room(self) -> None:
        waited_for = [
            each
            for each in self.connections
            if isinstance(each, BoundedConnection)
            and (each._unread or each._idle or each.flow.write_paused)
        ]
        if len(waited_for) > MOST_WAITED_FOR:
            min(waited_for, key=lambda each: each._since).transport.abort()
