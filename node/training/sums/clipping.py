"""From a patient's gradient to an integer vector that is not too long: the clipping of the exact engine.

Promise: each vector's sum of squares is at most the sensitivity squared, checked in integers after
scaling by 2^20 and truncation toward zero; what exceeds it all the same becomes 0. A vector depends on
its patient's gradient alone, so one patient moves a sum of them by at most the sensitivity.

- ``Flat``: the whole gradient, to the sensitivity.
- ``PerLayer``: each of the L parameter tensors by itself, to floor(sensitivity / sqrt(L)); together they
  are no longer than the sensitivity (Opacus' ``DPPerLayerOptimizer`` with equal norms).
- ``Counting``: the whole gradient, to a norm that the round states, scaled to the G of
  ``ledger.experiment.adaptive_clip``; behind it B or -B, whether it was within that norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ledger.experiment.adaptive_clip import split
from privacy.events import GRID

FloatMatrix = npt.NDArray[np.float64]
IntMatrix = npt.NDArray[np.int64]


class Clipping(Protocol):
    """How the gradients of patients become vectors."""

    @property
    def extra(self) -> int:
        """Values of a vector behind its gradient's."""
        ...

    def on_grid(self, gradients: FloatMatrix, sensitivity: int) -> IntMatrix:
        """Clip each row and put it on the grid.

        Args:
            gradients: finite float64 [u, d].
            sensitivity: L2 bound, grid units, 1 .. 2^30.

        Returns:
            int64 [u, d + extra].
        """
        ...


@dataclass(frozen=True, slots=True)
class Flat:
    """The whole gradient is one vector."""

    extra: ClassVar[int] = 0

    def on_grid(self, gradients: FloatMatrix, sensitivity: int) -> IntMatrix:
        """As ``Clipping.on_grid``."""
        return clip_to_grid(gradients, sensitivity)


@dataclass(frozen=True, slots=True)
class PerLayer:
    """Each parameter tensor's part is a vector of its own.

    Attributes:
        sizes: of the tensors, in the order of the gradient; their sum is d.
    """

    sizes: Sequence[int]
    extra: ClassVar[int] = 0

    def on_grid(self, gradients: FloatMatrix, sensitivity: int) -> IntMatrix:
        """As ``Clipping.on_grid``.

        Raises:
            ValueError: no grid unit is left for a tensor.
        """
        share = math.isqrt(sensitivity * sensitivity // len(self.sizes))
        if share < 1:
            raise ValueError(f"{sensitivity} grid units cannot be shared by {len(self.sizes)}")
        edges = np.cumsum([0, *self.sizes])
        return np.concatenate(
            [clip_to_grid(gradients[:, low:high], share) for low, high in pairwise(edges)], axis=1
        )


@dataclass(frozen=True, slots=True)
class Counting:
    """The whole gradient, clipped to a norm of the round and scaled; and whether it was within.

    Attributes:
        norm: C_t, above 0.
        share: of the squared sensitivity that the count takes.
    """

    norm: float
    share: Decimal
    extra: ClassVar[int] = 1

    def on_grid(self, gradients: FloatMatrix, sensitivity: int) -> IntMatrix:
        """As ``Clipping.on_grid``; the last value is B or -B.

        Raises:
            ValueError: no grid unit is left for the count.
        """
        parts = split(sensitivity, self.share)
        norms = np.sqrt((gradients * gradients).sum(axis=1))
        factors = parts.gradient / np.maximum(norms, self.norm)
        vectors: IntMatrix = np.trunc(gradients * factors[:, None]).astype(np.int64)
        too_long = (vectors * vectors).sum(axis=1) > parts.gradient * parts.gradient
        vectors[too_long] = 0
        counts = np.where(norms <= self.norm, parts.count, -parts.count)
        return np.column_stack([vectors, counts])


FLAT = Flat()


def clip_to_grid(gradients: FloatMatrix, sensitivity: int | IntMatrix) -> IntMatrix:
    """Clip each row to the sensitivity and put it on the grid.

    Args:
        gradients: finite float64 [u, d].
        sensitivity: L2 bound, grid units, 0 .. 2^30; one for all rows, or int64 [u].

    Returns:
        int64 [u, d]; every row's sum of squares is at most sensitivity^2, checked in integers.
    """
    norms = np.sqrt((gradients * gradients).sum(axis=1)) * GRID
    factors = np.where(norms > sensitivity, sensitivity / np.maximum(norms, 1.0), 1.0) * GRID
    vectors: IntMatrix = np.trunc(gradients * factors[:, None]).astype(np.int64)
    too_long = (vectors * vectors).sum(axis=1) > sensitivity * sensitivity
    vectors[too_long] = 0
    return vectors
