"""Rules of layers that multiply by a weight: linear ones, convolutions, the products of recurrent cells.

A convolution's sum and norms are made in the cheapest of several ways, which its shapes choose, and nothing else:

* of few parameters: each row's gradient is formed, in the layer's type, and kept from its norm to the sum;
* of many, over few places: norms from the products of places with places, without any gradient; over many,
  from gradients that are formed and not kept;
* then the sum is one product over all rows and places, or, where most of a patch is padding (small images under a
  kernel), one for each tap over the places where it meets more.

Promise: as ``node.training.layers.rule``, in each of these ways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from node.training.layers.rule import Rule, squares_of

_FEW_PLACES = 4
"""A convolution's outputs of one channel and row, up to which it is computed channel by channel."""
_MOST_DEAD = 4
"""How many times as many taps as a kernel's live ones make it worth being cut."""


class Products(Rule):
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
        """As ``Rule.vectors``."""
        a, g = self._places(a, g)
        room = self.rooms.take("vectors", (len(a), g.shape[2], a.shape[2]), g.dtype)
        product = _product(g.transpose(1, 2), a, room).flatten(1)
        return [product, g.sum(dim=1)] if self._bias else [product]

    def prepare(self, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``Rule.prepare``."""
        return self._places(a.double(), g.double())

    def squares(self, a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """As ``Rule.squares``."""
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
        """As ``Rule.bounds``."""
        inputs, outputs = squares_of([_lines(a)]), squares_of([_lines(g)])
        places = g.shape[1:].numel() * self._bias
        return (self._overlap * inputs + places) * outputs

    def add_weighted(
        self, a: torch.Tensor, g: torch.Tensor, weights: torch.Tensor, total: torch.Tensor
    ) -> None:
        """As ``Rule.add_weighted``."""
        self.add(self._weighted(a, g, weights), total)

    def _weighted(
        self, a: torch.Tensor, g: torch.Tensor, weights: torch.Tensor
    ) -> list[torch.Tensor]:
        scaled = (g * weights[:, None, None]).reshape(-1, g.shape[2])
        room = self.rooms.take("sum", (g.shape[2], a.shape[2]), g.dtype)
        product = _product(scaled.t(), a.reshape(-1, a.shape[2]), room).view(-1)
        return [product, scaled.sum(dim=0)] if self._bias else [product]


class LinearRule(Products):
    """A linear layer: never kept, since norms and sums cost next to nothing."""

    def keeps(self, values: int, rows: int) -> bool:
        """As ``Rule.keeps``."""
        return False


class ConvRule(Products):
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
        self.axes = list(zip(kernel, stride, padding, strict=True))
        self._shape = (layer.out_channels, layer.in_channels, *kernel)
        self._all = [range(size) for size in kernel]
        self._taps = self._all
        self._met: list[list[tuple[int, int]]] = []
        self._written: list[int] = []
        self._overlap = math.prod(kernel)

    def vectors(self, a: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        """As ``Rule.vectors``."""
        self._taps = self._all
        return super().vectors(a, g)

    def prepare(self, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``Rule.prepare``."""
        sizes = list(zip(self.axes, _image(a).shape[2:], _image(g).shape[2:], strict=True))
        self._taps = [_live(*axis, read, written) for axis, read, written in sizes]
        self._met = [
            [_met(axis[1], axis[2] - tap, read, written) for tap in taps]
            for (axis, read, written), taps in zip(sizes, self._taps, strict=True)
        ]
        self._written = [written for _, _, written in sizes]
        return super().prepare(a, g)

    def add_weighted(
        self, a: torch.Tensor, g: torch.Tensor, weights: torch.Tensor, total: torch.Tensor
    ) -> None:
        """As ``Rule.add_weighted``."""
        down, across = (sum(last - first for first, last in axis) for axis in self._met)
        if 2 * down * across > math.prod(map(len, self._taps)) * g.shape[1]:
            self._add_taps(self._weighted(a, g, weights), total, self._taps)
        else:
            self._add_tap_by_tap(a, g * weights[:, None, None], total)

    def _add_tap_by_tap(self, a: torch.Tensor, scaled: torch.Tensor, total: torch.Tensor) -> None:
        """Where most of the patches is padding: a product for each tap, over the places where it meets more."""
        patches = a.reshape(len(a), *self._written, *map(len, self._taps), self._shape[1])
        outputs = scaled.reshape(len(a), *self._written, self._shape[0])
        into = total[self._pieces[0]].view(self._shape).permute(0, 2, 3, 1)
        for i, (top, bottom) in enumerate(self._met[0]):
            for j, (left, right) in enumerate(self._met[1]):
                read = patches[:, top:bottom, left:right, i, j].flatten(0, 2)
                given = outputs[:, top:bottom, left:right].flatten(0, 2)
                at = self._taps[0][i], self._taps[1][j]
                into[:, *at] += _product(given.t(), read)
        for piece in self._pieces[1:]:
            total[piece] += scaled.sum(dim=(0, 1))

    def add(self, sums: Sequence[torch.Tensor], total: torch.Tensor) -> None:
        """As ``Rule.add``."""
        self._add_taps(sums, total, self._all)

    def _add_taps(
        self, sums: Sequence[torch.Tensor], total: torch.Tensor, taps: Sequence[range]
    ) -> None:
        down, across = taps
        into = total[self._pieces[0]].view(self._shape).permute(0, 2, 3, 1)
        into = into[:, down.start : down.stop, across.start : across.stop]
        found = sums[0].view(into.shape)
        if taps == self._all:
            into += found
        else:  # each of a few taps is quicker by itself
            for at in np.ndindex(len(down), len(across)):
                into[:, *at] += found[:, *at]
        for piece, part in zip(self._pieces[1:], sums[1:], strict=True):
            total[piece] += part

    def _places(self, a: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, g = _image(a), _image(g)
        edges = _edges(self.axes, self._taps, a.shape[2:], g.shape[2:])
        patches = functional.pad(a, edges) if any(edges) else a
        for dim, (axis, taps) in enumerate(zip(self.axes, self._taps, strict=True), start=2):
            patches = patches.unfold(dim, len(taps), axis[1])
        patches = patches.permute(0, 2, 3, 4, 5, 1)
        if not patches.is_contiguous():
            patches = self.rooms.take("patches", patches.shape, a.dtype).copy_(patches)
        return patches.flatten(3).flatten(1, 2), g.permute(0, 2, 3, 1).flatten(1, 2)


def convolve(layer: nn.Conv2d, rule: ConvRule, images: torch.Tensor) -> torch.Tensor:
    """Apply a layer as fast as its images' size allows.

    Over few places torch is quicker where a channel's pixels lie together; and a kernel of which hardly a tap meets
    more than padding is cut to the others.
    """
    if images.dim() != 4:
        return nn.Conv2d.forward(layer, images)
    axes = list(zip(rule.axes, images.shape[2:], strict=True))
    written = [(read + 2 * pad - size) // step + 1 for (size, step, pad), read in axes]
    if math.prod(written) > _FEW_PLACES:
        return nn.Conv2d.forward(layer, images)
    images = images.contiguous()
    taps = [_live(*axis, read, to) for (axis, read), to in zip(axes, written, strict=True)]
    if _MOST_DEAD * math.prod(map(len, taps)) > math.prod(layer.kernel_size):
        return nn.Conv2d.forward(layer, images)
    down, across = taps
    edges = _edges(rule.axes, taps, images.shape[2:], written)
    weight = layer.weight[:, :, down.start : down.stop, across.start : across.stop]
    padded = functional.pad(images, edges) if any(edges) else images
    return functional.conv2d(padded, weight.contiguous(), layer.bias, layer.stride)


def _edges(
    axes: Sequence[tuple[int, int, int]],
    taps: Sequence[range],
    read: Sequence[int],
    written: Sequence[int],
) -> list[int]:
    """What the taps read beyond an image, as ``functional.pad`` wants it; below 0 what they leave out."""
    edges: list[int] = []
    for (_, step, pad), live, size, to in zip(axes, taps, read, written, strict=True):
        before = pad - live.start
        after = (to - 1) * step + len(live) - size - before
        if after < -size:  # the last place ends before the image begins
            before, after = before + size + after, -size
        edges = [before, after, *edges]
    return edges


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


def _met(stride: int, before: int, read: int, written: int) -> tuple[int, int]:
    """From which to which place of an axis a tap lies on the image, which begins ``before`` it at the first."""
    first = max(0, -(-before // stride))
    return first, max(first, min(written, -(-(before + read) // stride)))


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


class Part(Products):
    """One of the two products of a layer of a recurrent cell."""

    def __init__(self, sizes: Sequence[int], starts: Sequence[int]) -> None:
        Rule.__init__(self, sizes, starts)
        self._bias = True
        self._overlap = 1
