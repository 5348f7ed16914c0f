"""Who takes part in one masked round, and what all of them must mean by it.

The context is 32 bytes that name the round: experiment, round, attempt, roster, model and plan
(the caller hashes them). It is in every key, every envelope and every digest here, so nothing of one
round means anything in another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from privacy.errors import MaskingRefused

CONTEXT_BYTES: Final = 32
LEAST_MEMBERS: Final = 3
MOST_MEMBERS: Final = 64
"""Every member masks with every other one; beyond this a sparse graph would be needed (Bell et al.
2020), which is not built."""


def threshold(members: int) -> int:
    """Members who must be there at every phase, and whose shares give a secret: floor(2n/3) + 1."""
    return 2 * members // 3 + 1


class PublicKeys(NamedTuple):
    """A member's two ephemeral X25519 public keys.

    Attributes:
        sharing: for envelopes.
        masking: for masks.
    """

    sharing: bytes
    masking: bytes


@dataclass(frozen=True, slots=True)
class Roster:
    """The members of a round and its context.

    Attributes:
        context: 32 bytes that name the round.
        members: different names, sorted; their places are their numbers.
    """

    context: bytes
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.context) != CONTEXT_BYTES:
            raise MaskingRefused("malformed", f"a context has {CONTEXT_BYTES} bytes")
        if list(self.members) != sorted(set(self.members)):
            raise MaskingRefused("malformed", "members are different names in sorted order")
        if not LEAST_MEMBERS <= len(self.members) <= MOST_MEMBERS:
            raise MaskingRefused(
                "too_few" if len(self.members) < LEAST_MEMBERS else "malformed",
                f"a roster has {LEAST_MEMBERS} to {MOST_MEMBERS} members, not {len(self.members)}",
            )

    @property
    def threshold(self) -> int:
        """See `threshold`."""
        return threshold(len(self.members))

    def number(self, member: str) -> int:
        """A member's number, from 1: where its shares lie."""
        return self.members.index(member) + 1

    def check(self, phase: str, taking_part: Collection[str], within: Collection[str]) -> None:
        """See that those who take part in a phase were in the one before, and are enough.

        Raises:
            MaskingRefused: a stranger, or fewer than the threshold.
        """
        strangers = sorted(set(taking_part) - set(within))
        if strangers:
            raise MaskingRefused(
                "not_a_member", f"{strangers[0]} cannot take part in {phase}: not in the one before"
            )
        if len(set(taking_part)) < self.threshold:
            raise MaskingRefused(
                "too_few",
                f"{len(set(taking_part))} of {len(self.members)} take part in {phase}; "
                f"{self.threshold} are needed",
            )


def survivors_digest(context: bytes, survivors: Iterable[str]) -> bytes:
    """What a member signs in the consistency round: the round, and whose vectors it takes as there."""
    hashed = hashlib.sha256(b"consilium masking survivors v1\n" + context)
    for name in sorted(survivors):
        data = name.encode()
        hashed.update(len(data).to_bytes(2, "big") + data)
    return hashed.digest()


def seed_commitment(context: bytes, member: str, seed: bytes) -> bytes:
    """What a member says of its own mask's seed beforehand, so that a wrong share shows."""
    name = member.encode()
    about = b"consilium masking seed v1\n" + context + len(name).to_bytes(2, "big") + name
    return hashlib.sha256(about + seed).digest()
