"""Cells whose promise renews: what was charged in each period of the log's time, and in all of them together.

A reservation counts in every period from the one in which it was made to the one in which it was settled, or
to the newest while it is open; statistics from permission to answer. What is shown of a period is therefore the
most that may have left in it. All periods together are no lifetime promise: epsilons of the periods add up as
mechanisms do, and each has a delta of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from audit.reports.data_use_form import RenewalBlock
from audit.verification.history import History
from ledger.rules.purposes import gate, now
from ledger.rules.state import Cell
from privacy.calibrate import epsilon_of
from privacy.periods import Periods, together

Reservation = tuple[str, str]
"""An experiment's id, or that of a permission for statistics, and a dataset."""


@dataclass(frozen=True, slots=True)
class Life:
    """The periods in which a reservation counts; ``last`` is None while it is open."""

    first: int
    last: int | None

    def reaches(self, number: int) -> bool:
        """Whether it counts in a period."""
        return self.first <= number and (self.last is None or number <= self.last)


@dataclass(frozen=True, slots=True)
class Renewal:
    """How a cell's promise renews, and what all its periods come to.

    Attributes:
        days: length of a period.
        number: of the period under way, 0 is the first.
        began_ms, next_ms: when it began, and when the next one begins: the next refresh.
        used: periods in which anything was charged or still open.
        epsilon_together: of everything ever charged, by the lanes' closed form at ``delta_together``.
        delta_together: one share of delta for each used period.
        most_together: epsilon that so many periods promise at that delta, whatever is asked.
    """

    days: int
    number: int
    began_ms: int
    next_ms: int
    used: int
    epsilon_together: float
    delta_together: float
    most_together: float


def renewal(cell: Cell, log_time: int) -> Renewal | None:
    """How a cell's promise renews; None where it is for ever."""
    cell = now(cell, log_time)
    periods = cell.periods
    if periods is None:
        return None
    delta, epsilon = cell.terms.delta_e15 / 1e15, cell.terms.epsilon_micro / 1e6
    used = periods.used(cell.spend)
    most, share = together(gate(cell), epsilon, delta, max(1, used))
    order = cell.terms.limit.order_centi
    return Renewal(
        days=periods.days,
        number=periods.number,
        began_ms=periods.begins_ms(periods.number),
        next_ms=periods.begins_ms(periods.number + 1),
        used=used,
        epsilon_together=epsilon_of(periods.total_g, periods.total_r, order, share),
        delta_together=share,
        most_together=most,
    )


def renewal_block(found: Renewal | None) -> RenewalBlock | None:
    """The same as reports hold it."""
    if found is None:
        return None
    return RenewalBlock(
        days=found.days,
        period=found.number + 1,
        began_ms=found.began_ms,
        next_ms=found.next_ms,
        periods_used=found.used,
        epsilon_all_periods=found.epsilon_together,
        delta_all_periods=found.delta_together,
        most_all_periods=found.most_together,
    )


def lives(history: History, periods: Periods) -> dict[Reservation, Life]:
    """In which periods each reservation and permission of a log counts."""
    found: dict[Reservation, Life] = {}
    for experiment in history.experiments.values():
        for dataset, held in experiment.held.items():
            last = None if held.settled is None else periods.at(held.settled[0].log_time)
            found[experiment.id, dataset] = Life(periods.at(held.said.log_time), last)
    for identity, told in history.statistics.items():
        last = None if told.released is None else periods.at(told.released[0].log_time)
        found[identity, told.terms.dataset] = Life(periods.at(told.said.log_time), last)
    return found


def numbers(found: dict[Reservation, Life], newest: int) -> Iterator[int]:
    """The periods that any of these reach, first to ``newest``."""
    for number in range(newest + 1):
        if any(life.reaches(number) for life in found.values()):
            yield number


def reservations_of(history: History, cell: str) -> frozenset[Reservation]:
    """The reservations and permissions that charge a cell."""
    return frozenset(
        [
            (experiment.id, dataset)
            for experiment in history.experiments.values()
            for dataset, held in experiment.held.items()
            if any(charge.cell == cell for charge in held.terms.charges)
        ]
        + [
            (identity, told.terms.dataset)
            for identity, told in history.statistics.items()
            if any(charge.cell == cell for charge in told.terms.charges)
        ]
    )
