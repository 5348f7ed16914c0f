"""Rules for rounds: opened for a cohort, fed by updates, ended by an exact sum or without one.

Rounds are numbered through the plan: training rounds first, then one that evaluates the final model,
then one that measures local baselines. A round that misses its quorum is opened again as the next
attempt; a node that had answered sends the same bytes again, which costs nothing. Other bytes are
another vector and need further noise, also when their update is void.
"""

from __future__ import annotations

from bisect import bisect_left

from ledger.entries.operations.plans import Plan, Purpose
from ledger.entries.operations.rounds import (
    RoundAggregated,
    RoundClosed,
    RoundKind,
    RoundOpened,
    UpdateRefused,
    UpdateSubmitted,
)
from ledger.rules import masking
from ledger.rules.budget import charge_excess, uses_more_than
from ledger.rules.experiment_state import Experiment, OpenRound, Reservation, Site, Update, Vectors
from ledger.rules.experiments import last_round, put
from ledger.rules.state import Dataset, State, replace
from ledger.rules.verdict import Step, Void, VoidReason


def opened(state: State, step: Step, op: RoundOpened) -> State | Void:
    """The next round of the plan, from the model that the log has."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    if experiment.ended:
        return Void("experiment_ended")
    plan = experiment.plan
    if (
        experiment.round is not None
        or op.round != experiment.next_round
        or op.attempt != experiment.next_attempt
        or op.round > last_round(plan)
        or op.kind != round_kind(plan, op.round)
    ):
        return Void("round_mismatch")
    sites = experiment.sites
    if list(op.cohort) != sorted(set(op.cohort)) or any(name not in sites for name in op.cohort):
        return Void("not_in_cohort")
    first_evaluation = op.kind == "evaluate" and op.attempt == 1
    if op.model != experiment.model and not first_evaluation:
        return Void("model_mismatch")
    if op.deadline_ms <= state.log_time:
        return Void("deadline_passed")
    if plan.secure_aggregation is not None and len(op.cohort) < plan.quorum:
        return Void("quorum_missed")
    under_way = OpenRound(
        op.round,
        op.attempt,
        op.kind,
        op.cohort,
        op.model,
        op.deadline_ms,
        step.index,
        masking=masking.begin(experiment, op),
    )
    return put(
        state,
        replace(experiment, status="running", model=op.model, round=under_way),
    )


def submitted(state: State, step: Step, op: UpdateSubmitted) -> State | Void:
    """An update counts if it is in time; the noise that it used counts in any case."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    name = op.dataset  # to read a model's field costs three times as much
    dataset = state.datasets.get(name)
    if dataset is None:
        return Void("unknown_dataset")
    if dataset.organisation != state.members[step.author].organisation:
        return Void("not_owner")
    before = experiment.reservations.get(name)
    site = experiment.sites.get(name)
    if before is None or site is None:
        return Void("not_reserved")
    held, stated_enough = _count_vector(experiment.plan, site, before, op)
    reason = _why_not_counted(state, experiment, site, dataset, held, op)
    exceeds = uses_more_than(site, held)
    if reason is None and exceeds:
        reason = "over_reservation"
    if reason is None and not stated_enough:
        reason = "under_reported"
    if reason is None and op.masked is not None and _is_reused(experiment.plan, before, op):
        reason = "vector_reused"
    if exceeds or held.settled_at is not None:
        state = charge_excess(state, experiment, site, before, held)
    reservations = experiment.reservations.set(name, held)
    current = experiment.round
    if reason is not None or current is None:
        used = put(state, replace(experiment, reservations=reservations))
        return Void(reason or "round_not_open", used)
    updates = current.updates.set(name, Update(step.entry.hash, op.update, step.index))
    current = replace(current, updates=updates)
    return put(state, replace(experiment, reservations=reservations, round=current))


def update_refused(state: State, step: Step, op: UpdateRefused) -> State | Void:
    """An update that arrived stays out of the sum, with a reason anyone can check."""
    for experiment in state.experiments.values():
        current = experiment.round
        if current is None:
            continue
        for dataset, update in current.updates.items():
            if update.entry != op.update:
                continue
            if update.refused is not None:
                return Void("repeated")
            if current.masking is not None and not masking.may_refuse(current.masking, op):
                return Void("wrong_phase")
            updates = current.updates.set(dataset, replace(update, refused=op.reason))
            return put(state, replace(experiment, round=replace(current, updates=updates)))
    return Void("unknown_update")


def aggregated(state: State, step: Step, op: RoundAggregated) -> State | Void:
    """The sum names every update that counts, no other, and at least the quorum."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    current = experiment.round
    if current is None or (op.round, op.attempt) != (current.number, current.attempt):
        return Void("round_not_open")
    counting = sorted(u.entry for u in current.updates.values() if u.refused is None)
    if list(op.updates) != counting:
        return Void("updates_mismatch")
    if len(counting) < experiment.plan.quorum:
        return Void("quorum_missed")
    if current.masking is not None and not masking.can_be_opened(current):
        return Void("wrong_phase")
    if current.kind != "train" and op.model != current.model:
        return Void("model_mismatch")
    reservations = experiment.reservations
    if current.kind == "train":
        for dataset, update in current.updates.items():
            if update.refused is None:
                held = reservations[dataset]
                reservations = reservations.set(dataset, replace(held, served=held.served + 1))
    return put(
        state,
        replace(
            experiment,
            model=op.model,
            reservations=reservations,
            round=None,
            next_round=op.round + 1,
            next_attempt=1,
        ),
    )


def closed(state: State, step: Step, op: RoundClosed) -> State | Void:
    """Only once the deadline passed or everybody answered, and the quorum was missed."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    current = experiment.round
    if current is None or (op.round, op.attempt) != (current.number, current.attempt):
        return Void("round_not_open")
    if current.masking is not None:
        wrong = masking.why_not_closed(state, experiment, current, current.masking, op.reason)
        if wrong is not None:
            return Void(wrong)
    elif op.reason != "quorum_missed" or _counting(current) >= experiment.plan.quorum:
        return Void("round_mismatch")
    elif state.log_time <= current.deadline_ms and waiting_for(experiment):
        return Void("not_due")
    return put(state, replace(experiment, round=None, next_attempt=op.attempt + 1))


def round_kind(plan: Plan, number: int) -> RoundKind:
    """What the plan's n-th round is for."""
    if number <= plan.rounds:
        return "train"
    return "evaluate" if number == plan.rounds + 1 else "baseline"


def waiting_for(experiment: Experiment) -> tuple[str, ...]:
    """Datasets of the open round's cohort that have neither answered nor said that they will not."""
    current = experiment.round
    if current is None:
        return ()
    if current.masking is not None:
        return masking.waiting_for(experiment, current, current.masking)
    return tuple(
        dataset
        for dataset in current.cohort
        if dataset not in current.updates and not masking.has_left(experiment, dataset)
    )


def _counting(current: OpenRound) -> int:
    return sum(u.refused is None for u in current.updates.values())


def _count_vector(
    plan: Plan, site: Site, held: Reservation, op: UpdateSubmitted
) -> tuple[Reservation, bool]:
    """The reservation with this vector and its noise; whether the stated noise suffices for all."""
    kind = round_kind(plan, op.round)
    known = held.vectors.get(kind)
    vector = op.update.sha256 if op.masked is None else op.masked.vector
    if known is None:
        known = Vectors(1, vector)
    elif known.newest != vector:
        known = Vectors(known.different + 1, vector)
    stated = held.used
    for item in op.used:
        purpose, steps = item.purpose, item.steps
        if steps > stated.get(purpose, 0):
            stated = stated.set(purpose, steps)
    used = stated
    for purpose, steps in _steps_of_vector(plan, site, kind):
        least = known.different * steps
        if least > used.get(purpose, 0):
            used = used.set(purpose, least)
    held = replace(held, used=used, vectors=held.vectors.set(kind, known))
    return held, used is stated


def _is_reused(plan: Plan, before: Reservation, op: UpdateSubmitted) -> bool:
    """Whether divided noise is handed in again: two sums with it would show what differs in them."""
    if op.masked is None or plan.secure_aggregation != "distributed":
        return False
    known = before.vectors.get(round_kind(plan, op.round))
    return known is not None and known.newest == op.masked.vector


def _steps_of_vector(plan: Plan, site: Site, kind: RoundKind) -> tuple[tuple[Purpose, int], ...]:
    """The steps whose noise one vector of a kind holds, by purpose."""
    if kind == "train":
        return (("train", plan.steps_per_round),)
    if kind == "evaluate":
        return (("evaluate", 1),)
    return (
        ("baseline_train", site.steps.get("baseline_train", 0)),
        ("baseline_evaluate", site.steps.get("baseline_evaluate", 0)),
    )


def _why_not_counted(
    state: State,
    experiment: Experiment,
    site: Site,
    dataset: Dataset,
    held: Reservation,
    op: UpdateSubmitted,
) -> VoidReason | None:
    if held.settled_at is not None:
        return "settled"
    if experiment.ended:
        return "experiment_ended"
    name = op.dataset
    approval = experiment.approvals.get(name)
    if approval is None:
        return "not_approved"
    if state.log_time > approval.until_ms:
        return "approval_expired"
    if dataset.withdrawn_at is not None:
        return "dataset_withdrawn"
    if dataset.registration != site.plan.registration:
        return "dataset_changed"
    current = experiment.round
    if current is None or op.round != current.number or op.attempt != current.attempt:
        return "round_not_open"
    at = bisect_left(current.cohort, name)  # sorted, or the round would not be open
    if at == len(current.cohort) or current.cohort[at] != name:
        return "not_in_cohort"
    if state.log_time > current.deadline_ms:
        return "deadline_passed"
    if name in current.updates:
        return "duplicate_update"
    return masking.why_not_masked(current.masking, op)
