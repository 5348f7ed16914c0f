"""Rules for cells of patients and the datasets that hold their rows.

A cell's promise is made once and for ever; a dataset registered anew keeps its cells' spend, because
spend is the cells'. A hospital's cells do not overlap by what they declare, so that a second promise
to the same patients brings no second budget. A cell is named after its hospital, so that nobody takes
another's name, nor that of a hospital whose name begins with one's own. Delta is at most min(1e-5, 1/(10 N)) of the declared size N, and no dataset of the cell
declares more than N.
"""

from __future__ import annotations

from ledger.entries.operations.datasets import CellRegistered, DatasetRegistered, DatasetWithdrawn
from ledger.rules.blocks import ALL, overlap, quarters
from ledger.rules.cards import bind_card
from ledger.rules.individual import half_of
from ledger.rules.state import Cell, Dataset, State, replace
from ledger.rules.verdict import Step, Void

DELTA_MAX_E15 = 10**10
_HALVES = ("all", "train", "test")
"""How the name of a cell ends."""


def cell_registered(state: State, step: Step, op: CellRegistered) -> State | Void:
    """A hospital's node states the lifetime promise to a cell of its patients."""
    organisation = state.members[step.author].organisation
    if not op.cell.startswith(f"{organisation}-") or _is_anothers(organisation, op):
        return Void("not_owner")
    if op.cell in state.cells or _overlaps(state, organisation, op):
        return Void("cell_exists")
    if quarters(op.block) is None:
        return Void("cell_terms")
    if op.delta_e15 > DELTA_MAX_E15 or op.delta_e15 * 10 * op.declared_patients > 10**15:
        return Void("cell_terms")
    cell = Cell(organisation, step.index, op)
    return replace(state, cells=state.cells.set(op.cell, cell))


def dataset_registered(state: State, step: Step, op: DatasetRegistered) -> State | Void:
    """A new dataset, or a new version of the hospital's own."""
    organisation = state.members[step.author].organisation
    before = state.datasets.get(op.dataset)
    if before is not None and before.organisation != organisation:
        return Void("not_owner")
    if before is not None and before.withdrawn_at is not None:
        return Void("dataset_withdrawn")
    named = [use.cell for use in op.cells]
    if len(set(named)) != len(named):
        return Void("unknown_cell")
    for use in op.cells:
        cell = state.cells.get(use.cell)
        if cell is None:
            return Void("unknown_cell")
        if cell.organisation != organisation:
            return Void("not_owner")
        if half_of(cell.terms) not in ("both", use.use):
            return Void("unknown_cell")
    if _outgrows(state, op):
        return Void("cell_terms")
    dataset = Dataset(organisation, step.author, step.index, step.entry.hash, op)
    state = bind_card(state, op.card, organisation, dataset=op.dataset)
    return replace(state, datasets=state.datasets.set(op.dataset, dataset))


def dataset_withdrawn(state: State, step: Step, op: DatasetWithdrawn) -> State | Void:
    """No further use; what was spent stays spent."""
    dataset = state.datasets.get(op.dataset)
    if dataset is None:
        return Void("unknown_dataset")
    if dataset.organisation != state.members[step.author].organisation:
        return Void("not_owner")
    if dataset.withdrawn_at is not None:
        return Void("repeated")
    gone = replace(dataset, withdrawn_at=step.index)
    return replace(state, datasets=state.datasets.set(op.dataset, gone))


def _is_anothers(organisation: str, op: CellRegistered) -> bool:
    """Whether a hospital called as this one and more would have a cell of that name: bern-insel's bern-insel-train."""
    *more, half = op.cell.removeprefix(f"{organisation}-").split("-")
    own = [] if op.block == ALL else [op.block]
    return half in _HALVES and more not in ([], own)


def _outgrows(state: State, op: DatasetRegistered) -> bool:
    """Whether it declares more for a use than its cells for that use were promised for."""
    declared = {
        "train": op.declared_train,
        "test": op.declared_test,
        "both": op.declared_train + op.declared_test,
    }
    return any(
        declared[use]
        > sum(state.cells[u.cell].terms.declared_patients for u in op.cells if u.use == use)
        for use in {u.use for u in op.cells}
    )


def _overlaps(state: State, organisation: str, op: CellRegistered) -> bool:
    """Whether a cell of the hospital shares a day of its block, and a half, with this one."""
    return any(
        cell.organisation == organisation
        and overlap(cell.terms.block, op.block)
        and (half_of(cell.terms) == half_of(op) or "both" in (cell.terms.half, op.half))
        for cell in state.cells.values()
    )
