"""The ``exact`` engine: each patient's own gradient, clipped on the integer grid, and their sum.

It takes for each patient, in this order:

1. the gradients of the patient's rows, by Opacus' ``GradSampleModule``, float32; a gradient with a
   value that is not finite becomes 0;
2. their mean over the patient's rows, float64: one vector a patient, however many rows;
3. clipped to L2 norm C = sensitivity / 2^20, as a whole or tensor by tensor (``node.training.sums.clipping``),
   scaled by 2^20, truncated toward zero;
4. checked in integers: a vector whose sum of squares exceeds sensitivity^2 becomes 0.

The vectors are summed in int64 exactly.

Promise: one patient moves the sum by at most ``sensitivity`` in L2 norm (zero-out relation), to the
bit, because a patient's vector does not depend on who else is there. For that, rows are handled in
blocks of a fixed, public number of rows, padded with zeros; linear layers add in a fixed order
(``networks.modules.RowLinear``); blocks fill the processor's vectors, so that elementwise functions take the
same path for each row; networks that embed or read series take each row alone
(``node.training.sums.alone``); torch must run on one thread (``train.start_torch``). Tests compare to the bit.

Not promised: any privacy. Nothing here draws noise; only ``node.training.rounds.train`` does, before a sum leaves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from opacus.grad_sample.linear import compute_linear_grad_sample
from torch import nn
from torch.nn import functional

from ledger.experiment.spec import BinaryTask, MulticlassTask, RegressionTask
from node.data.encode import Examples
from node.training.networks.composed import ComposedNetwork
from node.training.networks.modules import RowLinear
from node.training.sums.alone import Alone
from node.training.sums.clipping import FLAT, Clipping
from node.training.sums.isolation import FAILURES, Units, sum_without_failing
from privacy.events import FULL_BATCH

register_grad_sampler(RowLinear)(compute_linear_grad_sample)

MAX_SENSITIVITY = 2**30
"""Grid units; squares of clipped values and their sums stay far inside int64."""
MAX_BLOCK_ROWS = 4096
_MIN_BLOCK_ROWS = 64
_MAX_BLOCK_VALUES = 2**24

IntVector = npt.NDArray[np.int64]
FloatMatrix = npt.NDArray[np.float64]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def per_sample(module: nn.Module) -> nn.Module:
    """Wrap a module so that a backward pass leaves each row's gradient (Opacus, hooks), or takes rows alone."""
    if isinstance(module, ComposedNetwork):
        return Alone(module)
    engine: nn.Module = GradSampleModule(module, batch_first=True, loss_reduction="sum")
    return engine


def loss_of(task: BinaryTask | MulticlassTask | RegressionTask) -> Loss:
    """Return the task's loss, summed over rows.

    Binary: cross entropy of the logit; multiclass: cross entropy of the logits; regression: squared
    error over the declared range mapped to [-1, 1].
    """
    if isinstance(task, BinaryTask):
        return _binary_loss
    if isinstance(task, MulticlassTask):
        return _multiclass_loss
    return _squared_loss


def block_rows(declared: int, sampling: int, parameters: int) -> int:
    """Return the fixed number of rows of a block, from public numbers alone.

    A power of two that holds the expected batch, at most 4,096 rows and 2^24 gradient values in all,
    but never below 64 rows, which fill a processor's vectors.
    """
    expected = max(1, -(-declared * sampling // FULL_BATCH))
    fits = max(1, _MAX_BLOCK_VALUES // max(1, parameters))
    rows = min(MAX_BLOCK_ROWS, 1 << (expected - 1).bit_length(), 1 << (fits.bit_length() - 1))
    return max(_MIN_BLOCK_ROWS, rows)


def exact_sum(
    engine: nn.Module,
    batch: Examples,
    *,
    sensitivity: int,
    loss: Loss,
    block: int,
    clipping: Clipping = FLAT,
) -> IntVector:
    """Sum the clipped integer vectors of a batch's patients, WITHOUT noise: never leaves this room.

    Only the mechanism and its tests call this.

    Raises:
        ValueError: the sensitivity is out of range.
    """
    if not 1 <= sensitivity <= MAX_SENSITIVITY:
        raise ValueError(f"sensitivity {sensitivity} is not in 1..{MAX_SENSITIVITY}")
    total = np.zeros(count_parameters(engine) + clipping.extra, dtype=np.int64)
    for gradients in patient_gradients(engine, batch, loss=loss, block=block):
        total += clipping.on_grid(gradients, sensitivity).sum(axis=0, dtype=np.int64)
    return total


def exact_sum_without_failing(
    engine: nn.Module,
    examples: Examples,
    taken: npt.NDArray[np.bool_],
    *,
    sensitivity: int,
    loss: Loss,
    block: int,
    clipping: Clipping = FLAT,
) -> IntVector:
    """Sum as ``exact_sum`` the units that ``taken`` says; one whose rows make it fail adds zeros.

    The sum of the others is the same to the bit, since integers add up in any order.
    """

    def sum_of(units: Units) -> IntVector:
        batch = examples.of_units(units)
        return exact_sum(
            engine, batch, sensitivity=sensitivity, loss=loss, block=block, clipping=clipping
        )

    size = count_parameters(engine) + clipping.extra
    return sum_without_failing(
        np.flatnonzero(taken), sum_of, lambda: np.zeros(size, dtype=np.int64)
    )


def patient_gradients(
    engine: nn.Module, batch: Examples, *, loss: Loss, block: int
) -> Iterator[FloatMatrix]:
    """Yield the mean gradient of each unit, in order, some units [u, d] at a time.

    A unit's rows are added one after the other in their own order, also over the edge of a block, so
    that its mean does not depend on where the edges fall.
    """
    counts = np.bincount(batch.patients, minlength=batch.units).astype(np.float64)
    open_sum: npt.NDArray[np.float64] | None = None
    start, rows = 0, len(batch.targets)
    for gradients in _row_gradients(engine, batch, loss, block):
        stop = start + len(gradients)
        units = batch.patients[start:stop]
        first, last = int(units[0]), int(units[-1])
        sums = np.zeros((last - first + 1, gradients.shape[1]), dtype=np.float64)
        if open_sum is not None:
            sums[0] = open_sum
        turn = np.arange(stop - start) - np.searchsorted(units, units)
        for nth in range(int(turn.max()) + 1):
            taken = turn == nth
            sums[units[taken] - first] += gradients[taken]
        open_sum = None
        if stop < rows and int(batch.patients[stop]) == last:
            open_sum, sums = sums[-1].copy(), sums[:-1]
        yield sums / counts[first : first + len(sums), None]
        start = stop


def count_parameters(engine: nn.Module) -> int:
    """How many numbers a model is: d of every vector here."""
    return sum(parameter.numel() for parameter in engine.parameters())


def _row_gradients(
    engine: nn.Module, batch: Examples, loss: Loss, block: int
) -> Iterator[FloatMatrix]:
    """Yield the gradients of the rows' losses, some rows at a time; zeros where not finite."""
    if isinstance(engine, Alone):
        yield from engine.gradients(batch, loss)
        return
    for start in range(0, len(batch.targets), block):
        rows = min(block, len(batch.targets) - start)
        inputs = torch.zeros((block, batch.features.shape[1]), dtype=torch.float32)
        inputs[:rows] = torch.from_numpy(batch.features[start : start + rows])
        kept = torch.from_numpy(batch.targets[start : start + rows])
        targets = torch.zeros(block, dtype=kept.dtype)
        targets[:rows] = kept
        try:
            _differentiate(engine, loss, inputs, targets)
        except FAILURES:
            _forget_half_a_pass(engine)
            raise
        pieces = []
        for parameter in engine.parameters():
            gradient = parameter.grad_sample  # type: ignore[attr-defined]
            pieces.append(gradient.numpy().reshape(block, -1))
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter.grad = None
        width = sum(piece.shape[1] for piece in pieces)
        some = max(1, _MAX_BLOCK_VALUES // width)
        for low in range(0, rows, some):
            part = [piece[low : min(low + some, rows)] for piece in pieces]
            gradients: FloatMatrix = np.concatenate(part, axis=1).astype(np.float64)
            gradients[~np.isfinite(gradients).all(axis=1)] = 0.0
            yield gradients


def _differentiate(
    engine: nn.Module, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor
) -> None:
    outputs = engine(inputs)
    with warnings.catch_warnings():
        # Opacus' hook on the first layer is meant to fire though inputs need no gradient.
        warnings.simplefilter("ignore", UserWarning)
        loss(outputs, targets).backward()  # type: ignore[no-untyped-call]


def _forget_half_a_pass(engine: nn.Module) -> None:
    """Drop what Opacus' hooks kept of a pass that broke off; the next pass would count it as its own."""
    for module in engine.modules():
        module.__dict__.pop("activations", None)
        module.__dict__.pop("max_batch_len", None)
    for parameter in engine.parameters():
        parameter.__dict__.pop("_current_grad_sample", None)
        parameter._forward_counter = 0  # type: ignore[attr-defined]
        parameter.grad_sample = None  # type: ignore[attr-defined]
        parameter.grad = None


def _binary_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), targets, reduction="sum")


def _multiclass_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, reduction="sum")


def _squared_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(outputs.squeeze(1), targets, reduction="sum")
