"""A GRU as single products, so that each step's states and output gradients can be seen.

``unroll`` replaces ``torch.nn.GRU`` inside a module by ``UnrolledGRU``, which shares its parameters and
computes the same: r, z = sigmoid(...), n = tanh(W x + r (U h)), h = (1 - z) n + z h. Its backward pass
is written out, which keeps the gradient of every step's U h, that autograd would throw away.

Promise: the same outputs and gradients to float32 rounding. Not promised: GRUs of two directions, without
biases or with dropout between layers; they are left alone.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional


class Watch(Protocol):
    """Who wants to see a layer's gradients."""

    def ask(self, products: torch.Tensor) -> None:
        """Take note of a tensor whose gradient must be asked for, so that the layer is passed."""

    def tell(self, part: int, a: torch.Tensor, g: torch.Tensor) -> None:
        """Hear a part's inputs [n, steps, in] and output gradients [n, steps, out]."""


class UnrolledGRU(nn.Module):
    """A GRU over its own time steps.

    Args:
        source: whose parameters are shared.
    """

    def __init__(self, source: nn.GRU) -> None:
        super().__init__()
        self._batch_first = source.batch_first
        self._layers = source.num_layers
        self._width = source.hidden_size
        self.watch: Watch | None = None
        for name, parameter in source.named_parameters():
            self.register_parameter(name, parameter)

    def forward(
        self, inputs: torch.Tensor, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``torch.nn.GRU``: outputs [n, t, width] and last states [layers, n, width]."""
        sequence = inputs.transpose(0, 1) if self._batch_first else inputs
        last = []
        for layer in range(self._layers):
            start = None if state is None else state[layer]
            sequence = self._layer(layer, sequence, start)
            last.append(sequence[-1])
        outputs = sequence.transpose(0, 1) if self._batch_first else sequence
        return outputs, torch.stack(last)

    def _layer(self, layer: int, inputs: torch.Tensor, state: torch.Tensor | None) -> torch.Tensor:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weight_x, weight_h, bias_x, bias_h = (getattr(self, f"{n}_l{layer}") for n in names)
        h = inputs.new_zeros((inputs.shape[1], self._width)) if state is None else state
        from_inputs = functional.linear(inputs, weight_x, bias_x)
        seen = None
        if self.watch is not None:
            watch, kept = self.watch, inputs.detach()
            if not from_inputs.requires_grad:
                from_inputs.requires_grad_()
            watch.ask(from_inputs)

            def seen(states: torch.Tensor, by_x: torch.Tensor, by_h: torch.Tensor) -> None:
                watch.tell(2 * layer, kept.transpose(0, 1), by_x.transpose(0, 1))
                watch.tell(2 * layer + 1, states.transpose(0, 1), by_h.transpose(0, 1))

        apply = _Steps.apply
        result: torch.Tensor = apply(from_inputs, weight_h, bias_h, h, seen)  # type: ignore[no-untyped-call]
        return result


class _Steps(torch.autograd.Function):
    """From W x of all steps [t, n, 3 width], U and the first state to all states [t, n, width]."""

    @staticmethod
    def forward(
        ctx: Any,
        from_inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        state: torch.Tensor,
        seen: Any,
    ) -> torch.Tensor:
        width = weight.shape[1]
        steps, rows = from_inputs.shape[:2]
        gates = from_inputs.new_empty((steps, rows, 2 * width))
        products = from_inputs.new_empty((steps, rows, 3 * width))
        new = from_inputs.new_empty((steps, rows, width))
        states = from_inputs.new_empty((steps + 1, rows, width))
        states[0] = state
        turned = weight.t()
        for t in range(steps):
            x, h = from_inputs[t], states[t]
            product = torch.addmm(bias, h, turned, out=products[t])
            torch.add(x[:, : 2 * width], product[:, : 2 * width], out=gates[t]).sigmoid_()
            reset, update = gates[t, :, :width], gates[t, :, width:]
            torch.addcmul(x[:, 2 * width :], reset, product[:, 2 * width :], out=new[t]).tanh_()
            torch.lerp(new[t], h, update, out=states[t + 1])
        ctx.save_for_backward(weight, gates, products[:, :, 2 * width :], new, states)
        ctx.seen = seen
        return states[1:].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, gates, inner, new, states = ctx.saved_tensors
        width = weight.shape[1]
        reset, update = gates[:, :, :width], gates[:, :, width:]
        before = states[:-1]
        # What a step's gradient is multiplied by, for all steps at once.
        to_new = (1.0 - update) * (1.0 - new * new)
        to_update = (before - new) * update * (1.0 - update)
        to_reset = to_new * inner * reset * (1.0 - reset)
        to_inner = to_new * reset
        by_h = new.new_empty((*new.shape[:2], 3 * width))
        by_new = torch.empty_like(new)
        carried = torch.zeros_like(new[0])
        for t in range(len(new) - 1, -1, -1):
            whole = gradients[0][t] + carried
            torch.mul(whole, to_reset[t], out=by_h[t, :, :width])
            torch.mul(whole, to_update[t], out=by_h[t, :, width : 2 * width])
            torch.mul(whole, to_inner[t], out=by_h[t, :, 2 * width :])
            torch.mul(whole, to_new[t], out=by_new[t])
            carried = torch.addmm(whole * update[t], by_h[t], weight)
        by_x = by_h.clone()
        by_x[:, :, 2 * width :] = by_new
        if ctx.seen is not None:
            ctx.seen(before, by_x, by_h)
        by_weight = by_bias = None
        if ctx.needs_input_grad[1]:
            flat = by_h.flatten(0, 1)
            by_weight, by_bias = flat.t() @ before.flatten(0, 1), flat.sum(dim=0)
        return by_x, by_weight, by_bias, carried, None


def unroll(module: nn.Module) -> None:
    """Replace every GRU that can be, in place."""
    for name, child in list(module.named_children()):
        if type(child) is nn.GRU:
            if child.bias and not child.bidirectional and child.dropout == 0.0:
                setattr(module, name, UnrolledGRU(child))
        else:
            unroll(child)
