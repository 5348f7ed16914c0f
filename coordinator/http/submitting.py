"""Handing in an entry: the one request that is made all day, on a short way.

Resolving and validating a handler's arguments costs about as much as judging an entry does. This one
has no query, no path parameter and no fields, and its body is judged by the sequencer; so it is a
plain ASGI application behind its route.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future

import orjson
from starlette.types import Receive, Scope, Send

from coordinator.errors import BodyTooLarge
from coordinator.sequencing.sequencer import Sequencer
from ledger.entries.entry import MAX_LEAF
from ledger.errors import MalformedInput
from ledger.exchange.messages import Receipt


class SubmittedEntries:
    """Takes a leaf; answers with its receipt. Refusals are raised for ``answers`` to word."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer
        self._answers = _Answers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        leaf = await _body(scope["headers"], receive)
        receipt = await self._answers.of(self._sequencer.submit(leaf))
        answer = orjson.dumps(
            {
                "index": receipt.index,
                "applied": receipt.applied,
                "reason": receipt.reason,
                "receipt": receipt.receipt.decode(),
            }
        )
        headers = [
            (b"content-length", b"%d" % len(answer)),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class _Answers:
    """Answers of the sequencer's thread for those who wait in the loop: one wake-up for a batch."""

    def __init__(self) -> None:
        self._ready: deque[tuple[asyncio.Future[Receipt], Future[Receipt]]] = deque()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def of(self, answer: Future[Receipt]) -> asyncio.Future[Receipt]:
        """What to await in the running loop for an answer."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # the loop before, if there was one, was closed
            self._loop, self._ready, self._woken = loop, deque(), False
        waiting: asyncio.Future[Receipt] = loop.create_future()

        def ready(done: Future[Receipt]) -> None:
            self._ready.append((waiting, done))
            if not self._woken and not loop.is_closed():
                self._woken = True
                loop.call_soon_threadsafe(self._hand_out)

        answer.add_done_callback(ready)
        return waiting

    def _hand_out(self) -> None:
        self._woken = False  # before looking: what comes from now on wakes us again
        while self._ready:
            waiting, done = self._ready.popleft()
            if waiting.done():  # whoever waited has gone
                continue
            error = done.exception()
            if error is None:
                waiting.set_result(done.result())
            else:
                waiting.set_exception(error)


async def _body(headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes:
    """Read a body, never more than a leaf."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > MAX_LEAF:
            raise BodyTooLarge(MAX_LEAF)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedInput("entry", "the connection ended before its last byte")
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_LEAF:
            raise BodyTooLarge(MAX_LEAF)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
