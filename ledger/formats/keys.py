"""Keys: what signs, what opens and what verifies.

Promise: PyNaCl (libsodium) is the only Ed25519 verifier in Consilium. Libraries disagree on
signatures with low-order points, so two of them would let parties disagree on an entry.

Every signature in a format of ours covers a typed prefix and a length, as DSSE's
pre-authentication encoding does: a signature over one kind of thing never verifies as another.
Only what keeps a standard's own form (C2SP notes, cosignatures, RFC 9421) signs raw messages.

Not promised: protection from who can read this process's memory, or forgetting of keys in memory;
Python cannot wipe it. At rest they lie in an encrypted file (``key_file.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, get_args

from nacl._sodium import ffi, lib
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.signing import SigningKey as NaclSigningKey

from ledger.errors import CannotOpen

Algorithm = Literal["ed25519", "x25519"]
Kind = Literal["entry", "invitation", "receipt", "report", "succession"]

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64

_OPEN, _NULL = lib.crypto_sign_open, ffi.NULL  # looked up once, not at each of a million entries


_PREFIXES: dict[Kind, bytes] = {
    kind: b"consilium " + kind.encode("ascii") + b" v1\n" for kind in get_args(Kind)
}


def key_id(algorithm: Algorithm, public: bytes) -> str:
    """Name a public key: 32 hex digits of SHA-256 over a prefix, the algorithm and the key."""
    message = b"consilium key v1\n" + algorithm.encode("ascii") + b"\n" + public
    return sha256(message).hexdigest()[:32]


def signed_message(kind: Kind, body: bytes) -> bytes:
    """Return what a signature of this kind covers: ``consilium <kind> v1`` LF, u64 length, body.

    The length is big-endian. Bytes signed as one kind are never a valid message of another.
    """
    return b"".join((_PREFIXES[kind], len(body).to_bytes(8, "big"), body))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key (RFC 8032). Its ``repr`` shows the id, never the seed."""

    seed: bytes = field(repr=False)
    public: bytes = field(init=False, repr=False)
    id: str = field(init=False)
    _key: NaclSigningKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key = NaclSigningKey(self.seed)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "public", bytes(key.verify_key))
        object.__setattr__(self, "id", key_id("ed25519", self.public))

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key from the operating system's randomness."""
        return cls(bytes(NaclSigningKey.generate()))

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Make the key of a 32-byte seed.

        Raises:
            ValueError: the seed is not 32 bytes.
        """
        return cls(seed)

    def sign(self, kind: Kind, body: bytes) -> bytes:
        """Sign ``signed_message(kind, body)``; returns 64 bytes."""
        return self.sign_raw(signed_message(kind, body))

    def sign_raw(self, message: bytes) -> bytes:
        """Sign a message as it is: for C2SP notes and RFC 9421 only, which have own prefixes."""
        return self._key.sign(message).signature


def verify(public: bytes, kind: Kind, body: bytes, signature: bytes) -> bool:
    """Say whether ``signature`` is by ``public`` over ``signed_message(kind, body)``.

    Total, as `verify_raw`.
    """
    if len(signature) != SIGNATURE_BYTES:
        return False
    return opens(public, b"".join((signature, _PREFIXES[kind], len(body).to_bytes(8, "big"), body)))


def verify_raw(public: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether ``signature`` is by ``public`` over the message as it is.

    Total: keys and signatures of a wrong length verify nothing.
    """
    return len(signature) == SIGNATURE_BYTES and opens(public, signature + message)


def opens(public: bytes, signed: bytes) -> bool:
    """Say whether the first 64 bytes are a signature by ``public`` over the rest.

    The function of libsodium that PyNaCl's ``VerifyKey.verify`` calls, through PyNaCl's own
    binding, without the two copies of the message that it makes; tests hold the two together.
    """
    if len(public) != PUBLIC_BYTES:
        return False
    opened: int = _OPEN(_NULL, _NULL, signed, len(signed), public)
    return opened == 0


@dataclass(frozen=True, slots=True)
class SealingKey:
    """An X25519 private key that opens what others sealed to its public half."""

    seed: bytes = field(repr=False)
    public: bytes = field(init=False, repr=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "public", bytes(PrivateKey(self.seed).public_key))
        object.__setattr__(self, "id", key_id("x25519", self.public))

    @classmethod
    def generate(cls) -> SealingKey:
        """Make a new key from the operating system's randomness."""
        return cls(bytes(PrivateKey.generate()))

    @classmethod
    def from_seed(cls, seed: bytes) -> SealingKey:
        """Make the key of 32 private bytes.

        Raises:
            ValueError: not 32 bytes.
        """
        return cls(seed)

    def open(self, sealed: bytes) -> bytes:
        """Open a sealed box addressed to this key.

        Raises:
            CannotOpen: it was sealed to another key, or changed on the way.
        """
        try:
            return SealedBox(PrivateKey(self.seed)).decrypt(sealed)
        except (CryptoError, ValueError, TypeError):
            raise CannotOpen(
                f"sealed box for key {self.id}", "does not open: another recipient, or changed"
            ) from None


def seal(public: bytes, plaintext: bytes) -> bytes:
    """Seal bytes to an X25519 public key (libsodium's anonymous sealed box).

    Anyone can seal: what is inside must carry its own signature.
    """
    return SealedBox(PublicKey(public)).encrypt(plaintext)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """One device's keys, separate by use, so that none can be made to sign for another.

    Attributes:
        handle: the member's pseudonymous handle.
        role: the member's role.
        entry: signs ledger entries, in one chain.
        witness: cosigns checkpoints, nothing else.
        request: signs HTTP requests (RFC 9421).
        sealing: opens what was sealed to this member.
        log: signs C2SP notes as the log; the coordinator's only.
    """

    handle: str
    role: str
    entry: SigningKey
    witness: SigningKey
    request: SigningKey
    sealing: SealingKey
    log: SigningKey | None = None

    @classmethod
    def generate(cls, handle: str, role: str) -> KeyRing:
        """Make new keys; a log key too where the role is ``coordinator``."""
        return cls(
            handle=handle,
            role=role,
            entry=SigningKey.generate(),
            witness=SigningKey.generate(),
            request=SigningKey.generate(),
            sealing=SealingKey.generate(),
            log=SigningKey.generate() if role == "coordinator" else None,
        )
