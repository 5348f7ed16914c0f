"""Where a network's parameters lie: in matrices that a pass multiplies by, and in one flat vector.

Promise: the flat vector is in torch's order, weights before biases, layer after layer; the pieces are
views, so that what is written to them stands in it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ledger.experiment.layer_part import Activation
from ledger.experiment.network_spec import LayerNorm, Linear, Sequential
from node.errors import JobRefused

Pieces = list[npt.NDArray[Any]]
"""A layer's parameters, or the like of them, one array each."""


def rooms_for(tree: Sequential, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Room for a network's parameters, zeros: all of it, [d], and each layer's part as a matrix.

    That is [W b] of a linear layer, [w; b] of a norm, nothing otherwise.
    """
    shapes = [_shape_of(layer) for layer in tree.layers]
    flat = torch.zeros(sum(map(math.prod, shapes)), dtype=dtype)
    parts = torch.split(flat, [math.prod(shape) for shape in shapes])
    return flat, [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def order_of(tree: Sequential) -> npt.NDArray[np.intp]:
    """Say where each number of ``rooms_for`` stands in the flat vector of torch's order: [d]."""
    flat, matrices = rooms_for(tree, torch.float64)
    pieces = pieces_of(tree, np.arange(len(flat), dtype=np.float64))
    for layer, own, matrix in zip(tree.layers, pieces, matrices, strict=True):
        for piece, place in zip(own, _places_in(layer, matrix.numpy()), strict=True):
            place[...] = piece
    return flat.numpy().astype(np.intp)


def _shape_of(layer: Linear | LayerNorm | Activation) -> tuple[int, int]:
    if isinstance(layer, Linear):
        return layer.out_features, layer.in_features + layer.bias
    if isinstance(layer, LayerNorm):
        return 2, layer.normalized_shape
    return 0, 1


def _places_in(layer: Linear | LayerNorm | Activation, matrix: npt.NDArray[Any]) -> Pieces:
    """Where a layer's parameters lie in its matrix, one place each, in torch's order."""
    if isinstance(layer, Linear):
        weights = matrix[:, : layer.in_features]
        return [weights, matrix[:, layer.in_features]] if layer.bias else [weights]
    return list(matrix)


def pieces_of(tree: Sequential, flat: npt.NDArray[np.float64]) -> list[Pieces]:
    """Each layer's parameters in a flat vector of all, one view each, in torch's order."""
    found: list[Pieces] = []
    at = 0
    for layer in tree.layers:
        shapes: list[tuple[int, ...]] = []
        if isinstance(layer, Linear):
            shapes = [(layer.out_features, layer.in_features)]
            shapes += [(layer.out_features,)] * layer.bias
        elif isinstance(layer, LayerNorm):
            shapes = [(layer.normalized_shape,)] * 2
        pieces: Pieces = []
        for shape in shapes:
            size = math.prod(shape)
            pieces.append(flat[at : at + size].reshape(shape))
            at += size
        found.append(pieces)
    return found


def width_in(tree: Sequential) -> int:
    """Number of inputs of a tree that has at least one layer with a width."""
    for layer in tree.layers:
        if isinstance(layer, Linear):
            return layer.in_features
        if isinstance(layer, LayerNorm):
            return layer.normalized_shape
    raise JobRefused("the model has no parameters to train")


def count_outputs(tree: Sequential) -> int:
    """Number of outputs of a tree that has at least one layer with a width."""
    for layer in reversed(tree.layers):
        if isinstance(layer, Linear):
            return layer.out_features
        if isinstance(layer, LayerNorm):
            return layer.normalized_shape
    raise JobRefused("the model has no parameters to train")
