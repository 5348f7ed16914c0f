"""Registers that earlier versions wrote open as today's: the same sums, intents and vectors, and no more."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.values import BlobRef
from ledger.errors import StoreUnusable
from ledger.formats.strict import canonical
from node.errors import IntentsClosed
from node.register import tables
from node.register.private import PrivateRegister
from privacy.filters import Spend
from tests.ledger.facts import cell_of

VERSION_1 = """
CREATE TABLE register (version INTEGER NOT NULL);
CREATE TABLE datasets (id INTEGER NOT NULL, name TEXT NOT NULL, path TEXT NOT NULL,
  sha256 TEXT NOT NULL, schema_document BLOB NOT NULL, rows INTEGER NOT NULL,
  train_units INTEGER NOT NULL, test_units INTEGER NOT NULL, snapshot TEXT NOT NULL,
  salt BLOB NOT NULL, registration TEXT, PRIMARY KEY (id), UNIQUE (snapshot));
CREATE TABLE cells (cell TEXT NOT NULL, terms BLOB NOT NULL, test_percent INTEGER,
  g TEXT NOT NULL, r TEXT NOT NULL, g_overflowed BOOLEAN NOT NULL, r_overflowed BOOLEAN NOT NULL,
  PRIMARY KEY (cell));
CREATE TABLE charges (federation TEXT NOT NULL, experiment TEXT NOT NULL, dataset TEXT NOT NULL,
  cell TEXT NOT NULL, g BIGINT NOT NULL, r BIGINT NOT NULL, g_refunded BIGINT NOT NULL,
  r_refunded BIGINT NOT NULL, PRIMARY KEY (experiment, dataset, cell));
CREATE TABLE reservations (experiment TEXT NOT NULL, dataset TEXT NOT NULL, status TEXT NOT NULL,
  PRIMARY KEY (experiment, dataset));
CREATE TABLE intents (id INTEGER NOT NULL, experiment TEXT NOT NULL, dataset TEXT NOT NULL,
  purpose TEXT NOT NULL, round INTEGER NOT NULL, steps INTEGER NOT NULL, nonce TEXT NOT NULL,
  at_ms BIGINT NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_intents_experiment ON intents (experiment);
CREATE TABLE outbox (experiment TEXT NOT NULL, dataset TEXT NOT NULL, round INTEGER NOT NULL,
  sha256 TEXT NOT NULL, bytes BIGINT NOT NULL, PRIMARY KEY (experiment, dataset, round));
CREATE TABLE restarts (nonce TEXT NOT NULL, at_ms BIGINT NOT NULL, PRIMARY KEY (nonce));
CREATE TRIGGER intents_update BEFORE UPDATE ON intents BEGIN
  SELECT RAISE(ABORT, 'an intent is never changed or deleted'); END;
CREATE TRIGGER intents_delete BEFORE DELETE ON intents BEGIN
  SELECT RAISE(ABORT, 'an intent is never changed or deleted'); END;
"""
"""What the release of version 1 made, word for word but for its line ends."""

VERSION_2 = """
CREATE TABLE masks (experiment TEXT NOT NULL, dataset TEXT NOT NULL, context TEXT NOT NULL,
  sealed BLOB NOT NULL, PRIMARY KEY (experiment, dataset));
"""
"""What version 2 added."""

BIG = 2**200
"""A closed lane's sum: more than SQLite's integers hold."""


def write_old(path: Path, version: int) -> None:
    """A register with a settled and an open reservation, as that version left it."""
    terms = cell_of("basel")
    with closing(sqlite3.connect(path)) as old, old:
        old.executescript(VERSION_1 + (VERSION_2 if version == 2 else ""))
        old.execute("INSERT INTO register VALUES (?)", (version,))
        row = (terms.cell, canonical(terms), None, str(BIG), "777", True, False)
        old.execute("INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        for experiment, status, refunded in (("done", "settled", 40), ("open", "reserved", 0)):
            old.execute(
                "INSERT INTO charges VALUES ('f', ?, 'basel-heart', ?, 100, 200, ?, ?)",
                (experiment, terms.cell, refunded, 2 * refunded),
            )
            row2 = (experiment, "basel-heart", status)
            old.execute("INSERT INTO reservations VALUES (?, ?, ?)", row2)
            for number in (1, 2):
                old.execute(
                    "INSERT INTO intents VALUES (NULL, ?, 'basel-heart', 'train', ?, 3, 'n', 5)",
                    (experiment, number),
                )
            old.execute(
                "INSERT INTO outbox VALUES (?, 'basel-heart', 2, ?, 64)", (experiment, "a" * 64)
            )
        old.execute("INSERT INTO restarts VALUES ('before', 1)")
        if version == 2:
            old.execute("INSERT INTO masks VALUES ('open', 'basel-heart', 'context', x'0102')")


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_register_keeps_every_sum_intent_and_vector(tmp_path: Path, version: int) -> None:
    path = tmp_path / "private.db"
    write_old(path, version)
    for _ in range(2):  # upgraded, and opened again
        with closing(PrivateRegister.open(path)) as register:
            view = register.view
            assert view.cells["basel-all"].spend == Spend(BIG, 777, g_overflowed=True)
            assert view.cells["basel-all"].terms == cell_of("basel")
            assert dict(view.charges) == {
                ("done", "basel-heart"): "settled",
                ("open", "basel-heart"): "reserved",
            }
            assert register.charges_of("done", "basel-heart") == (
                CellCharge(cell="basel-all", g=100, r=200),
            )
            assert dict(view.used_by(("open", "basel-heart"))) == {"train": 6}
            assert dict(register.intended("open", "basel-heart", 2)) == {"train": 3}
            assert dict(view.outbox) == {
                ("open", "basel-heart", 2): BlobRef(sha256="a" * 64, bytes=64)
            }
            assert dict(view.masked_in) == {}
            assert dict(view.masks) == (
                {("open", "basel-heart"): "context"} if version == 2 else {}
            )
            assert register.knows_restart("before")
    with closing(sqlite3.connect(path)) as upgraded:
        assert upgraded.execute("SELECT version FROM register").fetchall() == [(tables.VERSION,)]


@pytest.mark.parametrize("version", [1, 2])
def test_an_upgraded_register_has_todays_tables_and_goes_on(tmp_path: Path, version: int) -> None:
    write_old(tmp_path / "old.db", version)
    columns = []
    for name in ("old.db", "new.db"):
        PrivateRegister.open(tmp_path / name).close()
        inspector = sa.inspect(sa.create_engine(f"sqlite:///{tmp_path / name}"))
        columns.append(
            {
                table: sorted((c["name"], str(c["type"])) for c in inspector.get_columns(table))
                for table in inspector.get_table_names()
            }
        )
    assert columns[0] == columns[1]
    with closing(PrivateRegister.open(tmp_path / "old.db")) as register:
        register.record_intent("open", "basel-heart", "train", round_number=3, steps=3, at_ms=9)
        with pytest.raises(IntentsClosed):
            register.record_intent("done", "basel-heart", "train", round_number=3, steps=3, at_ms=9)
        register.settle("open", "basel-heart", [CellCharge(cell="basel-all", g=1, r=2)])
        assert register.view.cells["basel-all"].spend == Spend(BIG - 1, 775, g_overflowed=True)
    with closing(sqlite3.connect(tmp_path / "old.db")) as upgraded:
        for verb in ("UPDATE intents SET steps = 1", "DELETE FROM intents"):
            with pytest.raises(sqlite3.IntegrityError, match="never changed or deleted"):
                upgraded.execute(verb)


def test_a_register_of_a_later_version_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "private.db"
    PrivateRegister.open(path).close()
    with closing(sqlite3.connect(path)) as newer, newer:
        newer.execute("UPDATE register SET version = version + 1")
    with pytest.raises(StoreUnusable, match="run the release that wrote it"):
        PrivateRegister.open(path)
