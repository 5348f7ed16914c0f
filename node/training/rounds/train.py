"""Private training: the one mechanism that turns patients' gradients into what may leave.

``noisy_gradient_sum`` is that mechanism (DP-SGD: Abadi et al. 2016, arXiv:1607.00133, on an integer
grid): patients are sampled, their clipped gradients are summed in int64, and an independent rounded
Gaussian integer is added to each coordinate; a long vector of them is drawn while the sum is made, on a
second core where there is one. An empty batch gives noise alone. Everything else here is
post-processing of what it returned. The plan says which of two engines makes a release's sum: ``fast``
is ``node.training.sums.dense`` or ``.composed``, ``exact`` is ``node.training.sums.exact``.

Promise: one patient moves the sum by at most ``sensitivity`` in L2 norm (zero-out relation), which the
engines see to; torch must run on one thread for it (``start_torch``). Nothing raises over the values of
rows: a patient over whose rows a computation fails adds 0 (``node.training.sums.isolation``), and noise
leaves all the same. ``before_noise`` is called before anything is drawn.

Not promised: that time and memory of a round tell nothing to someone on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ledger.entries.operations.plans import Purpose, Release
from ledger.experiment.average import LateAverage, within_l2
from ledger.experiment.tensors import to_grid
from node.data.encode import Examples
from node.errors import JobRefused
from node.training.networks.modules import FloatVector, load_flat
from node.training.sums.clipping import FLAT, Clipping
from node.training.sums.exact import (
    IntVector,
    Loss,
    block_rows,
    count_parameters,
    exact_sum,
    exact_sum_without_failing,
)
from node.training.sums.isolation import FAILURES
from privacy.events import FULL_BATCH, GRID
from privacy.noise import Randomness

BeforeNoise = Callable[[Purpose, int], None]
"""Records durably that noise for so many steps of a purpose will be used; returns only then."""


class FastSum(Protocol):
    """A model and its examples in the fast engine."""

    def load(self, weights: FloatVector) -> None:
        """Take weights, float64 [d], in torch's order."""

    def clipped_sum(self, taken: npt.NDArray[np.bool_] | None, sensitivity: int) -> IntVector:
        """Sum the clipped gradients of the units that ``taken`` says, WITHOUT noise: int64 [d]."""


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
    fast: FastSum | None = None
    clipping: Clipping = FLAT


def start_torch() -> None:
    """Put torch into the state that the mechanism needs; once, before any other call here."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


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
    parameters = count_parameters(training.engine)
    taken = rng.poisson_mask(release.sampling, examples.units)
    rng.expect(release.noise_sd, parameters + training.clipping.extra)
    if training.fast is not None and release.engine == "fast":
        total = training.fast.clipped_sum(taken, release.sensitivity)
    else:
        total = exact_sum_without_failing(
            training.engine,
            examples,
            taken,
            sensitivity=release.sensitivity,
            loss=training.loss,
            block=block_rows(training.declared, release.sampling, parameters),
            clipping=training.clipping,
        )
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
    block = block_rows(training.declared, FULL_BATCH, count_parameters(training.engine))
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
