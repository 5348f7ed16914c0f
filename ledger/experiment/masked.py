"""The blobs and sums of masked rounds: between the entries of the fold and ``privacy.masking``.

Pure, and the same for nodes, the coordinator and auditors: who holds the masked vectors and the
revealed shares recomputes a round's sum to the last bit.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ledger.entries.operations.masking import RevealedShare
from ledger.errors import MalformedInput
from ledger.experiment.tensors import Int64Vector
from ledger.rules.experiment_state import Masking, MaskKeys, MaskShares, OpenRound
from ledger.rules.masking import SHARES_LINE, shares_bytes
from privacy.masking.member import ENVELOPE_BYTES
from privacy.masking.recover import Opened, recover, take_off
from privacy.masking.roster import PublicKeys, Roster


@dataclass(frozen=True)
class MaskedRound:
    """All that opens a masked round's sum, as entries say it.

    Attributes:
        context: hex.
        cohort: the roster.
        keys: of all who advertised.
        shares: of all who shared and went on; their commitments count here.
        survivors: whose vectors are in the sum.
        revealed: by holder.
    """

    context: str
    cohort: tuple[str, ...]
    keys: Mapping[str, MaskKeys]
    shares: Mapping[str, MaskShares]
    survivors: tuple[str, ...]
    revealed: Mapping[str, tuple[RevealedShare, ...]]


def masked_round(current: OpenRound, masking: Masking) -> MaskedRound:
    """What the fold has of the open round, in its last phase."""
    shares = {name: masking.shares[name] for name in masking.sharing}
    return MaskedRound(
        masking.context, current.cohort, masking.keys, shares, masking.members, masking.revealed
    )


def roster_of(context: str, cohort: tuple[str, ...]) -> Roster:
    """The round's roster."""
    return Roster(bytes.fromhex(context), cohort)


def public_keys(keys: Mapping[str, MaskKeys]) -> dict[str, PublicKeys]:
    """Advertised keys as bytes."""
    return {
        name: PublicKeys(bytes.fromhex(pair.sharing), bytes.fromhex(pair.masking))
        for name, pair in keys.items()
    }


def open_sum(total: Int64Vector, about: MaskedRound) -> Int64Vector:
    """The exact sum of the survivors' vectors.

    Args:
        total: int64 ``[n]``, the sum mod 2^64 of the survivors' masked vectors.
        about: the round.

    Raises:
        SharesMissing: too few of the revealed shares fit together.
    """
    opened = opened_by(about)
    return take_off(total, roster_of(about.context, about.cohort), public_keys(about.keys), opened)


def opened_by(about: MaskedRound) -> Opened:
    """The secrets that the revealed shares give.

    Raises:
        SharesMissing: too few of them fit together.
    """
    roster = roster_of(about.context, about.cohort)
    advertised = public_keys(about.keys)
    commitments = {name: bytes.fromhex(shares.seed) for name, shares in about.shares.items()}
    revealed = {
        holder: {share.of: bytes.fromhex(share.share) for share in shares}
        for holder, shares in about.revealed.items()
    }
    return recover(roster, advertised, commitments, about.survivors, revealed)


def encode_shares(envelopes: Mapping[str, bytes]) -> bytes:
    """The blob of ``masking.shared``: a line, then the envelopes by name."""
    return SHARES_LINE + b"".join(envelopes[name] for name in sorted(envelopes))


def envelope_for(data: bytes, members: Iterable[str], receiver: str) -> bytes:
    """One receiver's envelope.

    Args:
        data: the blob exactly as received.
        members: who advertised.
        receiver: one of them.

    Raises:
        MalformedInput: it is not such a blob.
    """
    names = sorted(members)
    if len(data) != shares_bytes(len(names)) or not data.startswith(SHARES_LINE):
        raise MalformedInput("shares", f"is not a blob of {len(names)} envelopes")
    at = len(SHARES_LINE) + names.index(receiver) * ENVELOPE_BYTES
    return data[at : at + ENVELOPE_BYTES]


def vector_commitment(
    secret: bytes, experiment: str, dataset: str, round_number: int, vector: bytes
) -> str:
    """What a node says of the noisy vector under its masks: hides it, and is the same again.

    Args:
        secret: the hospital's own, 32 bytes.
        experiment: id.
        dataset: name.
        round_number: of the round.
        vector: the vector's blob.
    """
    about = f"consilium masked vector v1\n{experiment}\n{dataset}\n{round_number}\n".encode()
    digest = hashlib.sha256(vector).digest()
    return hmac.new(secret, about + digest, hashlib.sha256).hexdigest()
