"""Which calendar block each of a hospital's patients belongs to: said once, never changed, never told.

One row a patient, by HMAC under the hospital's key, in a file of its own (``patients.db``) beside the
private register, so that the training process can read it and nothing else. Promise: a row is never
changed or deleted (triggers refuse it), and a patient is in it before anything is said of a dataset
that holds him; so he keeps his block and half whatever becomes of the dataset. Together with the
patients goes the snapshot of the dataset that brought them: what a dataset holds in a block is fixed by
its registration, and a file that lacks a snapshot of the log has forgotten patients and takes nobody
new into a later block (``node.data.blocks``).

Not promised: protection from who can write the file, or from a patient under two ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Literal

from ledger.errors import StoreUnusable

PATIENTS = "patients.db"
"""Its file in a node's home."""

Half = Literal["train", "test"]

_TABLES = """
CREATE TABLE IF NOT EXISTS patients (
    member BLOB PRIMARY KEY, block TEXT NOT NULL, half TEXT NOT NULL, since INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT, snapshot TEXT NOT NULL UNIQUE
);
CREATE TRIGGER IF NOT EXISTS patients_update BEFORE UPDATE ON patients
    BEGIN SELECT RAISE(ABORT, 'a patient never changes the cell'); END;
CREATE TRIGGER IF NOT EXISTS patients_delete BEFORE DELETE ON patients
    BEGIN SELECT RAISE(ABORT, 'a patient never leaves the cell'); END;
"""
_ASKED = 500
_NEWEST = 2**62
_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a patient belongs, for ever."""

    block: str
    half: Half


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Patients that a dataset brings for the first time, by HMAC; it may be nobody."""

    file: Path
    snapshot: str
    newcomers: Mapping[bytes, Place]


def enrol(enrolment: Enrolment) -> None:
    """Give newcomers their places, durably; who has one keeps it.

    Raises:
        StoreUnusable: the file cannot be written.
    """
    try:
        enrolment.file.touch(mode=0o600, exist_ok=True)
        with closing(sqlite3.connect(enrolment.file, timeout=_BUSY_S)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_TABLES)
            with connection:
                connection.execute(
                    "INSERT OR IGNORE INTO snapshots (snapshot) VALUES (?)", (enrolment.snapshot,)
                )
                number = _number(connection, enrolment.snapshot)
                newcomers = sorted(enrolment.newcomers.items(), key=itemgetter(0))
                connection.executemany(
                    "INSERT OR IGNORE INTO patients VALUES (?, ?, ?, ?)",
                    [(who, place.block, place.half, number) for who, place in newcomers],
                )
    except (OSError, sqlite3.Error) as error:
        raise StoreUnusable(str(enrolment.file), str(error)) from None


def places_of(
    file: Path, members: Sequence[bytes], *, snapshot: str | None = None
) -> dict[bytes, Place]:
    """Where these patients belong; who is not known is not in it. A file that is not there knows nobody.

    Args:
        file: ``patients.db``.
        members: HMACs of patients.
        snapshot: as the file was once this dataset's patients had their places; None for now.

    Raises:
        StoreUnusable: the file cannot be read, or does not know the snapshot.
    """
    found: dict[bytes, Place] = {}
    with _reading(file) as connection:
        if connection is None:
            if snapshot is not None:
                raise StoreUnusable(str(file), "it is gone, and knew the dataset's patients")
            return found
        most = _NEWEST if snapshot is None else _number(connection, snapshot)
        if most is None:
            raise StoreUnusable(str(file), "it does not know the dataset; it may be a backup")
        wanted = tuple(dict.fromkeys(members))
        for start in range(0, len(wanted), _ASKED):
            asked = wanted[start : start + _ASKED]
            marks = ",".join("?" * len(asked))
            query = (
                f"SELECT member, block, half FROM patients WHERE member IN ({marks})"  # noqa: S608
                " AND since <= ?"
            )
            for member, block, half in connection.execute(query, (*asked, most)):
                found[bytes(member)] = Place(block, "test" if half == "test" else "train")
    return found


def snapshots_known(file: Path) -> frozenset[str]:
    """Snapshots of the datasets whose patients are in the file.

    Raises:
        StoreUnusable: the file cannot be read.
    """
    with _reading(file) as connection:
        if connection is None:
            return frozenset()
        return frozenset(row[0] for row in connection.execute("SELECT snapshot FROM snapshots"))


def _number(connection: sqlite3.Connection, snapshot: str) -> int | None:
    query = "SELECT number FROM snapshots WHERE snapshot = ?"
    row = connection.execute(query, (snapshot,)).fetchone()
    return None if row is None else int(row[0])


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection | None]:
    if not file.exists() or file.stat().st_size == 0:
        yield None
        return
    try:
        with closing(
            sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
        ) as connection:
            yield connection
    except sqlite3.Error as error:
        raise StoreUnusable(str(file), str(error)) from None
