"""A linear layer that multiplies columns: each column of its product is one sequence of instructions for all places.

``torch.nn.Linear`` multiplies rows, and a BLAS takes a row's last digits by where it stands among the others. With a
row in each column the matrix that is the same for all comes first, as in ``node.training.networks.tape``, and a row's
numbers are the same bits in every place of a block; ``bookkeeping.clipped_sum_of`` looks on each machine.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class ColumnLinear(nn.Linear):
    """``torch.nn.Linear`` of [n, in], the same but for rounding."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Apply to [n, in_features]; gives [n, out_features]."""
        apply = _Columns.apply
        product: torch.Tensor = apply(rows, self.weight)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias


class _Columns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        return (weight @ rows.t().contiguous()).t().contiguous()

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        rows, weight = ctx.saved_tensors
        columns = gradients[0].t().contiguous()
        by_rows = by_weight = None
        if ctx.needs_input_grad[0]:
            by_rows = (weight.t() @ columns).t().contiguous()
        if ctx.needs_input_grad[1]:
            by_weight = columns @ rows
        return by_rows, by_weight
