"""A request for new keys without the old ones: a public file that a member hands to a steward.

The member makes its keys itself, on the machine that will use them; the file holds their public halves
and the new entry key's signature of the claim, so that nobody enrols keys which nobody holds. It is no
secret and no authority: k organisations decide. Who hands it over should be asked for its fingerprint
in person, since the file could be exchanged on the way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from msgspec import Meta

from ledger.copies.whole_file import create_file
from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import RekeyChange
from ledger.entries.operations.members import MemberKeys
from ledger.entries.operations.values import Hash, Signature, Slug, Value
from ledger.errors import BadSignature, MalformedInput, StoreUnusable
from ledger.formats.keys import KeyRing, key_id, verify
from ledger.formats.strict import canonical, parse_canonical
from ledger.rules.members import claim_bytes

MAX_REQUEST = 16 * 1024


class RekeyRequest(Value):
    """See the module's first lines.

    Attributes:
        proof: the new entry key's signature of the claim (kind ``invitation``, docs/formats.md 4).
    """

    consilium: Annotated[int, Meta(ge=1, le=1)]
    federation: Hash
    handle: Slug
    keys: MemberKeys
    proof: Signature

    @classmethod
    def of(cls, federation: str, ring: KeyRing) -> Self:
        """The request for a member's new keys."""
        keys = member_keys(ring)
        proof = ring.entry.sign("invitation", claim_bytes(federation, ring.handle, keys)).hex()
        return cls(consilium=1, federation=federation, handle=ring.handle, keys=keys, proof=proof)

    @property
    def fingerprint(self) -> str:
        """Id of the new entry key: what two people compare."""
        return key_id(self.keys.entry.alg, bytes.fromhex(self.keys.entry.public))

    @property
    def change(self) -> RekeyChange:
        """What a steward proposes."""
        return RekeyChange(member=self.handle, keys=self.keys)


def save_request(path: Path, request: RekeyRequest) -> None:
    """Write a new file.

    Raises:
        StoreUnusable: it exists already, or cannot be written.
    """
    create_file(path, canonical(request) + b"\n")


def load_request(path: Path, federation: str) -> RekeyRequest:
    """Read a request and check that its keys signed for themselves.

    Raises:
        StoreUnusable: it cannot be read.
        MalformedInput: it is no request, or one for another federation.
        BadSignature: the new entry key did not sign it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_REQUEST + 1)
    except OSError as error:
        raise StoreUnusable(str(path), f"cannot be read: {error.strerror}") from None
    request = parse_canonical(data.removesuffix(b"\n"), RekeyRequest, limit=MAX_REQUEST)
    if request.federation != federation:
        raise MalformedInput("request", f"it is for federation {request.federation[:12]}")
    claim = claim_bytes(federation, request.handle, request.keys)
    public = bytes.fromhex(request.keys.entry.public)
    if not verify(public, "invitation", claim, bytes.fromhex(request.proof)):
        raise BadSignature(
            "request", "its new entry key did not sign for these keys; ask for it anew"
        )
    return request
