"""What a log recorded, as values: datasets, cells, experiments, rounds and members over their lives.

Nothing here judges. Times are POSIX ms of the author's own clock (``at_ms``). `History` fills them in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from ledger.entries.operations.budgets import BudgetRefused, BudgetReserved, BudgetSettled
from ledger.entries.operations.datasets import CellRegistered, DatasetRegistered
from ledger.entries.operations.experiments import ExperimentProposed
from ledger.entries.operations.plans import Plan
from ledger.entries.operations.rounds import RoundAggregated, RoundOpened
from ledger.entries.operations.statistics import StatisticsReserved
from ledger.entries.operations.values import BlobRef
from ledger.entries.operations.vocabulary import Operation
from ledger.rules.experiment_state import OpenRound
from privacy.filters import Spend


@dataclass(frozen=True, slots=True)
class Said:
    """Who said something, where in the log, and when by their own clock.

    Attributes:
        index: the entry.
        hash: its leaf hash.
        author, organisation: whose statement it is.
        at_ms: the author's clock.
        log_time: the log's time after the entry.
    """

    index: int
    hash: str
    author: str
    organisation: str
    at_ms: int
    log_time: int


@dataclass(frozen=True, slots=True)
class Registration:
    """A version of a dataset."""

    said: Said
    terms: DatasetRegistered


@dataclass(slots=True)
class DatasetRecord:
    """A dataset over its life."""

    name: str
    organisation: str
    versions: list[Registration] = field(default_factory=list)
    withdrawn: tuple[Said, str] | None = None

    @property
    def current(self) -> Registration:
        """The newest version."""
        return self.versions[-1]


@dataclass(frozen=True, slots=True)
class SpendPoint:
    """What a cell had reserved and spent after an entry."""

    index: int
    at_ms: int
    spend: Spend


@dataclass(slots=True)
class CellRecord:
    """A cell of patients: its promise and how it was spent."""

    said: Said
    terms: CellRegistered
    points: list[SpendPoint] = field(default_factory=list)


@dataclass(slots=True)
class StatisticsRecord:
    """Statistics that a steward let its node release.

    Attributes:
        released: when the node answered, and where the numbers are.
    """

    said: Said
    terms: StatisticsReserved
    released: tuple[Said, BlobRef] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A steward's yes or no.

    Attributes:
        approved: yes or no.
        epsilon_max_micro, until_ms: the yes's conditions.
        reason: of the no.
    """

    said: Said
    dataset: str
    approved: bool
    epsilon_max_micro: int = 0
    until_ms: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """An update as it was submitted; ``void`` says why it did not count.

    Attributes:
        vector: which noisy vector it holds: the blob's SHA-256, or under masks the commitment.
    """

    said: Said
    dataset: str
    round: int
    attempt: int
    blob: BlobRef
    vector: str
    used: dict[str, int]
    void: str | None


@dataclass(slots=True)
class RoundRecord:
    """One attempt at a round.

    Attributes:
        closed_reason: why it ended without a sum.
        masked: under secure aggregation, the round as its last phase left it.
    """

    said: Said
    terms: RoundOpened
    updates: dict[str, UpdateRecord] = field(default_factory=dict)
    refused: dict[str, tuple[Said, str]] = field(default_factory=dict)
    aggregated: tuple[Said, RoundAggregated] | None = None
    closed: Said | None = None
    closed_reason: str | None = None
    masked: OpenRound | None = None

    def counted(self) -> dict[str, UpdateRecord]:
        """The updates that the sum names, by dataset; none without a sum."""
        if self.aggregated is None:
            return {}
        named = set(self.aggregated[1].updates)
        return {d: u for d, u in self.updates.items() if u.said.hash in named}


@dataclass(slots=True)
class Held:
    """A reservation and what became of it."""

    said: Said
    terms: BudgetReserved
    settled: tuple[Said, BudgetSettled] | None = None


@dataclass(slots=True)
class ExperimentRecord:
    """An experiment from its proposal to its model.

    Attributes:
        sites: the version of each dataset that the plan was made for.
        all_updates: every update, counted, void or refused.
    """

    said: Said
    terms: ExperimentProposed
    sites: dict[str, Registration]
    decisions: list[Decision] = field(default_factory=list)
    held: dict[str, Held] = field(default_factory=dict)
    node_refusals: list[tuple[Said, BudgetRefused]] = field(default_factory=list)
    rounds: list[RoundRecord] = field(default_factory=list)
    all_updates: list[UpdateRecord] = field(default_factory=list)
    stopped: tuple[Said, str] | None = None
    completed: tuple[Said, BlobRef] | None = None
    released: tuple[Said, BlobRef] | None = None
    downloads: list[tuple[Said, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The experiment's id."""
        return self.said.hash

    @property
    def plan(self) -> Plan:
        """Its plan."""
        return self.terms.plan

    def aggregates(self) -> list[tuple[RoundRecord, RoundAggregated]]:
        """The rounds that ended in a sum, in order."""
        return [(r, r.aggregated[1]) for r in self.rounds if r.aggregated is not None]


@dataclass(slots=True)
class MemberRecord:
    """A member, and where each of its entry keys was admitted: key id to index."""

    said: Said
    handle: str
    organisation: str
    role: str
    keys: dict[str, int]


@dataclass(frozen=True, slots=True)
class Dispute:
    """A compromise date that was stated when a member's keys were revoked. Nothing is undone.

    Attributes:
        said: the revocation.
        member: whose keys.
        since_ms: the date.
        entries: what these keys signed that may have been sequenced at that date or after it: log
            time moves in steps, so what lies within the step before the date is among them.
    """

    said: Said
    member: str
    since_ms: int
    entries: tuple[int, ...]

    @property
    def day(self) -> str:
        """The date, UTC."""
        return datetime.fromtimestamp(self.since_ms / 1000, UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class VoidRecord:
    """An entry without effect."""

    said: Said
    op: Operation
    reason: str
