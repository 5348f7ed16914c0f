"""The two privacy filters of a cell, in integers.

A filter decides whether one more release may happen, and stays valid when requests depend on
earlier answers and when experiments interleave (PLD and "the best order afterwards" do not):

* lane **G**: the GDP filter, sum of (sensitivity / noise_sd)^2 (Smith & Thakurta 2022,
  arXiv:2210.17520). A Poisson-sampled event enters as if every patient took part.
* lane **R**: the Renyi filter at one order fixed at the cell's registration (Feldman & Zrnic 2021,
  arXiv:2008.11193).
* both also hold for concurrent interaction (Haney et al. 2023, arXiv:2309.05901).

A cell with the promise (epsilon, delta) carries both, each at delta/2. A request is admitted while
at least one lane that has never overflowed still holds: split the transcripts by whether G ever
overflowed, which public charges decide; each part is bounded by its own truncated mechanism.

Limits are rounded down and charges up, in units of 2^-40. Everything after ``limit_for`` and
``step_charge`` is exact integer arithmetic on frozen values: same sums in whatever order the
charges came. This module keeps no state and writes nothing; that a charge is durable before data
is touched is its caller's duty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from privacy.curves import best_order, mu2_max, rdp_max, rdp_poisson_gaussian
from privacy.errors import BudgetExceeded, InvalidParameter, RefundTooLarge
from privacy.events import CHARGE_UNIT, FULL_BATCH, MAX_LENGTH, MAX_STEPS, Gaussian, require_int

MAX_ORDER_CENTI = 1_000_000
_MAX_CHARGE = 2**300
"""Above any charge that valid events can add up to; bounds what a hostile entry can make us add."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a release costs in each lane.

    Attributes:
        g: mu^2, units of 2^-40, >= 0.
        r: Renyi divergence at the cell's order, units of 2^-40 nats, >= 0.
    """

    g: int
    r: int

    def __post_init__(self) -> None:
        require_int("g", self.g, 0, _MAX_CHARGE)
        require_int("r", self.r, 0, _MAX_CHARGE)

    def __add__(self, other: Charge) -> Charge:
        return Charge(self.g + other.g, self.r + other.r)

    def times(self, steps: int) -> Charge:
        """Charge ``steps`` equal releases."""
        require_int("steps", steps, 0, MAX_STEPS)
        return Charge(self.g * steps, self.r * steps)


@dataclass(frozen=True, slots=True)
class Limit:
    """The gates of a cell: most that each lane may hold.

    Attributes:
        g_max: mu^2, units of 2^-40.
        r_max: Renyi divergence at ``order_centi``, units of 2^-40 nats.
        order_centi: the lane's fixed order in hundredths, 101 .. 1,000,000.
    """

    g_max: int
    r_max: int
    order_centi: int

    def __post_init__(self) -> None:
        require_int("g_max", self.g_max, 0, _MAX_CHARGE)
        require_int("r_max", self.r_max, 0, _MAX_CHARGE)
        require_int("order_centi", self.order_centi, 101, MAX_ORDER_CENTI)


@dataclass(frozen=True, slots=True)
class Spend:
    """What a cell has reserved and spent, and which lanes are closed for ever.

    A closed lane keeps its sum (it is still recomputed and shown) but admits nothing more,
    also after refunds.
    """

    g: int = 0
    r: int = 0
    g_overflowed: bool = False
    r_overflowed: bool = False

    def __post_init__(self) -> None:
        require_int("g", self.g, 0, _MAX_CHARGE)
        require_int("r", self.r, 0, _MAX_CHARGE)


def limit_for(epsilon: float, delta: float, slack: float = 0.0) -> Limit:
    """Integer gates of a cell that promises (epsilon, delta) for its lifetime.

    Args:
        epsilon: in 0.001 .. 1000.
        delta: the whole lifetime delta; each lane gets delta/2 - slack.
        slack: delta set aside for samplers that are not exact (0 for the exact one), >= 0.

    Returns:
        Both gates rounded down. The order depends on (epsilon, delta) only, so that slack
        never changes it.

    Raises:
        InvalidParameter: a number is out of range, or slack leaves no delta.
    """
    if not slack >= 0.0:
        raise InvalidParameter(f"slack = {slack} must be a number >= 0")
    lane_delta = delta / 2.0 - slack
    if not lane_delta > 0.0:
        raise InvalidParameter(
            f"slack = {slack} leaves nothing of half of delta = {delta}; use an exact sampler"
        )
    order_centi = best_order(epsilon, delta)
    return Limit(
        g_max=math.floor(mu2_max(epsilon, lane_delta) * CHARGE_UNIT),
        r_max=math.floor(rdp_max(epsilon, lane_delta, order_centi / 100.0) * CHARGE_UNIT),
        order_centi=order_centi,
    )


def part_of_limit(epsilon: float, delta: float, order_centi: int) -> Limit:
    """Integer gates of a smaller epsilon inside a cell's promise: at its delta and its order.

    Args:
        epsilon: in 0.001 .. 1000.
        delta: the cell's whole lifetime delta; each lane gets half.
        order_centi: the cell's order in hundredths.

    Returns:
        Both gates rounded down; the Renyi gate is 0 where the order cannot express this epsilon.

    Raises:
        InvalidParameter: a number is out of range.
    """
    return Limit(
        g_max=math.floor(mu2_max(epsilon, delta / 2.0) * CHARGE_UNIT),
        r_max=math.floor(rdp_max(epsilon, delta / 2.0, order_centi / 100.0) * CHARGE_UNIT),
        order_centi=order_centi,
    )


def step_charge(event: Gaussian, order_centi: int) -> Charge:
    """Charge one step of ``event``, rounded up; its ``steps`` are not multiplied in.

    Args:
        event: the mechanism.
        order_centi: the cell's order in hundredths.

    Raises:
        InvalidEvent: the order is out of range.
    """
    full_batch = r_step_full_batch(event.sensitivity, event.noise_sd, order_centi)
    r = full_batch
    if event.sampling != FULL_BATCH:
        rdp = rdp_poisson_gaussian(
            event.sampling / FULL_BATCH, event.noise_sd / event.sensitivity, order_centi / 100.0
        )
        r = min(full_batch, math.ceil(rdp * CHARGE_UNIT) + 1)
    return Charge(g=g_step(event.sensitivity, event.noise_sd), r=r)


def g_step(sensitivity: int, noise_sd: int) -> int:
    """Lane G of one step: ceil(sensitivity^2 * 2^40 / noise_sd^2), exactly.

    Raises:
        InvalidEvent: an argument is not an integer in 1 .. 2^53-1.
    """
    require_int("sensitivity", sensitivity, 1, MAX_LENGTH)
    require_int("noise_sd", noise_sd, 1, MAX_LENGTH)
    return -(-(sensitivity**2 * CHARGE_UNIT) // noise_sd**2)


def r_step_full_batch(sensitivity: int, noise_sd: int, order_centi: int) -> int:
    """Lane R of one full-batch step: ceil(order * sensitivity^2 * 2^40 / (2 noise_sd^2)), exactly.

    Raises:
        InvalidEvent: an argument is not an integer in its range.
    """
    require_int("sensitivity", sensitivity, 1, MAX_LENGTH)
    require_int("noise_sd", noise_sd, 1, MAX_LENGTH)
    require_int("order_centi", order_centi, 101, MAX_ORDER_CENTI)
    return -(-(order_centi * sensitivity**2 * CHARGE_UNIT) // (200 * noise_sd**2))


def reserve(spend: Spend, charge: Charge, limit: Limit) -> Spend:
    """Charge a cell, or refuse.

    Args:
        spend: the cell's reserved and spent totals.
        charge: the most that the request may cost.
        limit: the cell's gates.

    Returns:
        The next totals. A lane that the charge does not fit is closed for ever; the other
        carried it.

    Raises:
        BudgetExceeded: no lane that is still open can hold the charge. Nothing was charged
            and no lane is closed by a refusal.
    """
    g = spend.g + charge.g
    r = spend.r + charge.r
    g_overflowed = spend.g_overflowed or g > limit.g_max
    r_overflowed = spend.r_overflowed or r > limit.r_max
    if g_overflowed and r_overflowed:
        raise BudgetExceeded(spend, limit, charge, left(spend, limit))
    return Spend(g, r, g_overflowed, r_overflowed)


def settle(spend: Spend, refund: Charge) -> Spend:
    """Give back what a finished reservation did not use. Closed lanes stay closed.

    Raises:
        RefundTooLarge: more would be given back than was charged in a lane.
    """
    if refund.g > spend.g or refund.r > spend.r:
        raise RefundTooLarge(spend, refund)
    return Spend(spend.g - refund.g, spend.r - refund.r, spend.g_overflowed, spend.r_overflowed)


def left(spend: Spend, limit: Limit) -> Charge:
    """Say what each lane still admits; zero for a closed lane."""
    return Charge(
        g=0 if spend.g_overflowed else max(0, limit.g_max - spend.g),
        r=0 if spend.r_overflowed else max(0, limit.r_max - spend.r),
    )


def repeats(spend: Spend, charge: Charge, limit: Limit) -> int:
    """How many more requests like ``charge`` a cell admits, one after the other.

    A lane that overflowed is closed, so the better lane counts.
    """
    free = left(spend, limit)
    return max(free.g // max(1, charge.g), free.r // max(1, charge.r))
