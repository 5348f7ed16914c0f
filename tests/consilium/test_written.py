"""Documents as people write them: YAML and JSON in, one typed value or one message out."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.actions.written import parse_written, read_written
from consilium.errors import InputError
from consilium.examples import example
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import encode_document


@pytest.mark.parametrize("name", ["heart-disease", "breast-cancer"])
def test_the_examples_are_sound_and_their_canonical_json_reads_the_same(name: str) -> None:
    schema = read_written(example(name, "schema.yaml"), Schema)
    spec = read_written(example(name, "experiment.yaml"), ExperimentSpec)
    assert parse_written(encode_document(schema), Schema, "schema") == schema
    assert parse_written(encode_document(spec), ExperimentSpec, "spec") == spec
    assert set(spec.features) < {column.name for column in schema.columns}


def test_aliases_are_refused_before_they_unfold() -> None:
    bomb = b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    with pytest.raises(InputError, match="line 2: aliases are not accepted"):
        parse_written(bomb, Schema, "schema.yaml")


def test_a_tag_that_would_make_an_object_is_refused() -> None:
    with pytest.raises(InputError, match=r"schema\.yaml line 1: could not determine a constructor"):
        parse_written(b"a: !!python/object/apply:os.system [ls]\n", Schema, "schema.yaml")


def test_a_file_that_is_too_long_or_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.yaml: No such file"):
        read_written(tmp_path / "nothing.yaml", Schema)
    long = tmp_path / "long.yaml"
    long.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(InputError, match="longer than 1048576 bytes"):
        read_written(long, Schema)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_a_schema_or_one_clear_error(data: bytes) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(parse_written(data, Schema, "schema.yaml"), Schema)
