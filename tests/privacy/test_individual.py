"""Individual accounting in numbers: never more than is left, never less than what it costs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import InvalidParameter
from privacy.events import CHARGE_UNIT
from privacy.filters import g_step
from privacy.individual import MOST_SPEND, allowances, charges

LENGTHS = st.integers(1, 2**30)
NOISES = st.integers(2**24, 2**45)


def exactly(square: int, noise_sd: int) -> Fraction:
    return Fraction(square * CHARGE_UNIT, noise_sd**2)


@given(st.lists(st.integers(-(2**40), MOST_SPEND), min_size=1, max_size=20), NOISES, LENGTHS)
def test_a_vector_as_long_as_allowed_costs_no_more_than_is_left(
    left: list[int], noise_sd: int, sensitivity: int
) -> None:
    most = allowances(np.array(left), noise_sd=noise_sd, sensitivity=sensitivity)
    cost = charges(most * most, noise_sd=noise_sd, sensitivity=sensitivity)
    for allowed, paid, had in zip(most.tolist(), cost.tolist(), left, strict=True):
        assert 0 <= allowed <= sensitivity
        assert exactly(allowed**2, noise_sd) <= paid <= max(had, 0)


@given(st.integers(0, 2**60), NOISES, LENGTHS)
def test_a_charge_is_never_below_the_exact_one_nor_above_the_worst_case(
    square: int, noise_sd: int, sensitivity: int
) -> None:
    square = min(square, sensitivity**2)
    paid = int(charges(np.array([square]), noise_sd=noise_sd, sensitivity=sensitivity)[0])
    assert exactly(square, noise_sd) <= paid <= g_step(sensitivity, noise_sd)
    assert (paid == 0) == (square == 0)


def test_who_has_plenty_left_is_clipped_to_the_sensitivity() -> None:
    left = np.array([MOST_SPEND, CHARGE_UNIT])
    assert allowances(left, noise_sd=2**21, sensitivity=2**20).tolist() == [2**20, 2**20]


def test_a_vector_beyond_the_sensitivity_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="longer than the sensitivity"):
        charges(np.array([101]), noise_sd=100, sensitivity=10)
