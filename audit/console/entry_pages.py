"""The ledger's own pages: entries as sentences, and why to believe one.

Each reason carries its grade: checked here, witnessed, recomputed, or only stated. What no software
can prove is said in the same list as what it can.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from markupsafe import Markup

from audit.console.charts import tree_chart
from audit.errors import NotInLedger
from audit.reports.sentences.tell import tell
from audit.reports.sentences.told import Told, organisation_name
from audit.verification.records import VoidRecord
from audit.verification.verify import Verification
from ledger.entries.entry import Entry, parse_leaf
from ledger.entries.operations.rounds import UpdateSubmitted
from ledger.formats.proof import Proof, build_proof
from ledger.rules.verdict import EXPLANATIONS

PAGE = 50
"""Entries on a page of the ledger."""


@dataclass(frozen=True)
class LedgerLine:
    """An entry in a list."""

    index: int
    type: str
    author: str
    at_ms: int
    told: Told
    void: str | None


@dataclass(frozen=True)
class Reason:
    """A reason to believe an entry: a claim, its grade and the technical words."""

    claim: str
    grade: str
    detail: str
    tone: str = "good"


@dataclass(frozen=True)
class EntryPage:
    """Everything on an entry's page."""

    entry: Entry
    index: int
    told: Told
    reasons: tuple[Reason, ...]
    chart: Markup
    void: VoidRecord | None
    pretty: str
    provable: bool
    speaker: str


def ledger_lines(found: Verification, start: int, stop: int) -> list[LedgerLine]:
    """Entries ``start`` to ``stop`` as sentences."""
    lines = []
    for index, entry in _entries(found, start, stop):
        void = found.history.voids.get(index)
        lines.append(
            LedgerLine(
                index=index,
                type=entry.body.op.type,
                author=entry.body.author,
                at_ms=entry.body.at_ms,
                told=tell(entry, found.history),
                void=EXPLANATIONS.get(void.reason, void.reason) if void else None,
            )
        )
    return lines


def entry_page(found: Verification, index: int) -> EntryPage:
    """An entry, and why to believe it.

    Raises:
        NotInLedger: there is no such entry, or it could not be followed.
    """
    entry = one_entry(found, index)
    void = found.history.voids.get(index)
    proof = _proof(found, index)
    size = found.notes.note_size if proof is not None else found.replay.size
    path = found.replay.log.tree.inclusion(index, size)
    root = found.replay.log.tree.root(size).hex()
    return EntryPage(
        entry=entry,
        index=index,
        told=tell(entry, found.history),
        reasons=tuple(_reasons(found, entry, index, size, len(path), void)),
        chart=tree_chart(index, size, f"{root[:6]}…{root[-4:]}", [h.hex()[:8] for h in path]),
        void=void,
        pretty=json.dumps(json.loads(entry.raw), indent=2, sort_keys=True),
        provable=proof is not None,
        speaker=_possessive(found, entry.body.author),
    )


def one_entry(found: Verification, index: int) -> Entry:
    """The entry at an index.

    Raises:
        NotInLedger: there is no such entry, or it could not be followed.
    """
    if not 0 <= index < found.replay.size:
        raise NotInLedger("entry", str(index), f"0 to {found.replay.size - 1}")
    return next(entry for _, entry in _entries(found, index, index + 1))


def entry_proof(found: Verification, index: int) -> bytes:
    """An offline proof of an entry (c2sp.org/tlog-proof).

    Raises:
        NotInLedger: no signed checkpoint covers the entry.
    """
    one_entry(found, index)
    proof = _proof(found, index)
    if proof is None:
        raise NotInLedger("signed checkpoint over entry", str(index))
    return proof.encode()


def _entries(found: Verification, start: int, stop: int) -> list[tuple[int, Entry]]:
    stop = min(stop, found.replay.size)
    stored = found.copy.entries(start, stop)
    return [(start + at, parse_leaf(item.leaf)) for at, item in enumerate(stored)]


def _proof(found: Verification, index: int) -> Proof | None:
    note = found.notes.note
    if note is None or index >= found.notes.note_size:
        return None
    return build_proof(found.replay.log.tree, index, note)


def _possessive(found: Verification, handle: str) -> str:
    member = found.history.members[handle]
    name = organisation_name(member.organisation)
    return f"{name}'s {member.role}" if member.role != "researcher" else f"{handle}, {name}"


def _reasons(
    found: Verification, entry: Entry, index: int, size: int, hashes: int, void: VoidRecord | None
) -> list[Reason]:
    body, history = entry.body, found.history
    name = organisation_name(history.members[body.author].organisation)
    admitted = history.keys.get(body.key, index)
    chain = history.chains[body.key]
    before = chain[body.seq - 1] if body.seq else None
    if before is None:
        follows = Reason(
            f"It begins {name}'s chain.", "checked here", "Number 0 of this key; nothing before it."
        )
    else:
        follows = Reason(
            f"It follows {name}'s entry {before:,}.",
            "checked here",
            f"Number {body.seq} of its own chain; nothing missing, nothing twice.",
        )
    key = (
        "by the key that it enrols itself, under its invitation"
        if admitted == index
        else f"key admitted in entry {admitted:,}, valid at this place"
    )
    reasons = [
        Reason(f"{name} signed it.", "checked here", f"Ed25519, {key}."),
        follows,
        Reason(
            "It is in the log.",
            "checked here",
            f"{hashes} hashes lead to the root at size {size:,}.",
        ),
        _witnessed(found, index),
    ]
    for dispute in history.disputes():
        if index in dispute.entries:
            reasons.append(
                Reason(
                    "It is disputed.",
                    "stated",
                    f"Entry {dispute.said.index:,} says that {dispute.member}'s keys were "
                    f"compromised from {dispute.day} on. It stands; who signed it cannot be told.",
                    "warn",
                )
            )
    if void is None:
        reasons.append(
            Reason(
                "The rules allowed it.", "recomputed", "Folded anew from entry 0: it took effect."
            )
        )
    else:
        why = EXPLANATIONS.get(void.reason, void.reason)
        reasons.append(
            Reason("It has no effect.", "recomputed", f"Folded anew: void, because {why}.", "warn")
        )
    what = "What it states is true."
    if isinstance(body.op, UpdateSubmitted):
        what = "The patients' data was used as approved."
    reasons.append(
        Reason(
            what,
            "stated",
            f"No ledger can prove this. {name} states it by its signature; so is the time, "
            "by its own clock.",
            "warn",
        )
    )
    return reasons


def _witnessed(found: Verification, index: int) -> Reason:
    seen = found.report.witnesses
    ready = len(seen.signed) + len(seen.missing)
    if not seen.signed or index >= seen.size:
        return Reason(
            "No hospital has witnessed it in this copy.",
            "not checkable",
            "No final checkpoint here covers it; the log's own signature does."
            if index < found.report.checkpoint
            else "No checkpoint here covers it.",
            "warn",
        )
    names = ", ".join(organisation_name(each) for each in seen.signed)
    return Reason(
        f"{len(seen.signed)} of {ready} hospitals saw that root.",
        "witnessed",
        f"{names}; {seen.needed} are needed.",
    )
