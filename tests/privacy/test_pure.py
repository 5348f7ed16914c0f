"""Pure epsilon in both lanes, against exact arithmetic; the discrete Laplace sampler, against its law."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from privacy.crosscheck import pld_epsilon
from privacy.curves import gaussian_delta
from privacy.errors import InvalidEvent
from privacy.events import CHARGE_UNIT, Gaussian
from privacy.filters import r_step_full_batch
from privacy.noise import TestRng
from privacy.pure import PureEpsilon, laplace_integers, pure_charge, rdp_pure

EPSILONS = st.integers(1, 10**7)
ORDERS = st.sampled_from([101, 340, 385, 525, 750, 2_000, 100_000, 1_000_000])


@given(micro=EPSILONS, order=ORDERS)
def test_charges_are_those_of_randomized_response_rounded_up(micro: int, order: int) -> None:
    with mpmath.workdps(60):
        epsilon, a = mpmath.mpf(micro) / 10**6, mpmath.mpf(order) / 100
        p = mpmath.exp(epsilon) / (1 + mpmath.exp(epsilon))
        mu = 2 * mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1)
        moment = p**a * (1 - p) ** (1 - a) + (1 - p) ** a * p ** (1 - a)
        divergence = mpmath.log(moment) / (a - 1)
        charge = pure_charge(micro, order)
        for told, exact in ((charge.g, mu**2), (charge.r, divergence)):
            assert exact * CHARGE_UNIT <= told <= exact * CHARGE_UNIT * (1 + mpmath.mpf("1e-8")) + 2
        assert charge.r <= math.ceil(micro / 10**6 * CHARGE_UNIT)


@given(micro=EPSILONS, order=ORDERS)
def test_a_fold_with_integers_asks_for_no_more_than_it_costs(micro: int, order: int) -> None:
    charge, squared = pure_charge(micro, order), micro**2 * CHARGE_UNIT
    assert charge.g >= 3 * squared // (5 * 10**12)
    assert charge.r >= squared // (10**6 * (2 * 10**6 + micro))


@given(micro=EPSILONS, order=ORDERS)
def test_the_gaussian_that_stands_for_it_costs_as_much_and_no_less(micro: int, order: int) -> None:
    event, charge = PureEpsilon(micro), pure_charge(micro, order)
    assert float(event.mu2_per_step) * CHARGE_UNIT == pytest.approx(charge.g, rel=1e-8, abs=2)
    assert charge.r <= r_step_full_batch(event.sensitivity, event.noise_sd, order)


def test_mu_is_the_one_whose_curve_passes_through_the_corner_of_randomized_response() -> None:
    for epsilon in (0.01, 0.5, 1.0, 3.0, 10.0):
        mu = PureEpsilon(round(epsilon * 10**6)).mu
        total_variation = (math.exp(epsilon) - 1) / (math.exp(epsilon) + 1)
        assert gaussian_delta(mu, 0.0) == pytest.approx(total_variation, rel=1e-7)


def test_an_accountant_takes_it_beside_gaussians() -> None:
    assert pld_epsilon([PureEpsilon(10**6)], 1e-9) == pytest.approx(1.0, abs=2e-3)
    assert pld_epsilon([PureEpsilon(10**6, 3)], 1e-12) == pytest.approx(3.0, abs=5e-3)
    gaussians = [Gaussian(1, 4, 3), Gaussian(1, 2, 5, 2**28)]
    alone = pld_epsilon(gaussians, 1e-5)
    both = pld_epsilon([*gaussians, PureEpsilon(300_000)], 1e-5)
    assert alone < both < alone + 0.3 + 1e-3


def test_numbers_that_are_none_are_refused() -> None:
    for number in (0, -1, 10**7 + 1, 0.5, True):
        with pytest.raises(InvalidEvent, match="an integer in"):
            PureEpsilon(number)  # type: ignore[arg-type]
    for scale in (0, -3, 2**53, 1.5):
        with pytest.raises(InvalidEvent, match="an integer in"):
            laplace_integers(TestRng(1), scale, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1, 3, 40])
def test_the_sampler_follows_the_discrete_laplace_law(scale: int) -> None:
    draws = 30_000
    drawn = laplace_integers(TestRng(scale), scale, draws)
    reach = round(2.5 * scale)
    ratio = math.exp(-1 / scale)
    mass = (1 - ratio) / (1 + ratio)
    inside = [mass * ratio ** abs(x) for x in range(-reach, reach + 1)]
    tail = (1 - sum(inside)) / 2
    expected = draws * np.array([tail, *inside, tail])
    counted = np.array(
        [
            np.sum(drawn < -reach),
            *(np.sum(drawn == x) for x in range(-reach, reach + 1)),
            np.sum(drawn > reach),
        ]
    )
    distance = float(np.sum((counted - expected) ** 2 / expected))
    assert distance < chi2.ppf(1 - 1e-6, len(expected) - 1)


def test_a_wide_scale_keeps_its_spread_and_its_sign() -> None:
    scale = 2**40 + 7
    drawn = laplace_integers(TestRng(5), scale, 20_000).astype(np.float64) / scale
    assert abs(float(drawn.mean())) < 6 * math.sqrt(2 / 20_000)
    assert float(np.abs(drawn).mean()) == pytest.approx(1.0, abs=0.05)


def test_divergence_rises_with_the_order_up_to_epsilon() -> None:
    told = [rdp_pure(0.7, order) for order in (1.01, 2.0, 8.0, 64.0, 1e4)]
    assert told == sorted(told)
    assert told[-1] == pytest.approx(0.7, abs=1e-3)
