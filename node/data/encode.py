"""A table becomes numbers a model can learn from, by declared constants alone.

Promise: every value here is a function of one row and the public schema. No mean, deviation,
vocabulary or selection is computed from rows, so preprocessing costs no privacy and reveals
nothing; ``OPERATIONS`` marks each step so. Inputs and outputs stand in the order of
``ledger.experiment.schema.feature_names``.

Not promised: that declared bounds are good for learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from ledger.experiment.inputs import embedded
from ledger.experiment.schema import (
    CategoryColumn,
    NumberColumn,
    Schema,
    feature_names,
    normal_label,
)
from ledger.experiment.spec import BinaryTask, ExperimentSpec, MulticlassTask, RegressionTask
from node.data.columns import MISSING_CODE
from node.data.intake import Array, Table
from node.errors import JobRefused

Task = BinaryTask | MulticlassTask | RegressionTask

OPERATIONS: Mapping[str, Literal["public", "event"]] = MappingProxyType(
    {
        "intake.read_table": "public",  # declared columns, by name
        "columns.numbers": "public",  # declared bounds: refuse, clip, or missing
        "columns.codes": "public",  # declared values
        "columns.patient_ids": "public",  # a text
        "encode.features": "public",  # scaling by bounds, declared fills, marks, one input a code
        "encode.targets": "public",  # a declared threshold, listed codes
        "encode.place_among_own": "public",  # the order of one patient's rows
        "encode.examples": "public",  # rows without a target dropped, a patient's rows side by side
        "blocks.rows_of_blocks": "public",  # the blocks charged, and the day that the hospital first saw one
        "augment.number_inputs": "public",  # columns
        "augment.with_own_views": "public",  # the row, and jitter by the patient's id
        "augment.with_views": "public",  # the row, and jitter that is drawn independently of all rows
        "snapshot.unit_split": "public",  # a keyed hash of the patient
        "snapshot.split_table": "public",
    }
)
"""Every function that rows pass on their way to a model: ``public`` reads declarations and one patient's
rows, ``event`` is charged. A test compares the list with the code both ways, and tries that no row
changes what becomes of another."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Encoded rows of one half of a dataset, rows of a patient next to one another.

    Attributes:
        features: float32 [n, d].
        targets: float32 [n] (binary: 0 or 1; regression: -1..1) or int64 [n] (class index).
        patients: int64 [n], 0 .. units-1, never falling: which unit each row belongs to.
        units: number of units m that have a row here.
        ids: the units' patient ids [m], in the units' order; None where each row is a unit.
    """

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32] | npt.NDArray[np.int64]
    patients: npt.NDArray[np.int64]
    units: int
    ids: npt.NDArray[np.object_] | None = None

    def first_rows(self, most: int) -> Examples:
        """Keep at most so many rows of each unit, the first ones; every unit stays."""
        kept = place_among_own(self.patients) < most
        if kept.all():
            return self
        return replace(
            self,
            features=self.features[kept],
            targets=self.targets[kept],
            patients=self.patients[kept],
        )

    def of_units(self, units: npt.NDArray[np.intp]) -> Examples:
        """Keep the rows of some units, by their numbers, rising."""
        taken = np.zeros(self.units, dtype=np.bool_)
        taken[units] = True
        return self.sample(taken)

    def sample(self, taken: npt.NDArray[np.bool_]) -> Examples:
        """Keep the rows of the units that ``taken`` ([m]) says, renumbered."""
        if taken.all():
            return self
        rows = taken[self.patients]
        renumbered = np.cumsum(taken, dtype=np.int64) - 1
        return Examples(
            self.features[rows],
            self.targets[rows],
            renumbered[self.patients[rows]],
            int(taken.sum()),
        )


def features(
    table: Table,
    schema: Schema,
    names: tuple[str, ...],
    embedded: frozenset[str] = frozenset(),
) -> npt.NDArray[np.float32]:
    """Encode columns as model inputs.

    A number x becomes 2 (x - low) / (high - low) - 1, clipped to [-1, 1], its declared fill where
    it is missing; a category one 0/1 input for each declared code but the reference (all 0 where it
    is that one or missing);
    ``missing: indicator`` adds a 0/1 input. A category that the model embeds is one input: 1 for its first
    declared code, 2 for the second and so on, 0 where it is missing.

    Args:
        table: the rows.
        schema: the table's schema.
        names: feature columns, in the spec's order.
        embedded: category columns that the model embeds.

    Returns:
        float32 [n, d], d = ``len(feature_names(schema, names, embedded))``, every value in [-1, 1] but those of
        ``embedded``, which are integers.

    Raises:
        JobRefused: a name is no number or category column of the schema.
    """
    try:
        width = len(feature_names(schema, names, embedded))
    except KeyError as error:
        raise JobRefused(f"feature {error.args[0]!r} is no number or category column") from None
    encoded = np.zeros((table.rows, width), dtype=np.float32)
    at = 0
    for name in names:
        column = schema.column(name)
        raw = table.columns[name]
        if isinstance(column, NumberColumn):
            blank = np.isnan(raw)
            filled = np.where(blank, float(column.filled), raw)
            encoded[:, at] = _scaled(filled, column)
            at += 1
        elif name in embedded:
            assert isinstance(column, CategoryColumn)  # feature_names has checked it
            encoded[:, at] = 1 + _listed(raw, column, column.values)
            at += 1
            continue
        else:
            assert isinstance(column, CategoryColumn)  # feature_names has checked it
            blank = raw == MISSING_CODE
            places = _listed(raw, column, column.coded)
            known = np.flatnonzero(places >= 0)
            encoded[known, at + places[known]] = 1.0
            at += len(column.coded)
        if column.missing == "indicator":
            encoded[:, at] = blank
            at += 1
    return encoded


def targets(
    table: Table, schema: Schema, task: Task
) -> tuple[npt.NDArray[np.float32] | npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Encode the target, and say which rows have one.

    Args:
        table: the rows.
        schema: the table's schema.
        task: what to predict.

    Returns:
        Targets [n] (binary float32 0/1, multiclass int64 class index, regression float32 in
        [-1, 1] by the declared bounds) and bool [n]: False where the target is missing or, for
        multiclass, a code that the task does not list. Rows without a target take no part, and
        nobody is told.

    Raises:
        JobRefused: the task does not fit the target's declared column.
    """
    column = schema.column(task.target)
    wants_number = isinstance(task, RegressionTask) or (
        isinstance(task, BinaryTask) and task.above is not None
    )
    if isinstance(column, NumberColumn) and wants_number:
        raw = table.columns[task.target]
        known = ~np.isnan(raw)
        if isinstance(task, BinaryTask):
            assert task.above is not None  # wants_number says so
            return (known & (raw > float(task.above))).astype(np.float32), known
        return np.where(known, _scaled(raw, column), 0.0).astype(np.float32), known
    if not isinstance(column, CategoryColumn) or isinstance(task, RegressionTask) or wants_number:
        kind = "number" if wants_number else "category"
        raise JobRefused(f"target {task.target!r} is not a {kind} column")
    codes = table.columns[task.target]
    if isinstance(task, BinaryTask):
        positive = _listed(codes, column, task.positive) >= 0
        return positive.astype(np.float32), codes != MISSING_CODE
    index = _listed(codes, column, task.classes)
    return np.maximum(index, 0), index >= 0


def examples(
    table: Table, schema: Schema, spec: ExperimentSpec, keep: npt.NDArray[np.bool_]
) -> Examples:
    """Encode one half of a dataset for an experiment.

    Args:
        table: the rows.
        schema: the table's schema.
        spec: the experiment.
        keep: bool [n], the rows of the half.

    Raises:
        JobRefused: spec and schema do not fit together.
    """
    inputs = features(table, schema, spec.features, embedded(spec.model))
    wanted, known = targets(table, schema, spec.task)
    rows = np.flatnonzero(keep & known)
    if table.patients is None:
        return Examples(inputs[rows], wanted[rows], np.arange(len(rows), dtype=np.int64), len(rows))
    ids = np.array(table.patients, dtype=object)[rows]
    names, patient = np.unique(ids, return_inverse=True)
    patient = patient.astype(np.int64)
    order = np.argsort(patient, kind="stable")  # a patient's rows stay in the order of the file
    rows, patient = rows[order], patient[order]
    if schema.rows_per_patient is not None:
        read = place_among_own(patient) < schema.rows_per_patient
        rows, patient = rows[read], patient[read]
    return Examples(
        inputs[rows],
        wanted[rows],
        patient,
        int(patient[-1]) + 1 if len(patient) else 0,
        names,
    )


def place_among_own(patients: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of its patient's rows each one is, from 0: [n]; ``patients`` never falls."""
    return np.arange(len(patients)) - np.searchsorted(patients, patients)


def _scaled(values: Array, column: NumberColumn) -> npt.NDArray[np.float64]:
    low, high = float(column.low), float(column.high)
    return np.clip(2.0 * (np.asarray(values, np.float64) - low) / (high - low) - 1.0, -1.0, 1.0)


def _listed(raw: Array, column: CategoryColumn, listed: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Index of each code in ``listed``, -1 where it is not in it."""
    declared = {normal_label(value): code for code, value in enumerate(column.values)}
    index = np.full(len(raw), -1, dtype=np.int64)
    for place, label in enumerate(listed):
        if normal_label(label) not in declared:
            raise JobRefused(f"target {column.name!r} does not declare the value {label!r}")
        index[raw == declared[normal_label(label)]] = place
    return index
