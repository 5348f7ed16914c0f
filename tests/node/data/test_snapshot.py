"""Commitments to rows, and the split of patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import NotConsistent
from ledger.experiment.schema import Schema
from ledger.formats.snapshot_proof import SnapshotProof, judge
from node.data.intake import Table, read_table
from node.data.snapshot import (
    Snapshot,
    prove,
    row_texts,
    snapshot_size,
    split_table,
    take_snapshot,
    unit_split,
    unit_text,
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


def shown(snapshot: Snapshot, unit: str, rows: str | None = None) -> SnapshotProof:
    return SnapshotProof(
        federation="0" * 64,
        dataset="heart",
        registration="1" * 64,
        size=snapshot.size,
        salt=snapshot.salt.hex(),
        unit=unit,
        rows=rows,
        leaves=prove(snapshot, unit),
    )


def test_a_hospital_proves_that_a_patient_was_in_a_snapshot_and_another_was_not(
    tmp_path: Path,
) -> None:
    declared = schema(*PATIENTS)
    table = load(tmp_path, "pid,age,ill\na,40,1\nb,41,0\na,,0\n", declared)
    snapshot = take_snapshot(table, declared, salt=SALT)
    root = snapshot.root.hex()
    assert snapshot.size == snapshot_size(declared) == 32
    rows = unit_text(table, declared, "a")
    assert rows == '[40.0,"1"]\n[null,"0"]'
    assert judge(shown(snapshot, "a", rows), root)
    for stranger in (f"stranger {number}" for number in range(40)):
        absent = shown(snapshot, stranger)
        assert not judge(absent, root)
        if len(absent.leaves) == 2:
            with pytest.raises(NotConsistent, match="neither"):
                judge(absent.model_copy(update={"leaves": absent.leaves[:1]}), root)


@pytest.fixture
def cheated(tmp_path: Path) -> tuple[Snapshot, str]:
    declared = schema(*PATIENTS)
    table = load(tmp_path, "pid,age,ill\na,40,1\nb,41,0\na,,0\n", declared)
    snapshot = take_snapshot(table, declared, salt=SALT)
    return snapshot, snapshot.root.hex()


def test_a_hospital_cannot_call_a_present_patient_absent(cheated: tuple[Snapshot, str]) -> None:
    snapshot, root = cheated
    honest = shown(snapshot, "a")
    at = honest.leaves[0].index
    around = [leaf for u in map(str, range(400)) for leaf in prove(snapshot, u)]
    by_index = {leaf.index: leaf for leaf in around}
    pairs = [(by_index[i], by_index[j]) for i in by_index for j in by_index if i < j]
    for pair in pairs:
        lie = honest.model_copy(update={"leaves": pair})
        with pytest.raises(NotConsistent, match="neither"):
            judge(lie, root)
    assert at in by_index or pairs


def test_a_hospital_cannot_call_an_absent_patient_present_or_open_other_rows(
    cheated: tuple[Snapshot, str],
) -> None:
    snapshot, root = cheated
    borrowed = shown(snapshot, "a").model_copy(update={"unit": "somebody else"})
    with pytest.raises(NotConsistent, match="neither"):
        judge(borrowed, root)
    other = shown(snapshot, "a").model_copy(update={"rows": '[40.0,"0"]'})
    with pytest.raises(NotConsistent, match="other rows than its leaf"):
        judge(other, root)
    absent = shown(snapshot, "c").model_copy(update={"rows": '[40.0,"0"]'})
    with pytest.raises(NotConsistent, match="absent"):
        judge(absent, root)


def test_a_proof_for_another_registration_or_with_another_salt_is_refused(
    cheated: tuple[Snapshot, str], tmp_path: Path
) -> None:
    snapshot, root = cheated
    declared = schema(*PATIENTS)
    table = load(tmp_path, "pid,age,ill\na,40,1\n", declared)
    newer = take_snapshot(table, declared, salt=b"t" * 32)
    with pytest.raises(NotConsistent, match="another root"):
        judge(shown(newer, "b"), root)
    other = shown(snapshot, "a").model_copy(update={"salt": "ab" * 32})
    with pytest.raises(NotConsistent, match="neither"):
        judge(other, root)
    larger = shown(snapshot, "a").model_copy(update={"size": 64})
    with pytest.raises(NotConsistent):
        judge(larger, root)


@given(
    st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=20),
    st.text("abcdef", min_size=1, max_size=4),
    st.binary(min_size=32, max_size=32),
)
@settings(max_examples=60)
def test_exactly_one_of_present_and_absent_can_be_shown(
    patients: set[str], asked: str, salt: bytes
) -> None:
    declared = schema(*PATIENTS)
    names = tuple(sorted(patients))
    ages = np.arange(len(names), dtype=np.float64)
    codes = np.zeros(len(names), dtype=np.int64)
    table = Table("heart", len(names), {"age": ages, "ill": codes}, names)
    snapshot = take_snapshot(table, declared, salt=salt)
    assert judge(shown(snapshot, asked), snapshot.root.hex()) == (asked in patients)
    assert snapshot.size == 32, "the number of leaves tells nothing about the number of patients"


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
