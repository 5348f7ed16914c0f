from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from privacy.errors import InvalidEvent, InvalidParameter
from privacy.rounding import CANCELLATION, clip_within, gamma

SIZES = {"parameters": 14, "terms": 1000, "depth": 600, "patients": 600}


def test_a_dot_product_in_float64_stays_within_gamma() -> None:
    draw = np.random.default_rng(1)
    a, b = draw.normal(size=(2, 2000))
    exact = sum((Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True)), Fraction(0))
    size = sum((abs(Fraction(x) * Fraction(y)) for x, y in zip(a, b, strict=True)), Fraction(0))
    assert abs(Fraction(float(a @ b)) - exact) <= Fraction(gamma(2000)) * size


def test_the_clip_norm_and_all_that_rounding_adds_are_the_sensitivity() -> None:
    norm = clip_within(2**19, **SIZES)
    stay = 2 * gamma(1000) * CANCELLATION**2 * 600
    added = 2 * gamma(600) * CANCELLATION * 600
    whole = norm * (1 + gamma(8) + stay + added) + 14**0.5 + 1
    assert 2**19 * (1 - 1e-11) < whole <= 2**19
    assert 1 - norm / 2**19 < 1e-5


@pytest.mark.parametrize("larger", SIZES)
def test_everything_that_rounds_more_lowers_the_norm(larger: str) -> None:
    assert clip_within(2**19, **SIZES | {larger: 50_000}) < clip_within(2**19, **SIZES)


def test_a_sum_that_rounding_would_swallow_is_refused() -> None:
    for sizes in (SIZES | {"patients": 10**12}, SIZES | {"parameters": 10**9}):
        with pytest.raises(
            InvalidParameter, match="more than half of the sensitivity of 1000 grid"
        ):
            clip_within(1000, **sizes)


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_number_that_is_no_count_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidEvent, match=f"event field '{field}'"):
        clip_within(1000, **SIZES | {field: value})
