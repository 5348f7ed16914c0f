"""Clipped sums for any torch module: book-keeping where it is exact, ``vmap`` for the rest.

What ``node.training.dense`` is for the networks that a spec can name, this is for convolutions,
embeddings, group, layer and instance norms, recurrent cells and whatever else torch differentiates.
``clipped_sum_of`` chooses: book-keeping (Bu et al. 2022, arXiv:2210.00038), if every parameter belongs
to a layer that ``node.training.layers`` has a rule for and is used once; ``torch.func.vmap`` over
rows, if not. ``GradSampleModule`` of Opacus stays the reference that tests compare with.

1. One forward pass in float32; one backward pass to the layers' outputs, no further.
2. A patient is its rows' mean. Norms by the layers' rules, in float64; a patient with a number that is
   not finite becomes zero.
3. The weighted sum, in float64, or of float32 gradients 64 rows at a time.
4. Rounded to the grid by ``clipped_sum``, after clipping to ``clip_norm``, below the sensitivity by
   what 2 and 3 may round.

Promise: one patient moves the sum by at most the sensitivity, where a row's activations are the same
bits wherever it stands in a block; ``check_places`` finds out on this machine, and the engine refuses
where they are not. Rows are handled in blocks of one fixed size, padded with zeros. Refused: batch norms
and dropout (a row would depend on others, or on chance), TF32, bfloat16, autocast.

Not promised: fitness for a spec's networks, which need none of this, nor speed on a processor other
than the ones measured (benchmarks/README.md).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from node.errors import JobRefused
from node.training.layers import Rule, rule_for, squares_of
from node.training.recurrent import UnrolledGRU, unroll
from privacy.events import GRID
from privacy.rounding import BLOCK_CANCELLATION, clip_within_blocks

ADDED_ROWS = 64
"""Rows whose gradients are added in float32; their sums are added in float64."""
BLOCK_ROWS = 512
"""Most rows that go through a network together."""
_KEPT_VALUES = 2**21
"""Most values of a layer's gradients of 64 rows that are kept between norm and sum."""
_BLOCK_VALUES = 2**22
"""Most gradient values of a block beyond 64 rows."""
_VMAP_VALUES = 2**24
_REFUSED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU)

Pieces = list[torch.Tensor]
RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Outputs and targets to one loss a row: [n]."""


class ClippedSum(Protocol):
    """Sums clipped gradients of patients over a fixed module."""

    @property
    def path(self) -> str:
        """``book-keeping`` or ``vmap``."""
        ...

    def float_sum(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        bound: float,
        patients: npt.NDArray[np.int64] | None = None,
    ) -> torch.Tensor:
        """Sum gradients clipped to a norm of ``bound``, before the grid.

        Args:
            inputs: [n, ...], rows first.
            targets: [n, ...].
            bound: above 0.
            patients: int64 [n], never falling: whose row each is; None where each is its own.

        Returns:
            float64 [d], in the order of ``module.parameters()``.
        """
        ...

    def clip_norm(self, sensitivity: int, patients: int) -> float:
        """Return the norm that keeps ``sensitivity`` (grid units) for at most so many patients."""
        ...


def clipped_sum_of(module: nn.Module, loss: RowLoss, example: torch.Tensor) -> ClippedSum:
    """Make the fastest engine that is exact for a module.

    Args:
        module: float32 or float64, on the CPU; its parameters are read at each call.
        loss: one loss a row.
        example: rows for their shape, as many as a batch is expected to have: a public number.

    Raises:
        JobRefused: the module mixes rows, uses chance or reduced precision, or this machine rounds
            a row by its place.
    """
    _refuse(module)
    unroll(module)
    engine: _Blocks
    if _has_rules(module) and _used_once(module, example):
        engine = BookKeeping(module, loss, len(example))
    else:
        engine = VmapSum(module, loss, len(example))
    engine.check_places(example)
    return engine


def clipped_sum(
    engine: ClippedSum,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    sensitivity: int,
    *,
    most_patients: int,
    patients: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Sum clipped gradients on the grid, WITHOUT noise: int64 [d], grid units.

    Args:
        engine: from ``clipped_sum_of``.
        inputs: [n, ...], rows first.
        targets: [n, ...].
        sensitivity: L2 bound on what one patient moves the sum by, grid units.
        most_patients: public bound on the patients of a batch.
        patients: int64 [n], never falling: whose row each is; None where each is its own.

    Raises:
        ValueError: more patients than that.
        InvalidParameter: rounding would take more than half of the sensitivity.
    """
    count = len(inputs) if patients is None else (int(patients[-1]) + 1 if len(patients) else 0)
    if count > most_patients:
        raise ValueError("more patients than were declared")
    bound = engine.clip_norm(sensitivity, most_patients) / GRID
    total = engine.float_sum(inputs, targets, bound, patients)
    on_grid: npt.NDArray[np.int64] = np.rint(total.numpy() * GRID).astype(np.int64)
    return on_grid


class _Blocks:
    """What both engines share: rows come in padded blocks of whole patients."""

    path = ""

    def __init__(self, module: nn.Module, loss: RowLoss, rows: int) -> None:
        self._module = module
        self._loss = loss
        self._parameters = list(module.parameters())
        self.parameters = sum(p.numel() for p in self._parameters)
        self.block = ADDED_ROWS
        most = min(BLOCK_ROWS, _BLOCK_VALUES // max(1, self.parameters))
        while self.block < rows and 2 * self.block <= most:
            self.block *= 2

    def float_sum(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        bound: float,
        patients: npt.NDArray[np.int64] | None = None,
    ) -> torch.Tensor:
        """As ``ClippedSum.float_sum``."""
        total = torch.zeros(self.parameters, dtype=torch.float64)
        owner = np.arange(len(inputs)) if patients is None else patients
        for low, high in _runs(owner, self.block):
            if high - low > self.block:
                self._add_long(inputs[low:high], targets[low:high], bound, total)
                continue
            counts = np.bincount(owner[low:high] - owner[low])
            self._add_block(inputs[low:high], targets[low:high], counts, bound, total)
        return total

    def clip_norm(self, sensitivity: int, patients: int) -> float:
        """As ``ClippedSum.clip_norm``."""
        return clip_within_blocks(
            sensitivity,
            parameters=self.parameters,
            added=ADDED_ROWS,
            kept=self._kept_size(),
            patients=patients,
        )

    @abstractmethod
    def _kept_size(self) -> int:
        """The most scalars over which a float32 norm is taken."""

    @abstractmethod
    def check_places(self, example: torch.Tensor) -> None:
        """Find the same bits for the same row in every place of a block."""

    def _pad(self, rows: torch.Tensor) -> torch.Tensor:
        """Fill a block with zeros; images in the format in which a row's channels lie together."""
        form = torch.channels_last if rows.dim() == 4 else torch.contiguous_format
        if len(rows) == self.block:
            return rows.contiguous(memory_format=form)
        padded = torch.zeros((self.block, *rows.shape[1:]), dtype=rows.dtype)
        padded[: len(rows)] = rows
        return padded.contiguous(memory_format=form)

    @abstractmethod
    def _add_block(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        counts: npt.NDArray[np.int64],
        bound: float,
        total: torch.Tensor,
    ) -> None:
        """Add the clipped gradients of patients with so many rows each."""

    @abstractmethod
    def _add_long(
        self, inputs: torch.Tensor, targets: torch.Tensor, bound: float, total: torch.Tensor
    ) -> None:
        """Add the clipped gradient of one patient with more rows than a block."""


class BookKeeping(_Blocks):
    """Norms and sums from activations and output gradients. Made by ``clipped_sum_of``."""

    path = "book-keeping"

    def __init__(self, module: nn.Module, loss: RowLoss, rows: int) -> None:
        super().__init__(module, loss, rows)
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

    def _keeps(self, rule: Rule) -> bool:
        return rule.keeps(_KEPT_VALUES, ADDED_ROWS)

    def check_places(self, example: torch.Tensor) -> None:
        """As ``_Blocks.check_places``: values, gradients and kept vectors, permuted."""
        inputs, targets = _probe(self._module, self._loss, example, self.block)
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
            found.append(values)
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
        with _Taps(self._rules) as taps:
            losses = self._loss(self._module(inputs), targets) * weights
            outputs = [output for _, _, output in taps.caught]
            gradients = torch.autograd.grad(losses.sum(), outputs, materialize_grads=True)
        layers = [
            (rule, a.detach(), g)
            for (rule, a, _), g in zip(taps.caught, gradients, strict=True)
            if a is not None
        ]
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
            lengths = _silence(layers, kept).sqrt_()
            owner = torch.arange(self.block)
            if not alone:
                owner[:rows] = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
                owner[rows:] = len(counts)
                lengths = torch.zeros(len(counts) + 1, dtype=torch.float64).index_add_(
                    0, owner, lengths
                )
                kept = [pieces and _sum_by(owner, pieces, len(lengths)) for pieces in kept]
            squares = torch.zeros(len(lengths), dtype=torch.float64)
            for (rule, a, g), pieces in zip(layers, kept, strict=True):
                if pieces is not None:
                    squares += squares_of(pieces)
                elif alone:
                    squares += rule.squares(a, g)
                else:
                    squares[:-1] += rule.unit_squares(a, g, counts.tolist())
            norms = torch.maximum(squares.clamp_min_(0.0).sqrt_(), lengths / BLOCK_CANCELLATION)
            factors = bound / norms.clamp_min_(bound)
            for (rule, a, g), pieces in zip(layers, kept, strict=True):
                if pieces is None:
                    rule.add_weighted(a, g, factors[owner], total)
                else:
                    rule.add([_weighted(piece, factors) for piece in pieces], total)

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
                length += float(_silence(layers, [None] * len(layers)).sqrt_().sum())
                for rule, a, g in layers:
                    rule.add_weighted(a, g, ones, mean)
        norm = max(float(torch.linalg.vector_norm(mean)), length / BLOCK_CANCELLATION, bound)
        total += mean * (bound / norm)


class VmapSum(_Blocks):
    """Each row's gradient by ``torch.func``, some rows at a time. Made by ``clipped_sum_of``."""

    path = "vmap"

    def __init__(self, module: nn.Module, loss: RowLoss, rows: int) -> None:
        super().__init__(module, loss, rows)
        names = [name for name, _ in module.named_parameters()]

        def row_loss(values: tuple[torch.Tensor, ...], x: torch.Tensor, y: torch.Tensor) -> Any:
            state = dict(zip(names, values, strict=True))
            output = torch.func.functional_call(module, state, (x.unsqueeze(0),))
            return loss(output, y.unsqueeze(0))[0]

        chunk = max(1, min(self.block, _VMAP_VALUES // max(1, self.parameters)))
        self._gradients = torch.func.vmap(
            torch.func.grad(row_loss), in_dims=(None, 0, 0), chunk_size=chunk
        )

    def _kept_size(self) -> int:
        return self.parameters

    def check_places(self, example: torch.Tensor) -> None:
        """As ``_Blocks.check_places``: the rows' vectors, permuted."""
        inputs, targets = _probe(self._module, self._loss, example, self.block)
        order = torch.randperm(self.block, generator=torch.Generator().manual_seed(1))
        straight, mixed = (
            self._vectors(inputs[chosen], targets[chosen])
            for chosen in (torch.arange(self.block), order)
        )
        if not torch.equal(straight[order], mixed):
            raise JobRefused(
                "this machine rounds a row by its place, so the fast engine cannot bound what "
                "one patient changes"
            )

    def _vectors(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        values = tuple(p.detach() for p in self._parameters)
        pieces = self._gradients(values, inputs, targets)
        vectors = torch.cat([piece.reshape(len(inputs), -1) for piece in pieces], dim=1)
        broken = ~torch.isfinite(vectors).all(dim=1)
        if broken.any():
            vectors[broken] = 0.0
        return vectors

    def _add_block(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        counts: npt.NDArray[np.int64],
        bound: float,
        total: torch.Tensor,
    ) -> None:
        vectors = self._vectors(self._pad(inputs), self._pad(targets))[: len(inputs)]
        if len(counts) < len(inputs):
            owner = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
            weights = torch.from_numpy(np.repeat(1.0 / counts, counts)).to(vectors.dtype)
            summed = torch.zeros((len(counts), self.parameters), dtype=vectors.dtype)
            vectors = summed.index_add_(0, owner, vectors * weights[:, None])
        norms = torch.linalg.vector_norm(vectors, dim=1).double()
        total += _weighted(vectors, bound / norms.clamp_min_(bound))

    def _add_long(
        self, inputs: torch.Tensor, targets: torch.Tensor, bound: float, total: torch.Tensor
    ) -> None:
        mean = torch.zeros_like(total)
        for low in range(0, len(inputs), self.block):
            part = inputs[low : low + self.block]
            vectors = self._vectors(self._pad(part), self._pad(targets[low : low + self.block]))
            mean += vectors[: len(part)].sum(dim=0, dtype=torch.float64) / len(inputs)
        norm = max(float(torch.linalg.vector_norm(mean)), bound)
        total += mean * (bound / norm)


class _Taps:
    """While open, every ruled layer's inputs and outputs are caught, and only they need gradients."""

    def __init__(self, rules: dict[nn.Module, Rule]) -> None:
        self._rules = rules
        self._asked: list[tuple[torch.Tensor, bool]] = []
        self._hooks: list[Any] = []
        self.caught: list[tuple[Rule, torch.Tensor | None, torch.Tensor]] = []
        self.seen: list[tuple[Rule, torch.Tensor, torch.Tensor]] = []

    def __enter__(self) -> _Taps:
        for layer, rule in self._rules.items():
            for parameter in layer.parameters(recurse=False):
                self._asked.append((parameter, parameter.requires_grad))
                parameter.requires_grad_(False)
            if isinstance(layer, UnrolledGRU):
                layer.watch = _Watch(rule, self)
            else:
                self._hooks.append(layer.register_forward_hook(self._hook(rule)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for layer in self._rules:
            if isinstance(layer, UnrolledGRU):
                layer.watch = None
        for parameter, asked in self._asked:
            parameter.requires_grad_(asked)

    def _hook(self, rule: Rule) -> Callable[..., torch.Tensor]:
        def caught(
            module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> Any:
            if output.dim() == 4:
                output = output.contiguous(memory_format=torch.channels_last)
            output = output if output.requires_grad else output.requires_grad_()
            self.caught.append((rule, inputs[0], output))
            return output

        return caught


class _Watch:
    """What a recurrent layer says while taps are open."""

    def __init__(self, rule: Rule, taps: _Taps) -> None:
        self._rule = rule
        self._taps = taps

    def ask(self, products: torch.Tensor) -> None:
        self._taps.caught.append((self._rule, None, products))

    def tell(self, part: int, a: torch.Tensor, g: torch.Tensor) -> None:
        self._taps.seen.append((self._rule.part(part), a, g))


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


def _probe(
    module: nn.Module, loss: RowLoss, example: torch.Tensor, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A block of different rows of the example's shape, and targets that the loss takes."""
    draw = torch.Generator().manual_seed(2)
    shape = (block, *example.shape[1:])
    if example.dtype.is_floating_point:
        inputs = torch.randn(shape, generator=draw).to(example.dtype)
    else:
        inputs = torch.randint(0, int(example.max()) + 1, shape, generator=draw).to(example.dtype)
    with torch.no_grad():
        outputs = module(inputs)
    for targets in (torch.zeros(block), torch.zeros(block, dtype=torch.int64)):
        try:
            if loss(outputs, targets).shape == (block,):
                return inputs, targets
        except (RuntimeError, ValueError):
            continue
    raise JobRefused("the loss takes neither numbers nor classes as targets")


def _silence(
    layers: list[tuple[Rule, torch.Tensor, torch.Tensor]], kept: Sequence[Pieces | None]
) -> torch.Tensor:
    """Make rows whose numbers are not finite rows of zeros, in every layer.

    Returns:
        A bound on each row's squared norm over the layers that are not kept, float64 [rows].
    """
    checks = torch.zeros(len(layers[0][2]), dtype=torch.float64)
    lengths = torch.zeros_like(checks)
    for (rule, a, g), pieces in zip(layers, kept, strict=True):
        if pieces is None:
            lengths += rule.bounds(a, g)
        else:
            for piece in pieces:
                checks += piece.sum(dim=1)
    checks += lengths
    broken = ~torch.isfinite(checks)
    if broken.any():
        lengths[broken] = 0.0
        for (_, a, g), pieces in zip(layers, kept, strict=True):
            for rows in (
                (g, *(pieces or ())) if not a.dtype.is_floating_point else (a, g, *(pieces or ()))
            ):
                rows[broken] = 0.0
    return lengths


def _sum_by(owner: torch.Tensor, pieces: Pieces, units: int) -> Pieces:
    """Sum the rows of each unit."""
    return [
        torch.zeros((units, piece.shape[1]), dtype=piece.dtype).index_add_(0, owner, piece)
        for piece in pieces
    ]


def _weighted(vectors: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Sum vectors [n, size] under factors [n]: some in float32, those sums in float64."""
    weights = factors.to(vectors.dtype)
    total = torch.zeros(vectors.shape[1], dtype=torch.float64)
    for low in range(0, len(vectors), ADDED_ROWS):
        total += torch.mv(vectors[low : low + ADDED_ROWS].t(), weights[low : low + ADDED_ROWS])
    return total


def _runs(owner: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Runs of rows of whole patients, at most a block long; a longer patient stands alone."""
    if not len(owner):
        return
    edges = np.concatenate([np.flatnonzero(np.diff(owner)) + 1, [len(owner)]])
    low, last = 0, 0
    for edge in edges:
        if edge - low > most and last > low:
            yield low, last
            low = last
        last = int(edge)
        if last - low > most:
            yield low, last
            low = last
    if last > low:
        yield low, last
