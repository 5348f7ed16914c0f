"""Verifying a copy of a ledger: fourteen numbered steps, each of which ends in its evidence.

The list (``findings.STEPS`` has the same, in a reader's words):

1.  framing: a bundle's digest and sections, a database's pages and index columns
2.  anchor: genesis against what the caller trusts; without it the copy is "self-anchored"; a log that
    took over from another, against that one (``check_join``)
3.  entries parse strictly                          (docs/formats.md: one value, one spelling)
4.  envelopes: federation, key chains, views        (``ledger.rules.admission``)
5.  signatures under the keys admitted              (RFC 8032, PyNaCl only)
6.  the tree and every stored signed checkpoint     (RFC 9162 2.1, C2SP tlog-checkpoint)
7.  cosignatures and finality                       (C2SP tlog-cosignature, floor(2w/3)+1)
8.  the fold's verdict on every entry               (``ledger.rules.fold``)
9.  plans recompiled from specification and schemas (``ledger.experiment.plan.check.check_plan``)
10. charges from noise; reserved >= settled >= used (``privacy.filters.step_charge``), on approvals
    that hospitals cosigned while they were young  (``ledger.rules.experiments.was_held_back``)
11. promises by closed form and by PLD              (Balle & Wang 2018; dp-accounting)
12. sums, server steps and final models, bit for bit (``ledger.experiment.average``)
13. blobs: hash and length of each that is named
14. releases: a final checkpoint before each

Promise: any one byte changed in an entry, signature, index column, checkpoint, final checkpoint or
blob of a store, and any one bit of a bundle, ends refuted with its place. What cannot be checked is
named as that and never as good.

What the caller still owes: an anchor from outside (step 2), and a checkpoint from outside, which
alone can show that a copy is not a short one. What no ledger shows is in `LIMITS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audit.errors import SourceUnusable
from audit.verification.check_budgets import (
    check_charges,
    check_plans,
    check_promises,
)
from audit.verification.check_join import check_succession
from audit.verification.check_models import check_models
from audit.verification.check_notes import Notes, check_notes
from audit.verification.check_purposes import check_parts
from audit.verification.check_statistics import check_statistics
from audit.verification.documents import Documents
from audit.verification.findings import Check, Report, Verdicts, Witnesses, in_order, listed
from audit.verification.history import History
from audit.verification.records import Dispute
from audit.verification.replay import Replay, replay
from audit.verification.sources import Copy, close_copies, open_copies
from ledger.copies.erasing import erased_cards
from ledger.errors import BlobCorrupt, BlobMissing, MalformedInput
from ledger.rules.state import State

LIMITS: tuple[str, ...] = (
    "That a hospital ran the approved computation on the rows it says: the hospital's signature "
    "states it, and no ledger can prove it.",
    "That the times people signed are true: each is its author's own clock. The log's order is "
    "proved, its times are stated.",
    "That declared patient numbers are right: they are nominal and public by declaration, never "
    "counted here.",
    "That nothing left a hospital by another way than this ledger.",
    "That this copy is the longest there is: only a checkpoint from another place can show more.",
    "That the same person is not a patient of two hospitals under two identifiers; each hospital's "
    "promise then holds on its own, and both together cost more.",
    "Whether a transfer is a disclosure in the sense of a law: the dataset's card states who "
    "classified it.",
)


@dataclass(frozen=True)
class Verification:
    """A verification of one copy: its report, and what it was computed from.

    Attributes:
        copy: the copy; the caller closes it.
        report: checks and verdict.
        replay: tree, state and history of the entries that passed.
        notes: what its checkpoints showed.
        documents: the copy's blobs.
    """

    copy: Copy
    report: Report
    replay: Replay
    notes: Notes
    documents: Documents

    @property
    def history(self) -> History:
        """What happened."""
        return self.replay.history

    @property
    def state(self) -> State:
        """What holds after the last entry that passed."""
        return self.replay.log.state


def verify(
    copy: Copy,
    *,
    trust: str | None = None,
    cross_check: bool = False,
    predecessor: Copy | None = None,
) -> Verification:
    """Verify one copy.

    Args:
        copy: from `audit.verification.sources.open_copies`.
        trust: federation id from outside (`audit.verification.sources.parse_trust`), or None.
        cross_check: show Opacus' accountants too, in a separate process with torch.
        predecessor: a copy of the log that this one took over from, or None.
    """
    checks: list[Check] = [Check(1, "refuted", f.reason, f.place) for f in copy.faults]  # 1
    done = replay(copy)
    checks.append(_anchor(done, trust))  # 2
    checks += check_succession(done, copy, predecessor)
    checks += done.checks  # 3, 4, 5, 8
    notes = check_notes(done, copy)
    done.history.cosigned = notes.cosigned
    checks += _disputes(done)  # 5
    checks += notes.checks  # 6, 7, 14
    documents = Documents(copy, erased_cards(done.log.state) if done.size else frozenset())
    if done.size:
        checks += check_plans(done, documents)  # 9
        checks += check_statistics(done, documents)
        checks += check_charges(done, notes.cosigned)  # 10
        checks += check_promises(done, cross_check=cross_check)  # 11
        checks += check_parts(done)  # 11
        checks += check_models(done, documents)  # 12
        checks += _blobs(done, copy)  # 13
    if not any(check.step == 1 and check.verdict == "refuted" for check in checks):
        checks.append(Check(1, "proved", f"{copy.name} can be read to its end"))
    return Verification(copy, _report(copy, done, notes, checks, trust), done, notes, documents)


def verify_all(
    copies: Sequence[Copy],
    *,
    trust: str | None = None,
    cross_check: bool = False,
    predecessor: Copy | None = None,
) -> tuple[Verdicts, tuple[Verification, ...]]:
    """Verify several copies, and that they are copies of one log, each a prefix of the longest."""
    found = tuple(
        verify(copy, trust=trust, cross_check=cross_check, predecessor=predecessor)
        for copy in copies
    )
    agreement = tuple(_agree(found)) if len(found) > 1 else ()
    return Verdicts(tuple(v.report for v in found), agreement), found


def verify_at(
    at: str,
    *,
    trust: str | None = None,
    cross_check: bool = False,
    predecessor: str | None = None,
) -> Verdicts:
    """Open, verify and close what a person points at; a copy that does not open is refuted.

    Args:
        at: a copy, or several.
        trust: see `verify`.
        cross_check: see `verify`.
        predecessor: where a copy of the log lies that this one took over from, or None.

    Raises:
        SourceUnusable: the predecessor's copy cannot be opened.
    """
    before = [] if predecessor is None else open_copies(predecessor)
    try:
        copies = open_copies(at)
    except SourceUnusable as error:
        close_copies(before)
        return Verdicts((unreadable(error),))
    try:
        old = max(before, key=lambda copy: copy.size(), default=None)
        return verify_all(copies, trust=trust, cross_check=cross_check, predecessor=old)[0]
    finally:
        close_copies([*copies, *before])


def unreadable(error: SourceUnusable) -> Report:
    """The report on a copy that cannot be opened: step 1 is refuted, the rest not checkable."""
    check = Check(1, "refuted", error.reason, error.place)
    return Report(error.place, "", False, 0, "", 0, 0, 0, 0, Witnesses(0), (check,))


def _anchor(done: Replay, trust: str | None) -> Check:
    if not done.federation:
        return Check(2, "not_checkable", "there is no genesis entry to compare")
    if trust is None:
        detail = (
            f"self-anchored: it is a whole federation {done.federation[:12]}, but nothing from "
            "outside says that it is yours; give --trust with the genesis file of your invitation"
        )
        return Check(2, "not_checkable", detail)
    if trust != done.federation:
        detail = f"it is federation {done.federation[:12]}, and you trust {trust[:12]}"
        return Check(2, "refuted", detail, "entry 0")
    return Check(2, "proved", f"genesis is that of federation {trust[:12]}, which you trust")


def _disputes(done: Replay) -> Iterator[Check]:
    """Step 5: what was signed by keys that were somebody else's too, as their owner says."""
    for dispute in done.history.disputes():
        if dispute.entries:
            yield Check(5, "not_checkable", disputed(dispute))


def disputed(dispute: Dispute) -> str:
    """A compromise date and what it puts in doubt, in words."""
    return (
        f"disputed: {listed(dispute.entries)} of {dispute.member}; its keys were compromised from "
        f"{dispute.day} on, says entry {dispute.said.index}. The signatures hold and the rules let them "
        "stand, but who signed cannot be told"
    )


def _blobs(done: Replay, copy: Copy) -> Iterator[Check]:
    """Step 13: every blob that an entry names, and in a closed copy no other one."""
    whole = 0
    missing: dict[str, list[str]] = {}
    for (sha256, length), mention in done.blobs.items():
        place = f"{mention.kind} blob {sha256[:12]} of entry {mention.index}"
        try:
            copy.blob(sha256, length)
            whole += 1
        except BlobMissing:
            missing.setdefault(mention.kind, []).append(f"{sha256[:12]} (entry {mention.index})")
        except BlobCorrupt as error:
            yield Check(13, "refuted", error.reason, f"{place}: {error.path}")
        except MalformedInput as error:
            yield Check(13, "refuted", error.reason, f"{place}: {error.where}")
    erased: list[str] = []
    for commitment, index in done.cards.items():
        gone = done.log.state.cards[commitment].erased_at
        name = f"{commitment[:12]} (entry {index})"
        try:
            copy.blob(commitment)
            whole += 1
            if gone is not None:
                erased.append(f"{name} by entry {gone}, and this copy still has it")
        except BlobMissing:
            if gone is None:
                missing.setdefault("card", []).append(name)
            else:
                erased.append(f"{name} by entry {gone}")
        except (BlobCorrupt, MalformedInput) as error:
            yield Check(13, "refuted", str(error), f"card {commitment[:12]} of entry {index}")
    here = copy.blob_names()
    if here is not None and done.complete:
        named = {sha256 for sha256, _ in done.blobs} | set(done.cards)
        for extra in sorted(here - named):
            yield Check(13, "refuted", "no entry names it", f"blob {extra[:12]}")
    if erased:
        yield Check(13, "not_checkable", f"cards were erased by their owners: {'; '.join(erased)}")
    for kind, names in sorted(missing.items()):
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Check(
            13, "not_checkable", f"{len(names)} of kind {kind} are not in this copy: {shown}"
        )
    if whole or not missing:
        yield Check(13, "proved", f"{whole} blobs have the SHA-256 and length that entries name")


def _agree(found: Sequence[Verification]) -> Iterator[Check]:
    """Whether several copies are of one log; the shorter must be a prefix of the longest."""
    readable = [v for v in found if v.replay.size]
    if not readable:
        return
    longest = max(readable, key=lambda v: v.replay.size)
    agreeing = 0
    for each in readable:
        size = each.replay.size
        if each.replay.federation != longest.replay.federation:
            detail = f"it is of another federation than {longest.report.source}"
            yield Check(6, "refuted", detail, each.report.source)
        elif each.replay.log.tree.root() != longest.replay.log.tree.root(size):
            detail = f"its {size} entries are not the first {size} of {longest.report.source}"
            yield Check(6, "refuted", detail, each.report.source)
        else:
            agreeing += 1
    if agreeing == len(readable):
        yield Check(
            6,
            "proved",
            f"{agreeing} copies are of one log, each a prefix of the longest "
            f"({longest.report.source}, {longest.replay.size} entries)",
        )


def _report(
    copy: Copy, done: Replay, notes: Notes, checks: Sequence[Check], trust: str | None
) -> Report:
    size = done.size
    return Report(
        source=copy.name,
        federation=done.federation,
        anchored=trust is not None and trust == done.federation,
        size=size,
        root=done.log.tree.root().hex() if size else "",
        checkpoint=notes.checkpoint,
        log_time=done.log.state.log_time if size else 0,
        applied=size - len(done.history.voids),
        void=len(done.history.voids),
        witnesses=notes.witnesses,
        checks=in_order(checks),
    )
