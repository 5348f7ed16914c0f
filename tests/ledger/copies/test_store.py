"""A store of entries: what was appended is read back, and nothing of what was refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from ledger.copies import database, store
from ledger.copies.store import LogStore, Row
from ledger.copies.stored import StoredNote
from ledger.errors import OutsideTree, StoreConflict, StoreUnusable
from tests.ledger.copies.some_rows import note, row, rows
from tests.patience import PATIENCE_S

pytest_plugins = ("tests.postgres",)


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
@pytest.mark.parametrize("stored", [False, True])
def test_a_killed_writer_leaves_all_of_an_append_or_nothing(url: str, stored: bool) -> None:
    """The process dies by SIGKILL right before what makes an append durable, or right after."""
    LogStore.open(url).close()
    program = """
import os, signal, sys
from ledger.copies.database import Once
from ledger.copies.store import LogStore
from tests.ledger.copies.some_rows import note, rows

def die(*given):
    if sys.argv[2] == "True":
        commit(*given)
    os.kill(os.getpid(), signal.SIGKILL)

log = LogStore.open(sys.argv[1])
log.append(0, rows(0, 5), (5, note(5)))
dialect = log._database._engine.dialect
commit, dialect.do_commit = dialect.do_commit, die
if sys.argv[2] == "False":
    Once.run = die
log.append(5, rows(5, 10), (10, note(10)))
"""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", program, url, str(stored)]
    died = subprocess.run(command, cwd=root, timeout=PATIENCE_S, check=False)
    assert died.returncode == -9
    log = LogStore.open(url)
    size = 10 if stored else 5
    assert list(log.rows()) == rows(0, size)
    assert log.latest_checkpoint() == StoredNote(size, note(size))
    assert log.append(size, rows(size, 15), (15, note(15))) == 15
    log.close()


def test_an_append_over_a_note_that_is_there_already_stores_its_entries(log: LogStore) -> None:
    log.append(0, rows(0, 5), (5, note(5)))
    assert log.append(5, rows(5, 7), (5, note(5))) == 7
    with pytest.raises(StoreConflict, match="checkpoints hold another text at size 5"):
        log.append(7, rows(7, 8), (5, note(5, root="other")))
    with pytest.raises(StoreConflict, match="it ends at 7"):
        log.append(8, rows(8, 9), (9, note(9)))
    with pytest.raises(StoreConflict, match="a note over 9 entries came"):
        log.append(7, rows(7, 8), (9, note(9)))
    assert list(log.rows()) == rows(0, 7)
    assert log.checkpoints() == (StoredNote(5, note(5)),)
    with pytest.raises(StoreConflict, match="the database refused a row"):
        log.append(7, [rows(0, 1)[0]], (8, note(8)))
    assert log.append(7, rows(7, 8), (8, note(8))) == 8


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


def test_a_connection_that_breaks_in_an_append_is_replaced(postgres_url: str) -> None:
    log = LogStore.open(postgres_url)
    log.append(0, rows(0, 5))  # in steps, since it brings no checkpoint
    dialect = log._database._engine.dialect
    commit = dialect.do_commit

    def lose_the_server(connection: Any) -> None:
        pid = connection.dbapi_connection.info.backend_pid
        with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        commit(connection)

    dialect.do_commit = lose_the_server  # type: ignore[method-assign]
    with pytest.raises(StoreUnusable, match="writing failed"):
        log.append(5, rows(5, 10))
    dialect.do_commit = commit  # type: ignore[method-assign]
    assert log.size() == 5
    assert log.append(5, rows(5, 10)) == 10
    assert list(log.rows()) == rows(0, 10)
    log.close()


def test_connections_that_broke_in_silence_are_replaced_before_their_use(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogStore.open(postgres_url)
    log.append(0, rows(0, 5), (5, note(5)))
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    monkeypatch.setattr(database, "SILENCE_S", 0.0)
    assert log.append(5, rows(5, 10), (10, note(10))) == 10
    assert list(log.rows()) == rows(0, 10)
    log.close()
