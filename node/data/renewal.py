"""Whether a hospital's promise renews, and from when: declared with its first dataset, and for all its cells.

All cells of a hospital have periods of one length that begin at the same instants, also those of later
calendar blocks, and those of other federations where a book of promises is shared: periods that overlapped in
part would let more leave in one of them than was promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ledger.entries.operations.datasets import CellRegistered
from ledger.entries.operations.refreshes import RefreshDeclared
from ledger.experiment.schema import Schema
from ledger.rules.individual import is_individual
from ledger.rules.refreshes import is_in_use
from ledger.rules.state import State
from node.errors import RegistrationRefused
from node.register.accounts import PrivateCell
from node.register.promises import PromiseBook
from privacy.periods import DAY_MS, DAYS_LEAST, DAYS_MOST, Periods


@dataclass(frozen=True, slots=True)
class Renewal:
    """Periods of so many days, one of which begins at ``from_ms``."""

    days: int
    from_ms: int

    def under_way(self, now_ms: int) -> Renewal:
        """The same periods, counted from the one in which an instant lies."""
        length = self.days * DAY_MS
        return Renewal(self.days, self.from_ms + (now_ms - self.from_ms) // length * length)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is said of renewal when a dataset is registered.

    Attributes:
        days: of a period; None where nothing is said.
        now_ms: this hospital's clock.
        shared: of the book of promises, which all federations of the hospital name.
    """

    days: int | None
    now_ms: int
    shared: Renewal | None = None

    @classmethod
    def of(cls, days: int | None, now_ms: int, book: PromiseBook | None) -> Self:
        """What is asked at a home that may name a book of promises."""
        held = None if book is None else book.renewal()
        return cls(days, now_ms, None if held is None else Renewal(*held))


def renewal_of(periods: Periods | None) -> Renewal | None:
    """How a cell's promise renews."""
    return None if periods is None else Renewal(periods.days, periods.from_ms)


def renewal_for(
    schema: Schema, known: Mapping[str, PrivateCell], asked: Asked | None, *, individual: bool
) -> Renewal | None:
    """How the promises to a hospital's new cells renew; None where they are for ever.

    Args:
        schema: of the dataset.
        known: the hospital's cells.
        asked: what was said; None where nothing was, and no clock is at hand.
        individual: whether its patients have accounts of their own.

    Raises:
        RegistrationRefused: it was decided otherwise before, or cannot be.
    """

    def refused(why: str) -> RegistrationRefused:
        return RegistrationRefused(schema.dataset, why)

    if known:
        held = next((c.periods for c in known.values() if c.periods is not None), None)
        days = None if held is None else held.days
        if asked is not None and asked.days is not None and asked.days != days:
            was = "for ever" if held is None else f"for each {held.days} days"
            raise refused(
                f"its patients' promise is {was}, as was said with this hospital's first dataset; "
                "leave --refresh-days out"
            )
        renewal = renewal_of(held)
        if renewal is None or asked is None:
            return renewal
        return renewal.under_way(asked.now_ms)
    if asked is None or asked.days is None:
        if asked is not None and asked.shared is not None:
            raise refused(
                f"this hospital's book of promises renews every {asked.shared.days} days; "
                f"say --refresh-days {asked.shared.days}"
            )
        return None
    if not DAYS_LEAST <= asked.days <= DAYS_MOST:
        raise refused(f"--refresh-days {asked.days} is outside {DAYS_LEAST}..{DAYS_MOST}")
    if individual:
        raise refused(
            "accounts for each patient hold for ever; leave --refresh-days or --individual out"
        )
    wanted = Renewal(asked.days, asked.now_ms)
    return wanted if asked.shared is None else _aligned(schema, wanted, asked.shared)


def to_declare(
    name: str, terms: CellRegistered, renewal: Renewal | None, state: State
) -> RefreshDeclared | None:
    """What is still to be said of a cell that the log has, or None.

    Raises:
        RegistrationRefused: the log has it with other periods, or without any and in use.
    """
    cell = state.cells[terms.cell]
    said = cell.periods
    if said is not None:
        if renewal is None or renewal.days != said.days:
            raise RegistrationRefused(
                name,
                f"cell {terms.cell} is in the log with a promise for each {said.days} days; register "
                f"the cell's first dataset again with --refresh-days {said.days}",
            )
        return None
    if renewal is None or is_individual(terms):
        return None
    if is_in_use(state, terms.cell):
        raise RegistrationRefused(
            name,
            f"cell {terms.cell} is in the log, and its promise is for ever; leave --refresh-days out",
        )
    siblings = (c.periods for c in state.cells.values() if c.organisation == cell.organisation)
    before = renewal_of(next((p for p in siblings if p is not None), None))
    if before is not None and before.days == renewal.days:  # cut off between two cells
        renewal = before.under_way(renewal.from_ms)
    return RefreshDeclared(
        type="refresh.declared", cell=terms.cell, days=renewal.days, from_ms=renewal.from_ms
    )


def _aligned(schema: Schema, wanted: Renewal, shared: Renewal) -> Renewal:
    """The book's periods, if they are as long."""
    if shared.days != wanted.days:
        raise RegistrationRefused(
            schema.dataset,
            f"this hospital's book of promises renews every {shared.days} days, and not every "
            f"{wanted.days}; say --refresh-days {shared.days}",
        )
    return shared.under_way(wanted.from_ms)
