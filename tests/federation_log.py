"""The members and the log of a federation in memory: keys, entries, checkpoints, persistence.

The lower half of ``tests.federation``, which adds the story of datasets and experiments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ledger.copies.blobs import BlobStore, blob_ref
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import (
    NOTHING_SEEN,
    Body,
    Entry,
    Seen,
    genesis_body,
    log_origin,
    parse_leaf,
    sign_entry,
)
from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import FederationFounded, Invitation, Policy, Seat
from ledger.entries.operations.log import NodeReady
from ledger.entries.operations.members import MemberJoined
from ledger.entries.operations.values import BlobRef, PublicKey
from ledger.entries.operations.vocabulary import Operation
from ledger.formats.checkpoint import Checkpoint, cosign, merge_cosignatures, sign_checkpoint
from ledger.formats.keys import KeyRing, SealingKey, SigningKey, key_id
from ledger.formats.note import COSIGNATURE_V1, VerifierKey
from ledger.formats.witness import witness_name
from ledger.rules.experiment_state import Experiment
from ledger.rules.log import Log, Sequenced
from ledger.rules.members import claim_bytes
from ledger.rules.state import State

COORDINATOR = "hub"
RESEARCHER = "ada"
HOSPITALS = ("basel", "bern", "chur", "davos")
START_MS = 1_767_225_600_000
HOUR_MS = 3_600_000
POLICY = Policy(
    endorsements=2, max_lag=100_000, max_delay_ms=24 * HOUR_MS, max_age_ms=HOUR_MS, skew_ms=60_000
)


def node_of(hospital: str) -> str:
    """Handle of a hospital's node."""
    return f"{hospital}-node"


def steward_of(hospital: str) -> str:
    """Handle of a hospital's steward."""
    return f"{hospital}-steward"


def ring_of(handle: str, role: str) -> KeyRing:
    """The keys that a handle has in every test."""

    def seed(use: str) -> bytes:
        return hashlib.sha256(f"test key of {handle}: {use}".encode()).digest()

    return KeyRing(
        handle=handle,
        role=role,
        entry=SigningKey.from_seed(seed("entry")),
        witness=SigningKey.from_seed(seed("witness")),
        request=SigningKey.from_seed(seed("request")),
        sealing=SealingKey.from_seed(seed("sealing")),
        log=SigningKey.from_seed(seed("log")) if role == "coordinator" else None,
    )


def ed25519(key: SigningKey) -> PublicKey:
    """A public key as operations carry it."""
    return PublicKey(alg="ed25519", public=key.public.hex())


@dataclass
class FederationLog:
    """A log, its members' keys and its blobs.

    Attributes:
        now_ms: everybody's clock; each entry moves it by ``tick_ms``.
        leaves: framed leaves in order, as a follower gets them.
        blobs: content by SHA-256.
        notes: signed checkpoints by size, with the cosignatures collected.
        finals: the sizes that were declared final.
    """

    now_ms: int = START_MS
    tick_ms: int = 1000
    log: Log = field(default_factory=Log)
    leaves: list[bytes] = field(default_factory=list)
    rings: dict[str, KeyRing] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    notes: dict[int, bytes] = field(default_factory=dict)
    finals: list[int] = field(default_factory=list)

    @classmethod
    def found(
        cls,
        hospitals: Sequence[str] = HOSPITALS,
        *,
        policy: Policy = POLICY,
        now_ms: int = START_MS,
        ready: bool = True,
    ) -> Self:
        """Found a federation that everybody has joined and whose nodes witness.

        Args:
            hospitals: one organisation each.
            policy: of genesis.
            now_ms: when it all begins; each entry takes a second.
            ready: whether nodes said ``node.ready``; without, w = 0.
        """
        self = cls(now_ms=now_ms)
        hub = self.rings[COORDINATOR] = ring_of(COORDINATOR, "coordinator")
        assert hub.log is not None
        seats = {
            name: (
                Seat(handle=node_of(name), role="node"),
                Seat(handle=steward_of(name), role="steward"),
            )
            for name in hospitals
        }
        everybody = {**seats, "institute": (Seat(handle=RESEARCHER, role="researcher"),)}
        op = FederationFounded(
            type="federation.founded",
            name="test-federation",
            policy=policy,
            organisation="operator",
            keys=member_keys(hub),
            log_key=ed25519(hub.log),
            invitations=tuple(
                Invitation(organisation=name, key=ed25519(one_time_key(name)), seats=places)
                for name, places in everybody.items()
            ),
        )
        self.take(sign_entry(genesis_body(COORDINATOR, hub.entry.id, self.now_ms, op), hub.entry))
        for organisation, places in everybody.items():
            for seat in places:
                self.join(organisation, seat.handle, seat.role)
        if ready:
            for name in hospitals:
                self.say(node_of(name), NodeReady(type="node.ready", protocol=1))
        return self

    # --- what there is --------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The fold of the log."""
        return self.log.state

    @property
    def id(self) -> str:
        """The federation's id."""
        return self.state.federation

    @property
    def origin(self) -> str:
        """Origin of the log's checkpoints."""
        return log_origin(self.id)

    def experiment(self, experiment: str) -> Experiment:
        """An experiment as the state has it now."""
        return self.state.experiments[experiment]

    # --- saying ---------------------------------------------------------------------------------

    def say(self, handle: str, op: Operation, *, void: str | None = None) -> Sequenced:
        """Sign and append a member's next entry.

        Args:
            handle: who says it.
            op: what.
            void: the reason that is expected; None expects it to apply.
        """
        sequenced = self.take(self.entry(handle, op))
        assert sequenced.outcome.void == void, (op.type, sequenced.outcome)
        return sequenced

    def entry(
        self,
        handle: str,
        op: Operation,
        *,
        seen: Seen | None = None,
        at_ms: int | None = None,
    ) -> Entry:
        """Sign a member's next entry; nothing is appended."""
        key = self.rings[handle].entry
        chain = self.state.keys[key.id]
        body = Body(
            v=1,
            federation=self.id,
            author=handle,
            key=key.id,
            seq=chain.next_seq,
            prev=chain.head,
            seen=seen or self.seen(),
            at_ms=self.now_ms if at_ms is None else at_ms,
            op=op,
        )
        return sign_entry(body, key)

    def take(self, entry: Entry) -> Sequenced:
        """Judge and append an entry, whoever made it."""
        sequenced = self.log.append(self.log.judge(entry.leaf))
        self.leaves.append(entry.leaf)
        self.now_ms += self.tick_ms
        return sequenced

    def seen(self) -> Seen:
        """The whole log as its members see it now."""
        if not self.leaves:
            return NOTHING_SEEN
        return Seen(size=self.log.size, root=self.log.tree.root().hex())

    def joining(self, organisation: str, handle: str, role: str) -> Entry:
        """The entry by which a member takes a seat of its organisation's invitation."""
        return self.joining_by(one_time_key(organisation), handle, role)

    def joining_by(self, one_time: SigningKey, handle: str, role: str) -> Entry:
        """The entry by which a member takes a seat of the invitation with this one-time key."""
        ring = ring_of(handle, role)
        keys = member_keys(ring)
        op = MemberJoined(
            type="member.joined",
            invitation=key_id("ed25519", one_time.public),
            keys=keys,
            proof=one_time.sign("invitation", claim_bytes(self.id, handle, keys)).hex(),
            card=None,
        )
        body = Body(
            v=1,
            federation=self.id,
            author=handle,
            key=ring.entry.id,
            seq=0,
            prev="0" * 64,
            seen=self.seen(),
            at_ms=self.now_ms,
            op=op,
        )
        return sign_entry(body, ring.entry)

    def join(self, organisation: str, handle: str, role: str) -> Sequenced:
        """Let a member take its seat."""
        sequenced = self.take(self.joining(organisation, handle, role))
        self.rings[handle] = ring_of(handle, role)
        return sequenced

    def put(self, data: bytes) -> BlobRef:
        """Keep a blob."""
        ref = blob_ref(data)
        self.blobs[ref.sha256] = data
        return ref

    # --- checkpoints ----------------------------------------------------------------------------

    def checkpoint(self, cosigners: Iterable[str] = (), *, at_s: int | None = None) -> bytes:
        """The signed note over the whole log, with these handles' cosignatures."""
        ring = self.rings[COORDINATOR]
        assert ring.log is not None
        size = self.log.size
        fresh = sign_checkpoint(ring.log, Checkpoint(self.origin, size, self.log.tree.root()))
        note = self.notes.get(size, fresh)
        for handle in cosigners:
            witness = self.rings[handle].witness
            name = witness_name(self.origin, handle)
            line = cosign(note, witness, name, self.now_ms // 1000 if at_s is None else at_s)
            key = VerifierKey(name=name, public=witness.public, type=COSIGNATURE_V1)
            note = merge_cosignatures(note, line, [key])
        self.notes[size] = note
        return note

    def finalize(self) -> bytes:
        """The note over the whole log, cosigned by every node that is ready."""
        ready = [m.handle for m in self.state.members.values() if m.role == "node" and m.ready]
        note = self.checkpoint(sorted(ready))
        if self.log.size not in self.finals:
            self.finals.append(self.log.size)
        return note

    def entries(self) -> list[Entry]:
        """All entries, parsed."""
        return [parse_leaf(leaf) for leaf in self.leaves]

    # --- on disk --------------------------------------------------------------------------------

    def persist(self, directory: Path) -> LogStore:
        """Write log, checkpoints and blobs as a coordinator's or node's home has them.

        Files: ``ledger.db`` and ``blobs/``. The newest checkpoint is signed here; earlier ones are
        those that the test made. The caller closes the store.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.checkpoint()
        store = LogStore.open(f"sqlite:///{directory / 'ledger.db'}")
        rows = [
            Row(e.raw, e.signature, bytes.fromhex(e.hash), e.body.key, e.body.seq)
            for e in self.entries()
        ]
        at = 0
        for size, note in sorted(self.notes.items()):
            store.append(at, rows[at:size], (size, note))
            at = size
        for size in sorted(self.finals):
            store.put_final(size, self.notes[size])
        blobs = BlobStore(directory / "blobs")
        for data in self.blobs.values():
            blobs.put(data)
        return store


def one_time_key(organisation: str) -> SigningKey:
    """The one-time key of an organisation's invitation in genesis."""
    return SigningKey.from_seed(hashlib.sha256(f"invitation of {organisation}".encode()).digest())
