"""Filling a coordinator's database again from copies of its log, entry by entry, verified.

Promise: only entries that lead to a checkpoint by this very log's key get in (``Replica``), so a copy
that was forged, changed or lengthened is refused with the place. The highest signed checkpoint that
anybody shows is remembered in the head file before anything else happens; no sequencer opens the
database below it (``sequencing/opening.py``). Two signed checkpoints that contradict each other are a
fork: both are kept, and no refill mends that. A refill under way keeps the coordinator from running
until every node that joined has shown its copy or was left out by name: a node that was not asked
may hold a checkpoint that nobody else has, and signing on below it would fork the log.

Not promised: a node that no copy names is not waited for: so bring the newest copy, not an old one.
Nor what no copy holds. An entry that reached nobody but its author is sent again by its
author; updates of the other hospitals, where no copy has them, stay missing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from coordinator.errors import RefillRefused
from coordinator.http.upload_journal import UploadJournal
from coordinator.http.uploads import Uploads, free_bytes
from coordinator.refilling.home import progress_noted, replica_of
from coordinator.refilling.offer import Offer
from coordinator.refilling.wanted import WantedBlobs
from coordinator.sequencing.head import read_head, write_head
from coordinator.settings import BLOBS, HEAD, REFILL, UPLOADS, CoordinatorSettings
from ledger.copies.blobs import BlobStore
from ledger.copies.leaves import read_leaves
from ledger.copies.store import LogStore, exclusive_lock
from ledger.copies.stored import StoredNote
from ledger.copies.whole_file import replace_file
from ledger.errors import BlobCorrupt, BlobMissing, MalformedInput, NotWitnessed, Refused
from ledger.formats.checkpoint import Checkpoint, open_checkpoint
from ledger.formats.cosigned import keep_known
from ledger.formats.keys import KeyRing
from ledger.formats.strict import canonical

BATCH = 1000
"""Entries verified and stored together."""
MOST_EVIDENCE = 1000
"""Kept evidence taken from one copy."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a refill is.

    Attributes:
        size: entries in the database.
        signed: entries under the highest checkpoint that anybody has shown.
        shown: nodes that have shown their whole copy.
        left_out: nodes that the operator goes on without.
        awaited: nodes that joined, by all that is known here so far, and have done neither.
    """

    size: int
    signed: int
    shown: tuple[str, ...]
    left_out: tuple[str, ...]
    awaited: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the coordinator may run again; entry 0 alone is no log that anybody has shown."""
        return self.size > 1 and self.size >= self.signed and not self.awaited

    @property
    def unasked(self) -> tuple[str, ...]:
        """Nodes that were left out and showed nothing: nobody knows what they hold."""
        return tuple(sorted(set(self.left_out) - set(self.shown)))

    @property
    def in_words(self) -> str | None:
        """What whoever goes on without them risks; None where everybody has shown."""
        if not self.unasked:
            return None
        return (
            f"{', '.join(self.unasked)} showed nothing and will not be asked. A checkpoint over more "
            f"than {self.size} entries that only such a node holds, or one that joined after entry "
            f"{self.size - 1}, is not known here: if there is one, what is signed next forks this log, "
            "and every hospital stops. Before the coordinator runs, ask each of these hospitals for "
            "the size in its node's status"
        )


class Refill:
    """A refill of one home. Use as a context manager; one process at a time.

    Args:
        settings: of the home.
        keyring: the coordinator's, its log key among them.
        left_out: handles of nodes to go on without.

    Raises:
        AlreadyRunning: the coordinator runs, or another refill.
        RefillRefused: these keys are not those of the log.
        LedgerError: what is in the database cannot be read; move it away.
    """

    def __init__(
        self, settings: CoordinatorSettings, keyring: KeyRing, left_out: Iterable[str] = ()
    ) -> None:
        self._home = settings.home
        with ExitStack() as undo:
            store = LogStore.open(settings.database_url)
            undo.callback(store.close)
            undo.enter_context(exclusive_lock(settings.database_url))
            self.replica = replica_of(store, settings)
            state = self.replica.state
            if keyring.log is None or keyring.log.public.hex() != state.log_key.public:
                raise RefillRefused("keyring", "its log key is not the one that genesis names")
            self._undo = undo.pop_all()
        self.blobs = BlobStore(self._home / BLOBS, limit=settings.blob_limit)
        self.uploads = Uploads(
            settings.upload_limits,
            lambda _: True,  # entries name whatever is taken here; parts count until they are whole
            free=lambda: free_bytes(settings.home),
            journal=UploadJournal(settings.home / UPLOADS),
        )
        self.uploads.resume(self.blobs)
        noted = progress_noted(self._home / REFILL)
        self._shown = set(noted.get("shown", ()))
        self._left_out = set(noted.get("left_out", ())) | set(left_out)
        self._wanted = WantedBlobs(self.replica.store, self.blobs)
        self._finished = False
        self._noting = threading.Lock()  # the door's threads note, another one finishes
        self._save()
        for held in (read_head(self._home / HEAD), self.replica.checkpoint):
            if held is not None:
                self.claim(held)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the database back."""
        self._undo.close()

    @property
    def standing(self) -> Standing:
        """How far it is."""
        state = self.replica.state
        nodes = {
            m.handle for m in state.members.values() if m.role == "node" and m.revoked_at is None
        }
        return Standing(
            size=self.replica.size,
            signed=self._signed().size,
            shown=tuple(sorted(self._shown)),
            left_out=tuple(sorted(self._left_out)),
            awaited=tuple(sorted(nodes - self._shown - self._left_out)),
        )

    def claim(self, note: bytes) -> Checkpoint:
        """Take note of a checkpoint that somebody holds: nothing is ever signed below it.

        Raises:
            ForkDetected: it contradicts the entries here; both notes are kept.
            Refused: it is no checkpoint by this log's key, or not of these entries.
        """
        checkpoint = open_checkpoint(note, self.replica.log_key, origin=self.replica.origin)
        note = keep_known(note, self.replica.log_key)
        if checkpoint.size <= self.replica.size:
            self.replica.extend((), note)
        if read_head(self._home / HEAD) is None or checkpoint.size > self._signed().size:
            write_head(self._home / HEAD, note)
        return checkpoint

    def extend(self, leaves: list[bytes], note: bytes) -> int:
        """Take entries from where the database ends up to a signed checkpoint.

        Returns:
            Entries in the database now.

        Raises:
            ForkDetected, Refused: they do not follow; nothing of them was taken.
        """
        self.claim(note)
        self.replica.extend(leaves, note)
        return self.replica.size

    def accept_finals(self, notes: Iterable[bytes]) -> None:
        """Take final checkpoints; one that covers more than is here is left for later.

        Raises:
            NotWitnessed, Refused: it is not final, or not of this log.
        """
        for note in notes:
            final = open_checkpoint(note, self.replica.log_key, origin=self.replica.origin)
            if final.size <= self.replica.size:
                self.replica.accept_final(note)

    def take(self, offer: Offer, handle: str | None = None) -> int:
        """Take from a copy all that is missing here.

        Args:
            offer: the copy.
            handle: of the node whose copy it is, or None when it does not stand for one.

        Returns:
            How many entries were new.

        Raises:
            ForkDetected: it holds a checkpoint that contradicts this log; both are kept.
            RefillRefused: names the copy and the place where it gives way.
        """
        before = self.replica.size
        notes = list(offer.checkpoints())
        try:
            self._claim_all(notes)
            self._extend_from(offer, notes)
        except Refused as refusal:
            raise RefillRefused(offer.name, self._explain(offer, refusal)) from None
        self._finals_from(offer)
        for number, item in enumerate(offer.evidence()):
            if number < MOST_EVIDENCE:
                self.replica.store.put_conflict(item.kind, item.evidence)
        for sha256 in list(self.wanted()):
            try:
                data = offer.blob(sha256, None)
                if self.needs_part(sha256, 0, len(data), len(data)):
                    self.blobs.put(data)
            except (BlobMissing, BlobCorrupt, MalformedInput):
                continue
        if handle is not None:
            self.show(handle, notes[-1].note if notes else None)
        return self.replica.size - before

    def show(self, handle: str, note: bytes | None) -> None:
        """A node has shown its copy up to its newest checkpoint.

        Raises:
            RefillRefused: nobody of that name witnesses, or its checkpoint is above what is here.
            ForkDetected: its checkpoint contradicts this log.
        """
        member = self.replica.state.members.get(handle)
        if member is None or member.role != "node":
            raise RefillRefused(handle, "no node of this federation has this handle")
        size = 1 if note is None else self.claim(note).size
        if size > self.replica.size:
            raise RefillRefused(
                handle,
                f"it shows a checkpoint over {size} entries, and {self.replica.size} are here: its "
                "entries are needed first",
            )
        self._shown.add(handle)
        self._save()

    def wanted(self) -> Mapping[str, frozenset[int]]:
        """Blobs that the entries name and that are not here; see `WantedBlobs.missing`."""
        return self._wanted.missing(self.replica.state)

    def needs_part(self, sha256: str, offset: int, total: int, part: int) -> bool:
        """Judge a part of a blob that somebody brings; see `WantedBlobs.is_needed`."""
        return self._wanted.is_needed(self.replica.state, sha256, offset, total, part)

    def finish(self) -> None:
        """Let the coordinator run again.

        Raises:
            RefillRefused: it must not yet; says what is missing.
        """
        now = self.standing
        if now.size == 1:
            raise RefillRefused(
                "database",
                "no copy was brought; let the nodes bring theirs (--wait) or use --from",
            )
        if now.size < now.signed:
            raise RefillRefused(
                "database",
                f"a checkpoint over {now.signed} entries was signed, and no copy so far holds more "
                f"than {now.size}; bring the copy that does. Without it this log can only be "
                "succeeded: consilium federation succeed",
            )
        if now.awaited:
            raise RefillRefused(
                "database",
                f"{', '.join(now.awaited)} did not show what they hold, which may be more; let them "
                "(--wait), bring their copies (--from HANDLE=COPY), or leave out for good what is "
                "lost (--without HANDLE)",
            )
        with self._noting:
            self._finished = True  # a node that shows its copy again does not begin it anew
            (self._home / REFILL).unlink(missing_ok=True)

    # --- inside ---------------------------------------------------------------------------------

    def _save(self) -> None:
        """Remember who has shown; while the file is there the coordinator does not run."""
        with self._noting:
            if self._finished:
                return
            plain = {"left_out": sorted(self._left_out), "shown": sorted(self._shown)}
            replace_file(self._home / REFILL, canonical(plain) + b"\n")

    def _signed(self) -> Checkpoint:
        head = read_head(self._home / HEAD)
        if head is None:
            return Checkpoint(self.replica.origin, 1, self.replica.root(1))
        return open_checkpoint(head, self.replica.log_key, origin=self.replica.origin)

    def _claim_all(self, notes: list[StoredNote]) -> None:
        """The newest that covers what is here, which all older ones lead to, and the newest at all."""
        covered = [note for note in notes if note.size <= self.replica.size]
        for note in (covered[-1:]) + notes[-1:]:
            self.claim(note.note)

    def _extend_from(self, offer: Offer, notes: list[StoredNote]) -> None:
        ahead = [note for note in notes if note.size > self.replica.size]
        leaves: list[bytes] = []
        start = self.replica.size
        source = offer.leaves(start)
        for at, note in enumerate(ahead):
            while start + len(leaves) < note.size:
                leaf = next(source, None)
                if leaf is None:
                    return  # its checkpoint is remembered; another copy may have the entries
                leaves.append(leaf)
            if len(leaves) >= BATCH or at == len(ahead) - 1:
                self.extend(leaves, note.note)
                start, leaves = self.replica.size, []

    def _finals_from(self, offer: Offer) -> None:
        try:
            self.accept_finals(note.note for note in offer.finals())
        except NotWitnessed as refusal:
            raise RefillRefused(offer.name, str(refusal)) from None
        except Refused as refusal:
            raise RefillRefused(offer.name, f"a final checkpoint: {refusal}") from None

    def _explain(self, offer: Offer, refusal: Refused) -> str:
        """Where a copy leaves this log, if it does so before its end."""
        mine = _leaves(self.replica.store, 0)
        pairs = zip(mine, offer.leaves(0), strict=False)
        other = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
        if other is None:
            return f"among its entries from {self.replica.size} on: {refusal}"
        return f"its entry {other} is not this log's: {refusal}"


def _leaves(store: LogStore, start: int) -> Iterator[bytes]:
    return read_leaves(store, start, store.size())
