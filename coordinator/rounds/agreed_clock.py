"""Whether this machine's clock may go into the log.

Log time is the largest time that the coordinator ever wrote, and hospitals cosign nothing that is ahead of
their clocks. So one entry by a machine whose clock is a year ahead (a dead battery, a wrong date after a
repair) stops the log for a year. A member's signed request is let in only where both clocks agree to
`MAX_AGE_S` seconds; that is taken for agreement, until this machine's clock is set anew.

Not promised: that the time is right. A member whose clock errs alike agrees, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ledger.entries.author import clock_ms
from ledger.exchange.http_auth import MAX_AGE_S


class AgreedClock:
    """See the module's first lines. Told in one thread, asked in another.

    Args:
        now_ms: this machine's clock.
        steady_s: a clock that nobody sets.
    """

    def __init__(
        self,
        now_ms: Callable[[], int] = clock_ms,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now_ms = now_ms
        self._steady_s = steady_s
        self._apart_s: float | None = None

    def heard(self) -> None:
        """A member's request, signed at about this time, was let in."""
        self._apart_s = self._now_ms() / 1000 - self._steady_s()

    def may_say(self, log_time: int, skew_ms: int) -> bool:
        """Whether an entry of now is no risk.

        Args:
            log_time: the log's, POSIX milliseconds.
            skew_ms: how far hospitals let it be ahead of their clocks.
        """
        now_ms = self._now_ms()
        if now_ms <= log_time + skew_ms:
            return True
        apart_s = now_ms / 1000 - self._steady_s()
        return self._apart_s is not None and abs(apart_s - self._apart_s) <= MAX_AGE_S
