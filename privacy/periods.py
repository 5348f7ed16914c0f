"""A promise that renews: what a cell was charged per period of fixed length, and in all of them.

Period k of a cell reaches from ``from_ms + k * days`` to the next such instant; they are fixed when the
cell is opened. The promise (epsilon, delta) holds for what is released within any one period, whatever
was released before it: the filters (``filters.py``) begin anew with each, over what the period inherits.

What it inherits is everything that was reserved before it and is still open: that may be released in the new
period, and may have been released in the old one, so it counts in full in both. What is given back of a
reservation is given back in the period in which it was closed, where it was charged or inherited in full.
So in no period is more released than it was charged, whenever reservations begin and end.

Times are the caller's: the fold's is the log's time, a node's register the hospital's own clock. A cell
enters a later period and never an earlier one, so that a clock which goes back refreshes nothing.

All periods together are no lifetime promise. What k of them may come to is `together`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from privacy.curves import rdp_epsilon
from privacy.errors import RefundTooLarge
from privacy.events import CHARGE_UNIT
from privacy.filters import Charge, Limit, Spend

DAY_MS = 86_400_000
DAYS_LEAST, DAYS_MOST = 30, 36_525
"""Of a period: a month to a century."""


@dataclass(frozen=True, slots=True)
class Periods:
    """A declared period, and what was charged beside the period that a `Spend` holds.

    Attributes:
        days: length of each period.
        from_ms: when the first begins, POSIX milliseconds; what is earlier is in the first, too.
        number: of the period that the spend beside it is of; 0 is the first.
        earlier: periods before it in which anything was charged or inherited.
        open_g, open_r: reserved and not closed yet, units of 2^-40: the next period inherits it.
        total_g, total_r: charged in all periods, each release once.
    """

    days: int
    from_ms: int
    number: int = 0
    earlier: int = 0
    open_g: int = 0
    open_r: int = 0
    total_g: int = 0
    total_r: int = 0

    def at(self, at_ms: int) -> int:
        """The number of the period in which an instant lies."""
        return max(0, (at_ms - self.from_ms) // (self.days * DAY_MS))

    def begins_ms(self, number: int) -> int:
        """When a period begins."""
        return self.from_ms + number * self.days * DAY_MS

    def used(self, spend: Spend) -> int:
        """In how many periods anything was charged or inherited; ``spend`` is the newest one's."""
        return self.earlier + (spend.g > 0 or spend.r > 0)


def entered(spend: Spend, periods: Periods, limit: Limit, at_ms: int) -> tuple[Spend, Periods]:
    """The totals in the period of an instant: those of before, or of a new one with what it inherits."""
    number = periods.at(at_ms)
    if number <= periods.number:
        return spend, periods
    inherited = closing(Spend(periods.open_g, periods.open_r), limit)
    passed = number - periods.number - 1  # periods in which nothing happened
    earlier = periods.used(spend) + (passed if inherited.g or inherited.r else 0)
    return inherited, replace(periods, number=number, earlier=earlier)


def reserved(periods: Periods, charge: Charge) -> Periods:
    """After a charge that is open until it is closed."""
    return replace(
        charged(periods, charge),
        open_g=periods.open_g + charge.g,
        open_r=periods.open_r + charge.r,
    )


def charged(periods: Periods, charge: Charge) -> Periods:
    """After a charge for what was released already."""
    return replace(periods, total_g=periods.total_g + charge.g, total_r=periods.total_r + charge.r)


def closed(periods: Periods, held: Charge, refund: Charge) -> Periods:
    """After a reservation of ``held`` ended, of which ``refund`` is given back.

    Raises:
        RefundTooLarge: more than is open, or than was charged.
    """
    for have, back in (
        ((periods.open_g, periods.open_r), held),
        ((periods.total_g, periods.total_r), refund),
    ):
        if back.g > have[0] or back.r > have[1]:
            raise RefundTooLarge(Spend(*have), back)
    return replace(
        periods,
        open_g=periods.open_g - held.g,
        open_r=periods.open_r - held.r,
        total_g=periods.total_g - refund.g,
        total_r=periods.total_r - refund.r,
    )


def closing(spend: Spend, limit: Limit) -> Spend:
    """The same sums, with each lane closed that overflows its gate."""
    return Spend(
        spend.g,
        spend.r,
        spend.g_overflowed or spend.g > limit.g_max,
        spend.r_overflowed or spend.r > limit.r_max,
    )


def together(limit: Limit, epsilon: float, delta: float, periods: int) -> tuple[float, float]:
    """What so many periods promise together: an epsilon, at a delta of one share for each.

    The smaller of two bounds. (k epsilon, k delta), since differentially private mechanisms compose, each
    chosen after the answers of those before (Dwork & Roth 2014, Theorem 3.16). And the Renyi filter at
    the cell's order a: in each period one lane stayed within its gate, so its divergence is at most
    max(a * g_max / 2, r_max), and of k periods at most k times that, whatever was asked.

    Args:
        limit: the gates of one period.
        epsilon: of one period.
        delta: of one period, in (0, 1).
        periods: how many, at least 1.

    Returns:
        Epsilon and delta; delta is never 1 or more.

    Raises:
        InvalidParameter: the order or delta is out of range.
    """
    share = min(periods * delta, 0.5)
    order = limit.order_centi / 100.0
    divergence = periods * max(order * limit.g_max / 2.0, float(limit.r_max)) / CHARGE_UNIT
    return min(periods * epsilon, rdp_epsilon(divergence, order, share)), share
