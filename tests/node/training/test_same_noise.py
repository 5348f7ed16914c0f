"""With the same noise fed in, both fast engines train to the weights of stock Opacus."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn

from ledger.experiment.fast_clip import Limits
from node.training.networks.modules import flat, load_flat
from node.training.sums.bookkeeping import clipped_sum_of
from node.training.sums.dense import DenseSum
from tests.node.cases import random_examples
from tests.node.training.test_bookkeeping import case, loss, owners
from tests.node.training.test_train import BINARY, TREES, WIDTH, engine_of, stock_network

STEPS = 3
RATE = 0.1
BOUND = 0.3
NOISE = 0.5


class GivenNoise(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer, with noise [d] that a test has drawn, in the order of the parameters."""

    given: Any = None

    def add_noise(self) -> None:
        at = 0
        for p in self.params:
            p.grad = p.summed_grad + self.given[at : at + p.numel()].view_as(p)
            at += p.numel()


def stock_training(
    module: nn.Module, summed_loss: Callable[[nn.Module], torch.Tensor], owner: Any, noise: Any
) -> Any:
    """Weights [d] after ``STEPS`` steps of Opacus; a patient's sample is the mean of its rows'."""
    stock = GradSampleModule(copy.deepcopy(module), loss_reduction="sum")
    optimizer = GivenNoise(
        torch.optim.SGD(stock.parameters(), lr=RATE),
        noise_multiplier=1.0,
        max_grad_norm=BOUND,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    counts = torch.from_numpy(np.bincount(owner))
    for step in range(STEPS):
        optimizer.zero_grad()
        summed_loss(stock).backward()  # type: ignore[no-untyped-call]
        for p in stock.parameters():
            rows = p.grad_sample
            sums = torch.zeros((len(counts), *rows.shape[1:])).index_add_(
                0, torch.from_numpy(owner), rows
            )
            p.grad_sample = sums / counts.view(-1, *[1] * (rows.dim() - 1))
        optimizer.given = torch.from_numpy(noise[step]).float()
        optimizer.step()
    return flat(stock._module)


def drawn(size: int) -> Any:
    return np.random.default_rng(4).normal(0.0, NOISE, (STEPS, size))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("patients", [None, 120])
@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_the_dense_engine_trains_to_opacus_weights_under_the_same_noise(
    name: str, patients: int | None
) -> None:
    tree, batch = TREES[name], random_examples(12, 300, WIDTH, patients=patients)
    weights = engine_of(tree)[1].astype(np.float64)
    module = stock_network(tree)
    load_flat(module, weights)
    noise = drawn(len(weights))
    inputs, targets = torch.from_numpy(batch.features), torch.from_numpy(batch.targets)

    def summed(stock: nn.Module) -> torch.Tensor:
        scores = stock(inputs).squeeze(1)
        return nn.functional.binary_cross_entropy_with_logits(scores, targets, reduction="sum")

    theirs = stock_training(module, summed, batch.patients, noise)
    engine = DenseSum(tree, BINARY, batch, Limits(patients=1000, rows=5000))
    for given in noise:
        engine.load(weights)
        weights = weights - RATE * (engine.float_sum(None, BOUND) + given)
    assert np.linalg.norm(weights - theirs) <= 1e-5 * np.linalg.norm(theirs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("patients", [None, 40])
@pytest.mark.parametrize("name", ["residual", "conv1d"])
def test_the_engine_of_modules_trains_to_opacus_weights_under_the_same_noise(
    name: str, patients: int | None
) -> None:
    module, inputs, targets = case(name, 100)
    owner = np.arange(100) if patients is None else owners(100, patients)
    noise = drawn(sum(p.numel() for p in module.parameters()))
    theirs = stock_training(module, lambda stock: loss(stock(inputs), targets).sum(), owner, noise)
    engine = clipped_sum_of(module, loss, inputs[:64])
    for given in noise:
        total = engine.float_sum(inputs, targets, BOUND, None if patients is None else owner)
        load_flat(module, flat(module) - RATE * (total.numpy() + given))
    ours = flat(module)
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
