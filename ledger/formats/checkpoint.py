"""Checkpoints: the signed statement of a log's size and root, and its cosignatures.

c2sp.org/tlog-checkpoint@v1.0.0 inside a signed note; cosignature/v1 (Ed25519, type 0x04) of
c2sp.org/tlog-cosignature@v1.0.1. A cosignature says: at this time, this was the largest tree of
this origin that I had seen, consistent with everything I had seen before.

Promise: reading is strict (one spelling of every number and hash), and the bytes that were
signed are the bytes that are verified and relayed. We write no extension lines, and keep those
of others.

Not promised: that the cosigner's name is the signer's choice. Cosignature/v1 does not cover it,
so whoever counts cosignatures counts distinct keys (``witness.judge_quorum``). Consistency
between checkpoints is ``merkle``'s and ``witness``'s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ledger.errors import MalformedInput, UnknownKey
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import HASH_BYTES, MAX_SIZE
from ledger.formats.note import (
    COSIGNATURE_V1,
    ED25519,
    MAX_TIME,
    Note,
    NoteSignature,
    VerifierKey,
    cosignature_message,
    parse_note,
    parse_signature_lines,
    verify_note,
)
from ledger.formats.strict import decode_b64, encode_b64, excerpt

_SIZE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f]")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's size and root, as one note text.

    Attributes:
        origin: which log; not empty, one line.
        size: number of leaves, 0..2^53 - 1.
        root: RFC 6962 root at that size, 32 bytes.
        extensions: opaque lines, not empty; ours has none.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or _CONTROL.search(line):
                raise MalformedInput("checkpoint", "an empty line, or one with a control character")
        if not 0 <= self.size <= MAX_SIZE:
            raise MalformedInput("checkpoint.size", "is outside 0..2^53 - 1")
        if len(self.root) != HASH_BYTES:
            raise MalformedInput("checkpoint.root", f"has not {HASH_BYTES} bytes")

    def text(self) -> bytes:
        """Write the note text that is signed, with its last LF."""
        lines = (self.origin, str(self.size), encode_b64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines).encode()


def parse_checkpoint(text: bytes) -> Checkpoint:
    """Read a note's text as a checkpoint.

    Raises:
        MalformedInput: ``Checkpoint.text`` would not have written these bytes.
    """
    try:
        lines = text.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedInput("checkpoint", f"is not UTF-8 at byte {error.start}") from None
    if len(lines) < 4 or lines.pop() != "":
        raise MalformedInput("checkpoint", "is not origin, size and root, each ending in LF")
    origin, size, root, *extensions = lines
    return Checkpoint(
        origin=origin,
        size=parse_size(size, "checkpoint.size"),
        root=decode_b64(root, "checkpoint.root", size=HASH_BYTES),
        extensions=tuple(extensions),
    )


def parse_size(text: str, where: str) -> int:
    """Read a size or index: ASCII decimal, no sign, no leading zero, at most 2^53 - 1.

    Raises:
        MalformedInput: any other text; Python's ``int`` would take ``+7``, `` 7`` and ``0_7``.
    """
    if not _SIZE.fullmatch(text) or int(text) > MAX_SIZE:
        raise MalformedInput(where, f"{excerpt(text)} is not a decimal number up to 2^53 - 1")
    return int(text)


@lru_cache(maxsize=64)
def log_verifier(origin: str, public: bytes) -> VerifierKey:
    """Name a log's key: our custom is that its name is the log's origin."""
    return VerifierKey(name=origin, public=public, type=ED25519)


def sign_checkpoint(key: SigningKey, checkpoint: Checkpoint) -> bytes:
    """Sign a checkpoint as its log; returns the whole note.

    Persist the note before anybody sees it: two signed roots of one size are a fork.
    """
    text = checkpoint.text()
    verifier = log_verifier(checkpoint.origin, key.public)
    signature = NoteSignature(verifier.name, verifier.id, key.sign_raw(text))
    return Note(text, (signature,)).encode()


def open_checkpoint(note: bytes, log: VerifierKey, *, origin: str | None = None) -> Checkpoint:
    """Verify a log's signature on a note and read its checkpoint.

    Args:
        note: the bytes received; lines by other keys are ignored.
        log: the log's key.
        origin: the origin expected; by default the key's name.

    Raises:
        MalformedInput: not a note, not a checkpoint, or of another origin.
        BadSignature, UnknownKey: the log did not sign it.
    """
    opened, _ = verify_note(note, (log,))
    checkpoint = parse_checkpoint(opened.text)
    expected = log.name if origin is None else origin
    if checkpoint.origin != expected:
        raise MalformedInput(
            "checkpoint.origin", f"is {excerpt(checkpoint.origin)} where {expected!r} is expected"
        )
    return checkpoint


def cosign(note: bytes, key: SigningKey, name: str, time_s: int) -> bytes:
    """Cosign a checkpoint; returns the signature line.

    The caller has verified the log's signature and consistency, and stored the checkpoint.

    Args:
        note: the checkpoint note.
        key: the witness key, which signs nothing else.
        name: the witness's key name.
        time_s: POSIX seconds, 1..2^63 - 1.

    Raises:
        MalformedInput: not a checkpoint note, or no time.
    """
    if not 0 < time_s <= MAX_TIME:
        raise MalformedInput("cosignature time", f"is outside 1..{MAX_TIME} seconds")
    text = parse_note(note).text
    parse_checkpoint(text)
    verifier = VerifierKey(name=name, public=key.public, type=COSIGNATURE_V1)
    payload = time_s.to_bytes(8, "big") + key.sign_raw(cosignature_message(text, time_s))
    return NoteSignature(name, verifier.id, payload).line()


def verify_cosignature(text: bytes, witness: VerifierKey, payload: bytes) -> int:
    """Verify one cosignature over a checkpoint's text.

    Args:
        text: the note text as received.
        witness: a key of type ``COSIGNATURE_V1``.
        payload: the signature line's 72 bytes after the key id.

    Returns:
        Its time in POSIX seconds.

    Raises:
        BadSignature: it does not verify.
        UnknownKey: the key is of another type.
    """
    time_s = witness.check(text, payload)
    if time_s is None:
        raise UnknownKey(f"key {witness.name}", "is no cosignature/v1 key (type 0x04)")
    return time_s


def merge_cosignatures(note: bytes, lines: bytes, witnesses: Sequence[VerifierKey]) -> bytes:
    """Add the cosignatures of known witnesses to a checkpoint note.

    A line by an unknown key is dropped, as tlog-witness asks of a log. Of two cosignatures by one
    key the later in time stays, so merging in any order and again gives the same set.

    Args:
        note: the checkpoint note, already verified.
        lines: signature lines, as a witness answers.
        witnesses: the keys (type ``COSIGNATURE_V1``) we know.

    Raises:
        MalformedInput: not a note, not signature lines, or more than a note may hold.
        BadSignature: a known witness's line does not verify; nothing is merged.
    """
    opened = parse_note(note)
    merged = list(opened.signatures)
    for added in parse_signature_lines(lines):
        witness = next((key for key in witnesses if added.is_by(key)), None)
        if witness is None:
            continue
        time_s = verify_cosignature(opened.text, witness, added.payload)
        at = next((at for at, old in enumerate(merged) if old.is_by(witness)), None)
        if at is None:
            merged.append(added)
        elif verify_cosignature(opened.text, witness, merged[at].payload) < time_s:
            merged[at] = added
    result = Note(opened.text, tuple(merged)).encode()
    parse_note(result)  # the caps hold for what we write, too
    return result
