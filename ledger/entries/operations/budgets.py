"""Operations on a node's budget for an experiment: reserved before data is touched, refused, given back."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.plans import Purpose
from ledger.entries.operations.values import Count, Hash, Slug, Value


class Used(Value):
    """Steps of a release whose noise may have been used: counted from durable intents."""

    purpose: Purpose
    steps: Count


BudgetRefusal = Literal[
    "not_approved",
    "approval_expired",
    "approval_conditions",
    "dataset_withdrawn",
    "dataset_changed",
    "budget_exhausted",
    "purpose_exhausted",
    "plan_mismatch",
    "local_policy",
    "no_spare_round",
    "unavailable",
]


class BudgetReserved(Value):
    """A node reserves the most that the plan may spend, before it touches data."""

    type: Literal["budget.reserved"]
    experiment: Hash
    dataset: Slug
    charges: Annotated[tuple[CellCharge, ...], Meta(min_length=1, max_length=256)]


class BudgetRefused(Value):
    """A node that was named in a round says why it does not take part. Never depends on rows."""

    type: Literal["budget.refused"]
    experiment: Hash
    dataset: Slug
    reason: BudgetRefusal


class BudgetSettled(Value):
    """A node gives back what the steps without an intent would have cost."""

    type: Literal["budget.settled"]
    experiment: Hash
    dataset: Slug
    used: Annotated[tuple[Used, ...], Meta(max_length=4)]
    intents: Hash
