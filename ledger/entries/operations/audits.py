"""Operations of those who check: what a privacy audit measured, what a reviewer of the log found."""

from __future__ import annotations

from typing import Literal

from ledger.entries.operations.values import Count, Hash, Positive, Value


class PrivacyAudited(Value):
    """Somebody checked that what leaves behaves as the proof assumes; never measured on patients' rows.

    Attributes:
        kind: ``residuals``: the deviation of noise that a node's own code added to synthetic rows, over the
            planned one; ``membership``: an attack on a released model, its true positive rate at a false
            positive rate of 1 %.
        data: what it was measured on.
        experiment: the attacked model's; null for ``residuals``.
        finding: within what the proof allows, or not.
        samples: residuals, or records attacked.
        measured_ppm, low_ppm, high_ppm: the figure and its 95 % interval, in millionths.
        bound_ppm: what the proof says: the planned deviation, or the most that an attacker reaches.
    """

    type: Literal["privacy.audited"]
    kind: Literal["residuals", "membership"]
    data: Literal["synthetic", "public_twins"]
    experiment: Hash | None
    finding: Literal["as_proved", "contradicts"]
    samples: Positive
    measured_ppm: Count
    low_ppm: Count
    high_ppm: Count
    bound_ppm: Count


class LedgerReviewed(Value):
    """A steward or auditor examined the log up to a checkpoint."""

    type: Literal["ledger.reviewed"]
    size: Count
    root: Hash
    finding: Literal["in_order", "question_open", "incident"]
