"""The coordinator signs a receipt and does not keep it: the author's own copy exposes it, with the
promise and what contradicts it, which any member may put on record."""

from __future__ import annotations

import pytest

from ledger.copies.broken_receipt import BrokenReceipt, judge_broken, read_broken
from ledger.entries.operations.log import NodeResumed, ReceiptBroken, TimeNoted
from ledger.errors import NotConsistent, Refused
from ledger.formats.keys import SigningKey
from ledger.formats.proof import Proof
from ledger.formats.receipt import open_receipt, sign_receipts
from tests.adversary.coordinator import MERGE_MS, Receipt, row_of
from tests.adversary.hospital import Hospital
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted

YEAR_MS = 365 * 86_400_000
RESUMED = NodeResumed(type="node.resumed", nonce="7" * 64)


def promised(world: World, basel: Hospital, *, index: int | None = None) -> bytes:
    """Basel hands an entry in and is promised it; the log never gets it. Returns the leaf."""
    handed_in: list[bytes] = []

    def take(leaf: bytes) -> Receipt:
        handed_in.append(leaf)
        at = world.federation.log.size if index is None else index
        return Receipt(at, True, None, world.coordinator.promise(leaf, at))

    world.coordinator.submit = take  # type: ignore[method-assign]  # the lie
    basel.say(RESUMED)
    del world.coordinator.submit  # type: ignore[method-assign]
    (leaf,) = handed_in
    return leaf


def evidence(world: World, basel: Hospital, way: str) -> bytes:
    """What basel holds in hands, which a stranger with the log's key and a copy of it judges."""
    (kept,) = [c for c in basel.store.conflicts() if c.kind == "receipt"]
    stranger = world.hospital("davos").replica
    verdict = judge_broken(read_broken(kept.evidence), stranger.log_key, stranger.state)
    assert (verdict.way, verdict.author) == (way, basel.handle)
    assert basel.receipts.unpublished == (kept.evidence,)
    assert basel.receipts.waiting == ()
    return kept.evidence


@attack(
    name="coordinator holds an entry back beyond its receipt, and goes on speaking",
    exposed_by="the author's own copy",
    evidence="the receipt, and a proof of another entry at that index",
)
def test_an_entry_held_back_beyond_its_receipt_is_exposed_by_the_next_entry(world: World) -> None:
    basel = world.hospital("basel")
    leaf = promised(world, basel)
    assert [kept.leaf for kept in basel.receipts.waiting] == [leaf]
    world.let_time_pass(MERGE_MS + 1)
    world.settle()
    shown = evidence(world, basel, "denied")
    world.exposed("the author's own copy")
    assert refuted(world.audit(basel.directory)) == [(6, "the evidence kept in this copy")]

    # What stays trusted: the log is not forked, everybody goes on, and holds the entry with the proof.
    assert {h.size for h in world.hospitals.values()} == {world.federation.log.size}
    assert not [
        c for h in world.hospitals.values() for c in h.store.conflicts() if c.kind == "fork"
    ]
    bern = world.hospital("bern")
    bern.say(ReceiptBroken(type="receipt.broken", evidence=world.federation.put(shown)))
    world.coordinator.submit(read_broken(shown).leaf)  # anybody may hand it in again
    home = world.coordinator.write(world.directory / "published")
    assert refuted(world.audit(home)) == [(6, f"entry {world.federation.log.size - 2}")]


@attack(
    name="coordinator promises a place far ahead, and lets the deadline pass",
    exposed_by="the author's own copy",
    evidence="the receipt, and the coordinator's own later entry in a shorter log",
)
def test_a_promise_far_ahead_is_broken_when_log_time_passes_it(world: World) -> None:
    basel = world.hospital("basel")
    promised(world, basel, index=10_000)
    world.let_time_pass(MERGE_MS - 10_000)
    world.settle()
    assert not basel.receipts.unpublished  # not yet
    world.let_time_pass(10_001)
    world.settle()
    shown = evidence(world, basel, "late")
    world.exposed("the author's own copy")
    assert refuted(world.audit(basel.directory)) == [(6, "the evidence kept in this copy")]
    true = read_broken(shown)
    leaf = world.federation.leaves[basel.size - 2]
    earlier = Proof(
        basel.size - 2, basel.replica.inclusion(basel.size - 2, basel.size), basel.checkpoint
    )
    lesser = BrokenReceipt(true.leaf, true.receipt, earlier.encode(), leaf)
    with pytest.raises(NotConsistent, match="spoke before the deadline, not after"):
        judge_broken(lesser, basel.replica.log_key, basel.replica.state)


@attack(
    name="coordinator holds an entry back, and its log stands still",
    exposed_by="a quorum of hospitals that cosigned after the deadline",
    evidence="the receipt, and a shorter checkpoint that they cosigned later",
)
def test_hospitals_that_saw_a_shorter_log_after_the_deadline_are_evidence(world: World) -> None:
    basel = world.hospital("basel")
    world.coordinator.say(TimeNoted(type="time.noted"))
    promised(world, basel)
    world.federation.now_ms += MERGE_MS + 1_500
    for hospital in world.hospitals.values():
        hospital.follow()
    basel.follow()
    assert not basel.receipts.unpublished  # nobody has cosigned yet: the author alone knows
    world.federation.now_ms += 10_000
    basel.follow()
    assert len(basel.receipts.overdue) == 1
    world.settle()
    shown = evidence(world, basel, "unseen")
    world.exposed("a quorum of hospitals that cosigned after the deadline")
    assert not basel.receipts.overdue
    assert refuted(world.audit(basel.directory)) == [(6, "the evidence kept in this copy")]
    accused = read_broken(shown)
    signed = basel.store.checkpoint_at(basel.size)
    assert signed is not None
    lesser = BrokenReceipt(accused.leaf, accused.receipt, signed)
    with pytest.raises(NotConsistent, match="no quorum of hospitals cosigned it after"):
        judge_broken(lesser, basel.replica.log_key, basel.replica.state)


@attack(
    name="coordinator gives a receipt that nobody could hold against it",
    exposed_by="the author, before it counts the entry as handed in",
    evidence="none needed: it signs again and is answered properly, or not at all",
)
@pytest.mark.parametrize(
    ("lie", "error"),
    [
        ("none", "begins with ''"),
        ("another entry", "leads to another root"),
        ("another key", "signed by no key we know"),
        ("another index", "it promises index"),
        ("in a year", "more than an hour away"),
    ],
)
def test_a_receipt_that_proves_nothing_is_refused(world: World, lie: str, error: str) -> None:
    basel, coordinator = world.hospital("basel"), world.coordinator
    stranger = SigningKey.generate()

    def take(leaf: bytes) -> Receipt:
        honest = type(coordinator).submit(coordinator, leaf)
        at, now = honest.index, world.federation.now_ms
        origin, hashes = world.federation.origin, [row_of(leaf).leaf]
        false = {
            "none": b"",
            "another entry": coordinator.promise(world.federation.leaves[0], at),
            "another key": sign_receipts(
                stranger, origin, at, hashes, accepted_ms=now, merge_by_ms=now
            )[0].encode(),
            "another index": coordinator.promise(leaf, at + 1),
            "in a year": sign_receipts(
                coordinator.log_key, origin, at, hashes, accepted_ms=now, merge_by_ms=now + YEAR_MS
            )[0].encode(),
        }
        return Receipt(at, honest.applied, honest.reason, false[lie])

    coordinator.submit = take  # type: ignore[method-assign]  # the lie
    with world.caught(
        Refused, by="the author, before it counts the entry as handed in", match=error
    ):
        basel.say(RESUMED)
    assert basel.receipts.waiting == ()
    del coordinator.submit  # type: ignore[method-assign]
    assert basel.author.resend() is not None  # the same bytes again, and an answer that holds
    assert len(basel.receipts.waiting) == 1
    world.settle()
    assert basel.receipts.waiting == ()


def test_an_honest_log_settles_its_receipts_and_a_restart_keeps_those_that_wait(
    world: World,
) -> None:
    basel = world.hospital("basel")
    basel.say(RESUMED)
    (kept,) = basel.receipts.waiting
    index, _ = open_receipt(kept.receipt, row_of(kept.leaf).leaf, basel.replica.log_key)
    assert index == kept.index == basel.size
    basel.close()
    basel.open()
    assert basel.receipts.waiting == (kept,)
    world.let_time_pass(2 * MERGE_MS)
    world.settle()
    assert basel.receipts.waiting == basel.receipts.overdue == basel.receipts.unpublished == ()
    assert world.audit(basel.directory).exit_code == 0
