"""Group norms of images whose channels lie together in memory, and each row's gradient of scale and shift by the way.

Backward, torch adds the rows' gradients of scale and shift, and its kernels for this layout take several times as
long as those for the other. Here both are sums over a row's places, which the gradient of the inputs needs
anyway: ``told`` hears of them, so nothing is normalised a second time.

Promise: outputs and gradients as ``torch.nn.functional.group_norm``'s but for rounding; a row's depend on that row
alone. What is kept between forward and backward lies in ``rooms``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from node.training.layers.rooms import Rooms

Told = Callable[[torch.Tensor, torch.Tensor], None]
"""Hears of each row's gradients of scale and shift, [n, channels] each."""


def group_norm(layer: nn.GroupNorm, images: torch.Tensor, told: Told, rooms: Rooms) -> torch.Tensor:
    """Apply a layer to images [n, channels, h, w]; gives the same shape, channels together in memory."""
    apply = _GroupNorm.apply
    images = images.contiguous(memory_format=torch.channels_last)
    result: torch.Tensor = apply(images, layer.weight, layer.bias, layer, told, rooms)  # type: ignore[no-untyped-call]
    return result


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        scale: torch.Tensor,
        shift: torch.Tensor,
        layer: nn.GroupNorm,
        told: Told,
        rooms: Rooms,
    ) -> torch.Tensor:
        values = _lines(images)
        groups = layer.num_groups
        centred = rooms.take("centred", values.shape, values.dtype)
        squares = rooms.take("products", values.shape, values.dtype)
        torch.sub(values, _over_groups(values.sum(dim=1), groups, values.shape[1]), out=centred)
        torch.mul(centred, centred, out=squares)
        spread = _over_groups(squares.sum(dim=1), groups, values.shape[1])
        inverse = spread.add_(layer.eps).rsqrt_()
        ctx.kept = centred, inverse, scale
        ctx.groups, ctx.told, ctx.rooms = groups, told, rooms
        # No view of anything: who comes next may write over it.
        result = torch.empty(images.shape, dtype=values.dtype, memory_format=torch.channels_last)
        lines = result.permute(0, 2, 3, 1).view(values.shape)
        torch.addcmul(shift, centred, inverse * scale, out=lines)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        centred, inverse, scale = ctx.kept
        given = _lines(gradients[0].contiguous(memory_format=torch.channels_last))
        places = given.shape[1]
        products = ctx.rooms.take("products", given.shape, given.dtype)
        by_scale = torch.mul(given, centred, out=products).sum(dim=1).mul_(inverse[:, 0])
        by_shift = given.sum(dim=1)
        ctx.told(by_scale, by_shift)
        # The inputs' gradient is inverse * (scale * given - its group's mean - normal * the mean of normal * it).
        mean = _over_groups(by_shift * scale, ctx.groups, places).mul_(inverse).neg_()
        slope = (
            _over_groups(by_scale * scale, ctx.groups, places).mul_(inverse).mul_(inverse).neg_()
        )
        result = torch.addcmul(mean, centred, slope).addcmul_(given, inverse * scale)
        return (_images(result, gradients[0].shape), None, None, None, None, None)


def _over_groups(sums: torch.Tensor, groups: int, places: int) -> torch.Tensor:
    """Means over groups of channels, of sums over places [n, channels]; [n, 1, channels]."""
    rows, channels = sums.shape
    within = channels // groups
    means = sums.view(rows, groups, within).sum(dim=2, keepdim=True).div_(places * within)
    return means.repeat(1, 1, within).view(rows, 1, channels)  # written to by who asked


def _lines(images: torch.Tensor) -> torch.Tensor:
    """[n, channels, h, w] as [n, places, channels], in the same memory."""
    return images.permute(0, 2, 3, 1).flatten(1, 2)


def _images(lines: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Back again."""
    rows, channels, down, across = shape
    return lines.view(rows, down, across, channels).permute(0, 3, 1, 2)
