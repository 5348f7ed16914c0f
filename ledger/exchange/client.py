"""Talking to a coordinator over HTTP: what nodes, researchers and auditors call.

Promise: every call is safe to repeat, and lost connections, 5xx answers and cut-off bodies are
repeated here a few times before the caller hears of them. Requests carry the member's signature
(``http_auth.py``); an entry and a cosignature authenticate themselves. Downloads are checked against
the hash that names them, whatever the coordinator sent.

Not promised: that an answer is true. Leaves, checkpoints and genesis are bytes; ``Replica`` judges.
A client may be used from several threads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from ledger.copies.blobs import blob_ref
from ledger.entries.operations.values import BlobRef
from ledger.errors import MalformedInput, RequestRefused
from ledger.exchange.connection import ATTEMPTS, Answer, Connection
from ledger.exchange.messages import (
    CHUNK,
    LEAF_TYPE,
    MAX_ANSWER,
    MAX_REFUSAL,
    Followed,
    Receipt,
    RefillPosition,
)
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import MAX_SIZE
from ledger.formats.strict import decode_b64, encode_b64
from ledger.formats.tiles import MAX_BUNDLE

LEAST_PART = 64 * 1024
"""Bytes of a blob in any answer but the last."""
Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class CoordinatorClient:
    """One member's connection to a coordinator.

    Args:
        url: where it answers, e.g. ``https://consilium.example.org``.
        federation: the federation's id.
        handle: the member, or None for what is public.
        request_key: the member's request key, or None.
        ca: PEM file of a private certificate authority, or None for the system's.
        timeout_s: of one request, on top of what a long poll waits.
    """

    def __init__(
        self,
        url: str,
        *,
        federation: str,
        handle: str | None = None,
        request_key: SigningKey | None = None,
        ca: Path | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self.url = url.rstrip("/")
        self.federation = federation
        self._connection = Connection(
            self.url,
            federation=federation,
            handle=handle,
            request_key=request_key,
            ca=ca,
            timeout_s=timeout_s,
        )

    def close(self) -> None:
        """Close all connections."""
        self._connection.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- the log --------------------------------------------------------------------------------

    def genesis(self) -> bytes:
        """Leaf of entry 0; whether it is the right one is for the caller to know."""
        return self._connection.call("GET", "/v1/genesis").content

    def follow(self, size: int, final: int, wait_s: float = 0.0) -> Followed:
        """Ask for entries from index ``size`` on and final checkpoints above ``final``.

        Answers at once when there is news, else after ``wait_s`` (at most 30) seconds.

        Raises:
            CoordinatorUnreachable, RequestRefused: no answer, or no.
            MalformedInput: the answer is not in the format.
        """
        wait_s = min(max(wait_s, 0.0), 30.0)
        query = f"?size={size}&final={final}&wait={wait_s:g}"
        answer = self._connection.call("GET", "/v1/log" + query, wait_s=wait_s, signed=True)
        try:
            plain = orjson.loads(answer.content)
            leaves = tuple(decode_b64(leaf, "log.leaves") for leaf in plain["leaves"])
            note, finals = plain["checkpoint"], plain["finals"]
            if plain["from"] != size or not isinstance(note, str | None):
                raise MalformedInput("log", "it is not the part that was asked for")
            return Followed(
                leaves,
                None if note is None else note.encode(),
                tuple(str(final).encode() for final in finals),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedInput(
                "log", f"the answer is not in the format ({error!r:.60})"
            ) from None

    def checkpoint(self) -> bytes:
        """The newest signed note, with the cosignatures that the coordinator knows."""
        return self._connection.call("GET", "/v1/checkpoint").content

    def final_checkpoint(self) -> bytes:
        """The newest final checkpoint."""
        return self._connection.call("GET", "/v1/checkpoint/final").content

    def tile(self, name: str) -> bytes | None:
        """A file of the log as tiles (``ledger.formats.tiles``), or None where there is none.

        Works for any web server that holds an exported folder, too. Requests for entries are signed
        where there is a key.

        Args:
            name: ``checkpoint`` or a tile's name.
        """
        entries = name.startswith("tile/entries/")
        return self._file(f"/{name}", signed=entries, limit=MAX_BUNDLE + MAX_REFUSAL)

    def find_genesis(self) -> bytes | None:
        """Leaf of entry 0, or None where no coordinator answers, but a server of files."""
        return self._file("/v1/genesis", signed=False, limit=MAX_ANSWER)

    def _file(self, path: str, *, signed: bool, limit: int) -> bytes | None:
        try:
            answer = self._connection.call("GET", path, signed=signed, missing_ok=True, limit=limit)
        except RequestRefused as refusal:
            # A bucket that may not be listed says 403, in no words of a coordinator, for what it lacks.
            if refusal.status == 403 and refusal.error == "HTTP":
                return None
            raise
        return None if answer.status == 404 else answer.content

    def policy(self) -> bytes:
        """The log's policy file as the coordinator words it; trust it no further than that."""
        return self._connection.call("GET", "/v1/policy").content

    def submit(self, leaf: bytes) -> Receipt:
        """Hand in an entry; durable in the log on return. The same bytes get the same answer.

        Raises:
            RequestRefused: not admitted, too large, too many, or the log does not move.
            CoordinatorUnreachable: whether it arrived is not known; send the same bytes again.
        """
        answer = self._connection.call("POST", "/v1/entries", body=leaf, content_type=LEAF_TYPE)
        plain = answer.json()
        try:
            index, applied, reason = plain["index"], plain["applied"], plain["reason"]
            receipt = str(plain["receipt"]).encode()
        except (KeyError, TypeError):
            raise MalformedInput("receipt", "it is not in the format") from None
        fits = type(index) is int and 0 <= index <= MAX_SIZE and isinstance(applied, bool)
        if reason is not None:
            fits = fits and isinstance(reason, str) and _REASON.fullmatch(reason) is not None
        if not fits:
            raise MalformedInput("receipt", "it is not in the format")
        return Receipt(index, applied, reason, receipt)

    def cosign(self, size: int, line: bytes) -> None:
        """Hand in cosignature lines for the checkpoint over ``size`` entries."""
        self._connection.call(
            "POST", f"/v1/cosignatures?size={size}", body=line, content_type="text/plain"
        )

    def report_checkpoint(self, note: bytes) -> None:
        """Show the coordinator a checkpoint that it signed.

        A coordinator whose database was rolled back learns of it so, and stops.
        """
        self._connection.call("POST", "/v1/checkpoint", body=note, content_type="text/plain")

    # --- a coordinator that lost its database ---------------------------------------------------

    def refill_position(self, after: str = "") -> RefillPosition:
        """How far the refill is, and which blobs it wants above a SHA-256.

        Raises:
            RequestRefused: no refill is under way.
        """
        return _position(self._connection.call("GET", f"/v1/refill?after={after}"))

    def offer(
        self, first: int, leaves: Sequence[bytes], checkpoint: bytes | None, finals: Sequence[bytes]
    ) -> RefillPosition:
        """Bring entries from an index on up to a signed checkpoint, and final checkpoints.

        Raises:
            RequestRefused: they are not this log's; says where.
        """
        plain = {
            "from": first,
            "leaves": [encode_b64(leaf) for leaf in leaves],
            "checkpoint": None if checkpoint is None else checkpoint.decode(),
            "finals": [final.decode() for final in finals],
        }
        kind = "application/json"
        body = orjson.dumps(plain)
        return _position(
            self._connection.call("POST", "/v1/refill", body=body, content_type=kind, signed=True)
        )

    def show_copy(self, note: bytes) -> None:
        """Say that the newest checkpoint held here is this, and that all before it was offered."""
        self._connection.call(
            "POST", "/v1/refill/shown", body=note, content_type="text/plain", signed=True
        )

    # --- blobs ----------------------------------------------------------------------------------

    def put_blob(self, data: bytes, progress: Progress | None = None) -> BlobRef:
        """Bring a blob to the coordinator, going on where an earlier attempt was cut off."""
        ref = blob_ref(data)
        offset = 0
        if len(data) > CHUNK:
            head = self._connection.call(
                "HEAD", f"/v1/blobs/{ref.sha256}", signed=True, missing_ok=True
            )
            if head.status == 200:
                return ref
            offset = _upload_offset(head, len(data))
        for _ in range(2 * (len(data) // CHUNK + ATTEMPTS)):
            part = data[offset : offset + CHUNK]
            answer = self._connection.call(
                "PUT",
                f"/v1/blobs/{ref.sha256}?offset={offset}&total={len(data)}",
                body=part,
                content_type=LEAF_TYPE,
                signed=True,
                conflict_ok=True,
            )
            if answer.status == 201:
                break
            offset = _upload_offset(answer, len(data))
            if progress is not None:
                progress(offset, len(data))
        else:
            raise MalformedInput(
                "upload-offset", "the coordinator asks for the same parts for ever"
            )
        if progress is not None:
            progress(len(data), len(data))
        return ref

    def get_blob(self, ref: BlobRef, progress: Progress | None = None) -> bytes:
        """Fetch a blob, going on where a connection was cut off, and check it.

        Raises:
            RequestRefused: it is not there (404), or not for this member (403).
            MalformedInput: the coordinator sent other bytes than those named.
        """
        data = bytearray()
        while True:
            at = f"bytes={len(data)}-" if data else None
            answer = self._connection.call(
                "GET",
                f"/v1/blobs/{ref.sha256}",
                headers={} if at is None else {"range": at},
                signed=True,
                limit=max(ref.bytes, MAX_REFUSAL),
            )
            data += answer.content
            if progress is not None:
                progress(len(data), ref.bytes)
            if len(data) >= ref.bytes or len(answer.content) < LEAST_PART:
                break
        if len(data) != ref.bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise MalformedInput(
                f"blob {ref.sha256[:12]}", "the coordinator sent other bytes than those named"
            )
        return bytes(data)

    def has_blob(self, ref: BlobRef) -> bool:
        """Whether the coordinator holds the whole blob."""
        head = self._connection.call(
            "HEAD", f"/v1/blobs/{ref.sha256}", signed=True, missing_ok=True
        )
        return head.status == 200

    # --- read models ----------------------------------------------------------------------------

    def read(self, what: str) -> Any:
        """A read model: ``summary``, ``members``, ``datasets``, ``experiments`` or one of them.

        Convenient, and the coordinator's word only; a verified copy says the same for certain.
        """
        return self._connection.call("GET", f"/v1/state/{what}", signed=True).json()

    def summary(self) -> dict[str, Any]:
        """Size, newest and final checkpoint, who witnesses, how many of everything."""
        plain = self.read("summary")
        if not isinstance(plain, dict):
            raise MalformedInput("summary", "it is not in the format")
        return plain


_OFFSET = re.compile(r"[0-9]{1,15}")
_REASON = re.compile(r"[a-z0-9_]{1,40}")


def _position(answer: Answer) -> RefillPosition:
    plain = answer.json()
    try:
        size, final = plain["size"], plain["final"]
        wanted = tuple(str(sha256) for sha256 in plain["wanted"])
    except (KeyError, TypeError):
        raise MalformedInput("refill", "its answer is not in the format") from None
    if any(type(number) is not int or not 0 <= number <= MAX_SIZE for number in (size, final)):
        raise MalformedInput("refill", "its sizes are none")
    return RefillPosition(size, final, wanted)


def _upload_offset(answer: Answer, total: int) -> int:
    text = answer.headers.get("upload-offset", "0")
    if not _OFFSET.fullmatch(text) or int(text) > total:
        raise MalformedInput("upload-offset", "it is no offset within the blob")
    return int(text)
