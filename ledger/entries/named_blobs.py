"""Which blobs an entry names, and as what.

The one list for whoever needs all blobs of a log: an export, a check that they are whole, a table of
who may read which kind. Cards are not in it: an entry holds their commitment, not their length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ledger.entries.operations.audits import PrivacyAudited
from ledger.entries.operations.datasets import DatasetRegistered
from ledger.entries.operations.experiments import (
    ExperimentCompleted,
    ExperimentProposed,
    ModelReleased,
)
from ledger.entries.operations.log import ForkReported, ReceiptBroken
from ledger.entries.operations.masking import MaskingShared
from ledger.entries.operations.members import MemberJoined
from ledger.entries.operations.rounds import RoundAggregated, RoundOpened, UpdateSubmitted
from ledger.entries.operations.statistics import StatisticsReleased, StatisticsReserved
from ledger.entries.operations.succession import FederationCarried
from ledger.entries.operations.values import BlobRef
from ledger.entries.operations.vocabulary import Operation

BlobKind = Literal["schema", "spec", "model", "update", "shares", "aggregate", "evidence"]


class NamedBlob(NamedTuple):
    """A blob and what an entry says it is."""

    kind: BlobKind
    ref: BlobRef


def named_blobs(op: Operation) -> Iterator[NamedBlob]:
    """Yield the blobs that an operation names, in the order of its fields."""
    if isinstance(op, DatasetRegistered):
        yield NamedBlob("schema", op.schema_)
    elif isinstance(op, FederationCarried):
        for dataset in op.datasets:
            yield NamedBlob("schema", dataset.terms.schema_)
    elif isinstance(op, ExperimentProposed):
        yield NamedBlob("spec", op.spec)
        yield NamedBlob("model", op.plan.initial_model)
    elif isinstance(op, RoundOpened | ExperimentCompleted | ModelReleased):
        yield NamedBlob("model", op.model)
    elif isinstance(op, UpdateSubmitted):
        yield NamedBlob("update", op.update)
    elif isinstance(op, MaskingShared):
        yield NamedBlob("shares", op.shares)
    elif isinstance(op, RoundAggregated):
        yield NamedBlob("aggregate", op.aggregate)
        yield NamedBlob("model", op.model)
    elif isinstance(op, StatisticsReserved):
        yield NamedBlob("spec", op.question)
    elif isinstance(op, StatisticsReleased):
        yield NamedBlob("aggregate", op.result)
    elif isinstance(op, ForkReported):
        yield NamedBlob("evidence", op.ours)
        yield NamedBlob("evidence", op.theirs)
    elif isinstance(op, ReceiptBroken):
        yield NamedBlob("evidence", op.evidence)
    elif isinstance(op, PrivacyAudited) and op.result is not None:
        yield NamedBlob("evidence", op.result)


def bound_cards(op: Operation) -> Iterator[str]:
    """Yield the commitments of the cards that an operation binds, or carries over from another log."""
    cards: list[str | None] = []
    if isinstance(op, DatasetRegistered | MemberJoined):
        cards.append(op.card)
    elif isinstance(op, FederationCarried):
        cards.extend(member.card for member in op.members)
        cards.extend(dataset.terms.card for dataset in op.datasets)
    yield from (card for card in cards if card is not None)
