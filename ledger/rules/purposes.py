"""What a cell's patients were promised per purpose, and how a cell pays: in all, and for a purpose.

A hospital may say, per cell and purpose, how much of the lifetime promise all experiments that state
the purpose may use together: an epsilon at the cell's delta, as integer gates in both lanes. Such a part
is a filter of its own beside the cell's (the same two lanes, ``privacy.filters``): everything released for
the purpose is (that epsilon, delta)-private, and a reservation is admitted where both admit it. A part is
only ever lowered. What was spent before it was said counts.

A purpose is what the researcher states and the steward approves: the log holds that, and no proof of it.
Parts need not add up to the promise; the cell's own gate holds beside them.
"""

from __future__ import annotations

from typing import Literal

from ledger.entries.operations.purposes import PurposeCode, PurposeLimited
from ledger.rules.individual import is_individual
from ledger.rules.state import Cell, PurposeShare, State, replace
from ledger.rules.verdict import Step, Void
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
    before = cell.purposes.get(op.purpose, NONE)
    if before.terms == op:
        return Void("repeated")
    epsilon, g_max, r_max = _highest(cell, before)
    if op.epsilon_micro > epsilon or op.g_max > g_max or op.r_max > r_max:
        return Void("purpose_raised")
    spend = before.spend
    spend = Spend(
        spend.g,
        spend.r,
        spend.g_overflowed or spend.g > op.g_max,
        spend.r_overflowed or spend.r > op.r_max,
    )
    share = PurposeShare(op, spend)
    cell = replace(cell, purposes=cell.purposes.set(op.purpose, share))
    return replace(state, cells=state.cells.set(op.cell, cell))


def gate(cell: Cell) -> Limit:
    """The cell's integer gates as the filter takes them."""
    limit = cell.terms.limit
    return Limit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi)


def purpose_gate(cell: Cell, purpose: str) -> Limit:
    """The integer gates of a purpose: the cell's own where nothing was said."""
    terms = cell.purposes.get(purpose, NONE).terms
    if terms is None:
        return gate(cell)
    return Limit(g_max=terms.g_max, r_max=terms.r_max, order_centi=cell.terms.limit.order_centi)


def is_closed(cell: Cell, purpose: str) -> bool:
    """Whether the cell, or its part for the purpose, admits nothing more in either lane."""
    spend = cell.purposes.get(purpose, NONE).spend
    rooms = left(cell.spend, gate(cell)), left(spend, purpose_gate(cell, purpose))
    return any(room.g == 0 and room.r == 0 for room in rooms)


def fitting(cell: Cell, purpose: str, charge: Charge) -> int:
    """How many more requests like ``charge`` the cell, and its part for the purpose, both admit."""
    spend = cell.purposes.get(purpose, NONE).spend
    return min(
        repeats(cell.spend, charge, gate(cell)),
        repeats(spend, charge, purpose_gate(cell, purpose)),
    )


def pay(
    cell: Cell, purpose: PurposeCode, charge: Charge
) -> Cell | Literal["budget_exhausted", "purpose_exhausted"]:
    """The cell after a charge that its gate and the purpose's admit, or why they do not.

    A cell whose patients have accounts (``individual.py``) has no gate here, and no sum.
    """
    if is_individual(cell.terms):
        return cell
    share = cell.purposes.get(purpose, NONE)
    try:
        spend = reserve(cell.spend, charge, gate(cell))
    except BudgetExceeded:
        return "budget_exhausted"
    if share.terms is None:
        part = _added(share.spend, charge)
    else:
        try:
            part = reserve(share.spend, charge, purpose_gate(cell, purpose))
        except BudgetExceeded:
            return "purpose_exhausted"
    return _put(cell, spend, purpose, part)


def pay_anyway(cell: Cell, purpose: PurposeCode, charge: Charge) -> Cell:
    """The cell after a charge that nothing can undo: it closes the lanes that it overflows."""
    if is_individual(cell.terms):
        return cell
    limit, part = gate(cell), cell.purposes.get(purpose, NONE).spend
    spend = _closing(_added(cell.spend, charge), limit)
    part = _added(part, charge)
    if cell.purposes.get(purpose, NONE).terms is not None:
        part = _closing(part, purpose_gate(cell, purpose))
    return _put(cell, spend, purpose, part)


def give_back(cell: Cell, purpose: PurposeCode, refund: Charge) -> Cell:
    """The cell after a settlement; closed lanes stay closed.

    Raises:
        RefundTooLarge: more than was charged.
    """
    if is_individual(cell.terms):
        return cell
    part = settle(cell.purposes.get(purpose, NONE).spend, refund)
    return _put(cell, settle(cell.spend, refund), purpose, part)


def _highest(cell: Cell, share: PurposeShare) -> tuple[int, int, int]:
    """The most that may be said next."""
    if share.terms is not None:
        return share.terms.epsilon_micro, share.terms.g_max, share.terms.r_max
    terms = cell.terms
    return terms.epsilon_micro, terms.limit.g_max, terms.limit.r_max


def _put(cell: Cell, spend: Spend, purpose: PurposeCode, part: Spend) -> Cell:
    share = PurposeShare(cell.purposes.get(purpose, NONE).terms, part)
    return replace(cell, spend=spend, purposes=cell.purposes.set(purpose, share))


def _added(spend: Spend, charge: Charge) -> Spend:
    return Spend(spend.g + charge.g, spend.r + charge.r, spend.g_overflowed, spend.r_overflowed)


def _closing(spend: Spend, limit: Limit) -> Spend:
    return Spend(
        spend.g,
        spend.r,
        spend.g_overflowed or spend.g > limit.g_max,
        spend.r_overflowed or spend.r > limit.r_max,
    )
