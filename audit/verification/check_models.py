"""Averages and models, bit for bit: step 12 of a verification.

From the specification alone comes the first model; from each round's updates their exact integer
sum; from sum and model the next one; from the late ones the final one. Every blob that the log names
on the way must have exactly the bytes that come out. What was summed must deserve it, and what was left
out must not, by the rule that the coordinator has to follow (``ledger.experiment.updates``). A masked sum
is opened again from the shares in the log.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from hashlib import sha256

from audit.verification.documents import UNREADABLE, Documents, Shapes
from audit.verification.findings import Check
from audit.verification.records import ExperimentRecord, RoundRecord, UpdateRecord
from audit.verification.replay import Replay
from ledger.entries.operations.rounds import RoundAggregated
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobMissing, MalformedInput, PlanRefused
from ledger.experiment.average import ExactSum, final_model, initial_model, server_step
from ledger.experiment.masked import masked_round, open_sum, opened_by
from ledger.experiment.round_models import RoundModels
from ledger.experiment.tensors import (
    Int64Vector,
    decode_update,
    encode_update,
    pack_model,
)
from ledger.experiment.updates import Fault, judge_update, update_size
from ledger.rules.experiments import site_of
from privacy.errors import SharesMissing


def check_models(replay: Replay, documents: Documents) -> Iterator[Check]:
    """Recompute every sum, server step and final model that a log names."""
    sums = models = refusals = 0
    for experiment in replay.history.experiments.values():
        work = _Experiment(experiment, documents)
        yield from work.run()
        sums += work.sums
        models += work.models
        refusals += work.refusals
    if sums or models:
        yield Check(
            12, "proved", f"{sums} sums and {models} models recomputed, the same to the last bit"
        )
    if refusals:
        yield Check(12, "proved", f"{refusals} refused updates are what their refusals say")
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
        self.refusals = 0
        self._absent: list[int] = []

    def run(self) -> Iterator[Check]:
        """Yield what differs, or cannot be recomputed."""
        experiment = self._experiment
        for record in experiment.rounds:
            yield from self._refused(record)
            yield from self._given_up(record)
        if experiment.plan.secure_aggregation is not None and experiment.rounds:
            yield Check(12, "not_checkable", f"{self._name}: {NOT_UNDER_MASKS}")
        try:
            shapes = self._documents.round_shapes(experiment)
        except (*UNREADABLE, PlanRefused) as error:
            yield Check(12, "not_checkable", f"{self._name}: no model can be built: {error}")
            return
        yield from self._first(shapes)
        for record, op in experiment.aggregates():
            yield from self._round(record, op, shapes)
        if self._absent:
            yield Check(
                12,
                "not_checkable",
                f"{self._name}, {_rounds(self._absent)}: updates or models are not in this copy; one "
                "that keeps them, as the coordinator's does, shows the sums",
            )
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
        except BlobMissing:
            self._absent.append(op.round)
            return
        except UNREADABLE as error:
            yield Check(12, "not_checkable", f"{label}: an update cannot be read: {error}")
            return
        except (ValueError, SharesMissing) as error:
            yield Check(12, "refuted", f"{label}: its updates have no sum: {error}", place)
            return
        if total is None:
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
        except BlobMissing:
            self._absent.append(op.round)
            return
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

    def _sum(self, record: RoundRecord) -> Generator[Check, None, Int64Vector | None]:
        """Yield the updates that should have stayed out; return the exact sum if there is one."""
        size = update_size(self._experiment.plan, record.terms.kind)
        total = ExactSum(size)
        for name, update in record.counted().items():
            data = self._documents.raw(update.blob)
            fault = self._fault(record, name, update, data)
            if fault is not None:
                yield Check(
                    12,
                    "refuted",
                    f"{self._name}, round {update.round}: the update of {name} {_FAULTS[fault]}, "
                    "and was summed",
                    f"entry {update.said.index}",
                )
            if fault in ("malformed", "wrong_size"):
                return None
            total.add(decode_update(data, size))
        current = record.masked
        if current is None or current.masking is None:
            return total.total()
        return open_sum(total.total(), masked_round(current, current.masking))

    def _given_up(self, record: RoundRecord) -> Iterator[Check]:
        """A masked round that ended for want of shares must have lacked them."""
        current, closed = record.masked, record.closed
        if closed is None or record.closed_reason != "shares_missing":
            return
        if current is None or current.masking is None or current.masking.phase != "unmask":
            detail = f"{self._name}, round {record.terms.round}: sealed shares did not arrive"
            yield Check(12, "not_checkable", f"{detail}; that no copy can show")
            return
        try:
            opened_by(masked_round(current, current.masking))
        except SharesMissing:
            return
        yield Check(
            12,
            "refuted",
            f"{self._name}, round {record.terms.round}: it was given up for want of shares, and the "
            "shares that were revealed open its sum",
            f"entry {closed.index}",
        )

    def _refused(self, record: RoundRecord) -> Iterator[Check]:
        """A refusal's reason must be what the update's bytes give, or its hospital was left out."""
        for name, (said, reason) in record.refused.items():
            update = record.updates[name]
            label = f"{self._name}, round {update.round}: the update of {name}"
            place = f"entry {said.index}"
            try:
                fault = self._fault(record, name, update, self._documents.raw(update.blob))
            except UNREADABLE as error:
                if reason == "wrong_size" and self._fault(record, name, update, b"") == reason:
                    self.refusals += 1  # the entry alone says how long it is
                    continue
                detail = f"{label} was refused ({reason}), and cannot be read: {error}"
                if self._documents.is_erased_card(update.blob.sha256):
                    detail += "; somebody called it a card and had that erased: no update is a card"
                yield Check(12, "not_checkable", detail)
                continue
            if reason == "missing_blob":
                # That it is here now does not show that it was there then.
                detail = f"{label} was refused as missing, and is here: whether it came too late "
                yield Check(12, "not_checkable", detail + "no copy can show")
            elif fault == reason:
                self.refusals += 1
            else:
                found = "deserves to count" if fault is None else _FAULTS[fault]
                detail = f"{label} was left out of the sum as {reason}, but {found}"
                yield Check(12, "refuted", detail, place)

    def _fault(
        self, record: RoundRecord, name: str, update: UpdateRecord, data: bytes
    ) -> Fault | None:
        plan = self._experiment.plan
        site = site_of(plan, name)
        if site is None:
            raise ValueError(f"the fold let in an update of {name} that no plan asks for")
        declared_test = self._experiment.sites[name].terms.declared_test
        found = judge_update(plan, site, record.terms.kind, declared_test, update.blob, data)
        return found if isinstance(found, str) else None

    def _last(self, shapes: Shapes) -> Iterator[Check]:
        """The model that was evaluated or completed is the average of the late rounds' models."""
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
            lazy = RoundModels(self._documents.raw, trained, shapes)
            flat = final_model(self._documents.spec(experiment), lazy)
        except BlobMissing:
            detail = (
                f"{self._name}: not all models of the late rounds are in this copy, so neither is"
            )
            yield Check(12, "not_checkable", f"{detail} their average")
            return
        except UNREADABLE as error:
            detail = f"{self._name}: a round's model cannot be read: {error}"
            yield Check(12, "not_checkable", detail)
            return
        yield from self._same(
            pack_model(self._documents.shapes(experiment), flat),
            wanted,
            place,
            f"{self._name}: the final model is not the average of the late rounds' models",
        )

    def _same(self, data: bytes, ref: BlobRef, place: str, otherwise: str) -> Iterator[Check]:
        if _names(ref, data):
            self.models += 1
        else:
            yield Check(12, "refuted", otherwise, place)


NOT_UNDER_MASKS = (
    "single updates, their norm bounds and what each hospital contributed are not available under "
    "secure aggregation; the sums are, from the masked vectors and the revealed shares"
)
_FAULTS: dict[Fault, str] = {
    "malformed": "is no vector in our format",
    "wrong_size": "has not the round's number of values",
    "norm_bound": "is longer than its plan's bound",
}


def _rounds(numbers: list[int]) -> str:
    """Rounds in order as people write them: ``rounds 1 to 4, 7``."""
    parts: list[tuple[int, int]] = []
    for number in numbers:
        first, last = parts[-1] if parts else (0, -1)
        if number == last + 1:
            parts[-1] = (first, number)
        else:
            parts.append((number, number))
    words = [str(first) if first == last else f"{first} to {last}" for first, last in parts]
    return f"round{'s' if len(numbers) > 1 else ''} {', '.join(words)}"


def _names(ref: BlobRef, data: bytes) -> bool:
    return len(data) == ref.bytes and sha256(data).hexdigest() == ref.sha256
