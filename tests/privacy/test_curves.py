"""Known answers of the curves. Long decimals come from mpmath at 40 digits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.curves import (
    best_order,
    gaussian_delta,
    gaussian_epsilon,
    mu2_max,
    rdp_epsilon,
    rdp_gaussian,
    rdp_max,
    rdp_poisson_gaussian,
    true_positive_rate,
)
from privacy.errors import InvalidParameter
from privacy.selfaudit.known_answers import DELTAS, GATE_EPSILONS, GATE_ERROR, GATES, RENYI


@pytest.mark.parametrize(("mu", "epsilon", "delta"), DELTAS)
def test_delta_of_the_gaussian_mechanism_is_right_to_eleven_digits(
    mu: float, epsilon: float, delta: float
) -> None:
    assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-11)


def test_delta_has_its_limits() -> None:
    assert gaussian_delta(0.0, 0.0) == 0.0
    assert gaussian_delta(0.0, 1.0) == 0.0
    assert gaussian_delta(math.inf, 5.0) == 1.0
    assert gaussian_delta(1.0, math.inf) == 0.0
    assert gaussian_delta(1e-12, 0.0) == pytest.approx(1e-12 / math.sqrt(2 * math.pi), rel=1e-12)


@pytest.mark.parametrize(("delta", "expected"), GATES)
def test_the_largest_mu2_of_epsilon_1_3_5_8_10(delta: float, expected: tuple[float, ...]) -> None:
    found = [mu2_max(epsilon, delta) for epsilon in GATE_EPSILONS]
    assert found == pytest.approx(list(expected), abs=GATE_ERROR)


budgets = st.tuples(
    st.floats(1e-3, 1e3), st.floats(-15.0, math.log10(0.5)).map(lambda power: 10.0**power)
)


@settings(max_examples=60, deadline=None)
@given(budgets)
def test_the_gate_is_below_the_exact_root_but_hardly(budget: tuple[float, float]) -> None:
    epsilon, delta = budget
    mu2 = mu2_max(epsilon, delta)
    assert gaussian_delta(math.sqrt(mu2), epsilon) <= delta
    assert gaussian_delta(math.sqrt(mu2 * (1 + 1e-8)), epsilon) > delta


@pytest.mark.parametrize("epsilon", [0.001, 0.1, 1.0, 8.0, 300.0])
@pytest.mark.parametrize("delta", ["1e-15", "5e-6", "0.25"])
def test_the_gate_holds_in_fifty_digits(epsilon: float, delta: str) -> None:
    with mpmath.workdps(50):
        mu = mpmath.sqrt(mpmath.mpf(mu2_max(epsilon, float(delta))))
        e = mpmath.mpf(epsilon)
        exact = mpmath.ncdf(-e / mu + mu / 2) - mpmath.exp(e) * mpmath.ncdf(-e / mu - mu / 2)
        assert exact <= mpmath.mpf(float(delta))


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-9, 1e4), st.floats(1e-12, 0.5))
def test_epsilon_is_an_upper_bound_and_inverts_delta(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    if epsilon > 0.0:
        assert gaussian_delta(mu, epsilon * (1 - 1e-6)) >= delta * (1 - 1e-6)


def test_epsilon_of_nothing_is_zero_and_of_no_noise_infinite() -> None:
    assert gaussian_epsilon(0.0, 1e-5) == 0.0
    assert gaussian_epsilon(1e-9, 1e-5) == 0.0
    assert gaussian_epsilon(math.inf, 1e-5) == math.inf
    assert gaussian_epsilon(1e6, 1e-5) == pytest.approx(5e11, rel=1e-4)


@pytest.mark.parametrize(("q", "noise_multiplier", "order", "exact"), RENYI)
def test_the_sampled_renyi_curve_bounds_the_integral_from_just_above(
    q: float, noise_multiplier: float, order: float, exact: float
) -> None:
    bound = rdp_poisson_gaussian(q, noise_multiplier, order)
    assert exact < bound < exact * (1 + 3e-10) + 3e-14


def integer_order(q: float, noise_multiplier: float, order: int) -> float:
    """Mironov, Talwar & Zhang 2019, section 3.3: a finite sum at integer orders."""
    logs = [
        math.log(math.comb(order, k))
        + k * math.log(q)
        + (order - k) * math.log1p(-q)
        + (k * k - k) / (2 * noise_multiplier**2)
        for k in range(order + 1)
    ]
    peak = max(logs)
    return (peak + math.log(math.fsum(math.exp(x - peak) for x in logs))) / (order - 1)


@settings(max_examples=80, deadline=None)
@given(st.floats(1e-6, 0.999), st.floats(0.15, 200.0), st.integers(2, 60))
def test_the_sampled_curve_agrees_with_the_finite_sum_at_integer_orders(
    q: float, noise_multiplier: float, order: int
) -> None:
    bound = rdp_poisson_gaussian(q, noise_multiplier, order)
    exact = integer_order(q, noise_multiplier, order)
    assert bound == pytest.approx(exact, rel=1e-9, abs=1e-13)


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-9, 1.0), st.floats(1e-4, 1e6), st.floats(1.01, 100.0))
def test_sampling_never_costs_more_than_taking_everybody(
    q: float, noise_multiplier: float, order: float
) -> None:
    bound = rdp_poisson_gaussian(q, noise_multiplier, order)
    assert 0.0 < bound <= rdp_gaussian(noise_multiplier**-2, order) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("q", "noise_multiplier", "order"),
    [(0.2, 1.0, 1.8), (0.5, 0.5, 3.85), (0.9, 2.0, 7.5), (0.01, 0.4, 5.25), (0.05, 5.0, 40.0)],
)
def test_the_curve_also_bounds_a_patient_who_is_added_instead_of_removed(
    q: float, noise_multiplier: float, order: float
) -> None:
    t = np.linspace(-60.0, 60.0, 240_001)
    log_ratio = t / noise_multiplier - 0.5 / noise_multiplier**2
    log_mixture = np.logaddexp(math.log1p(-q), math.log(q) + log_ratio)
    # Q against P: E_Q[(Q/P)^(order-1)].
    terms = np.exp(-0.5 * t * t - (order - 1) * log_mixture)
    moment = float(terms.sum()) * (t[1] - t[0]) / math.sqrt(2 * math.pi)
    reverse = math.log(moment) / (order - 1)
    assert reverse <= rdp_poisson_gaussian(q, noise_multiplier, order)


def test_the_renyi_conversion_is_that_of_canonne_kamath_steinke() -> None:
    # T=100, sigma=1, q=64/303 at order 2.2: 15.017 by two other accountants.
    rdp = 100 * rdp_poisson_gaussian(64 / 303, 1.0, 2.2)
    assert rdp_epsilon(rdp, 2.2, 1e-4) == pytest.approx(15.017, abs=5e-4)
    assert rdp_epsilon(0.0, 2.0, 0.5) == 0.0


@settings(max_examples=60, deadline=None)
@given(budgets, st.floats(1.01, 200.0))
def test_the_renyi_gate_never_exceeds_its_promise(
    budget: tuple[float, float], order: float
) -> None:
    epsilon, delta = budget
    rdp = rdp_max(epsilon, delta, order)
    assert rdp == 0.0 or rdp_epsilon(rdp, order, delta) <= epsilon


def test_the_orders_of_epsilon_3_5_8_10_at_delta_1e_5() -> None:
    assert [best_order(epsilon, 1e-5) for epsilon in (3, 5, 8, 10)] == [750, 525, 385, 340]


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 50.0), st.floats(1e-9, 1e-2))
def test_no_other_order_admits_noticeably_more(epsilon: float, delta: float) -> None:
    def admitted(order: float) -> float:
        return 2 * rdp_max(epsilon, delta, order) / order

    best = best_order(epsilon, delta) / 100
    assert max(admitted(1 + (best - 1) * k / 40) for k in range(2, 120)) <= admitted(best) * 1.001


@pytest.mark.parametrize(("mu", "rate"), [(0.314, 0.022), (1.12, 0.114), (2.0, 0.37), (0.0, 0.01)])
def test_the_attackers_rate_at_one_percent(mu: float, rate: float) -> None:
    assert true_positive_rate(mu, 0.01) == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: gaussian_delta(-1.0, 1.0), "mu = -1.0 must be"),
        (lambda: gaussian_delta(math.nan, 1.0), "mu = nan must be"),
        (lambda: gaussian_epsilon(1.0, 0.0), r"delta = 0.0 must lie in \(0, 1\)"),
        (lambda: mu2_max(0.0, 1e-5), "epsilon = 0.0 must lie in 0.001 .. 1000"),
        (lambda: mu2_max(math.inf, 1e-5), "epsilon = inf must lie in"),
        (lambda: mu2_max(1.0, 1e-30), "delta = 1e-30 must lie in"),
        (lambda: rdp_max(1.0, 1e-5, 1.0), "order = 1.0 must be above 1"),
        (lambda: rdp_poisson_gaussian(0.0, 1.0, 2.0), r"q = 0.0 must lie in \(0, 1\]"),
        (lambda: rdp_poisson_gaussian(0.5, 0.0, 2.0), "noise multiplier = 0.0 must be"),
        (lambda: rdp_poisson_gaussian(0.5, 1.0, math.nan), "order = nan must be"),
        (lambda: true_positive_rate(1.0, 1.5), "false positive rate = 1.5"),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(call: object, says: str) -> None:
    assert callable(call)
    with pytest.raises(InvalidParameter, match=says):
        call()
