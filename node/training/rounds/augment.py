"""Several views of each row, whose gradients a patient's one vector is the mean of (De et al. 2022, arXiv:2204.13650).

A view is the row with every number column moved by Gaussian jitter of a declared size, within the declared
bounds; the first view is the row itself. Codes and marks stay. Views stand beside their row as further rows
of its patient, so the mean over a patient's rows, before the clip, is the mean over the views as well.

Promise: sensitivity and charge are those of the rows. The jitter is drawn afresh in each round from the
node's secure source and is independent of the data: given the jitter, each patient's vector depends on that
patient's rows alone, and is clipped like any other. Where each patient has an account (``with_own_views``) the
jitter is a keyed function of round and patient: a round that is made again has the same views, so that it costs
nobody more than the attempt before, which a restored register may be all that knows of. Not promised: that it helps; tables have no symmetry like
the mirror image of a picture, and ``copies`` times the rows take ``copies`` times the work.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ledger.experiment.privacy_spec import Augment
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from node.data.encode import Examples
from privacy.events import GRID
from privacy.noise import Randomness


def with_views(
    rows: Examples, numbers: npt.NDArray[np.intp], settings: Augment, rng: Randomness
) -> Examples:
    """Put the views of each row beside it.

    Args:
        rows: encoded, n of them.
        numbers: which inputs are numbers, in [-1, 1].
        settings: how many views of a row there are with it, and the jitter's deviation.
        rng: secret draws; n * (copies - 1) * len(numbers) of them.

    Returns:
        n * copies rows of the same units, in the same order.
    """
    deviation = int(settings.jitter * GRID)
    count = (settings.copies - 1) * len(rows.features) * len(numbers)
    jitter = (rng.gaussian_integers(deviation, count) / GRID).astype(np.float32)
    return _moved(rows, numbers, settings, jitter.reshape(settings.copies - 1, -1, len(numbers)))


def with_own_views(
    rows: Examples,
    numbers: npt.NDArray[np.intp],
    settings: Augment,
    seed_of: Callable[[str], bytes],
) -> Examples:
    """As ``with_views``, by jitter that is the same whenever it is asked for.

    Args:
        rows: with ids.
        numbers: as there.
        settings: as there.
        seed_of: 32 bytes that nobody else can tell from random ones, of the round and a patient's id.
    """
    each = settings.copies - 1
    counts = np.bincount(rows.patients, minlength=rows.units)
    ids = () if rows.ids is None else rows.ids
    drawn = [
        np.random.default_rng(int.from_bytes(seed_of(patient), "big")).normal(
            0.0, float(settings.jitter), (each, count, len(numbers))
        )
        for patient, count in zip(ids, counts, strict=True)
    ]
    empty = np.zeros((each, 0, len(numbers)))
    jitter = np.concatenate([empty, *drawn], axis=1).astype(np.float32)
    return _moved(rows, numbers, settings, jitter)


def _moved(
    rows: Examples,
    numbers: npt.NDArray[np.intp],
    settings: Augment,
    jitter: npt.NDArray[np.float32],
) -> Examples:
    """The rows and their views, moved by jitter [copies - 1, n, numbers]."""
    views = np.repeat(rows.features, settings.copies, axis=0)
    for copy in range(1, settings.copies):
        moved = rows.features[:, numbers] + jitter[copy - 1]
        views[copy :: settings.copies, numbers] = np.clip(moved, -1.0, 1.0)
    targets = rows.targets[np.repeat(np.arange(len(rows.targets)), settings.copies)]
    patients = np.repeat(rows.patients, settings.copies)
    return Examples(views, targets, patients, rows.units, rows.ids)


def number_inputs(
    schema: Schema, names: tuple[str, ...], embedded: frozenset[str] = frozenset()
) -> npt.NDArray[np.intp]:
    """Find which inputs of ``encode.features`` are numbers.

    Args:
        schema: the table's.
        names: feature columns, in the spec's order.
        embedded: category columns that the model embeds.
    """
    found, at = [], 0
    for name in names:
        column = schema.column(name)
        if isinstance(column, NumberColumn):
            found.append(at)
            at += 1
        elif name in embedded:
            at += 1
            continue
        elif isinstance(column, CategoryColumn):
            at += len(column.coded)
        at += getattr(column, "missing", "refuse") == "indicator"
    return np.array(found, dtype=np.intp)
