"""Clipped sums by every row's own gradient: the way for layers that no rule of book-keeping fits.

``torch.func.vmap`` differentiates each row, some rows at a time; ``node.training.sums.bookkeeping`` says what
is promised of the sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from node.errors import JobRefused
from node.training.sums.blocks import Blocks, RowLoss, probe, weighted

_VMAP_VALUES = 2**24
"""Most gradient values that are formed at once."""


class VmapSum(Blocks):
    """Each row's gradient by ``torch.func``, some rows at a time. Made by ``clipped_sum_of``."""

    path = "vmap"

    def __init__(
        self, module: nn.Module, loss: RowLoss, rows: int, *, per_layer: bool = False
    ) -> None:
        super().__init__(module, loss, rows, per_layer=per_layer)
        names = [name for name, _ in module.named_parameters()]

        def row_loss(values: tuple[torch.Tensor, ...], x: torch.Tensor, y: torch.Tensor) -> Any:
            state = dict(zip(names, values, strict=True))
            output = torch.func.functional_call(module, state, (x.unsqueeze(0),))
            return loss(output, y.unsqueeze(0))[0]

        chunk = max(1, min(self.block, _VMAP_VALUES // max(1, self.parameters)))
        self._gradients = torch.func.vmap(
            torch.func.grad(row_loss), in_dims=(None, 0, 0), chunk_size=chunk
        )

    def _kept_size(self) -> int:
        return self.parameters

    def check_places(self, example: torch.Tensor) -> None:
        """As ``Blocks.check_places``: the rows' vectors, permuted."""
        inputs, targets = probe(self._module, self._loss, example, self.block)
        order = torch.randperm(self.block, generator=torch.Generator().manual_seed(1))
        straight, mixed = (
            self._vectors(inputs[chosen], targets[chosen])
            for chosen in (torch.arange(self.block), order)
        )
        if not torch.equal(straight[order], mixed):
            raise JobRefused(
                "this machine rounds a row by its place, so the fast engine cannot bound what "
                "one patient changes"
            )

    def _vectors(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        values = tuple(p.detach() for p in self._parameters)
        pieces = self._gradients(values, inputs, targets)
        vectors = torch.cat([piece.reshape(len(inputs), -1) for piece in pieces], dim=1)
        broken = ~torch.isfinite(vectors).all(dim=1)
        if broken.any():
            vectors[broken] = 0.0
        return vectors

    def _add_block(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        counts: npt.NDArray[np.int64],
        bound: float,
        total: torch.Tensor,
    ) -> None:
        vectors = self._vectors(self._pad(inputs), self._pad(targets))[: len(inputs)]
        if len(counts) < len(inputs):
            owner = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
            weights = torch.from_numpy(np.repeat(1.0 / counts, counts)).to(vectors.dtype)
            summed = torch.zeros((len(counts), self.parameters), dtype=vectors.dtype)
            vectors = summed.index_add_(0, owner, vectors * weights[:, None])
        for slot, share in self.shares(bound):
            norms = torch.linalg.vector_norm(vectors[:, slot], dim=1).double()
            total[slot] += weighted(vectors[:, slot], share / norms.clamp_min_(share))

    def _add_long(
        self, inputs: torch.Tensor, targets: torch.Tensor, bound: float, total: torch.Tensor
    ) -> None:
        mean = torch.zeros_like(total)
        for low in range(0, len(inputs), self.block):
            part = inputs[low : low + self.block]
            vectors = self._vectors(self._pad(part), self._pad(targets[low : low + self.block]))
            mean += vectors[: len(part)].sum(dim=0, dtype=torch.float64) / len(inputs)
        for slot, share in self.shares(bound):
            norm = max(float(torch.linalg.vector_norm(mean[slot])), share)
            total[slot] += mean[slot] * (share / norm)
