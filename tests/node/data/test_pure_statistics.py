"""Statistics of pure epsilon: one patient's part, its noise, its price at the fold, the node and an auditor."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.standalone.recompute_budget import recompute
from consilium.actions.dataset.describing import as_html, as_lines
from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.statistics import PurePart, StatisticsReserved
from ledger.entries.operations.values import EMPTY_HASH, BlobRef
from ledger.errors import PlanRefused
from ledger.experiment.pure_statistics import (
    divide_epsilon,
    pure_charges,
    release_purely,
    scale_for,
)
from ledger.experiment.statistics import Question, Shape, shape_of
from ledger.experiment.tensors import decode_update
from ledger.formats.documents import encode_document, parse_document
from ledger.formats.value import replace
from ledger.rules.statistics import cells_read
from node.data.intake import read_table
from node.data.statistics import count_patients
from node.duties.describing import unanswered
from node.errors import JobRefused
from privacy.events import GRID
from privacy.noise import TestRng
from tests.federation import node_of
from tests.node.data.registered import schema
from tests.node.data.test_statistics import Hospital, audited, table_file

BASEL = node_of("basel")


def asked(*columns: str, bins: int = 7) -> Question:
    return Question(
        consilium=1,
        dataset="basel-heart",
        columns=columns or ("age", "sick"),
        bins=bins,
        mechanism="laplace",
    )


def permission(hospital: Hospital, epsilon: str = "0.5", **changed: Any) -> StatisticsReserved:
    """What ``dataset describe --mechanism laplace`` says."""
    question = asked()
    shape = shape_of(question, hospital.declared)
    dataset = hospital.federation.state.datasets["basel-heart"]
    cells = {c: hospital.federation.state.cells[c].terms for c in cells_read(dataset)}
    pure = divide_epsilon(Decimal(epsilon), shape)
    fields = {
        "type": "statistics.reserved",
        "dataset": "basel-heart",
        "registration": dataset.registration,
        "question": hospital.federation.put(encode_document(question)),
        "size": shape.size,
        "sensitivity": shape.sensitivity,
        "noise_sd": scale_for(shape.sensitivity, pure[0].epsilon_micro),
        "pure": pure,
        "charges": pure_charges(cells, pure),
    }
    return StatisticsReserved(**(fields | changed))


def terms_for(shape: Shape, epsilon: str) -> StatisticsReserved:
    """As much of a permission as a release reads."""
    pure = divide_epsilon(Decimal(epsilon), shape)
    noise = scale_for(shape.sensitivity, pure[0].epsilon_micro)
    return StatisticsReserved(
        type="statistics.reserved",
        dataset="basel-heart",
        registration=EMPTY_HASH,
        question=BlobRef(sha256=EMPTY_HASH, bytes=0),
        size=shape.size,
        sensitivity=shape.sensitivity,
        noise_sd=noise,
        pure=pure,
        charges=(CellCharge(cell="basel-all", g=1, r=1),),
    )


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def test_a_question_without_a_mechanism_keeps_its_bytes() -> None:
    plain = Question(consilium=1, dataset="a", columns=("age",))
    assert b"mechanism" not in encode_document(plain)
    data = encode_document(asked())
    assert b'"mechanism":"laplace"' in data
    assert parse_document(data, Question) == asked()


def test_one_patient_moves_counts_and_sums_by_at_most_the_l1_bound(tmp_path: Path) -> None:
    declared = schema(ids=True)
    table = read_table(table_file(tmp_path, 40), declared)
    assert table.patients is not None
    for question in (asked(), asked("age"), asked("sick"), asked("age", bins=2)):
        shape = shape_of(question, declared)
        whole = count_patients(table, shape, np.ones(table.rows, dtype=np.bool_))
        assert len(whole) == shape.counted == shape.size - shape.chosen
        for who in ("p0", "p7", "p39"):
            without = np.array([patient != who for patient in table.patients])
            moved = whole - count_patients(table, shape, without)
            assert 0 < int(np.abs(moved).sum()) <= shape.sensitivity


def test_an_epsilon_is_divided_and_never_passed() -> None:
    shape = shape_of(asked(), schema(ids=True))
    laplace, chosen = divide_epsilon(Decimal("0.7"), shape)
    assert (chosen.count, shape.chosen) == (3, 3)
    assert laplace.epsilon_micro + 3 * chosen.epsilon_micro == 700_000
    assert laplace.epsilon_micro == 350_002  # what does not divide goes to the counts
    scale = scale_for(shape.sensitivity, laplace.epsilon_micro)
    assert scale * laplace.epsilon_micro >= shape.sensitivity * 10**6
    only = shape_of(asked("sick"), schema(ids=True))
    assert divide_epsilon(Decimal("0.7"), only) == (
        PurePart(mechanism="laplace", epsilon_micro=700_000, count=1),
    )
    for bad in ("0.000001", "11"):
        with pytest.raises(PlanRefused, match="cannot be divided"):
            divide_epsilon(Decimal(bad), shape)


def test_quantiles_are_declared_edges_near_those_of_the_rows() -> None:
    shape = shape_of(asked("age", bins=10), schema(ids=True))
    exact = np.zeros(shape.counted, dtype=np.int64)
    exact[:10] = 100 * GRID
    released = release_purely(TestRng(1), shape, terms_for(shape, "10"), exact)
    assert len(released) == shape.size
    assert [abs(int(place) - due) <= 1 for place, due in zip(released[-3:], (2, 5, 7), strict=True)]
    nobody = np.zeros(shape.counted, dtype=np.int64)
    places = release_purely(TestRng(1), shape, terms_for(shape, "10"), nobody)[-3:]
    assert all(0 <= place <= 10 for place in places)


def test_the_chosen_place_tells_no_more_of_a_patient_than_its_epsilon() -> None:
    shape = shape_of(asked("age", bins=2), schema(ids=True))
    terms = terms_for(shape, "6")
    epsilon = terms.pure[1].epsilon_micro / 10**6
    two = np.array([2, 1, 0, 0], dtype=np.int64) * GRID
    one = np.array([1, 1, 0, 0], dtype=np.int64) * GRID
    draws = 3_000
    rates = []
    for exact in (one, two):
        rng = TestRng(7)
        places = np.array([release_purely(rng, shape, terms, exact)[-2] for _ in range(draws)])
        rates.append(np.bincount(places, minlength=3) / draws)
    for a, b in zip(*rates, strict=True):
        spread = 5 / math.sqrt(draws * min(a, b))
        assert abs(math.log(a / b)) <= epsilon + spread


def test_twins_draw_the_same_noise_in_the_same_number() -> None:
    shape = shape_of(asked(), schema(ids=True))
    terms = terms_for(shape, "1")
    exact = np.full(shape.counted, 5 * GRID, dtype=np.int64)
    twin = exact.copy()
    twin[2] += GRID
    left, right = TestRng(3), TestRng(3)
    noise = [release_purely(r, shape, terms, e) for r, e in ((left, exact), (right, twin))]
    moved = noise[0][: shape.counted] - noise[1][: shape.counted]
    assert np.array_equal(moved, exact - twin)
    assert left.below(2**60) == right.below(2**60)  # both streams stand at the same place


def test_they_are_paid_told_read_and_audited(hospital: Hospital, tmp_path: Path) -> None:
    op = permission(hospital)
    assert hospital.allow(op) is None
    (identity,) = unanswered(hospital.federation.state, BASEL)
    said, data = hospital.answer(identity)
    assert hospital.saying.say(said) is None
    hospital.federation.put(data)
    assert len(decode_update(data, op.size)) == op.size
    spend = hospital.federation.state.cells["basel-train"].spend
    assert (spend.g, spend.r) == (op.charges[0].g, op.charges[0].r)
    assert hospital.private.view.cells["basel-train"].spend == spend
    checks, listed, told = audited(hospital.federation, tmp_path / "honest")
    assert not [check for check in checks if check.verdict == "refuted"]
    assert any("statistics paid for as what they ask: 1" in check.detail for check in checks)
    assert recompute(listed)["faults"] == []
    (mechanism,) = listed["mechanisms"]
    assert mechanism["pure"] == [[part.epsilon_micro, part.count] for part in op.pure]
    age, _ = told[0].columns
    assert len(age.quantiles) == 3
    assert all(figure.low is None for figure in age.quantiles)
    assert "sick" in as_html(told[0])
    assert as_lines(told[0])


def test_a_permission_that_pays_too_little_is_refused_by_fold_node_and_auditor(
    hospital: Hospital, tmp_path: Path
) -> None:
    good = permission(hospital)
    charge = good.charges[0]
    free = (replace(charge, g=0, r=0),)
    quiet = good.noise_sd - 1
    for changed in ({"charges": free}, {"noise_sd": quiet}, {"pure": good.pure[::-1]}):
        assert hospital.allow(replace(good, **changed)) == "charges_mismatch"
    cheap = replace(charge, g=charge.g * 9 // 10, r=charge.r * 99 // 100)
    assert hospital.allow(replace(good, charges=(cheap,))) is None
    (identity,) = unanswered(hospital.federation.state, BASEL)
    with pytest.raises(JobRefused, match="its mechanisms cost"):
        hospital.answer(identity)
    assert hospital.private.view.cells["basel-train"].spend.g == 0
    checks, listed, _ = audited(hospital.federation, tmp_path / "cheating")
    (refuted,) = [check for check in checks if check.verdict == "refuted"]
    assert "its mechanisms cost" in refuted.detail
    assert any("lane G" in fault for fault in recompute(listed)["faults"])


def test_a_permission_for_fewer_quantiles_than_are_asked_is_not_answered(
    hospital: Hospital,
) -> None:
    good = permission(hospital)
    few = (good.pure[0], replace(good.pure[1], count=2))
    assert hospital.allow(replace(good, pure=few)) is None
    (identity,) = unanswered(hospital.federation.state, BASEL)
    with pytest.raises(JobRefused, match="pays for 2 quantiles, and its question has 3"):
        hospital.answer(identity)
