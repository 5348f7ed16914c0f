"""The exactness of the noise: its fast path against decimal arithmetic, and its distribution.

Every distributional test runs on fixed seeds, so it passes or fails for good. Thresholds are far
out (a p-value of 1e-6) and samples large instead: with a million draws an sd wrong by 1 % gives
p < 1e-30, while a threshold of 1e-3 would refuse one honest seed in a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri

from privacy import rounded_gaussian
from privacy.noise import TestRng
from privacy.rounded_gaussian import tail_bounds
from privacy.selfaudit.known_answers import SMALL_DEVIATIONS, small_noise_p


def script(*parts: bytes, then: bytes = b"\x00") -> Callable[[int], bytes]:
    """Bits that begin with ``parts`` and go on with ``then`` for ever."""
    queue = list(parts)

    def bits(count: int) -> bytes:
        if queue:
            part = queue.pop(0)
            assert len(part) == count
            return part
        return then * count

    return bits


def word(value: int) -> bytes:
    return value.to_bytes(8, "little")


@pytest.mark.parametrize("x", ["0.5", "1", "2.25", "4.5", "9", "13.125", "37"])
def test_the_decimal_tail_encloses_the_truth(x: str) -> None:
    low, high = tail_bounds(Fraction(x), 50)
    with mpmath.workdps(80):
        exact = mpmath.ncdf(-mpmath.mpf(x))
        assert mpmath.mpf(low.numerator) / low.denominator <= exact
        assert exact <= mpmath.mpf(high.numerator) / high.denominator
    assert high - low < Fraction(1, 10**40)


def test_more_digits_give_nested_bounds() -> None:
    wide, narrow = tail_bounds(Fraction(7, 3), 50), tail_bounds(Fraction(7, 3), 110)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert narrow[1] - narrow[0] < Fraction(1, 10**100)
    assert tail_bounds(Fraction(0), 50) == (Fraction(1, 2), Fraction(1, 2))


def test_double_precision_inversion_is_a_hundred_times_better_than_assumed() -> None:
    uniform = np.random.default_rng(7).uniform(size=600)
    probabilities = np.concatenate(
        [uniform / 2, 2.0 ** (-1 - 81 * uniform[:300]), 0.5 - 2.0 ** (-2 - 40 * uniform[:100])]
    )
    assumed = Fraction(1, 2**44)
    for p in probabilities:
        z = Fraction(-float(ndtri(p)))
        error = assumed / 100 * (1 + z)
        assert tail_bounds(z + error, 50)[1] < Fraction(float(p))
        if z > error:
            assert tail_bounds(z - error, 50)[0] > Fraction(float(p))


def test_the_table_is_ten_times_better_than_assumed() -> None:
    drawn = np.random.default_rng(8).integers(0, 2**63, 300_000, dtype=np.uint64)
    cells = np.concatenate([drawn >> np.uint64(shift) for shift in range(17)])
    cells = cells[cells >= 2**46].astype(np.float64)
    for sd in (1, 2**20 + 1):
        cubic = rounded_gaussian._scaled_table(sd)[(cells.view(np.int64) >> 43) & (2**15 - 1)].T
        z = cubic[0] + cells * (cubic[1] + cells * (cubic[2] + cells * cubic[3]))
        assert np.abs(z / sd + ndtri(cells * 2.0**-64)).max() < 2.0**-42 / 10


def test_a_far_tail_is_decided_in_double_precision_as_in_decimal_arithmetic() -> None:
    for cell in (3, 2**20 + 7, 2**45, 2**46 - 1):
        fast = rounded_gaussian.sample(script(word(cell), then=b"\x5a"), 2**24, 1)[0]
        tail = rounded_gaussian._Tail(script(then=b"\x5a"), cell)
        tail.refine()
        assert int(fast) == rounded_gaussian._decide(tail, 2**24)


@pytest.mark.parametrize("sd", [1, 2, 5, 3 * 2**20 + 1, 2**34, 2**52 + 1])
def test_the_fast_path_gives_what_decimal_arithmetic_gives(sd: int) -> None:
    raw = TestRng(sd)._bytes(8 * 60)
    fast = rounded_gaussian.sample(script(raw), sd, 60)
    for drawn, value in zip(np.frombuffer(raw, dtype="<u8"), fast, strict=True):
        tail = rounded_gaussian._Tail(script(), int(drawn) & (2**63 - 1))
        exact = rounded_gaussian._decide(tail, sd)
        assert abs(int(value)) == exact
        assert value <= 0 if int(drawn) >> 63 else value >= 0


def test_a_cell_on_a_half_integer_waits_for_more_bits() -> None:
    # The tail beyond 1/2 begins inside this cell, so its later bits decide between 0 and 1.
    boundary = math.floor(tail_bounds(Fraction(1, 2), 50)[0] * 2**64)
    low = rounded_gaussian.sample(script(word(boundary), then=b"\x00"), 1, 1)
    high = rounded_gaussian.sample(script(word(boundary), then=b"\xff"), 1, 1)
    assert (low.tolist(), high.tolist()) == ([1], [0])
    beside = (boundary + 2**20, boundary - 2**20)
    assert [rounded_gaussian.sample(script(word(b)), 1, 1)[0] for b in beside] == [0, 1]


def test_a_boundary_that_needs_two_hundred_bits_is_still_decided() -> None:
    low, high = tail_bounds(Fraction(1, 2), 120)
    prefix = math.floor(low * 2**256)
    assert prefix == math.floor(high * 2**256)
    parts = [word(prefix >> 192)]
    parts += [((prefix >> shift) & (2**64 - 1)).to_bytes(8, "big") for shift in (128, 64, 0)]
    ends = [rounded_gaussian.sample(script(*parts, then=end), 1, 1)[0] for end in (b"\0", b"\xff")]
    assert ends == [1, 0]


def test_all_zero_bits_are_a_far_but_finite_tail() -> None:
    assert rounded_gaussian.sample(script(then=b"\x01"), 2**20, 1)[0] < 10 * 2**20
    extreme = rounded_gaussian.sample(script(word(0), then=b"\x01"), 2**20, 1)[0]
    assert 9 * 2**20 < extreme < 12 * 2**20


def test_the_top_bit_is_the_sign() -> None:
    cell = 2**62
    positive = rounded_gaussian.sample(script(word(cell)), 1000, 1)[0]
    negative = rounded_gaussian.sample(script(word(cell | 2**63)), 1000, 1)[0]
    assert positive == -negative == round(1000 * 0.6744897501960817)


@pytest.mark.parametrize(("sd", "seed"), [*zip(SMALL_DEVIATIONS, (1, 2, 3), strict=True)])
def test_small_noise_has_the_probabilities_of_the_rounded_gaussian(sd: int, seed: int) -> None:
    assert small_noise_p(TestRng(seed).gaussian_integers(sd, 1_000_000), sd) > 1e-6


def test_the_chi_square_test_would_notice_an_sd_wrong_by_one_percent() -> None:
    size, sd, reach = 1_000_000, 100, 300
    drawn = TestRng(3).gaussian_integers(sd, size)
    edges = np.arange(-reach, reach, 20) + 0.5
    observed = np.bincount(np.searchsorted(edges, drawn), minlength=edges.size + 1)
    for claimed, noticed in ((sd, False), (sd * 1.01, True)):
        cumulative = np.concatenate([[0.0], stats.norm.cdf(edges / claimed), [1.0]])
        p_value = stats.chisquare(observed, size * np.diff(cumulative)).pvalue
        assert p_value < 1e-30 if noticed else p_value > 1e-6


def test_large_noise_is_gaussian_and_uncorrelated() -> None:
    sd = 3 * 2**20
    drawn = TestRng(4).gaussian_integers(sd, 200_000) / sd
    assert stats.kstest(drawn, "norm").pvalue > 1e-6
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5 / math.sqrt(drawn.size)
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2 / drawn.size)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2**45), st.integers(0, 50), st.integers(0, 2**32))
def test_every_draw_has_its_shape_and_type(sd: int, size: int, seed: int) -> None:
    drawn = TestRng(seed).gaussian_integers(sd, size)
    assert drawn.shape == (size,)
    assert drawn.dtype == np.int64
    assert not size or int(np.abs(drawn).max()) < 10 * sd + 2
