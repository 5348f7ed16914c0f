"""Lower bounds from guesses: never above the truth but as often as stated, and near it with many runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from privacy.curves import gaussian_epsilon
from privacy.errors import InvalidParameter
from privacy.selfaudit.lower_bounds import (
    Guesses,
    epsilon_at_least,
    mu_at_least,
    mu_at_most,
    mu_estimate,
    one_run_epsilon_at_least,
    share_at_least,
    share_at_most,
)


def guesses_of(mu: float, runs: int, draw: np.random.Generator, threshold: float = 0.5) -> Guesses:
    """A Gaussian release of mu, and a threshold between its two laws."""
    return Guesses(
        runs,
        int((draw.normal(mu, 1, runs) > threshold * mu).sum()),
        int((draw.normal(0, 1, runs) > threshold * mu).sum()),
    )


@pytest.mark.parametrize(("hits", "trials"), [(0, 20), (3, 20), (20, 20)])
def test_the_limits_of_a_share_are_those_of_clopper_and_pearson(hits: int, trials: int) -> None:
    exact = stats.binomtest(hits, trials).proportion_ci(0.9, method="exact")
    assert share_at_least(hits, trials, 0.05) == pytest.approx(exact.low)
    assert share_at_most(hits, trials, 0.05) == pytest.approx(exact.high)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
def test_a_bound_of_mu_is_above_the_truth_as_rarely_as_stated(threshold: float) -> None:
    draw = np.random.default_rng(1)
    over = sum(mu_at_least(guesses_of(0.5, 300, draw, threshold), 0.05) > 0.5 for _ in range(1500))
    assert over <= stats.binom.ppf(1 - 1e-6, 1500, 0.05)


def test_a_bound_of_epsilon_is_above_the_truth_as_rarely_as_stated() -> None:
    draw = np.random.default_rng(2)
    truth = gaussian_epsilon(1.0, 1e-3)
    over = sum(
        epsilon_at_least(guesses_of(1.0, 300, draw), 1e-3, 0.05) > truth for _ in range(1500)
    )
    assert over <= stats.binom.ppf(1 - 1e-6, 1500, 0.05)


def test_with_many_runs_the_interval_closes_on_mu() -> None:
    found = guesses_of(0.5, 200_000, np.random.default_rng(3))
    assert 0.48 < mu_at_least(found, 1e-4) < mu_estimate(found) < mu_at_most(found, 1e-4) < 0.52


def test_a_coin_proves_nothing_and_an_open_book_everything_that_the_runs_can() -> None:
    assert mu_at_least(Guesses(1000, 500, 500), 1e-4) == 0.0
    assert epsilon_at_least(Guesses(1000, 500, 500), 1e-5, 1e-4) == 0.0
    assert mu_at_least(Guesses(1000, 1000, 0), 1e-4) > 5.0
    assert epsilon_at_least(Guesses(1000, 1000, 0), 1e-5, 1e-4) > 4.0
    assert math.isfinite(mu_estimate(Guesses(1000, 1000, 0)))


def test_many_canaries_of_one_randomised_response_are_bounded_as_rarely_wrong_as_stated() -> None:
    # Each coin is answered truly with probability e/(1+e): epsilon is 1 for each, delta 0.
    draw, chance = np.random.default_rng(4), 1 / (1 + math.exp(-1))
    over = sum(
        one_run_epsilon_at_least(400, 400, int(draw.binomial(400, chance)), 0.0, 0.05) > 1.0
        for _ in range(1500)
    )
    assert over <= stats.binom.ppf(1 - 1e-6, 1500, 0.05)
    assert one_run_epsilon_at_least(4000, 4000, round(4000 * chance), 0.0, 0.05) > 0.9


def test_delta_costs_a_one_run_bound_what_the_theorem_says() -> None:
    free = one_run_epsilon_at_least(1000, 250, 240, 0.0, 1e-4)
    small = one_run_epsilon_at_least(1000, 250, 240, 1e-8, 1e-4)
    large = one_run_epsilon_at_least(1000, 250, 240, 1e-5, 1e-4)
    assert free > small > 1.5
    assert large == 0.0


@pytest.mark.parametrize("wrong", [(0, 0, 0), (10, 11, 0), (10, 0, -1)])
def test_counts_that_cannot_be_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidParameter, match="are not counts of them"):
        Guesses(*wrong)
    with pytest.raises(InvalidParameter, match="cannot be"):
        one_run_epsilon_at_least(10, 5, 6, 0.0, 0.05)
    with pytest.raises(InvalidParameter, match="must lie in"):
        mu_at_least(Guesses(10, 5, 5), 0.5)
    with pytest.raises(InvalidParameter, match="must lie in"):
        epsilon_at_least(Guesses(10, 5, 5), 1.0, 0.05)
