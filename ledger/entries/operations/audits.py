"""Operations of those who check: what a privacy audit measured, what a reviewer of the log found."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from ledger.entries.operations.values import BlobRef, Count, Hash, Positive, Slug, Value

AuditKind = Literal[
    "residuals", "known_answers", "canary", "one_run", "membership", "membership_rmia"
]
TWINS: Final = ("membership", "membership_rmia")
"""Attacks on twins of a released model: LiRA, and RMIA."""
ReviewFinding = Literal["in_order", "question_open", "incident"]


class PrivacyAudited(Value):
    """Somebody checked that what leaves behaves as the proof assumes; never measured on patients' rows.

    Attributes:
        kind: ``residuals``: the deviation of noise that a node's own code added to synthetic rows, over the
            planned one; ``known_answers``: the part of the accountant's and sampler's answers that are right;
            ``canary``: mu of a plan's training, from runs with and without one made-up person; ``one_run``:
            epsilon, from one run with many of them; ``membership``: LiRA on twins of a released model,
            its true positive rate at a false positive rate of 1 %; ``membership_rmia``: RMIA, likewise.
        data: what it was measured on.
        experiment: whose plan or model; null for ``residuals`` and ``known_answers``.
        dataset: whose part of the plan, for ``canary`` and ``one_run``.
        finding: within what the proof allows, or not.
        samples: residuals, answers, runs, guesses, or records attacked.
        measured_ppm, low_ppm, high_ppm: the figure and its interval, in millionths; all three the lower
            bound where there is nothing else.
        bound_ppm: what the proof says: the planned deviation, all answers, the mu or epsilon that the plan
            charges, or the most that an attacker reaches.
        confidence_ppm: of the interval.
        result: everything that was found, as a JSON document; null for ``residuals``.
    """

    type: Literal["privacy.audited"]
    kind: AuditKind
    data: Literal["synthetic", "public_twins"]
    experiment: Hash | None
    dataset: Slug | None
    finding: Literal["as_proved", "contradicts"]
    samples: Positive
    measured_ppm: Count
    low_ppm: Count
    high_ppm: Count
    bound_ppm: Count
    confidence_ppm: Annotated[int, Meta(ge=1, le=10**6)]
    result: BlobRef | None


class LedgerReviewed(Value):
    """A steward or auditor examined the log up to a checkpoint."""

    type: Literal["ledger.reviewed"]
    size: Count
    root: Hash
    finding: ReviewFinding
