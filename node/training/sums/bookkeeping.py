"""Clipped sums for any torch module: book-keeping where it is exact, ``vmap`` for the rest.

What ``node.training.sums.dense`` is for the networks that a spec can name, this is for convolutions,
embeddings, group, layer and instance norms, recurrent cells and whatever else torch differentiates.
``clipped_sum_of`` chooses: book-keeping (Bu et al. 2022, arXiv:2210.00038), if every parameter belongs
to a layer that ``node.training.layers.rules`` has a rule for and is used once; ``torch.func.vmap`` over
rows, if not. ``GradSampleModule`` of Opacus stays the reference that tests compare with.

1. One forward pass in float32; one backward pass to the layers' outputs, no further.
2. A patient is its rows' mean. Norms by the layers' rules, in float64; a patient with a number that is
   not finite becomes zero.
3. The weighted sum, in float64, or of float32 gradients 64 rows at a time.
4. Rounded to the grid by ``node.training.sums.noisy_sum``, after clipping to ``clip_norm``, below the sensitivity by
   what 2 and 3 may round.

Promise: one patient moves the sum by at most the sensitivity, where a row's activations are the same
bits wherever it stands in a block; ``check_places`` finds out on this machine, and the engine refuses
where they are not. Rows are handled in blocks of one fixed size, padded with zeros. Refused: batch norms
and dropout (a row would depend on others, or on chance), TF32, bfloat16, autocast.

Not promised: fitness for a spec's networks, which need none of this, nor speed on a processor other
than the ones measured (benchmarks/README.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from node.errors import JobRefused
from node.training.layers.recurrent import unroll
from node.training.layers.rule import Rule, squares_of
from node.training.layers.rules import rule_for
from node.training.layers.taps import Taps
from node.training.sums.blocks import ADDED_ROWS, Blocks, ClippedSum, RowLoss, probe, weighted
from node.training.sums.row_gradients import VmapSum
from privacy.rounding import BLOCK_CANCELLATION

_KEPT_VALUES = 5 * 2**19
"""Most values of a layer's gradients of 64 rows that are kept between norm and sum."""
_REFUSED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU)

Pieces = list[torch.Tensor]


def clipped_sum_of(
    module: nn.Module, loss: RowLoss, example: torch.Tensor, *, per_layer: bool = False
) -> ClippedSum:
    """Make the fastest engine that is exact for a module.

    Args:
        module: float32 or float64, on the CPU; its parameters are read at each call.
        loss: one loss a row.
        example: rows for their shape, as many as a batch is expected to have: a public number.
        per_layer: clip each parameter tensor by itself, from rows' own gradients of it.

    Raises:
        JobRefused: the module mixes rows, uses chance or reduced precision, or this machine rounds
            a row by its place.
    """
    _refuse(module)
    unroll(module)
    engine: Blocks
    if _has_rules(module) and _used_once(module, example):
        engine = BookKeeping(module, loss, len(example), per_layer=per_layer)
    else:
        engine = VmapSum(module, loss, len(example), per_layer=per_layer)
    engine.check_places(example)
    return engine


class BookKeeping(Blocks):
    """Norms and sums from activations and output gradients. Made by ``clipped_sum_of``."""

    path = "book-keeping"

    def __init__(
        self, module: nn.Module, loss: RowLoss, rows: int, *, per_layer: bool = False
    ) -> None:
        super().__init__(module, loss, rows, per_layer=per_layer)
        self._rules: dict[nn.Module, Rule] = {}
        at = {id(p): i for i, p in enumerate(self._parameters)}
        starts = np.cumsum([0, *(p.numel() for p in self._parameters)])
        for layer in module.modules():
            own = list(layer.parameters(recurse=False))
            if own:
                places = [int(starts[at[id(p)]]) for p in own]
                rule = rule_for(layer, places)
                assert rule is not None  # ``clipped_sum_of`` has looked
                self._rules[layer] = rule

    def _kept_size(self) -> int:
        return max([1, *(r.size for r in self._rules.values() if self._keeps(r))])

    @property
    def kept_size(self) -> int:
        """The most scalars over which a norm is taken in float32."""
        return self._kept_size()

    def _keeps(self, rule: Rule) -> bool:
        return self.per_layer or rule.keeps(_KEPT_VALUES, ADDED_ROWS)

    def check_places(self, example: torch.Tensor) -> None:
        """As ``Blocks.check_places``: values, gradients and kept vectors, permuted."""
        inputs, targets = probe(self._module, self._loss, example, self.block)
        order = torch.randperm(self.block, generator=torch.Generator().manual_seed(1))
        weights = torch.ones(self.block)
        found = []
        for chosen in (torch.arange(self.block), order):
            taps = self._differentiate(self._pad(inputs[chosen]), targets[chosen], weights)
            values = []
            for rule, a, g in taps:
                values += [a, g]
                if self._keeps(rule):
                    values += rule.vectors(a, g)
            found.append([value.clone() for value in values])  # the next pass writes over them
        for straight, mixed in zip(*found, strict=True):
            if not torch.equal(straight[order], mixed):
                raise JobRefused(
                    "the module or this machine lets a row's numbers depend on its place or on "
                    "other rows, so the fast engine cannot bound what one patient changes"
                )

    def _differentiate(
        self, inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> list[tuple[Rule, torch.Tensor, torch.Tensor]]:
        """Each layer's rule, inputs and output gradients for a padded block."""
        with Taps(self._rules) as taps:
            losses = self._loss(self._module(inputs), targets) * weights
            gradients = torch.autograd.grad(losses.sum(), taps.edges, allow_unused=True)
        layers = [
            (rule, a.detach(), torch.zeros_like(output) if g is None else g)
            for (rule, a, output), g in zip(taps.caught, gradients, strict=True)
            if a is not None
        ]
        taps.edges.clear()
        taps.caught.clear()  # what hears of a backward pass holds the taps: a ring, and all of the pass in it
        return layers + taps.seen

    def _add_block(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        counts: npt.NDArray[np.int64],
        bound: float,
        total: torch.Tensor,
    ) -> None:
        rows = len(inputs)
        alone = rows == len(counts)
        weights = torch.zeros(self.block, dtype=torch.float32)
        weights[:rows] = 1.0 if alone else torch.from_numpy(np.repeat(1.0 / counts, counts))
        layers = self._differentiate(self._pad(inputs), self._pad(targets), weights)
        with torch.no_grad():
            kept = [rule.vectors(a, g) if self._keeps(rule) else None for rule, a, g in layers]
            lengths, squares = _silence(layers, kept)
            lengths.sqrt_()
            layers = [
                (rule, a, g) if pieces is not None else (rule, *rule.prepare(a, g))
                for (rule, a, g), pieces in zip(layers, kept, strict=True)
            ]
            owner = torch.arange(self.block)
            if not alone:
                owner[:rows] = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
                owner[rows:] = len(counts)
                lengths = torch.zeros(len(counts) + 1, dtype=torch.float64).index_add_(
                    0, owner, lengths
                )
                kept = [pieces and _sum_by(owner, pieces, len(lengths)) for pieces in kept]
                squares = sum(
                    (squares_of(pieces) for pieces in kept if pieces), torch.zeros_like(lengths)
                )
            if self.per_layer:
                self._add_tensors([rule for rule, _, _ in layers], kept, bound, total)
                return
            for (rule, a, g), pieces in zip(layers, kept, strict=True):
                if pieces is not None:
                    continue
                if alone:
                    squares += rule.squares(a, g)
                else:
                    squares[:-1] += rule.unit_squares(a, g, counts.tolist())
            norms = torch.maximum(squares.clamp_min_(0.0).sqrt_(), lengths / BLOCK_CANCELLATION)
            factors = bound / norms.clamp_min_(bound)
            for (rule, a, g), pieces in zip(layers, kept, strict=True):
                if pieces is None:
                    rule.add_weighted(a, g, factors[owner], total)
                else:
                    rule.add([weighted(piece, factors) for piece in pieces], total)

    def _add_tensors(
        self, rules: list[Rule], kept: Sequence[Pieces | None], bound: float, total: torch.Tensor
    ) -> None:
        """Add units' gradients, each parameter tensor clipped by itself."""
        share = bound / math.sqrt(len(self._parameters))
        for rule, pieces in zip(rules, kept, strict=True):
            sums = []
            for piece in pieces or ():
                norms = torch.linalg.vector_norm(piece, dim=1).double()
                sums.append(weighted(piece, share / norms.clamp_min_(share)))
            rule.add(sums, total)

    def _add_long(
        self, inputs: torch.Tensor, targets: torch.Tensor, bound: float, total: torch.Tensor
    ) -> None:
        mean = torch.zeros_like(total)
        length = 0.0
        ones = torch.ones(self.block, dtype=torch.float64)
        for low in range(0, len(inputs), self.block):
            part = inputs[low : low + self.block]
            weights = torch.zeros(self.block)
            weights[: len(part)] = 1.0 / len(inputs)
            layers = self._differentiate(
                self._pad(part), self._pad(targets[low : low + self.block]), weights
            )
            with torch.no_grad():
                lengths, _ = _silence(layers, [None] * len(layers))
                length += float(lengths.sqrt_().sum())
                for rule, a, g in layers:
                    rule.add_weighted(*rule.prepare(a, g), ones, mean)
        # A tensor's own part was formed from this patient's rows alone: its norm is all that counts.
        least = 0.0 if self.per_layer else length / BLOCK_CANCELLATION
        for slot, share in self.shares(bound):
            norm = float(torch.linalg.vector_norm(mean[slot]))
            total[slot] += mean[slot] * (share / max(norm, least, share))


def _refuse(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        if isinstance(layer, _REFUSED):
            raise JobRefused(
                f"layer {name or 'itself'} ({type(layer).__name__}) makes a row depend on other "
                "rows or on chance; use group, layer or instance norms, and no dropout"
            )
        if getattr(layer, "inplace", False):
            layer.inplace = False
    wrong = {p.dtype for p in module.parameters()} - {torch.float32, torch.float64}
    low = torch.get_float32_matmul_precision() != "highest"
    if wrong or low or torch.is_autocast_enabled("cpu"):
        raise JobRefused("the fast engine needs full float32: no TF32, bfloat16 or autocast")


def _has_rules(module: nn.Module) -> bool:
    return all(
        rule_for(layer, None) is not None
        for layer in module.modules()
        if any(True for _ in layer.parameters(recurse=False))
    )


def _used_once(module: nn.Module, example: torch.Tensor) -> bool:
    calls: dict[nn.Module, int] = {}
    owned = [p for m in module.modules() for p in m.parameters(recurse=False)]
    if len({id(p) for p in owned}) < len(owned):
        return False

    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        calls[layer] = calls.get(layer, 0) + 1

    layers = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        module(torch.zeros_like(example[:1]))
    for hook in hooks:
        hook.remove()
    return all(calls.get(layer) == 1 for layer in layers)


def _silence(
    layers: list[tuple[Rule, torch.Tensor, torch.Tensor]], kept: Sequence[Pieces | None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make rows whose numbers are not finite rows of zeros, in every layer.

    Args:
        layers: changed; inputs are replaced, since the first layer's are the caller's own rows.
        kept: rows' gradients of the layers that keep them; written over.

    Returns:
        A bound on each row's squared norm over the layers that are not kept, and the squared norm over
        those that are, float64 [rows].
    """
    lengths = torch.zeros(len(layers[0][2]), dtype=torch.float64)
    squares = torch.zeros_like(lengths)
    for (rule, a, g), pieces in zip(layers, kept, strict=True):
        if pieces is None:
            lengths += rule.bounds(a, g)
        else:
            squares += squares_of(pieces)
    broken = ~torch.isfinite(lengths + squares)
    if broken.any():
        lengths[broken] = 0.0
        squares[broken] = 0.0
        for at, ((rule, a, g), pieces) in enumerate(zip(layers, kept, strict=True)):
            if a.dtype.is_floating_point:
                a = a.clone()
                a[broken] = 0.0
                layers[at] = rule, a, g
            for rows in (g, *(pieces or ())):
                rows[broken] = 0.0
    return lengths, squares


def _sum_by(owner: torch.Tensor, pieces: Pieces, units: int) -> Pieces:
    """Sum the rows of each unit."""
    return [
        torch.zeros((units, piece.shape[1]), dtype=piece.dtype).index_add_(0, owner, piece)
        for piece in pieces
    ]
