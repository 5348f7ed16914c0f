"""Rows come in: a CSV or Parquet file under a declared schema becomes a typed table, or nothing.

Promise: a table in hand fits its schema; the first thing that does not fit raises one
``DatasetError`` that names dataset, column and row, and no table exists. CSV is RFC 4180 with
commas, UTF-8, optionally gzipped, read as text by one strict parser; every record has the same
number of fields. Format and compression are told by the first bytes, not by the name. Columns that
the schema does not declare are never read.

Rows are counted as a spreadsheet shows them: from 1, the header line included.

Not promised: that the file's owner declared true bounds or ids. Messages may quote a value, for the
hospital's own administrator alone.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl

from ledger.experiment.schema import CategoryColumn, NumberColumn, PatientColumn, Schema
from node.data import columns
from node.errors import DatasetError

MAX_BYTES = 4 * 2**30
MAX_ROWS = 50_000_000
_SLICE = 65_536
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"

Array = npt.NDArray[np.float64] | npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Table:
    """A dataset's rows under its schema; they never leave the node.

    Attributes:
        dataset: the dataset's name.
        rows: number of rows n.
        columns: number columns as float64 [n] (NaN: missing), category columns as int32 [n] (index
            into the declared values, -1: missing). Read-only.
        patients: the patient id of each row, or None where each record is its own unit.
    """

    dataset: str
    rows: int
    columns: Mapping[str, Array]
    patients: tuple[str, ...] | None


@dataclass(frozen=True)
class FileIdentity:
    """Which bytes a file holds, and the cheap signs by which a change is noticed.

    Attributes:
        path: as given.
        bytes: length.
        mtime_ns: time of last change.
        sha256: of the content, hexadecimal.
    """

    path: str
    bytes: int
    mtime_ns: int
    sha256: str


def read_table(
    path: Path,
    schema: Schema,
    *,
    registering: bool = False,
    max_bytes: int = MAX_BYTES,
    max_rows: int = MAX_ROWS,
) -> Table:
    """Read a CSV (plain or gzip) or Parquet file under a schema.

    Args:
        path: a regular file.
        schema: what is declared; ``schema.header`` names the fields of a CSV without header line.
        registering: whether it is to be registered; then ids that a spreadsheet spoilt are refused.
        max_bytes: largest file, and largest content of a gzip file.
        max_rows: most rows.

    Raises:
        DatasetError: the file cannot be read, or anything in it does not fit.
    """
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise DatasetError(schema.dataset, f"{path}: {error.strerror}") from None
        size = os.fstat(raw.fileno()).st_size
        if size == 0:
            raise DatasetError(schema.dataset, f"{path} is empty")
        if size > max_bytes:
            raise _too_large(schema, max_bytes)
        magic = raw.read(4)
        raw.seek(0)
        if magic == _PARQUET:
            slices = _parquet_slices(raw, schema, max_rows)
        else:
            content: BinaryIO | gzip.GzipFile = raw
            if magic[:2] == _GZIP:
                content = stack.enter_context(gzip.open(raw, "rb"))
            slices = _csv_slices(content, schema, max_bytes)
        return _typed(slices, schema, max_rows, registering)


def identify(path: Path) -> FileIdentity:
    """Hash a file and note its size and time of change.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        state = os.fstat(file.fileno())
    return FileIdentity(str(path), state.st_size, state.st_mtime_ns, digest)


_Piece = tuple[Mapping[str, pl.Series], columns.Slice]


def _typed(slices: Iterator[_Piece], schema: Schema, max_rows: int, registering: bool) -> Table:
    pieces: dict[str, list[Array]] = {
        column.name: [] for column in schema.columns if not isinstance(column, PatientColumn)
    }
    patients: list[str] = []
    rows = 0
    for raw, place in slices:
        length = 0
        for column in schema.columns:
            series = raw[column.name]
            length = len(series)
            if isinstance(column, NumberColumn):
                pieces[column.name].append(columns.numbers(series, column, place))
            elif isinstance(column, CategoryColumn):
                pieces[column.name].append(columns.codes(series, column, place))
            else:
                ids = columns.patient_ids(series, column.name, place)
                if registering:
                    columns.refuse_spoilt_ids(ids, column.name, place)
                patients.extend(ids)
        rows += length
        if rows > max_rows:
            raise DatasetError(
                schema.dataset, f"the file has more than {max_rows:,} rows; divide it"
            )
    if rows == 0:
        raise DatasetError(schema.dataset, "the file has no rows; nothing can be registered")
    arrays: dict[str, Array] = {}
    for name, parts in pieces.items():
        array: Any = np.concatenate(parts)
        array.flags.writeable = False
        arrays[name] = array
    known = tuple(patients) if schema.patient_column is not None else None
    return Table(schema.dataset, rows, MappingProxyType(arrays), known)


class _Capped(io.RawIOBase):
    """At most ``limit`` bytes of a stream: a small gzip file may hold a disk full of zeros."""

    def __init__(self, source: BinaryIO | gzip.GzipFile, limit: int, schema: Schema) -> None:
        self._source = source
        self._limit = limit
        self._left = limit
        self._schema = schema

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise _too_large(self._schema, self._limit)
        buffer[: len(data)] = data
        return len(data)


def _csv_slices(
    content: BinaryIO | gzip.GzipFile, schema: Schema, max_bytes: int
) -> Iterator[_Piece]:
    buffered = io.BufferedReader(_Capped(content, max_bytes, schema), 2**20)
    text = io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    records = _records(reader, schema)
    row = 0
    if schema.header:
        header = tuple(schema.header)
    else:
        row, first = next(records, (0, []))
        header = tuple(name.strip() for name in first)
        if not header:
            raise DatasetError(schema.dataset, "the file is empty")
        _check_header(header, schema)
    declared = [column.name for column in schema.columns]
    pick = itemgetter(*(header.index(name) for name in declared))
    while batch := list(islice(records, _SLICE)):
        for row, fields in batch:
            if len(fields) != len(header):
                raise DatasetError(
                    schema.dataset,
                    f"{len(fields)} fields where the {_source(schema)} has {len(header)}; "
                    "check commas and quotes in that row",
                    row=row,
                )
        picked = list(zip(*(pick(fields) for _, fields in batch), strict=True))
        raw = {
            name: pl.Series(name, values, dtype=pl.String)
            for name, values in zip(declared, picked, strict=True)
        }
        numbers = tuple(row for row, _ in batch)
        yield raw, columns.Slice(schema.dataset, schema.missing_marks, numbers[0], numbers)


def _records(reader: Any, schema: Schema) -> Iterator[tuple[int, list[str]]]:
    """Yield numbered records; blank lines count, but are no records."""
    row = 0
    try:
        for row, fields in enumerate(reader, start=1):
            if fields:
                yield row, fields
    except csv.Error as error:
        raise DatasetError(
            schema.dataset, f"is not well-formed CSV: {error}", row=row + 1
        ) from None
    except UnicodeDecodeError:
        place = "just after this row" if row else "at its beginning"
        raise DatasetError(
            schema.dataset, f"the file is not UTF-8 text {place}; save it as UTF-8", row=row or None
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(schema.dataset, f"the file cannot be read: {error}") from None


def _check_header(header: tuple[str, ...], schema: Schema) -> None:
    for column in schema.columns:
        count = header.count(column.name)
        if count > 1:
            raise DatasetError(
                schema.dataset,
                "the header line names it twice; rename one",
                column=column.name,
                row=1,
            )
        if count == 0:
            raise _missing_column(schema, column.name, header)


def _missing_column(schema: Schema, name: str, present: tuple[str, ...]) -> DatasetError:
    listed = ", ".join(_clean(column) for column in present[:30])
    hint = "add it to the file or take it out of the schema"
    if len(present) == 1 and any(mark in present[0] for mark in (";", "\t", "|")):
        hint = "fields must be separated by commas"
    elif any(part.strip().replace(".", "", 1).isdigit() for part in present):
        hint = "if the file has no header line, name its fields under header in the schema"
    return DatasetError(
        schema.dataset, f"the file has no such column (it has: {listed}); {hint}", column=name
    )


def _parquet_slices(raw: BinaryIO, schema: Schema, max_rows: int) -> Iterator[_Piece]:
    try:
        present = tuple(pl.read_parquet_schema(raw))
        for column in schema.columns:
            if column.name not in present:
                raise _missing_column(schema, column.name, present)
        raw.seek(0)
        frame = pl.read_parquet(
            raw, columns=[column.name for column in schema.columns], n_rows=max_rows + 1
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):  # the latter is no Exception
        raise DatasetError(
            schema.dataset, "the file is not well-formed Parquet; write it again"
        ) from None
    row = 1
    for part in frame.iter_slices(_SLICE):
        yield (
            {name: part.get_column(name) for name in part.columns},
            columns.Slice(schema.dataset, schema.missing_marks, row),
        )
        row += part.height


def _source(schema: Schema) -> str:
    return "schema's header" if schema.header else "header line"


def _clean(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:40])


def _too_large(schema: Schema, limit: int) -> DatasetError:
    return DatasetError(
        schema.dataset, f"the file holds more than {limit:,} bytes; divide it or raise the limit"
    )
