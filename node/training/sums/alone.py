"""Rows through a network one by one: the ``exact`` engine's way for layers that are torch's own.

The exact engine's promise is to the bit: a row's gradient may not depend on who else is in a block. Linear layers keep
it in blocks (``networks.modules.RowLinear``); a convolution or a recurrent cell of torch rounds a row by
its place there. Alone in a pass there are no places: each row meets memory of its own, the same shapes and the same
instructions. It takes about a millisecond a row; ``fast`` is for those who have many.

The ``fast`` engine of such networks falls back to it where a machine rounds a row of some layer by its place
(``node.training.sums.composed``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from node.data.encode import Examples

_MOST_VALUES = 2**24
"""Gradient values that are handed on together."""


class Alone(nn.Module):
    """A network that takes each row alone, however many are handed in.

    Args:
        module: from [1, d] to [1, k]; its parameters keep their order.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Apply to [n, d]; gives [n, k]."""
        return torch.cat([self.module(rows[at : at + 1].clone()) for at in range(len(rows))])

    def gradients(
        self, batch: Examples, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the gradients of the rows' losses, some rows [r, d] at a time; zeros where not finite."""
        parameters = list(self.parameters())
        size = sum(parameter.numel() for parameter in parameters)
        some = max(1, _MOST_VALUES // max(1, size))
        for start in range(0, len(batch.targets), some):
            stop = min(start + some, len(batch.targets))
            found = np.empty((stop - start, size))
            for at in range(start, stop):
                inputs = torch.from_numpy(batch.features[at : at + 1]).clone()
                target = torch.from_numpy(batch.targets[at : at + 1]).clone()
                own = torch.autograd.grad(loss(self.module(inputs), target), parameters)
                found[at - start] = np.concatenate([piece.numpy().ravel() for piece in own])
            found[~np.isfinite(found).all(axis=1)] = 0.0
            yield found
