"""A folder of tiles: a log exported to where any web server can hand it out, and read back.

Promise: a tile's file is written once. The same bytes again change nothing, other bytes under the
same name are refused, and what is there is never touched. Every file and directory is flushed before
the checkpoint that covers it is put in place, so that a crash at any point leaves a readable folder
of the size before. The checkpoint never goes back and never changes history. One exporter at a
time; readers need not wait.

Nothing is written before the entries were hashed to the checkpoint's signed root.

Not promised: that old partial tiles are tidied away. They stay right, and small.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ledger.errors import (
    AlreadyRunning,
    MalformedInput,
    NotConsistent,
    StoreConflict,
    StoreUnusable,
)
from ledger.formats.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import MAX_NOTE, VerifierKey, parse_note
from ledger.formats.tiles import (
    CHECKPOINT,
    MAX_BUNDLE,
    WIDTH,
    Fetch,
    Tile,
    bundle_bytes,
    tile_bytes,
    tiles_at,
)

ReadLeaves = Callable[[int, int], Iterable[bytes]]
"""Entries from a first index up to before a second; must give the same bytes each time."""

_LOCK = ".exporting"
_UNFINISHED = ".new"
_OPEN_DIRECTORIES = 32


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did.

    Attributes:
        size: entries in the folder.
        written: tiles and bundles that are new.
        kept: those that were there with the same bytes.
    """

    size: int
    written: int
    kept: int


def export_tiles(read: ReadLeaves, note: bytes, log: VerifierKey, directory: Path) -> Exported:
    """Bring a folder up to a checkpoint.

    Args:
        read: the log's entries, e.g. ``partial(read_leaves, store)``; read twice.
        note: signed checkpoint, with whatever cosignatures there are.
        log: the log's key.
        directory: made where it is missing.

    Raises:
        MalformedInput, BadSignature, UnknownKey: the note is not the log's checkpoint.
        NotConsistent: the entries do not hash to its root; nothing was written.
        StoreConflict: the folder holds another log, a longer one or other bytes.
        AlreadyRunning: another process exports into this folder.
        StoreUnusable: the folder cannot be written.
    """
    checkpoint = open_checkpoint(note, log)
    tree = MerkleTree.from_leaves(leaf_hash(leaf) for leaf in read(0, checkpoint.size))
    if tree.size != checkpoint.size or tree.root() != checkpoint.root:
        raise NotConsistent(
            f"checkpoint of {checkpoint.size} entries", "the entries given do not hash to its root"
        )
    with _reporting(directory), ExitStack() as held:
        directory.mkdir(parents=True, exist_ok=True)
        held.enter_context(_locked(directory))
        _check_before(directory, tree, checkpoint)
        out = held.enter_context(_Writer(directory))
        bundles = _bundles(read, checkpoint.size)
        for tile in tiles_at(checkpoint.size):
            if tile.level is None:
                leaves = next(bundles)
                _check_leaves(tree, tile, leaves)
                out.put(tile, bundle_bytes(leaves))
            else:
                out.put(tile, tile_bytes(tree, tile))
        out.flush()
        with _Directory(directory) as top:
            top.replace(CHECKPOINT, note)
        return Exported(checkpoint.size, out.written, out.kept)


def folder(directory: Path) -> Fetch:
    """Read a folder's files for a `TileReader`.

    The function returned raises:
        MalformedInput: a file is larger than any of its kind, or is no plain file.
        StoreUnusable: a file cannot be read.
    """

    def fetch(name: str) -> bytes | None:
        limit = MAX_NOTE if name == CHECKPOINT else MAX_BUNDLE
        with _reporting(directory):
            return _read(directory / name, limit)

    return fetch


class _Directory:
    """A directory held open while files are put into it, and flushed on leaving.

    Opened again at the end instead, it could miss an error that the kernel has reported to nobody.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def put(self, name: str, data: bytes) -> bool:
        """Write a file once; False where it was there.

        Raises:
            StoreConflict: it was there with other bytes.
        """
        there = _read(self._path / name, MAX_BUNDLE)
        if there is None:
            self.replace(name, data)
            return True
        if there != data:
            raise StoreConflict(
                str(self._path / name), "it is there with other bytes, and a tile never changes"
            )
        return False

    def replace(self, name: str, data: bytes) -> None:
        """Put a flushed file in place, whole or not at all."""
        new = name + _UNFINISHED
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(new, flags, 0o644, dir_fd=self._fd), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def __enter__(self) -> _Directory:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.fsync(self._fd)
        finally:
            os.close(self._fd)


class _Writer:
    """Puts tiles below a folder; keeps a few directories open, for they come in order."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[Path, _Directory] = {}
        self.written = 0
        self.kept = 0

    def put(self, tile: Tile, data: bytes) -> None:
        path = self._root / tile.path
        if self._directory(path.parent).put(path.name, data):
            self.written += 1
        else:
            self.kept += 1

    def flush(self) -> None:
        """Flush every directory that is still open, and close it."""
        while self._open:
            self._open.popitem()[1].__exit__()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def _directory(self, path: Path) -> _Directory:
        found = self._open.get(path)
        if found is None:
            _make(path)
            if len(self._open) == _OPEN_DIRECTORIES:
                self._open.pop(next(iter(self._open))).__exit__()
            found = self._open[path] = _Directory(path)
        return found


def _check_before(directory: Path, tree: MerkleTree, checkpoint: Checkpoint) -> None:
    """Compare what is to come with what the folder says it holds."""
    note = _read(directory / CHECKPOINT, MAX_NOTE)
    if note is None:
        return
    before = parse_checkpoint(parse_note(note).text)
    name = str(directory)
    if before.origin != checkpoint.origin:
        raise StoreConflict(name, f"it holds the log {before.origin}; choose another folder")
    if before.size > checkpoint.size:
        raise StoreConflict(
            name, f"it holds {before.size} entries; a checkpoint of {checkpoint.size} is older"
        )
    if tree.root(before.size) != before.root:
        raise StoreConflict(
            name, f"its checkpoint has another root for {before.size} entries: a fork; keep both"
        )


def _check_leaves(tree: MerkleTree, tile: Tile, leaves: tuple[bytes, ...]) -> None:
    start = tile.index * WIDTH
    if b"".join(map(leaf_hash, leaves)) != tree.subtrees(0, start, start + tile.width):
        raise NotConsistent(tile.path, "the entries were others when they were read again")


def _bundles(read: ReadLeaves, size: int) -> Iterator[tuple[bytes, ...]]:
    leaves = iter(read(0, size))
    while bundle := tuple(islice(leaves, WIDTH)):
        yield bundle


def _make(path: Path) -> None:
    """Make a directory and make its name durable."""
    if path.is_dir():
        return
    _make(path.parent)
    path.mkdir(exist_ok=True)
    with _Directory(path.parent):
        pass


def _read(path: Path, limit: int) -> bytes | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise MalformedInput(str(path), f"is no plain file of at most {limit} bytes")
        return opened.read(limit)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    file = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(str(directory), "another process exports into it; wait") from None
        yield
    finally:
        os.close(file)


@contextmanager
def _reporting(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = directory if error.filename is None else error.filename
        raise StoreUnusable(str(name), f"cannot be used: {error.strerror}") from None
