"""The HTTP half of a witness (tlog-witness v1.0.0), over whatever judges the requests.

``POST <prefix>/add-checkpoint`` and, for monitors, ``GET <prefix>/<hex SHA-256(origin)>/checkpoint``.
Statuses, bodies and content types are the protocol's; 503 says that the witness cannot cosign now.
"""

from __future__ import annotations

from typing import Protocol

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from ledger.formats.witness import MAX_REQUEST, TEXT_TYPE, Answer

RETRY_S = "5"


class Witnessing(Protocol):
    """A witness, e.g. a ``StandingWitness``. Called from several threads."""

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer a request."""
        ...

    def newest(self, path: str) -> bytes | None:
        """The newest checkpoint cosigned of a log, or None."""
        ...


def add_witness_routes(app: FastAPI, witness: Witnessing, prefix: str = "") -> None:
    """Add the two routes below a prefix that begins with a slash, or is empty."""

    @app.post(f"{prefix}/add-checkpoint")
    async def add_checkpoint(request: Request) -> Response:
        answer = await run_in_threadpool(witness.add_checkpoint, await _body(request))
        # Given as a header, since the framework adds a charset to every text type that it is told.
        headers = {"content-type": answer.content_type}
        if answer.status == 503:
            headers["retry-after"] = RETRY_S
        return Response(answer.body, answer.status, headers=headers)

    @app.get(f"{prefix}/{{origin}}/checkpoint")
    async def newest(origin: str) -> Response:
        note = await run_in_threadpool(witness.newest, f"{origin}/checkpoint")
        headers = {"content-type": TEXT_TYPE, "cache-control": "no-store"}
        if note is None:
            return Response(b"nothing was cosigned of such a log\n", 404, headers=headers)
        return Response(note, headers=headers)


async def _body(request: Request) -> bytes:
    """A body up to one byte more than a request may have: the judge refuses that one."""
    data = b""
    async for part in request.stream():
        data += part[: MAX_REQUEST + 1 - len(data)]
        if len(data) > MAX_REQUEST:
            break
    return data
