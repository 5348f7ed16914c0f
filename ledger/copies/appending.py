"""An append in the driver's own words: the one write that a log's speed hangs on.

A durable commit of one entry costs a flush of the disk and little else. Building, compiling and
wrapping four statements through SQLAlchemy each time would cost more than that, so they are texts,
made once, and run on the driver's cursor in a transaction of its own. On PostgreSQL, where each
statement and the commit wait for a server, one statement is the whole transaction.

Not promised: any judgement. ``LogStore.append`` decides what may be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_COLUMNS = (
    "unnest(%b::bigint[], %b::bytea[], %b::bytea[], %b::bytea[], %b::text[], %b::bigint[]) AS row"
)
_BATCH = (
    'INSERT INTO entries ("index", body, signature, leaf, key, seq) '  # noqa: S608
    f"SELECT row.* FROM {_COLUMNS}"
)
_CHECKPOINT = "INSERT INTO checkpoints (size, note) VALUES ({}, {})"
AT_END = (
    'WITH before AS (SELECT coalesce(max("index") + 1, 0) AS size FROM entries), '  # noqa: S608
    "noted AS (SELECT note FROM checkpoints WHERE size = %b), "
    "expected AS (SELECT FROM before WHERE size = %b AND NOT EXISTS (SELECT FROM noted)), "
    'entered AS (INSERT INTO entries ("index", body, signature, leaf, key, seq) '
    f"SELECT row.* FROM expected, {_COLUMNS}), "
    "covered AS (INSERT INTO checkpoints (size, note) SELECT %b, %b FROM expected) "
    "SELECT size, (SELECT note FROM noted) FROM before"
)
"""An append as one statement, for PostgreSQL; `at_end` makes its parameters.

It inserts entries and a checkpoint, if the log ends at the first's place and there is no checkpoint of that
size; and says what there was before: the number of entries, and the note of that size or NULL.
"""


def require_hashes(rows: Sequence[Row]) -> None:
    """Raise ValueError where a leaf hash is none; the database would refuse it in fewer words."""
    for offset, row in enumerate(rows):
        if len(row.leaf) != 32:
            raise ValueError(f"row {offset} has a leaf hash of {len(row.leaf)} bytes, not 32")


def at_end(first_index: int, rows: Sequence[Row], checkpoint: tuple[int, bytes]) -> list[object]:
    """Parameters of `AT_END`."""
    return [checkpoint[0], first_index, *_columns(first_index, rows), *checkpoint]


@dataclass(frozen=True, slots=True)
class Appending:
    """The statements of one driver.

    Attributes:
        end, entries, checkpoint: of an append in steps.
        at_once: whether a server has to be waited for after each: then the rows of a batch travel as one
            array a column, and `AT_END` is for what is nearly always asked.
    """

    end: str
    entries: str
    checkpoint: str
    at_once: bool

    @classmethod
    def for_driver(cls, driver: str) -> Appending:
        """The statements for ``psycopg``, or for SQLite's driver."""
        if driver == "psycopg":
            return cls(_END.format("%b"), _BATCH, _CHECKPOINT.format("%b", "%b"), True)
        return cls(_END.format("?"), _ENTRIES, _CHECKPOINT.format("?", "?"), False)

    def fits(self, new_size: int, note_size: int) -> bool:
        """Whether `AT_END` may append so that the log has these sizes after it."""
        return self.at_once and note_size <= new_size

    def on(self, connection: Any) -> EndOfLog:
        """Work at the end of the log in a transaction that is open already.

        Errors are the driver's; ``Database.write_plainly`` knows them.

        Args:
            connection: the driver's own.
        """
        return EndOfLog(self, connection.cursor())


@dataclass(frozen=True, slots=True)
class EndOfLog:
    """Where an append in steps reads and writes."""

    sql: Appending
    cursor: _Cursor

    def look(self, note_size: int) -> tuple[int | None, object]:
        """The last index, None without entries, and what is stored as the note of a size."""
        self.cursor.execute(self.sql.end, (note_size,))
        last, stored = self.cursor.fetchone()
        return last, stored

    def add_entries(self, first_index: int, rows: Sequence[Row]) -> None:
        """Insert rows, the first at this index."""
        if self.sql.at_once:
            self.cursor.execute(self.sql.entries, _columns(first_index, rows))
        else:
            self.cursor.executemany(self.sql.entries, _values(first_index, rows))

    def add_checkpoint(self, size: int, note: bytes) -> None:
        """Insert a note at a size that has none."""
        self.cursor.execute(self.sql.checkpoint, (size, note))


def _columns(first_index: int, rows: Sequence[Row]) -> list[list[object]]:
    return [list(column) for column in zip(*_values(first_index, rows), strict=True)]


def _values(first_index: int, rows: Sequence[Row]) -> list[tuple[object, ...]]:
    return [
        (index, row.body, row.signature, row.leaf, row.key, row.seq)
        for index, row in enumerate(rows, start=first_index)
    ]
