"""Sites, specs and plans that the tests of plans start from."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.copies.blobs import blob_ref
from ledger.entries.operations.datasets import CellLimit, CellRegistered, CellUse, DatasetRegistered
from ledger.entries.operations.plans import Plan, Release
from ledger.entries.operations.values import BlobRef
from ledger.errors import PlanRefused
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.sites import Site
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from privacy.filters import limit_for
from tests.ledger.facts import h

MODEL = BlobRef(sha256=h("model"), bytes=1)
COLUMNS: list[dict[str, Any]] = [
    {"type": "number", "name": "age", "low": "20", "high": "90"},
    {"type": "category", "name": "sex", "values": ["f", "m"]},
    {"type": "category", "name": "sick", "values": ["0", "1", "2"]},
    {"type": "patient_id", "name": "pid"},
]


def cell(
    name: str, half: Any = "both", epsilon: float = 5.0, delta: float = 1e-5
) -> CellRegistered:
    limit = limit_for(epsilon, delta)
    return CellRegistered(
        type="cell.registered",
        cell=name,
        block="all",
        half=half,
        declared_patients=300,
        epsilon_micro=round(epsilon * 10**6),
        delta_e15=round(delta * 10**15),
        limit=CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi),
    )


def site(
    name: str = "basel",
    *cells: CellRegistered,
    columns: list[dict[str, Any]] | None = None,
    declared_train: int | None = None,
) -> Site:
    """A dataset of 300 patients in one cell, or in those given."""
    schema = Schema.model_validate(
        {"consilium": 1, "dataset": name, "declared_rows": 300, "columns": columns or COLUMNS}
    )
    cells = cells or (cell(f"{name}-all"),)
    terms = DatasetRegistered(
        type="dataset.registered",
        dataset=name,
        schema_=blob_ref(b"schema"),
        unit="patient",
        declared_train=declared_train or schema.declared_train,
        declared_test=schema.declared_test,
        cells=tuple(CellUse(cell=c.cell, use=c.half) for c in cells),
        snapshot=h(name),
        card=None,
    )
    return Site(h((name, "registered")), terms, {c.cell: c for c in cells}, schema)


def halves(name: str = "basel") -> Site:
    return site(name, cell(f"{name}-test", "test"), cell(f"{name}-train", "train"))


def spec(datasets: tuple[str, ...] = ("basel",), **changed: Any) -> ExperimentSpec:
    strategy = {"name": "fedsgd", "learning_rate": "2"}
    settings = {"datasets": datasets, "rounds": 5, "strategy": strategy}
    federation = {**settings, **changed.pop("federation", {})}
    privacy = {"epsilon": "1", **changed.pop("privacy", {})}
    plain: dict[str, Any] = {
        "consilium": 1,
        "name": "first",
        "title": "Sick or not",
        "purpose": "To see.",
        "lawful_basis": "consent",
        "until": "2030-01-01",
        "task": {"kind": "binary", "target": "sick", "positive": ["1", "2"]},
        "features": ["age", "sex"],
        "model": {"preset": "logistic-regression"},
    }
    return ExperimentSpec.model_validate(
        plain | changed | {"federation": federation, "privacy": privacy}
    )


FEDAVG = {"strategy": {"name": "fedavg", "local_steps": 4}}
POISSON = {"sampling": "0.1"}
MULTICLASS = {"kind": "multiclass", "target": "sick", "classes": ["0", "1", "2"]}
VARIANTS: dict[str, tuple[ExperimentSpec, tuple[Site, ...]]] = {
    "the house recipe": (spec(), (site(),)),
    "two hospitals": (spec(("basel", "bern")), (site(), site("bern"))),
    "train and test cells": (spec(), (halves(),)),
    "Poisson": (spec(federation=POISSON), (site(),)),
    "federated averaging": (spec(federation=FEDAVG), (site(),)),
    "sampled averaging": (spec(federation=FEDAVG | POISSON), (halves(),)),
    "a baseline": (spec(privacy={"baseline": {}}), (site(),)),
    "a baseline on halves": (spec(privacy={"baseline": {"rounds": 7}}), (halves(),)),
    "no metrics": (spec(privacy={"metrics": None}), (site(),)),
    "no spare round": (spec(federation={"spare_rounds": 0}), (site(),)),
    "a large epsilon": (spec(privacy={"epsilon": "8"}), (site(),)),
    "a small epsilon": (spec(privacy={"epsilon": "0.1"}), (site(),)),
    "several classes": (spec(task=MULTICLASS), (site(),)),
    "regression": (
        spec(task={"kind": "regression", "target": "age"}, features=["sex", "sick"]),
        (site(),),
    ),
    "cells of two promises": (
        spec(),
        (site("basel", cell("a", "train", 3), cell("b", "train", 8, 1e-6), cell("c", "test", 3)),),
    ),
}
VARIANT = pytest.mark.parametrize("name", VARIANTS)


def compiled(name: str) -> tuple[ExperimentSpec, tuple[Site, ...], Plan]:
    wanted, sites = VARIANTS[name]
    return wanted, sites, compile_plan(wanted, sites, MODEL)


def release(plan: Plan, purpose: str, at: int = 0) -> Release:
    return next(r for r in plan.sites[at].releases if r.purpose == purpose)


def why_not(wanted: ExperimentSpec, *sites: Site) -> PlanRefused:
    with pytest.raises(PlanRefused) as caught:
        compile_plan(wanted, sites, MODEL)
    return caught.value
