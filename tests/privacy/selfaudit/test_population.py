"""RMIA: tells members by a population, with few shadow models, and stays under the bound of a proof that holds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from privacy.errors import InvalidParameter
from privacy.selfaudit.membership import Bools, Floats, likelihood_ratios, rates
from privacy.selfaudit.population import population_ratios


def world(mu: float, models: int, units: int, seed: int) -> tuple[Floats, Bools, Bools]:
    """Log odds of units, each with a level of its own, a fifth of them in no model."""
    draw = np.random.default_rng(seed)
    members = draw.integers(0, 2, (models, units)).astype(bool)
    population = np.arange(units) % 5 == 0
    members[:, population] = False
    levels = draw.normal(0, 2, units)
    signals = levels + mu * members + draw.normal(0, 1, (models, units))
    return signals, members, population


def test_few_references_tell_more_by_a_population_than_by_likelihood_ratios() -> None:
    signals, members, apart = world(1.0, 48, 300, 1)
    scores = population_ratios(expit(signals), members, apart, 2)
    area = rates(scores, members[:, ~apart], 1.0, 1e-3)[0]
    ratios = likelihood_ratios(signals[:, ~apart], members[:, ~apart], 2)
    usual = rates(ratios, members[:, ~apart], 1.0, 1e-3)[0]
    assert usual.measured < area.low
    assert area.low < area.bound


def test_more_than_was_proven_contradicts() -> None:
    signals, members, apart = world(3.0, 16, 400, 2)
    area = rates(population_ratios(expit(signals), members, apart), members[:, ~apart], 0.3, 1e-3)[
        0
    ]
    assert area.low > area.bound


def test_nothing_leaks_where_nothing_is_learned() -> None:
    for seed in range(10):
        signals, members, apart = world(0.0, 16, 300, seed)
        for count in (None, 3):
            scores = population_ratios(expit(signals), members, apart, count)
            for rate in rates(scores, members[:, ~apart], 1e-6, 1e-3):
                assert rate.low <= rate.bound + 1e-3


def test_a_score_is_the_share_of_the_population_that_the_model_raised_less() -> None:
    signals, members, apart = world(1.0, 8, 50, 3)
    chances = expit(signals)
    scores = population_ratios(chances, members, apart)
    others = np.arange(8) != 4
    usual = (chances * ~members)[others].sum(axis=0) / (~members)[others].sum(axis=0)
    raised = chances[4] / usual
    share = (raised[~apart][:, None] > raised[apart]).sum(axis=1)
    assert np.floor(scores[4] * 11).tolist() == share.tolist()


def test_what_is_no_population_is_refused() -> None:
    signals, members, apart = world(1.0, 8, 50, 3)
    with pytest.raises(InvalidParameter, match="trained a model"):
        population_ratios(expit(signals), members, ~apart)
    with pytest.raises(InvalidParameter, match="not empty"):
        population_ratios(expit(signals), members, np.zeros(50, dtype=bool))
    with pytest.raises(InvalidParameter, match="not above 0"):
        population_ratios(expit(signals) * 0.0, members, apart)
    with pytest.raises(InvalidParameter, match="8 reference models"):
        population_ratios(expit(signals), members, apart, 8)
