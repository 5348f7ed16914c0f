"""Too few witnesses are left: nothing becomes final, everybody is told, and who may mend it does."""

from __future__ import annotations

from dataclasses import replace

from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import (
    ChangeEndorsed,
    ChangeProposed,
    ExpelChange,
    RekeyChange,
)
from ledger.entries.operations.log import NodeReady
from ledger.entries.operations.members import KeyRevoked, KeyRotated
from ledger.errors import NotWitnessed
from ledger.formats.checkpoint import log_verifier
from ledger.rules.finality import judge_final, standing_quorum
from ledger.rules.members import claim_bytes
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import HOSPITALS, Federation, node_of, steward_of
from tests.federation_log import ring_of


def revoke(federation: Federation, *hospitals: str) -> None:
    """These hospitals' stewards end their nodes' keys."""
    for hospital in hospitals:
        op = KeyRevoked(type="key.revoked", member=node_of(hospital), compromised_since_ms=None)
        federation.say(steward_of(hospital), op)


def change(federation: Federation, what: RekeyChange | ExpelChange, *hospitals: str) -> None:
    """The first of these hospitals' stewards proposes, the others endorse."""
    first, *others = hospitals
    proposed = federation.say(
        steward_of(first), ChangeProposed(type="change.proposed", change=what)
    )
    for hospital in others:
        op = ChangeEndorsed(type="change.endorsed", change=proposed.entry.hash)
        federation.say(steward_of(hospital), op)


def is_final(federation: Federation, note: bytes, before: int) -> bool:
    """Whether everybody's rule takes a note as final after the final checkpoint of a size."""
    verifier = log_verifier(federation.origin, bytes.fromhex(federation.state.log_key.public))
    try:
        judge_final(note, verifier, federation.state, before=before).require()
    except NotWitnessed:
        return False
    return True


@attack(
    name="coordinator goes on calling checkpoints final after the quorum was lost",
    exposed_by="every follower",
    evidence="who is missing of the hospitals at the final checkpoint before",
)
def test_a_lost_quorum_makes_nothing_final(world: World) -> None:
    federation, basel = world.federation, world.hospital("basel")
    before = basel.replica.final.size
    revoke(federation, "chur", "davos")
    left = [node_of("basel"), node_of("bern")]
    note = federation.checkpoint(left)
    basel.follow()
    world.attack_begins()
    with world.caught(NotWitnessed, by="every follower", match="chur, davos"):
        basel.replica.accept_final(note)  # the lie
    standing = standing_quorum(basel.replica.state, before)
    assert (standing.lost, standing.needed, standing.able) == (True, 3, {"basel", "bern"})
    assert "chur, davos no longer can" in str(standing.in_words)
    assert "consilium federation succeed propose" in str(standing.in_words)


def test_new_keys_by_k_organisations_make_checkpoints_final_again() -> None:
    federation = Federation.found(HOSPITALS)
    federation.finalize()
    before = federation.log.size
    assert standing_quorum(federation.state, before).in_words is None
    revoke(federation, "chur")
    assert "nobody to spare" in str(standing_quorum(federation.state, before).in_words)
    revoke(federation, "davos")
    left = [node_of("basel"), node_of("bern")]
    assert not is_final(federation, federation.checkpoint(left), before)
    ring = replace(ring_of("chur-node-2", "node"), handle=node_of("chur"))
    rekey = RekeyChange(member=node_of("chur"), keys=member_keys(ring))
    change(federation, rekey, "basel", "bern")
    federation.rings[node_of("chur")] = ring
    federation.say(node_of("chur"), NodeReady(type="node.ready", protocol=1))
    assert not standing_quorum(federation.state, before).lost
    assert not is_final(federation, federation.checkpoint(left), before)
    assert is_final(federation, federation.checkpoint([*left, node_of("chur")]), before)


def test_an_expelled_hospital_leaves_no_place_to_fill() -> None:
    federation = Federation.found(HOSPITALS)
    federation.finalize()
    before = federation.log.size
    revoke(federation, "chur", "davos")
    for hospital in ("chur", "davos"):
        change(federation, ExpelChange(organisation=hospital), "basel", "bern")
    left = [node_of("basel"), node_of("bern")]
    assert standing_quorum(federation.state, before).witnesses == {"basel", "bern"}
    assert not is_final(federation, federation.checkpoint(left[:1]), before)
    assert is_final(federation, federation.checkpoint(left), before)


def test_three_hospitals_of_which_one_rotates_its_keys_go_on() -> None:
    federation = Federation.found(HOSPITALS[:3])
    federation.finalize()
    before = federation.log.size
    ring = replace(ring_of("basel-node-2", "node"), handle=node_of("basel"))
    keys = member_keys(ring)
    claim = claim_bytes(federation.id, node_of("basel"), keys)
    proof = ring.entry.sign("invitation", claim).hex()
    federation.say(node_of("basel"), KeyRotated(type="key.rotated", keys=keys, proof=proof))
    federation.rings[node_of("basel")] = ring
    others = [node_of("bern"), node_of("chur")]
    assert not is_final(federation, federation.checkpoint(others), before)
    assert is_final(federation, federation.checkpoint([*others, node_of("basel")]), before)
