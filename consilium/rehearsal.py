"""Running an experiment on made-up rows, before anybody is asked for real ones.

Rows come from the public schemas alone: numbers uniform within their bounds, codes uniform over their
lists. Everything else is what a real run does, with the same code: the plan with its noise, a node's
reading, encoding, training and evaluation, the exact sum and the server's step. It shows that a spec
runs, how large its messages are, how much noise it gets and how long a round takes. It says nothing
about how good the model will be: in made-up rows there is nothing to learn.
"""

from __future__ import annotations

import csv
import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ledger.entries.operations.plans import Plan, Purpose, SitePlan
from ledger.entries.operations.rounds import RoundKind
from ledger.experiment.average import ExactSum, final_model, server_step
from ledger.experiment.noise_shares import site_in_round
from ledger.experiment.plan.shape import metric_layout
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from ledger.experiment.tensors import Int64Vector, decode_update, pack_model, unpack_model
from ledger.formats.documents import encode_document
from ledger.formats.strict import canonical
from node.data.patient_spend import Allowance, PatientSpend
from node.training.process.frames import Job
from node.training.process.worker import Worker
from privacy.events import GRID
from privacy.histogram import Measure, measures

if TYPE_CHECKING:
    from consilium.experiment import Experiment

MAX_ROWS = 20_000
"""Made-up rows per dataset; a round on more says nothing new."""
_SPLIT_KEY = bytes(32)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a rehearsal showed.

    Attributes:
        plan: as it would be proposed, each dataset with the spec's own epsilon.
        rounds: training rounds that were run.
        rows: made-up rows of each dataset.
        round_seconds: wall time of each training round, all sites one after another.
        update_bytes: length of one training update.
        noise_per_step: deviation of the noise over the declared training size, in gradient units,
            by dataset.
        measures: of the pooled histogram; on made-up rows near chance.
    """

    plan: Plan
    rounds: int
    rows: dict[str, int]
    round_seconds: tuple[float, ...]
    update_bytes: int
    noise_per_step: dict[str, float]
    measures: dict[str, Measure]


def rehearse(
    experiment: Experiment, schemas: Sequence[Schema], *, rounds: int | None = None
) -> Rehearsal:
    """Run an experiment on made-up rows.

    Args:
        experiment: what to run.
        schemas: of the datasets that it asks for, in its order.
        rounds: how many training rounds to run; None for the plan's.

    Raises:
        PlanRefused: the spec does not fit the schemas.
        WorkerDied: the training process did not come up.
    """
    proposal = experiment.propose_for(schemas)
    plan, shapes = proposal.operation.plan, experiment.round_shapes(schemas[0])
    count = plan.rounds if rounds is None else max(1, min(rounds, plan.rounds))
    with tempfile.TemporaryDirectory(prefix="consilium-rehearsal-") as folder, Worker() as worker:
        sites = []
        planned = [site_in_round(plan, site) for site in plan.sites]
        for index, (schema, site) in enumerate(zip(schemas, planned, strict=True)):
            path = made_up_rows(schema, Path(folder) / f"{index}.csv", index)
            loaded = worker.load_dataset(path, encode_document(schema), _SPLIT_KEY)
            sites.append(_Site(proposal.spec, schema, site, path, loaded.sha256, loaded.rows))
        flat = unpack_model(proposal.model, shapes)
        models, seconds, update_bytes = [], [], 0
        divisor = sum(site.divisor for site in plan.sites)
        for number in range(1, count + 1):
            began = time.perf_counter()
            updates = [
                site.run(worker, "train", number, pack_model(shapes, flat)) for site in sites
            ]
            flat = server_step(experiment.spec, flat, _sum(updates, plan.parameters), divisor)
            models.append(flat)
            seconds.append(time.perf_counter() - began)
            update_bytes = len(updates[0])
        layout = metric_layout(experiment.spec)
        measured: dict[str, Measure] = {}
        if layout is not None:
            final = final_model(experiment.spec, models)
            model = pack_model(experiment.shapes(schemas[0]), final)
            updates = [site.run(worker, "evaluate", plan.rounds + 1, model) for site in sites]
            pooled = _sum(updates, plan.metric_size)
            measured = measures(layout, pooled, pooled_noise(planned, "evaluate"), len(sites))
    return Rehearsal(
        plan=plan,
        rounds=count,
        rows={site.schema.dataset: site.rows for site in sites},
        round_seconds=tuple(seconds),
        update_bytes=update_bytes,
        noise_per_step={
            site.dataset: _noise(site, "train") / GRID / site.divisor for site in planned
        },
        measures=measured,
    )


def made_up_rows(schema: Schema, path: Path, seed: int) -> Path:
    """Write a CSV of uniform rows that fits a schema, as many as it declares (at most MAX_ROWS)."""
    generator = random.Random(seed)  # noqa: S311 - made-up rows are nobody's
    rows = min(schema.declared_rows, MAX_ROWS)
    names = list(schema.header) or [column.name for column in schema.columns]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if not schema.header:
            writer.writerow(names)
        for number in range(rows):
            writer.writerow(_cell(schema, name, number, generator) for name in names)
    return path


def _cell(schema: Schema, name: str, number: int, generator: random.Random) -> str:
    column = schema.column(name)
    if isinstance(column, NumberColumn):
        return f"{generator.uniform(float(column.low), float(column.high)):.6f}"
    if isinstance(column, CategoryColumn):
        return generator.choice(column.values)
    return f"made-up-{number}" if column is not None else ""


def pooled_noise(sites: Sequence[SitePlan], purpose: Purpose) -> int:
    """One deviation that stands for those of several histograms: the root of their mean square."""
    noises = np.array([_noise(site, purpose) for site in sites], dtype=np.float64)
    return math.ceil(math.sqrt(float(np.mean(noises**2))))


def _noise(site: SitePlan, purpose: Purpose) -> int:
    return next(r.noise_sd for r in site.releases if r.purpose == purpose)


def _sum(updates: Sequence[bytes], size: int) -> Int64Vector:
    total = ExactSum(size)
    for update in updates:
        total.add(decode_update(update, size))
    return total.total()


@dataclass(frozen=True, slots=True)
class _Site:
    """A made-up hospital."""

    spec: bytes
    schema: Schema
    plan: SitePlan
    path: Path
    sha256: str
    rows: int
    spent: list[PatientSpend] = field(default_factory=lambda: [PatientSpend.nobody()])

    def run(self, worker: Worker, kind: RoundKind, number: int, model: bytes) -> bytes:
        job = Job(
            kind=kind,
            round=number,
            spec=self.spec,
            schema_document=encode_document(self.schema),
            site=canonical(self.plan),
            model=model,
            path=str(self.path),
            sha256=self.sha256,
            split_key=_SPLIT_KEY,
            allowance=self._allowance() if kind == "train" else b"",
        )
        return worker.run_round(job, lambda _purpose, _steps: None, on_charges=self._charge)

    def _allowance(self) -> bytes:
        """What made-up patients with accounts of their own have left; empty where they have none."""
        for release in self.plan.releases:
            if release.engine == "individual":
                most = min(charge.g for charge in release.charges)
                return Allowance(most, most, self.spent[0], self.spent[0]).encode()
        return b""

    def _charge(self, cost: bytes) -> None:
        self.spent[0] = self.spent[0].plus(PatientSpend.decode(cost))
