"""What an attack on synthetic rows found, beside what the proof says; and whether the two can both be true.

The canary runs' lower bound of mu is compared with the mu that the plan's integer charges stand for, and a lower
bound of epsilon that assumes nothing with the epsilon of the plan's mechanism. Of mu there are two bounds: by guesses, and,
where nothing but noise varies between runs, by how far scores spread, which sees much smaller faults. ``ALPHA`` is the
probability that an honest run is called a contradiction, half of it for epsilon and a quarter for each bound of mu; the
same confidence is printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.curves import gaussian_epsilon
from privacy.errors import InvalidParameter
from privacy.selfaudit.checks import Steps
from privacy.selfaudit.lower_bounds import (
    Guesses,
    epsilon_at_least,
    mu_at_least,
    mu_at_most,
    mu_estimate,
    one_run_epsilon_at_least,
)
from privacy.selfaudit.spread import mu_of_spread

ALPHA: Final = 1e-4
CONFIDENCE_PPM: Final = round((1 - ALPHA) * 10**6)
PILOT: Final = 10
"""One run in so many chooses the threshold and is not counted."""
LEAST_RUNS: Final = 100
ONE_RUN_DELTA: Final = 1e-8
"""Where many canaries' epsilon is compared: their bound loses 2 m delta, which a cell's own delta would drown."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Proven:
    """What a plan charges for the releases that an attack sees.

    Attributes:
        mu: of the integer charges in lane G.
        epsilon: at ``delta``, of the mechanism's parameters.
        delta: the cell's lifetime one.
    """

    mu: float
    epsilon: float
    delta: float


@dataclass(frozen=True, slots=True)
class CanaryFound:
    """T2: what the canary runs show.

    Attributes:
        guesses: over the runs that were counted.
        mu_low, mu, mu_high: lower bound, estimate, upper end; the confidence is that of ``ALPHA``.
        mu_guessed: the lower bound by guesses alone.
        epsilon_low: what ``mu_low`` is at the plan's delta.
        epsilon_any: lower bound of epsilon that assumes no Gaussian mechanism.
        share: part of the clip norm that the canary had.
        steps: declared and drawn.
        planned: steps that were charged.
        proven: what was charged.
    """

    guesses: Guesses
    mu_low: float
    mu: float
    mu_high: float
    mu_guessed: float
    epsilon_low: float
    epsilon_any: float
    share: float
    steps: Steps
    planned: int
    proven: Proven

    @property
    def steps_differ(self) -> bool:
        """Whether more or fewer noisy steps were made or declared than charged: certain, not likely."""
        return not self.steps.declared == self.steps.drawn == self.planned

    @property
    def contradicts(self) -> bool:
        """Whether more was observed than is proven to be possible."""
        return (
            self.mu_low > self.proven.mu
            or self.epsilon_any > self.proven.epsilon
            or self.steps_differ
        )

    @property
    def says(self) -> str:
        """The finding in a sentence."""
        counts = self.steps
        made = f"{counts.drawn:,} noisy steps were made and {counts.declared:,} declared"
        if self.steps_differ:
            return f"{made} where {self.planned:,} are charged"
        return (
            f"observed at least mu {self.mu_low:.4f} of proven {self.proven.mu:.4f} "
            f"(epsilon {self.epsilon_low:.3f} of {self.proven.epsilon:.3f} at delta "
            f"{self.proven.delta:.3g}), by guesses alone at least mu {self.mu_guessed:.4f}; {made}"
        )


@dataclass(frozen=True, slots=True)
class OneRunFound:
    """T3: a smoke alarm. It finds noise that is missing or far too small, and vouches for nothing.

    Attributes:
        canaries, guesses, correct: m, r and v of Steinke et al.
        epsilon_low: lower bound at ``ONE_RUN_DELTA``.
        proven: what was charged, at the same delta.
    """

    canaries: int
    guesses: int
    correct: int
    epsilon_low: float
    proven: Proven

    @property
    def contradicts(self) -> bool:
        """Whether the alarm goes off."""
        return self.epsilon_low > self.proven.epsilon

    @property
    def says(self) -> str:
        """The finding in a sentence."""
        alarm = "the smoke alarm goes off" if self.contradicts else "the smoke alarm is silent"
        return (
            f"{alarm}: {self.correct} of {self.guesses} guesses right, epsilon at least "
            f"{self.epsilon_low:.3f} of proven {self.proven.epsilon:.3f} at delta "
            f"{self.proven.delta:.3g}"
        )


def judge_canaries(
    inside: Floats,
    outside: Floats,
    share: float,
    steps: Steps,
    planned: int,
    proven: Proven,
    *,
    only_noise: bool = False,
) -> CanaryFound:
    """Turn scores into a lower bound.

    The first runs of each kind choose the threshold, midway between their medians, and are not counted.

    Args:
        inside: score of each run with the canary, float64 [runs].
        outside: of each run without it.
        share: part of the clip norm that the canary had.
        steps: declared and drawn, over all runs.
        planned: steps that were charged for so many runs.
        proven: what was charged for one run.
        only_noise: nothing but noise varies between runs, and scores are 1 and 0 without it.

    Raises:
        InvalidParameter: there are too few runs, or not as many of one kind as of the other.
    """
    if inside.shape != outside.shape or inside.ndim != 1 or inside.size < LEAST_RUNS:
        raise InvalidParameter(
            f"{inside.shape} runs with and {outside.shape} without the canary; an audit needs as many "
            f"of each, at least {LEAST_RUNS}"
        )
    pilot = inside.size // PILOT
    threshold = (float(np.median(inside[:pilot])) + float(np.median(outside[:pilot]))) / 2.0
    guesses = Guesses(
        runs=inside.size - pilot,
        true_positives=int((inside[pilot:] > threshold).sum()),
        false_positives=int((outside[pilot:] > threshold).sum()),
    )
    guessed = mu_at_least(guesses, ALPHA / 4)
    spread = mu_of_spread(inside, outside, ALPHA / 4) if only_noise else None
    low = guessed if spread is None else max(guessed, spread.low)
    return CanaryFound(
        guesses=guesses,
        mu_low=low,
        mu=mu_estimate(guesses) if spread is None else max(low, spread.mu),
        mu_high=mu_at_most(guesses, ALPHA / 4) if spread is None else max(low, spread.high),
        mu_guessed=guessed,
        epsilon_low=gaussian_epsilon(low, proven.delta),
        epsilon_any=epsilon_at_least(guesses, proven.delta, ALPHA / 2),
        share=share,
        steps=steps,
        planned=planned,
        proven=proven,
    )


def judge_one_run(scores: Floats, taken: npt.NDArray[np.bool_], proven: Proven) -> OneRunFound:
    """Guess the quarter of canaries with the highest scores in and that with the lowest out.

    Args:
        scores: of each canary, float64 [m].
        taken: whether its coin put it into the run, [m].
        proven: what was charged, with epsilon at ``ONE_RUN_DELTA``.
    """
    side = max(1, scores.size // 8)
    order = np.argsort(scores, kind="stable")
    correct = int(taken[order[-side:]].sum() + (~taken[order[:side]]).sum())
    return OneRunFound(
        canaries=scores.size,
        guesses=2 * side,
        correct=correct,
        epsilon_low=one_run_epsilon_at_least(scores.size, 2 * side, correct, proven.delta, ALPHA),
        proven=proven,
    )
