"""A copy of a log in a database: the same for coordinator, node and auditor.

Promise: ``append`` stores entries and the checkpoint over them in one durable transaction, and
only at the end of what is stored: after a crash at any point the store holds all of a call or
nothing of it. No row of a log is changed or deleted, here or, by triggers, by others. Entries are
numbered from 0 without a gap, and a gap that somebody makes is reported, not skipped. Reading
takes constant memory and never waits for the writer.

Not promised: that what is stored is true. Bytes are kept as given; signatures, chains and roots
are for the caller to verify before writing, and for an auditor after.

A store may be used from several threads. Readers of several pages (``rows``, ``leaves``) see a
log that grows meanwhile only up to the size at which they began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ledger.copies.appending import AT_END, Appending, at_end, require_hashes
from ledger.copies.appending import Row as Row
from ledger.copies.database import Database, open_database
from ledger.copies.reading import Reading
from ledger.copies.stored import REFILL, Conflict, StoredNote, Typed, Witnessed, note_text
from ledger.copies.tables import CHECKPOINTS, CONFLICTS, ENTRIES, FINALS, WITNESSED
from ledger.copies.writer_lock import exclusive_lock as exclusive_lock
from ledger.errors import OutsideTree, StoreConflict, StoreCorrupt

PAGE = 512
"""Entries read at a time: at most 16 MiB of the largest ones."""

T = TypeVar("T")

_index = ENTRIES.c["index"]
_row_columns = (
    ENTRIES.c.body,
    ENTRIES.c.signature,
    ENTRIES.c.leaf,
    ENTRIES.c.key,
    ENTRIES.c.seq,
)


class LogStore:
    """One log's entries, checkpoints and conflicts, and a witness's memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read = Typed(database.name)
        self._appending = Appending.for_driver(database.driver)
        self._reading = Reading.for_driver(database.driver)

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a store, making or migrating its schema where needed.

        Args:
            url: ``sqlite:////absolute.db`` or ``postgresql+psycopg://user@host/name``.

        Raises:
            StoreUnusable: see ``database.open_database``.
        """
        return cls(open_database(url))

    @property
    def name(self) -> str:
        """The database's URL without its password."""
        return self._database.name

    def close(self) -> None:
        """Close all connections; the store cannot be used afterwards."""
        self._database.close()

    # --- entries --------------------------------------------------------------------------------

    def append(
        self,
        first_index: int,
        rows: Sequence[Row],
        checkpoint: tuple[int, bytes] | None = None,
    ) -> int:
        """Store entries at the end of the log, and a checkpoint over them, all or nothing.

        Args:
            first_index: index of the first row; must be the present size.
            rows: entries in order; may be empty when only a checkpoint comes.
            checkpoint: size and signed note, the size at most that after the rows. A note at a
                size that has one already is ignored if its text is the same.

        Returns:
            The new size, durable.

        Raises:
            StoreConflict: the log does not end at ``first_index``, a leaf or a (key, seq) is
                there already, or the checkpoint is ahead of the entries or has another text than
                the one stored at its size. Nothing was stored.
        """
        require_hashes(rows)
        new_size = first_index + len(rows)
        if rows and checkpoint is not None and self._appending.fits(new_size, checkpoint[0]):
            with self._database.write_at_once() as once:
                once.say(AT_END, at_end(first_index, rows, checkpoint))
            if once.answer() == (first_index, None):
                return (
                    new_size  # otherwise nothing was stored: the steps below do it, or say why not
                )
        note_size = -1 if checkpoint is None else checkpoint[0]
        with self._database.write_plainly() as driver:
            end = self._appending.on(driver)
            last, stored = end.look(note_size)
            size = 0 if last is None else last + 1
            if first_index != size:
                raise StoreConflict(
                    self.name, f"entries from index {first_index} came, but it ends at {size}"
                )
            if note_size > new_size:
                raise self._note_ahead(note_size, new_size)
            if rows:
                end.add_entries(first_index, rows)
            if checkpoint is not None:
                if stored is None:
                    end.add_checkpoint(*checkpoint)
                elif note_text(self._note(CHECKPOINTS, note_size, stored).note) != note_text(
                    checkpoint[1]
                ):
                    raise self._other_text(CHECKPOINTS.name, note_size)
        return new_size

    def size(self) -> int:
        """Return the number of entries."""
        with self._database.read() as connection:
            return _size(connection)

    def row(self, index: int) -> Row:
        """Return one entry.

        Raises:
            OutsideTree: the log has no such index.
            StoreCorrupt: it should be there, and is not, or a column of it has another type.
        """
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(*_row_columns).where(_index == index)
            ).one_or_none()
            if found is not None:
                return self._read.row(index, (index, *found))
            size = _size(connection)
        if 0 <= index < size:
            raise StoreCorrupt(self.name, f"entry {index} of {size} is gone; {REFILL}")
        raise OutsideTree(f"entry {index}", size)

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Row]:
        """Yield entries from ``start`` up to before ``stop``, in order, a page at a time.

        Args:
            start: first index, at least 0.
            stop: bounded by the present size, which is the default.

        Raises:
            StoreCorrupt: an entry within is missing, or a column of it has another type; those
                before it were yielded.
        """
        return self._pages(self._reading.rows, self._read.rows, start, stop)

    def leaves(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield leaf hashes, 32 bytes each, as ``rows`` yields entries."""
        return self._pages(self._reading.leaves, self._read.leaves, start, stop)

    def leaf_hashes(self, start: int, stop: int) -> bytes:
        """Return the leaf hashes from ``start`` up to before ``stop``, 32 bytes each, as one string."""
        return b"".join(self.leaves(start, stop))

    def find_leaf(self, leaf: bytes) -> int | None:
        """Return the index of the entry with a leaf hash, or None."""
        return self._find(ENTRIES.c.leaf == leaf)

    def find_seq(self, key: str, seq: int) -> int | None:
        """Return the index of the entry at a place of a key's chain, or None."""
        return self._find(sa.and_(ENTRIES.c.key == key, ENTRIES.c.seq == seq))

    # --- checkpoints ----------------------------------------------------------------------------

    def latest_checkpoint(self) -> StoredNote | None:
        """Return the signed checkpoint of the largest size."""
        return self._latest(CHECKPOINTS)

    def checkpoint_at(self, size: int) -> bytes | None:
        """Return the signed note over exactly ``size`` entries."""
        with self._database.read() as connection:
            return self._note_at(connection, CHECKPOINTS, size)

    def checkpoints(self, after: int = -1, limit: int = 1000) -> tuple[StoredNote, ...]:
        """Return signed checkpoints above size ``after``, smallest first, at most ``limit``."""
        return self._notes(CHECKPOINTS, after, limit)

    def put_final(self, size: int, note: bytes) -> None:
        """Keep a checkpoint with its quorum of cosignatures.

        The first one of a size stays; another of the same text is ignored.

        Raises:
            StoreConflict: its text is not that of the checkpoint or final stored at this size, or
                the log is shorter.
        """
        with self._database.write() as connection:
            signed = self._note_at(connection, CHECKPOINTS, size)
            if signed is not None and note_text(signed) != note_text(note):
                raise self._other_text("checkpoints", size)
            self._insert_note(connection, FINALS, StoredNote(size, note))

    def latest_final(self) -> StoredNote | None:
        """Return the final checkpoint of the largest size."""
        return self._latest(FINALS)

    def finals(self, after: int = -1, limit: int = 1000) -> tuple[StoredNote, ...]:
        """Return final checkpoints above size ``after``, smallest first, at most ``limit``."""
        return self._notes(FINALS, after, limit)

    # --- evidence and the witness's memory ------------------------------------------------------

    def put_conflict(self, kind: str, evidence: bytes) -> None:
        """Keep evidence for ever; the same bytes again are kept once."""
        digest = sha256(evidence).digest()
        known = sa.select(CONFLICTS.c.id).where(CONFLICTS.c.digest == digest)
        values = {"kind": kind, "digest": digest, "evidence": evidence}
        try:
            with self._database.write() as connection:
                if connection.execute(known).first() is None:
                    connection.execute(sa.insert(CONFLICTS).values(values))
        except StoreConflict:
            # The digest is the only constraint: another thread has kept the same bytes just now.
            return

    def conflicts(self) -> Iterator[Conflict]:
        """Yield all evidence, oldest first."""
        after = 0
        while True:
            query = sa.select(CONFLICTS.c.id, CONFLICTS.c.kind, CONFLICTS.c.evidence)
            query = query.where(CONFLICTS.c.id > after).order_by(CONFLICTS.c.id).limit(PAGE)
            with self._database.read() as connection:
                page = connection.execute(query).all()
            for after, kind, evidence in page:
                place = f"conflict {after}"
                yield Conflict(
                    self._read.value(str, kind, place, "kind"),
                    self._read.value(bytes, evidence, place, "evidence"),
                )
            if len(page) < PAGE:
                return

    def witnessed(self, origin: str) -> Witnessed | None:
        """Return what this witness last cosigned of a log, or None for nothing yet."""
        query = sa.select(WITNESSED.c.size, WITNESSED.c.root, WITNESSED.c.note)
        with self._database.read() as connection:
            found = connection.execute(query.where(WITNESSED.c.origin == origin)).one_or_none()
        if found is None:
            return None
        size, root, note = found
        return Witnessed(
            self._read.value(int, size, "the witness's memory", "size"),
            self._read.value(bytes, root, "the witness's memory", "root"),
            self._read.value(bytes, note, "the witness's memory", "note"),
        )

    def set_witnessed(
        self, origin: str, size: int, root: bytes, note: bytes, *, expected_size: int
    ) -> None:
        """Move a witness forward, durably, if it still stands where the caller judged from.

        Check and set are one transaction: of two requests judged from the same state one wins.
        Call it before the cosignature leaves the process.

        Args:
            origin: the log.
            size: the new size, at least ``expected_size``.
            root: the new root; at an unchanged size it must be the stored one.
            note: the whole signed checkpoint, the evidence in a fork.
            expected_size: the size judged from; 0 when nothing was witnessed.

        Raises:
            StoreConflict: the stored state is another by now, or would go back or sideways.
        """
        if size < expected_size:
            raise StoreConflict(
                self.name, f"witness of {origin!r} would go back from {expected_size} to {size}"
            )
        values = {"size": size, "root": root, "note": note}
        stands = [WITNESSED.c.origin == origin, WITNESSED.c.size == expected_size]
        if size == expected_size:
            stands.append(WITNESSED.c.root == root)
        with self._database.write() as connection:
            moved = connection.execute(sa.update(WITNESSED).where(*stands).values(values))
            if moved.rowcount == 1:
                return
            query = sa.select(WITNESSED.c.size).where(WITNESSED.c.origin == origin)
            stored = connection.execute(query).scalar_one_or_none()
            if stored is None and expected_size == 0:
                connection.execute(sa.insert(WITNESSED).values(origin=origin, **values))
            elif stored == expected_size:
                raise StoreConflict(
                    self.name, f"witness of {origin!r} holds another root at size {size}"
                )
            else:
                raise StoreConflict(
                    self.name,
                    f"witness of {origin!r} stands at {stored}, not at {expected_size}; judge anew",
                )

    # --- inside ---------------------------------------------------------------------------------

    def _pages(
        self,
        statement: str,
        convert: Callable[[int, Sequence[Sequence[Any]]], Iterator[T]],
        start: int,
        stop: int | None,
    ) -> Iterator[T]:
        """Read by index in short transactions: an append-only log looks the same to each.

        A cursor held open instead would keep SQLite's WAL from being emptied for as long as a
        slow reader takes.
        """
        size = self.size()
        stop = size if stop is None else min(stop, size)
        at = max(start, 0)
        while at < stop:
            end = min(at + PAGE, stop)
            with self._database.read() as connection:
                page = self._reading.page(connection, statement, at, end)
            there = [found[0] for found in page]
            if there != list(range(at, end)):
                expected = enumerate([*there, None], start=at)
                page = page[: next(index for index, found in expected if found != index) - at]
            yield from convert(at, page)
            at += len(page)
            if at < end:
                raise StoreCorrupt(self.name, f"entry {at} of {size} is gone; {REFILL}")

    def _find(self, condition: sa.ColumnElement[bool]) -> int | None:
        with self._database.read() as connection:
            return connection.execute(sa.select(_index).where(condition)).scalar_one_or_none()

    def _latest(self, table: sa.Table) -> StoredNote | None:
        query = sa.select(table.c.size, table.c.note).order_by(table.c.size.desc()).limit(1)
        with self._database.read() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else self._note(table, *found)

    def _notes(self, table: sa.Table, after: int, limit: int) -> tuple[StoredNote, ...]:
        query = sa.select(table.c.size, table.c.note).where(table.c.size > after)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(table.c.size).limit(limit)).all()
        return tuple(self._note(table, size, note) for size, note in found)

    def _note_at(self, connection: Connection, table: sa.Table, size: int) -> bytes | None:
        query = sa.select(table.c.note).where(table.c.size == size)
        found = connection.execute(query).one_or_none()
        return None if found is None else self._note(table, size, found[0]).note

    def _note(self, table: sa.Table, size: object, note: object) -> StoredNote:
        place = f"{table.name[:-1]} of size {size}"
        return StoredNote(
            self._read.value(int, size, place, "size"), self._read.value(bytes, note, place, "note")
        )

    def _insert_note(self, connection: Connection, table: sa.Table, note: StoredNote) -> None:
        """Insert a note, or see that the one of its size says the same."""
        size = _size(connection)
        if note.size > size:
            raise self._note_ahead(note.size, size)
        stored = self._note_at(connection, table, note.size)
        if stored is None:
            connection.execute(sa.insert(table).values(size=note.size, note=note.note))
        elif note_text(stored) != note_text(note.note):
            raise self._other_text(table.name, note.size)

    def _note_ahead(self, covered: int, size: int) -> StoreConflict:
        return StoreConflict(self.name, f"a note over {covered} entries came, but it has {size}")

    def _other_text(self, table: str, size: int) -> StoreConflict:
        return StoreConflict(
            self.name,
            f"{table} hold another text at size {size}; two signed texts of one size are a fork: "
            "keep both",
        )


def _size(connection: Connection) -> int:
    last: int | None = connection.execute(sa.select(sa.func.max(_index))).scalar_one()
    return 0 if last is None else last + 1
