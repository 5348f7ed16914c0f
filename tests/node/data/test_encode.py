"""Encoding uses declared constants alone."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledger.experiment.schema import Schema, feature_names
from ledger.experiment.spec import BinaryTask, MulticlassTask, RegressionTask
from node.data import blocks, columns, encode, intake, snapshot
from node.data.encode import OPERATIONS, examples, features, targets
from node.data.intake import Table, read_table
from node.errors import JobRefused
from node.training.rounds import augment
from tests.node.cases import heart_file, heart_schema, heart_spec, schema

COLUMNS: tuple[dict[str, Any], ...] = (
    {"name": "pid", "type": "patient_id"},
    {"name": "x", "type": "number", "low": -3, "high": 7, "missing": "indicator", "fill": 1},
    {"name": "c", "type": "category", "values": ["a", "b", "c"], "missing": "indicator"},
    {"name": "y", "type": "number", "low": 0, "high": 10, "missing": "impute"},
    {"name": "k", "type": "category", "values": ["0", "1", "2", "3"], "missing": "impute"},
)
ROWS = "pid,x,c,y,k\np2,-3,a,10,0\np1,7,c,,1\np2,,,2.5,2\np1,2,b,5,\n"


@pytest.fixture
def declared() -> Schema:
    return schema(*COLUMNS)


@pytest.fixture
def table(tmp_path: Path, declared: Schema) -> Table:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return read_table(path, declared)


def test_numbers_are_scaled_by_their_bounds_and_codes_spread(
    table: Table, declared: Schema
) -> None:
    encoded = features(table, declared, ("c", "x"))
    assert feature_names(declared, ("c", "x")) == (
        "c=a", "c=b", "c=c", "c:missing", "x", "x:missing",
    )  # fmt: skip
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(
        encoded,
        [
            [1, 0, 0, 0, -1, 0],
            [0, 0, 1, 0, 1, 0],
            [0, 0, 0, 1, 2 * 4 / 10 - 1, 1],
            [0, 1, 0, 0, 0, 0],
        ],
        atol=1e-7,
    )


def test_a_reference_has_no_input_of_its_own(table: Table) -> None:
    compared = schema(*(c | {"reference": "b"} if c["name"] == "c" else c for c in COLUMNS))
    assert feature_names(compared, ("c", "x"))[:3] == ("c=a", "c=c", "c:missing")
    encoded = features(table, compared, ("c",))
    np.testing.assert_array_equal(encoded, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_a_row_is_encoded_alike_whatever_the_other_rows_are() -> None:
    real = heart_schema()
    table = read_table(heart_file(), real)
    spec = heart_spec()
    whole = features(table, real, spec.features)
    assert np.abs(whole).max() <= 1.0
    few = {name: values[5:8] for name, values in table.columns.items()}
    part = features(Table(table.dataset, 3, few, None), real, spec.features)
    np.testing.assert_array_equal(part, whole[5:8])


def test_targets_and_the_rows_that_have_one(table: Table, declared: Schema) -> None:
    binary, known = targets(
        table, declared, BinaryTask(kind="binary", target="k", positive=("2", "1.0"))
    )
    assert (binary[known].tolist(), known.tolist()) == ([0, 1, 1], [True, True, True, False])
    above, known = targets(table, declared, BinaryTask(kind="binary", target="y", above=4))
    assert (above[known].tolist(), known.tolist()) == ([1, 0, 1], [True, False, True, True])
    classes, known = targets(
        table, declared, MulticlassTask(kind="multiclass", target="k", classes=("3", "1", "0"))
    )
    assert (classes[known].tolist(), known.tolist()) == ([2, 1], [True, True, False, False])
    scaled, known = targets(table, declared, RegressionTask(kind="regression", target="y"))
    assert (scaled[known].tolist(), known.tolist()) == ([1, -0.5, 0], [True, False, True, True])


def test_a_task_that_does_not_fit_the_column_is_refused_whatever_the_rows(
    table: Table, declared: Schema
) -> None:
    with pytest.raises(JobRefused, match="'c' is not a number column"):
        targets(table, declared, RegressionTask(kind="regression", target="c"))
    with pytest.raises(JobRefused, match="does not declare the value 'z'"):
        targets(table, declared, BinaryTask(kind="binary", target="c", positive=("z",)))
    with pytest.raises(JobRefused, match="feature 'pid'"):
        features(table, declared, ("pid",))


def test_rows_of_a_patient_stand_together_and_rows_without_target_are_gone(
    table: Table, declared: Schema
) -> None:
    spec = heart_spec(task={"kind": "binary", "target": "k", "positive": ["1"]}, features=["x"])
    made = examples(table, declared, spec, np.ones(4, dtype=bool))
    assert made.patients.tolist() == [0, 1, 1]  # p1 once (its other row has no target), p2 twice
    assert made.targets.tolist() == [1, 0, 0]
    assert made.units == 2
    second = made.sample(np.array([False, True]))
    assert (second.patients.tolist(), second.units, len(second.targets)) == ([0, 0], 1, 2)
    nobody = made.sample(np.array([False, False]))
    assert (nobody.units, len(nobody.targets), nobody.features.shape) == (0, 0, (0, 2))


PREPROCESSING = (augment, blocks, columns, encode, intake, snapshot)
NO_PREPROCESSING = {
    # at registration: which block a patient is of
    "blocks.is_by_calendar",
    "blocks.calendar_cells",
    "blocks.place_patients",
    "blocks.member",
    "blocks.block_cell_name",
    "blocks.declared_sizes",
    "columns.refuse_spoilt_ids",
    "intake.identify",  # a file's hash, which stays here
    "snapshot.take_snapshot",  # a salted commitment, and proofs about it
    "snapshot.snapshot_size",
    "snapshot.prove",
    "snapshot.unit_text",
    "snapshot.row_texts",
}


def test_every_function_that_rows_pass_is_marked_public_or_event() -> None:
    found = {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in PREPROCESSING
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    assert found - NO_PREPROCESSING == set(OPERATIONS)
    assert found >= NO_PREPROCESSING
    assert set(OPERATIONS.values()) <= {"public", "event"}


def test_a_step_that_is_public_gives_a_row_the_same_whoever_else_is_there(tmp_path: Path) -> None:
    lines = ["61,m,1", "999,f,0", ",m,1", "20.5,f,", "-3,,0", "44,f,1"]
    declared = schema(
        {
            "name": "age",
            "type": "number",
            "low": 0,
            "high": 100,
            "outside": "clip",
            "missing": "indicator",
        },
        {"name": "sex", "type": "category", "values": ["f", "m"], "missing": "indicator"},
        {"name": "ill", "type": "category", "values": ["0", "1"], "missing": "impute"},
    )
    spec = heart_spec(
        task={"kind": "binary", "target": "ill", "positive": ["1"]}, features=["age", "sex"]
    )
    assert set(OPERATIONS.values()) == {"public"}

    def made(rows: list[str]) -> dict[str, tuple[bool, bytes]]:
        file = tmp_path / "ward.csv"
        file.write_text("\n".join(["age,sex,ill", *rows]) + "\n")
        table = intake.read_table(file, declared)
        test = snapshot.split_table(table, declared, bytes(32))
        found = {}
        for row, line in enumerate(rows):
            keep = np.arange(len(rows)) == row
            one = examples(table, declared, spec, keep)
            found[line] = (bool(test[row]), one.features.tobytes() + one.targets.tobytes())
        return found

    together = made(lines)
    for line in lines:
        assert made([line]) == {line: together[line]}
