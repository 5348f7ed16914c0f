"""A model tree becomes torch modules: only the classes listed here, by name, never imported.

Promise: ``build`` gives a module whose parameters are those that
``ledger.experiment.network_spec.parameter_shapes`` lists, in that order. Every layer of a ``torch.nn.Sequential`` treats each row of a batch
alone, to the last bit: there are no batch statistics, and ``RowLinear`` adds in a fixed order, where
a BLAS rounds a row differently by its place in the batch. The sensitivity of a sum over patients
rests on that; ``networks.composed`` says how it is kept for embeddings and series. Weights travel as one flat float64 vector in the same order.

Not promised: any initial weights; load some.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ledger.experiment.layer_part import Activation
from ledger.experiment.network_spec import LayerNorm, Linear, Network, Sequential
from node.errors import JobRefused
from node.training.networks.activations import ACTIVATIONS
from node.training.networks.composed import ComposedNetwork

FloatVector = npt.NDArray[np.float64]


class RowLinear(nn.Linear):
    """A linear layer whose every output is one stated sequence of IEEE 754 operations on its row.

    out[r, j] = float32(((x[r, 0] w[j, 0] + x[r, 1] w[j, 1]) + ...) + b[j]), each product and sum
    in float64. The gradient of its input likewise, over j. The summed gradients of weight and bias
    are not computed: per-row gradients come from Opacus.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply to [n, in_features]; gives [n, out_features]."""
        apply = _RowProduct.apply
        result: torch.Tensor = apply(inputs, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result


class _RowProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        total = _in_order(inputs, weight.t())
        if bias is not None:
            total += bias.double()
        return total.float()

    @staticmethod
    def backward(ctx: Any, backprops: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (weight,) = ctx.saved_tensors
        needed = ctx.needs_input_grad[0]
        return _in_order(backprops, weight).float() if needed else None, None, None


def _in_order(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply [n, k] by [k, m] in float64, adding over k from the first to the last."""
    left, right = rows.double(), matrix.double()
    total = torch.zeros((left.shape[0], right.shape[1]), dtype=torch.float64)
    for k in range(left.shape[1]):
        # Two operations on purpose: a fused one rounds once in vectors and twice at their ends.
        total += left[:, k : k + 1] * right[k]
    return total


def build(tree: Sequential) -> nn.Module:
    """Make the modules of a tree: float32, on the CPU, with weights that mean nothing yet."""
    if isinstance(tree, Network):
        return ComposedNetwork(tree)
    return nn.Sequential(*(_layer(layer) for layer in tree.layers))


def load_flat(module: nn.Module, weights: FloatVector) -> None:
    """Write a flat vector into a module's parameters, rounded to their type.

    Args:
        module: from ``build``, or a wrapper that keeps its parameters' order.
        weights: float64 [d].

    Raises:
        JobRefused: d is not the module's number of parameters.
    """
    count = sum(parameter.numel() for parameter in module.parameters())
    if weights.shape != (count,):
        raise JobRefused(f"the model has {count} parameters, the weights {weights.shape}")
    at = 0
    with torch.no_grad():
        for parameter in module.parameters():
            piece = weights[at : at + parameter.numel()].reshape(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(np.array(piece)))
            at += parameter.numel()


def flat(module: nn.Module) -> FloatVector:
    """Read a module's parameters as one float64 vector [d]."""
    pieces = [
        parameter.detach().numpy().astype(np.float64).ravel() for parameter in module.parameters()
    ]
    return np.concatenate(pieces)


def _layer(layer: Linear | LayerNorm | Activation) -> nn.Module:
    if isinstance(layer, Linear):
        return RowLinear(layer.in_features, layer.out_features, bias=layer.bias)
    if isinstance(layer, LayerNorm):
        return nn.LayerNorm(layer.normalized_shape)
    return ACTIVATIONS[layer.target]()
