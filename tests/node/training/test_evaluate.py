"""Scores and the noisy histogram of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ledger.entries.operations.plans import Purpose
from ledger.experiment.network_spec import LogisticRegression, expand
from ledger.experiment.plan.shape import metric_layout
from ledger.experiment.spec import ExperimentSpec
from node.errors import JobRefused
from node.training.networks.modules import build, load_flat
from node.training.rounds.evaluate import noisy_histogram, score
from privacy.events import FULL_BATCH, GRID
from privacy.histogram import encode, measures
from privacy.noise import TestRng
from tests.node.cases import NOISE, heart_spec, random_examples, release

WIDTH = 4
TASKS = {
    "binary": {"kind": "binary", "target": "y", "positive": ["1"]},
    "multiclass": {"kind": "multiclass", "target": "y", "classes": ["a", "b", "c"]},
    "regression": {"kind": "regression", "target": "y"},
}


def model_of(spec: ExperimentSpec) -> torch.nn.Module:
    tree = expand(LogisticRegression(preset="logistic-regression"), WIDTH, spec.outputs)
    module = build(tree)
    count = sum(p.numel() for p in module.parameters())
    load_flat(module, np.random.default_rng(0).normal(0, 1, count))
    return module


@pytest.mark.parametrize("kind", TASKS)
def test_scores_are_finite_and_in_range_even_for_broken_rows(kind: str) -> None:
    spec = heart_spec(task=TASKS[kind])
    features = random_examples(1, 130, WIDTH).features.copy()
    features[3] = np.nan
    scores = score(model_of(spec), features, spec.task, block=64)
    assert scores.shape == (130, spec.outputs)
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(scores[3], 1 / 3 if kind == "multiclass" else 0.5)
    if kind == "multiclass":
        np.testing.assert_allclose(scores.sum(axis=1), 1.0)
    np.testing.assert_array_equal(
        score(model_of(spec), features[64:], spec.task, block=64), scores[64:]
    )


@pytest.mark.parametrize("kind", TASKS)
def test_the_histogram_is_the_exact_one_plus_the_generators_integers(kind: str) -> None:
    spec = heart_spec(task=TASKS[kind])
    classes = 3 if kind == "multiclass" else 2
    examples = random_examples(2, 90, WIDTH, patients=40, classes=classes)
    intents: list[tuple[Purpose, int]] = []
    module = model_of(spec)
    found = noisy_histogram(
        module,
        examples,
        spec,
        release("evaluate"),
        declared=50,
        rng=TestRng(1),
        before_noise=lambda purpose, steps: intents.append((purpose, steps)),
    )
    shape = metric_layout(spec)
    assert shape is not None
    exact = found - TestRng(1).gaussian_integers(NOISE, shape.size)
    targets = (examples.targets + 1) / 2 if kind == "regression" else examples.targets
    scores = score(module, examples.features, spec.task, block=64)
    np.testing.assert_array_equal(exact, encode(shape, scores, targets, examples.patients))
    assert abs(exact.sum() / GRID - examples.units) < 0.01
    assert intents == [("evaluate", 1)]
    assert "accuracy" in measures(shape, exact, 0, 1) or kind == "regression"


def test_one_patient_moves_the_histogram_by_at_most_one() -> None:
    spec = heart_spec(task=TASKS["binary"])
    examples = random_examples(3, 90, WIDTH, patients=30)
    module = model_of(spec)

    def counts(stay: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> np.ndarray:  # type: ignore[type-arg]
        return noisy_histogram(
            module,
            examples.sample(stay),
            spec,
            release("evaluate"),
            declared=50,
            rng=TestRng(1),
            before_noise=lambda purpose, steps: None,
        )

    everybody = np.ones(examples.units, dtype=bool)
    for leaver in range(examples.units):
        others = everybody.copy()
        others[leaver] = False
        difference = counts(everybody) - counts(others)
        assert 0 < (difference**2).sum() <= GRID**2


def test_a_release_that_does_not_cover_a_patient_is_refused_before_any_intent() -> None:
    spec = heart_spec(task=TASKS["binary"])
    examples = random_examples(4, 9, WIDTH)

    def never(purpose: Purpose, steps: int) -> None:
        raise AssertionError("an intent was asked for")

    for wrong in (
        release("evaluate", sensitivity=GRID - 1),
        release("evaluate", sampling=FULL_BATCH // 2),
    ):
        with pytest.raises(JobRefused, match="does not cover"):
            noisy_histogram(
                model_of(spec),
                examples,
                spec,
                wrong,
                declared=5,
                rng=TestRng(1),
                before_noise=never,
            )
    silent = replace(examples)
    without = heart_spec(privacy={"epsilon": 1, "metrics": None})
    with pytest.raises(JobRefused, match="no metrics"):
        noisy_histogram(
            model_of(spec),
            silent,
            without,
            release("evaluate"),
            declared=5,
            rng=TestRng(1),
            before_noise=never,
        )


def test_scores_are_the_same_bits_however_few_rows_a_block_holds() -> None:
    for task in TASKS:
        spec = heart_spec(task=TASKS[task])
        features = random_examples(4, 67, WIDTH).features
        module = model_of(spec)
        alone = [score(module, features[row : row + 1], spec.task, block=64) for row in range(67)]
        together = score(module, features, spec.task, block=64)
        np.testing.assert_array_equal(np.concatenate(alone), together)


def test_rows_that_need_too_much_memory_still_leave_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def starve(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("node.training.rounds.evaluate.score", starve)
    spec = heart_spec(task=TASKS["binary"])
    found = noisy_histogram(
        model_of(spec),
        random_examples(2, 90, WIDTH),
        spec,
        release("evaluate"),
        declared=50,
        rng=TestRng(1),
        before_noise=lambda purpose, steps: None,
    )
    np.testing.assert_array_equal(found, TestRng(1).gaussian_integers(NOISE, len(found)))
