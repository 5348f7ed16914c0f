"""The HTTP API: what members and strangers may ask of a coordinator.

Public: genesis, checkpoints, proofs, hash tiles, the policy file, health. Entries and cosignatures authenticate themselves.
Everything else needs a request signed by a member who is not revoked (``ledger.exchange.http_auth``), each
let in once. Bodies have limits, checked before they are read to the end. Handlers hold nothing: all
that lasts is in the log and the blob store.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from fastapi import FastAPI, Query, Request, Response
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.errors import AccessDenied, BehindItsLog, BodyTooLarge
from coordinator.http import read_models
from coordinator.http.access import is_erased, may_read, refuse_erased
from coordinator.http.answers import json_answer, refuse_in_json
from coordinator.http.metrics import CONTENT_TYPE, Metrics
from coordinator.http.presence import Presence
from coordinator.http.requests import SignedBodies, signed_by, take_body, take_part
from coordinator.http.submitting import SubmittedEntries
from coordinator.http.tiles import add_tiles
from coordinator.http.tls import days_left
from coordinator.http.uploads import Uploads
from coordinator.rounds.agreed_clock import AgreedClock
from coordinator.sequencing.sequencer import Sequencer
from coordinator.sequencing.waking import Waker, wait_for
from ledger.copies.blobs import BlobStore
from ledger.copies.stored_tiles import StoredTiles
from ledger.entries.cards import MAX_CARD
from ledger.entries.operations.experiments import ModelDownloaded
from ledger.errors import MalformedInput, OutsideTree
from ledger.exchange.http_auth import NonceCache
from ledger.exchange.messages import CHUNK, LEAF_TYPE
from ledger.formats.merkle import MAX_SIZE
from ledger.formats.strict import encode_b64
from ledger.formats.witness import MAX_REQUEST
from ledger.rules.finality import standing_quorum

LONGEST_WAIT_S = 30.0
SMALL_BLOB = 1024 * 1024
"""Blobs up to this size are read in one piece."""
NOTE_TYPE = "text/plain; charset=utf-8"
_RANGE = re.compile(r"bytes=([0-9]{1,15})-")


@dataclass(frozen=True, slots=True)
class Services:
    """What the API stands on."""

    sequencer: Sequencer
    blobs: BlobStore
    waker: Waker
    metrics: Metrics
    nonces: NonceCache
    uploads: Uploads
    tiles: StoredTiles
    presence: Presence = field(default_factory=Presence)
    clock: AgreedClock = field(default_factory=AgreedClock)
    rounds: Callable[[], str | None] = lambda: None
    """Why no round moves, or None."""
    certificate_ends: datetime | None = None
    """When the TLS certificate that is served ends; None where it is not served here."""


def create_app(services: Services) -> FastAPI:
    """The application over these services, which the caller starts and closes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services.waker.attach(asyncio.get_running_loop())
        services.sequencer.on_change(services.waker.wake)
        yield
        services.waker.close()

    app = FastAPI(
        title="Consilium coordinator",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    refuse_in_json(app)
    _add_log(app, services)
    add_tiles(
        app, services.sequencer, services.tiles, lambda request: _member(services, request, b"")
    )
    _add_blobs(app, services)
    _add_state(app, services)
    app.add_middleware(_Outside, metrics=services.metrics)
    return app


def _add_log(app: FastAPI, services: Services) -> None:
    sequencer = services.sequencer
    app.router.routes.append(
        Route("/v1/entries", SubmittedEntries(sequencer), methods=["POST"], name="entries")
    )

    @app.get("/v1/genesis")
    async def genesis() -> Response:
        return Response(await run_in_threadpool(sequencer.genesis), media_type=LEAF_TYPE)

    @app.get("/v1/log")
    async def log(
        request: Request,
        size: int = Query(ge=0, le=MAX_SIZE),
        final: int = Query(0, ge=0, le=MAX_SIZE),
        wait: float = Query(0.0, ge=0.0, le=LONGEST_WAIT_S),
    ) -> Response:
        services.presence.note(_member(services, request, b""))
        ends = asyncio.get_running_loop().time() + wait
        while True:
            ticket = services.waker.ticket()
            view = sequencer.view
            if size > view.size:
                raise BehindItsLog(held=view.size, asked=size)
            news = sequencer.feed.recent(size, final, end=view.size, final_size=view.final_size)
            if news is None:
                news = await run_in_threadpool(sequencer.feed.stored, size, final)
            left = ends - asyncio.get_running_loop().time()
            if not news.empty or left <= 0 or services.waker.closing:
                break
            await wait_for(ticket, left)
        return json_answer(
            {
                "from": news.first,
                "leaves": [encode_b64(leaf) for leaf in news.leaves],
                "checkpoint": None if news.checkpoint is None else news.checkpoint.decode(),
                "finals": [note.decode() for note in news.finals],
            }
        )

    @app.post("/v1/cosignatures")
    async def cosignatures(request: Request, size: int = Query(ge=1, le=MAX_SIZE)) -> Response:
        lines = await take_body(request, MAX_REQUEST)
        await asyncio.wrap_future(sequencer.cosign(size, lines))
        return Response(status_code=204)

    @app.get("/v1/checkpoint")
    async def checkpoint() -> Response:
        return Response(sequencer.checkpoint(), media_type=NOTE_TYPE)

    @app.post("/v1/checkpoint")
    async def examine(request: Request) -> Response:
        note = await take_body(request, MAX_REQUEST)
        await asyncio.wrap_future(sequencer.examine(note))
        return Response(status_code=204)

    @app.get("/v1/checkpoint/final")
    async def final_checkpoint() -> Response:
        note = sequencer.view.final_note
        if note is None:
            raise OutsideTree("a final checkpoint beyond genesis", sequencer.view.size)
        return Response(note, media_type=NOTE_TYPE)

    @app.get("/v1/proofs/inclusion")
    async def inclusion(index: int = Query(ge=0), size: int = Query(ge=1)) -> Response:
        _within(size, sequencer.view.size)
        return _hashes(sequencer.inclusion(index, size))

    @app.get("/v1/proofs/consistency")
    async def consistency(old: int = Query(ge=1), new: int = Query(ge=1)) -> Response:
        _within(new, sequencer.view.size)
        return _hashes(sequencer.consistency(old, new))


def _add_blobs(app: FastAPI, services: Services) -> None:
    sequencer, blobs = services.sequencer, services.blobs
    bodies = SignedBodies(services.nonces)

    @app.head("/v1/blobs/{sha256}")
    async def head(request: Request, sha256: str) -> Response:
        _member(services, request, b"")
        offset = blobs.open_upload(sha256).offset
        size = blobs.size(sha256)
        if size is None:
            return Response(status_code=404, headers={"upload-offset": str(offset)})
        return Response(headers={"content-length": str(size)})

    @app.put("/v1/blobs/{sha256}")
    async def put(
        request: Request, sha256: str, offset: int = Query(ge=0), total: int = Query(ge=0)
    ) -> Response:
        if total > blobs.limit:
            raise BodyTooLarge(blobs.limit)
        handle, data = await bodies.take(sequencer.view.state, request, CHUNK)
        if offset + len(data) > total:
            raise MalformedInput("blob", "the part ends beyond the total that it states")
        whole = data if len(data) == total else None
        if total <= MAX_CARD:
            refuse_erased(sequencer.view.state, sha256, whole)
        claims = whole is None or blobs.size(sha256) is None
        return await take_part(
            services.uploads, blobs, handle, sha256, offset, total, data, claims=claims
        )

    @app.get("/v1/blobs/{sha256}")
    async def get(request: Request, sha256: str) -> Response:
        reader = _member(services, request, b"")
        permit = may_read(sequencer.view.state, sequencer.history, reader, sha256)
        size = blobs.size(sha256)
        if is_erased(sequencer.view.state, sha256) and (size is None or size <= MAX_CARD):
            whole = None if size is None else b"".join(blobs.chunks(sha256))
            refuse_erased(sequencer.view.state, sha256, whole)
        if size is None:
            blobs.open_upload(sha256)
            return json_answer(
                {
                    "error": "BlobMissing",
                    "where": f"blob {sha256[:12]}",
                    "reason": "it is not here",
                },
                404,
            )
        start = _range_start(request, size)
        taking = [
            ModelDownloaded(type="model.downloaded", experiment=experiment, reader=reader)
            for experiment in permit.log_as
            if start == 0 or not sequencer.history.downloaded(experiment, reader)
        ]
        if taking:
            receipts = await asyncio.wrap_future(sequencer.say(*taking))
            if not all(receipt.applied for receipt in receipts):
                raise AccessDenied(f"blob {sha256[:12]}", "the model is no longer released")
        status = 206 if start else 200
        headers = {"content-range": f"bytes {start}-{size - 1}/{size}"} if start else {}
        if size - start <= SMALL_BLOB:
            data = b"".join(blobs.chunks(sha256, start))
            return Response(data, status, headers=headers, media_type=LEAF_TYPE)
        headers["content-length"] = str(size - start)
        stream = iterate_in_threadpool(blobs.chunks(sha256, start))
        return StreamingResponse(stream, status, headers=headers, media_type=LEAF_TYPE)


def _add_state(app: FastAPI, services: Services) -> None:
    sequencer = services.sequencer

    @app.get("/v1/state/summary")
    async def summary(request: Request) -> Response:
        _member(services, request, b"")
        return json_answer(read_models.summary(sequencer.view))

    @app.get("/v1/state/members")
    async def members(request: Request) -> Response:
        _member(services, request, b"")
        return json_answer(read_models.members(sequencer.view.state))

    @app.get("/v1/state/datasets")
    async def datasets(request: Request) -> Response:
        _member(services, request, b"")
        return json_answer(read_models.datasets(sequencer.view.state))

    @app.get("/v1/state/experiments")
    async def experiments(request: Request) -> Response:
        _member(services, request, b"")
        return json_answer(read_models.experiments(sequencer.view.state))

    @app.get("/v1/state/experiments/{experiment}")
    async def experiment(request: Request, experiment: str) -> Response:
        _member(services, request, b"")
        found = sequencer.view.state.experiments.get(experiment)
        if found is None:
            raise OutsideTree(f"experiment {experiment[:64]!r}", sequencer.view.size)
        return json_answer(read_models.experiment(sequencer.view.state, found))

    @app.get("/healthz")
    async def healthz() -> Response:
        return json_answer({"alive": True})

    @app.get("/readyz")
    async def readyz() -> Response:
        view = sequencer.view
        rounds = services.rounds()
        ready = view.stopped is None and rounds is None and not services.waker.closing
        trouble = standing_quorum(view.state, view.final_size).in_words
        content = {
            "ready": ready,
            "size": view.size,
            "stopped": view.stopped,
            "rounds": rounds,
            "certificate_days": days_left(services.certificate_ends),
            "quorum": trouble,
            "speaks": sequencer.speaks,
            "silent": services.presence.silent(view.state),
        }
        return json_answer(content, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(
            services.metrics.render(sequencer.view, days_left(services.certificate_ends)),
            media_type=CONTENT_TYPE,
        )


def _member(services: Services, request: Request, body: bytes) -> str:
    """The member who signed a request; see ``requests.signed_by``."""
    state = services.sequencer.view.state
    handle = signed_by(state, services.nonces, request, body)
    if handle != state.coordinator:
        services.clock.heard()
    return handle


def _range_start(request: Request, size: int) -> int:
    """The one form of range that our client sends: ``bytes=N-``."""
    stated = request.headers.get("range")
    if stated is None:
        return 0
    found = _RANGE.fullmatch(stated)
    if found is None or int(found[1]) >= size:
        raise MalformedInput("range", "only bytes=N- within the blob is understood")
    return int(found[1])


def _within(size: int, end: int) -> None:
    if size > end:
        raise OutsideTree(f"size {size}", end)


def _hashes(proof: tuple[bytes, ...]) -> Response:
    return json_answer({"hashes": [encode_b64(node) for node in proof]})


class _Outside:
    """The outermost layer: counts, and headers that every answer has."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-content-type-options", b"nosniff")]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            spent = time.perf_counter() - began
            self._metrics.count(scope["method"], route, status, spent)
