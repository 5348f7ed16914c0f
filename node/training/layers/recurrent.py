"""A GRU as single products, so that each step's states and output gradients can be seen.

``unroll`` replaces ``torch.nn.GRU`` inside a module by ``UnrolledGRU``, which shares its parameters and
computes the same: r, z = sigmoid(...), n = tanh(W x + r (U h)), h = (1 - z) n + z h. Its backward pass
is written out, which keeps the gradient of every step's U h, that autograd would throw away. While
somebody watches, all that a pass writes lies in the watcher's rooms: the same memory at every step.

Promise: the same outputs and gradients to float32 rounding. Not promised: GRUs of two directions, without
biases or with dropout between layers; they are left alone. A watched pass forward is followed by its pass
backward before the next one.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from node.training.layers.rooms import Rooms

_aten = torch.ops.aten


class Watch(Protocol):
    """Who wants to see a layer's gradients."""

    def ask(self, state: torch.Tensor) -> None:
        """Take note of a tensor whose gradient must be asked for, so that the layer is passed."""

    def tell(self, part: int, a: torch.Tensor, g: torch.Tensor) -> None:
        """Hear a part's inputs [n, steps, in] and output gradients [n, steps, out]."""

    def rooms(self, part: int) -> Rooms:
        """Say where a part's passes may write."""
        ...


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
        weights = [getattr(self, f"{name}_l{layer}") for name in names]
        h = inputs.new_zeros((inputs.shape[1], self._width)) if state is None else state
        seen, rooms = None, Rooms()
        if self.watch is not None:
            watch = self.watch
            rooms = watch.rooms(2 * layer)
            watch.ask(h if h.requires_grad else h.requires_grad_())

            def seen(
                read: torch.Tensor, states: torch.Tensor, by_x: torch.Tensor, by_h: torch.Tensor
            ) -> None:
                watch.tell(2 * layer, read.transpose(0, 1), by_x.transpose(0, 1))
                watch.tell(2 * layer + 1, states.transpose(0, 1), by_h.transpose(0, 1))

        apply = _Steps.apply
        result: torch.Tensor = apply(inputs, *weights, h, seen, rooms)  # type: ignore[no-untyped-call]
        return result


class _Steps(torch.autograd.Function):
    """From inputs [t, n, in], weights and the first state to all states [t, n, width]."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight_x: torch.Tensor,
        weight_h: torch.Tensor,
        bias_x: torch.Tensor,
        bias_h: torch.Tensor,
        state: torch.Tensor,
        seen: Any,
        rooms: Rooms,
    ) -> torch.Tensor:
        steps, rows, width = len(inputs), inputs.shape[1], weight_h.shape[1]

        def room(name: str, *shape: int) -> torch.Tensor:
            return rooms.take(name, shape, inputs.dtype)

        read = room("inputs", *inputs.shape).copy_(inputs)
        from_inputs = room("from inputs", steps, rows, 3 * width)
        torch.addmm(bias_x, read.flatten(0, 1), weight_x.t(), out=from_inputs.view(-1, 3 * width))
        products = room("products", steps, rows, 3 * width)
        gates = room("gates", steps, rows, 2 * width)
        new = room("new", steps, rows, width)
        states = room("states", steps + 1, rows, width)
        states[0] = state
        turned = weight_h.t()
        for t in range(steps):
            x, h = from_inputs[t], states[t]
            product = torch.addmm(bias_h, h, turned, out=products[t])
            torch.add(x[:, : 2 * width], product[:, : 2 * width], out=gates[t]).sigmoid_()
            reset, update = gates[t, :, :width], gates[t, :, width:]
            torch.addcmul(x[:, 2 * width :], reset, product[:, 2 * width :], out=new[t]).tanh_()
            torch.lerp(new[t], h, update, out=states[t + 1])
        ctx.weights = weight_x, weight_h
        ctx.kept = read, gates, products, new, states
        ctx.seen, ctx.rooms = seen, rooms
        return room("outputs", steps, rows, width).copy_(states[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight_h = ctx.weights[1]
        read, gates, products, new, states = ctx.kept
        steps, rows, width = new.shape

        def room(name: str, *shape: int) -> torch.Tensor:
            return ctx.rooms.take(name, shape, new.dtype)  # type: ignore[no-any-return]

        by_h = room("by h", steps, rows, 3 * width)
        by_x = room("by x", steps, rows, 3 * width)
        whole, by_new, carried = room("step", 3, rows, width)
        by_gates = room("by gates", rows, 2 * width)
        by_reset, by_update = by_gates[:, :width], by_gates[:, width:]
        carried.zero_()
        for t in range(steps - 1, -1, -1):
            reset, update = gates[t, :, :width], gates[t, :, width:]
            torch.add(gradients[0][t], carried, out=whole)
            torch.addcmul(whole, whole, update, value=-1.0, out=by_new)
            onto_new = by_x[t, :, 2 * width :]
            _aten.tanh_backward.grad_input(by_new, new[t], grad_input=onto_new)
            torch.mul(onto_new, reset, out=by_h[t, :, 2 * width :])
            torch.mul(onto_new, products[t, :, 2 * width :], out=by_reset)
            torch.sub(states[t], new[t], out=by_update).mul_(whole)
            onto_gates = by_h[t, :, : 2 * width]
            _aten.sigmoid_backward.grad_input(by_gates, gates[t], grad_input=onto_gates)
            by_x[t, :, : 2 * width] = onto_gates
            torch.mul(whole, update, out=carried).addmm_(by_h[t], weight_h)
        before = states[:-1]
        if ctx.seen is not None:
            ctx.seen(read, before, by_x, by_h)
        return (*_gradients(ctx, read, before, by_x, by_h), carried, None, None)


def _gradients(
    ctx: Any, read: torch.Tensor, states: torch.Tensor, by_x: torch.Tensor, by_h: torch.Tensor
) -> list[torch.Tensor | None]:
    """Of inputs, weights and biases, in the order of ``_Steps.forward``: those that are asked for."""
    x, h = by_x.flatten(0, 1), by_h.flatten(0, 1)
    asked: tuple[bool, ...] = ctx.needs_input_grad
    return [
        (x @ ctx.weights[0]).view(read.shape) if asked[0] else None,
        x.t() @ read.flatten(0, 1) if asked[1] else None,
        h.t() @ states.flatten(0, 1) if asked[2] else None,
        x.sum(dim=0) if asked[3] else None,
        h.sum(dim=0) if asked[4] else None,
    ]


def unroll(module: nn.Module) -> None:
    """Replace every GRU that can be, in place."""
    for name, child in list(module.named_children()):
        if type(child) is nn.GRU:
            if child.bias and not child.bidirectional and child.dropout == 0.0:
                setattr(module, name, UnrolledGRU(child))
        else:
            unroll(child)
