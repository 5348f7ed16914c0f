from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError, OperationalError

import ledger.copies.database
from ledger.copies import store
from ledger.copies.store import LogStore, Row, exclusive_lock
from ledger.copies.stored import Conflict, StoredNote, Witnessed
from ledger.copies.tables import METADATA
from ledger.errors import AlreadyRunning, OutsideTree, StoreConflict, StoreCorrupt, StoreUnusable

pytest_plugins = ("tests.postgres",)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def log(url: str) -> Iterator[LogStore]:
    opened = LogStore.open(url)
    yield opened
    opened.close()


def row(index: int, key: str = "a") -> Row:
    body = f"body {index} of {key}".encode()
    return Row(body, b"signature %d" % index, sha256(body).digest(), key, index)


def rows(start: int, stop: int) -> list[Row]:
    return [row(index) for index in range(start, stop)]


def note(size: int, root: str = "cm9vdA==", signer: str = "log") -> bytes:
    return f"example.org/log\n{size}\n{root}\n\n— {signer} c2ln\n".encode()


def execute(url: str, statement: str) -> None:
    """What somebody with access to the database does, without our code."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


# --- append and read ----------------------------------------------------------------------------


def test_what_was_appended_is_read_back_after_reopening(url: str, log: LogStore) -> None:
    assert log.append(0, rows(0, 3), (3, note(3))) == 3
    assert log.append(3, rows(3, 5), (5, note(5))) == 5
    log.close()
    again = LogStore.open(url)
    assert again.size() == 5
    assert list(again.rows()) == rows(0, 5)
    assert list(again.rows(1, 4)) == rows(1, 4)
    assert again.row(4) == row(4)
    assert again.latest_checkpoint() == StoredNote(5, note(5))
    assert again.checkpoint_at(3) == note(3)
    assert again.checkpoint_at(4) is None
    assert again.checkpoints() == (StoredNote(3, note(3)), StoredNote(5, note(5)))
    assert again.checkpoints(after=3) == (StoredNote(5, note(5)),)
    again.close()


def test_an_empty_log_has_size_zero_and_nothing_in_it(log: LogStore) -> None:
    assert log.size() == 0
    assert list(log.rows()) == []
    assert log.latest_checkpoint() is None
    assert log.latest_final() is None
    assert log.finals() == ()
    assert list(log.conflicts()) == []
    with pytest.raises(OutsideTree) as caught:
        log.row(0)
    assert caught.value.size == 0


def test_reading_crosses_pages_and_stops_at_the_size(
    log: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAGE", 4)
    log.append(0, rows(0, 10))
    assert list(log.rows()) == rows(0, 10)
    assert list(log.rows(3, 99)) == rows(3, 10)
    assert list(log.rows(8, 3)) == []
    assert list(log.leaves(2)) == [found.leaf for found in rows(2, 10)]


def test_a_reader_sees_the_log_as_long_as_it_was_when_it_began(
    log: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAGE", 2)
    log.append(0, rows(0, 4))
    reading = log.rows()
    assert next(reading) == row(0)
    log.append(4, rows(4, 8))
    assert list(reading) == rows(1, 4)


def test_entries_are_found_by_leaf_and_by_place_in_a_chain(log: LogStore) -> None:
    log.append(0, [row(0), row(0, "b"), row(1)])
    assert log.find_leaf(row(0, "b").leaf) == 1
    assert log.find_leaf(b"\0" * 32) is None
    assert log.find_seq("a", 1) == 2
    assert log.find_seq("b", 1) is None


@pytest.mark.parametrize("first", [0, 2, 4])
def test_entries_that_do_not_begin_at_the_end_are_refused(log: LogStore, first: int) -> None:
    log.append(0, rows(0, 3))
    with pytest.raises(StoreConflict, match=f"from index {first} came, but it ends at 3"):
        log.append(first, rows(7, 8))
    assert log.size() == 3


def test_nothing_is_stored_when_the_last_row_or_the_checkpoint_is_refused(log: LogStore) -> None:
    log.append(0, rows(0, 2), (2, note(2)))
    repeated_leaf = Row(b"x", b"y", row(1).leaf, "b", 0)
    repeated_seq = Row(b"x", b"y", b"\1" * 32, "a", 1)
    for bad in (repeated_leaf, repeated_seq):
        with pytest.raises(StoreConflict, match="refused a row"):
            log.append(2, [row(2), bad], (4, note(4)))
    with pytest.raises(StoreConflict, match="over 9 entries came, but it has 4"):
        log.append(2, rows(2, 4), (9, note(9)))
    with pytest.raises(StoreConflict, match="checkpoints hold another text at size 2"):
        log.append(2, rows(2, 4), (2, note(2, root="b3RoZXI=")))
    with pytest.raises(ValueError, match="row 1 has a leaf hash of 3 bytes"):
        log.append(2, [row(2), Row(b"x", b"y", b"123", "b", 0)])
    assert log.size() == 2
    assert log.latest_checkpoint() == StoredNote(2, note(2))
    assert log.append(2, rows(2, 4), (4, note(4))) == 4


def test_a_checkpoint_may_come_alone_and_again(log: LogStore) -> None:
    log.append(0, rows(0, 2))
    log.append(2, [], (2, note(2)))
    log.append(2, [], (2, note(2, signer="again")))
    assert log.checkpoints() == (StoredNote(2, note(2)),)


def test_of_two_writers_at_one_index_one_wins_and_the_other_is_told(url: str) -> None:
    stores = [LogStore.open(url) for _ in range(4)]
    start = threading.Barrier(len(stores))
    outcomes: list[str] = []

    def write(mine: LogStore, key: str) -> None:
        start.wait()
        try:
            mine.append(0, [row(index, key) for index in range(20)], (20, note(20, root=key)))
            outcomes.append(key)
        except StoreConflict:
            outcomes.append("refused")

    threads = [
        threading.Thread(target=write, args=(mine, f"key{number}"))
        for number, mine in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if outcome != "refused"]
    assert len(outcomes) == 4
    assert len(winners) == 1
    assert [found.key for found in stores[0].rows()] == winners * 20
    assert stores[0].latest_checkpoint() == StoredNote(20, note(20, root=winners[0]))
    for opened in stores:
        opened.close()


@pytest.mark.process
def test_a_killed_writer_leaves_all_of_an_append_or_nothing(url: str) -> None:
    """The process dies by SIGKILL between the inserts and the commit."""
    LogStore.open(url).close()
    program = """
import os, signal, sys
import sqlalchemy as sa
from tests.ledger.copies.test_store import LogStore, note, rows

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

log = LogStore.open(sys.argv[1])
log.append(0, rows(0, 5), (5, note(5)))
sa.event.listen(log._database._engine, "commit", die)
log.append(5, rows(5, 10), (10, note(10)))
"""
    root = Path(__file__).parents[3]
    died = subprocess.run([sys.executable, "-c", program, url], cwd=root, timeout=60, check=False)
    assert died.returncode == -9
    log = LogStore.open(url)
    assert list(log.rows()) == rows(0, 5)
    assert log.checkpoints() == (StoredNote(5, note(5)),)
    assert log.append(5, rows(5, 10), (10, note(10))) == 10
    log.close()


def test_a_write_that_was_stored_but_reported_lost_is_found_by_reading(
    log: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = log._database._engine.dialect
    commit = dialect.do_commit

    def commit_and_lose_the_answer(connection: Any) -> None:
        commit(connection)
        raise OperationalError("COMMIT", None, Exception("connection lost"))

    monkeypatch.setattr(dialect, "do_commit", commit_and_lose_the_answer)
    with pytest.raises(StoreUnusable, match=r"connection lost; read the store to see"):
        log.append(0, rows(0, 5), (5, note(5)))
    monkeypatch.undo()
    assert list(log.rows()) == rows(0, 5)
    assert log.latest_checkpoint() == StoredNote(5, note(5))
    with pytest.raises(StoreConflict, match="from index 0 came, but it ends at 5"):
        log.append(0, rows(0, 5), (5, note(5)))


# --- append-only --------------------------------------------------------------------------------

CHANGES = [
    "UPDATE entries SET body = signature",
    'UPDATE entries SET seq = 9 WHERE "index" = 1',
    'DELETE FROM entries WHERE "index" = 1',
    "UPDATE checkpoints SET size = 1",
    "DELETE FROM checkpoints",
    "UPDATE finals SET note = ''",
    "DELETE FROM finals",
    "UPDATE conflicts SET kind = 'other'",
    "DELETE FROM conflicts",
    "UPDATE witnessed SET size = 1",
    "DELETE FROM witnessed",
]


def filled(log: LogStore) -> None:
    log.append(0, rows(0, 2), (2, note(2)))
    log.put_final(2, note(2, signer="quorum"))
    log.put_conflict("chain", b"evidence")
    log.set_witnessed("origin", 2, b"r" * 32, note(2), expected_size=0)


def test_triggers_refuse_every_change_and_deletion(url: str, log: LogStore) -> None:
    filled(log)
    for statement in CHANGES:
        with pytest.raises(IntegrityError, match=r"is append-only|never goes back"):
            execute(url, statement)
    assert list(log.rows()) == rows(0, 2)
    assert log.checkpoint_at(2) == note(2)
    assert log.witnessed("origin") == Witnessed(2, b"r" * 32, note(2))


def read_all(log: LogStore) -> None:
    """Everything that a program reads of a store."""
    list(log.rows())
    log.checkpoints()
    log.finals()
    list(log.conflicts())
    log.witnessed("origin")


# SQLite turns what it can into the column's own type: a number into text in TEXT columns, a text of
# digits into a number in INTEGER ones.
@pytest.mark.parametrize(
    ("column", "wrong", "said"),
    [
        ("entries.body", "'text'", "entry 0, column body, holds str"),
        ("entries.body", "12345678901", "entry 0, column body, holds int"),
        ("entries.signature", "'text'", "entry 0, column signature, holds str"),
        ("entries.leaf", f"'{'x' * 32}'", "entry 0, column leaf, holds str"),
        ("entries.key", "x'00'", "entry 0, column key, holds bytes"),
        ("entries.seq", "'text'", "entry 0, column seq, holds str"),
        ("entries.seq", "x'00'", "entry 0, column seq, holds bytes"),
        ("checkpoints.note", "CAST(note AS TEXT)", "checkpoint of size 2, column note, holds str"),
        ("finals.note", "7.5", "final of size 2, column note, holds float"),
        ("conflicts.kind", "x'00'", "conflict 1, column kind, holds bytes"),
        ("conflicts.evidence", "'text'", "conflict 1, column evidence, holds str"),
        ("witnessed.size", "'text'", "the witness's memory, column size, holds str"),
        ("witnessed.root", "'text'", "the witness's memory, column root, holds str"),
        ("witnessed.note", "12345678901", "the witness's memory, column note, holds int"),
    ],
)
def test_a_column_of_another_type_is_named_with_its_place(
    tmp_path: Path, column: str, wrong: str, said: str
) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    log = LogStore.open(url)
    filled(log)
    read_all(log)
    table, name = column.split(".")
    for trigger in (f"{table}_no_update", "witnessed_forward"):
        execute(url, f"DROP TRIGGER IF EXISTS {trigger}")
    first = f"rowid = (SELECT min(rowid) FROM {table})"
    execute(url, f"UPDATE {table} SET {name} = {wrong} WHERE {first}")
    with pytest.raises(StoreCorrupt, match=said):
        read_all(log)
    log.close()


def test_sqlite_refuses_to_replace_a_row_by_inserting(tmp_path: Path) -> None:
    """Without our pragmas, as from the sqlite3 shell: REPLACE does not fire delete triggers."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    log = LogStore.open(url)
    filled(log)
    leaf = row(1).leaf.hex()
    for statement in (
        "INSERT OR REPLACE INTO entries VALUES (1, 'b', 's', zeroblob(32), 'z', 0)",
        f"INSERT OR REPLACE INTO entries VALUES (2, 'b', 's', x'{leaf}', 'z', 0)",
        "INSERT OR REPLACE INTO entries VALUES (2, 'b', 's', zeroblob(32), 'a', 1)",
        "INSERT OR REPLACE INTO checkpoints VALUES (2, 'other')",
        "INSERT OR REPLACE INTO finals VALUES (2, 'other')",
        "INSERT OR REPLACE INTO conflicts SELECT 1, 'k', zeroblob(32), 'e'",
        "INSERT OR REPLACE INTO witnessed VALUES ('origin', 0, 'r', 'n')",
    ):
        with pytest.raises(IntegrityError, match="this row is there already"):
            execute(url, statement)
    assert list(log.rows()) == rows(0, 2)
    log.close()


@pytest.mark.postgresql
def test_postgresql_refuses_to_truncate(postgres_url: str) -> None:
    log = LogStore.open(postgres_url)
    filled(log)
    for table in ("entries", "checkpoints", "finals", "conflicts", "witnessed"):
        with pytest.raises(IntegrityError, match="TRUNCATE refused"):
            execute(postgres_url, f"TRUNCATE {table}")
    log.close()


def test_a_row_that_somebody_removed_is_named_not_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAGE", 3)
    url = f"sqlite:///{tmp_path / 'log.db'}"
    log = LogStore.open(url)
    log.append(0, rows(0, 8))
    execute(url, "DROP TRIGGER entries_no_delete")
    execute(url, 'DELETE FROM entries WHERE "index" = 5')
    reading = log.rows()
    assert [next(reading) for _ in range(5)] == rows(0, 5)
    with pytest.raises(StoreCorrupt, match="entry 5 of 8 is gone; refill"):
        next(reading)
    with pytest.raises(StoreCorrupt, match="entry 5 of 8 is gone"):
        log.row(5)
    log.close()


# --- finals, conflicts, the witness -------------------------------------------------------------


def test_the_first_final_of_a_size_stays_and_another_text_is_refused(log: LogStore) -> None:
    log.append(0, rows(0, 3), (2, note(2)))
    log.put_final(2, note(2, signer="first"))
    log.put_final(2, note(2, signer="second"))
    with pytest.raises(StoreConflict, match="checkpoints hold another text at size 2"):
        log.put_final(2, note(2, root="b3RoZXI="))
    log.put_final(3, note(3))
    with pytest.raises(StoreConflict, match="finals hold another text at size 3"):
        log.put_final(3, note(3, root="b3RoZXI="))
    with pytest.raises(StoreConflict, match="over 4 entries came, but it has 3"):
        log.put_final(4, note(4))
    first = StoredNote(2, note(2, signer="first"))
    assert log.finals() == (first, StoredNote(3, note(3)))
    assert log.finals(limit=1) == (first,)
    assert log.finals(after=2) == (StoredNote(3, note(3)),)
    assert log.latest_final() == StoredNote(3, note(3))


def test_evidence_is_kept_once_and_in_order(log: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE", 2)
    for evidence in (b"one", b"two", b"one", b"three"):
        log.put_conflict("fork", evidence)
    kept = [Conflict("fork", evidence) for evidence in (b"one", b"two", b"three")]
    assert list(log.conflicts()) == kept


def test_a_witness_moves_forward_only_and_from_where_it_was_judged(log: LogStore) -> None:
    old, new = b"a" * 32, b"b" * 32
    assert log.witnessed("x") is None
    log.set_witnessed("x", 3, old, b"n3", expected_size=0)
    log.set_witnessed("x", 3, old, b"n3 fresh", expected_size=3)
    log.set_witnessed("x", 5, new, b"n5", expected_size=3)
    log.set_witnessed("y", 1, old, b"y1", expected_size=0)
    with pytest.raises(StoreConflict, match="stands at 5, not at 3; judge anew"):
        log.set_witnessed("x", 7, new, b"late", expected_size=3)
    with pytest.raises(StoreConflict, match="stands at 5, not at 0; judge anew"):
        log.set_witnessed("x", 7, new, b"late", expected_size=0)
    with pytest.raises(StoreConflict, match="stands at None, not at 4"):
        log.set_witnessed("z", 7, new, b"late", expected_size=4)
    with pytest.raises(StoreConflict, match="would go back from 5 to 4"):
        log.set_witnessed("x", 4, old, b"n4", expected_size=5)
    with pytest.raises(StoreConflict, match="another root at size 5"):
        log.set_witnessed("x", 5, old, b"fork", expected_size=5)
    assert log.witnessed("x") == Witnessed(5, new, b"n5")
    assert log.witnessed("y") == Witnessed(1, old, b"y1")


def test_of_two_requests_judged_from_one_state_one_moves_the_witness(url: str) -> None:
    stores = [LogStore.open(url) for _ in range(4)]
    start = threading.Barrier(len(stores))
    moved: list[int] = []

    def move(mine: LogStore, size: int) -> None:
        start.wait()
        try:
            mine.set_witnessed("x", size, b"%032d" % size, b"note", expected_size=0)
            moved.append(size)
        except StoreConflict:
            return

    threads = [
        threading.Thread(target=move, args=(mine, size)) for size, mine in enumerate(stores, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(moved) == 1
    seen = stores[0].witnessed("x")
    assert seen is not None
    assert seen.size == moved[0]
    for opened in stores:
        opened.close()


# --- opening ------------------------------------------------------------------------------------


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
    assert [process.communicate(timeout=60) for process in processes] == [(b"0\n", b"")] * 3


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
        "lock = exclusive_lock(sys.argv[1]); print('locked', flush=True); time.sleep(60)"
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
    for _ in range(100):  # a PostgreSQL server notices the closed socket a moment later
        try:
            exclusive_lock(url).close()
            return
        except AlreadyRunning:
            threading.Event().wait(0.05)
    pytest.fail("the lock of a dead process is still held")


@pytest.mark.postgresql
def test_a_lock_lost_with_its_connection_is_noticed(postgres_url: str) -> None:
    with exclusive_lock(postgres_url) as lock:
        execute(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()",
        )
        assert not lock.held()
