"""Everything that ``coordinator`` raises on top of ``ledger.errors``, in one tree.

::

    CoordinatorError
    ├── NotSequencing       the log takes no entry now (reason)
    ├── Mishap              a mistake of this software, or no memory: what was asked is not done
    ├── Halted              the coordinator has stopped by itself, to be started again (reason)
    ├── RolledBack          the database holds less than this log signed before (held, signed)
    ├── BehindItsLog        a follower has more than we do (held, asked)
    ├── QuotaExceeded       a member says too much at once (handle, retry_after_s)
    ├── StorageExceeded     a member brings too many bytes that no entry names (handle, limit)
    ├── NeverTaken          a blob is larger than its member may ever bring (handle, limit)
    ├── DiskFull            the disk has no room beside what the log needs (kept)
    ├── Overloaded          more waits than is held at once
    ├── AccessDenied        a member may not read this (where, reason)
    ├── BodyTooLarge        a request's body is over its limit (limit)
    ├── RefillRefused       a copy cannot fill the database, or not yet (where, reason)
    ├── Refilling           the database is being refilled, nothing is sequenced (size, awaited)
    ├── KeysEnded           the coordinator's entry key cannot speak any more (key)
    ├── RotationRefused     new keys are in the log, and void (index, reason)
    └── HomeUnusable        a coordinator's home is incomplete or taken (path)

Callers catch types and read fields; the messages are for people and may change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal


class CoordinatorError(Exception):
    """The root: every error this package raises on purpose."""


class NotSequencing(CoordinatorError):
    """The log takes no entry now.

    Attributes:
        reason: what happened, and what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the log takes no entries: {reason}")
        self.reason = reason


class Mishap(CoordinatorError):
    """What was asked fell over something that nobody foresaw: a mistake of ours, or no memory."""

    def __init__(self) -> None:
        super().__init__("an internal error; nothing of it was taken; see the coordinator's log")


class Halted(CoordinatorError):
    """The coordinator has stopped by itself: what it has in memory may not be what is stored.

    Attributes:
        reason: what happened.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the coordinator stopped by itself: {reason}; start it again (a service manager does), "
            "and it goes on from what is stored"
        )
        self.reason = reason


class RolledBack(CoordinatorError):
    """The database holds less than this log has signed: going on would fork it.

    Attributes:
        held: entries in the database.
        signed: entries under the newest signature that is known.
    """

    def __init__(self, *, held: int, signed: int) -> None:
        super().__init__(
            f"the database holds {held} entries, but a checkpoint over {signed} was signed: it was "
            "rolled back. Restore the newer database, or refill it from the hospitals' copies: "
            "consilium coordinator refill; nothing is signed until then, since a second history "
            "would be a fork"
        )
        self.held = held
        self.signed = signed


class BehindItsLog(CoordinatorError):
    """A follower asks from beyond our end.

    Attributes:
        held: entries here.
        asked: entries that the follower says it has.
    """

    def __init__(self, *, held: int, asked: int) -> None:
        super().__init__(
            f"this coordinator has {held} entries, not {asked}; if your copy is verified, show its "
            "checkpoint (POST /v1/checkpoint): this database was rolled back"
        )
        self.held = held
        self.asked = asked


class QuotaExceeded(CoordinatorError):
    """A member says or brings more than its quota.

    Attributes:
        handle: the member.
        retry_after_s: when there is room for it again, seconds.
    """

    def __init__(
        self, handle: str, *, retry_after_s: float, what: Literal["entries", "bytes"] = "entries"
    ) -> None:
        super().__init__(f"{handle} sends too many {what}; wait {retry_after_s:.1f} s")
        self.handle = handle
        self.retry_after_s = retry_after_s


class StorageExceeded(CoordinatorError):
    """A member has brought more that no entry names than it may.

    Attributes:
        handle: the member.
        limit: bytes.
        most: blobs.
    """

    def __init__(self, handle: str, *, limit: int, most: int) -> None:
        super().__init__(
            f"{handle} has brought as much as is taken, {limit} bytes or {most} blobs, that no entry "
            "names or that is not whole; say the entries that name them first"
        )
        self.handle = handle
        self.limit = limit
        self.most = most


class NeverTaken(CoordinatorError):
    """A blob is larger than its member may bring, however long it waits.

    Attributes:
        handle: the member.
        limit: bytes.
    """

    def __init__(self, handle: str, *, size: int, limit: int, setting: str) -> None:
        super().__init__(
            f"a blob of {size} bytes is more than the {limit} that {handle} may ever bring at once "
            f"({setting} of the coordinator), so waiting does not help; make it smaller, or ask the "
            "coordinator's operator to raise the setting"
        )
        self.handle = handle
        self.limit = limit


class DiskFull(CoordinatorError):
    """The disk has no room for blobs beside what is kept for the log.

    Attributes:
        kept: bytes that are kept for it.
    """

    def __init__(self, kept: int) -> None:
        super().__init__(
            f"the coordinator's disk is full but for the {kept} bytes that are kept for the log, and "
            "for what others are bringing; tell its operator, and bring it later"
        )
        self.kept = kept


class Overloaded(CoordinatorError):
    """More waits for the coordinator than it holds at once."""

    def __init__(self) -> None:
        super().__init__("too much waits to be judged; nothing of this was taken, send it again")


class AccessDenied(CoordinatorError):
    """A member may not read this.

    Attributes:
        where: what was asked for.
        reason: why not.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class BodyTooLarge(CoordinatorError):
    """A request's body is over its limit.

    Attributes:
        limit: bytes accepted.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is over the {limit} bytes accepted")
        self.limit = limit


class RefillRefused(CoordinatorError):
    """A copy cannot fill the database, or the refill is not complete.

    Attributes:
        where: the copy, the node or the part of the home.
        reason: the place in it, and what to do.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class Refilling(CoordinatorError):
    """The coordinator has lost its database and takes copies of it; it sequences nothing.

    Attributes:
        size: entries that it holds again.
        signed: entries under the highest checkpoint that anybody has shown.
        awaited: nodes that have not shown their copies.
    """

    def __init__(self, *, size: int, signed: int, awaited: tuple[str, ...]) -> None:
        wanted = list(awaited)
        if signed > size:
            wanted.append(f"whoever holds the entries up to {signed}, which were signed (--from)")
        super().__init__(
            f"the coordinator's database is being refilled ({size} entries are back); awaited: "
            f"{', '.join(wanted) or 'nobody'}; a node that is running brings its copy by itself"
        )
        self.size = size
        self.signed = signed
        self.awaited = awaited


class KeysEnded(CoordinatorError):
    """The coordinator's entry key cannot speak any more.

    Attributes:
        key: its id.
    """

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the coordinator's entry key {key} has ended in the log, so it cannot sign for new ones. "
            "Ask the stewards of enough organisations: consilium coordinator new-keys"
        )
        self.key = key


class RotationRefused(CoordinatorError):
    """New keys for the coordinator are in the log, and void: the old ones stay in use.

    Attributes:
        index: of the entry.
        reason: why it is void.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"entry {index}, the coordinator's new keys, is void: {reason}; try again")
        self.index = index
        self.reason = reason


class HomeUnusable(CoordinatorError):
    """A coordinator's home is incomplete, taken, or cannot be written.

    Attributes:
        path: the directory or file.
        reason: what is wrong with it, and what to do.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
