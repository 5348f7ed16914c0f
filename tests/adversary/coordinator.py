"""A coordinator that can lie: it has its log, its keys and its database, and so has a test.

Everything that it shows is a `Story`: leaves, signed notes and what it calls final. The honest one is
the federation's own. A lie is another one, shown to some or to all, under checkpoints that it signs
with its real log key. What it cannot do is sign for others.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ledger.copies.blobs import BlobStore
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import Entry, log_origin, parse_leaf, sign_entry, split_leaf
from ledger.entries.operations.vocabulary import Operation
from ledger.formats.checkpoint import Checkpoint, log_verifier, merge_cosignatures, sign_checkpoint
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import COSIGNATURE_V1, VerifierKey
from ledger.formats.receipt import sign_receipts
from ledger.formats.value import replace
from ledger.formats.witness import witness_name
from ledger.rules.finality import judge_final
from tests.federation import COORDINATOR, Federation

MERGE_MS = 60_000
"""Within which it promises to show what it took."""


@dataclass(frozen=True)
class Receipt:
    """What a coordinator answers to an entry."""

    index: int
    applied: bool
    reason: str | None
    receipt: bytes = b""


@dataclass
class Story:
    """What a coordinator shows, true or not.

    Attributes:
        leaves: framed leaves, of anything.
        notes: checkpoints by size, with the cosignatures collected for them.
        finals: the sizes that it calls final.
    """

    leaves: list[bytes]
    notes: dict[int, bytes] = field(default_factory=dict)
    finals: list[int] = field(default_factory=list)


class Answer(NamedTuple):
    """What a follower gets: leaves from its size on, the note over all, and new finals."""

    leaves: list[bytes]
    note: bytes
    finals: list[bytes]


class Coordinator:
    """See the module's first lines. ``federation`` is its honest log."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.honest = Story(federation.leaves, federation.notes, federation.finals)
        self.shown: dict[str, Story] = {}
        self.messages = 0
        self._receipts: dict[bytes, Receipt] = {}
        log_key = federation.rings[COORDINATOR].log
        assert log_key is not None
        self.log_key: SigningKey = log_key

    @property
    def verifier(self) -> VerifierKey:
        """The public half of its log key, as everybody knows it from genesis."""
        return log_verifier(self.federation.origin, self.log_key.public)

    # --- what an honest one does ----------------------------------------------------------------

    def say(self, op: Operation) -> Receipt:
        """Its own next entry."""
        done = self.federation.take(self.federation.entry(COORDINATOR, op))
        return Receipt(done.index, done.outcome.applied, done.outcome.void)

    def submit(self, leaf: bytes) -> Receipt:
        """Take an entry; the same bytes again get the same answer."""
        self.messages += 1
        if leaf not in self._receipts:
            done = self.federation.take(parse_leaf(leaf))
            promise = self.promise(leaf, done.index)
            applied, void = done.outcome.applied, done.outcome.void
            self._receipts[leaf] = Receipt(done.index, applied, void, promise)
        return self._receipts[leaf]

    def promise(self, leaf: bytes, index: int) -> bytes:
        """A receipt for an entry, true or not, due in `MERGE_MS`."""
        now = self.federation.now_ms
        (receipt,) = sign_receipts(
            self.log_key,
            self.federation.origin,
            index,
            [leaf_hash(leaf)],
            accepted_ms=now,
            merge_by_ms=now + MERGE_MS,
        )
        return receipt.encode()

    def answer(self, listener: str, size: int, final: int) -> Answer:
        """What a follower gets who holds ``size`` entries and the final checkpoint ``final``."""
        self.messages += 1
        story = self.shown.get(listener, self.honest)
        note = story.notes.setdefault(len(story.leaves), self.sign(story.leaves))
        finals = [story.notes[s] for s in sorted(story.finals) if s > final]
        return Answer(story.leaves[size:], note, finals)

    def cosigned(self, listener: str, handle: str, size: int, line: bytes) -> None:
        """Merge a cosignature into the checkpoint that this listener was shown."""
        self.messages += 1
        story = self.shown.get(listener, self.honest)
        name = witness_name(self.federation.origin, handle)
        public = self.federation.rings[handle].witness.public
        key = VerifierKey(name=name, public=public, type=COSIGNATURE_V1)
        story.notes[size] = merge_cosignatures(story.notes[size], line, [key])
        if size not in story.finals and self._has_quorum(story, size):
            story.finals.append(size)

    def sign(self, leaves: Sequence[bytes]) -> bytes:
        """A checkpoint over any leaves, by the real log key."""
        tree = MerkleTree()
        for leaf in leaves:
            tree.append(leaf_hash(leaf))
        origin = log_origin(self.federation.id)
        return sign_checkpoint(self.log_key, Checkpoint(origin, len(leaves), tree.root()))

    # --- what a lying one does ------------------------------------------------------------------

    def lie(self, leaves: Iterable[bytes], *, to: Iterable[str] = ()) -> Story:
        """Show these leaves under a fresh checkpoint, to these hospitals or to all."""
        told = list(leaves)
        return self.show(Story(told, {len(told): self.sign(told)}), to=to)

    def show(self, story: Story, *, to: Iterable[str] = ()) -> Story:
        """Show a story to these hospitals, or to everybody who asks; counting begins here."""
        self.messages = 0
        names = tuple(to) or (*self._names(), "newcomer")
        self.shown.update(dict.fromkeys(names, story))
        return story

    def replace(self, entry: int, leaf: bytes) -> Story:
        """Put other bytes in an entry's place."""
        leaves = self.federation.leaves
        return self.lie([*leaves[:entry], leaf, *leaves[entry + 1 :]])

    def rewrite(self, entry: int, **changes: object) -> list[bytes]:
        """Change its own entry and sign all of its own later ones anew, so that its chain holds.

        Args:
            entry: index of an entry of its own.
            changes: fields of the body.
        """
        rewritten = list(self.federation.leaves)
        key = self.federation.rings[COORDINATOR].entry
        head: str | None = None
        for index in range(entry, len(rewritten)):
            old = parse_leaf(rewritten[index])
            if old.body.author != COORDINATOR:
                continue
            body = replace(old.body, **changes if index == entry else {"prev": head})
            new = sign_entry(body, key)
            rewritten[index], head = new.leaf, new.hash
        self.lie(rewritten)
        return rewritten

    def branch(self, size: int | None = None) -> Federation:
        """A second history that begins with the first ``size`` entries of the true one.

        It can go on saying what it likes, with every key that the test gives away.
        """
        true = self.federation
        size = true.log.size if size is None else size
        other = Federation(rings=true.rings, blobs=true.blobs)
        for leaf in true.leaves[:size]:
            other.take(parse_leaf(leaf))
        other.now_ms = true.now_ms
        other.notes = {at: note for at, note in true.notes.items() if at <= size}
        other.finals = [at for at in true.finals if at <= size]
        return other

    def hold_back(self, *, to: Iterable[str]) -> Story:
        """Show the log as it is now, for ever."""
        now = Story(list(self.honest.leaves), dict(self.honest.notes), list(self.honest.finals))
        return self.show(now, to=to)

    # --- its database ---------------------------------------------------------------------------

    def write(self, directory: Path, story: Story | None = None) -> Path:
        """Its home on disk, as an auditor gets it: ``ledger.db`` and ``blobs``."""
        story = story or self.honest
        size = len(story.leaves)
        story.notes.setdefault(size, self.sign(story.leaves))
        directory.mkdir(parents=True)
        store = LogStore.open(f"sqlite:///{directory / 'ledger.db'}")
        store.append(0, [row_of(leaf) for leaf in story.leaves])
        for at, note in sorted(story.notes.items()):
            store.append(size, [], (at, note))
        for at in sorted(story.finals):
            store.put_final(at, story.notes[at])
        store.close()
        blobs = BlobStore(directory / "blobs")
        for data in self.federation.blobs.values():
            blobs.put(data)
        return directory

    def _has_quorum(self, story: Story, size: int) -> bool:
        before = max((at for at in story.finals if at < size), default=1)
        note, state = story.notes[size], self.federation.state
        return judge_final(note, self.verifier, state, before=before).final

    def _names(self) -> list[str]:
        members = self.federation.state.members.values()
        return [m.organisation for m in members if m.role == "node"]


def row_of(leaf: bytes) -> Row:
    """A leaf as an honest store keeps it, with the index columns of its bytes."""
    raw, signature = split_leaf(leaf)
    body = parse_leaf(leaf).body
    return Row(raw, signature, leaf_hash(leaf), body.key, body.seq)


def resigned(entry: Entry, key: SigningKey) -> bytes:
    """The leaf of the same body with a signature by another key in its place."""
    return replace(entry, signature=key.sign("entry", entry.raw)).leaf


def edit(database: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    """Write into a database as its administrator: triggers dropped, then what is wanted."""
    with closing(sqlite3.connect(database)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        for statement, values in statements:
            connection.execute(statement, values)
        connection.commit()


def copy_home(home: Path, to: Path) -> Path:
    """A backup of a home."""
    shutil.copytree(home, to)
    return to
