"""Blobs in a directory, each under the SHA-256 of its content.

Promise: what ``get`` returns has the hash and the length that the reference names. ``put`` and
``finish`` return after the bytes are on disk under their final name (file and directories synced);
a crash before leaves at most a partial file, which ``expire_uploads`` drops. A name never holds
other bytes. No symbolic link inside the directory is followed, and a name is always 64 lowercase
hexadecimal digits, so that nothing outside the directory is reached.

Not promised: that a file is still whole (a disk may rot, a person may delete): ``get`` checks each
time and says ``BlobCorrupt``; ``put`` of the right bytes heals it. ``chunks`` hands bytes out
unchecked, for a receiver who checks them. Who may read which kind of blob is decided elsewhere.

Layout: ``ab/cd/<sha256>`` for a blob whose hash begins with ``abcd``; ``uploads/<sha256>.part`` for
one that arrives in parts, ``uploads/*.tmp`` for one that is being written. Several processes may
use one directory.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger.copies.blob_files import (
    FILE_MODE,
    digest_of,
    holds,
    is_named,
    pieces,
    unlink,
    write_all,
    write_file,
)
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobCorrupt, BlobMissing, MalformedInput, UploadOutOfStep

MAX_BLOB = 256 * 1024 * 1024
"""The largest blob, in bytes."""

_NAME = re.compile(r"[0-9a-f]{64}")
_UPLOADS = "uploads"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_DIRECTORY_MODE = 0o700


def blob_ref(data: bytes) -> BlobRef:
    """Name bytes by their SHA-256 and length."""
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


class BlobStore:
    """A directory of content-addressed files.

    Args:
        directory: made (mode 0700) when it does not exist. It may itself be a link; nothing below
            it may.
        limit: the most bytes of one blob.
    """

    def __init__(self, directory: Path, *, limit: int = MAX_BLOB) -> None:
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        self.directory = directory.resolve()
        self.limit = limit

    def path(self, sha256: str) -> Path:
        """Return where a blob is or would be; for messages and reports."""
        first, second = _fan_out(sha256)
        return self.directory / first / second / sha256

    def put(self, data: bytes) -> BlobRef:
        """Store bytes durably under their hash; storing them again is no error.

        Raises:
            MalformedInput: over the limit.
        """
        if len(data) > self.limit:
            raise MalformedInput(
                "blob", f"has {len(data)} bytes; at most {self.limit} are accepted"
            )
        ref = blob_ref(data)
        first, second = _fan_out(ref.sha256)
        with (
            self._open_directory(_UPLOADS, create=True) as uploads,
            self._open_directory(first, second, create=True) as directory,
        ):
            if not holds(directory, ref.sha256, data):
                temporary = f"{ref.sha256}.{secrets.token_hex(8)}.tmp"
                try:
                    write_file(uploads, temporary, data)
                    os.rename(temporary, ref.sha256, src_dir_fd=uploads, dst_dir_fd=directory)
                except OSError:
                    unlink(uploads, temporary)
                    raise
            os.fsync(directory)
        return ref

    def get(self, ref: BlobRef) -> bytes:
        """Return a blob's bytes after checking length and hash.

        Raises:
            BlobMissing: it is not here.
            BlobCorrupt: its file has another length or hash, or is no plain file; ``path`` is it.
        """
        with self._open_blob(ref.sha256) as (file, size):
            path = self.path(ref.sha256)
            if size != ref.bytes:
                raise BlobCorrupt(
                    path, f"has {size} bytes where its reference says {ref.bytes}; {_HEAL}"
                )
            data = b"".join(pieces(file, size))
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise BlobCorrupt(path, f"its content does not have the SHA-256 of its name; {_HEAL}")
        return data

    def has(self, ref: BlobRef) -> bool:
        """Say whether a plain file with this name and length is here; its content is not read."""
        return self.size(ref.sha256) == ref.bytes

    def size(self, sha256: str) -> int | None:
        """Return a blob's length in bytes, or None when it is not here as a plain file."""
        try:
            with self._open_blob(sha256) as (_, size):
                return size
        except (BlobMissing, BlobCorrupt):
            return None

    def chunks(self, sha256: str, start: int = 0) -> Iterator[bytes]:
        """Yield a blob's bytes from ``start`` on, unchecked: the receiver knows the hash.

        Raises:
            BlobMissing: it is not here.
            BlobCorrupt: it is no plain file.
        """
        with self._open_blob(sha256) as (file, size):
            os.lseek(file, start, os.SEEK_SET)
            yield from pieces(file, max(0, size - start))

    def delete(self, sha256: str) -> bool:
        """Erase a blob and a partial upload of it, durably.

        The file is unlinked; what a file system or a backup keeps of it is beyond this store.

        Returns:
            Whether there was a blob.
        """
        first, second = _fan_out(sha256)
        with self._open_directory(_UPLOADS, create=True) as uploads:
            if unlink(uploads, f"{sha256}.part"):
                os.fsync(uploads)
        try:
            with self._open_directory(first, second) as directory:
                found = unlink(directory, sha256)
                os.fsync(directory)
                return found
        except FileNotFoundError:
            return False

    def open_upload(self, sha256: str) -> Upload:
        """Begin or go on with an upload in parts.

        Raises:
            MalformedInput: not 64 lowercase hexadecimal digits.
        """
        _fan_out(sha256)
        return Upload(self, sha256)

    def expire_uploads(self, before: float) -> int:
        """Drop partial files that were last written before a POSIX time in seconds.

        Returns:
            How many were dropped.
        """
        dropped = 0
        with self._open_directory(_UPLOADS, create=True) as uploads:
            for name in os.listdir(uploads):
                try:
                    modified = os.stat(name, dir_fd=uploads, follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue
                if modified < before:
                    dropped += unlink(uploads, name)
        return dropped

    def _whole(self, sha256: str) -> int | None:
        """Return a blob's length if its content has its hash, else None."""
        try:
            with self._open_blob(sha256) as (file, size):
                return size if digest_of(file, size) == sha256 else None
        except (BlobMissing, BlobCorrupt):
            return None

    @contextmanager
    def _open_directory(self, *parts: str, create: bool = False) -> Iterator[int]:
        """Open a directory below the store, link by link never; yields its descriptor.

        Raises:
            FileNotFoundError: it is not there, and was not to be made.
            BlobCorrupt: a part of the path is a link or a file.
        """
        opened = [os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)]
        try:
            for depth, part in enumerate(parts, start=1):
                parent = opened[-1]
                if create:
                    try:
                        os.mkdir(part, _DIRECTORY_MODE, dir_fd=parent)
                        os.fsync(parent)
                    except FileExistsError:
                        pass
                try:
                    opened.append(os.open(part, _DIRECTORY, dir_fd=parent))
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    path = self.directory.joinpath(*parts[:depth])
                    raise BlobCorrupt(
                        path, f"is no directory of this store ({error.strerror}); remove it"
                    ) from None
            yield opened[-1]
        finally:
            for descriptor in opened:
                os.close(descriptor)

    @contextmanager
    def _open_blob(self, sha256: str) -> Iterator[tuple[int, int]]:
        """Open a blob for reading; yields descriptor and length."""
        first, second = _fan_out(sha256)
        path = self.path(sha256)
        try:
            with self._open_directory(first, second) as directory:
                file = os.open(
                    sha256, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory
                )
        except FileNotFoundError:
            raise BlobMissing(path, "is not in this store; fetch it again") from None
        except OSError as error:
            raise BlobCorrupt(path, f"cannot be opened ({error.strerror}); {_HEAL}") from None
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise BlobCorrupt(path, f"is no plain file; {_HEAL}")
            yield file, status.st_size
        finally:
            os.close(file)


class Upload:
    """A blob that arrives in parts, over as many requests, processes and restarts as it takes.

    It holds nothing but the name: ``offset`` is the length of the partial file.
    """

    def __init__(self, store: BlobStore, sha256: str) -> None:
        self._store = store
        self.sha256 = sha256
        self._part = f"{sha256}.part"

    @property
    def offset(self) -> int:
        """How many bytes are here: where to go on."""
        try:
            with self._store._open_directory(_UPLOADS) as uploads:
                return os.stat(self._part, dir_fd=uploads, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def append(self, offset: int, data: bytes) -> int:
        """Add the bytes that follow on those that are here; they are on disk on return.

        Returns:
            The new offset.

        Raises:
            UploadOutOfStep: ``offset`` is not where the upload stands; ``expected`` is.
            MalformedInput: over the store's limit.
        """
        with self._locked() as (_, file):
            here = os.fstat(file).st_size
            if offset != here:
                raise UploadOutOfStep(f"upload {self.sha256}", offset=offset, expected=here)
            if here + len(data) > self._store.limit:
                raise MalformedInput(
                    f"upload {self.sha256}",
                    f"grows beyond the {self._store.limit} bytes accepted",
                )
            os.lseek(file, here, os.SEEK_SET)
            try:
                write_all(file, data)
            except OSError:  # a full disk: forget the half that went through
                os.ftruncate(file, here)
                raise
            os.fsync(file)
            return here + len(data)

    def finish(self) -> BlobRef:
        """Check the whole against its name and give it its place in the store.

        When the blob is here already, whole, what has arrived is dropped: a lost answer can be
        asked for once more, and of two uploaders both are answered.

        Raises:
            MalformedInput: the bytes have another hash. The upload is dropped: begin again at 0.
        """
        first, second = _fan_out(self.sha256)
        with self._locked() as (uploads, file):
            stored = self._store._whole(self.sha256)
            if stored is not None:
                unlink(uploads, self._part)
                return BlobRef(sha256=self.sha256, bytes=stored)
            size = os.fstat(file).st_size
            if digest_of(file, size) != self.sha256:
                unlink(uploads, self._part)
                raise MalformedInput(
                    f"upload {self.sha256}",
                    f"its {size} bytes have another SHA-256; they were dropped, send them again",
                )
            os.fsync(file)
            with self._store._open_directory(first, second, create=True) as directory:
                os.rename(self._part, self.sha256, src_dir_fd=uploads, dst_dir_fd=directory)
                os.fsync(directory)
            os.fsync(uploads)
        return BlobRef(sha256=self.sha256, bytes=size)

    def abandon(self) -> None:
        """Drop what has arrived."""
        with self._store._open_directory(_UPLOADS, create=True) as uploads:
            unlink(uploads, self._part)

    @contextmanager
    def _locked(self) -> Iterator[tuple[int, int]]:
        """Open the partial file alone; yields the descriptors of the directory and of it."""
        with self._store._open_directory(_UPLOADS, create=True) as uploads:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            while True:
                file = os.open(self._part, flags, FILE_MODE, dir_fd=uploads)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    if is_named(file, self._part, uploads):
                        yield uploads, file
                        return
                    # Somebody finished or dropped the file while we waited: it has no name now.
                finally:
                    os.close(file)


_HEAL = "fetch it again from another holder"


def _fan_out(sha256: str) -> tuple[str, str]:
    if not _NAME.fullmatch(sha256):
        raise MalformedInput("blob name", "is not 64 lowercase hexadecimal digits")
    return sha256[:2], sha256[2:4]
