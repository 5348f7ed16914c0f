"""T0: the accountant and the generator held against answers that were computed elsewhere.

Decimals come from mpmath at 40 digits, or from a definition that this package does not use (quadrature against
closed form, privacy loss distributions against filters, decimal arithmetic against the sampler's table). Each
answer has a bracket: as wide as rounding for a number, and for a statistic of drawn noise as wide as chance
makes it once in 10^9 honest runs. The tests of ``curves``, ``filters`` and ``rounded_gaussian`` read the same lists.

Promise: nothing but arithmetic and the operating system's randomness is touched. Not promised: that what
lies between the listed points is right; the tests try much more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from privacy import rounded_gaussian
from privacy.calibrate import compose_epsilon
from privacy.crosscheck import pld_epsilon
from privacy.curves import gaussian_delta, mu2_max, rdp_poisson_gaussian
from privacy.errors import BudgetExceeded
from privacy.events import CHARGE_UNIT, FULL_BATCH, GRID, Gaussian
from privacy.filters import Spend, limit_for, reserve, step_charge
from privacy.keystream import keystream
from privacy.noise import Randomness

STATISTIC_ALARM: Final = 1e-9
"""Probability that an honest generator leaves the bracket of one statistic."""

DELTAS: Final = (
    (1e-3, 0.001, 8.335713212520849e-5),
    (0.05, 0.2, 3.947243281789342e-7),
    (0.3, 1, 5.488749644612939e-5),
    (1, 1, 0.1269367375066439),
    (2, 8, 0.0004954017389387454),
    (6, 3, 0.9891178547178487),
    (40, 700, 0.993323245009655),
    (1, 30, 4.709326318097522e-193),
    (100, 1000, 1.0),
)
"""mu, epsilon, and delta of the Gaussian mechanism (mpmath)."""

GATES: Final = (
    (1e-5, (0.0719, 0.517, 1.257, 2.776, 4.002)),
    (5e-6, (0.0663, 0.484, 1.184, 2.631, 3.806)),
    (1e-4, (0.0985, 0.668, 1.579, 3.391, 4.825)),
    (5e-5, (0.0888, 0.615, 1.467, 3.180, 4.544)),
)
"""delta, and the largest mu^2 of epsilon 1, 3, 5, 8, 10 to three digits."""
GATE_EPSILONS: Final = (1, 3, 5, 8, 10)
GATE_ERROR: Final = 6e-4

RENYI: Final = (
    (0.2, 1, 1.8, 0.05676066341536261),
    (0.2, 1, 1.1, 0.02952954181511214),
    (64 / 303, 1, 1.8, 0.06299735409524189),
    (0.01, 1, 2.5, 0.0002175753322818805),
    (0.001, 0.7, 30, 23.46629116108111),
    (0.5, 0.3, 5, 26.91134380207785),
    (0.02, 10, 17.8, 3.589069389033101e-5),
    (0.9, 3, 3.85, 0.1780041487100616),
    (1e-4, 2, 7.5, 1.065277466318956e-8),
    (0.25, 0.5, 1.05, 0.2579896845766766),
)
"""q, noise multiplier, order, and the Renyi divergence of a sampled step (mpmath quadrature)."""

SAMPLED: Final = ((64 * FULL_BATCH // 303, 13.459, 15.080), (FULL_BATCH // 5, 12.668, 14.229))
"""Sampling threshold; epsilon at 1e-4 of 100 steps at sigma 1 by PLD; by Renyi orders (dp-accounting)."""

ADMITTED: Final = ((5.0, 16), (10.0, 52))
"""Lifetime epsilon at delta 1e-5, and how many full-batch experiments of (1, 1e-5) it admits."""

AES_KEY: Final = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
AES_COUNTER: Final = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
AES_PLAIN: Final = (
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
AES_CIPHER: Final = (
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
)
"""NIST SP 800-38A, F.5.5 CTR-AES256.Encrypt, four blocks."""

SMALL_DEVIATIONS: Final = (1, 2, 5)
_DRAWS: Final = 200_000
_PATIENTS: Final = 1_000_000
_TABLE_SD: Final = 1000
_MEDIAN_TAIL: Final = 0.6744897501960817


@dataclass(frozen=True, slots=True)
class Answer:
    """One known answer.

    Attributes:
        part: ``accountant`` or ``sampler``.
        question: what was computed, in words.
        got: the answer.
        low, high: what is known of it.
    """

    part: str
    question: str
    got: float
    low: float
    high: float

    @property
    def right(self) -> bool:
        """Whether the answer lies in its bracket."""
        return self.low <= self.got <= self.high


def known_answers(rng: Randomness) -> tuple[Answer, ...]:
    """Ask everything; about a second.

    Args:
        rng: the generator that rounds would use.
    """
    return (*accountant(), *sampler(rng))


def accountant() -> Iterator[Answer]:
    """What the lanes and the shown epsilons rest on."""
    for mu, epsilon, delta in DELTAS:
        got = gaussian_delta(mu, epsilon)
        yield _near("accountant", f"delta of mu {mu:g} at epsilon {epsilon:g}", got, delta, 1e-11)
    for delta, known in GATES:
        for epsilon, gate in zip(GATE_EPSILONS, known, strict=True):
            got = mu2_max(epsilon, delta)
            asked = f"gate of epsilon {epsilon}, delta {delta:g}"
            yield Answer("accountant", asked, got, gate - GATE_ERROR, gate + GATE_ERROR)
    for q, noise, order, exact in RENYI:
        got = rdp_poisson_gaussian(q, noise, order)
        asked = f"Renyi order {order:g} of a step, q {q:.4g}, noise {noise:g}"
        yield Answer("accountant", asked, got, exact, exact * (1 + 3e-10) + 3e-14)
    for sampling, pld, renyi in SAMPLED:
        event = Gaussian(GRID, GRID, 100, sampling)
        asked = f"epsilon of 100 steps, q {sampling / FULL_BATCH:.4f}"
        got = pld_epsilon([event], 1e-4)
        yield Answer("accountant", f"{asked}, by PLD", got, pld - 1e-3, pld + 1e-3)
        yield Answer("accountant", f"{asked}, as shown", compose_epsilon([event], 1e-4), pld, renyi)
    charge = step_charge(Gaussian(GRID // 2, 4 * GRID, 1), 525)
    exact_g = CHARGE_UNIT // 64
    yield Answer("accountant", "charge of one step in lane G", charge.g, exact_g, exact_g)
    for epsilon, known_count in ADMITTED:
        asked = f"experiments of epsilon 1 in a lifetime of {epsilon:g}"
        yield Answer("accountant", asked, admitted(epsilon), known_count, known_count)


def sampler(rng: Randomness) -> Iterator[Answer]:
    """The key stream, the sampler's decided cells, and the law of what is drawn."""
    stream = keystream(bytes.fromhex(AES_KEY), bytes.fromhex(AES_COUNTER))
    same = float(stream.update(bytes.fromhex(AES_PLAIN)).hex() == AES_CIPHER)
    yield Answer("sampler", "four blocks of the key stream are NIST's", same, 1, 1)
    for sign in (0, 1):
        cell = (2**62 | sign << 63).to_bytes(8, "little")
        got = int(rounded_gaussian.sample(lambda count, c=cell: c, _TABLE_SD, 1)[0])  # type: ignore[misc]
        known = round(_TABLE_SD * _MEDIAN_TAIL) * (1 - 2 * sign)
        yield Answer("sampler", f"quartile of sd {_TABLE_SD}, sign {sign}", got, known, known)
    for sd in SMALL_DEVIATIONS:
        drawn = rng.gaussian_integers(sd, _DRAWS)
        asked = f"chi-square of {_DRAWS:,} draws of sd {sd}"
        yield Answer("sampler", asked, small_noise_p(drawn, sd), STATISTIC_ALARM, 1)
    large = rng.gaussian_integers(3 * GRID, _DRAWS) / (3 * GRID)
    p = float(stats.kstest(large, "norm").pvalue)
    yield Answer("sampler", f"KS distance of {_DRAWS:,} draws of sd 3", p, STATISTIC_ALARM, 1)
    taken = int(rng.poisson_mask(FULL_BATCH // 5, _PATIENTS).sum())
    p = float(stats.binomtest(taken, _PATIENTS, (FULL_BATCH // 5) / FULL_BATCH).pvalue)
    asked = f"share of {_PATIENTS:,} patients that a threshold of 1/5 takes"
    yield Answer("sampler", asked, p, STATISTIC_ALARM, 1)


def admitted(epsilon: float) -> int:
    """How many full-batch experiments of (1, 1e-5) the gates admit one after another."""
    limit = limit_for(epsilon, 1e-5)
    charge = step_charge(Gaussian(GRID, ceil(GRID / sqrt(mu2_max(1.0, 1e-5)))), limit.order_centi)
    spend, count = Spend(), 0
    while True:
        try:
            spend = reserve(spend, charge, limit)
        except BudgetExceeded:
            return count
        count += 1


def small_noise_p(drawn: npt.NDArray[np.int64], sd: int) -> float:
    """P-value of the chi-square distance of draws to the probabilities of round(N(0, sd^2))."""
    reach = 3 * sd
    edges = np.arange(-reach, reach) + 0.5
    observed = np.bincount(np.searchsorted(edges, drawn), minlength=2 * reach + 1)
    cumulative = np.concatenate([[0.0], stats.norm.cdf(edges / sd), [1.0]])
    return float(stats.chisquare(observed, drawn.size * np.diff(cumulative)).pvalue)


def _near(part: str, question: str, got: float, known: float, relative: float) -> Answer:
    return Answer(part, question, got, known * (1 - relative), known * (1 + relative))
