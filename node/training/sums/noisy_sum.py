"""From an engine's clipped sum to integers of the grid, with noise: for any module.

The engines of ``node.training.sums.blocks`` sum in float64. Here the sum is rounded to the grid, after clipping
to ``clip_norm``, below the sensitivity by what the engine and this rounding may round, and an
independent rounded Gaussian integer is added to each coordinate. Millions of coordinates are handled
some at a time, so that what lies between two steps stays in a processor's cache, and in the memory of
the sum itself; and their noise is drawn while the sum is made, where there is a second core (``privacy.noise_ahead``).

A patient over whose rows the engine fails, or gives no finite number, adds zeros (``isolation``).

Promise: one patient moves what noise is added to by at most ``sensitivity`` in L2 norm (zero-out relation),
as far as ``node.training.sums.bookkeeping`` promises it. Without noise the sum is private to this room.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from node.training.sums.blocks import ClippedSum
from node.training.sums.isolation import Units, sum_without_failing
from privacy.events import GRID
from privacy.noise import Randomness

_AT_ONCE = 2**15
"""Coordinates; of 8 bytes, three times over, in a processor's cache."""

_WHOLE: Final = 1.5 * 2.0**52
"""Added to a number below a quarter of it: float64 has no fractions there, so it rounds as ``rint`` does, and what
its bits exceed this one's by is the integer."""
_WHOLE_BITS: Final = int(np.float64(_WHOLE).view(np.int64))

IntVector = npt.NDArray[np.int64]
FloatVector = npt.NDArray[np.float64]


def clipped_sum(
    engine: ClippedSum,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    sensitivity: int,
    *,
    most_patients: int,
    patients: IntVector | None = None,
) -> IntVector:
    """Sum clipped gradients on the grid, WITHOUT noise: int64 [d], grid units.

    Args:
        engine: from ``bookkeeping.clipped_sum_of``.
        inputs: [n, ...], rows first.
        targets: [n, ...].
        sensitivity: L2 bound on what one patient moves the sum by, grid units.
        most_patients: public bound on the patients of the table that batches are drawn from. Whoever
            registers a table sees that it holds no more (``node.data.registration``), and says so then; found
            out by a batch, it would tell of its last patient.
        patients: int64 [n], never falling: whose row each is; None where each is its own.

    Raises:
        ValueError: more patients than that: the table was not looked at.
        InvalidParameter: rounding would take more than half of the sensitivity.
    """
    return _sum(engine, inputs, targets, sensitivity, most_patients, patients, None, None)


def noisy_sum(
    engine: ClippedSum,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    sensitivity: int,
    *,
    most_patients: int,
    noise_sd: int,
    rng: Randomness,
    patients: IntVector | None = None,
    room: torch.Tensor | None = None,
) -> IntVector:
    """Sum as ``clipped_sum`` and add round(N(0, noise_sd^2)) to each coordinate: the private mechanism.

    Args:
        engine: as there.
        inputs: as there.
        targets: as there.
        sensitivity: as there.
        most_patients: as there.
        noise_sd: grid units.
        rng: secret, unrepeatable draws.
        patients: as there.
        room: float64 [d] that is written over: the result is a view of it.

    Raises:
        ValueError: as there.
        InvalidParameter: as there.
        InvalidEvent, RandomnessClosed: by ``rng``.
    """
    rng.expect(noise_sd, engine.parameters)
    draw = partial(rng.gaussian_integers, noise_sd)
    return _sum(engine, inputs, targets, sensitivity, most_patients, patients, draw, room)


def _sum(
    engine: ClippedSum,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    sensitivity: int,
    most_patients: int,
    patients: IntVector | None,
    draw: Callable[[int], IntVector] | None,
    room: torch.Tensor | None,
) -> IntVector:
    count = len(inputs) if patients is None else (int(patients[-1]) + 1 if len(patients) else 0)
    if count > most_patients:
        raise ValueError("more patients than were declared: count the whole table before any batch")
    bound = engine.clip_norm(sensitivity, most_patients) / GRID

    def sum_of(units: Units) -> FloatVector:
        if len(units) == count:
            total = engine.float_sum(inputs, targets, bound, patients, into=room).numpy()
        else:  # neighbours
            rows = slice(int(units[0]), int(units[-1]) + 1)
            part = None
            if patients is not None:
                rows = slice(*np.searchsorted(patients, (rows.start, rows.stop)))
                part = patients[rows] - units[0]
            total = engine.float_sum(inputs[rows], targets[rows], bound, part).numpy()
        if not np.isfinite(total).all():
            raise FloatingPointError("a sum is not finite")
        return total

    total = sum_without_failing(np.arange(count), sum_of, lambda: np.zeros(engine.parameters))
    if room is not None and not np.may_share_memory(total, room.numpy()):
        room.copy_(torch.from_numpy(total))
        total = room.numpy()
    result = total.view(np.int64)  # written where what it is made of was read before
    small = count * bound * GRID < _WHOLE / 4
    for low in range(0, len(total), _AT_ONCE):
        part, whole = total[low : low + _AT_ONCE], result[low : low + _AT_ONCE]
        part *= GRID
        if small:
            part += _WHOLE
            whole -= _WHOLE_BITS
        else:
            whole[:] = np.rint(part, out=part).astype(np.int64)
        if draw is not None:
            whole += draw(len(part))
    return result
