"""The register's file and what memory holds of it, under one lock.

Promise: after a write that failed, memory is read again from the file before anything is decided.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from immutables import Map
from sqlalchemy.engine import Connection

from ledger.copies.database import Database
from ledger.errors import StoreError
from ledger.formats.merkle_tree import MerkleTree
from node.register import rows
from node.register.accounts import Key, PrivateCell, PrivateView


class Held:
    """One file, one view of it, one lock. A writer changes the file first, and then the view.

    Attributes:
        database: the file.
        lock: taken by whoever writes; the same thread may take it again.
        view: what decides, as the file had it.
        trees: over the intents of reservations that were asked for, by reservation.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.lock = threading.RLock()
        self.view = PrivateView()
        self.trees: dict[Key, MerkleTree] = {}
        self._stale = True
        with self.current():
            pass

    @contextmanager
    def current(self) -> Iterator[None]:
        """The lock, with memory as new as the file."""
        with self.lock:
            self._catch_up()
            yield

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One durable transaction. After one that failed only the file says what it holds."""
        try:
            with self.database.write() as connection:
                yield connection
        except StoreError:
            self._stale = True
            raise

    def write_spends(self, connection: Connection, after: Map[str, PrivateCell]) -> None:
        """Write the cells that are not as the view has them."""
        before = self.view.cells
        spends = [
            {"charged": name, **rows.spend_row(cell.spend)}
            for name, cell in after.items()
            if before.get(name) is not cell
        ]
        if spends:
            connection.execute(rows.SET_SPEND, spends)
        renewing = [
            {"renewing": name, **rows.periods_row(cell.periods)}
            for name, cell in after.items()
            if cell.periods is not None and before.get(name) is not cell
        ]
        if renewing:
            connection.execute(rows.SET_PERIODS, renewing)

    def _catch_up(self) -> None:
        """Read the file again where memory may be behind it."""
        if self._stale:
            self.trees.clear()
            with self.database.read() as connection:
                self.view = rows.view_of(connection)
            self._stale = False
