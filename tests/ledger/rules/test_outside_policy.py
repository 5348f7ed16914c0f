"""A policy file says whose cosignatures a checkpoint needs, in words that other programs know."""

from __future__ import annotations

import pytest
from immutables import Map

from ledger.errors import MalformedInput, NotWitnessed
from ledger.formats.checkpoint import log_verifier
from ledger.formats.note import COSIGNATURE_V1, VerifierKey
from ledger.formats.tlog_policy import Policy, format_policy, parse_policy, verify_by_policy
from ledger.formats.witness import quorum_size
from ledger.rules.outside_policy import QUORUM, outside_policy
from ledger.rules.state import State, WitnessEpoch, replace
from tests.federation import COORDINATOR, Federation, node_of
from tests.ledger.formats import worked


def log_of(federation: Federation) -> VerifierKey:
    key = federation.rings[COORDINATOR].log
    assert key is not None
    return log_verifier(federation.origin, key.public)


def read_back(policy: Policy) -> Policy:
    return parse_policy(format_policy(policy))


def in_place_of(state: State, organisation: str, name: str, keys: frozenset[str]) -> State:
    """The state with one organisation's witness keys under another name."""
    now = state.witnesses[-1].organisations
    changed = now.delete(organisation).set(name, keys)
    return replace(state, witnesses=(WitnessEpoch(0, Map(changed)),))


@pytest.mark.parametrize("hospitals", [(), ("basel",), ("basel", "bern", "chur", "davos")])
def test_the_quorum_counts_organisations_and_reads_back(hospitals: tuple[str, ...]) -> None:
    federation = Federation.found(hospitals)
    made = outside_policy(federation.state, federation.log.size, log_of(federation))
    assert read_back(made) == made
    if not hospitals:
        assert (made.quorum, made.groups) == (None, ())
        return
    assert [group.name for group in made.groups] == [*hospitals, QUORUM]
    assert made.groups[-1].threshold == quorum_size(len(hospitals))
    assert made.quorum == QUORUM


def test_a_checkpoint_is_judged_by_it_as_by_the_log_itself() -> None:
    federation = Federation.found(("basel", "bern", "chur", "davos"))
    log, size = log_of(federation), federation.log.size
    made = outside_policy(federation.state, size, log)
    nodes = [node_of(name) for name in ("basel", "bern", "chur")]
    with pytest.raises(NotWitnessed):
        verify_by_policy(federation.checkpoint(nodes[:2]), made)
    assert verify_by_policy(federation.checkpoint(nodes), made).size == size


def test_an_organisation_whose_name_means_something_else_there_gets_another() -> None:
    federation = Federation.found(("basel", "bern"))
    state = federation.state
    keys = state.witnesses[-1].organisations["basel"]
    made = outside_policy(in_place_of(state, "basel", "none", keys), state.size, log_of(federation))
    assert [group.name for group in made.groups[:2]] == ["bern", "organisation/none"]
    assert read_back(made) == made


def test_a_key_that_was_given_up_is_named_by_its_line_or_by_nobody() -> None:
    federation = Federation.found(("basel", "bern", "chur"))
    state, log = federation.state, log_of(federation)
    note = federation.checkpoint(map(node_of, ("basel", "bern", "chur")))
    basel = state.members[node_of("basel")]
    rotated = replace(
        basel.keys,
        **{"witness": replace(basel.keys.witness, public="ab" * 32)} if basel.keys.witness else {},
    )
    later = replace(
        state, members=state.members.set(node_of("basel"), replace(basel, keys=rotated))
    )
    with_note = outside_policy(later, state.size, log, note=note)
    assert verify_by_policy(note, with_note).size == state.size
    without = outside_policy(later, state.size, log)
    assert any("/former-" in witness.name for witness in without.witnesses)
    with pytest.raises(NotWitnessed):
        verify_by_policy(note, without)


def test_an_outside_witness_is_asked_for_beside_the_quorum_and_only_once() -> None:
    federation = Federation.found(("basel",))
    state, log = federation.state, log_of(federation)
    key = VerifierKey("auditor.example/w", worked.WITNESS_KEY.public, COSIGNATURE_V1)
    made = outside_policy(state, state.size, log, outside=(key,))
    assert read_back(made) == made
    assert made.groups[-1].threshold == 2
    with pytest.raises(NotWitnessed):
        verify_by_policy(federation.checkpoint([node_of("basel")]), made)
    for again in ((key, key), (VerifierKey("x", key.public),)):
        with pytest.raises(MalformedInput, match="is no cosignature key, or is there already"):
            outside_policy(state, state.size, log, outside=again)
