"""The ``fast`` engine for networks that embed codes and read series: book-keeping over torch's own modules.

``node.training.sums.bookkeeping`` makes the sum; here it gets a dataset's rows, a task's loss and the plan's bounds, as
``node.training.sums.dense`` has them for networks of linear layers. The norm that is clipped to is
``ledger.experiment.fast_clip.clip_norm``, from public numbers alone.

Promise: one patient moves the sum by at most ``sensitivity`` in L2 norm (zero-out relation), as far as
``bookkeeping`` promises it. On a machine that rounds a row of one of these layers by its place, rows are
taken one by one (``node.training.sums.alone``). A patient over whose rows the computation fails adds zeros
(``node.training.sums.isolation``).
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ledger.experiment.fast_clip import KEPT_VALUES, Limits, clip_norm
from ledger.experiment.network_spec import Network
from ledger.experiment.spec import MulticlassTask, RegressionTask
from node.data.encode import Examples
from node.errors import JobRefused
from node.training.networks.composed import ComposedNetwork
from node.training.networks.elementwise import Task
from node.training.networks.modules import FloatVector, load_flat
from node.training.sums.alone import Alone
from node.training.sums.blocks import BLOCK_ROWS, RowLoss
from node.training.sums.bookkeeping import BookKeeping, clipped_sum_of
from node.training.sums.exact import loss_of, patient_gradients
from node.training.sums.isolation import Units, refuse_more_than_registered, sum_without_failing
from privacy.events import GRID

IntVector = npt.NDArray[np.int64]


class ComposedSum:
    """Sums the clipped gradients of a dataset's sampled patients.

    Args:
        tree: the model.
        task: its loss, as ``node.training.sums.exact.loss_of``.
        examples: the rows.
        limits: public bounds; no batch of ``examples`` can be beyond them.
        per_layer: each parameter tensor is clipped by itself.

    Raises:
        JobRefused: there are more of them than the bounds, which a registration refuses.
    """

    def __init__(
        self, tree: Network, task: Task, examples: Examples, limits: Limits, per_layer: bool
    ) -> None:
        refuse_more_than_registered(examples, limits)
        self._tree = tree
        self._examples = examples
        self._limits = limits
        self.per_layer = per_layer
        self._module = ComposedNetwork(tree)
        self._loss = loss_of(task)
        self._book = self._book_keeping(task)
        self._bounds: dict[int, float] = {}
        self._edges = np.cumsum([0, *(p.numel() for p in self._module.parameters())])
        self.parameters = int(self._edges[-1])

    @property
    def path(self) -> str:
        """``book-keeping``, or ``alone`` where this machine rounds a row by its place."""
        return "alone" if self._book is None else "book-keeping"

    def load(self, weights: FloatVector) -> None:
        """Take weights, float64 [d], in torch's order.

        Raises:
            JobRefused: d is not the model's number of parameters.
        """
        load_flat(self._module, weights)

    def clipped_sum(self, taken: npt.NDArray[np.bool_] | None, sensitivity: int) -> IntVector:
        """Sum the clipped gradients of the units that ``taken`` says, WITHOUT noise.

        Args:
            taken: bool [units], or None for all.
            sensitivity: L2 bound on what one unit moves the sum by, grid units, 1 .. 2^53-1.

        Returns:
            int64 [d], grid units. It never leaves this room.

        Raises:
            InvalidParameter: rounding would take more than half of the sensitivity.
        """
        if sensitivity not in self._bounds:
            norm = clip_norm(self._tree, sensitivity, self._limits, self.per_layer)
            self._bounds[sensitivity] = norm / GRID
        bound = self._bounds[sensitivity]
        everybody = np.arange(self._examples.units)
        chosen = everybody if taken is None else np.flatnonzero(taken)

        def sum_of(units: Units) -> FloatVector:
            total = self._sum_units(units, bound)
            if not np.isfinite(total).all():
                raise FloatingPointError("a sum is not finite")
            return total

        total = sum_without_failing(chosen, sum_of, lambda: np.zeros(self.parameters))
        total *= GRID
        whole: IntVector = np.rint(total, out=total).astype(np.int64)
        return whole

    def float_sum(self, taken: npt.NDArray[np.bool_] | None, bound: float) -> FloatVector:
        """Sum gradients clipped to a norm of ``bound``, before the grid: float64 [d]."""
        everybody = np.arange(self._examples.units)
        return self._sum_units(everybody if taken is None else np.flatnonzero(taken), bound)

    def _sum_units(self, units: Units, bound: float) -> FloatVector:
        batch = self._examples.of_units(units)
        if self._book is None:
            return self._sum_alone(batch, bound)
        inputs, targets = torch.from_numpy(batch.features), torch.from_numpy(batch.targets)
        return self._book.float_sum(inputs, targets, bound, batch.patients).numpy()

    def _sum_alone(self, batch: Examples, bound: float) -> FloatVector:
        """The same from each row's own gradient: slower, and for every machine."""
        total = np.zeros(self.parameters)
        slots = list(pairwise(self._edges)) if self.per_layer else [(0, self.parameters)]
        share = bound / math.sqrt(len(slots))
        engine = Alone(self._module)
        for means in patient_gradients(engine, batch, loss=self._loss, block=BLOCK_ROWS):
            for low, high in slots:
                norms = np.sqrt((means[:, low:high] ** 2).sum(axis=1))
                total[low:high] += (share / np.maximum(norms, share)) @ means[:, low:high]
        return total

    def _book_keeping(self, task: Task) -> BookKeeping | None:
        """The engine, if this machine gives a row of every layer the same bits in every place."""
        rows = min(self._limits.patients, BLOCK_ROWS)
        example = torch.zeros((rows, self._examples.features.shape[1]))
        module = ComposedNetwork(self._tree)
        try:
            engine = clipped_sum_of(module, row_loss(task), example, per_layer=self.per_layer)
        except JobRefused:
            return None
        most = engine.parameters if self.per_layer else KEPT_VALUES
        if not isinstance(engine, BookKeeping) or engine.kept_size > most:
            return None
        self._module = module
        return engine


def row_loss(task: Task) -> RowLoss:
    """A task's loss for each row, of which ``exact.loss_of`` is the sum."""
    if isinstance(task, MulticlassTask):
        return lambda outputs, targets: functional.cross_entropy(outputs, targets, reduction="none")
    if isinstance(task, RegressionTask):
        return lambda outputs, targets: (outputs.squeeze(1) - targets).square()
    return lambda outputs, targets: functional.binary_cross_entropy_with_logits(
        outputs.squeeze(1), targets.to(outputs.dtype), reduction="none"
    )
