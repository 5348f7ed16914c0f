"""Whose line of a note is whose, and what a copy of a log keeps of a note that it was sent.

A cosignature/v1 does not cover the name of its key, so anybody on the way can write another one above it.
Node, coordinator and auditor therefore know a line by the key alone, under whatever name below the log's
``/witness/``; else a renamed line would count for one of them and be a stranger's for another.

Promise: `keep_known` leaves the text alone, and keeps the log's line and one line of each key that it
names, all of which verify. So whoever sends a note cannot bring anything into a copy that its auditor
would have to call a change.
"""

from __future__ import annotations

from collections.abc import Collection

from ledger.errors import BadSignature, MalformedInput
from ledger.formats.checkpoint import Checkpoint, open_checkpoint
from ledger.formats.note import (
    COSIGNATURE_V1,
    Note,
    NoteSignature,
    VerifierKey,
    key_id_of,
    parse_note,
)

WITNESS = "/witness/"
"""What stands between a log's origin and a member's handle in the name of a witness key."""


def find_cosigner(
    line: NoteSignature, text: bytes, origin: str, keys: Collection[bytes]
) -> tuple[bytes, int] | None:
    """Which of some witness keys made a line, and when.

    An id has four bytes: somebody with patience makes a key whose id, under its own name, is that of
    another's key. Such a line is its maker's, and none that fails.

    Args:
        line: of a note.
        text: the note's.
        origin: the log's; the line's name must lie below it.
        keys: public keys, 32 bytes each.

    Returns:
        The key and POSIX seconds; None for a line by somebody else.

    Raises:
        BadSignature: its id is one of theirs, and it verifies under none.
    """
    if not line.name.startswith(origin + WITNESS):
        return None
    failed: BadSignature | None = None
    for public in keys:
        if key_id_of(line.name, COSIGNATURE_V1, public) != line.key_id:
            continue
        try:
            time_s = VerifierKey(line.name, public, COSIGNATURE_V1).check(text, line.payload)
        except BadSignature as error:
            failed = error
        else:
            return public, time_s or 0
    if failed is not None:
        raise failed
    return None


def open_ours(note: bytes, log: VerifierKey) -> Checkpoint:
    """Verify the log's signature on a note of one of our logs; they write no extension lines.

    Raises:
        MalformedInput: not a checkpoint, of another origin, or with such lines.
        BadSignature, UnknownKey: the log did not sign it.
    """
    checkpoint = open_checkpoint(note, log)
    if checkpoint.extensions:
        raise MalformedInput("checkpoint", "it has lines that our logs never write")
    return checkpoint


def keep_known(note: bytes, log: VerifierKey, keys: Collection[bytes] = ()) -> bytes:
    """A checkpoint note as a copy keeps it.

    Args:
        note: as received, verified under the log's key.
        log: the log's key, named by its origin.
        keys: witness keys; of several lines by one, the latest in time stays.

    Raises:
        MalformedInput: it is no note.
        BadSignature: a line by one of these keys does not verify.
    """
    opened = parse_note(note)
    own = next((line for line in opened.signatures if line.is_by(log)), None)
    theirs: dict[bytes, tuple[int, NoteSignature]] = {}
    for line in opened.signatures:
        found = find_cosigner(line, opened.text, log.name, keys)
        if found is not None and found[1] > theirs.get(found[0], (0, line))[0]:
            theirs[found[0]] = found[1], line
    kept = {line for _, line in theirs.values()} | {own}
    lines = tuple(line for line in opened.signatures if line in kept)
    return Note(opened.text, tuple(dict.fromkeys(lines))).encode()
