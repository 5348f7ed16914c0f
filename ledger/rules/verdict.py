"""What the fold says of an operation: it took effect, or it is void for one of these reasons.

The enumeration is closed; a reason never depends on rows of data. Explanations for people are here
too, so that every interface says the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from msgspec import Struct

if TYPE_CHECKING:
    from ledger.entries.entry import Entry
    from ledger.rules.state import State

VoidReason = Literal[
    "not_permitted",
    "stale",
    "unknown_member",
    "unknown_change",
    "unknown_card",
    "change_spent",
    "invitation_conflict",
    "unknown_invitation",
    "unknown_organisation",
    "organisation_expelled",
    "key_conflict",
    "bad_proof",
    "evidence_invalid",
    "unknown_cell",
    "cell_exists",
    "cell_terms",
    "purpose_raised",
    "individual_cell",
    "not_owner",
    "unknown_dataset",
    "dataset_withdrawn",
    "dataset_changed",
    "unknown_experiment",
    "experiment_ended",
    "plan_invalid",
    "not_approved",
    "approval_expired",
    "approval_conditions",
    "already_reserved",
    "not_reserved",
    "charges_mismatch",
    "budget_exhausted",
    "purpose_exhausted",
    "settled",
    "over_reservation",
    "under_reported",
    "round_mismatch",
    "round_not_open",
    "deadline_passed",
    "not_in_cohort",
    "duplicate_update",
    "unknown_update",
    "updates_mismatch",
    "finding_mismatch",
    "quorum_missed",
    "not_due",
    "model_mismatch",
    "context_mismatch",
    "wrong_phase",
    "vector_reused",
    "members_mismatch",
    "shares_mismatch",
    "not_released",
    "not_ready",
    "not_carried",
    "not_endorsed",
    "repeated",
]

EXPLANATIONS: dict[str, str] = {
    "not_permitted": "the author's role may not do this",
    "stale": "it was decided on a log too old by the time it arrived",
    "unknown_member": "no such member",
    "unknown_change": "no such proposed change",
    "unknown_card": "no entry bound such a card",
    "change_spent": "the change took effect already, or its organisation endorsed it before",
    "invitation_conflict": "an invitation for one of these handles or keys exists already",
    "unknown_invitation": "no such invitation with a free seat",
    "unknown_organisation": "no such organisation, or the coordinator's own",
    "organisation_expelled": "the organisation was expelled",
    "key_conflict": "one of these keys is in use already",
    "bad_proof": "the new key did not sign for itself",
    "evidence_invalid": "it does not show one key at one place of its chain twice",
    "unknown_cell": "it names a cell that is not registered",
    "cell_exists": "the cell has its lifetime promise already",
    "cell_terms": "not allowed by the promise: delta above its limit, or more patients than declared",
    "purpose_raised": "a purpose's part of a promise is only ever lowered, and never above the promise",
    "individual_cell": "its patients are accounted for one by one, which statistics and parts for purposes "
    "cannot be",
    "not_owner": "it belongs to another hospital",
    "unknown_dataset": "no such dataset",
    "dataset_withdrawn": "the dataset was withdrawn",
    "dataset_changed": "the dataset was registered anew after the plan was made",
    "unknown_experiment": "no such experiment",
    "experiment_ended": "the experiment has ended",
    "plan_invalid": "the plan does not fit the datasets that it names, or charges too little",
    "not_approved": "the hospital's steward has not approved it, or took the approval back",
    "approval_expired": "the approval's date has passed",
    "approval_conditions": "it costs more than the steward allowed",
    "already_reserved": "the budget for this experiment is reserved already",
    "not_reserved": "no budget is reserved for it",
    "charges_mismatch": "the charges are not those of the plan",
    "budget_exhausted": "the patients' privacy budget cannot pay for it",
    "purpose_exhausted": "the part of the patients' budget for this purpose cannot pay for it",
    "settled": "the reservation was settled already",
    "over_reservation": "more steps were used than were reserved",
    "under_reported": "fewer steps are stated than the updates need",
    "round_mismatch": "the round is not the one that is due",
    "round_not_open": "the round is not open",
    "deadline_passed": "the round's deadline had passed when it arrived",
    "not_in_cohort": "the dataset is not in the round's cohort",
    "duplicate_update": "an update for this round arrived before",
    "unknown_update": "no such update in the open round",
    "updates_mismatch": "the sum does not name exactly the updates that count",
    "finding_mismatch": "its finding is another than its own figures and bound make it",
    "quorum_missed": "fewer updates than the quorum",
    "not_due": "it is not due yet",
    "model_mismatch": "the model is not the one that the log has at this point",
    "context_mismatch": "it is bound to another round, or to masks where there are none",
    "wrong_phase": "the masked round is in another phase",
    "vector_reused": "noise that hospitals share must be fresh in every attempt",
    "members_mismatch": "it does not name those who go on in the masked round",
    "shares_mismatch": "these are not the shares that the masked round asks for",
    "not_released": "the model is not released",
    "not_ready": "too few hospitals have said that their software knows this version",
    "not_carried": "it is not the next part of the old state that genesis names",
    "not_endorsed": "too few organisations of the old federation have signed the genesis",
    "repeated": "it was said before",
}


@dataclass(frozen=True, slots=True)
class Void:
    """The operation has no effect.

    Attributes:
        state: what remains all the same (an update that is void still tells which noise was used).
    """

    reason: VoidReason
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fold's verdict on one entry; ``void`` is None when it was applied."""

    void: VoidReason | None

    @property
    def applied(self) -> bool:
        """The operation took effect."""
        return self.void is None


class Step(Struct, frozen=True):
    """Where an entry stands in the log: what a rule may know beside the state."""

    entry: Entry
    index: int

    @property
    def author(self) -> str:
        """Handle of the entry's author."""
        return self.entry.body.author


if set(get_args(VoidReason)) != set(EXPLANATIONS):  # pragma: no cover - a mistake in this file
    raise RuntimeError("every void reason needs its explanation")
