"""A whole log verified from its first byte: the fold in one process, signatures in several.

`replay` takes rows along the path of ``log.py``, each parsed, judged, folded and put into the tree
before the next one is read, and has the signatures of many checked together, on other cores while
the fold goes on, or here. It yields an entry only when its own signature and those of all
entries before it hold. So whoever takes what it yields sees the same entries and the same refusal as
one by one, and finds the same state; a test holds the two together. Memory does not grow with what is
read: at most some 1,300 entries wait at a time, and the tree reads old leaves back where it is given
a source for them.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import count, islice
from typing import Generic, NamedTuple, TypeVar

from ledger.copies.store import LogStore, Row
from ledger.entries.entry import Entry, bad_signature, parse_entry
from ledger.errors import MalformedInput, NotConsistent
from ledger.formats.merkle_tree import MerkleTree
from ledger.rules.fold import protocol_of
from ledger.rules.log import Folded, Log, Mark, Sequenced
from ledger.rules.signatures import Answer, Claim, SignatureWorkers, check_here
from ledger.rules.state import State

CHUNK = 64
"""Entries whose signatures are checked together, milliseconds of work; what a pipe to a worker holds."""
TURN = 16
"""Chunks that are folded before their signatures are checked here. In turn with the fold for each
entry, or for a few dozen, they would empty the processor's caches of each other, at a twentieth of
all that verifying costs."""
TURN_BESIDE = 4
"""Chunks that are folded before workers are asked: they have more than that to do meanwhile."""

_AHEAD = 16
"""Chunks that may wait for an older one's answer."""
_YOUNG = 128
"""Chunks after which the cycle collector looks at what is new."""


T = TypeVar("T")

Replayed = tuple[Sequenced, State]
"""An entry that was verified, and the state with it."""

Reader = Callable[[Iterator[T], int], Iterator[Entry]]
"""Parses entries as they are asked for, the first of them at an index. What it raises comes after the
entries before it, the one yielded last included."""


class _Chunk(NamedTuple):
    """Entries that were folded.

    Attributes:
        before, after: where the log stood.
        claims: of each entry.
        folded: the entries themselves, or None where nobody asked for them.
    """

    before: Mark
    after: Mark
    claims: list[Claim]
    folded: list[Folded] | None


def replay(
    log: Log, source: Iterable[T], read: Reader[T], workers: SignatureWorkers | None = None
) -> Iterator[Replayed]:
    """Judge, fold and append entries; yield each with its state when it is verified.

    However it ends, the log then holds what was yielded and no more.

    Args:
        log: goes on from where it stands. While this runs it may be ahead.
        source: where entries are, in order, from the log's size on; what it raises comes after all
            entries before it.
        read: parses them.
        workers: check signatures beside this process.

    Raises:
        MalformedInput, NotAdmitted, BadSignature: of the first entry that does not pass.
        ProtocolUnknown: the log's rules are newer than this software, from an entry on.
        WorkerDied: a process that checked signatures is gone.
    """
    ahead = _Ahead(log, read, workers, keep=True)
    with closing(ahead.replay(source)) as verified:
        for first, folded in verified:
            for index, (entry, outcome, state) in enumerate(folded, first):
                ahead.taken += 1
                yield Sequenced(index, entry, outcome), state


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
        ProtocolUnknown: as `replay`.
    """
    log = Log() if store is None else Log(MerkleTree(store.leaf_hashes))
    for _ in _Ahead(log, read_rows, workers, keep=False).replay(rows):
        pass
    return log


def read_rows(rows: Iterator[Row], index: int) -> Iterator[Entry]:
    """Parse stored rows for `replay`, and compare their columns with their bytes: a `Reader`.

    Raises:
        MalformedInput: a row is no entry.
        NotConsistent: the columns of the entry yielded last are not those of its bytes.
    """
    for at, row in enumerate(rows, index):
        entry = parse_entry(row.body, row.signature)
        yield entry
        body = entry.body
        if row.seq != body.seq or row.key != body.key or row.leaf.hex() != entry.hash:
            # Only now, after its signature was asked for: a changed signature is called that.
            raise NotConsistent(f"entry {at}", "its stored index columns do not match its bytes")


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


class _Ahead(Generic[T]):
    """A replay that has folded more than it has yielded.

    Args:
        keep: yield the entries too; without it they are let go as soon as they are folded, which
            keeps what is at work small enough for the processor's caches.

    Attributes:
        taken: how many of the entries that were yielded last count, should it be closed now.
    """

    def __init__(
        self, log: Log, read: Reader[T], workers: SignatureWorkers | None, *, keep: bool
    ) -> None:
        self.taken = 0
        self._log = log
        self._read = read
        self._keep = keep
        self._check = check_here if workers is None else workers.check
        self._turn = TURN_BESIDE if workers else TURN  # `SignatureWorkers(1)` has none
        self._before = log.mark()
        self._yielded: _Chunk | None = None
        self._unasked: list[_Chunk] = []  # folded, oldest first
        self._asked: deque[tuple[_Chunk, Answer]] = deque()  # before those, and not all yielded

    def replay(self, entries: Iterable[T]) -> Generator[tuple[int, list[Folded]]]:
        """Verify entries, and yield them some at a time: the index of the first, and what was kept.

        All of them count when the next ones are asked for; who stops before sets `taken`.
        """
        source = iter(entries)
        try:
            with _collector_at_rest():
                for number in count(1):
                    before, claims = self._log.mark(), list[Claim]()
                    folded: list[Folded] | None = [] if self._keep else None
                    try:
                        self._fold(islice(source, CHUNK), claims, folded)
                    except BaseException:
                        # The entries before it come first, and one of them may be refused instead.
                        self._took(before, claims, folded)
                        yield from self._verified(wait=True)
                        raise
                    self._took(before, claims, folded)
                    self._log.tree.forget_older()
                    ended = len(claims) < CHUNK
                    if ended or not number % self._turn:
                        yield from self._verified(wait=ended)
                    if ended:
                        return
                    if not number % _YOUNG:
                        gc.collect(1)
        finally:
            self._leave()

    def _fold(self, source: Iterator[T], claims: list[Claim], folded: list[Folded] | None) -> None:
        """Take entries in up to the first that is refused, for which this raises."""
        log = self._log
        try:
            log.extend(self._read(source, log.size), claims, folded)
        except MalformedInput:
            if log.newer_protocol is not None:  # it need not be one that can be parsed here
                protocol_of(log.state)
            raise

    def _took(self, before: Mark, claims: list[Claim], folded: list[Folded] | None) -> None:
        """Note what was folded; its signatures are to be asked for."""
        self._unasked.append(_Chunk(before, self._log.mark(), claims, folded))

    def _verified(self, *, wait: bool) -> Iterator[tuple[int, list[Folded]]]:
        """Ask for what was not asked for, and yield what was checked, in order; all where ``wait`` says so.

        Raises:
            BadSignature: the next one is false.
        """
        unasked, self._unasked = self._unasked, []
        self._asked.extend((chunk, self._check(chunk.claims)) for chunk in unasked)
        while self._asked:
            chunk, answer = self._asked[0]
            if not (answer.here or wait or len(self._asked) > _AHEAD):
                return
            false = answer.false
            self._yielded, self.taken = chunk, 0
            yield chunk.before.size, (chunk.folded or [])[:false]
            self.taken = len(chunk.claims) if false is None else false
            if false is not None:
                _, signature, body = chunk.claims[false]
                raise bad_signature(parse_entry(body, signature)) from None
            self._asked.popleft()

    def _leave(self) -> None:
        """The workers owe nothing any more, and the log holds what was yielded."""
        chunk, taken = self._yielded, self.taken
        if chunk is None:
            self._go_back(self._before, [])
        elif taken == len(chunk.claims):
            self._go_back(chunk.after, [])
        else:
            self._go_back(chunk.before, chunk.claims[:taken])
        for _, answer in self._asked:
            _ = answer.false

    def _go_back(self, mark: Mark, claims: list[Claim]) -> None:
        """Rewind the log to where it was, and take in again what came from there."""
        if self._log.size != mark.size + len(claims):
            self._log.rewind(mark)
            for _, signature, body in claims:
                self._log.append(parse_entry(body, signature))
