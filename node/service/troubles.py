"""What stands in the way of a node's work now, and when it tries again: after a growing pause."""

from __future__ import annotations

import time

import structlog

from ledger.errors import LedgerError
from node.errors import NodeError

LONGEST_RETRY_S = 30.0
_RETRY_S = 0.5

_log = structlog.get_logger("node")


class Troubles:
    """The last trouble in words, and the pause after it. One thread uses it.

    Attributes:
        said: the trouble, or None.
        retry_at: monotonic seconds before which nothing is tried again; None at once.
    """

    def __init__(self) -> None:
        self.said: str | None = None
        self.retry_at: float | None = None
        self._pause_s = _RETRY_S

    @property
    def pausing(self) -> bool:
        """Whether a step failed a moment ago."""
        return self.retry_at is not None and time.monotonic() < self.retry_at

    def note(self, what: str, error: LedgerError | NodeError) -> None:
        """Note it, and try again after a growing pause."""
        self.said = f"{what}: {error}"
        _log.warning("node.trouble", what=what, error=str(error))
        self.retry_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_RETRY_S)

    def over(self) -> None:
        """A step succeeded."""
        self.said, self.retry_at, self._pause_s = None, None, _RETRY_S
