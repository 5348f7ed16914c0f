"""Invitations on their way to a hospital: a file with a one-time secret, and joining with it.

The log holds the invitation's public key, bound to handles; the file holds the secret that proves
the right to those seats. Whoever has the file can take the seats, once each: hand it over as you
would a password. The file also carries the genesis entry, so that the one who joins knows from the
first byte which federation it trusts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ledger.copies.whole_file import create_file
from ledger.entries.entry import federation_id, parse_leaf
from ledger.entries.operations.federation import Invitation, Seat
from ledger.entries.operations.members import MemberJoined, MemberKeys
from ledger.entries.operations.values import Hash, PublicKey, Slug
from ledger.errors import MalformedInput, StoreUnusable
from ledger.formats.keys import KeyRing, SigningKey, key_id
from ledger.formats.strict import canonical, decode_b64, encode_b64, parse_canonical
from ledger.rules.members import claim_bytes

MAX_INVITATION = 256 * 1024


class InvitationFile(BaseModel):
    """What is handed to the people who may join.

    Attributes:
        url: where the coordinator answers.
        ca: base64 of the PEM of a private certificate authority, or null for the system's.
        genesis: base64 of the leaf of entry 0.
        secret: base64 of the one-time Ed25519 seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    consilium: Literal[1]
    federation: Hash
    url: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]{1,400}$")]
    ca: Annotated[str, StringConstraints(max_length=128 * 1024)] | None
    genesis: str
    organisation: Slug
    seats: Annotated[tuple[Seat, ...], Field(min_length=1, max_length=16)]
    secret: Annotated[str, Field(repr=False)]

    @property
    def ca_pem(self) -> bytes | None:
        """The certificate authority's PEM."""
        return None if self.ca is None else decode_b64(self.ca, "invitation.ca")

    @property
    def genesis_leaf(self) -> bytes:
        """Leaf of entry 0, checked to be this federation's."""
        leaf = decode_b64(self.genesis, "genesis")
        if federation_id(parse_leaf(leaf)) != self.federation:
            raise MalformedInput("invitation.genesis", "it is another federation's")
        return leaf


def new_invitation(organisation: str, seats: tuple[Seat, ...]) -> tuple[Invitation, bytes]:
    """A one-time key bound to seats: the part for the log, and the secret seed."""
    key = SigningKey.generate()
    public = PublicKey(alg="ed25519", public=key.public.hex())
    return Invitation(organisation=organisation, key=public, seats=seats), key.seed


def invitation_file(
    invitation: Invitation, secret: bytes, *, url: str, genesis: bytes, ca: bytes | None = None
) -> InvitationFile:
    """The file for an invitation that the log has, or will have."""
    return InvitationFile(
        consilium=1,
        federation=federation_id(parse_leaf(genesis)),
        url=url,
        ca=None if ca is None else encode_b64(ca),
        genesis=encode_b64(genesis),
        organisation=invitation.organisation,
        seats=invitation.seats,
        secret=encode_b64(secret),
    )


def save_invitation(path: Path, invitation: InvitationFile) -> None:
    """Write a new file that only its owner can read.

    Raises:
        StoreUnusable: it exists already, or cannot be written.
    """
    create_file(path, canonical(invitation), private=True)


def load_invitation(path: Path) -> InvitationFile:
    """Read an invitation.

    Raises:
        StoreUnusable: it cannot be read.
        MalformedInput: it is no invitation, or was changed.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_INVITATION + 1)
    except OSError as error:
        raise StoreUnusable(str(path), f"cannot be read: {error.strerror}") from None
    try:
        stored = parse_canonical(data, InvitationFile, limit=MAX_INVITATION)
        _ = stored.genesis_leaf
    except MalformedInput as error:
        raise MalformedInput(
            f"{path} is no invitation, or was changed on its way: {error.where}", error.reason
        ) from None
    return stored


def member_keys(keyring: KeyRing) -> MemberKeys:
    """The public keys that a member enrols; a witness key for nodes only."""

    def signing(key: SigningKey) -> PublicKey:
        return PublicKey(alg="ed25519", public=key.public.hex())

    return MemberKeys(
        entry=signing(keyring.entry),
        request=signing(keyring.request),
        sealing=PublicKey(alg="x25519", public=keyring.sealing.public.hex()),
        witness=signing(keyring.witness) if keyring.role == "node" else None,
    )


def join_operation(
    invitation: InvitationFile, keyring: KeyRing, card: str | None = None
) -> MemberJoined:
    """The operation with which a member takes its seat.

    Args:
        invitation: names a seat for the key ring's handle.
        keyring: fresh keys of that member.
        card: salted commitment to the member's card, or None.
    """
    one_time = SigningKey.from_seed(decode_b64(invitation.secret, "invitation.secret", size=32))
    keys = member_keys(keyring)
    claim = claim_bytes(invitation.federation, keyring.handle, keys)
    return MemberJoined(
        type="member.joined",
        invitation=key_id("ed25519", one_time.public),
        keys=keys,
        proof=one_time.sign("invitation", claim).hex(),
        card=card,
    )
