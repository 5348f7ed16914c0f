"""The coordinator rewrites or drops entries: key chains, Merkle consistency, witnesses."""

from __future__ import annotations

from ledger.entries.entry import parse_leaf
from ledger.entries.operations.datasets import DatasetWithdrawn
from ledger.errors import BadSignature, ForkDetected, NotAdmitted, NotWitnessed
from ledger.formats.checkpoint import cosign, open_checkpoint
from ledger.formats.witness import witness_name
from tests.adversary.coordinator import Story, edit, resigned
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR, node_of, steward_of


def coordinators(world: World, nth: int = -1) -> int:
    """Index of one of the coordinator's own entries, by default its newest."""
    leaves = world.federation.leaves
    own = [at for at, leaf in enumerate(leaves) if parse_leaf(leaf).body.author == COORDINATOR]
    return own[nth]


@attack(
    name="coordinator rewrites one of its entries",
    exposed_by="every hospital that has followed",
    evidence="two notes by the log's key, one size, two roots",
)
def test_a_coordinator_that_rewrites_yesterday_is_caught(world: World) -> None:
    basel = world.hospital("basel")
    seen = basel.checkpoint
    world.coordinator.rewrite(coordinators(world), at_ms=1)  # the lie
    with world.caught(ForkDetected, by="every hospital that has followed") as caught:
        basel.follow()
    assert caught.value.reason == f"two roots for {basel.size} entries"
    assert caught.value.ours == seen
    ours, theirs = (
        open_checkpoint(note, world.coordinator.verifier)
        for note in (caught.value.ours, caught.value.theirs)
    )
    assert ours.size == theirs.size  # evidence that anyone can check
    assert ours.root != theirs.root
    assert basel.checkpoint == seen  # trust did not move
    assert [c.kind for c in basel.store.conflicts()] == ["fork"]
    for other in ("bern", "chur", "davos"):
        with world.caught(ForkDetected, by="every hospital that has followed"):
            world.hospital(other).follow()


@attack(
    name="coordinator forges an approval in a steward's name",
    exposed_by="every follower",
    evidence="a signature that is not the steward's",
)
def test_a_forged_approval_is_taken_by_nobody(world: World) -> None:
    experiment = world.experiment(("basel", "bern"))
    entry = world.federation.entry(steward_of("basel"), world.approval(experiment, "basel"))
    hub = world.federation.rings[COORDINATOR].entry
    world.coordinator.lie([*world.federation.leaves, resigned(entry, hub)])  # the lie
    with world.caught(BadSignature, by="every follower") as caught:
        world.hospital("bern").follow()
    assert f"{steward_of('basel')}/{entry.body.seq}" in caught.value.where
    assert entry.body.key in caught.value.reason


@attack(
    name="coordinator re-signs a member's entry with its own key",
    exposed_by="every newcomer",
    evidence="the entry, whose signature is not by the key in its body",
)
def test_an_entry_that_the_coordinator_signed_again_is_refused(world: World) -> None:
    leaves = world.federation.leaves
    at = next(i for i, leaf in enumerate(leaves) if parse_leaf(leaf).body.author == node_of("bern"))
    newcomer = world.newcomer()
    hub = world.federation.rings[COORDINATOR].entry
    world.coordinator.replace(at, resigned(parse_leaf(leaves[at]), hub))  # the lie
    with world.caught(BadSignature, by="every newcomer") as caught:
        newcomer.follow()
    assert node_of("bern") in caught.value.where
    with world.caught(ForkDetected, by="every hospital that has followed"):
        world.hospital("basel").follow()  # whoever followed holds the other root


@attack(
    name="coordinator reorders two members' entries",
    exposed_by="every newcomer",
    evidence="an author's signed view that is no prefix of the log shown",
)
def test_reordered_entries_contradict_what_their_authors_saw(world: World) -> None:
    leaves = list(world.federation.leaves)
    leaves[3], leaves[4] = leaves[4], leaves[3]
    newcomer = world.newcomer()
    world.coordinator.lie(leaves)  # the lie
    with world.caught(NotAdmitted, by="every newcomer") as caught:
        newcomer.follow()
    moved = parse_leaf(leaves[3]).body
    assert caught.value.where == f"entry {moved.author}/{moved.seq}"
    assert caught.value.reason == f"it has seen {moved.seen.size} entries of a log of 3"


@attack(
    name="coordinator reorders one member's entries",
    exposed_by="every newcomer",
    evidence="the author's chain: number and predecessor",
)
def test_a_members_entries_cannot_change_places(world: World) -> None:
    experiment = world.experiment(("basel", "bern"))
    leaves = list(world.federation.leaves)
    of_basel = [
        at for at, leaf in enumerate(leaves) if parse_leaf(leaf).body.author == node_of("basel")
    ]
    a, b = of_basel[-2:]
    leaves[a], leaves[b] = leaves[b], leaves[a]
    assert experiment in world.federation.state.experiments
    newcomer = world.newcomer()
    world.coordinator.lie(leaves)  # the lie
    with world.caught(NotAdmitted, by="every newcomer") as caught:
        newcomer.follow()
    first, second = parse_leaf(leaves[b]).body.seq, parse_leaf(leaves[a]).body.seq
    assert caught.value.where == f"entry {node_of('basel')}/{second}"
    assert f"goes on with number {first}" in caught.value.reason


@attack(
    name="coordinator drops a withdrawal nobody else referred to",
    exposed_by="a sceptic with two copies",
    evidence="neither is a prefix of the other; a quorum cosigned the hospital's",
)
def test_a_dropped_withdrawal_is_missing_beside_a_hospitals_copy(world: World) -> None:
    world.experiment(("basel", "bern"))
    before = len(world.federation.leaves)
    basel = world.hospital("basel")
    op = DatasetWithdrawn(type="dataset.withdrawn", dataset="basel-heart", reason="consent")
    assert basel.say(op).applied
    world.settle()
    false = world.coordinator.branch(before)
    false.say(COORDINATOR, parse_leaf(world.federation.leaves[coordinators(world)]).body.op)
    world.coordinator.show(Story(false.leaves, false.notes, false.finals))  # the lie
    home = world.coordinator.write(world.directory / "false", world.coordinator.shown["basel"])
    assert world.audit(home).exit_code == 0  # alone it is a whole log, only not this one

    world.attack_begins()
    verdicts = world.audit(home, basel.directory)
    by = "a sceptic with two copies"
    assert verdicts.exit_code == 1
    (check,) = [check for check in verdicts.agreement if check.verdict == "refuted"]
    assert check.place in ("false", "basel")
    assert "are not the first" in check.detail
    witnessed = {report.source: report.witnesses for report in verdicts.reports}
    assert witnessed["basel"].size > witnessed["false"].size
    assert len(witnessed["basel"].signed) == 4
    world.exposed(by)
    with world.caught(ForkDetected, by="basel"):
        basel.follow()


@attack(
    name="log truncated in the coordinator's database",
    exposed_by="a sceptic with that copy",
    evidence="a checkpoint by the log over more entries than there are",
)
def test_a_truncated_database_is_refuted_by_its_own_checkpoint(world: World) -> None:
    size = world.federation.log.size
    home = world.coordinator.write(world.directory / "cut")
    world.attack_begins()
    edit(home / "ledger.db", ('DELETE FROM entries WHERE "index" >= ?', (size - 2,)))  # the lie
    verdicts = world.audit(home)
    assert verdicts.exit_code == 1
    assert (6, f"checkpoint of size {size}") in refuted(verdicts)
    assert verdicts.best.size == size - 2  # what is left still holds
    world.exposed("a sceptic with that copy")


@attack(
    name="coordinator rewrites its past with full database access and its keys",
    exposed_by="a sceptic with that copy",
    evidence="a member's later entry: its signed view is no prefix of this log",
)
def test_full_access_and_its_own_keys_do_not_suffice(world: World) -> None:
    world.experiment(("basel", "bern"))
    rewritten = world.coordinator.rewrite(coordinators(world, 1), at_ms=1)  # the lie
    home = world.coordinator.write(world.directory / "rewritten", Story(rewritten))
    verdicts = world.audit(home)
    at = coordinators(world, 1) + 1
    (first,) = [check for check in verdicts.best.refuted if check.step == 4]
    assert first.place == f"entry {at}"
    assert "is not a prefix of this one" in first.detail
    assert verdicts.best.size == at  # up to the lie everything is proved
    world.exposed("a sceptic with that copy")


@attack(
    name="coordinator calls a checkpoint final that is one hospital short",
    exposed_by="every hospital",
    evidence="who cosigned, who is missing, how many are needed",
)
def test_a_quorum_one_short_is_not_final(world: World) -> None:
    world.let_time_pass(0)
    for name in ("basel", "bern"):
        world.hospital(name).follow()
        world.hospital(name).cosign()
    size = world.federation.log.size
    assert size not in world.federation.finals
    world.attack_begins()
    world.federation.finals.append(size)  # the lie
    basel = world.hospital("basel")
    with world.caught(NotWitnessed, by="every hospital") as caught:
        basel.follow()
    assert caught.value.needed == 3
    assert caught.value.missing == {"chur", "davos"}
    assert basel.replica.final.size < size


@attack(
    name="one hospital's witness key cosigns twice, under two names",
    exposed_by="every hospital",
    evidence="the quorum counts organisations: two of three",
)
def test_two_lines_by_one_hospital_count_once(world: World) -> None:
    world.let_time_pass(0)
    for name in ("basel", "bern", "davos"):
        world.hospital(name).follow()
    for name in ("basel", "bern"):
        world.hospital(name).cosign()
    size = world.federation.log.size
    world.attack_begins()
    note = world.federation.notes[size]
    key = world.federation.rings[node_of("basel")].witness
    alias = witness_name(world.federation.origin, node_of("chur"))
    world.federation.notes[size] = note + cosign(note, key, alias, 2**31)  # the lie
    world.federation.finals.append(size)
    with world.caught(NotWitnessed, by="every hospital") as caught:
        world.hospital("davos").follow()
    assert caught.value.missing == {"chur", "davos"}
    assert "2 organisations cosigned where 3 must" in caught.value.reason
