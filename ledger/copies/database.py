"""Opening a store's database: SQLite in a file, or PostgreSQL by URL.

Promise: a connection commits durably before it answers (SQLite: WAL and synchronous=FULL;
PostgreSQL: ``synchronous_commit`` is raised to ``on`` where it was off), and the schema is at this
release's revision before anybody uses it, brought there in one transaction. ``exclusive_lock``
lets one process at a time be the writer.

Not promised: safety on a network file system, where neither SQLite's nor our locks hold.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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

from ledger.errors import AlreadyRunning, StoreConflict, StoreUnusable

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
_MIGRATION_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('consilium migration', 0))"
_WRITER_LOCK = (
    "SELECT pg_try_advisory_lock(hashtextextended('consilium writer ' || current_schema(), 0))"
)


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
            raise StoreUnusable(self.name, f"reading failed: {_first_line(error)}") from error

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
    def _writing(self) -> Iterator[None]:
        """Say what a driver's errors mean for a write."""
        try:
            yield
        except (IntegrityError, self._errors.IntegrityError) as error:
            raise StoreConflict(
                self.name, f"the database refused a row ({_first_line(error)}); read the store anew"
            ) from error
        except (SQLAlchemyError, self._errors.Error) as error:
            raise StoreUnusable(
                self.name,
                f"writing failed: {_first_line(error)}; read the store to see what it holds",
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


def open_database(url: str) -> Database:
    """Open a database and bring its schema up to this release.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or
            ``postgresql+psycopg://user@host/name`` (``postgresql://`` means the same).

    Raises:
        StoreUnusable: another URL, an unreachable database, or a schema of a newer release.
    """
    parsed = _parse(url)
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


class ExclusiveLock:
    """The writer's lock, held until ``close``, the end of a ``with`` block or of the process."""

    def __init__(self, url: str) -> None:
        parsed = _parse(url)
        self.name = parsed.render_as_string(hide_password=True)
        self._file: int | None = None
        self._connection: Connection | None = None
        if parsed.drivername == "sqlite":
            self._lock_file(_sqlite_path(parsed))
        else:
            self._lock_postgresql(parsed)

    def held(self) -> bool:
        """Say whether the lock is still ours: PostgreSQL drops it with the connection."""
        if self._connection is None:
            return self._file is not None
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except SQLAlchemyError:
            return False
        return True

    def close(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._connection is not None:
            self._connection.close()
            self._connection.engine.dispose()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock_file(self, path: Path) -> None:
        lock = path.with_name(path.name + ".lock")
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreUnusable(
                self.name, f"its lock file {lock} cannot be opened ({error.strerror})"
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip()
            os.close(file)
            raise AlreadyRunning(
                self.name,
                f"process {holder or 'unknown'} is its writer (lock file {lock}); stop it first",
            ) from None
        # The file stays when the lock goes: removing it would let two processes lock two files.
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode("ascii"), 0)
        self._file = file

    def _lock_postgresql(self, url: URL) -> None:
        engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        try:
            connection = engine.connect()
            locked = connection.exec_driver_sql(_WRITER_LOCK).scalar_one()
        except SQLAlchemyError as error:
            raise StoreUnusable(self.name, f"cannot be locked: {_first_line(error)}") from error
        if not locked:
            connection.close()
            raise AlreadyRunning(
                self.name, "another process is its writer (advisory lock); stop it first"
            )
        self._connection = connection


def exclusive_lock(url: str) -> ExclusiveLock:
    """Become the one writer of a store, or refuse at once.

    The lock keeps honest processes apart; ``LogStore.append`` stays safe without it, since of two
    writers only one can store a given index or checkpoint.

    Returns:
        The lock, also a context manager. Keep it: it is given back when it is closed.

    Raises:
        AlreadyRunning: another process holds it.
        StoreUnusable: the lock file or the database cannot be reached.
    """
    return ExclusiveLock(url)


def _parse(url: str) -> URL:
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


def _sqlite_path(url: URL) -> Path:
    return Path(url.database or "").absolute()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own BEGIN comes late and only before writes; _begin_sqlite says it instead.
    connection.isolation_level = None
    # Text that is not UTF-8 would fail a whole page of rows, and tell nobody which one has it.
    connection.text_factory = _read_text
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",  # first: switching to WAL may have to wait
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "recursive_triggers = ON",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _read_text(stored: bytes) -> str:
    """What a text column holds; a character that no value here has stands for what is not UTF-8."""
    return stored.decode("utf-8", "replace")


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
            raise DisconnectionError(_first_line(error)) from error

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


def _first_line(error: Exception) -> str:
    """Return the database's own words, without SQLAlchemy's copy of statement and values."""
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return said.strip().partition("\n")[0]
