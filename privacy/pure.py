"""Mechanisms of pure epsilon: what they cost in both lanes, and an exact discrete Laplace sampler.

Nothing a mechanism of pure epsilon releases tells more than randomized response of that epsilon (Kairouz, Oh &
Viswanath 2015, arXiv:1311.0776). So, whatever the mechanism is,

* lane G holds it as mu = 2 Phi^-1(e^epsilon / (1 + e^epsilon)): the trade-off curve of randomized response
  touches that of mu-GDP in its one corner and lies above it (Dong, Roth & Su 2022);
* lane R holds it by randomized response's own Renyi divergence, which is never above epsilon.

Both are rounded up. `PureEpsilon` stands beside ``Gaussian`` wherever releases are added up, and offers the
parameters of the Gaussian that costs as much in lane G, for accountants that know nothing else.

The sampler is that of Canonne, Kamath & Steinke 2020 (arXiv:2004.00010, algorithms 1 and 2) in integers; no
float decides anything. Its time depends on the noise, which is independent of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from privacy.events import CHARGE_UNIT, FULL_BATCH, MAX_STEPS, Gaussian, require_int
from privacy.filters import MAX_ORDER_CENTI, Charge

MICRO: Final = 10**6
MAX_EPSILON_MICRO: Final = 10 * MICRO
MAX_SCALE: Final = 2**53 - 1
_REFERENCE: Final = 2**40
_UP: Final = 1.0 + 1e-9
_SMALLEST: Final = 1e-14


class Uniform(Protocol):
    """A source of uniform integers: ``privacy.noise``."""

    def below(self, bound: int) -> int:
        """Draw a uniform integer in 0 .. bound-1."""
        ...


@dataclass(frozen=True, slots=True)
class PureEpsilon:
    """``steps`` releases, each of at most this epsilon and of delta 0.

    Attributes:
        epsilon_micro: in millionths, 1 .. 10,000,000.
        steps: how many, 0 .. 2^31-1.

    Raises:
        InvalidEvent: a field is no integer in its range.
    """

    epsilon_micro: int
    steps: int = 1

    def __post_init__(self) -> None:
        require_int("epsilon_micro", self.epsilon_micro, 1, MAX_EPSILON_MICRO)
        require_int("steps", self.steps, 0, MAX_STEPS)

    @property
    def epsilon(self) -> float:
        """Of one step."""
        return self.epsilon_micro / MICRO

    @property
    def mu(self) -> float:
        """Of one step, rounded up."""
        return -2.0 * float(ndtri(1.0 / (1.0 + math.exp(self.epsilon)))) * _UP

    @property
    def sensitivity(self) -> int:
        """Of the Gaussian that costs as much, beside `noise_sd`; rounded up."""
        return math.ceil(self.mu * _REFERENCE)

    @property
    def noise_sd(self) -> int:
        """Of the Gaussian that costs as much."""
        return _REFERENCE

    @property
    def sampling(self) -> int:
        """Every patient takes part."""
        return FULL_BATCH

    @property
    def q(self) -> Fraction:
        """The same as a probability."""
        return Fraction(1)

    @property
    def noise_multiplier(self) -> Fraction:
        """Of the Gaussian that costs as much."""
        return Fraction(self.noise_sd, self.sensitivity)

    @property
    def mu2_per_step(self) -> Fraction:
        """Of the Gaussian that costs as much."""
        return Fraction(self.sensitivity**2, self.noise_sd**2)


Mechanism = Gaussian | PureEpsilon
"""What a release may be, where releases are added up."""


def pure_charge(epsilon_micro: int, order_centi: int) -> Charge:
    """What one release of pure epsilon costs in both lanes, rounded up.

    Raises:
        InvalidEvent: a number is out of range.
    """
    require_int("order_centi", order_centi, 101, MAX_ORDER_CENTI)
    event = PureEpsilon(epsilon_micro)
    divergence = rdp_pure(event.epsilon, order_centi / 100.0)
    return Charge(
        g=math.ceil(event.mu * event.mu * CHARGE_UNIT), r=math.ceil(divergence * CHARGE_UNIT)
    )


def rdp_pure(epsilon: float, order: float) -> float:
    """Renyi divergence of randomized response, an upper bound for all that has this epsilon.

    With p = e^epsilon / (1 + e^epsilon) it is log(p^a (1-p)^(1-a) + (1-p)^a p^(1-a)) / (a - 1).

    Args:
        epsilon: above 0.
        order: a, above 1.

    Returns:
        Nats, at most epsilon, rounded up.
    """
    less = order - 1.0
    if order * epsilon < 1.0:
        # moment - 1 without cancellation: (e^(b eps) - 1)(e^eps - e^(-b eps)) / (1 + e^eps), b = a - 1.
        over = math.expm1(less * epsilon) * math.exp(-less * epsilon) * math.expm1(order * epsilon)
        log_moment = math.log1p(over / (1.0 + math.exp(epsilon)))
    else:
        tail = math.log1p(math.exp(-(order + less) * epsilon))
        log_moment = less * epsilon + tail - math.log1p(math.exp(-epsilon))
    return min(epsilon, log_moment / less * _UP + _SMALLEST)


def laplace_integers(rng: Uniform, scale: int, size: int) -> npt.NDArray[np.int64]:
    """Draw integers with probability proportional to exp(-|x| / scale), exactly.

    Args:
        rng: the source.
        scale: 1 .. 2^53-1.
        size: how many, >= 0.

    Returns:
        int64 [size].

    Raises:
        InvalidEvent: a number is out of range.
    """
    require_int("scale", scale, 1, MAX_SCALE)
    require_int("size", size, 0, MAX_STEPS)
    return np.fromiter((_laplace(rng, scale) for _ in range(size)), dtype=np.int64, count=size)


def _laplace(rng: Uniform, scale: int) -> int:
    while True:
        part = rng.below(scale)
        if not _exp_minus(rng, part, scale):
            continue
        whole = 0
        while _exp_minus(rng, 1, 1):
            whole += 1
        size, negative = part + scale * whole, rng.below(2) == 1
        if size == 0 and negative:
            continue  # or zero would be drawn twice as often
        if size < 2**62:  # beyond: a part of e^-512 of all draws, which int64 could not add to
            return -size if negative else size


def _exp_minus(rng: Uniform, numerator: int, denominator: int) -> bool:
    """True with probability exp(-numerator / denominator), for a quotient in 0 .. 1."""
    tries = 1
    while rng.below(denominator * tries) < numerator:
        tries += 1
    return tries % 2 == 1
