"""A log verified from its rows gives the state and tree that its entries gave one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ledger.copies.store import Row
from ledger.entries.entry import frame_leaf
from ledger.errors import BadSignature, MalformedInput, NotAdmitted, NotConsistent
from ledger.formats.merkle import leaf_hash
from ledger.rules import reverify
from ledger.rules.reverify import Claim, SignatureWorkers, first_false, replay_rows
from ledger.rules.state import digest
from tests.federation import Federation


@pytest.fixture(scope="module")
def federation() -> Federation:
    found = Federation.found()
    found.play(found.start())
    return found


@pytest.fixture(scope="module")
def rows(federation: Federation) -> list[Row]:
    return [
        Row(e.raw, e.signature, bytes.fromhex(e.hash), e.body.key, e.body.seq)
        for e in federation.entries()
    ]


@pytest.fixture(scope="module")
def workers() -> Iterator[SignatureWorkers]:
    with SignatureWorkers(2) as started:
        yield started


@pytest.fixture(params=["here", "in workers"])
def checkers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(reverify, "CHUNK", 8)
    return request.getfixturevalue("workers") if request.param == "in workers" else None


def signed_otherwise(row: Row) -> Row:
    """The row with a false signature, its leaf hash in step."""
    signature = bytes([row.signature[0] ^ 1]) + row.signature[1:]
    return replace(row, signature=signature, leaf=leaf_hash(frame_leaf(row.body, signature)))


def test_the_same_state_and_root_come_out(
    federation: Federation, rows: list[Row], checkers: SignatureWorkers | None
) -> None:
    log = replay_rows(rows, checkers)
    assert digest(log.state) == digest(federation.state)
    assert log.tree.root() == federation.log.tree.root()


@pytest.mark.parametrize("at", [0, 1, -1])
def test_a_false_signature_is_refused_by_name(
    rows: list[Row], checkers: SignatureWorkers | None, at: int
) -> None:
    changed = list(rows)
    changed[at] = signed_otherwise(rows[at])
    with pytest.raises((BadSignature, NotAdmitted)) as caught:
        replay_rows(changed, checkers)
    if at == -1:
        assert caught.value.where == f"entry {len(rows) - 1}"


def test_a_changed_column_or_byte_and_a_missing_row_are_refused(rows: list[Row]) -> None:
    for changed in (replace(rows[5], seq=99), replace(rows[5], leaf=bytes(32))):
        with pytest.raises(NotConsistent, match="index columns") as caught:
            replay_rows([*rows[:5], changed, *rows[6:]])
        assert caught.value.where == "entry 5"
    with pytest.raises(MalformedInput):
        replay_rows([*rows[:5], replace(rows[5], body=rows[5].body + b" ")])
    with pytest.raises(NotAdmitted):
        replay_rows([*rows[:5], *rows[6:]])


def test_no_rows_are_an_empty_log() -> None:
    assert replay_rows([]).size == 0


def test_the_first_false_claim_is_found(rows: list[Row], federation: Federation) -> None:
    keys = {key: bytes.fromhex(held.public) for key, held in federation.state.keys.items()}
    claims = [Claim(keys[row.key], row.body, row.signature) for row in rows[:4]]
    assert first_false(claims) is None
    claims[2] = claims[2]._replace(public=keys[rows[0].key], signature=bytes(64))
    assert first_false(claims) == 2
