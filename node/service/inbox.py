"""What the owner's thread is woken by: news, finished work, and calls from other threads.

Promise: a function that another thread asks for runs in the owner's thread, in the order of arrival; its
errors come back to whoever asked.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from ledger.errors import LedgerError
from node.errors import NodeError
from node.following.follower import News, NoNews
from node.training.process.trainer import Done, Tested

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stop:
    """End."""


@dataclass(frozen=True, slots=True)
class Nudge:
    """Look again: something outside the log changed."""


@dataclass(frozen=True, slots=True)
class Call:
    """Run a function in the owner's thread."""

    run: Callable[[], None]


Event = News | NoNews | Done | Tested | Stop | Nudge | Call


class Inbox:
    """Events for one owner; any thread may put them."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def put(self, event: Event) -> None:
        """Wake the owner with it."""
        self._events.put(event)

    def arrived(self, patience_s: float | None) -> Iterator[Event]:
        """What is here, after waiting for the first at most so long; None waits for ever."""
        try:
            first = self._events.get(timeout=patience_s)
        except queue.Empty:
            return
        yield first
        while not self._events.empty():
            yield self._events.get()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run a function in the owner's thread; its result, or its error, comes in time."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except (LedgerError, NodeError) as error:
                future.set_exception(error)

        self.put(Call(run))
        return future
