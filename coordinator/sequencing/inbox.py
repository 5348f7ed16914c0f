"""What waits for the sequencer's thread: put in by any thread, taken out by one, a batch at a time.

Whatever is put in gets an answer: once the inbox is closed, that the coordinator has stopped; where the
work itself falls over something that nobody foresaw, that it is not done (`mishap`). Nothing is taken back:
who waits may go (a server that stops cancels its requests), and it is done all the same.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import structlog

from coordinator.errors import CoordinatorError, Mishap, NotSequencing, Overloaded
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import LedgerError
from ledger.exchange.messages import Receipt
from ledger.formats.witness import MAX_REQUEST

_log = structlog.get_logger("coordinator.sequencing.inbox")

MAX_BATCH = 512
"""Submissions in one transaction."""
MAX_BATCH_BYTES = 1024 * 1024
MAX_WAITING = 16 * 1024
"""Entries, cosignatures and checkpoints that wait: whoever sends them, for none has been judged yet."""
MAX_WAITING_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Submit:
    """An entry that somebody hands in."""

    leaf: bytes
    future: Future[Receipt]


@dataclass(frozen=True, slots=True)
class Say:
    """What the coordinator says itself, all of it at once."""

    ops: tuple[Operation, ...]
    future: Future[tuple[Receipt, ...]]


@dataclass(frozen=True, slots=True)
class Call:
    """Something else to do in the sequencer's thread."""

    work: Callable[[], None]
    future: Future[None]

    def do(self) -> bool:
        """Do it, and answer; False when it fell over something that nobody foresaw."""
        try:
            self.work()
        except (LedgerError, CoordinatorError) as refusal:
            self.future.set_exception(refusal)
        except Exception as error:  # noqa: BLE001
            self.future.set_exception(mishap(error))
            return False
        else:
            self.future.set_result(None)
        return True


Work = Submit | Say | Call


def mishap(error: Exception) -> Mishap:
    """The answer to who asked for what fell over; our log has the rest."""
    _log.error("fell over, and was left out", exc_info=error)
    return Mishap()


def answer_no(work: Iterable[Work], refusal: CoordinatorError) -> None:
    """Refuse what has no answer yet; from any thread."""
    for item in work:
        with suppress(InvalidStateError):  # it has one, perhaps from another thread just now
            item.future.set_exception(refusal)


class Inbox:
    """A queue with a door."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._closed = False
        self._waiting = self._waiting_bytes = 0
        self._taken_at_s: float | None = None

    def submit(self, leaf: bytes) -> Future[Receipt]:
        """Hand in an entry."""
        future: Future[Receipt] = Future()
        self._put(Submit(leaf, future))
        return future

    def say(self, ops: tuple[Operation, ...]) -> Future[tuple[Receipt, ...]]:
        """Let the coordinator say something."""
        future: Future[tuple[Receipt, ...]] = Future()
        self._put(Say(ops, future))
        return future

    def call(self, work: Callable[[], None]) -> Future[None]:
        """Let something else be done."""
        future: Future[None] = Future()
        self._put(Call(work, future))
        return future

    def _put(self, item: Work) -> None:
        """Let something wait, or refuse it when the door is closed or too much waits already."""
        # Cancelled now, it could not be answered, and whoever answers would fall over that.
        item.future.set_running_or_notify_cancel()
        refusal: CoordinatorError = NotSequencing("the coordinator has stopped")
        with self._door:
            full = self._waiting >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES
            if not self._closed and full and not isinstance(item, Say):
                refusal = Overloaded()
            elif not self._closed:
                self._waiting += 1
                self._waiting_bytes += _length(item)
                self._queue.put(item)
                return
        item.future.set_exception(refusal)

    def take(self, timeout: float | None) -> tuple[list[Work], bool]:
        """Wait for work and take all that is there, up to a batch; whether the end was reached.

        Args:
            timeout: seconds after which nothing is taken, or None to wait for ever.
        """
        self._taken_at_s = None
        work, ended = self._taken(timeout)
        self._taken_at_s = time.monotonic() if work else None
        with self._door:
            self._waiting -= len(work)
            self._waiting_bytes -= sum(map(_length, work))
        return work, ended

    def busy_s(self, now_s: float) -> float:
        """Seconds since what was taken last, while nobody has come for more; from any thread."""
        taken_at_s = self._taken_at_s
        return 0.0 if taken_at_s is None else now_s - taken_at_s

    def _taken(self, timeout: float | None) -> tuple[list[Work], bool]:
        work: list[Work] = []
        length = 0
        try:
            item = self._queue.get(timeout=timeout)
            while item is not None:
                work.append(item)
                length += len(item.leaf) if isinstance(item, Submit) else 1024
                if len(work) >= MAX_BATCH or length >= MAX_BATCH_BYTES:
                    return work, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return work, False
        return work, True

    def close(self) -> None:
        """Take nothing more in; what waits is still taken out, and then the end."""
        with self._door:
            self._closed = True
            self._queue.put(None)

    def refuse_rest(self) -> None:
        """Close, and answer all that still waits that the coordinator has stopped."""
        with self._door:
            self._closed = True
        while not self._queue.empty():
            left = self._queue.get()
            if left is not None:
                left.future.set_exception(NotSequencing("the coordinator has stopped"))


def _length(item: Work) -> int:
    """Bytes that something holds; a checkpoint or cosignatures hold as much as a request may have."""
    if isinstance(item, Submit):
        return len(item.leaf)
    return MAX_REQUEST if isinstance(item, Call) else 1024
