"""Somebody gets keys for a member that is not theirs, goes on with a key that ended, or plays an old
change late: keys change by the old one's signature or by k organisations, and end by evidence."""

from __future__ import annotations

from ledger.entries.entry import Body, Entry, Seen, sign_entry
from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import (
    ChangeProposed,
    RekeyChange,
)
from ledger.entries.operations.log import NodeResumed, TimeNoted
from ledger.entries.operations.members import KeyRotated
from ledger.errors import NotAdmitted
from ledger.formats.keys import KeyRing
from ledger.formats.value import replace
from ledger.rules.equivocation import conflict_operation
from ledger.rules.members import claim_bytes
from tests.adversary.changes import endorsement, weak_policy
from tests.adversary.coordinator import Receipt, resigned
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import COORDINATOR, POLICY, node_of, ring_of, steward_of
from tests.ledger.rules.test_fold_members import anew


def resumed(world: World, hospital: str, digit: str) -> Entry:
    """An entry that a node signs for its next place."""
    op = NodeResumed(type="node.resumed", nonce=digit * 64)
    return world.federation.entry(node_of(hospital), op)


def rekey(world: World, ring: KeyRing) -> ChangeProposed:
    """A steward asks for new keys for a member."""
    change = RekeyChange(member=ring.handle, keys=member_keys(ring))
    return ChangeProposed(type="change.proposed", change=change)


def bern_meets_both(world: World, first: Entry, second: Entry) -> Receipt:
    """Two entries are signed for one place: the log takes the first, bern says that there is a second."""
    world.federation.take(first)
    world.settle()
    world.attack_begins()
    op = conflict_operation(first.leaf, second.leaf)
    assert op is not None
    return world.hospital("bern").say(op)


@attack(
    name="one bribed steward gives another hospital's node new keys",
    exposed_by="every follower",
    evidence="one endorsement of two: the keys are not enrolled",
)
def test_a_rekey_one_endorsement_short_enrols_nothing(world: World) -> None:
    federation = world.federation
    thief = anew(node_of("basel"), "node")
    federation.say(steward_of("davos"), rekey(world, thief))
    world.settle()
    honest = federation.rings[node_of("basel")]
    genuine = resumed(world, "basel", "7")
    body = replace(genuine.body, key=thief.entry.id, seq=0, prev="0" * 64)
    forged = resigned_body(genuine, body, thief)
    world.coordinator.lie([*federation.leaves, forged])  # the lie
    with world.caught(NotAdmitted, by="every follower") as caught:
        world.hospital("chur").follow()
    assert caught.value.reason == f"key {thief.entry.id} is not enrolled"
    state = world.hospital("chur").replica.state
    assert state.members[node_of("basel")].keys == member_keys(honest)
    assert state.keys[honest.entry.id].retired_at is None


def resigned_body(entry: Entry, body: object, ring: KeyRing) -> bytes:
    """A leaf with another body, signed by these keys."""
    assert isinstance(body, Body)
    assert body != entry.body
    return sign_entry(body, ring.entry).leaf


@attack(
    name="thief signs with the old key after its owner changed it",
    exposed_by="the door, and every follower",
    evidence="the key, and the index at which it was retired",
)
def test_a_rotated_key_signs_nothing_more(world: World) -> None:
    federation = world.federation
    node = node_of("basel")
    stolen = resumed(world, "basel", "8")
    new = anew(node, "node")
    proof = new.entry.sign("invitation", claim_bytes(federation.id, node, member_keys(new))).hex()
    said = federation.say(node, KeyRotated(type="key.rotated", keys=member_keys(new), proof=proof))
    world.attack_begins()
    with world.caught(NotAdmitted, by="the door, and every follower") as caught:
        world.coordinator.submit(stolen.leaf)  # the lie
    assert caught.value.reason == f"key {stolen.body.key} was retired at entry {said.index}"
    world.coordinator.lie([*federation.leaves, stolen.leaf])  # nor with the coordinator's help
    with world.caught(NotAdmitted, by="the door, and every follower"):
        world.hospital("bern").follow()


@attack(
    name="thief enrols keys of its own, with the stolen entry key and no proof for the new one",
    exposed_by="everybody's fold",
    evidence="void: bad_proof; the new key signs for itself",
)
def test_a_rotation_to_keys_that_nobody_holds_is_void(world: World) -> None:
    federation = world.federation
    node = node_of("basel")
    keys = member_keys(ring_of("somebody else", "node"))
    claim = claim_bytes(federation.id, node, keys)
    proof = federation.rings[node].entry.sign("invitation", claim).hex()
    op = KeyRotated(type="key.rotated", keys=keys, proof=proof)
    federation.say(node, op, void="bad_proof")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "bad_proof"
    world.exposed("everybody's fold")


@attack(
    name="a node's key signs two entries for one place of its chain",
    exposed_by="whoever meets both, and then everybody's fold",
    evidence="key.conflicted carries both entries: the key is retired for all",
)
def test_two_entries_at_one_place_end_the_key(world: World) -> None:
    federation = world.federation
    first, second = resumed(world, "davos", "1"), resumed(world, "davos", "2")
    third = resumed(world, "davos", "3")
    said = bern_meets_both(world, first, second)
    for name in ("basel", "chur"):
        world.hospital(name).follow()
        key = world.hospital(name).replica.state.keys[first.body.key]
        assert (key.retired_at, key.conflicted_at) == (said.index + 1, said.index)
        assert "davos" not in world.hospital(name).replica.state.witnesses_at(said.index + 1)
    world.exposed("whoever meets both, and then everybody's fold")
    world.coordinator.lie([*federation.leaves, third.leaf])
    with world.caught(NotAdmitted, by="every follower"):
        world.hospital("basel").follow()


@attack(
    name="somebody invents a second entry to end a hospital's key",
    exposed_by="everybody's fold",
    evidence="void: evidence_invalid; the key did not sign it",
)
def test_evidence_that_the_key_did_not_sign_ends_nothing(world: World) -> None:
    federation = world.federation
    first, second = resumed(world, "davos", "1"), resumed(world, "davos", "2")
    federation.take(first)
    forged = resigned(second, federation.rings[node_of("bern")].entry)
    world.attack_begins()
    op = conflict_operation(first.leaf, forged)
    assert op is not None
    federation.say(node_of("bern"), op, void="evidence_invalid")  # the lie
    assert world.hospital("chur").follow()[-1].outcome.void == "evidence_invalid"
    world.exposed("everybody's fold")
    state = world.hospital("chur").replica.state
    assert state.keys[first.body.key].retired_at is None
    assert "davos" in state.witnesses_at(state.size)


@attack(
    name="coordinator signs two entries for one place of its own chain",
    exposed_by="whoever meets both, and then everybody's fold",
    evidence="both entries, signed by its entry key, in an entry that it has to sequence",
)
def test_the_coordinators_own_key_ends_by_evidence(world: World) -> None:
    federation = world.federation
    noted = TimeNoted(type="time.noted")
    first = federation.entry(COORDINATOR, noted)
    second = federation.entry(COORDINATOR, noted, at_ms=federation.now_ms + 5)
    said = bern_meets_both(world, first, second)
    world.hospital("basel").follow()
    key = world.hospital("basel").replica.state.keys[first.body.key]
    assert key.retired_at == said.index + 1
    world.exposed("whoever meets both, and then everybody's fold")
    world.coordinator.lie([*federation.leaves, second.leaf])
    with world.caught(NotAdmitted, by="every follower"):
        world.hospital("basel").follow()


@attack(
    name="coordinator keeps an old endorsement of a policy and plays it when it suits",
    exposed_by="everybody's fold",
    evidence="void: stale; it was decided on a log too old",
)
def test_an_old_endorsement_of_a_policy_is_stale(world: World) -> None:
    federation = world.federation
    said = federation.say(steward_of("basel"), weak_policy()).entry
    held = federation.entry(steward_of("bern"), endorsement(said.hash))
    world.settle()
    world.let_time_pass(POLICY.max_delay_ms + POLICY.max_delay_ms // 32)
    world.settle()
    world.attack_begins()
    assert world.coordinator.submit(held.leaf).reason == "stale"  # the lie
    assert world.hospital("chur").follow()[-1].outcome.void == "stale"
    world.exposed("everybody's fold")
    state = world.hospital("chur").replica.state
    assert state.policy == POLICY
    assert state.changes[said.hash].effective_at is None


@attack(
    name="a steward claims to have seen no log, so that its old yes never ages",
    exposed_by="everybody's fold",
    evidence="void: stale; genesis is the oldest view of all",
)
def test_a_view_of_nothing_is_the_oldest_view(world: World) -> None:
    federation = world.federation
    world.let_time_pass(POLICY.max_delay_ms + POLICY.max_delay_ms // 32)
    genesis = Seen(size=1, root=federation.log.tree.root(1).hex())
    entry = federation.entry(steward_of("basel"), weak_policy(), seen=genesis)
    world.attack_begins()
    assert world.coordinator.submit(entry.leaf).reason == "stale"  # the lie
    assert world.hospital("chur").follow()[-1].outcome.void == "stale"
    world.exposed("everybody's fold")
