"""A clip norm that follows a quantile of the gradients' norms, at the charge of a fixed one.

Andrew, Thakkar, McMahan & Ramaswamy 2021 (arXiv:1905.03871), on the plan's integer grid. In a round with
the clip norm C_t a patient adds one vector of two parts:

- the gradient, clipped to C_t and scaled by G / C_t: at most G grid units long, whatever C_t is;
- a count: B where its norm is at most C_t, otherwise -B.

``split`` takes B and G out of the release's sensitivity S: G^2 + B^2 <= S^2. So the joint vector is as long
as a flat gradient may be, and under the same noise costs the same, in every round, whoever chose C_t.
In the paper's terms: noise multipliers z_delta = z S / G on the gradients and sigma_b = z S / (2B) on
the count of (b - 1/2), with z_delta^-2 + (2 sigma_b)^-2 <= z^-2.

The released count moves the norm (``next_norm``), which is post-processing. C_t is part of the round's
model, one more value behind the parameters (tensor ``clip_norm``), so it has the model's hash, its
signature and its recomputation. A coordinator that states another one costs nobody privacy, and is found
by whoever repeats the server's step.

Promise: integers, and float64 elementwise in a stated order of operations that IEEE 754 rounds correctly;
no exponential, whose last bit differs between machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from ledger.experiment.network_spec import Sequential, parameter_shapes
from ledger.experiment.privacy_spec import AdaptiveClipping
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import GRID

TENSOR: Final = "clip_norm"
SPAN: Final = 1024.0
"""The norm stays between the first one over this and the first one times this."""


@dataclass(frozen=True, slots=True)
class Split:
    """What of a sensitivity is for what, grid units.

    Attributes:
        gradient: G, the longest gradient.
        count: B, what a patient adds to, or takes from, the count.
    """

    gradient: int
    count: int


def split(sensitivity: int, share: Decimal) -> Split:
    """Divide a sensitivity: B^2 is at most ``share`` of its square, G^2 at most what B^2 leaves.

    Args:
        sensitivity: S, grid units.
        share: above 0, at most 1/2.

    Raises:
        ValueError: no grid unit is left for the count.
    """
    count = math.isqrt(int(sensitivity * sensitivity * Fraction(share)))
    if count < 1:
        raise ValueError(f"of {sensitivity} grid units none is left for the count")
    return Split(math.isqrt(sensitivity * sensitivity - count * count), count)


def split_of(spec: ExperimentSpec, settings: AdaptiveClipping) -> Split:
    """The split of a spec's training: of its first clip norm on the grid."""
    return split(int(spec.clip_norm * GRID), settings.share)


def extra_values(spec: ExperimentSpec) -> int:
    """Values of a round's model, and of its updates, behind the network's parameters: 0 or 1."""
    return 0 if spec.privacy.adaptive is None else 1


def round_shapes(spec: ExperimentSpec, tree: Sequential) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of a round's model: the network's parameters, and the clip norm if it adapts."""
    norm: tuple[tuple[str, tuple[int, ...]], ...] = ((TENSOR, (1,)),)
    return parameter_shapes(tree) + norm * extra_values(spec)


def first_norm(spec: ExperimentSpec) -> float:
    """The clip norm of round 1."""
    return float(spec.clip_norm)


def allowed(spec: ExperimentSpec, norm: float) -> bool:
    """Whether a clip norm is one that rounds may have: ``SPAN`` around the first."""
    first = first_norm(spec)
    return first / SPAN <= norm <= first * SPAN


def next_norm(
    settings: AdaptiveClipping, first: float, norm: float, within: float, expected: float
) -> float:
    """Move a clip norm after a round, in this order of float64 operations.

    - ``b = 0.5 + (0.5 * (within / expected))``, then no less than 0 and no more than 1: the part of the
      patients whose norm was within C_t;
    - ``x = rate * (quantile - b)``;
    - ``C = norm * ((2 + x) / (2 - x))``, which is ``norm * exp(x)`` but for about x^3 / 12;
    - no less than ``first / 1024`` and no more than ``first * 1024``.

    Args:
        settings: rate and quantile.
        first: the clip norm of round 1.
        norm: the clip norm of the round, C_t.
        within: the released count: patients within C_t less patients beyond, with noise.
        expected: how many patients the round was to have, by declared sizes.
    """
    part = min(max(0.5 + 0.5 * (within / expected), 0.0), 1.0)
    step = float(settings.rate) * (float(settings.quantile) - part)
    moved = norm * ((2.0 + step) / (2.0 - step))
    return min(max(moved, first / SPAN), first * SPAN)
