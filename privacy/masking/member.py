"""A member's side of a masked round, phase by phase (PRIVACY 3.9, R0 to R4).

R0 `advertise`  two ephemeral X25519 pairs and a seed for the member's own mask.
R1 `share`      Shamir shares of the seed and of the masking key, sealed for each member.
R2 `mask`       y = x + PRG(seed) + sum of PRG(pair) over later members - over earlier ones, mod 2^64.
R3 `agree`      what is signed about whose vectors are there.
R4 `unmask`     for a member whose vector is there a share of its seed, for one that dropped out
                after R1 a share of its masking key. Never both, never again for other survivors.

Promise: all that a member keeps between phases is `Secrets`; each phase returns the next one, which
the caller must have made durable before what the phase made leaves. From it the phases refuse to mask
a second vector, agree to a second set of survivors, or reveal for one, in the same round.

What it rests on: that keys and digests come with their members' signatures, which is for the caller
to check. A coordinator that keeps to the protocol learns only the sum with t - 1 members at its side
(t the threshold). One that tells members different things needs two sets of survivors signed by t
each, so 2t - n members that sign twice: more than a third of the roster. With fewer it gets a sum over
one set of survivors at most.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from privacy.errors import MaskingRefused
from privacy.masking import keys, shamir, streams
from privacy.masking.roster import PublicKeys, Roster, seed_commitment, survivors_digest

ENVELOPE_BYTES: Final = keys.NONCE_BYTES + 2 * shamir.SHARE_BYTES + keys.TAG_BYTES

_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a member keeps of a round; drop it when the round is over.

    Attributes:
        context: the round's.
        member: whose they are.
        sharing, masking: X25519 secrets.
        seed: of the member's own mask.
        vector: digest of the one vector that was masked, or empty.
        agreed: the survivors that were agreed to, as `survivors_digest`, or empty.
        revealed: those for whom shares were revealed, or empty.
    """

    context: bytes
    member: str
    sharing: bytes = field(repr=False)
    masking: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    vector: bytes = b""
    agreed: bytes = b""
    revealed: bytes = b""

    @property
    def public(self) -> PublicKeys:
        """The keys to advertise."""
        return PublicKeys(keys.public_of(self.sharing), keys.public_of(self.masking))

    def encode(self) -> bytes:
        """All of it as bytes; keep them as secret as it is."""
        parts = [self.context, self.sharing, self.masking, self.seed]
        optional = [
            part or bytes(_DIGEST_BYTES) for part in (self.vector, self.agreed, self.revealed)
        ]
        return b"".join(parts + optional) + self.member.encode()

    @classmethod
    def decode(cls, data: bytes) -> Secrets:
        """What `encode` gave.

        Raises:
            MaskingRefused: it is too short, or its member's name is no text.
        """
        cut = [data[at : at + 32] for at in range(0, 7 * 32, 32)]
        if len(data) <= 7 * 32:
            raise MaskingRefused("malformed", "a round's secrets end too early")
        context, sharing, masking, seed, *rest = cut
        vector, agreed, revealed = (b"" if part == bytes(32) else part for part in rest)
        try:
            member = data[7 * 32 :].decode()
        except UnicodeDecodeError:
            raise MaskingRefused("malformed", "a round's secrets name no member") from None
        return cls(context, member, sharing, masking, seed, vector, agreed, revealed)


@dataclass(frozen=True, slots=True)
class Shares:
    """What a member hands in at R1.

    Attributes:
        envelopes: by receiver, the member itself included; `ENVELOPE_BYTES` each.
        commitment: to the seed.
    """

    envelopes: Mapping[str, bytes]
    commitment: bytes


class Revealed(NamedTuple):
    """What a member hands in at R4: shares of 66 bytes.

    Attributes:
        seeds: by member whose vector is there.
        keys: by member that dropped out after R1.
        unreadable: members whose envelope did not open; they have no share here.
    """

    seeds: Mapping[str, bytes]
    keys: Mapping[str, bytes]
    unreadable: tuple[str, ...] = ()


def advertise(roster: Roster, member: str, random: shamir.RandomBytes) -> Secrets:
    """R0: make a round's secrets; ``public`` of them is to be signed and said.

    Raises:
        MaskingRefused: the member is not in the roster.
    """
    if member not in roster.members:
        raise MaskingRefused("not_a_member", f"{member} is not in this round's roster")
    return Secrets(roster.context, member, random(32), random(32), random(32))


def share(
    secrets: Secrets,
    roster: Roster,
    advertised: Mapping[str, PublicKeys],
    random: shamir.RandomBytes,
) -> Shares:
    """R1: share the seed and the masking key among those who advertised.

    The polynomials are fresh each time, so hand in one result only: keep it until it was sent.

    Args:
        secrets: of this member.
        roster: of the round.
        advertised: U1, by member, each signed by it.
        random: fresh uniform bytes.

    Raises:
        MaskingRefused: too few, a stranger, or keys that are not everybody's own.
    """
    _check_keys(secrets, roster, advertised)
    count = len(roster.members)
    seeds = shamir.split(secrets.seed, count, roster.threshold, random)
    own = shamir.split(secrets.masking, count, roster.threshold, random)
    envelopes = {}
    for name in sorted(advertised):
        at = roster.number(name) - 1
        envelopes[name] = keys.seal_share(
            secrets.sharing,
            advertised[name].sharing,
            roster.context,
            secrets.member,
            name,
            random(keys.NONCE_BYTES),
            seeds[at] + own[at],
        )
    commitment = seed_commitment(roster.context, secrets.member, secrets.seed)
    return Shares(envelopes, commitment)


def mask(
    secrets: Secrets,
    roster: Roster,
    advertised: Mapping[str, PublicKeys],
    sharing: Collection[str],
    vector: npt.NDArray[np.int64],
    *,
    threads: int | None = None,
) -> tuple[Secrets, npt.NDArray[np.int64]]:
    """R2: mask this member's vector.

    Args:
        secrets: of this member.
        roster: of the round.
        advertised: U1, as at R1.
        sharing: U2, those of U1 whose shares are there.
        vector: int64 ``[n]``; its sum over all members must fit int64, by the plan.
        threads: see `streams.apply`.

    Returns:
        The secrets to keep from here on, and the masked vector, int64 ``[n]``, uniform to everybody
        who lacks a key of it.

    Raises:
        MaskingRefused: too few, a stranger, or another vector was masked in this round.
    """
    _check_keys(secrets, roster, advertised)
    roster.check("the masked sum", sharing, advertised)
    if secrets.member not in sharing:
        raise MaskingRefused("not_a_member", f"{secrets.member} handed in no shares")
    digest = hashlib.sha256(np.ascontiguousarray(vector).data).digest()
    if secrets.vector not in (b"", digest):
        raise MaskingRefused(
            "other_vector", "another vector was masked in this round; their difference would show"
        )
    masks = [streams.Mask(secrets.seed, add=True)]
    for name in sorted(set(sharing) - {secrets.member}):
        pair = (secrets.member, name)
        key = keys.mask_key(secrets.masking, advertised[name].masking, roster.context, pair)
        masks.append(streams.Mask(key, add=name > secrets.member))
    masked = vector.astype(np.int64, copy=True)
    streams.apply(masked.view(np.uint64), masks, threads=threads)
    return replace(secrets, vector=digest), masked


def agree(
    secrets: Secrets, roster: Roster, sharing: Collection[str], survivors: Collection[str]
) -> tuple[Secrets, bytes]:
    """R3: what to sign about the survivors that the coordinator names.

    Returns:
        The secrets to keep from here on, and the digest.

    Raises:
        MaskingRefused: too few, a stranger, this member masked nothing or is not named, or it agreed
            to others before.
    """
    roster.check("the unmasking", survivors, sharing)
    if not secrets.vector or secrets.member not in survivors:
        raise MaskingRefused("not_masked", f"{secrets.member} has no vector in this sum")
    digest = survivors_digest(roster.context, survivors)
    if secrets.agreed not in (b"", digest):
        raise MaskingRefused("other_survivors", "other survivors were agreed to in this round")
    return replace(secrets, agreed=digest), digest


def unmask(
    secrets: Secrets,
    roster: Roster,
    advertised: Mapping[str, PublicKeys],
    sharing: Collection[str],
    survivors: Collection[str],
    agreements: Mapping[str, bytes],
    envelopes: Mapping[str, bytes],
    *,
    keys_of: Collection[str] | None = None,
) -> tuple[Secrets, Revealed]:
    """R4: this member's shares, by which the sum over the survivors opens, and nothing else.

    Args:
        secrets: of this member.
        roster: of the round.
        advertised: U1, as at R1.
        sharing: U2, as at R2.
        survivors: U3, as agreed to: whose seeds are asked for.
        agreements: digests of R3 by member, each signed by it.
        envelopes: what each member of U2 sealed for this one at R1.
        keys_of: whose masking keys are asked for; those of U2 that are not in U3 where None.

    Returns:
        The secrets to keep, durably, before anything is revealed; and what to reveal.

    Raises:
        MaskingRefused: fewer than the threshold agreed to these survivors, both secrets of a member
            are asked for, a stranger's are, or shares were revealed for other survivors.
    """
    roster.check("the unmasking", survivors, sharing)
    asked = set(sharing) - set(survivors) if keys_of is None else set(keys_of)
    both = sorted(asked & set(survivors))
    if both:
        raise MaskingRefused("both_secrets", f"both secrets of {both[0]} would open its vector")
    strangers = sorted(asked - set(sharing))
    if strangers:
        raise MaskingRefused("not_a_member", f"{strangers[0]} handed in no shares")
    digest = survivors_digest(roster.context, survivors)
    if secrets.agreed != digest:
        raise MaskingRefused("other_survivors", "this member did not agree to these survivors")
    if secrets.revealed not in (b"", digest):
        raise MaskingRefused("other_survivors", "shares were revealed for other survivors")
    same = {name for name, said in agreements.items() if said == digest} & set(survivors)
    if len(same | {secrets.member}) < roster.threshold:
        raise MaskingRefused(
            "disputed",
            f"{len(same | {secrets.member})} members agree to these survivors; "
            f"{roster.threshold} must, or the coordinator tells them different things",
        )
    seeds, own, unreadable = {}, {}, []
    for name in sorted(set(survivors) | asked):
        opened = _open(secrets, advertised[name], name, envelopes.get(name, b""))
        if opened is None:
            unreadable.append(name)
        elif name in asked:
            own[name] = opened[shamir.SHARE_BYTES :]
        else:
            seeds[name] = opened[: shamir.SHARE_BYTES]
    kept = dataclasses.replace(secrets, revealed=digest)
    return kept, Revealed(seeds, own, tuple(unreadable))


def _open(secrets: Secrets, theirs: PublicKeys, name: str, envelope: bytes) -> bytes | None:
    """Both shares of a member, or None: a spoilt envelope hides its own shares only."""
    try:
        opened = keys.open_share(
            secrets.sharing, theirs.sharing, secrets.context, name, secrets.member, envelope
        )
    except MaskingRefused:
        return None
    return opened if len(opened) == 2 * shamir.SHARE_BYTES else None


def _check_keys(secrets: Secrets, roster: Roster, advertised: Mapping[str, PublicKeys]) -> None:
    """Everybody's keys, mine among them as I made them, and none twice."""
    roster.check("the sharing of keys", advertised, roster.members)
    if secrets.context != roster.context:
        raise MaskingRefused("malformed", "these secrets were made for another round")
    if advertised.get(secrets.member) != secrets.public:
        raise MaskingRefused("wrong_keys", f"the keys of {secrets.member} are not those it made")
    every = [key for pair in advertised.values() for key in pair]
    if len(set(every)) != len(every):
        raise MaskingRefused("wrong_keys", "a public key is advertised twice")
