"""A network over a block of rows: forward, backward, and what book-keeping asks of its layers.

Everything lies in arrays that are made once, one column a row of the dataset, so that a block's
passes allocate nothing. Two precisions: values and gradients are computed in the tape's dtype (float32
as a rule: half the time); then they are copied to float64, and norms, inner products and
sums are made of the copies. What float32 has rounded belongs to the row; what the sums round is
float64's, and charged (``privacy.rounding``).

Promise: a column's values and gradients depend on nothing but that column, as far as the matrix
product does so, which ``DenseSum`` checks. A column whose norm is not finite, or beyond 2^200, is
zeroed by ``norms`` before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ledger.experiment.layer_part import Activation
from ledger.experiment.network_spec import LayerNorm, Linear, Sequential
from node.training.networks.elementwise import FUNCTIONS, IN_PLACE
from node.training.networks.parameters import Pieces, width_in
from node.training.networks.products import Product
from node.training.networks.tape_room import FloatMatrix, TapeRoom

FloatVector = npt.NDArray[np.float64]

Tensor = tuple[FloatMatrix, FloatMatrix | None]
"""Of a parameter tensor: g [p, size] and a [q, size] of rows' gradients g a^T, or g alone."""

_BOUND = 2.0**400
"""On squares of norms: products of two of them, and sums of such products, are finite in float64."""
_NORM_EPSILON = 1e-5
_FEW_COLUMNS = 128
"""Up to here a call costs more than what it adds, and one product makes all squared norms."""


class Tape:
    """One forward and one backward pass over a block.

    Args:
        tree: the model.
        weights: one matrix a layer, as ``parameters.room_for`` makes them; read at each pass.
        size: columns.
        product: how it multiplies, in the dtype of the weights.
        input_squares: whether the caller writes the squared norm of what a first linear layer reads,
            its ones included, to ``input_squares`` before ``norms``.
    """

    def __init__(
        self,
        tree: Sequential,
        weights: Sequence[torch.Tensor],
        size: int,
        product: Product,
        *,
        input_squares: bool = False,
    ) -> None:
        self.size = size
        room = TapeRoom(tree, size, weights[0].dtype)
        self._steps: list[_LinearStep | _NormStep | _ActivationStep] = []
        width = width_in(tree)
        values = room.values(width, _reader(tree, 0))
        self.inputs = values[:width]
        gradient: torch.Tensor | None = None
        for index, (layer, matrix) in enumerate(zip(tree.layers, weights, strict=True)):
            step: _LinearStep | _NormStep | _ActivationStep
            if isinstance(layer, Activation) and _overwrites(tree, index):
                results = values
                step = _ActivationStep(layer.target, values[:width], results[:width], gradient)
            elif isinstance(layer, Activation):
                results = room.values(width, _reader(tree, index + 1))
                step = _ActivationStep(layer.target, values[:width], results[:width], gradient)
            elif isinstance(layer, LayerNorm):
                results = room.values(width, _reader(tree, index + 1))
                step = _NormStep(room, matrix, values[:width], results[:width], gradient)
            else:
                reader = _reader(tree, index + 1)
                results = room.values(layer.out_features, reader)
                if reader is None:  # outputs are read in the tape's own precision alone
                    results = torch.zeros_like(room.give_back(results))
                made = results[: layer.out_features]
                step = _LinearStep(room, product, matrix, width, values, made, gradient)
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
        self._room = room
        self._squares = np.empty((2, len(self._trained), size))
        self.input_squares = np.zeros(size)
        first = self._steps[0]
        self._knows_inputs = input_squares and isinstance(first, _LinearStep)
        if input_squares and isinstance(first, _LinearStep):
            first.known_squares = self.input_squares
        self._chosen = self._lines_of_each() if size <= _FEW_COLUMNS else None
        self._every_square = np.empty_like(room.used()[: 0 if self._chosen is None else None])

    def forward(self) -> None:
        """From ``inputs`` to ``outputs``."""
        for step in self._steps:
            step.forward()

    def backward(self) -> None:
        """From ``gradient``, of the outputs, to every layer's outputs; then all is copied to float64."""
        for step in reversed(self._steps):
            step.backward()
        self._room.widen()
        for step in self._steps:
            if isinstance(step, _NormStep):
                step.form_products()

    def norms(self) -> FloatVector:
        """Each column's gradient norm, [size]; columns that are not finite become zeros first."""
        squares = self._squares
        if self._chosen is None:
            for place, (_, step) in enumerate(self._trained):
                step.squares(squares[0, place], squares[1, place])
        else:
            lines = self._room.used()
            np.multiply(lines, lines, out=self._every_square)
            np.matmul(self._chosen, self._every_square, out=squares.reshape(-1, self.size))
            if self._knows_inputs:
                squares[0, 0] = self.input_squares
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
            if isinstance(step, _LinearStep) and step.parameters > rows:
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
        self, factors: FloatVector, sums: Sequence[Pieces], anew: bool = False
    ) -> None:
        """Add the columns' gradients times ``factors`` [size] to ``parameters.pieces_of``, or write them there."""
        for index, step in self._trained:
            step.add_weighted(factors, sums[index], anew)

    def tensors(self) -> Iterator[Tensor]:
        """Yield what makes the gradients of each parameter tensor, in torch's order; after ``norms``."""
        for _, step in self._trained:
            yield from step.tensors()

    def _lines_of_each(self) -> FloatMatrix | None:
        """Which lines of the room the squared norms of each layer add up, for all layers at once.

        Only where layers own all lines, and float32 keeps every square finite that is one: then a column
        that is broken for one way to add is broken for the other.
        """
        steps = [step for _, step in self._trained if isinstance(step, _LinearStep)]
        lines = len(self._room.used())
        chosen = np.zeros((2, len(self._trained), lines))
        for place, step in enumerate(steps):
            chosen[0, place, self._room.lines(step.values)] = 1.0
            chosen[1, place, self._room.lines(step.gradient)] = 1.0
        owned = bool((chosen.sum(axis=(0, 1)) == 1.0).all())
        if len(steps) < len(self._trained) or not owned or self._room.exact:
            return None
        return chosen.reshape(-1, lines)

    def everything(self) -> list[npt.NDArray[np.floating]]:
        """All values and gradients, for a check of places."""
        found = [self.outputs, self.gradient]
        for step in self._steps:
            found += [step.gradient, step.values]
        return [tensor.numpy() for tensor in found]


class _LinearStep:
    """z = W a; ``values`` is a with a row of ones below where there is a bias."""

    def __init__(
        self,
        room: TapeRoom,
        product: Product,
        matrix: torch.Tensor,
        width: int,
        values: torch.Tensor,
        results: torch.Tensor,
        below: torch.Tensor | None,
    ) -> None:
        self.values = values
        self.gradient = room.take(len(results))
        self.parameters = matrix.numel()
        self.known_squares: FloatVector | None = None
        self._width = width
        self._forward = product.bind(matrix, values, results)
        turned = matrix[:, :width].t()
        self._backward = None if below is None else product.bind(turned, self.gradient, below)
        self._wide_values = room.wide(values)
        self._wide_gradient = room.wide(self.gradient)
        self._scaled = np.empty_like(self._wide_values[:width])

    def forward(self) -> None:
        self._forward()

    def backward(self) -> None:
        if self._backward is not None:
            self._backward()

    def squares(self, a: FloatVector, g: FloatVector) -> None:
        if self.known_squares is None:
            np.einsum("ij,ij->j", self._wide_values, self._wide_values, out=a)
        else:
            a[...] = self.known_squares
        np.einsum("ij,ij->j", self._wide_gradient, self._wide_gradient, out=g)

    def silence(self, broken: npt.NDArray[np.bool_]) -> None:
        self._wide_values[:, broken] = 0.0
        self._wide_gradient[:, broken] = 0.0
        self._wide_values[self._width :] = 1.0

    def inner_products(self, rows: int) -> FloatMatrix:
        a, g = self._wide_values[:, :rows], self._wide_gradient[:, :rows]
        product: FloatMatrix = a.T @ a
        product *= g.T @ g
        return product

    def tensors(self) -> Iterator[Tensor]:
        yield self._wide_gradient, self._wide_values[: self._width]
        if len(self._wide_values) > self._width:
            yield self._wide_gradient, None

    def vectors(self, rows: int) -> Iterator[FloatMatrix]:
        product = self._wide_gradient[:, None, :rows] * self._wide_values[None, :, :rows]
        yield product.reshape(-1, rows)

    def add_weighted(self, factors: FloatVector, sums: Pieces, anew: bool) -> None:
        values, gradient = self._wide_values[: self._width], self._wide_gradient
        weights = sums[0]
        for biases in sums[1:]:
            _sum_into(gradient, factors, biases, anew)
        if len(values) < len(gradient):
            values = np.multiply(values, factors, out=self._scaled)
        else:
            gradient *= factors
        _sum_into(gradient, values.T, weights, anew)


class _NormStep:
    """y = x^ w + b over a column, x^ of mean 0 and variance 1; ``matrix`` is [w; b]."""

    def __init__(
        self,
        room: TapeRoom,
        matrix: torch.Tensor,
        source: torch.Tensor,
        results: torch.Tensor,
        below: torch.Tensor | None,
    ) -> None:
        self.values = room.take(len(results))
        self.gradient = room.take(len(results))
        self._scale_of, self._shift = (row[:, None] for row in matrix)
        self._source = source
        self._results = results
        self._below = below
        self._scale = torch.zeros_like(results[0])
        self._wide_products = np.empty(results.shape)
        self._wide_values = room.wide(self.values)
        self._wide_gradient = room.wide(self.gradient)

    def forward(self) -> None:
        width = len(self._source)
        torch.sub(self._source, _column_sums(self._source) / width, out=self.values)
        variance = _column_sums(self.values * self.values) / width
        torch.rsqrt(variance + _NORM_EPSILON, out=self._scale)
        self.values *= self._scale
        torch.addcmul(self._shift, self.values, self._scale_of, out=self._results)

    def backward(self) -> None:
        if self._below is None:
            return
        width = len(self._source)
        inner = self.gradient * self._scale_of
        along = _column_sums(inner * self.values) / width
        inner -= _column_sums(inner) / width
        inner -= self.values * along
        torch.mul(inner, self._scale, out=self._below)

    def form_products(self) -> None:
        np.multiply(self._wide_gradient, self._wide_values, out=self._wide_products)

    def squares(self, a: FloatVector, g: FloatVector) -> None:
        a[...] = 1.0
        np.einsum("ij,ij->j", self._wide_gradient, self._wide_gradient, out=g)
        g += np.einsum("ij,ij->j", self._wide_products, self._wide_products)

    def silence(self, broken: npt.NDArray[np.bool_]) -> None:
        self._wide_products[:, broken] = 0.0
        self._wide_gradient[:, broken] = 0.0

    def tensors(self) -> Iterator[Tensor]:
        yield self._wide_products, None
        yield self._wide_gradient, None

    def vectors(self, rows: int) -> Iterator[FloatMatrix]:
        yield self._wide_products[:, :rows]
        yield self._wide_gradient[:, :rows]

    def add_weighted(self, factors: FloatVector, sums: Pieces, anew: bool) -> None:
        _sum_into(self._wide_products, factors, sums[0], anew)
        _sum_into(self._wide_gradient, factors, sums[1], anew)


class _ActivationStep:
    """An elementwise function; its gradient overwrites that of its results."""

    def __init__(
        self, target: str, values: torch.Tensor, results: torch.Tensor, below: torch.Tensor | None
    ) -> None:
        self.values = values
        self.results = results
        self.gradient = torch.zeros_like(results) if below is None else below
        self._forward, self._backward = FUNCTIONS[target]

    def forward(self) -> None:
        self._forward(self.values, self.results)

    def backward(self) -> None:
        self._backward(self.values, self.results, self.gradient)


def _sum_into(a: FloatMatrix, b: npt.NDArray[Any], into: npt.NDArray[Any], anew: bool) -> None:
    """Multiply a by b, in place of ``into`` or added to it."""
    if anew:
        np.matmul(a, b, out=into)
    else:
        into += a @ b


def _column_sums(matrix: torch.Tensor) -> torch.Tensor:
    """Sum each column, from the top: in numpy, whose order over rows does not depend on the width."""
    sums: npt.NDArray[np.floating] = matrix.numpy().sum(axis=0)
    return torch.from_numpy(sums)


def _reader(tree: Sequential, index: int) -> Linear | LayerNorm | Activation | None:
    """The first layer from ``index`` on that does not overwrite what it reads."""
    for at in range(index, len(tree.layers)):
        if not _overwrites(tree, at):
            return tree.layers[at]
    return None


def _overwrites(tree: Sequential, index: int) -> bool:
    """Whether an activation may write over what it reads: a product or a norm, needed no more."""
    layer = tree.layers[index]
    told = isinstance(layer, Activation) and layer.target in IN_PLACE
    return told and index > 0 and not isinstance(tree.layers[index - 1], Activation)
