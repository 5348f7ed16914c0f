"""Cells and datasets in the fold: one promise to a patient, spend that no new name escapes."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import asdict

from ledger.entries.operations.datasets import CellRegistered, CellUse, DatasetWithdrawn
from ledger.formats.value import replace
from ledger.rules.state import State
from tests.federation import Federation, node_of, steward_of
from tests.ledger.facts import HOSPITALS, base, cell_of, dataset_of, fold

BASEL, BERN = node_of("basel"), node_of("bern")


def fresh() -> State:
    """Members, and nothing registered."""
    return Federation.found(HOSPITALS).state


def test_a_cells_promise_is_made_once_and_for_ever() -> None:
    state = fold(fresh(), BASEL, cell_of("basel"))
    assert state.cells["basel-all"].organisation == "basel"
    fold(state, BASEL, cell_of("basel"), void="cell_exists")
    fold(state, BERN, cell_of("basel"), void="not_owner")


def test_a_hospital_takes_no_cell_name_that_another_would_want() -> None:
    for name in ("basel-all", "bern", "bernall"):
        squat = replace(cell_of("bern"), cell=name)
        fold(fresh(), BERN, squat, void="not_owner")


def test_a_hospital_takes_no_cell_name_of_one_whose_name_begins_with_its_own() -> None:
    """bern-insel comes later, and finds its names free."""
    for name, block in (
        ("bern-insel-train", "all"),
        ("bern-insel-all", "2026"),
        ("bern-insel-2026-test", "2026"),
        ("bern-all-train", "all"),
        ("bern-2025-train", "2026"),
    ):
        squat = replace(cell_of("bern", block=block), cell=name)
        fold(fresh(), BERN, squat, void="not_owner")
    for name, block in (("bern-train", "all"), ("bern-2026-train", "2026")):
        fold(fresh(), BERN, replace(cell_of("bern", block=block), cell=name))


@pytest.mark.parametrize(
    ("use", "train", "test", "void"),
    [
        ("both", 200, 100, None),
        ("both", 200, 101, "cell_terms"),
        ("train", 300, 100, None),
        ("train", 301, 0, "cell_terms"),
        ("test", 1000, 300, None),
        ("test", 1, 301, "cell_terms"),
    ],
)
def test_a_later_dataset_declares_no_more_than_its_cell_was_promised_for(
    use: Any, train: int, test: int, void: str | None
) -> None:
    state = fold(fresh(), BASEL, cell_of("basel"))
    terms = {"declared_train": train, "declared_test": test}
    cells = (CellUse(cell="basel-all", use=use),)
    fold(state, BASEL, replace(dataset_of("basel"), cells=cells, **terms), void=void)


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        (("all", "both"), ("all", "both"), True),
        (("all", "both"), ("2024", "train"), True),
        (("2024", "train"), ("all", "train"), True),
        (("2024", "train"), ("2024", "both"), True),
        (("all", "train"), ("all", "test"), False),
        (("2024", "train"), ("2024", "test"), False),
        (("2024", "both"), ("2025", "both"), False),
    ],
)
def test_a_hospitals_cells_do_not_overlap_by_what_they_declare(
    first: tuple[str, Any], second: tuple[str, Any], overlap: bool
) -> None:
    state = fold(fresh(), BASEL, cell_of("basel", "one", *first))
    fold(state, BASEL, cell_of("basel", "two", *second), void="cell_exists" if overlap else None)
    fold(state, BERN, cell_of("bern", "two", *second))


@pytest.mark.parametrize(
    ("delta_e15", "patients", "void"),
    [
        (10**10, 10_000, None),
        (10**10 + 1, 1, "cell_terms"),
        (10**10, 10_001, "cell_terms"),
        (10**9, 100_000, None),
        (1, 10**14, None),
        (1, 10**14 + 1, "cell_terms"),
    ],
)
def test_delta_is_at_most_a_tenth_of_one_over_the_patients(
    delta_e15: int, patients: int, void: str | None
) -> None:
    terms = replace(cell_of("basel"), delta_e15=delta_e15, declared_patients=patients)
    fold(fresh(), BASEL, CellRegistered(**asdict(terms)), void=void)


def test_a_dataset_lies_in_cells_of_its_own_hospital() -> None:
    state = fold(fresh(), BASEL, cell_of("basel"))
    fold(state, BASEL, dataset_of("basel", "more"), void="unknown_cell")
    stolen = replace(dataset_of("bern"), cells=(CellUse(cell="basel-all", use="both"),))
    fold(state, BERN, stolen, void="not_owner")
    twice = replace(dataset_of("basel"), cells=(CellUse(cell="basel-all", use="both"),) * 2)
    fold(state, BASEL, twice, void="unknown_cell")
    fold(state, BASEL, dataset_of("basel"))


@pytest.mark.parametrize("use", ["train", "test", "both"])
def test_rows_kept_for_evaluation_are_not_trained_on(use: Any) -> None:
    state = fold(fresh(), BASEL, cell_of("basel", "kept", "all", "test"))
    op = replace(dataset_of("basel"), cells=(CellUse(cell="basel-kept", use=use),))
    fold(state, BASEL, op, void=None if use == "test" else "unknown_cell")


def test_a_dataset_registered_anew_is_another_registration_of_the_same_name() -> None:
    state = base()
    before = state.datasets["basel-heart"]
    state = fold(state, BASEL, dataset_of("basel", snapshot="7" * 64))
    after = state.datasets["basel-heart"]
    assert after.registration != before.registration
    assert after.terms.snapshot == "7" * 64
    taken = replace(dataset_of("bern"), dataset="basel-heart")
    fold(state, BERN, taken, void="not_owner")


def test_a_withdrawn_dataset_stays_withdrawn() -> None:
    gone = DatasetWithdrawn(type="dataset.withdrawn", dataset="basel-heart", reason="consent")
    state = base()
    fold(state, BERN, gone, void="not_owner")
    fold(state, BASEL, replace(gone, dataset="none"), void="unknown_dataset")
    state = fold(state, steward_of("basel"), gone)
    assert state.datasets["basel-heart"].withdrawn_at == state.size - 1
    fold(state, BASEL, gone, void="repeated")
    fold(state, BASEL, dataset_of("basel"), void="dataset_withdrawn")
