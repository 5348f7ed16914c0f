"""A whole log verified from its first byte: the fold in one process, signatures in several.

`replay` takes entries along the path of ``log.py``: envelope, fold, tree, and the signatures of a few
dozen entries together, on other cores while the fold goes on, or here. It yields an entry only when
its own signature and those of all entries before it hold. So whoever takes what it yields sees the
same entries, states and refusal as one by one; a test holds the two together. Memory does not grow
with what is read: a few hundred entries wait at a time, and the tree reads old leaves back where it
is given a source for them.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from typing import NamedTuple

from ledger.copies.store import LogStore, Row
from ledger.entries.entry import Entry, bad_signature, parse_entry
from ledger.errors import NotConsistent
from ledger.formats.keys import signed
from ledger.formats.merkle_tree import MerkleTree
from ledger.rules.fold import protocol_of
from ledger.rules.log import Log, Mark, Sequenced
from ledger.rules.signatures import Answer, Claim, SignatureWorkers, check_here
from ledger.rules.state import State

CHUNK = 64
"""Entries whose signatures are checked together, milliseconds of work. On one core too: fold and
curve arithmetic in turn for each entry would empty the processor's caches for one another."""

_AHEAD = 16
"""Chunks that may wait for an older one's answer."""
_YOUNG = 128
"""Chunks after which the cycle collector looks at what is new."""


Replayed = tuple[Sequenced, State]
"""An entry that was verified, and the state with it."""


class _Chunk(NamedTuple):
    """Entries that were folded, and the answer whether their signatures hold."""

    entries: list[Replayed]
    answer: Answer


def replay(
    log: Log, entries: Iterable[Entry], workers: SignatureWorkers | None = None
) -> Iterator[Replayed]:
    """Judge, fold and append entries; yield each with its state when it is verified.

    However it ends, the log then holds what was yielded and no more.

    Args:
        log: goes on from where it stands. While this runs it may be ahead.
        entries: parsed, in order; what reading them raises comes after all entries before it.
        workers: check signatures beside this process.

    Raises:
        MalformedInput, NotAdmitted, BadSignature: of the first entry that does not pass.
        WorkerDied: a process that checked signatures is gone.
    """
    return _Ahead(log, workers).replay(entries)


def replay_rows(
    rows: Iterable[Row],
    workers: SignatureWorkers | None = None,
    *,
    store: LogStore | None = None,
) -> Log:
    """Verify a log from its first byte and fold it.

    1. Each row parses strictly; its leaf hash and index columns are those of its bytes.
    2. Its envelope fits the log before it (``admission.admit``).
    3. Its signature verifies, here or in a worker.
    4. The fold and the tree take it.

    The caller compares the federation's id and the signed roots.

    Args:
        rows: as ``LogStore.rows`` yields them.
        workers: for step 3; without them it is done here.
        store: where the rows come from; the tree then reads old leaf hashes back from it instead of
            keeping them.

    Raises:
        MalformedInput, NotAdmitted, BadSignature, NotConsistent: says which entry.
        ProtocolUnknown: the log's rules are newer than this software, from an entry on.
    """
    log = Log() if store is None else Log(MerkleTree(store.leaf_hashes))
    for _ in replay(log, entries_of(rows, log), workers):
        pass
    return log


def entries_of(rows: Iterable[Row], log: Log) -> Iterator[Entry]:
    """Parse stored rows for `replay`, and compare their columns with their bytes.

    Args:
        rows: from the log's size on.
        log: the one that is replayed. Each entry must be in it before the next one is asked for.

    Raises:
        MalformedInput, NotConsistent: says what is wrong, and where.
        ProtocolUnknown: this software cannot parse the next entry.
    """
    for row in rows:
        require_known_protocol(log)
        index = log.size
        entry = parse_entry(row.body, row.signature)
        yield entry
        # After its signature was asked for: a changed signature is called that.
        body = entry.body
        if row.seq != body.seq or row.key != body.key or row.leaf.hex() != entry.hash:
            raise NotConsistent(f"entry {index}", "its stored index columns do not match its bytes")


def require_known_protocol(log: Log) -> None:
    """Refuse where the next entry may be none that can be parsed here.

    Raises:
        ProtocolUnknown: the log has moved to rules that this software does not know.
    """
    if log.newer_protocol is not None:
        protocol_of(log.state)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep the cycle collector from looking at a whole process for every few hundred entries.

    What a replay makes holds no cycles; what its caller makes is looked at by `_Ahead` now and then.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Ahead:
    """A replay that has folded more than it has yielded."""

    def __init__(self, log: Log, workers: SignatureWorkers | None) -> None:
        self._log = log
        self._check = check_here if workers is None else workers.check
        self._before = log.mark()
        self._last: Replayed | None = None
        self._chunks: deque[_Chunk] = deque()  # folded and not all yielded, oldest first

    def replay(self, entries: Iterable[Entry]) -> Iterator[Replayed]:
        source = iter(entries)
        try:
            with _collector_at_rest():
                for number in count(1):
                    folded: list[Replayed] = []
                    claims: list[Claim] = []
                    try:
                        self._fold(islice(source, CHUNK), folded, claims)
                    except BaseException:
                        # The entries before it come first, and one of them may be refused instead.
                        self._chunks.append(_Chunk(folded, self._check(claims)))
                        yield from self._verified(wait=True)
                        raise
                    self._chunks.append(_Chunk(folded, self._check(claims)))
                    self._log.tree.forget_older()
                    ended = len(folded) < CHUNK
                    yield from self._verified(wait=ended)
                    if ended:
                        return
                    if not number % _YOUNG:
                        gc.collect(1)
        finally:
            self._leave()

    def _fold(self, entries: Iterator[Entry], folded: list[Replayed], claims: list[Claim]) -> None:
        """Take entries in, and note what their signatures must show."""
        log = self._log
        for entry in entries:
            public = log.admit(entry)
            item = log.append(entry)
            folded.append((item, log.state))
            claims.append(Claim(public, signed(entry.signature, "entry", entry.raw)))

    def _verified(self, *, wait: bool) -> Iterator[Replayed]:
        """Yield what was checked, in order; all of it where ``wait`` says so.

        Raises:
            BadSignature: the next one is false.
        """
        while self._chunks:
            folded, answer = self._chunks[0]
            if not (answer.here or wait or len(self._chunks) > _AHEAD):
                return
            false = answer.false
            for at, replayed in enumerate(folded):
                if at == false:
                    raise bad_signature(replayed[0].entry) from None
                self._last = replayed
                yield replayed
            self._chunks.popleft()

    def _leave(self) -> None:
        """The workers owe nothing any more, and the log holds what was yielded."""
        mark = self._before
        if self._last is not None:
            item, state = self._last
            mark = Mark(item.index + 1, state)
        if self._log.size != mark.size:
            self._log.rewind(mark)
        for _, answer in self._chunks:
            _ = answer.false
