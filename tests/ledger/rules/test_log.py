"""A log in memory: judged, appended, rewound; entry 0 is a founding that holds together."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.entries.entry import Entry, genesis_body, parse_leaf, sign_entry
from ledger.entries.operations.federation import FederationFounded, Invitation, Seat
from ledger.entries.operations.log import TimeNoted
from ledger.errors import BadSignature, MalformedInput, NotAdmitted
from ledger.formats.keys import SigningKey
from ledger.formats.value import replace
from ledger.rules.encoding import digest
from ledger.rules.log import Log
from tests.federation import COORDINATOR, Federation, ring_of
from tests.federation_log import ed25519


def test_a_replayed_log_is_the_same_log() -> None:
    federation = Federation.found(("basel", "bern"))
    federation.play(federation.start())
    log = Log()
    verdicts = [log.append(log.judge(leaf)) for leaf in federation.leaves]
    assert [item.index for item in verdicts] == list(range(len(federation.leaves)))
    assert log.tree.root() == federation.log.tree.root()
    assert digest(log.state) == digest(federation.state)


def test_judging_changes_nothing() -> None:
    federation = Federation.found(("basel",))
    state, size = federation.state, federation.log.size
    federation.log.judge(federation.entry(COORDINATOR, TimeNoted(type="time.noted")).leaf)
    assert federation.state is state
    assert federation.log.size == size
    with pytest.raises(MalformedInput):
        federation.log.judge(b"")


def test_what_is_rewound_was_never_there() -> None:
    federation = Federation.found(("basel",))
    log = federation.log
    mark, root, state = log.mark(), log.tree.root(), log.state
    first = federation.entry(COORDINATOR, TimeNoted(type="time.noted"))
    log.append(log.judge(first.leaf))
    again = federation.entry(COORDINATOR, TimeNoted(type="time.noted"))
    log.append(log.judge(again.leaf))
    log.rewind(mark)
    assert (log.size, log.tree.root(), log.state) == (mark.size, root, state)
    log.append(log.judge(first.leaf))
    assert log.size == mark.size + 1


def test_a_log_can_be_rewound_to_nothing() -> None:
    genesis = Federation.found(()).leaves[0]
    log = Log()
    mark = log.mark()
    log.append(log.judge(genesis))
    log.rewind(mark)
    with pytest.raises(NotAdmitted, match="there is no federation yet"):
        _ = log.state
    log.append(log.judge(genesis))
    assert log.state.coordinator == COORDINATOR


# --- entry 0 --------------------------------------------------------------------------------------


def invited(organisation: str, *handles: str, seed: int = 9) -> Invitation:
    key = SigningKey.from_seed(bytes([seed]) * 32)
    return Invitation(
        organisation=organisation,
        key=ed25519(key),
        seats=tuple(Seat(handle=handle, role="researcher") for handle in handles),
    )


def genesis(body: dict[str, Any] | None = None, **changed: Any) -> Entry:
    op = parse_leaf(Federation.found(()).leaves[0]).body.op
    assert isinstance(op, FederationFounded)
    ring = ring_of(COORDINATOR, "coordinator")
    made = genesis_body(COORDINATOR, ring.entry.id, 5, replace(op, **changed))
    return sign_entry(replace(made, **body or {}), ring.entry)


def test_a_log_begins_with_a_founding() -> None:
    Log().judge_entry(genesis())
    other = Federation.found(("basel",)).entries()[1]
    with pytest.raises(NotAdmitted, match=r"begins with federation\.founded"):
        Log().judge_entry(other)


@pytest.mark.parametrize("body", [{"federation": "1" * 64}, {"seq": 1}, {"prev": "1" * 64}])
def test_entry_0_has_no_federation_number_or_predecessor(body: dict[str, Any]) -> None:
    with pytest.raises(NotAdmitted, match="must be zero"):
        Log().judge_entry(genesis(body))


def test_entry_0_has_seen_nothing() -> None:
    seen = Federation.found(()).seen()
    with pytest.raises(NotAdmitted, match="cannot have seen a log before it"):
        Log().judge_entry(genesis({"seen": seen}))


def test_entry_0_is_signed_by_the_coordinators_own_key() -> None:
    entry = genesis()
    forged = Entry(entry.body, entry.raw, bytes(64), entry.hash)
    with pytest.raises(BadSignature):
        Log().judge_entry(forged)
    other = genesis().body.op.keys  # type: ignore[union-attr]
    swapped = replace(other, entry=other.request, request=other.entry)
    with pytest.raises(NotAdmitted, match="not signed by the coordinator's key"):
        Log().judge_entry(genesis(keys=swapped))


@pytest.mark.parametrize(
    ("invitations", "reason"),
    [
        ((invited("operator", "x"),), "operator runs the coordinator and is invited too"),
        ((invited("zug", "x", "x"),), "name a handle twice"),
        ((invited("zug", "x"), invited("uri", "x", seed=8)), "name a handle twice"),
        ((invited("zug", COORDINATOR),), "name a handle twice"),
        ((invited("zug", "x"), invited("uri", "y")), "name a key twice"),
    ],
)
def test_the_founders_invitations_do_not_collide(
    invitations: tuple[Invitation, ...], reason: str
) -> None:
    with pytest.raises(NotAdmitted, match=reason):
        Log().judge_entry(genesis(invitations=invitations))


def test_a_coordinator_has_separate_keys_and_witnesses_nothing() -> None:
    keys = genesis().body.op.keys  # type: ignore[union-attr]
    for changed in (
        {"keys": replace(keys, witness=keys.request)},
        {"keys": replace(keys, request=keys.entry)},
        {"log_key": keys.entry},
    ):
        with pytest.raises(NotAdmitted, match="separate keys, and no witness key"):
            Log().judge_entry(genesis(**changed))
