"""What an experiment may be for, and a hospital's word on how much of a promise each purpose may use.

The codes follow the purposes of secondary use in the European Health Data Space (Regulation (EU) 2025/327,
Article 53), with product development apart from other research. Which one an experiment states is in its
plan, and so in what a steward approves; nothing in a log shows that it is true.
"""

from __future__ import annotations

from typing import Literal

from ledger.entries.operations.values import Count, Slug, Value

PurposeCode = Literal[
    "research", "public_health", "care", "policy", "statistics", "education", "development"
]


class PurposeLimited(Value):
    """A hospital says how much of a cell's promise a purpose may use at most; only ever lowered.

    Attributes:
        purpose: that experiments state; ``statistics`` is also what is told before any experiment.
        epsilon_micro: of all that is released for the purpose together, at the cell's delta; 0 for
            nothing at all.
        g_max, r_max: the integer gates of that, both lanes at half of the cell's delta, at its order.
    """

    type: Literal["purpose.limited"]
    cell: Slug
    purpose: PurposeCode
    epsilon_micro: Count
    g_max: Count
    r_max: Count
