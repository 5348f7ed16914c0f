"""Proofs that a patient's rows were in a registered dataset, or were not: format and judgement.

A registration's ``snapshot`` is the RFC 6962 root over one leaf a unit, id || record, sorted by id, with
salted hashes in both (docs/formats.md, section 11). A hospital, and nobody else, makes a proof; whoever is
handed it and a verified copy of the ledger judges it offline:

* the unit's own leaf under the root: its rows were in the table that the hospital committed to;
* two neighbouring leaves that enclose the place where its id would stand, or the one leaf at that end of
  the tree: they were not.

A proof carries the snapshot's salt, or its ids could not be judged. With the salt its holder can test
guesses about the units whose leaves it shows: the unit itself and, for absence, the two neighbours (which
may be padding, in no way told apart). So such a file is shown to the patient or the court that asked, and
not published. Every other leaf stays hidden: a path holds hashes of subtrees alone, and the tree is padded
to a public power of two, so that the number of units does not show.

Not promised: that the hospital trained on the rows it committed to, or that they are true.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ledger.entries.operations.values import Count, Hash, Positive, Slug
from ledger.errors import NotConsistent
from ledger.formats.merkle import leaf_hash, verify_inclusion

SALT_BYTES = 32
MAX_PATH = 64

UnitName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
RowsText = Annotated[str, StringConstraints(max_length=500_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LeafProof(_Part):
    """One leaf and its place under a snapshot's root.

    Attributes:
        index: place of the leaf, from 0.
        id, record: the two salted hashes in the leaf.
        path: sibling hashes, leaf to root.
    """

    index: Count
    id: Hash
    record: Hash
    path: Annotated[tuple[Hash, ...], Field(max_length=MAX_PATH)]


class SnapshotProof(_Part):
    """What a hospital hands out about one unit.

    Attributes:
        federation: whose ledger holds the registration.
        dataset: its name.
        registration: hash of the entry that registered this version.
        size: leaves of the snapshot, a public power of two.
        salt: the snapshot's.
        unit: the patient id, or the row's number from 0 where records are the units.
        rows: canonical text of the unit's rows, opened where the hospital chose to; None otherwise,
            and where the unit was not there.
        leaves: one or two.
    """

    consilium: Annotated[int, Field(ge=1, le=1)] = 1
    kind: Literal["snapshot-proof"] = "snapshot-proof"
    federation: Hash
    dataset: Slug
    registration: Hash
    size: Positive
    salt: Hash
    unit: UnitName
    rows: RowsText | None
    leaves: Annotated[tuple[LeafProof, ...], Field(min_length=1, max_length=2)]


def judge(proof: SnapshotProof, root: str) -> bool:
    """Say whether the unit was in the snapshot with this root.

    Args:
        proof: as handed out.
        root: ``snapshot`` of the registration that the proof names, from a verified ledger.

    Returns:
        True if it was in it, False if it was not.

    Raises:
        NotConsistent: the proof shows neither, or opens other rows than it commits to.
    """
    salt = bytes.fromhex(proof.salt)
    wanted = unit_id(salt, proof.unit).hex()
    for leaf in proof.leaves:
        verify_inclusion(
            index=leaf.index,
            size=proof.size,
            leaf=leaf_hash(bytes.fromhex(leaf.id + leaf.record)),
            proof=[bytes.fromhex(step) for step in leaf.path],
            root=bytes.fromhex(root),
        )
    if len(proof.leaves) == 1 and proof.leaves[0].id == wanted:
        _check_rows(proof, salt)
        return True
    if _encloses(proof.leaves, wanted, proof.size):
        if proof.rows is not None:
            raise NotConsistent("snapshot proof", "opens rows of a unit that it shows to be absent")
        return False
    raise NotConsistent("snapshot proof", "shows neither the unit nor two neighbours around it")


def unit_id(salt: bytes, unit: str) -> bytes:
    """A unit's salted id in a snapshot, 32 bytes."""
    return salted(salt, "id", unit)


def record_hash(salt: bytes, record: str) -> bytes:
    """The salted hash of a unit's canonical text, as in its leaf, 32 bytes."""
    return salted(salt, "record", record)


def salted(key: bytes, purpose: str, text: str) -> bytes:
    """HMAC-SHA256 of a text for one purpose."""
    message = f"consilium {purpose} v1\n{text}".encode("utf-8", "surrogatepass")
    return hmac.digest(key, message, "sha256")


def _check_rows(proof: SnapshotProof, salt: bytes) -> None:
    if proof.rows is None:
        return
    if not hmac.compare_digest(record_hash(salt, proof.rows).hex(), proof.leaves[0].record):
        raise NotConsistent("snapshot proof", "opens other rows than its leaf commits to")


def _encloses(leaves: Sequence[LeafProof], wanted: str, size: int) -> bool:
    below = [leaf.index for leaf in leaves if leaf.id < wanted]
    above = [leaf.index for leaf in leaves if leaf.id > wanted]
    if len(below) + len(above) != len(leaves):
        return False
    at_start = not below and above == [0]
    at_end = not above and below == [size - 1]
    between = len(below) == len(above) == 1 and above[0] == below[0] + 1
    return at_start or at_end or between
