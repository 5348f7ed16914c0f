"""What a layer's inputs and output gradients say about each row's gradient of its parameters.

A ``Rule`` knows one layer: the gradients themselves, their squared norms without forming them where
that is cheaper (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679, for several places a
row), and the sum of rows' gradients under weights as one product (Bu et al. 2022, arXiv:2210.00038).
``node.training.layers.products`` has those of linear and convolution layers, ``.rules`` the others and the choice.

Promise: ``vectors`` is the layer's gradient of each row's loss as torch would compute it, in the layer's
type; ``squares`` and ``add_weighted`` are float64. What is large lies in memory of the rule's own, which its
next call writes over: to ask the system for it anew, cleared, would take as long as to fill it.

Places are what a layer does the same thing to within a row: pixels, time steps, words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from node.training.layers.rooms import Rooms


class Rule(ABC):
    """One layer's gradients, from its inputs ``a`` and its output gradients ``g``, rows first.

    ``squares``, ``unit_squares`` and ``add_weighted`` take both as ``prepare`` returns them, once for all
    three; for the rows of one call to ``prepare`` before the next.

    Args:
        sizes: numbers of its parameters' scalars, in torch's order.
        starts: where each begins in the flat vector of all.
    """

    def __init__(self, sizes: Sequence[int], starts: Sequence[int]) -> None:
        self._pieces = [slice(at, at + size) for at, size in zip(starts, sizes, strict=True)]
        self._sizes = list(sizes)
        self.size = sum(sizes)
        self.rooms = Rooms()

    def part(self, which: int) -> Rule:
        """The rule of one of the layer's several inputs."""
        return self

    def prepare(self, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay both out as norms and sums read them, rows first."""
        return a, g

    def keeps(self, values: int, rows: int) -> bool:
        """Whether the rows' gradients are small enough to be kept until they are summed."""
        return self.size * rows <= values

    def add(self, sums: Sequence[torch.Tensor], total: torch.Tensor) -> None:
        """Add sums of ``vectors``, [size] of each parameter, to their places in float64 [d]."""
        for piece, part in zip(self._pieces, sums, strict=True):
            total[piece] += part

    @abstractmethod
    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        """Each row's gradient, [n, size] of each parameter, in an order that ``add`` knows."""

    def squares(self, a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """Each row's squared norm, float64 [n]."""
        return squares_of(self.vectors(a, g))

    def unit_squares(self, a: torch.Tensor, g: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """Squared norms of sums of so many rows each, float64; formed one after the other."""
        ones = torch.ones(len(g), dtype=torch.float64)
        found, at = [], 0
        for count in counts:
            total = torch.zeros(self._pieces[-1].stop, dtype=torch.float64)
            rows = slice(at, at + count)
            self.add_weighted(a[rows], g[rows], ones[rows], total)
            found.append(sum(total[piece].square().sum() for piece in self._pieces))
            at += count
        return torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in found])

    def bounds(self, a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """A bound on each row's squared norm, float64 [n]; not finite where a number is not."""
        return self.squares(a, g)

    def add_weighted(
        self, a: torch.Tensor, g: torch.Tensor, weights: torch.Tensor, total: torch.Tensor
    ) -> None:
        """Add the rows' gradients times ``weights``, float64 [n], to ``total``."""
        self.add([weights @ vectors.double() for vectors in self.vectors(a, g)], total)


def squares_of(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Squared norms of rows over several parameters, float64 [n]; not finite beyond 2^127."""
    norms = [torch.linalg.vector_norm(piece, dim=1).double() for piece in vectors]
    return torch.stack(norms).square_().sum(dim=0)
