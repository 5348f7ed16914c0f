"""Mu by the spread of scores: as seldom wrong as stated, near the truth, and silent where it does not apply."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from privacy.selfaudit.attacks import ALPHA, Proven, judge_canaries
from privacy.selfaudit.checks import Steps
from privacy.selfaudit.spread import Floats, mu_of_spread


def scores(mu: float, runs: int, draw: np.random.Generator, shift: float = 1.0) -> Floats:
    return np.stack([draw.normal(shift, 1 / mu, runs), draw.normal(0.0, 1 / mu, runs)])


def test_a_bound_is_above_the_truth_as_rarely_as_stated_and_so_is_the_other_end_below() -> None:
    draw = np.random.default_rng(1)
    over, under = 0, 0
    for _ in range(1500):
        found = mu_of_spread(*scores(0.3, 60, draw), 0.05)
        assert found is not None
        over += found.low > 0.3
        under += found.high < 0.3
    most = stats.binom.ppf(1 - 1e-6, 1500, 0.05)
    assert 40 < over <= most
    assert 40 < under <= most


def test_seven_tenths_of_the_noise_are_seen_by_a_few_hundred_runs_that_guesses_learn_nothing_from() -> (
    None
):
    draw = np.random.default_rng(2)
    found = []
    for factor in (0.7, 1.0):
        for _ in range(40):
            inside, outside = scores(0.188 / factor, 500, draw)
            proven = Proven(0.188, 1.0, 1e-5)
            judged = judge_canaries(
                inside, outside, 1.0, Steps(1000, 1000), 1000, proven, only_noise=True
            )
            found.append((factor, judged.contradicts, judged.mu_guessed > 0.188))
    assert all(seen == (factor < 1) for factor, seen, _ in found)
    assert sum(guessed for _, _, guessed in found) <= 4


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_scores_that_are_not_shifted_by_one_say_nothing(shift: float) -> None:
    found = mu_of_spread(*scores(2.0, 2000, np.random.default_rng(3), shift), ALPHA)
    assert found is None


def test_scores_without_any_noise_are_not_a_law() -> None:
    assert mu_of_spread(np.ones(10), np.zeros(10), ALPHA) is None
