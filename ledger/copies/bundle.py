"""A log in one file: entries, signed and final checkpoints, evidence and blobs, for offline checks.

Format, all lengths unsigned big-endian::

    "consilium bundle v1" LF
    section*                 tag (4 ASCII bytes), length (u64), payload
    "HASH" 32 SHA-256        over every byte before this last section

Sections, in this order, each kind as often as it says:

    ENTR  1..n  the framed leaf of entry 0, 1, ... (entry 0 is genesis)
    SIGN  0..n  a signed checkpoint, sizes strictly rising
    FINA  0..n  a final checkpoint with its cosignatures, sizes strictly rising
    EVID  0..n  kept evidence (``evidence``): SHA-256 of the rest, u8 length of its kind, kind, bytes;
                digests strictly rising
    BLOB  0..n  SHA-256 of the content, content; digests strictly rising

One log, checkpoints and set of blobs have one spelling. `read_bundle` accepts exactly what
`export_bundle` writes: a flipped bit, a slack byte, a duplicate or a section out of order is refused
with its place. Nothing is believed because it is in a bundle: signatures, roots and rules are for
the verifier. A bundle is read section by section; what stays in memory is where each one begins.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ledger.copies.blobs import MAX_BLOB, BlobStore
from ledger.copies.store import LogStore
from ledger.copies.stored import Conflict, StoredNote
from ledger.copies.whole_file import flush_folder
from ledger.entries.entry import MAX_LEAF, MIN_LEAF, frame_leaf
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobMissing, MalformedInput, StoreUnusable
from ledger.formats.checkpoint import parse_checkpoint
from ledger.formats.note import MAX_NOTE, parse_note

MAGIC = b"consilium bundle v1\n"
SUFFIX = ".consilium"
_ORDER = (b"ENTR", b"SIGN", b"FINA", b"EVID", b"BLOB", b"HASH")
_LIMITS = {
    b"ENTR": MAX_LEAF,
    b"SIGN": MAX_NOTE,
    b"FINA": MAX_NOTE,
    b"EVID": 4 * MAX_NOTE,
    b"BLOB": MAX_BLOB + 32,
    b"HASH": 32,
}
_LEAST = {b"ENTR": MIN_LEAF}
_MOST_FAULTS = 100
"""Changed sections that are listed; a file with more of them is given up."""
_DIGEST_BYTES = 32
_HEADER_BYTES = 12
_CHUNK = 1024 * 1024
_PAGE = 512


@dataclass(frozen=True, slots=True)
class Span:
    """Where a section's content lies in the file."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose framing was read; contents are read when they are asked for.

    Attributes:
        path: the file.
        entries: framed leaves, by index.
        checkpoints, finals: notes with the sizes that they state.
        evidence: what the copy keeps against the log or a member.
        blobs: content by SHA-256.
        digest: the trailer, 64 hexadecimal digits.
        faults: what is wrong in content whose framing could still be followed; empty for a bundle
            that `read_bundle` returned.
    """

    path: Path
    entries: Sequence[Span]
    checkpoints: tuple[StoredNote, ...]
    finals: tuple[StoredNote, ...]
    evidence: tuple[Conflict, ...]
    blobs: dict[str, Span]
    digest: str
    faults: tuple[MalformedInput, ...] = field(default=())

    def leaves(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield framed leaves from ``start`` up to before ``stop``."""
        with self.path.open("rb") as file:
            for span in self.entries[start:stop]:
                yield _read(file, span)

    def blob(self, sha256: str) -> bytes:
        """Return a blob's content.

        Raises:
            BlobMissing: it is not in the bundle.
            MalformedInput: the file has changed since it was read.
        """
        span = self.blobs.get(sha256)
        if span is None:
            raise BlobMissing(self.path, f"holds no blob {sha256[:12]}; ask for a fuller export")
        with self.path.open("rb") as file:
            data = _read(file, span)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise MalformedInput(
                f"bundle byte {span.offset}", f"blob {sha256[:12]} does not have its SHA-256"
            )
        return data


def export_bundle(
    store: LogStore, blobs: BlobStore | None, path: Path, refs: Iterable[BlobRef] = ()
) -> tuple[BlobRef, ...]:
    """Write a log and chosen blobs as one file; the file appears whole or not at all.

    Args:
        store: the copy to export, with at least entry 0.
        blobs: where blobs lie, or None to export none.
        path: replaced if it exists.
        refs: the blobs wanted; repetitions are fine.

    Returns:
        The wanted blobs that are not here and so not in the bundle.

    Raises:
        MalformedInput: the store is empty.
        BlobCorrupt, StoreError: the copy is damaged, or the file cannot be written; none was.
    """
    size = store.size()
    if size == 0:
        raise MalformedInput(f"store {store.name}", "it is empty: there is no log to export")
    wanted = {ref.sha256: ref for ref in refs}
    absent: list[BlobRef] = []
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            out = _Writer(file)
            for row in store.rows(0, size):
                out.section(b"ENTR", frame_leaf(row.body, row.signature))
            for note in _notes_up_to(store.checkpoints, size):
                out.section(b"SIGN", note.note)
            for note in _notes_up_to(store.finals, size):
                out.section(b"FINA", note.note)
            for item in sorted(map(_frame_evidence, store.conflicts())):
                out.section(b"EVID", item)
            for sha256, ref in sorted(wanted.items()):
                try:
                    data = None if blobs is None else blobs.get(ref)
                except BlobMissing:
                    data = None
                if data is None:
                    absent.append(ref)
                else:
                    out.section(b"BLOB", bytes.fromhex(sha256) + data)
            out.finish()
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreUnusable(str(path), f"cannot be written: {error.strerror}") from None
        raise
    return tuple(absent)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle, or refuse it.

    Raises:
        MalformedInput: ``export_bundle`` would not have written these bytes; ``where`` is the
            byte or the section.
        OSError: the file cannot be read.
    """
    bundle = scan_bundle(path)
    if bundle.faults:
        raise bundle.faults[0]
    return bundle


def scan_bundle(path: Path) -> Bundle:
    """Read a bundle's framing, and collect what is wrong with its contents.

    For a verifier, which goes on to name the place of a change within the contents.

    Raises:
        MalformedInput: the framing itself cannot be followed.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return _Scan(path, file).run()


class _Writer:
    """Writes sections and hashes them on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._write(MAGIC)

    def section(self, tag: bytes, payload: bytes) -> None:
        self._write(tag + len(payload).to_bytes(8, "big"))
        self._write(payload)

    def finish(self) -> None:
        digest = self._digest.digest()
        self.section(b"HASH", digest)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


class _Scan:
    """One pass over a file: framing is refused at once, contents are collected."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size
        self._digest = hashlib.sha256()
        self._at = 0
        self._faults: list[MalformedInput] = []
        self._entries: list[Span] = []
        self._notes: dict[bytes, list[StoredNote]] = {b"SIGN": [], b"FINA": []}
        self._evidence: list[Conflict] = []
        self._blobs: dict[str, Span] = {}
        self._last: bytes | int = -1

    def run(self) -> Bundle:
        if self._take(len(MAGIC)) != MAGIC:
            raise MalformedInput("bundle byte 0", f"does not begin with {MAGIC[:-1].decode()!r}")
        before = b"ENTR"
        while True:
            start = self._at
            wanted = self._digest.copy().digest()
            tag, length = self._header(start)
            if _ORDER.index(tag) < _ORDER.index(before):
                raise self._fault(start, f"section {tag.decode()} after {before.decode()}")
            if tag != before:
                before, self._last = tag, -1
            if tag == b"HASH":
                return self._finish(start, wanted, length)
            if tag == b"BLOB":
                self._blob(start, length)
            else:
                self._content(tag, start, self._take(length))

    def _header(self, start: int) -> tuple[bytes, int]:
        header = self._take(_HEADER_BYTES)
        tag, length = header[:4], int.from_bytes(header[4:], "big")
        if tag not in _ORDER:
            raise self._fault(start, f"no section is called {tag!r}")
        if not _LEAST.get(tag, 1) <= length <= _LIMITS[tag]:
            raise self._fault(start, f"a section {tag.decode()} of {length} bytes")
        if length > self._size - self._at:
            raise self._fault(start, f"section {tag.decode()} ends after the file does")
        return tag, length

    def _content(self, tag: bytes, start: int, payload: bytes) -> None:
        if tag == b"ENTR":
            self._entries.append(Span(start + _HEADER_BYTES, len(payload)))
        elif tag == b"EVID":
            self._add_evidence(start, payload)
        else:
            self._add_note(tag, start, payload)

    def _add_note(self, tag: bytes, start: int, payload: bytes) -> None:
        try:
            size = parse_checkpoint(parse_note(payload).text).size
        except MalformedInput as error:
            self._note_fault(self._fault(start, f"its checkpoint: {error}"))
            return
        self._in_order(start, size)
        self._notes[tag].append(StoredNote(size, payload))

    def _add_evidence(self, start: int, payload: bytes) -> None:
        digest, rest = payload[:_DIGEST_BYTES], payload[_DIGEST_BYTES:]
        length = rest[0] if rest else 0
        kind, evidence = rest[1 : 1 + length], rest[1 + length :]
        if hashlib.sha256(rest).digest() != digest or not kind.isascii() or not evidence:
            self._note_fault(self._fault(start, "evidence does not have its SHA-256 and kind"))
            return
        self._in_order(start, digest)
        self._evidence.append(Conflict(kind.decode("ascii"), evidence))

    def _blob(self, start: int, length: int) -> None:
        if length < _DIGEST_BYTES:
            raise self._fault(start, "a blob without its digest")
        digest = self._take(_DIGEST_BYTES)
        span = Span(self._at, length - _DIGEST_BYTES)
        content = hashlib.sha256()
        left = span.length
        while left:
            chunk = self._take(min(left, _CHUNK))
            content.update(chunk)
            left -= len(chunk)
        if content.digest() != digest:
            self._note_fault(
                self._fault(start, f"blob {digest.hex()[:12]} does not have its SHA-256")
            )
        self._in_order(start, digest)
        self._blobs[digest.hex()] = span

    def _in_order(self, start: int, key: bytes | int) -> None:
        last = self._last
        if isinstance(last, bytes) and isinstance(key, bytes):
            rising = last < key
        else:
            rising = not isinstance(last, int) or not isinstance(key, int) or last < key
        if not rising:
            self._note_fault(self._fault(start, "a section twice, or out of order"))
        self._last = key

    def _finish(self, start: int, wanted: bytes, length: int) -> Bundle:
        digest = self._take(length)
        if self._at != self._size:
            raise self._fault(self._at, f"{self._size - self._at} bytes after the last section")
        if not self._entries:
            raise self._fault(start, "it holds no entry")
        if digest != wanted:
            self._note_fault(
                MalformedInput(
                    "bundle digest", "the file's bytes do not have the SHA-256 it states"
                )
            )
        return Bundle(
            path=self._path,
            entries=self._entries,
            checkpoints=tuple(self._notes[b"SIGN"]),
            finals=tuple(self._notes[b"FINA"]),
            evidence=tuple(self._evidence),
            blobs=self._blobs,
            digest=digest.hex(),
            faults=tuple(self._faults),
        )

    def _note_fault(self, fault: MalformedInput) -> None:
        self._faults.append(fault)
        if len(self._faults) > _MOST_FAULTS:
            raise MalformedInput(
                fault.where, f"{fault.reason}; the {len(self._faults)} before it, too, are wrong"
            )

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise self._fault(self._at, "the file ends here, before its last section")
        self._digest.update(data)
        self._at += count
        return data

    @staticmethod
    def _fault(at: int, reason: str) -> MalformedInput:
        return MalformedInput(f"bundle byte {at}", reason)


def _notes_up_to(
    page: Callable[[int, int], Sequence[StoredNote]], size: int
) -> Iterator[StoredNote]:
    """All notes of a store's page function that cover at most ``size`` entries."""
    after = -1
    while notes := page(after, _PAGE):
        for note in notes:
            if note.size > size:
                return
            yield note
        after = notes[-1].size


def _frame_evidence(conflict: Conflict) -> bytes:
    kind = conflict.kind.encode("ascii")
    rest = bytes([len(kind)]) + kind + conflict.evidence
    return hashlib.sha256(rest).digest() + rest


def _read(file: BinaryIO, span: Span) -> bytes:
    file.seek(span.offset)
    data = file.read(span.length)
    if len(data) != span.length:
        raise MalformedInput(f"bundle byte {span.offset}", "the file has become shorter")
    return data
