"""The hospital's private register: what its patients were charged, by anybody, for ever.

Promise: every write is durable (SQLite, WAL, synchronous=FULL) when its function returns, and all
or nothing. A reservation charges the cells by the filter that decides it, in one transaction. An
intent is recorded before its noise is used and is never changed or deleted (triggers refuse it). A
reservation never expires: a settlement alone releases what has no intent, once. Spend is the sum over
the one federation of this home. Where a promise renews, it is summed per period of this hospital's own
clock, whatever the log's time is, and what is open when one begins counts in it in full.

Not promised: a sum over several federations; a hospital in two divides its promise between them
beforehand (``promises.py``). Nor protection from somebody who can write the file; a restored backup is found by
comparing it with the log (``judging.py``).

One process has it open, under the lock of the member's pen (``ledger.entries.author``). Threads may share it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from immutables import Map
from sqlalchemy.engine import Connection

from ledger.copies.database import Database
from ledger.entries.operations.datasets import CellCharge, CellRegistered
from ledger.entries.operations.plans import Purpose
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.strict import canonical
from node.errors import IntentsClosed
from node.register import individual, rows, tables
from node.register.accounts import (
    ChargeStatus,
    Counted,
    Key,
    PrivateCell,
    PrivateView,
    adopting,
    intending,
    reserving,
    settling,
)
from node.register.held import Held
from node.register.outbox import Outbox
from node.register.versions import DatasetVersions
from privacy.filters import Spend
from privacy.periods import Periods

PRIVATE = "private.db"
"""Its file in a node's home."""


def clock_ms() -> int:
    """The machine's clock, POSIX milliseconds."""
    return time.time_ns() // 10**6


class PrivateRegister:
    """The register's one writer. See the module's first lines for what it promises.

    Attributes:
        datasets: versions of datasets, by their files.
        outbox: vectors that wait to be sent, and masks.
        patients: what patients spent who have accounts of their own.
    """

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._held = Held(database)
        self._clock = clock
        self.datasets = DatasetVersions(self._held)
        self.outbox = Outbox(self._held)
        self.patients = individual.PatientRecords(self._held)

    @classmethod
    def open(cls, path: Path, clock: Callable[[], int] = clock_ms) -> Self:
        """Open or make the register.

        Args:
            path: its file.
            clock: this hospital's, POSIX milliseconds: by it promises that renew enter a new period.

        Raises:
            StoreUnusable: it cannot be opened, or a newer release wrote it.
        """
        database = tables.open_tables(path)
        try:
            return cls(database, clock)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._held.database.close()

    def now_ms(self) -> int:
        """The hospital's clock, POSIX milliseconds."""
        return self._clock()

    @property
    def view(self) -> PrivateView:
        """All of it that decides what to do, at this moment."""
        with self._held.current():
            return self._held.view

    def add_cell(
        self,
        terms: CellRegistered,
        test_percent: int | None,
        spend: Spend = Spend(),
        counted: Iterable[Counted] = (),
        periods: Periods | None = None,
    ) -> None:
        """Make a cell's promise; one that is there keeps its terms.

        Args:
            terms: the promise.
            test_percent: how its patients are divided; None for one undivided cell.
            spend: what a log has charged to it already, where this register was lost.
            counted: the reservations in that spend, so that `adopt` does not count them again.
            periods: of a promise that renews, with what of that spend is open; None where it is for ever.
        """
        with self._held.current():
            if terms.cell in self._held.view.cells:
                return
            cell = PrivateCell(terms, test_percent, spend, periods)
            with self._held.writing() as connection:
                rows.insert_cell(connection, cell, counted)
            self._held.view = replace(
                self._held.view, cells=self._held.view.cells.set(terms.cell, cell)
            )

    def reserve(
        self,
        federation: str,
        experiment: str,
        dataset: str,
        charges: Sequence[CellCharge],
        steps: Mapping[str, int] = Map(),
    ) -> None:
        """Charge every cell for the most that a plan may spend; the same again changes nothing.

        A cell whose spend was taken from a log with this very charge in it (`add_cell`) is not charged again.

        Args:
            federation: id.
            experiment: id.
            dataset: name.
            charges: of the reservation.
            steps: what one sum may cost a patient, by cell whose patients are accounted for one by one
                (``individual.py``); such cells are charged with the intents.

        Raises:
            BudgetExceeded: a cell cannot pay; nothing was charged.
            KeyError: a cell is not in this register.
        """
        with self._held.current():
            key = (experiment, dataset)
            if key not in self._held.view.charges:
                before = self._counted(key)
                due = [charge for charge in charges if charge.cell not in before]
                new = [
                    rows.charge_row(Counted(federation, *key, charge, None, open=True))
                    for charge in due
                ]
                cells = self._held.view.cells
                self._store(
                    reserving(self._held.view, key, due, self._clock()),
                    key,
                    new,
                    also=lambda connection: individual.hold(connection, key, cells, charges, steps),
                )

    def adopt(
        self,
        federation: str,
        experiment: str,
        dataset: str,
        charges: Sequence[CellCharge],
        refunds: Iterable[CellCharge] | None = None,
    ) -> None:
        """Count a reservation that the log has and this register cannot account for.

        It was made after a backup was taken, or by a copy of this node. While it is not settled it is
        spent in full: nothing trains on it, and it is settled for all of its steps.

        Args:
            federation: id.
            experiment: id.
            dataset: name.
            charges: of the reservation.
            refunds: what its settlement in the log gave back; None while it is not settled. What is
                left is counted, and the account is closed.
        """
        with self._held.current():
            key = (experiment, dataset)
            before = self._counted(key)
            back = {refund.cell: refund for refund in refunds or ()}
            new = [
                rows.charge_row(
                    Counted(federation, *key, charge, back.get(charge.cell), open=refunds is None)
                )
                for charge in charges
                if charge.cell not in before
            ]
            after = adopting(
                self._held.view,
                key,
                charges,
                refunds,
                {cell: row.g_refunded > 0 or row.r_refunded > 0 for cell, row in before.items()},
                self._clock(),
                still_open={cell for cell, row in before.items() if row.open},
            )
            self._store(after, key, new)

    def close_intents(self, experiment: str, dataset: str) -> None:
        """No further noise for this reservation: its settlement is about to be stated."""
        with self._held.current():
            key = (experiment, dataset)
            if self._held.view.charges.get(key) == "reserved":
                self._set_status(key, "settling")

    def settle(
        self,
        experiment: str,
        dataset: str,
        refunds: Iterable[CellCharge],
        used: Mapping[Purpose, int] = Map(),
    ) -> None:
        """Give back what a settlement in the log gives back; the same again changes nothing.

        Args:
            experiment: id.
            dataset: name.
            refunds: of the settlement.
            used: steps that it states. More than this register knows is charged to all patients of
                cells where each has an account.

        Raises:
            RefundTooLarge: more than was charged.
        """
        with self._held.current():
            key = (experiment, dataset)
            view = self._held.view
            status = view.charges.get(key, "settled")
            if status == "settled":
                return
            given = tuple(refund for refund in refunds if refund.cell in view.cells)
            held = tuple(
                CellCharge(cell=cell, g=row.g, r=row.r)
                for cell, row in self._counted(key).items()
                if row.open
            )
            after = settling(view, key, given, held, self._clock())
            unknown = used.get("train", 0) - view.used_by(key).get("train", 0)
            if status != "lost" and unknown > 0:
                with self._held.database.read() as connection:
                    cells = individual.charge_unknown(connection, key, after.cells, unknown)
                after = replace(after, cells=cells)
            self._store(
                after, key, (), given, also=lambda connection: individual.forget(connection, key)
            )

    def charges_of(self, experiment: str, dataset: str) -> tuple[CellCharge, ...]:
        """What a reservation charged, cells in sorted order."""
        query = (
            sa.select(tables.charges.c.cell, tables.charges.c.g, tables.charges.c.r)
            .where(tables.charges.c.experiment == experiment, tables.charges.c.dataset == dataset)
            .order_by(tables.charges.c.cell)
        )
        with self._held.database.read() as connection:
            return tuple(CellCharge(cell=c, g=g, r=r) for c, g, r in connection.execute(query))

    def record_intent(
        self,
        experiment: str,
        dataset: str,
        purpose: Purpose,
        *,
        round_number: int,
        steps: int,
        at_ms: int,
    ) -> None:
        """Record that noise for so many steps will be used; durable when this returns.

        Raises:
            IntentsClosed: there is no open reservation for it.
        """
        with self._held.current():
            key = (experiment, dataset)
            if self._held.view.charges.get(key) != "reserved":
                raise IntentsClosed(experiment, dataset)
            tree = self._tree(key)
            row = {
                "experiment": experiment,
                "dataset": dataset,
                "purpose": purpose,
                "round": round_number,
                "steps": steps,
                "nonce": secrets.token_hex(32),
                "at_ms": at_ms,
            }
            cells = self._held.view.cells
            with self._held.writing() as connection:
                connection.execute(rows.INSERT_INTENT, row)
                if purpose == "train":
                    cells = individual.intend(connection, key, cells, round_number, steps)
                    self._held.write_spends(connection, cells)
            tree.append(leaf_hash(canonical(row)))
            after = intending(self._held.view, key, purpose, steps)
            self._held.view = replace(after, cells=cells)

    def intended(self, experiment: str, dataset: str, round_number: int) -> Map[Purpose, int]:
        """Steps of one round that have an intent, by purpose."""
        found: Map[Purpose, int] = Map()
        query = rows.intents_of((experiment, dataset)).where(tables.intents.c.round == round_number)
        with self._held.database.read() as connection:
            for row in connection.execute(query):
                found = found.set(row.purpose, found.get(row.purpose, 0) + row.steps)
        return found

    def intents_root(self, experiment: str, dataset: str) -> str:
        """Merkle root (RFC 6962) over the canonical JSON of a reservation's intents, in order."""
        with self._held.current():
            return self._tree((experiment, dataset)).root().hex()

    def note_restart(self, at_ms: int) -> str:
        """Make the nonce of ``node.resumed``: 32 random bytes, hex, kept."""
        nonce = secrets.token_hex(32)
        with self._held.lock, self._held.writing() as connection:
            connection.execute(sa.insert(tables.restarts).values(nonce=nonce, at_ms=at_ms))
        return nonce

    def note_log(self, federation: str, at_ms: int) -> None:
        """Note that this register came into a log, by its id; `knows_restart` tells, of a backup too."""
        with self._held.lock, self._held.writing() as connection:
            row = sa.insert(tables.restarts).prefix_with("OR IGNORE")
            connection.execute(row.values(nonce=federation, at_ms=at_ms))

    def knows_restart(self, nonce: str) -> bool:
        """Whether this register made that nonce: if not, it has forgotten a life of this node."""
        query = sa.select(tables.restarts.c.nonce).where(tables.restarts.c.nonce == nonce)
        with self._held.database.read() as connection:
            return connection.execute(query).first() is not None

    def _store(
        self,
        after: PrivateView,
        key: Key,
        new: Sequence[dict[str, Any]],
        refunds: Sequence[CellCharge] = (),
        also: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        """Make a step of one reservation durable, then true; ``also`` belongs to it."""
        with self._held.writing() as connection:
            if new:
                connection.execute(rows.INSERT_CHARGE, new)
            for refund in refunds:
                values = {"at": key[0], "of": key[1], "charged": refund.cell}
                connection.execute(
                    rows.SET_REFUND, {**values, "g_back": refund.g, "r_back": refund.r}
                )
            self._held.write_spends(connection, after.cells)
            also(connection)
            rows.write_status(connection, key, after.charges[key])
            if after.charges[key] == "settled":
                connection.execute(rows.CLOSE_CHARGES, {"at": key[0], "of": key[1]})
                connection.execute(sa.delete(tables.masks).where(*rows.masks_of(key)))
        self._held.view = after

    def _counted(self, key: Key) -> dict[str, Any]:
        with self._held.database.read() as connection:
            return rows.counted_rows(connection, key)

    def _set_status(self, key: Key, status: ChargeStatus) -> None:
        with self._held.writing() as connection:
            rows.write_status(connection, key, status)
        self._held.view = replace(self._held.view, charges=self._held.view.charges.set(key, status))

    def _tree(self, key: Key) -> MerkleTree:
        tree = self._held.trees.get(key)
        if tree is None:
            with self._held.database.read() as connection:
                found = connection.execute(rows.intents_of(key)).mappings().all()
            tree = MerkleTree.from_leaves(
                leaf_hash(canonical({str(n): v for n, v in row.items() if n != "id"}))
                for row in found
            )
            self._held.trees[key] = tree
        return tree
