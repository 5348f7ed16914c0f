"""Opening a database: its schema, its settings, one writer at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import ledger.copies.database
from ledger.copies.store import LogStore, exclusive_lock
from ledger.copies.tables import METADATA
from ledger.errors import AlreadyRunning, StoreUnusable
from tests.ledger.copies.some_rows import execute
from tests.patience import PATIENCE_S

pytest_plugins = ("tests.postgres",)


def test_the_migrated_schema_is_the_one_the_code_uses(url: str, log: LogStore) -> None:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()
    scripts = ScriptDirectory(str(ledger.copies.database._MIGRATIONS))
    assert scripts.get_current_head() == ledger.copies.database.REVISION


def test_new_databases_opened_at_once_in_one_process_are_all_migrated(tmp_path: Path) -> None:
    start = threading.Barrier(4)
    sizes: list[int] = []

    def begin(number: int) -> None:
        start.wait()
        opened = LogStore.open(f"sqlite:///{tmp_path}/log{number}.db")
        sizes.append(opened.size())
        opened.close()

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [0] * 4


@pytest.mark.process
def test_a_new_database_opened_at_once_by_several_processes_is_migrated_once(url: str) -> None:
    program = (
        "import sys; from ledger.copies.store import LogStore; sys.stdin.readline(); "
        "print(LogStore.open(sys.argv[1]).size())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=PATIENCE_S) for process in processes] == [(b"0\n", b"")] * 3


def test_a_schema_of_a_newer_release_is_refused(url: str, log: LogStore) -> None:
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreUnusable, match=r"'9999' is not known to this release .*'0001'"):
        LogStore.open(url)


def test_sqlite_commits_are_synced_and_the_journal_is_a_wal(tmp_path: Path) -> None:
    log = LogStore.open(f"sqlite:///{tmp_path / 'log.db'}")
    with log._database.read() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()
            for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert found == ["wal", 2, 1, 30_000]
    log.close()


@pytest.mark.postgresql
def test_postgresql_commits_are_synced_even_where_the_server_default_is_not(
    postgres_url: str,
) -> None:
    database = sa.make_url(postgres_url).database
    execute(postgres_url, f"ALTER DATABASE {database} SET synchronous_commit = off")
    log = LogStore.open(postgres_url)
    with log._database.read() as connection:
        setting = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
    assert setting == "on"
    log.close()


def test_a_url_we_cannot_use_is_refused_without_its_password(tmp_path: Path) -> None:
    for url, reason in {
        "sqlite://": "names no file",
        "mysql://u:secret@h/d": "neither SQLite .* nor PostgreSQL",
        "postgresql://u:secret@127.0.0.1:1/x": "reading failed",
        "not a url: secret": "write sqlite:////path or postgresql://",
        f"sqlite:///{tmp_path}/absent/log.db": "unable to open database file",
    }.items():
        with pytest.raises(StoreUnusable, match=reason) as caught:
            LogStore.open(url)
        assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"patients,names\n" * 100)
    with pytest.raises(StoreUnusable, match="file is not a database"):
        LogStore.open(f"sqlite:///{tmp_path / 'log.db'}")


def test_a_second_writer_is_told_who_is_running(url: str) -> None:
    LogStore.open(url).close()
    with exclusive_lock(url) as lock:
        assert lock.held()
        with pytest.raises(AlreadyRunning, match=r"is its writer .*; stop it first"):
            exclusive_lock(url)
    assert not lock.held()
    with exclusive_lock(url) as again:
        assert again.held()


@pytest.mark.process
def test_the_lock_of_a_killed_writer_is_free(url: str) -> None:
    program = (
        "import sys, time; from ledger.copies.store import exclusive_lock; "
        "lock = exclusive_lock(sys.argv[1]); print('locked', flush=True); time.sleep(3600)"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", program, url], cwd=root, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(AlreadyRunning):
            exclusive_lock(url)
        holder.kill()
    ends = time.monotonic() + PATIENCE_S
    while True:  # a PostgreSQL server notices the closed socket a moment later
        try:
            exclusive_lock(url).close()
            return
        except AlreadyRunning:
            assert time.monotonic() < ends, "the lock of a dead process is still held"
            time.sleep(0.05)


@pytest.mark.postgresql
def test_a_lock_lost_with_its_connection_is_noticed(postgres_url: str) -> None:
    with exclusive_lock(postgres_url) as lock:
        execute(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()",
        )
        assert not lock.held()
