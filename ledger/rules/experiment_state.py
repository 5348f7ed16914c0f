"""An experiment in the federation's state: who said yes, what is set aside, and the round under way.

Values only, all frozen, as in ``state``, which holds them by the experiment's id. Nothing here judges;
``experiments``, ``rounds``, ``budget`` and ``masking`` do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from immutables import Map
from msgspec import Struct

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.masking import MaskingPhase, RevealedShare
from ledger.entries.operations.plans import Plan, SitePlan
from ledger.entries.operations.rounds import RoundKind
from ledger.entries.operations.values import BlobRef

_KEPT_PLANS = 64

ExperimentStatus = Literal["proposed", "running", "completed", "released", "stopped"]


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
