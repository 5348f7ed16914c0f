"""Parsers of what the log and its witnesses say: entries, notes, proofs, tiles, bundles, evidence."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audit.errors import AuditError
from audit.verification.sources import close_copies, open_copies, parse_trust
from audit.verification.tile_copy import open_tiles
from audit.verification.verify import verify_at
from ledger.copies.bundle import Bundle, _frame_evidence, _Writer, read_bundle
from ledger.copies.evidence import frame, judge_equivocation, judge_fork, read_fork, split
from ledger.entries.entry import Body, frame_leaf, parse_body, parse_leaf
from ledger.errors import (
    BadSignature,
    LedgerError,
    MalformedInput,
    NotConsistent,
    NotWitnessed,
    Refused,
    UnknownKey,
)
from ledger.formats.checkpoint import (
    merge_cosignatures,
    open_checkpoint,
    parse_checkpoint,
    parse_size,
)
from ledger.formats.note import parse_note, parse_signature_lines, parse_vkey, verify_note
from ledger.formats.proof import build_proof, parse_proof, verify_proof
from ledger.formats.strict import canonical, decode_b64, encode_b64, parse_canonical
from ledger.formats.tile_folder import export_tiles, folder
from ledger.formats.tiles import Tile, TileReader, bundle_bytes, parse_bundle
from ledger.formats.tlog_policy import (
    Group,
    Log,
    Policy,
    Witness,
    format_policy,
    parse_policy,
    verify_by_policy,
)
from ledger.formats.witness import (
    AddCheckpoint,
    judge_add_checkpoint,
    parse_add_checkpoint,
    parse_size_answer,
)
from tests.federation import node_of
from tests.fuzz import samples
from tests.fuzz.parser import Parser

READS = "it is a judgement over bytes that another parser here reads"
_ORGANISATIONS = ("basel", "bern")


def text(data: bytes) -> str:
    """Bytes as the text that they are in a file or a policy."""
    return data.decode("utf-8", "surrogateescape")


def _parse_body(data: bytes) -> Body:
    """Both readers of canonical JSON, which must agree."""
    try:
        quick: Body | str = parse_body(data)
    except MalformedInput as refusal:
        quick = str(refusal)
    try:
        body = parse_canonical(data, Body)
    except MalformedInput as refusal:
        if str(refusal) != quick:
            raise AssertionError(f"{refusal} by one reader, {quick} by the other") from refusal
        raise
    if body != quick:
        raise AssertionError(f"{body} by one reader, {quick} by the other")
    return body


def _policy() -> Policy:
    names = tuple(zip(_ORGANISATIONS, samples.witnesses(), strict=True))
    return Policy(
        logs=(Log(samples.log_key(), "https://log.example"),),
        witnesses=tuple(Witness(name, key) for name, key in names),
        groups=(Group("hospitals", 2, _ORGANISATIONS),),
        quorum="hospitals",
    )


def _policy_reads_back(policy: Policy) -> None:
    if parse_policy(format_policy(policy)) != policy:
        raise AssertionError(f"{policy} does not read back")


def _proof() -> bytes:
    made = samples.federation()
    note = samples.note()
    return build_proof(made.log.tree, 3, note).encode()


def _request() -> bytes:
    made = samples.federation()
    size = made.log.size
    return AddCheckpoint(5, made.log.tree.consistency(5, size), samples.note()).encode()


def _judge_request(data: bytes) -> int:
    status = judge_add_checkpoint(
        data,
        {},
        logs={samples.log_key().name: (samples.log_key(),)},
        key=samples.federation().rings[node_of("basel")].witness,
        name=samples.witnesses()[0].name,
        time_s=1,
    ).answer.status
    if status not in (200, 400, 403, 404, 409, 422):
        raise AssertionError(f"a witness answered {status}")
    return status


def _cosignature_lines() -> list[bytes]:
    return [line + b"\n" for line in samples.note().split(b"\n\n")[1].splitlines()]


def _parse_bundle(data: bytes) -> tuple[bytes, ...]:
    if not data:
        raise MalformedInput("bundle", "the first byte says how many entries it has")
    return parse_bundle(data[1:], data[0])


def _encode_bundle(leaves: tuple[bytes, ...]) -> bytes:
    return bytes([len(leaves)]) + (bundle_bytes(leaves) if leaves else b"")


def _export(bundle: Bundle) -> bytes:
    out = io.BytesIO()
    writer = _Writer(out)
    for leaf in bundle.leaves():
        writer.section(b"ENTR", leaf)
    for tag, notes in ((b"SIGN", bundle.checkpoints), (b"FINA", bundle.finals)):
        for note in notes:
            writer.section(tag, note.note)
    for item in bundle.evidence:
        writer.section(b"EVID", _frame_evidence(item))
    for digest in bundle.blobs:
        writer.section(b"BLOB", bytes.fromhex(digest) + bundle.blob(digest))
    writer.finish()
    return out.getvalue()


def _right_digest(data: bytes) -> bytes:
    """Let a bundle end in the digest of its bytes."""
    body = data[:-44]
    return body + b"HASH" + (32).to_bytes(8, "big") + hashlib.sha256(body).digest()


def _right_lengths(data: bytes) -> bytes:
    """Let a leaf's lengths be those of its parts."""
    return frame_leaf(data[4:-68], data[-64:])


def _audited(name: str) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        return verify_at(str(samples.in_file(name, data)))

    return parse


def _opened(data: bytes) -> None:
    close_copies(open_copies(str(samples.in_file("copy.db", data))))


def _tile_folder() -> Path:
    place = samples.FOLDER / "tiles"
    if not place.exists():
        made = samples.federation()
        export_tiles(
            lambda start, stop: iter(made.leaves[start:stop]),
            samples.note(),
            samples.log_key(),
            place,
        )
    return place


def _files() -> list[Path]:
    return sorted(path for path in _tile_folder().rglob("*") if path.is_file())


def _tile_samples() -> list[bytes]:
    return [bytes([number]) + path.read_bytes() for number, path in enumerate(_files())]


def _read_tiles(data: bytes) -> None:
    """The log's files, one of which is other bytes: nothing but the true entries may come out."""
    files = _files()
    lie = str(files[data[0] % len(files) if data else 0].relative_to(_tile_folder()))
    honest = folder(_tile_folder())
    reader = TileReader(lambda name: data[1:] if name == lie else honest(name), samples.log_key())
    if list(reader.leaves()) != samples.federation().leaves[: reader.size]:
        raise AssertionError("a tile reader gave entries that the log does not have")


def _tile_copy(data: bytes) -> None:
    files = _files()
    lie = str(files[data[0] % len(files) if data else 0].relative_to(_tile_folder()))
    honest = folder(_tile_folder())
    copy = open_tiles(
        "folder", lambda name: data[1:] if name == lie else honest(name), samples.leaves()[0]
    )
    list(copy.entries())
    copy.close()


def _fork() -> list[bytes]:
    made = samples.federation()
    one, other = made.checkpoint(), samples.note()
    size = made.log.size
    proof = AddCheckpoint(3, (bytes(32), *made.log.tree.consistency(3, size)), one).encode()
    return [frame(one, other), frame(proof, other), frame(*made.leaves[2:4])]


def _judge_fork(data: bytes) -> str:
    return judge_fork(read_fork(*split(data)), samples.log_key())


def _judge_equivocation(data: bytes) -> Any:
    made = samples.federation()
    return judge_equivocation(data, made.id, made.state.keys)


_ENTRY = "ledger.entries.entry."
_VALUE = "ledger.formats.value."
_NOTE = "ledger.formats.note."
_CHECKPOINT = "ledger.formats.checkpoint."
_SIGNED = (MalformedInput, BadSignature, UnknownKey)

PARSERS: tuple[Parser, ...] = (
    Parser(
        "leaf", (_ENTRY + "parse_leaf", _ENTRY + "parse_entry", _ENTRY + "split_leaf"),
        samples.leaves, parse_leaf, (MalformedInput,), lambda entry: entry.leaf,
        repair=_right_lengths,
    ),
    Parser(
        "entry-body",
        ("ledger.formats.strict.parse_canonical", _ENTRY + "parse_body", _ENTRY + "Body.read", _VALUE + "Reader.read",
         _VALUE + "Value.read"),
        samples.bodies, _parse_body, (MalformedInput,), canonical,
    ),
    Parser(
        "note", (_NOTE + "parse_note",), lambda: [samples.note()], parse_note, (MalformedInput,),
        lambda note: note.encode(),
    ),
    Parser(
        "signature-lines", (_NOTE + "parse_signature_lines",), _cosignature_lines,
        parse_signature_lines, (MalformedInput,), lambda lines: b"".join(s.line() for s in lines),
    ),
    Parser(
        "vkey", (_NOTE + "parse_vkey",),
        lambda: [str(key).encode() for key in (samples.log_key(), *samples.witnesses())],
        lambda data: parse_vkey(text(data)), (MalformedInput,),
        lambda key: str(key).encode("utf-8", "surrogateescape"),
    ),
    Parser(
        "checkpoint", (_CHECKPOINT + "parse_checkpoint",),
        lambda: [parse_note(samples.note()).text], parse_checkpoint, (MalformedInput,),
        lambda checkpoint: checkpoint.text(),
    ),
    Parser(
        "size", (_CHECKPOINT + "parse_size",), lambda: [b"0", b"17", b"9007199254740991"],
        lambda data: parse_size(text(data), "size"), (MalformedInput,),
        lambda size: str(size).encode(),
    ),
    Parser(
        "signed-checkpoint", (_CHECKPOINT + "open_checkpoint",), lambda: [samples.note()],
        lambda data: (open_checkpoint(data, samples.log_key()),
                      verify_note(data, samples.witnesses())),
        _SIGNED, without=READS,
    ),
    Parser(
        "cosignatures", (), _cosignature_lines,
        lambda data: merge_cosignatures(samples.note(), data, samples.witnesses()), _SIGNED,
        without=READS,
    ),
    Parser(
        "tlog-proof", ("ledger.formats.proof.parse_proof",), lambda: [_proof()], parse_proof,
        (MalformedInput,), lambda proof: proof.encode(),
    ),
    Parser(
        "judged-proof", (), lambda: [_proof()],
        lambda data: verify_proof(
            samples.federation().leaves[3], data, samples.log_key(),
            {n: frozenset((k.public,)) for n, k in zip(_ORGANISATIONS, samples.witnesses(),
                                                       strict=True)},
        ),
        (*_SIGNED, NotConsistent, NotWitnessed), without=READS,
    ),
    Parser(
        "tlog-policy", ("ledger.formats.tlog_policy.parse_policy",),
        lambda: [format_policy(_policy())], parse_policy, (MalformedInput,),
        without="comments and spacing are free; what is written back reads as the same policy",
        fixpoint=_policy_reads_back,
    ),
    Parser(
        "checkpoint-by-policy", (), lambda: [samples.note()],
        lambda data: verify_by_policy(data, _policy()), (*_SIGNED, NotWitnessed), without=READS,
    ),
    Parser(
        "add-checkpoint", ("ledger.formats.witness.parse_add_checkpoint",), lambda: [_request()],
        parse_add_checkpoint, (MalformedInput,), lambda request: request.encode(),
    ),
    Parser(
        "witness-request", (), lambda: [_request(), AddCheckpoint(0, (), samples.note()).encode()],
        _judge_request, (), without="every body has an answer",
    ),
    Parser(
        "witness-size", ("ledger.formats.witness.parse_size_answer",), lambda: [b"17\n", b"0\n"],
        parse_size_answer, (MalformedInput,), lambda size: b"%d\n" % size,
    ),
    Parser(
        "tile-name", ("ledger.formats.tiles.Tile.parse",),
        lambda: [Tile(0, 1234067, 3).path.encode(), Tile(None, 5).path.encode()],
        lambda data: Tile.parse(text(data)), (MalformedInput,), lambda tile: tile.path.encode(),
    ),
    Parser(
        "entry-bundle", ("ledger.formats.tiles.parse_bundle",),
        lambda: [_encode_bundle(tuple(samples.leaves()[:3])), _encode_bundle((b"", b"a"))],
        _parse_bundle, (MalformedInput,), _encode_bundle,
    ),
    Parser(
        "tiles", (), _tile_samples, _read_tiles, (LedgerError,),
        without="what is read is compared with the log", weight=10,
    ),
    Parser(
        "tile-copy", ("audit.verification.tile_copy.open_tiles",), _tile_samples, _tile_copy,
        (AuditError, Refused), without="what is read is compared with the log", weight=20,
    ),
    Parser(
        "bundle", ("ledger.copies.bundle.read_bundle",), lambda: [samples.bundle()],
        lambda data: read_bundle(samples.in_file("x.consilium", data)), (MalformedInput,), _export,
        repair=_right_digest, weight=2,
    ),
    Parser(
        "audited-bundle", ("audit.verification.sources.open_copies",), lambda: [samples.bundle()],
        _audited("audited.consilium"), (AuditError,), without="it is a report", weight=100,
        repair=_right_digest,
    ),
    Parser(
        "database", ("ledger.copies.store.LogStore.open",), lambda: [samples.database()], _opened,
        (AuditError,), without="SQLite's", weight=100,
    ),
    Parser(
        "evidence", ("ledger.copies.evidence.split",), _fork, split, (MalformedInput,),
        lambda parts: frame(*parts),
    ),
    Parser(
        "fork", ("ledger.copies.evidence.read_fork",), _fork, _judge_fork,
        (*_SIGNED, NotConsistent), without=READS,
    ),
    Parser(
        "equivocation", (), _fork, _judge_equivocation, (*_SIGNED, NotConsistent), without=READS,
    ),
    Parser(
        "base64", ("ledger.formats.strict.decode_b64",), lambda: [b"", b"AA==", b"AAAB"],
        lambda data: decode_b64(text(data)), (MalformedInput,),
        lambda value: encode_b64(value).encode(),
    ),
    Parser(
        "trust-anchor", ("audit.verification.sources.parse_trust",), lambda: samples.leaves()[:3],
        lambda data: parse_trust(str(samples.in_file("anchor", data))), (AuditError,),
        without="it is an id",
    ),
)  # fmt: skip
