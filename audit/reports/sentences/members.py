"""What entries about the federation, its members and their keys say."""

from __future__ import annotations

from typing import Any

from audit.reports.sentences.told import Fact, Teller, Told, organisation_name
from audit.verification.history import History
from ledger.entries.entry import parse_leaf
from ledger.formats.strict import decode_b64


def _founded(who: str, op: Any, history: History) -> Told:
    return Told(
        f"The federation {op.name} was founded by {organisation_name(op.organisation)}, with "
        f"{len(op.invitations)} invitation{'' if len(op.invitations) == 1 else 's'}.",
        (
            Fact("Changes need", f"{op.policy.endorsements} organisations"),
            Fact("Log key", f"{op.log_key.public[:16]}…", code=True),
        ),
    )


def _succeeded(who: str, op: Any, history: History) -> Told:
    return Told(
        f"The federation {op.name} goes on in this log, which {organisation_name(op.organisation)} "
        f"keeps: it takes over from federation {op.predecessor.federation[:12]} at its last final "
        f"checkpoint, signed by {len(op.endorsements)} stewards.",
        (
            Fact("Old log", op.predecessor.federation, code=True),
            Fact("Entries taken over", f"{op.predecessor.size:,}"),
            Fact("Log key", f"{op.log_key.public[:16]}…", code=True),
        ),
    )


def _carried(who: str, op: Any, history: History) -> Told:
    counts = (
        (len(op.members), "members"),
        (len(op.keys), "ended keys"),
        (len(op.cells), "cells with their spend"),
        (len(op.datasets), "datasets"),
    )
    what = ", ".join(f"{count:,} {name}" for count, name in counts if count)
    return Told(f"{who} carried over {what} from the old log, as the hospitals had signed.")


def _joined(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} joined with keys made on its own machine.",
        (
            Fact("Entry key", f"{op.keys.entry.public[:16]}…", code=True),
            Fact("Invitation", op.invitation[:12], code=True),
        ),
    )


def _change(who: str, op: Any, history: History) -> Told:
    change = op.change
    if change.kind == "invite":
        what = f"to invite {organisation_name(change.invitation.organisation)}"
    elif change.kind == "rekey":
        what = f"new keys for {change.member}"
    elif change.kind == "withdraw":
        what = f"to withdraw invitation {change.invitation[:12]}"
    elif change.kind == "expel":
        what = f"to expel {organisation_name(change.organisation)}"
    else:
        what = "another policy"
    return Told(f"{who} proposed {what}, which counts as its organisation's endorsement.")


def _endorsed(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} endorsed a proposed change.", (Fact("Change", op.change[:12], code=True),))


def _taken_back(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} took back a proposed change: nobody can endorse it any more.",
        (Fact("Change", op.change[:12], code=True),),
    )


def _revoked(who: str, op: Any, history: History) -> Told:
    since = "" if op.compromised_since_ms is None else " Entries since then are disputed."
    return Told(f"{who} ended the keys of {op.member}.{since}")


def _conflicted(who: str, op: Any, history: History) -> Told:
    found = parse_leaf(decode_b64(op.first)).body
    return Told(
        f"{who} showed two entries that {found.author}'s key signed for one place of its chain. The "
        "key ended here.",
        (
            Fact("Key", found.key[:12], code=True),
            Fact("Place in its chain", f"{found.seq:,}"),
        ),
    )


def _erased(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} had a card erased: every copy deletes it, and what binds it stays.",
        (Fact("Card", op.card[:12], code=True),),
    )


def _rotated(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} changed its keys, with the old ones in hand.")


TELLERS: dict[str, Teller] = {
    "federation.founded": _founded,
    "federation.succeeded": _succeeded,
    "federation.carried": _carried,
    "member.joined": _joined,
    "change.proposed": _change,
    "change.endorsed": _endorsed,
    "change.withdrawn": _taken_back,
    "key.rotated": _rotated,
    "key.revoked": _revoked,
    "key.conflicted": _conflicted,
    "card.erased": _erased,
}
