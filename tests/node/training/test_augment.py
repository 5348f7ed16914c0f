"""Views of rows: independent of the data, within the declared bounds, one clipped vector a patient."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from ledger.experiment.privacy_spec import Augment
from node.data.encode import Examples, features
from node.data.holdings import Holdings
from node.data.intake import Table
from node.training.rounds import one_round
from node.training.rounds.augment import number_inputs, with_own_views, with_views
from node.training.rounds.one_round import run_round
from node.training.rounds.train import Training
from node.training.sums.dense import DenseSum
from node.training.sums.exact import loss_of, patient_gradients
from privacy.events import GRID
from privacy.noise import TestRng
from tests.node.cases import CLIP, heart_schema, heart_spec, random_examples, schema
from tests.node.training.test_dense import LIMITS, clipped
from tests.node.training.test_rounds import Listener, file, job_for  # noqa: F401
from tests.node.training.test_train import BINARY, TREES, WIDTH, engine_of, summed

VIEWS = Augment(copies=4, jitter=Decimal("0.1"))
NUMBERS = np.array([0, 3, 5])


def test_views_are_the_row_and_jittered_numbers_within_their_bounds() -> None:
    rows = random_examples(1, 300, WIDTH, patients=90)
    found = with_views(rows, NUMBERS, VIEWS, TestRng(1))
    assert found.units == rows.units
    named = replace(rows, ids=np.arange(rows.units).astype(object))
    assert with_views(named, NUMBERS, VIEWS, TestRng(1)).ids is named.ids
    np.testing.assert_array_equal(found.patients, np.repeat(rows.patients, 4))
    np.testing.assert_array_equal(found.targets, np.repeat(rows.targets, 4))
    np.testing.assert_array_equal(found.features[::4], rows.features)
    others = np.setdiff1d(np.arange(WIDTH), NUMBERS)
    np.testing.assert_array_equal(
        found.features[:, others], np.repeat(rows.features[:, others], 4, axis=0)
    )
    assert np.abs(found.features).max() <= 1.0
    inside = np.abs(rows.features[:, NUMBERS]) < 0.5  # where bounds cut nothing
    jitter = np.stack(
        [(found.features[c::4] - rows.features)[:, NUMBERS][inside] for c in (1, 2, 3)]
    )
    assert jitter.std() == pytest.approx(0.1, rel=0.1)
    assert abs(np.corrcoef(jitter)[0, 1]) < 0.2


def test_a_round_that_is_made_again_has_the_same_views_whoever_else_is_there() -> None:
    """Accounts of one's own: an attempt that a restored register forgot cost no more than the one it knows."""
    rows = random_examples(1, 120, WIDTH, patients=30)
    rows = replace(rows, ids=np.array([f"p{unit:03}" for unit in range(30)], dtype=object))

    def views(of: Examples, number: int = 1) -> Examples:
        return with_own_views(
            of, NUMBERS, VIEWS, lambda who: sha256(f"{number}/{who}".encode()).digest()
        )

    first, again, next_round = views(rows), views(rows), views(rows, 2)
    np.testing.assert_array_equal(first.features, again.features)
    assert (first.features != next_round.features).any()
    np.testing.assert_array_equal(first.features[::4], rows.features)
    inside = np.abs(rows.features[:, NUMBERS]) < 0.5
    jitter = np.stack(
        [(first.features[c::4] - rows.features)[:, NUMBERS][inside] for c in (1, 2, 3)]
    )
    assert jitter.std() == pytest.approx(0.1, rel=0.15)
    stay = rows.patients != 11
    fewer = replace(
        rows,
        features=rows.features[stay],
        targets=rows.targets[stay],
        patients=rows.patients[stay] - (rows.patients[stay] > 11),
        units=29,
        ids=np.delete(np.asarray(rows.ids), 11),
    )
    np.testing.assert_array_equal(views(fewer).features, first.features[first.patients != 11])


def test_the_jitter_does_not_depend_on_what_the_rows_say() -> None:
    rows = random_examples(1, 50, WIDTH)
    other = random_examples(2, 50, WIDTH)
    small = 0.2
    moved = [
        with_views(
            type(r)(r.features * np.float32(small), r.targets, r.patients, r.units),
            NUMBERS,
            VIEWS,
            TestRng(1),
        ).features[1::4]
        - r.features * np.float32(small)
        for r in (rows, other)
    ]
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-6)


@pytest.mark.parametrize("patients", [None, 30])
def test_a_patient_is_the_mean_over_rows_and_views_clipped_once_in_both_engines(
    patients: int | None,
) -> None:
    rows = with_views(random_examples(3, 80, WIDTH, patients=patients), NUMBERS, VIEWS, TestRng(1))
    engine, weights = engine_of(TREES["mlp"])
    alone = type(rows)(rows.features, rows.targets, np.arange(320), 320)
    each = np.concatenate(list(patient_gradients(engine, alone, loss=loss_of(BINARY), block=64)))
    means = np.stack([each[rows.patients == p].mean(axis=0) for p in range(rows.units)])
    theirs = clipped(means, CLIP / GRID)
    np.testing.assert_allclose(summed(engine, rows) / GRID, theirs, atol=80 * 2 / GRID)
    fast = DenseSum(TREES["mlp"], BINARY, rows, LIMITS)
    fast.load(weights)
    everybody = fast.clipped_sum(None, CLIP)
    np.testing.assert_allclose(everybody / GRID, theirs, atol=1e-4)
    for leaver in range(0, rows.units, 5):  # given the jitter, as the promise has it
        stay = np.ones(rows.units, dtype=bool)
        stay[leaver] = False
        assert np.linalg.norm(everybody - fast.clipped_sum(stay, CLIP)) <= CLIP
        exact = summed(engine, rows) - summed(engine, rows.sample(stay))
        assert (exact**2).sum() <= CLIP**2


def test_the_inputs_that_are_numbers_are_found_behind_codes_and_marks() -> None:
    declared = schema(
        {"name": "sex", "type": "category", "values": ["f", "m", "x"], "missing": "indicator"},
        {"name": "age", "type": "number", "low": 0, "high": 100, "missing": "indicator"},
        {"name": "site", "type": "category", "values": ["a", "b"], "reference": "a"},
        {"name": "chol", "type": "number", "low": 0, "high": 600},
        {"name": "ill", "type": "category", "values": ["0", "1"]},
    )
    names = ("sex", "age", "site", "chol")
    found = number_inputs(declared, names)
    columns: dict[str, Any] = {
        "sex": np.zeros(2, dtype=np.int32),
        "site": np.zeros(2, dtype=np.int32),
        "age": np.array([25.0, 25.0]),
        "chol": np.array([150.0, 150.0]),
    }
    encoded = features(Table("ward", 2, columns, None), declared, names)
    assert encoded[:, found].tolist() == [[-0.5, -0.5]] * 2
    assert len(found) == 2


@pytest.mark.parametrize("engine", ["exact", "fast"])
@pytest.mark.parametrize("kind", ["train", "baseline", "evaluate"])
def test_rows_have_views_where_a_round_trains(
    file: Any,  # noqa: F811
    kind: Any,
    engine: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Training] = []
    honest = one_round.rehearse
    monkeypatch.setattr(one_round, "rehearse", lambda t: (made.append(t), honest(t)))
    privacy = {"epsilon": 1, "baseline": {"rounds": 2}, "engine": engine}
    opened = []
    for views in (None, {"copies": 3}):
        listener = Listener()
        spec = heart_spec(privacy=privacy | {"augment": views})
        run_round(job_for(file, kind, spec=spec), Holdings(), listener.noise, listener.record)
        opened.append([purpose.rpartition("/")[2] for purpose, _ in listener.opened])
    plain, seen = made
    copies = 1 if kind == "evaluate" else 3
    assert len(seen.examples.targets) == copies * len(plain.examples.targets)
    assert seen.examples.units == plain.examples.units
    assert opened[1] == ([] if kind == "evaluate" else ["augment"]) + opened[0]
    assert heart_schema().declared_rows  # public; the rows' number is not
