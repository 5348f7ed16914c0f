"""A snapshot of a verified log, so that opening a large copy need not replay it.

It is a cache in a file beside the copy: the fold's state and what the tree needs at one size, and what
else its owner keeps beside them. Whoever opens the copy with the same keys finds what it verified
itself, and replays only what came after.

Promise: a snapshot is believed only under a key of the owner's (HMAC-SHA-256, of a key derived from
the entry key), only of this federation and this release, and only where the tree that it leads to has
the root of the store's newest signed checkpoint. Anything else (old, foreign, cut short, changed) is
left aside with a warning, and the copy is replayed from its first byte. An opened copy is the same
either way: same state, same digest, same verdicts.

Not promised, unlike by a replay: that the entries before it are still in the store unchanged. Who
reads them checks them against the tree; verification (``audit``) never uses a snapshot.

File: ``consilium snapshot v2`` LF, u32 length and canonical JSON of `Head`, the state's bytes
(``encoding.encode``), the tree's tiles, the owner's own bytes, HMAC-SHA-256 over all before it. Integers
are big-endian.
"""

from __future__ import annotations

import hmac
import logging
import os
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ledger.copies.store import LogStore
from ledger.entries.entry import federation_id, parse_entry
from ledger.entries.operations.values import Count, Hash
from ledger.errors import MalformedInput, NotConsistent, Refused
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import HASH_BYTES
from ledger.formats.merkle_tree import TILE_LEVEL, MerkleTree
from ledger.formats.strict import canonical, parse_canonical
from ledger.rules.decoding import MAX_STATE, decode
from ledger.rules.encoding import encode
from ledger.rules.fold import found
from ledger.rules.log import Log
from ledger.rules.state import State

FILE = "snapshot"
"""Its name in a home."""
EVERY = 50_000
"""Entries after which a new one is written; as many are replayed at most."""
WORTH = 20_000
"""Entries below which none is written: replaying them takes about a second."""

_MAGIC = b"consilium snapshot v2\n"
_MAC_BYTES = 32
_MAX_HEAD = 64 * 2**20
_MAX_BESIDE = 512 * 2**20
_MAX_FILE = MAX_STATE + 2 * _MAX_HEAD + _MAX_BESIDE

_log = logging.getLogger(__name__)


class Head(BaseModel):
    """What a snapshot is of.

    Attributes:
        release: of the software that wrote it; another one folds anew.
        size, root: of the log.
        digest: SHA-256 of the state's bytes.
        state_bytes: their number.
        beside_bytes: number of the owner's own.
        final, final_before: sizes of the newest final checkpoint and of the one before it; 0 for none.
        cosigned_sizes, cosigned_s: final checkpoints, and when a quorum had cosigned each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    release: str
    federation: Hash
    size: Count
    root: Hash
    digest: Hash
    state_bytes: Count
    beside_bytes: Count
    final: Count
    final_before: Count
    cosigned_sizes: tuple[Count, ...]
    cosigned_s: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class Finals:
    """The final checkpoints that a copy had judged; see `Head`."""

    newest: int = 0
    before: int = 0
    cosigned_sizes: tuple[int, ...] = ()
    cosigned_s: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A log at one size.

    Attributes:
        root: over its first ``state.size`` entries.
        tiles: as ``MerkleTree.tiles``.
        beside: what its owner keeps beside a log, in bytes that mean something to the owner alone.
    """

    state: State
    root: bytes
    tiles: bytes
    finals: Finals = Finals()
    beside: bytes = b""


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """Where a copy's owner keeps its snapshot.

    Attributes:
        path: the file; it may be missing.
        key: 32 secret bytes of the owner.
    """

    path: Path
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, home: Path, key: SigningKey) -> SnapshotFile:
        """The snapshot in a home, under a key derived from the home's entry key."""
        return cls(home / FILE, sha256(b"consilium snapshot key v1\n" + key.seed).digest())

    def read(self, federation: str) -> Snapshot | None:
        """Read it, or say in the program's log why it is not used."""
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_FILE + 1)
            return _parse(data, self.key, federation)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.put_aside(error.strerror or "it cannot be read")
        except Refused as error:
            self.put_aside(str(error))
        return None

    def put_aside(self, reason: str) -> None:
        """Say why the snapshot is not used."""
        _log.warning("%s is not used, and the whole log is replayed: %s", self.path, reason)

    def write(self, snapshot: Snapshot) -> None:
        """Replace it in one step. Where it cannot be written, the old one stays, and the log says so."""
        state = encode(snapshot.state)
        head = canonical(
            Head(
                release=_release(),
                federation=snapshot.state.federation,
                size=snapshot.state.size,
                root=snapshot.root.hex(),
                digest=sha256(state).hexdigest(),
                state_bytes=len(state),
                beside_bytes=len(snapshot.beside),
                final=snapshot.finals.newest,
                final_before=snapshot.finals.before,
                cosigned_sizes=snapshot.finals.cosigned_sizes,
                cosigned_s=snapshot.finals.cosigned_s,
            )
        )
        length = len(head).to_bytes(4, "big")
        data = b"".join((_MAGIC, length, head, state, snapshot.tiles, snapshot.beside))
        new = self.path.with_name(self.path.name + ".new")
        try:
            with open(new, "wb", opener=_private) as file:
                file.write(data)
                file.write(hmac.digest(self.key, data, "sha256"))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self.path, error.strerror)


def resume_log(store: LogStore, snapshot: Snapshot) -> Log:
    """The log of a snapshot, over what is stored; the caller replays the rest and compares roots.

    Raises:
        NotConsistent: it is of more than is signed here, of another log, or of other entries.
        MalformedInput: entry 0 is none.
    """
    state, size = snapshot.state, snapshot.state.size
    signed = store.latest_checkpoint()
    if signed is None or min(signed.size, store.size()) < size:
        raise NotConsistent("snapshot", f"it is of {size} entries; fewer are signed here")
    first = store.row(0)
    genesis = parse_entry(first.body, first.signature)
    if federation_id(genesis) != state.federation:
        raise NotConsistent("snapshot", "the entries stored here are another federation's")
    if found(genesis).log_key != state.log_key:
        raise NotConsistent("snapshot", "its log key is not the one that genesis names")
    tree = MerkleTree.resume(size, snapshot.tiles, store.leaf_hashes)
    if tree.root() != snapshot.root:
        raise NotConsistent("snapshot", "the entries stored here do not lead to its root")
    return Log(tree, state)


def _parse(data: bytes, key: bytes, federation: str) -> Snapshot:
    if len(data) > _MAX_FILE:
        raise MalformedInput("snapshot", f"it has more than {_MAX_FILE} bytes")
    view = memoryview(data)
    body = view[:-_MAC_BYTES]
    expected = hmac.digest(key, body, "sha256")
    if not data.startswith(_MAGIC) or not hmac.compare_digest(expected, data[-_MAC_BYTES:]):
        raise MalformedInput("snapshot", "it was not written with the key of this home")
    start = len(_MAGIC) + 4
    end = start + int.from_bytes(body[len(_MAGIC) : start], "big")
    head = parse_canonical(bytes(body[start:end]), Head, limit=_MAX_HEAD)
    if head.federation != federation:
        raise NotConsistent("snapshot", "it is of another federation")
    if head.release != _release():
        raise NotConsistent("snapshot", f"release {head.release} wrote it, and this is another")
    tiles_at, beside_at = end + head.state_bytes, max(end, len(body) - head.beside_bytes)
    encoded = bytes(body[end:tiles_at])
    tiles = bytes(body[tiles_at:beside_at])
    state = decode(encoded)
    if sha256(encoded).hexdigest() != head.digest:
        raise NotConsistent("snapshot", "its state has not the digest that it names")
    if (state.size, state.federation) != (head.size, federation):
        raise NotConsistent("snapshot", "its state is not of the log that it names")
    if len(tiles) != (head.size >> TILE_LEVEL) * HASH_BYTES:
        raise MalformedInput("snapshot", f"{len(tiles)} bytes of tiles are not those of its size")
    finals = Finals(head.final, head.final_before, head.cosigned_sizes, head.cosigned_s)
    return Snapshot(state, bytes.fromhex(head.root), tiles, finals, bytes(body[beside_at:]))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _release() -> str:
    return metadata.version("consilium")
