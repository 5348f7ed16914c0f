"""An append in the driver's own words: the one write that a log's speed hangs on.

A durable commit of one entry costs a flush of the disk and little else. Building, compiling and
wrapping four statements through SQLAlchemy each time would cost more than that, so they are texts,
made once, and run on the driver's cursor in a transaction of its own. On PostgreSQL all rows of
a batch are one statement, and statements that need no answer between them travel together.

Not promised: any judgement. ``LogStore.append`` decides what may be stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct


class Row(Struct, frozen=True, gc=False):
    """One entry as it is stored.

    Attributes:
        body: the signed bytes, exactly as received.
        signature: over them, exactly as received.
        leaf: the entry's leaf hash in the Merkle tree, 32 bytes.
        key: id of the author's key.
        seq: the entry's place in that key's chain, from 0.
    """

    body: bytes
    signature: bytes
    leaf: bytes
    key: str
    seq: int


class _Cursor(Protocol):
    """What PEP 249 says that a cursor does."""

    def execute(self, statement: str, parameters: Sequence[object], /) -> Any: ...

    def executemany(self, statement: str, parameters: Sequence[Sequence[object]], /) -> Any: ...

    def fetchone(self) -> Any: ...


_END = 'SELECT (SELECT max("index") FROM entries), (SELECT note FROM checkpoints WHERE size = {})'
_ENTRIES = (
    'INSERT INTO entries ("index", body, signature, leaf, key, seq) VALUES (?, ?, ?, ?, ?, ?)'
)
_BATCH = (
    'INSERT INTO entries ("index", body, signature, leaf, key, seq) SELECT * FROM unnest('
    "%b::bigint[], %b::bytea[], %b::bytea[], %b::bytea[], %b::text[], %b::bigint[])"
)
_CHECKPOINT = "INSERT INTO checkpoints (size, note) VALUES ({}, {})"


@dataclass(frozen=True, slots=True)
class Appending:
    """The statements of one driver."""

    end: str
    entries: str
    checkpoint: str
    batched: bool
    """Whether the rows of a batch travel as one array a column, and statements in a pipeline."""

    @classmethod
    def for_driver(cls, driver: str) -> Appending:
        """The statements for ``psycopg``, or for SQLite's driver."""
        if driver == "psycopg":
            return cls(_END.format("%b"), _BATCH, _CHECKPOINT.format("%b", "%b"), True)
        return cls(_END.format("?"), _ENTRIES, _CHECKPOINT.format("?", "?"), False)

    @contextmanager
    def on(self, connection: Any) -> Iterator[EndOfLog]:
        """Work at the end of the log in a transaction that is open already.

        Errors are the driver's; ``Database.write_plainly`` knows them.

        Args:
            connection: the driver's own.
        """
        with connection.pipeline() if self.batched else nullcontext():
            yield EndOfLog(self, connection.cursor())


@dataclass(frozen=True, slots=True)
class EndOfLog:
    """Where an append reads and writes."""

    sql: Appending
    cursor: _Cursor

    def look(self, note_size: int) -> tuple[int | None, object]:
        """The last index, None without entries, and what is stored as the note of a size."""
        self.cursor.execute(self.sql.end, (note_size,))
        last, stored = self.cursor.fetchone()
        return last, stored

    def add_entries(self, first_index: int, rows: Sequence[Row]) -> None:
        """Insert rows, the first at this index."""
        values = [
            (index, row.body, row.signature, row.leaf, row.key, row.seq)
            for index, row in enumerate(rows, start=first_index)
        ]
        if self.sql.batched:
            self.cursor.execute(
                self.sql.entries, [list(column) for column in zip(*values, strict=True)]
            )
        else:
            self.cursor.executemany(self.sql.entries, values)

    def add_checkpoint(self, size: int, note: bytes) -> None:
        """Insert a note at a size that has none."""
        self.cursor.execute(self.sql.checkpoint, (size, note))
