"""The hospital's private register: what its patients were charged, by anybody, for ever.

Promise: every write is durable (SQLite, WAL, synchronous=FULL) when its function returns, and all
or nothing. A reservation charges the cells by the filter that decides it, in one transaction. An
intent is recorded before its noise is used and is never changed or deleted (triggers refuse it). A
reservation never expires: a settlement alone releases what has no intent, once. Spend is the sum over
the one federation of this home.

Not promised: a sum over several federations; a hospital in two divides its promise between them
beforehand (``promises.py``). Nor protection from somebody who can write the file; a restored backup is found by
comparing it with the log (``duty.py``).

One process has it open, under the lock of the member's pen (``ledger.entries.author``). Threads may share it.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, get_args

import sqlalchemy as sa
from immutables import Map
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection

from ledger.copies.database import Database
from ledger.entries.operations.datasets import CellCharge, CellRegistered
from ledger.entries.operations.plans import Purpose
from ledger.entries.operations.values import BlobRef
from ledger.errors import StoreError
from ledger.formats.merkle import MerkleTree, leaf_hash
from ledger.formats.strict import canonical, parse_canonical
from node.errors import IntentsClosed
from node.register import tables
from node.register.accounts import (
    ChargeStatus,
    Counted,
    DatasetRecord,
    Key,
    PrivateCell,
    PrivateView,
    adopting,
    intending,
    reserving,
    settling,
)
from privacy.filters import Spend

PRIVATE = "private.db"
"""Its file in a node's home."""


class PrivateRegister:
    """The register's one writer. See the module's first lines for what it promises."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.RLock()
        self._trees: dict[Key, MerkleTree] = {}
        self._view = PrivateView()
        self._stale = True
        self._catch_up()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the register.

        Raises:
            StoreUnusable: it cannot be opened, or a newer release wrote it.
        """
        database = tables.open_tables(path)
        try:
            return cls(database)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def view(self) -> PrivateView:
        """All of it that decides what to do, at this moment."""
        with self._lock:
            self._catch_up()
            return self._view

    # --- datasets and cells ---------------------------------------------------------------------

    def note_dataset(self, record: DatasetRecord) -> None:
        """Remember a dataset whose registration is about to be said; replaces an unfinished one."""
        with self._lock, self._writing() as connection:
            connection.execute(
                sa.delete(tables.datasets).where(
                    tables.datasets.c.name == record.name, tables.datasets.c.registration.is_(None)
                )
            )
            values = {name: getattr(record, name) for name in DatasetRecord.__slots__}
            connection.execute(sa.insert(tables.datasets).values(values))

    def unfinished_datasets(self) -> tuple[DatasetRecord, ...]:
        """Datasets whose registration was begun and is not known to have taken effect."""
        query = sa.select(*_record_columns).where(tables.datasets.c.registration.is_(None))
        with self._database.read() as connection:
            return tuple(_record(row) for row in connection.execute(query))

    def finish_dataset(self, snapshot: str, registration: str) -> DatasetRecord:
        """The log has the registration with this snapshot root: the dataset may be used."""
        with self._lock:
            self._catch_up()
            with self._writing() as connection:
                connection.execute(
                    sa.update(tables.datasets)
                    .where(tables.datasets.c.snapshot == snapshot)
                    .values(registration=registration)
                )
                query = sa.select(*_record_columns).where(tables.datasets.c.snapshot == snapshot)
                record = _record(connection.execute(query).one())
            datasets = self._view.datasets.set(record.name, record)
            self._view = replace(self._view, datasets=datasets)
            return record

    def move_dataset(self, record: DatasetRecord, path: str) -> DatasetRecord:
        """The same bytes lie elsewhere now."""
        if record.path == path:
            return record
        with self._lock:
            self._catch_up()
            with self._writing() as connection:
                connection.execute(
                    sa.update(tables.datasets)
                    .where(tables.datasets.c.registration == record.registration)
                    .values(path=path)
                )
            moved = replace(record, path=path)
            datasets = self._view.datasets.set(record.name, moved)
            self._view = replace(self._view, datasets=datasets)
            return moved

    def forget_dataset(self, snapshot: str) -> None:
        """The log refused the registration: nothing of it stays."""
        with self._lock, self._writing() as connection:
            connection.execute(
                sa.delete(tables.datasets).where(
                    tables.datasets.c.snapshot == snapshot, tables.datasets.c.registration.is_(None)
                )
            )

    def registered_dataset(self, registration: str) -> DatasetRecord | None:
        """A version of a dataset by its registration, superseded ones included; None if unknown."""
        query = sa.select(*_record_columns).where(tables.datasets.c.registration == registration)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _record(row)

    def forget_salt(self, registration: str) -> None:
        """Erase the secret of a version's commitment: nobody can open or guess at its leaves again.

        Training does not need it. SQLite overwrites the bytes (``secure_delete``), in its file once
        `tables.empty_journal` has run; copies of the file that were made before keep it.
        """
        with self._lock:
            self._catch_up()
            with self._writing() as connection:
                connection.execute(
                    sa.update(tables.datasets)
                    .where(tables.datasets.c.registration == registration)
                    .values(salt=b"")
                )
            for name, record in self._view.datasets.items():
                if record.registration == registration:
                    datasets = self._view.datasets.set(name, replace(record, salt=b""))
                    self._view = replace(self._view, datasets=datasets)

    def add_cell(
        self,
        terms: CellRegistered,
        test_percent: int | None,
        spend: Spend = Spend(),
        counted: Iterable[Counted] = (),
    ) -> None:
        """Make a cell's lifetime promise; one that is there keeps its terms.

        Args:
            terms: the promise.
            test_percent: how its patients are divided; None for one undivided cell.
            spend: what a log has charged to it already, where this register was lost.
            counted: the reservations in that spend, so that `adopt` does not count them again.
        """
        with self._lock:
            self._catch_up()
            if terms.cell in self._view.cells:
                return
            cell = PrivateCell(terms, test_percent, spend)
            with self._writing() as connection:
                connection.execute(
                    sa.insert(tables.cells).values(
                        cell=terms.cell,
                        terms=canonical(terms),
                        test_percent=test_percent,
                        **_spend_values(cell.spend),
                    )
                )
                for one in counted:
                    connection.execute(
                        sa.insert(tables.charges).prefix_with("OR IGNORE").values(_counted(one))
                    )
            self._view = replace(self._view, cells=self._view.cells.set(terms.cell, cell))

    # --- reservations ---------------------------------------------------------------------------

    def reserve(
        self, federation: str, experiment: str, dataset: str, charges: Sequence[CellCharge]
    ) -> None:
        """Charge every cell for the most that a plan may spend; the same again changes nothing.

        Raises:
            BudgetExceeded: a cell cannot pay; nothing was charged.
            KeyError: a cell is not in this register.
        """
        with self._lock:
            self._catch_up()
            key = (experiment, dataset)
            if key not in self._view.charges:
                rows = [_counted(Counted(federation, *key, charge, None)) for charge in charges]
                self._store(reserving(self._view, key, charges), key, rows)

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
        with self._lock:
            self._catch_up()
            key = (experiment, dataset)
            before = self._refunded(key)
            back = {refund.cell: refund for refund in refunds or ()}
            rows = [
                _counted(Counted(federation, *key, charge, back.get(charge.cell)))
                for charge in charges
                if charge.cell not in before
            ]
            self._store(adopting(self._view, key, charges, refunds, before), key, rows)

    def close_intents(self, experiment: str, dataset: str) -> None:
        """No further noise for this reservation: its settlement is about to be stated."""
        with self._lock:
            self._catch_up()
            key = (experiment, dataset)
            if self._view.charges.get(key) == "reserved":
                self._set_status(key, "settling")

    def settle(self, experiment: str, dataset: str, refunds: Iterable[CellCharge]) -> None:
        """Give back what a settlement in the log gives back; the same again changes nothing.

        Raises:
            RefundTooLarge: more than was charged.
        """
        with self._lock:
            self._catch_up()
            key = (experiment, dataset)
            if self._view.charges.get(key, "settled") == "settled":
                return
            given = tuple(refund for refund in refunds if refund.cell in self._view.cells)
            self._store(settling(self._view, key, given), key, (), given)

    def charges_of(self, experiment: str, dataset: str) -> tuple[CellCharge, ...]:
        """What a reservation charged, cells in sorted order."""
        query = (
            sa.select(tables.charges.c.cell, tables.charges.c.g, tables.charges.c.r)
            .where(tables.charges.c.experiment == experiment, tables.charges.c.dataset == dataset)
            .order_by(tables.charges.c.cell)
        )
        with self._database.read() as connection:
            return tuple(CellCharge(cell=c, g=g, r=r) for c, g, r in connection.execute(query))

    # --- intents and updates --------------------------------------------------------------------

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
        with self._lock:
            self._catch_up()
            key = (experiment, dataset)
            if self._view.charges.get(key) != "reserved":
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
            with self._writing() as connection:
                connection.execute(_INSERT_INTENT, row)
            tree.append(leaf_hash(canonical(row)))
            self._view = intending(self._view, key, purpose, steps)

    def intended(self, experiment: str, dataset: str, round_number: int) -> Map[Purpose, int]:
        """Steps of one round that have an intent, by purpose."""
        found: Map[Purpose, int] = Map()
        query = _intents_of((experiment, dataset)).where(tables.intents.c.round == round_number)
        with self._database.read() as connection:
            for row in connection.execute(query):
                found = found.set(row.purpose, found.get(row.purpose, 0) + row.steps)
        return found

    def intents_root(self, experiment: str, dataset: str) -> str:
        """Merkle root (RFC 6962) over the canonical JSON of a reservation's intents, in order."""
        with self._lock:
            self._catch_up()
            return self._tree((experiment, dataset)).root().hex()

    def store_update(self, experiment: str, dataset: str, round_number: int, ref: BlobRef) -> None:
        """Keep what a round sends: the same bytes go out again, never other ones."""
        with self._lock:
            self._catch_up()
            key = (experiment, dataset, round_number)
            with self._writing() as connection:
                connection.execute(
                    _INSERT_OUTBOX,
                    {
                        "experiment": experiment,
                        "dataset": dataset,
                        "round": round_number,
                        "sha256": ref.sha256,
                        "bytes": ref.bytes,
                    },
                )
            self._view = replace(self._view, outbox=self._view.outbox.set(key, ref))

    def note_masked(self, experiment: str, dataset: str, round_number: int, context: str) -> None:
        """A vector is about to leave under masks: from here on it belongs to this attempt."""
        with self._lock:
            self._catch_up()
            key = (experiment, dataset, round_number)
            with self._writing() as connection:
                change = sa.update(tables.outbox).where(*_outbox_of(key))
                connection.execute(change.values(masked_in=context))
            self._view = replace(self._view, masked_in=self._view.masked_in.set(key, context))

    def drop_update(self, experiment: str, dataset: str, round_number: int) -> None:
        """Forget a vector that must not be used again; its intents stay."""
        with self._lock:
            self._catch_up()
            key = (experiment, dataset, round_number)
            outbox, masked_in = self._view.outbox, self._view.masked_in
            with self._writing() as connection:
                connection.execute(sa.delete(tables.outbox).where(*_outbox_of(key)))
            self._view = replace(
                self._view,
                outbox=outbox.delete(key) if key in outbox else outbox,
                masked_in=masked_in.delete(key) if key in masked_in else masked_in,
            )

    def keep_masks(self, experiment: str, dataset: str, context: str, sealed: bytes) -> None:
        """Keep a masked round's secrets in place of those of the round before."""
        with self._lock:
            self._catch_up()
            key = (experiment, dataset)
            values = {"experiment": key[0], "dataset": key[1], "context": context, "sealed": sealed}
            with self._writing() as connection:
                connection.execute(sa.delete(tables.masks).where(*_masks_of(key)))
                connection.execute(sa.insert(tables.masks).values(values))
            self._view = replace(self._view, masks=self._view.masks.set(key, context))

    def masks_of(self, experiment: str, dataset: str) -> bytes:
        """The sealed secrets of the newest masked round; empty where none are held."""
        query = sa.select(tables.masks.c.sealed).where(*_masks_of((experiment, dataset)))
        with self._database.read() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return b"" if found is None else bytes(found)

    def note_restart(self, at_ms: int) -> str:
        """Make the nonce of ``node.resumed``: 32 random bytes, hex, kept."""
        nonce = secrets.token_hex(32)
        with self._lock, self._writing() as connection:
            connection.execute(sa.insert(tables.restarts).values(nonce=nonce, at_ms=at_ms))
        return nonce

    def knows_restart(self, nonce: str) -> bool:
        """Whether this register made that nonce: if not, it has forgotten a life of this node."""
        query = sa.select(tables.restarts.c.nonce).where(tables.restarts.c.nonce == nonce)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    # --- inside ---------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One durable transaction. After one that failed only the file says what it holds."""
        try:
            with self._database.write() as connection:
                yield connection
        except StoreError:
            self._stale = True
            raise

    def _catch_up(self) -> None:
        """Read the file again where memory may be behind it."""
        if self._stale:
            self._trees.clear()
            self._load()
            self._stale = False

    def _load(self) -> None:
        with self._database.read() as connection:
            datasets = {
                record.name: record
                for record in map(
                    _record,
                    connection.execute(
                        sa.select(*_record_columns)
                        .where(tables.datasets.c.registration.is_not(None))
                        .order_by(tables.datasets.c.id)
                    ),
                )
            }
            cells = {row.cell: _cell(row) for row in connection.execute(sa.select(tables.cells))}
            charges: dict[Key, ChargeStatus] = {
                (row.experiment, row.dataset): _status(row.status)
                for row in connection.execute(sa.select(tables.standing))
            }
            open_ones = {key for key, status in charges.items() if status != "settled"}
            used: dict[Key, Map[Purpose, int]] = {}
            for key in open_ones:
                for row in connection.execute(_intents_of(key)):
                    held = used.get(key, Map())
                    used[key] = held.set(row.purpose, held.get(row.purpose, 0) + row.steps)
            sendable = [
                row
                for row in connection.execute(sa.select(tables.outbox))
                if (row.experiment, row.dataset) in open_ones
            ]
            outbox = {
                (row.experiment, row.dataset, row.round): BlobRef(
                    sha256=row.sha256, bytes=row.bytes
                )
                for row in sendable
            }
            masked_in = {
                (row.experiment, row.dataset, row.round): row.masked_in
                for row in sendable
                if row.masked_in is not None
            }
            masks = {
                (row.experiment, row.dataset): row.context
                for row in connection.execute(sa.select(tables.masks))
            }
        self._view = PrivateView(
            Map(datasets),
            Map(cells),
            Map(charges),
            Map(used),
            Map(outbox),
            Map(masks),
            Map(masked_in),
        )

    def _store(
        self,
        after: PrivateView,
        key: Key,
        new: Sequence[dict[str, Any]],
        refunds: Sequence[CellCharge] = (),
    ) -> None:
        """Make a step of one reservation durable, then true."""
        before = self._view
        changed = (c for name, c in after.cells.items() if before.cells.get(name) is not c)
        with self._writing() as connection:
            if new:
                connection.execute(_INSERT_CHARGE, new)
            for refund in refunds:
                values = {"at": key[0], "of": key[1], "charged": refund.cell}
                connection.execute(_SET_REFUND, {**values, "g_back": refund.g, "r_back": refund.r})
            self._write_spends(connection, changed)
            _write_status(connection, key, after.charges[key])
            if after.charges[key] == "settled":
                connection.execute(sa.delete(tables.masks).where(*_masks_of(key)))
        self._view = after

    def _refunded(self, key: Key) -> dict[str, bool]:
        """Cells in which a reservation is counted already: whether with what it gave back."""
        query = sa.select(tables.charges).where(
            tables.charges.c.experiment == key[0], tables.charges.c.dataset == key[1]
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return {row.cell: row.g_refunded > 0 or row.r_refunded > 0 for row in rows}

    def _set_status(self, key: Key, status: ChargeStatus) -> None:
        with self._writing() as connection:
            _write_status(connection, key, status)
        self._view = replace(self._view, charges=self._view.charges.set(key, status))

    def _write_spends(self, connection: Connection, cells: Iterable[PrivateCell]) -> None:
        rows = [{"charged": cell.terms.cell, **_spend_values(cell.spend)} for cell in cells]
        if rows:
            connection.execute(_SET_SPEND, rows)

    def _tree(self, key: Key) -> MerkleTree:
        tree = self._trees.get(key)
        if tree is None:
            with self._database.read() as connection:
                rows = connection.execute(_intents_of(key)).mappings().all()
            tree = MerkleTree.from_leaves(
                leaf_hash(canonical({str(n): v for n, v in row.items() if n != "id"}))
                for row in rows
            )
            self._trees[key] = tree
        return tree


# Built once: building a statement costs more than the commit that it ends in.
_CHARGE_COLUMNS = (
    "federation",
    "experiment",
    "dataset",
    "cell",
    "g",
    "r",
    "g_refunded",
    "r_refunded",
)
_INSERT_CHARGE = sa.insert(tables.charges).values(
    {name: sa.bindparam(name) for name in _CHARGE_COLUMNS}
)
_SET_REFUND = (
    sa.update(tables.charges)
    .where(
        tables.charges.c.experiment == sa.bindparam("at"),
        tables.charges.c.dataset == sa.bindparam("of"),
        tables.charges.c.cell == sa.bindparam("charged"),
    )
    .values(g_refunded=sa.bindparam("g_back"), r_refunded=sa.bindparam("r_back"))
)
_INSERT_INTENT = sa.insert(tables.intents)
_INSERT_OUTBOX = sa.insert(tables.outbox)
_SET_SPEND = (
    sa.update(tables.cells)
    .where(tables.cells.c.cell == sa.bindparam("charged"))
    .values({name: sa.bindparam(name) for name in ("g", "r", "g_overflowed", "r_overflowed")})
)
_NEW_STATUS = sqlite.insert(tables.standing)
_SET_STATUS = _NEW_STATUS.on_conflict_do_update(
    index_elements=["experiment", "dataset"], set_={"status": _NEW_STATUS.excluded.status}
)

_record_columns = tuple(tables.datasets.c[name] for name in DatasetRecord.__slots__)


def _intents_of(key: Key) -> sa.Select[Any]:
    where = (tables.intents.c.experiment == key[0], tables.intents.c.dataset == key[1])
    return sa.select(tables.intents).where(*where).order_by(tables.intents.c.id)


def _outbox_of(key: tuple[str, str, int]) -> tuple[sa.ColumnElement[bool], ...]:
    columns = tables.outbox.c
    return (columns.experiment == key[0], columns.dataset == key[1], columns.round == key[2])


def _masks_of(key: Key) -> tuple[sa.ColumnElement[bool], ...]:
    return (tables.masks.c.experiment == key[0], tables.masks.c.dataset == key[1])


def _record(row: Sequence[Any]) -> DatasetRecord:
    return DatasetRecord(*row)


def _cell(row: Any) -> PrivateCell:
    terms = parse_canonical(bytes(row.terms), CellRegistered)
    spend = Spend(int(row.g), int(row.r), row.g_overflowed, row.r_overflowed)
    return PrivateCell(terms, row.test_percent, spend)


def _status(text: str) -> ChargeStatus:
    found: ChargeStatus = next(s for s in get_args(ChargeStatus) if s == text)
    return found


def _spend_values(spend: Spend) -> dict[str, Any]:
    return {
        "g": str(spend.g),
        "r": str(spend.r),
        "g_overflowed": spend.g_overflowed,
        "r_overflowed": spend.r_overflowed,
    }


def _counted(one: Counted) -> dict[str, Any]:
    return {
        "federation": one.federation,
        "experiment": one.experiment,
        "dataset": one.dataset,
        "cell": one.charge.cell,
        "g": one.charge.g,
        "r": one.charge.r,
        "g_refunded": 0 if one.refund is None else one.refund.g,
        "r_refunded": 0 if one.refund is None else one.refund.r,
    }


def _write_status(connection: Connection, key: Key, status: ChargeStatus) -> None:
    experiment, dataset = key
    values = {"experiment": experiment, "dataset": dataset, "status": status}
    connection.execute(_SET_STATUS, values)
