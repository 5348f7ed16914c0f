"""A signed entry: the only message that changes anything.

The body is canonical JSON (sorted keys, no spaces, ASCII, integers only) and is stored, sent and
verified as the exact bytes that were signed; nobody re-serialises to verify. The signature covers a
typed, length-framed prefix (``ledger.formats.keys.signed_message``, kind ``entry``), so that it cannot be
taken for a signature of anything else. The leaf, which the Merkle tree commits to, frames body and
signature: whoever swaps a signature changes the root. An entry is known by its leaf hash.

Leaf: u32 big-endian length of the body, body, u32 big-endian length of the signature, signature.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Annotated, Any, Generic, Self

from msgspec import DecodeError, Meta, Struct, json
from typing_extensions import TypeVar

from ledger.entries.operations.values import EMPTY_HASH, Count, Hash, KeyId, Slug, TimeMs, Value
from ledger.entries.operations.vocabulary import OPERATIONS, Operation
from ledger.errors import BadSignature, MalformedInput
from ledger.formats.keys import SigningKey, verify
from ledger.formats.merkle import EMPTY_ROOT, leaf_hash
from ledger.formats.strict import MAX_ENTRY, canonical, parse_canonical
from ledger.formats.value import Reader, refusal

SIGNATURE_BYTES = 64
_SIGNATURE_LENGTH = SIGNATURE_BYTES.to_bytes(4, "big")
_SIGNATURE_FRAME = 4 + SIGNATURE_BYTES
MIN_LEAF = 8 + SIGNATURE_BYTES
MAX_LEAF = MAX_ENTRY + MIN_LEAF


class Seen(Value):
    """Size and root of the newest checkpoint that the author had verified."""

    size: Count
    root: Hash


NOTHING_SEEN = Seen(size=0, root=EMPTY_ROOT.hex())


Said = TypeVar("Said", bound=Operation, default=Operation, covariant=True)


class Body(Value, Generic[Said]):
    """What is signed.

    Attributes:
        v: format version, 1.
        federation: id of the federation; zeros in entry 0 alone.
        author: handle of the member.
        key: id of the entry key whose chain this is.
        seq, prev: position in that chain, and hash of the entry before (zeros at 0).
        seen: the newest checkpoint that the author verified.
        at_ms: the author's clock.
        op: one operation.
    """

    v: Annotated[int, Meta(ge=1, le=1)]
    federation: Hash
    author: Slug
    key: KeyId
    seq: Count
    prev: Hash
    seen: Seen
    at_ms: TimeMs
    op: Said

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Read JSON, by the operation's own type; see `Value.read`."""
        body: Self = _reader(_operation_in(data)).read(data)
        return body


class Entry(Struct, frozen=True, gc=False):
    """A parsed entry beside its exact bytes.

    Attributes:
        body: the typed body.
        raw: the body's bytes, as signed.
        signature: 64 bytes, not yet verified by parsing.
        hash: RFC 6962 leaf hash over the framed leaf, as lowercase hex.
    """

    body: Body
    raw: bytes
    signature: bytes
    hash: str

    @property
    def where(self) -> str:
        """How a refusal names it: the author and the place in its chain."""
        return f"entry {self.body.author}/{self.body.seq}"

    @property
    def leaf(self) -> bytes:
        """The framed bytes that the tree commits to."""
        return frame_leaf(self.raw, self.signature)


def frame_leaf(raw: bytes, signature: bytes) -> bytes:
    """Frame a body and its signature as the bytes of a leaf."""
    return b"".join(
        (len(raw).to_bytes(4, "big"), raw, len(signature).to_bytes(4, "big"), signature)
    )


def split_leaf(leaf: bytes) -> tuple[bytes, bytes]:
    """Undo `frame_leaf`.

    Raises:
        MalformedInput: the lengths do not add up exactly.
    """
    if (
        MIN_LEAF <= len(leaf) <= MAX_LEAF
        and leaf[-_SIGNATURE_FRAME:-SIGNATURE_BYTES] == _SIGNATURE_LENGTH
        and leaf[:4] == (len(leaf) - 4 - _SIGNATURE_FRAME).to_bytes(4, "big")
    ):
        return leaf[4:-_SIGNATURE_FRAME], leaf[-SIGNATURE_BYTES:]
    if len(leaf) > MAX_LEAF:
        raise MalformedInput("leaf", f"{len(leaf)} bytes; at most {MAX_LEAF} are allowed")
    length = int.from_bytes(leaf[:4], "big")
    signature = leaf[8 + length :]
    if leaf[4 + length : 8 + length] != len(signature).to_bytes(4, "big"):
        raise MalformedInput("leaf", "its lengths do not match its bytes")
    raise MalformedInput("signature", f"{len(signature)} bytes instead of {SIGNATURE_BYTES}")


def parse_body(raw: bytes) -> Body:
    """Bytes at the door become a typed body.

    What is decoded by its operation's type, is spelt as declared and encodes to the same bytes is
    canonical; that is tried first, with the type that stands last in the bytes for a guess.
    `parse_canonical` judges all that is not accepted so, and alone refuses: the verdict is its own.

    Raises:
        MalformedInput: not canonical, unknown field or type, out of range, too long.
    """
    at = raw.rfind(_TYPE, 0, -_AFTER) + len(_TYPE)
    likely = _LIKELY.get(raw[at : raw.find(b'"', at)])
    if likely is not None and len(raw) <= MAX_ENTRY:
        decode, holds = likely
        try:
            body = decode(raw)
        except (DecodeError, ValueError, RecursionError):
            pass  # the careful parser says what is wrong, or that nothing is
        else:
            if _write(body) == raw and holds(body):
                return body
    return parse_canonical(raw, Body, limit=MAX_ENTRY)


def parse_entry(raw: bytes, signature: bytes) -> Entry:
    """Bytes at the door become a typed entry; the signature is not verified here.

    Raises:
        MalformedInput: see `parse_body`; or the signature is none.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise MalformedInput("signature", f"{len(signature)} bytes instead of {SIGNATURE_BYTES}")
    body = parse_body(raw)
    framed = b"".join((b"\x00", len(raw).to_bytes(4, "big"), raw, _SIGNATURE_LENGTH, signature))
    return Entry(body, raw, signature, sha256(framed).hexdigest())  # `leaf_hash`, framed once


def parse_leaf(leaf: bytes) -> Entry:
    """Parse a framed leaf; see `parse_entry`."""
    raw, signature = split_leaf(leaf)
    return Entry(parse_body(raw), raw, signature, sha256(b"\x00" + leaf).hexdigest())


def _operation_in(data: bytes) -> str:
    """The type of the operation that a body holds.

    Raises:
        MalformedInput: it holds none that is known.
    """
    try:
        plain = json.decode(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise refusal("Body", error) from None
    if not isinstance(plain, dict):
        raise MalformedInput("Body", "should be an object")
    op = plain.get("op")
    said = op.get("type") if isinstance(op, dict) else None
    if not isinstance(said, str) or said not in OPERATIONS:
        raise MalformedInput("Body.op", "its tag is none of those known")
    return said


@cache
def _reader(said: str) -> Reader[Any]:
    """Reads bodies with one operation; made when the first one comes, and quick from then on."""
    reader: Reader[Any] = Reader(Body[OPERATIONS[said]], "Body")  # type: ignore[valid-type]
    _LIKELY[said.encode()] = reader.decode, reader.spelling.holds
    return reader


_LIKELY: dict[bytes, tuple[Callable[[bytes], Body], Callable[[Body], bool]]] = {}
_TYPE = b'"type":"'
_AFTER = 128  # two hashes at least stand between an operation and the end of its body
_write = (
    json.Encoder().encode
)  # unsorted: a value's fields are sorted, or the careful parser judges


def chain_position(leaf: bytes) -> tuple[str, int]:
    """Key id and number in its chain of an entry whose operation this software may not know.

    The envelope is the same in every protocol version; the operation is not looked at.

    Raises:
        MalformedInput: the leaf is not framed, or its body has no such envelope.
    """
    raw, _ = split_leaf(leaf)
    if len(raw) > MAX_ENTRY:
        raise MalformedInput("entry", f"{len(raw)} bytes; at most {MAX_ENTRY} are accepted")
    try:
        envelope = _ENVELOPE.read(raw)
    except MalformedInput as refused:
        place = refused.where.partition(".")[2] or "body"
        raise MalformedInput("entry", f"its envelope cannot be read at {place}") from None
    return envelope.key, envelope.seq


class _Envelope(Value, forbid_unknown_fields=False):
    """What chains an entry, whatever it says."""

    key: KeyId
    seq: Count


_ENVELOPE: Reader[_Envelope] = Reader(_Envelope, "entry")


def sign_entry(body: Body, key: SigningKey) -> Entry:
    """Sign a body with the entry key that it names.

    Raises:
        ValueError: the body names another key.
        MalformedInput: no log would take it: it is too long.
    """
    if body.key != key.id:
        raise ValueError(f"the body names key {body.key}, but {key.id} would sign")
    raw = canonical(body)
    if len(raw) > MAX_ENTRY:
        raise MalformedInput(
            f"entry {body.op.type}",
            f"it would have {len(raw)} bytes; at most {MAX_ENTRY} are accepted: name fewer things "
            "in one entry",
        )
    signature = key.sign("entry", raw)
    return Entry(body, raw, signature, leaf_hash(frame_leaf(raw, signature)).hex())


def verify_signature(entry: Entry, public: bytes) -> None:
    """Check an entry's signature under a raw Ed25519 public key.

    Raises:
        BadSignature: it does not verify.
    """
    if not verify(public, "entry", entry.raw, entry.signature):
        raise bad_signature(entry)


def bad_signature(entry: Entry) -> BadSignature:
    """The refusal of an entry whose signature does not verify."""
    return BadSignature(
        f"{entry.where} ({entry.hash[:12]})",
        f"the signature is not one by key {entry.body.key}",
    )


def federation_id(genesis: Entry) -> str:
    """The federation's id: SHA-256 of the genesis entry's signed body, lowercase hex."""
    return sha256(genesis.raw).hexdigest()


def log_origin(federation: str) -> str:
    """The origin line of this federation's checkpoints."""
    return f"consilium/{federation}"


def genesis_body(author: str, key: KeyId, at_ms: int, op: Operation) -> Body:
    """The body of entry 0: no federation id yet, no chain, nothing seen."""
    return Body(
        v=1,
        federation=EMPTY_HASH,
        author=author,
        key=key,
        seq=0,
        prev=EMPTY_HASH,
        seen=NOTHING_SEEN,
        at_ms=at_ms,
        op=op,
    )
