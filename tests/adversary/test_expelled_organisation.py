"""A hospital that was put out goes on endorsing, cosigning, joining; an invitation that was withdrawn is
used: what an organisation may do ends at the index at which k others said so."""

from __future__ import annotations

from ledger.errors import NotAdmitted, NotWitnessed
from ledger.formats.keys import key_id
from tests.adversary.changes import endorsed, endorsement, expulsion, invite, weak_policy, withdraw
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import POLICY, node_of, one_time_key, steward_of


def expel(world: World, organisation: str = "davos") -> None:
    """Basel and bern put an organisation out; the others have seen it."""
    endorsed(world, expulsion(organisation), steward_of("basel"), steward_of("bern"))


@attack(
    name="an expelled hospital's steward endorses a change",
    exposed_by="the door, and every follower",
    evidence="its key, and the index of the expulsion at which it was retired",
)
def test_an_expelled_steward_endorses_nothing(world: World) -> None:
    federation = world.federation
    said = federation.say(steward_of("chur"), weak_policy()).entry
    late = federation.entry(steward_of("davos"), endorsement(said.hash))
    expel(world)
    index = federation.log.size - 1
    world.settle()
    world.attack_begins()
    with world.caught(NotAdmitted, by="the door, and every follower") as caught:
        world.coordinator.submit(late.leaf)  # the lie
    assert caught.value.reason == f"key {late.body.key} was retired at entry {index}"
    world.coordinator.lie([*federation.leaves, late.leaf])  # nor with the coordinator's help
    with world.caught(NotAdmitted, by="the door, and every follower"):
        world.hospital("basel").follow()
    assert world.hospital("basel").replica.state.policy == POLICY


@attack(
    name="a hospital endorses a change, is expelled, and its endorsement is counted",
    exposed_by="everybody's fold",
    evidence="an expulsion takes the endorsement back: one of two",
)
def test_an_endorsement_from_before_the_expulsion_counts_no_more(world: World) -> None:
    federation = world.federation
    said = federation.say(steward_of("davos"), weak_policy()).entry
    expel(world)
    world.settle()
    world.attack_begins()
    op = endorsement(said.hash)
    federation.say(steward_of("chur"), op)  # the lie: chur's would have been the second
    world.hospital("basel").follow()
    state = world.hospital("basel").replica.state
    assert state.changes[said.hash].organisations == {"chur"}
    assert state.policy == POLICY
    world.exposed("everybody's fold")


@attack(
    name="the hospital that is to be expelled stops it, or is counted for it",
    exposed_by="everybody's fold",
    evidence="void: not_permitted; it is neither asked nor counted",
)
def test_nobody_votes_on_its_own_expulsion(world: World) -> None:
    federation = world.federation
    said = federation.say(steward_of("basel"), expulsion("davos")).entry
    world.attack_begins()
    op = endorsement(said.hash)
    federation.say(steward_of("davos"), op, void="not_permitted")  # the lie
    assert world.hospital("chur").follow()[-1].outcome.void == "not_permitted"
    world.exposed("everybody's fold")
    state = world.hospital("chur").replica.state
    assert state.changes[said.hash].organisations == {"basel"}
    assert state.members[steward_of("davos")].expelled_at is None


@attack(
    name="coordinator calls a checkpoint final by an expelled hospital's cosignature",
    exposed_by="every hospital",
    evidence="three of three are needed, and the expelled one is none of them",
)
def test_an_expelled_witness_makes_nothing_final(world: World) -> None:
    federation = world.federation
    expel(world)
    world.settle()
    before = federation.finals[-1]
    assert set(federation.state.witnesses_at(before)) == {"basel", "bern", "chur"}
    world.let_time_pass(0)
    world.attack_begins()
    federation.checkpoint([node_of("basel"), node_of("bern"), node_of("davos")])
    federation.finals.append(federation.log.size)  # the lie
    chur = world.hospital("chur")
    chur.follow_entries()
    with world.caught(NotWitnessed, by="every hospital") as caught:
        chur.follow()
    assert caught.value.missing == {"chur"}
    assert chur.replica.final.size == before


@attack(
    name="somebody joins by an invitation that was withdrawn",
    exposed_by="the door, and every follower",
    evidence="no open invitation has a free seat for that handle",
)
def test_a_withdrawn_invitation_lets_nobody_in(world: World) -> None:
    federation = world.federation
    op = invite("sham", "sham-node")
    endorsed(world, op, steward_of("basel"), steward_of("bern"))
    sham = federation.joining("sham", "sham-node", "node")
    endorsed(world, withdraw("sham"), steward_of("chur"), steward_of("davos"))
    world.settle()
    world.attack_begins()
    with world.caught(NotAdmitted, by="the door, and every follower") as caught:
        world.coordinator.submit(sham.leaf)  # the lie
    assert "no open invitation has a free seat for 'sham-node'" in caught.value.reason
    world.coordinator.lie([*federation.leaves, sham.leaf])  # nor with the coordinator's help
    with world.caught(NotAdmitted, by="the door, and every follower"):
        world.hospital("basel").follow()


@attack(
    name="one bribed steward withdraws the other hospitals' invitations",
    exposed_by="everybody's fold",
    evidence="one endorsement of two: the invitation stays open",
)
def test_one_organisation_withdraws_nobody_elses_invitation(world: World) -> None:
    federation = world.federation
    endorsed(world, invite("zug", "zug-node"), steward_of("basel"), steward_of("bern"))
    kid = key_id("ed25519", one_time_key("zug").public)
    world.attack_begins()
    federation.say(steward_of("davos"), withdraw("zug"))  # the lie
    world.hospital("chur").follow()
    assert world.hospital("chur").replica.state.invitations[kid].free == {"zug-node"}
    world.exposed("everybody's fold")
    federation.join("zug", "zug-node", "node")
