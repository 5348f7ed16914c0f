"""Convolutions and group norms of images: torch's numbers, whichever way their shapes choose."""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest
import torch
from torch import nn

from node.training.layers import products
from node.training.layers.group_norms import group_norm
from node.training.layers.products import ConvRule, convolve
from node.training.layers.rooms import Rooms
from node.training.rounds.train import start_torch
from node.training.sums import bookkeeping
from node.training.sums.bookkeeping import clipped_sum_of
from tests.node.training.test_bookkeeping import case, loss

start_torch()
SHAPES = {  # kernel, stride, padding, image; what the last step of its sum is
    "one place, one tap": (3, 1, 1, (1, 1), "one product"),
    "one place, four taps": (3, 2, 1, (2, 2), "one product"),
    "four places": (3, 1, 1, (2, 2), "tap by tap"),
    "a flat image": ((3, 5), 1, (1, 2), (1, 3), "one product"),
    "an image that no tap meets": (1, (5, 1), (2, 0), (1, 9), "tap by tap"),
    "a kernel wider than images": ((5, 3), (3, 2), (2, 1), (3, 2), "one product"),
    "sixteen places": (3, 1, 1, (4, 4), "one product"),
    "many places": (3, 2, 0, (15, 11), "one product"),
}


def layer_and_images(name: str, bias: bool) -> tuple[nn.Conv2d, torch.Tensor, str]:
    kernel, stride, padding, size, way = SHAPES[name]
    torch.manual_seed(1)
    layer = nn.Conv2d(5, 7, kernel, stride, padding, bias=bias)  # type: ignore[arg-type]
    images = torch.randn(6, 5, *size)  # type: ignore[misc]
    return layer, images.contiguous(memory_format=torch.channels_last), way


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_a_convolution_gives_torchs_outputs_and_gradients(name: str, bias: bool) -> None:
    layer, images, _ = layer_and_images(name, bias)
    rule = ConvRule(layer, [0, layer.weight.numel()][: 1 + bias])
    found = []
    for apply in (layer, lambda read: convolve(layer, rule, read)):
        read = images.clone().requires_grad_()
        outputs = apply(read)
        outputs.sin().sum().backward()
        found.append((outputs.detach(), read.grad))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_norms_and_sums_of_a_convolution_are_those_of_its_rows_gradients_in_every_way(
    name: str, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, images, way = layer_and_images(name, bias)
    size = sum(p.numel() for p in layer.parameters())
    rule = ConvRule(layer, [0, layer.weight.numel()][: 1 + bias])
    given = torch.randn_like(layer(images)).detach()
    rows = []
    for image, gradient in zip(images, given, strict=True):
        asked = torch.autograd.grad(layer(image[None]), list(layer.parameters()), gradient[None])
        rows.append(torch.cat([piece.flatten() for piece in asked]).double())
    wanted, factors = torch.stack(rows), torch.rand(len(images), dtype=torch.float64)
    ways = []
    taken = ConvRule._add_tap_by_tap
    monkeypatch.setattr(
        ConvRule, "_add_tap_by_tap", lambda *of: ways.append("tap by tap") or taken(*of)
    )
    with torch.no_grad():
        prepared = rule.prepare(images, given)
        torch.testing.assert_close(
            rule.squares(*prepared), wanted.square().sum(dim=1), rtol=1e-5, atol=1e-5
        )
        total = torch.zeros(size, dtype=torch.float64)
        rule.add_weighted(*prepared, factors, total)
        torch.testing.assert_close(total, factors @ wanted, rtol=1e-5, atol=1e-5)
        assert ways == ["tap by tap"] * (way == "tap by tap")
        squares = rule.unit_squares(*prepared, [1, 3, 2])
        units = torch.stack([part.sum(dim=0) for part in wanted.split([1, 3, 2])])
        torch.testing.assert_close(squares, units.square().sum(dim=1), rtol=1e-5, atol=1e-5)
        kept = torch.zeros(size, dtype=torch.float64)
        rule.add([factors @ piece.double() for piece in rule.vectors(images, given)], kept)
        torch.testing.assert_close(kept, factors @ wanted, rtol=1e-5, atol=1e-5)


def test_few_places_have_norms_from_places_and_many_from_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    formed = []
    true = products._product

    def product(a: torch.Tensor, b: torch.Tensor, into: Any = None) -> torch.Tensor:
        result = true(a, b, into)
        formed.append(math.prod(result.shape[1:]))
        return result

    monkeypatch.setattr(products, "_product", product)
    for size, most in (((2, 2), 4 * 4), ((15, 11), 5 * 9 * 7)):
        formed.clear()
        layer, images = nn.Conv2d(5, 7, 3, padding=1), torch.randn(6, 5, *size)
        rule = ConvRule(layer, [0, layer.weight.numel()])
        rule.squares(*rule.prepare(images, torch.randn(6, 7, *size)))
        assert max(formed) == most


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 8)])
def test_a_group_norm_gives_torchs_outputs_and_each_rows_gradients(
    size: tuple[int, int], mean: float, groups: int
) -> None:
    torch.manual_seed(2)
    layer = nn.GroupNorm(groups, 12)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    images = torch.randn(5, 12, *size) + mean
    told: list[torch.Tensor] = []
    ours = images.clone().requires_grad_()
    outputs = group_norm(layer, ours, lambda *of: told.extend(of), Rooms())
    outputs.sin().sum().backward()
    theirs = images.double().requires_grad_()
    exact = nn.GroupNorm(groups, 12).double()
    exact.load_state_dict(layer.state_dict())
    near = {"rtol": 1e-4, "atol": 1e-4 if mean == 0.0 else 3e-3}
    wanted = exact(theirs)
    torch.testing.assert_close(outputs.double(), wanted, **near)
    wanted.sin().sum().backward()
    torch.testing.assert_close(ours.grad.double(), theirs.grad, **near)  # type: ignore[union-attr]
    for row in range(5):
        exact.zero_grad()
        exact(images[row : row + 1].double()).sin().sum().backward()
        for found, parameter in zip(told, exact.parameters(), strict=True):
            torch.testing.assert_close(found[row].double(), parameter.grad, **near)


class Written(nn.Module):
    """Writes over what its layers give, as residual networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)])
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = self.layers[0](images)
        second = self.norm(self.layers[1](first).mul_(2.0).relu_())
        second += first
        return second.relu_().sum(dim=(1, 2, 3))


def test_what_is_written_over_a_layers_output_does_not_change_its_gradient() -> None:
    torch.manual_seed(4)
    module, images, targets = Written(), torch.randn(5, 3, 6, 6), torch.zeros(5)

    def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.sin() - targets

    engine = clipped_sum_of(module, losses, images)
    assert engine.path == "book-keeping"
    found = engine.float_sum(images, targets, 1e6)
    asked = torch.autograd.grad(losses(module(images), targets).sum(), list(module.parameters()))
    wanted = torch.cat([piece.flatten() for piece in asked]).double()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["conv2d over few places", "two layers of gru"])
def test_a_pass_is_forgotten_when_it_is_done(name: str) -> None:
    module, inputs, targets = case(name, 20)
    engine = clipped_sum_of(module, loss, inputs)
    alive = []
    for _ in range(3):
        engine.float_sum(inputs, targets, 0.5)
        gc.collect()
        alive.append(sum(type(one) is torch.Tensor for one in gc.get_objects()))
    assert alive[1] == alive[2]


def test_a_sum_too_large_for_the_short_way_to_the_grid_is_rounded_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from node.training.sums import noisy_sum

    module, inputs, targets = case("conv2d over few places", 20)
    engine = bookkeeping.clipped_sum_of(module, loss, inputs)
    found = []
    for whole in (noisy_sum._WHOLE, 1.0):
        monkeypatch.setattr(noisy_sum, "_WHOLE", whole)
        found.append(noisy_sum.clipped_sum(engine, inputs, targets, 2**22, most_patients=20))
    assert found[0].any()
    assert (found[0] == found[1]).all()
