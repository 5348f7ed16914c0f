"""Averages and models, bit for bit: step 12 of a verification.

From the specification alone comes the first model; from each round's updates their exact integer
sum; from sum and model the next one; from the late ones the final one. Every blob that the log names
on the way must have exactly the bytes that come out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from hashlib import sha256
from typing import overload

from audit.documents import UNREADABLE, Documents, Shapes
from audit.findings import Check
from audit.history import ExperimentRecord, RoundRecord
from audit.replay import Replay
from ledger.average import ExactSum, final_model, initial_model, server_step, within_l2
from ledger.errors import MalformedInput, PlanRefused
from ledger.operations import BlobRef, RoundAggregated
from ledger.rules_experiments import site_of
from ledger.tensors import Float64Vector, Int64Vector, encode_update, pack_model


def check_models(replay: Replay, documents: Documents) -> Iterator[Check]:
    """Recompute every sum, server step and final model that a log names."""
    sums = models = 0
    for experiment in replay.history.experiments.values():
        work = _Experiment(experiment, documents)
        yield from work.run()
        sums += work.sums
        models += work.models
    if sums or models:
        yield Check(
            12, "proved", f"{sums} sums and {models} models recomputed, the same to the last bit"
        )
    elif not replay.history.experiments:
        yield Check(12, "proved", "no round has ended so far")


class _Experiment:
    """One experiment's recomputation; counts what came out the same."""

    def __init__(self, experiment: ExperimentRecord, documents: Documents) -> None:
        self._experiment = experiment
        self._documents = documents
        self._name = experiment.terms.name
        self.sums = 0
        self.models = 0

    def run(self) -> Iterator[Check]:
        """Yield what differs, or cannot be recomputed."""
        experiment = self._experiment
        try:
            shapes = self._documents.shapes(experiment)
        except (*UNREADABLE, PlanRefused) as error:
            yield Check(12, "not_checkable", f"{self._name}: no model can be built: {error}")
            return
        yield from self._first(shapes)
        for record, op in experiment.aggregates():
            yield from self._round(record, op, shapes)
        yield from self._last(shapes)

    def _first(self, shapes: Shapes) -> Iterator[Check]:
        spec = self._documents.spec(self._experiment)
        flat = initial_model(spec, self._documents.network(self._experiment))
        yield from self._same(
            pack_model(shapes, flat),
            self._experiment.plan.initial_model,
            f"entry {self._experiment.said.index}",
            "the first model is not what the specification implies",
        )

    def _round(self, record: RoundRecord, op: RoundAggregated, shapes: Shapes) -> Iterator[Check]:
        said = record.aggregated[0] if record.aggregated else record.said
        place = f"entry {said.index}"
        label = f"{self._name}, round {op.round}"
        try:
            total = yield from self._sum(record)
        except UNREADABLE as error:
            yield Check(12, "not_checkable", f"{label}: an update cannot be read: {error}")
            return
        except ValueError as error:
            yield Check(12, "refuted", f"{label}: its updates have no sum: {error}", place)
            return
        data = encode_update(total)
        if _names(op.aggregate, data):
            self.sums += 1
        else:
            yield Check(12, "refuted", f"{label}: the sum is not that of its updates", place)
            return
        if record.terms.kind != "train":
            return
        try:
            before = self._documents.model(record.terms.model, shapes)
        except UNREADABLE as error:
            yield Check(12, "not_checkable", f"{label}: its first model cannot be read: {error}")
            return
        divisor = sum(
            site.divisor
            for name in record.counted()
            if (site := site_of(self._experiment.plan, name)) is not None
        )
        spec = self._documents.spec(self._experiment)
        try:
            after = pack_model(shapes, server_step(spec, before, total, divisor))
        except (MalformedInput, ValueError) as error:
            yield Check(12, "refuted", f"{label}: its step has no model: {error}", place)
            return
        yield from self._same(after, op.model, place, f"{label}: the model is not the sum's step")

    def _sum(self, record: RoundRecord) -> Generator[Check, None, Int64Vector]:
        """Yield the updates over their bound; return the exact sum."""
        plan = self._experiment.plan
        train = record.terms.kind == "train"
        total = ExactSum(plan.parameters if train else plan.metric_size)
        for name, update in record.counted().items():
            vector = self._documents.update(
                update.blob, plan.parameters if train else plan.metric_size
            )
            site = site_of(plan, name)
            if train and site is not None and not within_l2(vector, site.update_bound):
                yield Check(
                    12,
                    "refuted",
                    f"{self._name}, round {update.round}: the update of {name} is longer than its "
                    "plan's bound, and was summed",
                    f"entry {update.said.index}",
                )
            total.add(vector)
        return total.total()

    def _last(self, shapes: Shapes) -> Iterator[Check]:
        """The model that was evaluated or completed is the mean of the late rounds' models."""
        experiment = self._experiment
        rounds = experiment.plan.rounds
        trained = [op.model for record, op in experiment.aggregates() if op.round <= rounds]
        evaluations = [r for r in experiment.rounds if r.terms.kind == "evaluate"]
        wanted: BlobRef | None = None
        place = ""
        if evaluations:
            wanted, place = evaluations[0].terms.model, f"entry {evaluations[0].said.index}"
        elif experiment.completed is not None:
            wanted = experiment.completed[1]
            place = f"entry {experiment.completed[0].index}"
        if wanted is None or len(trained) != rounds:
            return
        try:
            lazy = _Models(trained, self._documents, shapes)
            flat = final_model(self._documents.spec(experiment), lazy)
        except UNREADABLE as error:
            detail = f"{self._name}: a round's model cannot be read: {error}"
            yield Check(12, "not_checkable", detail)
            return
        yield from self._same(
            pack_model(shapes, flat),
            wanted,
            place,
            f"{self._name}: the final model is not the mean of the late rounds' models",
        )

    def _same(self, data: bytes, ref: BlobRef, place: str, otherwise: str) -> Iterator[Check]:
        if _names(ref, data):
            self.models += 1
        else:
            yield Check(12, "refuted", otherwise, place)


class _Models(Sequence[Float64Vector]):
    """The rounds' models, each read when it is asked for."""

    def __init__(self, refs: Sequence[BlobRef], documents: Documents, shapes: Shapes) -> None:
        self._refs, self._documents, self._shapes = refs, documents, shapes

    def __len__(self) -> int:
        return len(self._refs)

    @overload
    def __getitem__(self, index: int) -> Float64Vector: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Float64Vector]: ...

    def __getitem__(self, index: int | slice) -> Float64Vector | Sequence[Float64Vector]:
        if isinstance(index, slice):
            return _Models(self._refs[index], self._documents, self._shapes)
        return self._documents.model(self._refs[index], self._shapes)


def _names(ref: BlobRef, data: bytes) -> bool:
    return len(data) == ref.bytes and sha256(data).hexdigest() == ref.sha256
