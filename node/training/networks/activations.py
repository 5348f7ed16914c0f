"""The activations that a spec may name, as torch's modules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import nn

ACTIVATIONS: Final[Mapping[str, type[nn.Module]]] = MappingProxyType(
    {
        "torch.nn.ReLU": nn.ReLU,
        "torch.nn.Tanh": nn.Tanh,
        "torch.nn.Sigmoid": nn.Sigmoid,
        "torch.nn.GELU": nn.GELU,
        "torch.nn.SiLU": nn.SiLU,
        "torch.nn.ELU": nn.ELU,
        "torch.nn.Softplus": nn.Softplus,
    }
)
