"""Judging runs: contradictions are called, and honest runs are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from privacy.curves import gaussian_epsilon
from privacy.errors import InvalidParameter
from privacy.selfaudit.attacks import (
    ONE_RUN_DELTA,
    CanaryFound,
    Proven,
    judge_canaries,
    judge_one_run,
)
from privacy.selfaudit.checks import Steps

DELTA = 1e-5


def proven(mu: float, delta: float = DELTA) -> Proven:
    return Proven(mu, gaussian_epsilon(mu, delta), delta)


def canaries(true_mu: float, charged_mu: float, runs: int, seed: int) -> CanaryFound:
    draw = np.random.default_rng(seed)
    return judge_canaries(
        draw.normal(1, 1 / true_mu, runs),
        draw.normal(0, 1 / true_mu, runs),
        1.0,
        Steps(2 * runs, 2 * runs),
        2 * runs,
        proven(charged_mu),
    )


def test_honest_runs_observe_at_least_something_and_never_too_much() -> None:
    found = [canaries(0.5, 0.5, 2000, seed) for seed in range(200)]
    assert not any(one.contradicts for one in found)
    assert all(0.2 < one.mu_low < 0.5 < one.mu_high for one in found)
    assert found[0].says.startswith("observed at least mu 0.")


def test_half_the_noise_contradicts() -> None:
    found = [canaries(1.0, 0.5, 2000, seed) for seed in range(50)]
    assert all(one.contradicts for one in found)
    assert found[0].epsilon_low > found[0].proven.epsilon


@pytest.mark.parametrize("steps", [Steps(400, 401), Steps(401, 401), Steps(400, 399)])
def test_a_step_too_many_or_too_few_contradicts_whatever_the_scores(steps: Steps) -> None:
    found = replace(canaries(0.5, 0.5, 200, 1), steps=steps)
    assert found.contradicts
    assert "where 400 are charged" in found.says


def test_too_few_runs_or_unequal_ones_are_refused() -> None:
    for inside, outside in ((99, 99), (200, 201)):
        with pytest.raises(InvalidParameter, match="at least 100"):
            judge_canaries(np.zeros(inside), np.zeros(outside), 1, Steps(), 0, proven(1))


def one_run(true_mu: float, charged_mu: float, seed: int) -> bool:
    draw = np.random.default_rng(seed)
    taken = draw.integers(0, 2, 1000).astype(bool)
    scores = draw.normal(0, 1 / true_mu, 1000) + taken
    return judge_one_run(scores, taken, proven(charged_mu, ONE_RUN_DELTA)).contradicts


def test_the_smoke_alarm_is_silent_over_honest_runs_and_loud_without_noise() -> None:
    assert not any(one_run(0.5, 0.5, seed) for seed in range(200))
    assert all(one_run(10, 0.25, seed) for seed in range(50))
