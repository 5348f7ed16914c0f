"""Rules for budgets: reserved before data is touched, refused with a reason, settled after.

One reservation per dataset and experiment, for the most that the plan may spend. It is admitted by
the cells' filters on integers; only a settlement releases any of it, and never below the noise that
the node said it used. Noise that a node states beyond its reservation, or after its settlement, is
charged all the same: no gate can undo it, but it closes what it overflows.

Cells whose patients are accounted for one by one (``individual.py``) have no sum here and no gate: a
reservation states the most that it may cost any one of them, and is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable

from immutables import Map

from ledger.entries.operations.budgets import BudgetRefused, BudgetReserved, BudgetSettled, Used
from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.plans import Release, SitePlan
from ledger.rules.experiment_state import Experiment, Refusal, Reservation, Site
from ledger.rules.experiments import put, site_of, totals
from ledger.rules.purposes import give_back, pay, pay_anyway
from ledger.rules.state import Cell, State, replace
from ledger.rules.verdict import Step, Void
from privacy.filters import Charge


def reserved(state: State, step: Step, op: BudgetReserved) -> State | Void:
    """Approved, unchanged, within the steward's conditions, and paid by every cell."""
    found = _own_site(state, step, op.experiment, op.dataset)
    if isinstance(found, Void):
        return found
    experiment, site = found
    if experiment.ended:
        return Void("experiment_ended")
    dataset = state.datasets[op.dataset]
    if dataset.withdrawn_at is not None:
        return Void("dataset_withdrawn")
    if dataset.registration != site.registration:
        return Void("dataset_changed")
    approval = experiment.approvals.get(op.dataset)
    if approval is None:
        return Void("not_approved")
    if state.log_time > approval.until_ms:
        return Void("approval_expired")
    if site.epsilon_micro > approval.epsilon_max_micro:
        return Void("approval_conditions")
    if op.dataset in experiment.reservations:
        return Void("already_reserved")
    if op.charges != totals(site.releases):
        return Void("charges_mismatch")
    cells = state.cells
    for charge in op.charges:
        paid = pay(
            cells[charge.cell],
            experiment.plan.purpose,
            Charge(charge.g, charge.r),
            state.log_time,
        )
        if not isinstance(paid, Cell):
            return Void(paid)
        cells = cells.set(charge.cell, paid)
    held = Reservation(step.index, op.charges)
    refusals = experiment.budget_refusals
    if op.dataset in refusals:
        refusals = refusals.delete(op.dataset)
    experiment = replace(
        experiment,
        reservations=experiment.reservations.set(op.dataset, held),
        budget_refusals=refusals,
    )
    return put(replace(state, cells=cells), experiment)


def refused(state: State, step: Step, op: BudgetRefused) -> State | Void:
    """The node's own no: the law, whatever the coordinator asked."""
    found = _own_site(state, step, op.experiment, op.dataset)
    if isinstance(found, Void):
        return found
    experiment, _ = found
    if experiment.ended:
        return Void("experiment_ended")
    said = Refusal(step.author, step.index, op.reason)
    return put(
        state,
        replace(experiment, budget_refusals=experiment.budget_refusals.set(op.dataset, said)),
    )


def settled(state: State, step: Step, op: BudgetSettled) -> State | Void:
    """Steps without an intent are given back; what was used is charged for ever."""
    found = _own_site(state, step, op.experiment, op.dataset)
    if isinstance(found, Void):
        return found
    experiment, site = found
    held = experiment.reservations.get(op.dataset)
    if held is None:
        return Void("not_reserved")
    if held.settled_at is not None:
        return Void("settled")
    stated = steps_stated(op.used)
    if any(stated.get(purpose, 0) < steps for purpose, steps in held.used.items()):
        return Void("under_reported")
    reserved_steps: dict[str, int] = {release.purpose: release.steps for release in site.releases}
    if any(steps > reserved_steps.get(purpose, 0) for purpose, steps in stated.items()):
        return Void("over_reservation")
    cells = state.cells
    given = {refund.cell: Charge(refund.g, refund.r) for refund in refunds(site, stated)}
    for charge in held.charges:
        cell, was = cells[charge.cell], Charge(charge.g, charge.r)
        back = given.get(charge.cell, Charge(0, 0))
        cell = give_back(cell, experiment.plan.purpose, was, back, state.log_time)
        cells = cells.set(charge.cell, cell)
    held = replace(held, used=stated, settled_at=step.index)
    experiment = replace(experiment, reservations=experiment.reservations.set(op.dataset, held))
    return put(replace(state, cells=cells), experiment)


def refunds(site: SitePlan, used: Map[str, int]) -> tuple[CellCharge, ...]:
    """What a settlement gives back, per cell: the planned steps without an intent."""
    unused = (
        replace(release, steps=release.steps - used.get(release.purpose, 0))
        for release in site.releases
        if release.engine != "individual"
    )
    return totals(unused)


def steps_stated(used: Iterable[Used]) -> Map[str, int]:
    """The steps that an operation states, by purpose; of a purpose said twice, the larger."""
    stated: Map[str, int] = Map()
    for item in used:
        if item.steps > stated.get(item.purpose, 0):
            stated = stated.set(item.purpose, item.steps)
    return stated


def uses_more_than(site: Site, held: Reservation) -> bool:
    """Whether steps may have been used that a reservation for this site does not hold."""
    reserved_steps = site.steps
    for purpose, steps in held.used.items():  # noqa: SIM110 - any() would cost three times as much
        if steps > reserved_steps.get(purpose, 0):
            return True
    return False


def charge_excess(
    state: State, experiment: Experiment, site: Site, before: Reservation, now: Reservation
) -> State:
    """Charge what a reservation's used steps exceed the charges that its cells hold.

    Nothing for an honest node: it uses no more than it reserved, and nothing after it settled.
    """
    cells, purpose = state.cells, experiment.plan.purpose
    for release in site.plan.releases:
        if release.engine == "individual":
            continue
        more = _charged_steps(release, now) - _charged_steps(release, before)
        for charge in release.charges if more > 0 else ():
            excess = Charge(more * charge.g, more * charge.r)
            cell = pay_anyway(cells[charge.cell], purpose, excess, state.log_time)
            cells = cells.set(charge.cell, cell)
    return state if cells is state.cells else replace(state, cells=cells)


def _charged_steps(release: Release, held: Reservation) -> int:
    used = held.used.get(release.purpose, 0)
    return used if held.settled_at is not None else max(release.steps, used)


def _own_site(
    state: State, step: Step, experiment_id: str, dataset_name: str
) -> tuple[Experiment, SitePlan] | Void:
    experiment = state.experiments.get(experiment_id)
    if experiment is None:
        return Void("unknown_experiment")
    site = site_of(experiment.plan, dataset_name)
    if site is None:
        return Void("unknown_dataset")
    dataset = state.datasets[dataset_name]
    if dataset.organisation != state.members[step.author].organisation:
        return Void("not_owner")
    return experiment, site
