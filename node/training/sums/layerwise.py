"""The ``fast`` engine with a clip for each parameter tensor: book-keeping, tensor by tensor.

Passes, precision and blocks are ``node.training.sums.dense``'s. A tensor's gradient of a row is an outer
product g a^T (a weight) or g itself (a bias, a norm's shift; its scale with g x^ in place of g). So norms
and weighted sums of each tensor come from the tape's arrays as those of the whole do, and each of the L
tensors is clipped by itself to bound / sqrt(L).

Promise: as ``DenseSum``, for every tensor with its share of the sensitivity: ``privacy.rounding``'s argument
is about one sum of products, and each tensor is one. Together the shares are the sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ledger.experiment.fast_clip import MIXED_ROWS, Limits
from ledger.experiment.network_spec import Sequential, parameter_shapes
from node.data.encode import Examples
from node.training.networks.elementwise import Task
from node.training.networks.modules import FloatVector
from node.training.networks.tape import Tape, Tensor
from node.training.networks.tape_room import FloatMatrix
from node.training.sums.dense import FILLED_ROWS, DenseSum, blocks_of, factors_of, rows_of
from node.training.sums.isolation import Units


class LayerwiseSum(DenseSum):
    """Sums gradients of a dataset's sampled patients, each tensor clipped by itself.

    Args, raises: as ``DenseSum``.
    """

    per_layer = True

    def __init__(self, tree: Sequential, task: Task, examples: Examples, limits: Limits) -> None:
        super().__init__(tree, task, examples, limits)
        sizes = [math.prod(shape) for _, shape in parameter_shapes(tree)]
        self._slots = [slice(low, high) for low, high in pairwise(np.cumsum([0, *sizes]).tolist())]

    def _sum_units(self, chosen: Units, bound: float) -> FloatVector:
        """Sum gradients of which each tensor is clipped to ``bound / sqrt(L)``: float64 [d]."""
        counts = self._counts[chosen]
        total = np.zeros(self.parameters)
        share = bound / math.sqrt(len(self._slots))
        with np.errstate(all="ignore"):
            if self._alone:
                self._add_rows(chosen, share, total)
            else:
                self._add_units(chosen, counts, share, total)
        return total

    def _add_rows(self, chosen: npt.NDArray[np.intp], share: float, total: FloatVector) -> None:
        """Add units of one row each."""
        within = share * (1.0 - self._norm_error)
        start = 0
        while start < len(chosen):
            stop = start + self._block_for(len(chosen) - start)
            tape = self._run(chosen[start:stop], None)
            for slot, tensor in self._tensors(tape):
                norms = np.sqrt(_squares(tensor))
                _add(tensor, within / np.maximum(norms, within), total[slot])
            start = stop

    def _add_units(
        self,
        chosen: npt.NDArray[np.intp],
        counts: npt.NDArray[np.int64],
        share: float,
        total: FloatVector,
    ) -> None:
        """Add units of any number of rows."""
        for low, high in blocks_of(counts):
            sizes = counts[low:high]
            if sizes[0] > MIXED_ROWS:
                self._add_one_long(int(chosen[low]), share, total)
                continue
            rows = rows_of(self._starts[chosen[low:high]], sizes)
            tape = self._run(rows, np.repeat(1.0 / sizes, sizes))
            first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            for slot, tensor in self._tensors(tape):
                lengths = np.add.reduceat(np.sqrt(_squares(tensor))[: len(rows)], first)
                squares = _unit_squares(tensor, first, len(rows))
                clips = factors_of(squares, lengths, share, self._norm_error)
                factors = np.zeros(tape.size)
                factors[: len(rows)] = np.repeat(clips, sizes)
                _add(tensor, factors, total[slot])

    def _add_one_long(self, unit: int, share: float, total: FloatVector) -> None:
        start, count = int(self._starts[unit]), int(self._counts[unit])
        mean = np.zeros_like(total)
        lengths = np.zeros(len(self._slots))
        for low in range(start, start + count, FILLED_ROWS):
            rows = slice(low, min(low + FILLED_ROWS, start + count))
            tape = self._run(rows, np.full(rows.stop - low, 1.0 / count))
            for place, (slot, tensor) in enumerate(self._tensors(tape)):
                lengths[place] += float(np.sqrt(_squares(tensor)).sum())
                _add(tensor, np.ones(tape.size), mean[slot])
        for slot, length in zip(self._slots, lengths, strict=True):
            square = np.array([float(np.vdot(mean[slot], mean[slot]))])
            factor = factors_of(square, np.array([length]), share, self._norm_error)[0]
            total[slot] += factor * mean[slot]

    def _tensors(self, tape: Tape) -> Iterator[tuple[slice, Tensor]]:
        tape.norms()  # silences columns that are not finite
        yield from zip(self._slots, tape.tensors(), strict=True)


def _squares(tensor: Tensor) -> FloatVector:
    """Each column's squared norm."""
    left, right = tensor
    squares: FloatVector = np.einsum("ij,ij->j", left, left)
    return squares if right is None else squares * np.einsum("ij,ij->j", right, right)


def _unit_squares(tensor: Tensor, first: npt.NDArray[np.intp], rows: int) -> FloatVector:
    """Squared norm of the summed gradient of the columns from each ``first`` to the next."""
    left, right = tensor[0][:, :rows], None if tensor[1] is None else tensor[1][:, :rows]
    if right is not None and len(left) * len(right) > rows:
        ghost: FloatMatrix = (left.T @ left) * (right.T @ right)
        blocks = np.add.reduceat(np.add.reduceat(ghost, first, axis=0), first, axis=1)
        return np.array(blocks.diagonal())
    if right is not None:
        left = (left[:, None] * right[None]).reshape(-1, rows)
    summed = np.add.reduceat(left, first, axis=1)
    squares: FloatVector = np.einsum("ij,ij->j", summed, summed)
    return squares


def _add(tensor: Tensor, factors: FloatVector, total: FloatVector) -> None:
    """Add the columns' gradients times ``factors`` to the tensor's part of the sum."""
    left, right = tensor
    if right is None:
        total += left @ factors
    elif len(right) < len(left):
        total += (left @ (right * factors).T).reshape(-1)
    else:
        total += ((left * factors) @ right.T).reshape(-1)
