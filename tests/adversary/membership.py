"""A federation whose members change at random: rotations, revocations, new keys, expulsions, new hospitals.

`Members.act` does one thing that the rules allow to whoever is there, or that they make void; which, a
draw of numbers says, so that a run repeats. ``acting`` names the organisations whose people act at all:
on one of two branches of a forked log that is one side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from ledger.entries.entry import parse_leaf
from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import (
    Change,
    ChangeEndorsed,
    ChangeProposed,
    ExpelChange,
    Invitation,
    InviteChange,
    RekeyChange,
    Seat,
)
from ledger.entries.operations.log import NodeReady, TimeNoted
from ledger.entries.operations.members import KeyRevoked
from ledger.entries.operations.vocabulary import Operation
from ledger.formats.keys import KeyRing, SigningKey
from ledger.formats.value import replace
from ledger.rules.state import Member
from tests.federation import (
    COORDINATOR,
    HOSPITALS,
    POLICY,
    Federation,
    node_of,
    ring_of,
)
from tests.federation_log import ed25519
from tests.ledger.rules.test_fold_members import rotation

MOVES = 7


@dataclass
class Members:
    """See the module's first lines.

    Attributes:
        federation: the log.
        acting: organisations whose people act.
        held: every key ring that a node ever had, by handle.
        changed: how often k organisations changed somebody's place.
    """

    federation: Federation
    acting: frozenset[str]
    held: dict[str, list[KeyRing]] = field(default_factory=dict)
    changed: int = 0
    _made: int = 0

    @classmethod
    def found(cls, k: int, hospitals: Sequence[str] = HOSPITALS) -> Members:
        """A federation in which everybody acts, and k organisations change it."""
        policy = replace(POLICY, endorsements=k)
        members = cls(Federation.found(hospitals, policy=policy), frozenset(hospitals))
        for hospital in hospitals:
            members._note(node_of(hospital))
        return members

    def branch(self, acting: Collection[str], word: str) -> Members:
        """The same log again, in which only these organisations act from here on."""
        copy = Federation(now_ms=self.federation.now_ms, rings=dict(self.federation.rings))
        for leaf in self.federation.leaves:
            copy.take(parse_leaf(leaf))
        copy.notes, copy.finals = dict(self.federation.notes), list(self.federation.finals)
        held = {handle: list(rings) for handle, rings in self.held.items()}
        return Members(copy, frozenset(acting), held, 0, self._made + 1000 * len(word))

    def act(self, move: int, who: int, whom: int) -> None:
        """One move by one organisation, perhaps against another."""
        acting = sorted(self._organisations() & self.acting)
        if not acting:
            self._time()
            return
        one = acting[who % len(acting)]
        everybody = sorted(self._organisations())
        other = everybody[whom % len(everybody)]
        moves: tuple[Callable[[str, str], None], ...] = (
            self._rotate,
            self._revoke,
            self._rekey,
            self._expel,
            self._invite,
            self._ready,
            lambda *_: self._time(),
        )
        moves[move % MOVES](one, other)

    def nodes(self) -> list[Member]:
        """Nodes that are not revoked, of organisations that act."""
        members = sorted(self.federation.state.members.items())
        return [
            m
            for _, m in members
            if m.role == "node" and m.revoked_at is None and m.organisation in self.acting
        ]

    # --- moves ----------------------------------------------------------------------------------

    def _rotate(self, one: str, other: str) -> None:
        """Sometimes to a witness key that another hospital's node has given up."""
        node = self._node(one)
        if node is None:
            return
        ring = self._ring(node.handle)
        spare = [r for h, rings in self.held.items() for r in rings[:-1] if h != node.handle]
        if spare and other != one:
            ring = with_witness(ring, spare[-1].witness)
        if self._say(node.handle, rotation(self.federation, ring)):
            self._enrol(ring)

    def _revoke(self, one: str, other: str) -> None:
        node = self._node(one)
        if node is not None:
            op = KeyRevoked(type="key.revoked", member=node.handle, compromised_since_ms=None)
            self._say(self._steward(one), op)

    def _rekey(self, one: str, other: str) -> None:
        nodes = [
            m for m in self.federation.state.members.values()
            if m.role == "node" and m.organisation == other
        ]  # fmt: skip
        ring = self._ring(nodes[-1].handle)
        change = RekeyChange(member=ring.handle, keys=member_keys(ring))
        if self._by_k(one, change):
            self._enrol(ring)
            if other in self.acting:
                self._say(ring.handle, NodeReady(type="node.ready", protocol=1))

    def _expel(self, one: str, other: str) -> None:
        if one != other:
            self._by_k(one, ExpelChange(organisation=other))

    def _invite(self, one: str, other: str) -> None:
        """A new hospital, or one that was put out before."""
        gone = sorted(self._known() - self._organisations())
        self._made += 1
        name = gone[0] if gone else f"new{self._made}"
        handle = f"{name}-node-{self._made}"
        key = SigningKey.from_seed(self._made.to_bytes(32, "big"))
        people = (Seat(handle=handle, role="node"), Seat(handle=f"{handle}-s", role="steward"))
        invitation = Invitation(organisation=name, key=ed25519(key), seats=people)
        if not self._by_k(one, InviteChange(invitation=invitation)):
            return
        self.acting |= {name}
        for seat in people:
            self.federation.take(self.federation.joining_by(key, seat.handle, seat.role))
            self.federation.rings[seat.handle] = ring_of(seat.handle, seat.role)
        self._note(handle)
        self._say(handle, NodeReady(type="node.ready", protocol=1))

    def _ready(self, one: str, other: str) -> None:
        node = self._node(one)
        if node is not None:
            self._say(node.handle, NodeReady(type="node.ready", protocol=1))

    def _time(self) -> None:
        self._say(COORDINATOR, TimeNoted(type="time.noted"))

    # --- inside ---------------------------------------------------------------------------------

    def _organisations(self) -> frozenset[str]:
        return self.federation.state.organisations_with_steward()

    def _known(self) -> frozenset[str]:
        members = self.federation.state.members.values()
        return frozenset(m.organisation for m in members if m.role == "node")

    def _node(self, organisation: str) -> Member | None:
        return next((m for m in self.nodes() if m.organisation == organisation), None)

    def _steward(self, organisation: str) -> str:
        return next(
            m.handle
            for _, m in sorted(self.federation.state.members.items())
            if (m.role, m.organisation, m.revoked_at) == ("steward", organisation, None)
        )

    def _by_k(self, one: str, change: Change) -> bool:
        """Whether a change took effect that one proposes and as many as act endorse."""
        said = self._say(self._steward(one), ChangeProposed(type="change.proposed", change=change))
        if said is None:
            return False
        pending = self.federation.state.changes
        for organisation in sorted(self._organisations() & self.acting):
            if pending[said].effective_at is None:
                op = ChangeEndorsed(type="change.endorsed", change=said)
                self._say(self._steward(organisation), op)
                pending = self.federation.state.changes
        done = pending[said].effective_at is not None
        self.changed += done
        return done

    def _say(self, handle: str, op: Operation) -> str | None:
        """The entry's hash where it took effect; None where it is void or its key is gone."""
        state = self.federation.state
        if state.keys[self.federation.rings[handle].entry.id].retired_at is not None:
            return None
        said = self.federation.take(self.federation.entry(handle, op))
        return said.entry.hash if said.outcome.void is None else None

    def _ring(self, handle: str) -> KeyRing:
        self._made += 1
        other = ring_of(f"{handle} {self._made}", "node")
        return KeyRing(handle, "node", other.entry, other.witness, other.request, other.sealing)

    def _enrol(self, ring: KeyRing) -> None:
        self.federation.rings[ring.handle] = ring
        self._note(ring.handle)

    def _note(self, handle: str) -> None:
        self.held.setdefault(handle, []).append(self.federation.rings[handle])


def with_witness(ring: KeyRing, witness: SigningKey) -> KeyRing:
    """The same keys, but for the one that cosigns."""
    return KeyRing(ring.handle, ring.role, ring.entry, witness, ring.request, ring.sealing)
