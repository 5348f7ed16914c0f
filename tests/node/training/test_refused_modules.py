"""Modules for which the fast engine cannot bound what one patient changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from node.errors import JobRefused
from node.training.rounds.train import start_torch
from node.training.sums.bookkeeping import clipped_sum_of
from tests.node.training.test_bookkeeping import loss, table

start_torch()


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(8), nn.Dropout(0.5), nn.LazyBatchNorm1d(), nn.RReLU()]
)
def test_layers_that_mix_rows_or_use_chance_are_refused(layer: nn.Module) -> None:
    module = nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 3))
    with pytest.raises(JobRefused, match=r"layer 1 \(.*makes a row depend on other rows"):
        clipped_sum_of(module, loss, torch.zeros(5, 8))


def test_rows_that_are_mixed_by_hand_are_found_out() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 3)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.head(rows - rows[:1])
            return scores

    with pytest.raises(JobRefused, match="depend on its place or on other rows"):
        clipped_sum_of(Centred(), loss, torch.zeros(5, 8))


def test_reduced_precision_is_refused() -> None:
    with pytest.raises(JobRefused, match="no TF32, bfloat16 or autocast"):
        clipped_sum_of(table().bfloat16(), loss, torch.zeros(5, 8))
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(JobRefused, match="needs full float32"):
            clipped_sum_of(table(), loss, torch.zeros(5, 8))
    finally:
        torch.set_float32_matmul_precision("highest")
