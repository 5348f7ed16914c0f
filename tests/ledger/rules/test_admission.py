"""Admission: only an envelope that fits this log, at this place, is let in."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.entries.entry import Body, Entry, Seen, sign_entry
from ledger.entries.invitation import member_keys
from ledger.entries.operations.log import ForkReported, NodeResumed
from ledger.entries.operations.members import KeyRotated, MemberJoined
from ledger.entries.operations.values import BlobRef
from ledger.errors import BadSignature, NotAdmitted
from ledger.formats.keys import SigningKey, key_id
from ledger.formats.merkle import EMPTY_ROOT
from ledger.formats.value import replace
from ledger.rules.admission import admit
from ledger.rules.members import claim_bytes
from tests.federation import COORDINATOR, Federation, node_of, one_time_key, ring_of, steward_of
from tests.ledger.facts import h

NODE = node_of("basel")
RESUMED = NodeResumed(type="node.resumed", nonce="0" * 64)


def changed(federation: Federation, by: SigningKey | None = None, **fields: Any) -> Entry:
    """The node's next entry, with fields of its envelope changed and signed anew."""
    body = federation.entry(NODE, RESUMED).body
    return sign_entry(replace(body, **fields), by or federation.rings[NODE].entry)


def refused(federation: Federation, entry: Entry) -> str:
    before = federation.state
    with pytest.raises(NotAdmitted) as caught:
        federation.take(entry)
    assert federation.state is before
    return caught.value.reason


def test_the_next_entry_is_let_in_under_its_authors_key() -> None:
    federation = Federation.found(("basel",))
    entry = federation.entry(NODE, RESUMED)
    public = admit(federation.state, entry, federation.log.tree.root)
    assert public == federation.rings[NODE].entry.public
    federation.take(entry)


def test_an_entry_of_another_federation_is_refused() -> None:
    federation = Federation.found(("basel",))
    other = Federation.found(("basel",), now_ms=5)
    assert other.id != federation.id
    reason = refused(federation, other.entry(NODE, RESUMED))
    assert reason == f"it is for federation {other.id[:12]}, not for this one"


def test_a_chain_has_no_gap_and_no_double() -> None:
    federation = Federation.found(("basel",))
    chain = federation.state.keys[federation.rings[NODE].entry.id]
    for fields in (
        {"seq": chain.next_seq + 1},
        {"seq": chain.next_seq - 1},
        {"prev": h("another")},
        {"prev": "0" * 64},
    ):
        reason = refused(federation, changed(federation, **fields))
        assert f"goes on with number {chain.next_seq} after {chain.head[:12]}" in reason


def test_the_same_entry_is_not_let_in_twice() -> None:
    federation = Federation.found(("basel",))
    entry = federation.take(federation.entry(NODE, RESUMED)).entry
    assert "goes on with number" in refused(federation, entry)


def test_a_void_entry_moves_its_authors_chain_all_the_same() -> None:
    federation = Federation.found(("basel",))
    fork = ForkReported(type="fork.reported", ours=blob(), theirs=blob())
    federation.say(COORDINATOR, fork, void="not_permitted")
    federation.say(COORDINATOR, fork, void="not_permitted")
    assert federation.state.keys[federation.rings[COORDINATOR].entry.id].next_seq == 3


def blob() -> BlobRef:
    return BlobRef(sha256=h(1), bytes=1)


def test_keys_that_are_unknown_or_anothers_are_refused() -> None:
    federation = Federation.found(("basel", "bern"))
    stranger = SigningKey.from_seed(bytes(32))
    reason = refused(federation, changed(federation, stranger, key=stranger.id))
    assert reason == f"key {stranger.id} is not enrolled"
    bern = federation.rings[node_of("bern")].entry
    reason = refused(federation, changed(federation, bern, key=bern.id))
    assert reason == f"key {bern.id} belongs to bern-node"


def test_a_retired_key_signs_nothing_more() -> None:
    federation = Federation.found(("basel",))
    new = ring_of("basel-node again", "node")
    keys = member_keys(new)
    proof = new.entry.sign("invitation", claim_bytes(federation.id, NODE, keys)).hex()
    federation.say(NODE, KeyRotated(type="key.rotated", keys=keys, proof=proof))
    reason = refused(federation, federation.entry(NODE, RESUMED))
    assert reason.endswith(f"was retired at entry {federation.log.size - 1}")


def test_a_signature_by_another_key_is_refused_by_the_log() -> None:
    federation = Federation.found(("basel",))
    entry = federation.entry(NODE, RESUMED)
    forged = Entry(entry.body, entry.raw, bytes(64), entry.hash)
    with pytest.raises(BadSignature):
        federation.log.judge_entry(forged)


def test_what_an_author_has_seen_is_a_prefix_of_this_log() -> None:
    federation = Federation.found(("basel",))
    size, tree = federation.log.size, federation.log.tree
    ahead = Seen(size=size + 1, root=h("the future"))
    assert "it has seen" in refused(federation, changed(federation, seen=ahead))
    forked = Seen(size=size - 1, root=h("another history"))
    reason = refused(federation, changed(federation, seen=forked))
    assert reason == f"the log it has seen, of {size - 1} entries, is not a prefix of this one"
    nothing = Seen(size=0, root=h("not empty"))
    assert "is not a prefix" in refused(federation, changed(federation, seen=nothing))
    for seen in (0, 1, size):
        root = (tree.root(seen) if seen else EMPTY_ROOT).hex()
        admit(federation.state, changed(federation, seen=Seen(size=seen, root=root)), tree.root)


# --- joining --------------------------------------------------------------------------------------


def joining(
    federation: Federation, handle: str, role: str, *, one_time: SigningKey | None = None, **op: Any
) -> Entry:
    ring = ring_of(handle, role)
    key = one_time or one_time_key("institute")
    keys = op.pop("keys", member_keys(ring))
    proof = op.pop("proof", key.sign("invitation", claim_bytes(federation.id, handle, keys)).hex())
    joined = MemberJoined(
        type="member.joined",
        invitation=key_id("ed25519", key.public),
        keys=keys,
        proof=proof,
        card=None,
    )
    body = Body(
        v=1,
        federation=federation.id,
        author=handle,
        key=ring.entry.id,
        seq=0,
        prev="0" * 64,
        seen=federation.seen(),
        at_ms=0,
        op=joined,
    )
    return sign_entry(replace(body, **op), ring.entry)


def waiting() -> Federation:
    """A federation in which the researcher of the institute has not joined."""
    full = Federation.found(("basel",))
    federation = Federation(rings={COORDINATOR: full.rings[COORDINATOR]})
    federation.take(full.entries()[0])
    return federation


def test_a_member_joins_with_a_key_that_its_invitation_signed() -> None:
    federation = waiting()
    federation.take(joining(federation, "ada", "researcher"))
    assert federation.state.members["ada"].organisation == "institute"


def test_joining_again_or_without_a_seat_is_refused() -> None:
    federation = waiting()
    entry = joining(federation, "ada", "researcher")
    federation.take(entry)
    assert "no open invitation has a free seat for 'ada'" in refused(federation, entry)
    stranger = joining(federation, "mallory", "researcher")
    assert "no open invitation" in refused(federation, stranger)
    unknown = SigningKey.from_seed(bytes(32))
    other = joining(federation, steward_of("basel"), "steward", one_time=unknown)
    assert "no open invitation" in refused(federation, other)


def test_joining_needs_the_invitations_word_for_exactly_these_keys() -> None:
    federation = waiting()
    elsewhere = claim_bytes(h("other"), "ada", member_keys(ring_of("ada", "researcher")))
    proof = one_time_key("institute").sign("invitation", elsewhere).hex()
    entry = joining(federation, "ada", "researcher", proof=proof)
    assert "did not sign for this handle and these keys" in refused(federation, entry)


def test_joining_is_signed_by_the_key_that_it_enrols_at_the_start_of_its_chain() -> None:
    federation = waiting()
    other = member_keys(ring_of("another", "researcher"))
    entry = joining(federation, "ada", "researcher", keys=other)
    assert "not signed by the entry key" in refused(federation, entry)
    for fields in ({"seq": 1}, {"prev": h(1)}):
        entry = joining(federation, "ada", "researcher", **fields)
        assert "with the first entry of its key's chain" in refused(federation, entry)


def test_a_node_and_only_a_node_enrols_a_witness_key() -> None:
    federation = waiting()
    entry = joining(federation, "ada", "node")
    assert refused(federation, entry) == "a node enrols a witness key, and only a node"
    entry = joining(federation, NODE, "steward", one_time=one_time_key("basel"))
    assert refused(federation, entry) == "a node enrols a witness key, and only a node"


def test_nobody_joins_with_a_key_that_is_in_use() -> None:
    federation = waiting()
    hub = member_keys(federation.rings[COORDINATOR])
    own = member_keys(ring_of("ada", "researcher"))
    for keys in (
        replace(own, request=hub.request),
        replace(own, request=own.entry),
        replace(own, request=federation.state.log_key),
    ):
        entry = joining(federation, "ada", "researcher", keys=keys)
        assert "is or was in use" in refused(federation, entry)
