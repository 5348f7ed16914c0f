"""A real PostgreSQL for tests: one server a session, one empty database a test.

A test module that wants it says ``pytest_plugins = ("tests.postgres",)`` and takes the fixture
``postgres_url``; ``postgres_server.new_database()`` gives more of them, in any scope. The server
listens on a socket in its own directory only. Without Debian's binaries those tests skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

BINARIES = Path(os.environ.get("CONSILIUM_POSTGRES", "/usr/lib/postgresql/15/bin"))


class PostgresServer:
    """A running server and a way to make databases in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = count(1)

    def new_database(self) -> str:
        """Make an empty database; returns its SQLAlchemy URL."""
        name = f"test_{next(self._numbers)}"
        connection = f"host={self.directory} user=postgres dbname=postgres"
        with psycopg.connect(connection, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://postgres@/{name}?host={self.directory}"


def lacking() -> str | None:
    """Why no server can be started here, or None."""
    if not (BINARIES / "initdb").is_file():
        return f"no PostgreSQL binaries in {BINARIES} (Debian: postgresql-15)"
    return None


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Start a server, and stop it and remove its files in the end."""
    # The server refuses to run as root.
    owner = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="consilium-postgres-", dir="/tmp"))
    try:
        if owner is not None:
            shutil.chown(directory, user=owner)
        data = directory / "data"
        options = f"-k {directory} -c listen_addresses='' -c fsync=off -c shared_buffers=16MB"

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(BINARIES / program), *arguments],
                check=True,
                user=owner,
                group=owner,
                extra_groups=() if owner else None,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                timeout=120,
            )

        run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8")
        log = str(directory / "log")
        run("pg_ctl", "-D", str(data), "-l", log, "-o", options, "-w", "start")
        try:
            yield PostgresServer(directory)
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    reason = lacking()
    if reason is not None:
        pytest.skip(reason)
    with running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()
