"""Operations on noisy statistics of a dataset: reserved by a steward, answered once by the node."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.values import BlobRef, Hash, Positive, Slug, Value


class StatisticsReserved(Value):
    """A steward lets its node release noisy statistics of a dataset's training half, once, and pays.

    Attributes:
        registration: entry hash of the dataset's registration.
        question: what is counted, as a blob.
        size: numbers that are released.
        sensitivity: L2 bound on one patient's contribution, grid units.
        noise_sd: deviation of the rounded Gaussian on each number, grid units.
        charges: to every cell for training, in full.
    """

    type: Literal["statistics.reserved"]
    dataset: Slug
    registration: Hash
    question: BlobRef
    size: Annotated[int, Field(ge=1, le=65_536)]
    sensitivity: Positive
    noise_sd: Positive
    charges: Annotated[tuple[CellCharge, ...], Field(min_length=1, max_length=256)]


class StatisticsReleased(Value):
    """A node's one answer to a reservation of statistics: noisy numbers, for every member."""

    type: Literal["statistics.released"]
    reservation: Hash
    result: BlobRef
