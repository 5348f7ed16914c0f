"""The values that operations are made of: numbers, hashes, names, public keys, blobs.

Every one is closed: a text has a pattern, a number a range. What a value means where it stands is said
by the operation that holds it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.formats.spelling import spelt, with_algorithm
from ledger.formats.value import InDocuments
from ledger.formats.value import Value as Value

MAX_INT = 2**53 - 1

_SLUG = spelt(r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$", 1, 40)
_HASH = spelt(r"^[0-9a-f]{64}$", 64, 64)
_SIGNATURE = spelt(r"^[0-9a-f]{128}$", 128, 128)
_COUNT = Meta(ge=0, le=MAX_INT)
_POSITIVE = Meta(ge=1, le=MAX_INT)

Slug = Annotated[str, _SLUG, InDocuments(_SLUG)]
# Shorter than a slug, so that "<organisation>-train" is one: cells carry their hospital's name.
Organisation = Annotated[str, spelt(r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$", 1, 32)]
Hash = Annotated[str, _HASH, InDocuments(_HASH)]
KeyId = Annotated[str, spelt(r"^[0-9a-f]{32}$", 32, 32)]
Share = Annotated[str, spelt(r"^0[01][0-9a-f]{130}$", 132, 132)]
Signature = Annotated[str, _SIGNATURE, InDocuments(_SIGNATURE)]
Count = Annotated[int, _COUNT, InDocuments(_COUNT)]
Positive = Annotated[int, _POSITIVE, InDocuments(_POSITIVE)]
# A framed leaf in base64: what an entry carries of another one. Two of them must fit into an entry.
LeafText = Annotated[str, spelt(r"^[A-Za-z0-9+/]+={0,2}$", 1, 32_000)]
TimeMs = Annotated[int, _COUNT, InDocuments(_COUNT)]

EMPTY_HASH = "0" * 64


class PublicKey(Value):
    """A public key with its algorithm id; the id leaves room for algorithms to come."""

    alg: Literal["ed25519", "x25519"]
    public: Hash


VerifyKey = Annotated[PublicKey, with_algorithm("ed25519")]
SealKey = Annotated[PublicKey, with_algorithm("x25519")]


class BlobRef(Value):
    """A blob by the SHA-256 and length of its plaintext."""

    sha256: Hash
    bytes: Count
