"""The log as tiles (c2sp.org/tlog-tiles v0.1.0): ``<url>/checkpoint`` and ``<url>/tile/...``.

Checkpoint and hash tiles are public: they tell the size of the log and nothing of what it says. Bundles
of entries are for members, as entries are everywhere; their requests are signed. The checkpoint is the
newest final one, so that whoever asks for a quorum finds it; before the first, the newest signed one.

Promise: a tile is served once a signed checkpoint covers all of it, and never changes. It is read
from the store (``StoredTiles``); no tree is held for it.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from coordinator.sequencing.sequencer import Sequencer
from ledger.copies.stored_tiles import StoredTiles
from ledger.errors import MalformedInput, OutsideTree
from ledger.formats.checkpoint import log_verifier
from ledger.formats.tiles import Tile
from ledger.formats.tlog_policy import format_policy
from ledger.rules.outside_policy import outside_policy

NOTE_TYPE = "text/plain; charset=utf-8"
TILE_TYPE = "application/octet-stream"
FOR_ALL = "public, max-age=31536000, immutable"
FOR_MEMBERS = "private, max-age=31536000, immutable"
"""A cache that others share must not keep what a signed request was needed for."""


def add_tiles(
    app: FastAPI, sequencer: Sequencer, tiles: StoredTiles, member: Callable[[Request], str]
) -> None:
    """Add the routes.

    Args:
        app: gets them.
        sequencer: owns the log.
        tiles: of the log's store.
        member: lets a signed request in, or raises.
    """

    @app.get("/checkpoint")
    async def tlog_checkpoint() -> Response:
        view = sequencer.view
        return Response(view.final_note or view.note, media_type=NOTE_TYPE)

    @app.get("/tile/entries/{place:path}")
    async def entries(request: Request, place: str) -> Response:
        member(request)
        return await answer(f"tile/entries/{place}", FOR_MEMBERS)

    @app.get("/tile/{level}/{place:path}")
    async def hashes(level: str, place: str) -> Response:
        return await answer(f"tile/{level}/{place}", FOR_ALL)

    @app.get("/v1/policy")
    async def policy() -> Response:
        view = sequencer.view
        log = log_verifier(sequencer.origin, bytes.fromhex(view.state.log_key.public))
        text = outside_policy(view.state, view.final_size, log, note=view.final_note)
        return Response(format_policy(text), media_type=NOTE_TYPE)

    async def answer(path: str, cache: str) -> Response:
        size = sequencer.view.size
        try:
            tile = Tile.parse(path)
        except MalformedInput:
            # No file has such a name; for a reader of static files it is simply not there.
            raise OutsideTree(f"a file {path[:80]!r}", size) from None
        data = await run_in_threadpool(tiles.read, tile, size)
        return Response(data, media_type=TILE_TYPE, headers={"cache-control": cache})
