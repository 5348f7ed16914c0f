"""Operations that begin a log which takes over from another: its genesis, and the old state in parts.

That the parts are what the old log amounted to, every member judges by its own copy.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.entries.operations.datasets import CellRegistered, DatasetRegistered
from ledger.entries.operations.federation import Policy
from ledger.entries.operations.members import MemberKeys
from ledger.entries.operations.purposes import PurposeCode, PurposeLimited
from ledger.entries.operations.values import (
    Count,
    Hash,
    Organisation,
    Positive,
    Signature,
    Slug,
    TimeMs,
    Value,
    VerifyKey,
)


class Predecessor(Value):
    """A log that is succeeded: its id, its last final checkpoint, and the digest of the state there."""

    federation: Hash
    size: Positive
    root: Hash
    state: Hash


class SuccessionEndorsement(Value):
    """A steward's signature (kind ``succession``) under the genesis of a successor."""

    steward: Slug
    signature: Signature


class CarriedMember(Value):
    """A member of the old federation, under the keys that it has there; none but the coordinator's."""

    handle: Slug
    organisation: Organisation
    role: Literal["node", "steward", "researcher", "auditor"]
    keys: MemberKeys
    card: Hash | None
    active: bool
    expelled: bool
    disputed_since_ms: TimeMs | None


class CarriedKey(Value):
    """An entry key of the old federation that signs nothing more."""

    member: Slug
    public: Hash


class CarriedPurpose(Value):
    """What was reserved or spent of a cell for one purpose, and its limit or null."""

    purpose: PurposeCode
    terms: PurposeLimited | None
    g: Count
    r: Count
    g_overflowed: bool
    r_overflowed: bool


class CarriedRefresh(Value):
    """How a cell's promise renews, and what was charged in all periods so far (at most 2^53 - 1)."""

    days: Annotated[int, Meta(ge=30, le=36_525)]
    from_ms: TimeMs
    number: Count
    earlier: Count
    total_g: Count
    total_r: Count


class CarriedCell(Value):
    """A cell of the old federation, with all that was reserved or spent of it (at most 2^53 - 1).

    Where its promise renews, that of its newest period.
    """

    organisation: Organisation
    terms: CellRegistered
    g: Count
    r: Count
    g_overflowed: bool
    r_overflowed: bool
    purposes: Annotated[tuple[CarriedPurpose, ...], Meta(max_length=16)]
    refresh: CarriedRefresh | None


class CarriedDataset(Value):
    """A dataset of the old federation as it was last registered there, by that entry's hash."""

    organisation: Organisation
    node: Slug
    registration: Hash
    terms: DatasetRegistered
    withdrawn: bool


class FederationSucceeded(Value):
    """Entry 0 of a log that takes over from another one, which cannot go on.

    Attributes:
        predecessor: the old log, up to its last final checkpoint.
        carried: SHA-256 of each part of the old state, in order; the parts are entries 1 to n.
        endorsements: stewards of the old federation, who signed this body with this list empty.
    """

    type: Literal["federation.succeeded"]
    name: Slug
    policy: Policy
    organisation: Organisation
    keys: MemberKeys
    log_key: VerifyKey
    predecessor: Predecessor
    carried: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=256)]
    endorsements: Annotated[tuple[SuccessionEndorsement, ...], Meta(max_length=64)]


class FederationCarried(Value):
    """A part of the old state that the genesis of a successor names."""

    type: Literal["federation.carried"]
    members: Annotated[tuple[CarriedMember, ...], Meta(max_length=256)]
    keys: Annotated[tuple[CarriedKey, ...], Meta(max_length=256)]
    cells: Annotated[tuple[CarriedCell, ...], Meta(max_length=256)]
    datasets: Annotated[tuple[CarriedDataset, ...], Meta(max_length=256)]
