"""What a layer's inputs and output gradients say about each row's gradient of its parameters.

A ``Rule`` knows one layer: the gradients themselves, their squared norms without forming them where
that is cheaper (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679, for several places a
row), and the sum of rows' gradients under weights as one product (Bu et al. 2022, arXiv:2210.00038).

Promise: ``vectors`` is the layer's gradient of each row's loss as torch would compute it, in the layer's
type; ``squares`` and ``add_weighted`` are float64. A layer that is not listed has no rule. What is
large lies in memory of the rule's own, which its next call writes over: to ask the system for it anew,
cleared, would take as long as to fill it.

Places are what a layer does the same thing to within a row: pixels, time steps, words.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from node.training.layers.columns import ColumnLinear
from node.training.layers.recurrent import UnrolledGRU
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


class _Products(Rule):
    """A weight [out, in] that multiplies each place, and perhaps a bias."""

    def __init__(self, layer: nn.Module, starts: Sequence[int]) -> None:
        sizes = [p.numel() for p in layer.parameters(recurse=False)]
        super().__init__(sizes, starts)
        self._bias = len(sizes) == 2
        self._overlap = 1

    def _places(self, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs [n, places, in] and output gradients [n, places, out]."""
        return a.reshape(len(a), -1, a.shape[-1]), g.reshape(len(g), -1, g.shape[-1])

    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        a, g = self._places(a, g)
        room = self.rooms.take("vectors", (len(a), g.shape[2], a.shape[2]), g.dtype)
        product = _product(g.transpose(1, 2), a, room).flatten(1)
        return [product, g.sum(dim=1)] if self._bias else [product]

    def prepare(self, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._places(a.double(), g.double())

    def squares(self, a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        places, inner, outer = a.shape[1], a.shape[2], g.shape[2]
        if places == 1:
            return (_squares(a) + float(self._bias)) * _squares(g)
        if places * (inner + outer) <= inner * outer:
            ghost = _product(a, a.transpose(1, 2))
            ghost += float(self._bias)
            return ghost.mul_(_product(g, g.transpose(1, 2))).sum(dim=(1, 2))
        found = _squares(_product(g.transpose(1, 2), a))
        return found + g.sum(dim=1).square_().sum(dim=1) if self._bias else found

    def bounds(self, a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        inputs, outputs = squares_of([_lines(a)]), squares_of([_lines(g)])
        places = g.shape[1:].numel() * self._bias
        return (self._overlap * inputs + places) * outputs

    def add_weighted(
        self, a: torch.Tensor, g: torch.Tensor, weights: torch.Tensor, total: torch.Tensor
    ) -> None:
        self.add(self._weighted(a, g, weights), total)

    def _weighted(
        self, a: torch.Tensor, g: torch.Tensor, weights: torch.Tensor
    ) -> list[torch.Tensor]:
        scaled = (g * weights[:, None, None]).reshape(-1, g.shape[2])
        room = self.rooms.take("sum", (g.shape[2], a.shape[2]), g.dtype)
        product = _product(scaled.t(), a.reshape(-1, a.shape[2]), room).view(-1)
        return [product, scaled.sum(dim=0)] if self._bias else [product]


class _Linear(_Products):
    def keeps(self, values: int, rows: int) -> bool:
        return False


class _Conv(_Products):
    """A convolution: a product at each place of the patch that lies under the kernel.

    Patches are taken with the channels innermost, as they lie in memory in torch's channels-last
    format; there they cost next to nothing. A tap of the kernel that meets nothing but padding has no
    gradient, and is left out.
    """

    def __init__(self, layer: nn.Conv1d | nn.Conv2d, starts: Sequence[int]) -> None:
        super().__init__(layer, starts)
        flat = isinstance(layer, nn.Conv1d)
        kernel: Any = (1, *layer.kernel_size) if flat else layer.kernel_size
        stride: Any = (1, *layer.stride) if flat else layer.stride
        padding: Any = (0, *layer.padding) if flat else layer.padding
        self._axes = list(zip(kernel, stride, padding, strict=True))
        self._shape = (layer.out_channels, layer.in_channels, *kernel)
        self._all = [range(size) for size in kernel]
        self._taps = self._all
        self._overlap = math.prod(kernel)

    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        self._taps = self._all
        return super().vectors(a, g)

    def prepare(self, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = zip(self._axes, _image(a).shape[2:], _image(g).shape[2:], strict=True)
        self._taps = [_live(*axis, read, written) for axis, read, written in sizes]
        return super().prepare(a, g)

    def add_weighted(
        self, a: torch.Tensor, g: torch.Tensor, weights: torch.Tensor, total: torch.Tensor
    ) -> None:
        self._add_taps(self._weighted(a, g, weights), total, self._taps)

    def add(self, sums: Sequence[torch.Tensor], total: torch.Tensor) -> None:
        self._add_taps(sums, total, self._all)

    def _add_taps(
        self, sums: Sequence[torch.Tensor], total: torch.Tensor, taps: Sequence[range]
    ) -> None:
        down, across = taps
        into = total[self._pieces[0]].view(self._shape).permute(0, 2, 3, 1)
        into = into[:, down.start : down.stop, across.start : across.stop]
        into += sums[0].view(into.shape)
        for piece, part in zip(self._pieces[1:], sums[1:], strict=True):
            total[piece] += part

    def _places(self, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, g = _image(a), _image(g)
        edges: list[int] = []
        for axis, taps, read, written in zip(
            self._axes, self._taps, a.shape[2:], g.shape[2:], strict=True
        ):
            before = axis[2] - taps.start
            edges = [before, (written - 1) * axis[1] + len(taps) - read - before, *edges]
        patches = functional.pad(a, edges) if any(edges) else a
        for dim, (axis, taps) in enumerate(zip(self._axes, self._taps, strict=True), start=2):
            patches = patches.unfold(dim, len(taps), axis[1])
        patches = patches.permute(0, 2, 3, 4, 5, 1)
        if not patches.is_contiguous():
            patches = self.rooms.take("patches", patches.shape, a.dtype).copy_(patches)
        return patches.flatten(3).flatten(1, 2), g.permute(0, 2, 3, 1).flatten(1, 2)


def _product(a: torch.Tensor, b: torch.Tensor, into: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply matrices, or a stack by a stack, in numpy.

    Its library, OpenBLAS, uses all of any processor; torch's, MKL, about half of one by AMD.
    """
    out = None if into is None else into.numpy()
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy(), out=out))


def _live(kernel: int, stride: int, padding: int, read: int, written: int) -> range:
    """The taps along one axis from the first to the last that meet an input anywhere."""
    inside = range(padding, padding + read)
    met = [t for t in range(kernel) if any(t + stride * at in inside for at in range(written))]
    return range(met[0], met[-1] + 1) if met else range(1)


def _image(values: torch.Tensor) -> torch.Tensor:
    """Rows of one line as images one line high."""
    return values.unsqueeze(2) if values.dim() == 3 else values


def _lines(values: torch.Tensor) -> torch.Tensor:
    """Each row's numbers, [n, all], in the order in which they lie in memory where that is one."""
    return values.permute(0, 2, 3, 1).flatten(1) if values.dim() == 4 else values.flatten(1)


def _squares(values: torch.Tensor) -> torch.Tensor:
    """Each row's sum of squares, [n]."""
    flat = values.flatten(1)
    norms: torch.Tensor = torch.linalg.vector_norm(flat, dim=1)
    return norms.square_()


class _Recurrent(Rule):
    """An unrolled GRU: two products for each of its layers, of inputs and of states."""

    def __init__(self, layer: UnrolledGRU, starts: Sequence[int]) -> None:
        sizes = [p.numel() for p in layer.parameters(recurse=False)]
        super().__init__(sizes, starts)
        self._parts = []
        for depth in range(len(sizes) // 4):
            weight_x, weight_h, bias_x, bias_h = range(4 * depth, 4 * depth + 4)
            for weight, bias in ((weight_x, bias_x), (weight_h, bias_h)):
                part = _Part([sizes[weight], sizes[bias]], [starts[weight], starts[bias]])
                self._parts.append(part)

    def part(self, which: int) -> Rule:
        return self._parts[which]

    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        raise NotImplementedError("its parts have rules")


class _Part(_Products):
    def __init__(self, sizes: Sequence[int], starts: Sequence[int]) -> None:
        Rule.__init__(self, sizes, starts)
        self._bias = True
        self._overlap = 1


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

    def keeps(self, values: int, rows: int) -> bool:
        return True

    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        product = g * _normal(self._layer, a)
        pieces = [product, g] if len(self._pieces) == 2 else [product]
        if isinstance(self._layer, nn.LayerNorm | nn.RMSNorm):
            width = self._sizes[0]
            return [piece.reshape(len(a), -1, width).sum(dim=1) for piece in pieces]
        return [piece.flatten(2).sum(dim=2) for piece in pieces]


def squares_of(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Squared norms of rows over several parameters, float64 [n]; not finite beyond 2^127."""
    norms = [torch.linalg.vector_norm(piece, dim=1).double() for piece in vectors]
    return torch.stack(norms).square_().sum(dim=0)


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
        return _Linear(layer, at)
    if kind in (nn.Conv1d, nn.Conv2d):
        assert isinstance(layer, nn.Conv1d | nn.Conv2d)
        plain = layer.groups == 1 and layer.padding_mode == "zeros" and set(layer.dilation) == {1}
        return _Conv(layer, at) if plain and not isinstance(layer.padding, str) else None
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
