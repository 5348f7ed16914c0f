"""Operations on an experiment, from the proposal to the model that members take."""

from __future__ import annotations

from typing import Literal

from ledger.entries.operations.plans import Plan
from ledger.entries.operations.values import BlobRef, Hash, Positive, Slug, TimeMs, Value


class ExperimentProposed(Value):
    """A researcher asks. The entry's hash is the experiment's id, and so what a steward approves."""

    type: Literal["experiment.proposed"]
    name: Slug
    spec: BlobRef
    plan: Plan


class ExperimentApproved(Value):
    """A hospital's steward says yes for one dataset, on conditions."""

    type: Literal["experiment.approved"]
    experiment: Hash
    dataset: Slug
    epsilon_max_micro: Positive
    until_ms: TimeMs


RefusalReason = Literal["purpose", "privacy_cost", "legal_basis", "quality", "conflict", "other"]


class ExperimentRefused(Value):
    """A hospital's steward says no, or takes an earlier yes back: it acts on sight."""

    type: Literal["experiment.refused"]
    experiment: Hash
    dataset: Slug
    reason: RefusalReason


class ExperimentStopped(Value):
    """The researcher or the coordinator ends an experiment before its plan does."""

    type: Literal["experiment.stopped"]
    experiment: Hash
    reason: Literal["researcher", "quorum_lost", "no_approval", "expired", "invalid_plan"]


class ExperimentCompleted(Value):
    """The plan ran to its end; the model is a stated function of the rounds' models."""

    type: Literal["experiment.completed"]
    experiment: Hash
    model: BlobRef


class ModelReleased(Value):
    """The model may be handed out: under a final checkpoint that contains its completion."""

    type: Literal["model.released"]
    experiment: Hash
    model: BlobRef


class ModelDownloaded(Value):
    """A member took the released model."""

    type: Literal["model.downloaded"]
    experiment: Hash
    reader: Slug
