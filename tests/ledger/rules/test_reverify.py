"""A log verified from its rows gives the state and tree that its entries gave one by one."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from msgspec.structs import replace

from ledger.copies.store import Row
from ledger.entries.entry import frame_leaf, parse_entry
from ledger.errors import (
    BadSignature,
    LedgerError,
    MalformedInput,
    NotAdmitted,
    NotConsistent,
    StoreCorrupt,
    WorkerDied,
)
from ledger.formats.merkle import leaf_hash
from ledger.rules import reverify
from ledger.rules.encoding import digest
from ledger.rules.log import Log
from ledger.rules.reverify import read_rows, replay, replay_rows
from ledger.rules.signatures import SignatureWorkers, first_false, workers_for
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
        started.warm()
        yield started


@pytest.fixture(params=["here", "in workers"])
def checkers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(reverify, "CHUNK", 8)
    monkeypatch.setattr(reverify, "TURN", 2)
    monkeypatch.setattr(reverify, "TURN_BESIDE", 2)
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


@pytest.mark.parametrize("at", [1, 7, 8, 9, 30, -2])
def test_a_false_signature_is_refused_by_name_after_all_before_it(
    rows: list[Row], checkers: SignatureWorkers | None, at: int
) -> None:
    # What comes after it is refused too, and earlier in time when signatures are checked apart.
    changed = [*rows[:-1], replace(rows[-1], body=b"{}")]
    changed[at] = signed_otherwise(changed[at])
    log, yielded = Log(), 0

    def take(rows: list[Row]) -> None:
        nonlocal yielded
        for item, state in replay(log, rows, read_rows, checkers):
            assert (item.index, state.size) == (yielded, yielded + 1)
            yielded += 1

    with pytest.raises(BadSignature) as caught:
        take(changed)
    assert yielded == log.size == at % len(rows)
    assert f"({leaf_of(changed[at]).hex()[:12]})" in caught.value.where
    take(rows[yielded:])
    assert log.size == yielded == len(rows)


def leaf_of(row: Row) -> bytes:
    return leaf_hash(frame_leaf(row.body, row.signature))


def test_a_false_signature_of_genesis_is_refused(
    rows: list[Row], checkers: SignatureWorkers | None
) -> None:
    with pytest.raises(BadSignature):
        replay_rows([signed_otherwise(rows[0]), *rows[1:]], checkers)


def test_a_changed_column_or_byte_and_a_missing_row_are_refused(
    rows: list[Row], checkers: SignatureWorkers | None
) -> None:
    for changed in (replace(rows[5], seq=99), replace(rows[5], leaf=bytes(32))):
        with pytest.raises(NotConsistent, match="index columns") as caught:
            replay_rows([*rows[:5], changed, *rows[6:]], checkers)
        assert caught.value.where == "entry 5"
    with pytest.raises(MalformedInput):
        replay_rows([*rows[:5], replace(rows[5], body=rows[5].body + b" "), *rows[6:]], checkers)
    with pytest.raises(NotAdmitted):
        replay_rows([*rows[:5], *rows[6:]], checkers)


def test_who_stops_early_finds_in_the_log_what_was_yielded(
    rows: list[Row], checkers: SignatureWorkers | None
) -> None:
    log = Log()
    started = replay(log, rows, read_rows, checkers)
    last = next(state for item, state in started if item.index == 20)
    started.close()  # type: ignore[attr-defined]
    assert log.size == 21
    assert digest(log.state) == digest(last)
    assert digest(last) == digest(one_by_one(rows[:21])[0].state)


@pytest.mark.parametrize("at", [0, 5, 8, 21])
@pytest.mark.parametrize("false_before", [False, True])
def test_what_reading_raises_comes_after_the_entries_before_it(
    rows: list[Row], checkers: SignatureWorkers | None, at: int, false_before: bool
) -> None:
    source = list(rows)
    if false_before and at:
        source[at - 1] = signed_otherwise(source[at - 1])

    def read() -> Iterator[Row]:
        yield from source[:at]
        raise StoreCorrupt("a store", f"entry {at} is gone")

    log = Log()
    with pytest.raises(BadSignature if false_before and at else StoreCorrupt):
        for _ in replay(log, read(), read_rows, checkers):
            pass
    assert log.size == (at - 1 if false_before and at else at)


def one_by_one(rows: list[Row]) -> tuple[Log, LedgerError | None]:
    """What a log takes of rows, each judged and appended before the next is looked at."""
    log = Log()
    for row in rows:
        try:
            entry = parse_entry(row.body, row.signature)
            log.append(log.judge_entry(entry))
        except LedgerError as refusal:
            return log, refusal
        if (row.leaf.hex(), row.key, row.seq) != (entry.hash, entry.body.key, entry.body.seq):
            return log, NotConsistent(
                f"entry {log.size - 1}", "its stored index columns do not match its bytes"
            )
    return log, None


def tampered(chance: random.Random, rows: list[Row]) -> list[Row]:
    """The rows with up to three things wrong."""
    changed = list(rows)
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        at, how = chance.randrange(len(changed)), chance.randrange(7)
        row = changed[at]
        if how == 0:
            changed[at] = signed_otherwise(row)
        elif how == 1:  # a bit of the body, its leaf hash in step
            body = bytearray(row.body)
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
            leaf = leaf_hash(frame_leaf(bytes(body), row.signature))
            changed[at] = replace(row, body=bytes(body), leaf=leaf)
        elif how == 2:
            changed[at] = replace(row, leaf=bytes(32))
        elif how == 3:
            del changed[at]
        elif how == 4:
            changed.insert(at, row)
        elif how == 5:
            other = chance.randrange(len(changed))
            changed[at], changed[other] = changed[other], changed[at]
        else:
            changed[at] = replace(row, signature=row.signature[:63])
    return changed


def test_a_tampered_log_is_refused_at_the_same_entry_for_the_same_reason_as_one_by_one(
    rows: list[Row], workers: SignatureWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(1)
    reasons: set[type[object]] = set()
    for number in range(120):
        changed = tampered(chance, rows)
        expected, refusal = one_by_one(changed)
        reasons.add(type(refusal))
        monkeypatch.setattr(reverify, "CHUNK", chance.choice((1, 3, 8, 64)))
        monkeypatch.setattr(reverify, "TURN", chance.choice((1, 2, 16)))
        monkeypatch.setattr(reverify, "TURN_BESIDE", chance.choice((1, 2, 4)))
        log = Log()
        caught: LedgerError | None = None
        try:
            for item, state in replay(log, changed, read_rows, workers if number % 2 else None):
                assert state.size == item.index + 1
        except LedgerError as error:
            caught = error
        assert (type(caught), str(caught)) == (type(refusal), str(refusal))
        # Where nothing is kept of an entry, the same is said of it.
        with pytest.raises(type(refusal)) if refusal else nullcontext() as again:
            assert replay_rows(changed).tree.root() == expected.tree.root()
        assert refusal is None or str(again and again.value) == str(refusal)
        assert (log.size, log.tree.root()) == (expected.size, expected.tree.root())
        assert not log.size or digest(log.state) == digest(expected.state)
    assert {BadSignature, MalformedInput, NotAdmitted, NotConsistent, type(None)} <= reasons
    assert gc.isenabled()


def test_a_worker_that_was_killed_is_an_error_and_not_a_verified_log(rows: list[Row]) -> None:
    with SignatureWorkers(2) as killed:
        killed.warm()
        killed._workers[0]._process.kill()
        killed._workers[0]._process.join()
        with pytest.raises(WorkerDied, match="has ended before it answered"):
            replay_rows(rows, killed)


def test_a_worker_finds_the_same_false_claims(
    rows: list[Row], federation: Federation, workers: SignatureWorkers
) -> None:
    workers.warm()
    keys = {key: bytes.fromhex(held.public) for key, held in federation.state.keys.items()}
    claims = [(keys[row.key], row.signature, row.body) for row in rows]
    answers = [workers.check(claims[:count]) for count in (0, 1, 2, 9)]
    assert not all(answer.here for answer in answers)
    assert [answer.false for answer in answers] == [None] * 4
    claims[2] = (claims[2][0], bytes(64), claims[2][2])
    for count in (3, 4, 5):
        assert workers.check(claims[:count]).false == 2 == first_false(claims)


def test_processes_are_started_for_large_logs_only() -> None:
    with workers_for(19_999) as few:
        assert len(few) == 0


def test_no_rows_are_an_empty_log() -> None:
    assert replay_rows([]).size == 0
