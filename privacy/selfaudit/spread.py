"""What the spread of scores proves of a mechanism that adds Gaussian noise to a sum that the auditor knows.

The scores of canary runs are 1 or 0 (with the canary, or without it) plus noise, in units of what the canary
adds, and the auditor knows both without noise. Where a run is one full batch a round, nothing but the noise
varies, so all that distinguishes runs with the canary from runs without it is that shift of 1 over the noise's
deviation s along it: the release is exactly 1/s-GDP (Dong, Roth & Su 2022, arXiv:1905.02383, Theorem 2.7), and
no statistic of the vectors says more (Neyman-Pearson). So a bound of s is one of mu: with n runs of each kind the
scores' sum of squares about their two means is s^2 times a chi-square of 2 n - 2 degrees of freedom.

Promise: where noise is Gaussian and independent of rows, ``low`` is above the true mu with probability at most
``alpha``, and so is ``high`` below it. With 2,000 runs of each kind the interval is 7 % wide at 1e-4, where guesses
about the same runs say mu to within 0.16. Not promised: anything of noise with another law; ``lower_bounds`` says
what guesses prove of that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

_STRANGE: Final = 1e-6
"""Scores whose means differ by something else than 1, less likely than this, are not what was assumed."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """Mu from the deviation of scores.

    Attributes:
        low, mu, high: lower end, estimate, upper end.
    """

    low: float
    mu: float
    high: float


def mu_of_spread(inside: Floats, outside: Floats, alpha: float) -> Spread | None:
    """Bound mu by how far scores spread.

    Args:
        inside: score of each run with the canary, float64 [n], n >= 2; expected to be 1.
        outside: of each run without it, [n]; expected to be 0.
        alpha: probability that either end is wrong, in (0, 0.1].

    Returns:
        None where the scores are not a shift of 1: then something else than noise varies.
    """
    freedom = len(inside) + len(outside) - 2
    squares = float(((inside - inside.mean()) ** 2).sum() + ((outside - outside.mean()) ** 2).sum())
    if squares <= 0.0:
        return None
    deviation = math.sqrt(squares / freedom)
    error = deviation * math.sqrt(1.0 / len(inside) + 1.0 / len(outside))
    shift = float(inside.mean() - outside.mean())
    if 2.0 * stats.t.sf(abs(shift - 1.0) / error, freedom) < _STRANGE:
        return None
    least, most = stats.chi2.ppf(alpha, freedom), stats.chi2.isf(alpha, freedom)
    return Spread(
        low=math.sqrt(least / squares), mu=1.0 / deviation, high=math.sqrt(most / squares)
    )
