"""What patients' privacy was spent on: per cell and per dataset, recomputed from mechanisms.

An epsilon is never stored or added up: the events of a cell are put together from the plans and from
what the nodes said they used, and epsilon is computed from them, at the cell's one lifetime delta. A
dataset's spend is its worst cell's. Reserved counts as spent until it is settled.

Shown to people with its limit, its delta, its unit, and what an attacker could gain at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from audit.reports.periods import Renewal, lives, renewal
from audit.verification.history import History
from audit.verification.records import CellRecord, ExperimentRecord
from ledger.entries.operations.plans import Release
from ledger.entries.operations.statistics import StatisticsReserved
from ledger.rules.experiments import site_of
from ledger.rules.individual import full_steps, is_individual, shown
from ledger.rules.purposes import cell_now, fitting, now
from ledger.rules.state import PurposeShare, State
from privacy.calibrate import compose_epsilon, epsilon_of
from privacy.crosscheck import pld_epsilon, rdp_epsilon_dp_accounting
from privacy.curves import true_positive_rate
from privacy.errors import CrossCheckFailed
from privacy.events import CHARGE_UNIT, Gaussian
from privacy.filters import Charge
from privacy.pure import Mechanism, PureEpsilon

FALSE_ALARMS = 0.01
"""The false positive rate at which an attacker's gain is shown."""
DELTAS = tuple(10.0**-k for k in range(3, 13))
"""Where the curve epsilon(delta) is shown."""


@dataclass(frozen=True, slots=True)
class SpendEvent:
    """One kind of release that a cell pays for.

    Attributes:
        settled: whether the steps are what was used, or still what is reserved.
    """

    experiment: str
    dataset: str
    purpose: str
    event: Mechanism
    settled: bool

    @property
    def reservation(self) -> tuple[str, str]:
        """What it belongs to, as ``periods.lives`` names it."""
        return self.experiment, self.dataset


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Epsilon of a cell after an entry changed it."""

    index: int
    at_ms: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class PurposePart:
    """What one purpose has used of a cell's promise, as epsilon at the cell's delta.

    Attributes:
        limit: the most that the hospital lets it use; None where it said nothing.
    """

    purpose: str
    epsilon: float
    limit: float | None


@dataclass(frozen=True, slots=True)
class CellBudget:
    """A cell's promise and spend.

    Attributes:
        epsilon: at ``delta``, of everything reserved and used, by the lanes' closed form; where patients
            have accounts of their own, the most that any of them can have lost (``individual``).
        epsilon_settled: of what is settled only.
        limit: the lifetime promise.
        delta: the lifetime delta.
        attacker_gain: most true positives at ``FALSE_ALARMS`` false ones; without any spend it is
            ``FALSE_ALARMS`` itself.
        events: what it consists of.
        curve: its way there.
        by_delta: epsilon of the same spend at each of ``DELTAS``.
        closed_lanes: lanes that overflowed and admit nothing more.
        parts: what was used for each purpose, and what may be.
        renewal: of a promise that renews; all but ``curve`` is then of the period under way. None
            where the promise is for ever.
    """

    cell: str
    organisation: str
    block: str
    half: str
    declared_patients: int
    epsilon: float
    epsilon_settled: float
    limit: float
    delta: float
    attacker_gain: float
    events: tuple[SpendEvent, ...]
    curve: tuple[CurvePoint, ...]
    by_delta: tuple[tuple[float, float], ...]
    closed_lanes: tuple[str, ...]
    parts: tuple[PurposePart, ...]
    renewal: Renewal | None

    @property
    def individual(self) -> bool:
        """Whether patients have accounts of their own, inside the hospital: not recomputable from here."""
        return self.half == "individual"


@dataclass(frozen=True, slots=True)
class DatasetBudget:
    """A dataset's spend: that of its worst cell.

    Attributes:
        unit: whom the promise protects.
        worst: the cell that decides.
        cells: all that the dataset reads.
        more_like_last: how many more experiments like the last one fit; None before the first.
        last: the experiment that this is measured by.
    """

    dataset: str
    unit: str
    worst: CellBudget
    cells: tuple[CellBudget, ...]
    more_like_last: int | None
    last: str | None


def dataset_budget(history: History, state: State, dataset: str) -> DatasetBudget:
    """The spend of a dataset as last registered."""
    terms = state.datasets[dataset].terms
    cells = tuple(cell_budget(history, state, use.cell) for use in terms.cells)
    worst = max(cells, key=lambda c: (c.epsilon / c.limit, c.cell))
    last = _last_experiment(history, dataset)
    more = None if last is None else how_many_more(state, last, dataset)
    return DatasetBudget(dataset, terms.unit, worst, cells, more, last.id if last else None)


def cell_budget(history: History, state: State, cell: str) -> CellBudget:
    """The spend of one cell; where its promise renews, in the period of the log's time."""
    held = now(shown(state, cell), state.log_time)
    terms = held.terms
    delta = terms.delta_e15 / 1e15
    events = tuple(cell_events(history, cell))
    if held.periods is not None:
        found = lives(history, held.periods)
        events = tuple(e for e in events if found[e.reservation].reaches(held.periods.number))
    order = terms.limit.order_centi
    spend = held.spend
    mu2 = sum(float(e.event.mu2_per_step * e.event.steps) for e in events)
    if is_individual(terms):
        mu2 = min(mu2, spend.g / CHARGE_UNIT)
    return CellBudget(
        cell=cell,
        organisation=held.organisation,
        block=terms.block,
        half=terms.half,
        declared_patients=terms.declared_patients,
        epsilon=epsilon_of(spend.g, spend.r, order, delta),
        epsilon_settled=min(
            compose_epsilon([e.event for e in events if e.settled], delta),
            terms.epsilon_micro / 1e6 if is_individual(terms) else math.inf,
        ),
        limit=terms.epsilon_micro / 1e6,
        delta=delta,
        attacker_gain=true_positive_rate(math.sqrt(mu2), FALSE_ALARMS),
        events=events,
        curve=() if is_individual(terms) else _curve(history.cells[cell], order, delta),
        by_delta=tuple((d, epsilon_of(spend.g, spend.r, order, d)) for d in DELTAS),
        closed_lanes=tuple(
            name
            for name, closed in (("G", spend.g_overflowed), ("R", spend.r_overflowed))
            if closed
        ),
        parts=tuple(
            _part(code, share, order, delta) for code, share in sorted(held.purposes.items())
        ),
        renewal=renewal(held, state.log_time),
    )


def cell_events(history: History, cell: str) -> Iterator[SpendEvent]:
    """Everything that a cell pays for: experiments in the order of reservations, then statistics."""
    found = [
        (held.said.index, experiment, dataset)
        for experiment in history.experiments.values()
        for dataset, held in experiment.held.items()
    ]
    for _, experiment, dataset in sorted(found, key=lambda item: item[0]):
        held = experiment.held[dataset]
        site = site_of(experiment.plan, dataset)
        if site is None:
            continue
        used = settled_steps(experiment, dataset)
        for release in site.releases:
            if all(charge.cell != cell for charge in release.charges):
                continue
            steps = release.steps if used is None else used.get(release.purpose, 0)
            yield SpendEvent(
                experiment.id,
                dataset,
                release.purpose,
                event_of(release, steps),
                held.settled is not None,
            )
    for identity, record in history.statistics.items():
        if any(charge.cell == cell for charge in record.terms.charges):
            for told in statistics_mechanisms(record.terms):
                yield SpendEvent(identity, record.terms.dataset, "statistics", told, True)


def statistics_mechanisms(terms: StatisticsReserved) -> tuple[Mechanism, ...]:
    """What statistics were released by: one Gaussian, or parts of pure epsilon."""
    if not terms.pure:
        return (Gaussian(terms.sensitivity, terms.noise_sd),)
    return tuple(PureEpsilon(part.epsilon_micro, part.count) for part in terms.pure)


def settled_steps(experiment: ExperimentRecord, dataset: str) -> dict[str, int] | None:
    """Steps by purpose that a settlement states, or None while the reservation is open."""
    settled = experiment.held[dataset].settled
    if settled is None:
        return None
    steps: dict[str, int] = {}
    for item in settled[1].used:
        steps[item.purpose] = max(item.steps, steps.get(item.purpose, 0))
    return steps


def event_of(release: Release, steps: int) -> Gaussian:
    """The mechanism of a release; where patients have accounts, the most of it that any takes part in."""
    if release.engine == "individual":
        steps = min(steps, full_steps(release))
    return Gaussian(release.sensitivity, release.noise_sd, steps, release.sampling)


def experiment_epsilon(experiment: ExperimentRecord, dataset: str, state: State) -> float:
    """Epsilon of one experiment alone on a dataset's worst cell, at that cell's delta.

    Before a settlement of what is reserved, after it of what was used; 0 without a reservation.
    """
    if dataset not in experiment.held:
        return 0.0
    site = site_of(experiment.plan, dataset)
    if site is None:
        return 0.0
    used = settled_steps(experiment, dataset)
    by_cell: dict[str, list[Gaussian]] = {}
    for release in site.releases:
        steps = release.steps if used is None else used.get(release.purpose, 0)
        for charge in release.charges:
            by_cell.setdefault(charge.cell, []).append(event_of(release, steps))
    return max(
        compose_epsilon(events, state.cells[cell].terms.delta_e15 / 1e15)
        for cell, events in by_cell.items()
    )


def how_many_more(state: State, like: ExperimentRecord, dataset: str) -> int | None:
    """How many more reservations like one of an experiment's all cells of a dataset admit.

    The filters admit while a lane that never overflowed still holds, so the better lane counts. Cells
    whose patients have accounts admit any number; None where there are no others.
    """
    held = like.held[dataset]
    return min(
        (
            fitting(cell_now(state, charge.cell), like.plan.purpose, Charge(charge.g, charge.r))
            for charge in held.terms.charges
            if not is_individual(state.cells[charge.cell].terms)
        ),
        default=None,
    )


@lru_cache(maxsize=256)
def pld(events: tuple[Mechanism, ...], delta: float) -> float:
    """Epsilon by privacy loss distributions; kept, since a console asks again and again.

    Raises:
        CrossCheckFailed: the accountant gave no number.
    """
    return pld_epsilon(events, delta)


@lru_cache(maxsize=256)
def rdp(events: tuple[Mechanism, ...], delta: float) -> float | None:
    """Epsilon by dp-accounting's RDP, shown and never judged; None where it gives no number."""
    try:
        return rdp_epsilon_dp_accounting(events, delta)
    except CrossCheckFailed:
        return None


def merged(events: Sequence[SpendEvent]) -> tuple[Mechanism, ...]:
    """The mechanisms alone, sorted, for accountants and caches."""
    found = [e.event for e in events if e.event.steps]
    return tuple(sorted(found, key=lambda e: (e.sensitivity, e.noise_sd, e.sampling, e.steps)))


def _part(purpose: str, share: PurposeShare, order: int, delta: float) -> PurposePart:
    spent = epsilon_of(share.spend.g, share.spend.r, order, delta)
    return PurposePart(
        purpose, spent, None if share.terms is None else share.terms.epsilon_micro / 1e6
    )


def _last_experiment(history: History, dataset: str) -> ExperimentRecord | None:
    found = [e for e in history.experiments.values() if dataset in e.held]
    return max(found, key=lambda e: e.held[dataset].said.index, default=None)


def _curve(record: CellRecord, order: int, delta: float) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(p.index, p.at_ms, epsilon_of(p.spend.g, p.spend.r, order, delta))
        for p in record.points
    )


def mu2(charge_g: int) -> float:
    """A lane-G charge as mu squared."""
    return charge_g / CHARGE_UNIT
