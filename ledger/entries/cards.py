"""Cards: what people need to know of a dataset or a member, and what a log must be able to forget.

Names, contacts and free text never enter an entry. They are a card, and the entry holds the card's
salted commitment: SHA-256(0x00 || salt || card bytes). The blob that opens a commitment is exactly
those bytes, so that it lies in a blob store under the commitment itself; deleting it erases the card
and leaves every proof valid. The salt makes guessing a short card from its commitment hopeless.

Promised: `open_card` gives the card that was committed to, or refuses. Not promised: that a card is
true; its author states it by signing the entry that holds the commitment.
"""

from __future__ import annotations

import hashlib
import os
from datetime import date
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ledger.entries.operations.values import Hash
from ledger.errors import MalformedInput
from ledger.formats.documents import MAX_DOCUMENT, encode_document, parse_document

SALT_BYTES = 32
_PREFIX = b"\x00"
MAX_CARD = len(_PREFIX) + SALT_BYTES + MAX_DOCUMENT
"""Bytes of a card's blob at most: whatever is longer is no card."""

CardText = Annotated[
    str,
    StringConstraints(max_length=2000, pattern=r"^(?:[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|\n)*$"),
]
Disclosure = Literal["use", "disclosure", "not_phi"]


class Card(BaseModel):
    """A frozen document; unknown fields are refused, empty texts mean "not stated"."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Contact(Card):
    """Whom to ask."""

    name: CardText = ""
    email: CardText = ""
    telephone: CardText = ""
    address: CardText = ""
    country: CardText = ""


class MemberCard(Card):
    """Who stands behind a handle."""

    consilium: Literal[1] = 1
    kind: Literal["member"] = "member"
    name: CardText = ""
    position: CardText = ""
    institution: CardText = ""
    contact: Contact = Contact()


class DatasetCard(Card):
    """What a controller's record of processing holds about a dataset.

    The fields follow GDPR Art. 30(1) and 45 CFR 164.528(b); whether a transfer is a disclosure of
    protected health information is counsel's classification, and ``classified_by`` says whose.

    Attributes:
        disclosure: class of what leaves the hospital.
        opt_out_reconciled: when patients' objections were last applied.
        retention: how long the rows are kept, in words.
    """

    consilium: Literal[1] = 1
    kind: Literal["dataset"] = "dataset"
    title: CardText = ""
    controller: Contact = Contact()
    data_protection_officer: Contact = Contact()
    department: CardText = ""
    purpose: CardText = ""
    categories_of_persons: CardText = ""
    categories_of_data: CardText = ""
    first_record: date | None = None
    last_record: date | None = None
    legal_basis: CardText = ""
    ethics_approval: CardText = ""
    retention: CardText = ""
    opt_out_reconciled: date | None = None
    security_measures: CardText = ""
    transfers_and_safeguards: CardText = ""
    disclosure: Disclosure | None = None
    classified_by: CardText = ""


class Sealed(Card):
    """A commitment and the bytes that open it."""

    commitment: Hash
    blob: Annotated[bytes, Field(repr=False)]


C = TypeVar("C", bound=Card)


def seal_card(card: Card, salt: bytes | None = None) -> Sealed:
    """Commit to a card.

    Args:
        card: what to say.
        salt: 32 bytes; fresh ones from the operating system by default.

    Raises:
        ValueError: the salt has another length.
    """
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    blob = _PREFIX + salt + encode_document(card)
    return Sealed(commitment=hashlib.sha256(blob).hexdigest(), blob=blob)


def commit(document: bytes, salt: bytes) -> str:
    """The salted commitment to a document's bytes, 64 hexadecimal digits."""
    return hashlib.sha256(_PREFIX + salt + document).hexdigest()


def open_card(blob: bytes, commitment: str, model: type[C]) -> C:
    """Open a commitment.

    Raises:
        MalformedInput: the blob does not have this commitment, or holds no such card.
    """
    if hashlib.sha256(blob).hexdigest() != commitment:
        raise MalformedInput("card", f"its bytes do not open the commitment {commitment[:12]}")
    if blob[:1] != _PREFIX or len(blob) <= 1 + SALT_BYTES:
        raise MalformedInput("card", "it does not begin with a zero byte and a salt")
    return parse_document(blob[1 + SALT_BYTES :], model)
