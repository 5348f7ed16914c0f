"""A witness with a memory: add-checkpoint requests (tlog-witness v1.0.0) judged and answered durably.

Promise: what the judge (``formats.witness``) says to remember is stored, in one transaction with the
check that the memory still is what was judged from, before the answer is given: so two requests that
race, or a crash between them, never take a size back or cosign two trees that contradict each other.
What is stored is the checkpoint with the log's lines and the own cosignature. Two signed roots of one
size are kept as evidence (``evidence.FORK``) whatever the answer.

Not promised: that the entries were seen, unless ``may_cosign`` asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ledger.copies.evidence import FORK, Fork
from ledger.copies.store import LogStore
from ledger.errors import ForkDetected, StoreConflict
from ledger.formats.checkpoint import Checkpoint, parse_checkpoint
from ledger.formats.keys import SigningKey
from ledger.formats.note import COSIGNATURE_V1, Note, VerifierKey, parse_note, parse_signature_lines
from ledger.formats.witness import (
    Answer,
    Seen,
    checkpoint_path,
    judge_add_checkpoint,
    parse_add_checkpoint,
)

ATTEMPTS = 16
"""Requests that race are judged again; one of them moves the memory each time."""

MayCosign = Callable[[Checkpoint, bytes], str | None]
"""Why a checkpoint (and its note) that the protocol allows is not cosigned now; None where it is."""


class StandingWitness:
    """See the module's first lines. Safe from several threads if ``may_cosign`` is.

    Args:
        store: where the memory and the evidence are.
        logs: the log keys trusted, by origin.
        key: the witness key.
        name: its key name.
        now_s: this witness's clock, POSIX seconds.
        may_cosign: the witness's own conditions.
    """

    def __init__(
        self,
        store: LogStore,
        logs: Mapping[str, Sequence[VerifierKey]],
        key: SigningKey,
        name: str,
        *,
        now_s: Callable[[], int],
        may_cosign: MayCosign = lambda checkpoint, note: None,
    ) -> None:
        self._store = store
        self._logs = logs
        self._key = key
        self._now_s = now_s
        self._may_cosign = may_cosign
        self.vkey = VerifierKey(name, key.public, COSIGNATURE_V1)

    def add_checkpoint(
        self, body: bytes, heard: Callable[[ForkDetected], None] = lambda fork: None
    ) -> Answer:
        """Answer a request; what it changes is durable on return.

        Args:
            body: as it came.
            heard: told of a fork that the request proves, after it was kept.

        Raises:
            StoreError: the memory cannot be read or written; nothing was cosigned.
        """
        for _ in range(ATTEMPTS):
            state = {origin: seen for origin in self._logs if (seen := self._seen(origin))}
            judged = judge_add_checkpoint(
                body,
                state,
                logs=self._logs,
                key=self._key,
                name=self.vkey.name,
                time_s=self._now_s(),
            )
            if judged.fork is not None:
                kept = Fork(judged.fork.ours, judged.fork.theirs)
                self._store.put_conflict(FORK, kept.encode())
                heard(judged.fork)
            if judged.state is state:
                return judged.answer
            note = parse_add_checkpoint(body).note
            checkpoint = parse_checkpoint(parse_note(note).text)
            refusal = self._may_cosign(checkpoint, note)
            if refusal is not None:
                return Answer(503, f"{refusal}\n".encode())
            before = state.get(checkpoint.origin)
            try:
                self._store.set_witnessed(
                    checkpoint.origin,
                    checkpoint.size,
                    checkpoint.root,
                    self._with_own(note, judged.answer.body),
                    expected_size=0 if before is None else before.size,
                )
            except StoreConflict:
                continue
            return judged.answer
        return Answer(503, b"too many requests at once; ask again\n")

    def newest(self, path: str) -> bytes | None:
        """What monitors read: the log's line and the own cosignature over the newest tree.

        Args:
            path: ``<hex SHA-256(origin)>/checkpoint``.

        Returns:
            None where nothing was cosigned of such a log.
        """
        for origin, keys in self._logs.items():
            if checkpoint_path(origin) != path:
                continue
            seen = self._seen(origin)
            if seen is None:
                return None
            opened = parse_note(seen.note)
            wanted = [*keys, self.vkey]
            lines = tuple(
                line for line in opened.signatures if any(line.is_by(key) for key in wanted)
            )
            # A copy that cosigned before it kept its own line has none to show.
            own = any(line.is_by(self.vkey) for line in lines)
            return Note(opened.text, lines).encode() if own else None
        return None

    def _seen(self, origin: str) -> Seen | None:
        held = self._store.witnessed(origin)
        return None if held is None else Seen(held.size, held.root, held.note)

    def _with_own(self, note: bytes, lines: bytes) -> bytes:
        """A checkpoint with the lines of trusted log keys, each once, and the own cosignature."""
        opened = parse_note(note)
        origin = parse_checkpoint(opened.text).origin
        by = {
            key: line for key in self._logs[origin] for line in opened.signatures if line.is_by(key)
        }
        kept = tuple(by.values())
        return Note(opened.text, (*kept, *parse_signature_lines(lines))).encode()
