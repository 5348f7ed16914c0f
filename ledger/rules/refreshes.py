"""Rules for promises that renew: declared once, before a cell is used; then counted by the log's time.

A cell's charges are then summed per period (``purposes.py``, ``privacy.periods``). Which one is under way, the fold reads from log time and the declared beginning alone. So a coordinator whose clock runs
ahead moves the fold into the next period early; every node's register counts the same charges by its own
clock beside it, and reserves only while both are in the same period (``node.duties.judging``).
"""

from __future__ import annotations

import dataclasses

from ledger.entries.operations.refreshes import RefreshDeclared
from ledger.entries.operations.succession import CarriedRefresh
from ledger.entries.operations.values import MAX_INT
from ledger.rules.individual import is_individual
from ledger.rules.state import State, replace
from ledger.rules.verdict import Step, Void
from privacy.filters import Spend
from privacy.periods import DAY_MS, Periods


def declared(state: State, step: Step, op: RefreshDeclared) -> State | Void:
    """A hospital says of a cell that no dataset has named yet after how many days its promise renews."""
    cell = state.cells.get(op.cell)
    if cell is None:
        return Void("unknown_cell")
    if cell.organisation != state.members[step.author].organisation:
        return Void("not_owner")
    if is_individual(cell.terms):
        return Void("individual_cell")
    if cell.periods is not None:
        return Void("repeated")
    if is_in_use(state, op.cell):
        return Void("cell_exists")
    if op.from_ms + op.days * DAY_MS <= state.log_time:
        return Void("cell_terms")
    cell = replace(cell, periods=Periods(op.days, op.from_ms))
    return replace(state, cells=state.cells.set(op.cell, cell))


def is_in_use(state: State, cell: str) -> bool:
    """Whether anything was offered or reserved of a cell."""
    held = state.cells[cell]
    return held.spend != Spend() or any(
        use.cell == cell for dataset in state.datasets.values() for use in dataset.terms.cells
    )


def carried_refresh(periods: Periods | None) -> CarriedRefresh | None:
    """What a successor takes over of how a promise renews."""
    if periods is None:
        return None
    return CarriedRefresh(
        days=periods.days,
        from_ms=periods.from_ms,
        number=periods.number,
        earlier=periods.earlier,
        total_g=min(periods.total_g, MAX_INT),
        total_r=min(periods.total_r, MAX_INT),
    )


def resumed(carried: CarriedRefresh, spend: Spend, log_time: int) -> Periods:
    """The periods of a carried cell, whose spend counts in full in the one in which the new log begins.

    What was open in the old log may have been released since; nothing of it is open in this one.
    """
    before = Periods(
        days=carried.days,
        from_ms=carried.from_ms,
        number=carried.number,
        earlier=carried.earlier,
        total_g=carried.total_g,
        total_r=carried.total_r,
    )
    number = max(before.number, before.at(log_time))
    passed = number - before.number if spend.g or spend.r else 0
    return dataclasses.replace(before, number=number, earlier=before.earlier + passed)
