"""What a node may have to do, as values: ``judging.py`` decides on them, ``actor.py`` does them."""

from __future__ import annotations

from dataclasses import dataclass

from immutables import Map

from ledger.entries.operations.budgets import BudgetRefusal
from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.plans import Purpose
from ledger.entries.operations.rounds import RoundKind
from node.duties.masking import MaskingDuty


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """Fetch spec and schemas, and compare the plan with what they imply."""

    experiment: str


@dataclass(frozen=True, slots=True)
class Reserve:
    """Charge the private register, then say ``budget.reserved``."""

    experiment: str
    dataset: str
    charges: tuple[CellCharge, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Say ``budget.refused``."""

    experiment: str
    dataset: str
    reason: BudgetRefusal


@dataclass(frozen=True, slots=True)
class Train:
    """Make the round's noisy vector."""

    experiment: str
    dataset: str
    round: int
    attempt: int
    kind: RoundKind


@dataclass(frozen=True, slots=True)
class Send:
    """Hand in the vector that the outbox holds for the round."""

    experiment: str
    dataset: str
    round: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Count what this register cannot account for: in full, or as it was settled.

    A reservation of an experiment, or released statistics: ``experiment`` is then their permission.
    """

    experiment: str
    dataset: str
    charges: tuple[CellCharge, ...]
    used: Map[Purpose, int] | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """Close the intents, then say ``budget.settled`` for these steps."""

    experiment: str
    dataset: str
    used: Map[Purpose, int]


@dataclass(frozen=True, slots=True)
class CloseAccount:
    """The log has the settlement (or never had the reservation): give back the rest here, too."""

    experiment: str
    dataset: str
    used: Map[Purpose, int]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done yet; ``why`` is for people."""

    experiment: str
    dataset: str
    why: str


Duty = (
    CheckPlan | Reserve | Refuse | Train | Send | Adopt | Settle | CloseAccount | Wait | MaskingDuty
)
