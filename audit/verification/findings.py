"""What a verification says: checks that end proved, refuted or not checkable, and their sum.

A check that could not be made says why and is never counted or printed as a good one. A report exits
0 only when nothing was refuted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["proved", "refuted", "not_checkable"]

STEPS: tuple[tuple[int, str], ...] = (
    (1, "The copy holds together: framing, digests, database pages"),
    (2, "It is the federation that you trust"),
    (3, "Every entry is in the one strict form"),
    (4, "Every author's chain is complete, and each view of the log was true"),
    (5, "Every signature is by the key that was admitted for it"),
    (6, "The tree is the one that the log signed, at every stored checkpoint"),
    (7, "Hospitals cosigned it, as many as finality needs"),
    (8, "The rules allowed what took effect"),
    (9, "Every plan is what its approved specification implies"),
    (10, "Every charge is what its noise costs, and covers what was used"),
    (11, "Every privacy promise holds, by closed form and by PLD"),
    (12, "Every average and every model is exactly the sum of the updates"),
    (13, "Every document, update and model is what its entry names"),
    (14, "Models were released only after enough hospitals had seen them completed"),
)
TITLES = dict(STEPS)


def listed(indexes: Sequence[int], most: int = 8) -> str:
    """Entries as people name them: ``entries 3, 7 and 9``; cut after ``most``."""
    if len(indexes) == 1:
        return f"entry {indexes[0]}"
    shown = ", ".join(str(index) for index in indexes[:most])
    return f"entries {shown}" + (f" and {len(indexes) - most} more" if len(indexes) > most else "")


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer.

    Attributes:
        step: its number in ``STEPS``.
        verdict: how it ended.
        detail: what was compared, or why it could not be.
        place: where a refuted check failed, e.g. ``entry 733``.
    """

    step: int
    verdict: Verdict
    detail: str
    place: str | None = None

    @property
    def title(self) -> str:
        """The step's title."""
        return TITLES[self.step]


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who stands behind the newest final checkpoint.

    Attributes:
        size: entries it covers.
        signed, missing: organisations.
        needed: how many make it final.
        newest_s: POSIX seconds of the newest cosignature, or None.
    """

    size: int
    signed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    needed: int = 0
    newest_s: int | None = None

    @property
    def independent(self) -> bool:
        """Whether at least three organisations could witness; fewer can collude too easily."""
        return len(self.signed) + len(self.missing) >= 3


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one verification of one copy.

    Attributes:
        source: the copy, in words.
        federation: its id; empty when not even genesis could be read.
        anchored: whether a trust anchor from outside was given and fits.
        size: entries that were followed and checked.
        root: of the tree of these entries, hex.
        checkpoint: size of the newest signed checkpoint that fits, 0 for none.
        log_time: the log's own time, POSIX ms.
        applied, void: how the entries ended.
        checks: in the order of steps; refuted ones before others within a step.
    """

    source: str
    federation: str
    anchored: bool
    size: int
    root: str
    checkpoint: int
    log_time: int
    applied: int
    void: int
    witnesses: Witnesses
    checks: tuple[Check, ...]

    @property
    def refuted(self) -> tuple[Check, ...]:
        """What was found changed or broken."""
        return tuple(check for check in self.checks if check.verdict == "refuted")

    @property
    def unchecked(self) -> tuple[Check, ...]:
        """What could not be checked here."""
        return tuple(check for check in self.checks if check.verdict == "not_checkable")

    @property
    def exit_code(self) -> int:
        """0 when nothing was refuted, 1 otherwise."""
        return 1 if self.refuted else 0

    def verdict_of(self, step: int) -> Verdict:
        """The worst verdict of a step: one part that could not be checked is not a good step."""
        found = {check.verdict for check in self.checks if check.step == step}
        if "refuted" in found:
            return "refuted"
        return "proved" if found == {"proved"} else "not_checkable"

    def completeness(self) -> str:
        """How far the copy reaches and who stands behind that, in one sentence."""
        seen = self.witnesses
        ready = len(seen.signed) + len(seen.missing)
        broken = any(check.step in (3, 4, 5) for check in self.refuted)
        reach = f"{'followed only' if broken else 'complete'} to size {self.size}"
        if ready == 0:
            return f"{reach}, not independently witnessed (no hospital's node was ready)"
        by = f"witnessed by {len(seen.signed)} of {ready} to size {seen.size}"
        if not seen.independent:
            return f"{reach}, {by}: not independently witnessed (fewer than three hospitals)"
        return f"{reach}, {by}"

    def as_json(self) -> dict[str, object]:
        """The report as plain data."""
        return {
            "ok": not self.refuted,
            "source": self.source,
            "federation": self.federation,
            "anchor": "trusted" if self.anchored else "self-anchored",
            "size": self.size,
            "root": self.root,
            "checkpoint": self.checkpoint,
            "log_time_ms": self.log_time,
            "entries": {"applied": self.applied, "void": self.void},
            "completeness": self.completeness(),
            "witnesses": {
                "size": self.witnesses.size,
                "signed": list(self.witnesses.signed),
                "missing": list(self.witnesses.missing),
                "needed": self.witnesses.needed,
            },
            "steps": {str(step): self.verdict_of(step) for step, _ in STEPS},
            "checks": [
                {
                    "step": check.step,
                    "title": check.title,
                    "verdict": check.verdict,
                    "detail": check.detail,
                    "place": check.place,
                }
                for check in self.checks
            ],
        }


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Verifications of several copies of one log, and whether they agree.

    Attributes:
        reports: one a copy.
        agreement: whether they are copies of one log; empty for a single copy.
    """

    reports: tuple[Report, ...]
    agreement: tuple[Check, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when nothing was refuted in any copy and the copies agree, 1 otherwise."""
        if any(check.verdict == "refuted" for check in self.agreement):
            return 1
        return max((report.exit_code for report in self.reports), default=1)

    @property
    def best(self) -> Report:
        """The longest copy; of equals the one with the fewest checks that could not be made."""
        return min(self.reports, key=lambda r: (-r.size, len(r.unchecked)))

    def as_json(self) -> dict[str, object]:
        """All of it as plain data; ``checks`` counts how each step ended over the copies."""
        counts = {
            str(step): dict(Counter(report.verdict_of(step) for report in self.reports))
            for step, _ in STEPS
        }
        return {
            "ok": self.exit_code == 0,
            "checks": counts,
            "agreement": [
                {"verdict": check.verdict, "detail": check.detail, "place": check.place}
                for check in self.agreement
            ],
            "copies": [report.as_json() for report in self.reports],
        }


def in_order(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Checks by step, refuted ones first within a step, then those that could not be made."""
    rank = {"refuted": 0, "not_checkable": 1, "proved": 2}
    return tuple(sorted(checks, key=lambda check: (check.step, rank[check.verdict])))
