"""Withdrawn invitations, expelled organisations and conflicted keys in the fold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.entries.entry import Entry, parse_leaf, sign_entry
from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import ExpelChange, RekeyChange, WithdrawChange
from ledger.entries.operations.log import NodeReady, NodeResumed
from ledger.entries.operations.members import KeyConflicted
from ledger.errors import MalformedInput, NotAdmitted
from ledger.formats.keys import SigningKey, key_id
from ledger.formats.strict import MAX_ENTRY, encode_b64
from ledger.rules.equivocation import MAX_EVIDENCE, conflict_operation
from tests.federation import (
    COORDINATOR,
    HOSPITALS,
    RESEARCHER,
    Federation,
    node_of,
    one_time_key,
    steward_of,
)
from tests.ledger.rules.test_fold_members import (
    BASEL,
    BERN,
    CHUR,
    anew,
    endorse,
    invite,
    join,
    policy,
    propose,
    secret_of,
)

DAVOS = steward_of("davos")


def resumed(word: str) -> NodeResumed:
    return NodeResumed(type="node.resumed", nonce=word * 64)


def expel(organisation: str) -> ExpelChange:
    return ExpelChange(organisation=organisation)


def withdraw(key: SigningKey) -> WithdrawChange:
    return WithdrawChange(invitation=key_id("ed25519", key.public))


# --- invitations ----------------------------------------------------------------------------------


def test_a_withdrawn_invitation_opens_no_seat_and_its_handle_is_free_for_others() -> None:
    federation = Federation.found()
    endorse(federation, BERN, propose(federation, BASEL, invite("zug-steward")))
    change = propose(federation, BASEL, withdraw(secret_of("zug-steward")))
    assert federation.state.changes[change].effective_at is None  # k, as for any change
    endorse(federation, BERN, change)
    with pytest.raises(NotAdmitted, match="no open invitation has a free seat"):
        join(federation, secret_of("zug-steward"), "zug-steward", "steward")
    again = invite("zug-steward", "zug-node-2", organisation="bern")
    endorse(federation, BERN, propose(federation, BASEL, again))
    join(federation, secret_of("zug-steward", "zug-node-2"), "zug-steward", "steward")


def test_a_withdrawal_leaves_who_joined_and_closes_the_other_seats() -> None:
    federation = Federation.found()
    endorse(federation, BERN, propose(federation, BASEL, invite("one", "two")))
    join(federation, secret_of("one", "two"), "one", "steward")
    endorse(federation, BERN, propose(federation, BASEL, withdraw(secret_of("one", "two"))))
    assert federation.state.members["one"].revoked_at is None
    with pytest.raises(NotAdmitted, match="no open invitation"):
        join(federation, secret_of("one", "two"), "two", "steward")


def test_a_one_time_key_never_serves_again_after_a_withdrawal() -> None:
    federation = Federation.found()
    endorse(federation, BERN, propose(federation, BASEL, invite("zug-steward")))
    endorse(federation, BERN, propose(federation, BASEL, withdraw(secret_of("zug-steward"))))
    propose(federation, BASEL, invite("zug-steward"), void="invitation_conflict")


def test_only_an_invitation_with_a_free_seat_can_be_withdrawn() -> None:
    federation = Federation.found()
    propose(federation, BASEL, withdraw(one_time_key("basel")), void="unknown_invitation")
    propose(federation, BASEL, withdraw(secret_of("nobody")), void="unknown_invitation")
    endorse(federation, BERN, propose(federation, BASEL, invite("zug-steward")))
    wanted = propose(federation, BASEL, withdraw(secret_of("zug-steward")))
    late = propose(federation, BASEL, withdraw(secret_of("zug-steward")))
    endorse(federation, BERN, wanted)
    endorse(federation, BERN, late, void="unknown_invitation")


# --- expulsion ------------------------------------------------------------------------------------


def expelled(organisation: str = "davos") -> Federation:
    federation = Federation.found()
    endorse(federation, BERN, propose(federation, BASEL, expel(organisation)))
    return federation


def test_an_expelled_organisation_has_no_keys_no_witness_and_no_voice() -> None:
    federation = expelled()
    index = federation.log.size - 1
    state = federation.state
    for handle in (DAVOS, node_of("davos")):
        assert (state.members[handle].revoked_at, state.members[handle].expelled_at) == (
            index,
            index,
        )
        with pytest.raises(NotAdmitted, match=f"was retired at entry {index}"):
            federation.say(handle, resumed("0"))
    assert "davos" in state.witnesses_at(index)
    assert set(state.witnesses_at(index + 1)) == set(HOSPITALS) - {"davos"}
    assert "davos" not in state.organisations_with_steward()


def test_an_organisation_is_neither_asked_nor_counted_about_its_own_expulsion() -> None:
    federation = Federation.found()
    propose(federation, DAVOS, expel("davos"), void="not_permitted")
    change = propose(federation, BASEL, expel("davos"))
    endorse(federation, DAVOS, change, void="not_permitted")
    assert federation.state.changes[change].organisations == {"basel"}
    assert federation.state.members[DAVOS].expelled_at is None
    endorse(federation, CHUR, change)
    assert federation.state.members[DAVOS].expelled_at is not None


def test_what_an_expelled_organisation_endorsed_before_counts_no_more() -> None:
    federation = Federation.found()
    change = propose(federation, DAVOS, policy(max_lag=7))
    endorse(federation, BERN, propose(federation, BASEL, expel("davos")))
    assert federation.state.changes[change].organisations == frozenset()
    endorse(federation, BASEL, change)
    assert federation.state.policy.max_lag != 7
    endorse(federation, BERN, change)
    assert federation.state.policy.max_lag == 7


def test_an_expulsion_withdraws_the_datasets_and_leaves_what_was_spent() -> None:
    federation = Federation.found()
    experiment = federation.start()
    federation.open_round(experiment)
    federation.reserve(experiment, "davos-heart")
    spend = federation.state.cells["davos-all"].spend
    assert spend.g > 0
    endorse(federation, BERN, propose(federation, BASEL, expel("davos")))
    state = federation.state
    assert state.datasets["davos-heart"].withdrawn_at == federation.log.size - 1
    assert state.cells["davos-all"].spend == spend
    assert state.datasets["basel-heart"].withdrawn_at is None


def test_an_expelled_organisation_comes_back_by_a_new_invitation_and_no_other_way() -> None:
    federation = Federation.found()
    endorse(federation, BERN, propose(federation, BASEL, invite("zug-steward")))  # not of davos
    mate = invite("davos-second", organisation="davos")
    change = propose(federation, BASEL, mate)
    endorse(federation, DAVOS, change)
    assert federation.state.changes[change].effective_at is not None
    rekey = RekeyChange(member=DAVOS, keys=member_keys(anew(DAVOS, "steward")))
    before = propose(federation, BASEL, rekey)
    endorse(federation, BERN, propose(federation, BASEL, expel("davos")))
    with pytest.raises(NotAdmitted, match="no open invitation"):
        join(federation, secret_of("davos-second"), "davos-second", "steward")
    endorse(federation, BERN, before, void="organisation_expelled")
    propose(federation, CHUR, rekey, void="organisation_expelled")
    propose(federation, CHUR, expel("davos"), void="organisation_expelled")
    back = invite("davos-anew", organisation="davos")
    endorse(federation, BERN, propose(federation, BASEL, back))
    join(federation, secret_of("davos-anew"), "davos-anew", "steward")
    assert "davos" in federation.state.organisations_with_steward()
    endorse(federation, BERN, propose(federation, BASEL, expel("davos")))  # and out again
    assert federation.state.members["davos-anew"].expelled_at is not None


def test_the_coordinators_organisation_and_strangers_are_not_expelled() -> None:
    federation = Federation.found()
    propose(federation, BASEL, expel("operator"), void="unknown_organisation")
    propose(federation, BASEL, expel("nowhere"), void="unknown_organisation")
    endorse(federation, BERN, propose(federation, BASEL, expel("institute")))
    assert federation.state.members[RESEARCHER].expelled_at is not None


# --- conflicts ------------------------------------------------------------------------------------


def two_entries(federation: Federation, handle: str) -> tuple[Entry, Entry]:
    """Two entries that a member signed for the next place of its chain; neither is in the log."""
    return federation.entry(handle, resumed("1")), federation.entry(handle, resumed("2"))


def conflict(first: Entry, second: Entry) -> KeyConflicted:
    op = conflict_operation(first.leaf, second.leaf)
    assert op is not None
    return op


@pytest.mark.parametrize("sequenced", [0, 1, 5])
def test_a_key_that_signed_twice_for_one_place_ends_wherever_the_log_is(sequenced: int) -> None:
    federation = Federation.found()
    node = node_of("davos")
    first, second = two_entries(federation, node)
    if sequenced:
        federation.take(first)
    for word in range(1, sequenced):
        federation.say(node, resumed(f"{word + 2:x}"))
    said = federation.say(node_of("basel"), conflict(second, first))
    state = federation.state
    key = state.keys[first.body.key]
    assert (key.retired_at, key.conflicted_at) == (said.index + 1, said.index)
    assert key.next_seq == first.body.seq + sequenced  # what it signed before stays
    assert "davos" not in state.witnesses_at(said.index + 1)
    assert state.members[node].revoked_at is None  # it may still read and follow
    with pytest.raises(NotAdmitted, match=f"was retired at entry {said.index}"):
        federation.say(node, resumed("f"))
    federation.say(node_of("bern"), conflict(first, second), void="repeated")


def test_a_member_whose_key_conflicted_goes_on_by_a_rekey() -> None:
    federation = Federation.found()
    node = node_of("davos")
    federation.say(RESEARCHER, conflict(*two_entries(federation, node)))
    new = anew(node, "node")
    change = RekeyChange(member=node, keys=member_keys(new))
    endorse(federation, BERN, propose(federation, BASEL, change))
    federation.rings[node] = new
    assert "davos" not in federation.state.witnesses_at(federation.log.size)
    federation.say(node, NodeReady(type="node.ready", protocol=1))
    assert "davos" in federation.state.witnesses_at(federation.log.size)


def test_a_conflict_of_the_coordinators_own_key_ends_it_too() -> None:
    federation = Federation.found()
    said = federation.say(node_of("basel"), conflict(*two_entries(federation, COORDINATOR)))
    key = federation.state.keys[federation.rings[COORDINATOR].entry.id]
    assert key.conflicted_at == said.index
    with pytest.raises(NotAdmitted, match="was retired"):
        federation.say(COORDINATOR, resumed("3"))
    federation.say(BASEL, resumed("3"), void="not_permitted")  # everybody else goes on


def test_nothing_less_than_two_signed_bodies_at_one_place_ends_a_key() -> None:
    federation = Federation.found()
    node = node_of("davos")
    first, second = two_entries(federation, node)
    federation.take(first)
    later = federation.entry(node, resumed("3"))
    forged = sign_with(second, federation.rings[node_of("bern")].entry)
    foreign = Federation.found(HOSPITALS[:2])
    elsewhere = [foreign.entry(node_of("basel"), resumed(w)) for w in "12"]
    for pair in (
        (first, first),
        (first, later),
        (first, forged),
        (first, federation.entry(node_of("bern"), resumed("2"))),
        tuple(elsewhere),
    ):
        federation.say(RESEARCHER, conflict(*pair), void="evidence_invalid")  # type: ignore[misc]
    for text in ("AAAA", "AB==", encode_b64(first.leaf[:-1])):
        op = KeyConflicted(type="key.conflicted", first=text, second=encode_b64(second.leaf))
        federation.say(RESEARCHER, op, void="evidence_invalid")
    assert federation.state.keys[first.body.key].retired_at is None
    assert "davos" in federation.state.witnesses_at(federation.log.size)


def sign_with(entry: Entry, key: SigningKey) -> Entry:
    """The same body under somebody else's signature."""
    signature = key.sign("entry", entry.raw)
    leaf = entry.leaf[:-64] + signature
    return parse_leaf(leaf)


def test_evidence_that_does_not_fit_into_one_entry_is_left_to_a_steward() -> None:
    assert conflict_operation(bytes(MAX_EVIDENCE - 1), b"x") is not None
    assert conflict_operation(bytes(MAX_EVIDENCE), b"x") is None
    federation = Federation.found()
    op = conflict_operation(bytes(MAX_EVIDENCE // 2), bytes(MAX_EVIDENCE // 2))
    assert op is not None
    assert len(federation.entry(RESEARCHER, op).raw) <= MAX_ENTRY


@given(first=st.binary(max_size=200), second=st.binary(max_size=200))
def test_any_bytes_as_evidence_are_judged_and_never_crash_the_fold(
    first: bytes, second: bytes
) -> None:
    federation = _PLAIN
    mark = federation.log.mark()
    op = conflict_operation(first or b"\0", second or b"\0")
    assert op is not None
    entry = federation.log.judge_entry(federation.entry(RESEARCHER, op))
    assert federation.log.append(entry).outcome.void == "evidence_invalid"
    federation.log.rewind(mark)


_PLAIN = Federation.found(("basel",))


def test_signed_bytes_with_an_unknown_algorithm_are_refused_by_its_name() -> None:
    federation = Federation.found()
    ring = anew(BASEL, "steward")
    change = RekeyChange(member=BASEL, keys=member_keys(ring))
    assert propose(federation, BERN, change) in federation.state.changes
    entry = federation.entries()[-1]
    raw = entry.raw.replace(b'"alg":"ed25519"', b'"alg":"ml-dsa-65"', 1)
    leaf = len(raw).to_bytes(4, "big") + raw + entry.leaf[-68:]
    with pytest.raises(MalformedInput, match=r"alg: invalid enum value 'ml-dsa-65'"):
        parse_leaf(leaf)


def test_signing_again_needs_the_key_that_the_body_names() -> None:
    federation = Federation.found()
    first, _ = two_entries(federation, node_of("davos"))
    with pytest.raises(ValueError, match="the body names key"):
        sign_entry(first.body, federation.rings[node_of("bern")].entry)
