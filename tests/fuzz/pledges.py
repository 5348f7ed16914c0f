"""Parsers of receipts and the evidence that one was broken, of stored states, and of a succession."""

from __future__ import annotations

import hmac

from ledger.copies.broken_receipt import BrokenReceipt, read_broken
from ledger.copies.snapshot import Finals, Snapshot, SnapshotFile
from ledger.copies.succession import (
    EndorsementFile,
    SuccessionFile,
    read_endorsement,
    read_succession,
)
from ledger.errors import BadSignature, MalformedInput, NotConsistent, UnknownKey
from ledger.formats.note import parse_note
from ledger.formats.receipt import open_receipt, parse_promise, parse_receipt, sign_receipts
from ledger.formats.strict import canonical, encode_b64
from ledger.rules.decoding import decode
from ledger.rules.encoding import encode
from tests.federation import COORDINATOR, steward_of
from tests.fuzz import samples
from tests.fuzz.parser import Parser

_KEY = bytes(32)
_MAC_BYTES = 32


def _receipts() -> list[bytes]:
    made = samples.federation()
    log = made.rings[COORDINATOR].log
    assert log is not None
    hashes = [bytes.fromhex(entry.hash) for entry in made.entries()[3:7]]
    signed = sign_receipts(log, made.origin, 3, hashes, accepted_ms=1, merge_by_ms=2)
    return [receipt.encode() for receipt in signed]


def _promises() -> list[bytes]:
    return [parse_note(parse_receipt(_receipts()[0]).note).text]


def _opened(data: bytes) -> object:
    leaf = bytes.fromhex(samples.federation().entries()[3].hash)
    return open_receipt(data, leaf, samples.log_key())


def _broken() -> list[bytes]:
    leaves = samples.federation().leaves
    return [BrokenReceipt(leaves[3], _receipts()[0], samples.note(), leaves[4]).encode()]


def _endorsements() -> list[bytes]:
    made = EndorsementFile(
        format="consilium succession endorsement v1",
        claim=encode_b64(b"what is endorsed"),
        steward=steward_of("basel"),
        signature="0" * 128,
    )
    return [canonical(made)]


def _successions() -> list[bytes]:
    made = SuccessionFile(
        format="consilium succession v1",
        url="https://hub.example",
        ca=None,
        genesis=encode_b64(samples.leaves()[0]),
    )
    return [canonical(made)]


def _states() -> list[bytes]:
    return [encode(samples.federation().state)]


def _snapshot(name: str) -> SnapshotFile:
    return SnapshotFile(samples.FOLDER / name, _KEY)


def _snapshots() -> list[bytes]:
    made, file = samples.federation(), _snapshot("made.snapshot")
    file.write(Snapshot(made.state, made.log.tree.root(), made.log.tree.tiles, Finals()))
    return [file.path.read_bytes()]


def _read_snapshot(data: bytes) -> Snapshot | None:
    """One that is not believed is put aside, and the log replayed."""
    samples.in_file("tried.snapshot", data)
    return _snapshot("tried.snapshot").read(samples.federation().id)


def _authenticated(data: bytes) -> bytes:
    body = data[:-_MAC_BYTES]
    return body + hmac.digest(_KEY, body, "sha256")


_RECEIPT = "ledger.formats.receipt."
_SUCCESSION = "ledger.copies.succession."

PARSERS: tuple[Parser, ...] = (
    Parser(
        "receipt", (_RECEIPT + "parse_receipt",), _receipts, parse_receipt, (MalformedInput,),
        lambda receipt: receipt.encode(),
    ),
    Parser(
        "promise", (_RECEIPT + "parse_promise",), _promises, parse_promise, (MalformedInput,),
        lambda promise: promise.text(),
    ),
    Parser(
        "opened-receipt", (_RECEIPT + "open_receipt",), _receipts, _opened,
        (MalformedInput, BadSignature, UnknownKey, NotConsistent),
        without="it is a judgement over bytes that another parser here reads",
    ),
    Parser(
        "broken-receipt", ("ledger.copies.broken_receipt.read_broken",), _broken, read_broken,
        (MalformedInput,), lambda broken: broken.encode(),
    ),
    Parser(
        "endorsement", (_SUCCESSION + "read_endorsement",), _endorsements, read_endorsement,
        (MalformedInput,), canonical,
    ),
    Parser(
        "succession", (_SUCCESSION + "read_succession",), _successions, read_succession,
        (MalformedInput,), canonical,
    ),
    Parser(
        "state", ("ledger.rules.decoding.decode",), _states, decode, (MalformedInput,), encode,
        weight=10,
    ),
    Parser(
        "snapshot", ("ledger.copies.snapshot.SnapshotFile.read",), _snapshots, _read_snapshot, (),
        without="one that is not believed is put aside, and the log is replayed",
        repair=_authenticated, weight=10,
    ),
)  # fmt: skip
