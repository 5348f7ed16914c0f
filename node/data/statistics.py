"""A dataset's training half as one vector of counts and sums, before noise.

Promise: each patient adds the mean of the vectors of his rows, in grid units truncated toward zero, so
the result moves by at most the shape's sensitivity when one patient is replaced by nothing. Values are
those that the schema admits; nothing is computed from rows but the sums.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ledger.experiment.schema import CategoryColumn
from ledger.experiment.statistics import Shape
from node.data.columns import MISSING_CODE
from node.data.intake import Table
from privacy.events import GRID

_BLOCK_BYTES = 2**26


def count_patients(
    table: Table, shape: Shape, keep: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Sum every patient's vector.

    Args:
        table: the rows.
        shape: where the numbers go.
        keep: bool [n], rows of patients who are counted.

    Returns:
        int64 [shape.counted], grid units.
    """
    rows = np.flatnonzero(keep)
    if table.patients is None:
        patient, units = np.arange(len(rows), dtype=np.int64), len(rows)
    else:
        ids = np.array(table.patients, dtype=object)[rows]
        names, found = np.unique(ids, return_inverse=True)
        patient, units = found.astype(np.int64), len(names)
    each = np.maximum(1, np.bincount(patient, minlength=units)).astype(np.int64)
    total = np.zeros(shape.counted, dtype=np.int64)
    for part in shape.parts:
        column, raw = part.column, table.columns[part.column.name][rows]
        missing = part.counts - 1
        scaled = np.zeros(len(rows), dtype=np.float64)
        if isinstance(column, CategoryColumn):
            place = np.where(raw == MISSING_CODE, missing, raw).astype(np.int64)
        else:
            low, high = float(column.low), float(column.high)
            blank = np.isnan(raw)
            unit = np.clip((np.where(blank, low, raw) - low) / (high - low), 0.0, 1.0)
            place = np.minimum((unit * missing).astype(np.int64), missing - 1)
            place = np.where(blank, missing, place)
            scaled = np.where(blank, 0.0, 2.0 * unit - 1.0)
        # One patient's counts, patient by patient in blocks that fit in memory.
        step = max(1, _BLOCK_BYTES // (8 * part.counts))
        order = np.argsort(patient, kind="stable")
        for first in range(0, units, step):
            start, stop = np.searchsorted(patient[order], [first, first + step])
            here = order[start:stop]
            counts = np.zeros((min(step, units - first), part.counts), dtype=np.int64)
            np.add.at(counts, (patient[here] - first, place[here]), GRID)
            counts //= each[first : first + step, None]
            total[part.start : part.start + part.counts] += counts.sum(0)
        if part.stop > part.start + part.counts:
            sums = np.bincount(patient, weights=scaled, minlength=units) / each
            total[part.stop - 1] += int((np.clip(sums, -1.0, 1.0) * GRID).astype(np.int64).sum())
    return total
