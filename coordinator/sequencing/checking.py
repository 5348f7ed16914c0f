"""Signatures of a batch checked on all cores, before the batch is judged one entry after another.

libsodium runs without the interpreter's lock, so threads are enough. What is found here only spares the
judge the check: an entry counts as checked under the one key that it was checked with, and everything else
is checked again where it is judged, in order, with the refusal that it has there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ledger.entries.entry import Entry
from ledger.formats.keys import verify
from ledger.rules.state import KeyState

LEAST = 8
"""Fewer entries are checked sooner than threads are woken."""


class Checker:
    """Threads that check signatures beside the sequencer's; `close` ends them."""

    def __init__(self, threads: int | None = None) -> None:
        self._others = (os.cpu_count() or 1) - 1 if threads is None else threads
        self._pool = ThreadPoolExecutor(self._others, "signatures") if self._others > 0 else None

    def checked(self, entries: Sequence[Entry], keys: Mapping[str, KeyState]) -> dict[str, bytes]:
        """The entries whose signatures hold under the keys that they name: entry hash to raw key.

        Args:
            entries: parsed; not judged yet.
            keys: enrolled keys by id; an entry of another key is left for its judge.
        """
        if self._pool is None or len(entries) < LEAST:
            return {}
        claims = [
            (entry, bytes.fromhex(keys[entry.body.key].public))
            for entry in entries
            if entry.body.key in keys
        ]
        share = -(-len(claims) // (self._others + 1))
        parts = [claims[at : at + share] for at in range(0, len(claims), max(1, share))]
        others = [self._pool.submit(_check, part) for part in parts[1:]]
        found = _check(parts[0]) if parts else {}
        for other in others:
            found |= other.result()
        return found

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _check(claims: Sequence[tuple[Entry, bytes]]) -> dict[str, bytes]:
    return {
        entry.hash: public
        for entry, public in claims
        if verify(public, "entry", entry.raw, entry.signature)
    }
