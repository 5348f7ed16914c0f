"""Plans, charges and promises: steps 9, 10 and 11 of a verification.

The fold admits on integers. Here the integers themselves are judged: is the plan what its
specification implies, is each charge what its noise costs, does a reservation cover what was used,
and does every promise to patients hold by the lanes' closed form and by an independent accountant
(privacy loss distributions). Renyi and, on request, Opacus' figures are shown beside them and judge
nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Literal

from audit.reports.budget import cell_budget, merged, pld, rdp
from audit.verification import check_individual, check_periods
from audit.verification.charges import Charged, charged
from audit.verification.documents import UNREADABLE, Documents
from audit.verification.findings import Check
from audit.verification.history import History
from audit.verification.records import ExperimentRecord
from audit.verification.replay import Replay
from ledger.entries.operations.datasets import CellRegistered
from ledger.entries.operations.plans import Release, SitePlan
from ledger.errors import PlanRefused
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.sites import Site
from ledger.rules.experiments import totals, was_held_back
from ledger.rules.state import State
from privacy.crosscheck import opacus_epsilons
from privacy.errors import CrossCheckFailed, PrivacyError
from privacy.events import Gaussian
from privacy.filters import Spend, limit_for, step_charge
from privacy.pure import Mechanism

_RELATIVE = 1e-6
"""What two machines' floating-point functions may make of one curve."""


def check_plans(replay: Replay, documents: Documents) -> Iterator[Check]:
    """Step 9: recompile every plan from its specification and the hospitals' schemas."""
    proved = 0
    for experiment in replay.history.experiments.values():
        place = f"entry {experiment.said.index} ({experiment.terms.name})"
        try:
            spec = documents.spec(experiment)
            sites = [
                Site(
                    registration=version.said.hash,
                    terms=version.terms,
                    cells=_cells(replay.history, version.terms.cells),
                    schema=documents.schema(version),
                )
                for name in spec.federation.datasets
                if (version := experiment.sites.get(name)) is not None
            ]
        except UNREADABLE as error:
            yield Check(9, "not_checkable", f"{place}: {error}")
            continue
        if spec.name != experiment.terms.name:
            yield Check(9, "refuted", f"its specification is called {spec.name!r}", place)
            continue
        try:
            check_plan(spec, sites, experiment.plan)
        except (PlanRefused, PrivacyError) as error:
            yield Check(9, "refuted", str(error), place)
            continue
        proved += 1
    if proved or not replay.history.experiments:
        yield Check(
            9, "proved", f"plans that are what their approved specifications imply: {proved}"
        )


def check_charges(replay: Replay, cosigned: Sequence[tuple[int, int]]) -> Iterator[Check]:
    """Step 10: every release's charge from its noise, and reserved >= settled >= used.

    Args:
        replay: of the copy.
        cosigned: sizes of final checkpoints, rising, with the POSIX seconds by which a quorum of
            hospitals had cosigned each.
    """
    history, state = replay.history, replay.log.state
    releases = reservations = refuted = untimed = 0
    for experiment in history.experiments.values():
        for site in experiment.plan.sites:
            for release in site.releases:
                releases += 1
                for check in _release(history, experiment, site, release):
                    refuted += 1
                    yield check
            if site.dataset in experiment.held:
                reservations += 1
                for check in _reservation(experiment, site):
                    refuted += 1
                    yield check
                age = _approval_age(history, experiment, site.dataset, cosigned)
                untimed += age == "unknown"
                if isinstance(age, Check):
                    refuted += 1
                    yield age
    for check in _sums(history, state):
        refuted += 1
        yield check
    if untimed:
        yield Check(
            10,
            "not_checkable",
            f"reservations on approvals that no cosigned checkpoint of this copy covers: {untimed}; "
            "how long the approvals were held back cannot be told",
        )
    if not refuted:
        yield Check(
            10,
            "proved",
            f"the charges of {releases} planned releases follow from their noise in both lanes; "
            f"{reservations} reservations cover what was settled and used",
        )


def check_promises(replay: Replay, *, cross_check: bool = False) -> Iterator[Check]:
    """Step 11: every cell's lifetime promise, from its events."""
    history, state = replay.history, replay.log.state
    for cell in sorted(state.cells):
        place = f"cell {cell}"
        terms = state.cells[cell].terms
        fault = _limit_fault(terms)
        if fault is not None:
            yield Check(11, "refuted", fault, place)
        budget = cell_budget(history, state, cell)
        if budget.individual:
            yield check_individual.promise(place, budget)
            continue
        if budget.renewal is not None:
            yield from check_periods.promise(history, state, cell, _unit(state, cell))
            continue
        events = merged(budget.events)
        try:
            by_pld = pld(events, budget.delta)
        except CrossCheckFailed as error:
            yield Check(11, "not_checkable", f"{place}: {error}")
            continue
        shown = (
            f"epsilon {budget.epsilon:.4f} by closed form, {by_pld:.4f} by PLD, "
            f"of {budget.limit:g} promised at delta {budget.delta:.3g}, per {_unit(state, cell)}"
        )
        if cell in history.carried_spend:
            shown += " (what the log before this one charged is in the closed form alone)"
        most = budget.limit * (1 + _RELATIVE)
        if budget.epsilon > most or by_pld > most:
            yield Check(11, "refuted", f"{shown}: more than was promised", place)
            continue
        others = _others(events, budget.delta, cross_check)
        yield Check(11, "proved", f"{place}: {shown}{others}")
    if not state.cells:
        yield Check(11, "proved", "no promise was made so far")


def _cells(history: History, uses: object) -> dict[str, CellRegistered]:
    assert isinstance(uses, tuple)
    return {use.cell: history.cells[use.cell].terms for use in uses}


def _release(
    history: History, experiment: ExperimentRecord, site: SitePlan, release: Release
) -> Iterator[Check]:
    event = Gaussian(release.sensitivity, release.noise_sd, 1, release.sampling)
    for stated in release.charges:
        limit = history.cells[stated.cell].terms.limit
        if release.engine == "individual":
            yield from check_individual.release(experiment, site, release, stated, limit)
            continue
        wanted = step_charge(event, limit.order_centi)
        short = stated.g < wanted.g or stated.r < wanted.r - max(2, wanted.r * _RELATIVE)
        if short:
            yield Check(
                10,
                "refuted",
                f"{release.purpose} on {site.dataset} states a charge of {stated.g}, {stated.r} a "
                f"step to {stated.cell}, but its noise costs {wanted.g}, {wanted.r}",
                f"entry {experiment.said.index}",
            )


def _reservation(experiment: ExperimentRecord, site: SitePlan) -> Iterator[Check]:
    held = experiment.held[site.dataset]
    place = f"entry {held.said.index}"
    if held.terms.charges != totals(site.releases):
        yield Check(10, "refuted", f"{site.dataset} reserved other charges than its plan's", place)
    planned: dict[str, int] = {r.purpose: r.steps for r in site.releases}
    used = _used(experiment, site.dataset)
    if held.settled is not None:
        place = f"entry {held.settled[0].index}"
        stated: dict[str, int] = {item.purpose: item.steps for item in held.settled[1].used}
        for purpose, steps in used.items():
            if stated.get(purpose, 0) < steps:
                yield Check(
                    10,
                    "refuted",
                    f"{site.dataset} settled {stated.get(purpose, 0)} steps of {purpose}, but used "
                    f"{steps}",
                    place,
                )
        used = {**used, **stated}
    for purpose, steps in used.items():
        if steps > planned.get(purpose, 0):
            yield Check(
                10,
                "refuted",
                f"{site.dataset} used {steps} steps of {purpose}, but reserved "
                f"{planned.get(purpose, 0)}",
                place,
            )


def _approval_age(
    history: History,
    experiment: ExperimentRecord,
    dataset: str,
    cosigned: Sequence[tuple[int, int]],
) -> Check | Literal["young", "unknown"]:
    """How old a reservation's approval was when hospitals first stood behind it."""
    held = experiment.held[dataset].said
    said = next(
        d.said
        for d in reversed(experiment.decisions)
        if d.approved and d.dataset == dataset and d.said.index < held.index
    )
    covering = bisect_right(cosigned, said.index, key=lambda final: final[0])
    if covering == len(cosigned):
        return "unknown"
    cosigned_s = cosigned[covering][1]
    # The node judged by the policy of its copy, which reached somewhere between the two entries.
    policies = history.policies_between(said.index, held.index)
    if not all(was_held_back(said.at_ms, cosigned_s, policy) for policy in policies):
        return "young"
    hours = (cosigned_s * 1000 - said.at_ms) / 3_600_000
    return Check(
        10,
        "refuted",
        f"the node of {dataset} reserved on an approval (entry {said.index}) that was held back: "
        f"its steward signed it {hours:.1f} h before a quorum of hospitals cosigned it, longer than "
        "the policy allows",
        f"entry {held.index}",
    )


def _used(experiment: ExperimentRecord, dataset: str) -> dict[str, int]:
    """Steps that updates state, and at least those that the sums need."""
    used: dict[str, int] = {}
    for update in experiment.all_updates:
        if update.dataset == dataset:
            for purpose, steps in update.used.items():
                used[purpose] = max(steps, used.get(purpose, 0))
    served = sum(
        record.terms.kind == "train" and dataset in record.counted() for record in experiment.rounds
    )
    least = served * experiment.plan.steps_per_round
    if least:
        used["train"] = max(least, used.get("train", 0))
    return used


def _sums(history: History, state: State) -> Iterator[Check]:
    """Each cell's lane totals, put together anew from reservations, settlements and updates."""
    by_cell: dict[str, list[Charged]] = {}
    for one in charged(history):
        by_cell.setdefault(one.cell, []).append(one)
    for name, held in state.cells.items():
        mine = by_cell.get(name, [])
        before = history.carried_spend.get(name, Spend())
        g, r = before.g, before.r
        if held.periods is not None:
            _, g, r = history.carried_periods.get(name, (0, 0, 0))
            yield from check_periods.newest(history, name, held, mine)
        due = g + sum(one.g for one in mine), r + sum(one.r for one in mine)
        stated = held.spend.g, held.spend.r
        if held.periods is not None:
            stated = held.periods.total_g, held.periods.total_r
        if due != stated:
            yield Check(
                10,
                "refuted",
                f"its lanes hold {stated[0]}, {stated[1]}, but reservations, settlements and "
                f"updates add up to {due}",
                f"cell {name}",
            )


def _unit(state: State, cell: str) -> str:
    """Whom the promise protects: single records, where a dataset of the cell has no patient ids."""
    units = {
        dataset.terms.unit
        for dataset in state.datasets.values()
        if any(use.cell == cell for use in dataset.terms.cells)
    }
    return "record" if "record" in units else "patient"


def _limit_fault(terms: CellRegistered) -> str | None:
    """The integer gates must follow from the promise; the fold takes them as they are."""
    try:
        wanted = limit_for(terms.epsilon_micro / 1e6, terms.delta_e15 / 1e15)
    except PrivacyError as error:
        return f"its promise has no gates: {error}"
    stated = terms.limit
    if stated.order_centi != wanted.order_centi:
        return f"its Renyi order is {stated.order_centi / 100:g}, not {wanted.order_centi / 100:g}"
    most = 1 + _RELATIVE
    if stated.g_max > wanted.g_max * most or stated.r_max > wanted.r_max * most:
        return (
            f"its gates {stated.g_max}, {stated.r_max} admit more than the promise, which gives "
            f"{wanted.g_max}, {wanted.r_max}"
        )
    return None


def _others(events: tuple[Mechanism, ...], delta: float, cross_check: bool) -> str:
    by_rdp = rdp(events, delta)
    parts = [f"dp-accounting RDP {by_rdp:.4f}" if by_rdp is not None else ""]
    if cross_check:
        for name, value in opacus_epsilons(events, delta).items():
            said = f"{value:.4f}" if isinstance(value, float) else value
            parts.append(f"Opacus {name.upper()} {said}")
    shown = ", ".join(part for part in parts if part)
    return f" (not judged: {shown})" if shown else ""
