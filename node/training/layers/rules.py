"""The rules of embeddings, norms and recurrent layers, and which layer has which rule.

Promise: as ``node.training.layers.rule``. A layer that is not listed has no rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from node.training.layers.columns import ColumnLinear
from node.training.layers.products import ConvRule, LinearRule, Part
from node.training.layers.recurrent import UnrolledGRU
from node.training.layers.rule import Rule, squares_of


class _Recurrent(Rule):
    """An unrolled GRU: two products for each of its layers, of inputs and of states."""

    def __init__(self, layer: UnrolledGRU, starts: Sequence[int]) -> None:
        sizes = [p.numel() for p in layer.parameters(recurse=False)]
        super().__init__(sizes, starts)
        self._parts = []
        for depth in range(len(sizes) // 4):
            weight_x, weight_h, bias_x, bias_h = range(4 * depth, 4 * depth + 4)
            for weight, bias in ((weight_x, bias_x), (weight_h, bias_h)):
                part = Part([sizes[weight], sizes[bias]], [starts[weight], starts[bias]])
                self._parts.append(part)

    def part(self, which: int) -> Rule:
        return self._parts[which]

    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        raise NotImplementedError("its parts have rules")


class _Embedding(Rule):
    """A table of which each place takes one line."""

    def __init__(self, layer: nn.Embedding, starts: Sequence[int]) -> None:
        super().__init__([layer.weight.numel()], starts)
        self._shape = layer.weight.shape
        self._padding = layer.padding_idx

    def keeps(self, values: int, rows: int) -> bool:
        return False

    def _masked(self, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lines, gradients = a.flatten(1), g.reshape(len(g), -1, g.shape[-1])
        if self._padding is not None:
            gradients = gradients * (lines != self._padding).unsqueeze(2)
        return lines, gradients

    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        lines, gradients = self._masked(a, g)
        tables = torch.zeros((len(a), *self._shape), dtype=g.dtype)
        for row, table in enumerate(tables):
            table.index_add_(0, lines[row], gradients[row])
        return [tables.flatten(1)]

    def squares(self, a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        lines, gradients = self._masked(a, g.double())
        same = lines.unsqueeze(1) == lines.unsqueeze(2)
        return (torch.bmm(gradients, gradients.transpose(1, 2)) * same).sum(dim=(1, 2))

    def bounds(self, a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return squares_of([g.flatten(1)]) * a.shape[1:].numel()

    def add_weighted(
        self, a: torch.Tensor, g: torch.Tensor, weights: torch.Tensor, total: torch.Tensor
    ) -> None:
        lines, gradients = self._masked(a, g)
        scaled = gradients * weights[:, None, None]
        table = total[self._pieces[0]].view(self._shape)
        table.index_add_(0, lines.flatten(), scaled.flatten(0, 1))


class _Scaled(Rule):
    """A norm's scale, and perhaps shift, of what it has normalised."""

    def __init__(self, layer: nn.Module, starts: Sequence[int]) -> None:
        super().__init__([p.numel() for p in layer.parameters(recurse=False)], starts)
        self._layer: Any = layer
        self._starts = list(starts)

    def part(self, which: int) -> Rule:
        """The rule where the rows' gradients are known when the pass is done."""
        return _Known(self._sizes, self._starts)

    def keeps(self, values: int, rows: int) -> bool:
        return True

    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        product = g * _normal(self._layer, a)
        pieces = [product, g] if len(self._pieces) == 2 else [product]
        if isinstance(self._layer, nn.LayerNorm | nn.RMSNorm):
            width = self._sizes[0]
            return [piece.reshape(len(a), -1, width).sum(dim=1) for piece in pieces]
        return [piece.flatten(2).sum(dim=2) for piece in pieces]


class _Known(Rule):
    """Rows' gradients of scale and shift, handed in as inputs and output gradients."""

    def keeps(self, values: int, rows: int) -> bool:
        return True

    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        return [a, g]


def rule_for(layer: nn.Module, starts: Sequence[int] | None) -> Rule | None:
    """Make the rule of a layer that owns parameters.

    Args:
        layer: any module.
        starts: where its parameters begin in the flat vector; None only asks whether there is one.

    Returns:
        None where no rule is known.
    """
    at = starts or [0] * sum(1 for _ in layer.parameters(recurse=False))
    kind = type(layer)
    if kind is nn.Linear or kind is ColumnLinear:
        return LinearRule(layer, at)
    if kind in (nn.Conv1d, nn.Conv2d):
        assert isinstance(layer, nn.Conv1d | nn.Conv2d)
        plain = layer.groups == 1 and layer.padding_mode == "zeros" and set(layer.dilation) == {1}
        return ConvRule(layer, at) if plain and not isinstance(layer.padding, str) else None
    if isinstance(layer, UnrolledGRU):
        return _Recurrent(layer, at)
    if kind is nn.Embedding:
        assert isinstance(layer, nn.Embedding)
        plain = layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
        return _Embedding(layer, at) if plain else None
    if kind in _NORMS:
        return _Scaled(layer, at)
    return None


_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.RMSNorm)


def _normal(layer: Any, a: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.GroupNorm):
        return functional.group_norm(a, layer.num_groups, eps=layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return functional.layer_norm(a, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return functional.rms_norm(a, layer.normalized_shape, eps=layer.eps)
    return functional.instance_norm(a, eps=layer.eps)
