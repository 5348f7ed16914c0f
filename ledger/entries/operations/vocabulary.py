"""The vocabulary: everything that can happen in a federation, as closed, typed facts.

Each operation is a frozen model whose ``type`` is a past-tense fact. The vocabulary is closed per
protocol version: an unknown type, field or enumeration value is refused at the door, never ignored.
Operations hold integers, lowercase hexadecimal, slugs and closed enumerations only. Free text, names
and floating-point numbers never enter an entry: they live in blobs named by their SHA-256, which can
be erased, and a log cannot.

Units: times are POSIX milliseconds (``*_ms``); epsilon is in millionths (``*_micro``); delta in
10^-15 (``delta_e15``); privacy charges in 2^-40 of their lane (``g``, ``r``); sensitivities and noise
deviations in grid units of 2^-20.

The models, in the modules beside this one, say what an operation looks like. Whether it takes effect
is decided by the fold.
"""

from __future__ import annotations

from typing import get_args, get_type_hints

from ledger.entries.operations.audits import LedgerReviewed, PrivacyAudited
from ledger.entries.operations.budgets import BudgetRefused, BudgetReserved, BudgetSettled
from ledger.entries.operations.datasets import CellRegistered, DatasetRegistered, DatasetWithdrawn
from ledger.entries.operations.experiments import (
    ExperimentApproved,
    ExperimentCompleted,
    ExperimentProposed,
    ExperimentRefused,
    ExperimentStopped,
    ModelDownloaded,
    ModelReleased,
)
from ledger.entries.operations.federation import (
    ChangeEndorsed,
    ChangeProposed,
    ChangeWithdrawn,
    FederationFounded,
)
from ledger.entries.operations.log import (
    ForkReported,
    NodeReady,
    NodeResumed,
    ProtocolActivated,
    ReceiptBroken,
    TimeNoted,
)
from ledger.entries.operations.masking import (
    MaskingAdvanced,
    MaskingAdvertised,
    MaskingAgreed,
    MaskingRevealed,
    MaskingShared,
)
from ledger.entries.operations.members import (
    CardErased,
    KeyConflicted,
    KeyRevoked,
    KeyRotated,
    MemberJoined,
)
from ledger.entries.operations.purposes import PurposeLimited
from ledger.entries.operations.refreshes import RefreshDeclared
from ledger.entries.operations.rounds import (
    RoundAggregated,
    RoundClosed,
    RoundOpened,
    UpdateRefused,
    UpdateSubmitted,
)
from ledger.entries.operations.statistics import StatisticsReleased, StatisticsReserved
from ledger.entries.operations.succession import FederationCarried, FederationSucceeded

GENESIS = ("federation.founded", "federation.succeeded")
"""What entry 0 may be."""

Operation = (
    FederationFounded
    | FederationSucceeded
    | FederationCarried
    | MemberJoined
    | ChangeProposed
    | ChangeEndorsed
    | ChangeWithdrawn
    | KeyRotated
    | KeyRevoked
    | KeyConflicted
    | CardErased
    | NodeReady
    | NodeResumed
    | ProtocolActivated
    | TimeNoted
    | ForkReported
    | ReceiptBroken
    | CellRegistered
    | PurposeLimited
    | RefreshDeclared
    | DatasetRegistered
    | DatasetWithdrawn
    | StatisticsReserved
    | StatisticsReleased
    | ExperimentProposed
    | ExperimentApproved
    | ExperimentRefused
    | ExperimentStopped
    | RoundOpened
    | BudgetReserved
    | BudgetRefused
    | BudgetSettled
    | UpdateSubmitted
    | UpdateRefused
    | RoundAggregated
    | RoundClosed
    | MaskingAdvertised
    | MaskingShared
    | MaskingAdvanced
    | MaskingAgreed
    | MaskingRevealed
    | ExperimentCompleted
    | ModelReleased
    | ModelDownloaded
    | PrivacyAudited
    | LedgerReviewed
)

OPERATIONS: dict[str, type[Operation]] = {
    get_args(get_type_hints(kind)["type"])[0]: kind for kind in get_args(Operation)
}
"""Each operation by its ``type``."""
