"""The promises to a hospital's cells in the log: said where it has none, taken from it where they are the same."""

from __future__ import annotations

from collections.abc import Callable

from ledger.entries.operations.datasets import CellRegistered
from ledger.entries.operations.vocabulary import Operation
from ledger.rules.state import State
from ledger.rules.verdict import EXPLANATIONS
from node.data.renewal import Renewal, to_declare
from node.errors import RegistrationRefused

Say = Callable[[Operation], str | None]
"""Says an operation and waits until the own copy of the log has it: None, or why it is void."""


def say_cell(
    name: str,
    organisation: str,
    terms: CellRegistered,
    renewal: Renewal | None,
    *,
    state: Callable[[], State],
    say: Say,
) -> None:
    """Say a cell's promise, and how it renews; what the log has already is not said again.

    Raises:
        RegistrationRefused: the log did not take it, or has the cell otherwise.
    """
    void = None if terms.cell in state().cells else say(terms)
    if void is None:
        check_said(name, organisation, terms, renewal, state())
        declared = to_declare(name, terms, renewal, state())
        void = None if declared is None else say(declared)
    if void is not None:
        raise RegistrationRefused(name, f"cell {terms.cell}: {EXPLANATIONS[void]}")


def check_said(
    name: str, organisation: str, terms: CellRegistered, renewal: Renewal | None, state: State
) -> None:
    """Take a cell from the log only where it is this hospital's own, with this very promise.

    Raises:
        RegistrationRefused: it is not.
    """
    cell = state.cells.get(terms.cell)
    if cell is None:
        return
    if cell.organisation == organisation and cell.terms == terms:
        to_declare(name, terms, renewal, state)
        return
    theirs = cell.terms
    said = (
        f"cell {terms.cell} is in the log: {cell.organisation} promised its "
        f"{theirs.declared_patients} patients epsilon {theirs.epsilon_micro / 10**6:g}, delta "
        f"{theirs.delta_e15 / 10**15:g}"
    )
    if cell.organisation != organisation:
        raise RegistrationRefused(
            name,
            f"{said}; that is not {organisation}. Do not go on before the federation's "
            "stewards know why",
        )
    raise RegistrationRefused(
        name,
        f"{said}. A promise is for ever, and this would be epsilon {terms.epsilon_micro / 10**6:g}, "
        f"delta {terms.delta_e15 / 10**15:g} for {terms.declared_patients}; register the cell's "
        "first dataset again with its declared size and its --epsilon and --delta",
    )
