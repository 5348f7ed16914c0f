"""The models that ``benchmarks.dp_speed`` trains, and random rows for them."""

from __future__ import annotations

import torch
from opacus.layers import DPGRU
from torch import nn
from torch.nn import functional

from ledger.experiment.network_spec import LogisticRegression, Mlp, Sequential, expand
from node.training.networks.modules import build

FEATURES = 13


class Recurrent(nn.Module):
    """A GRU over 24 steps of 16 numbers, read at its end."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell = kind(16, 32, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, 24, 16] to [n, 2]."""
        outputs, _ = self.cell(rows)
        scores: torch.Tensor = self.head(outputs[:, -1])
        return scores


class Residual(nn.Module):
    """ResNet's basic block with group norms."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(32, outer)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(32, outer)
        self.aside = nn.Sequential()
        if stride != 1 or inner != outer:
            self.aside = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.GroupNorm(32, outer)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, inner, h, w] to [n, outer, h / stride, w / stride]."""
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(y)) + self.aside(x))


def network(model: str, opacus: bool) -> nn.Module:
    """A model by name; for Opacus, its own recurrent layer."""
    torch.manual_seed(0)
    if model == "cnn":  # the network of Opacus' MNIST example
        return nn.Sequential(
            nn.Conv2d(1, 16, 8, 2, padding=3),
            nn.ReLU(),
            nn.MaxPool2d(2, 1),
            nn.Conv2d(16, 32, 4, 2),
            nn.ReLU(),
            nn.MaxPool2d(2, 1),
            nn.Flatten(),
            nn.Linear(512, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )
    if model == "gru":
        return Recurrent(DPGRU if opacus else nn.GRU)
    if model == "resnet18-gn":
        widths = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        blocks = [
            block
            for inner, outer, stride in widths
            for block in (Residual(inner, outer, stride), Residual(outer, outer, 1))
        ]
        return nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.GroupNorm(32, 64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
    layers: list[nn.Module] = []
    for layer in build(tree(model)):
        linear = isinstance(layer, nn.Linear)
        layers.append(nn.Linear(layer.in_features, layer.out_features) if linear else layer)
    return nn.Sequential(*layers)


def tree(model: str) -> Sequential:
    """A tabular model as a spec names it."""
    if model == "mlp":
        return expand(Mlp(preset="mlp", hidden=(64, 64), activation="relu"), FEATURES, 1)
    return expand(LogisticRegression(preset="logistic-regression"), FEATURES, 1)


def rows_of(model: str, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs and targets of a model."""
    draw = torch.Generator().manual_seed(1)
    shapes = {"cnn": (1, 28, 28), "gru": (24, 16), "resnet18-gn": (3, 32, 32)}
    inputs = torch.randn((rows, *shapes.get(model, (FEATURES,))), generator=draw)
    if model in shapes:
        return inputs, torch.randint(0, 2, (rows,), generator=draw)
    return inputs, torch.randint(0, 2, (rows,), generator=draw).float()
