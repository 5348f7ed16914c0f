"""The node's ear: one thread that asks the coordinator for news and hands it over, unjudged.

It asks again only after the owner of the copy has dealt with what came (`go_on`), so that it always
asks from the copy's true end; while nothing happens one request is held open by the coordinator, and
news arrives the moment there is any. A coordinator that does not answer is asked again with growing
pauses, for ever; one that answers at once what takes the copy no further, after a second each time.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ledger.errors import CoordinatorUnreachable, LedgerError, RequestRefused
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.follow import BEHIND
from ledger.exchange.messages import Followed

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 15.0
_EARLY_S = 0.5
_EARLY_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Position:
    """Where the copy ends, and how long the coordinator may hold the question.

    Attributes:
        size: entries held.
        final: size of the newest final checkpoint.
        note: the newest checkpoint, or None before the first.
        wait_s: 0 asks for an answer at once.
    """

    size: int
    final: int
    note: bytes | None
    wait_s: float


@dataclass(frozen=True, slots=True)
class News:
    """What a coordinator answered, and from which size on it was asked."""

    size: int
    followed: Followed


@dataclass(frozen=True, slots=True)
class NoNews:
    """The coordinator did not answer, or answered no."""

    error: LedgerError


class Follower:
    """The thread. ``report`` is called in it and must not block."""

    def __init__(
        self,
        client: CoordinatorClient,
        report: Callable[[News | NoNews], None],
    ) -> None:
        self._client = client
        self._report = report
        self._position: Position | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._listen, name="follower", daemon=True)

    def start(self) -> None:
        """Start; nothing is asked before the first `go_on`."""
        self._thread.start()

    def go_on(self, position: Position) -> None:
        """Ask for what comes after this position, unless a question is under way."""
        with self._changed:
            self._position = position
            self._changed.notify()

    def close(self) -> None:
        """Ask no more; a question under way is left to end by itself."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _listen(self) -> None:
        pause_s = _FIRST_PAUSE_S
        told_early: Position | None = None
        while (position := self._next()) is not None:
            if position == told_early:
                self._rest(_EARLY_PAUSE_S)
            began_s = time.monotonic()
            try:
                news = self._client.follow(position.size, position.final, position.wait_s)
            except LedgerError as error:
                self._tell(position, error)
                self._report(NoNews(error))
                self._rest(pause_s * random.uniform(0.7, 1.3))  # noqa: S311 - spreads retries
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except RuntimeError:
                if self._stopping:
                    return  # the connection was closed under a question that was held open
                raise
            else:
                pause_s = _FIRST_PAUSE_S
                early = position.wait_s > 0 and time.monotonic() - began_s < _EARLY_S
                told_early = position if early else None
                self._report(News(position.size, news))

    def _next(self) -> Position | None:
        with self._changed:
            while self._position is None and not self._stopping:
                self._changed.wait()
            position, self._position = self._position, None
            return None if self._stopping else position

    def _rest(self, pause_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, pause_s)

    def _tell(self, position: Position, error: LedgerError) -> None:
        """Show a coordinator that is behind what it signed its own checkpoint."""
        if not isinstance(error, RequestRefused) or error.error != BEHIND:
            return
        if position.note is not None:
            try:
                self._client.report_checkpoint(position.note)
            except (CoordinatorUnreachable, RequestRefused):
                return
