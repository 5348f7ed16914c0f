"""Datasets in the training process's memory, known by their content.

Promise: what is handed out was read from a file with exactly the registered SHA-256, under exactly
the schema that is named. A file that changed size or time is read and hashed anew; one whose content
differs from its registration raises ``DatasetChanged``. The least recently used go first.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import parse_document
from node.data.blocks import rows_of_blocks
from node.data.encode import Examples, examples
from node.data.intake import FileIdentity, Table, identify, read_table
from node.data.snapshot import split_table
from node.errors import DatasetChanged, DatasetError

_TABLES = 4
_HALVES = 8

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class RowsAsked:
    """Which rows an experiment asks for.

    Attributes:
        path: the file.
        schema_document: canonical.
        split_key: the hospital's secret, 32 bytes.
        spec: the experiment's document, canonical.
        expected: SHA-256 at registration.
        blocks: the calendar blocks that are charged: rows of other patients are dropped; empty
            where all patients are one block.
        patients: with blocks, the file that knows each patient's.
        snapshot: with blocks, root of the dataset's commitment.
    """

    path: Path
    schema_document: bytes
    split_key: bytes
    spec: bytes
    expected: str
    blocks: frozenset[str] = frozenset()
    patients: Path = Path()
    snapshot: str = ""


class Halves(Protocol):
    """Where a round gets its rows from: files, or made-up ones."""

    def halves(self, asked: RowsAsked) -> tuple[Examples, Examples]:
        """Encode training and evaluation half for an experiment."""


class Holdings:
    """Warm tables and encoded halves; one thread."""

    def __init__(self) -> None:
        self._identities: OrderedDict[str, FileIdentity] = OrderedDict()
        self._tables: OrderedDict[tuple[str, bytes], Table] = OrderedDict()
        self._splits: OrderedDict[bytes, npt.NDArray[np.bool_]] = OrderedDict()
        self._halves: OrderedDict[bytes, tuple[Examples, Examples]] = OrderedDict()

    def identity(self, path: Path) -> FileIdentity:
        """Tell a file's content, hashing it only when size or time of change are new.

        Raises:
            OSError: it cannot be read.
        """
        state = path.stat()
        known = self._identities.get(str(path))
        if known is None or (known.bytes, known.mtime_ns) != (state.st_size, state.st_mtime_ns):
            known = identify(path)
            _keep(self._identities, str(path), known, _TABLES)
        return known

    def table(self, path: Path, schema_document: bytes, expected: str | None = None) -> Table:
        """Read a dataset, or hand out the one in memory.

        Args:
            path: the file.
            schema_document: canonical.
            expected: SHA-256 at registration; None while registering.

        Raises:
            DatasetError: the file does not fit its schema; only while registering, since what was
                registered did, and the error may quote a value.
            DatasetChanged: its content is not what was registered, or changed while it was read.
            MalformedInput: the schema is not canonical.
        """
        schema = parse_document(schema_document, Schema)
        try:
            before = self.identity(path)
        except OSError:
            if expected is None:
                return read_table(path, schema)  # it says why
            raise DatasetChanged(str(path), expected=expected, found=None) from None
        if expected is not None and before.sha256 != expected:
            raise DatasetChanged(str(path), expected=expected, found=before.sha256)
        key = (before.sha256, sha256(schema_document).digest())

        def read() -> Table:
            try:
                table = read_table(path, schema)
            except DatasetError:
                if expected is None:
                    raise
                raise DatasetChanged(str(path), expected=expected, found=None) from None
            after = os.stat(path)
            if (after.st_size, after.st_mtime_ns) != (before.bytes, before.mtime_ns):
                raise DatasetChanged(str(path), expected=before.sha256, found=None)
            return table

        return _get(self._tables, key, read, _TABLES)

    def split(
        self, path: Path, schema_document: bytes, split_key: bytes, expected: str | None = None
    ) -> npt.NDArray[np.bool_]:
        """Say which rows are for evaluation; raises as ``table``."""
        table = self.table(path, schema_document, expected)
        schema = parse_document(schema_document, Schema)
        key = _digest(self.identity(path).sha256.encode(), schema_document, split_key)
        return _get(self._splits, key, lambda: split_table(table, schema, split_key), _TABLES)

    def halves(self, asked: RowsAsked) -> tuple[Examples, Examples]:
        """Encode training and evaluation half for an experiment; raises as ``table``.

        Raises:
            JobRefused: spec and schema do not fit together.
            LedgerError: the file of patients cannot be read.
        """
        document, split_key = asked.schema_document, asked.split_key
        table = self.table(asked.path, document, asked.expected)
        test = self.split(asked.path, document, split_key, asked.expected)
        schema = parse_document(document, Schema)
        parsed = parse_document(asked.spec, ExperimentSpec)
        chosen = ",".join((asked.snapshot, *sorted(asked.blocks))).encode()
        key = _digest(asked.expected.encode(), document, split_key, asked.spec, chosen)

        def encode() -> tuple[Examples, Examples]:
            here = np.ones(table.rows, dtype=np.bool_)
            if asked.blocks:
                here = rows_of_blocks(
                    table, split_key, asked.patients, asked.snapshot, asked.blocks
                )
            train = examples(table, schema, parsed, ~test & here)
            return train, examples(table, schema, parsed, test & here)

        return _get(self._halves, key, encode, _HALVES)


def _digest(*parts: bytes) -> bytes:
    return sha256(b"".join(sha256(part).digest() for part in parts)).digest()


def _keep(cache: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)


def _get(cache: OrderedDict[K, V], key: K, make: Callable[[], V], most: int) -> V:
    if key in cache:
        cache.move_to_end(key)
        return cache[key]
    value = make()
    _keep(cache, key, value, most)
    return value
