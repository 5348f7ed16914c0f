"""The register's rows: statements over its tables, and rows to values and back.

Nothing here begins or ends a transaction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import sqlalchemy as sa
from immutables import Map
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection

from ledger.entries.operations.datasets import CellRegistered
from ledger.entries.operations.plans import Purpose
from ledger.entries.operations.values import BlobRef
from ledger.formats.strict import canonical, parse_canonical
from node.register import tables
from node.register.accounts import (
    ChargeStatus,
    Counted,
    DatasetRecord,
    Key,
    PrivateCell,
    PrivateView,
)
from privacy.filters import Spend
from privacy.periods import Periods

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
    "open",
)
INSERT_CHARGE = sa.insert(tables.charges).values(
    {name: sa.bindparam(name) for name in _CHARGE_COLUMNS}
)
SET_REFUND = (
    sa.update(tables.charges)
    .where(
        tables.charges.c.experiment == sa.bindparam("at"),
        tables.charges.c.dataset == sa.bindparam("of"),
        tables.charges.c.cell == sa.bindparam("charged"),
    )
    .values(g_refunded=sa.bindparam("g_back"), r_refunded=sa.bindparam("r_back"))
)
CLOSE_CHARGES = (
    sa.update(tables.charges)
    .where(
        tables.charges.c.experiment == sa.bindparam("at"),
        tables.charges.c.dataset == sa.bindparam("of"),
    )
    .values(open=False)
)
INSERT_INTENT = sa.insert(tables.intents)
INSERT_OUTBOX = sa.insert(tables.outbox)
SET_SPEND = (
    sa.update(tables.cells)
    .where(tables.cells.c.cell == sa.bindparam("charged"))
    .values({name: sa.bindparam(name) for name in ("g", "r", "g_overflowed", "r_overflowed")})
)
_PERIODS = tuple(field.name for field in dataclasses.fields(Periods))
INSERT_PERIODS = sa.insert(tables.periods)
SET_PERIODS = (
    sa.update(tables.periods)
    .where(tables.periods.c.cell == sa.bindparam("renewing"))
    .values({name: sa.bindparam(name) for name in _PERIODS})
)
_NEW_STATUS = sqlite.insert(tables.standing)
_SET_STATUS = _NEW_STATUS.on_conflict_do_update(
    index_elements=["experiment", "dataset"], set_={"status": _NEW_STATUS.excluded.status}
)

RECORD_COLUMNS = tuple(tables.datasets.c[name] for name in DatasetRecord.__slots__)


def view_of(connection: Connection) -> PrivateView:
    """All of the register that decides what to do, from its file."""
    datasets = {
        record.name: record
        for record in map(
            record_of,
            connection.execute(
                sa.select(*RECORD_COLUMNS)
                .where(tables.datasets.c.registration.is_not(None))
                .order_by(tables.datasets.c.id)
            ),
        )
    }
    renewing = {
        row.cell: Periods(**{name: int(getattr(row, name)) for name in _PERIODS})
        for row in connection.execute(sa.select(tables.periods))
    }
    cells = {
        row.cell: _cell(row, renewing.get(row.cell))
        for row in connection.execute(sa.select(tables.cells))
    }
    charges: dict[Key, ChargeStatus] = {
        (row.experiment, row.dataset): _status(row.status)
        for row in connection.execute(sa.select(tables.standing))
    }
    open_ones = {key for key, status in charges.items() if status != "settled"}
    used: dict[Key, Map[Purpose, int]] = {}
    for key in open_ones:
        for row in connection.execute(intents_of(key)):
            held = used.get(key, Map())
            used[key] = held.set(row.purpose, held.get(row.purpose, 0) + row.steps)
    sendable = [
        row
        for row in connection.execute(sa.select(tables.outbox))
        if (row.experiment, row.dataset) in open_ones
    ]
    outbox = {
        (row.experiment, row.dataset, row.round): BlobRef(sha256=row.sha256, bytes=row.bytes)
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
    return PrivateView(
        Map(datasets),
        Map(cells),
        Map(charges),
        Map(used),
        Map(outbox),
        Map(masks),
        Map(masked_in),
    )


def insert_cell(connection: Connection, cell: PrivateCell, counted: Iterable[Counted]) -> None:
    """Write a new cell, and the reservations that its spend holds already."""
    values = {"cell": cell.terms.cell, "terms": canonical(cell.terms)}
    percent = {"test_percent": cell.test_percent}
    connection.execute(sa.insert(tables.cells).values(**values, **percent, **spend_row(cell.spend)))
    if cell.periods is not None:
        connection.execute(INSERT_PERIODS, {"cell": values["cell"], **periods_row(cell.periods)})
    for one in counted:
        insert = sa.insert(tables.charges).prefix_with("OR IGNORE")
        connection.execute(insert.values(charge_row(one)))


def counted_rows(connection: Connection, key: Key) -> dict[str, Any]:
    """A reservation's rows by cell: what was charged, given back, and whether it is open."""
    query = sa.select(tables.charges).where(
        tables.charges.c.experiment == key[0], tables.charges.c.dataset == key[1]
    )
    return {row.cell: row for row in connection.execute(query)}


def intents_of(key: Key) -> sa.Select[Any]:
    """A reservation's intents, in their order."""
    where = (tables.intents.c.experiment == key[0], tables.intents.c.dataset == key[1])
    return sa.select(tables.intents).where(*where).order_by(tables.intents.c.id)


def outbox_of(key: tuple[str, str, int]) -> tuple[sa.ColumnElement[bool], ...]:
    """Where the vector of one round is."""
    columns = tables.outbox.c
    return (columns.experiment == key[0], columns.dataset == key[1], columns.round == key[2])


def masks_of(key: Key) -> tuple[sa.ColumnElement[bool], ...]:
    """Where the masks of one reservation are."""
    return (tables.masks.c.experiment == key[0], tables.masks.c.dataset == key[1])


def record_of(row: Sequence[Any]) -> DatasetRecord:
    """A dataset's version from its row, columns as in `RECORD_COLUMNS`."""
    return DatasetRecord(*row)


def _cell(row: Any, periods: Periods | None) -> PrivateCell:
    terms = parse_canonical(bytes(row.terms), CellRegistered)
    spend = Spend(int(row.g), int(row.r), row.g_overflowed, row.r_overflowed)
    return PrivateCell(terms, row.test_percent, spend, periods)


def _status(text: str) -> ChargeStatus:
    found: ChargeStatus = next(s for s in get_args(ChargeStatus) if s == text)
    return found


def spend_row(spend: Spend) -> dict[str, Any]:
    """A cell's spend as columns."""
    return {
        "g": str(spend.g),
        "r": str(spend.r),
        "g_overflowed": spend.g_overflowed,
        "r_overflowed": spend.r_overflowed,
    }


def periods_row(periods: Periods) -> dict[str, Any]:
    """How a promise renews as columns."""
    row = dataclasses.asdict(periods)
    return row | {name: str(row[name]) for name in ("open_g", "open_r", "total_g", "total_r")}


def charge_row(one: Counted) -> dict[str, Any]:
    """One cell's part of a reservation as a row."""
    return {
        "federation": one.federation,
        "experiment": one.experiment,
        "dataset": one.dataset,
        "cell": one.charge.cell,
        "g": one.charge.g,
        "r": one.charge.r,
        "g_refunded": 0 if one.refund is None else one.refund.g,
        "r_refunded": 0 if one.refund is None else one.refund.r,
        "open": one.open,
    }


def write_status(connection: Connection, key: Key, status: ChargeStatus) -> None:
    """Say where a reservation stands."""
    experiment, dataset = key
    values = {"experiment": experiment, "dataset": dataset, "status": status}
    connection.execute(_SET_STATUS, values)
