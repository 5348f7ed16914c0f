"""Operations on a member: how it joins, under which keys, and how keys end.

That a proof is by the key it names, and whether the signer may say it, is for the fold.
"""

from __future__ import annotations

from typing import Literal

from ledger.entries.operations.values import (
    Hash,
    KeyId,
    LeafText,
    SealKey,
    Signature,
    Slug,
    TimeMs,
    Value,
    VerifyKey,
)

Role = Literal["coordinator", "node", "steward", "researcher", "auditor"]


class MemberKeys(Value):
    """The separate keys of one member: a chain, a witness, HTTP requests, sealed blobs."""

    entry: VerifyKey
    request: VerifyKey
    sealing: SealKey
    witness: VerifyKey | None


class MemberJoined(Value):
    """A member takes its seat; the one entry that is signed by a key it enrols.

    Attributes:
        invitation: id of the invitation's one-time key.
        proof: that key's signature over the federation id, handle and keys (kind ``invitation``).
        card: salted commitment to names and contact, or null.
    """

    type: Literal["member.joined"]
    invitation: KeyId
    keys: MemberKeys
    proof: Signature
    card: Hash | None


class KeyRotated(Value):
    """A member replaces its keys with the old ones in hand; ``proof`` is by the new entry key."""

    type: Literal["key.rotated"]
    keys: MemberKeys
    proof: Signature


class KeyRevoked(Value):
    """A member's keys end here. Never retroactive: a compromise date marks entries as disputed."""

    type: Literal["key.revoked"]
    member: Slug
    compromised_since_ms: TimeMs | None


class CardErased(Value):
    """A card is to be forgotten: every copy deletes the blob; the commitment, and every proof, stays."""

    type: Literal["card.erased"]
    card: Hash


class KeyConflicted(Value):
    """Two entries that one key signed for one place of its chain, as leaves; the key ends here."""

    type: Literal["key.conflicted"]
    first: LeafText
    second: LeafText
