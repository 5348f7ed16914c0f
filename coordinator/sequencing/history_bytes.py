"""What a log's history holds, as bytes: what a coordinator keeps beside the state in its snapshot.

Most of it says what each blob is, and most blobs are the updates of few authors in few experiments. So
blobs of which the same is said are listed together, by their bare hashes: a million of them take 32
megabytes and a second to read.

Layout: u32 length of the document, the document (canonical JSON of `_Document`), then the hashes of the
blobs, 32 bytes each, in the order of the document's groups; within a group they ascend. Integers are
big-endian.

Promise: equal facts have equal bytes, and what is read back is what was written. Whether it is true of
a log, only the log can say: who reads it has to know who wrote it (``ledger.copies.snapshot``).
"""

from __future__ import annotations

from msgspec.structs import asdict
from pydantic import BaseModel, ConfigDict

from coordinator.sequencing.history import BlobUse, Facts
from ledger.entries.operations.rounds import RoundKind
from ledger.entries.operations.values import BlobRef, Count, Hash
from ledger.errors import MalformedInput
from ledger.formats.strict import canonical, parse_canonical

MAX_DOCUMENT = 256 * 2**20
"""Bytes of the document; it grows with rounds and void entries, not with blobs."""
_HASH = 32


class _Part(BaseModel):
    """A frozen, strict part of the document."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Use(_Part):
    """As `BlobUse`."""

    kind: str
    experiment: Hash | None
    author: str


class _Group(_Part):
    """Blobs of which entries say the same."""

    uses: tuple[_Use, ...]
    blobs: Count


class _Document(_Part):
    """As `Facts`; what is a set or has a pair for a key is a sorted list."""

    groups: tuple[_Group, ...]
    voids: dict[str, tuple[Count, ...]]
    completed_at: dict[Hash, Count]
    models: dict[Hash, tuple[BlobRef, ...]]
    downloads: tuple[tuple[Hash, str], ...]
    kinds: tuple[tuple[Hash, Count, RoundKind], ...]
    declared_test: dict[Hash, Count]


def encode_history(facts: Facts) -> bytes:
    """Write down what a history holds."""
    # By identity first: hashing what is said of a blob costs more than all the rest.
    alike: dict[int, tuple[tuple[BlobUse, ...], list[str]]] = {}
    for sha256, uses in facts.uses.items():
        alike.setdefault(id(uses), (uses, []))[1].append(sha256)
    groups: dict[tuple[BlobUse, ...], list[str]] = {}
    for uses, blobs in alike.values():
        groups.setdefault(uses, []).extend(blobs)
    voids: dict[str, list[int]] = {}
    for index, reason in facts.voids.items():
        voids.setdefault(reason, []).append(index)
    named = sorted((tuple(map(_use, uses)), hashes) for uses, hashes in groups.items())
    document = canonical(
        {
            "groups": [
                {
                    "uses": [{"kind": k, "experiment": e or None, "author": a} for k, e, a in uses],
                    "blobs": len(hashes),
                }
                for uses, hashes in named
            ],
            "voids": {reason: sorted(indexes) for reason, indexes in voids.items()},
            "completed_at": facts.completed_at,
            "models": {
                experiment: [asdict(ref) for ref in refs]
                for experiment, refs in facts.models.items()
            },
            "downloads": sorted(facts.downloads),
            "kinds": sorted((*place, kind) for place, kind in facts.kinds.items()),
            "declared_test": facts.declared_test,
        }
    )
    joined = (bytes.fromhex("".join(sorted(hashes))) for _, hashes in named)
    return b"".join((len(document).to_bytes(4, "big"), document, *joined))


def decode_history(data: bytes) -> Facts:
    """Read it back.

    Raises:
        MalformedInput: those are not bytes that `encode_history` writes.
    """
    start = 4 + int.from_bytes(data[:4], "big")
    document = parse_canonical(data[4:start], _Document, limit=MAX_DOCUMENT)
    expected = start + _HASH * sum(group.blobs for group in document.groups)
    if len(data) != expected:
        raise MalformedInput("history", f"it has {len(data)} bytes, and names {expected}")
    facts = Facts(
        voids={index: reason for reason, found in document.voids.items() for index in found},
        completed_at=document.completed_at,
        models=document.models,
        downloads=set(document.downloads),
        kinds={(experiment, number): kind for experiment, number, kind in document.kinds},
        declared_test=document.declared_test,
    )
    hashes = data[start:].hex()
    at = 0
    for group in document.groups:
        uses = tuple(BlobUse(use.kind, use.experiment, use.author) for use in group.uses)
        end = at + 2 * _HASH * group.blobs
        facts.uses |= dict.fromkeys(
            (hashes[each : each + 2 * _HASH] for each in range(at, end, 2 * _HASH)), uses
        )
        at = end
    return facts


def _use(use: BlobUse) -> tuple[str, str, str]:
    """In an order: an experiment's id is never empty."""
    return use.kind, use.experiment or "", use.author
