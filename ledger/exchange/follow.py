"""One step of following a log: ask, verify, keep.

The replica judges everything; this only carries. Call it in a loop: it comes back as soon as there
is news, or after ``wait_s``.
"""

from __future__ import annotations

from ledger.copies.replica import Replica
from ledger.errors import MalformedInput, RequestRefused
from ledger.exchange.client import CoordinatorClient
from ledger.rules.log import Sequenced

REFILLING = "Refilling"
"""What a coordinator answers that has lost its database and takes copies of it."""
BEHIND = "BehindItsLog"
"""What a coordinator answers whose log is shorter than what it signed before."""


def follow_once(
    replica: Replica, client: CoordinatorClient, wait_s: float = 0.0
) -> list[Sequenced]:
    """Poll once; take what verifies.

    Returns:
        The new entries with their verdicts; empty when there were none in time.

    Raises:
        CoordinatorUnreachable, RequestRefused: no answer, or no.
        ForkDetected: the coordinator shows another history; the replica kept both notes.
        MalformedInput, NotAdmitted, BadSignature, NotConsistent, NotWitnessed: what came does not
            verify; nothing of it was taken.
    """
    try:
        news = client.follow(replica.size, replica.finals_seen, wait_s)
    except RequestRefused as refusal:
        if refusal.error == BEHIND and replica.checkpoint is not None:
            client.report_checkpoint(replica.checkpoint)
        raise
    taken: list[Sequenced] = []
    if news.checkpoint is not None:
        taken = replica.extend(news.leaves, news.checkpoint)
    elif news.leaves:
        raise MalformedInput("log", "entries came without the checkpoint over them")
    for final in news.finals:
        replica.accept_final(final)
    return taken
