"""The coordinator loses its database, or rolls it back: it stops by itself, or hospitals stop it."""

from __future__ import annotations

import shutil

import pytest

from coordinator.errors import RolledBack
from coordinator.sequencing.sequencer import Sequencer
from ledger.copies.evidence import Fork, judge_fork, read_fork, split
from ledger.copies.store import LogStore
from ledger.entries.operations.log import ForkReported, TimeNoted
from ledger.errors import ForkDetected, NotAdmitted, NotConsistent
from ledger.formats.checkpoint import open_checkpoint
from tests.adversary.coordinator import Story, copy_home
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR
from tests.patience import PATIENCE_S


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
    running.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
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
    name="coordinator shows a checkpoint of another history, of a size nobody keeps a note of",
    exposed_by="every hospital that has followed",
    evidence="two notes, and the proof that the larger tree does not begin with the smaller",
)
def test_a_fork_between_two_sizes_can_be_checked_by_others(world: World) -> None:
    basel = world.hospital("basel")
    for _ in range(4):
        world.let_time_pass(0)
    basel.follow()
    other = world.coordinator.branch(basel.size - 3)
    other.now_ms += 7
    other.say(COORDINATOR, TimeNoted(type="time.noted"))
    assert basel.store.checkpoint_at(other.log.size) is None
    world.coordinator.show(Story(other.leaves))  # the lie
    with world.caught(ForkDetected, by="every hospital that has followed") as caught:
        basel.follow()
    found = refuted(world.audit(basel.directory))
    assert found == [(6, "the evidence kept in this copy")]
    stranger = read_fork(*caught.value.statements)  # who has no copy, only the log's key
    assert "does not begin with them" in judge_fork(stranger, world.coordinator.verifier)

    evidence = [world.federation.put(each) for each in caught.value.statements]
    world.coordinator.show(world.coordinator.honest)
    basel.say(ForkReported(type="fork.reported", ours=evidence[0], theirs=evidence[1]))
    home = world.coordinator.write(world.directory / "published")
    at = world.federation.log.size - 1
    assert refuted(world.audit(home)) == [(6, f"entry {at}")]  # any member publishes it


def test_evidence_that_is_changed_proves_nothing(world: World) -> None:
    basel = world.hospital("basel")
    for _ in range(4):
        world.let_time_pass(0)
    basel.follow()
    size = basel.size - 2
    ours, theirs = basel.checkpoint, world.coordinator.sign(world.federation.leaves[:size])
    proof = basel.replica.consistency(size, basel.size)
    honest = Fork(ours, theirs, size, basel.replica.root(size), proof)
    with pytest.raises(NotConsistent, match="of one history"):
        judge_fork(honest, world.coordinator.verifier)
    for false in (
        Fork(ours, theirs),
        Fork(ours, theirs, size, bytes(32), proof),
        Fork(ours, theirs, size - 1, basel.replica.root(size - 1), proof),
        Fork(ours, ours),
    ):
        with pytest.raises(NotConsistent):
            judge_fork(false, world.coordinator.verifier)
    basel.store.put_conflict("fork", Fork(ours, theirs, size, bytes(32), proof).encode())
    verdicts = world.audit(basel.directory)
    assert verdicts.exit_code == 0
    assert verdicts.best.verdict_of(6) == "not_checkable"


@attack(
    name="coordinator goes on from an old backup, beyond what hospitals hold",
    exposed_by="every hospital that has followed",
    evidence="the first entry that does not continue its author's chain; the note, kept",
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
    (kept,) = basel.store.conflicts()
    assert (kept.kind, split(kept.evidence)[0]) == ("unexplained", basel.checkpoint)
    verdicts = world.audit(basel.directory)
    assert verdicts.exit_code == 0  # by itself it proves no fork
    assert any("a copy that reaches its size" in c.detail for c in verdicts.best.unchecked)
    for _ in range(3):
        world.let_time_pass(0)
    world.coordinator.show(world.coordinator.honest)
    basel.follow()
    place = f"checkpoint of size {restored.log.size}, kept as unexplained"
    assert refuted(world.audit(basel.directory)) == [
        (6, place)
    ]  # with the true log beside it, it does


def test_a_shorter_copy_of_the_same_log_is_no_fork(world: World) -> None:
    basel = world.hospital("basel")
    trusted = basel.trusted
    shorter = world.coordinator.branch(basel.size - 2)
    world.coordinator.show(Story(shorter.leaves, shorter.notes, shorter.finals))
    assert basel.follow() == []
    assert basel.trusted == trusted
    assert not list(basel.store.conflicts())
