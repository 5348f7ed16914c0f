"""A member's receipts: verified, kept until its own copy of the log shows the entry, or exposed.

Promise: `ReceiptBook.send` returns only when a receipt by the log's key was verified and is on disk, so
whoever was answered holds the promise through any crash. `look`, after each answer of the
coordinator to a question about news, drops what the verified copy shows under a checkpoint, keeps
evidence of what was broken (``ledger.copies.broken_receipt``), and says what is overdue. What waits
to be published survives a restart.

Not promised: evidence against a coordinator that shows nothing of after the deadline. That is
overdue, and only its author knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ledger.copies.broken_receipt import (
    BROKEN_RECEIPT,
    BrokenReceipt,
    Verdict,
    judge_broken,
    read_broken,
)
from ledger.copies.evidence import frame, split
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.copies.whole_file import replace_file
from ledger.entries.author import Receipt, clock_ms
from ledger.entries.entry import frame_leaf, parse_leaf
from ledger.errors import LedgerError, MalformedInput, Refused, StoreUnusable
from ledger.formats.proof import Proof
from ledger.formats.receipt import open_receipt

LONGEST_MS = 3_600_000
"""A deadline further off than this promises too little to be taken for a receipt."""
GRACE_MS = 5_000
"""How far clocks may differ, and answers be under way, before an entry counts as overdue."""

_KEPT = ".receipt"
_BROKEN = ".broken"


class Answer(Receipt, Protocol):
    """What a coordinator answers to an entry, with its signed receipt."""

    @property
    def receipt(self) -> bytes:
        """As in ``ledger.formats.receipt``."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A promise that is not settled yet.

    Attributes:
        leaf: the entry, framed.
        receipt: its receipt.
        hash: the entry's, lowercase hex.
        index, merge_by_ms: what is promised.
    """

    leaf: bytes
    receipt: bytes
    hash: str
    index: int
    merge_by_ms: int


class ReceiptBook:
    """The receipts of one home. Use from the replica's thread.

    Args:
        folder: where they are kept; made where there is none.
        replica: the member's verified copy.
        submit: hands a leaf to the coordinator.
        now_ms: the member's clock.

    Raises:
        StoreUnusable: a file in the folder is none of ours.
    """

    def __init__(
        self,
        folder: Path,
        replica: Replica,
        submit: Callable[[bytes], Answer],
        now_ms: Callable[[], int] = clock_ms,
    ) -> None:
        self._folder = folder
        self._replica = replica
        self._submit = submit
        self._now_ms = now_ms
        self._overdue: tuple[Kept, ...] = ()
        folder.mkdir(mode=0o700, exist_ok=True)
        self._kept = {kept.hash: kept for kept in map(self._read, folder.glob("*" + _KEPT))}

    def send(self, leaf: bytes) -> Answer:
        """Submit an entry; its receipt is verified and on disk on return.

        Raises:
            MalformedInput, BadSignature, UnknownKey, NotConsistent: the coordinator gave no receipt
                that holds. Whether the entry is in the log is not known; send it again.
            LedgerError: whatever `submit` raises.
        """
        answer = self._submit(leaf)
        kept = self._open(leaf, answer.receipt)
        if kept.index != answer.index:
            raise MalformedInput(
                "receipt", f"it promises index {kept.index}, and the answer says {answer.index}"
            )
        if kept.merge_by_ms > self._now_ms() + LONGEST_MS:
            raise MalformedInput(
                "receipt", "its deadline is more than an hour away, if clocks agree"
            )
        if not self._is_merged(kept):
            replace_file(self._folder / (kept.hash + _KEPT), frame(kept.leaf, kept.receipt))
            self._kept[kept.hash] = kept
        return answer

    @property
    def waiting(self) -> tuple[Kept, ...]:
        """Promises that are not settled yet."""
        return tuple(self._kept.values())

    @property
    def overdue(self) -> tuple[Kept, ...]:
        """Promises whose deadline was over at the last look, without evidence that others accept."""
        return self._overdue

    def look(self) -> tuple[Verdict, ...]:
        """Compare every promise with the copy; call after each answer about news.

        Returns:
            What was found broken now. Its evidence is kept in the copy's store for ever, and among
            `unpublished`.

        Raises:
            StoreError: it could not be kept.
        """
        found, overdue = [], []
        for kept in self.waiting:
            if self._is_merged(kept):
                self._drop(kept)
                continue
            broken = self._broken(kept)
            if broken is not None:
                replica = self._replica
                found.append(judge_broken(broken, replica.log_key, replica.state))
                evidence = broken.encode()
                replica.store.put_conflict(BROKEN_RECEIPT, evidence)
                replace_file(self._folder / (kept.hash + _BROKEN), evidence)
                self._drop(kept)
            elif self._now_ms() > kept.merge_by_ms + GRACE_MS:
                overdue.append(kept)
        self._overdue = tuple(overdue)
        return tuple(found)

    @property
    def unpublished(self) -> tuple[bytes, ...]:
        """Evidence that its owner has not put on record yet (`receipt.broken`)."""
        return tuple(path.read_bytes() for path in sorted(self._folder.glob("*" + _BROKEN)))

    def published(self, evidence: bytes) -> None:
        """The log has it on record."""
        entry = parse_leaf(read_broken(evidence).leaf)
        (self._folder / (entry.hash + _BROKEN)).unlink(missing_ok=True)

    def _is_merged(self, kept: Kept) -> bool:
        """Whether the copy, all of which is under a verified checkpoint, holds the entry there."""
        replica = self._replica
        if kept.index >= replica.size:
            return False
        return replica.store.row(kept.index).leaf.hex() == kept.hash

    def _broken(self, kept: Kept) -> BrokenReceipt | None:
        """Evidence that a promise was broken, where the copy holds any."""
        replica, note = self._replica, self._replica.checkpoint
        if note is None:
            return None
        if kept.index < replica.size:
            return self._with_proof(kept, kept.index, note)
        if replica.state.log_time > kept.merge_by_ms:
            for at in reversed(range(replica.size)):
                body = parse_leaf(_leaf(replica.store, at)).body
                if body.author == replica.state.coordinator and body.at_ms > kept.merge_by_ms:
                    return self._with_proof(kept, at, note)
        final = replica.final
        reached_s = None if final.quorum is None else final.quorum.reached_s
        if final.note is not None and reached_s is not None and final.size <= kept.index:
            unseen = BrokenReceipt(kept.leaf, kept.receipt, final.note)
            try:
                judge_broken(unseen, replica.log_key, replica.state)
            except Refused:
                return None
            return unseen
        return None

    def _with_proof(self, kept: Kept, index: int, note: bytes) -> BrokenReceipt:
        replica = self._replica
        proof = Proof(index, replica.inclusion(index, replica.size), note)
        other = _leaf(replica.store, index)
        return BrokenReceipt(kept.leaf, kept.receipt, proof.encode(), other)

    def _open(self, leaf: bytes, receipt: bytes) -> Kept:
        entry = parse_leaf(leaf)
        index, promise = open_receipt(receipt, bytes.fromhex(entry.hash), self._replica.log_key)
        return Kept(leaf, receipt, entry.hash, index, promise.merge_by_ms)

    def _read(self, path: Path) -> Kept:
        try:
            return self._open(*split(path.read_bytes()))
        except (OSError, LedgerError) as error:
            raise StoreUnusable(
                str(path), f"it holds no receipt of this federation ({error}); move it away"
            ) from None

    def _drop(self, kept: Kept) -> None:
        (self._folder / (kept.hash + _KEPT)).unlink(missing_ok=True)
        del self._kept[kept.hash]


def known_broken(replica: Replica) -> Verdict | None:
    """The first broken promise that a copy keeps evidence of; a restart does not mend it."""
    for conflict in replica.store.conflicts():
        if conflict.kind == BROKEN_RECEIPT:
            return judge_broken(read_broken(conflict.evidence), replica.log_key, replica.state)
    return None


def _leaf(store: LogStore, index: int) -> bytes:
    row = store.row(index)
    return frame_leaf(row.body, row.signature)
