"""What entries about the log itself and about its checks say."""

from __future__ import annotations

from typing import Any

from audit.reports.observed import plan_of, proven_of, verdict_of, words_of
from audit.reports.sentences.told import Teller, Told
from audit.verification.history import History


def _activated(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} activated protocol {op.version}: a finality quorum of hospitals had said that "
        "their software knows it, and its rules hold from the next entry on."
    )


def _reviewed(who: str, op: Any, history: History) -> Told:
    finding = op.finding.replace("_", " ")
    return Told(f"{who} examined the log up to {op.size:,} entries: {finding}.")


def _audited(who: str, op: Any, history: History) -> Told:
    what, observed = words_of(op)
    proven, bound = proven_of(op, plan_of(history, op))
    verdict = {
        "as_proved": "nothing beyond the proof",
        "contradicts": "AGAINST the proof",
        "misstated": "it was held against another bound, and says nothing",
    }[verdict_of(op, bound)]
    return Told(f"{who} {what}: {observed}, proven {proven}: {verdict}.")


def _ready(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} follows, verifies and witnesses from here on.")


def _resumed(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} came back after a restart.")


def _time(who: str, op: Any, history: History) -> Told:
    return Told("The coordinator let time pass, so that a deadline could take effect.")


def _fork(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} reported two signed checkpoints that no one history explains.")


def _receipt_broken(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} reported a signed receipt for an entry that the log did not keep.")


TELLERS: dict[str, Teller] = {
    "node.ready": _ready,
    "node.resumed": _resumed,
    "protocol.activated": _activated,
    "time.noted": _time,
    "fork.reported": _fork,
    "receipt.broken": _receipt_broken,
    "privacy.audited": _audited,
    "ledger.reviewed": _reviewed,
}
