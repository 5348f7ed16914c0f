"""Disks that crash: a store whose writes break, and a directory as a crash leaves it.

A write breaks in one of three ways: it is ``lost``; it is ``stored`` but reported lost; it is ``torn``,
which is the power going while it is under way: what lies on the disk is a part of SQLite's write-ahead
log. `as_crash_left_it` copies a directory the way the next process finds it, without closing anything.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, ParamSpec

from ledger.copies.store import LogStore
from ledger.errors import StoreUnusable

Break = Literal["lost", "stored", "torn"]
BREAKS: tuple[Break, ...] = ("lost", "stored", "torn")
LEDGER = "ledger.db"
WRITES = ("append", "put_final", "put_conflict", "set_witnessed")
"""Every kind of write that a store has."""

P = ParamSpec("P")


@dataclass(frozen=True)
class Before:
    """A store's files before a write: the write-ahead log's bytes, the database's time of change."""

    wal: bytes
    database_ns: int

    @classmethod
    def of(cls, directory: Path) -> Before:
        """As they lie there now."""
        wal = directory / f"{LEDGER}-wal"
        data = wal.read_bytes() if wal.exists() else b""
        return cls(data, (directory / LEDGER).stat().st_mtime_ns)


class BreakableStore(LogStore):
    """A store in a directory whose next write of a kind can be broken.

    Attributes:
        broke: whether the planned break has happened.
        before: what lay on the disk when the broken write began; None unless it is torn.
    """

    broke: bool = False
    before: Before | None = None
    _planned: tuple[str, Break] | None = None

    @classmethod
    def within(cls, directory: Path) -> BreakableStore:
        """Open the store of a directory."""
        store = cls.open(f"sqlite:///{directory / LEDGER}")
        store._directory = directory
        for kind in WRITES:
            setattr(store, kind, store._breaking(kind, getattr(store, kind)))
        return store

    def plan(self, kind: str, how: Break | None) -> None:
        """Break the next write of this kind; None breaks nothing."""
        self.broke, self.before = False, None
        self._planned = None if how is None else (kind, how)

    def _breaking(self, kind: str, write: Callable[P, object]) -> Callable[P, object]:
        def run(*arguments: P.args, **more: P.kwargs) -> object:
            if self._planned is None or self._planned[0] != kind:
                return write(*arguments, **more)
            (_, how), self._planned = self._planned, None
            self.broke = True
            if how == "torn":
                self.before = Before.of(self._directory)
            if how != "lost":
                write(*arguments, **more)
            raise StoreUnusable(self.name, f"the disk is gone ({kind} {how})")

        return run

    _directory: Path


def as_crash_left_it(
    old: Path, new: Path, chance: random.Random, before: Before | None = None
) -> None:
    """Copy a directory as the next process finds it after a crash.

    Args:
        old: in use until now; its shared memory and locks are not copied.
        new: made here.
        chance: decides where a torn write ends.
        before: what lay there before a write that was never answered; of what that write changed in
            the write-ahead log a part is there, from its first byte to any other. SQLite copies the
            log into the database only when the log is flushed: then nothing is cut.
    """
    shutil.copytree(old, new, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
    if before is None or before.database_ns != Before.of(old).database_ns:
        return
    wal = new / f"{LEDGER}-wal"
    after = wal.read_bytes()
    first = next(
        (at for at, (a, b) in enumerate(zip(before.wal, after, strict=False)) if a != b),
        min(len(before.wal), len(after)),
    )
    if first < len(after):
        cut = chance.randrange(first, len(after))
        wal.write_bytes(after[:cut] + before.wal[cut:])
