"""The budget report: what every cell of patients was promised, what is spent of it, and on what."""

from __future__ import annotations

import csv
import io
import time

from audit.reports.budget import CellBudget, cell_budget, merged, pld
from audit.reports.data_use_form import Header, Part
from audit.reports.standing import header_of
from audit.verification.verify import Verification


class Spent(Part):
    """One kind of release that a cell pays for.

    Attributes:
        noise_multiplier: deviation of the noise over the sensitivity.
        settled: whether the steps are what was used, or still what is reserved.
    """

    experiment: str
    dataset: str
    purpose: str
    steps: int
    noise_multiplier: float
    sampling: float
    settled: bool


class PurposeLine(Part):
    """What one purpose has used of a cell, and the most that it may; null where nothing was said."""

    purpose: str
    epsilon: float
    limit: float | None


class CellLine(Part):
    """One cell of patients.

    Attributes:
        epsilon: of all that is reserved and used at ``delta``, by the lanes' closed form.
        epsilon_settled: of what is settled only.
        epsilon_pld: the first again, by privacy loss distributions.
        refresh_days: of a promise that renews, and then all of the above is of the period under way; null
            where it is for ever.
        epsilon_all_periods: of all that was ever charged, at ``delta_all_periods``, one share of delta for
            each period in which anything was; null where the promise is for ever.
    """

    cell: str
    organisation: str
    half: str
    block: str
    declared_patients: int
    promised: float
    delta: float
    epsilon: float
    epsilon_settled: float
    epsilon_pld: float
    refresh_days: int | None
    epsilon_all_periods: float | None
    delta_all_periods: float | None
    purposes: tuple[PurposeLine, ...]
    spent: tuple[Spent, ...]


class BudgetReport(Part):
    """All cells of a federation."""

    header: Header
    cells: tuple[CellLine, ...]


def budget_report(found: Verification, by: str) -> BudgetReport:
    """Assemble the report from a verified copy; ``by`` says who makes it."""
    now_ms = time.time_ns() // 1_000_000
    return BudgetReport(
        header=header_of(
            found,
            report="budget",
            subject=found.state.name,
            version=found.state.federation,
            period=(0, found.state.log_time),
            now_ms=now_ms,
            by=by,
        ),
        cells=tuple(
            _line(cell_budget(found.history, found.state, name))
            for name in sorted(found.state.cells)
        ),
    )


def budget_csv(report: BudgetReport) -> str:
    """The cells as CSV, a line each; formulas cannot be in it, since every field is a slug or number."""
    out = io.StringIO()
    fields = [name for name in CellLine.model_fields if name not in ("spent", "purposes")]
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    for cell in report.cells:
        writer.writerow(cell.model_dump(include=set(fields)))
    return out.getvalue()


def _line(budget: CellBudget) -> CellLine:
    found = budget.renewal
    return CellLine(
        cell=budget.cell,
        organisation=budget.organisation,
        half=budget.half,
        block=budget.block,
        declared_patients=budget.declared_patients,
        promised=budget.limit,
        delta=budget.delta,
        epsilon=budget.epsilon,
        epsilon_settled=budget.epsilon_settled,
        epsilon_pld=_by_pld(budget),
        refresh_days=None if found is None else found.days,
        epsilon_all_periods=None if found is None else found.epsilon_together,
        delta_all_periods=None if found is None else found.delta_together,
        purposes=tuple(
            PurposeLine(purpose=p.purpose, epsilon=p.epsilon, limit=p.limit) for p in budget.parts
        ),
        spent=tuple(
            Spent(
                experiment=event.experiment,
                dataset=event.dataset,
                purpose=event.purpose,
                steps=event.event.steps,
                noise_multiplier=float(event.event.noise_multiplier),
                sampling=float(event.event.q),
                settled=event.settled,
            )
            for event in budget.events
        ),
    )


def _by_pld(budget: CellBudget) -> float:
    """By privacy loss distributions; where patients have accounts inside the hospital, what is shown."""
    if budget.individual:
        return budget.epsilon
    return pld(merged(budget.events), budget.delta) if merged(budget.events) else 0.0
