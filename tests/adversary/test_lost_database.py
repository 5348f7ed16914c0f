"""The coordinator loses its database, or rolls it back: it stops by itself, or hospitals stop it."""

from __future__ import annotations

import shutil

from coordinator.errors import RolledBack
from coordinator.sequencer import Sequencer
from ledger.checkpoint import open_checkpoint
from ledger.errors import ForkDetected, NotAdmitted
from ledger.operations import TimeNoted
from ledger.store import LogStore
from tests.adversary.coordinator import Story, copy_home
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR


@attack(
    name="administrator restores the coordinator's database from an old backup",
    exposed_by="the coordinator itself",
    evidence="the size it signed, in a file outside, and the size it holds",
)
def test_a_coordinator_that_was_rolled_back_stops(world: World) -> None:
    home = world.coordinator.write(world.directory / "hub")
    size = world.federation.log.size
    backup = copy_home(home, world.directory / "backup")
    hub = world.federation.rings[COORDINATOR]

    def sequencer(store: LogStore) -> Sequencer:
        return Sequencer(store, hub, world.federation.id, head=home / "head.note")

    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    running = sequencer(store)
    running.start()
    running.say(TimeNoted(type="time.noted")).result(10)
    running.close()
    store.close()
    for file in home.glob("ledger.db*"):
        file.unlink()
    world.attack_begins()
    shutil.copy(backup / "ledger.db", home / "ledger.db")  # the lie
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    with world.caught(RolledBack, by="the coordinator itself") as caught:
        sequencer(store)
    store.close()
    assert (caught.value.held, caught.value.signed) == (size, size + 1)
    assert "nothing is signed" in str(caught.value)


@attack(
    name="coordinator goes on from an old backup all the same",
    exposed_by="every hospital that has followed",
    evidence="two notes by the log's key, one size, two roots",
)
def test_a_coordinator_that_goes_on_from_a_backup_has_forked(world: World) -> None:
    basel = world.hospital("basel")
    seen = basel.checkpoint
    restored = world.coordinator.branch(basel.size - 2)
    for _ in range(2):
        restored.now_ms += 7
        restored.say(COORDINATOR, TimeNoted(type="time.noted"))
    story = Story(restored.leaves, restored.notes, restored.finals)
    world.coordinator.show(story)  # the lie
    with world.caught(ForkDetected, by="every hospital that has followed") as caught:
        basel.follow()
    notes = (caught.value.ours, caught.value.theirs)
    ours, theirs = (open_checkpoint(note, world.coordinator.verifier) for note in notes)
    assert notes[0] == seen
    assert (ours.size, ours.root != theirs.root) == (theirs.size, True)
    assert (6, "the evidence kept in this copy") in refuted(world.audit(basel.directory))


@attack(
    name="coordinator goes on from an old backup, beyond what hospitals hold",
    exposed_by="every hospital that has followed",
    evidence="the first entry that does not continue its author's chain",
)
def test_a_coordinator_that_outgrows_its_hospitals_from_a_backup_is_refused(world: World) -> None:
    basel = world.hospital("basel")
    restored = world.coordinator.branch(basel.size - 1)
    for _ in range(3):
        restored.now_ms += 7
        restored.say(COORDINATOR, TimeNoted(type="time.noted"))
    world.coordinator.show(Story(restored.leaves, restored.notes, restored.finals))  # the lie
    with world.caught(NotAdmitted, by="every hospital that has followed") as caught:
        basel.follow()
    second = restored.entries()[-2].body
    assert caught.value.where == f"entry {COORDINATOR}/{second.seq}"
    assert "its key's chain goes on with number" in caught.value.reason


def test_a_shorter_copy_of_the_same_log_is_no_fork(world: World) -> None:
    basel = world.hospital("basel")
    trusted = basel.trusted
    shorter = world.coordinator.branch(basel.size - 2)
    world.coordinator.show(Story(shorter.leaves, shorter.notes, shorter.finals))
    assert basel.follow() == []
    assert basel.trusted == trusted
    assert not list(basel.store.conflicts())
