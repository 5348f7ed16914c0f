"""Promises that renew, by two clocks: the log's time, which is the coordinator's, and this hospital's own.

The fold sums what a cell is charged per period of log time, the private register per period of the
hospital's clock, and a node reserves only what both admit, while both are in the same period. So each promise
holds by either clock, whatever the other one says: a coordinator that runs ahead refreshes nothing here, nor does
a hospital's clock that jumped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ledger.entries.operations.datasets import CellCharge
from ledger.rules.state import State
from node.register.accounts import PrivateView
from privacy.periods import Periods


def periods_in(state: State, name: str, now_ms: int) -> Periods | None:
    """How a log says that a cell's promise renews, in the period of this hospital's clock."""
    cell = state.cells[name]
    if cell.periods is None:
        return None
    earlier = cell.periods.used(cell.spend)
    return replace(cell.periods, number=cell.periods.at(now_ms), earlier=earlier)


def out_of_step(state: State, charges: Iterable[CellCharge], now_ms: int) -> str | None:
    """Why nothing may be charged now to cells whose promise renews: two clocks that disagree; or None.

    The log's time is the coordinator's, and this hospital's clock may be wrong: a new period's budget is
    there when both say so.
    """
    for charge in charges:
        periods = state.cells[charge.cell].periods
        if periods is not None and periods.at(now_ms) != periods.at(state.log_time):
            return (
                f"by this hospital's clock and by the log's time it is not the same period of cell "
                f"{charge.cell}, whose promise renews every {periods.days} days"
            )
    return None


def to_close(state: State, me: str, view: PrivateView) -> Iterator[tuple[str, str]]:
    """Statistics that are told, and that a cell whose promise renews still counts as open: who and whose."""
    for identity, held in state.statistics.items():
        dataset = held.terms.dataset
        if (
            held.result is not None
            and view.charges.get((identity, dataset)) == "reserved"
            and state.datasets[dataset].node == me
            and any(state.cells[c.cell].periods is not None for c in held.terms.charges)
        ):
            yield identity, dataset
