"""The exact engine with a clip norm that adapts, where ``federation.train`` has the fast one otherwise."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import numpy.typing as npt

from ledger.experiment.network_spec import Sequential
from node.data.encode import Examples
from node.training.networks.elementwise import Task
from node.training.networks.modules import build, load_flat
from node.training.rounds.train import start_torch
from node.training.sums.clipping import Counting
from node.training.sums.exact import block_rows, exact_sum, loss_of, per_sample
from privacy.events import FULL_BATCH


class CountingSum:
    """Joint vectors of gradients and counts, summed as a node sums them."""

    def __init__(self, tree: Sequential, task: Task, examples: Examples, share: Decimal) -> None:
        start_torch()
        self._engine = per_sample(build(tree))
        self._loss = loss_of(task)
        self._examples = examples
        self._share = share
        self._clipping = Counting(1.0, share)

    def load(self, model: npt.NDArray[np.float64]) -> None:
        """Take a round's model: parameters, and the clip norm behind them."""
        load_flat(self._engine, model[:-1])
        self._clipping = Counting(float(model[-1]), self._share)

    def clipped_sum(self, taken: None, sensitivity: int) -> npt.NDArray[np.int64]:
        """As ``DenseSum.clipped_sum``, of everybody."""
        parameters = sum(p.numel() for p in self._engine.parameters())
        return exact_sum(
            self._engine,
            self._examples,
            sensitivity=sensitivity,
            loss=self._loss,
            block=block_rows(self._examples.units, FULL_BATCH, parameters),
            clipping=self._clipping,
        )
