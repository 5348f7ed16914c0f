"""When this node cosigns: at once where somebody waits for it, else gathered over a short interval.

While a node has restarted and the others have not vouched for the log yet, and can do so alone, it
lets them cosign first: its own cosignature would make a checkpoint final that says nothing about what
others saw (``witness.vouched``).
"""

from __future__ import annotations

import time

import structlog

from ledger.copies.replica import Replica
from ledger.errors import CallFailed, StoreError
from ledger.exchange.client import CoordinatorClient
from ledger.formats.keys import SigningKey
from node.following.witness import Witness, awaits_final, others_suffice, vouched

_RETRY_S = 1.0
_HOLD_S = 1.0

_log = structlog.get_logger("node")


class Cosigning:
    """The witness with its pace and its way to the coordinator. One thread.

    Args:
        key: the witness key.
        handle, organisation: this node's.
        replica: the verified copy.
        client: takes cosignatures.
        interval_s: least time between cosignatures for which nobody waits.
    """

    def __init__(
        self,
        key: SigningKey,
        handle: str,
        organisation: str,
        replica: Replica,
        client: CoordinatorClient,
        interval_s: float,
    ) -> None:
        self._witness = Witness(key, handle, replica)
        self._organisation = organisation
        self._replica = replica
        self._client = client
        self._interval_s = interval_s
        self._last = float("-inf")
        self._not_before = float("-inf")
        self._restarted = False
        self._resumed_at: int | None = None
        self._vouched = False

    @property
    def vouched(self) -> bool:
        """Whether others vouched for the log since this node's restart, if it was one."""
        if not self._restarted:
            return True
        if self._resumed_at is None:
            return False
        # What was vouched for stays so: a later checkpoint may be final with our own cosignature and
        # fewer others, and nothing need follow it that a round waits for.
        if not self._vouched:
            self._vouched = vouched(self._replica.final, self._resumed_at, self._organisation)
        return self._vouched

    def restarted(self) -> None:
        """Know that the process is a restart, which is about to be said."""
        self._restarted = True

    def resumed(self, index: int) -> None:
        """The log has this node's ``node.resumed`` at an index."""
        self._resumed_at = index

    @property
    def due(self) -> float:
        """When to cosign next, on the monotonic clock; infinity when there is nothing new."""
        if not self._witness.due:
            return float("inf")
        state, final = self._replica.state, self._replica.final
        if not self.vouched:
            if others_suffice(state, final.size, self._organisation):
                return max(self._not_before, self._last + _HOLD_S)
            return self._not_before
        if awaits_final(state, final.size):
            return self._not_before
        return max(self._not_before, self._last + self._interval_s)

    def cosign(self, now_ms: int) -> None:
        """Cosign and send, if it is time.

        Args:
            now_ms: this node's clock.

        Raises:
            ForkDetected: the copy contradicts what was cosigned before.
        """
        now = time.monotonic()
        if now < self.due:
            return
        self._last = now
        try:
            cosigned = self._witness.cosign(now_ms)
            if cosigned is None:
                self._not_before = now + _RETRY_S  # the log's clock is ahead of ours
            else:
                self._client.cosign(cosigned.size, cosigned.line)
        except (CallFailed, StoreError) as error:
            _log.warning("cosignature.failed", error=str(error))
            self._witness.forget()
            self._not_before = now + _RETRY_S
