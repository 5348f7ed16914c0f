"""Commitments to rows, and the split of patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ledger.errors import NotConsistent
from ledger.experiment.schema import Schema
from node.data.intake import Table, read_table
from node.data.snapshot import (
    judge_proof,
    prove,
    record_hash,
    row_texts,
    snapshot_size,
    split_table,
    take_snapshot,
    unit_id,
    unit_split,
)
from node.errors import DatasetError
from tests.node.cases import SPLIT_KEY, schema

SALT = b"s" * 32
PATIENTS: tuple[dict[str, object], ...] = (
    {"name": "pid", "type": "patient_id"},
    {"name": "age", "type": "number", "low": 0, "high": 100, "missing": "impute"},
    {"name": "ill", "type": "category", "values": ["0", "1"]},
)


def load(tmp_path: Path, rows: str, declared: Schema) -> Table:
    path = tmp_path / "rows.csv"
    path.write_text(rows)
    return read_table(path, declared)


def test_a_hospital_proves_that_a_patient_was_in_a_snapshot_and_another_was_not(
    tmp_path: Path,
) -> None:
    declared = schema(*PATIENTS)
    table = load(tmp_path, "pid,age,ill\na,40,1\nb,41,0\na,,0\n", declared)
    snapshot = take_snapshot(table, declared, salt=SALT)
    assert snapshot.size == snapshot_size(declared) == 32
    shown = prove(snapshot, "a")
    judged = {"size": 32, "root": snapshot.root}
    assert judge_proof(shown, id=unit_id(SALT, "a"), size=32, root=snapshot.root)
    assert shown[0].record == record_hash(SALT, '[40.0,"1"]\n[null,"0"]')
    for stranger in (f"stranger {number}" for number in range(40)):
        absent = prove(snapshot, stranger)
        assert not judge_proof(absent, id=unit_id(SALT, stranger), size=32, root=snapshot.root)
        if len(absent) == 2:
            with pytest.raises(NotConsistent, match="neither"):
                judge_proof(absent[:1], id=unit_id(SALT, stranger), **judged)
    with pytest.raises(NotConsistent, match="another root"):
        judge_proof((replace(shown[0], record=b"x" * 32),), id=unit_id(SALT, "a"), **judged)
    with pytest.raises(NotConsistent, match="not 64"):
        judge_proof(shown, id=unit_id(SALT, "a"), size=64, root=snapshot.root)


def test_the_root_depends_on_salt_and_content_but_not_on_the_order_of_patients(
    tmp_path: Path,
) -> None:
    declared = schema(*PATIENTS)
    first = load(tmp_path, "pid,age,ill\na,40,1\nb,41,0\n", declared)
    shuffled = load(tmp_path, "pid,age,ill\nb,41.0,0\na,40,1\n", declared)
    edited = load(tmp_path, "pid,age,ill\na,40,0\nb,41,0\n", declared)
    root = take_snapshot(first, declared, salt=SALT).root
    assert take_snapshot(shuffled, declared, salt=SALT).root == root
    assert take_snapshot(edited, declared, salt=SALT).root != root
    assert take_snapshot(first, declared, salt=b"t" * 32).root != root


def test_more_patients_than_twice_the_declared_number_are_refused(tmp_path: Path) -> None:
    declared = schema()
    rows = "age,sex,ill\n" + "".join(f"{n},m,1\n" for n in range(21))
    with pytest.raises(DatasetError, match=r"more than 20 units.*declares 10"):
        take_snapshot(load(tmp_path, rows, declared), declared, salt=SALT)


def test_a_patient_is_in_one_half_over_all_tables_and_orders() -> None:
    ids = [f"patient {number}" for number in range(4000)]
    test = unit_split(SPLIT_KEY, ids, 30)
    assert abs(test.mean() - 0.3) < 0.03
    assert unit_split(SPLIT_KEY, ids[::-1], 30).tolist() == test[::-1].tolist()
    assert unit_split(SPLIT_KEY, ids[7:9] * 2, 30).tolist() == test[7:9].tolist() * 2
    assert not unit_split(SPLIT_KEY, ids, 0).any()
    assert (unit_split(b"o" * 32, ids, 30) != test).any()
    assert (unit_split(SPLIT_KEY, ids, 50) >= test).all()


def test_equal_records_without_ids_go_together(tmp_path: Path) -> None:
    declared = schema()
    table = load(tmp_path, "age,sex,ill\n" + "".join(f"{n % 7},m,1\n" for n in range(18)), declared)
    half = split_table(table, declared, SPLIT_KEY)
    texts = list(row_texts(table, declared))
    assert texts[0] == '[0.0,"m","1"]'
    for text in set(texts):
        assert len({bool(half[row]) for row, other in enumerate(texts) if other == text}) == 1
    assert half.dtype == np.bool_
