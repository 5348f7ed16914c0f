"""The worked example of ``docs/formats.md``: three entries, a checkpoint, an update, a bundle.

The keys are public constants and protect nothing. ``python -m tests.docs.example`` prints the
section as the page must hold it.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from ledger.copies.bundle import export_bundle
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import (
    NOTHING_SEEN,
    Body,
    Entry,
    Seen,
    federation_id,
    genesis_body,
    log_origin,
    sign_entry,
)
from ledger.entries.operations.federation import FederationFounded, Invitation, Policy, Seat
from ledger.entries.operations.log import NodeReady
from ledger.entries.operations.members import MemberJoined, MemberKeys
from ledger.entries.operations.values import PublicKey
from ledger.entries.operations.vocabulary import Operation
from ledger.experiment.tensors import encode_update, pack_model
from ledger.formats.checkpoint import Checkpoint, cosign, merge_cosignatures, sign_checkpoint
from ledger.formats.keys import SealingKey, SigningKey, key_id
from ledger.formats.note import COSIGNATURE_V1, VerifierKey
from ledger.formats.witness import witness_name
from ledger.rules.encoding import digest, encode
from ledger.rules.log import Log
from ledger.rules.members import claim_bytes

T0_MS = 1_767_225_600_000
HANDLE = "alpha-node"


def key(number: int) -> SigningKey:
    """The Ed25519 key whose seed is 32 times one byte."""
    return SigningKey.from_seed(bytes([number]) * 32)


def member_keys(first: int, witness: int | None) -> MemberKeys:
    """Keys of a member: entry, request and sealing from three numbers in a row."""
    sealing = SealingKey.from_seed(bytes([first + 2]) * 32)
    return MemberKeys(
        entry=_public(key(first)),
        request=_public(key(first + 1)),
        sealing=PublicKey(alg="x25519", public=sealing.public.hex()),
        witness=None if witness is None else _public(key(witness)),
    )


def blocks() -> dict[str, str]:
    """Every labelled block of the example, in the page's order."""
    genesis, joined, ready = entries()
    federation = federation_id(genesis)
    origin = log_origin(federation)
    log = Log()
    for entry in (genesis, joined, ready):
        log.append(log.judge(entry.leaf))
    signed = sign_checkpoint(key(4), Checkpoint(origin, 3, log.tree.root()))
    name = witness_name(origin, HANDLE)
    line = cosign(signed, key(24), name, T0_MS // 1000 + 60)
    witness = VerifierKey(name, key(24).public, COSIGNATURE_V1)
    note = merge_cosignatures(signed, line, (witness,))
    update = encode_update(np.array([1, -1, 2**20], dtype=np.int64))
    shapes = (("0.weight", (1, 2)), ("0.bias", (1,)))
    model = pack_model(shapes, np.array([0.5, -0.25, 1.0], dtype=np.float64))
    bundle = bundle_bytes((genesis, joined, ready), signed, note)
    return {
        "genesis-body": genesis.raw.decode(),
        "genesis-signature": genesis.signature.hex(),
        "federation-id": federation,
        "entry-1-body": joined.raw.decode(),
        "entry-1-signature": joined.signature.hex(),
        "claim": claim_bytes(federation, HANDLE, member_keys(21, 24)).decode(),
        "entry-2-body": ready.raw.decode(),
        "entry-2-signature": ready.signature.hex(),
        "leaf-hashes": "\n".join(entry.hash for entry in (genesis, joined, ready)),
        "checkpoint": note.decode(),
        "state": encode(log.state).decode(),
        "state-digest": digest(log.state),
        "update": update.hex(),
        "model": model.hex(),
        "bundle": f"{len(bundle)} bytes, trailer {bundle[-32:].hex()}",
    }


def entries() -> tuple[Entry, Entry, Entry]:
    """Genesis, a node that joins, the node ready."""
    invitation = Invitation(
        organisation="alpha",
        key=_public(key(5)),
        seats=(Seat(handle=HANDLE, role="node"),),
    )
    founded = FederationFounded(
        type="federation.founded",
        name="example",
        policy=Policy(
            endorsements=1,
            max_lag=100_000,
            max_delay_ms=86_400_000,
            max_age_ms=600_000,
            skew_ms=60_000,
        ),
        organisation="hub",
        keys=member_keys(1, None),
        log_key=_public(key(4)),
        invitations=(invitation,),
    )
    genesis = sign_entry(genesis_body("hub-coordinator", key(1).id, T0_MS, founded), key(1))
    federation = federation_id(genesis)
    keys = member_keys(21, 24)
    proof = key(5).sign("invitation", claim_bytes(federation, HANDLE, keys))
    op = MemberJoined(
        type="member.joined",
        invitation=key_id("ed25519", key(5).public),
        keys=keys,
        proof=proof.hex(),
        card=None,
    )
    joined = _entry(federation, 0, "0" * 64, NOTHING_SEEN, T0_MS + 1000, op)
    log = Log()
    log.append(log.judge(genesis.leaf))
    seen = Seen(size=1, root=log.tree.root().hex())
    ready = NodeReady(type="node.ready", protocol=1)
    return genesis, joined, _entry(federation, 1, joined.hash, seen, T0_MS + 2000, ready)


def bundle_bytes(log: tuple[Entry, ...], signed: bytes, final: bytes) -> bytes:
    """What an export of this log is, byte for byte."""
    rows = [Row(e.raw, e.signature, bytes.fromhex(e.hash), e.body.key, e.body.seq) for e in log]
    with tempfile.TemporaryDirectory() as directory:
        store = LogStore.open(f"sqlite:///{directory}/ledger.db")
        store.append(0, rows, (len(rows), signed))
        store.put_final(len(rows), final)
        path = Path(directory) / "example.consilium"
        export_bundle(store, None, path)
        store.close()
        return path.read_bytes()


def render() -> str:
    """The blocks as the page holds them."""
    return "\n".join(
        f"<!-- example: {label} -->\n```text\n{text.rstrip(chr(10))}\n```\n"
        for label, text in blocks().items()
    )


def _entry(federation: str, seq: int, prev: str, seen: Seen, at_ms: int, op: Operation) -> Entry:
    body = Body(
        v=1,
        federation=federation,
        author=HANDLE,
        key=key(21).id,
        seq=seq,
        prev=prev,
        seen=seen,
        at_ms=at_ms,
        op=op,
    )
    return sign_entry(body, key(21))


def _public(signing: SigningKey) -> PublicKey:
    return PublicKey(alg="ed25519", public=signing.public.hex())


def sha256(data: bytes) -> str:
    """Lowercase hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    print(render())
