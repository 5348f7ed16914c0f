"""Rules for statistics of a dataset before any experiment: paid when a steward allows them, told once.

The steward's own act is approval and reservation in one: the cells of the dataset's training half pay in
full before data is touched, by the same filters as everything else. Nothing is ever given back. The node
answers once; an answer that never came stays paid.
"""

from __future__ import annotations

from ledger.entries.operations.statistics import StatisticsReleased, StatisticsReserved
from ledger.rules.individual import is_individual
from ledger.rules.purposes import give_back, pay
from ledger.rules.state import Cell, Dataset, State, Statistics, replace
from ledger.rules.verdict import Step, Void
from privacy.events import CHARGE_UNIT
from privacy.filters import Charge, g_step, r_step_full_batch

_MICRO = 10**6


def reserved(state: State, step: Step, op: StatisticsReserved) -> State | Void:
    """Unchanged, its own hospital's, charged to every cell for training and paid by each."""
    dataset = state.datasets.get(op.dataset)
    if dataset is None:
        return Void("unknown_dataset")
    if dataset.organisation != state.members[step.author].organisation:
        return Void("not_owner")
    if dataset.withdrawn_at is not None:
        return Void("dataset_withdrawn")
    if dataset.registration != op.registration:
        return Void("dataset_changed")
    if any(is_individual(state.cells[cell].terms) for cell in cells_read(dataset)):
        return Void("individual_cell")
    if not _charges_enough(state, dataset, op):
        return Void("charges_mismatch")
    cells = state.cells
    for charge in op.charges:
        paid = pay(cells[charge.cell], "statistics", Charge(charge.g, charge.r), state.log_time)
        if not isinstance(paid, Cell):
            return Void(paid)
        cells = cells.set(charge.cell, paid)
    held = Statistics(step.author, step.index, step.entry.body.at_ms, op)
    statistics = state.statistics.set(step.entry.hash, held)
    return replace(state, cells=cells, statistics=statistics)


def released(state: State, step: Step, op: StatisticsReleased) -> State | Void:
    """Once, by the hospital that paid for it, while the dataset is not withdrawn."""
    held = state.statistics.get(op.reservation)
    if held is None:
        return Void("not_reserved")
    dataset = state.datasets[held.terms.dataset]
    if dataset.organisation != state.members[step.author].organisation:
        return Void("not_owner")
    if held.result is not None:
        return Void("repeated")
    if dataset.withdrawn_at is not None:
        return Void("dataset_withdrawn")
    told = replace(held, result=op.result)
    cells = state.cells
    for charge in held.terms.charges:
        cell = cells[charge.cell]
        if cell.periods is not None:  # it is open no longer; what it cost stays
            was = Charge(charge.g, charge.r)
            cell = give_back(cell, "statistics", was, Charge(0, 0), state.log_time)
            cells = cells.set(charge.cell, cell)
    statistics = state.statistics.set(op.reservation, told)
    return replace(state, statistics=statistics, cells=cells)


def cells_read(dataset: Dataset) -> tuple[str, ...]:
    """The cells that statistics of a dataset read: those of its training half, sorted."""
    return tuple(sorted(use.cell for use in dataset.terms.cells if use.use in ("train", "both")))


def _charges_enough(state: State, dataset: Dataset, op: StatisticsReserved) -> bool:
    if tuple(charge.cell for charge in op.charges) != cells_read(dataset):
        return False
    if op.pure:
        return _pure_pays(op)
    for charge in op.charges:
        order = state.cells[charge.cell].terms.limit.order_centi
        if charge.g < g_step(op.sensitivity, op.noise_sd):
            return False
        if charge.r < r_step_full_batch(op.sensitivity, op.noise_sd, order):
            return False
    return True


def _pure_pays(op: StatisticsReserved) -> bool:
    """What integers can tell of the charges of pure epsilon; their curves are for nodes and auditors.

    Up to epsilon 10 the mu of lane G is above epsilon * sqrt(3/5), and no Renyi divergence of an order
    above 1 is below epsilon * tanh(epsilon / 2), which is above epsilon^2 / (2 + epsilon).
    """
    laplace, *chosen = op.pure
    if laplace.mechanism != "laplace" or laplace.count != 1:
        return False
    if any(part.mechanism != "noisy_max" for part in chosen):
        return False
    if op.sensitivity * _MICRO > laplace.epsilon_micro * op.noise_sd:
        return False
    g = r = 0
    for part in op.pure:
        squared = part.epsilon_micro**2 * CHARGE_UNIT * part.count
        g += 3 * squared // (5 * _MICRO**2)
        r += squared // (_MICRO * (2 * _MICRO + part.epsilon_micro))
    return all(charge.g >= g and charge.r >= r for charge in op.charges)
