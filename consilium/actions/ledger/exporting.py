"""Writing a copy of a ledger, with the blobs that it names, into one file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audit.verification.sources import StoreCopy, close_copies, open_copies
from consilium.errors import InputError
from ledger.copies.bundle import export_bundle
from ledger.entries.entry import parse_leaf
from ledger.entries.named_blobs import bound_cards, named_blobs
from ledger.entries.operations.values import BlobRef


@dataclass(frozen=True, slots=True)
class Exported:
    """What is in a bundle.

    Attributes:
        absent: blobs that the log names and this copy does not have.
    """

    entries: int
    blobs: int
    absent: int


def export_copy(source: Path, out: Path) -> Exported:
    """Write the longest copy at a place as a bundle.

    Args:
        source: a home, or a directory that holds several.
        out: replaced if it exists.

    Raises:
        InputError: there is no copy in a database there.
        SourceUnusable, LedgerError: it cannot be read, or is damaged.
    """
    copies = open_copies(str(source))
    try:
        stores = [copy for copy in copies if isinstance(copy, StoreCopy)]
        if not stores:
            raise InputError(f"{source} is a bundle already; copy the file")
        # Of equally long copies the one with the most blobs: the coordinator's.
        refs = {copy.name: set(_wanted(copy)) for copy in stores}
        chosen = max(stores, key=lambda copy: (copy.size(), _held(copy, refs[copy.name])))
        wanted = refs[chosen.name]
        absent = export_bundle(chosen.store, chosen.blobs, out, wanted)
        return Exported(chosen.size(), len(wanted) - len(absent), len(absent))
    finally:
        close_copies(copies)


def _wanted(copy: StoreCopy) -> Iterator[BlobRef]:
    for stored in copy.entries():
        op = parse_leaf(stored.leaf).body.op
        yield from (named.ref for named in named_blobs(op))
        for card in bound_cards(op):
            size = None if copy.blobs is None else copy.blobs.size(card)
            if size is not None:
                yield BlobRef(sha256=card, bytes=size)


def _held(copy: StoreCopy, wanted: set[BlobRef]) -> int:
    return 0 if copy.blobs is None else sum(copy.blobs.has(ref) for ref in wanted)
