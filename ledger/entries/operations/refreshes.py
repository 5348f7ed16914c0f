"""A hospital's word that the promise to a cell of its patients renews after a fixed time.

Said once, after the cell's registration and before any dataset names the cell; never changed, and never
said of a cell in use. Without it a promise is for ever.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.entries.operations.values import Slug, TimeMs, Value


class RefreshDeclared(Value):
    """The cell's epsilon and delta hold for each period of so many days, and not for ever.

    Attributes:
        days: length of a period; all are fixed windows of that length.
        from_ms: when the first one begins, by the node's clock.
    """

    type: Literal["refresh.declared"]
    cell: Slug
    days: Annotated[int, Meta(ge=30, le=36_525)]
    from_ms: TimeMs
