"""What happens to every number alone: activations, their slopes, and the slope of each task's loss.

All write into tensors that stand already, float32 or float64. Each number's result depends on that
number, and on its row's others in a softmax, whatever the rest holds; ``DenseSum`` checks that on the
machine with everything else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ledger.experiment.spec import BinaryTask, MulticlassTask, RegressionTask

Task = BinaryTask | MulticlassTask | RegressionTask
LossSlope = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Outputs [k, n], targets [n], and where to write the derivative of each row's loss: [k, n]."""
Forward = Callable[[torch.Tensor, torch.Tensor], None]
"""Values and where to write the results."""
Backward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Values, results, and the results' gradient, which becomes that of the values."""

_aten = torch.ops.aten


def loss_slope(task: Task) -> LossSlope:
    """Give the derivative of a task's loss by a row's outputs."""
    if isinstance(task, BinaryTask):
        return _binary
    if isinstance(task, MulticlassTask):
        return _multiclass
    return _squared


def _binary(outputs: torch.Tensor, targets: torch.Tensor, into: torch.Tensor) -> None:
    torch.sigmoid(outputs, out=into)
    into.sub_(targets)


def _multiclass(outputs: torch.Tensor, targets: torch.Tensor, into: torch.Tensor) -> None:
    torch.sub(outputs, outputs.amax(dim=0), out=into)
    into.exp_()
    total = into[0].clone()
    for row in into[1:]:
        total += row
    into /= total
    into[targets, torch.arange(len(targets))] -= 1.0


def _squared(outputs: torch.Tensor, targets: torch.Tensor, into: torch.Tensor) -> None:
    torch.sub(outputs, targets, out=into)
    into *= 2.0


def _relu(z: torch.Tensor, y: torch.Tensor) -> None:
    torch.clamp_min(z, 0.0, out=y)


def _relu_back(z: torch.Tensor, y: torch.Tensor, g: torch.Tensor) -> None:
    _aten.threshold_backward.grad_input(g, y, 0.0, grad_input=g)


def _tanh(z: torch.Tensor, y: torch.Tensor) -> None:
    torch.tanh(z, out=y)


def _tanh_back(z: torch.Tensor, y: torch.Tensor, g: torch.Tensor) -> None:
    _aten.tanh_backward.grad_input(g, y, grad_input=g)


def _sigmoid(z: torch.Tensor, y: torch.Tensor) -> None:
    torch.sigmoid(z, out=y)


def _sigmoid_back(z: torch.Tensor, y: torch.Tensor, g: torch.Tensor) -> None:
    _aten.sigmoid_backward.grad_input(g, y, grad_input=g)


def _gelu(z: torch.Tensor, y: torch.Tensor) -> None:
    _aten.gelu.out(z, out=y)


def _gelu_back(z: torch.Tensor, y: torch.Tensor, g: torch.Tensor) -> None:
    _aten.gelu_backward.grad_input(g, z, grad_input=g)


def _silu(z: torch.Tensor, y: torch.Tensor) -> None:
    _aten.silu.out(z, out=y)


def _silu_back(z: torch.Tensor, y: torch.Tensor, g: torch.Tensor) -> None:
    _aten.silu_backward.grad_input(g, z, grad_input=g)


def _elu(z: torch.Tensor, y: torch.Tensor) -> None:
    _aten.elu.out(z, out=y)


def _elu_back(z: torch.Tensor, y: torch.Tensor, g: torch.Tensor) -> None:
    _aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, True, y, grad_input=g)


def _softplus(z: torch.Tensor, y: torch.Tensor) -> None:
    _aten.softplus.out(z, out=y)


def _softplus_back(z: torch.Tensor, y: torch.Tensor, g: torch.Tensor) -> None:
    _aten.softplus_backward.grad_input(g, z, 1.0, 20.0, grad_input=g)


FUNCTIONS: dict[str, tuple[Forward, Backward]] = {
    "torch.nn.ReLU": (_relu, _relu_back),
    "torch.nn.Tanh": (_tanh, _tanh_back),
    "torch.nn.Sigmoid": (_sigmoid, _sigmoid_back),
    "torch.nn.GELU": (_gelu, _gelu_back),
    "torch.nn.SiLU": (_silu, _silu_back),
    "torch.nn.ELU": (_elu, _elu_back),
    "torch.nn.Softplus": (_softplus, _softplus_back),
}
"""Each activation of a spec, forward and backward."""

IN_PLACE = ("torch.nn.ReLU", "torch.nn.Tanh", "torch.nn.Sigmoid", "torch.nn.ELU")
"""Functions whose slope is told by their results, which may therefore overwrite what they read."""
