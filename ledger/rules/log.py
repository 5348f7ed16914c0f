"""A log in memory: the tree and the state, moved forward one entry at a time.

The one path by which an entry becomes part of a log, for the sequencer, a node that follows and an
auditor who replays: parse, judge the envelope, verify the signature, fold, append the leaf. It does
no I/O and reads no clock. `mark` and `rewind` undo entries that were tried and not kept, so that a
failed write leaves memory as durable storage is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ledger.entries.entry import NOTHING_SEEN, Entry, parse_leaf, verify_signature
from ledger.entries.operations.federation import FederationFounded
from ledger.entries.operations.succession import FederationSucceeded
from ledger.entries.operations.values import EMPTY_HASH
from ledger.errors import NotAdmitted
from ledger.formats.keys import key_id
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.rules.admission import admit
from ledger.rules.fold import PROTOCOLS, found, protocol_of, step
from ledger.rules.signatures import Claim
from ledger.rules.state import State
from ledger.rules.verdict import Outcome


class Sequenced(NamedTuple):
    """An entry at its index, with the fold's verdict."""

    index: int  # type: ignore[assignment]  # hides tuple's search, which nobody needs
    entry: Entry
    outcome: Outcome


Folded = tuple[Entry, Outcome, State]
"""An entry that was taken, the fold's verdict, and the state with it."""

_APPLIED = Outcome(None)


@dataclass(frozen=True, slots=True)
class Mark:
    """A point to rewind to."""

    size: int
    state: State | None


class Log:
    """Tree and state over the same entries. Not thread-safe: one owner.

    Args:
        tree: to go on with, by default an empty one.
        state: the fold of its entries, or None for an empty log.
    """

    def __init__(self, tree: MerkleTree | None = None, state: State | None = None) -> None:
        self.tree = MerkleTree() if tree is None else tree
        self._state = state

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.tree.size

    @property
    def state(self) -> State:
        """The fold of all entries.

        Raises:
            NotAdmitted: there is no entry yet.
        """
        if self._state is None:
            raise NotAdmitted("log", "it is empty: there is no federation yet")
        return self._state

    @property
    def newer_protocol(self) -> int | None:
        """The version that holds now, if this software does not know it: then nothing more is read."""
        if self._state is None or self._state.protocol in PROTOCOLS:
            return None
        return self._state.protocol

    def judge(self, leaf: bytes) -> Entry:
        """Parse a leaf and decide whether it may be the next entry; nothing changes.

        Raises:
            MalformedInput, NotAdmitted, BadSignature: why not.
        """
        return self.judge_entry(parse_leaf(leaf))

    def judge_entry(self, entry: Entry) -> Entry:
        """`judge` for an entry that is parsed already."""
        verify_signature(entry, self.admit(entry))
        return entry

    def admit(self, entry: Entry) -> bytes:
        """Judge an entry's envelope; the caller verifies its signature, perhaps beside others.

        Returns:
            The raw public key under which the signature must verify.

        Raises:
            NotAdmitted: why not.
        """
        if self._state is None:
            return _admit_genesis(entry)
        return admit(self._state, entry, self.tree.root)

    def append(self, entry: Entry) -> Sequenced:
        """Fold and append an entry that `judge` let in at this very size."""
        if self._state is None:
            self._state, outcome = found(entry), _APPLIED
        else:
            self._state, outcome = step(self._state, entry)
        return Sequenced(self.tree.append(bytes.fromhex(entry.hash)), entry, outcome)

    def extend(
        self, entries: Iterable[Entry], claims: list[Claim], folded: list[Folded] | None = None
    ) -> None:
        """`admit` and `append` for entries as they come: for many, much less work.

        Args:
            entries: in order; the next one is asked for when the one before it is taken.
            claims: gets what the signatures of those taken must show, before a refused one too.
            folded: gets them themselves. Without it nothing of an entry stays but its bytes.

        Raises:
            NotAdmitted: the first that is not taken; those before it are.
            ProtocolUnknown: this software does not know the rules by which to take it.
        """
        root_at, append, state = self.tree.root, self.tree.append, self._state
        try:
            for entry in entries:
                if state is None:
                    public = _admit_genesis(entry)
                    state, outcome = found(entry), _APPLIED
                else:
                    if state.protocol not in PROTOCOLS:
                        protocol_of(state)
                    public = admit(state, entry, root_at)
                    state, outcome = step(state, entry)
                append(bytes.fromhex(entry.hash))
                claims.append((public, entry.signature, entry.raw))
                if folded is not None:
                    folded.append((entry, outcome, state))
        finally:
            self._state = state

    def append_unread(self, leaf: bytes) -> None:
        """Append a leaf under rules that this software does not know; the state stays behind.

        Only the tree commits to it: that it is what everybody else holds, the signed root says.
        """
        self.tree.append(leaf_hash(leaf))

    def mark(self) -> Mark:
        """Where the log stands now."""
        return Mark(self.size, self._state)

    def rewind(self, mark: Mark) -> None:
        """Forget what came after a mark."""
        self.tree.truncate(mark.size)
        self._state = mark.state


def _admit_genesis(entry: Entry) -> bytes:
    body, op = entry.body, entry.body.op
    if not isinstance(op, FederationFounded | FederationSucceeded):
        raise NotAdmitted("entry 0", f"it is {op.type}; a log begins with federation.founded")
    public = bytes.fromhex(op.keys.entry.public)
    if body.key != key_id(op.keys.entry.alg, public):
        raise NotAdmitted("entry 0", "it is not signed by the coordinator's key that it names")
    if (body.federation, body.seq, body.prev) != (EMPTY_HASH, 0, EMPTY_HASH):
        raise NotAdmitted("entry 0", "federation id, number and predecessor must be zero")
    if body.seen != NOTHING_SEEN:
        raise NotAdmitted("entry 0", "it cannot have seen a log before it")
    keys = op.keys
    used = [k.public for k in (keys.entry, keys.request, keys.sealing, op.log_key)]
    if keys.witness is not None or len(set(used)) != len(used):
        raise NotAdmitted("entry 0", "a coordinator has separate keys, and no witness key")
    invitations = op.invitations if isinstance(op, FederationFounded) else ()
    if op.organisation in {invitation.organisation for invitation in invitations}:
        raise NotAdmitted(
            "entry 0",
            f"{op.organisation} runs the coordinator and is invited too; it must not count among "
            "those who watch it",
        )
    handles = [seat.handle for invitation in invitations for seat in invitation.seats]
    one_time = [invitation.key.public for invitation in invitations]
    for what, named in (("handle", [body.author, *handles]), ("key", [*used, *one_time])):
        if len(set(named)) != len(named):
            raise NotAdmitted("entry 0", f"its invitations name a {what} twice")
    return public
