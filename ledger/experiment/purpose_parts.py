"""A part of a cell's promise for one purpose, from an epsilon to the integer gates that the fold compares.

A part is what `ledger.rules.purposes` holds a purpose to. It has the cell's delta and the cell's Renyi
order; both gates are rounded down. An epsilon that the cell's order cannot express at all (a small one)
leaves that lane closed, and the other carries what is admitted.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from ledger.entries.operations.datasets import CellRegistered
from ledger.entries.operations.purposes import PurposeCode, PurposeLimited
from ledger.errors import PlanRefused
from ledger.rules.state import State
from privacy.errors import PrivacyError
from privacy.filters import part_of_limit

Parts = Mapping[PurposeCode, int]
"""Epsilon of each purpose that is limited, in millionths."""


def part_for(cell: CellRegistered, purpose: PurposeCode, epsilon_micro: int) -> PurposeLimited:
    """What a hospital says to give a purpose at most so much of a cell's promise.

    Args:
        cell: the promise.
        purpose: whose part.
        epsilon_micro: in millionths; 0 for nothing at all.

    Raises:
        PlanRefused: it is more than the promise, or too small to have gates.
    """
    if epsilon_micro > cell.epsilon_micro:
        raise PlanRefused(
            f"part for {purpose}",
            f"epsilon {epsilon_micro / 1e6:g} is more than the {cell.epsilon_micro / 1e6:g} that "
            f"the patients of {cell.cell} were promised",
        )
    g_max = r_max = 0
    if epsilon_micro:
        try:
            limit = part_of_limit(
                epsilon_micro / 1e6, cell.delta_e15 / 1e15, cell.limit.order_centi
            )
        except PrivacyError as error:
            raise PlanRefused(f"part for {purpose}", str(error)) from None
        g_max, r_max = min(limit.g_max, cell.limit.g_max), min(limit.r_max, cell.limit.r_max)
    return PurposeLimited(
        type="purpose.limited",
        cell=cell.cell,
        purpose=purpose,
        epsilon_micro=epsilon_micro,
        g_max=g_max,
        r_max=r_max,
    )


def parts_said(state: State, cell: str) -> dict[PurposeCode, int]:
    """The parts that were said of a cell."""
    shares = state.cells[cell].purposes.values() if cell in state.cells else ()
    return {s.terms.purpose: s.terms.epsilon_micro for s in shares if s.terms is not None}


def parts_inherited(
    state: State, organisation: str, besides: Container[str] = ()
) -> dict[PurposeCode, int]:
    """The parts of a hospital's newest cell that has any: what its next block of patients gets.

    Args:
        state: of the log.
        organisation: the hospital's.
        besides: cells that shall get them, and may have a few by now.
    """
    cells = sorted(
        (
            c
            for c in state.cells.values()
            if c.organisation == organisation and c.terms.cell not in besides
        ),
        key=lambda c: c.registered_at,
    )
    found: dict[PurposeCode, int] = {}
    for cell in cells:
        found = parts_said(state, cell.terms.cell) or found
    return found
