from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from audit.reports.privacy_events import events_json
from audit.standalone.recompute_budget import recompute
from audit.verification.findings import Check
from audit.verification.sources import close_copies, open_copies
from audit.verification.verify import verify
from consilium.actions.dataset.describing import Description, as_html, as_json, as_lines, told_of
from ledger.copies.blobs import BlobStore
from ledger.copies.replica import Replica
from ledger.entries.operations.statistics import StatisticsReleased, StatisticsReserved
from ledger.entries.operations.values import BlobRef
from ledger.errors import PlanRefused
from ledger.experiment.schema import Schema
from ledger.experiment.statistics import Question, charges_of, estimates, noise_for, shape_of
from ledger.experiment.tensors import decode_update
from ledger.formats.documents import encode_document
from ledger.formats.value import replace
from ledger.rules.state import State
from ledger.rules.statistics import cells_read
from node.data.intake import read_table
from node.data.statistics import count_patients
from node.duties.describing import answer_statistics, unanswered
from node.errors import JobRefused
from node.register.private import PrivateRegister
from privacy.events import GRID
from privacy.noise import TestRng
from tests.federation import Federation, node_of, steward_of
from tests.node.data.registered import KEY, Saying, prepared, schema


def table_file(directory: Path, patients: int = 100, rows_each: int = 3) -> Path:
    path = directory / f"table{patients}.csv"
    lines = [
        f"p{who},{20 + (7 * who + 11 * each) % 70},{(who + each) % 2}"
        for who in range(patients)
        for each in range(rows_each)
    ]
    path.write_text("\n".join(["who,age,sick", *lines]) + "\n")
    return path


def question(*columns: str, bins: int = 7) -> Question:
    return Question(
        consilium=1, dataset="basel-heart", columns=columns or ("age", "sick"), bins=bins
    )


def test_one_patient_moves_the_vector_by_at_most_its_sensitivity(tmp_path: Path) -> None:
    declared = schema(ids=True)
    table = read_table(table_file(tmp_path, 40), declared)
    for asked in (question(), question("age"), question("sick"), question("age", bins=2)):
        shape = shape_of(asked, declared)
        everybody = np.ones(table.rows, dtype=np.bool_)
        whole = count_patients(table, shape, everybody)
        assert table.patients is not None
        for who in ("p0", "p7", "p39"):
            without = np.array([patient != who for patient in table.patients])
            moved = whole - count_patients(table, shape, without)
            assert 0 < sum(int(v) ** 2 for v in moved) <= shape.sensitivity**2


def test_counts_means_and_quantiles_are_those_of_the_rows_where_noise_is_small(
    tmp_path: Path,
) -> None:
    declared = schema(ids=True)
    table = read_table(table_file(tmp_path, 70, rows_each=1), declared)
    asked = question(bins=10)
    shape = shape_of(asked, declared)
    vector = count_patients(table, shape, np.ones(table.rows, dtype=np.bool_))
    age, sick = estimates(shape, vector, 1, asked.bins)
    ages = table.columns["age"]
    assert age.mean is not None
    assert age.mean.value == pytest.approx(float(ages.mean()), abs=0.01)
    for figure, q in zip(age.quantiles, (0.25, 0.5, 0.75), strict=True):
        assert figure.value == pytest.approx(float(np.quantile(ages, q)), abs=3.5)
    assert sum(figure.value or 0 for figure in age.counts) == pytest.approx(70, abs=0.01)
    assert [round(figure.value or 0) for figure in sick.counts] == [35, 35, 0]
    assert sick.labels == ("0", "1", "missing")


def test_intervals_cover_what_they_say(tmp_path: Path) -> None:
    declared = schema(ids=True)
    table = read_table(table_file(tmp_path, 300, rows_each=1), declared)
    asked = question("age", bins=10)
    shape = shape_of(asked, declared)
    exact = count_patients(table, shape, np.ones(table.rows, dtype=np.bool_))
    (truth,) = estimates(shape, exact, 1, asked.bins)
    noise, hits, quantile_hits, runs = 3 * GRID, 0, 0, 300
    for seed in range(runs):
        noisy = exact + TestRng(seed).gaussian_integers(noise, shape.size)
        (told,) = estimates(shape, noisy, noise, asked.bins)
        assert told.mean is not None
        assert truth.mean is not None
        hits += told.mean.low <= truth.mean.value <= told.mean.high  # type: ignore[operator]
        median, true_median = told.quantiles[1], truth.quantiles[1]
        quantile_hits += median.low <= true_median.value <= median.high  # type: ignore[operator]
    assert hits > 0.91 * runs
    assert quantile_hits > 0.91 * runs


def test_what_the_noise_drowns_is_null(tmp_path: Path) -> None:
    declared = schema(ids=True)
    shape = shape_of(question("age"), declared)
    (told,) = estimates(shape, np.zeros(shape.size, np.int64), 50 * GRID, 7)
    assert told.mean is not None
    assert told.mean.value is None
    assert [figure.value for figure in told.quantiles] == [None] * 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [(("who",), "none of: age, sick"), (("bmi",), "none of"), (("age", "age"), "twice")],
)
def test_a_question_that_makes_no_sense_is_refused(columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(PlanRefused, match=message):
        shape_of(question(*columns), schema(ids=True))


@dataclass
class Copy:
    """A federation in memory as a node's verified copy; every entry cosigned at once."""

    federation: Federation
    cosigned: int | None = 0
    final_size: int = 10**6

    @property
    def state(self) -> State:
        return self.federation.state

    @property
    def final(self) -> Any:
        return type("Final", (), {"size": self.final_size})

    def cosigned_s(self, _index: int) -> int | None:
        return self.cosigned


class Hospital:
    def __init__(self, directory: Path) -> None:
        self.private = PrivateRegister.open(directory / "private.db")
        self.blobs = BlobStore(directory / "blobs")
        self.saying = Saying()
        self.federation = self.saying.federation
        self.declared: Schema = schema(ids=True)
        self.saying.register(
            prepared(self.private, table_file(directory), self.declared), self.private
        )
        self.copy = Copy(self.federation)
        self.directory = directory

    def permission(self, **changed: Any) -> StatisticsReserved:
        asked = question()
        shape = shape_of(asked, self.declared)
        dataset = self.federation.state.datasets["basel-heart"]
        cells = {c: self.federation.state.cells[c].terms for c in cells_read(dataset)}
        noise = noise_for(Decimal("0.5"), tuple(cells.values()), shape.sensitivity)
        fields = {
            "type": "statistics.reserved",
            "dataset": "basel-heart",
            "registration": dataset.registration,
            "question": self.federation.put(encode_document(asked)),
            "size": shape.size,
            "sensitivity": shape.sensitivity,
            "noise_sd": noise,
            "pure": (),
            "charges": charges_of(cells, shape.sensitivity, noise),
        }
        return StatisticsReserved(**(fields | changed))

    def allow(self, op: StatisticsReserved) -> str | None:
        taken = self.federation.take(self.federation.entry(steward_of("basel"), op))
        return taken.outcome.void

    def answer(self, identity: str, seed: int = 1) -> tuple[StatisticsReleased, bytes]:
        return answer_statistics(
            cast(Replica, self.copy),
            identity,
            self.private,
            self.blobs,
            hospital_key=lambda: KEY,
            patients=self.directory / "patients.db",
            fetch=self.fetch,
            now_ms=self.federation.state.log_time,
            open_noise=lambda: TestRng(seed),
        )

    def fetch(self, ref: BlobRef) -> bytes:
        return self.federation.blobs[ref.sha256]


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def test_statistics_are_paid_before_they_are_counted_and_told_once(hospital: Hospital) -> None:
    before = hospital.federation.state.cells["basel-train"].spend
    op = hospital.permission()
    assert hospital.allow(op) is None
    state = hospital.federation.state
    assert state.cells["basel-train"].spend.g == before.g + op.charges[0].g
    assert state.cells["basel-test"].spend.g == 0
    (identity,) = unanswered(state, node_of("basel"))
    said, data = hospital.answer(identity)
    assert hospital.private.view.cells["basel-train"].spend.g == op.charges[0].g
    again, same = hospital.answer(identity, seed=2)
    assert (again, same) == (said, data)
    assert hospital.saying.say(said) is None
    assert hospital.saying.say(said) == "repeated"
    assert unanswered(hospital.federation.state, node_of("basel")) == ()
    shape = shape_of(question(), hospital.declared)
    vector = decode_update(data, shape.size)
    age, _ = estimates(shape, vector, op.noise_sd, 7)
    assert sum(figure.value or 0 for figure in age.counts) == pytest.approx(70, abs=60)


def test_a_crash_between_intent_and_vector_is_never_counted_again(hospital: Hospital) -> None:
    assert hospital.allow(hospital.permission()) is None
    (identity,) = unanswered(hospital.federation.state, node_of("basel"))
    key = (identity, "basel-heart")
    held = hospital.federation.state.statistics[identity]
    hospital.private.reserve(hospital.federation.state.federation, *key, held.terms.charges)
    hospital.private.record_intent(*key, "evaluate", round_number=1, steps=1, at_ms=1)
    with pytest.raises(JobRefused, match="begun before"):
        hospital.answer(identity)


def test_the_node_answers_only_what_hospitals_stand_behind(hospital: Hospital) -> None:
    assert hospital.allow(hospital.permission()) is None
    (identity,) = unanswered(hospital.federation.state, node_of("basel"))
    hospital.copy.cosigned = None
    with pytest.raises(JobRefused, match="no quorum of hospitals"):
        hospital.answer(identity)
    hospital.copy.cosigned = 10**9 * 4
    with pytest.raises(JobRefused, match="too old"):
        hospital.answer(identity)
    assert hospital.private.view.cells["basel-train"].spend.g == 0


def test_a_permission_that_pays_for_less_than_it_asks_is_not_answered(hospital: Hospital) -> None:
    good = hospital.permission()
    cells = {c.cell: hospital.federation.state.cells[c.cell].terms for c in good.charges}
    little = hospital.permission(sensitivity=GRID, charges=charges_of(cells, GRID, good.noise_sd))
    assert hospital.allow(little) is None
    (identity,) = unanswered(hospital.federation.state, node_of("basel"))
    with pytest.raises(JobRefused, match="does not cover"):
        hospital.answer(identity)
    assert hospital.private.view.cells["basel-train"].spend.g == 0


def test_the_fold_refuses_statistics_that_are_not_paid_for(hospital: Hospital) -> None:
    good = hospital.permission()
    charge = good.charges[0]
    cheap = replace(charge, g=charge.g - 1)
    wrong_cell = replace(charge, cell="basel-test")
    for changed, void in (
        ({"dataset": "nobody"}, "unknown_dataset"),
        ({"registration": "0" * 64}, "dataset_changed"),
        ({"charges": (cheap,)}, "charges_mismatch"),
        ({"charges": (wrong_cell,)}, "charges_mismatch"),
        ({"charges": (charge, charge)}, "charges_mismatch"),
    ):
        assert hospital.allow(replace(good, **changed)) == void
    federation = hospital.federation
    theirs = federation.take(federation.entry(steward_of("bern"), good))
    assert theirs.outcome.void == "not_owner"
    most = replace(charge, g=2**50, r=2**50)
    assert hospital.allow(replace(good, charges=(most,))) == "budget_exhausted"
    told = StatisticsReleased(
        type="statistics.released", reservation="0" * 64, result=good.question
    )
    assert hospital.saying.say(told) == "not_reserved"


def test_an_auditor_counts_statistics_and_refutes_those_that_pay_for_less(
    hospital: Hospital, tmp_path: Path
) -> None:
    good = hospital.permission()
    assert hospital.allow(good) is None
    (identity,) = unanswered(hospital.federation.state, node_of("basel"))
    said, data = hospital.answer(identity)
    assert hospital.saying.say(said) is None
    hospital.federation.put(data)
    checks, listed, told = audited(hospital.federation, tmp_path / "honest")
    assert not [check for check in checks if check.verdict == "refuted"]
    assert any("statistics paid for as what they ask: 1" in check.detail for check in checks)
    assert recompute(listed)["faults"] == []
    assert listed["events"]
    assert [one.reservation for one in told] == [identity]
    assert "missing" in as_html(told[0])
    assert json.loads(json.dumps(as_json(told[0])))["columns"][0]["column"] == "age"
    assert any("mean" in line for line in as_lines(told[0]))

    cells = {c.cell: hospital.federation.state.cells[c.cell].terms for c in good.charges}
    little = hospital.permission(sensitivity=GRID, charges=charges_of(cells, GRID, good.noise_sd))
    assert hospital.allow(little) is None
    checks, _, _ = audited(hospital.federation, tmp_path / "cheating")
    (refuted,) = [check for check in checks if check.verdict == "refuted"]
    assert "it states that a patient changes 1048576 at most" in refuted.detail


def audited(
    federation: Federation, directory: Path
) -> tuple[tuple[Check, ...], dict[str, Any], tuple[Description, ...]]:
    federation.persist(directory).close()
    copies = open_copies(str(directory))
    try:
        found = verify(copies[0])
        told = told_of(found.state, "basel-heart", found.documents.raw)
        return found.report.checks, json.loads(events_json(found)), told
    finally:
        close_copies(copies)
