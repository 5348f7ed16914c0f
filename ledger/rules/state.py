"""The federation's state: what the fold of a log amounts to.

Values only, all frozen, over persistent maps, so that an older state stays valid and a step costs
microseconds. Nothing here judges; the rules do (``fold.py``). `encode` gives the specified bytes of
a state and `digest` their SHA-256: two parties who folded the same entries hold the same digest.

The records are msgspec's, which copies one with some fields changed (`replace`) in a tenth of a
microsecond, where a dataclass takes four; the fold of a large log is little else than such copies.

Encoding: canonical JSON. A map becomes an object with sorted keys, a set a sorted array, a record an
object of all its fields; an integer above 2^53 - 1 (a closed lane's sum can grow so far) the string
of its digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, NamedTuple

import orjson
from immutables import Map
from msgspec import Struct
from msgspec.structs import fields
from pydantic import BaseModel

from ledger.entries.operations.datasets import CellCharge, CellRegistered, DatasetRegistered
from ledger.entries.operations.federation import Change, Invitation, Policy
from ledger.entries.operations.masking import MaskingPhase, RevealedShare
from ledger.entries.operations.members import MemberKeys, Role
from ledger.entries.operations.plans import Plan, SitePlan
from ledger.entries.operations.purposes import PurposeLimited
from ledger.entries.operations.rounds import RoundKind
from ledger.entries.operations.statistics import StatisticsReserved
from ledger.entries.operations.succession import Predecessor
from ledger.entries.operations.values import MAX_INT, BlobRef, PublicKey
from privacy.filters import Spend

if TYPE_CHECKING:
    from dataclasses import replace as replace  # so that each field is checked
else:
    from msgspec.structs import replace as replace


_KEPT_PLANS = 64

ExperimentStatus = Literal["proposed", "running", "completed", "released", "stopped"]


class KeyState(Struct, frozen=True):
    """One entry key and the head of its chain.

    Attributes:
        member: whose it is.
        public: raw Ed25519 public key, hex.
        next_seq: the ``seq`` that the chain's next entry must have.
        head: hash of the chain's newest sequenced entry.
        retired_at: index from which the key signs nothing more, or None.
        conflicted_at: index of the entry that shows two entries at one place of this chain, or None.
    """

    member: str
    public: str
    next_seq: int
    head: str
    retired_at: int | None = None
    conflicted_at: int | None = None


class Member(Struct, frozen=True):
    """A member of the federation.

    Attributes:
        revoked_at: index at which its keys ended, until it got new ones.
        disputed_since_ms: compromise date stated with the newest revocation.
        expelled_at: index at which its organisation was expelled; no keys come after that.
        ready: its node counts as a witness.
        protocol: the newest version that a node said its software knows; 0 for none.
    """

    handle: str
    organisation: str
    role: Role
    keys: MemberKeys
    joined_at: int
    card: str | None = None
    revoked_at: int | None = None
    disputed_since_ms: int | None = None
    expelled_at: int | None = None
    ready: bool = False
    protocol: int = 0


class OpenInvitation(Struct, frozen=True):
    """An invitation that came into force, and the handles that already took their seats.

    Attributes:
        withdrawn_at: index from which it lets nobody in, or None. It stays here: its one-time key
            never serves again.
    """

    invitation: Invitation
    taken: frozenset[str] = frozenset()
    withdrawn_at: int | None = None

    @property
    def free(self) -> frozenset[str]:
        """Handles that it still lets in."""
        if self.withdrawn_at is not None:
            return frozenset()
        return frozenset(seat.handle for seat in self.invitation.seats) - self.taken


class PendingChange(Struct, frozen=True):
    """A proposed change and the organisations that stand behind it."""

    change: Change
    proposed_by: str
    organisations: frozenset[str]
    effective_at: int | None = None


class BoundCard(Struct, frozen=True):
    """A card, and the organisation that bound it first.

    Attributes:
        dataset: whose card it is; None for a member's.
        erased_at: index from which nobody keeps it.
    """

    organisation: str
    dataset: str | None
    erased_at: int | None = None


class WitnessEpoch(Struct, frozen=True):
    """From a log of ``size`` entries on, these organisations count, each by any of its keys."""

    size: int
    organisations: Map[str, frozenset[str]]


class TimeMark(Struct, frozen=True):
    """The log had ``size`` entries when its time reached ``log_time``."""

    size: int
    log_time: int


class PurposeShare(Struct, frozen=True):
    """What was reserved of a cell for one purpose, and what may be at most; None where all may."""

    terms: PurposeLimited | None = None
    spend: Spend = Spend()


class Cell(Struct, frozen=True):
    """A cell of patients: its lifetime promise and what was reserved of it, in all and by purpose."""

    organisation: str
    registered_at: int
    terms: CellRegistered
    spend: Spend = Spend()
    purposes: Map[str, PurposeShare] = Map()


class Dataset(Struct, frozen=True):
    """A dataset as last registered."""

    organisation: str
    node: str
    registered_at: int
    registration: str
    terms: DatasetRegistered
    withdrawn_at: int | None = None


class Statistics(Struct, frozen=True):
    """Statistics that a steward let its node release, and where they are once released."""

    steward: str
    index: int
    at_ms: int
    terms: StatisticsReserved
    result: BlobRef | None = None


class Approval(Struct, frozen=True):
    """A steward's yes, and its conditions.

    Attributes:
        at_ms: the steward's clock. The fold judges nothing by it; nodes do, beside the times at
            which hospitals cosigned.
    """

    steward: str
    index: int
    at_ms: int
    epsilon_max_micro: int
    until_ms: int


class Refusal(Struct, frozen=True):
    """A no, by a steward or by a node."""

    member: str
    index: int
    reason: str


class Vectors(Struct, frozen=True):
    """The vectors that a node handed in for one kind of round, void updates included.

    Attributes:
        different: how many; the newest one again costs nothing and counts once.
        newest: SHA-256 of the last one.
    """

    different: int
    newest: str


class Reservation(Struct, frozen=True):
    """What a node set aside for one experiment, and how far it has used it.

    Attributes:
        used: steps by purpose whose noise may have been used: the largest number ever stated, and
            no less than the vectors that were handed in need.
        served: training rounds for which an update counted.
        vectors: by kind of round.
    """

    index: int
    charges: tuple[CellCharge, ...]
    used: Map[str, int] = Map()
    served: int = 0
    vectors: Map[str, Vectors] = Map()
    settled_at: int | None = None


class Update(Struct, frozen=True):
    """An update that arrived in time."""

    entry: str
    blob: BlobRef
    index: int
    refused: str | None = None


class MaskKeys(Struct, frozen=True):
    """The ephemeral public keys that a node advertised, hex."""

    sharing: str
    masking: str


class MaskShares(Struct, frozen=True):
    """Where a node's sealed shares are, and its commitment to the seed of its own mask."""

    blob: BlobRef
    seed: str


class Masking(Struct, frozen=True):
    """Where a masked round stands.

    Attributes:
        context: what every message of it is bound to.
        phase: the one that is open.
        members: who takes part in it: the cohort, then who advertised, who shared, who is in the sum.
        keys: by dataset, of all who advertised.
        sharing: who shared, once the masks are asked for.
        shares: by dataset.
        agreed: who signed the survivors.
        revealed: by dataset, the shares it revealed.
    """

    context: str
    phase: MaskingPhase
    members: tuple[str, ...]
    keys: Map[str, MaskKeys] = Map()
    sharing: tuple[str, ...] = ()
    shares: Map[str, MaskShares] = Map()
    agreed: frozenset[str] = frozenset()
    revealed: Map[str, tuple[RevealedShare, ...]] = Map()


class OpenRound(Struct, frozen=True):
    """The round that is under way; ``masking`` under secure aggregation."""

    number: int
    attempt: int
    kind: RoundKind
    cohort: tuple[str, ...]
    model: BlobRef
    deadline_ms: int
    index: int
    updates: Map[str, Update] = Map()
    masking: Masking | None = None


class Site(NamedTuple):
    """What a plan asks of one dataset, and the steps that it reserves there, by purpose."""

    plan: SitePlan
    steps: Mapping[str, int]


class Experiment(Struct, frozen=True):
    """An experiment from its proposal to its model."""

    id: str
    index: int
    name: str
    researcher: str
    organisation: str
    spec: BlobRef
    plan: Plan
    model: BlobRef
    status: ExperimentStatus = "proposed"
    reason: str | None = None
    approvals: Map[str, Approval] = Map()
    refusals: Map[str, Refusal] = Map()
    reservations: Map[str, Reservation] = Map()
    budget_refusals: Map[str, Refusal] = Map()
    next_round: int = 1
    next_attempt: int = 1
    round: OpenRound | None = None

    @property
    def ended(self) -> bool:
        """No further round will open."""
        return self.status in ("completed", "released", "stopped")

    @property
    def sites(self) -> Mapping[str, Site]:
        """The plan's sites by dataset."""
        known = _SITES.get(id(self.plan))
        if known is not None and known[0] is self.plan:
            return known[1]
        return _index_sites(self.plan)


class Succession(Struct, frozen=True):
    """How a log took over from another.

    Attributes:
        predecessor: the old log, up to its last final checkpoint.
        carried: hashes of the parts of its state.
        taken: how many of them are here; nothing else takes effect before all are.
        endorsements: stewards and their signatures, as genesis has them.
        claim: what they signed, hex.
    """

    predecessor: Predecessor
    carried: tuple[str, ...]
    taken: int
    endorsements: tuple[tuple[str, str], ...]
    claim: str

    @property
    def complete(self) -> bool:
        """Whether all parts are here."""
        return self.taken == len(self.carried)


class State(Struct, frozen=True):
    """Everything that a log of ``size`` entries says, as of its ``log_time``."""

    federation: str
    name: str
    policy: Policy
    log_key: PublicKey
    coordinator: str
    size: int
    log_time: int
    time_marks: tuple[TimeMark, ...]
    members: Map[str, Member]
    keys: Map[str, KeyState]
    invitations: Map[str, OpenInvitation]
    changes: Map[str, PendingChange]
    witnesses: tuple[WitnessEpoch, ...]
    cells: Map[str, Cell]
    datasets: Map[str, Dataset]
    experiments: Map[str, Experiment]
    statistics: Map[str, Statistics] = Map()
    cards: Map[str, BoundCard] = Map()
    protocol: int = 1
    succession: Succession | None = None

    def witnesses_at(self, size: int) -> Map[str, frozenset[str]]:
        """Who counted as a witness in the state of a log of ``size`` entries: organisation -> keys."""
        current: Map[str, frozenset[str]] = Map()
        for epoch in self.witnesses:
            if epoch.size > size:
                break
            current = epoch.organisations
        return current

    def organisations_with_steward(self) -> frozenset[str]:
        """Organisations that can endorse: those with a steward who is not revoked."""
        return frozenset(
            m.organisation
            for m in self.members.values()
            if m.role == "steward" and m.revoked_at is None
        )


_SITES: dict[int, tuple[Plan, Mapping[str, Site]]] = {}
"""Plans that rounds ran under of late, by identity: an experiment's plan never changes."""


def _index_sites(plan: Plan) -> Mapping[str, Site]:
    if len(_SITES) >= _KEPT_PLANS:
        _SITES.clear()
    sites = {
        site.dataset: Site(site, {release.purpose: release.steps for release in site.releases})
        for site in plan.sites
    }
    _SITES[id(plan)] = plan, sites
    return sites


def encode(state: State) -> bytes:
    """The specified bytes of a state: canonical JSON, see the module's first lines."""
    return orjson.dumps(_plain(state), option=orjson.OPT_SORT_KEYS)


def digest(state: State) -> str:
    """SHA-256 of `encode`, lowercase hex."""
    return hashlib.sha256(encode(state)).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Struct):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Spend):
        return {name: _plain(item) for name, item in asdict(value).items()}
    if isinstance(value, Map):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, int) and value > MAX_INT:
        return str(value)
    return value
