"""Private training: the one mechanism that turns patients' gradients into what may leave.

``noisy_gradient_sum`` is that mechanism (DP-SGD: Abadi et al. 2016, arXiv:1607.00133, on an integer
grid). Everything else here is post-processing of what it returned. The plan says which of two engines
makes a release's sum. ``fast`` is ``node.training.dense``; ``exact`` stands here. It takes for each
patient, in this order:

1. the gradients of the patient's rows, by Opacus' ``GradSampleModule``, float32; a gradient with a
   value that is not finite becomes 0;
2. their mean over the patient's rows, float64: one vector a patient, however many rows;
3. clipped to L2 norm C = sensitivity / 2^20, as a whole or tensor by tensor (``node.training.clipping``),
   scaled by 2^20, truncated toward zero;
4. checked in integers: a vector whose sum of squares exceeds sensitivity^2 becomes 0.

The vectors are summed in int64 exactly, and an independent rounded Gaussian integer is added to each
coordinate. An empty batch gives noise alone.

Promise: one patient moves the sum by at most ``sensitivity`` in L2 norm (zero-out relation), to the
bit, because a patient's vector does not depend on who else is there. For that, rows are handled in
blocks of a fixed, public number of rows, padded with zeros; linear layers add in a fixed order
(``network.RowLinear``); blocks fill the processor's vectors, so that elementwise functions take the
same path for each row; torch must run on one thread (``start_torch``). Tests compare to the bit.
Nothing raises over the values of rows: a computation that fails counts as a sum of 0, and noise
leaves all the same. ``before_noise`` is called before anything is drawn.

Not promised: that time and memory of a round tell nothing to someone on the same machine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from opacus.grad_sample.linear import compute_linear_grad_sample
from torch import nn
from torch.nn import functional

from ledger.entries.operations.plans import Purpose, Release
from ledger.experiment.average import LateAverage, within_l2
from ledger.experiment.spec import BinaryTask, MulticlassTask, RegressionTask
from ledger.experiment.tensors import to_grid
from node.data.encode import Examples
from node.errors import JobRefused
from node.training.clipping import FLAT, Clipping
from node.training.dense import DenseSum
from node.training.network import FloatVector, RowLinear, load_flat
from privacy.events import FULL_BATCH, GRID
from privacy.noise import Randomness

register_grad_sampler(RowLinear)(compute_linear_grad_sample)

MAX_SENSITIVITY = 2**30
"""Grid units; squares of clipped values and their sums stay far inside int64."""
MAX_BLOCK_ROWS = 4096
_MIN_BLOCK_ROWS = 64
_MAX_BLOCK_VALUES = 2**24
FAILURES = (ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError)
"""What torch, numpy and Opacus raise over numbers, shapes and the memory that rows need."""

IntVector = npt.NDArray[np.int64]
FloatMatrix = npt.NDArray[np.float64]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
BeforeNoise = Callable[[Purpose, int], None]
"""Records durably that noise for so many steps of a purpose will be used; returns only then."""


@dataclass(frozen=True, eq=False)
class Training:
    """What a site trains on and with.

    Attributes:
        engine: the model under ``per_sample``; its weights are overwritten by every function.
        loss: summed over rows.
        examples: the training half.
        declared: the public number of training units, the divisor.
        fast: the same model and examples in the fast engine, where a release asks for it.
        clipping: of the exact engine; the fast one has its own.
    """

    engine: nn.Module
    loss: Loss
    examples: Examples
    declared: int
    fast: DenseSum | None = None
    clipping: Clipping = FLAT


def per_sample(module: nn.Module) -> nn.Module:
    """Wrap a module so that a backward pass leaves each row's gradient (Opacus, hooks)."""
    engine: nn.Module = GradSampleModule(module, batch_first=True, loss_reduction="sum")
    return engine


def start_torch() -> None:
    """Put torch into the state that the mechanism needs; once, before any other call here."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


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


def noisy_gradient_sum(training: Training, release: Release, rng: Randomness) -> IntVector:
    """Sample patients, sum their clipped gradients and add noise: the private mechanism.

    Args:
        training: the site's half and engines, with weights loaded (``load_weights``).
        release: sampling, sensitivity (1 .. 2^30), engine and noise.
        rng: secret, unrepeatable draws.

    Returns:
        int64 [d], grid units, private; d is the model's number of parameters.

    Raises:
        InvalidEvent, RandomnessClosed: by ``rng``, over its arguments.
    """
    examples = training.examples
    parameters = _parameters(training.engine)
    taken = rng.poisson_mask(release.sampling, examples.units)
    try:
        if training.fast is not None and release.engine == "fast":
            total = training.fast.clipped_sum(taken, release.sensitivity)
        else:
            total = exact_sum(
                training.engine,
                examples.sample(taken),
                sensitivity=release.sensitivity,
                loss=training.loss,
                block=block_rows(training.declared, release.sampling, parameters),
                clipping=training.clipping,
            )
    except FAILURES:
        # The engine passed ``rehearse``, so this is about these rows. To stop now would tell;
        # noise leaves instead, and the charge stands.
        total = np.zeros(parameters + training.clipping.extra, dtype=np.int64)
    return total + rng.gaussian_integers(release.noise_sd, len(total))


def load_weights(training: Training, release: Release, weights: FloatVector) -> None:
    """Write weights, float64 [d], into the engine that the release asks for.

    Raises:
        JobRefused: there is no such engine here, or d is not the model's number of parameters.
    """
    if release.engine == "exact":
        load_flat(training.engine, weights)
    elif training.fast is None:
        raise JobRefused(f"the {release.purpose} release asks for an engine that was not made")
    else:
        training.fast.load(weights)


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
    total = np.zeros(_parameters(engine) + clipping.extra, dtype=np.int64)
    for gradients in patient_gradients(engine, batch, loss=loss, block=block):
        total += clipping.on_grid(gradients, sensitivity).sum(axis=0, dtype=np.int64)
    return total


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


def fedsgd_round(
    training: Training,
    model: FloatVector,
    release: Release,
    *,
    update_bound: int,
    rng: Randomness,
    before_noise: BeforeNoise,
) -> IntVector:
    """Make one noisy gradient sum at the round's model.

    Returns:
        int64 [d], grid units, within ``update_bound`` (``bounded``).
    """
    before_noise(release.purpose, 1)
    load_weights(training, release, model)
    return bounded(noisy_gradient_sum(training, release, rng), update_bound)


def fedavg_round(
    training: Training,
    model: FloatVector,
    release: Release,
    *,
    local_steps: int,
    learning_rate: float,
    weight: int,
    update_bound: int,
    rng: Randomness,
    before_noise: BeforeNoise,
) -> IntVector:
    """Take local steps, each on a noisy sum of its own, and return the weighted difference.

    A step is w <- w - learning_rate * (sum / 2^20) / (q * declared), float64.

    Returns:
        int64 [d]: weight * trunc((w - model) * 2^20), within ``update_bound`` (``bounded``).
    """
    before_noise(release.purpose, local_steps)
    weights = model
    for step in _descend(training, model, release, local_steps, learning_rate, rng):
        weights = step
    furthest = update_bound / weight / GRID
    difference = np.clip(weights - model, -furthest, furthest)
    return bounded(to_grid(difference) * np.int64(weight), update_bound)


def local_baseline(
    training: Training,
    model: FloatVector,
    release: Release,
    *,
    steps: int,
    learning_rate: float,
    average: LateAverage,
    rng: Randomness,
    before_noise: BeforeNoise,
) -> FloatVector:
    """Train on this site alone; the result is already private and only measured, never sent.

    Args:
        training: the site's half and engine.
        model: where to begin, float64 [d].
        release: the baseline's mechanism.
        steps: noisy steps.
        learning_rate: of each step, as in ``fedavg_round``.
        average: of the last steps' models; made for ``steps``.
        rng: secret draws.
        before_noise: records the intent for all steps.

    Returns:
        float64 [d].
    """
    before_noise(release.purpose, steps)
    for number, weights in enumerate(
        _descend(training, model, release, steps, learning_rate, rng), start=1
    ):
        if number > steps - average.counted:
            average.add(weights)
    return average.result()


def rehearse(training: Training) -> None:
    """Run the mechanism's computation once on a row of zeros, before any intent.

    What fails here fails whatever the rows are, and may therefore be said aloud.

    Raises:
        JobRefused: the model cannot be trained.
    """
    width = training.examples.features.shape[1]
    blank = Examples(
        np.zeros((1, width), dtype=np.float32),
        np.zeros(1, dtype=training.examples.targets.dtype),
        np.zeros(1, dtype=np.int64),
        1,
    )
    block = block_rows(training.declared, FULL_BATCH, _parameters(training.engine))
    try:
        exact_sum(
            training.engine,
            blank,
            sensitivity=GRID,
            loss=training.loss,
            block=block,
            clipping=training.clipping,
        )
        if training.fast is not None:
            training.fast.clipped_sum(np.zeros(training.examples.units, dtype=bool), GRID)
    except FAILURES as error:
        raise JobRefused(f"the model cannot be trained ({type(error).__name__})") from None


def bounded(update: IntVector, bound: int) -> IntVector:
    """Shrink an update to the plan's L2 bound where noise carried it over: post-processing.

    Args:
        update: int64 [d], already private.
        bound: grid units.
    """
    factor = 1.0
    shrunk = update
    while not within_l2(shrunk, bound):
        norm = float(np.linalg.norm(update.astype(np.float64)))
        factor = min(factor, bound / norm) * (1.0 - 2.0**-40)
        shrunk = np.trunc(update.astype(np.float64) * factor).astype(np.int64)
    return shrunk


def _descend(
    training: Training,
    model: FloatVector,
    release: Release,
    steps: int,
    learning_rate: float,
    rng: Randomness,
) -> Iterator[FloatVector]:
    expected = training.declared * (release.sampling / FULL_BATCH)
    weights = np.array(model, dtype=np.float64)
    for _ in range(steps):
        load_weights(training, release, weights)
        noisy = noisy_gradient_sum(training, release, rng).astype(np.float64) / GRID
        weights = weights - learning_rate * noisy / expected
        yield weights


def _row_gradients(
    engine: nn.Module, batch: Examples, loss: Loss, block: int
) -> Iterator[FloatMatrix]:
    """Yield the gradients of the rows' losses, some rows at a time; zeros where not finite."""
    for start in range(0, len(batch.targets), block):
        rows = min(block, len(batch.targets) - start)
        inputs = torch.zeros((block, batch.features.shape[1]), dtype=torch.float32)
        inputs[:rows] = torch.from_numpy(batch.features[start : start + rows])
        kept = torch.from_numpy(batch.targets[start : start + rows])
        targets = torch.zeros(block, dtype=kept.dtype)
        targets[:rows] = kept
        outputs = engine(inputs)
        with warnings.catch_warnings():
            # Opacus' hook on the first layer is meant to fire though inputs need no gradient.
            warnings.simplefilter("ignore", UserWarning)
            loss(outputs, targets).backward()  # type: ignore[no-untyped-call]
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


def _parameters(engine: nn.Module) -> int:
    return sum(parameter.numel() for parameter in engine.parameters())


def _binary_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), targets, reduction="sum")


def _multiclass_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, reduction="sum")


def _squared_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(outputs.squeeze(1), targets, reduction="sum")
