"""What a cell's patients were promised per purpose, and how a cell pays: in all, and for a purpose.

A hospital may say, per cell and purpose, how much of the lifetime promise all experiments that state
the purpose may use together: an epsilon at the cell's delta, as integer gates in both lanes. Such a part
is a filter of its own beside the cell's (the same two lanes, ``privacy.filters``): everything released for
the purpose is (that epsilon, delta)-private, and a reservation is admitted where both admit it. A part is
only ever lowered. What was spent before it was said counts.

A purpose is what the researcher states and the steward approves: the log holds that, and no proof of it.
Parts need not add up to the promise; the cell's own gate holds beside them.

Where the cell's promise renews (``refreshes.py``), all of this is summed per period: whatever pays, or gets
something back, first enters the period of the log's time.
"""

from __future__ import annotations

from typing import Literal

from ledger.entries.operations.purposes import PurposeCode, PurposeLimited
from ledger.rules.individual import is_individual
from ledger.rules.state import Cell, PurposeShare, State, replace
from ledger.rules.verdict import Step, Void
from privacy import periods as renewing
from privacy.errors import BudgetExceeded
from privacy.filters import Charge, Limit, Spend, left, repeats, reserve, settle

NONE = PurposeShare()
"""Of a purpose for which nothing was said or spent."""


def limited(state: State, step: Step, op: PurposeLimited) -> State | Void:
    """A hospital lowers what one purpose may use of its own cell; what is spent above it stays spent."""
    cell = state.cells.get(op.cell)
    if cell is None:
        return Void("unknown_cell")
    if cell.organisation != state.members[step.author].organisation:
        return Void("not_owner")
    if is_individual(cell.terms):
        return Void("individual_cell")
    cell = now(cell, state.log_time)
    before = cell.purposes.get(op.purpose, NONE)
    if before.terms == op:
        return Void("repeated")
    epsilon, g_max, r_max = _highest(cell, before)
    if op.epsilon_micro > epsilon or op.g_max > g_max or op.r_max > r_max:
        return Void("purpose_raised")
    part = replace(before, terms=op)
    share = replace(part, spend=renewing.closing(part.spend, purpose_gate(cell, part)))
    cell = replace(cell, purposes=cell.purposes.set(op.purpose, share))
    return replace(state, cells=state.cells.set(op.cell, cell))


def gate(cell: Cell) -> Limit:
    """The cell's integer gates as the filter takes them."""
    limit = cell.terms.limit
    return Limit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi)


def purpose_gate(cell: Cell, share: PurposeShare) -> Limit:
    """The integer gates of a purpose: the cell's own where nothing was said."""
    terms = share.terms
    if terms is None:
        return gate(cell)
    return Limit(g_max=terms.g_max, r_max=terms.r_max, order_centi=cell.terms.limit.order_centi)


def now(cell: Cell, at_ms: int) -> Cell:
    """A cell in the period of a time: as it is, or at the beginning of a new one.

    Each purpose's part begins anew with the cell's, over what is still open of it.
    """
    if cell.periods is None or cell.periods.at(at_ms) <= cell.periods.number:
        return cell
    spend, periods = renewing.entered(cell.spend, cell.periods, gate(cell), at_ms)
    purposes = cell.purposes
    for code, share in cell.purposes.items():
        part = Spend(share.open_g, share.open_r)
        if share.terms is not None:
            part = renewing.closing(part, purpose_gate(cell, share))
        purposes = purposes.set(code, replace(share, spend=part))
    return replace(cell, spend=spend, periods=periods, purposes=purposes)


def cell_now(state: State, name: str) -> Cell:
    """A cell in the period of the log's time."""
    return now(state.cells[name], state.log_time)


def is_closed(cell: Cell, purpose: str) -> bool:
    """Whether the cell, or its part for the purpose, admits nothing more in either lane."""
    share = cell.purposes.get(purpose, NONE)
    rooms = left(cell.spend, gate(cell)), left(share.spend, purpose_gate(cell, share))
    return any(room.g == 0 and room.r == 0 for room in rooms)


def fitting(cell: Cell, purpose: str, charge: Charge) -> int:
    """How many more requests like ``charge`` the cell, and its part for the purpose, both admit."""
    share = cell.purposes.get(purpose, NONE)
    return min(
        repeats(cell.spend, charge, gate(cell)),
        repeats(share.spend, charge, purpose_gate(cell, share)),
    )


def pay(
    cell: Cell, purpose: PurposeCode, charge: Charge, at_ms: int
) -> Cell | Literal["budget_exhausted", "purpose_exhausted"]:
    """The cell after a charge that its gate and the purpose's admit, or why they do not.

    A cell whose patients have accounts (``individual.py``) has no gate here, and no sum.

    Args:
        cell: before.
        purpose: whose part pays.
        charge: open until it is given back (`give_back`).
        at_ms: the log's time.
    """
    if is_individual(cell.terms):
        return cell
    cell = now(cell, at_ms)
    share = cell.purposes.get(purpose, NONE)
    try:
        spend = reserve(cell.spend, charge, gate(cell))
    except BudgetExceeded:
        return "budget_exhausted"
    if share.terms is None:
        part = _added(share.spend, charge)
    else:
        try:
            part = reserve(share.spend, charge, purpose_gate(cell, share))
        except BudgetExceeded:
            return "purpose_exhausted"
    share = replace(share, spend=part)
    if cell.periods is None:
        return _put(cell, spend, purpose, share)
    share = replace(share, open_g=share.open_g + charge.g, open_r=share.open_r + charge.r)
    return _put(cell, spend, purpose, share, renewing.reserved(cell.periods, charge))


def pay_anyway(cell: Cell, purpose: PurposeCode, charge: Charge, at_ms: int) -> Cell:
    """The cell after a charge that nothing can undo: it closes the lanes that it overflows."""
    if is_individual(cell.terms):
        return cell
    cell = now(cell, at_ms)
    share = cell.purposes.get(purpose, NONE)
    spend = renewing.closing(_added(cell.spend, charge), gate(cell))
    part = _added(share.spend, charge)
    if share.terms is not None:
        part = renewing.closing(part, purpose_gate(cell, share))
    periods = None if cell.periods is None else renewing.charged(cell.periods, charge)
    return _put(cell, spend, purpose, replace(share, spend=part), periods)


def give_back(cell: Cell, purpose: PurposeCode, held: Charge, refund: Charge, at_ms: int) -> Cell:
    """The cell after a reservation of ``held`` was settled; closed lanes stay closed.

    Raises:
        RefundTooLarge: more than was charged.
    """
    if is_individual(cell.terms):
        return cell
    cell = now(cell, at_ms)
    share = cell.purposes.get(purpose, NONE)
    spend = settle(cell.spend, refund)
    share = replace(share, spend=settle(share.spend, refund))
    if cell.periods is None:
        return _put(cell, spend, purpose, share)
    share = replace(share, open_g=share.open_g - held.g, open_r=share.open_r - held.r)
    return _put(cell, spend, purpose, share, renewing.closed(cell.periods, held, refund))


def _highest(cell: Cell, share: PurposeShare) -> tuple[int, int, int]:
    """The most that may be said next."""
    if share.terms is not None:
        return share.terms.epsilon_micro, share.terms.g_max, share.terms.r_max
    terms = cell.terms
    return terms.epsilon_micro, terms.limit.g_max, terms.limit.r_max


def _put(
    cell: Cell,
    spend: Spend,
    purpose: PurposeCode,
    share: PurposeShare,
    periods: renewing.Periods | None = None,
) -> Cell:
    purposes = cell.purposes.set(purpose, share)
    return replace(cell, spend=spend, purposes=purposes, periods=periods)


def _added(spend: Spend, charge: Charge) -> Spend:
    return Spend(spend.g + charge.g, spend.r + charge.r, spend.g_overflowed, spend.r_overflowed)
