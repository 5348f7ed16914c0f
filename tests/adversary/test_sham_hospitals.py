"""The coordinator admits sham hospitals, buys a witness quorum: endorsements by distinct organisations
under the old policy; the quorum of the final checkpoint before; each witness key once."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from ledger.entries.entry import Entry, genesis_body, parse_leaf, sign_entry
from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import (
    FederationFounded,
)
from ledger.entries.operations.log import NodeReady
from ledger.entries.operations.members import MemberJoined
from ledger.errors import NotAdmitted, NotWitnessed
from ledger.rules.log import Log
from ledger.rules.members import claim_bytes
from tests.adversary.changes import endorsed, endorsement, invite, weak_policy
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import COORDINATOR, POLICY, node_of, one_time_key, ring_of, steward_of


def joining_with(world: World, organisation: str, handle: str, witness_of: str) -> Entry:
    """A joining entry whose witness key is somebody else's."""
    entry = world.federation.joining(organisation, handle, "node")
    ring = replace(
        ring_of(handle, "node"), witness=world.federation.rings[node_of(witness_of)].witness
    )
    op = entry.body.op
    assert isinstance(op, MemberJoined)
    keys = member_keys(ring)
    claim = claim_bytes(world.federation.id, handle, keys)
    proof = one_time_key(organisation).sign("invitation", claim).hex()
    forged = structs.replace(op, keys=keys, proof=proof)
    return sign_entry(structs.replace(entry.body, op=forged), ring.entry)


@attack(
    name="coordinator lets a hospital in that nobody invited",
    exposed_by="every follower",
    evidence="no open invitation has a seat for that handle",
)
def test_nobody_joins_without_an_invitation(world: World) -> None:
    sham = world.federation.joining("sham", "sham-node", "node")
    world.coordinator.lie([*world.federation.leaves, sham.leaf])  # the lie
    with world.caught(NotAdmitted, by="every follower") as caught:
        world.hospital("basel").follow()
    assert caught.value.where == "entry sham-node/0"
    assert "no open invitation has a free seat for 'sham-node'" in caught.value.reason


@attack(
    name="coordinator invites a sham hospital itself",
    exposed_by="everybody's fold",
    evidence="void: not_permitted; a coordinator endorses nothing",
)
def test_a_coordinator_invites_nobody(world: World) -> None:
    world.federation.say(COORDINATOR, invite("sham", "sham-node"), void="not_permitted")  # the lie
    assert world.hospital("basel").follow()[-1].outcome.void == "not_permitted"
    world.exposed("everybody's fold")
    assert not world.federation.state.changes


@attack(
    name="one bribed steward invites a sham hospital",
    exposed_by="every follower",
    evidence="one endorsement of two: the invitation is not in force",
)
def test_an_invitation_with_one_endorsement_opens_no_seat(world: World) -> None:
    endorsed(world, invite("sham", "sham-node"), steward_of("basel"))
    world.settle()
    sham = world.federation.joining("sham", "sham-node", "node")
    world.coordinator.lie([*world.federation.leaves, sham.leaf])  # the lie
    with world.caught(NotAdmitted, by="every follower") as caught:
        world.hospital("chur").follow()
    assert "no open invitation" in caught.value.reason
    (pending,) = world.hospital("chur").replica.state.changes.values()
    assert pending.organisations == {"basel"}
    assert pending.effective_at is None


@attack(
    name="one bribed steward endorses its own proposal again",
    exposed_by="everybody's fold",
    evidence="void: change_spent; organisations count once",
)
def test_an_organisation_endorses_once(world: World) -> None:
    said = world.federation.say(steward_of("basel"), invite("sham", "sham-node")).entry
    world.attack_begins()
    op = endorsement(said.hash)
    world.federation.say(steward_of("basel"), op, void="change_spent")  # the lie
    assert world.hospital("chur").follow()[-1].outcome.void == "change_spent"
    world.exposed("everybody's fold")


@attack(
    name="coordinator founds a federation and invites its own organisation",
    exposed_by="whoever reads genesis",
    evidence="entry 0: the organisation that runs the coordinator is invited too",
)
def test_a_founding_coordinator_does_not_invite_itself(world: World) -> None:
    genesis = parse_leaf(world.federation.leaves[0]).body
    assert isinstance(genesis.op, FederationFounded)
    own = structs.replace(genesis.op.invitations[0], organisation="operator")
    op = structs.replace(genesis.op, invitations=(own, *genesis.op.invitations[1:]))
    hub = world.federation.rings[COORDINATOR].entry
    entry = sign_entry(genesis_body(COORDINATOR, hub.id, genesis.at_ms, op), hub)
    world.coordinator.messages += 1
    with world.caught(NotAdmitted, by="whoever reads genesis") as caught:
        Log().judge(entry.leaf)  # the lie
    assert caught.value.where == "entry 0"
    assert "operator" in caught.value.reason


@attack(
    name="bribed stewards invite the coordinator's own organisation",
    exposed_by="everybody's fold",
    evidence="void: invitation_conflict; the coordinator counts for none",
)
def test_the_coordinators_organisation_gets_no_steward(world: World) -> None:
    op = invite("operator", "hub-node")
    world.federation.say(steward_of("basel"), op, void="invitation_conflict")  # the lie
    assert world.hospital("chur").follow()[-1].outcome.void == "invitation_conflict"
    world.exposed("everybody's fold")


@attack(
    name="one bribed steward lowers the endorsements that a change needs",
    exposed_by="everybody's fold",
    evidence="the old policy holds: one endorsement of two",
)
def test_a_policy_changes_under_the_old_policy_only(world: World) -> None:
    world.federation.say(steward_of("basel"), weak_policy())  # the lie
    world.hospital("chur").follow()
    assert world.hospital("chur").replica.state.policy == POLICY
    (pending,) = world.hospital("chur").replica.state.changes.values()
    assert pending.effective_at is None
    world.exposed("everybody's fold")


@attack(
    name="sham hospital enrols a hospital's witness key as its own",
    exposed_by="every follower",
    evidence="the key is in use already",
)
def test_a_witness_key_belongs_to_one_member(world: World) -> None:
    endorsed(world, invite("sham", "sham-node"), steward_of("basel"), steward_of("bern"))
    world.settle()
    sham = joining_with(world, "sham", "sham-node", witness_of="basel")
    world.coordinator.lie([*world.federation.leaves, sham.leaf])  # the lie
    with world.caught(NotAdmitted, by="every follower") as caught:
        world.hospital("chur").follow()
    assert caught.value.where == "entry sham-node/0"
    assert "in use" in caught.value.reason
    assert "make new ones" in caught.value.reason


@attack(
    name="five shams vouch for their own admission",
    exposed_by="every hospital",
    evidence="the quorum is of hospitals at the final before",
)
def test_shams_do_not_vouch_for_their_own_admission(world: World) -> None:
    federation = world.federation
    before = federation.finals[-1]
    handles = [f"sham{n}-node" for n in range(5)]
    for n, handle in enumerate(handles):
        organisation = f"sham{n}"
        endorsed(world, invite(organisation, handle), steward_of("basel"), steward_of("bern"))
        federation.join(organisation, handle, "node")
        federation.say(handle, NodeReady(type="node.ready", protocol=1))
    federation.checkpoint(handles)
    world.attack_begins()
    federation.finals.append(federation.log.size)  # the lie
    chur = world.hospital("chur")
    chur.follow_entries()
    with world.caught(NotWitnessed, by="every hospital") as caught:
        chur.follow()
    assert caught.value.missing == {"basel", "bern", "chur", "davos"}
    assert chur.replica.final.size == before
    assert len(chur.replica.state.witnesses_at(federation.log.size)) == 9  # they would count later
