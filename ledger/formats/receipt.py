"""Receipts: a log's signed promise that an entry is in it, at this index, by this time.

What is signed is a note (``note``) by the log's key over a text of its own:

::

    consilium receipt v1
    <origin>
    first <index of the first entry covered>
    count <entries covered>
    root <base64: RFC 6962 root over the leaf hashes of these entries alone>
    accepted <POSIX milliseconds>
    merged by <POSIX milliseconds>

One promise covers all entries of a group commit, so that its cost is one signature however many
there are. What an author keeps is the promise with the path from its own entry's leaf hash to that
root, in one file laid out as a tlog-proof is.

Promise: ``parse_promise`` and ``parse_receipt`` accept exactly what is written here. No text is both a
promise and a checkpoint: a checkpoint's second line is a decimal number, a promise's an origin after
"consilium/".

Not promised: that the log keeps its word. ``ledger.copies.broken_receipt`` judges that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.errors import MalformedInput
from ledger.formats.checkpoint import log_verifier, parse_size
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import HASH_BYTES, MAX_SIZE, root_and_paths, verify_inclusion
from ledger.formats.note import Note, NoteSignature, VerifierKey, parse_note, verify_note
from ledger.formats.strict import decode_b64, encode_b64, excerpt

MAGIC = "consilium-receipt@v1"
FIRST_LINE = "consilium receipt v1"
MAX_COUNT = 2**16
"""Entries that one promise may cover."""
MAX_PATH = 16
MAX_RECEIPT = 16 * 1024
"""Bytes of a whole receipt."""

_NAMES = ("first", "count", "root", "accepted", "merged by")


@dataclass(frozen=True, slots=True)
class Promise:
    """What the log signs.

    Attributes:
        origin: the log's.
        first: index of the first entry covered.
        count: how many, without a gap; 1..MAX_COUNT.
        root: RFC 6962 root over their leaf hashes, as a tree of their own, 32 bytes.
        accepted_ms: when they were accepted, by the log's clock.
        merge_by_ms: by when a checkpoint covers them, by the log's clock; not before `accepted_ms`.
    """

    origin: str
    first: int
    count: int
    root: bytes
    accepted_ms: int
    merge_by_ms: int

    def __post_init__(self) -> None:
        name = self.origin.removeprefix("consilium/")
        if name == self.origin or not name.isascii() or not name.isalnum():
            raise MalformedInput("receipt.origin", f"{excerpt(self.origin)} is none of our logs'")
        if not 1 <= self.count <= MAX_COUNT or not 0 <= self.first <= MAX_SIZE - self.count:
            raise MalformedInput("receipt", f"covers {self.count} entries from {self.first} on")
        if not 0 <= self.accepted_ms <= self.merge_by_ms <= MAX_SIZE:
            raise MalformedInput("receipt", "promises to merge before it accepts")
        if len(self.root) != HASH_BYTES:
            raise MalformedInput("receipt.root", f"has not {HASH_BYTES} bytes")

    def text(self) -> bytes:
        """Write the note text that is signed, with its last LF."""
        values = (self.first, self.count, encode_b64(self.root), self.accepted_ms, self.merge_by_ms)
        lines = [f"{name} {value}" for name, value in zip(_NAMES, values, strict=True)]
        return "".join(f"{line}\n" for line in (FIRST_LINE, self.origin, *lines)).encode()


@dataclass(frozen=True, slots=True)
class MergeReceipt:
    """A promise for one entry.

    Attributes:
        index: the entry's, in the log.
        path: hashes of 32 bytes from the entry's leaf hash to the promise's root.
        note: the signed promise, verbatim.
    """

    index: int
    path: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """Write the receipt."""
        lines = (MAGIC, f"index {self.index}", *map(encode_b64, self.path))
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.note


def parse_promise(text: bytes) -> Promise:
    """Read a note's text as a promise.

    Raises:
        MalformedInput: ``Promise.text`` would not have written these bytes.
    """
    try:
        lines = text.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedInput("receipt", f"is not ASCII at byte {error.start}") from None
    if len(lines) != len(_NAMES) + 3 or lines[0] != FIRST_LINE or lines[-1]:
        raise MalformedInput("receipt", f"is not {FIRST_LINE!r} and six lines, each ending in LF")
    values = []
    for name, line in zip(_NAMES, lines[2:-1], strict=True):
        if not line.startswith(name + " "):
            raise MalformedInput("receipt", f"has {excerpt(line)} where {name!r} belongs")
        values.append(line[len(name) + 1 :])
    first, count, root, accepted, merge_by = values
    return Promise(
        origin=lines[1],
        first=parse_size(first, "receipt.first"),
        count=parse_size(count, "receipt.count"),
        root=decode_b64(root, "receipt.root", size=HASH_BYTES),
        accepted_ms=parse_size(accepted, "receipt.accepted"),
        merge_by_ms=parse_size(merge_by, "receipt.merged by"),
    )


def parse_receipt(data: bytes) -> MergeReceipt:
    """Read a receipt; verifies nothing.

    Raises:
        MalformedInput: ``MergeReceipt.encode`` would not have written these bytes, or its index is
            not among those that its promise covers.
    """
    if len(data) > MAX_RECEIPT:
        raise MalformedInput(
            "receipt", f"has {len(data)} bytes; at most {MAX_RECEIPT} are accepted"
        )
    head, empty, note = data.partition(b"\n\n")
    try:
        magic, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedInput("receipt", f"is not ASCII at byte {error.start}") from None
    if not empty or magic != MAGIC:
        raise MalformedInput("receipt", f"begins with {excerpt(magic)}, not {MAGIC} and its lines")
    if not lines or not lines[0].startswith("index "):
        raise MalformedInput("receipt", "has no index line")
    index = parse_size(lines.pop(0).removeprefix("index "), "receipt index")
    if len(lines) > MAX_PATH:
        raise MalformedInput("receipt", f"has {len(lines)} hashes; at most {MAX_PATH} are possible")
    path = tuple(
        decode_b64(line, f"receipt hash {at}", size=HASH_BYTES)
        for at, line in enumerate(lines, start=1)
    )
    promise = parse_promise(parse_note(note).text)
    if not promise.first <= index < promise.first + promise.count:
        raise MalformedInput("receipt index", f"{index} is not among those that are promised")
    return MergeReceipt(index, path, note)


def sign_receipts(
    key: SigningKey,
    origin: str,
    first: int,
    leaves: Sequence[bytes],
    *,
    accepted_ms: int,
    merge_by_ms: int,
) -> tuple[MergeReceipt, ...]:
    """Promise entries that follow on one another, with one signature.

    Args:
        key: the log key.
        origin: the log's.
        first: index of the first.
        leaves: their leaf hashes, 32 bytes each.
        accepted_ms: when they were accepted, POSIX milliseconds.
        merge_by_ms: by when a checkpoint covers them.
    """
    root, paths = root_and_paths(leaves)
    promise = Promise(origin, first, len(leaves), root, accepted_ms, merge_by_ms)
    text = promise.text()
    verifier = log_verifier(origin, key.public)
    signature = NoteSignature(verifier.name, verifier.id, key.sign_raw(text))
    note = Note(text, (signature,)).encode()
    return tuple(MergeReceipt(index, path, note) for index, path in enumerate(paths, first))


def open_receipt(data: bytes, leaf: bytes, log: VerifierKey) -> tuple[int, Promise]:
    """Verify that a log promised an entry.

    Args:
        data: the receipt.
        leaf: the entry's leaf hash, 32 bytes.
        log: the log's key, named by its origin.

    Returns:
        The index at which the entry is promised, and the promise.

    Raises:
        MalformedInput: no receipt, or of another log.
        BadSignature, UnknownKey: the log did not sign it.
        NotConsistent: it is about other entries.
    """
    receipt = parse_receipt(data)
    note, _ = verify_note(receipt.note, (log,))
    promise = parse_promise(note.text)
    if promise.origin != log.name:
        raise MalformedInput("receipt.origin", f"is {excerpt(promise.origin)}, not {log.name!r}")
    verify_inclusion(
        index=receipt.index - promise.first,
        size=promise.count,
        leaf=leaf,
        proof=receipt.path,
        root=promise.root,
    )
    return receipt.index, promise
