"""To what norm the ``fast`` engine clips: a function of public numbers, so that anyone recomputes it.

``privacy.rounding`` holds the argument; this module counts, for a network and a site, what it asks for:
the products in a squared norm, the additions on the way to a coordinate, and the most patients and
rows that a node admits to a dataset. ``node.training.sums.dense`` computes in the order that is counted
here, with the block sizes that stand here.

Promise: the same numbers at the researcher, the node and the auditor, before any data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ledger.experiment.network_spec import LayerNorm, Linear, Sequential, parameter_shapes
from privacy.rounding import clip_within, clip_within_blocks, gamma

BLOCK_ROWS: Final = 4096
"""Most rows that are added up in one matrix product."""
MIXED_ROWS: Final = 128
"""Most rows of such a block where patients have several, and of a patient in it."""
ADDED_ROWS: Final = 64
"""Rows whose gradients are added in float32, for trees with embeddings or series."""
KEPT_VALUES: Final = 2**16
"""Most values of such a layer's gradient over which a norm is taken in float32: wider ones are not kept."""
ROWS_EACH: Final = 32
"""Most rows of one patient that are read where the schema declares no ``rows_per_patient``, views of a
row aside: later ones are left out.

So what all patients together may bring follows from how many they are, and no patient's rows decide
whether others' are summed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Public bounds on what may be in a sum.

    Attributes:
        patients: most units.
        rows: most rows of all units.
    """

    patients: int
    rows: int


def clip_norm(tree: Sequential, sensitivity: int, limits: Limits, per_layer: bool = False) -> float:
    """Return the norm that the fast engine clips to.

    Args:
        tree: the model.
        sensitivity: what is charged, grid units.
        limits: of the site.
        per_layer: each of the L parameter tensors is clipped by itself, to that norm over sqrt(L):
            the sum of a tensor is then a sum of its own, with sensitivity floor(sensitivity / sqrt(L)).

    Returns:
        Grid units, below ``sensitivity``.

    Raises:
        InvalidParameter: rounding would take more than half of the sensitivity.
        InvalidEvent: a number is out of range.
    """
    sizes = [math.prod(shape) for _, shape in parameter_shapes(tree)]
    tensors = len(sizes) if per_layer else 1
    share = math.isqrt(sensitivity * sensitivity // tensors)
    if tree.embeddings or tree.series:
        norm = clip_within_blocks(
            share,
            parameters=max(sizes) if per_layer else sum(sizes),
            kept=max(sizes) if per_layer else KEPT_VALUES,
            added=ADDED_ROWS,
            patients=limits.patients,
        )
        return norm * math.sqrt(tensors) * (1.0 - 2.0**-50) if per_layer else norm
    norm = clip_within(
        share,
        parameters=max(sizes) if per_layer else sum(sizes),
        terms=_terms(tree, limits),
        depth=_depth(limits),
        patients=limits.patients,
    )
    # The margin outweighs what the root and the division by it round.
    return norm * math.sqrt(tensors) * (1.0 - 2.0**-50) if per_layer else norm


def norm_error(tree: Sequential, limits: Limits) -> float:
    """Return the relative error of a computed squared norm, of the sum of its rows' norms squared."""
    return gamma(_terms(tree, limits))


def _terms(tree: Sequential, limits: Limits) -> int:
    widths = 0
    for layer in tree.layers:
        if isinstance(layer, Linear):
            widths += layer.in_features + layer.out_features + 3
        elif isinstance(layer, LayerNorm):
            widths += 2 * layer.normalized_shape + 3
    return widths + 2 * MIXED_ROWS + _depth(limits)


def _depth(limits: Limits) -> int:
    """Inside a block, then over the blocks, of which any two in a row hold over 128 rows."""
    return BLOCK_ROWS + 8 + limits.rows // 32
