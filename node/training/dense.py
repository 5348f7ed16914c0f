"""The ``fast`` engine for networks of linear layers, layer norms and activations: book-keeping.

The clipped sum of ``node.training.train`` without any patient's vector (Bu, Wang, Zha & Karypis 2022,
arXiv:2210.00038): one pass forward, one backward to the layers' outputs; each patient's norm from
activations and output gradients; one weighted product of them is the sum. Everything is float64 in
arrays that are made once, one column a row of the dataset; torch has no part in it.

1. A row's loss is differentiated, weighted by one over its patient's rows: their mean, as ever.
2. A patient's squared norm: of one row, |g|^2 |a|^2 over the layers; of several, their cross terms by
   inner products of rows (ghost norm) or the gradient itself, whichever is smaller in a layer; of
   more than 128, its gradient alone.
3. Clipped to the norm C' of ``privacy.rounding.clip_within``, below the sensitivity C by all that
   rounding may add; a patient whose rows cancel more than 64-fold is shortened further.
4. A row whose numbers are not finite, or are beyond 2^400, is taken as a row of zeros.
5. The weighted sum, in float64, is rounded to the grid.

Promise: one patient moves the sum by at most ``sensitivity`` in L2 norm (zero-out relation). For that a
row's activations and gradients must be the same bits wherever it stands. A matrix product computes
each column by a fixed sequence of instructions that no value changes; that the sequence is one for
all places and block sizes is checked on this machine when the engine is made, by the same row in
every place, and the engine refuses to exist where it is not so (OpenBLAS' float32 product would
fail; its float64 product does not).

Not promised: the same bits as another machine or the exact engine; both agree to about 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from ledger.experiment.fast_clip import BLOCK_ROWS, MIXED_ROWS, Limits, clip_norm, norm_error
from ledger.experiment.network_spec import Activation, LayerNorm, Linear, Sequential
from ledger.experiment.network_spec import parameter_count as count_of
from ledger.experiment.spec import BinaryTask, MulticlassTask, RegressionTask
from node.data.encode import Examples
from node.errors import JobRefused
from node.training.network import FloatVector
from privacy.events import GRID
from privacy.rounding import CANCELLATION

_LANES = 64
"""Blocks have a multiple of so many columns, which fill a processor's vectors."""
_FILLED_ROWS = 512
"""Up to here a block has any multiple of ``_LANES``; beyond, a power of two, for narrow networks."""
_CACHED_VALUES = 2**16
"""Of a block's columns, that a processor's cache holds."""
_BOUND = 2.0**800
"""On squares of norms."""
_NORM_EPSILON = 1e-5
_PROBES = 2

FloatMatrix = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]
Task = BinaryTask | MulticlassTask | RegressionTask


class DenseSum:
    """Sums the clipped gradients of a dataset's sampled patients.

    Args:
        tree: the model.
        task: its loss, as ``node.training.train.loss_of``.
        examples: the rows; kept in memory, transposed.
        limits: public bounds; a batch beyond them is refused by ``ValueError``.

    Raises:
        JobRefused: this machine rounds a row differently by its place.
    """

    def __init__(self, tree: Sequential, task: Task, examples: Examples, limits: Limits) -> None:
        self._tree = tree
        self._task = task
        self._limits = limits
        self._loss = _loss_gradient(task)
        self._columns = np.ascontiguousarray(examples.features.T)
        self._targets = examples.targets
        self._counts = np.bincount(examples.patients, minlength=examples.units)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])
        self._alone = bool((self._counts == 1).all())
        self._weights = [_room(layer) for layer in tree.layers]
        self._sums = [np.zeros_like(matrix) for matrix in self._weights]
        self._tapes: dict[int, _Tape] = {}
        self._norm_error = norm_error(tree, limits)
        self._bounds: dict[int, float] = {}
        self._sizes = [_FILLED_ROWS]
        width = len(self._columns) + sum(len(matrix) for matrix in self._weights)
        while 2 * self._sizes[-1] <= BLOCK_ROWS and 2 * self._sizes[-1] * width <= _CACHED_VALUES:
            self._sizes.append(2 * self._sizes[-1])
        self.parameters = count_of(tree)
        self._check_places()

    def load(self, weights: FloatVector) -> None:
        """Take weights, float64 [d], in torch's order.

        Raises:
            JobRefused: d is not the model's number of parameters.
        """
        if weights.shape != (self.parameters,):
            raise JobRefused(
                f"the model has {self.parameters} parameters, the weights {weights.shape}"
            )
        for flat, matrix in _pairs(self._tree, weights, self._weights):
            matrix[...] = flat

    def clipped_sum(self, taken: npt.NDArray[np.bool_] | None, sensitivity: int) -> IntVector:
        """Sum the clipped gradients of the units that ``taken`` says, WITHOUT noise.

        Args:
            taken: bool [units], or None for all.
            sensitivity: L2 bound on what one unit moves the sum by, grid units, 1 .. 2^53-1.

        Returns:
            int64 [d], grid units. It never leaves this room.

        Raises:
            ValueError: more rows than the public bounds.
            InvalidParameter: rounding would take more than half of the sensitivity.
        """
        if sensitivity not in self._bounds:
            self._bounds[sensitivity] = clip_norm(self._tree, sensitivity, self._limits) / GRID
        total = self.float_sum(taken, self._bounds[sensitivity])
        total *= GRID
        return np.rint(total).astype(np.int64)

    def float_sum(self, taken: npt.NDArray[np.bool_] | None, bound: float) -> FloatVector:
        """Sum gradients clipped to a norm of ``bound``, before the grid: float64 [d]."""
        units = None if taken is None or taken.all() else np.flatnonzero(taken)
        with np.errstate(all="ignore"):
            if self._alone and (units is None or len(units)) and len(self._counts):
                self._add_single_rows(units, bound)
            else:
                for matrix in self._sums:
                    matrix[...] = 0.0
                self._add_patients(units, bound)
        flat = np.empty(self.parameters)
        for piece, matrix in _pairs(self._tree, flat, self._sums):
            piece[...] = matrix
        return flat

    def _add_single_rows(self, units: npt.NDArray[np.intp] | None, bound: float) -> None:
        rows = len(self._counts) if units is None else len(units)
        self._check_size(rows, rows)
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
        chosen = np.arange(len(self._counts)) if units is None else units
        counts = self._counts[chosen]
        self._check_size(len(chosen), int(counts.sum()))
        error = self._norm_error
        for low, high in _blocks(counts):
            sizes = counts[low:high]
            if sizes[0] > MIXED_ROWS:
                self._add_long_patient(int(chosen[low]), bound, error)
                continue
            rows = _rows(self._starts[chosen[low:high]], sizes)
            tape = self._run(rows, np.repeat(1.0 / sizes, sizes))
            first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            lengths = np.add.reduceat(tape.norms()[: len(rows)], first)
            squares = tape.unit_squares(first, len(rows))
            factors = np.zeros(tape.size)
            factors[: len(rows)] = np.repeat(_factors(squares, lengths, bound, error), sizes)
            tape.add_weighted(factors, self._sums)

    def _add_long_patient(self, unit: int, bound: float, error: float) -> None:
        """Add a patient whose rows are many: its gradient is formed, alone."""
        start, count = int(self._starts[unit]), int(self._counts[unit])
        mean = [np.zeros_like(matrix) for matrix in self._sums]
        length = 0.0
        for low in range(start, start + count, _FILLED_ROWS):
            rows = slice(low, min(low + _FILLED_ROWS, start + count))
            tape = self._run(rows, np.full(rows.stop - low, 1.0 / count))
            length += float(tape.norms().sum())
            tape.add_weighted(np.ones(tape.size), mean)
        square = sum(float(np.vdot(matrix, matrix)) for matrix in mean)
        factor = _factors(np.array([square]), np.array([length]), bound, error)[0]
        for total, matrix in zip(self._sums, mean, strict=True):
            total += factor * matrix

    def _run(self, rows: slice | npt.NDArray[np.intp], weights: FloatVector | None) -> _Tape:
        """Take rows forward and back; ``weights`` multiply their losses (None: 1)."""
        targets = self._targets[rows]
        count = len(targets)
        tape = self._tape(-(-count // _LANES) * _LANES)
        if isinstance(rows, slice):
            tape.inputs[:, :count] = self._columns[:, rows]
        else:
            tape.inputs[:, :count] = np.take(self._columns, rows, axis=1)
        tape.inputs[:, count:] = 0.0
        tape.forward()
        self._loss(tape.outputs, targets, tape.gradient)
        if weights is not None:
            tape.gradient[:, :count] *= weights
        tape.gradient[:, count:] = 0.0
        tape.backward()
        return tape

    def _block_for(self, rows: int) -> int:
        """How many of so many rows go into the next block."""
        return next((size for size in reversed(self._sizes) if size <= rows), rows)

    def _tape(self, size: int) -> _Tape:
        tape = self._tapes.get(size)
        if tape is None:
            tape = self._tapes[size] = _Tape(self._tree, self._weights, size)
        return tape

    def _check_size(self, patients: int, rows: int) -> None:
        if patients > self._limits.patients or rows > self._limits.rows:
            raise ValueError("more rows than were declared")

    def _check_places(self) -> None:
        """Find the same bits for the same row in every place of every size of block."""
        source = np.random.default_rng(1)
        outputs = count_outputs(self._tree)
        kept = [matrix.copy() for matrix in self._weights]
        for _ in range(_PROBES):
            for matrix in self._weights:
                matrix[...] = source.normal(
                    0.0, 1.0 / math.sqrt(max(1, matrix.shape[-1])), matrix.shape
                )
            row = source.normal(size=(len(self._columns), 1))
            target = source.integers(0, outputs, 1) if outputs > 1 else source.normal(size=1)
            expected: list[FloatMatrix] = []
            for size in (*range(_LANES, _FILLED_ROWS, _LANES), *self._sizes):
                tape = self._tape(size)
                tape.inputs[...] = row
                tape.forward()
                self._loss(tape.outputs, np.repeat(target, size), tape.gradient)
                tape.backward()
                found = tape.everything()
                expected = expected or [values[:, :1].copy() for values in found]
                if not all((a == b).all() for a, b in zip(found, expected, strict=True)):
                    raise JobRefused(
                        "this machine's matrix product rounds a row by its place in a block, so the "
                        "fast engine cannot bound what one patient changes; use privacy.engine: exact"
                    )
        for matrix, values in zip(self._weights, kept, strict=True):
            matrix[...] = values


class _Tape:
    """One forward and one backward pass over a block of ``size`` columns."""

    def __init__(self, tree: Sequential, weights: Sequence[FloatMatrix], size: int) -> None:
        self.size = size
        self._steps: list[_LinearStep | _NormStep | _ActivationStep] = []
        width = _width_in(tree)
        values = _values(width, _reader(tree, 0), size)
        self.inputs = values[:width]
        gradient: FloatMatrix | None = None
        for index, (layer, matrix) in enumerate(zip(tree.layers, weights, strict=True)):
            step: _LinearStep | _NormStep | _ActivationStep
            if isinstance(layer, Activation) and _overwrites(tree, index):
                results = values
                step = _ActivationStep(layer.target, values[:width], results[:width], gradient)
            elif isinstance(layer, Activation):
                results = _values(width, _reader(tree, index + 1), size)
                step = _ActivationStep(layer.target, values[:width], results[:width], gradient)
            elif isinstance(layer, LayerNorm):
                results = _values(width, _reader(tree, index + 1), size)
                step = _NormStep(matrix, values[:width], results[:width], gradient)
            else:
                results = _values(layer.out_features, _reader(tree, index + 1), size)
                products = results[: layer.out_features]
                step = _LinearStep(matrix, width, values, products, gradient)
                width = layer.out_features
            self._steps.append(step)
            values, gradient = results, step.gradient
        self.outputs = values[:width]
        assert gradient is not None
        self.gradient = gradient
        self._trained = [
            (index, step)
            for index, step in enumerate(self._steps)
            if not isinstance(step, _ActivationStep)
        ]
        self._squares = np.empty((2, len(self._trained), size))

    def forward(self) -> None:
        """From ``inputs`` to ``outputs``."""
        for step in self._steps:
            step.forward()

    def backward(self) -> None:
        """From ``gradient``, of the outputs, to every layer's outputs."""
        for step in reversed(self._steps):
            step.backward()

    def norms(self) -> FloatVector:
        """Each column's gradient norm, [size]; columns that are not finite become zeros first."""
        squares = self._squares
        for place, (_, step) in enumerate(self._trained):
            step.squares(squares[0, place], squares[1, place])
        if not squares.max() < _BOUND:
            broken = np.asarray(~(squares < _BOUND).all(axis=(0, 1)))
            for _, step in self._trained:
                step.silence(broken)
            squares[:, :, broken] = 0.0
        norms: FloatVector = np.einsum("lj,lj->j", squares[0], squares[1])
        return np.sqrt(norms, out=norms)

    def unit_squares(self, first: npt.NDArray[np.intp], rows: int) -> FloatVector:
        """Squared norm of the summed gradient of the columns from each ``first`` to the next."""
        total = np.zeros(len(first))
        ghost: FloatMatrix | None = None
        for _, step in self._trained:
            if isinstance(step, _LinearStep) and step.matrix.size > rows:
                part = step.inner_products(rows)
                ghost = part if ghost is None else np.add(ghost, part, out=ghost)
            else:
                for vectors in step.vectors(rows):
                    summed = np.add.reduceat(vectors, first, axis=1)
                    total += np.einsum("ij,ij->j", summed, summed)
        if ghost is not None:
            total += np.add.reduceat(
                np.add.reduceat(ghost, first, axis=0), first, axis=1
            ).diagonal()
        return total

    def add_weighted(
        self, factors: FloatVector, sums: Sequence[FloatMatrix], anew: bool = False
    ) -> None:
        """Add the columns' gradients times ``factors`` [size] to ``sums``, or write them there."""
        for index, step in self._trained:
            step.add_weighted(factors, sums[index], anew)

    def everything(self) -> list[FloatMatrix]:
        """All values and gradients, for ``_check_places``."""
        found = [self.outputs, self.gradient]
        for step in self._steps:
            found.append(step.gradient)
            found.append(step.values)
        return found


class _LinearStep:
    """z = W a; ``values`` is a with a row of ones below where there is a bias."""

    def __init__(
        self,
        matrix: FloatMatrix,
        width: int,
        values: FloatMatrix,
        results: FloatMatrix,
        below: FloatMatrix | None,
    ) -> None:
        self.matrix = matrix
        self.values = values
        self._width = width
        self.gradient = np.empty_like(results)
        self._results = results
        self._below = below
        self._turned = None if below is None else matrix[:, :width].T

    def forward(self) -> None:
        np.matmul(self.matrix, self.values, out=self._results)

    def backward(self) -> None:
        if self._turned is not None:
            np.matmul(self._turned, self.gradient, out=self._below)

    def squares(self, a: FloatVector, g: FloatVector) -> None:
        np.einsum("ij,ij->j", self.values, self.values, out=a)
        np.einsum("ij,ij->j", self.gradient, self.gradient, out=g)

    def silence(self, broken: npt.NDArray[np.bool_]) -> None:
        self.values[:, broken] = 0.0
        self.gradient[:, broken] = 0.0
        self.values[self._width :] = 1.0

    def inner_products(self, rows: int) -> FloatMatrix:
        a, g = self.values[:, :rows], self.gradient[:, :rows]
        product: FloatMatrix = a.T @ a
        product *= g.T @ g
        return product

    def vectors(self, rows: int) -> Iterator[FloatMatrix]:
        product = self.gradient[:, None, :rows] * self.values[None, :, :rows]
        yield product.reshape(-1, rows)

    def add_weighted(self, factors: FloatVector, total: FloatMatrix, anew: bool) -> None:
        values = self.values
        if len(values) < len(self.gradient):
            values = values * factors
        else:
            self.gradient *= factors
        if anew:
            np.matmul(self.gradient, values.T, out=total)
        else:
            total += self.gradient @ values.T


class _NormStep:
    """y = x^ w + b over a column, x^ of mean 0 and variance 1; ``matrix`` is [w; b]."""

    def __init__(
        self,
        matrix: FloatMatrix,
        source: FloatMatrix,
        results: FloatMatrix,
        below: FloatMatrix | None,
    ) -> None:
        self.matrix = matrix
        self.values = np.empty_like(results)
        self.gradient = np.empty_like(results)
        self._source = source
        self._results = results
        self._below = below
        self._scale = np.empty(results.shape[1])
        self._products = np.empty_like(results)

    def forward(self) -> None:
        width = len(self._source)
        np.subtract(self._source, self._source.sum(axis=0) / width, out=self.values)
        variance = np.einsum("ij,ij->j", self.values, self.values) / width
        np.divide(1.0, np.sqrt(variance + _NORM_EPSILON), out=self._scale)
        self.values *= self._scale
        np.multiply(self.values, self.matrix[0][:, None], out=self._results)
        self._results += self.matrix[1][:, None]

    def backward(self) -> None:
        np.multiply(self.gradient, self.values, out=self._products)
        if self._below is None:
            return
        width = len(self._source)
        inner = self.gradient * self.matrix[0][:, None]
        along = np.einsum("ij,ij->j", inner, self.values) / width
        inner -= inner.sum(axis=0) / width
        inner -= self.values * along
        np.multiply(inner, self._scale, out=self._below)

    def squares(self, a: FloatVector, g: FloatVector) -> None:
        a[...] = 1.0
        np.einsum("ij,ij->j", self.gradient, self.gradient, out=g)
        g += np.einsum("ij,ij->j", self._products, self._products)

    def silence(self, broken: npt.NDArray[np.bool_]) -> None:
        self._products[:, broken] = 0.0
        self.gradient[:, broken] = 0.0

    def vectors(self, rows: int) -> Iterator[FloatMatrix]:
        yield self._products[:, :rows]
        yield self.gradient[:, :rows]

    def add_weighted(self, factors: FloatVector, total: FloatMatrix, anew: bool) -> None:
        if anew:
            total[...] = 0.0
        total[0] += self._products @ factors
        total[1] += self.gradient @ factors


class _ActivationStep:
    """An elementwise function; its gradient overwrites that of its results."""

    def __init__(
        self, target: str, values: FloatMatrix, results: FloatMatrix, below: FloatMatrix | None
    ) -> None:
        self.values = values
        self.results = results
        self.gradient = np.empty_like(results) if below is None else below
        self._forward, self._backward = _FUNCTIONS[target]

    def forward(self) -> None:
        self._forward(self.values, self.results)

    def backward(self) -> None:
        self._backward(self.values, self.results, self.gradient)


def count_outputs(tree: Sequential) -> int:
    """Number of outputs of a tree that has at least one layer with a width."""
    for layer in reversed(tree.layers):
        if isinstance(layer, Linear):
            return layer.out_features
        if isinstance(layer, LayerNorm):
            return layer.normalized_shape
    raise JobRefused("the model has no parameters to train")


def _factors(squares: FloatVector, lengths: FloatVector, bound: float, error: float) -> FloatVector:
    """Clip factors of patients with several rows; ``lengths`` are the sums of their rows' norms."""
    norms = np.sqrt(np.maximum(squares, 0.0) + error * lengths * lengths)
    norms = np.maximum(norms, lengths / CANCELLATION)
    return bound / np.maximum(norms, bound)


def _blocks(counts: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Split units into runs of at most ``MIXED_ROWS`` rows; a longer unit stands alone."""
    ends = np.cumsum(counts)
    low = 0
    while low < len(counts):
        before = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, before + MIXED_ROWS, side="right")))
        yield low, high
        low = high


def _rows(starts: npt.NDArray[np.intp], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Row numbers of units that begin at ``starts``, one after the other."""
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows: npt.NDArray[np.intp] = np.arange(int(sizes.sum())) + np.repeat(starts - first, sizes)
    return rows


def _room(layer: Linear | LayerNorm | Activation) -> FloatMatrix:
    if isinstance(layer, Linear):
        return np.zeros((layer.out_features, layer.in_features + layer.bias))
    if isinstance(layer, LayerNorm):
        return np.zeros((2, layer.normalized_shape))
    return np.zeros((0, 1))


def _pairs(
    tree: Sequential, flat: FloatVector, matrices: Sequence[FloatMatrix]
) -> Iterator[tuple[FloatMatrix, FloatMatrix]]:
    """Pieces of a flat vector beside the parts of the matrices that hold the same parameters."""
    at = 0
    for layer, matrix in zip(tree.layers, matrices, strict=True):
        if isinstance(layer, Linear):
            size = layer.out_features * layer.in_features
            piece = flat[at : at + size].reshape(layer.out_features, layer.in_features)
            yield piece, matrix[:, : layer.in_features]
            at += size
            if layer.bias:
                yield flat[at : at + layer.out_features], matrix[:, -1]
                at += layer.out_features
        elif isinstance(layer, LayerNorm):
            yield flat[at : at + matrix.size].reshape(matrix.shape), matrix
            at += matrix.size


def _values(width: int, reader: Linear | LayerNorm | Activation | None, size: int) -> FloatMatrix:
    """Room for what a layer reads: with a row of ones below, where it is linear with a bias."""
    extra = isinstance(reader, Linear) and reader.bias
    values = np.zeros((width + extra, size))
    if extra:
        values[-1] = 1.0
    return values


def _reader(tree: Sequential, index: int) -> Linear | LayerNorm | Activation | None:
    """The first layer from ``index`` on that does not overwrite what it reads."""
    for at in range(index, len(tree.layers)):
        if not _overwrites(tree, at):
            return tree.layers[at]
    return None


def _overwrites(tree: Sequential, index: int) -> bool:
    """Whether an activation may write over what it reads: a product or a norm, needed no more."""
    layer = tree.layers[index]
    told = isinstance(layer, Activation) and layer.target in _IN_PLACE
    return told and index > 0 and not isinstance(tree.layers[index - 1], Activation)


def _width_in(tree: Sequential) -> int:
    for layer in tree.layers:
        if isinstance(layer, Linear):
            return layer.in_features
        if isinstance(layer, LayerNorm):
            return layer.normalized_shape
    raise JobRefused("the model has no parameters to train")


_Loss = Callable[[FloatMatrix, npt.NDArray[np.generic], FloatMatrix], None]


def _loss_gradient(task: Task) -> _Loss:
    """The derivative of each row's loss by its outputs, written over the first columns of ``into``."""
    if isinstance(task, BinaryTask):
        return _binary
    if isinstance(task, MulticlassTask):
        return _multiclass
    return _squared


def _binary(outputs: FloatMatrix, targets: npt.NDArray[np.generic], into: FloatMatrix) -> None:
    _sigmoid(outputs, into)
    into[0, : len(targets)] -= targets.astype(np.float64)


def _multiclass(outputs: FloatMatrix, targets: npt.NDArray[np.generic], into: FloatMatrix) -> None:
    np.subtract(outputs, outputs.max(axis=0), out=into)
    np.exp(into, out=into)
    into /= into.sum(axis=0)
    into[targets, np.arange(len(targets))] -= 1.0


def _squared(outputs: FloatMatrix, targets: npt.NDArray[np.generic], into: FloatMatrix) -> None:
    np.multiply(outputs, 2.0, out=into)
    into[0, : len(targets)] -= 2.0 * targets.astype(np.float64)


def _sigmoid(z: FloatMatrix, into: FloatMatrix) -> None:
    np.multiply(z, 0.5, out=into)
    np.tanh(into, out=into)
    into *= 0.5
    into += 0.5


def _relu(z: FloatMatrix, y: FloatMatrix) -> None:
    np.maximum(z, 0.0, out=y)


def _relu_back(z: FloatMatrix, y: FloatMatrix, g: FloatMatrix) -> None:
    np.multiply(g, y > 0.0, out=g)


def _tanh(z: FloatMatrix, y: FloatMatrix) -> None:
    np.tanh(z, out=y)


def _tanh_back(z: FloatMatrix, y: FloatMatrix, g: FloatMatrix) -> None:
    slope = y * y
    np.subtract(1.0, slope, out=slope)
    g *= slope


def _sigmoid_back(z: FloatMatrix, y: FloatMatrix, g: FloatMatrix) -> None:
    g *= y * (1.0 - y)


def _gelu(z: FloatMatrix, y: FloatMatrix) -> None:
    np.multiply(z, ndtr(z), out=y)


def _gelu_back(z: FloatMatrix, y: FloatMatrix, g: FloatMatrix) -> None:
    g *= ndtr(z) + z * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _silu(z: FloatMatrix, y: FloatMatrix) -> None:
    _sigmoid(z, y)
    y *= z


def _silu_back(z: FloatMatrix, y: FloatMatrix, g: FloatMatrix) -> None:
    slope = np.empty_like(z)
    _sigmoid(z, slope)
    g *= slope * (1.0 + z * (1.0 - slope))


def _elu(z: FloatMatrix, y: FloatMatrix) -> None:
    np.copyto(y, np.where(z > 0.0, z, np.expm1(np.minimum(z, 0.0))))


def _elu_back(z: FloatMatrix, y: FloatMatrix, g: FloatMatrix) -> None:
    g *= np.where(y > 0.0, 1.0, y + 1.0)


def _softplus(z: FloatMatrix, y: FloatMatrix) -> None:
    np.logaddexp(z, 0.0, out=y)


def _softplus_back(z: FloatMatrix, y: FloatMatrix, g: FloatMatrix) -> None:
    slope = np.empty_like(z)
    _sigmoid(z, slope)
    g *= slope


_Forward = Callable[[FloatMatrix, FloatMatrix], None]
_Backward = Callable[[FloatMatrix, FloatMatrix, FloatMatrix], None]
_FUNCTIONS: dict[str, tuple[_Forward, _Backward]] = {
    "torch.nn.ReLU": (_relu, _relu_back),
    "torch.nn.Tanh": (_tanh, _tanh_back),
    "torch.nn.Sigmoid": (_sigmoid, _sigmoid_back),
    "torch.nn.GELU": (_gelu, _gelu_back),
    "torch.nn.SiLU": (_silu, _silu_back),
    "torch.nn.ELU": (_elu, _elu_back),
    "torch.nn.Softplus": (_softplus, _softplus_back),
}
_IN_PLACE = ("torch.nn.ReLU", "torch.nn.Tanh", "torch.nn.Sigmoid", "torch.nn.ELU")
"""Functions whose slope is told by their results, which may therefore overwrite what they read."""
