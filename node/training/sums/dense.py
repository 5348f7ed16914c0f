"""The ``fast`` engine for networks of linear layers, layer norms and activations: book-keeping.

The clipped sum of ``node.training.sums.exact`` without any patient's vector (Bu, Wang, Zha & Karypis 2022,
arXiv:2210.00038): one pass forward, one backward to the layers' outputs; each patient's norm from
activations and output gradients; one weighted product of them is the sum. ``node.training.networks.tape`` makes
the passes, in float32, and everything from there on in float64.

1. A row's loss is differentiated, weighted by one over its patient's rows: their mean, as ever.
2. A patient's squared norm: of one row, |g|^2 |a|^2 over the layers; of several, their cross terms by
   inner products of rows (ghost norm) or the gradient itself, whichever is smaller in a layer; of
   more than 128, its gradient alone.
3. Clipped to the norm C' of ``privacy.rounding.clip_within``, below the sensitivity C by all that
   rounding may add; a patient whose rows cancel more than 64-fold is shortened further.
4. A row whose numbers are not finite (in float32: beyond 2^128) is taken as a row of zeros.
5. The weighted sum, in float64, is rounded to the grid.

Promise: one patient moves the sum by at most ``sensitivity`` in L2 norm (zero-out relation). For that a
row's activations and gradients must be the same bits wherever it stands; how they were rounded is then
a matter of the row alone. A matrix product computes each column by a fixed sequence of instructions that
no value changes; that the sequence is one for all places and block sizes is checked on this machine when
the engine is made, by the same row in every place. Of ``networks.products`` the first is taken that passes, the
last of them in float64, at twice the time; where all fail, the engine refuses to exist.

Not promised: the same bits as another machine or the exact engine; both agree to about 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from ledger.experiment.fast_clip import BLOCK_ROWS, MIXED_ROWS, Limits, clip_norm, norm_error
from ledger.experiment.network_spec import Linear, Sequential
from ledger.experiment.network_spec import parameter_count as count_of
from node.data.encode import Examples
from node.errors import JobRefused
from node.training.networks.elementwise import Task, loss_slope
from node.training.networks.modules import FloatVector
from node.training.networks.parameters import count_outputs, order_of, pieces_of, rooms_for
from node.training.networks.products import PRODUCTS
from node.training.networks.tape import Tape
from node.training.sums.isolation import Units, refuse_more_than_registered, sum_without_failing
from privacy.events import GRID
from privacy.rounding import CANCELLATION

_LANES = 64
"""Blocks have a multiple of so many columns, which fill a processor's vectors."""
FILLED_ROWS = 512
"""Up to here a block has any multiple of ``_LANES``; beyond, a power of two, for narrow networks."""
_CACHED_VALUES = 2**16
"""Of a block's columns, that a processor's cache holds."""
_PROBES = 2

IntVector = npt.NDArray[np.int64]


class DenseSum:
    """Sums the clipped gradients of a dataset's sampled patients.

    Args:
        tree: the model.
        task: its loss, as ``node.training.sums.exact.loss_of``.
        examples: the rows; kept in memory, transposed.
        limits: public bounds; no batch of ``examples`` can be beyond them.

    Raises:
        JobRefused: there are more of them than the bounds, which a registration refuses; or this machine
            rounds a row differently by its place.
    """

    per_layer = False
    """Whether each parameter tensor is clipped by itself."""

    def __init__(self, tree: Sequential, task: Task, examples: Examples, limits: Limits) -> None:
        refuse_more_than_registered(examples, limits)
        self._tree = tree
        self._task = task
        self._limits = limits
        self._loss = loss_slope(task)
        self._targets = torch.from_numpy(
            np.append(examples.targets, examples.targets.dtype.type(0))
        )
        self._counts = np.bincount(examples.patients, minlength=examples.units)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])
        self._everybody = np.arange(examples.units)
        self._alone = bool((self._counts == 1).all())
        self.parameters = count_of(tree)
        self._sum = np.zeros(self.parameters)
        self._sums = pieces_of(tree, self._sum)
        self._norm_error = norm_error(tree, limits)
        self._bounds: dict[int, float] = {}
        self._sizes = [FILLED_ROWS]
        width = examples.features.shape[1] + sum(len(p[0]) for p in self._sums if p)
        while 2 * self._sizes[-1] <= BLOCK_ROWS and 2 * self._sizes[-1] * width <= _CACHED_VALUES:
            self._sizes.append(2 * self._sizes[-1])
        self._order = order_of(tree)
        self._ordered = np.empty(self.parameters)
        self._take_precision(examples)

    def load(self, weights: FloatVector) -> None:
        """Take weights, float64 [d], in torch's order.

        Raises:
            JobRefused: d is not the model's number of parameters.
        """
        if weights.shape != (self.parameters,):
            raise JobRefused(
                f"the model has {self.parameters} parameters, the weights {weights.shape}"
            )
        np.take(weights, self._order, out=self._ordered, mode="wrap")
        np.copyto(self._flat.numpy(), self._ordered)

    def clipped_sum(self, taken: npt.NDArray[np.bool_] | None, sensitivity: int) -> IntVector:
        """Sum the clipped gradients of the units that ``taken`` says, WITHOUT noise.

        Args:
            taken: bool [units], or None for all.
            sensitivity: L2 bound on what one unit moves the sum by, grid units, 1 .. 2^53-1.

        Returns:
            int64 [d], grid units. It never leaves this room.

        A unit over whose rows the computation fails, or gives no finite number, adds zeros.

        Raises:
            InvalidParameter: rounding would take more than half of the sensitivity.
        """
        if sensitivity not in self._bounds:
            norm = clip_norm(self._tree, sensitivity, self._limits, self.per_layer)
            self._bounds[sensitivity] = norm / GRID
        bound = self._bounds[sensitivity]

        def sum_of(units: Units) -> FloatVector:
            total = self._sum_units(units, bound)
            if not np.isfinite(total).all():
                raise FloatingPointError("a sum is not finite")
            return total

        # A divided sum has at most 30 additions more in a row. ``fast_clip`` counts one for every 32 rows, and
        # blocks of a sum that can be divided so often take one for more than 60.
        total = sum_without_failing(self._units(taken), sum_of, lambda: np.zeros(self.parameters))
        total *= GRID
        whole: IntVector = np.rint(total, out=total).astype(np.int64)
        return whole

    def float_sum(self, taken: npt.NDArray[np.bool_] | None, bound: float) -> FloatVector:
        """Sum gradients clipped to a norm of ``bound``, before the grid: float64 [d]."""
        return self._sum_units(self._units(taken), bound)

    def _units(self, taken: npt.NDArray[np.bool_] | None) -> Units:
        return self._everybody if taken is None or taken.all() else np.flatnonzero(taken)

    def _sum_units(self, chosen: Units, bound: float) -> FloatVector:
        units = None if len(chosen) == len(self._counts) else chosen
        with np.errstate(all="ignore"):
            if self._alone and len(chosen):
                self._add_single_rows(units, bound)
            else:
                self._sum[...] = 0.0
                self._add_patients(units, bound)
        return self._sum.copy()

    def _add_single_rows(self, units: npt.NDArray[np.intp] | None, bound: float) -> None:
        rows = len(self._counts) if units is None else len(units)
        within = bound * (1.0 - self._norm_error)
        start = 0
        while start < rows:
            stop = start + self._block_for(rows - start)
            tape = self._run(slice(start, stop) if units is None else units[start:stop], None)
            norms = tape.norms()
            np.maximum(norms, within, out=norms)
            np.divide(within, norms, out=norms)
            tape.add_weighted(norms, self._sums, anew=start == 0)
            start = stop

    def _add_patients(self, units: npt.NDArray[np.intp] | None, bound: float) -> None:
        chosen = self._everybody if units is None else units
        counts = self._counts[chosen]
        error = self._norm_error
        for low, high in blocks_of(counts):
            sizes = counts[low:high]
            if sizes[0] > MIXED_ROWS:
                self._add_long_patient(int(chosen[low]), bound, error)
                continue
            rows = rows_of(self._starts[chosen[low:high]], sizes)
            tape = self._run(rows, np.repeat(1.0 / sizes, sizes))
            first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            lengths = np.add.reduceat(tape.norms()[: len(rows)], first)
            squares = tape.unit_squares(first, len(rows))
            factors = np.zeros(tape.size)
            factors[: len(rows)] = np.repeat(factors_of(squares, lengths, bound, error), sizes)
            tape.add_weighted(factors, self._sums)

    def _add_long_patient(self, unit: int, bound: float, error: float) -> None:
        """Add a patient whose rows are many: its gradient is formed, alone."""
        start, count = int(self._starts[unit]), int(self._counts[unit])
        mean = np.zeros(self.parameters)
        pieces = pieces_of(self._tree, mean)
        length = 0.0
        for low in range(start, start + count, FILLED_ROWS):
            rows = slice(low, min(low + FILLED_ROWS, start + count))
            tape = self._run(rows, np.full(rows.stop - low, 1.0 / count))
            length += float(tape.norms().sum())
            tape.add_weighted(np.ones(tape.size), pieces)
        square = float(np.vdot(mean, mean))
        self._sum += factors_of(np.array([square]), np.array([length]), bound, error)[0] * mean

    def _run(self, rows: slice | npt.NDArray[np.intp], weights: FloatVector | None) -> Tape:
        """Take rows forward and back; ``weights`` multiply their losses (None: 1)."""
        count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        tape = self._tape(-(-count // _LANES) * _LANES)
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        if count < tape.size:  # the last column is zeros
            rows = np.append(rows, np.full(tape.size - count, len(self._targets) - 1))
        chosen = torch.from_numpy(rows)
        torch.index_select(self._columns, 1, chosen, out=tape.inputs)
        np.take(self._input_squares, rows, out=tape.input_squares, mode="clip")
        tape.forward()
        self._loss(tape.outputs, torch.index_select(self._targets, 0, chosen), tape.gradient)
        if weights is not None:
            tape.gradient[:, :count] *= torch.from_numpy(weights).to(tape.gradient.dtype)
        if count < tape.size:
            tape.gradient[:, count:] = 0.0
        tape.backward()
        return tape

    def _block_for(self, rows: int) -> int:
        """How many of so many rows go into the next block."""
        return next((size for size in reversed(self._sizes) if size <= rows), rows)

    def _tape(self, size: int) -> Tape:
        tape = self._tapes.get(size)
        if tape is None:
            tape = Tape(self._tree, self._weights, size, self._product, input_squares=True)
            self._tapes[size] = tape
        return tape

    def _take_precision(self, examples: Examples) -> None:
        """Lay everything out for the first product that passes the check of places."""
        for self._product in PRODUCTS:
            dtype = self._product.dtype
            self._tapes: dict[int, Tape] = {}
            self._flat, self._weights = rooms_for(self._tree, dtype)
            self._matrices = [matrix.numpy() for matrix in self._weights]
            if self._places_agree(examples.features.shape[1], dtype):
                break
        else:
            raise JobRefused(
                "this machine's matrix product rounds a row by its place in a block, so the "
                "fast engine cannot bound what one patient changes; use privacy.engine: exact"
            )
        self._flat.zero_()
        rows = len(examples.features)
        room = -(-(rows + 1) // _LANES) * _LANES
        columns = np.zeros((examples.features.shape[1], room), dtype=np.float32)
        columns[:, :rows] = examples.features.T
        self._columns = torch.from_numpy(columns).to(dtype)
        first = self._tree.layers[0]
        self._input_squares = np.einsum("ij,ij->j", *(2 * [columns.astype(np.float64)]))
        self._input_squares += isinstance(first, Linear) and first.bias

    def _places_agree(self, width: int, dtype: torch.dtype) -> bool:
        """Find the same bits for the same row in every place of every size of block."""
        source = np.random.default_rng(1)
        outputs = count_outputs(self._tree)
        for _ in range(_PROBES):
            for matrix in self._matrices:
                matrix[...] = source.normal(
                    0.0, 1.0 / math.sqrt(max(1, matrix.shape[-1])), matrix.shape
                )
            row = torch.from_numpy(source.normal(size=(width, 1))).to(dtype)
            if outputs > 1:
                target = torch.from_numpy(source.integers(0, outputs, 1))
            else:
                target = torch.from_numpy(source.normal(size=1)).to(dtype)
            expected: list[npt.NDArray[np.floating]] = []
            for size in (*range(_LANES, FILLED_ROWS, _LANES), *self._sizes):
                tape = self._tape(size)
                tape.inputs[...] = row
                tape.forward()
                self._loss(tape.outputs, target.repeat(size), tape.gradient)
                tape.backward()
                found = tape.everything()
                expected = expected or [values[:, :1].copy() for values in found]
                if not all((a == b).all() for a, b in zip(found, expected, strict=True)):
                    return False
        return True


def factors_of(
    squares: FloatVector, lengths: FloatVector, bound: float, error: float
) -> FloatVector:
    """Clip factors of patients with several rows; ``lengths`` are the sums of their rows' norms."""
    norms = np.sqrt(np.maximum(squares, 0.0) + error * lengths * lengths)
    norms = np.maximum(norms, lengths / CANCELLATION)
    return bound / np.maximum(norms, bound)


def blocks_of(counts: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Split units into runs of at most ``MIXED_ROWS`` rows; a longer unit stands alone."""
    ends = np.cumsum(counts)
    low = 0
    while low < len(counts):
        before = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, before + MIXED_ROWS, side="right")))
        yield low, high
        low = high


def rows_of(starts: npt.NDArray[np.intp], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Row numbers of units that begin at ``starts``, one after the other."""
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows: npt.NDArray[np.intp] = np.arange(int(sizes.sum())) + np.repeat(starts - first, sizes)
    return rows
