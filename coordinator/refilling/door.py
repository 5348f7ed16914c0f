"""The coordinator's address while its database is refilled: members' nodes bring what they hold.

Nodes only ever call out, so nobody is asked: whoever follows is told that a refill is under way, and a
node then offers its copy on its own. An upload of entries must carry a checkpoint by this log's own key,
which is judged before a single entry is read; requests are signed by members as soon as the refilled
log knows them. A blob is taken only where an entry that is back names it, with a length that an entry
states (``refilling/wanted.py``), and within what a member may bring at any time: so much a day, so much that is not
whole, and nothing of the room that the log needs. What counts as shown is a node's own signed request. Everything else is answered
``Refilling``, and nobody's entry is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from coordinator.errors import BodyTooLarge, Refilling
from coordinator.http.answers import json_answer, refuse_in_json
from coordinator.http.requests import SignedBodies, signed_by, take_body, take_part
from coordinator.refilling.refill import Refill
from ledger.copies.leaves import read_leaves
from ledger.errors import MalformedInput, UnknownKey
from ledger.exchange.http_auth import NonceCache
from ledger.exchange.messages import CHUNK, MAX_ANSWER
from ledger.formats.note import MAX_NOTE
from ledger.formats.strict import decode_b64

WANTED_AT_ONCE = 500

_log = structlog.get_logger("coordinator.refilling")


def create_door(refill: Refill, on_progress: Callable[[], None]) -> FastAPI:
    """The application.

    Args:
        refill: under way; the caller closes it.
        on_progress: called after each node that has shown its copy.
    """
    app = FastAPI(title="Consilium refill", docs_url=None, redoc_url=None, openapi_url=None)
    refuse_in_json(app)
    nonces = NonceCache()
    bodies = SignedBodies(nonces)
    one_at_a_time = threading.Lock()

    def member(request: Request, body: bytes, *, known: bool = True) -> str | None:
        """Who signed; None for somebody whom the log does not know up to here, where allowed."""
        try:
            return signed_by(refill.replica.state, nonces, request, body)
        except UnknownKey:
            if known or "signature" not in request.headers:
                raise
            return None

    def guarded(work: Callable[[], Any]) -> Any:
        with one_at_a_time:
            return work()

    def position(after: str = "") -> dict[str, Any]:
        wanted = sorted(name for name in refill.wanted() if name > after)[:WANTED_AT_ONCE]
        size, final = refill.replica.size, refill.replica.final.size
        return {"size": size, "final": final, "wanted": wanted}

    @app.get("/v1/refill")
    async def held(after: str = Query("", max_length=64)) -> Response:
        return json_answer(await run_in_threadpool(guarded, lambda: position(after)))

    @app.post("/v1/refill")
    async def entries(request: Request) -> Response:
        body = await take_body(request, MAX_ANSWER)
        handle = member(request, body, known=False)
        first, leaves, note, finals = _offered(body)

        def take() -> dict[str, Any]:
            if note is not None:
                refill.claim(note)
                if first != refill.replica.size:
                    return position()
                refill.extend([decode_b64(leaf, "refill.leaves") for leaf in leaves], note)
            refill.accept_finals(finals)
            return position()

        answer = await run_in_threadpool(guarded, take)
        _log.info("refilled", by=handle, size=answer["size"])
        return json_answer(answer)

    @app.post("/v1/refill/shown")
    async def shown(request: Request) -> Response:
        note = await take_body(request, MAX_NOTE)
        handle = member(request, note)

        def show() -> None:
            refill.show(handle or "", note or None)

        await run_in_threadpool(guarded, show)
        _log.info("shown", by=handle, size=refill.replica.size)
        on_progress()
        return Response(status_code=204)

    @app.head("/v1/blobs/{sha256}")
    async def head(request: Request, sha256: str) -> Response:
        member(request, b"")
        size = refill.blobs.size(sha256)
        if size is None:
            offset = refill.blobs.open_upload(sha256).offset
            return Response(status_code=404, headers={"upload-offset": str(offset)})
        return Response(headers={"content-length": str(size)})

    @app.put("/v1/blobs/{sha256}")
    async def put(
        request: Request, sha256: str, offset: int = Query(ge=0), total: int = Query(ge=0)
    ) -> Response:
        if total > refill.blobs.limit:
            raise BodyTooLarge(refill.blobs.limit)
        handle, data = await bodies.take(refill.replica.state, request, CHUNK)
        needed = await run_in_threadpool(
            guarded, lambda: refill.needs_part(sha256, offset, total, len(data))
        )
        if not needed:
            return json_answer({"offset": total}, 201)
        return await take_part(refill.uploads, refill.blobs, handle, sha256, offset, total, data)

    @app.get("/v1/genesis")
    async def genesis() -> Response:
        return Response(
            next(read_leaves(refill.replica.store, 0, 1)), media_type="application/octet-stream"
        )

    @app.get("/healthz")
    async def healthz() -> Response:
        return json_answer({"alive": True})

    @app.get("/readyz")
    async def readyz() -> Response:
        now = refill.standing
        why = str(Refilling(size=now.size, signed=now.signed, awaited=now.awaited))
        return json_answer({"ready": False, "size": now.size, "stopped": why}, 503)

    @app.api_route("/{anything:path}", methods=["GET", "POST", "PUT", "HEAD", "DELETE"])
    async def otherwise(anything: str) -> Response:
        now = refill.standing
        raise Refilling(size=now.size, signed=now.signed, awaited=now.awaited)

    return app


def _offered(body: bytes) -> tuple[int, list[str], bytes | None, list[bytes]]:
    try:
        plain = orjson.loads(body)
        first, leaves, note, finals = (
            plain["from"],
            plain["leaves"],
            plain["checkpoint"],
            plain["finals"],
        )
        fits = isinstance(first, int) and isinstance(note, str | None)
        fits = fits and all(isinstance(each, str) for each in [*leaves, *finals])
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise MalformedInput("refill", "it is not in the format: from, leaves, checkpoint, finals")
    return first, leaves, None if note is None else note.encode(), [f.encode() for f in finals]
