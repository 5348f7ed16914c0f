"""The strip under the header: what this machine itself checked, up to where, with how many hospitals.

Green, amber or red, and a mark and words that say the same. It is a function of this process's own
verification; no server's claim enters it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from audit.console.numbers import many
from audit.console.watch import Checked
from audit.verification.findings import Check, Report
from audit.verification.records import ExperimentRecord
from audit.verification.verify import Verification
from ledger.rules.finality import standing_quorum

Tone = Literal["good", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Strip:
    """A tone, its mark, a strong beginning, the rest of the sentence, and where to read on.

    Attributes:
        number: of the verification that it speaks of.
        page: of the one that the page around it shows; an older one, where the page is stale.
    """

    tone: Tone
    mark: str
    lead: str
    rest: str
    link: str
    link_text: str
    checked_at_ms: int
    number: int
    page: int


def strip_of(checked: Checked, *, page: int | None = None, stopped: bool = False) -> Strip:
    """Say how the copy stands.

    Args:
        checked: the newest verification.
        page: number of the one that the reader's page shows; None for this one.
        stopped: nothing looks at the copy any more.
    """
    strip = _standing(checked)
    if stopped and strip.tone != "bad":
        lead = "Nobody checks this copy any more; start the console again:"
        strip = _strip(checked, "warn", lead, _green(checked))
    return strip if page is None else replace(strip, page=page)


def _standing(checked: Checked) -> Strip:
    refuted = checked.report.refuted or next(
        (r.refuted for r in checked.verdicts.reports if r.refuted), ()
    )
    disagreeing = [c for c in checked.verdicts.agreement if c.verdict == "refuted"]
    if refuted:
        return _strip(checked, "bad", *_red(refuted[0], checked.found is not None))
    if disagreeing:
        rest = f"{disagreeing[0].place}: {disagreeing[0].detail}. One of them is not your log."
        return _strip(checked, "bad", "Two copies tell different stories.", rest)
    rest = _green(checked)
    amber = _amber(checked)
    if amber is not None:
        return _strip(checked, "warn", amber, rest)
    return _strip(checked, "good", "Checked on this machine", rest)


def _strip(checked: Checked, tone: Tone, lead: str, rest: str) -> Strip:
    return Strip(
        tone=tone,
        mark={"good": "✓", "warn": "!", "bad": "✕"}[tone],
        lead=lead,
        rest=rest,
        link="/verify#what-to-do" if tone == "bad" else "/verify",
        link_text="What to do" if tone == "bad" else "How we know",
        checked_at_ms=checked.checked_at_ms,
        number=checked.number,
        page=checked.number,
    )


def _red(check: Check, readable: bool) -> tuple[str, str]:
    place = check.place or "the copy"
    if "two different trees" in check.detail:
        return (
            "The log was forked.",
            f"{_capital(place)}: {check.detail}. Nothing in it counts now.",
        )
    if "broke a signed promise" in check.detail:
        return "The coordinator broke a signed promise.", f"{_capital(place)}: {check.detail}."
    if place.startswith("entry ") and check.step in (3, 4, 5):
        number = place.removeprefix("entry ")
        before = (
            f"Nothing after {int(number) - 1:,} can be believed until this is explained."
            if number.isdigit() and int(number) > 0
            else "Nothing in it can be believed until this is explained."
        )
        return "This copy was changed.", f"{_capital(place)}: {check.detail}. {before}"
    lead = "This copy was changed." if readable else "This copy cannot be read."
    return lead, f"{_capital(place)}: {check.detail}. Do not rely on it until this is explained."


def _green(checked: Checked) -> str:
    report = checked.report
    seen = report.witnesses
    ready = len(seen.signed) + len(seen.missing)
    sentence = f"{many(report.size, 'entry')}, every signature and budget"
    if ready:
        sentence += f", to a checkpoint that {len(seen.signed)} of {ready} hospitals signed"
    copies = len(checked.verdicts.reports)
    if copies > 1:
        sentence += f"; {copies} copies agree"
    return sentence + ("." if report.anchored else "; self-anchored.")


def _amber(checked: Checked) -> str | None:
    report = checked.report
    seen = report.witnesses
    if checked.found is not None:
        found = checked.found
        if standing_quorum(found.state, found.notes.note_size).lost:
            return "The witness quorum is lost, and nothing becomes final:"
    if not seen.signed:
        return "Not independently witnessed:"
    if not seen.independent:
        return "Not independently witnessed (fewer than three hospitals):"
    if checked.found is not None and _stale(checked.found, report, checked.checked_at_ms):
        return "Stale, although an experiment is under way:"
    return None


def _stale(found: Verification, report: Report, now_ms: int) -> bool:
    """Something is under way, and no hospital has cosigned for longer than permissions live."""
    under_way = any(_runs(e) for e in found.history.experiments.values())
    newest_s = report.witnesses.newest_s
    if not under_way or newest_s is None:
        return False
    return now_ms - newest_s * 1000 > found.state.policy.max_age_ms


def _runs(experiment: ExperimentRecord) -> bool:
    return experiment.completed is None and experiment.stopped is None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
