"""The private mechanism: bounded by one patient, equal to Opacus, blind to broken rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.optimizers import DPOptimizer
from torch import nn

from ledger.entries.operations.plans import Purpose
from ledger.experiment.average import LateAverage
from ledger.experiment.network_spec import Linear, LogisticRegression, Mlp, Sequential, expand
from ledger.experiment.spec import BinaryTask, MulticlassTask
from ledger.experiment.tensors import to_grid
from node.data.encode import Examples
from node.errors import IntentRefused, JobRefused
from node.training.networks.modules import FloatVector, build, load_flat
from node.training.rounds.train import (
    Training,
    bounded,
    fedavg_round,
    fedsgd_round,
    local_baseline,
    noisy_gradient_sum,
    rehearse,
    start_torch,
)
from node.training.sums.clipping import clip_to_grid
from node.training.sums.exact import block_rows, exact_sum, loss_of, patient_gradients, per_sample
from privacy.events import FULL_BATCH, GRID
from privacy.noise import TestRng
from tests.node.cases import CLIP, NOISE, heart_spec, random_examples, release

start_torch()
BINARY = BinaryTask(kind="binary", target="y", positive=("1",))
CLASSES = MulticlassTask(kind="multiclass", target="y", classes=("a", "b", "c"))
WIDTH = 13
NORMED = Sequential.model_validate(
    {
        "_target_": "torch.nn.Sequential",
        "layers": [
            {"_target_": "torch.nn.Linear", "in_features": WIDTH, "out_features": 9},
            {"_target_": "torch.nn.LayerNorm", "normalized_shape": 9},
            *({"_target_": f"torch.nn.{name}"} for name in ("GELU", "SiLU", "ELU", "ReLU")),
            {"_target_": "torch.nn.Linear", "in_features": 9, "out_features": 7},
            *({"_target_": f"torch.nn.{name}"} for name in ("Softplus", "Sigmoid", "Tanh")),
            {"_target_": "torch.nn.Linear", "in_features": 7, "out_features": 1},
        ],
    }
)
TREES = {
    "logistic": expand(LogisticRegression(preset="logistic-regression"), WIDTH, 1),
    "mlp": expand(Mlp(preset="mlp", hidden=(16, 8)), WIDTH, 1),
    "normed": NORMED,
}


def engine_of(tree: Sequential, seed: int = 0) -> tuple[nn.Module, FloatVector]:
    engine = per_sample(build(tree))
    count = sum(p.numel() for p in engine.parameters())
    weights = np.random.default_rng(seed).normal(0, 0.7, count).astype(np.float32)
    load_flat(engine, weights.astype(np.float64))
    return engine, weights.astype(np.float64)


def stock_network(tree: Sequential) -> nn.Module:
    """The same layers with torch's own linear ones."""
    layers: list[nn.Module] = []
    for layer in build(tree):
        if isinstance(layer, nn.Linear):
            layers.append(
                nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            )
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def opacus_sum(
    tree: Sequential, weights: FloatVector, batch: Examples, bound: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The clipped sum of a batch as stock Opacus takes it."""
    stock = per_sample(stock_network(tree))
    load_flat(stock, weights)
    optimizer = DPOptimizer(
        torch.optim.SGD(stock.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=bound,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    loss = loss_of(BINARY)(stock(torch.from_numpy(batch.features)), torch.from_numpy(batch.targets))
    with pytest.warns(UserWarning, match="Full backward hook"):
        loss.backward()
    optimizer.pre_step()
    return torch.cat([p.grad.ravel() for p in stock.parameters()]).double().numpy()


def training_of(name: str, examples: Examples, declared: int = 60) -> tuple[Training, FloatVector]:
    engine, weights = engine_of(TREES[name])
    return Training(engine, loss_of(BINARY), examples, declared), weights


class Everybody(TestRng):
    """Takes every patient without drawing a bit."""

    def poisson_mask(self, sampling: int, size: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.ones(size, dtype=bool)


def summed(engine: nn.Module, batch: Examples, block: int = 64, clip: int = CLIP) -> Any:
    return exact_sum(engine, batch, sensitivity=clip, loss=loss_of(BINARY), block=block)


def recorded() -> tuple[list[tuple[Purpose, int]], Any]:
    intents: list[tuple[Purpose, int]] = []
    return intents, lambda purpose, steps: intents.append((purpose, steps))


@pytest.mark.parametrize("name", TREES)
def test_the_clipped_sum_equals_stock_opacus_before_the_grid(name: str) -> None:
    batch = random_examples(1, 200, WIDTH)
    engine, weights = engine_of(TREES[name])
    gradients = np.concatenate(
        list(patient_gradients(engine, batch, loss=loss_of(BINARY), block=64))
    )
    norms = np.linalg.norm(gradients, axis=1)
    bound = float(np.median(norms))  # half of the patients are clipped
    # Opacus adds 1e-6 to the norm that it divides by.
    ours = (gradients * np.minimum(1.0, bound / (norms + 1e-6))[:, None]).sum(axis=0)

    theirs = opacus_sum(TREES[name], weights, batch, bound)
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
    on_grid = summed(engine, batch, clip=int(bound * GRID)) / GRID
    np.testing.assert_allclose(on_grid, ours, atol=200 * (2 / GRID + 1e-6))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("patients", [None, 40])
def test_removing_a_patient_takes_away_exactly_that_patients_bounded_vector(
    name: str, patients: int | None
) -> None:
    batch = random_examples(2, 150, WIDTH, patients=patients)
    engine, _ = engine_of(TREES[name])
    vectors = np.concatenate(
        [
            clip_to_grid(part, CLIP)
            for part in patient_gradients(engine, batch, loss=loss_of(BINARY), block=64)
        ]
    )
    assert len(vectors) == batch.units
    assert ((vectors**2).sum(axis=1) <= CLIP**2).all()
    assert ((vectors**2).sum(axis=1) > 0.99 * CLIP**2).any()
    everybody = summed(engine, batch)
    for leaver in range(0, batch.units, 3):
        stay = np.ones(batch.units, dtype=bool)
        stay[leaver] = False
        difference = everybody - summed(engine, batch.sample(stay))
        np.testing.assert_array_equal(difference, vectors[leaver])


def test_a_patient_with_many_rows_counts_once_by_the_mean_of_its_rows() -> None:
    many = random_examples(3, 300, WIDTH, patients=4)  # each spans several blocks
    engine, _ = engine_of(TREES["mlp"])
    alone = Examples(many.features, many.targets, np.arange(300), 300)
    rows = np.concatenate(list(patient_gradients(engine, alone, loss=loss_of(BINARY), block=64)))
    means = np.stack([rows[many.patients == p].mean(axis=0) for p in range(4)])
    found = np.concatenate(list(patient_gradients(engine, many, loss=loss_of(BINARY), block=64)))
    np.testing.assert_allclose(found, means, rtol=1e-10, atol=1e-12)
    other = np.concatenate(list(patient_gradients(engine, many, loss=loss_of(BINARY), block=128)))
    np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-6)
    assert (summed(engine, many) ** 2).sum() <= (4 * CLIP) ** 2


@pytest.mark.parametrize("broken", [np.nan, np.inf, 3e38])
def test_a_row_that_is_not_finite_changes_nothing(broken: float) -> None:
    batch = random_examples(4, 30, WIDTH)
    engine, _ = engine_of(TREES["mlp"])
    stay = np.ones(30, dtype=bool)
    stay[7] = False
    expected = summed(engine, batch.sample(stay))
    features = batch.features.copy()
    features[7] = np.float32(broken)
    result = summed(engine, replace(batch, features=features))
    if not np.isfinite(broken):
        np.testing.assert_array_equal(result, expected)
    assert ((result - expected) ** 2).sum() <= CLIP**2


def test_a_computation_that_fails_over_rows_sends_noise_and_says_nothing() -> None:
    tree = expand(LogisticRegression(preset="logistic-regression"), WIDTH, 3)
    engine, _ = engine_of(tree)
    batch = random_examples(5, 20, WIDTH, classes=3)
    broken = replace(batch, targets=np.full(20, 99, dtype=np.int64))
    noise = TestRng(5).gaussian_integers(NOISE, 3 * WIDTH + 3)
    training = Training(engine, loss_of(CLASSES), broken, 20)
    result = noisy_gradient_sum(training, release("train"), Everybody(5))
    np.testing.assert_array_equal(result, noise)


def test_a_batch_that_needs_too_much_memory_sends_noise() -> None:
    def starve(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise MemoryError

    tree = expand(LogisticRegression(preset="logistic-regression"), WIDTH, 1)
    engine, _ = engine_of(tree)
    training = Training(engine, starve, random_examples(5, 20, WIDTH), 20)
    result = noisy_gradient_sum(training, release("train"), Everybody(5))
    np.testing.assert_array_equal(result, TestRng(5).gaussian_integers(NOISE, WIDTH + 1))


def test_the_release_is_the_exact_sum_plus_the_generators_integers() -> None:
    training, weights = training_of("mlp", random_examples(6, 50, WIDTH))
    intents, record = recorded()
    update = fedsgd_round(
        training,
        weights,
        release("train"),
        update_bound=2**50,
        rng=TestRng(1),
        before_noise=record,
    )
    rng = TestRng(1)
    rng.poisson_mask(FULL_BATCH, 50)
    noise = rng.gaussian_integers(NOISE, len(update))
    np.testing.assert_array_equal(update - noise, summed(training.engine, training.examples))
    assert intents == [("train", 1)]
    assert update.dtype == np.int64


def test_an_empty_batch_is_noise_alone() -> None:
    nobody = random_examples(7, 5, WIDTH).sample(np.zeros(5, dtype=bool))
    training, weights = training_of("logistic", nobody)
    update = fedsgd_round(
        training,
        weights,
        release("train"),
        update_bound=2**50,
        rng=TestRng(2),
        before_noise=lambda purpose, steps: None,
    )
    np.testing.assert_array_equal(update, TestRng(2).gaussian_integers(NOISE, WIDTH + 1))


def test_no_noise_is_drawn_when_the_intent_is_not_recorded() -> None:
    training, weights = training_of("logistic", random_examples(8, 5, WIDTH))
    rng = TestRng(3)
    rng.close()  # a draw would raise another error

    def refuse(purpose: Purpose, steps: int) -> None:
        raise IntentRefused(purpose)

    with pytest.raises(IntentRefused) as caught:
        fedsgd_round(
            training, weights, release("train"), update_bound=1, rng=rng, before_noise=refuse
        )
    assert caught.value.purpose == "train"


def test_fedavg_takes_noisy_steps_and_weighs_the_difference() -> None:
    training, weights = training_of("mlp", random_examples(9, 50, WIDTH))
    intents, record = recorded()
    settings_ = {"local_steps": 4, "learning_rate": 0.5, "update_bound": 2**50}
    half = release("train", sampling=FULL_BATCH // 2)

    def run(weight: int, seed: int) -> Any:
        return fedavg_round(
            training,
            weights,
            half,
            weight=weight,
            rng=TestRng(seed),
            before_noise=record,
            **settings_,  # type: ignore[arg-type]
        )

    update = run(60, 1)
    np.testing.assert_array_equal(update, run(60, 1))
    assert (update != run(60, 2)).any()
    np.testing.assert_array_equal(update % 60, 0)
    assert intents == [("train", 4)] * 3

    rng, now = TestRng(1), weights.copy()
    for _ in range(4):
        load_flat(training.engine, now)
        batch = training.examples.sample(rng.poisson_mask(FULL_BATCH // 2, 50))
        noisy = summed(training.engine, batch) + rng.gaussian_integers(NOISE, len(now))
        now = now - 0.5 * (noisy / GRID) / 30.0
    np.testing.assert_array_equal(update, 60 * to_grid(now - weights))


def test_a_local_baseline_averages_its_late_steps() -> None:
    training, weights = training_of("logistic", random_examples(10, 50, WIDTH))
    intents, record = recorded()

    def run(steps: int, averaged: int, ema: str | None = None) -> FloatVector:
        strategy = {
            "name": "fedsgd",
            "average_last": str(round((averaged - 0.5) / steps, 3)),
            "ema": ema,
        }
        made = heart_spec(federation={"datasets": ["a"], "strategy": strategy, "rounds": steps})
        return local_baseline(
            training,
            weights,
            release("baseline_train"),
            steps=steps,
            learning_rate=1.0,
            average=LateAverage(made, steps),
            rng=TestRng(4),
            before_noise=record,
        )

    third, second = run(3, 1), run(2, 1)
    np.testing.assert_allclose(run(3, 2), (second + third) / 2)
    np.testing.assert_allclose(run(3, 2, "0.9"), 0.9 * second + 0.1 * third)
    assert intents[0] == ("baseline_train", 3)


@given(
    values=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=9),
    bound=st.integers(1, 2**42),
)
@settings(max_examples=60, deadline=None)
def test_an_update_never_exceeds_its_bound_and_is_left_alone_within_it(
    values: list[int], bound: int
) -> None:
    update = np.array(values, dtype=np.int64)
    shrunk = bounded(update, bound)
    assert sum(int(v) ** 2 for v in shrunk) <= bound**2
    if sum(v * v for v in values) <= bound**2:
        assert shrunk is update


@given(
    gradients=st.lists(
        st.lists(
            st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    ),
    sensitivity=st.integers(1, 2**30),
)
@settings(max_examples=100, deadline=None)
def test_every_clipped_vector_fits_in_exact_integers(
    gradients: list[list[float]], sensitivity: int
) -> None:
    vectors = clip_to_grid(np.array(gradients), sensitivity)
    for vector, gradient in zip(vectors.tolist(), gradients, strict=True):
        assert sum(v * v for v in vector) <= sensitivity**2
        assert all(v * g >= 0 for v, g in zip(vector, gradient, strict=True))


def test_blocks_depend_on_public_numbers_alone() -> None:
    assert block_rows(300, FULL_BATCH, 20) == 512
    assert block_rows(20, FULL_BATCH, 20) == 64
    assert block_rows(10**6, FULL_BATCH, 20) == 4096
    assert block_rows(10**6, FULL_BATCH // 1000, 20) == 1024
    assert block_rows(10**6, FULL_BATCH, 100_000) == 128
    assert block_rows(10**6, FULL_BATCH, 5_000_000) == 64


def test_a_sensitivity_out_of_range_is_refused_before_anything_is_computed() -> None:
    engine, _ = engine_of(TREES["logistic"])
    with pytest.raises(ValueError, match=r"1\.\.1073741824"):
        summed(engine, random_examples(1, 3, WIDTH), clip=2**30 + 1)


def test_a_model_that_cannot_be_trained_is_refused_before_any_intent() -> None:
    narrow = Sequential(layers=(Linear(in_features=WIDTH - 1, out_features=1),))
    engine, _ = engine_of(narrow)
    with pytest.raises(JobRefused, match="cannot be trained"):
        rehearse(Training(engine, loss_of(BINARY), random_examples(1, 3, WIDTH), 10))
