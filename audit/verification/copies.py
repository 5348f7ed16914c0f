"""A copy of a ledger as a verifier reads it: entries, notes, evidence and blobs, each as stored.

Two kinds: a database with a directory of blobs, and a bundle. Neither is changed by reading. Where a
copy gives way while it is read, `DamagedCopy` names the place; nothing in it is believed here.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from audit.errors import DamagedCopy, SourceUnusable
from audit.verification.sqlite_copy import COPY
from ledger.copies.blobs import BlobStore
from ledger.copies.bundle import scan_bundle
from ledger.copies.store import LogStore
from ledger.copies.stored import Conflict, StoredNote, Witnessed
from ledger.entries.entry import frame_leaf
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobCorrupt, BlobMissing, MalformedInput, StoreError

_LOWEST = -(2**62)
_PAGE = 512

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A leaf as a copy holds it, and the columns beside it where there are any.

    Attributes:
        leaf: framed bytes.
        columns: leaf hash, key id and chain position as stored, or None in a bundle.
    """

    leaf: bytes
    columns: tuple[bytes, object, object] | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in a copy that no honest program writes.

    Attributes:
        place: e.g. ``bundle byte 812``, ``entry 7``.
        reason: what is wrong there.
    """

    place: str
    reason: str


class Copy(Protocol):
    """One copy of a ledger.

    Reading raises `DamagedCopy` where the copy itself gives way.
    """

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was found wrong on opening."""
        ...

    def size(self) -> int:
        """Number of entries it claims to hold."""
        ...

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[StoredEntry]:
        """Entries in order."""
        ...

    def checkpoints(self) -> Iterator[StoredNote]:
        """Signed checkpoints, by size."""
        ...

    def finals(self) -> Iterator[StoredNote]:
        """Final checkpoints, by size."""
        ...

    def evidence(self) -> Iterator[Conflict]:
        """What it keeps against the log or a member (``ledger.copies.evidence``)."""
        ...

    def witnessed(self, origin: str) -> tuple[Witnessed | None, int]:
        """What a node's copy remembers to have cosigned of a log, and how many logs it remembers."""
        ...

    def blob(self, sha256: str, length: int | None = None) -> bytes:
        """A blob's content, its hash checked.

        Raises:
            BlobMissing: it is not here.
            BlobCorrupt, MalformedInput: what is here has another hash or length.
        """
        ...

    def blob_names(self) -> frozenset[str] | None:
        """SHA-256 of all blobs here where the copy is closed (a bundle), else None."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


@dataclass
class StoreCopy:
    """A copy in a database, with a directory of blobs beside it or without."""

    name: str
    store: LogStore
    blobs: BlobStore | None = None
    faults: tuple[Fault, ...] = ()
    temporary: Path | None = None

    def size(self) -> int:
        """See `Copy`."""
        return self._guard("entries", self.store.size)

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[StoredEntry]:
        """See `Copy`."""
        at = start
        try:
            for row in self.store.rows(start, stop):
                framed = frame_leaf(row.body, row.signature)
                yield StoredEntry(framed, (row.leaf, row.key, row.seq))
                at += 1
        except (StoreError, TypeError, ValueError, sqlite3.Error) as error:
            raise DamagedCopy(f"entry {at}", reason_of(error)) from None

    def checkpoints(self) -> Iterator[StoredNote]:
        """See `Copy`."""
        return self._notes("checkpoints", self.store.checkpoints)

    def finals(self) -> Iterator[StoredNote]:
        """See `Copy`."""
        return self._notes("finals", self.store.finals)

    def evidence(self) -> Iterator[Conflict]:
        """See `Copy`."""
        return iter(self._guard("conflicts", lambda: list(self.store.conflicts())))

    def witnessed(self, origin: str) -> tuple[Witnessed | None, int]:
        """See `Copy`."""
        found = self._guard("witnessed", lambda: self.store.witnessed(origin))
        return found, self._guard("witnessed", self._count_witnessed) or int(found is not None)

    def blob(self, sha256: str, length: int | None = None) -> bytes:
        """See `Copy`."""
        if self.blobs is None:
            raise BlobMissing(Path(sha256), "this copy has no blobs beside it")
        size = self.blobs.size(sha256) if length is None else length
        if size is None:
            raise BlobMissing(self.blobs.path(sha256), "is not in this copy")
        return self.blobs.get(BlobRef(sha256=sha256, bytes=size))

    def blob_names(self) -> frozenset[str] | None:
        """A directory may hold what other logs name; see `Copy`."""
        return None

    def close(self) -> None:
        """See `Copy`."""
        self.store.close()
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _count_witnessed(self) -> int:
        if self.temporary is None:
            return 0
        with closing(sqlite3.connect(self.temporary / COPY)) as connection:
            return int(connection.execute("SELECT count(*) FROM witnessed").fetchone()[0])

    def _notes(
        self, table: str, page: Callable[[int, int], tuple[StoredNote, ...]]
    ) -> Iterator[StoredNote]:
        # From far below zero: a row of a negative size is one that nobody honest wrote.
        after = _LOWEST
        while notes := self._guard(table, lambda: page(after, _PAGE)):  # noqa: B023
            yield from notes
            after = notes[-1].size

    def _guard(self, table: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except (StoreError, TypeError, ValueError, sqlite3.Error) as error:
            raise DamagedCopy(f"{table} of {self.name}", reason_of(error)) from None


@dataclass
class BundleCopy:
    """A copy in one file."""

    name: str
    path: Path
    faults: tuple[Fault, ...] = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._bundle = scan_bundle(self.path)
        except MalformedInput as error:
            raise SourceUnusable(f"{self.path}, {error.where}", error.reason) from None
        except OSError as error:
            raise SourceUnusable(str(self.path), f"cannot be read ({error.strerror})") from None
        self.faults = tuple(Fault(f.where, f.reason) for f in self._bundle.faults)

    def size(self) -> int:
        """See `Copy`."""
        return len(self._bundle.entries)

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[StoredEntry]:
        """See `Copy`."""
        return (StoredEntry(leaf) for leaf in self._bundle.leaves(start, stop))

    def checkpoints(self) -> Iterator[StoredNote]:
        """See `Copy`."""
        return iter(self._bundle.checkpoints)

    def finals(self) -> Iterator[StoredNote]:
        """See `Copy`."""
        return iter(self._bundle.finals)

    def evidence(self) -> Iterator[Conflict]:
        """See `Copy`."""
        return iter(self._bundle.evidence)

    def witnessed(self, origin: str) -> tuple[Witnessed | None, int]:
        """A bundle remembers nothing; see `Copy`."""
        return None, 0

    def blob(self, sha256: str, length: int | None = None) -> bytes:
        """See `Copy`."""
        data = self._bundle.blob(sha256)
        if length is not None and len(data) != length:
            raise BlobCorrupt(self.path, f"blob {sha256[:12]} has not {length} bytes")
        return data

    def blob_names(self) -> frozenset[str] | None:
        """See `Copy`."""
        return frozenset(self._bundle.blobs)

    def close(self) -> None:
        """Nothing is held open; see `Copy`."""


def reason_of(error: Exception) -> str:
    """Why reading failed, in words."""
    if isinstance(error, StoreError):
        return error.reason
    return f"a column holds another type than the ledger writes ({error})"
