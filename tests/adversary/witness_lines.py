"""Notes of an in-memory federation and the witness lines under them: true, outdated and renamed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ledger.formats.checkpoint import Checkpoint, cosign, log_verifier, sign_checkpoint
from ledger.formats.keys import KeyRing
from ledger.formats.note import COSIGNATURE_V1, NoteSignature, VerifierKey, key_id_of
from ledger.formats.witness import witness_name
from tests.adversary.membership import Members
from tests.federation import COORDINATOR, Federation


def log_of(federation: Federation) -> VerifierKey:
    key = federation.rings[COORDINATOR].log
    assert key is not None
    return log_verifier(federation.origin, key.public)


def bare_note(federation: Federation) -> bytes:
    key = federation.rings[COORDINATOR].log
    assert key is not None
    tree = federation.log.tree
    return sign_checkpoint(key, Checkpoint(federation.origin, federation.log.size, tree.root()))


def line_by(federation: Federation, ring: KeyRing) -> bytes:
    name = witness_name(federation.origin, ring.handle)
    return cosign(bare_note(federation), ring.witness, name, federation.now_ms // 1000)


def current_lines(members: Members, chosen: int) -> bytes:
    """Cosignatures of some nodes that are there, by the keys that they have."""
    nodes = [n for at, n in enumerate(members.nodes()) if chosen >> at & 1]
    rings = [members.federation.rings[node.handle] for node in nodes]
    return b"".join(line_by(members.federation, ring) for ring in rings)


def old_lines(members: Members, chosen: int) -> bytes:
    """Cosignatures by keys that nodes have or had."""
    rings = [ring for _, held in sorted(members.held.items()) for ring in held]
    picked: Sequence[KeyRing] = [r for at, r in enumerate(rings) if chosen >> (at % 8) & 1]
    return b"".join(line_by(members.federation, ring) for ring in picked)


def with_name(federation: Federation, line: NoteSignature, handle: str) -> NoteSignature:
    """The same signature as if by somebody else."""
    name = witness_name(federation.origin, handle)
    public = next(
        ring.witness.public
        for ring in federation.rings.values()
        if key_id_of(line.name, COSIGNATURE_V1, ring.witness.public) == line.key_id
    )
    return dataclasses.replace(line, name=name, key_id=key_id_of(name, COSIGNATURE_V1, public))
