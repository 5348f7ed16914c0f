"""A hospital whose patients' budget is spent looks for a second one by another table: renamed, shuffled, cut, edited.

The hospital's own software runs for real: files on disk are judged and registered by ``node.data``, the
private register is SQLite, the node's duties come from its own copy. The log is everybody's fold. Who asks
under another name, from an older register or for a number that is none: ``test_budget_askers``,
``test_budget_restored``, ``test_budget_numbers``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from node.data.intake import read_table
from node.data.snapshot import split_table
from node.errors import RegistrationRefused
from tests.adversary.registry import attack
from tests.adversary.ward import COLUMNS, KEY, NODE, Row, Table, Ward, patients

pytestmark = pytest.mark.usefixtures("quick_keys")


# --- another table --------------------------------------------------------------------------------


def renamed(rows: list[Row]) -> Table:
    return Table(rows, "basel-ward")


def shuffled(rows: list[Row]) -> Table:
    return Table(random.Random(2).sample(rows, len(rows)))


def subset(rows: list[Row]) -> Table:
    return Table(rows[:150], "basel-half")


def edited(rows: list[Row]) -> Table:
    who, age, *rest = rows[0]
    return Table([(who, 90 if age < 90 else 89, *rest), *rows[1:]])  # type: ignore[list-item]


def viewed(rows: list[Row]) -> Table:
    return Table(rows, "basel-view", ("who", "sick", "chol", "age"))


def second_table(rows: list[Row]) -> Table:
    return Table([*patients(0, 300, seed=5), *patients(0, 300, seed=6)], "basel-lab")


def returning(rows: list[Row]) -> Table:
    return Table(patients(150, 400, seed=7), "basel-next-year")


TABLES = {
    "registers its table under another name": renamed,
    "registers its table with its rows in another order": shuffled,
    "registers a part of its patients as a table of their own": subset,
    "registers its table with one value changed": edited,
    "registers a view of its table with other columns": viewed,
    "registers a second table of the same patients, with several rows each": second_table,
    "registers next year's table, with patients who came back": returning,
}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            make,
            marks=attack(
                name=f"a hospital whose budget is spent {what}",
                exposed_by=NODE,
                evidence="the cells that the new table names, with what they have paid",
            ),
            id=make.__name__,
        )
        for what, make in TABLES.items()
    ],
)
def test_another_table_of_the_same_patients_inherits_their_spend(
    ward: Ward, make: Callable[[list[Row]], Table]
) -> None:
    table = make(ward.rows)
    prepared = ward.register(table)  # the lie
    assert not {terms.cell for terms, _ in prepared.cells} & ward.cells  # no promise made anew
    assert ward.spends() == ward.spend
    ward.refuses(ward.ask(table.name), table.name)


def test_a_patient_who_comes_back_stays_in_the_half_and_cell_of_the_first_time(
    tmp_path: Path,
) -> None:
    def halves(table: Table) -> dict[str, bool]:
        read = read_table(table.write(tmp_path), table.schema)
        assert read.patients is not None
        test = split_table(read, table.schema, KEY)
        return {str(who): bool(kept) for who, kept in zip(read.patients, test, strict=True)}

    before = halves(Table(patients(0, 300)))
    after = halves(Table(patients(150, 400, seed=7), "basel-next-year"))
    both = before.keys() & after.keys()
    assert len(both) == 150
    assert {who: before[who] for who in both} == {who: after[who] for who in both}


@attack(
    name="a hospital leaves the patients' ids out of its next table, to have a cell without spend",
    exposed_by=NODE,
    evidence="its patients are told apart by id already",
)
def test_a_table_without_ids_does_not_start_anew(ward: Ward) -> None:
    table = Table(ward.rows, "basel-nameless", COLUMNS[1:])
    with ward.world.caught(
        RegistrationRefused, by=NODE, match="declare a column of type patient_id"
    ):
        ward.register(table, epsilon=5.0)  # the lie
    assert frozenset(ward.basel.register.view.cells) == ward.cells


@attack(
    name="a hospital promises its patients a larger epsilon with its next table",
    exposed_by=NODE,
    evidence="the promise in the register, which is for ever",
)
def test_a_promise_does_not_grow_with_a_second_table(ward: Ward) -> None:
    with ward.world.caught(RegistrationRefused, by=NODE, match="were promised epsilon 5 for ever"):
        ward.register(renamed(ward.rows), epsilon=50.0)  # the lie
    assert ward.spends() == ward.spend
