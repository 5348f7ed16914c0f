"""One writer of a store at a time, among honest processes.

A lock on a file beside SQLite's, an advisory lock of PostgreSQL's. Both end with their process.

Not promised: safety on a network file system, where such locks do not hold, and none against a process
that does not ask. ``LogStore.append`` stays safe without it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import SQLAlchemyError

from ledger.copies.database import first_line, parse_url, sqlite_path
from ledger.errors import AlreadyRunning, StoreUnusable

_WRITER_LOCK = (
    "SELECT pg_try_advisory_lock(hashtextextended('consilium writer ' || current_schema(), 0))"
)


class ExclusiveLock:
    """The writer's lock, held until ``close``, the end of a ``with`` block or of the process."""

    def __init__(self, url: str) -> None:
        parsed = parse_url(url)
        self.name = parsed.render_as_string(hide_password=True)
        self._file: int | None = None
        self._connection: Connection | None = None
        if parsed.drivername == "sqlite":
            self._lock_file(sqlite_path(parsed))
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
            raise StoreUnusable(self.name, f"cannot be locked: {first_line(error)}") from error
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
