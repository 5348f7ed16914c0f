"""The encrypted file in which one device's keys rest.

Promise: a key file holds its keys under argon2id (RFC 9106) and XSalsa20-Poly1305 (libsodium's
secretbox). Its readable header is sealed a second time with the keys, so that changing a handle
or a public key in it is noticed. Keys are never overwritten; a file that others may read is refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from nacl import pwhash
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from pydantic import BaseModel, ConfigDict, Field

from ledger.errors import KeyFileError, MalformedInput, UnsafeKeyFile, WrongPassphrase
from ledger.formats.keys import KeyRing, SealingKey, SigningKey
from ledger.formats.strict import canonical, decode_b64, encode_b64, parse_canonical

Strength = Literal["interactive", "moderate", "sensitive"]
MAX_KEY_FILE = 16 * 1024
MAX_KDF_MEMORY = 2**30
"""Bytes: a foreign key file may not make this machine swap."""

_STRENGTHS = {
    "interactive": (pwhash.argon2id.OPSLIMIT_INTERACTIVE, pwhash.argon2id.MEMLIMIT_INTERACTIVE),
    "moderate": (pwhash.argon2id.OPSLIMIT_MODERATE, pwhash.argon2id.MEMLIMIT_MODERATE),
    "sensitive": (pwhash.argon2id.OPSLIMIT_SENSITIVE, pwhash.argon2id.MEMLIMIT_SENSITIVE),
}


def save_keyring(
    path: Path, ring: KeyRing, passphrase: bytes, *, strength: Strength = "moderate"
) -> None:
    """Write a key ring to a new encrypted file, durable before this returns.

    Args:
        path: must not exist; keys are never overwritten. Created with mode 0600.
        ring: the keys.
        passphrase: not empty.
        strength: libsodium's argon2id presets; "moderate" takes 256 MiB and about a second.

    Raises:
        KeyFileError: the file exists, cannot be written, or the passphrase is empty.
    """
    if not passphrase:
        raise KeyFileError(path, "an empty passphrase protects nothing; give one")
    ops_limit, mem_limit = _STRENGTHS[strength]
    salt = os.urandom(pwhash.argon2id.SALTBYTES)
    header = _Header(
        format="consilium keyring v1",
        handle=ring.handle,
        role=ring.role,
        public=_public(ring),
        kdf=_Kdf(name="argon2id", ops_limit=ops_limit, mem_limit=mem_limit, salt=encode_b64(salt)),
    )
    private = _Keys(
        entry=encode_b64(ring.entry.seed),
        witness=encode_b64(ring.witness.seed),
        request=encode_b64(ring.request.seed),
        sealing=encode_b64(ring.sealing.seed),
        log=encode_b64(ring.log.seed) if ring.log else None,
    )
    sealed = canonical(_Sealed(header=header, private=private))
    box = bytes(_secret_box(passphrase, header.kdf, salt).encrypt(sealed))
    _write_new(path, canonical(_KeyFile(header=header, box=encode_b64(box))))


def load_keyring(path: Path, passphrase: bytes) -> KeyRing:
    """Open a key file.

    Raises:
        UnsafeKeyFile: group or others have access to it, or it is no plain file.
        WrongPassphrase: the passphrase does not open it.
        KeyFileError: it cannot be read, is not in the format, or its header was changed.
    """
    data = _read_private(path)
    try:
        stored = parse_canonical(data, _KeyFile, limit=MAX_KEY_FILE)
        salt = decode_b64(stored.header.kdf.salt, "kdf.salt", size=pwhash.argon2id.SALTBYTES)
        box = decode_b64(stored.box, "box")
    except MalformedInput as error:
        raise KeyFileError(path, f"is not a key file of ours, or is damaged ({error})") from None
    try:
        opened = _secret_box(passphrase, stored.header.kdf, salt).decrypt(box)
    except (CryptoError, ValueError):
        raise WrongPassphrase(
            path, "the passphrase does not open it (or its sealed part is damaged); try again"
        ) from None
    try:
        sealed = parse_canonical(opened, _Sealed, limit=MAX_KEY_FILE)
        ring = _ring(sealed)
    except MalformedInput as error:
        raise KeyFileError(path, f"opens, but holds no keys of ours ({error})") from None
    if sealed.header != stored.header or _public(ring) != sealed.header.public:
        raise KeyFileError(
            path, "its readable part was changed since it was sealed; restore it from a backup"
        )
    return ring


class _FileModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Kdf(_FileModel):
    name: Literal["argon2id"]
    ops_limit: int = Field(ge=1, le=16)
    mem_limit: int = Field(ge=pwhash.argon2id.MEMLIMIT_MIN, le=MAX_KDF_MEMORY)
    salt: str


class _Keys(_FileModel):
    """One base64 value a key: public keys in the header, seeds in the sealed part."""

    entry: str
    witness: str
    request: str
    sealing: str
    log: str | None


class _Header(_FileModel):
    format: Literal["consilium keyring v1"]
    handle: str
    role: str
    public: _Keys
    kdf: _Kdf


class _Sealed(_FileModel):
    header: _Header
    private: _Keys


class _KeyFile(_FileModel):
    header: _Header
    box: str


def _secret_box(passphrase: bytes, kdf: _Kdf, salt: bytes) -> SecretBox:
    key = pwhash.argon2id.kdf(
        SecretBox.KEY_SIZE, passphrase, salt, opslimit=kdf.ops_limit, memlimit=kdf.mem_limit
    )
    return SecretBox(key)


def _ring(sealed: _Sealed) -> KeyRing:
    seeds = sealed.private
    return KeyRing(
        handle=sealed.header.handle,
        role=sealed.header.role,
        entry=SigningKey(decode_b64(seeds.entry, "private.entry", size=32)),
        witness=SigningKey(decode_b64(seeds.witness, "private.witness", size=32)),
        request=SigningKey(decode_b64(seeds.request, "private.request", size=32)),
        sealing=SealingKey(decode_b64(seeds.sealing, "private.sealing", size=32)),
        log=SigningKey(decode_b64(seeds.log, "private.log", size=32)) if seeds.log else None,
    )


def _public(ring: KeyRing) -> _Keys:
    return _Keys(
        entry=encode_b64(ring.entry.public),
        witness=encode_b64(ring.witness.public),
        request=encode_b64(ring.request.public),
        sealing=encode_b64(ring.sealing.public),
        log=encode_b64(ring.log.public) if ring.log else None,
    )


def _write_new(path: Path, data: bytes) -> None:
    """Create a file that did not exist, mode 0600; the file and its name are on disk after."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyFileError(path, "exists already; keys are never overwritten, move it") from None
    except OSError as error:
        raise KeyFileError(path, f"cannot be created: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key file would only be in the way
        raise KeyFileError(path, f"cannot be written: {error.strerror}") from None


def _read_private(path: Path) -> bytes:
    """Read a file that only its owner may read; judged on the open file, not on its name."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise KeyFileError(path, f"cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeKeyFile(path, "is not a plain file")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise UnsafeKeyFile(
                path, f"others than its owner have access to it; run: chmod 600 {path}"
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise KeyFileError(path, f"cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)
