"""Schemas, specs and plans that the tests of this package start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.plans import Engine, Purpose, Release, SitePlan
from ledger.experiment.adaptive_clip import round_shapes
from ledger.experiment.average import initial_model
from ledger.experiment.plan.shape import network_of
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import pack_model
from node.data.encode import Examples
from privacy.events import FULL_BATCH, GRID
from tests.shared_data import HEART_FILES, example, shared

CLIP = GRID // 2
NOISE = 3 * GRID
SPLIT_KEY = bytes(range(32))


def schema(*columns: dict[str, Any], **changes: Any) -> Schema:
    """A small schema: age, sex and a target unless columns are given."""
    chosen = columns or (
        {"name": "age", "type": "number", "low": 0, "high": 100, "unit": "years"},
        {"name": "sex", "type": "category", "values": ["f", "m"]},
        {"name": "ill", "type": "category", "values": ["0", "1"]},
    )
    return Schema.model_validate(
        {"consilium": 1, "dataset": "ward", "declared_rows": 10, "columns": chosen} | changes
    )


def heart_schema(name: str = "cleveland-heart") -> Schema:
    """The example's schema as that hospital would hand it in."""
    text = yaml.safe_load(example("heart-disease", "schema.yaml").read_text())
    return Schema.model_validate(text | {"dataset": name, "declared_rows": HEART_FILES[name][1]})


def heart_spec(**changes: Any) -> ExperimentSpec:
    """The example's spec at the house recipe's settings, with fields replaced."""
    text = yaml.safe_load(example("heart-disease", "experiment.yaml").read_text())
    text |= changes
    settings = {"strategy": {"name": "fedsgd", "learning_rate": 2}, "rounds": 20}
    given = {
        name: value
        for name, value in text["federation"].items()
        if name in changes.get("federation", {}) or name not in settings
    }
    text["federation"] = settings | given
    return ExperimentSpec.model_validate(text)


def heart_file(name: str = "cleveland-heart") -> Path:
    """That hospital's real file, or a skip."""
    return shared("data", "heart-disease", HEART_FILES[name][0])


def release(purpose: Purpose, engine: Engine = "exact", **changes: int) -> Release:
    """A release with small noise."""
    sensitivity = CLIP if purpose in ("train", "baseline_train") else GRID
    fields = {
        "sensitivity": sensitivity,
        "noise_sd": NOISE,
        "sampling": FULL_BATCH,
        "steps": 100,
    } | changes
    charges = (CellCharge(cell="all", g=1, r=1),)
    return Release(purpose=purpose, engine=engine, charges=charges, **fields)


def site_plan(spec: ExperimentSpec, declared: Schema, **changes: int) -> SitePlan:
    """What a plan could ask of the dataset; the noise is small, the budget not looked at."""
    averaging = spec.federation.strategy.name == "fedavg"
    purposes: tuple[Purpose, ...] = ("train", "evaluate", "baseline_train", "baseline_evaluate")
    return SitePlan(
        **(
            {
                "dataset": declared.dataset,
                "registration": "0" * 64,
                "weight": declared.declared_train if averaging else 1,
                "divisor": declared.declared_train,
                "update_bound": 2**50,
                "epsilon_micro": 1,
                "releases": tuple(release(purpose) for purpose in purposes),
            }
            | changes
        )
    )


def first_model(spec: ExperimentSpec, declared: Schema) -> bytes:
    """The spec's initial model as a blob."""
    tree = network_of(spec, declared)
    return pack_model(round_shapes(spec, tree), initial_model(spec, tree))


def random_examples(
    seed: int, rows: int, width: int, *, patients: int | None = None, classes: int = 2
) -> Examples:
    """Rows of no meaning; with ``patients``, several rows each."""
    draw = np.random.default_rng(seed)
    features = draw.uniform(-1, 1, (rows, width)).astype(np.float32)
    targets: Any = draw.integers(0, classes, rows)
    targets = targets.astype(np.float32) if classes == 2 else targets.astype(np.int64)
    if patients is None:
        return Examples(features, targets, np.arange(rows), rows)
    owner = np.sort(draw.integers(0, patients, rows))
    _, owner = np.unique(owner, return_inverse=True)
    return Examples(features, targets, owner.astype(np.int64), int(owner[-1]) + 1)
