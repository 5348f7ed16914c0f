"""What a steward sees before saying yes: purpose, and the cost to the hospital's own patients.

The plan that is signed is rebuilt here from spec and schemas, as the node and any auditor will: a plan
that does not follow from what the researcher wrote is refused before it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from consilium.errors import InputError
from consilium.summaries.datasets import epsilon_after, epsilon_spent, purpose_summary
from ledger.entries.operations.plans import SitePlan
from ledger.entries.operations.purposes import PurposeCode
from ledger.exchange.home import Membership
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.sites import sites_from
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import parse_document
from ledger.rules.experiment_state import Experiment
from ledger.rules.experiments import site_of, totals
from ledger.rules.individual import is_individual, shown
from ledger.rules.purposes import cell_now, give_back, now, pay
from ledger.rules.state import Cell, State
from privacy.filters import Charge


@dataclass(frozen=True, slots=True)
class CellCost:
    """What an experiment would cost one cell of patients, as epsilon at the cell's delta.

    Attributes:
        before, after: spent and reserved, without and with the whole plan.
        promised: for ever, or for each period of ``days``.
        part: what of it the experiment's purpose may use and has used, in words; empty for all.
    """

    cell: str
    before: float
    after: float
    promised: float
    part: str = ""
    days: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """An experiment as one hospital's steward should see it.

    Attributes:
        spec: what the researcher wrote.
        site: the plan's part for the dataset.
        epsilon: of the whole plan for this dataset, metrics included.
        costs: per cell.
    """

    experiment: Experiment
    dataset: str
    spec: ExperimentSpec
    site: SitePlan
    epsilon: float
    costs: tuple[CellCost, ...]

    def lines(self) -> list[str]:
        """The request, for people."""
        spec, plan = self.spec, self.experiment.plan
        steps = plan.rounds_with_spare * plan.steps_per_round
        lines = [
            f"{spec.title} ({self.experiment.name}, {self.experiment.id[:8]})",
            f"  asked by    {self.experiment.researcher} of {self.experiment.organisation}",
            f"  purpose     {' '.join(spec.purpose.split())}",
            f"  counted as  {plan.purpose} (what the researcher says: whether it is, you decide)",
            f"  basis       {spec.lawful_basis}",
            f"  learns      {spec.task.target} from {', '.join(spec.features)}",
            f"  until       {spec.until}",
            f"  rounds      {plan.rounds} and {plan.spare_rounds} spare, {steps} noisy steps at most",
            f"  costs {self.dataset} epsilon {self.epsilon:.3g} at most, its measures included",
        ]
        lines += [
            f"    cell {cost.cell}: {cost.before:.3g} spent now, {cost.after:.3g} after, "
            f"of {cost.promised:g} promised "
            + ("for ever" if cost.days is None else f"for each {cost.days} days")
            + cost.part
            for cost in self.costs
        ]
        return lines


def request_of(member: Membership, experiment: Experiment, dataset: str | None) -> Request:
    """An experiment as it concerns this member's hospital.

    Args:
        member: of the hospital, up to date.
        experiment: what is asked.
        dataset: which of the hospital's datasets; None when it asks for one only.

    Raises:
        InputError: the experiment does not ask for (one) such dataset.
        PlanRefused: the plan is not what the spec implies.
    """
    state = member.replica.state
    name = dataset_of(state, member.config.organisation, experiment, dataset)
    spec = parse_document(member.fetch(experiment.spec), ExperimentSpec)
    names = spec.federation.datasets
    schemas = {
        known: parse_document(member.fetch(state.datasets[known].terms.schema_), Schema)
        for known in names
        if known in state.datasets
    }
    check_plan(spec, sites_from(state, schemas, names), experiment.plan)
    site = site_of(experiment.plan, name)
    assert site is not None
    held = name in experiment.reservations
    costs = []
    for charge in totals(site.releases):
        cell = now(shown(state, charge.cell), state.log_time)
        before = epsilon_spent(cell)
        after = before if held else epsilon_after(cell, charge.g, charge.r)
        promised = cell.terms.epsilon_micro / 1e6
        if is_individual(cell.terms):
            costs.append(CellCost(charge.cell, before, min(after, promised), promised, ""))
            continue
        part = purpose_summary(cell, experiment.plan.purpose)
        said = (
            ""
            if part["epsilon"] is None
            else (
                f"; {experiment.plan.purpose} has used {part['epsilon_spent']:.3g} of the "
                f"{part['epsilon']:g} that it may"
            )
        )
        days = None if cell.periods is None else cell.periods.days
        costs.append(CellCost(charge.cell, before, after, promised, said, days))
    return Request(experiment, name, spec, site, site.epsilon_micro / 1e6, tuple(costs))


def refuse_unaffordable(state: State, request: Request) -> None:
    """See that the dataset's promise can hold what the plan may cost.

    Raises:
        InputError: it cannot, whatever happens to the experiments that hold a part of it.
    """
    if request.dataset in request.experiment.reservations:
        return
    for line in unaffordable(state, request.experiment.plan.purpose, (request.site,)):
        raise InputError(
            f"{line}; its node would refuse it. "
            "Refuse the experiment with --reason privacy_cost, or have it proposed with less"
        )


def unaffordable(state: State, purpose: PurposeCode, sites: Iterable[SitePlan]) -> list[str]:
    """The cells of patients whose promise, or its part for the purpose, cannot hold a plan, each as a line.

    Judged as the fold judges (``ledger.rules.purposes.pay``), but as if every experiment that holds
    a part of a cell now gave all of it back.
    """
    lines = []
    for site in sites:
        for charge in totals(site.releases):
            cell = cell_now(state, charge.cell)
            for other, held in _open_charges(state, charge.cell):
                cell = give_back(cell, other, held, held, state.log_time)
            paid = pay(cell, purpose, Charge(charge.g, charge.r), state.log_time)
            if isinstance(paid, Cell):
                continue
            epsilon = f"{site.dataset}: epsilon {site.epsilon_micro / 1e6:.3g}"
            if paid == "purpose_exhausted":
                part = purpose_summary(cell, purpose)["epsilon"]
                lines.append(
                    f"{epsilon} is more than what is left of the {part:g} that {purpose} may use of "
                    f"the promise to the patients of {charge.cell}"
                )
            else:
                lines.append(
                    f"{epsilon} is more than what is left of the "
                    f"{cell.terms.epsilon_micro / 1e6:g} that the patients of {charge.cell} were "
                    "promised"
                )
    return lines


def _open_charges(state: State, cell: str) -> Iterator[tuple[PurposeCode, Charge]]:
    """What experiments hold of a cell and may still give back, each with its purpose."""
    for experiment in state.experiments.values():
        for held in experiment.reservations.values():
            if held.settled_at is None:
                yield from (
                    (experiment.plan.purpose, Charge(c.g, c.r))
                    for c in held.charges
                    if c.cell == cell
                )


def dataset_of(state: State, organisation: str, experiment: Experiment, given: str | None) -> str:
    """The dataset for which an organisation may still say yes or no to an experiment.

    Args:
        state: up to date.
        organisation: the hospital.
        experiment: what is asked.
        given: the dataset's name, or None when there is only one.

    Raises:
        InputError: there is none such, or several and no name, or the experiment has ended: what is
            said of it now would stand in the log for ever, and have no effect.
    """
    if experiment.ended:
        name = f"{experiment.name} ({experiment.id[:8]})"
        raise InputError(f"{name} is {experiment.status}: there is nothing left to decide")
    asked = [site.dataset for site in experiment.plan.sites]
    own = [name for name in asked if state.datasets[name].organisation == organisation]
    if given is None and len(own) == 1:
        return own[0]
    if given in own:
        return given
    listed = ", ".join(own) or "none"
    if given is None:
        raise InputError(f"name one of {organisation}'s datasets with --dataset: {listed}")
    raise InputError(
        f"{experiment.name} does not ask for a dataset {given!r} of {organisation}; "
        f"it asks for: {listed}"
    )
