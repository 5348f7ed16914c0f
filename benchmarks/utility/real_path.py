"""The heart case through the nodes' own training process.

Each run draws a new train/test split (a fresh hospital key, as at registration) and new noise, and
goes through the same functions as a node's training process and a coordinator's sum; the only thing
left out is the network. Two figures are given: what the federation itself would learn, from the noisy
score histograms that it releases, and the AUC computed from the test rows, which nobody in a
federation could see and which is shown here because the data are public.

Epsilon is recomputed for every dataset from the plan's events, by closed form and by PLD.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from sklearn.metrics import roc_auc_score

from ledger.entries.operations.datasets import CellLimit, CellRegistered, CellUse, DatasetRegistered
from ledger.entries.operations.plans import Plan
from ledger.entries.operations.values import BlobRef
from ledger.experiment.adaptive_clip import round_shapes
from ledger.experiment.average import ExactSum, final_model, initial_model, server_step
from ledger.experiment.network_spec import parameter_shapes
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.shape import metric_layout, network_of
from ledger.experiment.plan.sites import Site
from ledger.experiment.recipe import resolve
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import Shapes, decode_update, pack_model
from ledger.formats.documents import encode_document
from ledger.formats.strict import canonical
from ledger.rules.experiments import totals
from node.data.encode import Examples
from node.data.holdings import Holdings, RowsAsked
from node.training.networks.modules import build, load_flat
from node.training.process.frames import Job
from node.training.rounds.evaluate import score
from node.training.rounds.one_round import run_round
from node.training.rounds.train import start_torch
from node.training.sums.exact import MAX_BLOCK_ROWS, per_sample
from privacy.calibrate import epsilon_of
from privacy.crosscheck import pld_epsilon
from privacy.events import Gaussian
from privacy.filters import limit_for
from privacy.histogram import measures
from privacy.noise import SecureRandom

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HEART = {
    "cleveland-heart": ("processed.cleveland.data", 300),
    "budapest-heart": ("processed.hungarian.data", 300),
    "zurich-basel-heart": ("processed.switzerland.data", 120),
    "longbeach-heart": ("processed.va.data", 200),
}


@dataclass(frozen=True)
class Hospital:
    """One site of a case: its file, schema and registered terms."""

    path: Path
    schema: Schema
    site: Site


@dataclass(frozen=True)
class Run:
    """What one run measured."""

    auc: float
    accuracy: float
    released_auc: float | None


def measure(folder: Path, epsilon: str, delta: float, count: int) -> dict[str, object]:
    """Run the example's spec ``count`` times; returns the line."""
    start_torch()
    hospitals = _hospitals(folder, delta)
    spec = resolve(_spec(epsilon), [hospital.site for hospital in hospitals])
    plan, model = _plan(spec, hospitals)
    runs = []
    for number in range(count):
        runs.append(_run(spec, plan, hospitals, model))
        print(f"run {number + 1} of {count}: AUC {runs[-1].auc:.4f}", file=sys.stderr)
    return _summary("heart, real path", epsilon, delta, spec, plan, hospitals, runs)


def _spec(epsilon: str) -> ExperimentSpec:
    text = yaml.safe_load((EXAMPLES / "heart-disease" / "experiment.yaml").read_text())
    text["privacy"]["epsilon"] = epsilon
    return ExperimentSpec.model_validate(text)


def _hospitals(folder: Path, delta: float) -> list[Hospital]:
    text = yaml.safe_load((EXAMPLES / "heart-disease" / "schema.yaml").read_text())
    hospitals = []
    for name, (file, rows) in HEART.items():
        schema = Schema.model_validate(text | {"dataset": name, "declared_rows": rows})
        hospitals.append(Hospital(folder / file, schema, _site(schema, delta)))
    return hospitals


def _site(schema: Schema, delta: float) -> Site:
    """Terms as a node registers them for a hospital without patient ids: one cell for all."""
    limit = limit_for(10.0, delta)
    cell = CellRegistered(
        type="cell.registered",
        cell=f"{schema.dataset}-all",
        block="all",
        half="both",
        declared_patients=schema.declared_rows,
        epsilon_micro=10_000_000,
        delta_e15=round(delta * 1e15),
        limit=CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi),
    )
    document = encode_document(schema)
    terms = DatasetRegistered(
        type="dataset.registered",
        dataset=schema.dataset,
        schema_=BlobRef(sha256=sha256(document).hexdigest(), bytes=len(document)),
        unit="record",
        declared_train=schema.declared_train,
        declared_test=schema.declared_test,
        cells=(CellUse(cell=cell.cell, use="both"),),
        snapshot="0" * 64,
        card=None,
    )
    return Site("0" * 64, terms, {cell.cell: cell}, schema)


def _plan(spec: ExperimentSpec, hospitals: list[Hospital]) -> tuple[Plan, npt.NDArray[np.float64]]:
    tree = network_of(spec, hospitals[0].schema)
    model = initial_model(spec, tree)
    packed = pack_model(round_shapes(spec, tree), model)
    ref = BlobRef(sha256=sha256(packed).hexdigest(), bytes=len(packed))
    return compile_plan(spec, [h.site for h in hospitals], ref), model


def _run(
    spec: ExperimentSpec,
    plan: Plan,
    hospitals: list[Hospital],
    model: npt.NDArray[np.float64],
) -> Run:
    tree = network_of(spec, hospitals[0].schema)
    shapes = round_shapes(spec, tree)
    holdings = Holdings()
    keys = [os.urandom(32) for _ in hospitals]
    iterates = []
    for number in range(1, plan.rounds + 1):
        total = _sum_round(spec, plan, hospitals, keys, holdings, "train", number, model, shapes)
        model = server_step(spec, model, total, sum(site.divisor for site in plan.sites))
        iterates.append(model)
    model = final_model(spec, iterates)
    counts = _sum_round(
        spec,
        plan,
        hospitals,
        keys,
        holdings,
        "evaluate",
        plan.rounds + 1,
        model,
        parameter_shapes(tree),
    )
    return _measure(spec, plan, hospitals, keys, holdings, model, counts)


def _sum_round(
    spec: ExperimentSpec,
    plan: Plan,
    hospitals: list[Hospital],
    keys: list[bytes],
    holdings: Holdings,
    kind: str,
    number: int,
    model: npt.NDArray[np.float64],
    shapes: Shapes,
) -> npt.NDArray[np.int64]:
    size = plan.parameters if kind == "train" else plan.metric_size
    total = ExactSum(size)
    for hospital, key, site in zip(hospitals, keys, plan.sites, strict=True):
        job = Job.model_validate(
            {
                "kind": kind,
                "round": number,
                "spec": encode_document(spec),
                "schema_document": encode_document(hospital.schema),
                "site": canonical(site),
                "model": pack_model(shapes, model),
                "path": str(hospital.path),
                "sha256": sha256(hospital.path.read_bytes()).hexdigest(),
                "split_key": key,
            }
        )
        update = run_round(job, holdings, lambda _: SecureRandom(), lambda *_: None)
        total.add(decode_update(update, size))
    return total.total()


def _measure(
    spec: ExperimentSpec,
    plan: Plan,
    hospitals: list[Hospital],
    keys: list[bytes],
    holdings: Holdings,
    model: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
) -> Run:
    engine = per_sample(build(network_of(spec, hospitals[0].schema)))
    load_flat(engine, model)
    scores, labels = [], []
    for hospital, key in zip(hospitals, keys, strict=True):
        digest = sha256(hospital.path.read_bytes()).hexdigest()
        test: Examples = holdings.halves(
            RowsAsked(
                hospital.path, encode_document(hospital.schema), key, encode_document(spec), digest
            )
        )[1]
        scores.append(
            np.asarray(score(engine, test.features, spec.task, block=MAX_BLOCK_ROWS)).reshape(-1)
        )
        labels.append(np.asarray(test.targets).reshape(-1))
    score_all, label_all = np.concatenate(scores), np.concatenate(labels)
    layout = metric_layout(spec)
    assert layout is not None
    noise = [r.noise_sd for s in plan.sites for r in s.releases if r.purpose == "evaluate"]
    pooled = math.isqrt(sum(sd * sd for sd in noise))
    released = measures(layout, counts, pooled, 1)["auc"].value
    accuracy = float(np.mean((score_all >= 0.5) == (label_all == 1)))
    return Run(float(roc_auc_score(label_all, score_all)), accuracy, released)


def _summary(
    case: str,
    epsilon: str,
    delta: float,
    spec: ExperimentSpec,
    plan: Plan,
    hospitals: list[Hospital],
    runs: list[Run],
) -> dict[str, object]:
    epsilons = {}
    for hospital, site in zip(hospitals, plan.sites, strict=True):
        events = [Gaussian(r.sensitivity, r.noise_sd, r.steps, r.sampling) for r in site.releases]
        (charge,) = totals(site.releases)
        order = hospital.site.cells[charge.cell].limit.order_centi
        epsilons[site.dataset] = {
            "closed_form": epsilon_of(charge.g, charge.r, order, delta),
            "pld": pld_epsilon(events, delta),
        }
    aucs = [run.auc for run in runs]
    released = [run.released_auc for run in runs if run.released_auc is not None]
    return {
        "case": case,
        "split": f"random, {hospitals[0].schema.test_percent} % test, new in each run",
        "runs": len(runs),
        "epsilon": float(epsilon),
        "delta": delta,
        "noise": "each hospital its own, full",
        "auc": statistics.fmean(aucs),
        "auc_se": statistics.stdev(aucs) / math.sqrt(len(aucs)) if len(aucs) > 1 else None,
        "accuracy_weighted": statistics.fmean(run.accuracy for run in runs),
        "released_auc": statistics.fmean(released) if released else None,
        "rounds": spec.rounds,
        "learning_rate": float(spec.learning_rate),
        "epsilon_recomputed": epsilons,
    }
