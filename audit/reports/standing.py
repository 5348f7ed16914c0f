"""What every report begins with: what it stands on, who made it, and its seal.

A report names the checkpoint that it was derived from, so that a sceptic derives it again. Its seal
is the SHA-256 of its canonical JSON and, where its maker has a key, an Ed25519 signature over these
bytes under the typed prefix of kind ``report``.
"""

from __future__ import annotations

import hashlib
from importlib import metadata

import orjson
from pydantic import BaseModel

from audit.reports.data_use_form import Header, Person, Standing
from audit.verification.verify import Verification, disputed
from ledger.formats.keys import SigningKey

NOT_STATED = "not stated"
ERASED = "erased, or not in this copy"


def standing_of(found: Verification) -> Standing:
    """The checkpoint and the verdict behind a report."""
    report, notes = found.report, found.notes
    return Standing(
        federation=report.federation,
        anchored=report.anchored,
        size=report.size,
        root=report.root,
        checkpoint=notes.note.decode("utf-8") if notes.note else "",
        checkpoint_size=notes.note_size,
        heads=report.witnesses.signed,
        heads_missing=report.witnesses.missing,
        completeness=report.completeness(),
        entries_applied=report.applied,
        entries_void=report.void,
        step_verdicts={str(step): report.verdict_of(step) for step in range(1, 15)},
        disputed=tuple(disputed(d) for d in found.history.disputes() if d.entries),
        refuted=tuple(f"{check.place}: {check.detail}" for check in report.refuted),
    )


def header_of(
    found: Verification,
    *,
    report: str,
    subject: str,
    version: str,
    period: tuple[int, int],
    now_ms: int,
    by: str,
) -> Header:
    """The first block of any report."""
    standing = standing_of(found)
    known = f"{report}\n{subject}\n{version}\n{standing.size}\n{standing.root}\n{now_ms}\n{by}"
    return Header(
        report=report,
        id=hashlib.sha256(known.encode()).hexdigest()[:24],
        subject=subject,
        version=version,
        period_from_ms=period[0],
        period_to_ms=period[1],
        generated_at_ms=now_ms,
        generated_by=by,
        software=f"consilium {software_version()}",
        standing=standing,
    )


def person(found: Verification, handle: str) -> Person:
    """A member as a report shows it: the handle always, the rest from its card."""
    member = found.state.members[handle]
    card = found.documents.member_card(member.card)
    if card is None:
        said = NOT_STATED if member.card is None else ERASED
        return Person(
            handle=handle,
            organisation=member.organisation,
            role=member.role,
            name=said,
            institution=said,
            contact=said,
        )
    contact = card.contact
    parts = (contact.name, contact.email, contact.telephone, contact.address, contact.country)
    return Person(
        handle=handle,
        organisation=member.organisation,
        role=member.role,
        name=card.name or NOT_STATED,
        institution=card.institution or NOT_STATED,
        contact=", ".join(part for part in parts if part) or NOT_STATED,
    )


def software_version() -> str:
    """The installed release, or ``unreleased`` where it runs from a bare checkout."""
    try:
        return metadata.version("consilium")
    except metadata.PackageNotFoundError:
        return "unreleased"


def report_bytes(report: BaseModel) -> bytes:
    """A report's canonical JSON: sorted keys, no spaces, UTF-8."""
    return orjson.dumps(report.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)


def sealed_json(report: BaseModel, key: SigningKey | None = None) -> bytes:
    """A report with its seal, as indented JSON for a file.

    Args:
        report: any report.
        key: signs it where given (an entry key of the maker).

    Returns:
        An object of ``report``, ``sha256`` of its canonical JSON, and ``signature``: null, or key
        id, public key and signature (kind ``report``).
    """
    data = report_bytes(report)
    signature = None
    if key is not None:
        signature = {
            "key": key.id,
            "public": key.public.hex(),
            "signature": key.sign("report", data).hex(),
        }
    whole = {
        "report": orjson.loads(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "signature": signature,
    }
    return orjson.dumps(whole, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
