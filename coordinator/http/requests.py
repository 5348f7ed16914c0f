"""Reading requests: who signed one, its body within a limit, a part of a blob that it brings."""

from __future__ import annotations

import hashlib
import time
from collections import Counter

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from coordinator.errors import BodyTooLarge, Overloaded
from coordinator.http.answers import json_answer
from coordinator.http.uploads import Uploads
from ledger.copies.blobs import BlobStore
from ledger.errors import MalformedInput
from ledger.exchange.http_auth import Authenticated, NonceCache, request_key, verify
from ledger.rules.state import State

MOST_COMING = 8
"""Bodies that one member brings at a time; each may be as long as a part of a blob."""


def signed_by(state: State, nonces: NonceCache, request: Request, body: bytes) -> str:
    """The member who signed a request.

    Raises:
        UnknownKey, BadSignature: nobody did, or not well enough.
    """
    return _signed(state, nonces, request, body).handle


class SignedBodies:
    """Bodies of signed requests: a stranger brings nothing, a member a few at a time.

    The head is judged before the body is read. One owner, the event loop's thread.

    Args:
        nonces: of all requests.
    """

    def __init__(self, nonces: NonceCache) -> None:
        self._nonces = nonces
        self._coming: Counter[str] = Counter()

    async def take(self, state: State, request: Request, limit: int) -> tuple[str, bytes]:
        """The member who signed a request, and its body.

        Raises:
            UnknownKey, BadSignature, BodyTooLarge, MalformedInput: see `signed_by` and `take_body`.
            Overloaded: the member brings too many at once.
        """
        signed = _signed(state, self._nonces, request, None)
        if self._coming[signed.handle] >= MOST_COMING:
            raise Overloaded()
        self._coming[signed.handle] += 1
        try:
            body = await take_body(request, limit)
        finally:
            self._coming[signed.handle] -= 1
        signed.require_body(body)
        return signed.handle, body


def _signed(
    state: State, nonces: NonceCache, request: Request, body: bytes | None
) -> Authenticated:
    path: bytes = request.scope.get("raw_path", b"/")
    query: bytes = request.scope["query_string"]
    target = path.partition(b"?")[0] + (b"?" + query if query else b"")
    try:
        url = "http://coordinator" + target.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedInput("request", "its path is not ASCII") from None
    now_s = int(time.time())
    signed = verify(
        request.method,
        url,
        request.headers.items(),
        body,
        federation=state.federation,
        key_of=lambda handle: request_key(state, handle),
        now_s=now_s,
        body_follows=body is None,
    )
    nonces.use(signed, now_s)
    return signed


async def take_body(request: Request, limit: int) -> bytes:
    """Read a body, never more than the limit.

    Raises:
        BodyTooLarge: it is longer.
        MalformedInput: the caller has gone before its end.
    """
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated) > limit:
        raise BodyTooLarge(limit)
    parts = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise BodyTooLarge(limit)
            parts.append(part)
    except ClientDisconnect:  # it died, or its connection did: nothing of ours went wrong
        raise MalformedInput("request", f"its body ended after {size} bytes") from None
    return b"".join(parts)


async def take_part(
    uploads: Uploads,
    blobs: BlobStore,
    handle: str,
    sha256: str,
    offset: int,
    total: int,
    data: bytes,
    *,
    claims: bool = True,
) -> Response:
    """Keep a part of a blob that a member brings, within what it may bring.

    Args:
        uploads: what members have brought.
        blobs: where it is kept.
        handle: the member.
        sha256: the blob.
        offset: where the part begins.
        total: bytes of the whole, as stated.
        data: the part.
        claims: whether it asks for room; what is here as a whole and comes again needs none.

    Raises:
        NeverTaken, StorageExceeded, QuotaExceeded, DiskFull: there is no room for it.
        UploadOutOfStep, MalformedInput: it does not follow, or its bytes are others.
    """
    if claims:
        uploads.claim(handle, sha256, total, offset, len(data))
    rest = None
    try:
        answer = await run_in_threadpool(store_part, blobs, sha256, offset, total, data)
        rest = total - offset - len(data)
    except MalformedInput:
        if blobs.size(sha256) is None and blobs.open_upload(sha256).offset == 0:
            uploads.release(handle, sha256)
        raise
    finally:
        uploads.landed(handle, sha256, rest)
    if answer.status_code == 201:
        uploads.arrived(sha256)
    else:  # what another request of the same member released meanwhile is held after all
        uploads.hold(handle, sha256, total)
    return answer


def store_part(blobs: BlobStore, sha256: str, offset: int, total: int, data: bytes) -> Response:
    """Keep a part of a blob, which is whole at its total and has its hash then.

    Raises:
        UploadOutOfStep, MalformedInput: it does not follow, or its bytes are others.
    """
    upload = blobs.open_upload(sha256)
    if offset == 0 and len(data) == total:
        if hashlib.sha256(data).hexdigest() != sha256:
            raise MalformedInput(f"blob {sha256[:12]}", "its bytes have another SHA-256")
        blobs.put(data)
        return json_answer({"offset": total}, 201)
    here = upload.append(offset, data)
    if here == total:
        upload.finish()
        return json_answer({"offset": total}, 201)
    return json_answer({"offset": here}, 202, {"upload-offset": str(here)})
