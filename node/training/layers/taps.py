"""What every layer reads and what gradient its outputs get, caught while a module runs.

Promise: after the ``with`` block the module is as before: no hooks, the same parameters asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from node.training.layers.group_norms import group_norm
from node.training.layers.products import ConvRule, convolve
from node.training.layers.recurrent import UnrolledGRU
from node.training.layers.rooms import Rooms
from node.training.layers.rule import Rule


class Taps:
    """While open, every ruled layer's inputs and outputs are caught, and only they need gradients."""

    def __init__(self, rules: dict[nn.Module, Rule]) -> None:
        self._rules = rules
        self._asked: list[tuple[torch.Tensor, bool]] = []
        self._hooks: list[Any] = []
        self._taken_over: list[nn.Module] = []
        self.caught: list[tuple[Rule, torch.Tensor | None, torch.Tensor]] = []
        self.edges: list[GradientEdge] = []
        self.seen: list[tuple[Rule, torch.Tensor, torch.Tensor]] = []

    def __enter__(self) -> Taps:
        for layer, rule in self._rules.items():
            for parameter in layer.parameters(recurse=False):
                self._asked.append((parameter, parameter.requires_grad))
                parameter.requires_grad_(False)
            if isinstance(layer, UnrolledGRU):
                layer.watch = _Watch(rule, self)
            elif "forward" in layer.__dict__:  # somebody else's
                self._hooks.append(layer.register_forward_hook(self._hook(rule)))
            elif type(layer) is nn.GroupNorm:
                self._take_over(layer, self._group_norm(layer, rule))
            elif type(layer) is nn.Conv2d and isinstance(rule, ConvRule):
                self._take_over(layer, self._convolution(layer, rule))
            else:
                self._hooks.append(layer.register_forward_hook(self._hook(rule)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for layer in self._rules:
            if isinstance(layer, UnrolledGRU):
                layer.watch = None
        for layer in self._taken_over:
            del layer.__dict__["forward"]
        for parameter, asked in self._asked:
            parameter.requires_grad_(asked)

    def _hook(self, rule: Rule) -> Callable[..., torch.Tensor]:
        def caught(
            module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> torch.Tensor:
            return self._catch(rule, inputs[0], output)

        return caught

    def _catch(self, rule: Rule, read: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        if output.dim() == 4:
            output = output.contiguous(memory_format=torch.channels_last)
        output = output if output.requires_grad else output.requires_grad_()
        self.catch(rule, read, output)
        return output

    def catch(self, rule: Rule, read: torch.Tensor | None, output: torch.Tensor) -> None:
        """Ask for the gradient of an output as it is now, whatever is written over it later."""
        self.caught.append((rule, read, output))
        self.edges.append(get_gradient_edge(output))

    def _take_over(self, layer: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
        layer.__dict__["forward"] = forward
        self._taken_over.append(layer)

    def _group_norm(
        self, layer: nn.GroupNorm, rule: Rule
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Of images on the way back to a layer; others go through torch's."""

        def told(by_scale: torch.Tensor, by_shift: torch.Tensor) -> None:
            self.seen.append((rule.part(0), by_scale, by_shift))

        def forward(read: torch.Tensor) -> torch.Tensor:
            if read.dim() == 4 and read.requires_grad:
                return group_norm(layer, read, told, rule.rooms)
            return self._catch(rule, read, nn.GroupNorm.forward(layer, read))

        return forward

    def _convolution(
        self, layer: nn.Conv2d, rule: ConvRule
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(read: torch.Tensor) -> torch.Tensor:
            return self._catch(rule, read, convolve(layer, rule, read))

        return forward


class _Watch:
    """What a recurrent layer says while taps are open."""

    def __init__(self, rule: Rule, taps: Taps) -> None:
        self._rule = rule
        self._taps = taps

    def ask(self, state: torch.Tensor) -> None:
        self._taps.catch(self._rule, None, state)

    def tell(self, part: int, a: torch.Tensor, g: torch.Tensor) -> None:
        self._taps.seen.append((self._rule.part(part), a, g))

    def rooms(self, part: int) -> Rooms:
        return self._rule.part(part).rooms
