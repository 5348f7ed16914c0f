"""The coordinator shows different logs to different hospitals: witness quorum; two checkpoints are
proof."""

from __future__ import annotations

from audit.witness.outside import OutsideWitness, add_log
from ledger.copies.evidence import judge_fork, read_fork
from ledger.entries.operations.log import ForkReported, NodeResumed, TimeNoted
from ledger.errors import BadSignature, ForkDetected, NotConsistent, NotWitnessed
from ledger.formats.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.tile_folder import export_tiles, folder
from ledger.formats.tiles import Fetch
from ledger.formats.witness import AddCheckpoint, Seen, checkpoint_path, judge_add_checkpoint
from tests.adversary.coordinator import Story, resigned
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR, node_of, ring_of


def split(world: World) -> None:
    """Two histories of one size: basel and bern see the true one, chur and davos another."""
    other = world.coordinator.branch()
    other.now_ms += 5
    other.say(COORDINATOR, TimeNoted(type="time.noted"))
    world.coordinator.say(TimeNoted(type="time.noted"))
    false = Story(other.leaves, other.notes, other.finals)
    world.coordinator.show(false, to=["chur", "davos"])
    for hospital in world.hospitals.values():
        hospital.follow()


@attack(
    name="coordinator shows two hospitals another log than two others",
    exposed_by="two hospitals that compare checkpoints",
    evidence="two notes by the log's key, one size, two roots",
)
def test_two_hospitals_that_meet_hold_the_proof_of_a_split_view(world: World) -> None:
    finals = {name: h.replica.final.size for name, h in world.hospitals.items()}
    split(world)  # the lie
    basel, chur = world.hospital("basel"), world.hospital("chur")
    with world.caught(ForkDetected, by="two hospitals that compare checkpoints") as caught:
        basel.compare(chur)
    assert (caught.value.ours, caught.value.theirs) == (basel.checkpoint, chur.checkpoint)
    ours, theirs = (
        open_checkpoint(note, world.coordinator.verifier)
        for note in (caught.value.ours, caught.value.theirs)
    )
    assert (ours.size, ours.root != theirs.root) == (theirs.size, True)
    assert {name: h.replica.final.size for name, h in world.hospitals.items()} == finals

    evidence = [world.federation.put(n) for n in (caught.value.ours, caught.value.theirs)]
    basel.say(ForkReported(type="fork.reported", ours=evidence[0], theirs=evidence[1]))
    home = world.coordinator.write(world.directory / "published")
    at = world.federation.log.size - 1
    assert refuted(world.audit(home)) == [(6, f"entry {at}")]  # any member publishes it
    assert refuted(world.audit(basel.directory)) == [(6, "the evidence kept in this copy")]


@attack(
    name="coordinator calls both halves of a split view final",
    exposed_by="every hospital",
    evidence="two of four cosigned where three must",
)
def test_neither_half_of_a_split_view_becomes_final(world: World) -> None:
    split(world)  # the lie
    for hospital in world.hospitals.values():
        hospital.cosign()
    for name in ("basel", "chur"):
        story = world.coordinator.shown.get(name, world.coordinator.honest)
        story.finals.append(len(story.leaves))
    with world.caught(NotWitnessed, by="every hospital") as caught:
        world.hospital("basel").follow()
    assert caught.value.needed == 3
    assert caught.value.missing == {"chur", "davos"}
    with world.caught(NotWitnessed, by="every hospital") as caught:
        world.hospital("chur").follow()
    assert caught.value.missing == {"basel", "bern"}


@attack(
    name="coordinator refills a hospital with the other half of a split view",
    exposed_by="the hospital's witness",
    evidence="the note that it cosigned before, and the one it should cosign now",
)
def test_a_witness_never_cosigns_both_halves(world: World) -> None:
    split(world)
    chur = world.hospital("chur")
    chur.cosign()
    cosigned = chur.store.witnessed(chur.replica.origin)
    assert cosigned is not None
    world.coordinator.show(world.coordinator.honest)  # the lie: chur lost its copy, and refills it
    refilled = world.newcomer("chur-again")
    refilled.follow()
    refilled.store.set_witnessed(
        chur.replica.origin, cosigned.size, cosigned.root, cosigned.note, expected_size=0
    )
    with world.caught(ForkDetected, by="the hospital's witness") as caught:
        refilled.cosign()
    assert caught.value.ours == cosigned.note
    assert caught.value.theirs == world.hospital("basel").checkpoint
    assert refilled.store.witnessed(chur.replica.origin) == cosigned


@attack(
    name="coordinator asks an outside witness to cosign the other half too",
    exposed_by="any outside witness",
    evidence="409 with the size it cosigned, 422 and both notes",
)
def test_an_outside_witness_refuses_the_second_half(world: World) -> None:
    split(world)  # the lie
    basel, chur = world.hospital("basel"), world.hospital("chur")
    first = open_checkpoint(basel.checkpoint, world.coordinator.verifier)
    held = {first.origin: Seen(first.size, first.root, basel.checkpoint)}
    for old, status in ((0, 409), (first.size, 422)):
        world.coordinator.messages += 1
        answer = judge_add_checkpoint(
            AddCheckpoint(old, (), chur.checkpoint).encode(),
            held,
            logs={first.origin: [world.coordinator.verifier]},
            key=ring_of("outsider", "auditor").witness,
            name="outside/witness",
            time_s=1,
        )
        assert answer.answer.status == status
        assert answer.state is held  # it remembers what it cosigned
        assert answer.fork is not None
        assert (answer.fork.ours, answer.fork.theirs) == (basel.checkpoint, chur.checkpoint)
        world.exposed("any outside witness")


@attack(
    name="somebody slips a wrong entry under a genuine checkpoint",
    exposed_by="the hospital",
    evidence="the entries do not give the signed root; no fork is claimed",
)
def test_a_wrong_entry_under_a_genuine_note_is_not_called_a_fork(world: World) -> None:
    federation, basel = world.federation, world.hospital("basel")
    true = federation.entry(node_of("bern"), NodeResumed(type="node.resumed", nonce="1" * 64))
    other = federation.entry(node_of("chur"), NodeResumed(type="node.resumed", nonce="2" * 64))
    federation.take(true)
    note = federation.checkpoint()
    with world.caught(NotConsistent, by="the hospital", match="do not give the root"):
        basel.replica.extend([other.leaf], note)  # the lie
    assert [c.kind for c in basel.store.conflicts()] == ["unexplained"]
    basel.follow()
    verdicts = world.audit(basel.directory)
    assert verdicts.exit_code == 0
    assert any(c.step == 6 and "the log is not forked" in c.detail for c in verdicts.best.checks)


@attack(
    name="thief of the log key alone signs another log for one hospital",
    exposed_by="the hospital",
    evidence="an entry that is signed by nobody who may, under a good note",
)
def test_the_log_key_alone_makes_no_entry(world: World) -> None:
    entry = world.federation.entry(COORDINATOR, TimeNoted(type="time.noted"))
    log_key = world.coordinator.log_key
    world.coordinator.lie([*world.federation.leaves, resigned(entry, log_key)], to=["basel"])
    with world.caught(BadSignature, by="the hospital") as caught:
        world.hospital("basel").follow()
    assert caught.value.where.startswith(f"entry {COORDINATOR}/")


@attack(
    name="coordinator rewrites the log for everybody but a quorum, and an auditor watches from outside",
    exposed_by="an outside witness",
    evidence="both notes, and the proof between their sizes",
)
def test_an_outside_witness_holds_the_proof_of_a_rewritten_longer_log(world: World) -> None:
    home = world.directory / "auditor"
    OutsideWitness.create(home, "auditor.example/w", b"secret", strength="interactive")
    add_log(home, world.coordinator.verifier, None)
    witness = OutsideWitness(home, b"secret", lambda: 1_800_000_000)
    leaves, note = list(world.federation.leaves), world.federation.checkpoint()
    assert witness.look(world.coordinator.verifier, tiles_of(world, "a", leaves, note)).cosigned
    trusted = witness.newest(checkpoint_path(world.coordinator.verifier.name))

    longer = [*leaves[:-1], leaves[-1][:-1] + b"\x00", b"and one more"]  # the lie
    root = MerkleTree.from_leaves(map(leaf_hash, longer)).root()
    origin = world.coordinator.verifier.name
    signed = sign_checkpoint(world.coordinator.log_key, Checkpoint(origin, len(longer), root))
    world.coordinator.messages += 1
    with world.caught(ForkDetected, by="an outside witness") as caught:
        witness.look(world.coordinator.verifier, tiles_of(world, "b", longer, signed))
    judged = judge_fork(read_fork(*caught.value.statements), world.coordinator.verifier)
    assert "does not begin with them" in judged
    assert witness.newest(checkpoint_path(origin)) == trusted
    witness.close()


def tiles_of(world: World, name: str, leaves: list[bytes], note: bytes) -> Fetch:
    """What the coordinator serves: checkpoint and tiles."""
    place = world.directory / f"tiles-{name}"
    export_tiles(lambda a, b: leaves[a:b], note, world.coordinator.verifier, place)
    return folder(place)
