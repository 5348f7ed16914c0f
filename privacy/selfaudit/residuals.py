"""T1: what was sent is the exact sum plus the planned noise, independent wherever it must be; or not.

A residual is (sent - exact sum) / planned sd, over synthetic rows. Under the plan residuals are
independent standard normal numbers, and each statistic below has a known distribution:

==================  ==============================================  ================================
check               statistic                                       law under the plan
==================  ==============================================  ================================
``sigma``           sum of squares of all residuals                 chi-square, two-sided
``mean``            sum / sqrt(number)                              standard normal, two-sided
``shape``           Kolmogorov-Smirnov distance                     its exact distribution
``neighbours``      correlation of disjoint neighbouring pairs      r^2 is Beta(1/2, (n - 1)/2)
``across_sites``    largest correlation of two sites' vectors of    the same, times the number of
                    one round, at any shift                         pairs and shifts
``across_rounds``   the same over different rounds                  the same
``steps``           draws against steps declared, and vectors       equal, or p = 0
                    computed again from declared steps
==================  ==============================================  ================================

A check fails at p < ``FALSE_ALARMS`` / number of checks, so the whole test raises a false alarm with
probability at most ``FALSE_ALARMS`` = 1e-7 (union bound; rounding to the grid moves a deviation of 2^10 units
or more by less than 1e-7 of itself). Power: with n residuals the variance is known to a relative
sqrt(2 / n), so ``sigma`` finds a deviation wrong by a part e with probability 99 % from about
n = 2 ((5.8 + 2.4) / 2e)^2 residuals on: 13,400 for 5 %. An undeclared step in T moves the variance of a
vector that accumulated T steps by 1 / T, which takes 2 (8.2 T)^2 residuals; counting draws finds it
always. A seed that two sites share makes r = 1: found in one round from about ten values on.

Not promised: that noise is unpredictable. A generator with a known key passes every one of these.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from privacy.errors import InvalidParameter
from privacy.selfaudit.checks import Check, Finding, Report, Steps

Floats = npt.NDArray[np.float64]

_LEAST_OVERLAP: Final = 8
"""Values that two vectors must share at a shift for their correlation to say anything."""


def examine(residuals: Floats, steps: Steps) -> Report:
    """Test residuals against the plan.

    Args:
        residuals: (sent - exact sum) / planned sd; float64, shape [sites, rounds, d].
        steps: as counted.

    Raises:
        InvalidParameter: the array is empty, has another shape, or holds what is no number.
    """
    if residuals.ndim != 3 or residuals.size < 2 * _LEAST_OVERLAP:
        raise InvalidParameter(
            f"residuals have shape {residuals.shape}; give [sites, rounds, d] with at least "
            f"{2 * _LEAST_OVERLAP} numbers"
        )
    if not np.isfinite(residuals).all():
        raise InvalidParameter("a residual is not a finite number")
    flat = residuals.ravel()
    sites, rounds, _ = residuals.shape
    vectors = residuals.reshape(sites * rounds, -1)
    same = np.arange(sites * rounds) % rounds
    across_sites, across_rounds = _correlations(vectors, same)
    ratio = float(np.sqrt(np.mean(flat**2)))
    return Report(
        residuals=flat.size,
        sigma_ratio=ratio,
        findings=(
            _sigma(flat, ratio),
            _mean(flat),
            _shape(flat),
            _neighbours(vectors),
            across_sites,
            across_rounds,
            _steps(steps),
        ),
    )


def _sigma(flat: Floats, ratio: float) -> Finding:
    total = float(np.sum(flat**2))
    law = stats.chi2(flat.size)
    p = min(1.0, 2.0 * min(float(law.cdf(total)), float(law.sf(total))))
    return Finding("sigma", p, f"observed over planned deviation is {ratio:.4f}")


def _mean(flat: Floats) -> Finding:
    score = float(flat.sum() / np.sqrt(flat.size))
    p = 2.0 * float(stats.norm.sf(abs(score)))
    return Finding("mean", p, f"the mean is {score:+.2f} standard errors from zero")


def _shape(flat: Floats) -> Finding:
    ordered = stats.norm.cdf(np.sort(flat))
    steps = np.arange(flat.size + 1) / flat.size
    distance = float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
    p = float(stats.kstwo.sf(distance, flat.size))
    return Finding("shape", p, f"largest distance from the normal law is {distance:.4f}")


def _neighbours(vectors: Floats) -> Finding:
    even = vectors.shape[1] - vectors.shape[1] % 2
    first, second = vectors[:, 0:even:2].ravel(), vectors[:, 1:even:2].ravel()
    if first.size < _LEAST_OVERLAP:
        return Finding("neighbours", 1.0, "too few values for pairs of neighbours")
    r = _r(float(first @ second), float(first @ first), float(second @ second))
    return Finding("neighbours", _p_of(r, first.size), f"neighbouring values correlate by {r:+.4f}")


def _correlations(vectors: Floats, rounds: npt.NDArray[np.int64]) -> tuple[Finding, Finding]:
    """Correlate every two vectors at every shift; the same stream read later is still the same."""
    count, size = vectors.shape
    shifts = np.arange(-(size - _LEAST_OVERLAP), size - _LEAST_OVERLAP + 1)
    if count < 2 or not shifts.size:
        reason = "fewer than two vectors" if count < 2 else "vectors are too short"
        return Finding("across_sites", 1.0, reason), Finding("across_rounds", 1.0, reason)
    width = 1 << (2 * size - 1).bit_length()
    spectra = np.fft.rfft(vectors, width)
    squares = np.concatenate([np.zeros((count, 1)), np.cumsum(vectors**2, axis=1)], axis=1)
    overlap = size - np.abs(shifts)
    # At shift k, value i of one meets value i + k of the other.
    begin, end = np.maximum(0, -shifts), np.minimum(size, size - shifts)
    strangest = {True: (0.0, 0.0, 2), False: (0.0, 0.0, 2)}
    pairs = {True: 0, False: 0}
    for i in range(count - 1):
        others = np.arange(i + 1, count)
        products = np.fft.irfft(np.conj(spectra[i]) * spectra[others], width)[:, shifts % width]
        own = squares[i, end] - squares[i, begin]
        theirs = squares[others][:, end + shifts] - squares[others][:, begin + shifts]
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.clip(np.nan_to_num(products / np.sqrt(own * theirs)), -1.0, 1.0)
            # Falls with p, near enough to find the strangest; its p itself is exact.
            strange = (overlap - 1) * np.log1p(-(r**2))
        for together in (True, False):
            chosen = (rounds[others] == rounds[i]) == together
            pairs[together] += int(chosen.sum())
            if chosen.any():
                row, column = np.unravel_index(np.argmin(strange[chosen]), strange[chosen].shape)
                found = (strange[chosen][row, column], r[chosen][row, column], overlap[column])
                strangest[together] = min(strangest[together], found)
    return (
        _pairs("across_sites", *strangest[True][1:], pairs[True], shifts.size),
        _pairs("across_rounds", *strangest[False][1:], pairs[False], shifts.size),
    )


def _pairs(check: Check, r: float, overlap: int, pairs: int, shifts: int) -> Finding:
    p = min(1.0, _p_of(float(r), int(overlap)) * max(1, pairs) * shifts)
    return Finding(check, p, f"the most alike of {pairs} pairs of vectors correlate by {r:+.3f}")


def _steps(steps: Steps) -> Finding:
    says = f"{steps.drawn} noisy steps were drawn, {steps.declared} declared"
    if steps.broken:
        says += f"; {steps.broken} vectors are not what their declared steps make"
    if steps.wrong:
        says += f"; clipped sums that are not what rows' gradients make: {', '.join(steps.wrong)}"
    right = steps.declared == steps.drawn and not steps.broken and not steps.wrong
    return Finding("steps", 1.0 if right else 0.0, says)


def _p_of(r: float, overlap: int) -> float:
    """Two-sided: r of two independent normal vectors of known mean 0 has r^2 ~ Beta(1/2, (n-1)/2)."""
    return float(stats.beta.sf(r**2, 0.5, (overlap - 1) / 2.0))


def _r(product: float, first: float, second: float) -> float:
    scale = float(np.sqrt(first * second))
    return 0.0 if scale == 0.0 else max(-1.0, min(1.0, product / scale))
