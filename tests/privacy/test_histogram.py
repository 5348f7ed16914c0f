from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from privacy.errors import InvalidParameter
from privacy.events import GRID
from privacy.histogram import Layout, Task, calibration, confusion, encode, layout, measures
from privacy.noise import TestRng

BINARY = layout("binary", 2, 32)


def cohort(n: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, n)
    score = 1 / (1 + np.exp(-(1.6 * (target - 0.5) + rng.normal(size=n))))
    return score, target


def probabilities(n: int, k: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[target]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), target


@pytest.mark.parametrize(
    ("task", "classes", "bins", "size"),
    [("binary", 2, 32, 64), ("multiclass", 3, 10, 90), ("regression", 1, 32, 32)],
)
def test_a_layout_knows_its_size(task: Task, classes: int, bins: int, size: int) -> None:
    assert layout(task, classes, bins).size == size


@pytest.mark.parametrize(
    ("task", "classes", "bins", "says"),
    [
        ("binary", 3, 32, "use 2 for binary"),
        ("multiclass", 1, 10, "2 or more for multiclass"),
        ("regression", 2, 10, "1 for regression"),
        ("ranking", 2, 10, "task 'ranking'"),
        ("binary", 2, 31, "an even number"),
        ("regression", 1, 9, "an even number"),
        ("multiclass", 3, 1, "at least 2"),
        ("multiclass", 300, 10, "use fewer bins or classes"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(
    task: Any, classes: int, bins: int, says: str
) -> None:
    with pytest.raises(InvalidParameter, match=says):
        layout(task, classes, bins)


def test_a_patient_with_one_row_counts_once() -> None:
    vector = encode(BINARY, np.array([0.0, 0.49, 0.5, 1.0]), np.array([0, 0, 1, 1]))
    assert vector.dtype == np.int64
    assert {i: int(v) for i, v in enumerate(vector) if v} == {
        0: GRID,
        15: GRID,
        32 + 16: GRID,
        32 + 31: GRID,
    }


def test_a_patient_with_three_rows_adds_a_third_of_each_truncated() -> None:
    groups = np.array(["ada", "ada", "ben", "ada"])
    vector = encode(BINARY, np.array([0.1, 0.1, 0.9, 0.7]), np.array([0, 0, 1, 1]), groups)
    assert vector[3] == 2 * GRID // 3
    assert vector[32 + 22] == GRID // 3
    assert vector[32 + 28] == GRID
    assert int(vector.sum()) == 2 * GRID - 1


rows = st.lists(
    st.tuples(
        st.floats(allow_nan=True, allow_infinity=True),
        st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5, math.nan, math.inf]),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(rows, st.sampled_from([BINARY, layout("regression", 1, 8)]))
def test_whatever_the_rows_a_patient_moves_the_sum_by_at_most_one(
    table: list[tuple[float, float, int]], where: Layout
) -> None:
    scores, targets, groups = (np.array(column) for column in zip(*table, strict=True))
    whole = encode(where, scores, targets, groups)
    for patient in set(groups.tolist()):
        keep = groups != patient
        rest = encode(where, scores[keep], targets[keep], groups[keep])
        moved = [int(value) for value in whole - rest]
        assert sum(value * value for value in moved) <= GRID**2
        assert min(moved) >= 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_same_bound_holds_for_many_classes(seed: int, n: int) -> None:
    where = layout("multiclass", 3, 4)
    scores, targets = probabilities(n, 3, seed)
    groups = np.random.default_rng(seed).integers(0, 5, n)
    whole = encode(where, scores, targets, groups)
    for patient in np.unique(groups):
        keep = groups != patient
        moved = whole - encode(where, scores[keep], targets[keep], groups[keep])
        assert sum(int(value) ** 2 for value in moved) <= GRID**2


def test_rows_without_a_score_or_a_class_add_nothing_and_raise_nothing() -> None:
    scores = np.array([math.nan, math.inf, 0.3, 0.3, 1e300])
    targets = np.array([0.0, 1.0, 7.0, math.nan, 1.0])
    vector = encode(BINARY, scores, targets)
    assert int(vector.sum()) == GRID
    assert vector[63] == GRID
    errors = encode(layout("regression", 1, 4), np.array([1.7e308]), np.array([-1.7e308]))
    assert errors.tolist() == [0, 0, 0, GRID]


def test_an_empty_test_set_is_a_vector_of_zeros() -> None:
    assert not encode(BINARY, np.empty(0), np.empty(0)).any()
    assert not encode(BINARY, np.empty((0, 1)), np.empty(0), np.empty(0)).any()


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    for scores, targets, groups in (
        (np.zeros(3), np.zeros(2), None),
        (np.zeros((3, 2)), np.zeros(3), None),
        (np.zeros(3), np.zeros(3), np.zeros(2)),
        (np.zeros(3), np.zeros((3, 1)), None),
    ):
        with pytest.raises(InvalidParameter, match="do not fit binary"):
            encode(BINARY, scores, targets, groups)


def test_without_noise_the_auc_is_that_of_the_binned_scores() -> None:
    score, target = cohort(740, 1)
    found = measures(BINARY, encode(BINARY, score, target), 0, 1)
    binned = (np.floor(score * 32) + 0.5) / 32
    assert found["auc"].value == pytest.approx(metrics.roc_auc_score(target, binned), abs=1e-12)
    assert found["auc"].value == pytest.approx(metrics.roc_auc_score(target, score), abs=2e-3)
    assert found["accuracy"].value == pytest.approx(np.mean((score >= 0.5) == target))
    assert found["brier"].value == pytest.approx(np.mean((binned - target) ** 2))
    assert found["brier"].value == pytest.approx(np.mean((score - target) ** 2), abs=2e-3)


def test_sums_of_hospitals_read_like_the_pooled_table() -> None:
    score, target = cohort(500, 2)
    parts = [encode(BINARY, score[a:b], target[a:b]) for a, b in ((0, 100), (100, 500))]
    pooled = encode(BINARY, score, target)
    assert measures(BINARY, parts[0] + parts[1], 0, 1) == measures(BINARY, pooled, 0, 1)


def test_intervals_cover_the_noise_at_ninety_five_percent() -> None:
    score, target = cohort(5000, 3)
    exact_vector = encode(BINARY, score, target)
    exact = measures(BINARY, exact_vector, 0, 1)
    rng, noise_sd, runs = TestRng(5), 30 * GRID, 300
    errors: dict[str, list[float]] = {name: [] for name in exact}
    halves: dict[str, list[float]] = {name: [] for name in exact}
    for _ in range(runs):
        noisy = exact_vector + rng.gaussian_integers(noise_sd, BINARY.size)
        for name, measure in measures(BINARY, noisy, noise_sd, 1).items():
            before = exact[name]
            assert None not in (measure.value, measure.low, measure.high, before.value)
            errors[name].append(measure.value - before.value)  # type: ignore[operator]
            both = measure.high - measure.low  # type: ignore[operator]
            sampling = before.high - before.low  # type: ignore[operator]
            halves[name].append(math.sqrt(max(0.0, both**2 - sampling**2)) / 2)
    for name in exact:
        predicted = float(np.mean(halves[name])) / 1.96
        assert np.std(errors[name]) == pytest.approx(predicted, rel=0.15)
        assert abs(np.mean(errors[name])) < 4 * predicted / math.sqrt(runs) + 2e-3


def test_more_contributors_with_noise_widen_the_interval() -> None:
    vector = encode(BINARY, *cohort(2000, 4))
    widths = [
        measure.high - measure.low  # type: ignore[operator]
        for measure in (measures(BINARY, vector, 3 * GRID, c)["auc"] for c in (1, 4, 16))
    ]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_negative_counts_are_used_and_only_results_are_clipped() -> None:
    vector = encode(BINARY, np.full(200, 0.9), np.ones(200))
    vector += encode(BINARY, np.full(200, 0.1), np.zeros(200))
    vector[5] -= 3 * GRID
    vector[32 + 2] -= 3 * GRID
    found = measures(BINARY, vector, GRID, 1)
    assert found["auc"].value == 1.0
    assert found["auc"].high == 1.0
    assert found["accuracy"].value == 1.0


def test_a_total_that_the_noise_drowns_is_null_with_the_reason() -> None:
    few = encode(BINARY, *cohort(30, 6))
    for measure in measures(BINARY, few, 4 * GRID, 1).values():
        assert (measure.value, measure.low, measure.high) == (None, None, None)
        assert measure.reason is not None
        assert "too few patients for the noise" in measure.reason
    empty = measures(BINARY, np.zeros(64, dtype=np.int64), 0, 1)
    assert {measure.reason for measure in empty.values()} == {"no patients counted"}
    negative = measures(BINARY, np.full(64, -GRID), GRID, 1)
    assert all(measure.value is None for measure in negative.values())


def test_one_class_alone_has_accuracy_but_no_auc() -> None:
    found = measures(BINARY, encode(BINARY, np.linspace(0, 1, 100), np.ones(100)), 0, 1)
    assert found["auc"].value is None
    assert found["accuracy"].value == 0.5


def test_calibration_is_the_observed_rate_of_each_bin() -> None:
    score = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9])
    target = np.array([0, 0, 0, 1, 1, 1])
    where = layout("binary", 2, 4)
    found = calibration(where, encode(where, score, target), 0, 1)
    assert [measure.value for measure in found] == [0.25, None, None, 1.0]
    with pytest.raises(InvalidParameter, match="read from binary vectors, not regression"):
        calibration(layout("regression", 1, 4), np.zeros(4, dtype=np.int64), 0, 1)


def test_multiclass_accuracy_and_confusion_are_those_of_the_predictions() -> None:
    scores, target = probabilities(900, 3, 7)
    where = layout("multiclass", 3, 5)
    vector = encode(where, scores, target)
    predicted = scores.argmax(axis=1)
    found = measures(where, vector, 0, 1)["accuracy"].value
    assert found == pytest.approx(np.mean(predicted == target))
    for true, row in enumerate(confusion(where, vector, 0, 1)):
        for column, measure in enumerate(row):
            assert measure.value == pytest.approx(np.mean(predicted[target == true] == column))


def test_binary_confusion_splits_at_one_half() -> None:
    score, target = cohort(400, 8)
    table = confusion(BINARY, encode(BINARY, score, target), 0, 1)
    assert table[1][1].value == pytest.approx(np.mean(score[target == 1] >= 0.5))
    assert table[0][1].value == pytest.approx(np.mean(score[target == 0] >= 0.5))
    with pytest.raises(InvalidParameter, match="no confusion table"):
        confusion(layout("regression", 1, 4), np.zeros(4, dtype=np.int64), 0, 1)


def test_regression_errors_are_read_in_fractions_of_the_range() -> None:
    rng = np.random.default_rng(9)
    target = rng.uniform(size=3000)
    score = target + rng.normal(0.02, 0.1, size=3000)
    where = layout("regression", 1, 32)
    found = measures(where, encode(where, score, target), 0, 1)
    error = score - target
    assert found["mae"].value == pytest.approx(np.abs(error).mean(), rel=0.02)
    assert found["rmse"].value == pytest.approx(math.sqrt((error**2).mean()), rel=0.02)
    assert found["bias"].value == pytest.approx(error.mean(), abs=2e-3)
    assert found["rmse"].low < found["rmse"].value < found["rmse"].high  # type: ignore[operator]


def test_the_last_bin_is_closed() -> None:
    where = layout("regression", 1, 4)
    vector = encode(where, np.array([1.0, 0.0, 0.3]), np.array([0.0, 1.0, 0.3]))
    assert (vector // GRID).tolist() == [1, 0, 1, 1]


def test_a_vector_of_another_layout_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"want \[64\]"):
        measures(BINARY, np.zeros(63, dtype=np.int64), 0, 1)
    with pytest.raises(InvalidParameter, match="contributors = 0 at least 1"):
        measures(BINARY, np.zeros(64, dtype=np.int64), 0, 0)
