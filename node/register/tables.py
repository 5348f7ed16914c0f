"""Tables of the hospital's private register, and how its file is opened.

SQLite alone: the register lies at the hospital, in one file, under one process. Charges up to 2^300
are kept as text, since SQLite's integers end at 2^63.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger.copies.database import Database
from ledger.errors import StoreUnusable

VERSION = 5
_BUSY_TIMEOUT_MS = 30_000


def _key(*names: str) -> tuple[sa.Column[str], ...]:
    """Columns of text that name a row together."""
    return tuple(sa.Column(name, sa.Text, primary_key=True) for name in names)


def _held(
    kind: type[sa.types.TypeEngine[Any]], *names: str, default: int | None = None
) -> tuple[sa.Column[Any], ...]:
    """Columns of one type that are never empty."""
    return tuple(sa.Column(name, kind, nullable=False, default=default) for name in names)


METADATA = sa.MetaData()
register = sa.Table("register", METADATA, *_held(sa.Integer, "version"))
datasets = sa.Table(
    "datasets",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    *_held(sa.Text, "name", "path", "sha256"),
    *_held(sa.LargeBinary, "schema_document"),
    *_held(sa.Integer, "rows", "train_units", "test_units"),
    sa.Column("snapshot", sa.Text, nullable=False, unique=True),
    *_held(sa.LargeBinary, "salt"),
    sa.Column("registration", sa.Text, nullable=True),
)
cells = sa.Table(
    "cells",
    METADATA,
    *_key("cell"),
    *_held(sa.LargeBinary, "terms"),
    sa.Column("test_percent", sa.Integer, nullable=True),
    *_held(sa.Text, "g", "r"),  # up to 2^300: SQLite's integers end at 2^63
    *_held(sa.Boolean, "g_overflowed", "r_overflowed"),
)
charges = sa.Table(
    "charges",
    METADATA,
    *_held(sa.Text, "federation"),
    *_key("experiment", "dataset", "cell"),
    *_held(sa.BigInteger, "g", "r"),
    *_held(sa.BigInteger, "g_refunded", "r_refunded", default=0),
    sa.Column("open", sa.Boolean, nullable=False, server_default=sa.false()),  # since version 5
)
periods = sa.Table(  # since version 5: of cells whose promise renews
    "periods",
    METADATA,
    *_key("cell"),
    *_held(sa.BigInteger, "days", "from_ms", "number", "earlier"),
    *_held(sa.Text, "open_g", "open_r", "total_g", "total_r"),
)
standing = sa.Table(
    "reservations",
    METADATA,
    *_key("experiment", "dataset"),
    *_held(sa.Text, "status"),
)
intents = sa.Table(
    "intents",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("experiment", sa.Text, nullable=False, index=True),
    *_held(sa.Text, "dataset", "purpose"),
    *_held(sa.Integer, "round", "steps"),
    *_held(sa.Text, "nonce"),
    *_held(sa.BigInteger, "at_ms"),
)
outbox = sa.Table(
    "outbox",
    METADATA,
    *_key("experiment", "dataset"),
    sa.Column("round", sa.Integer, primary_key=True),
    *_held(sa.Text, "sha256"),
    *_held(sa.BigInteger, "bytes"),
    sa.Column("masked_in", sa.Text, nullable=True),  # since version 3
)
masks = sa.Table(  # since version 2
    "masks",
    METADATA,
    *_key("experiment", "dataset"),
    *_held(sa.Text, "context"),
    *_held(sa.LargeBinary, "sealed"),
)
held_for_patients = sa.Table(  # since version 4
    "held_for_patients",
    METADATA,
    *_key("experiment", "dataset", "cell"),
    *_held(sa.BigInteger, "step_g", "cap_g"),
    *_held(sa.BigInteger, "base_g", default=0),
    *_held(sa.Integer, "pending_round", default=0),
    *_held(sa.BigInteger, "pending_g", default=0),
)
patient_spends = sa.Table(  # since version 4
    "patient_spends",
    METADATA,
    *_key("account"),
    *_held(sa.LargeBinary, "sealed"),
)
restarts = sa.Table(
    "restarts",
    METADATA,
    *_key("nonce"),
    *_held(sa.BigInteger, "at_ms"),
)


def open_tables(path: Path) -> Database:
    """Open the file, making it (mode 0600) with its tables where there is none.

    Raises:
        StoreUnusable: it cannot be opened, or a newer release wrote it.
    """
    try:
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StoreUnusable(str(path), f"cannot be opened: {error.strerror}") from None
    # Errors name statements without their values: salts, sealed records, paths.
    engine = sa.create_engine(f"sqlite:///{path.resolve()}", hide_parameters=True)
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    database = Database(engine, str(path))
    try:
        with database.write() as connection:
            _make(connection, database.name)
    except BaseException:
        database.close()
        raise
    return database


def _make(connection: Connection, name: str) -> None:
    if not sa.inspect(connection).has_table(register.name):
        METADATA.create_all(connection)
        connection.execute(sa.insert(register).values(version=VERSION))
        for verb in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER intents_{verb.lower()} BEFORE {verb} ON intents "
                "BEGIN SELECT RAISE(ABORT, 'an intent is never changed or deleted'); END"
            )
    version = connection.execute(sa.select(register.c.version)).scalar_one()
    if version in (1, 2):
        masks.create(connection, checkfirst=True)
        connection.exec_driver_sql("ALTER TABLE outbox ADD COLUMN masked_in TEXT")
        version = 3
    if version == 3:
        held_for_patients.create(connection)
        patient_spends.create(connection)
        version = 4
    if version == 4:
        periods.create(connection)
        connection.exec_driver_sql("ALTER TABLE charges ADD COLUMN open BOOLEAN NOT NULL DEFAULT 0")
        connection.execute(sa.update(register).values(version=VERSION))
        version = VERSION
    if version != VERSION:
        raise StoreUnusable(
            name,
            f"it has version {version}, this release knows {VERSION}; "
            "run the release that wrote it, or a newer one",
        )


def empty_journal(path: Path) -> None:
    """Bring everything from the write-ahead journal into the file and empty the journal.

    Raises:
        StoreUnusable: another process holds the register; nothing is lost, ask again.
    """
    with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_MS / 1000)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StoreUnusable(str(path), "another process reads it; stop the node and try again")


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 would begin and commit by its own rules
    for pragma in (
        f"busy_timeout = {_BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "trusted_schema = OFF",
        "secure_delete = ON",  # what is erased on request is gone from the file
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
