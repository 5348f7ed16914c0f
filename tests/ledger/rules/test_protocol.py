"""Two versions of the rules in one log: who may move it on, and what a copy does that cannot follow.

There is one real version; the second is this test's: `version_two` supersedes one rule of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.author import Author
from ledger.entries.entry import chain_position, frame_leaf, parse_leaf
from ledger.entries.operations.audits import LedgerReviewed
from ledger.entries.operations.log import NodeReady, NodeResumed, ProtocolActivated, TimeNoted
from ledger.entries.operations.members import KeyRevoked
from ledger.errors import MalformedInput, NotAdmitted, NotConsistent, ProtocolUnknown
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.rules import reverify
from ledger.rules.encoding import digest
from ledger.rules.fold import PROTOCOLS, Protocol
from ledger.rules.protocol import activation_due, ready_for
from ledger.rules.state import State
from ledger.rules.verdict import Step, Void
from tests.federation import COORDINATOR, HOSPITALS, Federation, node_of, steward_of

TWO = ProtocolActivated(type="protocol.activated", version=2)
NOTED = TimeNoted(type="time.noted")


def review(size: int) -> LedgerReviewed:
    return LedgerReviewed(type="ledger.reviewed", size=size, root="0" * 64, finding="in_order")


def reviewed_within_the_log(state: State, step: Step, op: Any) -> State | Void:
    """Version two: nobody reviews what is not there."""
    return state if op.size <= state.size else Void("not_due")


@pytest.fixture
def version_two(monkeypatch: pytest.MonkeyPatch) -> Protocol:
    one = PROTOCOLS[1]
    rules = {**one.rules, "ledger.reviewed": (reviewed_within_the_log, frozenset({"steward"}))}
    del rules["node.resumed"]
    two = Protocol(rules, one.permissions)
    monkeypatch.setitem(PROTOCOLS, 2, two)
    return two


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    opened = LogStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


def say_ready(federation: Federation, *hospitals: str, version: int = 2) -> None:
    for hospital in hospitals:
        federation.say(node_of(hospital), NodeReady(type="node.ready", protocol=version))


def moved(federation: Federation) -> Federation:
    """Three of four hospitals are ready, and the log is of version two."""
    say_ready(federation, *HOSPITALS[:3])
    federation.say(COORDINATOR, TWO)
    return federation


def test_a_version_takes_effect_with_a_finality_quorum_of_hospitals_and_not_one_short() -> None:
    federation = Federation.found(HOSPITALS)
    federation.say(
        COORDINATOR, ProtocolActivated(type="protocol.activated", version=1), void="repeated"
    )
    say_ready(federation, "basel", "bern")
    assert activation_due(federation.state, (1, 2)) is None
    federation.say(COORDINATOR, TWO, void="not_ready")
    say_ready(federation, "chur")
    assert ready_for(federation.state, 2) == {"basel", "bern", "chur"}
    assert activation_due(federation.state, (1, 2, 3)) == 2
    before = federation.say(COORDINATOR, TWO)
    assert (before.outcome.applied, federation.state.protocol) == (True, 2)


def test_hospitals_cannot_be_ready_before_anybody_witnesses() -> None:
    federation = Federation.found(HOSPITALS, ready=False)
    federation.say(COORDINATOR, TWO, void="not_ready")


def test_a_revoked_node_is_no_longer_ready_for_anything() -> None:
    federation = Federation.found(HOSPITALS)
    say_ready(federation, *HOSPITALS[:3])
    for hospital in ("basel", "bern"):
        op = KeyRevoked(type="key.revoked", member=node_of(hospital), compromised_since_ms=None)
        federation.say(steward_of(hospital), op)
    federation.say(COORDINATOR, TWO, void="not_ready")


def test_readiness_is_said_again_for_a_newer_version_only() -> None:
    federation = Federation.found(HOSPITALS)
    say_ready(federation, "basel", version=3)
    for version in (1, 2, 3):
        op = NodeReady(type="node.ready", protocol=version)
        federation.say(node_of("basel"), op, void="repeated")
    assert len(federation.state.witnesses[-1].organisations) == len(HOSPITALS)


def test_old_entries_keep_their_rules_and_new_ones_have_the_new(version_two: Protocol) -> None:
    federation = Federation.found(HOSPITALS)
    federation.say(steward_of("basel"), review(10**6))
    moved(federation)
    federation.say(steward_of("basel"), review(10**6), void="not_due")
    federation.say(steward_of("basel"), review(3))
    again = Federation.found(HOSPITALS).log
    for leaf in federation.leaves[again.size :]:
        again.append(again.judge(leaf))
    assert digest(again.state) == digest(federation.state)


def test_an_operation_that_the_version_in_force_lacks_is_refused_at_the_door(
    version_two: Protocol,
) -> None:
    federation = moved(Federation.found(HOSPITALS))
    resumed = NodeResumed(type="node.resumed", nonce="0" * 64)
    with pytest.raises(NotAdmitted, match=r"protocol 2, now in force, knows no node\.resumed"):
        federation.say(node_of("basel"), resumed)


def test_a_copy_that_cannot_follow_stores_and_judges_nothing_and_goes_on_when_upgraded(
    store: LogStore, monkeypatch: pytest.MonkeyPatch, version_two: Protocol
) -> None:
    federation = moved(Federation.found(HOSPITALS))
    activated = federation.log.size
    for number in range(3):
        federation.say(steward_of("basel"), review(number))
    newest = federation.finalize()
    monkeypatch.delitem(PROTOCOLS, 2)  # an older release
    replica = Replica.create(store, federation.leaves[0], federation.id)
    taken = replica.extend(federation.leaves[1:], newest)
    assert (replica.size, replica.state.size, len(taken)) == (
        activated + 3,
        activated,
        activated - 1,
    )
    assert replica.root() == federation.log.tree.root()
    assert replica.newer_protocol == 2
    assert (replica.accept_final(newest), replica.final.size) == (None, 1)
    assert replica.finals_seen == federation.log.size  # it does not ask for it for ever
    reopened = Replica.open(store, federation.id)
    assert (reopened.size, reopened.state.size) == (replica.size, activated)
    federation_ahead = federation.log.size
    monkeypatch.setitem(PROTOCOLS, 2, version_two)  # and a newer one
    upgraded = Replica.open(store, federation.id)
    assert upgraded.newer_protocol is None
    assert upgraded.size == upgraded.state.size == federation_ahead
    assert digest(upgraded.state) == digest(federation.state)
    final = upgraded.accept_final(newest)
    assert final is not None
    assert final.size == federation_ahead


def test_a_copy_that_cannot_follow_signs_nothing(store: LogStore, tmp_path: Path) -> None:
    federation = moved(Federation.found(HOSPITALS))
    replica = Replica.create(store, federation.leaves[0], federation.id)
    replica.extend(federation.leaves[1:], federation.checkpoint())
    sent: list[bytes] = []
    author = Author(
        federation.rings[steward_of("basel")], replica, sent.append, tmp_path / "last.leaf"
    )
    with pytest.raises(
        ProtocolUnknown, match="is of protocol 2, and this software knows 1"
    ) as caught:
        author.submit(review(1))
    author.close()
    assert (caught.value.version, caught.value.known, sent) == (2, 1, [])
    assert "install a newer release" in caught.value.reason


def test_entries_of_unknown_operations_are_stored_as_they_are_and_only_after_the_activation(
    store: LogStore,
) -> None:
    federation = Federation.found(HOSPITALS)
    replica = Replica.create(store, federation.leaves[0], federation.id)
    plain = orjson.loads(parse_leaf(federation.entry(COORDINATOR, NOTED).leaf).raw)
    plain["op"] = {"type": "model.forgotten", "model": "x"}
    plain["seq"] += 1
    unknown = frame_leaf(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS), bytes(64))
    with pytest.raises(MalformedInput, match="none of those known"):
        extend(replica, federation, [*federation.leaves[1:], unknown])
    moved(federation)
    unknown = frame_leaf(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS), bytes(64))
    extend(replica, federation, [*federation.leaves[1:], unknown])
    assert replica.size == federation.log.size + 1
    row = store.row(federation.log.size)
    assert (row.key, row.seq) == chain_position(unknown)
    with pytest.raises(NotConsistent, match="do not give the root"):
        replica.extend(
            [unknown.replace(b'"model":"x"', b'"model":"y"')],
            note_over(federation, [*federation.leaves, unknown, unknown]),
        )
    with pytest.raises(ProtocolUnknown, match=f"entry {federation.log.size}: "):
        reverify.replay_rows(store.rows())


@pytest.mark.parametrize("raw", [b"{}", b"[]", b"x", b'{"key":"0","seq":0}'])
def test_an_unread_entry_still_has_the_envelope_of_every_version(raw: bytes) -> None:
    with pytest.raises(MalformedInput, match="its envelope cannot be read"):
        chain_position(frame_leaf(raw, bytes(64)))


def extend(replica: Replica, federation: Federation, leaves: list[bytes]) -> None:
    replica.extend(leaves, note_over(federation, [federation.leaves[0], *leaves]))


def note_over(federation: Federation, leaves: list[bytes]) -> bytes:
    """A note by the log's key over these leaves."""
    tree = MerkleTree()
    tree.extend(map(leaf_hash, leaves))
    ring = federation.rings[COORDINATOR]
    assert ring.log is not None
    return sign_checkpoint(ring.log, Checkpoint(federation.origin, tree.size, tree.root()))
