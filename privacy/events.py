"""What was released: mechanism events, in integers.

An event states the mechanism and its parameters, never an epsilon: epsilons do not compose, events
do (docs/privacy.md). Both lanes of a budget and every accountant are computed from
the same event.

All lengths are in grid units of 2^-20 of whatever is released (gradient, histogram count), so an
auditor recomputes a charge by integer arithmetic. The protected unit is the patient, the relation
zero-out: one patient's contribution replaced by nothing moves the released sum by at most
``sensitivity`` in L2 norm.

This module promises that an event in hand has integer fields inside their ranges. It does not
promise that a mechanism with these parameters was really run; that is what signatures, residual
tests and audits are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from privacy.errors import InvalidEvent

GRID_BITS: Final = 20
GRID: Final = 2**GRID_BITS
"""Grid units per 1.0."""

CHARGE_UNIT: Final = 2**40
"""Charge units per 1.0 of mu^2 (lane G) or of Renyi divergence (lane R)."""

FULL_BATCH: Final = 2**32
"""The sampling threshold that takes every patient: q = sampling / 2^32 = 1."""

MAX_LENGTH: Final = 2**53 - 1
MAX_STEPS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Gaussian:
    """``steps`` releases of a clipped sum plus a rounded Gaussian integer per coordinate.

    Rounding z to an integer after adding it to an integer sum is post-processing of the Gaussian
    mechanism, so both lanes hold exactly (Dong, Roth & Su 2022, Theorem 2.7 for lane G).

    Attributes:
        sensitivity: L2 bound on one patient's contribution, grid units, 1 .. 2^53-1.
        noise_sd: standard deviation of the noise in each coordinate, grid units, 1 .. 2^53-1.
        steps: how many such releases, 0 .. 2^31-1.
        sampling: Poisson threshold, 1 .. 2^32; each patient takes part in a step
            independently with probability sampling / 2^32.

    Raises:
        InvalidEvent: a field is not an ``int`` (booleans and floats are refused) or out of range.
    """

    sensitivity: int
    noise_sd: int
    steps: int = 1
    sampling: int = FULL_BATCH

    def __post_init__(self) -> None:
        require_int("sensitivity", self.sensitivity, 1, MAX_LENGTH)
        require_int("noise_sd", self.noise_sd, 1, MAX_LENGTH)
        require_int("steps", self.steps, 0, MAX_STEPS)
        require_int("sampling", self.sampling, 1, FULL_BATCH)

    @property
    def q(self) -> Fraction:
        """Probability that a patient takes part in one step; in (0, 1]."""
        return Fraction(self.sampling, FULL_BATCH)

    @property
    def noise_multiplier(self) -> Fraction:
        """Noise sd over sensitivity (sigma of the DP-SGD literature); unitless."""
        return Fraction(self.noise_sd, self.sensitivity)

    @property
    def mu2_per_step(self) -> Fraction:
        """(sensitivity / noise_sd)^2 of one step at q = 1; unitless."""
        return Fraction(self.sensitivity**2, self.noise_sd**2)


def require_int(field: str, value: object, low: int, high: int) -> None:
    """Refuse anything but a plain ``int`` in ``low .. high``.

    ``bool`` is refused by type: ``True`` would pass as one step.
    """
    if type(value) is not int or not low <= value <= high:
        raise InvalidEvent(field, value, f"an integer in {low} .. {high}")
