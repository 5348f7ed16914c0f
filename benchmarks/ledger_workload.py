"""A federation at work, as fast as one can sign: what the ledger benchmark measures with.

Hospitals join, register a dataset each and take part in one experiment that has as many rounds as
are asked for. A round is the coordinator's ``round.opened``, an ``update.submitted`` by every
hospital's node, and ``round.aggregated``; every entry is admitted and applied. Keys come from their
owner's name, so every run has the same entries.

The setup is signed through the library; rounds are written as canonical JSON at once, since signing
through the models would take longer than what is measured. Whoever reads them judges them in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from msgspec import to_builtins

from benchmarks.ledger_terms import (
    blob_of,
    cell_of,
    dataset_of,
    digest_of,
    one_time_key,
    plan_for,
    ring_of,
    seed_key,
)
from ledger.entries.entry import (
    NOTHING_SEEN,
    Body,
    Entry,
    Seen,
    federation_id,
    frame_leaf,
    genesis_body,
    log_origin,
    sign_entry,
)
from ledger.entries.invitation import member_keys
from ledger.entries.operations.budgets import BudgetReserved
from ledger.entries.operations.experiments import ExperimentApproved, ExperimentProposed
from ledger.entries.operations.federation import FederationFounded, Invitation, Policy, Seat
from ledger.entries.operations.log import NodeReady
from ledger.entries.operations.members import MemberJoined
from ledger.entries.operations.values import EMPTY_HASH, PublicKey
from ledger.entries.operations.vocabulary import Operation
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.keys import KeyRing, SigningKey
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.rules.experiments import totals
from ledger.rules.members import claim_bytes

COORDINATOR = "hub"
RESEARCHER = "ada"
START_MS = 1_767_225_600_000
LAST_MS = 2**50


@dataclass
class _Chain:
    """A member's keys and where its chain stands."""

    ring: KeyRing
    seq: int = 0
    prev: str = EMPTY_HASH


@dataclass
class Workload:
    """One federation's entries, in order.

    Attributes:
        hospitals: with one node, one steward and one dataset each.
        rounds: of the experiment; as many can be drawn from `rounds_of_entries`.
    """

    hospitals: int
    rounds: int
    tree: MerkleTree = field(default_factory=MerkleTree)

    def __post_init__(self) -> None:
        self.names = [f"h{at:03}" for at in range(self.hospitals)]
        self._chains: dict[str, _Chain] = {}
        self._at_ms = START_MS
        self._seen = NOTHING_SEEN
        self.federation = EMPTY_HASH
        self.setup = tuple(self._set_up())

    @property
    def log_key(self) -> SigningKey:
        """The key that signs this log's checkpoints."""
        key = self._chains[COORDINATOR].ring.log
        assert key is not None
        return key

    def ring(self, handle: str) -> KeyRing:
        """A member's keys."""
        return self._chains[handle].ring

    def note(self, tree: MerkleTree) -> bytes:
        """The signed checkpoint over a tree of this log's entries."""
        checkpoint = Checkpoint(log_origin(self.federation), tree.size, tree.root())
        return sign_checkpoint(self.log_key, checkpoint)

    def note_at(self, size: int) -> bytes:
        """The signed checkpoint over the first entries that were drawn."""
        checkpoint = Checkpoint(log_origin(self.federation), size, self.tree.root(size))
        return sign_checkpoint(self.log_key, checkpoint)

    def batches(self) -> Iterator[list[bytes]]:
        """Leaves of the rounds, in batches that can be made durable at once.

        What the coordinator says between two rounds is one batch, all hospitals' updates the next.
        """
        said: list[bytes] = []
        for number in range(1, self.rounds + 1):
            self._see()
            model = digest_of("model", number)
            said.append(
                self._quick(
                    COORDINATOR,
                    {
                        "type": "round.opened",
                        "experiment": self._experiment,
                        "round": number,
                        "attempt": 1,
                        "kind": "train",
                        "cohort": self.names,
                        "model": {"bytes": 7000, "sha256": model},
                        "deadline_ms": LAST_MS,
                    },
                )
            )
            yield said
            self._see()
            updates = [
                self._quick(f"{name}-node", self._update(name, number)) for name in self.names
            ]
            hashes = sorted(leaf_hash(leaf).hex() for leaf in updates)
            yield updates
            said = [
                self._quick(
                    COORDINATOR,
                    {
                        "type": "round.aggregated",
                        "experiment": self._experiment,
                        "round": number,
                        "attempt": 1,
                        "updates": hashes,
                        "aggregate": {"bytes": 7000, "sha256": digest_of("sum", number)},
                        "model": {"bytes": 7000, "sha256": digest_of("model", number + 1)},
                    },
                )
            ]

    def leaves(self) -> Iterator[bytes]:
        """All leaves: the setup's, then the rounds'."""
        yield from self.setup
        for batch in self.batches():
            yield from batch

    def single(self, handle: str) -> bytes:
        """A further entry by one member that anybody may send at any time."""
        nonce = digest_of(handle, self._chains[handle].seq)
        return self._quick(handle, {"type": "node.resumed", "nonce": nonce})

    # --- rounds ---------------------------------------------------------------------------------

    def _update(self, name: str, number: int) -> dict[str, object]:
        return {
            "type": "update.submitted",
            "experiment": self._experiment,
            "dataset": name,
            "round": number,
            "attempt": 1,
            "update": {"bytes": 7000, "sha256": digest_of(name, number)},
            "used": [{"purpose": "train", "steps": number}],
            "intents": digest_of("intents", number),
            "masked": None,
        }

    def _quick(self, handle: str, op: dict[str, object]) -> bytes:
        """Sign the next entry of a chain without models."""
        chain = self._chains[handle]
        key = chain.ring.entry
        self._at_ms += 1
        body = {
            "v": 1,
            "federation": self.federation,
            "author": handle,
            "key": key.id,
            "seq": chain.seq,
            "prev": chain.prev,
            "seen": self._seen_plain,
            "at_ms": self._at_ms,
            "op": op,
        }
        raw = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        return self._took(chain, frame_leaf(raw, key.sign("entry", raw)))

    def _took(self, chain: _Chain, leaf: bytes) -> bytes:
        digest = leaf_hash(leaf)
        self.tree.append(digest)
        chain.seq, chain.prev = chain.seq + 1, digest.hex()
        return leaf

    def _see(self) -> None:
        self._seen = Seen(size=self.tree.size, root=self.tree.root().hex())
        self._seen_plain = to_builtins(self._seen)

    # --- setup ----------------------------------------------------------------------------------

    def _set_up(self) -> Iterator[bytes]:
        seats = {
            name: (
                Seat(handle=f"{name}-node", role="node"),
                Seat(handle=f"{name}-steward", role="steward"),
            )
            for name in self.names
        } | {"institute": (Seat(handle=RESEARCHER, role="researcher"),)}
        yield self._found(seats)
        for organisation, places in seats.items():
            for seat in places:
                yield self._join(organisation, seat)
        registrations: dict[str, str] = {}
        for name in self.names:
            node = f"{name}-node"
            yield self._say(node, NodeReady(type="node.ready", protocol=1)).leaf
            yield self._say(node, cell_of(name)).leaf
            entry = self._say(node, dataset_of(name))
            registrations[name] = entry.hash
            yield entry.leaf
        plan = plan_for(registrations, self.rounds)
        proposed = self._say(
            RESEARCHER,
            ExperimentProposed(
                type="experiment.proposed", name="benchmark", spec=blob_of("spec"), plan=plan
            ),
        )
        self._experiment = proposed.hash
        yield proposed.leaf
        for site in plan.sites:
            yield self._say(
                f"{site.dataset}-steward",
                ExperimentApproved(
                    type="experiment.approved",
                    experiment=self._experiment,
                    dataset=site.dataset,
                    epsilon_max_micro=10**7,
                    until_ms=LAST_MS,
                ),
            ).leaf
        for site in plan.sites:
            yield self._say(
                f"{site.dataset}-node",
                BudgetReserved(
                    type="budget.reserved",
                    experiment=self._experiment,
                    dataset=site.dataset,
                    charges=totals(site.releases),
                ),
            ).leaf

    def _found(self, seats: Mapping[str, tuple[Seat, ...]]) -> bytes:
        chain = self._chains[COORDINATOR] = _Chain(ring_of(COORDINATOR, "coordinator"))
        op = FederationFounded(
            type="federation.founded",
            name="benchmark",
            policy=Policy(
                endorsements=1,
                max_lag=2**40,
                max_delay_ms=2**40,
                max_age_ms=2**40,
                skew_ms=60_000,
            ),
            organisation="institute-hub",
            keys=member_keys(chain.ring),
            log_key=PublicKey(alg="ed25519", public=self.log_key.public.hex()),
            invitations=tuple(
                Invitation(organisation=organisation, key=one_time_key(organisation), seats=places)
                for organisation, places in seats.items()
            ),
        )
        entry = sign_entry(
            genesis_body(COORDINATOR, chain.ring.entry.id, START_MS, op), chain.ring.entry
        )
        self.federation = federation_id(entry)
        return self._took(chain, entry.leaf)

    def _join(self, organisation: str, seat: Seat) -> bytes:
        ring = ring_of(seat.handle, seat.role)
        self._chains[seat.handle] = _Chain(ring)
        keys = member_keys(ring)
        claim = claim_bytes(self.federation, seat.handle, keys)
        invitation = seed_key(f"invitation {organisation}")
        op = MemberJoined(
            type="member.joined",
            invitation=invitation.id,
            keys=keys,
            proof=invitation.sign("invitation", claim).hex(),
            card=None,
        )
        return self._say(seat.handle, op).leaf

    def _say(self, handle: str, op: Operation) -> Entry:
        chain = self._chains[handle]
        self._at_ms += 1
        self._see()
        body = Body(
            v=1,
            federation=self.federation,
            author=handle,
            key=chain.ring.entry.id,
            seq=chain.seq,
            prev=chain.prev,
            seen=self._seen,
            at_ms=self._at_ms,
            op=op,
        )
        entry = sign_entry(body, chain.ring.entry)
        self._took(chain, entry.leaf)
        return entry


def chunks(leaves: Iterator[bytes], size: int) -> Iterator[Sequence[bytes]]:
    """Cut leaves into lists of ``size``, the last one shorter."""
    chunk: list[bytes] = []
    for leaf in leaves:
        chunk.append(leaf)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
