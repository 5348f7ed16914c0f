"""What a store hands out: its records, and values whose types were looked at.

SQLite keeps any type in any column, so a value that somebody put there by hand is refused here, by
name of its place, before anything is done with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from ledger.copies.appending import Row
from ledger.errors import StoreCorrupt

REFILL = "refill the store from another copy of the log"

T = TypeVar("T")

_ROW_TYPES: list[set[type]] = [{bytes}, {bytes}, {bytes}, {str}, {int}]


class StoredNote(NamedTuple):
    """A signed checkpoint: the size it covers and its note's bytes."""

    size: int
    note: bytes


@dataclass(frozen=True, slots=True)
class Conflict:
    """Evidence that was kept: its kind, a word, and its bytes."""

    kind: str
    evidence: bytes


@dataclass(frozen=True, slots=True)
class Witnessed:
    """The largest tree of a log that this witness has cosigned, and the note that said so."""

    size: int
    root: bytes
    note: bytes


@dataclass(frozen=True, slots=True)
class Typed:
    """Looks at the types of what was read; ``name`` is the store's, for messages."""

    name: str

    def row(self, index: int, found: Sequence[Any]) -> Row:
        """An entry's row, read with its index first."""
        _, body, signature, leaf, key, seq = found
        if (
            type(body) is type(signature) is type(leaf) is bytes
            and type(key) is str
            and type(seq) is int
        ):
            return Row(body, signature, leaf, key, seq)
        place = f"entry {index}"
        return Row(
            self.value(bytes, body, place, "body"),
            self.value(bytes, signature, place, "signature"),
            self.value(bytes, leaf, place, "leaf"),
            self.value(str, key, place, "key"),
            self.value(int, seq, place, "seq"),
        )

    def rows(self, first: int, page: Sequence[Sequence[Any]]) -> Iterator[Row]:
        """The rows of a page, each read with its index first; where all is well, columns at a time."""
        columns = list(zip(*page, strict=True))[1:]
        if [set(map(type, column)) for column in columns] == _ROW_TYPES:
            return map(Row, *columns)
        return (self.row(index, found) for index, found in enumerate(page, first))

    def leaves(self, first: int, page: Sequence[Sequence[Any]]) -> Iterator[bytes]:
        """The leaf hashes of a page, each read after its index."""
        return (self.leaf(index, found) for index, found in enumerate(page, first))

    def leaf(self, index: int, found: Sequence[Any]) -> bytes:
        """An entry's leaf hash, read after its index."""
        leaf = found[1]
        return leaf if type(leaf) is bytes else self.value(bytes, leaf, f"entry {index}", "leaf")

    def value(self, kind: type[T], value: object, place: str, column: str) -> T:
        """A value of the type that this program writes there.

        Raises:
            StoreCorrupt: it has another.
        """
        if not isinstance(value, kind):
            raise StoreCorrupt(
                self.name,
                f"{place}, column {column}, holds {type(value).__name__} where this program "
                f"writes {kind.__name__}; {REFILL}",
            )
        return value


def note_text(note: bytes) -> bytes:
    """Return what a signed note's signatures cover: all up to its last empty line."""
    return note[: note.rfind(b"\n\n") + 1]
