"""A written row is not changed: triggers refuse it, and who went round them is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from ledger.copies import store
from ledger.copies.store import LogStore
from ledger.copies.stored import Witnessed
from ledger.errors import StoreCorrupt
from tests.ledger.copies.some_rows import execute, note, row, rows

pytest_plugins = ("tests.postgres",)

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
        ("entries.body", "CAST(x'1bff' AS TEXT)", "entry 0, column body, holds str"),
        ("conflicts.evidence", "CAST(x'ff' AS TEXT)", "conflict 1, column evidence, holds str"),
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


def test_text_that_is_not_utf8_spoils_its_own_row_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    log = LogStore.open(url)
    log.append(0, rows(0, 4))
    execute(url, "DROP TRIGGER entries_no_update")
    execute(url, """UPDATE entries SET key = CAST(x'1bff' AS TEXT) WHERE "index" = 2""")
    found = list(log.rows())
    assert found[:2] + found[3:] == rows(0, 2) + rows(3, 4)
    assert found[2].body == row(2).body
    assert found[2].key != row(2).key
    execute(url, """UPDATE entries SET body = CAST(x'1bff' AS TEXT) WHERE "index" = 2""")
    reading = log.rows()
    assert [next(reading), next(reading)] == rows(0, 2)
    with pytest.raises(StoreCorrupt, match="entry 2, column body, holds str") as caught:
        next(reading)
    assert str(caught.value).isprintable()
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
