"""Receipts: one signature for many entries, one spelling, and never taken for a checkpoint."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import BadSignature, MalformedInput, NotConsistent, UnknownKey
from ledger.formats.checkpoint import (
    Checkpoint,
    cosign,
    log_verifier,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
)
from ledger.formats.keys import SigningKey
from ledger.formats.note import cosignature_message, parse_note
from ledger.formats.receipt import (
    MergeReceipt,
    Promise,
    open_receipt,
    parse_promise,
    parse_receipt,
    sign_receipts,
)

KEY = SigningKey.from_seed(bytes(range(32)))
ORIGIN = "consilium/" + "ab" * 32
LOG = log_verifier(ORIGIN, KEY.public)


def leaves(count: int) -> list[bytes]:
    return [sha256(b"%d" % at).digest() for at in range(count)]


def receipts(count: int, first: int = 7) -> tuple[MergeReceipt, ...]:
    return sign_receipts(KEY, ORIGIN, first, leaves(count), accepted_ms=1_000, merge_by_ms=61_000)


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 512])
def test_one_signature_promises_every_entry_of_a_commit(count: int) -> None:
    made = receipts(count)
    assert len({receipt.note for receipt in made}) == 1
    for at, receipt in enumerate(made):
        index, promise = open_receipt(receipt.encode(), leaves(count)[at], LOG)
        assert (index, promise.first, promise.count) == (7 + at, 7, count)
        assert (promise.accepted_ms, promise.merge_by_ms) == (1_000, 61_000)


def test_a_receipt_is_the_page_s_example_line_by_line() -> None:
    root = base64.b64encode(leaves(1)[0]).decode()
    head = f"consilium-receipt@v1\nindex 7\n\nconsilium receipt v1\n{ORIGIN}\nfirst 7\ncount 1\n"
    times = f"root {root}\naccepted 1000\nmerged by 61000\n\n"
    assert receipts(1)[0].encode().startswith((head + times).encode())


def test_no_note_is_both_a_receipt_and_a_checkpoint() -> None:
    promise = receipts(3)[0].note
    checkpoint = sign_checkpoint(KEY, Checkpoint(ORIGIN, 7, bytes(32)))
    with pytest.raises(MalformedInput, match="not a decimal number"):
        open_checkpoint(promise, LOG)
    with pytest.raises(MalformedInput, match="is not a decimal number"):
        cosign(promise, SigningKey.generate(), "w", 1)
    with pytest.raises(MalformedInput, match="six lines"):
        parse_promise(parse_note(checkpoint).text)
    assert not cosignature_message(b"", 1).startswith(b"consilium")


@given(st.binary(max_size=200))
def test_no_text_parses_as_both(noise: bytes) -> None:
    for text in (noise, b"consilium receipt v1\n" + noise, parse_note(receipts(1)[0].note).text):
        parsed = 0
        for parse in (parse_promise, parse_checkpoint):
            try:
                parse(text)
            except MalformedInput:
                continue
            parsed += 1
        assert parsed <= 1


@settings(max_examples=300)
@given(st.data())
def test_what_is_accepted_is_what_would_be_written(data: st.DataObject) -> None:
    made = bytearray(receipts(data.draw(st.integers(1, 5)))[0].encode())
    at = data.draw(st.integers(0, len(made) - 1))
    change = data.draw(st.sampled_from(["flip", "drop", "twice"]))
    if change == "flip":
        made[at] ^= data.draw(st.integers(1, 255))
    elif change == "drop":
        del made[at]
    else:
        made.insert(at, made[at])
    try:
        found = parse_receipt(bytes(made))
    except MalformedInput:
        return
    assert found.encode() == bytes(made)
    text = parse_note(found.note).text
    assert parse_promise(text).text() == text


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"first 7", b"first 07", "not a decimal number"),
        (b"count 1", b"count 0", "covers 0 entries"),
        (b"count 1", b"count 65537", "covers 65537 entries"),
        (b"merged by 61000", b"merged by 999", "merge before it accepts"),
        (b"index 7", b"index 8", "not among those"),
        (b"accepted", b"Accepted", "where 'accepted' belongs"),
        (b"receipt v1", b"receipt v2", "six lines"),
        (b"consilium/ab", b"sigstore/ab", "none of our logs'"),
    ],
)
def test_another_spelling_is_refused_with_its_reason(old: bytes, new: bytes, why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        parse_receipt(receipts(1)[0].encode().replace(old, new, 1))


def test_a_receipt_of_another_log_entry_or_signature_is_refused() -> None:
    made = receipts(2)[0]
    with pytest.raises(NotConsistent):
        open_receipt(made.encode(), leaves(2)[1], LOG)
    with pytest.raises(UnknownKey):
        open_receipt(made.encode(), leaves(2)[0], log_verifier(ORIGIN, bytes(32)))
    changed = made.encode().replace(b"merged by 61000", b"merged by 61001")
    with pytest.raises(BadSignature):
        open_receipt(changed, leaves(2)[0], LOG)


def test_a_promise_covers_no_more_than_an_index_can_name() -> None:
    with pytest.raises(MalformedInput, match="covers 2 entries from"):
        Promise(ORIGIN, 2**53 - 2, 2, bytes(32), 0, 0)
