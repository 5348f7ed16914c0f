"""Saying a registration to the log: until the own copy has it, and which were said before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ledger.copies.replica import Replica
from ledger.entries.entry import parse_entry
from ledger.entries.operations.datasets import DatasetRegistered
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import CoordinatorUnreachable
from ledger.exchange.home import Membership
from ledger.rules.log import Sequenced
from ledger.rules.state import State

_FOLLOW_S = 5.0
_REGISTERS = b'"dataset.registered"'


def say_and_follow(
    membership: Membership,
    op: Operation,
    *,
    heard: Callable[[Sequenced], None] | None = None,
    timeout_s: float = 60.0,
) -> str | None:
    """Say an operation and wait until the own verified copy has it: the `Say` of a home.

    Args:
        membership: an open home; call from its thread.
        op: what to say.
        heard: told of every entry that came meanwhile.
        timeout_s: how long to wait for it.

    Returns:
        None when it took effect, else why it is void, by the own fold.

    Raises:
        LedgerError: it could not be said, or did not come back in time.
    """
    receipt = membership.author.submit(op)
    verdict = receipt.reason
    deadline = time.monotonic() + timeout_s
    while membership.replica.size <= receipt.index:
        if time.monotonic() > deadline:
            raise CoordinatorUnreachable(
                membership.config.url, f"entry {receipt.index} did not appear in the log"
            )
        for item in membership.follow(_FOLLOW_S):
            if heard is not None:
                heard(item)
            if item.index == receipt.index:
                verdict = item.outcome.void
    return verdict


def registrations_said(
    replica: Replica, state: State, organisation: str
) -> Iterator[tuple[str, int]]:
    """Snapshot and time of each registration that a hospital said, void ones included.

    Of datasets that a log took over from another the time is unknown: 0.
    """
    nodes = {m.handle for m in state.members.values() if m.organisation == organisation}
    for row in replica.store.rows(0):
        if _REGISTERS in row.body:
            body = parse_entry(row.body, row.signature).body
            if body.author in nodes and isinstance(body.op, DatasetRegistered):
                yield body.op.snapshot, body.at_ms
    if state.succession is None:
        return
    for dataset in state.datasets.values():
        if dataset.organisation == organisation:
            yield dataset.terms.snapshot, 0
