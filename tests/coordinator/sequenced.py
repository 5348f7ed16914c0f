"""A sequencer over a federation in memory, and what others see of its store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coordinator.sequencing.sequencer import Sequencer
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.operations.audits import LedgerReviewed
from tests.federation import COORDINATOR, Federation


@contextmanager
def sequencing(
    federation: Federation, home: Path, store: LogStore | None = None, **options: Any
) -> Iterator[Sequencer]:
    opened = store or LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    try:
        sequencer = Sequencer(
            opened,
            federation.rings[COORDINATOR],
            federation.id,
            head=home / "head.note",
            now_ms=lambda: federation.now_ms,
            **{"final_interval_s": 0.0, **options},
        )
        sequencer.start()
        try:
            yield sequencer
        finally:
            sequencer.close()
    finally:
        opened.close()


def reviewed(federation: Federation, number: int = 0) -> LedgerReviewed:
    return LedgerReviewed(type="ledger.reviewed", size=number, root="0" * 64, finding="in_order")


def verified(federation: Federation, home: Path) -> Replica:
    """Open the store as an auditor would: from its first byte."""
    return Replica.open(LogStore.open(f"sqlite:///{home / 'ledger.db'}"), federation.id)
