"""Entries, checkpoints and times in short, as tables show them and ``--json`` prints them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict

from ledger.formats.checkpoint import parse_checkpoint
from ledger.formats.note import parse_note
from ledger.rules.log import Sequenced

if TYPE_CHECKING:
    pass


class CheckpointSummary(TypedDict):
    """A signed checkpoint: root in hexadecimal, names of the keys under it, and the note itself."""

    origin: str
    size: int
    root: str
    signed_by: list[str]
    note: str


class EntrySummary(TypedDict):
    """An entry of the log in a line."""

    index: int
    operation: str
    author: str
    at: str
    verdict: str
    hash: str


def entry_summary(item: Sequenced) -> EntrySummary:
    """Summarise an entry."""
    body = item.entry.body
    return EntrySummary(
        index=item.index,
        operation=body.op.type,
        author=body.author,
        at=iso_time(body.at_ms),
        verdict="applied" if item.outcome.applied else f"void: {item.outcome.void}",
        hash=item.entry.hash,
    )


def checkpoint_summary(note: bytes) -> CheckpointSummary:
    """A signed checkpoint; its signatures are named, not verified.

    Raises:
        MalformedInput: it is none.
    """
    parsed = parse_note(note)
    checkpoint = parse_checkpoint(parsed.text)
    return CheckpointSummary(
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        signed_by=[signature.name for signature in parsed.signatures],
        note=note.decode("utf-8"),
    )


def iso_time(at_ms: int) -> str:
    """A time in milliseconds as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
