"""Membership inference: finds what a leaky model tells, and stays under the bound of one that does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from privacy.errors import InvalidParameter
from privacy.selfaudit.membership import Bools, Floats, likelihood_ratios, rates


def world(mu: float, models: int, units: int, seed: int) -> tuple[Floats, Bools]:
    """Signals of units that are as far apart as mu allows, each with a level of its own."""
    draw = np.random.default_rng(seed)
    members = draw.integers(0, 2, (models, units)).astype(bool)
    levels = draw.normal(0, 5, units)
    return levels + mu * members + draw.normal(0, 1, (models, units)), members


def test_an_attack_reaches_what_the_proof_allows_and_no_more() -> None:
    signals, members = world(1.0, 64, 500, 1)
    auc, low, high = rates(likelihood_ratios(signals, members), members, 1.0, 1e-3)
    assert (auc.name, low.false_positive_rate, high.false_positive_rate) == ("auc", 0.001, 0.01)
    assert auc.bound == pytest.approx(float(ndtr(1 / np.sqrt(2))))
    assert 0.9 * auc.bound < auc.low < auc.measured < auc.high < 1.02 * auc.bound
    assert 0.5 * high.bound < high.measured
    assert high.low < high.bound


def test_an_attack_on_more_than_was_proven_contradicts() -> None:
    signals, members = world(2.0, 32, 500, 2)
    auc, _, tpr = rates(likelihood_ratios(signals, members), members, 0.5, 1e-3)
    assert auc.low > auc.bound
    assert tpr.low > tpr.bound


def test_nothing_leaks_where_nothing_is_learned() -> None:
    for seed in range(20):
        signals, members = world(0.0, 16, 300, seed)
        for rate in rates(likelihood_ratios(signals, members), members, 1e-6, 1e-3):
            assert rate.low <= rate.bound + 1e-3


def test_a_rate_that_too_few_units_can_show_is_left_out() -> None:
    signals, members = world(1.0, 8, 20, 3)
    shown = rates(likelihood_ratios(signals, members), members, 1.0, 1e-3)
    assert [rate.name for rate in shown] == ["auc"]


def test_an_attack_without_models_or_numbers_is_refused() -> None:
    signals, members = world(1.0, 7, 20, 3)
    with pytest.raises(InvalidParameter, match="at least 8 models"):
        likelihood_ratios(signals, members)
    signals, members = world(1.0, 8, 20, 3)
    signals[0, 0] = np.nan
    with pytest.raises(InvalidParameter, match="not a finite number"):
        likelihood_ratios(signals, members)
    with pytest.raises(InvalidParameter, match="inside and outside"):
        likelihood_ratios(world(1.0, 8, 20, 3)[0], np.ones((8, 20), dtype=bool))
