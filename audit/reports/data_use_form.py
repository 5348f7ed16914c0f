"""The form of a data-use report: nine blocks, the same content as JSON and as a page.

Fields follow 45 CFR 164.528 and 164.312(b), GDPR Art. 30 and what a reader needs to recompute every
figure. Times are POSIX ms; texts that nobody gave read "not stated", texts whose card is gone read
"erased, or not in this copy".
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ledger.entries.operations.audits import AuditKind

Verdict = Literal["as_proved", "contradicts", "misstated"]
"""What a member's finding comes to once it is held against the plan's own bound."""


class Part(BaseModel):
    """A frozen part of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Person(Part):
    """Somebody who said something in the ledger."""

    handle: str
    organisation: str
    role: str
    name: str
    institution: str
    contact: str


class Standing(Part):
    """The checkpoint that a report stands on, and what verification said of the copy.

    Attributes:
        heads: hospitals whose node cosigned the checkpoint, the log's head as they saw it.
        step_verdicts: how each numbered step of the verification ended.
        disputed: compromise dates, and the entries that they put in doubt.
        refuted: what was found changed; a report on such a copy proves nothing.
    """

    federation: str
    anchored: bool
    size: int
    root: str
    checkpoint: str
    checkpoint_size: int
    heads: tuple[str, ...]
    heads_missing: tuple[str, ...]
    completeness: str
    entries_applied: int
    entries_void: int
    step_verdicts: dict[str, str]
    disputed: tuple[str, ...]
    refuted: tuple[str, ...]


class Header(Part):
    """Block 1."""

    report: str
    id: str
    subject: str
    version: str
    period_from_ms: int
    period_to_ms: int
    generated_at_ms: int
    generated_by: str
    software: str
    standing: Standing


class DatasetBlock(Part):
    """Block 2: the controller's description and what is public by declaration."""

    name: str
    title: str
    hospital: str
    controller: str
    controller_contact: str
    data_protection_officer: str
    department: str
    purpose: str
    categories_of_persons: str
    categories_of_data: str
    columns: tuple[str, ...]
    declared_train: int
    declared_test: int
    unit: str
    snapshot: str
    registered_entry: int
    registered_at_ms: int
    versions: int
    time_span: str
    legal_basis: str
    ethics_approval: str
    retention: str
    opt_out_reconciled: str
    security_measures: str
    transfers_and_safeguards: str
    disclosure_class: str
    classified_by: str
    withdrawn: str


class Use(Part):
    """Block 3: an experiment that asked for the dataset.

    Attributes:
        rounds: that it served, in words, as the spec counts them.
        rounds_trained, rounds_measured: their numbers, training apart from evaluation and baseline.
        times_asked: attempts at rounds of any kind whose cohort named it.
    """

    experiment: str
    entry: int
    name: str
    title: str
    purpose: str
    lawful_basis: str
    asked_by: Person
    asked_at_ms: int
    decision: str
    decided_by: Person | None
    decided_at_ms: int | None
    decision_entry: int | None
    decision_signature: str
    approved_package: str
    scope_rounds: int
    scope_epsilon_max: float | None
    scope_until_ms: int | None
    rounds: str
    rounds_trained: int
    rounds_measured: int
    times_asked: int
    first_use_ms: int | None
    last_use_ms: int | None
    declared_patients: int
    snapshot: str
    fields: tuple[str, ...]
    outcome: str
    outcome_tone: str
    outcome_why: str
    epsilon: float
    epsilon_settled: bool


class Outflow(Part):
    """Block 4: bytes that left the hospital."""

    entry: int
    at_ms: int
    experiment: str
    round: int
    round_name: str
    kind: str
    recipient: str
    bytes: int
    sha256: str
    mechanism: str
    counted: str
    disclosure_class: str


class OutflowTotal(Part):
    """Repeated outflows of one kind to one recipient."""

    experiment: str
    kind: str
    recipient: str
    count: int
    bytes: int
    first_ms: int
    last_ms: int


class Mechanism(Part):
    """What an accountant needs: noise and sensitivity in units of the clipped value."""

    experiment: str
    purpose: str
    cell: str
    noise_sd: float
    sensitivity: float
    noise_multiplier: float
    sampling: float
    steps: int
    settled: bool


class PurposeBlock(Part):
    """What one purpose has used of a cell, and the most that it may; null where nothing was said."""

    purpose: str
    epsilon: float
    limit: float | None


class RenewalBlock(Part):
    """How a cell's promise renews. It is no lifetime promise: all periods together are weaker than one.

    Attributes:
        period: the one under way, counted from 1, of which all else that is said of the cell is.
        periods_used: in which anything was charged or still open.
        epsilon_all_periods: of all that was ever charged, at ``delta_all_periods``, one share of delta
            for each used period.
        most_all_periods: what so many periods promise at that delta.
    """

    days: int
    period: int
    began_ms: int
    next_ms: int
    periods_used: int
    epsilon_all_periods: float
    delta_all_periods: float
    most_all_periods: float


class CellBlock(Part):
    """A cell's promise and spend; ``renewal`` is null where the promise is for ever."""

    cell: str
    block: str
    half: str
    declared_patients: int
    epsilon: float
    epsilon_settled: float
    epsilon_pld: float | None
    limit: float
    delta: float
    attacker_gain_at_1_percent: float
    lanes_closed: tuple[str, ...]
    purposes: tuple[PurposeBlock, ...]
    curve: tuple[tuple[int, int, float], ...]
    renewal: RenewalBlock | None


class PrivacyBlock(Part):
    """Block 5."""

    unit: str
    relation: str
    epsilon: float
    epsilon_reserved_only: float
    limit: float
    delta: float
    worst_cell: str
    more_like_last: int | None
    accountants: tuple[str, ...]
    cells: tuple[CellBlock, ...]
    mechanisms: tuple[Mechanism, ...]


class Against(Part):
    """Block 6: a decision against a use, or a failed one."""

    entry: int
    at_ms: int
    who: str
    what: str
    why: str
    then: str


class DerivedModel(Part):
    """Block 7."""

    sha256: str
    experiment: str
    name: str
    entry: int
    rounds_with_dataset: int
    released: bool
    downloads: tuple[str, ...]


class Observed(Part):
    """A finding that a member signed: what was seen of the mechanism beside what is proven.

    Attributes:
        kind: as the log calls it.
        what: what was done, in words.
        observed: the figure with its interval, in words.
        proven: what the plan proves, in words; computed from its integers.
        verdict: the member's finding, or ``misstated`` where it was held against another bound than the plan's.
        contradicts: whether more was observed than is proven possible.
        times: how often the same member found the like; this is the newest.
    """

    entry: int
    at_ms: int
    who: str
    kind: AuditKind
    what: str
    observed: str
    proven: str
    verdict: Verdict
    contradicts: bool
    confidence: float
    times: int


class Reviewed(Part):
    """Block 8."""

    entry: int
    at_ms: int
    who: str
    size: int
    finding: str


class DataUseReport(Part):
    """All nine blocks."""

    header: Header
    dataset: DatasetBlock
    uses: tuple[Use, ...]
    outflows: tuple[Outflow, ...]
    outflow_totals: tuple[OutflowTotal, ...]
    privacy: PrivacyBlock
    decisions_against: tuple[Against, ...]
    models: tuple[DerivedModel, ...]
    observed: tuple[Observed, ...]
    reviews: tuple[Reviewed, ...]
    limits: tuple[str, ...]
