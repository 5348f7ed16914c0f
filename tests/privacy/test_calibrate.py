from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.calibrate import compose_epsilon, epsilon_of, plan_noise
from privacy.curves import gaussian_epsilon
from privacy.errors import BudgetExceeded, CalibrationFailed, InvalidEvent, InvalidParameter
from privacy.events import CHARGE_UNIT, FULL_BATCH, GRID, Gaussian
from privacy.filters import Charge, Limit, Spend, limit_for, reserve, step_charge


def whole(event: Gaussian, limit: Limit) -> Charge:
    return step_charge(event, limit.order_centi).times(event.steps)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([0.5, 1.0, 3.0, 8.0]),
    st.integers(1, 2000),
    st.integers(1, 2**30),
    st.sampled_from([FULL_BATCH, FULL_BATCH // 2, FULL_BATCH // 20]),
)
def test_the_planned_noise_fits_and_one_unit_less_does_not(
    epsilon: float, steps: int, sensitivity: int, sampling: int
) -> None:
    limit = limit_for(epsilon, 1e-5)
    noise_sd = plan_noise(limit, [], sensitivity, steps, sampling)
    reserve(Spend(), whole(Gaussian(sensitivity, noise_sd, steps, sampling), limit), limit)
    if noise_sd > 1:
        less = Gaussian(sensitivity, noise_sd - 1, steps, sampling)
        with pytest.raises(BudgetExceeded):
            reserve(Spend(), whole(less, limit), limit)


def test_metrics_are_planned_out_of_the_same_budget() -> None:
    limit = limit_for(1.0, 1e-5)
    metrics = whole(Gaussian(GRID, 5 * GRID), limit)
    alone = plan_noise(limit, [], GRID, 20)
    beside = plan_noise(limit, [metrics], GRID, 20)
    assert alone < beside
    assert metrics.g == pytest.approx(0.04 * CHARGE_UNIT)
    training = whole(Gaussian(GRID, beside, 20), limit)
    spend = reserve(reserve(Spend(), metrics, limit), training, limit)
    assert spend.g <= limit.g_max


def test_sampled_plans_use_lane_r_where_it_is_the_cheaper_one() -> None:
    limit = limit_for(8.0, 1e-5)
    full = plan_noise(limit, [], GRID, 1500)
    sampled = plan_noise(limit, [], GRID, 1500, FULL_BATCH // 50)
    assert sampled < full / 10


def test_a_plan_whose_metrics_alone_exceed_the_budget_is_refused() -> None:
    limit = limit_for(1.0, 1e-5)
    metrics = whole(Gaussian(GRID, math.ceil(2.8 * GRID)), limit)
    with pytest.raises(CalibrationFailed, match="metrics and baselines alone cost more"):
        plan_noise(limit, [metrics], GRID, 20)


def test_a_plan_with_nothing_left_for_training_is_refused() -> None:
    limit = limit_for(1.0, 1e-5)
    with pytest.raises(CalibrationFailed, match="no noise makes 20 steps fit"):
        plan_noise(limit, [Charge(limit.g_max, limit.r_max)], GRID, 20)


@pytest.mark.parametrize("steps", [0, -1, 2**31])
def test_a_plan_needs_steps(steps: int) -> None:
    with pytest.raises(InvalidEvent, match="'steps'"):
        plan_noise(limit_for(1.0, 1e-5), [], GRID, steps)


def test_the_shown_epsilon_of_full_batches_is_the_closed_form() -> None:
    events = [Gaussian(GRID, 4 * GRID, 20), Gaussian(GRID, 5 * GRID, 2), Gaussian(GRID, GRID, 0)]
    mu = math.sqrt(20 / 16 + 2 / 25)
    assert compose_epsilon(events, 1e-5) == pytest.approx(gaussian_epsilon(mu, 1e-5), rel=1e-12)
    assert compose_epsilon([], 1e-5) == 0.0


@pytest.mark.parametrize(("q", "most"), [(64 / 303, 15.005), (0.2, 14.147)])
def test_the_shown_epsilon_of_sampled_steps_is_the_renyi_one(q: float, most: float) -> None:
    event = Gaussian(GRID, GRID, 100, int(q * FULL_BATCH))
    epsilon = compose_epsilon([event], 1e-4)
    assert most - 0.01 < epsilon <= most
    assert epsilon < compose_epsilon([Gaussian(GRID, GRID, 100)], 1e-4)


def test_ten_epsilon_one_experiments_do_not_cost_ten() -> None:
    event = Gaussian(GRID, round(6.516 * GRID), 100, FULL_BATCH // 5)
    assert compose_epsilon([event], 1e-4) == pytest.approx(1.10, abs=0.02)
    assert 3.72 < compose_epsilon([event] * 10, 1e-4) < 4.15


def test_a_lane_total_reads_as_the_smaller_epsilon() -> None:
    limit = limit_for(8.0, 1e-5)
    noise_sd = plan_noise(limit, [], GRID, 20)
    charge = whole(Gaussian(GRID, noise_sd, 20), limit)
    at_lane = epsilon_of(charge.g, charge.r, limit.order_centi, 5e-6)
    assert at_lane == pytest.approx(8.0, rel=1e-5)
    assert at_lane <= 8.0
    assert epsilon_of(charge.g, charge.r, limit.order_centi, 1e-5) < at_lane
    assert epsilon_of(0, 0, 385, 1e-5) == 0.0


def test_an_empty_lane_beside_a_charged_one_is_not_believed() -> None:
    assert epsilon_of(CHARGE_UNIT, 0, 385, 1e-5) == gaussian_epsilon(1.0, 1e-5)
    assert epsilon_of(0, CHARGE_UNIT, 385, 1e-5) > 1.0


def test_negative_totals_and_impossible_deltas_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="lane totals g = -1"):
        epsilon_of(-1, 0, 385, 1e-5)
    with pytest.raises(InvalidParameter, match=r"delta = 0\.0"):
        compose_epsilon([Gaussian(GRID, GRID)], 0.0)
