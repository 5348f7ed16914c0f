"""What correct guesses about membership prove: lower bounds of mu and epsilon, at a stated confidence.

An auditor guesses, over independent runs or independent canaries, whether a canary was in the data. A
private mechanism bounds how often the guess may be right, so many right guesses prove a least mu or epsilon:

* ``mu_at_least``: guesses over runs, half of them with the canary. Of a mu-GDP mechanism a test with false
  positive rate a has at most Phi(Phi^-1(a) + mu) true ones (Dong, Roth & Su 2022, arXiv:1905.02383), so a guess
  is right with probability at most Phi(mu/2) on average, and the number of right ones is no more likely to be
  large than a binomial one (Hoeffding 1956, Theorem 4). This is the bound of Nasr et al. 2023 (arXiv:2302.07956)
  for one threshold, by one Clopper-Pearson limit instead of two.
* ``epsilon_at_least``: the same guesses, and no assumption but (epsilon, delta): true positives at most
  e^epsilon times the false ones plus delta, and so for negatives; each rate by its own Clopper-Pearson limit.
* ``one_run_epsilon_at_least``: many canaries in one run, each in it by a coin of its own (Steinke, Nasr &
  Jagielski 2023, arXiv:2305.08846, Theorem 5.2).

Promise: each bound exceeds the truth with probability at most ``alpha``, if the threshold, and the number
of guesses, were chosen without looking at the runs that are counted. Not promised: that a bound is near the
truth. A low one proves nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats
from scipy.special import ndtri

from privacy.errors import InvalidParameter

MOST_EPSILON: Final = 100.0
"""Where the search for a bound ends; e^100 is beyond what any number of guesses could prove."""


@dataclass(frozen=True, slots=True)
class Guesses:
    """What an auditor guessed over runs with a canary, and as many without.

    Attributes:
        runs: of each kind, >= 1.
        true_positives: runs with the canary that were taken for such.
        false_positives: runs without it that were taken for runs with it.
    """

    runs: int
    true_positives: int
    false_positives: int

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        counts = (self.true_positives, self.false_positives)
        if self.runs < 1 or any(not 0 <= count <= self.runs for count in counts):
            raise InvalidParameter(f"guesses {counts} of {self.runs} runs are not counts of them")

    @property
    def correct(self) -> int:
        """Right guesses among all ``2 * runs``."""
        return self.true_positives + self.runs - self.false_positives


def share_at_least(hits: int, trials: int, alpha: float) -> float:
    """One-sided lower limit of a probability (Clopper & Pearson 1934)."""
    _require_alpha(alpha)
    return 0.0 if hits == 0 else float(stats.beta.ppf(alpha, hits, trials - hits + 1))


def share_at_most(hits: int, trials: int, alpha: float) -> float:
    """One-sided upper limit of a probability (Clopper & Pearson 1934)."""
    _require_alpha(alpha)
    return 1.0 if hits == trials else float(stats.beta.ppf(1.0 - alpha, hits + 1, trials - hits))


def mu_at_least(guesses: Guesses, alpha: float) -> float:
    """Least mu that the guesses prove: the mechanism is mu'-GDP for no smaller mu'.

    Args:
        guesses: over independent runs.
        alpha: probability of a bound above the truth, in (0, 0.1].
    """
    share = share_at_least(guesses.correct, 2 * guesses.runs, alpha)
    return max(0.0, 2.0 * float(ndtri(share)))


def mu_at_most(guesses: Guesses, alpha: float) -> float:
    """The other end of the interval: what these guesses, by this threshold, do not exceed."""
    share = share_at_most(guesses.correct, 2 * guesses.runs, alpha)
    return max(0.0, 2.0 * float(ndtri(share)))


def mu_estimate(guesses: Guesses) -> float:
    """The middle: 2 Phi^-1 of the share of right guesses, not below 0, as if one guess had been wrong."""
    share = min(guesses.correct, 2 * guesses.runs - 1) / (2 * guesses.runs)
    return max(0.0, 2.0 * float(ndtri(share)))


def epsilon_at_least(guesses: Guesses, delta: float, alpha: float) -> float:
    """Least epsilon that the guesses prove at ``delta``, whatever the mechanism.

    Args:
        guesses: over independent runs.
        delta: in [0, 1).
        alpha: probability of a bound above the truth, in (0, 0.1]; half for each of two limits.
    """
    _require_delta(delta)
    most_false = share_at_most(guesses.false_positives, guesses.runs, alpha / 2)
    least_true = share_at_least(guesses.true_positives, guesses.runs, alpha / 2)
    proved = (
        _log_ratio(least_true - delta, most_false),
        _log_ratio(1.0 - most_false - delta, 1.0 - least_true),
    )
    return min(MOST_EPSILON, max(0.0, *proved))


def one_run_epsilon_at_least(
    canaries: int, guesses: int, correct: int, delta: float, alpha: float
) -> float:
    """Least epsilon that right guesses about many canaries of one run prove at ``delta``.

    Args:
        canaries: m, each in the run or not by a fair coin of its own.
        guesses: r <= m about which something was guessed.
        correct: v <= r of them.
        delta: in [0, 1).
        alpha: probability of a bound above the truth, in (0, 0.1].
    """
    _require_alpha(alpha)
    _require_delta(delta)
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise InvalidParameter(
            f"{correct} of {guesses} guesses about {canaries} canaries cannot be"
        )
    if _one_run_p(canaries, guesses, correct, delta, 0.0) >= alpha:
        return 0.0
    low, high = 0.0, MOST_EPSILON
    while high - low > 1e-6:
        middle = (low + high) / 2.0
        if _one_run_p(canaries, guesses, correct, delta, middle) < alpha:
            low = middle
        else:
            high = middle
    return low


def _one_run_p(canaries: int, guesses: int, correct: int, delta: float, epsilon: float) -> float:
    """Most likely that so many guesses are right under (epsilon, delta).

    P[right >= v] <= f(v) + 2 m delta max_i (f(v - i) - f(v)) / i, f the upper tail of
    Binomial(r, e^epsilon / (1 + e^epsilon)).
    """
    chance = 1.0 / (1.0 + math.exp(-epsilon))
    tail = float(stats.binom.sf(correct - 1, guesses, chance))
    if delta == 0.0 or correct == 0:
        return tail
    below = np.cumsum(stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, chance))
    steepest = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, tail + 2.0 * canaries * delta * steepest)


def _log_ratio(above: float, below: float) -> float:
    if above <= 0.0:
        return 0.0
    return math.inf if below <= 0.0 else math.log(above / below)


def _require_alpha(alpha: float) -> None:
    if not 0.0 < alpha <= 0.1:
        raise InvalidParameter(f"alpha = {alpha} must lie in (0, 0.1]")


def _require_delta(delta: float) -> None:
    if not 0.0 <= delta < 1.0:
        raise InvalidParameter(f"delta = {delta} must lie in [0, 1)")
