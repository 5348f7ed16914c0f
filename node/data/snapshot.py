"""A commitment to exactly these rows, and the split of patients into training and test.

**Snapshot.** The Merkle root (RFC 6962 hashing) over one leaf a unit, SHA-256(0x00 || id || record)
with ``id`` = HMAC-SHA256(salt, the unit's name) and ``record`` = HMAC-SHA256(salt, the canonical
text of all its rows). Leaves are sorted by ``id`` and padded, by leaves that look alike, to a
public power of two of at least twice the declared size, so that root, length and a shown path tell
nothing about the number of rows. With the salt, which never leaves the hospital, it can later prove
to a patient or a court that a record was in the snapshot (its path) or was not (two neighbours that
enclose its id). A fresh salt each time: equal rows
under two salts have unrelated roots.

**Split.** A unit is kept for evaluation if the first 64 bits of an HMAC-SHA256 under the hospital's
own key fall below ``test_percent`` of their range. It depends on the patient alone, so a patient
stays in one half over all datasets that use the same percentage; records without ids go by content,
so that equal records stay together.

Not promised: that the rows are true, or that a hospital used the snapshot it committed to.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ledger.experiment.plan.sites import ACTUAL_OVER_DECLARED
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.snapshot_proof import SALT_BYTES, LeafProof, record_hash, salted, unit_id
from node.data.columns import MISSING_CODE
from node.data.intake import Table
from node.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A commitment to a table; only ``root`` may leave the hospital.

    Attributes:
        root: 32 bytes.
        size: leaves, a power of two that the declared size implies.
        salt: 32 secret bytes.
        leaves: (id, record) of each leaf, sorted; padding included.
    """

    root: bytes
    size: int
    salt: bytes
    leaves: tuple[tuple[bytes, bytes], ...]


def take_snapshot(table: Table, schema: Schema, *, salt: bytes) -> Snapshot:
    """Commit to a table.

    Args:
        table: the rows.
        schema: its schema; ``declared_rows`` fixes the public number of leaves.
        salt: 32 bytes of ``os.urandom``, used for this snapshot alone and kept.

    Raises:
        DatasetError: the table has more than ``ACTUAL_OVER_DECLARED`` times the declared units;
            every bound that a plan proves rests on that.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    leaves = [
        (unit_id(salt, name), record_hash(salt, record)) for name, record in _units(table, schema)
    ]
    size = snapshot_size(schema)
    most = ACTUAL_OVER_DECLARED * schema.declared_rows
    if len(leaves) > most:
        raise DatasetError(
            table.dataset,
            f"the file has more than {most} units (patients, or records without patient ids), but "
            f"the schema declares {schema.declared_rows}; correct declared_rows",
        )
    leaves.extend(
        (salted(salt, "pad id", str(index)), salted(salt, "pad record", str(index)))
        for index in range(size - len(leaves))
    )
    leaves.sort()
    return Snapshot(_tree(leaves).root(), size, salt, tuple(leaves))


def snapshot_size(schema: Schema) -> int:
    """Return the public number of leaves: the power of two at or above twice the declared size."""
    return 1 << (ACTUAL_OVER_DECLARED * schema.declared_rows - 1).bit_length()


def prove(snapshot: Snapshot, unit: str) -> tuple[LeafProof, ...]:
    """Show whether a unit is in a snapshot.

    Args:
        snapshot: with its salt.
        unit: a patient id, or the row's index from 0 where records are the units.

    Returns:
        One proof: the unit's own leaf (included). Two, or one at an end of the tree: the neighbours
        between which its id would stand (not included). ``ledger.formats.snapshot_proof`` judges.
    """
    wanted = unit_id(snapshot.salt, unit)
    tree = _tree(snapshot.leaves)
    at = bisect_left(snapshot.leaves, (wanted, b""))
    if at < snapshot.size and snapshot.leaves[at][0] == wanted:
        return (_proof(snapshot, tree, at),)
    around = [index for index in (at - 1, at) if 0 <= index < snapshot.size]
    return tuple(_proof(snapshot, tree, index) for index in around)


def unit_text(table: Table, schema: Schema, unit: str) -> str | None:
    """The canonical text of a unit's rows, as its record hash covers it; None where it has none."""
    return next((text for name, text in _units(table, schema) if name == unit), None)


def row_texts(table: Table, schema: Schema) -> Iterator[str]:
    """Write each row canonically: a JSON list of the declared columns in schema order.

    Numbers are written in Python's shortest form that reads back equal, codes as declared, a
    missing value as null; the patient id is left out.
    """
    columns: list[list[str | float | None]] = []
    for column in schema.columns:
        if isinstance(column, NumberColumn):
            raw = table.columns[column.name]
            columns.append([None if value != value else value + 0.0 for value in raw.tolist()])
        elif isinstance(column, CategoryColumn):
            codes = table.columns[column.name].tolist()
            columns.append(
                [None if code == MISSING_CODE else column.values[int(code)] for code in codes]
            )
    for row in zip(*columns, strict=True):
        yield json.dumps(row, separators=(",", ":"), allow_nan=False)


def unit_split(
    hospital_key: bytes, units: Sequence[str], test_percent: int
) -> npt.NDArray[np.bool_]:
    """Say which rows are kept for evaluation.

    Args:
        hospital_key: secret of the hospital, 32 bytes, the same for all its datasets.
        units: for each row the patient id, or the row's canonical text where there is none.
        test_percent: 0 .. 90.

    Returns:
        bool [n]: True for the test half.
    """
    threshold = test_percent * 2**64 // 100
    half: dict[str, bool] = {}
    mask = np.zeros(len(units), dtype=np.bool_)
    for row, unit in enumerate(units):
        known = half.get(unit)
        if known is None:
            digest = salted(hospital_key, "split", unit)
            known = half[unit] = int.from_bytes(digest[:8], "big") < threshold
        mask[row] = known
    return mask


def split_table(table: Table, schema: Schema, hospital_key: bytes) -> npt.NDArray[np.bool_]:
    """Split a table by its schema: patients where it has ids, else records; True is test."""
    units = table.patients if table.patients is not None else tuple(row_texts(table, schema))
    return unit_split(hospital_key, units, schema.test_percent)


def _units(table: Table, schema: Schema) -> Iterator[tuple[str, str]]:
    if table.patients is None:
        yield from ((str(row), text) for row, text in enumerate(row_texts(table, schema)))
        return
    rows: dict[str, list[str]] = {}
    for patient, text in zip(table.patients, row_texts(table, schema), strict=True):
        rows.setdefault(patient, []).append(text)
    for patient, texts in rows.items():
        yield patient, "\n".join(sorted(texts))


def _tree(leaves: Sequence[tuple[bytes, bytes]]) -> MerkleTree:
    return MerkleTree.from_leaves(leaf_hash(name + record) for name, record in leaves)


def _proof(snapshot: Snapshot, tree: MerkleTree, index: int) -> LeafProof:
    name, record = snapshot.leaves[index]
    path = tuple(step.hex() for step in tree.inclusion(index))
    return LeafProof(index=index, id=name.hex(), record=record.hex(), path=path)
