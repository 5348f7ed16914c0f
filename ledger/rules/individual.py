"""Cells whose patients are accounted for one by one, inside the hospital: what the log can say of them.

A node charges each patient of such a cell for the patient's own clipped gradient, and clips to what is
left of the promise (``privacy.individual``). What that comes to depends on rows and never leaves. So the
fold keeps no sum for these cells and applies no gate; a reservation states the most that the experiment
may cost any one patient, and is recorded. That the promise is kept cannot be recomputed from a log.

Only one kind of release reads them: the noisy sum of a FedSGD round over the full batch, with a number of
steps that the plan fixes, each hospital adding all of the noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ledger.entries.operations.datasets import CellRegistered
from ledger.entries.operations.plans import Plan, Release
from ledger.rules.experiment_state import Reservation
from ledger.rules.state import Cell, State, replace
from privacy.events import FULL_BATCH
from privacy.filters import Spend, g_step


def is_individual(terms: CellRegistered) -> bool:
    """Whether the node keeps an account for each patient of the cell."""
    return terms.half == "individual"


def half_of(terms: CellRegistered) -> Literal["train", "test", "both"]:
    """What the cell's patients are for, however they are accounted for."""
    return "train" if terms.half == "individual" else terms.half


def renyi_of(g: int, order_centi: int) -> int:
    """Lane R of whatever is Gaussian with mu^2 = ``g`` units: ceil(order * g / 2), exactly."""
    return -(-(order_centi * g) // 200)


def full_steps(release: Release) -> int:
    """How many sums at the clip norm cost a patient what an individual release may cost at most."""
    most = max(charge.g for charge in release.charges)
    return -(-most // g_step(release.sensitivity, release.noise_sd))


def shown(state: State, name: str) -> Cell:
    """A cell with the spend that people are shown of it: where patients have accounts, the most of any.

    That is the sum of what each reservation may cost a patient, or after its settlement what so many
    steps may, and never more than the promise: the node's filter keeps each patient within it.
    """
    cell = state.cells[name]
    if not is_individual(cell.terms):
        return cell
    limit, succession = cell.terms.limit, state.succession
    carried = succession is not None and cell.registered_at <= succession.taken
    most = limit.g_max if carried else 0
    for experiment in state.experiments.values():
        for site in experiment.plan.sites:
            held = experiment.reservations.get(site.dataset)
            if held is not None:
                most += sum(_most_of(release, held, name) for release in site.releases)
    g = min(most, limit.g_max)
    return replace(cell, spend=Spend(g, renyi_of(g, limit.order_centi)))


def fits(plan: Plan, release: Release, cells: Iterable[CellRegistered]) -> bool:
    """Whether a release may read these cells: all of one kind, and of a kind that its engine accounts for.

    Args:
        plan: of the experiment.
        release: of one of its sites.
        cells: all that the release charges, in the order of its charges.
    """
    terms = tuple(cells)
    if release.engine != "individual":
        return not any(map(is_individual, terms))
    return (
        all(map(is_individual, terms))
        and release.purpose == "train"
        and release.sampling == FULL_BATCH
        and plan.strategy == "fedsgd"
        and plan.noise_shares == 1
        and all(
            1 <= charge.g <= cell.limit.g_max
            and charge.r >= renyi_of(charge.g, cell.limit.order_centi)
            for charge, cell in zip(release.charges, terms, strict=True)
        )
    )


def _most_of(release: Release, held: Reservation, cell: str) -> int:
    if release.engine != "individual":
        return 0
    used = release.steps if held.settled_at is None else held.used.get(release.purpose, 0)
    step = g_step(release.sensitivity, release.noise_sd)
    return sum(min(c.g, used * step) for c in release.charges if c.cell == cell)
