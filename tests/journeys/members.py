"""Members under a storm: each says one entry after another, and sends the same bytes until answered.

They speak HTTP to whoever serves the port at the moment. What a coordinator acknowledged or signed is
noted here, outside its reach; ``kill_storm`` compares it with the log in the end.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from ledger.entries.entry import Body, Entry, Seen, log_origin, sign_entry
from ledger.entries.operations.audits import LedgerReviewed
from ledger.entries.operations.log import NodeResumed
from ledger.entries.operations.vocabulary import Operation
from ledger.formats.checkpoint import cosign, log_verifier, open_checkpoint
from ledger.formats.keys import KeyRing
from ledger.formats.witness import witness_name
from ledger.rules.state import State
from tests.patience import PATIENCE_S

_PAUSE_S = 0.005


@dataclass
class Noted:
    """What members hold against the coordinator.

    Attributes:
        acknowledged: index by leaf, as answered.
        roots: root by size, as signed.
        faults: what should never have happened, in words.
        counts: of requests, lost answers, cosignatures.
        over: set when nobody will answer any more.
    """

    acknowledged: dict[bytes, int] = field(default_factory=dict)
    roots: dict[int, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def acknowledge(self, leaf: bytes, index: int) -> None:
        """Note an answer; the same leaf has one index for ever."""
        with self.lock:
            before = self.acknowledged.setdefault(leaf, index)
            self.counts["answers"] += 1
        if before != index:
            self.faults.append(f"an entry was acknowledged at {before} and then at {index}")

    def sign(self, size: int, root: bytes) -> None:
        """Note a signed checkpoint; a size has one root for ever."""
        with self.lock:
            before = self.roots.setdefault(size, root)
        if before != root:
            self.faults.append(f"the log key signed two roots of size {size}")


class Member:
    """One thread with one chain. Runs from `start` until `stop`."""

    def __init__(self, ring: KeyRing, state: State, seen: Seen, port: int, noted: Noted) -> None:
        chain = state.keys[ring.entry.id]
        self._ring, self._federation, self._seen = ring, state.federation, seen
        self._origin = log_origin(state.federation)
        self._log_key = log_verifier(self._origin, bytes.fromhex(state.log_key.public))
        self._seq, self._prev = chain.next_seq, chain.head
        self._port, self._noted = port, noted
        self._stopping = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._last: bytes | None = None
        self._thread = threading.Thread(target=self._run, name=ring.handle, daemon=True)

    def start(self) -> None:
        """Begin to speak."""
        self._thread.start()

    def stop(self) -> None:
        """Say nothing new, and come back when the last entry is acknowledged."""
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            self._noted.faults.append(f"{self._ring.handle} was not answered within a minute")

    def _run(self) -> None:
        while not self._stopping.is_set():
            entry = self._sign()
            index = self._submit(entry.leaf)
            if index is None:
                return
            self._noted.acknowledge(entry.leaf, index)
            self._last = entry.leaf
            if self._ring.role == "node":
                self._witness()

    def _sign(self) -> Entry:
        """The next entry; nothing else is ever signed at its place."""
        body = Body(
            v=1,
            federation=self._federation,
            author=self._ring.handle,
            key=self._ring.entry.id,
            seq=self._seq,
            prev=self._prev,
            seen=self._seen,
            at_ms=time.time_ns() // 1_000_000,
            op=self._operation(),
        )
        entry = sign_entry(body, self._ring.entry)
        self._seq, self._prev = self._seq + 1, entry.hash
        return entry

    def _operation(self) -> Operation:
        if self._ring.role == "node":
            return NodeResumed(type="node.resumed", nonce=f"{self._seq:064x}")
        return LedgerReviewed(
            type="ledger.reviewed", size=self._seq, root="0" * 64, finding="in_order"
        )

    def _submit(self, leaf: bytes) -> int | None:
        """Send the same bytes until they are answered, through any number of deaths."""
        while not (self._noted.faults or self._noted.over.is_set()):
            answer = self._call("POST", "/v1/entries", leaf)
            if answer is None:
                time.sleep(_PAUSE_S)
                self._remind()
                continue
            index: int = json.loads(answer)["index"]
            return index
        return None

    def _remind(self) -> None:
        """After a lost connection, ask for an answer that was given: it must be the same."""
        if self._last is not None:
            answer = self._call("POST", "/v1/entries", self._last)
            if answer is not None:
                self._noted.acknowledge(self._last, json.loads(answer)["index"])

    def _witness(self) -> None:
        """Look at the newest checkpoint, note it, cosign it."""
        note = self._call("GET", "/v1/checkpoint")
        if note is None:
            return
        checkpoint = open_checkpoint(note, self._log_key)
        self._noted.sign(checkpoint.size, checkpoint.root)
        name = witness_name(self._origin, self._ring.handle)
        line = cosign(note, self._ring.witness, name, int(time.time()))
        if self._call("POST", f"/v1/cosignatures?size={checkpoint.size}", line) is not None:
            self._noted.counts["cosignatures"] += 1

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes | None:
        """One request; None when no answer came. A refusal is a fault: all that is sent is good."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(
                    "127.0.0.1", self._port, timeout=PATIENCE_S
                )
            self._connection.request(method, path, body)
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._noted.counts["lost"] += 1
            return None
        if answer.status >= 300:
            self._noted.faults.append(f"{method} {path}: {answer.status} {data[:300]!r}")
            return None
        return data
