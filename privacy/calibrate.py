"""From a budget to noise, and from events to the epsilon shown to people.

``plan_noise`` uses the gate's own integers, so a plan calibrated to a budget fits that budget
once, exactly: target = budget. The epsilons here are for people to read. They bound what the stated
events disclose together at ``delta``, but they admit nothing and refuse nothing; the filters do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from privacy.curves import gaussian_epsilon, rdp_epsilon, rdp_poisson_gaussian
from privacy.errors import BudgetExceeded, CalibrationFailed, InvalidParameter
from privacy.events import CHARGE_UNIT, FULL_BATCH, MAX_LENGTH, MAX_STEPS, Gaussian, require_int
from privacy.filters import Charge, Limit, Spend, reserve, step_charge
from privacy.pure import Mechanism

_COARSE_ORDERS: Final = tuple(1.0 + 0.05 * 1.12**k for k in range(82))
_FINE_ORDERS: Final = 20


def plan_noise(
    limit: Limit,
    fixed: Sequence[Charge],
    sensitivity: int,
    steps: int,
    sampling: int = FULL_BATCH,
) -> int:
    """Smallest noise with which a whole plan fits a limit from an empty spend.

    Args:
        limit: the gates of the cell, from ``limit_for`` at the plan's target epsilon.
        fixed: the plan's other charges (metrics, baselines), each for all of its steps.
        sensitivity: L2 bound on one patient's contribution, grid units.
        steps: training steps, spare rounds included, >= 1.
        sampling: Poisson threshold of a step, 1 .. 2^32.

    Returns:
        noise_sd in grid units, such that ``fixed`` plus ``steps`` steps fit at least one lane.

    Raises:
        CalibrationFailed: ``fixed`` alone does not fit, or no noise below 2^53 is enough.
        InvalidEvent: an argument is out of range.
    """
    require_int("steps", steps, 1, MAX_STEPS)
    others = sum(fixed, Charge(0, 0))
    if not _fits(others, limit):
        raise CalibrationFailed(
            "the plan's metrics and baselines alone cost more than the budget "
            f"(g {others.g} of {limit.g_max}, r {others.r} of {limit.r_max}, units of 2^-40); "
            "evaluate less often, with more noise, or raise epsilon"
        )

    def enough(noise_sd: int) -> bool:
        step = step_charge(Gaussian(sensitivity, noise_sd, steps, sampling), limit.order_centi)
        return _fits(others + step.times(steps), limit)

    if not enough(MAX_LENGTH):
        raise CalibrationFailed(
            f"no noise makes {steps} steps fit beside the plan's other charges "
            f"(g {others.g} of {limit.g_max}, r {others.r} of {limit.r_max}, units of 2^-40); "
            "run fewer steps, evaluate less, or raise epsilon"
        )
    low, high = 0, MAX_LENGTH
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def compose_epsilon(events: Sequence[Mechanism], delta: float) -> float:
    """Epsilon of all events together at ``delta``, for people to read.

    One of pure epsilon counts as the Gaussian that costs as much in lane G.

    The closed form (Balle & Wang 2018) when every event is full batch, where it is exact. With
    sampled events the smaller of two upper bounds: the closed form with every event taken as
    full batch, and Renyi composition at the best order found between 1.05 and about 480.

    Args:
        events: any number; none gives 0.
        delta: in (0, 1).

    Raises:
        InvalidParameter: delta is outside (0, 1).
    """
    mu2 = float(sum(event.mu2_per_step * event.steps for event in events))
    closed_form = gaussian_epsilon(math.sqrt(mu2), delta)
    if all(event.sampling == FULL_BATCH for event in events):
        return closed_form
    coarse = [_renyi_epsilon(events, order, delta) for order in _COARSE_ORDERS]
    best = coarse.index(min(coarse))
    low = _COARSE_ORDERS[max(0, best - 1)]
    high = _COARSE_ORDERS[min(len(_COARSE_ORDERS) - 1, best + 1)]
    fine = (low + (high - low) * k / _FINE_ORDERS for k in range(1, _FINE_ORDERS))
    return min(closed_form, *coarse, *(_renyi_epsilon(events, order, delta) for order in fine))


def epsilon_of(g: int, r: int, order_centi: int, delta: float) -> float:
    """Epsilon at ``delta`` implied by a cell's lane totals: the smaller of the two lanes'.

    Args:
        g: lane G total, units of 2^-40.
        r: lane R total at ``order_centi``, units of 2^-40.
        order_centi: the cell's order in hundredths.
        delta: in (0, 1).

    Returns:
        epsilon >= 0. Every release costs at least one unit in both lanes, so a lane that holds
        nothing while the other holds something was not kept, and is not believed.

    Raises:
        InvalidParameter: a total is negative, or delta or the order is out of range.
    """
    if g < 0 or r < 0:
        raise InvalidParameter(f"lane totals g = {g}, r = {r} must be >= 0")
    by_g = gaussian_epsilon(math.sqrt(g / CHARGE_UNIT), delta)
    by_r = rdp_epsilon(r / CHARGE_UNIT, order_centi / 100.0, delta)
    if g == 0 or r == 0:
        return 0.0 if g == r else (by_g if r == 0 else by_r)
    return min(by_g, by_r)


def _fits(charge: Charge, limit: Limit) -> bool:
    try:
        reserve(Spend(), charge, limit)
    except BudgetExceeded:
        return False
    return True


def _renyi_epsilon(events: Sequence[Mechanism], order: float, delta: float) -> float:
    rdp = math.fsum(
        event.steps
        * rdp_poisson_gaussian(
            event.sampling / FULL_BATCH, event.noise_sd / event.sensitivity, order
        )
        for event in events
    )
    return rdp_epsilon(rdp, order, delta)
