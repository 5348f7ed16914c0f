"""Operations on datasets and on the cells of people in them, and the charge that every use of a cell pays.

Sizes are declared, never counted. Charges are in units of 2^-40 of their lane.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.entries.operations.values import BlobRef, Count, Hash, Positive, Slug, Value


class CellLimit(Value):
    """The integer gates of a cell, both lanes at half of its delta (units 2^-40)."""

    g_max: Positive
    r_max: Positive
    order_centi: Annotated[int, Meta(ge=101, le=1_000_000)]


class CellRegistered(Value):
    """A cell of patients gets its lifetime promise, once and for ever.

    Attributes:
        declared_patients: the nominal size that may be public; never a counted one.
        block: calendar block of first registration, e.g. ``2024q1``, or ``all``.
        half: the patients who are in it; ``individual`` is the training half, where the node accounts for
            each patient alone, and the log for none.
    """

    type: Literal["cell.registered"]
    cell: Slug
    block: Slug
    half: Literal["train", "test", "both", "individual"]
    declared_patients: Positive
    epsilon_micro: Positive
    delta_e15: Annotated[int, Meta(ge=1, le=10**12)]
    limit: CellLimit


class CellUse(Value):
    """What a dataset's rows in a cell are for."""

    cell: Slug
    use: Literal["train", "test", "both"]


class CellCharge(Value):
    """A charge to one cell in both lanes, units of 2^-40, rounded up."""

    cell: Slug
    g: Count
    r: Count


class DatasetRegistered(Value, rename={"schema_": "schema"}):
    """A hospital offers a dataset: public schema, declared sizes, cells, a salted snapshot root.

    Registering again under the same name replaces the snapshot and schema; spend stays with the cells.
    """

    type: Literal["dataset.registered"]
    dataset: Slug
    schema_: BlobRef
    unit: Literal["patient", "record"]
    declared_train: Positive
    declared_test: Count
    cells: Annotated[tuple[CellUse, ...], Meta(min_length=1, max_length=256)]
    snapshot: Hash
    card: Hash | None


WithdrawalReason = Literal["consent", "quality", "legal", "policy", "other"]


class DatasetWithdrawn(Value):
    """No further use of the dataset, from this entry on."""

    type: Literal["dataset.withdrawn"]
    dataset: Slug
    reason: WithdrawalReason
