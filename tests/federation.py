"""An honest federation in memory, which a test changes in a line or two.

``Federation.found()`` founds it, lets hospitals (a node and a steward each) and a researcher join
and makes the nodes ready; ``say`` signs an operation by a member's next entry and appends it to a
real ``ledger.rules.log.Log``. Everything a member signs is real; keys come from their owner's name, so a
run repeats. Blobs are in a dictionary. ``play`` runs an experiment with noise for gradients, which
is what an auditor or a coordinator can see of it anyway. ``persist`` writes it all where the real
programs look.

A test that drives a real coordinator makes entries with ``entry``, sends them itself, and keeps this
copy in step with ``take``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import numpy as np

from ledger.entries.operations.budgets import BudgetReserved, BudgetSettled, Used
from ledger.entries.operations.datasets import CellLimit, CellRegistered, CellUse, DatasetRegistered
from ledger.entries.operations.experiments import (
    ExperimentApproved,
    ExperimentCompleted,
    ExperimentProposed,
    ModelReleased,
)
from ledger.entries.operations.refreshes import RefreshDeclared
from ledger.entries.operations.rounds import RoundAggregated, RoundOpened, UpdateSubmitted
from ledger.entries.operations.values import BlobRef
from ledger.experiment.adaptive_clip import TENSOR, round_shapes
from ledger.experiment.average import ExactSum, final_model, initial_model, server_step
from ledger.experiment.network_spec import LogisticRegression
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.shape import network_of
from ledger.experiment.plan.sites import sites_from
from ledger.experiment.privacy_spec import Privacy
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from ledger.experiment.spec import BinaryTask, ExperimentSpec
from ledger.experiment.spec import Federation as FederationPart
from ledger.experiment.tensors import Shapes, encode_update, pack_model, unpack_model
from ledger.formats.documents import encode_document, parse_document
from ledger.rules.experiments import last_round, site_of, totals
from ledger.rules.log import Sequenced
from ledger.rules.rounds import round_kind
from privacy.filters import limit_for
from tests.federation_log import COORDINATOR as COORDINATOR
from tests.federation_log import HOSPITALS as HOSPITALS
from tests.federation_log import HOUR_MS as HOUR_MS
from tests.federation_log import POLICY as POLICY
from tests.federation_log import RESEARCHER as RESEARCHER
from tests.federation_log import START_MS as START_MS
from tests.federation_log import FederationLog as FederationLog
from tests.federation_log import node_of as node_of
from tests.federation_log import one_time_key as one_time_key
from tests.federation_log import ring_of as ring_of
from tests.federation_log import steward_of as steward_of


def small_schema(dataset: str, declared_rows: int = 300) -> Schema:
    """Two measured columns and a target."""
    return Schema(
        consilium=1,
        dataset=dataset,
        declared_rows=declared_rows,
        columns=(
            NumberColumn(type="number", name="age", low=Decimal(20), high=Decimal(90)),
            NumberColumn(type="number", name="chol", low=Decimal(100), high=Decimal(600)),
            CategoryColumn(type="category", name="sick", values=("0", "1")),
        ),
    )


@dataclass
class Federation(FederationLog):
    """A federation whose members also learn together. See the module's first lines."""

    # --- the story ------------------------------------------------------------------------------

    def register_dataset(
        self,
        hospital: str,
        dataset: str | None = None,
        *,
        declared_rows: int = 300,
        schema: Schema | None = None,
        epsilon: float = 5.0,
        delta: float = 1e-5,
        refresh_days: int | None = None,
    ) -> str:
        """Register a hospital's dataset in its one cell (made when it is the first)."""
        name = dataset or f"{hospital}-heart"
        schema = schema or small_schema(name, declared_rows)
        cell = f"{hospital}-all"
        if cell not in self.state.cells:
            limit = limit_for(epsilon, delta)
            self.say(
                node_of(hospital),
                CellRegistered(
                    type="cell.registered",
                    cell=cell,
                    block="all",
                    half="both",
                    declared_patients=schema.declared_rows,
                    epsilon_micro=round(epsilon * 10**6),
                    delta_e15=round(delta * 10**15),
                    limit=CellLimit(
                        g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi
                    ),
                ),
            )
            if refresh_days is not None:
                renews = RefreshDeclared(
                    type="refresh.declared", cell=cell, days=refresh_days, from_ms=self.now_ms
                )
                self.say(node_of(hospital), renews)
        self.say(
            node_of(hospital),
            DatasetRegistered(
                type="dataset.registered",
                dataset=name,
                schema_=self.put(encode_document(schema)),
                unit="record",
                declared_train=schema.declared_train,
                declared_test=schema.declared_test,
                cells=(CellUse(cell=cell, use="both"),),
                snapshot=hashlib.sha256(name.encode()).hexdigest(),
                card=None,
            ),
        )
        return name

    def spec(
        self,
        datasets: Sequence[str],
        *,
        name: str = "first",
        epsilon: str = "1",
        privacy: Privacy | None = None,
        **federation: object,
    ) -> ExperimentSpec:
        """A small logistic regression on these datasets; keywords go to its federation part."""
        return ExperimentSpec(
            consilium=1,
            name=name,
            title="Sick or not",
            purpose="To see whether the federation works.",
            lawful_basis="none: this is a test",
            until=date(2030, 1, 1),
            task=BinaryTask(kind="binary", target="sick", positive=("1",)),
            features=("age", "chol"),
            model=LogisticRegression(preset="logistic-regression"),
            federation=FederationPart.model_validate(
                {
                    "datasets": tuple(datasets),
                    "strategy": {"name": "fedsgd", "learning_rate": "2"},
                    "rounds": 2,
                    "quorum": len(datasets),
                    **federation,
                }
            ),
            privacy=privacy or Privacy(epsilon=Decimal(epsilon)),
        )

    def proposal(self, spec: ExperimentSpec) -> ExperimentProposed:
        """The proposal that a spec compiles to; its blobs are kept."""
        names = spec.federation.datasets
        sites = sites_from(self.state, {name: self.schema(name) for name in names}, names)
        tree = network_of(spec, sites[0].schema)
        first = self.put(pack_model(round_shapes(spec, tree), initial_model(spec, tree)))
        return ExperimentProposed(
            type="experiment.proposed",
            name=spec.name,
            spec=self.put(encode_document(spec)),
            plan=compile_plan(spec, sites, first),
        )

    def propose(self, spec: ExperimentSpec) -> str:
        """Propose an experiment as the researcher; returns its id."""
        return self.say(RESEARCHER, self.proposal(spec)).entry.hash

    def approve(
        self, experiment: str, dataset: str, *, epsilon_max: float = 10.0, until_ms: int = 2**50
    ) -> Sequenced:
        """The hospital's steward says yes."""
        hospital = self.state.datasets[dataset].organisation
        op = ExperimentApproved(
            type="experiment.approved",
            experiment=experiment,
            dataset=dataset,
            epsilon_max_micro=round(epsilon_max * 10**6),
            until_ms=until_ms,
        )
        return self.say(steward_of(hospital), op)

    def start(self, hospitals: Sequence[str] | None = None, **spec: object) -> str:
        """Register a dataset for each hospital, propose and approve; returns the experiment."""
        names = [
            m.organisation for m in self.state.members.values() if m.role == "node"
        ] if hospitals is None else hospitals  # fmt: skip
        datasets = [self.register_dataset(name) for name in sorted(names)]
        experiment = self.propose(self.spec(datasets, **spec))  # type: ignore[arg-type]
        for dataset in datasets:
            self.approve(experiment, dataset)
        return experiment

    def open_round(
        self, experiment: str, *, deadline_ms: int | None = None, model: BlobRef | None = None
    ) -> RoundOpened:
        """Open the next round for every approved dataset, as an honest coordinator would."""
        now = self.experiment(experiment)
        kind = round_kind(now.plan, now.next_round)
        if model is None:
            model = now.model
            if kind == "evaluate" and now.next_attempt == 1:
                model = self.final_model(experiment)
        op = RoundOpened(
            type="round.opened",
            experiment=experiment,
            round=now.next_round,
            attempt=now.next_attempt,
            kind=kind,
            cohort=tuple(sorted(now.approvals)),
            model=model,
            deadline_ms=deadline_ms or self.now_ms + now.plan.round_timeout_ms,
        )
        self.say(COORDINATOR, op)
        return op

    def reserve(self, experiment: str, dataset: str, *, void: str | None = None) -> Sequenced:
        """The dataset's node reserves what the plan may cost."""
        site = site_of(self.experiment(experiment).plan, dataset)
        assert site is not None
        op = BudgetReserved(
            type="budget.reserved",
            experiment=experiment,
            dataset=dataset,
            charges=totals(site.releases),
        )
        return self.say(node_of(self.state.datasets[dataset].organisation), op, void=void)

    def update(
        self, experiment: str, dataset: str, values: np.ndarray | None = None
    ) -> UpdateSubmitted:
        """A dataset's update for the open round: noise by default, which repeats in every run."""
        now = self.experiment(experiment)
        current, site = now.round, site_of(now.plan, dataset)
        assert current is not None
        assert site is not None
        used = dict(now.reservations[dataset].used)
        noises = {r.purpose: r for r in site.releases}
        if current.kind == "train":
            noise, size = noises["train"].noise_sd, now.plan.parameters
            used["train"] = current.number * now.plan.steps_per_round
        else:
            noise, size = noises["evaluate"].noise_sd, now.plan.metric_size
            if current.kind == "evaluate":
                used["evaluate"] = 1
            else:
                used["baseline_train"] = noises["baseline_train"].steps
                used["baseline_evaluate"] = 1
        if values is None:
            word = f"{experiment}/{dataset}/{current.number}".encode()
            generator = np.random.default_rng(list(hashlib.sha256(word).digest()))
            values = np.rint(generator.normal(0.0, noise, size)).astype(np.int64)
        return UpdateSubmitted(
            type="update.submitted",
            experiment=experiment,
            dataset=dataset,
            round=current.number,
            attempt=current.attempt,
            update=self.put(encode_update(values)),
            used=tuple(Used(purpose=p, steps=n) for p, n in sorted(used.items())),  # type: ignore[arg-type]
            intents=hashlib.sha256(repr(sorted(used.items())).encode()).hexdigest(),
            masked=None,
        )

    def submit(self, experiment: str, dataset: str, values: np.ndarray | None = None) -> Sequenced:
        """Submit a dataset's update for the open round."""
        op = self.update(experiment, dataset, values)
        return self.say(node_of(self.state.datasets[dataset].organisation), op)

    def aggregate(self, experiment: str) -> Sequenced:
        """Sum what counts in the open round, exactly, and step the model."""
        now = self.experiment(experiment)
        current = now.round
        assert current is not None
        counting = {d: u for d, u in current.updates.items() if u.refused is None}
        size = now.plan.parameters if current.kind == "train" else now.plan.metric_size
        total = ExactSum(size)
        for update in counting.values():
            data = np.frombuffer(self.blobs[update.blob.sha256], "<i8", offset=27)
            total.add(data.astype(np.int64))
        model = current.model
        if current.kind == "train":
            spec, shapes = self.spec_of(experiment), self.shapes(experiment)
            divisor = sum(s.divisor for s in now.plan.sites if s.dataset in counting)
            flat = unpack_model(self.blobs[current.model.sha256], shapes)
            model = self.put(pack_model(shapes, server_step(spec, flat, total.total(), divisor)))
        op = RoundAggregated(
            type="round.aggregated",
            experiment=experiment,
            round=current.number,
            attempt=current.attempt,
            updates=tuple(sorted(u.entry for u in counting.values())),
            aggregate=self.put(encode_update(total.total())),
            model=model,
        )
        return self.say(COORDINATOR, op)

    def play_round(self, experiment: str) -> None:
        """One round in which everybody answers."""
        for dataset in self.open_round(experiment).cohort:
            if dataset not in self.experiment(experiment).reservations:
                self.reserve(experiment, dataset)
            self.submit(experiment, dataset)
        self.aggregate(experiment)

    def play(self, experiment: str) -> None:
        """All rounds, completion, settlements and release."""
        while self.experiment(experiment).next_round <= last_round(
            self.experiment(experiment).plan
        ):
            self.play_round(experiment)
        plan = self.experiment(experiment).plan
        model = self.experiment(experiment).model if plan.evaluate else self.final_model(experiment)
        self.say(
            COORDINATOR,
            ExperimentCompleted(type="experiment.completed", experiment=experiment, model=model),
        )
        for dataset, held in sorted(self.experiment(experiment).reservations.items()):
            used = tuple(Used(purpose=p, steps=n) for p, n in sorted(held.used.items()))  # type: ignore[arg-type]
            op = BudgetSettled(
                type="budget.settled",
                experiment=experiment,
                dataset=dataset,
                used=used,
                intents=hashlib.sha256(repr(used).encode()).hexdigest(),
            )
            self.say(node_of(self.state.datasets[dataset].organisation), op)
        self.finalize()
        self.say(
            COORDINATOR,
            ModelReleased(type="model.released", experiment=experiment, model=model),
        )
        self.finalize()

    # --- documents and models -------------------------------------------------------------------

    def schema(self, dataset: str) -> Schema:
        """A dataset's schema, from its blob."""
        ref = self.state.datasets[dataset].terms.schema_
        return parse_document(self.blobs[ref.sha256], Schema)

    def spec_of(self, experiment: str) -> ExperimentSpec:
        """An experiment's spec, from its blob."""
        return parse_document(self.blobs[self.experiment(experiment).spec.sha256], ExperimentSpec)

    def shapes(self, experiment: str) -> Shapes:
        """Names and shapes of the models of an experiment's rounds."""
        spec = self.spec_of(experiment)
        return round_shapes(spec, network_of(spec, self.schema(spec.federation.datasets[0])))

    def final_model(self, experiment: str, spec: ExperimentSpec | None = None) -> BlobRef:
        """The stated function of the rounds' models; of another spec, where one is given."""
        shapes = self.shapes(experiment)
        models = [
            unpack_model(self.blobs[entry.body.op.model.sha256], shapes)
            for entry in self.entries()
            if isinstance(entry.body.op, RoundAggregated)
            and entry.body.op.experiment == experiment
            and entry.body.op.round <= self.experiment(experiment).plan.rounds
        ]
        final = final_model(spec or self.spec_of(experiment), models)
        return self.put(pack_model([s for s in shapes if s[0] != TENSOR], final))
