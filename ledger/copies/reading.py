"""Pages of a log in the driver's own words: the one read that verifying a log hangs on.

A page is one statement, made once as a text and run on the driver's cursor, as ``appending`` does for
what is written: through SQLAlchemy a row costs twice as much. PostgreSQL sends the values of a page
as they are, where by default it would spell every byte as two digits.

Not promised: that a value has the type that its column should hold, or that no entry is missing.
``LogStore`` looks at both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

_PAGE = 'SELECT {} FROM entries WHERE "index" >= {} AND "index" < {} ORDER BY "index"'
_ROWS = '"index", body, signature, leaf, key, seq'
_LEAVES = '"index", leaf'


@dataclass(frozen=True, slots=True)
class Reading:
    """The statements of one driver.

    Attributes:
        rows: reads index, body, signature, leaf, key and seq.
        leaves: reads index and leaf.
    """

    rows: str
    leaves: str
    options: dict[str, bool]
    """For a cursor."""

    @classmethod
    def for_driver(cls, driver: str) -> Reading:
        """The statements for ``psycopg``, or for SQLite's driver."""
        mark, options = ("%b", {"binary": True}) if driver == "psycopg" else ("?", {})
        rows, leaves = (_PAGE.format(columns, mark, mark) for columns in (_ROWS, _LEAVES))
        return cls(rows, leaves, options)

    def page(
        self, connection: Connection, statement: str, start: int, stop: int
    ) -> Sequence[Sequence[Any]]:
        """Read what is there from an index up to before another, in order.

        Errors are the driver's; ``Database.read`` knows them.
        """
        cursor: Any = connection.connection.cursor(**self.options)
        cursor.execute(statement, (start, stop))
        page: Sequence[Sequence[Any]] = cursor.fetchall()
        return page
