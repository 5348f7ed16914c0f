"""What a spec amounts to on a schema: the layers, the histograms, and that every site reads them alike."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from ledger.errors import PlanRefused
from ledger.experiment.inputs import compose
from ledger.experiment.network_spec import Sequential
from ledger.experiment.plan.sites import Site
from ledger.experiment.schema import (
    CategoryColumn,
    NumberColumn,
    PatientColumn,
    Schema,
    normal_label,
)
from ledger.experiment.spec import BinaryTask, ExperimentSpec, MulticlassTask, RegressionTask
from ledger.formats.documents import explain
from privacy.errors import PrivacyError
from privacy.histogram import Layout, layout


def network_of(spec: ExperimentSpec, schema: Schema) -> Sequential:
    """The full layer tree of a spec on a schema.

    Raises:
        PlanRefused: unknown features or target, widths that do not chain, too many parameters.
    """
    for feature in spec.features:
        column = schema.column(feature)
        if column is None or isinstance(column, PatientColumn):
            usable = ", ".join(
                c.name
                for c in schema.columns
                if not isinstance(c, PatientColumn) and c.name != spec.task.target
            )
            reason = "is the patient's identifier" if column else "is not a column"
            raise PlanRefused(
                "features", f"{feature} {reason} of {schema.dataset}; there are: {usable}"
            )
    _check_target(spec, schema)
    numbers = any(isinstance(schema.column(name), NumberColumn) for name in spec.features)
    if spec.privacy.augment is not None and not numbers:
        raise PlanRefused("privacy.augment", "jitter moves numbers, and no feature is one")
    try:
        return compose(spec.model, schema, spec.features, spec.outputs)
    except ValidationError as error:
        raise PlanRefused("model", explain(error)) from None
    except ValueError as error:
        raise PlanRefused("model", str(error)) from None


def metric_layout(spec: ExperimentSpec) -> Layout | None:
    """Shape of the released histograms, or None when the spec releases no metric.

    Raises:
        PlanRefused: no histogram has that many bins and classes.
    """
    if spec.privacy.metrics is None:
        return None
    classes = 2 if spec.task.kind == "binary" else spec.outputs
    try:
        return layout(spec.task.kind, classes, spec.privacy.metrics.bins)
    except PrivacyError as error:
        raise PlanRefused("privacy.metrics", str(error)) from None


def check_agreement(spec: ExperimentSpec, sites: Sequence[Site]) -> None:
    """Every site must encode the features and the target in the same way."""
    first = sites[0]
    network_of(spec, first.schema)
    for site in sites[1:]:
        network_of(spec, site.schema)
        for name in (*spec.features, spec.task.target):
            a, b = first.schema.column(name), site.schema.column(name)
            if _meaning(a) != _meaning(b):
                raise PlanRefused(
                    "features",
                    f"column {name} is declared differently by {first.terms.dataset} and "
                    f"{site.terms.dataset}; the hospitals must agree on type, bounds and values",
                )


def _check_target(spec: ExperimentSpec, schema: Schema) -> None:
    task, name = spec.task, schema.dataset
    column = schema.column(task.target)
    if column is None or isinstance(column, PatientColumn):
        raise PlanRefused("task.target", f"{task.target} is not a column of {name} to learn")
    wants_number = isinstance(task, RegressionTask) or (
        isinstance(task, BinaryTask) and task.above is not None
    )
    if wants_number != isinstance(column, NumberColumn):
        kind = "number" if wants_number else "category"
        raise PlanRefused("task.target", f"{task.target} of {name} is not a {kind} column")
    if isinstance(column, CategoryColumn):
        asked: tuple[str, ...] = ()
        if isinstance(task, BinaryTask):
            asked = task.positive
        elif isinstance(task, MulticlassTask):
            asked = task.classes
        known = {normal_label(value) for value in column.values}
        unknown = [value for value in asked if normal_label(value) not in known]
        if unknown:
            raise PlanRefused(
                "task", f"{unknown[0]!r} is not a value of {task.target} in {name}; "
                f"there are: {', '.join(column.values)}"
            )  # fmt: skip


def _meaning(column: object) -> object:
    if isinstance(column, NumberColumn):
        return ("number", column.low, column.high, column.filled, column.missing, column.unit)
    if isinstance(column, CategoryColumn):
        codes = tuple(map(normal_label, column.values)), tuple(map(normal_label, column.coded))
        return ("category", *codes, column.missing)
    return column
