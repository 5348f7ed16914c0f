"""The noisy sum of a round in which each patient is accounted for alone (``privacy.individual``).

Like the ``exact`` engine, with two differences. Each patient's vector is clipped to the smaller of the clip
norm and what the patient has left, which is a function of the patient's own rows and of what was released
before. And before the noise is drawn, what each vector costs is handed to ``record_charges``, which
returns once that is durable: no vector leaves whose cost is not written down.

Who has nothing left adds a vector of zeros, at the same work; where everybody has retired the sum is
noise. The divisor is declared and the number of rounds the plan's, so nothing that leaves, but the noisy
sum itself, depends on who has how much left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ledger.entries.operations.plans import Release
from node.data.encode import Examples
from node.data.patient_spend import Allowance, IntVector, Members, PatientSpend
from node.training.networks.modules import FloatVector, load_flat
from node.training.rounds.train import BeforeNoise, Training, bounded
from node.training.sums.clipping import clip_to_grid
from node.training.sums.exact import MAX_SENSITIVITY, block_rows, patient_gradients
from node.training.sums.isolation import Units, sum_without_failing
from privacy.individual import allowances, charges
from privacy.noise import Randomness

RecordCharges = Callable[[PatientSpend], None]
"""Writes durably what a round costs each patient; returns only then."""


def individual_round(
    training: Training,
    model: FloatVector,
    release: Release,
    members: Members,
    allowance: Allowance,
    *,
    update_bound: int,
    rng: Randomness,
    before_noise: BeforeNoise,
    record_charges: RecordCharges,
) -> IntVector:
    """Make one noisy gradient sum at the round's model.

    Args:
        training: the site's half and engine.
        model: the round's weights, float64 [d].
        release: with engine ``individual``.
        members: HMAC of each unit of the half, [m] in the units' order.
        allowance: what they may spend.
        update_bound: L2 bound of the plan, grid units.
        rng: secret draws.
        before_noise: records the intent.
        record_charges: records what it cost.

    Returns:
        int64 [d], grid units, within ``update_bound``.
    """
    before_noise(release.purpose, 1)
    load_flat(training.engine, model)
    left = allowance.left(members)
    most = allowances(left, noise_sd=release.noise_sd, sensitivity=release.sensitivity)
    block = block_rows(training.declared, release.sampling, len(model))
    # A patient over whose rows the computation fails adds zeros, and pays what it could have cost.
    squares = most * most

    def sum_of(units: Units) -> IntVector:
        some, found = individual_sum(
            training, training.examples.of_units(units), most[units], block=block
        )
        squares[units] = found
        return some

    total = sum_without_failing(
        np.arange(len(most)), sum_of, lambda: np.zeros(len(model), dtype=np.int64)
    )
    cost = charges(squares, noise_sd=release.noise_sd, sensitivity=release.sensitivity)
    record_charges(PatientSpend.of(members, cost))
    return bounded(total + rng.gaussian_integers(release.noise_sd, len(model)), update_bound)


def individual_sum(
    training: Training, batch: Examples, most: IntVector, *, block: int
) -> tuple[IntVector, IntVector]:
    """Sum each patient's integer vector, clipped to one's own length, WITHOUT noise: never leaves.

    Args:
        training: engine, with weights loaded, and loss.
        batch: m units.
        most: int64 [m], each patient's length, grid units, 0 .. 2^30.
        block: rows at a time.

    Returns:
        The sum, int64 [d], and the square of each patient's length in it, int64 [m].

    Raises:
        ValueError: a length is out of range.
    """
    if len(most) and not 0 <= int(most.min()) <= int(most.max()) <= MAX_SENSITIVITY:
        raise ValueError(f"a patient's length is not in 0..{MAX_SENSITIVITY}")
    total = np.zeros(sum(p.numel() for p in training.engine.parameters()), dtype=np.int64)
    squares = np.zeros(batch.units, dtype=np.int64)
    at = 0
    for gradients in patient_gradients(training.engine, batch, loss=training.loss, block=block):
        some = slice(at, at + len(gradients))
        vectors = clip_to_grid(gradients, most[some])
        squares[some] = (vectors * vectors).sum(axis=1)
        total += vectors.sum(axis=0, dtype=np.int64)
        at += len(gradients)
    return total, squares
