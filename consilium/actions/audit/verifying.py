"""Showing the result of a verification: every numbered step, and what could not be checked."""

from __future__ import annotations

from audit.verification.findings import STEPS, Check, Report, Verdicts
from audit.verification.sources import parse_trust
from audit.verification.verify import LIMITS, verify_at
from consilium.terminal import say_line, show_json

_WORDS = {"proved": "proved", "refuted": "REFUTED", "not_checkable": "not checkable"}


def verify_and_show(
    at: str,
    trust: str | None,
    *,
    cross_check: bool,
    as_json: bool,
    predecessor: str | None = None,
) -> int:
    """Verify what is at a place and print the verdicts; returns the exit code.

    Raises:
        BadTrustAnchor: the anchor is neither a genesis file nor an id.
    """
    anchor = None if trust is None else parse_trust(trust)
    verdicts = verify_at(at, trust=anchor, cross_check=cross_check, predecessor=predecessor)
    if as_json:
        show_json({**verdicts.as_json(), "not_shown_by_any_ledger": list(LIMITS)})
    else:
        show_verdicts(verdicts)
    return verdicts.exit_code


def show_verdicts(verdicts: Verdicts) -> None:
    """Print verdicts for people: the fullest copy step by step, the others in a line each.

    What was refuted, and what could not be checked, is printed of every copy.
    """
    best = verdicts.best
    _show_steps(best)
    for report in verdicts.reports:
        if report is not best:
            _show_line(report)
    for check in verdicts.agreement:
        say_line(f"copies: {_WORDS[check.verdict]}: {check.detail}{_where(check)}")
    if verdicts.exit_code:
        count = sum(len(report.refuted) for report in verdicts.reports)
        count += sum(check.verdict == "refuted" for check in verdicts.agreement)
        say_line(f"REFUTED: {count} {'check' if count == 1 else 'checks'} failed")
    else:
        say_line("nothing was refuted")


def _show_steps(report: Report) -> None:
    say_line(f"{report.source}: {report.completeness()}")
    if report.federation:
        anchor = "the one that you trust" if report.anchored else "self-anchored"
        say_line(f"  federation {report.federation} ({anchor})")
    for step, title in STEPS:
        say_line(f"  {step:2} {_WORDS[report.verdict_of(step)]:13} {title}")
        for check in report.checks:
            if check.step == step and check.verdict != "proved":
                say_line(f"     {_WORDS[check.verdict]}: {check.detail}{_where(check)}")


def _show_line(report: Report) -> None:
    ended = {step: report.verdict_of(step) for step, _ in STEPS}
    open_steps = [str(step) for step, verdict in ended.items() if verdict == "not_checkable"]
    proved = sum(verdict == "proved" for verdict in ended.values())
    line = f"{report.source}: {report.completeness()}; {proved} steps proved"
    if open_steps:
        line += f", not checkable in this copy: {', '.join(open_steps)}"
    say_line(line)
    for check in report.refuted:
        say_line(f"  {check.step:2} REFUTED {check.title}: {check.detail}{_where(check)}")


def _where(check: Check) -> str:
    return f" [{check.place}]" if check.place else ""
