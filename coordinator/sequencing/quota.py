"""How much a member may say: a token bucket each.

Pure but for its own memory; the clock is handed in. An entry that is not sequenced costs nothing
here, so nobody can use up another member's quota with forged bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.errors import QuotaExceeded


@dataclass(frozen=True, slots=True)
class Quota:
    """Entries a second on the long run, and how many at once."""

    per_s: float = 50.0
    burst: float = 1000.0


class TokenBuckets:
    """One bucket a member; full at the start."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._level: dict[str, tuple[float, float]] = {}

    def take(self, handle: str, now_s: float) -> None:
        """Take one token.

        Raises:
            QuotaExceeded: the bucket is empty; says when it is not.
        """
        level, since_s = self._level.get(handle, (self._quota.burst, now_s))
        level = min(self._quota.burst, level + (now_s - since_s) * self._quota.per_s)
        if level < 1.0:
            raise QuotaExceeded(handle, retry_after_s=(1.0 - level) / self._quota.per_s)
        self._level[handle] = (level - 1.0, now_s)
