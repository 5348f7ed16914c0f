"""A hospital of the in-memory federation that accounts for its patients one by one."""

from __future__ import annotations

import hashlib
from decimal import Decimal

from ledger.entries.operations.datasets import CellLimit, CellRegistered, CellUse, DatasetRegistered
from ledger.experiment.privacy_spec import Privacy
from ledger.formats.documents import encode_document
from privacy.filters import limit_for
from tests.federation import Federation, node_of, small_schema

STRETCHED = Privacy(epsilon=Decimal(2), full_rounds=2)
"""Noise for two rounds at the clip norm, whatever the number of rounds."""


def cell(hospital: str, half: str, epsilon: float = 5.0, declared: int = 300) -> CellRegistered:
    """The promise to a half of a hospital's patients."""
    limit = limit_for(epsilon, 1e-5)
    return CellRegistered(
        type="cell.registered",
        cell=f"{hospital}-{'train' if half == 'individual' else half}",
        block="all",
        half=half,  # type: ignore[arg-type]
        declared_patients=declared,
        epsilon_micro=round(epsilon * 10**6),
        delta_e15=10**10,
        limit=CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi),
    )


def register_one_by_one(federation: Federation, hospital: str) -> str:
    """Register a hospital's two cells, the one for training individual, and its dataset."""
    schema = small_schema(f"{hospital}-heart")
    node = node_of(hospital)
    federation.say(node, cell(hospital, "individual"))
    federation.say(node, cell(hospital, "test"))
    federation.say(
        node,
        DatasetRegistered(
            type="dataset.registered",
            dataset=schema.dataset,
            schema_=federation.put(encode_document(schema)),
            unit="patient",
            declared_train=schema.declared_train,
            declared_test=schema.declared_test,
            cells=(
                CellUse(cell=f"{hospital}-test", use="test"),
                CellUse(cell=f"{hospital}-train", use="train"),
            ),
            snapshot=hashlib.sha256(hospital.encode()).hexdigest(),
            card=None,
        ),
    )
    return schema.dataset


def start_one_by_one(
    federation: Federation, *, rounds: int = 5, name: str = "first", privacy: Privacy = STRETCHED
) -> str:
    """An experiment of many rounds on two hospitals of that kind and one of the other, approved."""
    names = [register_one_by_one(federation, hospital) for hospital in ("basel", "bern")]
    names.append(federation.register_dataset("chur"))
    spec = federation.spec(names, name=name, privacy=privacy, rounds=rounds, spare_rounds=0)
    experiment = federation.propose(spec)
    for dataset in names:
        federation.approve(experiment, dataset)
    return experiment
