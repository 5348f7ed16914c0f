"""What became of an experiment, in words that people use, as a whole and for one dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from audit.verification.records import Decision, ExperimentRecord
from ledger.experiment.round_words import served_words

Tone = Literal["good", "warn", "bad", "plain"]

REASONS: dict[str, str] = {
    "purpose": "the purpose was not accepted",
    "privacy_cost": "it would cost too much privacy",
    "legal_basis": "the legal basis was not accepted",
    "quality": "the quality of the request",
    "conflict": "a conflict of interest",
    "other": "another reason",
    "consent": "consent was withdrawn",
    "legal": "a legal reason",
    "policy": "the hospital's policy",
    "not_approved": "its steward had not approved it",
    "approval_expired": "the approval had expired",
    "approval_conditions": "it asked for more than the steward allowed",
    "dataset_withdrawn": "the dataset was withdrawn",
    "dataset_changed": "the dataset was registered anew after the plan was made",
    "budget_exhausted": "the patients' privacy budget could not pay for it",
    "purpose_exhausted": "the part of the patients' privacy budget for its purpose could not pay for it",
    "plan_mismatch": "the plan is not what its specification implies",
    "local_policy": "the hospital's own policy",
    "no_spare_round": "no spare round was left after a restart",
    "expelled": "its organisation was expelled",
    "unavailable": "the data was not available",
    "researcher": "the researcher stopped it",
    "quorum_lost": "too few hospitals answered",
    "no_approval": "too few hospitals approved it",
    "expired": "its approvals expired",
    "invalid_plan": "its plan does not hold",
    "missing_blob": "its bytes never arrived",
    "malformed": "its bytes are no update",
    "wrong_size": "it has another size than the plan says",
    "shares_missing": "the shares that open its masks were missing",
    "norm_bound": "it is longer than the plan allows",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A short phrase, its tone, and why."""

    text: str
    tone: Tone
    why: str = ""


def in_words(reason: str) -> str:
    """A reason of the closed vocabulary as a phrase."""
    return REASONS.get(reason, reason.replace("_", " "))


def outcome_of(experiment: ExperimentRecord) -> Outcome:
    """Where an experiment stands as a whole."""
    if experiment.stopped is not None:
        return Outcome("stopped", "bad", in_words(experiment.stopped[1]))
    if experiment.released is not None:
        return Outcome("model released", "good")
    if experiment.completed is not None:
        return Outcome("completed", "good", "its model waits for a final checkpoint")
    if experiment.rounds:
        return Outcome("running", "warn")
    return Outcome("waiting", "warn", "for approvals")


def outcome_for(experiment: ExperimentRecord, dataset: str) -> Outcome:
    """Where an experiment stands for one dataset: a refusal counts even if others go on."""
    last = last_decision(experiment, dataset)
    served = rounds_served(experiment, dataset)
    if last is not None and not last.approved:
        text = "approval taken back" if served else "refused"
        return Outcome(text, "bad", in_words(last.reason or "other"))
    if dataset not in experiment.held:
        said = [op.reason for _, op in experiment.node_refusals if op.dataset == dataset]
        if said:
            return Outcome("refused by the node", "bad", in_words(said[-1]))
        if experiment.stopped is not None or experiment.completed is not None:
            return Outcome("not used", "plain", "it ended without this dataset")
        return Outcome("waiting", "warn", "for approval" if last is None else "for its first round")
    return outcome_of(experiment)


def last_decision(experiment: ExperimentRecord, dataset: str) -> Decision | None:
    """The steward's newest word on a dataset."""
    found = [d for d in experiment.decisions if d.dataset == dataset]
    return found[-1] if found else None


def rounds_served(experiment: ExperimentRecord, dataset: str) -> frozenset[int]:
    """The plan's numbers of the rounds whose sum holds an update of the dataset."""
    return frozenset(r.terms.round for r in experiment.rounds if dataset in r.counted())


def rounds_trained(experiment: ExperimentRecord, dataset: str) -> int:
    """Training rounds whose sum holds an update of the dataset."""
    return sum(n <= experiment.plan.rounds for n in rounds_served(experiment, dataset))


def rounds_in_words(experiment: ExperimentRecord, dataset: str) -> str:
    """The rounds that a dataset served, as the spec counts them."""
    return served_words(rounds_served(experiment, dataset), experiment.plan.rounds)


def times_asked(experiment: ExperimentRecord, dataset: str) -> int:
    """Attempts at rounds of any kind whose cohort named the dataset."""
    return sum(dataset in record.terms.cohort for record in experiment.rounds)
