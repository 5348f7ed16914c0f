"""What every layer reads and what gradient its outputs get, caught while a module runs.

Promise: after the ``with`` block the module is as before: no hooks, the same parameters asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from node.training.layers.recurrent import UnrolledGRU
from node.training.layers.rooms import Rooms
from node.training.layers.rules import Rule


class Taps:
    """While open, every ruled layer's inputs and outputs are caught, and only they need gradients."""

    def __init__(self, rules: dict[nn.Module, Rule]) -> None:
        self._rules = rules
        self._asked: list[tuple[torch.Tensor, bool]] = []
        self._hooks: list[Any] = []
        self.caught: list[tuple[Rule, torch.Tensor | None, torch.Tensor]] = []
        self.seen: list[tuple[Rule, torch.Tensor, torch.Tensor]] = []

    def __enter__(self) -> Taps:
        for layer, rule in self._rules.items():
            for parameter in layer.parameters(recurse=False):
                self._asked.append((parameter, parameter.requires_grad))
                parameter.requires_grad_(False)
            if isinstance(layer, UnrolledGRU):
                layer.watch = _Watch(rule, self)
            else:
                self._hooks.append(layer.register_forward_hook(self._hook(rule)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for layer in self._rules:
            if isinstance(layer, UnrolledGRU):
                layer.watch = None
        for parameter, asked in self._asked:
            parameter.requires_grad_(asked)

    def _hook(self, rule: Rule) -> Callable[..., torch.Tensor]:
        def caught(
            module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> Any:
            if output.dim() == 4:
                output = output.contiguous(memory_format=torch.channels_last)
            output = output if output.requires_grad else output.requires_grad_()
            self.caught.append((rule, inputs[0], output))
            return output

        return caught


class _Watch:
    """What a recurrent layer says while taps are open."""

    def __init__(self, rule: Rule, taps: Taps) -> None:
        self._rule = rule
        self._taps = taps

    def ask(self, state: torch.Tensor) -> None:
        self._taps.caught.append((self._rule, None, state))

    def tell(self, part: int, a: torch.Tensor, g: torch.Tensor) -> None:
        self._taps.seen.append((self._rule.part(part), a, g))

    def rooms(self, part: int) -> Rooms:
        return self._rule.part(part).rooms
