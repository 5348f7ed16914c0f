"""A log read from its tiles: a folder that was exported, or a server that hands out the files.

Promise: nothing is believed that does not lead to the root which the log signed, and the log's key is
the one that entry 0 names, whose hash is the federation's id in the checkpoint. Of the checkpoint's
lines a verifier here sees those of the log and of its members; lines by others stay in ``note``.

Not promised: blobs, evidence and older checkpoints; a folder of tiles has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audit.errors import DamagedCopy, SourceUnusable
from audit.verification.copies import Fault, StoredEntry
from ledger.copies.stored import Conflict, StoredNote, Witnessed
from ledger.entries.entry import federation_id, log_origin, parse_leaf
from ledger.entries.operations.federation import FederationFounded
from ledger.entries.operations.succession import FederationSucceeded
from ledger.errors import BlobMissing, MalformedInput, NotConsistent, Refused, StoreError
from ledger.formats.checkpoint import log_verifier, parse_checkpoint
from ledger.formats.note import Note, VerifierKey, parse_note
from ledger.formats.tiles import CHECKPOINT, WIDTH, Fetch, Tile, TileReader, parse_bundle
from ledger.formats.witness import witness_name


@dataclass
class TileCopy:
    """A copy of a log in tiles.

    Attributes:
        name: what it is, for people.
        reader: checks every hash and entry against the signed root.
        federation: the federation's id.
        log: the log's key.
    """

    name: str
    reader: TileReader
    federation: str
    log: VerifierKey
    faults: tuple[Fault, ...] = ()

    @property
    def note(self) -> bytes:
        """The checkpoint with all of its lines."""
        return self.reader.note

    def size(self) -> int:
        """See `copies.Copy`."""
        return self.reader.size

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[StoredEntry]:
        """See `copies.Copy`."""
        at = start
        try:
            for leaf in self.reader.leaves(start, stop):
                yield StoredEntry(leaf)
                at += 1
        except (MalformedInput, NotConsistent, StoreError) as error:
            raise DamagedCopy(f"entry {at}", str(error)) from None

    def checkpoints(self) -> Iterator[StoredNote]:
        """See `copies.Copy`."""
        yield StoredNote(self.reader.size, _lines_of(self.note, self.log.name))

    def finals(self) -> Iterator[StoredNote]:
        """The checkpoint, if members cosigned it: an exporter puts no other lines of theirs there."""
        note = _lines_of(self.note, self.log.name)
        prefix = witness_name(self.log.name, "")
        if any(line.name.startswith(prefix) for line in parse_note(note).signatures):
            yield StoredNote(self.reader.size, note)

    def evidence(self) -> Iterator[Conflict]:
        """None is kept here; see `copies.Copy`."""
        return iter(())

    def witnessed(self, origin: str) -> tuple[Witnessed | None, int]:
        """Tiles remember nothing; see `copies.Copy`."""
        return None, 0

    def blob(self, sha256: str, length: int | None = None) -> bytes:
        """See `copies.Copy`."""
        raise BlobMissing(Path(sha256), "tiles hold the log alone, no blobs")

    def blob_names(self) -> frozenset[str] | None:
        """See `copies.Copy`."""
        return frozenset()

    def close(self) -> None:
        """Nothing is held open; see `copies.Copy`."""


def open_tiles(name: str, fetch: Fetch, genesis: bytes | None = None) -> TileCopy:
    """Open a log in tiles.

    Args:
        name: for people.
        fetch: hands out its files.
        genesis: leaf of entry 0 where it is known otherwise; else it is read from the first bundle.

    Raises:
        SourceUnusable: these are not the files of one of our logs, or they contradict the signed root.
    """
    try:
        note = fetch(CHECKPOINT)
        if note is None:
            raise SourceUnusable(name, f"has no {CHECKPOINT}: these are not the files of a log")
        entry = parse_leaf(_first_leaf(fetch, note) if genesis is None else genesis)
        if not isinstance(entry.body.op, FederationFounded | FederationSucceeded):
            raise SourceUnusable(name, f"its entry 0 is a {entry.body.op.type}, no genesis")
        federation = federation_id(entry)
        public = bytes.fromhex(entry.body.op.log_key.public)
        log = log_verifier(log_origin(federation), public)

        def with_this_note(path: str) -> bytes | None:
            return note if path == CHECKPOINT else fetch(path)

        return TileCopy(name, TileReader(with_this_note, log), federation, log)
    except (Refused, StoreError) as error:
        raise SourceUnusable(name, str(error)) from None


def _first_leaf(fetch: Fetch, note: bytes) -> bytes:
    size = parse_checkpoint(parse_note(note).text).size
    tile = Tile(None, 0, max(1, min(size, WIDTH)))
    data = fetch(tile.path)
    if data is None:
        tile = Tile(None, 0)
        data = fetch(tile.path)
    if data is None:
        raise NotConsistent(tile.path, "is missing")
    return parse_bundle(data, tile.width, tile.path)[0]


def _lines_of(note: bytes, origin: str) -> bytes:
    """A note without the lines of those who are neither the log nor its members."""
    opened = parse_note(note)
    prefix = witness_name(origin, "")
    kept = tuple(s for s in opened.signatures if s.name == origin or s.name.startswith(prefix))
    return Note(opened.text, kept).encode()
