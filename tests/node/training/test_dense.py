"""The fast engine: equal to Opacus, bounded by one patient, blind to broken rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.experiment.fast_clip import Limits, clip_norm
from ledger.experiment.network_spec import LogisticRegression, Sequential, expand
from ledger.experiment.spec import RegressionTask
from node.data.encode import Examples
from node.errors import JobRefused
from node.training.networks import elementwise
from node.training.networks.products import PRODUCTS, Product
from node.training.rounds.train import (
    Training,
    fedavg_round,
    load_weights,
    noisy_gradient_sum,
    rehearse,
)
from node.training.sums import dense
from node.training.sums.dense import DenseSum
from node.training.sums.exact import loss_of, patient_gradients
from privacy.errors import InvalidParameter
from privacy.events import FULL_BATCH, GRID
from privacy.noise import TestRng
from tests.node.cases import CLIP, random_examples, release
from tests.node.training.test_train import (
    BINARY,
    CLASSES,
    TREES,
    WIDTH,
    engine_of,
    opacus_sum,
)

LIMITS = Limits(patients=1000, rows=5000)
BIASLESS = Sequential.model_validate(
    {
        "_target_": "torch.nn.Sequential",
        "layers": [
            {"_target_": "torch.nn.LayerNorm", "normalized_shape": WIDTH},
            {"_target_": "torch.nn.Tanh"},
            {
                "_target_": "torch.nn.Linear",
                "in_features": WIDTH,
                "out_features": 1,
                "bias": False,
            },
        ],
    }
)
NETWORKS = TREES | {"biasless": BIASLESS}


def fast_of(tree: Sequential, batch: Examples, task: Any = BINARY) -> DenseSum:
    fast = DenseSum(tree, task, batch, LIMITS)
    fast.load(engine_of(tree)[1])
    return fast


def vectors_of(tree: Sequential, batch: Examples, task: Any = BINARY) -> Any:
    """Each patient's gradient by Opacus, float64 [m, d]."""
    engine, _ = engine_of(tree)
    return np.concatenate(list(patient_gradients(engine, batch, loss=loss_of(task), block=64)))


def clipped(gradients: Any, bound: float) -> Any:
    norms = np.linalg.norm(gradients, axis=1)
    return (gradients * (bound / np.maximum(norms, bound))[:, None]).sum(axis=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_clipped_sum_equals_stock_opacus_before_the_grid(name: str) -> None:
    tree, batch = NETWORKS[name], random_examples(1, 700, WIDTH)
    bound = float(np.median(np.linalg.norm(vectors_of(tree, batch), axis=1)))
    theirs = opacus_sum(tree, engine_of(tree)[1], batch, bound)
    ours = fast_of(tree, batch).float_sum(None, bound)
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("patients", [300, 40, 3])
def test_patients_with_several_rows_are_clipped_as_one(name: str, patients: int) -> None:
    tree, batch = NETWORKS[name], random_examples(2, 700, WIDTH, patients=patients)
    gradients = vectors_of(tree, batch)
    bound = float(np.median(np.linalg.norm(gradients, axis=1)))
    theirs = clipped(gradients, bound)
    ours = fast_of(tree, batch).float_sum(None, bound)
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


@pytest.mark.parametrize(
    ("task", "outputs"), [(CLASSES, 3), (RegressionTask(kind="regression", target="y"), 1)]
)
def test_every_task_has_its_loss(task: Any, outputs: int) -> None:
    tree = expand(LogisticRegression(preset="logistic-regression"), WIDTH, outputs)
    batch = random_examples(3, 90, WIDTH, classes=max(2, outputs), patients=50)
    theirs = clipped(vectors_of(tree, batch, task), 0.5)
    ours = fast_of(tree, batch, task).float_sum(None, 0.5)
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


def test_the_same_noise_gives_the_same_weights_as_the_exact_engine() -> None:
    batch = random_examples(4, 200, WIDTH, patients=150)
    tree = TREES["mlp"]
    engine, weights = engine_of(tree)
    training = Training(engine, loss_of(BINARY), batch, 150, DenseSum(tree, BINARY, batch, LIMITS))
    rehearse(training)
    moved = []
    for kind in ("exact", "fast"):
        update = fedavg_round(
            training,
            weights,
            release("train", engine=kind, sampling=FULL_BATCH // 2),  # type: ignore[arg-type]
            local_steps=5,
            learning_rate=0.5,
            weight=1,
            update_bound=2**50,
            rng=TestRng(1),
            before_noise=lambda purpose, steps: None,
        )
        moved.append(weights + update / GRID)
    exact, fast = moved
    assert (exact != fast).any()
    # What is left between them is the grid, and the norm that the fast engine keeps for rounding.
    assert np.linalg.norm(exact - fast) <= 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("patients", [None, 150, 4])
def test_removing_a_patient_moves_the_sum_by_at_most_the_charged_sensitivity(
    name: str, patients: int | None
) -> None:
    tree, batch = NETWORKS[name], random_examples(5, 600, WIDTH, patients=patients)
    batch = replace(batch, features=batch.features * 3)
    for sensitivity in (CLIP, 100):
        fast = fast_of(tree, batch)
        everybody = fast.clipped_sum(None, sensitivity)
        longest = 0.0
        for leaver in range(0, batch.units, max(1, batch.units // 40)):
            stay = np.ones(batch.units, dtype=bool)
            stay[leaver] = False
            beside = everybody - fast.clipped_sum(stay, sensitivity)
            # The same, from a table that never held the patient.
            again = fast_of(tree, batch.sample(stay)).clipped_sum(None, sensitivity)
            np.testing.assert_array_equal(everybody - again, beside)
            longest = max(longest, float(np.linalg.norm(beside)))
            alone = fast.clipped_sum(~stay, sensitivity)
            assert np.abs(beside - alone).max() <= 2
        assert longest <= sensitivity
        if patients is None:  # then many are clipped, and come near
            assert longest > 0.8 * clip_norm(tree, sensitivity, LIMITS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_has_the_same_bits_wherever_it_stands(name: str) -> None:
    batch = random_examples(6, 448, WIDTH)
    order = np.random.default_rng(6).permutation(448)
    shuffled = Examples(batch.features[order], batch.targets[order], batch.patients, 448)
    found = [fast_of(NETWORKS[name], examples) for examples in (batch, shuffled)]
    straight, mixed = (fast._run(slice(0, 448), None).everything() for fast in found)
    short = found[0]._run(slice(0, 64), None).everything()
    for a, b, c in zip(straight, mixed, short, strict=True):
        np.testing.assert_array_equal(a[:, order], b)
        np.testing.assert_array_equal(a[:, :64], c)


def test_a_machine_that_rounds_by_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_place(z: Any, y: Any) -> None:
        torch.tanh(z, out=y)
        y[:, 1] *= 1.0 + torch.finfo(y.dtype).eps

    monkeypatch.setitem(elementwise.FUNCTIONS, "torch.nn.Tanh", (by_place, elementwise._tanh_back))
    with pytest.raises(JobRefused, match=r"by its place in a block.*use privacy.engine: exact"):
        DenseSum(TREES["mlp"], BINARY, random_examples(7, 5, WIDTH), LIMITS)


@pytest.mark.parametrize("spoilt_products", [1, 2])
def test_a_machine_whose_product_rounds_by_place_takes_the_next_one(
    spoilt_products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_place(product: Product) -> Product:
        def bind(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Any:
            multiply = product.bind(a, b, out)

            def spoilt() -> None:
                multiply()
                out[:, 1] *= 1.0 + torch.finfo(out.dtype).eps

            return spoilt

        return Product(product.dtype, bind)

    batch = random_examples(7, 200, WIDTH)
    expected = fast_of(TREES["mlp"], batch).float_sum(None, 0.5)
    spoilt = [by_place(product) for product in PRODUCTS[:spoilt_products]]
    monkeypatch.setattr(dense, "PRODUCTS", (*spoilt, *PRODUCTS[spoilt_products:]))
    fast = fast_of(TREES["mlp"], batch)
    taken = PRODUCTS[spoilt_products].dtype
    assert {torch.from_numpy(a).dtype for a in fast._run(slice(0, 64), None).everything()} == {
        taken
    }
    total = fast.float_sum(None, 0.5)
    assert np.linalg.norm(total - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("patients", [None, 40])
def test_a_row_that_is_not_finite_counts_as_zeros(broken: float, patients: int | None) -> None:
    batch = random_examples(8, 90, WIDTH, patients=patients)
    fast = fast_of(TREES["mlp"], batch)
    features = batch.features.copy()
    features[7] = np.float32(broken)
    result = fast_of(TREES["mlp"], replace(batch, features=features)).clipped_sum(None, CLIP)
    gradients = vectors_of(TREES["mlp"], replace(batch, features=features))
    np.testing.assert_allclose(result / GRID, clipped(gradients, CLIP / GRID), atol=2e-3)
    if patients is None:
        stay = np.arange(90) != 7
        np.testing.assert_array_equal(result, fast.clipped_sum(stay, CLIP))
    after = fast.clipped_sum(None, CLIP)
    np.testing.assert_array_equal(after, fast_of(TREES["mlp"], batch).clipped_sum(None, CLIP))


def test_weights_that_are_not_finite_give_a_sum_of_zero() -> None:
    fast = fast_of(TREES["logistic"], random_examples(9, 20, WIDTH))
    fast.load(np.full(WIDTH + 1, np.inf))
    assert not fast.clipped_sum(None, CLIP).any()


def test_rows_that_cancel_do_not_carry_more_than_rounding_allows_for() -> None:
    tree = expand(LogisticRegression(preset="linear-regression"), WIDTH, 1)
    task = RegressionTask(kind="regression", target="y")
    features = np.tile(random_examples(10, 1, WIDTH).features, (2, 1))
    weights = engine_of(tree)[1]
    middle = float(features[0].astype(np.float64) @ weights[:WIDTH] + weights[WIDTH])
    targets = np.array([middle + 1e6, middle - 1e6 + 1], dtype=np.float32)
    batch = Examples(features, targets, np.zeros(2, dtype=np.int64), 1)
    total = fast_of(tree, batch, task).float_sum(None, 0.5)
    # The two gradients are a million long and cancel but for one part: less is left of that than 1/2.
    assert 0 < np.linalg.norm(total) < 1e-4


def test_an_empty_batch_is_zero() -> None:
    fast = fast_of(TREES["mlp"], random_examples(11, 20, WIDTH))
    assert not fast.clipped_sum(np.zeros(20, dtype=bool), CLIP).any()


@pytest.mark.parametrize("limits", [Limits(19, 40), Limits(20, 19)])
def test_no_engine_is_made_for_more_than_the_registration_allows(limits: Limits) -> None:
    """A sum that found it out would be noise with the last patient, and everybody without."""
    with pytest.raises(JobRefused, match="more patients or rows than its registration allows"):
        DenseSum(TREES["mlp"], BINARY, random_examples(11, 20, WIDTH), limits)


def test_a_computation_that_fails_over_everybody_s_rows_sends_noise_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def starve(*given: object) -> None:
        raise MemoryError

    engine, weights = engine_of(TREES["mlp"])
    batch = random_examples(11, 20, WIDTH)
    small = fast_of(TREES["mlp"], batch)
    monkeypatch.setattr(small, "_run", starve)
    training = Training(engine, loss_of(BINARY), batch, 9, small)
    fast = release("train", engine="fast")
    load_weights(training, fast, weights)
    result = noisy_gradient_sum(training, fast, TestRng(5))
    rng = TestRng(5)
    rng.poisson_mask(FULL_BATCH, 20)
    np.testing.assert_array_equal(result, rng.gaussian_integers(fast.noise_sd, len(weights)))


def test_an_engine_that_was_not_made_is_not_replaced_by_the_other() -> None:
    engine, weights = engine_of(TREES["mlp"])
    training = Training(engine, loss_of(BINARY), random_examples(11, 20, WIDTH), 20)
    with pytest.raises(JobRefused, match="the train release asks for an engine"):
        load_weights(training, release("train", engine="fast"), weights)


@given(
    patients=st.integers(1, 10**6), rows=st.integers(1, 10**7), sensitivity=st.integers(50, 2**30)
)
@settings(max_examples=50, deadline=None)
def test_the_norm_that_is_clipped_to_falls_with_the_size_of_the_site(
    patients: int, rows: int, sensitivity: int
) -> None:
    tree = TREES["logistic"]
    norm = clip_norm(tree, sensitivity, Limits(patients, rows))
    assert sensitivity / 2 < norm < sensitivity - (WIDTH + 1) ** 0.5
    assert norm >= clip_norm(tree, sensitivity, Limits(2 * patients, 2 * rows))


def test_a_clip_norm_that_rounding_would_eat_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="raise the clip norm, or use the exact engine"):
        clip_norm(TREES["mlp"], 20, LIMITS)
