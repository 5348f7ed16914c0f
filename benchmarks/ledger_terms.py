"""What the members of the ledger benchmark's federation hold and say: keys, cells, datasets, the plan.

Everything follows from names and numbers, so every run has the same. Budgets and bounds are so wide that
no number of rounds meets them.
"""

from __future__ import annotations

import hashlib

from ledger.entries.operations.datasets import (
    CellCharge,
    CellLimit,
    CellRegistered,
    CellUse,
    DatasetRegistered,
)
from ledger.entries.operations.plans import Plan, Release, SitePlan
from ledger.entries.operations.values import BlobRef, PublicKey
from ledger.formats.keys import KeyRing, SealingKey, SigningKey

_NOISE_SD = 2**30


def cell_of(name: str) -> CellRegistered:
    """All of a hospital's patients, with a promise that no number of rounds uses up."""
    return CellRegistered(
        type="cell.registered",
        cell=f"{name}-all",
        block="all",
        half="both",
        declared_patients=300,
        epsilon_micro=10**7,
        delta_e15=10**9,
        limit=CellLimit(g_max=2**50, r_max=2**50, order_centi=800),
    )


def dataset_of(name: str) -> DatasetRegistered:
    """A hospital's one dataset, charged to its one cell."""
    return DatasetRegistered(
        type="dataset.registered",
        dataset=name,
        schema_=blob_of("schema"),
        unit="patient",
        declared_train=300,
        declared_test=100,
        cells=(CellUse(cell=f"{name}-all", use="train"),),
        snapshot=digest_of("snapshot", 0),
        card=None,
    )


def blob_of(name: str) -> BlobRef:
    """Names a blob that nobody fetches."""
    return BlobRef(sha256=digest_of(name, 0), bytes=2000)


def digest_of(name: str, number: int) -> str:
    """Stands for the hash of a thing by its name and number."""
    return hashlib.sha256(b"%s %d" % (name.encode(), number)).hexdigest()


def seed_key(name: str) -> SigningKey:
    """The signing key of a name: the same in every run."""
    return SigningKey.from_seed(hashlib.sha256(f"benchmark {name}".encode()).digest())


def one_time_key(organisation: str) -> PublicKey:
    """The public key of an organisation's invitation."""
    return PublicKey(alg="ed25519", public=seed_key(f"invitation {organisation}").public.hex())


def ring_of(handle: str, role: str) -> KeyRing:
    """All keys of a member."""
    return KeyRing(
        handle=handle,
        role=role,
        entry=seed_key(f"{handle} entry"),
        witness=seed_key(f"{handle} witness"),
        request=seed_key(f"{handle} request"),
        sealing=SealingKey.from_seed(hashlib.sha256(handle.encode()).digest()),
        log=seed_key(f"{handle} log") if role == "coordinator" else None,
    )


def plan_for(registrations: dict[str, str], rounds: int) -> Plan:
    """One experiment over datasets, each by its name and its registration's hash."""
    sites = tuple(
        SitePlan(
            dataset=name,
            registration=registration,
            weight=1,
            divisor=300,
            update_bound=2**40,
            epsilon_micro=10**6,
            releases=(
                Release(
                    purpose="train",
                    sensitivity=1,
                    noise_sd=_NOISE_SD,
                    sampling=2**32,
                    steps=rounds,
                    engine="exact",
                    charges=(CellCharge(cell=f"{name}-all", g=1, r=1),),
                ),
            ),
        )
        for name, registration in registrations.items()
    )
    return Plan(
        purpose="research",
        strategy="fedsgd",
        parameters=800,
        metric_size=0,
        rounds=rounds,
        steps_per_round=1,
        spare_rounds=0,
        evaluate=False,
        baseline=False,
        quorum=1,
        round_timeout_ms=60_000,
        initial_model=BlobRef(sha256=digest_of("model", 1), bytes=7000),
        sites=sites,
        secure_aggregation=None,
        noise_shares=1,
    )
