from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.curves import mu2_max, rdp_max, rdp_poisson_gaussian
from privacy.errors import BudgetExceeded, InvalidEvent, InvalidParameter, RefundTooLarge
from privacy.events import CHARGE_UNIT, FULL_BATCH, GRID, Gaussian
from privacy.filters import (
    Charge,
    Limit,
    Spend,
    g_step,
    left,
    limit_for,
    r_step_full_batch,
    reserve,
    settle,
    step_charge,
)

charges = st.builds(Charge, st.integers(0, 1000), st.integers(0, 1000))
limits = st.builds(Limit, st.integers(0, 3000), st.integers(0, 3000), st.just(750))
lengths = st.integers(1, 2**53 - 1)


def reserve_all(requests: list[Charge], limit: Limit) -> tuple[Spend, list[Charge]]:
    spend, admitted = Spend(), []
    for request in requests:
        try:
            spend = reserve(spend, request, limit)
        except BudgetExceeded:
            continue
        admitted.append(request)
    return spend, admitted


def test_a_limit_is_both_lanes_at_half_of_delta_rounded_down() -> None:
    limit = limit_for(8.0, 1e-5)
    assert limit.g_max == math.floor(mu2_max(8.0, 5e-6) * CHARGE_UNIT)
    assert limit.r_max == math.floor(rdp_max(8.0, 5e-6, 3.85) * CHARGE_UNIT)
    assert limit.order_centi == 385


def test_slack_comes_out_of_delta_first_and_keeps_the_order() -> None:
    whole, less = limit_for(5.0, 1e-5), limit_for(5.0, 1e-5, slack=1e-6)
    assert less.g_max == math.floor(mu2_max(5.0, 5e-6 - 1e-6) * CHARGE_UNIT) < whole.g_max
    assert less.r_max < whole.r_max
    assert less.order_centi == whole.order_centi


@pytest.mark.parametrize("slack", [5e-6, 1.0, -1e-9, math.nan])
def test_slack_that_leaves_nothing_or_is_no_number_is_refused(slack: float) -> None:
    with pytest.raises(InvalidParameter, match="slack ="):
        limit_for(5.0, 1e-5, slack=slack)


@pytest.mark.parametrize(("epsilon", "delta"), [(-1.0, 1e-5), (math.nan, 1e-5), (1.0, 0.0)])
def test_a_promise_out_of_range_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(InvalidParameter):
        limit_for(epsilon, delta)


@pytest.mark.parametrize(("epsilon", "admitted"), [(5.0, 16), (10.0, 52)])
def test_a_lifetime_admits_this_many_epsilon_one_experiments(epsilon: float, admitted: int) -> None:
    noise_sd = math.ceil(GRID / math.sqrt(mu2_max(1.0, 1e-5)))
    limit = limit_for(epsilon, 1e-5)
    charge = step_charge(Gaussian(GRID, noise_sd), limit.order_centi)
    _, fitted = reserve_all([charge] * 100, limit)
    assert len(fitted) == admitted


@given(lengths, lengths)
def test_lane_g_is_the_exact_ceiling(sensitivity: int, noise_sd: int) -> None:
    exact = Fraction(sensitivity, noise_sd) ** 2 * CHARGE_UNIT
    assert g_step(sensitivity, noise_sd) == math.ceil(exact)


@given(lengths, lengths, st.integers(101, 1_000_000))
def test_lane_r_of_a_full_batch_is_the_exact_ceiling(
    sensitivity: int, noise_sd: int, order_centi: int
) -> None:
    exact = Fraction(order_centi, 200) * Fraction(sensitivity, noise_sd) ** 2 * CHARGE_UNIT
    assert r_step_full_batch(sensitivity, noise_sd, order_centi) == math.ceil(exact)


def test_a_full_batch_step_is_charged_by_the_integer_formulas() -> None:
    charge = step_charge(Gaussian(GRID, 4 * GRID, steps=20), 385)
    assert charge == Charge(CHARGE_UNIT // 16, r_step_full_batch(GRID, 4 * GRID, 385))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, FULL_BATCH - 1), st.integers(GRID // 4, 100 * GRID))
def test_a_sampled_step_costs_the_whole_g_and_a_rounded_up_r(sampling: int, noise_sd: int) -> None:
    event = Gaussian(GRID, noise_sd, sampling=sampling)
    charge = step_charge(event, 385)
    assert charge.g == g_step(GRID, noise_sd)
    rdp = rdp_poisson_gaussian(sampling / FULL_BATCH, noise_sd / GRID, 3.85)
    assert rdp * CHARGE_UNIT <= charge.r or charge.r == r_step_full_batch(GRID, noise_sd, 385)
    assert charge.r <= r_step_full_batch(GRID, noise_sd, 385)


def test_every_release_costs_at_least_one_unit_in_both_lanes() -> None:
    charge = step_charge(Gaussian(1, 2**53 - 1, sampling=1), 101)
    assert charge.g >= 1
    assert charge.r >= 1


@given(st.lists(charges, max_size=12), limits)
def test_what_was_admitted_fits_at_least_one_lane(requests: list[Charge], limit: Limit) -> None:
    spend, admitted = reserve_all(requests, limit)
    assert spend.g == sum(charge.g for charge in admitted)
    assert spend.r == sum(charge.r for charge in admitted)
    assert not spend.g_overflowed or spend.g > limit.g_max
    assert not spend.r_overflowed or spend.r > limit.r_max
    assert spend.g <= limit.g_max or spend.r <= limit.r_max


@given(st.lists(charges, max_size=8).flatmap(lambda c: st.tuples(st.just(c), st.permutations(c))))
def test_totals_do_not_depend_on_the_order_of_charges(
    orders: tuple[list[Charge], list[Charge]],
) -> None:
    limit = Limit(3000, 10_000, 750)
    one, other = (reserve_all(requests, limit) for requests in orders)
    assert one[0] == other[0]


@given(st.lists(charges, min_size=1, max_size=8), limits)
def test_what_does_not_fit_now_never_fits_after_more_was_spent(
    requests: list[Charge], limit: Limit
) -> None:
    *earlier, probe = requests
    spend, _ = reserve_all(earlier, limit)
    try:
        reserve(spend, probe, limit)
    except BudgetExceeded:
        more, _ = reserve_all([*earlier, Charge(1, 1)], limit)
        with pytest.raises(BudgetExceeded):
            reserve(more, probe, limit)


def test_the_last_unit_is_admitted_and_one_more_is_not() -> None:
    limit = Limit(100, 100, 750)
    full = reserve(Spend(), Charge(100, 100), limit)
    assert full == Spend(100, 100)
    with pytest.raises(BudgetExceeded):
        reserve(full, Charge(1, 1), limit)
    assert reserve(full, Charge(0, 1), limit) == Spend(100, 101, r_overflowed=True)


def test_a_lane_that_overflowed_stays_closed_after_refunds() -> None:
    limit = Limit(100, 100, 750)
    spend = reserve(Spend(), Charge(150, 50), limit)
    assert spend == Spend(150, 50, g_overflowed=True)
    spend = settle(spend, Charge(150, 50))
    assert spend == Spend(0, 0, g_overflowed=True)
    assert left(spend, limit) == Charge(0, 100)
    with pytest.raises(BudgetExceeded, match=r"lane G asks 1 of 0 left \(closed"):
        reserve(spend, Charge(1, 101), limit)


def test_a_refusal_carries_the_evidence_and_charges_nothing() -> None:
    limit = Limit(100, 80, 750)
    spend = Spend(60, 50)
    with pytest.raises(
        BudgetExceeded, match="lane G asks 41 of 40 left, lane R asks 31 of 30"
    ) as e:
        reserve(spend, Charge(41, 31), limit)
    assert (e.value.spend, e.value.limit, e.value.requested) == (spend, limit, Charge(41, 31))
    assert e.value.left == Charge(40, 30)
    assert reserve(spend, Charge(40, 30), limit) == Spend(100, 80)


@given(charges, charges)
def test_a_settlement_gives_back_at_most_what_was_charged(charged: Charge, refund: Charge) -> None:
    spend = Spend(charged.g, charged.r)
    if refund.g > charged.g or refund.r > charged.r:
        with pytest.raises(RefundTooLarge, match=f"refund of g={refund.g}, r={refund.r}"):
            settle(spend, refund)
    else:
        assert settle(spend, refund) == Spend(charged.g - refund.g, charged.r - refund.r)


def test_charges_are_non_negative_integers() -> None:
    assert Charge(1, 2) + Charge(3, 4) == Charge(4, 6)
    assert Charge(1, 2).times(3) == Charge(3, 6)
    for bad in (-1, 1.0, True):
        with pytest.raises(InvalidEvent, match="event field 'g'"):
            Charge(bad, 0)  # type: ignore[arg-type]
    with pytest.raises(InvalidEvent, match="event field 'steps'"):
        Charge(1, 2).times(-1)
