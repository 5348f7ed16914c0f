"""Keys between two members of a round, and the envelopes under them.

X25519 (RFC 7748), then HKDF-SHA256 (RFC 5869) whose ``info`` holds the purpose, the round's context
and both members' names in sorted order, each with its length: a key is of one purpose, one round and
one pair. Envelopes are XChaCha20-Poly1305 under such a key, one for each direction, with the context
and direction authenticated beside them.

Refused: a public key with which the exchange gives zeros (a point of small order), which would be a
key that everybody knows.
"""

from __future__ import annotations

from typing import Final

import nacl.bindings as sodium
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.exceptions import CryptoError

from privacy.errors import MaskingRefused

KEY_BYTES: Final = 32
NONCE_BYTES: Final = sodium.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
TAG_BYTES: Final = sodium.crypto_aead_xchacha20poly1305_ietf_ABYTES
_MASK: Final = b"consilium masking pair v1\n"
_SHARE: Final = b"consilium masking share v1\n"


def public_of(secret: bytes) -> bytes:
    """The X25519 public key, 32 bytes, of a secret one of 32 bytes."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def mask_key(secret: bytes, theirs: bytes, context: bytes, pair: tuple[str, str]) -> bytes:
    """Key of the mask between two members: the same for both of them.

    Args:
        secret: one member's X25519 secret.
        theirs: the other's public key.
        context: 32 bytes that name the round.
        pair: both names, in any order.

    Raises:
        MaskingRefused: the public key is of small order.
    """
    low, high = sorted(pair)
    return _derive(secret, theirs, _MASK + context + _named(low) + _named(high))


def seal_share(
    secret: bytes, theirs: bytes, context: bytes, sender: str, receiver: str, nonce: bytes, share: bytes
) -> bytes:  # fmt: skip
    """Seal a share from one member for another: nonce, then ciphertext with its tag.

    Args:
        secret: the sender's X25519 secret.
        theirs: the receiver's public key.
        context: 32 bytes that name the round.
        sender: name.
        receiver: name.
        nonce: 24 fresh bytes.
        share: what only the receiver may read.
    """
    about = _SHARE + context + _named(sender) + _named(receiver)
    key = _derive(secret, theirs, about)
    sealed = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(share, about, nonce, key)
    return nonce + bytes(sealed)


def open_share(
    secret: bytes, theirs: bytes, context: bytes, sender: str, receiver: str, envelope: bytes
) -> bytes:
    """Open what `seal_share` made; the keys are those of the receiver's side.

    Raises:
        MaskingRefused: it is not an envelope of this sender for this receiver in this round.
    """
    about = _SHARE + context + _named(sender) + _named(receiver)
    key = _derive(secret, theirs, about)
    nonce, sealed = envelope[:NONCE_BYTES], envelope[NONCE_BYTES:]
    try:
        return bytes(sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, about, nonce, key))
    except (CryptoError, TypeError, ValueError):
        raise MaskingRefused(
            "malformed", f"the envelope from {sender} does not open for {receiver} in this round"
        ) from None


def _derive(secret: bytes, theirs: bytes, info: bytes) -> bytes:
    try:
        shared = X25519PrivateKey.from_private_bytes(secret).exchange(
            X25519PublicKey.from_public_bytes(theirs)
        )
    except ValueError:
        raise MaskingRefused(
            "wrong_keys", "a public key is not one with which a secret can be agreed"
        ) from None
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(shared)


def _named(name: str) -> bytes:
    data = name.encode()
    return len(data).to_bytes(2, "big") + data
