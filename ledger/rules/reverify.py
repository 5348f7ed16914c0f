"""A whole log verified from its first byte: the fold in one process, signatures in several.

`replay` reads rows a few dozen at a time and takes them along the path of ``log.py``, each step for
all of them before the next one: parse, envelope and fold, tree, and the signatures together, on other
cores while the fold goes on, or here. It yields an entry only when its own signature and those of all
entries before it hold. So whoever takes what it yields sees the same entries and the same refusal as
one by one, and finds the same state; a test holds the two together. Memory does not grow with what is
read: a few hundred entries wait at a time, and the tree reads old leaves back where it is given a
source for them.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count, islice
from typing import Generic, NamedTuple, TypeVar

from ledger.copies.store import LogStore, Row
from ledger.entries.entry import Entry, bad_signature, parse_entry
from ledger.errors import MalformedInput, NotConsistent
from ledger.formats.keys import signed
from ledger.formats.merkle_tree import MerkleTree
from ledger.rules.fold import protocol_of
from ledger.rules.log import Folded, Log, Mark, Sequenced
from ledger.rules.signatures import Answer, SignatureWorkers, check_here
from ledger.rules.state import State

CHUNK = 64
"""Entries that are taken together, milliseconds of work. On one core too: to parse, fold and check a
signature in turn for each entry would empty the processor's caches of each for the others."""

_AHEAD = 16
"""Chunks that may wait for an older one's answer."""
_YOUNG = 128
"""Chunks after which the cycle collector looks at what is new."""


T = TypeVar("T")

Replayed = tuple[Sequenced, State]
"""An entry that was verified, and the state with it."""

Reader = Callable[[Iterator[T], int, list[Entry]], MalformedInput | None]
"""Parses some entries, the first of them at an index, into a list. Returns why the one after those was
not parsed, or None after the last one; whether that one had to be parsed at all, `replay` knows."""


class _Chunk(NamedTuple):
    """Entries that were folded, and the answer whether their signatures hold."""

    first: int
    folded: list[Folded]
    answer: Answer


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
    ahead = _Ahead(log, read, workers)
    with closing(ahead.replay(source)) as verified:
        for first, folded in verified:
            for index, (entry, _, outcome, state) in enumerate(folded, first):
                ahead.last = index, state
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
    for _ in _Ahead(log, read_rows, workers).replay(rows):
        pass
    return log


def read_rows(rows: Iterator[Row], index: int, entries: list[Entry]) -> MalformedInput | None:
    """Parse stored rows for `replay`, and compare their columns with their bytes: a `Reader`.

    Raises:
        NotConsistent: the columns of the last of the entries are not those of its bytes.
    """
    for row in rows:
        try:
            entry = parse_entry(row.body, row.signature)
        except MalformedInput as error:
            return error
        entries.append(entry)
        body = entry.body
        if row.seq != body.seq or row.key != body.key or row.leaf.hex() != entry.hash:
            # Raised after its signature was asked for: a changed signature is called that.
            at = index + len(entries) - 1
            raise NotConsistent(f"entry {at}", "its stored index columns do not match its bytes")
    return None


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

    Attributes:
        last: the index of the entry that was yielded last, and the state with it.
    """

    def __init__(self, log: Log, read: Reader[T], workers: SignatureWorkers | None) -> None:
        self.last: tuple[int, State] | None = None
        self._log = log
        self._read = read
        self._check = check_here if workers is None else workers.check
        self._before = log.mark()
        self._chunks: deque[_Chunk] = deque()  # folded and not all yielded, oldest first

    def replay(self, entries: Iterable[T]) -> Generator[tuple[int, Sequence[Folded]]]:
        """Yield verified entries, some at a time: the index of the first, and all of them.

        All are yielded when the next ones are asked for; who stops before sets `last`.
        """
        source = iter(entries)
        try:
            with _collector_at_rest():
                for number in count(1):
                    first = self._log.size
                    folded: list[Folded] = []
                    try:
                        self._fold(islice(source, CHUNK), folded)
                    except BaseException:
                        # The entries before it come first, and one of them may be refused instead.
                        self._ask(first, folded)
                        yield from self._verified(wait=True)
                        raise
                    self._ask(first, folded)
                    self._log.tree.forget_older()
                    ended = len(folded) < CHUNK
                    yield from self._verified(wait=ended)
                    if ended:
                        return
                    if not number % _YOUNG:
                        gc.collect(1)
        finally:
            self._leave()

    def _fold(self, source: Iterator[T], folded: list[Folded]) -> None:
        """Take entries in up to the first that is refused, for which this raises."""
        log = self._log
        entries: list[Entry] = []
        try:
            malformed = self._read(source, log.size, entries)
        finally:  # what is wrong with an entry before it is said instead
            log.extend(entries, folded)
        if malformed is not None:
            if log.newer_protocol is not None:  # it need not be one that can be parsed here
                protocol_of(log.state)
            raise malformed

    def _ask(self, first: int, folded: list[Folded]) -> None:
        """Have the signatures of what was folded checked."""
        claims = [
            (public, signed(entry.signature, "entry", entry.raw)) for entry, public, _, _ in folded
        ]
        self._chunks.append(_Chunk(first, folded, self._check(claims)))

    def _verified(self, *, wait: bool) -> Iterator[tuple[int, Sequence[Folded]]]:
        """Yield what was checked, in order; all of it where ``wait`` says so.

        Raises:
            BadSignature: the next one is false.
        """
        while self._chunks:
            first, folded, answer = self._chunks[0]
            if not (answer.here or wait or len(self._chunks) > _AHEAD):
                return
            false = answer.false
            good = folded if false is None else folded[:false]
            if good:
                yield first, good
                self.last = first + len(good) - 1, good[-1][3]
            if false is not None:
                raise bad_signature(folded[false][0]) from None
            self._chunks.popleft()

    def _leave(self) -> None:
        """The workers owe nothing any more, and the log holds what was yielded."""
        mark = self._before
        if self.last is not None:
            index, state = self.last
            mark = Mark(index + 1, state)
        if self._log.size != mark.size:
            self._log.rewind(mark)
        for _, _, answer in self._chunks:
            _ = answer.false
