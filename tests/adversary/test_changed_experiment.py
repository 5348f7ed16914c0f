"""The researcher changes the experiment after approval: an approval is over the proposal's hash, which
names the specification's; the plan is what the specification implies."""

from __future__ import annotations

import pytest

from ledger.copies.blobs import BlobStore
from ledger.errors import BlobCorrupt
from ledger.formats.value import replace
from node.duties.duty import Refuse
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import RESEARCHER, node_of

NODE = "the hospital's node"


@attack(
    name="researcher proposes another experiment under the approved one's name",
    exposed_by=NODE,
    evidence="its approvals are for another proposal's hash",
)
def test_an_approval_does_not_carry_over_to_another_proposal(world: World) -> None:
    first = world.experiment()
    second = world.experiment(approved_by=[], epsilon="2")  # the lie: same name, more epsilon
    assert first != second
    assert world.federation.experiment(first).name == world.federation.experiment(second).name
    world.open_round(second, "basel-heart", "bern-heart")
    world.settle()
    basel = world.hospital("basel")
    assert basel.duties() == (Refuse(second, "basel-heart", "not_approved"),)
    world.exposed(NODE)
    world.federation.reserve(second, "basel-heart", void="not_approved")
    assert set(basel.replica.state.experiments[first].approvals) == {"basel-heart", "bern-heart"}


@attack(
    name="researcher proposes a plan that its specification does not imply",
    exposed_by=NODE,
    evidence="the plan recompiled from the specification that the steward read",
)
def test_a_plan_other_than_the_specifications_is_refused(world: World) -> None:
    federation, basel = world.federation, world.hospital("basel")
    world.experiment()
    names = ["basel-heart", "bern-heart"]
    spoken = federation.proposal(federation.spec(names, name="second", rounds=2))
    meant = federation.proposal(federation.spec(names, name="second", rounds=5))
    world.attack_begins()
    false = replace(spoken, plan=meant.plan)
    said = federation.say(RESEARCHER, false)  # the lie
    for name in names:
        federation.approve(said.entry.hash, name)
    world.open_round(said.entry.hash, *names)
    world.settle()
    found = basel.check_plan(said.entry.hash)
    assert found.refused is not None
    assert found.refused.where.startswith("plan")
    (duty,) = [d for d in basel.duties() if getattr(d, "experiment", "") == said.entry.hash]
    assert duty == Refuse(said.entry.hash, "basel-heart", "plan_mismatch")
    world.exposed(NODE)
    home = world.coordinator.write(world.directory / "hub")
    assert refuted(world.audit(home)) == [(9, f"entry {said.index} (second)")]


@attack(
    name="coordinator hands out another specification than was approved",
    exposed_by=NODE,
    evidence="the SHA-256 in the signed proposal is not that of the document",
)
def test_a_swapped_specification_is_no_document_of_the_proposal(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    other = federation.proposal(federation.spec(["basel-heart", "bern-heart"], rounds=9)).spec
    approved = federation.experiment(experiment).spec
    home = world.coordinator.write(world.directory / "hub")
    blobs = BlobStore(home / "blobs")
    path = blobs.path(approved.sha256)
    path.chmod(0o600)
    path.write_bytes(federation.blobs[other.sha256])  # the lie
    world.coordinator.messages += 1
    with pytest.raises(BlobCorrupt) as caught:
        blobs.get(approved)
    assert caught.value.path == path
    world.exposed(NODE)
    found = refuted(world.audit(home))
    assert any(step == 13 and approved.sha256[:12] in str(place) for step, place in found)


@attack(
    name="a hospital's table changes after its steward approved",
    exposed_by="everybody's fold",
    evidence="void: dataset_changed; the plan names an older registration",
)
def test_an_approval_does_not_carry_over_to_another_table(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    terms = federation.state.datasets["basel-heart"].terms
    federation.say(node_of("basel"), replace(terms, snapshot="ab" * 32))  # the lie
    federation.reserve(experiment, "basel-heart", void="dataset_changed")
    assert world.hospital("bern").follow()[-1].outcome.void == "dataset_changed"
    world.exposed("everybody's fold")
