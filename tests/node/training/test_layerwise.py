"""Clipping tensor by tensor: equal to Opacus' per-layer optimizer, bounded by one patient, in every engine."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.optimizers import DPPerLayerOptimizer

from ledger.experiment.fast_clip import clip_norm
from ledger.experiment.network_spec import Sequential, parameter_shapes
from node.data.encode import Examples
from node.training.networks.modules import load_flat
from node.training.sums.bookkeeping import clipped_sum_of
from node.training.sums.clipping import PerLayer
from node.training.sums.exact import exact_sum, loss_of, per_sample
from node.training.sums.layerwise import LayerwiseSum
from node.training.sums.noisy_sum import clipped_sum
from privacy.errors import InvalidParameter
from privacy.events import GRID
from tests.node.cases import CLIP, random_examples
from tests.node.training import test_bookkeeping as modules
from tests.node.training.test_dense import LIMITS, NETWORKS, vectors_of
from tests.node.training.test_train import BINARY, WIDTH, engine_of, stock_network


def sizes_of(tree: Sequential) -> list[int]:
    return [math.prod(shape) for _, shape in parameter_shapes(tree)]


def fast_of(tree: Sequential, batch: Examples) -> LayerwiseSum:
    fast = LayerwiseSum(tree, BINARY, batch, LIMITS)
    fast.load(engine_of(tree)[1])
    return fast


def exact_of(tree: Sequential, batch: Examples, sensitivity: int) -> Any:
    engine, _ = engine_of(tree)
    return exact_sum(
        engine,
        batch,
        sensitivity=sensitivity,
        loss=loss_of(BINARY),
        block=64,
        clipping=PerLayer(sizes_of(tree)),
    )


def clipped(gradients: Any, sizes: list[int], bound: float) -> Any:
    """The definition, float64: each tensor to bound / sqrt(L)."""
    share, parts = bound / math.sqrt(len(sizes)), []
    for low, high in pairwise(np.cumsum([0, *sizes])):
        part = gradients[:, low:high]
        norms = np.linalg.norm(part, axis=1)
        parts.append((part * (share / np.maximum(norms, share))[:, None]).sum(axis=0))
    return np.concatenate(parts)


def opacus_sum(stock: Any, loss: torch.Tensor, bound: float) -> Any:
    tensors = len(list(stock.parameters()))
    optimizer = DPPerLayerOptimizer(
        torch.optim.SGD(stock.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=[bound / math.sqrt(tensors)] * tensors,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    with pytest.warns(UserWarning, match="Full backward hook"):
        loss.backward()
    optimizer.pre_step()
    return torch.cat([p.grad.ravel() for p in stock.parameters()]).double().numpy()


def close(ours: Any, theirs: Any) -> bool:
    return bool(np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs))


@pytest.mark.parametrize("name", NETWORKS)
def test_both_engines_equal_opacus_per_layer_optimizer(name: str) -> None:
    tree, batch = NETWORKS[name], random_examples(1, 700, WIDTH)
    bound = float(np.median(np.linalg.norm(vectors_of(tree, batch), axis=1)))
    stock = per_sample(stock_network(tree))
    load_flat(stock, engine_of(tree)[1])
    outputs = stock(torch.from_numpy(batch.features))
    theirs = opacus_sum(stock, loss_of(BINARY)(outputs, torch.from_numpy(batch.targets)), bound)
    assert close(fast_of(tree, batch).float_sum(None, bound), theirs)
    assert close(clipped(vectors_of(tree, batch), sizes_of(tree), bound), theirs)
    on_grid = exact_of(tree, batch, int(bound * GRID)) / GRID
    np.testing.assert_allclose(on_grid, theirs, atol=700 * (2 / GRID + 1e-6))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("patients", [300, 40, 3])
def test_patients_with_several_rows_are_clipped_as_one(name: str, patients: int) -> None:
    tree, batch = NETWORKS[name], random_examples(2, 700, WIDTH, patients=patients)
    gradients = vectors_of(tree, batch)
    bound = float(np.median(np.linalg.norm(gradients, axis=1)))
    theirs = clipped(gradients, sizes_of(tree), bound)
    assert close(fast_of(tree, batch).float_sum(None, bound), theirs)
    on_grid = exact_of(tree, batch, int(bound * GRID)) / GRID
    np.testing.assert_allclose(on_grid, theirs, atol=patients * (2 / GRID + 1e-6))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("patients", [None, 150, 4])
def test_removing_a_patient_moves_the_sum_by_at_most_the_flat_sensitivity(
    name: str, patients: int | None
) -> None:
    tree, batch = NETWORKS[name], random_examples(5, 500, WIDTH, patients=patients)
    batch = replace(batch, features=batch.features * 3)
    for sensitivity in (CLIP, 1000):
        share = math.isqrt(sensitivity**2 // len(sizes_of(tree)))
        edges = list(pairwise(np.cumsum([0, *sizes_of(tree)])))
        fast = fast_of(tree, batch)
        sums = [
            (fast.clipped_sum(None, sensitivity), lambda stay: fast.clipped_sum(stay, sensitivity))  # noqa: B023
        ]
        if sensitivity == CLIP:
            everybody = exact_of(tree, batch, CLIP)
            sums.append((everybody, lambda stay: exact_of(tree, batch.sample(stay), CLIP)))
        longest = 0.0
        for leaver in range(0, batch.units, max(1, batch.units // 8)):
            stay = np.ones(batch.units, dtype=bool)
            stay[leaver] = False
            for everybody, without in sums:
                moved = everybody - without(stay)
                assert all(np.linalg.norm(moved[low:high]) <= share for low, high in edges)
                longest = max(longest, float(np.linalg.norm(moved)))
        assert longest <= sensitivity
        if patients is None:
            assert longest > 0.4 * clip_norm(tree, sensitivity, LIMITS, True)


@given(st.integers(1, 2**30), st.lists(st.integers(1, 9), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_the_tensors_together_are_no_longer_than_the_sensitivity(
    sensitivity: int, sizes: list[int]
) -> None:
    if sensitivity**2 < len(sizes):
        with pytest.raises(ValueError, match="cannot be shared"):
            PerLayer(sizes).on_grid(np.ones((1, sum(sizes))), sensitivity)
        return
    gradients = (
        np.random.default_rng(0).normal(size=(5, sum(sizes))) * 10.0 ** np.arange(-3, 2)[:, None]
    )
    vectors = PerLayer(sizes).on_grid(gradients, sensitivity)
    assert all(sum(int(v) ** 2 for v in vector) <= sensitivity**2 for vector in vectors)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("patients", [None, 40])
def test_a_row_that_is_not_finite_counts_as_zeros(broken: float, patients: int | None) -> None:
    tree, batch = NETWORKS["mlp"], random_examples(8, 90, WIDTH, patients=patients)
    features = batch.features.copy()
    features[7] = np.float32(broken)
    spoilt = replace(batch, features=features)
    result = fast_of(tree, spoilt).clipped_sum(None, CLIP) / GRID
    theirs = clipped(vectors_of(tree, spoilt), sizes_of(tree), CLIP / GRID)
    np.testing.assert_allclose(result, theirs, atol=2e-3)
    np.testing.assert_allclose(exact_of(tree, spoilt, CLIP) / GRID, theirs, atol=2e-3)


def test_a_clip_norm_that_the_layers_cannot_share_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="raise the clip norm"):
        clip_norm(NETWORKS["mlp"], 30, LIMITS, True)


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("name", modules.NETWORKS)
@pytest.mark.parametrize("patients", [None, 21, 1])
def test_any_module_is_clipped_by_layer_as_opacus_does(name: str, patients: int | None) -> None:
    module, inputs, targets = modules.case(name, 90)
    owner = None if patients is None else modules.owners(90, patients)
    each = np.arange(90) if owner is None else owner
    gradients = modules.by_opacus(module, inputs, targets, each).numpy()
    sizes = [p.numel() for p in module.parameters()]
    bound = float(np.median(np.linalg.norm(gradients, axis=1)))
    engine = clipped_sum_of(module, modules.loss, inputs[:64], per_layer=True)
    assert engine.path == ("vmap" if name == "shared" else "book-keeping")
    assert close(
        engine.float_sum(inputs, targets, bound, owner).numpy(), clipped(gradients, sizes, bound)
    )
    sensitivity = int(bound * GRID)
    everybody = clipped_sum(engine, inputs, targets, sensitivity, most_patients=100, patients=owner)
    for leaver in range(0, int(each[-1]) + 1, 7):
        stay = each != leaver
        rest = np.unique(each[stay], return_inverse=True)[1]
        without = clipped_sum(
            engine, inputs[stay], targets[stay], sensitivity, most_patients=100, patients=rest
        )
        assert np.linalg.norm(everybody - without) <= sensitivity
