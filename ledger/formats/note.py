"""Signed notes: a text and the lines of those who signed it (c2sp.org/signed-note@v1.0.0).

Promise: ``parse_note`` accepts a note if and only if ``encode`` gives the same bytes back, and
``verify_note`` follows the specification's rules for known and unknown keys. Verification is
over the text exactly as received.

Not promised: that the text means anything (``checkpoint`` reads it). Two signature types are
known, Ed25519 (0x01) and the Ed25519 cosignature/v1 of c2sp.org/tlog-cosignature@v1.0.1 (0x04);
lines of any other type are unknown lines, which the specification tells a verifier to ignore.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from ledger.errors import BadSignature, MalformedInput, UnknownKey
from ledger.formats.keys import PUBLIC_BYTES, SIGNATURE_BYTES, verify_raw
from ledger.formats.strict import decode_b64, encode_b64, excerpt

ED25519 = 0x01
COSIGNATURE_V1 = 0x04
KEY_ID_BYTES = 4
MAX_NOTE = 64 * 1024
"""Bytes of a whole note."""
MAX_SIGNATURES = 100
"""Lines of a note, as in Go's note package; the specification asks for at least 16."""
MAX_TIME = 2**63 - 1
"""POSIX seconds: the largest that a cosignature may carry."""

_DASH = "\u2014 "
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_TIME_BYTES = 8


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name, for one signature type; ``str`` of it is the vkey text.

    Attributes:
        name: not empty, without Unicode spaces and plus signs.
        public: the Ed25519 public key, 32 bytes.
        type: ``ED25519`` or ``COSIGNATURE_V1``.
    """

    name: str
    public: bytes
    type: int = ED25519

    def __post_init__(self) -> None:
        check_name(self.name, "key name")
        if self.type not in (ED25519, COSIGNATURE_V1):
            raise MalformedInput("vkey", f"signature type {self.type:#04x} is not supported")
        if len(self.public) != PUBLIC_BYTES:
            raise MalformedInput("vkey", f"an Ed25519 key has {PUBLIC_BYTES} bytes")

    def __str__(self) -> str:
        material = encode_b64(bytes([self.type]) + self.public)
        return f"{self.name}+{self.id.hex()}+{material}"

    @property
    def id(self) -> bytes:
        """SHA-256(name || LF || type || public key), its first 4 bytes."""
        return key_id_of(self.name, self.type, self.public)

    def check(self, text: bytes, payload: bytes) -> int | None:
        """Verify a line's payload over a note text.

        Args:
            text: the note's text to its last LF.
            payload: what follows the key id: 64 bytes, or 72 with a cosignature's time.

        Returns:
            A cosignature's time in POSIX seconds; None for a plain signature.

        Raises:
            BadSignature: it does not verify.
        """
        where = f"signature by {self.name}"
        time_s = None
        message, signature = text, payload
        if self.type == COSIGNATURE_V1:
            time_s = int.from_bytes(payload[:_TIME_BYTES], "big")
            signature = payload[_TIME_BYTES:]
            if not 0 < time_s <= MAX_TIME:
                raise BadSignature(where, f"its time is outside 1..{MAX_TIME}")
            message = cosignature_message(text, time_s)
        if len(signature) != SIGNATURE_BYTES:
            raise BadSignature(where, f"has {len(payload)} bytes, which no such signature has")
        if not verify_raw(self.public, message, signature):
            raise BadSignature(where, "does not verify over this text")
        return time_s


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: who says they signed, with which key, and what they wrote.

    Attributes:
        name: the key's name.
        key_id: 4 bytes.
        payload: the bytes after the id; their form is the signature type's.
    """

    name: str
    key_id: bytes
    payload: bytes

    def line(self) -> bytes:
        """Write the line, with its LF."""
        return f"{_DASH}{self.name} {encode_b64(self.key_id + self.payload)}\n".encode()

    def is_by(self, key: VerifierKey) -> bool:
        """Say whether the line claims to be by this key: name and id both match."""
        return self.name == key.name and self.key_id == key.id


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signature lines, in order; nothing verified yet.

    Attributes:
        text: ends in LF.
        signatures: at least one.
    """

    text: bytes
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """Write the note: text, empty line, signature lines."""
        return self.text + b"\n" + b"".join(signature.line() for signature in self.signatures)


@dataclass(frozen=True, slots=True)
class Verified:
    """A known key that signed a note.

    Attributes:
        key: who.
        time_s: POSIX seconds of its newest cosignature; None for a plain signature.
    """

    key: VerifierKey
    time_s: int | None


def parse_vkey(text: str) -> VerifierKey:
    """Read ``name+id+base64(type || public)``.

    The text is split at its first two plus signs only, since base64 holds plus signs too. The id
    is recomputed; the specification merely recommends how ids are made, we insist.

    Raises:
        MalformedInput: not a vkey, an unsupported type, or an id that is not its key's.
    """
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise MalformedInput("vkey", f"{excerpt(text)} is not name+id+key")
    name, key_id, material = parts
    if not _KEY_ID.fullmatch(key_id):
        raise MalformedInput("vkey", f"the id {excerpt(key_id)} is not 8 lowercase hex digits")
    raw = decode_b64(material, "vkey")
    if not raw:
        raise MalformedInput("vkey", "has no key material")
    key = VerifierKey(name=name, type=raw[0], public=raw[1:])
    if key.id.hex() != key_id:
        raise MalformedInput(
            "vkey", f"says id {key_id}, but its name and key make {key.id.hex()}; copied wrongly?"
        )
    return key


def key_id_of(name: str, signature_type: int, public: bytes) -> bytes:
    """Return the 4-byte id by which signature lines name a key."""
    return sha256(name.encode() + b"\n" + bytes([signature_type]) + public).digest()[:KEY_ID_BYTES]


def cosignature_message(text: bytes, time_s: int) -> bytes:
    """Return what a cosignature/v1 signs: two lines of its own, then the whole note text."""
    return b"cosignature/v1\ntime %d\n" % time_s + text


def parse_note(data: bytes) -> Note:
    """Split a note into its text and its signature lines; verifies nothing.

    Raises:
        MalformedInput: over ``MAX_NOTE`` bytes or ``MAX_SIGNATURES`` lines, not UTF-8, a control
            character, or anything that is not a text, an empty line and signature lines.
    """
    if len(data) > MAX_NOTE:
        raise MalformedInput("note", f"has {len(data)} bytes; at most {MAX_NOTE} are accepted")
    control = _CONTROL.search(data)
    if control:
        raise MalformedInput("note", f"has a control character at byte {control.start()}")
    if not data.endswith(b"\n"):
        raise MalformedInput("note", "does not end in LF")
    split = data.rfind(b"\n\n")
    if split < 0:
        raise MalformedInput("note", "has no empty line between text and signatures")
    try:
        data.decode("utf-8")
        lines = data[split + 2 :].decode("utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise MalformedInput("note", f"is not UTF-8 at byte {error.start}") from None
    return Note(text=data[: split + 1], signatures=_signatures(lines))


def parse_signature_lines(data: bytes) -> tuple[NoteSignature, ...]:
    """Read signature lines alone, as a witness answers with them.

    Raises:
        MalformedInput: anything else than one to ``MAX_SIGNATURES`` lines, each ending in LF.
    """
    text = b"-\n"  # any text: the rules are those of a note's last part
    note = parse_note(text + b"\n" + data)
    if note.text != text:
        raise MalformedInput("signature lines", "hold an empty line")
    return note.signatures


def verify_note(data: bytes, known: Sequence[VerifierKey]) -> tuple[Note, tuple[Verified, ...]]:
    """Verify a note against the keys one knows (signed-note, "Signatures").

    1. A line is by a known key where name and id both match; every other line is ignored.
    2. A line by a known key that does not verify refuses the whole note.
    3. A note that no known key has signed is refused.

    Returns:
        The note, and each known key that signed it, once, in the order of the lines.

    Raises:
        MalformedInput: it is no note, or two known keys share name and id.
        BadSignature: step 2.
        UnknownKey: step 3.
    """
    by_line = {(key.name, key.id): key for key in known}
    if len(by_line) != len(set(known)):
        raise MalformedInput("known keys", "two of them share name and id")
    note = parse_note(data)
    verified: dict[VerifierKey, int | None] = {}
    for signature in note.signatures:
        key = by_line.get((signature.name, signature.key_id))
        if key is None:
            continue
        time_s = key.check(note.text, signature.payload)
        before = verified.get(key)
        verified[key] = time_s if before is None or time_s is None else max(before, time_s)
    if not verified:
        raise UnknownKey("note", "is signed by no key we know")
    return note, tuple(Verified(key, time_s) for key, time_s in verified.items())


def check_name(name: str, where: str) -> None:
    """Refuse what cannot be a key name: empty, or with a space, a plus or a control character.

    Raises:
        MalformedInput: with ``where`` as given.
    """
    if not name or any(char.isspace() or char == "+" or char < " " for char in name):
        raise MalformedInput(where, f"{excerpt(name)} is empty, or has a space, plus or control")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedInput(where, f"{excerpt(name)} is not Unicode text") from None


def _signatures(lines: list[str]) -> tuple[NoteSignature, ...]:
    if not 1 <= len(lines) <= MAX_SIGNATURES:
        raise MalformedInput("note", f"has {len(lines)} signature lines, not 1..{MAX_SIGNATURES}")
    return tuple(_signature(line, at) for at, line in enumerate(lines, start=1))


def _signature(line: str, at: int) -> NoteSignature:
    where = f"note signature line {at}"
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise MalformedInput(where, f"{excerpt(line)} is not dash, name and base64")
    check_name(name, where)
    raw = decode_b64(encoded, where)
    if len(raw) <= KEY_ID_BYTES:
        raise MalformedInput(where, "holds no signature")
    return NoteSignature(name=name, key_id=raw[:KEY_ID_BYTES], payload=raw[KEY_ID_BYTES:])
