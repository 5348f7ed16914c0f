"""The hospital's book of promises: what each federation that it is in may spend of its patients' lifetime.

A home is one federation, and its register sums within it. A hospital in several gives them one book: it
holds the lifetime promise (epsilon, delta) to any patient, made once and for ever, and each federation's
allotment of it, which is the largest promise to a cell there. A patient has one cell in a federation, so
what all federations together release about him is (sum of epsilons, sum of deltas)-private: promises of
interactive mechanisms that run side by side add up (Vadhan & Zhang 2023, arXiv:2207.08335). The halves and
blocks in which the federations have a patient do not matter. Where the hospital's promises renew, the sums are
those of each period, so all federations have the same ones: as long, and with the same boundaries.

Promise: the allotments never add up to more than the lifetime promise, whichever homes ask at once, and
none is ever lowered; a write is durable when its function returns. An allotment is written before the
cell's promise is signed, and asked for again whenever a node starts.

Not promised: anything about a federation whose home does not name this book in its settings. Nobody but
the hospital knows of that one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from ledger.entries.operations.datasets import CellRegistered
from ledger.rules.datasets import DELTA_MAX_E15
from node.errors import PromiseExceeded
from privacy.periods import DAY_MS

_BUSY_TIMEOUT_S = 30.0
_TABLES = (
    "CREATE TABLE IF NOT EXISTS lifetime (one INTEGER PRIMARY KEY CHECK (one = 1), "
    "epsilon_micro INTEGER NOT NULL, delta_e15 INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS allotments (federation TEXT PRIMARY KEY, "
    "epsilon_micro INTEGER NOT NULL, delta_e15 INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS renewal (one INTEGER PRIMARY KEY CHECK (one = 1), "
    "days INTEGER NOT NULL, from_ms INTEGER NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class Share:
    """An epsilon and a delta: of the lifetime, or of one federation.

    Attributes:
        epsilon_micro: in millionths.
        delta_e15: in units of 1e-15.
    """

    epsilon_micro: int
    delta_e15: int

    def __str__(self) -> str:
        return f"epsilon {self.epsilon_micro / 1e6:g}, delta {self.delta_e15 / 1e15:.3g}"


class PromiseBook:
    """See the module's first lines. Made where there is none; several processes may use it.

    Args:
        path: the file, the same in the settings of every home of this hospital.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def named(cls, path: Path | None) -> Self | None:
        """The book that a home's settings name, or None."""
        return None if path is None else cls(path)

    def promise(self, epsilon_micro: int, delta_e15: int) -> Share:
        """Make the lifetime promise; the same again changes nothing.

        Raises:
            PromiseExceeded: there is another one, which is for ever.
        """
        wanted = Share(epsilon_micro, delta_e15)
        if not (epsilon_micro > 0 and 0 < delta_e15 <= DELTA_MAX_E15):
            raise PromiseExceeded(str(self._path), f"{wanted} cannot be a lifetime promise")
        with self._writing() as book:
            held = _lifetime(book)
            if held is None:
                book.execute("INSERT INTO lifetime VALUES (1, ?, ?)", (epsilon_micro, delta_e15))
            elif held != wanted:
                raise PromiseExceeded(
                    str(self._path), f"its lifetime promise is {held} for ever, not {wanted}"
                )
        return wanted

    def lifetime(self) -> Share | None:
        """The lifetime promise, or None before it was made."""
        with self._writing() as book:
            return _lifetime(book)

    def allotments(self) -> dict[str, Share]:
        """Each federation's share, by its id."""
        with self._writing() as book:
            return _allotments(book)

    def renewal(self) -> tuple[int, int] | None:
        """Days of a period and when one begins, POSIX milliseconds; None where promises are for ever."""
        with self._writing() as book:
            return _renewal(book)

    def allot(
        self,
        federation: str,
        cells: Iterable[CellRegistered],
        renewal: tuple[int, int] | None = None,
    ) -> None:
        """Give a federation what it promises to its cells, or nothing.

        Args:
            federation: id.
            cells: all promises there, new ones included; nothing happens without any.
            renewal: days of their periods and when one begins; None where they are for ever.

        Raises:
            PromiseExceeded: no lifetime promise was made, or too little of it is left, or promises renew
                otherwise than those of the federations before.
        """
        promised = tuple(cells)
        if not promised:
            return
        with self._writing() as book:
            lifetime = _lifetime(book)
            if lifetime is None:
                raise PromiseExceeded(
                    str(self._path),
                    "it holds no lifetime promise: say --lifetime with this hospital's first dataset, "
                    "or put the book back from a backup",
                )
            given = _allotments(book)
            if not given and renewal is not None:
                book.execute("INSERT OR REPLACE INTO renewal VALUES (1, ?, ?)", renewal)
            self._check_renewal(_renewal(book), renewal)
            before = given.pop(federation, Share(0, 0))
            mine = Share(
                max(before.epsilon_micro, *(cell.epsilon_micro for cell in promised)),
                max(before.delta_e15, *(cell.delta_e15 for cell in promised)),
            )
            largest = max(cell.declared_patients for cell in promised)
            delta_most = min(lifetime.delta_e15, 10**15 // (10 * largest))
            if (
                sum(share.epsilon_micro for share in given.values()) + mine.epsilon_micro
                > lifetime.epsilon_micro
                or sum(share.delta_e15 for share in given.values()) + mine.delta_e15 > delta_most
            ):
                others = "; ".join(f"{name[:12]} has {share}" for name, share in given.items())
                raise PromiseExceeded(
                    str(self._path),
                    f"this federation asks for {mine} of a lifetime of {lifetime}"
                    + (f", of which {others}" if others else "")
                    + "; promise less here (--epsilon, --delta)",
                )
            book.execute(
                "INSERT OR REPLACE INTO allotments VALUES (?, ?, ?)",
                (federation, mine.epsilon_micro, mine.delta_e15),
            )

    def _check_renewal(self, held: tuple[int, int] | None, wanted: tuple[int, int] | None) -> None:
        """One length and one set of boundaries, or periods would overlap in part."""
        if _boundaries(held) == _boundaries(wanted):
            return
        said = [
            "for ever" if one is None else f"for each {one[0]} days, counted from {_day(one[1])}"
            for one in (held, wanted)
        ]
        raise PromiseExceeded(
            str(self._path), f"its promises are {said[0]}, and this federation's {said[1]}"
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.touch(mode=0o600, exist_ok=True)
            with closing(
                sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
            ) as book:
                book.execute("PRAGMA synchronous = FULL")
                book.execute("BEGIN IMMEDIATE")
                with book:  # commits, or rolls back what the database has not rolled back already
                    for table in _TABLES:
                        book.execute(table)
                    yield book
        except (OSError, sqlite3.Error) as error:
            raise PromiseExceeded(str(self._path), f"it cannot be used: {error}") from None


def _lifetime(book: sqlite3.Connection) -> Share | None:
    row = book.execute("SELECT epsilon_micro, delta_e15 FROM lifetime").fetchone()
    return None if row is None else Share(*row)


def _allotments(book: sqlite3.Connection) -> dict[str, Share]:
    rows = book.execute("SELECT federation, epsilon_micro, delta_e15 FROM allotments ORDER BY 1")
    return {name: Share(epsilon, delta) for name, epsilon, delta in rows}


def _renewal(book: sqlite3.Connection) -> tuple[int, int] | None:
    row = book.execute("SELECT days, from_ms FROM renewal").fetchone()
    return None if row is None else (row[0], row[1])


def _boundaries(renewal: tuple[int, int] | None) -> tuple[int, int] | None:
    return None if renewal is None else (renewal[0], renewal[1] % (renewal[0] * DAY_MS))


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()
