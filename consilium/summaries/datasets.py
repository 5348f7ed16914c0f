"""Datasets, cells and what is left of their promises in short, in epsilon and patients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypedDict

from audit.reports.budget import DELTAS, FALSE_ALARMS
from audit.reports.periods import renewal
from consilium.summaries.log import iso_time
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from ledger.rules.individual import is_individual, shown
from ledger.rules.purposes import NONE, fitting, gate, is_closed, now
from ledger.rules.state import Cell, Dataset, State
from privacy.calibrate import epsilon_of
from privacy.curves import true_positive_rate
from privacy.events import CHARGE_UNIT
from privacy.filters import Charge, left

if TYPE_CHECKING:
    pass


class DatasetSummary(TypedDict):
    """A dataset and what its patients' budget still holds (its worst cell's)."""

    dataset: str
    organisation: str
    unit: str
    declared_train: int
    declared_test: int
    cells: list[str]
    epsilon_promised: float
    epsilon_spent: float
    withdrawn: bool
    registered_at: int


class CellSummary(TypedDict):
    """A cell of patients and its promise; ``left`` is a share of the wider open lane."""

    cell: str
    organisation: str
    half: str
    block: str
    declared_patients: int
    epsilon: float
    delta: float
    epsilon_spent: float
    left: float


class PurposeSummary(TypedDict):
    """What was spent of a cell for one purpose; ``epsilon`` is the most that may be, or None for all.

    ``closed`` says that nothing more is admitted for it.
    """

    purpose: str
    epsilon: float | None
    epsilon_spent: float
    closed: bool


class CurvePoint(TypedDict):
    """What a cell's spend amounts to at another delta."""

    delta: float
    epsilon: float


class RefreshSummary(TypedDict):
    """How a cell's promise renews; all else that is said of the cell is of the period under way.

    ``epsilon_all_periods`` is what everything ever charged comes to at ``delta_all_periods``, one share of
    delta for each of the ``periods_used``; ``most_all_periods`` what so many periods promise at that delta.
    """

    days: int
    period: int
    period_began: str
    next_refresh: str
    periods_used: int
    epsilon_all_periods: float
    delta_all_periods: float
    most_all_periods: float


class CellBudgetSummary(CellSummary):
    """A cell with what its spend means: an attacker's chance, and epsilon at any delta.

    ``attacker_gain_at_1_percent`` is the most true positives at 1 % false ones; without any spend it is
    0.01 itself. ``more_like_last`` is how many more reservations like the dataset's last one it admits.
    """

    attacker_gain_at_1_percent: float
    more_like_last: int | None
    purposes: list[PurposeSummary]
    refresh: RefreshSummary | None
    curve: list[CurvePoint]


class DatasetBudgetSummary(TypedDict):
    """A dataset's budget: its cells, and what fits into the one that holds the least."""

    dataset: str
    unit: str
    last_experiment: str | None
    more_like_last: int | None
    cells: list[CellBudgetSummary]


def dataset_summary(state: State, name: str, dataset: Dataset) -> DatasetSummary:
    """Summarise a dataset."""
    cells = [now(shown(state, use.cell), state.log_time) for use in dataset.terms.cells]
    return DatasetSummary(
        dataset=name,
        organisation=dataset.organisation,
        unit=dataset.terms.unit,
        declared_train=dataset.terms.declared_train,
        declared_test=dataset.terms.declared_test,
        cells=[cell.terms.cell for cell in cells],
        epsilon_promised=min(cell.terms.epsilon_micro for cell in cells) / 1e6,
        epsilon_spent=max(epsilon_spent(cell) for cell in cells),
        withdrawn=dataset.withdrawn_at is not None,
        registered_at=dataset.registered_at,
    )


def cell_summary(cell: Cell) -> CellSummary:
    """Summarise a cell."""
    terms = cell.terms
    limit, room = gate(cell), left(cell.spend, gate(cell))
    return CellSummary(
        cell=terms.cell,
        organisation=cell.organisation,
        half=terms.half,
        block=terms.block,
        declared_patients=terms.declared_patients,
        epsilon=terms.epsilon_micro / 1e6,
        delta=terms.delta_e15 / 1e15,
        epsilon_spent=epsilon_spent(cell),
        left=max(room.g / limit.g_max, room.r / limit.r_max),
    )


def budget_row(cell: CellBudgetSummary) -> dict[str, object]:
    """A cell as a row of a table whose headings say the units; what has lines of its own is left out."""
    apart = ("curve", "purposes", "refresh", "left", "attacker_gain_at_1_percent", "more_like_last")
    return {
        **{name: value for name, value in cell.items() if name not in apart},
        "left (% of wider lane)": round(100 * cell["left"], 1),
        "attacker hits at 1 % false alarms (%)": round(100 * cell["attacker_gain_at_1_percent"], 1),
        "more_like_last (experiments)": cell["more_like_last"],
    }


def dataset_budget_summary(state: State, dataset: Dataset) -> DatasetBudgetSummary:
    """Summarise what a dataset's patients were promised, what is spent, and what still fits.

    Reserved counts as spent until it is settled.
    """
    name = dataset.terms.dataset
    users = [e for e in state.experiments.values() if name in e.reservations]
    last = max(users, key=lambda e: e.reservations[name].index, default=None)
    charges = {} if last is None else {c.cell: c for c in last.reservations[name].charges}
    cells = []
    for use in dataset.terms.cells:
        cell = now(shown(state, use.cell), state.log_time)
        more = None
        if use.cell in charges and not is_individual(cell.terms):
            one = charges[use.cell]
            purpose = last.plan.purpose if last is not None else "research"
            more = fitting(cell, purpose, Charge(one.g, one.r))
        cells.append(_cell_budget(cell, more, state.log_time))
    repeatable = [c["more_like_last"] for c in cells if c["more_like_last"] is not None]
    return DatasetBudgetSummary(
        dataset=name,
        unit=dataset.terms.unit,
        last_experiment=None if last is None else last.name,
        more_like_last=min(repeatable, default=None),
        cells=cells,
    )


def purpose_summary(cell: Cell, purpose: str) -> PurposeSummary:
    """Summarise what a purpose has used of a cell, and may use."""
    share = cell.purposes.get(purpose, NONE)
    spend, terms = share.spend, cell.terms
    return PurposeSummary(
        purpose=purpose,
        epsilon=None if share.terms is None else share.terms.epsilon_micro / 1e6,
        epsilon_spent=epsilon_of(spend.g, spend.r, terms.limit.order_centi, terms.delta_e15 / 1e15),
        closed=is_closed(cell, purpose),
    )


def epsilon_spent(cell: Cell) -> float:
    """Epsilon at the cell's delta of all that is reserved or spent, by the lanes' closed form."""
    spend, terms = cell.spend, cell.terms
    return epsilon_of(spend.g, spend.r, terms.limit.order_centi, terms.delta_e15 / 1e15)


def epsilon_after(cell: Cell, g: int, r: int) -> float:
    """`epsilon_spent` if a further charge were made."""
    spend, terms = cell.spend, cell.terms
    delta = terms.delta_e15 / 1e15
    return epsilon_of(spend.g + g, spend.r + r, terms.limit.order_centi, delta)


def schema_columns(schema: Schema) -> list[dict[str, str]]:
    """A schema's columns as rows: what may be named as a feature or a target, and its range."""
    rows = []
    for column in schema.columns:
        if isinstance(column, NumberColumn):
            values = f"{column.low} .. {column.high} {column.unit}".strip()
            policy = f"outside: {column.outside}, missing: {column.missing}"
        elif isinstance(column, CategoryColumn):
            values = ", ".join(column.values)
            policy = f"outside: {column.outside}, missing: {column.missing}"
        else:
            values, policy = "the unit of privacy; never a feature", ""
        rows.append(
            {
                "column": column.name,
                "type": column.type,
                "values": values,
                "policy": policy,
                "about": column.about,
            }
        )
    return rows


def refresh_lines(cell: CellBudgetSummary) -> list[str]:
    """How a cell's promise renews, for people; none where it is for ever."""
    found = cell["refresh"]
    if found is None:
        return []
    return [
        f"{cell['cell']}: the promise holds for each {found['days']} days. Period {found['period'] + 1} began "
        f"{found['period_began']}; the next refresh is {found['next_refresh']}. It is no lifetime promise: in "
        f"{found['periods_used']} periods epsilon {found['epsilon_all_periods']:.3f} was spent together at delta "
        f"{found['delta_all_periods']:.1e}, and at most {found['most_all_periods']:.3f} is promised."
    ]


def _refresh(cell: Cell, log_time: int) -> RefreshSummary | None:
    found = renewal(cell, log_time)
    if found is None:
        return None
    return RefreshSummary(
        days=found.days,
        period=found.number,
        period_began=iso_time(found.began_ms),
        next_refresh=iso_time(found.next_ms),
        periods_used=found.used,
        epsilon_all_periods=found.epsilon_together,
        delta_all_periods=found.delta_together,
        most_all_periods=found.most_together,
    )


def _cell_budget(cell: Cell, more: int | None, log_time: int) -> CellBudgetSummary:
    spend, order = cell.spend, cell.terms.limit.order_centi
    mu = math.sqrt(spend.g / CHARGE_UNIT)
    return CellBudgetSummary(
        **cell_summary(cell),
        attacker_gain_at_1_percent=true_positive_rate(mu, FALSE_ALARMS),
        more_like_last=more,
        purposes=[purpose_summary(cell, code) for code in sorted(cell.purposes)],
        refresh=_refresh(cell, log_time),
        curve=[
            CurvePoint(delta=delta, epsilon=epsilon_of(spend.g, spend.r, order, delta))
            for delta in DELTAS
        ],
    )
