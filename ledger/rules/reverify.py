"""A whole log verified from its stored rows: the fold in one process, signatures in several.

`replay_rows` is the path of an entry (``log.py``) with one difference: signatures are checked a
chunk at a time, beside the fold or in worker processes. It returns the log only after the last
signature held, so nobody sees a state that rests on an unchecked one. Memory does not grow with
what was read, apart from the tree.

A worker is given the public key under which admission wants the signature to verify; it decides
nothing else. Not promised: which of several faults is reported; one is, always.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from types import TracebackType
from typing import NamedTuple, Self

from ledger.copies.store import Row
from ledger.entries.entry import parse_entry
from ledger.errors import BadSignature, NotConsistent
from ledger.formats.keys import PUBLIC_BYTES, SIGNATURE_BYTES, verify
from ledger.rules.admission import admit
from ledger.rules.fold import protocol_of
from ledger.rules.log import Log

CHUNK = 128
"""Entries in one task: milliseconds of work, so that its way to a worker costs little."""


class Claim(NamedTuple):
    """A signature to be checked: the raw public key that admission named, body and signature."""

    public: bytes
    body: bytes
    signature: bytes


class SignatureWorkers:
    """Worker processes that check entries' signatures. Use as a context manager.

    Args:
        processes: how many; by default one a core. They are started afresh, not forked, so that
            threads and connections of this process do not get into them.
    """

    def __init__(self, processes: int | None = None) -> None:
        self.processes = processes or os.cpu_count() or 1
        self._pool = ProcessPoolExecutor(self.processes, mp_context=get_context("spawn"))

    def check(self, claims: Sequence[Claim]) -> Future[int | None]:
        """Check claims; the future holds the position of the first false one, or None."""
        return self._pool.submit(_first_false_of, _pack(claims))

    def warm(self) -> None:
        """Start all processes now."""
        for done in [self.check(()) for _ in range(4 * self.processes)]:
            done.result()

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def first_false(claims: Sequence[Claim]) -> int | None:
    """Position of the first claim whose signature does not verify, or None."""
    for at, claim in enumerate(claims):
        if not verify(claim.public, "entry", claim.body, claim.signature):
            return at
    return None


def _pack(claims: Sequence[Claim]) -> bytes:
    """One string on its way to a worker: pickling the claims one by one costs more than the fold."""
    parts: list[bytes] = []
    for public, body, signature in claims:
        parts += (len(body).to_bytes(4, "big"), public, signature, body)
    return b"".join(parts)


def _first_false_of(packed: bytes) -> int | None:
    claims: list[Claim] = []
    at = 0
    while at < len(packed):
        start = at + 4 + PUBLIC_BYTES + SIGNATURE_BYTES
        end = start + int.from_bytes(packed[at : at + 4], "big")
        public = packed[at + 4 : at + 4 + PUBLIC_BYTES]
        claims.append(Claim(public, packed[start:end], packed[start - SIGNATURE_BYTES : start]))
        at = end
    return first_false(claims)


def replay_rows(rows: Iterable[Row], workers: SignatureWorkers | None = None) -> Log:
    """Verify a log from its first byte and fold it.

    1. Each row parses strictly; its leaf hash and index columns are those of its bytes.
    2. Its envelope fits the log before it (``admission.admit``).
    3. Its signature verifies, here or in a worker.
    4. The fold and the tree take it.

    The caller compares the federation's id and the signed roots.

    Args:
        rows: as ``LogStore.rows`` yields them.
        workers: for step 3; without them it is done here.

    Raises:
        MalformedInput, NotAdmitted, BadSignature, NotConsistent: says which entry.
        ProtocolUnknown: the log's rules are newer than this software, from an entry on.
    """
    log = Log()
    pending: deque[tuple[int, Future[int | None]]] = deque()
    ahead = 0 if workers is None else 4 * workers.processes
    for chunk in _chunks(rows):
        claims = _take(log, chunk)
        first = log.size - len(claims)
        if workers is None:
            _require(first, first_false(claims))
            continue
        pending.append((first, workers.check(claims)))
        if len(pending) > ahead:
            _settle(pending)
    while pending:
        _settle(pending)
    return log


def _take(log: Log, rows: Sequence[Row]) -> list[Claim]:
    """Steps 1, 2 and 4 for a chunk; returns what step 3 has to check, which ends at the log's end."""
    claims: list[Claim] = []
    for row in rows:
        if log.newer_protocol is not None:
            protocol_of(log.state)  # refuses: its operation may be none that can be parsed here
        entry = parse_entry(row.body, row.signature)
        if (row.key, row.seq, row.leaf.hex()) != (entry.body.key, entry.body.seq, entry.hash):
            raise NotConsistent(
                f"entry {log.size}", "its stored index columns do not match its bytes"
            )
        if log.size == 0:
            log.judge_entry(entry)  # its signature included
        else:
            public = admit(log.state, entry, log.tree.root)
            claims.append(Claim(public, row.body, row.signature))
        log.append(entry)
    return claims


def _settle(pending: deque[tuple[int, Future[int | None]]]) -> None:
    first, done = pending.popleft()
    _require(first, done.result())


def _require(first: int, false: int | None) -> None:
    if false is not None:
        raise BadSignature(
            f"entry {first + false}", "its signature is not one by the key that it names"
        )


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while chunk := list(islice(source, CHUNK)):
        yield chunk
