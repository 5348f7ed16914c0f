"""Operations on a round: opened for a cohort, answered with noisy vectors, summed or closed without a sum."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.entries.operations.budgets import Used
from ledger.entries.operations.values import BlobRef, Hash, Positive, Slug, TimeMs, Value

RoundKind = Literal["train", "evaluate", "baseline"]


class RoundOpened(Value):
    """The coordinator names a cohort and the model that it starts from."""

    type: Literal["round.opened"]
    experiment: Hash
    round: Positive
    attempt: Positive
    kind: RoundKind
    cohort: Annotated[tuple[Slug, ...], Meta(min_length=1, max_length=1024)]
    model: BlobRef
    deadline_ms: TimeMs


class MaskedVector(Value):
    """What a masked update is bound to.

    Attributes:
        context: of the masked round.
        vector: salted commitment to the noisy vector under the masks; the same vector under fresh
            masks keeps it.
    """

    context: Hash
    vector: Hash


class UpdateSubmitted(Value):
    """A node's noisy vector for a round, with root and number of its durable intents so far.

    Attributes:
        masked: under secure aggregation, what the masked vector is bound to; else null.
    """

    type: Literal["update.submitted"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    update: BlobRef
    used: Annotated[tuple[Used, ...], Meta(min_length=1, max_length=4)]
    intents: Hash
    masked: MaskedVector | None


class UpdateRefused(Value):
    """The coordinator leaves an update out of the sum, and says why."""

    type: Literal["update.refused"]
    update: Hash
    reason: Literal["missing_blob", "malformed", "wrong_size", "norm_bound"]


class RoundAggregated(Value):
    """The exact sum of the named updates, and the model after the server step."""

    type: Literal["round.aggregated"]
    experiment: Hash
    round: Positive
    attempt: Positive
    updates: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=1024)]
    aggregate: BlobRef
    model: BlobRef


class RoundClosed(Value):
    """The round ended without a sum."""

    type: Literal["round.closed"]
    experiment: Hash
    round: Positive
    attempt: Positive
    reason: Literal["quorum_missed", "shares_missing"]
