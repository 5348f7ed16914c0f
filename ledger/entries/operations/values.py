"""The values that operations are made of: numbers, hashes, names, public keys, blobs.

Every one is closed: a text has a pattern, a number a range. What a value means where it stands is said
by the operation that holds it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_INT = 2**53 - 1

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
# Shorter than a slug, so that "<organisation>-train" is one: cells carry their hospital's name.
Organisation = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Share = Annotated[str, StringConstraints(pattern=r"^0[01][0-9a-f]{130}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
Positive = Annotated[int, Field(ge=1, le=MAX_INT)]
# A framed leaf in base64: what an entry carries of another one. Two of them must fit into an entry.
LeafText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=32_000)]
TimeMs = Annotated[int, Field(ge=0, le=MAX_INT)]

EMPTY_HASH = "0" * 64


class Value(BaseModel):
    """A frozen, strict part of an operation: no coercion, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PublicKey(Value):
    """A public key with its algorithm id; the id leaves room for algorithms to come."""

    alg: Literal["ed25519", "x25519"]
    public: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _signs(key: PublicKey) -> PublicKey:
    if key.alg != "ed25519":
        raise ValueError("a key that signs is an ed25519 key")
    return key


def _seals(key: PublicKey) -> PublicKey:
    if key.alg != "x25519":
        raise ValueError("a key that seals is an x25519 key")
    return key


VerifyKey = Annotated[PublicKey, AfterValidator(_signs)]
SealKey = Annotated[PublicKey, AfterValidator(_seals)]


class BlobRef(Value):
    """A blob by the SHA-256 and length of its plaintext."""

    sha256: Hash
    bytes: Count
