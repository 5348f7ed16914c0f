"""Rows come in under a schema, or one clear message comes out."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ledger.formats.documents import encode_document
from node.data.holdings import Holdings
from node.data.intake import Table, identify, read_table
from node.errors import DatasetError
from tests.node.cases import heart_file, heart_schema, schema
from tests.shared_data import HEART_FILES

Read = Callable[..., Table]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(content: str | bytes, *columns: dict[str, Any], **changes: Any) -> Table:
        path = tmp_path / "rows.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(path, schema(*columns, **changes))

    return read


def refusal(read: Read, content: str | bytes, *columns: Any, **changes: Any) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        read(content, *columns, **changes)
    assert caught.value.dataset == "ward"
    return caught.value


def test_a_good_file_becomes_typed_columns_in_any_order_and_without_the_undeclared(
    read: Read,
) -> None:
    table = read("secret,ill,sex,age\nx,1,m,40\ny,0.0, f ,7.5\n")
    assert table.rows == 2
    assert sorted(table.columns) == ["age", "ill", "sex"]
    assert table.columns["age"].tolist() == [40.0, 7.5]
    assert table.columns["sex"].tolist() == [1, 0]
    assert table.columns["ill"].tolist() == [1, 0]
    assert table.patients is None
    with pytest.raises(ValueError, match="read-only"):
        table.columns["age"][0] = 1


def test_a_missing_column_is_named_with_what_there_is(read: Read) -> None:
    error = refusal(read, "age,ill\n40,1\n")
    assert str(error) == (
        'dataset "ward": column "sex": the file has no such column (it has: age, ill); '
        "add it to the file or take it out of the schema"
    )


def test_a_file_with_semicolons_or_without_header_gets_the_right_hint(read: Read) -> None:
    assert "separated by commas" in refusal(read, "age;sex;ill\n40;m;1\n").reason
    assert "name its fields under header" in refusal(read, "40,m,1\n").reason


def test_a_value_out_of_bounds_is_refused_with_row_value_bound_and_unit(read: Read) -> None:
    error = refusal(read, "age,sex,ill\n40,m,1\n999,f,0\n")
    assert (error.column, error.row) == ("age", 3)
    assert '"999" is outside 0..100 years' in error.reason
    assert "outside: clip or missing" in error.reason


def test_a_value_out_of_bounds_is_clipped_or_missing_where_declared(read: Read) -> None:
    number = {"name": "age", "type": "number", "low": 0, "high": 100}
    other = {"name": "ill", "type": "category", "values": ["0", "1"]}
    rows = "age,ill\n-5,1\n1e3,0\n50,0\n"
    assert read(rows, number | {"outside": "clip"}, other).columns["age"].tolist() == [0, 100, 50]
    lenient = number | {"outside": "missing", "missing": "impute"}
    assert np.isnan(read(rows, lenient, other).columns["age"]).tolist() == [True, True, False]


def test_an_unknown_category_is_refused_with_the_declared_ones(read: Read) -> None:
    error = refusal(read, "age,sex,ill\n40,m,1\n40,x,0\n")
    assert (error.column, error.row) == ("sex", 3)
    assert '"x" is not one of the declared values (f, m)' in error.reason


@pytest.mark.parametrize("text", ["NaN", "nan", "inf", "-Infinity", "1e999", "1_0", "0x10", "abc"])
def test_what_is_not_a_finite_number_is_refused(read: Read, text: str) -> None:
    error = refusal(read, f"age,sex,ill\n{text},m,1\n")
    assert (error.column, error.row) == ("age", 2)
    assert f'"{text}" is not a finite number' in error.reason


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"age,sex,ill\n", b"\xef\xbb\xbf", gzip.compress(b"")]
)
def test_an_empty_file_is_refused(read: Read, content: bytes) -> None:
    reason = refusal(read, content).reason
    assert "is empty" in reason or "has no rows" in reason


def test_a_missing_value_is_refused_unless_the_schema_says_otherwise(read: Read) -> None:
    error = refusal(read, "age,sex,ill\n40,,1\n")
    assert (error.column, error.row) == ("sex", 2)
    assert "declare missing: impute or indicator" in error.reason


def test_missing_marks_hold_for_the_dataset_and_for_the_column(read: Read) -> None:
    columns = (
        {
            "name": "chol",
            "type": "number",
            "low": 100,
            "high": 500,
            "missing": "impute",
            "missing_marks": ["0"],
        },
        {"name": "ca", "type": "category", "values": ["0", "1"], "missing": "impute"},
    )
    table = read("chol,ca\n0.0,0\n?,?\n120,1\n,\n", *columns, missing_marks=["?"])
    assert np.isnan(table.columns["chol"]).tolist() == [True, True, False, True]
    assert table.columns["ca"].tolist() == [0, -1, 1, -1]


@pytest.mark.parametrize("row", ["40,m", "40,m,1,2"])
def test_a_row_with_another_number_of_fields_is_refused(read: Read, row: str) -> None:
    error = refusal(read, f"age,sex,ill\n40,m,1\n\n{row}\n")
    assert error.row == 4  # as a spreadsheet shows it: header, one row, one blank line
    assert "where the header line has 3" in error.reason


def test_a_header_that_names_a_column_twice_is_refused(read: Read) -> None:
    error = refusal(read, "age,sex,age,ill\n40,m,41,1\n")
    assert (error.column, error.row) == ("age", 1)
    assert "names it twice" in error.reason


def test_broken_quotes_foreign_bytes_and_broken_gzip_are_refused(read: Read) -> None:
    assert "well-formed CSV" in refusal(read, 'age,sex,ill\n40,"m"x,1\n').reason
    found = refusal(read, b"age,sex,ill\n40,m\xff,1\n")
    assert (found.row, found.reason) == (
        None, "the file is not UTF-8 text at its beginning; save it as UTF-8",
    )  # fmt: skip
    whole = gzip.compress(b"age,sex,ill\n" + b"40,m,1\n" * 1000)
    assert "cannot be read" in refusal(read, whole[:-20]).reason


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="No such file"):
        read_table(tmp_path / "none.csv", schema())
    with pytest.raises(DatasetError, match="directory"):
        read_table(tmp_path, schema())


def test_limits_hold_also_inside_a_gzip_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"age,sex,ill\n" + b"40,m,1\n" * 5000))
    assert read_table(path, schema()).rows == 5000
    with pytest.raises(DatasetError, match="more than 2,000 bytes"):
        read_table(path, schema(), max_bytes=2000)
    with pytest.raises(DatasetError, match="more than 10 rows"):
        read_table(path, schema(), max_rows=10)


def test_parquet_gives_the_same_table_as_csv(tmp_path: Path, read: Read) -> None:
    frame = pl.DataFrame({"x": [1, 2], "age": [40, 7], "sex": ["m", "f"], "ill": [True, False]})
    path = tmp_path / "rows.dat"
    frame.with_columns(pl.col("ill").cast(pl.Int8)).write_parquet(path)
    table = read_table(path, schema())
    same = read("age,sex,ill\n40,m,1\n7,f,0\n")
    for name in same.columns:
        np.testing.assert_array_equal(table.columns[name], same.columns[name])


def test_parquet_refusals_name_column_and_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"

    def refuse(**data: list[Any]) -> DatasetError:
        pl.DataFrame(data).write_parquet(path)
        with pytest.raises(DatasetError) as caught:
            read_table(path, schema())
        return caught.value

    good: dict[str, list[Any]] = {"age": [40.0, 41.0], "sex": ["m", "f"], "ill": [1, 0]}
    assert refuse(**good | {"age": [40.0, float("nan")]}).row == 2
    assert refuse(**good | {"ill": [1, 7]}).column == "ill"
    assert "no such column" in refuse(age=[1.0], sex=["m"]).reason
    assert "has no rows" in refuse(age=[], sex=[], ill=[]).reason
    assert "numbers are declared" in refuse(**good | {"age": [[1], [2]]}).reason
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatasetError, match="well-formed Parquet"):
        read_table(path, schema())


def test_a_parquet_file_over_which_its_reader_panics_is_refused_like_any_other(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"age": [40.0], "sex": ["m"], "ill": [1]}).write_parquet(path)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    value = whole.index(b"ARROW:schema", footer) + len(b"ARROW:schema")
    size = whole[value + 1] & 0x7F | whole[value + 2] << 7  # in two bytes, after the field's own
    # That value's length is 0 now, and its text is gone.
    end = whole[footer:value] + b"\x18\x00" + whole[value + 3 + size : -8]
    path.write_bytes(whole[:footer] + end + len(end).to_bytes(4, "little") + whole[-4:])
    with pytest.raises(DatasetError, match="well-formed Parquet"):
        read_table(path, schema())


def test_patient_ids_are_texts_and_each_row_needs_one(tmp_path: Path, read: Read) -> None:
    columns = (
        {"name": "pid", "type": "patient_id"},
        {"name": "ill", "type": "category", "values": ["0", "1"]},
    )
    assert read("pid,ill\n 007 ,1\n7,0\n", *columns).patients == ("007", "7")
    error = refusal(read, "pid,ill\n7,1\n ,0\n", *columns)
    assert (error.column, error.row) == ("pid", 3)
    path = tmp_path / "ids.parquet"
    pl.DataFrame({"pid": [7.0], "ill": [1]}).write_parquet(path)
    with pytest.raises(DatasetError, match="floating-point"):
        read_table(path, schema(*columns))


def test_ids_that_a_spreadsheet_spoilt_are_refused_where_they_are_to_be_registered_alone(
    tmp_path: Path,
) -> None:
    """What was registered with them is not said to have changed."""
    given = schema(
        {"name": "pid", "type": "patient_id"},
        {"name": "ill", "type": "category", "values": ["0", "1"]},
    )
    path = tmp_path / "rows.csv"
    path.write_text("pid,ill\n12.5,1\n7.0,0\n")
    with pytest.raises(DatasetError, match=r'row 3.*"7\.0" is a whole number with decimals'):
        read_table(path, given, registering=True)
    registered = Holdings().table(path, encode_document(given), identify(path).sha256)
    assert registered.patients == ("12.5", "7.0")


def test_control_characters_of_a_file_reach_no_terminal(read: Read) -> None:
    error = refusal(read, "age,sex,ill\n40,\x1b[31mred,1\n")
    assert "\x1b" not in str(error)


@pytest.mark.parametrize(
    ("name", "rows"), list(zip(HEART_FILES, (303, 294, 123, 200), strict=True))
)
def test_the_four_real_hospitals_fit_the_example_schema(name: str, rows: int) -> None:
    table = read_table(heart_file(name), heart_schema(name))
    assert table.rows == rows
    cholesterol = table.columns["chol"]
    assert np.isnan(cholesterol).all() == (name == "zurich-basel-heart")
    assert not np.isnan(table.columns["age"]).any()


def test_an_identity_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    first = identify(path)
    path.write_bytes(b"2")
    assert identify(path).sha256 != first.sha256
    assert first.bytes == 1
