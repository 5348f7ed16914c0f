"""What comes from the coordinator: asked for, judged by the own copy, and handed on entry by entry.

Promise: nothing is handed on that the copy did not verify. While the coordinator is being refilled, it is
offered this copy. Whether the log forked, and what then, is for whoever is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from ledger.errors import ForkDetected, LedgerError, RequestRefused
from ledger.exchange.follow import REFILLING
from ledger.exchange.home import Membership
from ledger.exchange.messages import Followed
from ledger.rules.log import Sequenced
from node.following.follower import Follower, News, Position
from node.following.offering import offer_copy
from node.service.troubles import LONGEST_RETRY_S, Troubles

_LARGE = 200
"""Entries in one answer from which on there may be more to come."""
_log = structlog.get_logger("node")


class Listening:
    """Following the log, between the follower's thread and the copy. The owner's thread uses it.

    Attributes:
        reached: whether the coordinator answered the last time.
        due: monotonic seconds at which it is asked on; None while the follower is asking.
    """

    def __init__(
        self,
        membership: Membership,
        follower: Follower,
        troubles: Troubles,
        wait_s: float,
        *,
        heard: Callable[[Sequenced], None],
        forked: Callable[[ForkDetected], None],
        broken: Callable[[str], None],
    ) -> None:
        self._membership = membership
        self._replica = membership.replica
        self._follower = follower
        self._troubles = troubles
        self._wait_s = wait_s
        self._heard, self._forked, self._broken = heard, forked, broken
        self.reached = False
        self.due: float | None = float("-inf")

    def go_on(self) -> None:
        """Let the follower ask on from here, if it waits for that and it is time."""
        if self.due is not None and time.monotonic() >= self.due:
            self.due = None
            replica = self._replica
            # A first answer at once says that the copy is current, so that work can begin.
            wait_s = self._wait_s if self.reached else 0.0
            position = Position(replica.size, replica.finals_seen, replica.checkpoint, wait_s)
            self._follower.go_on(position)

    def hear(self, news: News) -> None:
        """Let the copy judge what came, and catch up where there may be more."""
        back = not self.reached
        if back:
            _log.info("coordinator.reached", url=self._membership.config.url)
        self.reached = True
        self.due = float("-inf")
        try:
            self._take(news.size, news.followed)
            if back or len(news.followed.leaves) >= _LARGE:
                # Judge the newest state only: rounds may have come and gone meanwhile.
                for item in self._membership.follow(0.0):
                    self._heard(item)
        except ForkDetected as fork:
            self._forked(fork)
            self.due = time.monotonic() + LONGEST_RETRY_S
        except LedgerError as error:
            self._troubles.note("the coordinator's answer does not verify", error)
            self.due = self._troubles.retry_at

    def unreached(self, error: LedgerError, *, forked: bool) -> None:
        """The coordinator did not answer, or not as it should: ask again at once."""
        if self.reached or self._troubles.said is None:
            _log.warning("coordinator.unreached", error=str(error))
        self.reached = False
        self._troubles.said = str(error)
        self.due = float("-inf")
        if isinstance(error, RequestRefused) and error.error == REFILLING and not forked:
            self._offer_copy()

    def _offer_copy(self) -> None:
        """The coordinator has lost its database: bring it what is here. Said again until it runs."""
        try:
            size = offer_copy(self._membership.client, self._replica, self._membership.blobs)
        except LedgerError as error:
            self._troubles.said = (
                f"the coordinator is being refilled, and did not take our copy: {error}"
            )
            _log.warning("copy.refused", error=str(error))
        else:
            _log.info("copy.offered", size=size)

    def _take(self, asked: int, news: Followed) -> None:
        """Let the copy judge and keep what came; trim what it has by now."""
        taken: list[Sequenced] = []
        if news.checkpoint is not None:
            known = self._replica.size - asked
            taken = self._replica.extend(news.leaves[known:], news.checkpoint)
        for final in news.finals:
            self._replica.accept_final(final)
        for item in taken:
            self._heard(item)
        for broken in self._membership.receipts.look():
            _log.error("receipt.broken", way=broken.way, index=broken.index, said=broken.said)
            self._broken(broken.said)
