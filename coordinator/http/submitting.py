"""Handing in an entry: the one request that is made all day, on a short way.

Resolving and validating a handler's arguments costs about as much as judging an entry does. This one
has no query, no path parameter and no fields, and its body is judged by the sequencer; so it is a
plain ASGI application behind its route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import orjson
from starlette.types import Receive, Scope, Send

from coordinator.errors import BodyTooLarge
from coordinator.sequencing.sequencer import Sequencer
from ledger.entries.entry import MAX_LEAF
from ledger.errors import MalformedInput


class SubmittedEntries:
    """Takes a leaf; answers with its receipt. Refusals are raised for ``answers`` to word."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        leaf = await _body(scope["headers"], receive)
        receipt = await asyncio.wrap_future(self._sequencer.submit(leaf))
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
