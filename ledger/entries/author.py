"""Saying something: one signed entry after another on one key's chain, through any crash.

The last entry that a key signed lies in a file, written and flushed before it is sent. A crash or a
lost answer leaves it there, and the next attempt sends the same bytes: they are taken once or are
known already, so a chain never has a gap or a double. Nothing else is signed at that place in the
chain, also not when a coordinator says that it refused the entry: it could sequence it later. Saying
again what is still under way is not saying it twice.

A key that somebody else used is not used here: when the log holds an entry by it that is not the last
one signed here, this home was restored from a backup or copied, and nothing more is signed (`copied`).
What the log does not show yet, nobody can know: so follow the log before signing.

One process a key: a lock beside the file refuses a second one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ledger.copies.replica import Replica
from ledger.copies.whole_file import flush_folder
from ledger.entries.entry import NOTHING_SEEN, Body, Entry, Seen, parse_leaf, sign_entry
from ledger.entries.operations.members import MemberJoined
from ledger.entries.operations.values import EMPTY_HASH
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import AlreadyRunning, CopiedKey, MalformedInput, NotAdmitted, StoreUnusable
from ledger.formats.keys import KeyRing


class Receipt(Protocol):
    """What a coordinator answers: the index, and the verdict it folded."""

    @property
    def index(self) -> int:
        """Index in the log."""

    @property
    def applied(self) -> bool:
        """Whether the operation took effect."""

    @property
    def reason(self) -> str | None:
        """Why it is void, or None."""


Send = Callable[[bytes], Receipt]


def clock_ms() -> int:
    """Clock of this machine, POSIX milliseconds."""
    return time.time_ns() // 1_000_000


class Author:
    """A member's pen. Uses the replica's state; call from the replica's own thread."""

    def __init__(
        self,
        keyring: KeyRing,
        replica: Replica,
        send: Send,
        last_entry: Path,
        now_ms: Callable[[], int] = clock_ms,
    ) -> None:
        """Open the chain.

        Args:
            keyring: holds the entry key.
            replica: the member's verified copy.
            send: hands a leaf to a coordinator and returns its receipt.
            last_entry: the file that holds the last signed leaf.
            now_ms: the author's clock.

        Raises:
            AlreadyRunning: another process writes with this key.
            StoreUnusable: the file cannot be read, or holds no entry.
        """
        self._keyring = keyring
        self._replica = replica
        self._send = send
        self._path = last_entry
        self._now_ms = now_ms
        self._lock = take_lock(last_entry.with_suffix(".lock"))
        try:
            self._last = self._read()
        except StoreUnusable:
            self.close()
            raise

    @property
    def key(self) -> str:
        """Id of the entry key."""
        return self._keyring.entry.id

    @property
    def pending(self) -> Entry | None:
        """The last signed entry, while the replica does not hold it yet."""
        if self._last is None or self._last.body.key != self.key:
            return None
        head = self._replica.state.keys.get(self.key)
        if head is not None and head.next_seq > self._last.body.seq:
            return None
        return self._last

    @property
    def copied(self) -> bool:
        """Whether the log holds an entry by this key that was not signed from this home.

        Then the home is an older copy of itself, or somebody has the key.
        """
        head = self._replica.state.keys.get(self.key)
        if head is None or head.next_seq == 0:
            return False
        last = self._last
        if last is None or last.body.key != self.key:
            return True
        if last.body.seq >= head.next_seq:
            return False
        return last.hash != head.head

    def submit(self, op: Operation) -> Receipt:
        """Sign an operation, make it durable, send it.

        What was signed before and has not arrived is sent first.

        Returns:
            The receipt for this operation.

        Raises:
            NotAdmitted: the key is not enrolled here, or was retired; nothing was signed.
            ProtocolUnknown: the log's rules are newer than this software; nothing was signed.
            CopiedKey: the key was used elsewhere; nothing was signed.
            MalformedInput: the operation is too long for an entry; nothing was signed.
            LedgerError: whatever `send` raises; the entry stays and is sent again next time.
        """
        self._check_key(op)
        waiting = self.pending
        if waiting is not None:
            if waiting.body.op == op:
                return self._send(waiting.leaf)
            self._send(waiting.leaf)
        return self._send(self._sign(op).leaf)

    def resend(self) -> Receipt | None:
        """Send what was signed and has not arrived; None when nothing is pending."""
        waiting = self.pending
        return None if waiting is None else self._send(waiting.leaf)

    def close(self) -> None:
        """Let another process write with this key."""
        os.close(self._lock)

    def _check_key(self, op: Operation) -> None:
        self._replica.require_readable()
        head = self._replica.state.keys.get(self.key)
        if head is not None and head.retired_at is not None:
            raise NotAdmitted(
                f"key {self.key}",
                f"it was retired at entry {head.retired_at - 1}; ask a steward for a rekey",
            )
        if self.copied:
            last = self._last
            signed = last.body.seq if last is not None and last.body.key == self.key else None
            raise CopiedKey(self.key, signed, 0 if head is None else head.next_seq - 1)
        begun = head is not None or (self._last is not None and self._last.body.key == self.key)
        if not begun and not isinstance(op, MemberJoined):
            raise NotAdmitted(
                f"key {self.key}",
                "it is not enrolled in this copy of the log; catch up with it, or join first",
            )

    def _sign(self, op: Operation) -> Entry:
        state = self._replica.state
        head = state.keys.get(self.key)
        seq, prev = (0, EMPTY_HASH) if head is None else (head.next_seq, head.head)
        last = self._last
        if last is not None and last.body.key == self.key and last.body.seq >= seq:
            seq, prev = last.body.seq + 1, last.hash
        seen = NOTHING_SEEN
        if self._replica.checkpoint is not None:
            seen = Seen(size=self._replica.size, root=self._replica.root().hex())
        entry = sign_entry(
            Body(
                v=1,
                federation=state.federation,
                author=self._keyring.handle,
                key=self.key,
                seq=seq,
                prev=prev,
                seen=seen,
                at_ms=self._now_ms(),
                op=op,
            ),
            self._keyring.entry,
        )
        self._write(entry)
        return entry

    def _read(self) -> Entry | None:
        try:
            leaf = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnusable(str(self._path), f"cannot be read: {error.strerror}") from None
        try:
            return parse_leaf(leaf)
        except MalformedInput as error:
            raise StoreUnusable(
                str(self._path),
                f"it does not hold the entry that this key signed last ({error}); restore it, or "
                "ask a steward for a rekey",
            ) from None

    def _write(self, entry: Entry) -> None:
        """Replace the file; it is on disk when this returns, before anything is sent.

        Raises:
            StoreUnusable: it cannot be; nothing was sent, and another entry may take its place.
        """
        new = self._path.with_suffix(".new")
        try:
            with new.open("wb") as file:
                file.write(entry.leaf)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            flush_folder(self._path.parent)
        except OSError as error:
            raise StoreUnusable(
                str(self._path), f"cannot be written ({error.strerror}); nothing was sent"
            ) from None
        self._last = entry


def take_lock(path: Path) -> int:
    """Take the lock of a home's pen; closing the handle gives it back.

    Raises:
        AlreadyRunning: another process has it.
        StoreUnusable: the lock file cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnusable(str(path), f"cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AlreadyRunning(
            str(path.parent),
            "another process writes with this member's key; wait for it, or stop it "
            "(one device and one process a key)",
        ) from None
    return handle
