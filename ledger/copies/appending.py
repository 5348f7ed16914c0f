"""An append in the driver's own words: the one write that a log's speed hangs on.

A durable commit of one entry costs a flush of the disk and little else. Building, compiling and
wrapping four statements through SQLAlchemy each time would cost more than that, so they are texts,
made once, and run on the driver's cursor in a transaction of its own. On PostgreSQL, where each
statement waits for a server, one statement looks at the end of the log and, where it is the expected
one, adds all rows of a batch and the checkpoint over them.

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
# Its parts see the database as it was before: the last line says what `_END` would have said.
_AT_END = (
    'WITH before AS (SELECT max("index") AS last FROM entries), '  # noqa: S608
    "noted AS (SELECT note FROM checkpoints WHERE size = %b), "
    "expected AS (SELECT FROM before "
    "WHERE coalesce(last, -1) = %b::bigint - 1 AND NOT EXISTS (SELECT FROM noted)), "
    'entered AS (INSERT INTO entries ("index", body, signature, leaf, key, seq) '
    f"SELECT row.* FROM expected, {_COLUMNS}), "
    "covered AS (INSERT INTO checkpoints (size, note) SELECT %b, %b FROM expected) "
    "SELECT last, (SELECT note FROM noted) FROM before"
)


@dataclass(frozen=True, slots=True)
class Appending:
    """The statements of one driver."""

    end: str
    entries: str
    checkpoint: str
    batched: bool
    """Whether the rows of a batch travel as one array a column."""

    @classmethod
    def for_driver(cls, driver: str) -> Appending:
        """The statements for ``psycopg``, or for SQLite's driver."""
        if driver == "psycopg":
            return cls(_END.format("%b"), _BATCH, _CHECKPOINT.format("%b", "%b"), True)
        return cls(_END.format("?"), _ENTRIES, _CHECKPOINT.format("?", "?"), False)

    def on(self, connection: Any) -> EndOfLog:
        """Work at the end of the log in a transaction that is open already.

        Errors are the driver's; ``Database.write_plainly`` knows them.

        Args:
            connection: the driver's own.
        """
        return EndOfLog(self, connection.cursor())


@dataclass(frozen=True, slots=True)
class EndOfLog:
    """Where an append reads and writes."""

    sql: Appending
    cursor: _Cursor

    def add(
        self, first_index: int, rows: Sequence[Row], checkpoint: tuple[int, bytes] | None
    ) -> tuple[int, object]:
        """Insert rows and a note, if the log ends at their place and has no note of that size.

        Returns:
            Entries that there were, and what was stored as the note of that size, or None. Nothing
            was inserted where these are not ``first_index`` and None.
        """
        if self.sql.batched and rows and checkpoint is not None:
            size, note = checkpoint
            arguments = [size, first_index, *_columns(first_index, rows), size, note]
            self.cursor.execute(_AT_END, arguments)
            return self._found()
        self.cursor.execute(self.sql.end, (-1 if checkpoint is None else checkpoint[0],))
        ends, stored = self._found()
        if ends == first_index and stored is None:
            self.add_entries(first_index, rows)
            if checkpoint is not None:
                self.cursor.execute(self.sql.checkpoint, checkpoint)
        return ends, stored

    def add_entries(self, first_index: int, rows: Sequence[Row]) -> None:
        """Insert rows, the first at this index, the end of the log."""
        if not rows:
            return
        if self.sql.batched:
            self.cursor.execute(self.sql.entries, _columns(first_index, rows))
        else:
            self.cursor.executemany(self.sql.entries, _values(first_index, rows))

    def _found(self) -> tuple[int, object]:
        last, stored = self.cursor.fetchone()
        return 0 if last is None else last + 1, stored


def _columns(first_index: int, rows: Sequence[Row]) -> list[list[object]]:
    return [list(column) for column in zip(*_values(first_index, rows), strict=True)]


def _values(first_index: int, rows: Sequence[Row]) -> list[tuple[object, ...]]:
    return [
        (index, row.body, row.signature, row.leaf, row.key, row.seq)
        for index, row in enumerate(rows, start=first_index)
    ]
