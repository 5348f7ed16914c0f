"""Where all values and gradients of a tape lie side by side, and their float64 copies likewise.

So that one pass copies them all, and one squares them: at 64 rows the calls cost more than the numbers.
Promise: lines that were given away are nobody else's, and their copies stand at the same places.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ledger.experiment.layer_part import Activation
from ledger.experiment.network_spec import LayerNorm, Linear, Sequential
from node.training.networks.parameters import width_in

FloatMatrix = npt.NDArray[np.float64]


class TapeRoom:
    """Lines of one width.

    Args:
        tree: the model, for how many lines there may be.
        size: columns.
        dtype: of values and gradients; their copies are float64.
    """

    def __init__(self, tree: Sequential, size: int, dtype: torch.dtype) -> None:
        width = width_in(tree)
        lines = width + 1
        for layer in tree.layers:
            width = layer.out_features if isinstance(layer, Linear) else width
            lines += 3 * width + 1  # at most: what a norm keeps, a gradient, and results with ones
        self._narrow = torch.zeros((lines, size), dtype=dtype)
        self.exact = dtype == torch.float64
        self._wide: FloatMatrix = self._narrow.numpy() if self.exact else np.zeros((lines, size))
        self._used = 0

    def take(self, lines: int) -> torch.Tensor:
        """Give away so many lines, [lines, size]."""
        low, self._used = self._used, self._used + lines
        return self._narrow[low : self._used]

    def give_back(self, last: torch.Tensor) -> torch.Tensor:
        """Take back what was given away last."""
        self._used -= len(last)
        return last

    def used(self) -> FloatMatrix:
        """The float64 copy of all lines that were given away."""
        return self._wide[: self._used]

    def values(self, width: int, reader: Linear | LayerNorm | Activation | None) -> torch.Tensor:
        """Give what a layer reads: with a row of ones below, where it is linear with a bias."""
        extra = isinstance(reader, Linear) and reader.bias
        values = self.take(width + extra)
        if extra:
            values[-1] = 1.0
        return values

    def wide(self, narrow: torch.Tensor) -> FloatMatrix:
        """The float64 copy of lines of this room."""
        return self._wide[self.lines(narrow)]

    def lines(self, narrow: torch.Tensor) -> slice:
        """Which lines of this room they are."""
        low = narrow.storage_offset() // self._narrow.shape[1]
        return slice(low, low + len(narrow))

    def widen(self) -> None:
        """Copy all lines."""
        if not self.exact:
            np.copyto(self.used(), self._narrow[: self._used].numpy())
