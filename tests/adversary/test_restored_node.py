"""A node restores a backup to spend a budget twice: its key's chain has gone on, and its spend must be
what the log says."""

from __future__ import annotations

import pytest

from ledger.copies.evidence import frame, split
from ledger.entries.operations.experiments import ExperimentStopped
from ledger.entries.operations.log import NodeResumed
from ledger.errors import CopiedKey, NotAdmitted
from node.duties.duty import Adopt, Refuse, Settle
from node.register.accounts import Key
from tests.adversary.coordinator import resigned
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR, RESEARCHER, node_of


@attack(
    name="a node restored from a backup signs an old place of its chain again",
    exposed_by="the door, and every follower",
    evidence="two entries by one key with one number, both signed",
)
def test_a_restored_node_that_signs_an_old_number_is_refused(world: World) -> None:
    basel = world.hospital("basel")
    backup = basel.back_up(world.directory / "backup")
    first = NodeResumed(type="node.resumed", nonce="11" * 32)
    assert basel.say(first).applied
    said = world.federation.entries()[-1]
    world.settle()
    basel.restore(backup)
    world.attack_begins()
    second = NodeResumed(type="node.resumed", nonce="22" * 32)
    with world.caught(NotAdmitted, by="the door, and every follower") as caught:
        basel.say(second)
    again = basel.author.pending
    assert again is not None
    assert caught.value.where == f"entry {node_of('basel')}/{said.body.seq}"
    assert f"goes on with number {said.body.seq + 1} after {said.hash[:12]}" in caught.value.reason
    assert (again.body.key, again.body.seq) == (said.body.key, said.body.seq)  # both are evidence
    assert again.raw != said.raw
    world.hospital("basel").follow()
    with pytest.raises(CopiedKey, match="restored or copied"):  # its own software would have known
        basel.say(second)
    world.coordinator.lie([*world.federation.leaves, again.leaf])  # nor with the coordinator's help
    with world.caught(NotAdmitted, by="the door, and every follower"):
        world.hospital("bern").follow()


def spent(world: World) -> Key:
    """Basel has reserved 4 of its cell's 5 and used a step of it."""
    basel = world.hospital("basel")
    experiment = world.experiment(epsilon="4")
    world.open_round(experiment, "basel-heart", "bern-heart")
    world.settle()
    basel.check_plan(experiment)
    basel.reserve(experiment, "basel-heart")
    world.federation.reserve(experiment, "basel-heart")
    world.settle()
    basel.register.record_intent(
        experiment, "basel-heart", "train", round_number=1, steps=1, at_ms=1
    )
    return experiment, "basel-heart"


@attack(
    name="a node restores a backup from before its reservation",
    exposed_by="the node's own software",
    evidence="a reservation in the log that the register cannot account for",
)
def test_a_restored_register_learns_its_spend_from_the_log(world: World) -> None:
    basel = world.hospital("basel")
    world.experiment(epsilon="4")
    backup = basel.back_up(world.directory / "backup")
    experiment, dataset = spent(world)
    charged = basel.register.view.cells["basel-all"].spend
    basel.restore(backup)  # the lie
    world.attack_begins()
    basel.follow()
    assert basel.register.view.cells["basel-all"].spend.g == 0
    (adopt,) = [d for d in basel.duties() if getattr(d, "experiment", "") == experiment]
    assert isinstance(adopt, Adopt)
    world.exposed("the node's own software")
    basel.register.adopt(basel.replica.federation, experiment, dataset, adopt.charges)
    assert basel.register.view.cells["basel-all"].spend == charged  # spent, in full
    assert [d for d in basel.duties() if getattr(d, "experiment", "") == experiment] == [
        # Nothing trains on it: its noise may have been used before.
        Refuse(experiment, dataset, "unavailable")
    ]
    stop = ExperimentStopped(type="experiment.stopped", experiment=experiment, reason="researcher")
    world.federation.say(RESEARCHER, stop)
    world.settle()
    (settle,) = [d for d in basel.duties() if getattr(d, "experiment", "") == experiment]
    assert isinstance(settle, Settle)
    site = basel.replica.state.experiments[experiment].plan.sites[0]
    assert dict(settle.used) == {release.purpose: release.steps for release in site.releases}


@attack(
    name="a node restores a backup and asks the log for the budget again",
    exposed_by="everybody's fold",
    evidence="void: already_reserved, then budget_exhausted; cells never forget",
)
def test_the_log_charges_a_cell_whatever_the_node_forgot(world: World) -> None:
    basel = world.hospital("basel")
    backup = basel.back_up(world.directory / "backup")
    experiment, dataset = spent(world)
    basel.restore(backup)
    world.attack_begins()
    world.federation.reserve(experiment, dataset, void="already_reserved")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "already_reserved"
    world.exposed("everybody's fold")
    second = world.experiment(epsilon="4", name="second")
    world.federation.reserve(second, dataset, void="budget_exhausted")


@attack(
    name="a node's key signs two entries for one place of its chain, one for the coordinator to play",
    exposed_by="every follower",
    evidence="both entries, both signed, kept; a sceptic with the copy refutes",
)
def test_two_entries_at_one_place_of_a_chain_are_kept_as_evidence(world: World) -> None:
    basel, bern = world.hospital("basel"), world.hospital("bern")
    node = node_of("basel")
    second = world.federation.entry(node, NodeResumed(type="node.resumed", nonce="2" * 64))
    third = world.federation.entry(node, NodeResumed(type="node.resumed", nonce="3" * 64))
    basel.say(NodeResumed(type="node.resumed", nonce="1" * 64))
    said = world.federation.entries()[-1]
    world.settle()
    world.coordinator.lie([*world.federation.leaves, second.leaf])  # the lie
    with world.caught(NotAdmitted, by="every follower"):
        bern.follow()
    (kept,) = bern.store.conflicts()
    assert (kept.kind, *split(kept.evidence)) == ("equivocation", said.leaf, second.leaf)
    verdicts = world.audit(bern.directory)
    assert refuted(verdicts) == [(4, "the evidence kept in this copy")]
    assert f"{node} signed two entries" in verdicts.best.refuted[0].detail
    world.coordinator.lie([*world.federation.leaves, third.leaf])
    with world.caught(NotAdmitted, by="every follower"):
        bern.follow()
    assert list(bern.store.conflicts()) == [kept]  # one a key is enough


def test_an_entry_that_its_key_did_not_sign_accuses_nobody(world: World) -> None:
    bern = world.hospital("bern")
    second = world.federation.entry(
        node_of("basel"), NodeResumed(type="node.resumed", nonce="2" * 64)
    )
    world.hospital("basel").say(NodeResumed(type="node.resumed", nonce="1" * 64))
    world.settle()
    forged = resigned(second, world.federation.rings[COORDINATOR].entry)
    world.coordinator.lie([*world.federation.leaves, forged])
    with pytest.raises(NotAdmitted):
        bern.follow()
    assert not list(bern.store.conflicts())
    false = frame(world.federation.entries()[-1].leaf, forged)
    bern.store.put_conflict("equivocation", false)
    verdicts = world.audit(bern.directory)
    assert verdicts.exit_code == 0
    assert verdicts.best.verdict_of(4) == "not_checkable"
