"""Versions of datasets in the register: from the record before a registration to the erased salt.

Promise: each write is durable when its function returns. An unfinished version is never in the view, so
nothing trains on it. See ``private.py`` for the register as a whole.
"""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from node.register import rows, tables
from node.register.accounts import DatasetRecord
from node.register.held import Held


class DatasetVersions:
    """The part of the register that knows files: one record for each registration."""

    def __init__(self, held: Held) -> None:
        self._held = held

    def note(self, record: DatasetRecord) -> None:
        """Remember a dataset whose registration is about to be said; replaces an unfinished one."""
        with self._held.lock, self._held.writing() as connection:
            connection.execute(
                sa.delete(tables.datasets).where(
                    tables.datasets.c.name == record.name, tables.datasets.c.registration.is_(None)
                )
            )
            values = {name: getattr(record, name) for name in DatasetRecord.__slots__}
            connection.execute(sa.insert(tables.datasets).values(values))

    def unfinished(self) -> tuple[DatasetRecord, ...]:
        """Datasets whose registration was begun and is not known to have taken effect."""
        query = sa.select(*rows.RECORD_COLUMNS).where(tables.datasets.c.registration.is_(None))
        with self._held.database.read() as connection:
            return tuple(rows.record_of(row) for row in connection.execute(query))

    def finish(self, snapshot: str, registration: str) -> DatasetRecord:
        """The log has the registration with this snapshot root: the dataset may be used."""
        with self._held.current():
            with self._held.writing() as connection:
                connection.execute(
                    sa.update(tables.datasets)
                    .where(tables.datasets.c.snapshot == snapshot)
                    .values(registration=registration)
                )
                query = sa.select(*rows.RECORD_COLUMNS).where(
                    tables.datasets.c.snapshot == snapshot
                )
                record = rows.record_of(connection.execute(query).one())
            datasets = self._held.view.datasets.set(record.name, record)
            self._held.view = replace(self._held.view, datasets=datasets)
            return record

    def move(self, record: DatasetRecord, path: str) -> DatasetRecord:
        """The same bytes lie elsewhere now."""
        if record.path == path:
            return record
        with self._held.current():
            with self._held.writing() as connection:
                connection.execute(
                    sa.update(tables.datasets)
                    .where(tables.datasets.c.registration == record.registration)
                    .values(path=path)
                )
            moved = replace(record, path=path)
            datasets = self._held.view.datasets.set(record.name, moved)
            self._held.view = replace(self._held.view, datasets=datasets)
            return moved

    def forget(self, snapshot: str) -> None:
        """The log refused the registration: nothing of it stays."""
        with self._held.lock, self._held.writing() as connection:
            connection.execute(
                sa.delete(tables.datasets).where(
                    tables.datasets.c.snapshot == snapshot, tables.datasets.c.registration.is_(None)
                )
            )

    def registered(self, registration: str) -> DatasetRecord | None:
        """A version of a dataset by its registration, superseded ones included; None if unknown."""
        query = sa.select(*rows.RECORD_COLUMNS).where(
            tables.datasets.c.registration == registration
        )
        with self._held.database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else rows.record_of(row)

    def forget_salt(self, registration: str) -> None:
        """Erase the secret of a version's commitment: nobody can open or guess at its leaves again.

        Training does not need it. SQLite overwrites the bytes (``secure_delete``), in its file once
        `tables.empty_journal` has run; copies of the file that were made before keep it.
        """
        with self._held.current():
            with self._held.writing() as connection:
                connection.execute(
                    sa.update(tables.datasets)
                    .where(tables.datasets.c.registration == registration)
                    .values(salt=b"")
                )
            for name, record in self._held.view.datasets.items():
                if record.registration == registration:
                    datasets = self._held.view.datasets.set(name, replace(record, salt=b""))
                    self._held.view = replace(self._held.view, datasets=datasets)
