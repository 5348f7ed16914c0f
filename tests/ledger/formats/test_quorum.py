"""A quorum counts organisations, by cosignatures of keys that it knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadSignature, MalformedInput, NotWitnessed, UnknownKey
from ledger.formats.checkpoint import (
    cosign,
)
from ledger.formats.keys import SigningKey
from ledger.formats.witness import (
    judge_quorum,
    quorum_size,
    witness_name,
)
from tests.ledger.formats import worked
from tests.ledger.formats.test_witness import signed


def hospital(number: int) -> SigningKey:
    return SigningKey.from_seed(bytes([100 + number]) * 32)


def keys_of(count: int) -> dict[str, frozenset[bytes]]:
    return {f"hospital-{at}": frozenset({hospital(at).public}) for at in range(count)}


def line(number: int, note: bytes, time_s: int = 1000, handle: str = "") -> bytes:
    name = witness_name(worked.ORIGIN, handle or f"node-{number}")
    return cosign(note, hospital(number), name, time_s)


def test_the_quorum_is_two_thirds_and_one() -> None:
    assert [quorum_size(w) for w in range(10)] == [0, 1, 2, 3, 3, 4, 5, 5, 6, 7]


def test_without_ready_organisations_the_logs_signature_is_all() -> None:
    result = judge_quorum(signed(7), worked.LOG, {})
    assert (result.final, result.needed, result.checkpoint.size) == (True, 0, 7)
    result.require()
    with pytest.raises(UnknownKey):
        judge_quorum(signed(7, key=worked.WITNESS_KEY), worked.LOG, {})


@given(st.sets(st.integers(0, 3)))
def test_four_hospitals_need_three(signers: set[int]) -> None:
    note = signed(7) + b"".join(line(at, signed(7)) for at in sorted(signers))
    result = judge_quorum(note, worked.LOG, keys_of(4))
    assert result.final == (len(signers) >= 3)
    assert result.signed == {f"hospital-{at}": 1000 for at in signers}
    assert result.missing == {f"hospital-{at}" for at in range(4)} - result.signed.keys()


def test_a_missing_quorum_names_who_is_missing() -> None:
    result = judge_quorum(signed(7) + line(0, signed(7)), worked.LOG, keys_of(3))
    with pytest.raises(NotWitnessed, match="1 organisations cosigned where 3 must") as caught:
        result.require()
    assert caught.value.missing == {"hospital-1", "hospital-2"}
    assert caught.value.needed == 3


def test_one_key_under_two_names_counts_once() -> None:
    note = signed(7) + line(0, signed(7), handle="a") + line(0, signed(7), 1200, handle="b")
    result = judge_quorum(note, worked.LOG, keys_of(2))
    assert result.signed == {"hospital-0": 1200}
    assert not result.final


def test_two_keys_of_one_organisation_count_once() -> None:
    keys = {"hospital-0": frozenset({hospital(0).public, hospital(1).public})} | {
        "hospital-2": frozenset({hospital(2).public})
    }
    note = signed(7) + line(0, signed(7)) + line(1, signed(7))
    assert judge_quorum(note, worked.LOG, keys).signed.keys() == {"hospital-0"}


def test_one_key_given_to_two_organisations_is_refused() -> None:
    keys = dict.fromkeys(("a", "b"), frozenset({hospital(0).public}))
    with pytest.raises(MalformedInput, match="b and a share one key"):
        judge_quorum(signed(7), worked.LOG, keys)


def test_a_false_cosignature_by_a_known_key_refuses_the_note() -> None:
    with pytest.raises(BadSignature, match="node-0: does not verify"):
        judge_quorum(signed(7) + line(0, signed(8)), worked.LOG, keys_of(2))


def test_lines_of_strangers_and_of_other_federations_count_for_nothing() -> None:
    elsewhere = cosign(signed(7), hospital(0), "example.org/other/witness/node-0", 1000)
    note = signed(7) + elsewhere + line(9, signed(7))
    assert judge_quorum(note, worked.LOG, keys_of(2)).signed == {}


def test_the_logs_own_key_cannot_stand_in_for_a_witness() -> None:
    name = witness_name(worked.ORIGIN, "node-0")
    note = signed(7) + cosign(signed(7), worked.LOG_KEY, name, 1000)
    assert judge_quorum(note, worked.LOG, keys_of(1)).signed == {}


def test_freshness_asks_for_a_quorum_of_young_cosignatures() -> None:
    note = signed(7) + b"".join(line(at, signed(7), 1000 + at) for at in range(4))
    result = judge_quorum(note, worked.LOG, keys_of(4))
    assert result.fresh(1001)
    assert not result.fresh(1002)
