"""A member's pen: through any crash one chain, each entry once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.author import Author, clock_ms
from ledger.entries.entry import Entry, parse_leaf
from ledger.entries.invitation import member_keys
from ledger.entries.operations.log import NodeResumed
from ledger.entries.operations.members import KeyRotated
from ledger.entries.operations.rounds import RoundAggregated
from ledger.entries.operations.values import EMPTY_HASH, BlobRef
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import (
    AlreadyRunning,
    CoordinatorUnreachable,
    CopiedKey,
    MalformedInput,
    NotAdmitted,
    StoreUnusable,
)
from ledger.formats.keys import KeyRing
from ledger.rules.members import claim_bytes
from tests.federation import Federation, node_of, ring_of
from tests.ledger.facts import h

NODE = node_of("basel")


def resumed(word: object) -> NodeResumed:
    return NodeResumed(type="node.resumed", nonce=h(word))


@dataclass(frozen=True)
class Receipt:
    index: int
    applied: bool
    reason: str | None = None


class Sequencer:
    """Takes each entry once; the same bytes again have the same answer."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.calls: list[bytes] = []
        self.lose_before = 0
        self.lose_after = 0

    def __call__(self, leaf: bytes) -> Receipt:
        self.calls.append(leaf)
        if self.lose_before:
            self.lose_before -= 1
            raise CoordinatorUnreachable("test", "lost on the way there")
        known = {data: index for index, data in enumerate(self.federation.leaves)}
        if leaf not in known:
            known[leaf] = self.federation.take(parse_leaf(leaf)).index
        if self.lose_after:
            self.lose_after -= 1
            raise CoordinatorUnreachable("test", "lost on the way back")
        return Receipt(known[leaf], applied=True)


@dataclass
class Desk:
    """A node's copy, its pen and the coordinator, over a directory that survives a crash."""

    federation: Federation
    sequencer: Sequencer
    directory: Path
    store: LogStore
    replica: Replica
    author: Author

    def follow(self) -> None:
        self.replica.extend(
            self.federation.leaves[self.replica.size :], self.federation.checkpoint()
        )

    def crash(self) -> None:
        """The process dies; another one opens what is on the disk."""
        self.author.close()
        self.store.close()
        self.store = LogStore.open(f"sqlite:///{self.directory / 'ledger.db'}")
        self.replica = Replica.open(self.store, self.federation.id)
        self.author = pen(self)

    def said(self) -> list[Entry]:
        return [e for e in self.federation.entries() if isinstance(e.body.op, NodeResumed)]


def pen(desk: Desk, ring: KeyRing | None = None, send: Callable[[bytes], Receipt] | None = None):  # type: ignore[no-untyped-def]
    return Author(
        ring or ring_of(NODE, "node"),
        desk.replica,
        send or desk.sequencer,
        desk.directory / "last-entry.leaf",
        lambda: desk.federation.now_ms,
    )


def remember(desk: Desk) -> None:
    """The node joined and said that it is ready from this home."""
    said = [leaf for leaf in desk.federation.leaves if parse_leaf(leaf).body.author == NODE]
    (desk.directory / "last-entry.leaf").write_bytes(said[-1])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    federation = Federation.found(("basel",))
    store = LogStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    replica = Replica.create(store, federation.leaves[0], federation.id)
    made = Desk(federation, Sequencer(federation), tmp_path, store, replica, None)  # type: ignore[arg-type]
    made.follow()
    remember(made)
    made.author = pen(made)
    yield made
    made.author.close()
    made.store.close()


def test_what_is_said_is_in_the_log_in_the_order_of_saying(desk: Desk) -> None:
    for word in range(3):
        receipt = desk.author.submit(resumed(word))
        assert receipt.index == desk.federation.log.size - 1
        if word == 1:
            desk.follow()
    assert [e.body.op for e in desk.said()] == [resumed(word) for word in range(3)]
    desk.follow()
    assert desk.author.pending is None
    assert desk.said()[-1].body.seen.size > 0


def test_an_entry_is_on_the_disk_before_it_is_sent(desk: Desk) -> None:
    def send(leaf: bytes) -> Receipt:
        assert (desk.directory / "last-entry.leaf").read_bytes() == leaf
        return desk.sequencer(leaf)

    desk.author.close()
    desk.author = pen(desk, send=send)
    desk.author.submit(resumed(1))


@pytest.mark.parametrize("where", ["lose_before", "lose_after"])
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_a_lost_entry_or_answer_is_sent_again_as_the_same_bytes(
    desk: Desk, where: str, crash: bool, same: bool
) -> None:
    setattr(desk.sequencer, where, 1)
    with pytest.raises(CoordinatorUnreachable):
        desk.author.submit(resumed("first"))
    if crash:
        desk.crash()
    assert desk.author.pending is not None
    desk.author.submit(resumed("first" if same else "second"))
    words = ["first"] if same else ["first", "second"]
    assert [e.body.op for e in desk.said()] == [resumed(word) for word in words]
    assert desk.sequencer.calls[0] == desk.sequencer.calls[1]
    desk.follow()
    assert desk.author.pending is None


def test_what_is_pending_can_be_sent_by_itself(desk: Desk) -> None:
    assert desk.author.resend() is None
    desk.sequencer.lose_before = 1
    with pytest.raises(CoordinatorUnreachable):
        desk.author.submit(resumed("first"))
    desk.crash()
    receipt = desk.author.resend()
    assert receipt is not None
    assert len(desk.said()) == 1


def test_nothing_else_is_signed_in_the_place_of_a_refused_entry(desk: Desk) -> None:
    def refuse(leaf: bytes) -> Receipt:
        raise NotAdmitted("entry", "not today")

    desk.author.close()
    desk.author = pen(desk, send=refuse)
    for word in ("first", "second"):
        with pytest.raises(NotAdmitted, match="not today"):
            desk.author.submit(resumed(word))
    pending = desk.author.pending
    assert pending is not None
    assert pending.body.op == resumed("first")


def test_a_crash_while_writing_leaves_the_entry_before(desk: Desk) -> None:
    desk.author.submit(resumed("first"))
    (desk.directory / "last-entry.new").write_bytes(b"half of an ent")
    desk.crash()
    desk.author.submit(resumed("second"))
    assert len(desk.said()) == 2


def test_one_process_a_key(desk: Desk) -> None:
    with pytest.raises(AlreadyRunning, match="another process writes with this member's key"):
        pen(desk)
    code = (
        "import fcntl, os, sys\n"
        "handle = os.open(sys.argv[1], os.O_RDWR)\n"
        "try:\n    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError:\n    print('refused')\n"
    )
    lock = desk.directory / "last-entry.lock"
    told = subprocess.run(
        [sys.executable, "-c", code, str(lock)], capture_output=True, text=True, check=True
    )
    assert told.stdout == "refused\n"
    desk.author.close()
    desk.author = pen(desk)


def test_a_damaged_last_entry_is_named_and_leaves_no_lock(desk: Desk) -> None:
    desk.author.submit(resumed("first"))
    path = desk.directory / "last-entry.leaf"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    desk.author.close()
    with pytest.raises(StoreUnusable, match=r"last-entry\.leaf.*ask a steward for a rekey"):
        pen(desk)
    path.write_bytes(whole)
    desk.author = pen(desk)


def test_a_retired_key_says_nothing_also_not_what_was_pending(desk: Desk) -> None:
    desk.sequencer.lose_before = 1
    with pytest.raises(CoordinatorUnreachable):
        desk.author.submit(resumed("lost"))
    new = ring_of("basel-node again", "node")
    keys = member_keys(new)
    proof = new.entry.sign("invitation", claim_bytes(desk.federation.id, NODE, keys)).hex()
    desk.federation.say(NODE, KeyRotated(type="key.rotated", keys=keys, proof=proof))
    desk.follow()
    calls = len(desk.sequencer.calls)
    with pytest.raises(NotAdmitted, match=r"was retired at entry .* ask a steward for a rekey"):
        desk.author.submit(resumed("more"))
    assert len(desk.sequencer.calls) == calls
    desk.author.close()
    renewed = KeyRing(
        handle=NODE,
        role="node",
        entry=new.entry,
        witness=new.witness,
        request=new.request,
        sealing=new.sealing,
        log=None,
    )
    desk.author = pen(desk, renewed)
    desk.author.submit(resumed("with the new key"))
    assert desk.said()[-1].body.key == new.entry.id
    assert desk.said()[-1].body.seq == 0


def test_a_key_that_is_not_enrolled_says_nothing(desk: Desk) -> None:
    desk.author.close()
    desk.author = pen(desk, ring_of("stranger", "node"))
    with pytest.raises(NotAdmitted, match="not enrolled in this copy of the log"):
        desk.author.submit(resumed("hello"))
    assert not desk.sequencer.calls
    assert parse_leaf((desk.directory / "last-entry.leaf").read_bytes()).body.author == NODE


def test_what_no_log_would_take_does_not_block_the_chain(desk: Desk) -> None:
    blob = BlobRef(sha256=EMPTY_HASH, bytes=0)
    long: Operation = RoundAggregated(
        type="round.aggregated",
        experiment=EMPTY_HASH,
        round=1,
        attempt=1,
        updates=tuple(h(n) for n in range(500)),
        aggregate=blob,
        model=blob,
    )
    with pytest.raises(MalformedInput, match="name fewer things"):
        desk.author.submit(long)
    desk.author.submit(resumed("after it"))
    assert len(desk.said()) == 1


def test_the_clock_is_in_milliseconds() -> None:
    assert 1_700_000_000_000 < clock_ms() < 10_000_000_000_000


@pytest.mark.parametrize("keep", [True, False])
def test_a_home_that_was_restored_signs_nothing_once_the_log_shows_it(
    desk: Desk, keep: bool
) -> None:
    path = desk.directory / "last-entry.leaf"
    desk.author.submit(resumed("before the backup"))
    backup = path.read_bytes()
    desk.author.submit(resumed("after it"))
    seq = desk.said()[-1].body.seq
    desk.author.close()
    path.write_bytes(backup) if keep else path.unlink()
    desk.author = pen(desk)
    desk.follow()
    assert desk.author.copied
    calls = len(desk.sequencer.calls)
    with pytest.raises(CopiedKey, match="consilium member new-keys") as caught:
        desk.author.submit(resumed("again"))
    assert (caught.value.signed, caught.value.sequenced) == (seq - 1 if keep else None, seq)
    assert (len(desk.sequencer.calls), desk.author.resend()) == (calls, None)


def test_a_home_whose_key_signed_another_entry_elsewhere_signs_nothing(desk: Desk) -> None:
    desk.sequencer.lose_before = 1
    with pytest.raises(CoordinatorUnreachable):
        desk.author.submit(resumed("here"))
    assert not desk.author.copied
    desk.federation.say(NODE, resumed("elsewhere"))
    desk.follow()
    assert desk.author.copied
    with pytest.raises(CopiedKey, match="or another under that number"):
        desk.author.submit(resumed("here again"))


def test_a_full_disk_is_said_and_the_next_entry_takes_the_place(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr("ledger.entries.author.flush_folder", _no_space)
        with pytest.raises(StoreUnusable, match="No space left on device"):
            desk.author.submit(resumed("first"))
    assert desk.sequencer.calls == []
    assert desk.author.submit(resumed("second")).applied


def _no_space(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
