"""Operations on the federation as a whole: its founding, its policy, who is invited, what k organisations change.

A change takes effect at its k-th endorsement; counting them is for the fold.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.entries.operations.members import MemberKeys
from ledger.entries.operations.values import (
    Hash,
    KeyId,
    Organisation,
    Positive,
    Slug,
    Value,
    VerifyKey,
)


class Policy(Value):
    """What the federation agreed on; a change takes effect at the k-th endorsement under the old one.

    Attributes:
        endorsements: k, the distinct organisations a change needs (an invitation needs at most
            all that have a steward).
        max_lag: entries after its ``seen`` at which a permission is too old to take effect.
        max_delay_ms: the same in ``log_time``.
        max_age_ms: the age of cosignatures beyond which a node gives no permission.
        skew_ms: how far ``log_time`` may be from a node's clock.
    """

    endorsements: Positive
    max_lag: Positive
    max_delay_ms: Positive
    max_age_ms: Positive
    skew_ms: Positive


class Seat(Value):
    """One handle that an invitation lets in, and as what."""

    handle: Slug
    role: Literal["node", "steward", "researcher", "auditor"]


class Invitation(Value):
    """Lets an organisation's people in: a one-time public key bound to their handles."""

    organisation: Organisation
    key: VerifyKey
    seats: Annotated[tuple[Seat, ...], Meta(min_length=1, max_length=16)]


class FederationFounded(Value):
    """Entry 0. Its hash is the federation's id; it is final by definition."""

    type: Literal["federation.founded"]
    name: Slug
    policy: Policy
    organisation: Organisation
    keys: MemberKeys
    log_key: VerifyKey
    invitations: Annotated[tuple[Invitation, ...], Meta(max_length=256)]


class InviteChange(Value, tag="invite", tag_field="kind"):
    """Invite an organisation (or more people of one)."""

    invitation: Invitation


class RekeyChange(Value, tag="rekey", tag_field="kind"):
    """Give a member new keys without its old ones (lost, restored from a copy, compromised)."""

    member: Slug
    keys: MemberKeys


class PolicyChange(Value, tag="policy", tag_field="kind"):
    """Replace the policy."""

    policy: Policy


class WithdrawChange(Value, tag="withdraw", tag_field="kind"):
    """Withdraw an invitation: its free seats let nobody in any more."""

    invitation: KeyId


class ExpelChange(Value, tag="expel", tag_field="kind"):
    """Put an organisation out: its keys end, its datasets are withdrawn, what it spent stays spent."""

    organisation: Organisation


Change = InviteChange | RekeyChange | PolicyChange | WithdrawChange | ExpelChange


class ChangeProposed(Value):
    """A steward proposes a change, which counts as its organisation's endorsement."""

    type: Literal["change.proposed"]
    change: Change


class ChangeEndorsed(Value):
    """A steward endorses a proposed change for its organisation."""

    type: Literal["change.endorsed"]
    change: Hash


class ChangeWithdrawn(Value):
    """A steward takes back a change that its organisation proposed, before it is in force."""

    type: Literal["change.withdrawn"]
    change: Hash
