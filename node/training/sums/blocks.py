"""How rows come to an engine for any module: in padded blocks of whole patients.

What the engines of ``node.training.sums.bookkeeping`` and ``node.training.sums.row_gradients`` share. Promise: a
block has one fixed size, however many rows a batch has, so that a row meets the same instructions in
every batch; a patient is never split, unless it has more rows than a block, and then stands alone.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from node.errors import JobRefused
from privacy.rounding import clip_within_blocks

ADDED_ROWS = 64
"""Rows whose gradients are added in float32; their sums are added in float64."""
BLOCK_ROWS = 512
"""Most rows that go through a network together."""
_BLOCK_VALUES = 2**22
"""Most gradient values of a block beyond 64 rows."""

RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Outputs and targets to one loss a row: [n]."""


class ClippedSum(Protocol):
    """Sums clipped gradients of patients over a fixed module."""

    @property
    def path(self) -> str:
        """``book-keeping`` or ``vmap``."""
        ...

    @property
    def parameters(self) -> int:
        """d, the number of all parameters' scalars."""
        ...

    def float_sum(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        bound: float,
        patients: npt.NDArray[np.int64] | None = None,
        into: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Sum gradients clipped to a norm of ``bound``, before the grid.

        Args:
            inputs: [n, ...], rows first.
            targets: [n, ...].
            bound: above 0; of the whole gradient, also where its tensors are clipped each by itself.
            patients: int64 [n], never falling: whose row each is; None where each is its own.
            into: float64 [d] to be written over and returned, where new memory would cost time.

        Returns:
            float64 [d], in the order of ``module.parameters()``.
        """
        ...

    def clip_norm(self, sensitivity: int, patients: int) -> float:
        """Return the norm that keeps ``sensitivity`` (grid units) for at most so many patients."""
        ...


class Blocks:
    """What both engines share: rows come in padded blocks of whole patients."""

    path = ""

    def __init__(
        self, module: nn.Module, loss: RowLoss, rows: int, *, per_layer: bool = False
    ) -> None:
        self._module = module
        self._loss = loss
        self.per_layer = per_layer
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
        into: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As ``ClippedSum.float_sum``."""
        total = torch.empty(self.parameters, dtype=torch.float64) if into is None else into
        total.zero_()
        owner = np.arange(len(inputs)) if patients is None else patients
        with np.errstate(all="ignore"):  # a warning would say something of the rows
            for low, high in _runs(owner, self.block):
                if high - low > self.block:
                    self._add_long(inputs[low:high], targets[low:high], bound, total)
                    continue
                counts = np.bincount(owner[low:high] - owner[low])
                self._add_block(inputs[low:high], targets[low:high], counts, bound, total)
        return total

    def clip_norm(self, sensitivity: int, patients: int) -> float:
        """As ``ClippedSum.clip_norm``."""
        sizes = [p.numel() for p in self._parameters] if self.per_layer else [self.parameters]
        norm = clip_within_blocks(
            math.isqrt(sensitivity * sensitivity // len(sizes)),
            parameters=max(sizes),
            added=ADDED_ROWS,
            kept=self._kept_size(),
            patients=patients,
        )
        # The margin outweighs what the root and the division by it round.
        return norm * math.sqrt(len(sizes)) * (1.0 - 2.0**-50) if self.per_layer else norm

    def shares(self, bound: float) -> list[tuple[slice, float]]:
        """What is clipped by itself, as its place in the flat vector, and to what."""
        if not self.per_layer:
            return [(slice(0, self.parameters), bound)]
        edges = pairwise(accumulate((p.numel() for p in self._parameters), initial=0))
        return [(slice(low, high), bound / math.sqrt(len(self._parameters))) for low, high in edges]

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


def probe(
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


def weighted(vectors: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
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
