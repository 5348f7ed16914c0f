"""A coordinator that has lost its database is offered false copies, or would like to forget something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from coordinator.errors import RefillRefused, RolledBack
from coordinator.refilling.refill import Refill
from coordinator.sequencing.sequencer import Sequencer
from coordinator.settings import GENESIS, HEAD, CoordinatorSettings
from ledger.copies.leaves import read_leaves
from ledger.copies.stored import Conflict, StoredNote
from ledger.errors import BlobMissing, ForkDetected
from tests.adversary.hospital import Hospital
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import COORDINATOR, node_of


@dataclass
class Brought:
    """A hospital's copy, as it lies in its store, and what it makes of it."""

    hospital: Hospital
    forged_at: int | None = None
    until: int | None = None

    @property
    def name(self) -> str:
        return self.hospital.name

    def leaves(self, start: int) -> Iterator[bytes]:
        stop = self.hospital.size if self.until is None else self.until
        for at, leaf in enumerate(read_leaves(self.hospital.store, start, stop), start):
            yield leaf[:-1] + bytes([leaf[-1] ^ 1]) if at == self.forged_at else leaf

    def checkpoints(self) -> Iterator[StoredNote]:
        return iter(self.hospital.store.checkpoints())

    def finals(self) -> Iterator[StoredNote]:
        return iter(self.hospital.store.finals())

    def evidence(self) -> Iterator[Conflict]:
        return self.hospital.store.conflicts()

    def blob(self, sha256: str, length: int | None) -> bytes:
        raise BlobMissing(self.hospital.directory, "it keeps none")


@contextmanager
def lost(world: World, *left_out: str) -> Iterator[Refill]:
    """A home with keys and genesis, and an empty database."""
    home = world.directory / "hub"
    home.mkdir(exist_ok=True)
    (home / GENESIS).write_bytes(world.federation.leaves[0])
    settings = CoordinatorSettings(federation=world.federation.id, home=home)
    with Refill(settings, world.federation.rings[COORDINATOR], left_out) as refill:
        yield refill


@attack(
    name="hospital offers a changed entry to a coordinator that lost its database",
    exposed_by="the refill",
    evidence="the entry, whose author's signature does not verify",
)
def test_a_changed_copy_refills_nothing(world: World) -> None:
    basel = world.hospital("basel")
    author = world.federation.entries()[6].body
    with lost(world) as refill:
        world.attack_begins()
        with world.caught(RefillRefused, by="the refill") as caught:
            refill.take(Brought(basel, forged_at=6), node_of("basel"))  # the lie
        assert f"entry {author.author}/{author.seq}" in caught.value.reason
        assert (refill.replica.size, refill.standing.shown) == (1, ())
        refill.take(Brought(world.hospital("bern")), node_of("bern"))
        assert refill.replica.size == world.federation.log.size


@attack(
    name="coordinator that lost its database leaves out what one hospital holds",
    exposed_by="the coordinator itself",
    evidence="the higher checkpoint that this hospital showed, in a file outside the database",
)
def test_what_anybody_showed_cannot_be_forgotten(world: World) -> None:
    basel, bern = world.hospital("basel"), world.hospital("bern")
    shorter = basel.size
    world.let_time_pass(0)
    bern.follow()
    others = [node_of(name) for name in world.hospitals]
    with lost(world, *others) as refill:
        refill.take(Brought(basel))
        refill.take(Brought(bern, until=shorter))  # the lie: its newest entry is lost on the way
        with pytest.raises(RefillRefused, match=f"over {bern.size} entries was signed"):
            refill.finish()
        world.attack_begins()
        head = world.directory / "hub" / HEAD
        with world.caught(RolledBack, by="the coordinator itself") as caught:
            Sequencer(
                refill.replica.store,
                world.federation.rings[COORDINATOR],
                world.federation.id,
                head=head,
            )
    assert (caught.value.held, caught.value.signed) == (shorter, bern.size)


@attack(
    name="coordinator that forked its log hopes that a refill mends it",
    exposed_by="the refill",
    evidence="two notes by the log's key that no one history explains, kept",
)
def test_a_refill_does_not_mend_a_fork(world: World) -> None:
    basel, bern = world.hospital("basel"), world.hospital("bern")
    branch = world.coordinator.branch(basel.size - 1)
    branch.now_ms += 7
    forked = branch.say(COORDINATOR, world.federation.entries()[-1].body.op)
    note = world.coordinator.sign(branch.leaves)
    with lost(world) as refill:
        refill.take(Brought(basel), node_of("basel"))
        world.attack_begins()
        with world.caught(ForkDetected, by="the refill") as caught:
            refill.show(node_of("bern"), note)  # the lie
        assert caught.value.theirs == note
        assert [item.kind for item in refill.replica.store.conflicts()] == ["fork"]
        assert refill.replica.size == basel.size == bern.size == forked.index + 1
