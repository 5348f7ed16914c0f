"""Operations on noisy statistics of a dataset: reserved by a steward, answered once by the node."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.values import BlobRef, Hash, Positive, Slug, Value


class PurePart(Value):
    """``count`` releases of pure epsilon, each of ``epsilon_micro`` millionths at most."""

    mechanism: Literal["laplace", "noisy_max"]
    epsilon_micro: Annotated[int, Meta(ge=1, le=10_000_000)]
    count: Annotated[int, Meta(ge=1, le=1024)]


class StatisticsReserved(Value):
    """A steward lets its node release noisy statistics of a dataset's training half, once, and pays.

    Attributes:
        registration: entry hash of the dataset's registration.
        question: what is counted, as a blob.
        size: numbers that are released.
        sensitivity: bound on one patient's contribution, grid units: in L2 norm, or in L1 norm
            where there are pure parts.
        noise_sd: of the noise on each number, grid units: deviation of the rounded Gaussian, or scale
            of the discrete Laplace where there are pure parts.
        pure: mechanisms of pure epsilon in place of the Gaussian, in this order: counts and sums
            by Laplace noise, quantiles by the noisy maximum over declared candidates; or none.
        charges: to every cell for training, in full.
    """

    type: Literal["statistics.reserved"]
    dataset: Slug
    registration: Hash
    question: BlobRef
    size: Annotated[int, Meta(ge=1, le=65_536)]
    sensitivity: Positive
    noise_sd: Positive
    pure: Annotated[tuple[PurePart, ...], Meta(max_length=2)]
    charges: Annotated[tuple[CellCharge, ...], Meta(min_length=1, max_length=256)]


class StatisticsReleased(Value):
    """A node's one answer to a reservation of statistics: noisy numbers, for every member."""

    type: Literal["statistics.released"]
    reservation: Hash
    result: BlobRef
