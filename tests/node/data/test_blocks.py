from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from ledger.entries.operations.datasets import CellUse
from ledger.errors import StoreUnusable
from ledger.experiment.purpose_parts import Parts, parts_said
from ledger.experiment.schema import Schema
from node.data.blocks import Calendar, block_cell_name, member, rows_of_blocks
from node.data.intake import read_table
from node.data.registration import Prepared, prepare
from node.errors import DatasetError, RegistrationRefused
from node.register.patients import Place, places_of
from tests.node.data.registered import KEY, schema
from tests.node.data.yearly import YEARS, Hospital, people


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def test_new_patients_bring_new_budget_and_known_ones_keep_theirs(hospital: Hospital) -> None:
    first = hospital.register(people(0, 100), YEARS[0])
    assert [u.cell for u in first.dataset.cells] == ["basel-2026-test", "basel-2026-train"]
    later = hospital.register(
        people(50, 150), YEARS[2], declared=110, calendar={"new_patients": 50}
    )
    assert [u.cell for u in later.dataset.cells] == [
        "basel-2026-test",
        "basel-2026-train",
        "basel-2027-test",
        "basel-2027-train",
    ]
    places = hospital.places(people(0, 150))
    assert {places[who].block for who in people(0, 100)} == {"2026"}
    assert {places[who].block for who in people(100, 150)} == {"2027"}
    cells = hospital.saying.federation.state.cells
    assert cells["basel-2027-train"].terms.declared_patients == 35
    assert cells["basel-2027-train"].terms.epsilon_micro == 5_000_000
    assert hospital.saying.said.count("cell.registered") == 4


def test_newcomers_come_into_the_open_block_without_a_new_promise(hospital: Hospital) -> None:
    hospital.register(people(0, 60), YEARS[0], calendar={"new_patients": 100})
    made = hospital.register(people(0, 90), YEARS[1])
    assert made.cells == ()
    assert {place.block for place in hospital.places(people(0, 90)).values()} == {"2026"}
    with pytest.raises(RegistrationRefused, match=r"block 2026 is open and has its promise"):
        hospital.prepare(people(0, 90), YEARS[1], calendar={"new_patients": 5})


def test_who_comes_while_no_block_is_open_is_in_no_cell(hospital: Hospital) -> None:
    hospital.register(people(0, 100), YEARS[0])
    made = hospital.register(people(0, 120), YEARS[2], declared=100)
    assert made.left_out == 20
    assert hospital.places(people(100, 120)) == {}
    there = hospital.register(
        people(100, 120), YEARS[2], declared=20, name="later", calendar={"new_patients": 20}
    )
    assert there.left_out == 0
    # What the earlier dataset holds in its cells was fixed when it was registered.
    table = read_table(Path(made.record.path), schema(declared=100, ids=True))
    blocks = frozenset({"2026", "2027"})
    held = rows_of_blocks(table, KEY, hospital.file, made.record.snapshot, blocks)
    assert int(held.sum()) == 100


def test_entries_do_not_tell_who_is_in_a_table(hospital: Hospital) -> None:
    hospital.register(people(0, 100), YEARS[0])
    for calendar in ({}, {"new_patients": 40}):
        for patients in (people(0, 139), people(1, 140), [*people(0, 99), *people(100, 140)]):
            whole = hospital.prepare(people(0, 140), YEARS[2], declared=100, calendar=calendar)
            less = hospital.prepare(patients, YEARS[2], declared=100, calendar=calendar)
            assert less.cells == whole.cells
            told = structs.replace(whole.dataset, snapshot=less.dataset.snapshot)
            assert told == less.dataset


Step = tuple[int, str, frozenset[int], bool, int]


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["a", "b", "c"]),
            st.frozensets(st.integers(0, 40), min_size=6),
            st.booleans(),
            st.integers(1, 3),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_nobody_ever_changes_the_cell(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    """Renamed, subset, edited, second tables, returning and new patients, over the years."""
    hospital = Hospital(tmp_path_factory.mktemp("hospital"))
    everybody = people(0, 41)
    seen: dict[str, Place] = {}
    opened: dict[str, int] = {}
    year = 2026
    for late, name, chosen, opens, rows_each in steps:
        year += late
        patients = [f"p{number}" for number in sorted(chosen)]
        calendar = {}
        if str(year) not in opened and (opens or not opened):
            calendar = {"new_patients": 60}
        try:
            hospital.register(
                patients,
                date(year, 5, 1),
                name=name,
                calendar=calendar,
                rows_each=rows_each,
                declared=20,
            )
        except (RegistrationRefused, DatasetError):
            pass
        else:
            if calendar:
                opened[str(year)] = 60
        now = hospital.places(everybody)
        for who, place in seen.items():
            assert now[who] == place
        for who in now.keys() - seen.keys():
            assert now[who].block == str(year)
            assert who in patients
        seen = now
    cells = hospital.saying.federation.state.cells.values()
    assert len({(c.terms.block, c.terms.half) for c in cells}) == len(cells)


def test_a_lost_file_of_patients_takes_nobody_into_a_later_block(hospital: Hospital) -> None:
    hospital.register(people(0, 100), YEARS[0])
    hospital.file.unlink()
    with pytest.raises(RegistrationRefused, match="lost, or restored from a backup"):
        hospital.prepare(people(0, 100), YEARS[2], calendar={"new_patients": 100})
    with pytest.raises(DatasetError, match="the file has 0 patients"):
        hospital.prepare(people(0, 100), YEARS[2], calendar={"new_patients": 0})
    # In the block that it forgot, everybody it does not know is of that block.
    hospital.register(people(0, 100), YEARS[1])
    assert {place.block for place in hospital.places(people(0, 100)).values()} == {"2026"}


def test_a_patients_row_is_never_changed(hospital: Hospital) -> None:
    hospital.register(people(0, 20), YEARS[0])
    with sqlite3.connect(hospital.file) as connection:
        for statement in ("UPDATE patients SET block = '2030'", "DELETE FROM patients"):
            with pytest.raises(sqlite3.IntegrityError, match="a patient never"):
                connection.execute(statement)
    with pytest.raises(StoreUnusable, match="does not know the dataset"):
        places_of(hospital.file, [], snapshot="0" * 64)
    names = {member(KEY, who) for who in people(0, 20)}
    stored = hospital.file.read_bytes()
    assert not any(who.encode() in stored for who in ("p11", "p19"))
    assert len(places_of(hospital.file, list(names))) == 20


@pytest.mark.parametrize(
    ("calendar", "today", "message"),
    [
        ({"period": "quarter"}, YEARS[1], "block 2026 is open until its end"),
        ({"new_patients": -1}, YEARS[2], "is below 0"),
    ],
)
def test_a_block_that_cannot_be_opened_is_refused(
    hospital: Hospital, calendar: dict[str, Any], today: date, message: str
) -> None:
    hospital.register(people(0, 20), YEARS[0])
    with pytest.raises(RegistrationRefused, match=message):
        hospital.prepare(people(0, 20), today, calendar=calendar)


def test_a_hospital_may_go_from_quarters_to_years_when_a_year_begins(hospital: Hospital) -> None:
    hospital.register(people(0, 20), YEARS[0], calendar={"period": "quarter"})
    with pytest.raises(RegistrationRefused, match=r"2026 would overlap 2026q1"):
        hospital.prepare(people(0, 40), YEARS[1], calendar={"period": "year", "new_patients": 20})
    made = hospital.register(
        people(0, 40), YEARS[2], calendar={"period": "year", "new_patients": 20}, declared=40
    )
    assert {cell.block for cell, _ in made.cells} == {"2027"}


def test_blocks_need_patient_ids_and_a_hospital_that_began_with_them(
    hospital: Hospital, tmp_path: Path
) -> None:
    path = hospital.table(people(0, 100))

    def made(declared: Schema, **given: Any) -> Prepared:
        return prepare(
            path,
            declared,
            organisation="basel",
            hospital_key=KEY,
            cells=hospital.private.view.cells,
            epsilon=5.0,
            calendar=Calendar(hospital.file, YEARS[0], lambda: (), **given),
        )

    with pytest.raises(RegistrationRefused, match="need patient ids"):
        made(schema(), period="year")
    with pytest.raises(RegistrationRefused, match="year or quarter"):
        made(schema(ids=True), new_patients=5)
    hospital.saying.register(made(schema(ids=True)), hospital.private)
    with pytest.raises(RegistrationRefused, match="one block for all time"):
        made(schema(ids=True), period="year")


def test_a_cell_holds_at_most_twice_what_is_declared(hospital: Hospital) -> None:
    hospital.register(people(0, 20), YEARS[0], calendar={"new_patients": 20})
    with pytest.raises(DatasetError, match="more than twice the 14"):
        hospital.prepare(people(0, 60), YEARS[1], declared=20)


def test_long_names_still_make_a_name_for_each_cell() -> None:
    long = "h" * 32
    names = {block_cell_name(long, b, h) for b in ("2026", "2026q1") for h in ("train", "test")}
    assert len(names) == 4
    assert all(len(name) <= 40 for name in names)


def test_a_new_blocks_cells_get_the_purposes_parts_also_where_their_registration_was_cut_off(
    hospital: Hospital,
) -> None:
    parts: Parts = {"research": 2_000_000, "development": 0}
    made = hospital.prepare(people(0, 100), YEARS[0])
    hospital.saying.register(replace(made, purposes=parts), hospital.private)
    hospital.snapshots.append((made.record.snapshot, 1_772_000_000_000))
    hospital.saying.cut_off_after("purpose.limited")
    with pytest.raises(ConnectionError):
        hospital.register(people(50, 150), YEARS[2], declared=110, calendar={"new_patients": 50})
    hospital.saying.cut_off_after(None)
    hospital.register(people(50, 150), YEARS[2], declared=110)
    for half in ("train", "test"):
        assert parts_said(hospital.saying.federation.state, f"basel-2027-{half}") == parts


@pytest.mark.parametrize("later", [YEARS[0], YEARS[2]], ids=["the same year", "the next one"])
@pytest.mark.parametrize("again", [{}, {"new_patients": 97}], ids=["without", "with the size"])
def test_a_block_cut_off_between_its_two_cells_gets_the_second_one(
    hospital: Hospital, later: date, again: dict[str, Any]
) -> None:
    """Its patients have their places by then: without a cell for evaluation they would have none."""
    hospital.saying.cut_off_after("cell.registered")
    with pytest.raises(ConnectionError):
        hospital.register(people(0, 90), YEARS[0], calendar={"new_patients": 97})
    assert list(hospital.private.view.cells) == ["basel-2026-train"]
    hospital.saying.cut_off_after(None)
    hospital.register(people(0, 90), later, calendar=again)
    cells = hospital.saying.federation.state.cells
    train, test = (cells[f"basel-2026-{half}"].terms for half in ("train", "test"))
    assert train.declared_patients == 97 - 97 * 30 // 100
    assert test.declared_patients in (-(-97 * 30 // 100), -(-96 * 30 // 100))
    assert test.epsilon_micro == train.epsilon_micro == 5_000_000
    assert {place.block for place in hospital.places(people(0, 90)).values()} == {"2026"}
    dataset = hospital.saying.federation.state.datasets["basel-heart"].terms
    assert CellUse(cell="basel-2026-test", use="test") in dataset.cells


def test_the_second_cell_of_a_block_is_of_the_size_that_it_was_opened_for(
    hospital: Hospital,
) -> None:
    hospital.saying.cut_off_after("cell.registered")
    with pytest.raises(ConnectionError):
        hospital.register(people(0, 90), YEARS[0], calendar={"new_patients": 97})
    with pytest.raises(RegistrationRefused, match="2026 was opened for 68 patients for training"):
        hospital.prepare(people(0, 90), YEARS[0], calendar={"new_patients": 500})
