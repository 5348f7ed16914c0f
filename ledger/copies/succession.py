"""Files by which a successor is proposed, endorsed and handed out, and its check against a copy.

A *proposal* holds the new genesis body without endorsements, and the parts that it carries. An
*endorsement* is one steward's signature under it. The *succession* is what every member gets: the signed
entry 0 and where the new log is kept. All three are canonical JSON; none is secret.

`last_final` folds a copy up to its last final checkpoint; `check_successor` is what a node, a steward or
an auditor does before anything of the new log is believed (``ledger.rules.succession.check_join``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ledger.copies.leaves import read_leaves
from ledger.copies.replica import Replica
from ledger.entries.entry import Body, Entry, parse_leaf
from ledger.entries.operations.succession import (
    FederationCarried,
    FederationSucceeded,
    SuccessionEndorsement,
)
from ledger.entries.operations.values import Signature, Slug
from ledger.errors import SuccessionRefused
from ledger.formats.keys import KeyRing
from ledger.formats.strict import decode_b64, encode_b64, parse_canonical
from ledger.formats.value import replace
from ledger.rules.log import Log
from ledger.rules.state import State
from ledger.rules.succession import check_join, claim_of

MAX_FILE = 16 * 1024 * 1024
Url = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]{1,400}$")]
Base64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/=]+$")]


class _File(BaseModel):
    """A frozen, strict document."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ProposalFile(_File):
    """A successor as it is proposed."""

    format: Literal["consilium succession proposal v1"]
    url: Url
    ca: Base64 | None
    body: Body
    parts: Annotated[tuple[FederationCarried, ...], Field(min_length=1, max_length=256)]


class EndorsementFile(_File):
    """One steward's signature under a proposal."""

    format: Literal["consilium succession endorsement v1"]
    claim: Base64
    steward: Slug
    signature: Signature


class SuccessionFile(_File):
    """What a member needs to follow the new log."""

    format: Literal["consilium succession v1"]
    url: Url
    ca: Base64 | None
    genesis: Base64

    @property
    def leaf(self) -> bytes:
        """Leaf of the new log's entry 0."""
        return decode_b64(self.genesis, "succession.genesis")

    @property
    def ca_pem(self) -> bytes | None:
        """The new coordinator's private certificate authority, if it has one."""
        return None if self.ca is None else decode_b64(self.ca, "succession.ca")


@dataclass(frozen=True, slots=True)
class LastFinal:
    """A log at its last final checkpoint: the state there and its root, lowercase hex.

    Attributes:
        dropped: entries of the copy after it, which a successor does not take over.
    """

    state: State
    root: str
    dropped: tuple[Entry, ...]


def read_proposal(data: bytes) -> ProposalFile:
    """Parse a proposal file.

    Raises:
        MalformedInput: it is none.
    """
    return parse_canonical(data, ProposalFile, limit=MAX_FILE)


def read_endorsement(data: bytes) -> EndorsementFile:
    """Parse an endorsement file.

    Raises:
        MalformedInput: it is none.
    """
    return parse_canonical(data, EndorsementFile, limit=16 * 1024)


def read_succession(data: bytes) -> SuccessionFile:
    """Parse a succession file.

    Raises:
        MalformedInput: it is none.
    """
    return parse_canonical(data, SuccessionFile, limit=256 * 1024)


def last_final(replica: Replica) -> LastFinal:
    """Fold a verified copy up to its last final checkpoint."""
    size = replica.final.size
    log = Log()
    for leaf in read_leaves(replica.store, 0, size):
        log.append(log.judge(leaf))
    rest = read_leaves(replica.store, size, replica.size)
    return LastFinal(log.state, replica.root(size).hex(), tuple(parse_leaf(leaf) for leaf in rest))


def endorse(proposal: ProposalFile, old: Replica, ring: KeyRing) -> EndorsementFile:
    """Sign a proposal, after checking all of it against one's own copy of the old log.

    Raises:
        SuccessionRefused: it does not take over what this copy says; signatures are not asked for.
    """
    check_proposal(proposal, old)
    claim = claim_of(proposal.body)
    return EndorsementFile(
        format="consilium succession endorsement v1",
        claim=encode_b64(claim),
        steward=ring.handle,
        signature=ring.entry.sign("succession", claim).hex(),
    )


def check_proposal(proposal: ProposalFile, old: Replica) -> LastFinal:
    """Whether a proposal would take over from a copy's last final checkpoint, endorsements apart.

    Raises:
        SuccessionRefused: says what differs.
    """
    here = last_final(old)
    entry = Entry(proposal.body, b"", b"", "")
    check_join(entry, here.state, here.root, endorsed=False)
    return here


def endorsed_body(proposal: ProposalFile, endorsements: tuple[EndorsementFile, ...]) -> Body:
    """The genesis body with these endorsements, by steward.

    Raises:
        SuccessionRefused: one of them is for something else, or there are two by one steward.
    """
    op = proposal.body.op
    claim = claim_of(proposal.body)
    if not isinstance(op, FederationSucceeded):
        raise SuccessionRefused("proposal", "it founds nothing")
    for each in endorsements:
        if decode_b64(each.claim, "endorsement.claim") != claim:
            raise SuccessionRefused(each.steward, "its endorsement is for another proposal")
    stewards = sorted(each.steward for each in endorsements)
    if len(set(stewards)) != len(stewards):
        raise SuccessionRefused("endorsements", "a steward endorses once")
    listed = tuple(
        SuccessionEndorsement(steward=each.steward, signature=each.signature)
        for each in sorted(endorsements, key=lambda each: each.steward)
    )
    return replace(proposal.body, op=replace(op, endorsements=listed))


def check_successor(leaf: bytes, old: Replica) -> LastFinal:
    """Whether a log's entry 0 takes over from a copy's last final checkpoint.

    Returns:
        What the old log was there, and what it held beyond.

    Raises:
        SuccessionRefused: says what differs.
        MalformedInput, NotAdmitted, BadSignature: it is no entry 0.
    """
    entry = Log().judge(leaf)
    here = last_final(old)
    check_join(entry, here.state, here.root)
    return here
