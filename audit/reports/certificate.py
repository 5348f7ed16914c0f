"""The privacy certificate of a released model: what it may tell about one patient, at most.

Under the headings by which NIST SP 800-226 (Guidelines for Evaluating Differential Privacy Guarantees,
March 2025) asks that a claim be judged: the unit of privacy, the trust model, the parameters, and the
hazards. Every figure is computed here from the mechanisms that a verified copy of the ledger holds,
never from an epsilon that somebody stated; texts are in ``certificate_words``.

Two relations are shown: one unit's rows replaced by nothing (zero-out, the promise) and replaced by any
other rows (replace-one, which a Gaussian release pays as twice the sensitivity).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from audit.errors import NotInLedger, NotReleased
from audit.reports.budget import DELTAS, FALSE_ALARMS, cell_budget, event_of, pld, settled_steps
from audit.reports.certificate_words import HAZARDS, LIMITS, ONE_BY_ONE, RENEWING, Hazard, trust_in
from audit.reports.data_use import spec_of
from audit.reports.data_use_form import Header, Mechanism, Observed, Part, RenewalBlock
from audit.reports.observed import observed_of_experiment
from audit.reports.outcomes import outcome_of
from audit.reports.periods import renewal_block
from audit.reports.standing import NOT_STATED, header_of
from audit.verification.records import ExperimentRecord
from audit.verification.verify import Verification
from ledger.rules.experiments import site_of
from ledger.rules.individual import is_individual
from privacy.calibrate import compose_epsilon
from privacy.crosscheck import pld_epsilon
from privacy.curves import true_positive_rate
from privacy.errors import CrossCheckFailed
from privacy.events import GRID, Gaussian

HOSPITALS = (1, 2, 3)


class CurveEnd(Part):
    """Epsilon at one delta."""

    delta: float
    epsilon: float


class CellCertificate(Part):
    """What the model cost one cell of patients, and what the cell has left.

    Attributes:
        epsilon: of this experiment alone, at ``delta``; zero-out.
        epsilon_pld: the same by privacy loss distributions, or None where that gave no number.
        replace_one: of this experiment alone, by privacy loss distributions; replace-one.
        mu: of the releases taken as full batches; an attacker's power follows from it.
        attacker_gain: most true positives at 1 % false ones, from this experiment alone.
        lifetime_epsilon: of everything that the cell ever paid for; null where its promise renews.
        lifetime_limit: what its hospital promised for ever; null where the promise renews.
        period_epsilon: of everything that the cell paid for in the period under way, of
            ``period_limit``, where its promise renews; else null, as is ``renewal``.
    """

    cell: str
    dataset: str
    hospital: str
    unit: str
    declared_patients: int
    delta: float
    epsilon: float
    epsilon_pld: float | None
    replace_one: float | None
    mu: float
    attacker_gain: float
    lifetime_epsilon: float | None
    lifetime_limit: float | None
    period_epsilon: float | None
    period_limit: float | None
    renewal: RenewalBlock | None


class SeveralHospitals(Part):
    """Epsilon for a patient whose rows lie in several of the hospitals, at the worst.

    Attributes:
        hospitals: in how many.
        epsilon: at ``delta``, the smallest among the cells concerned; zero-out of all rows.
    """

    hospitals: int
    delta: float
    epsilon: float


class Certificate(Part):
    """The whole certificate."""

    header: Header
    experiment: str
    name: str
    title: str
    purpose: str
    model: str
    released_entry: int
    released_at_ms: int
    unit: str
    unit_words: str
    trust: tuple[str, ...]
    cells: tuple[CellCertificate, ...]
    several: tuple[SeveralHospitals, ...]
    worst_cell: str
    curve: tuple[CurveEnd, ...]
    mechanisms: tuple[Mechanism, ...]
    other_experiments: int
    hazards: tuple[Hazard, ...]
    observed: tuple[Observed, ...]
    limits: tuple[str, ...]


def certificate(found: Verification, experiment: str, *, now_ms: int, by: str) -> Certificate:
    """Make the certificate of an experiment's released model.

    Args:
        found: a verification of the copy.
        experiment: its id.
        now_ms: when the certificate is made, POSIX ms.
        by: who makes it, in words.

    Raises:
        NotInLedger: there is no such experiment.
        NotReleased: its model was not released.
    """
    record = found.history.experiments.get(experiment)
    if record is None:
        known = ", ".join(e.terms.name for e in found.history.experiments.values())
        raise NotInLedger("experiment", experiment, known)
    if record.released is None:
        raise NotReleased(record.terms.name, outcome_of(record).text)
    said, model = record.released
    spec = spec_of(found, record)
    spent = _spent(record)
    cells = tuple(_cell(found, dataset, cell, events) for (dataset, cell), events in spent.items())
    worst = max(cells, key=lambda c: (c.epsilon, c.cell))
    worst_events = spent[(worst.dataset, worst.cell)]
    units = sorted({cell.unit for cell in cells})
    shared = {
        other.id
        for other in found.history.experiments.values()
        if other.id != record.id and set(other.held) & set(record.held)
    }
    return Certificate(
        header=header_of(
            found,
            report="privacy certificate",
            subject=record.terms.name,
            version=model.sha256,
            period=(record.said.at_ms, said.at_ms),
            now_ms=now_ms,
            by=by,
        ),
        experiment=record.id,
        name=record.terms.name,
        title=spec.title if spec else NOT_STATED,
        purpose=spec.purpose if spec else NOT_STATED,
        model=model.sha256,
        released_entry=said.index,
        released_at_ms=said.at_ms,
        unit=" and ".join(units),
        unit_words=_unit_words(units),
        trust=trust_in(record.plan),
        cells=cells,
        several=tuple(_several(cells, spent, record.plan.noise_shares > 1)),
        worst_cell=worst.cell,
        curve=tuple(
            CurveEnd(delta=delta, epsilon=compose_epsilon(worst_events, delta)) for delta in DELTAS
        ),
        mechanisms=tuple(_mechanisms(record)),
        other_experiments=len(shared),
        hazards=HAZARDS,
        observed=observed_of_experiment(found, experiment),
        limits=LIMITS
        + tuple(
            ONE_BY_ONE.format(cell=cell.cell)
            for cell in cells
            if is_individual(found.state.cells[cell.cell].terms)
        )
        + tuple(
            RENEWING.format(cell=cell.cell, days=cell.renewal.days)
            for cell in cells
            if cell.renewal
        ),
    )


def _spent(record: ExperimentRecord) -> dict[tuple[str, str], list[Gaussian]]:
    """The experiment's events by dataset and cell: used where settled, else as reserved."""
    spent: dict[tuple[str, str], list[Gaussian]] = {}
    for dataset in sorted(record.held):
        site = site_of(record.plan, dataset)
        if site is None:
            continue
        used = settled_steps(record, dataset)
        for release in site.releases:
            steps = release.steps if used is None else used.get(release.purpose, 0)
            for charge in release.charges:
                spent.setdefault((dataset, charge.cell), []).append(event_of(release, steps))
    return spent


def _cell(
    found: Verification, dataset: str, cell: str, events: Sequence[Gaussian]
) -> CellCertificate:
    life = cell_budget(found.history, found.state, cell)
    made = tuple(event for event in events if event.steps)
    mu = math.sqrt(_mu2(made))
    try:
        by_pld: float | None = pld(made, life.delta)
        replace_one: float | None = pld_epsilon(made, life.delta, replace_one=True)
    except CrossCheckFailed:
        by_pld = replace_one = None
    return CellCertificate(
        cell=cell,
        dataset=dataset,
        hospital=life.organisation,
        unit=found.state.datasets[dataset].terms.unit,
        declared_patients=life.declared_patients,
        delta=life.delta,
        epsilon=compose_epsilon(made, life.delta),
        epsilon_pld=by_pld,
        replace_one=replace_one,
        mu=mu,
        attacker_gain=true_positive_rate(mu, FALSE_ALARMS),
        lifetime_epsilon=None if life.renewal else life.epsilon,
        lifetime_limit=None if life.renewal else life.limit,
        period_epsilon=life.epsilon if life.renewal else None,
        period_limit=life.limit if life.renewal else None,
        renewal=renewal_block(life.renewal),
    )


def _several(
    cells: Sequence[CellCertificate], spent: dict[tuple[str, str], list[Gaussian]], one_sum: bool
) -> list[SeveralHospitals]:
    """What a patient of several hospitals pays.

    Where each hospital adds its own noise, events compose. Where the hospitals share one noise, the
    patient moves the one sum several times as far.
    """
    worst: dict[str, CellCertificate] = {}
    for cell in cells:
        before = worst.get(cell.hospital)
        if before is None or cell.mu > before.mu:
            worst[cell.hospital] = cell
    most = sorted(worst.values(), key=lambda c: -c.mu)
    found = []
    for count in HOSPITALS:
        if count > len(most):
            break
        chosen = most[:count]
        if one_sum:
            worst_events = spent[(most[0].dataset, most[0].cell)]
            events = [replace(e, sensitivity=count * e.sensitivity) for e in worst_events]
        else:
            events = [e for c in chosen for e in spent[(c.dataset, c.cell)]]
        delta = min(c.delta for c in chosen)
        found.append(
            SeveralHospitals(hospitals=count, delta=delta, epsilon=compose_epsilon(events, delta))
        )
    return found


def _mechanisms(record: ExperimentRecord) -> list[Mechanism]:
    listed: list[Mechanism] = []
    for dataset in sorted(record.held):
        site = site_of(record.plan, dataset)
        if site is None:
            continue
        used = settled_steps(record, dataset)
        for release in site.releases:
            event = event_of(
                release, release.steps if used is None else used.get(release.purpose, 0)
            )
            listed.extend(
                Mechanism(
                    experiment=record.id,
                    purpose=release.purpose,
                    cell=charge.cell,
                    noise_sd=event.noise_sd / GRID,
                    sensitivity=event.sensitivity / GRID,
                    noise_multiplier=float(event.noise_multiplier),
                    sampling=float(event.q),
                    steps=event.steps,
                    settled=used is not None,
                )
                for charge in release.charges
            )
    return listed


def _mu2(events: Sequence[Gaussian]) -> float:
    return float(sum(event.mu2_per_step * event.steps for event in events))


def _unit_words(units: Sequence[str]) -> str:
    if units == ["patient"]:
        return (
            "All rows of one patient together. The node groups them by the patient's identifier, and "
            "sampling and clipping act on the group."
        )
    if units == ["record"]:
        return (
            "One row. These tables name no patient column, so a person with several rows is protected "
            "less: as if the noise were divided by the number of rows."
        )
    return (
        "All rows of one patient together where the table names patients, one row where it does not; "
        "the table below says which."
    )
