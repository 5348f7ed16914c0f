"""Sums and models: the blobs of updates in, the blobs of aggregates and models out.

The arithmetic is ``ledger.experiment.average``'s, which anyone repeats bit for bit; here are only the blobs.
Each update is folded into its round's sum as it arrives and forgotten, so memory is one sum an
experiment. Nothing here is durable: after a restart sums are made again from the blobs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from coordinator.sequencing.history import History
from ledger.copies.blobs import BlobStore, blob_ref
from ledger.entries.operations.rounds import RoundAggregated, UpdateRefused
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobError, MalformedInput, PlanRefused
from ledger.experiment.adaptive_clip import round_shapes
from ledger.experiment.average import ExactSum, final_model, initial_model, server_step
from ledger.experiment.masked import masked_round, open_sum
from ledger.experiment.network_spec import parameter_shapes
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.shape import network_of
from ledger.experiment.plan.sites import sites_from
from ledger.experiment.round_models import RoundModels
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import Shapes, encode_update, pack_model, unpack_model
from ledger.experiment.updates import judge_update, update_size
from ledger.formats.documents import parse_document
from ledger.rules.experiment_state import Experiment, Masking, OpenRound, Update
from ledger.rules.experiments import site_of
from ledger.rules.masking import answered
from ledger.rules.state import State

_log = structlog.get_logger("coordinator.rounds.aggregate")


@dataclass(frozen=True, slots=True)
class Prepared:
    """An experiment's spec, and the shapes of its rounds' models and of the one that it ends with."""

    spec: ExperimentSpec
    shapes: Shapes
    final: Shapes


@dataclass(slots=True)
class _Sum:
    """A round's sum so far, and the entries of the updates in it."""

    round: tuple[int, int]
    total: ExactSum
    folded: set[str] = field(default_factory=set)


class Aggregator:
    """The coordinator's arithmetic over its blob store. One owner."""

    def __init__(self, blobs: BlobStore, history: History) -> None:
        self._blobs = blobs
        self._history = history
        self._prepared: dict[str, Prepared] = {}
        self._sums: dict[str, _Sum] = {}

    def prepare(self, state: State, experiment: Experiment) -> Prepared:
        """Read an experiment's spec, and see that its plan is the one that the spec implies.

        Raises:
            PlanRefused, MalformedInput: it is not; the experiment cannot run.
            BlobError: spec, schema or first model are not here.
        """
        known = self._prepared.get(experiment.id)
        if known is not None:
            return known
        spec = parse_document(self._blobs.get(experiment.spec), ExperimentSpec)
        names = spec.federation.datasets
        unknown = [name for name in names if name not in state.datasets]
        if unknown:
            raise PlanRefused("federation.datasets", f"{unknown[0]} is not registered")
        schemas = {
            name: parse_document(self._blobs.get(state.datasets[name].terms.schema_), Schema)
            for name in names
        }
        sites = sites_from(state, schemas, names)
        check_plan(spec, sites, experiment.plan)
        tree = network_of(spec, sites[0].schema)
        shapes = round_shapes(spec, tree)
        first = experiment.plan.initial_model
        if not self._blobs.has(first):
            implied = pack_model(shapes, initial_model(spec, tree))
            if blob_ref(implied) != first:
                raise PlanRefused("plan.initial_model", "it is not here, nor the one of the spec")
            self._blobs.put(implied)
        unpack_model(self._blobs.get(first), shapes)
        self._prepared[experiment.id] = Prepared(spec, shapes, parameter_shapes(tree))
        return self._prepared[experiment.id]

    def until_ms(self, experiment: Experiment) -> int | None:
        """The last millisecond of an experiment's spec, or None where the spec is not here."""
        try:
            return parse_document(self._blobs.get(experiment.spec), ExperimentSpec).until_ms
        except (MalformedInput, BlobError):
            return None

    def fold(self, experiment: Experiment) -> tuple[UpdateRefused, ...]:
        """Take the updates that arrived for the open round into its sum.

        Returns:
            Refusals of those that do not deserve to count, to be said.
        """
        current = experiment.round
        if current is None:
            return ()
        held = self._sums.get(experiment.id)
        if held is None or held.round != (current.number, current.attempt):
            total = ExactSum(max(1, update_size(experiment.plan, current.kind)))
            held = self._sums[experiment.id] = _Sum((current.number, current.attempt), total)
        refused = []
        for dataset, update in sorted(current.updates.items()):
            if update.refused is not None or update.entry in held.folded:
                continue
            refusal = self._fold_one(experiment, held, dataset, update)
            if refusal is None:
                held.folded.add(update.entry)
            else:
                refused.append(refusal)
        return tuple(refused)

    def aggregate(self, state: State, experiment: Experiment) -> RoundAggregated:
        """The open round's sum, and the model after it; both are in the blob store on return.

        Every update that counts must have been folded.

        Raises:
            MalformedInput: the model is beyond float64: the experiment diverged.
            BlobError: the round's model is not here.
            SharesMissing: the shares that were revealed do not open a masked sum.
        """
        current, held = experiment.round, self._sums[experiment.id]
        if current is None:
            raise ValueError(f"experiment {experiment.id} has no open round")
        counting = {d: u.entry for d, u in current.updates.items() if u.refused is None}
        if set(counting.values()) != held.folded:
            raise ValueError("an update counts that was not folded, or the other way round")
        total = held.total.total()
        if current.masking is not None:
            total = open_sum(total, masked_round(current, current.masking))
        model = current.model
        if current.kind == "train":
            prepared = self.prepare(state, experiment)
            flat = unpack_model(self._blobs.get(current.model), prepared.shapes)
            divisor = sum(s.divisor for s in experiment.plan.sites if s.dataset in counting)
            after = server_step(prepared.spec, flat, total, divisor)
            model = self._blobs.put(pack_model(prepared.shapes, after))
        return RoundAggregated(
            type="round.aggregated",
            experiment=experiment.id,
            round=current.number,
            attempt=current.attempt,
            updates=tuple(sorted(counting.values())),
            aggregate=self._blobs.put(encode_update(total)),
            model=model,
        )

    def final_model(self, state: State, experiment: Experiment) -> BlobRef:
        """The model that the experiment ends with, from its rounds' models.

        Raises:
            BlobError: one of them is not here.
        """
        prepared = self.prepare(state, experiment)
        refs = self._history.round_models(experiment.id)
        models = RoundModels(self._blobs.get, refs, prepared.shapes)
        return self._blobs.put(pack_model(prepared.final, final_model(prepared.spec, models)))

    def able(self, current: OpenRound, phase: Masking) -> tuple[str, ...]:
        """Who goes on after a phase of a masked round: with sealed shares, whose blob is here."""
        names = answered(current, phase)
        if phase.phase != "share":
            return names
        return tuple(name for name in names if self._blobs.has(phase.shares[name].blob))

    def forget(self, experiment: str) -> None:
        """Free what is kept of an experiment that ended."""
        self._prepared.pop(experiment, None)
        self._sums.pop(experiment, None)

    def forget_all(self) -> None:
        """Free everything; it is made again from the log and the blobs."""
        self._prepared.clear()
        self._sums.clear()

    def _fold_one(
        self, experiment: Experiment, held: _Sum, dataset: str, update: Update
    ) -> UpdateRefused | None:
        site, current = site_of(experiment.plan, dataset), experiment.round
        if site is None or current is None:
            raise ValueError(f"the fold let in an update of {dataset} that no plan asks for")
        try:
            data = self._blobs.get(update.blob)
        except BlobError as error:
            _log.warning("update without its blob", update=update.entry, reason=error.reason)
            return UpdateRefused(type="update.refused", update=update.entry, reason="missing_blob")
        declared = self._history.declared_test(site.registration)
        values = judge_update(experiment.plan, site, current.kind, declared, update.blob, data)
        if isinstance(values, str):
            return UpdateRefused(type="update.refused", update=update.entry, reason=values)
        held.total.add(values)
        return None
