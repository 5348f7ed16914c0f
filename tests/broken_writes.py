"""Breaks one durable write of a running system: lost, or stored but reported lost.

Every write of a store goes through ``Database.write``, ``write_plainly`` or ``write_at_once``; the few files
beside it are written by one function each. `Writes` wraps them all, counts each kind under the name of the method that
writes, and breaks the one that a test names. The story that a test tells with it is the same each time;
what must hold in the end is that a story with a broken write ends as the honest one does.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any

import pytest

from ledger.copies.database import Database
from ledger.errors import StoreUnusable

GONE = "the disk is gone"


class Writes:
    """Counts every durable write, and breaks one.

    Attributes:
        seen: how many writes of each kind there were.
        broke: whether the one that was to break came.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        files: dict[str, tuple[type | ModuleType, str]],
        *,
        kind: str | None = None,
        number: int = 1,
        stored: bool = False,
        database: str | None = None,
    ) -> None:
        """Wrap everything that writes.

        Args:
            monkeypatch: undoes it.
            files: kind -> class or module, and its function that writes a file.
            kind, number: what to break: the number-th write of this kind, from 1; None for nothing.
            stored: whether it is stored, and only reported lost.
            database: name of the one whose writes count; by default all.
        """
        self.seen: Counter[str] = Counter()
        self.broke = False
        self._kind, self._number, self._stored = kind, number, stored
        for begin in (Database.write, Database.write_plainly, Database.write_at_once):
            monkeypatch.setattr(Database, begin.__name__, self._watching(begin, database))
        for name, (owner, method) in files.items():
            monkeypatch.setattr(owner, method, self._wrap(name, getattr(owner, method)))

    def _watching(
        self, begin: Callable[[Database], AbstractContextManager[Any]], database: str | None
    ) -> Callable[[Database], AbstractContextManager[Any]]:
        def writing(written: Database) -> AbstractContextManager[Any]:
            if database not in (None, written.name):
                return begin(written)
            return self._around(_writer(), begin(written))

        return writing

    def _wrap(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            breaks = self._is_due(kind)
            if breaks and not self._stored:
                raise OSError(5, GONE)
            result = function(*arguments, **named)
            if breaks:
                raise OSError(5, GONE)
            return result

        return wrapped

    @contextmanager
    def _around(self, kind: str, transaction: AbstractContextManager[Any]) -> Iterator[Any]:
        breaks = self._is_due(kind)
        with transaction as connection:
            yield connection
            if breaks and not self._stored:
                raise StoreUnusable("test", GONE)  # inside: it is rolled back
        if breaks:
            raise StoreUnusable("test", GONE)

    def _is_due(self, kind: str) -> bool:
        self.seen[kind] += 1
        due = kind == self._kind and self.seen[kind] == self._number and not self.broke
        self.broke = self.broke or due
        return due


def writers(owner: type) -> set[str]:
    """Names of the methods of a class that begin a durable transaction, as `Writes` counts them."""
    called = re.compile(r"self\._(?:database\.write(?:_plainly|_at_once)?|writing)\(\)")
    return {
        f"{owner.__name__}.{name}"
        for name, method in inspect.getmembers(owner, inspect.isfunction)
        if name != "_writing" and called.search(inspect.getsource(method))
    }


def _writer() -> str:
    """The method that writes: the nearest one above the machinery of contexts."""
    frame = sys._getframe(2)
    while frame.f_code.co_name in ("_writing", "__enter__"):
        assert frame.f_back is not None
        frame = frame.f_back
    return frame.f_code.co_qualname
