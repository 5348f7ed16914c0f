"""Operations of a masked round: keys, shares, phases, and the secrets that open the sum alone."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.entries.operations.values import BlobRef, Hash, Positive, SealKey, Share, Slug, Value


class MaskingAdvertised(Value):
    """A node's two ephemeral keys for one masked round.

    Attributes:
        context: hash of experiment, round, attempt, roster, model and plan.
        sharing: for the envelopes of shares.
        masking: for the masks with the others.
    """

    type: Literal["masking.advertised"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    context: Hash
    sharing: SealKey
    masking: SealKey


class MaskingShared(Value):
    """Shares of a node's secrets, sealed for each member of the round.

    Attributes:
        shares: the envelopes, as a blob.
        seed: commitment to the seed of the node's own mask.
    """

    type: Literal["masking.shared"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    context: Hash
    shares: BlobRef
    seed: Hash


LaterPhase = Literal["share", "mask", "unmask"]
MaskingPhase = Literal["advertise", LaterPhase]


class MaskingAdvanced(Value):
    """The coordinator ends a phase and names who goes on: before ``unmask``, the survivors."""

    type: Literal["masking.advanced"]
    experiment: Hash
    round: Positive
    attempt: Positive
    phase: LaterPhase
    datasets: Annotated[tuple[Slug, ...], Meta(min_length=1, max_length=64)]


class MaskingAgreed(Value):
    """A node signs whose vectors it takes as being in the sum, before it reveals anything."""

    type: Literal["masking.agreed"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    context: Hash
    survivors: Hash


class RevealedShare(Value):
    """A share of one secret of one dataset.

    Attributes:
        of: whose secret.
        secret: ``seed`` of who is in the sum, masking ``key`` of who dropped out.
        share: 66 bytes, below 2^521 - 1.
    """

    of: Slug
    secret: Literal["seed", "key"]
    share: Share


class MaskingRevealed(Value):
    """A node's shares of the secrets that open the sum, and no single vector."""

    type: Literal["masking.revealed"]
    experiment: Hash
    dataset: Slug
    round: Positive
    attempt: Positive
    context: Hash
    shares: Annotated[tuple[RevealedShare, ...], Meta(max_length=64)]
