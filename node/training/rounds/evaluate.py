"""Measuring a model on patients: one noisy score histogram, the only measurement that leaves.

Promise: the histogram is ``privacy.histogram``'s (one patient moves it by at most 2^20 grid units in
L2 norm) plus a rounded Gaussian integer in each count; ``before_noise`` is called before it is
drawn; nothing raises over the values of rows. Scores that are not finite become a public constant.

Not promised: that the figures read from it are precise; their intervals say how far.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ledger.entries.operations.plans import Release
from ledger.experiment.plan.shape import metric_layout
from ledger.experiment.spec import BinaryTask, ExperimentSpec, MulticlassTask, RegressionTask
from node.data.encode import Examples
from node.errors import JobRefused
from node.training.rounds.train import BeforeNoise
from node.training.sums.exact import IntVector, block_rows
from node.training.sums.isolation import Units, sum_without_failing
from privacy.events import FULL_BATCH, GRID
from privacy.histogram import encode
from privacy.noise import Randomness


def score(
    module: nn.Module,
    features: npt.NDArray[np.float32],
    task: BinaryTask | MulticlassTask | RegressionTask,
    *,
    block: int,
) -> npt.NDArray[np.float64]:
    """Apply a model.

    Args:
        module: with weights loaded; plain or wrapped.
        features: float32 [n, d].
        task: decides what the outputs mean.
        block: rows handled at once, padded; from ``exact.block_rows``.

    Returns:
        float64 [n, 1]: probability of the positive class, or prediction over the declared range
        mapped to [0, 1]; [n, k]: probability of each class. Always finite.
    """
    outputs = len(task.classes) if isinstance(task, MulticlassTask) else 1
    scores = np.empty((len(features), outputs), dtype=np.float64)
    with torch.no_grad():
        for start in range(0, len(features), block):
            rows = features[start : start + block]
            inputs = torch.zeros((block, features.shape[1]), dtype=torch.float32)
            inputs[: len(rows)] = torch.from_numpy(np.ascontiguousarray(rows))
            raw = module(inputs).double()
            if isinstance(task, BinaryTask):
                raw = torch.sigmoid(raw)
            elif isinstance(task, MulticlassTask):
                raw = torch.softmax(raw, dim=1)
            else:
                raw = (raw.clamp(-1.0, 1.0) + 1.0) / 2.0
            # Sliced last: on fewer rows, elementwise functions may take another path (train.py).
            scores[start : start + len(rows)] = raw[: len(rows)].numpy()
    scores[~np.isfinite(scores).all(axis=1)] = 1.0 / outputs if outputs > 1 else 0.5
    return scores


def noisy_histogram(
    module: nn.Module,
    examples: Examples,
    spec: ExperimentSpec,
    release: Release,
    *,
    declared: int,
    rng: Randomness,
    before_noise: BeforeNoise,
) -> IntVector:
    """Measure a model on a half of the patients and add noise: a private mechanism.

    Args:
        module: with weights loaded.
        examples: the evaluation half; may be empty.
        spec: task and bins.
        release: the mechanism; its sensitivity must cover one patient's 2^20 units.
        declared: public number of units of the half.
        rng: secret, unrepeatable draws.
        before_noise: records the intent.

    Returns:
        int64 [metric_layout(spec).size], grid units.

    Raises:
        JobRefused: no metrics are planned, or the release does not cover one patient's counts.
    """
    shape = metric_layout(spec)
    if shape is None:
        raise JobRefused("the spec releases no metrics")
    if release.sensitivity < GRID or release.sampling != FULL_BATCH:
        raise JobRefused(f"the {release.purpose} release does not cover one patient's counts")
    before_noise(release.purpose, 1)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    block = block_rows(max(1, declared), FULL_BATCH, parameters)

    def count(units: Units) -> IntVector:
        some = examples.of_units(units)
        scores = score(module, some.features, spec.task, block=block)
        targets: npt.NDArray[np.generic] = some.targets
        if isinstance(spec.task, RegressionTask):
            targets = (some.targets.astype(np.float64) + 1.0) / 2.0
        return encode(shape, scores, targets, some.patients)

    # As in training: a patient over whose rows it fails counts nowhere, and noise leaves.
    everybody = np.arange(examples.units)
    counts = sum_without_failing(everybody, count, lambda: np.zeros(shape.size, dtype=np.int64))
    return counts + rng.gaussian_integers(release.noise_sd, shape.size)
