"""Parsers of what a coordinator and a copy keep in files of their own, which others may have written to."""

from __future__ import annotations

from coordinator.http.upload_journal import UploadJournal
from coordinator.sequencing.head import SLOT, read_head, write_head
from ledger.errors import BadSignature, MalformedInput, UnknownKey
from ledger.formats.cosigned import keep_known, open_ours
from tests.fuzz import samples
from tests.fuzz.parser import Parser


def _head() -> list[bytes]:
    path = samples.FOLDER / "head.note"
    path.unlink(missing_ok=True)
    for note in (samples.note(), samples.federation().checkpoint()):
        write_head(path, note)
    return [path.read_bytes(), bytes(2 * SLOT)]


def _keep(note: bytes) -> bytes:
    open_ours(note, samples.log_key())
    return keep_known(note, samples.log_key(), [key.public for key in samples.witnesses()])


def _keep_again(kept: bytes) -> None:
    assert _keep(kept) == kept


def _journal() -> list[bytes]:
    path = samples.FOLDER / "uploads"
    UploadJournal(path).rewrite({"basel": {"ab" * 32: 7, "cd" * 32: 0}, "bern": {"ab" * 32: 9}})
    return [path.read_bytes()]


def _uploads(data: bytes) -> dict[str, dict[str, int]]:
    return UploadJournal(samples.in_file("uploads", data)).read()


def _written_anew(held: dict[str, dict[str, int]]) -> None:
    journal = UploadJournal(samples.FOLDER / "uploads")
    journal.rewrite(held)
    assert journal.read() == held


PARSERS: tuple[Parser, ...] = (
    Parser(
        "head-file", ("coordinator.sequencing.head.read_head",), _head,
        lambda data: read_head(samples.in_file("head", data)), (),
        without="of two places the newer whole one counts, and none that is torn",
    ),
    Parser(
        "kept-note", ("ledger.formats.cosigned.open_ours",), lambda: [samples.note()], _keep,
        (MalformedInput, BadSignature, UnknownKey),
        without="what a copy keeps is a part of what it was sent", fixpoint=_keep_again,
    ),
    Parser(
        "upload-journal", ("coordinator.http.upload_journal.UploadJournal.read",), _journal,
        _uploads, (), without="a line that is none counts for nothing", fixpoint=_written_anew,
    ),
)  # fmt: skip
