"""The federation's state: what the fold of a log amounts to.

Values only, all frozen, over persistent maps, so that an older state stays valid and a step costs
microseconds. Nothing here judges; the rules do (``fold.py``). ``encoding`` gives the specified bytes
of a state and their digest. An experiment's own records are in ``experiment_state``.

The records are msgspec's, which copies one with some fields changed (`replace`) in a tenth of a
microsecond, where a dataclass takes four; the fold of a large log is little else than such copies.
"""

from __future__ import annotations

from immutables import Map
from msgspec import Struct

from ledger.entries.operations.datasets import CellRegistered, DatasetRegistered
from ledger.entries.operations.federation import Change, Invitation, Policy
from ledger.entries.operations.members import MemberKeys, Role
from ledger.entries.operations.purposes import PurposeLimited
from ledger.entries.operations.statistics import StatisticsReserved
from ledger.entries.operations.succession import Predecessor
from ledger.entries.operations.values import BlobRef, PublicKey
from ledger.formats.value import replace as replace
from ledger.rules.experiment_state import Experiment
from privacy.filters import Spend
from privacy.periods import Periods


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
    """A card, and who bound it first.

    Attributes:
        organisation: of the member or the dataset.
        dataset: whose card it is; None for a member's.
        member: whose card it is; None for a dataset's.
        erased_at: index from which nobody keeps it.
    """

    organisation: str
    dataset: str | None
    member: str | None
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
    """What was reserved of a cell for one purpose, and what may be at most; None where all may.

    Attributes:
        spend: where the cell's promise renews, that of its period.
        open_g, open_r: where it renews, what of that is still open (``privacy.periods``); else 0.
    """

    terms: PurposeLimited | None = None
    spend: Spend = Spend()
    open_g: int = 0
    open_r: int = 0


class Cell(Struct, frozen=True):
    """A cell of patients: its promise and what was reserved of it, in all and by purpose.

    Attributes:
        spend: of all time; where the promise renews, of the period in ``periods``, which is that of the
            newest change (``ledger.rules.purposes.now`` gives the one of a time).
        periods: None where the promise is for ever.
    """

    organisation: str
    registered_at: int
    terms: CellRegistered
    spend: Spend = Spend()
    purposes: Map[str, PurposeShare] = Map()
    periods: Periods | None = None


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
