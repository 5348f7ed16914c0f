"""Opening a store's database: SQLite in a file, or PostgreSQL by URL.

Promise: a connection commits durably before it answers (SQLite: WAL and synchronous=FULL;
PostgreSQL: ``synchronous_commit`` is raised to ``on`` where it was off), and the schema is at this
release's revision before anybody uses it, brought there in one transaction.

Not promised: safety on a network file system, where SQLite's locks do not hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    SQLAlchemyError,
)
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from ledger.errors import StoreConflict, StoreUnusable

REVISION = "0001"
"""The newest revision in ``migrations/versions``."""
BUSY_TIMEOUT_MS = 30_000
SILENCE_S = 1.0
"""Seconds without a word after which a connection to PostgreSQL is asked whether it still stands."""
_HEARD_S = "consilium_heard_s"

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATING = threading.Lock()
"""Alembic keeps its context in a global: one migration at a time in a process."""
_POSTGRESQL = "postgresql+psycopg"
_WRITES = "consilium_writes"
_BEGIN_WRITING = "BEGIN IMMEDIATE"
_READ_TEXT = methodcaller("decode", "utf-8", "replace")
"""What a text column holds; a character that no value here has stands for what is not UTF-8."""
_MIGRATION_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('consilium migration', 0))"


class Database:
    """An engine, its readable name, and the two kinds of transaction."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**{_WRITES: True})
        self.name = name
        self.driver = engine.dialect.driver
        """The driver's name, for statements in its own words: ``pysqlite`` or ``psycopg``."""
        self._errors: Any = engine.dialect.loaded_dbapi
        self._begins_itself = engine.dialect.name != "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read in one transaction; it never waits for a writer.

        Raises:
            StoreUnusable: the database failed.
        """
        try:
            with self._engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, self._errors.Error) as error:
            raise StoreUnusable(self.name, f"reading failed: {first_line(error)}") from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Write in one durable transaction: all of it on return, nothing after a refusal.

        Raises:
            StoreConflict: a unique or check constraint refused a row; nothing was stored.
            StoreUnusable: the database failed. Whether the transaction was stored is known only
                by reading.
        """
        with self._writing(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def write_plainly(self) -> Iterator[Any]:
        """Do what `write` does with the driver's own connection, and without what SQLAlchemy adds.

        That is a tenth of a millisecond, a quarter of what a durable commit of one entry takes.

        Raises:
            StoreConflict, StoreUnusable: see `write`.
        """
        with self._writing():
            pooled = self._engine.raw_connection()
            try:
                driver: Any = pooled.dbapi_connection
                if not self._begins_itself:
                    driver.execute(_BEGIN_WRITING)
                try:
                    yield driver
                    self._engine.dialect.do_commit(pooled)
                except BaseException:
                    self._roll_back(pooled)
                    raise
            finally:
                pooled.close()

    @contextmanager
    def write_at_once(self) -> Iterator[Once]:
        """Do what `write_plainly` does with one statement, which PostgreSQL is sent when the block ends.

        It is a transaction of its own, so there is one answer to wait for.

        Raises:
            StoreConflict, StoreUnusable: see `write`.
        """
        with self._writing():
            pooled = self._engine.raw_connection()
            try:
                driver: Any = pooled.dbapi_connection
                once = Once(driver.cursor())
                yield once
                try:
                    driver.autocommit = True
                    once.run()
                    self._engine.dialect.do_commit(pooled)
                except BaseException:
                    self._roll_back(pooled)
                    raise
                finally:
                    if not driver.closed:
                        driver.autocommit = False
            finally:
                pooled.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say what a driver's errors mean for a write."""
        try:
            yield
        except (IntegrityError, self._errors.IntegrityError) as error:
            raise StoreConflict(
                self.name, f"the database refused a row ({first_line(error)}); read the store anew"
            ) from error
        except (SQLAlchemyError, self._errors.Error) as error:
            raise StoreUnusable(
                self.name,
                f"writing failed: {first_line(error)}; read the store to see what it holds",
            ) from error

    def _roll_back(self, pooled: PoolProxiedConnection) -> None:
        try:
            pooled.rollback()
        except self._errors.Error:  # it is broken, and others may be; who comes next gets a new one
            pooled.invalidate()
            self._engine.dispose()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


class Once:
    """One statement of `Database.write_at_once`, and its one row once the block has ended."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._statement = ""
        self._parameters: Sequence[object] = ()

    def say(self, statement: str, parameters: Sequence[object]) -> None:
        """State it."""
        self._statement, self._parameters = statement, parameters

    def run(self) -> None:
        """Send it, and wait until what it wrote is durable."""
        self._cursor.execute(self._statement, self._parameters)

    def answer(self) -> Any:
        """Its row."""
        return self._cursor.fetchone()


def open_database(url: str) -> Database:
    """Open a database and bring its schema up to this release.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or
            ``postgresql+psycopg://user@host/name`` (``postgresql://`` means the same).

    Raises:
        StoreUnusable: another URL, an unreachable database, or a schema of a newer release.
    """
    parsed = parse_url(url)
    name = parsed.render_as_string(hide_password=True)
    if parsed.drivername == "sqlite":
        engine = sa.create_engine(parsed)
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = sa.create_engine(parsed)
        sa.event.listen(engine, "connect", _prepare_postgresql)
        sa.event.listen(engine, "connect", _heard)
        sa.event.listen(engine, "checkin", _heard)
        sa.event.listen(engine, "checkout", _look_after_silence(engine))
    database = Database(engine, name)
    try:
        _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def parse_url(url: str) -> URL:
    """A URL of one of the two databases, which names a file or a server.

    Raises:
        StoreUnusable: it does not.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:  # the message would repeat the URL, and a password in it
        raise StoreUnusable("(unreadable URL)", "write sqlite:////path or postgresql://") from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername=_POSTGRESQL)
    if parsed.drivername not in ("sqlite", _POSTGRESQL):
        raise StoreUnusable(
            parsed.render_as_string(hide_password=True),
            "is neither SQLite (sqlite:////path) nor PostgreSQL (postgresql+psycopg://)",
        )
    if parsed.drivername == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StoreUnusable(str(parsed), "names no file; a log is kept (sqlite:////path)")
    return parsed


def sqlite_path(url: URL) -> Path:
    """The file of a SQLite database."""
    return Path(url.database or "").absolute()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own BEGIN comes late and only before writes; _begin_sqlite says it instead.
    connection.isolation_level = None
    # Text that is not UTF-8 would fail a whole page of rows, and tell nobody which one has it.
    connection.text_factory = _READ_TEXT
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",  # first: switching to WAL may have to wait
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "recursive_triggers = ON",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at the start: a reader that turns writer half-way may be refused.
    writes = connection.get_execution_options().get(_WRITES, False)
    driver: Any = connection.connection.dbapi_connection
    driver.execute(_BEGIN_WRITING if writes else "BEGIN")


def _prepare_postgresql(connection: Any, _record: object) -> None:
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()


def _heard(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_HEARD_S] = time.monotonic()


def _look_after_silence(
    engine: Engine,
) -> Callable[[DBAPIConnection, ConnectionPoolEntry, object], None]:
    """Have a connection answer before its use, where it last did so a while ago.

    A server that was restarted meanwhile is then found by a read or write that does not fail for it.
    To ask each time would cost a small commit a tenth of its time.
    """
    dialect: Any = engine.dialect

    def look(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        if time.monotonic() - record.info[_HEARD_S] < SILENCE_S:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise DisconnectionError(first_line(error)) from error

    return look


def _migrate(database: Database) -> None:
    with database.read() as connection:
        if _revision(connection) == REVISION:
            return
    # Alembic costs a fifth of a second to import, and most starts have nothing to migrate.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with _MIGRATING, database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(_MIGRATION_LOCK)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError:
            raise StoreUnusable(
                database.name,
                f"its schema {_revision(connection)!r} is not known to this release "
                f"(which knows up to {REVISION!r}); run the release that wrote it, or a newer one",
            ) from None


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.exec_driver_sql(
        "SELECT version_num FROM alembic_version"
    ).scalar_one_or_none()
    return revision


def first_line(error: Exception) -> str:
    """Return the database's own words, without SQLAlchemy's copy of statement and values."""
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return said.strip().partition("\n")[0]
