"""Cosignatures on their way to a final checkpoint.

Hospitals cosign the checkpoints that they follow. Here their lines are verified, merged into the
notes that they cover and counted by organisation; with its quorums (``ledger.rules.finality``, among the
witnesses of the final checkpoint before and among its own) a note becomes final and is stored with its
cosignatures.

Not every checkpoint becomes final: each costs a durable write here and at every follower. One that
covers an entry somebody waits for (``URGENT``) is final as soon as it can be, others at most once an
interval. Owned by the sequencer's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from ledger.copies.store import LogStore
from ledger.errors import NotConsistent, UnknownKey
from ledger.formats.checkpoint import merge_cosignatures
from ledger.formats.note import COSIGNATURE_V1, VerifierKey, parse_signature_lines
from ledger.formats.witness import quorum_size, witness_name
from ledger.rules.finality import earlier_witness_keys, judge_final, witness_keys
from ledger.rules.log import Log, Sequenced
from ledger.rules.state import State

MAX_OPEN = 64
"""Checkpoints that are collected for; older ones give way to newer."""
URGENT = frozenset(
    {
        "node.ready",
        "node.resumed",
        "experiment.approved",
        "budget.reserved",
        "experiment.completed",
    }
)
"""What somebody waits to see under a final checkpoint."""


@dataclass(frozen=True, slots=True)
class FinalNote:
    """The newest final checkpoint; ``note`` is None for genesis, which is final by definition."""

    size: int
    note: bytes | None


class Cosignatures:
    """Collects; says what became final. See the module's first lines."""

    def __init__(self, store: LogStore, log: VerifierKey, interval_s: float) -> None:
        self._store = store
        self._origin = log.name
        self._log = log
        self._interval_s = interval_s
        self._notes: dict[int, bytes] = {}
        self._signers: dict[int, frozenset[bytes]] = {}
        self._eligible: set[int] = set()
        """Sizes of those that somebody cosigned, or where there is nobody to cosign."""
        self._urgent: deque[int] = deque()
        self._finalized_at_s = float("-inf")
        newest = store.latest_final()
        self.final = FinalNote(1, None) if newest is None else FinalNote(newest.size, newest.note)

    def observe(self, item: Sequenced) -> None:
        """Learn which entries somebody waits for."""
        if item.entry.body.op.type in URGENT and item.index >= self.final.size:
            self._urgent.append(item.index)

    def urge(self, size: int) -> None:
        """Let the next final checkpoint over so many entries wait for nothing.

        After an opening: whether somebody waits for one of them was not looked up.
        """
        if size > self.final.size:
            self._urgent.append(size - 1)

    def open(self, state: State, size: int, note: bytes) -> None:
        """Begin to collect for a checkpoint that was just signed and stored."""
        self._keep(size, note, frozenset())
        if not state.witnesses_at(size):
            self._eligible.add(size)

    def note(self, size: int) -> bytes | None:
        """A checkpoint with the cosignatures collected for it, or None when it is not collected."""
        return self._notes.get(size)

    def add(self, state: State, size: int, lines: bytes) -> None:
        """Take cosignature lines for the checkpoint over ``size`` entries.

        Kept are those that count there: a note holds so many lines, and a node that changes its keys again
        and again, or is not ready, takes nobody's place in it.

        Raises:
            NotConsistent: there is no checkpoint of that size.
            UnknownKey: no line is by a node of this federation.
            BadSignature, MalformedInput: a node's line does not verify, or is none.
        """
        witnesses = {
            witness_name(self._origin, member.handle): bytes.fromhex(member.keys.witness.public)
            for member in state.members.values()
            if member.keys.witness is not None and member.revoked_at is None
        }
        keys = [VerifierKey(name, key, COSIGNATURE_V1) for name, key in witnesses.items()]
        signing = [key for line in parse_signature_lines(lines) for key in keys if line.is_by(key)]
        if not signing:
            raise UnknownKey("cosignature", "it is by no node of this federation")
        counting = frozenset().union(*witness_keys(state, size).values())
        signing = [key for key in signing if key.public in counting]
        if size <= self.final.size or not signing:
            return
        note = self._notes.get(size)
        if note is None and size <= state.size:  # no database is asked for whatever number comes
            note = self._store.checkpoint_at(size)
        if note is None:
            raise NotConsistent(f"checkpoint {size}", "this log signed none of that size")
        merged = merge_cosignatures(note, lines, signing)
        signers = self._signers.get(size, frozenset()) | {key.public for key in signing}
        self._keep(size, merged, signers)

    def finalize(self, state: State, now_s: float) -> bool:
        """Make the newest checkpoint with its quorums final, if it is time to.

        Args:
            state: of the whole log; it knows who counted as a witness at every size.
            now_s: a steady clock.

        Returns:
            Whether there is a new final checkpoint, durable.

        Raises:
            StoreError: it could not be stored.
        """
        size = self._candidate(state)
        if size is None or self._wait_s(size, now_s) > 0:
            return False
        note = self._notes[size]
        judge_final(note, self._log, state, before=self.final.size, origin=self._origin).require()
        self._store.put_final(size, note)
        self.final = FinalNote(size, note)
        self._finalized_at_s = now_s
        for known in [s for s in self._notes if s < size]:
            self._forget(known)
        while self._urgent and self._urgent[0] < size:
            self._urgent.popleft()
        return True

    def wait_s(self, state: State, now_s: float) -> float | None:
        """Seconds until a checkpoint that has its quorum becomes final; None when none has."""
        size = self._candidate(state)
        return None if size is None else self._wait_s(size, now_s)

    def _candidate(self, state: State) -> int | None:
        """The newest checkpoint beyond the final one that enough organisations cosigned."""
        for size in sorted(self._eligible, reverse=True):
            if size <= self.final.size and self.final.note is not None:
                return None
            earlier = earlier_witness_keys(state, self.final.size, size)
            if all(self._enough(size, keys) for keys in (earlier, witness_keys(state, size))):
                return size
        return None

    def _enough(self, size: int, witnesses: Mapping[str, frozenset[bytes]]) -> bool:
        """Whether a checkpoint has the quorum of these witnesses."""
        signers = self._signers[size]
        needed = quorum_size(len(witnesses))
        if len(signers) < needed:
            return False
        return sum(not signers.isdisjoint(keys) for keys in witnesses.values()) >= needed

    def _wait_s(self, size: int, now_s: float) -> float:
        if self._urgent and self._urgent[0] < size:
            return 0.0
        return max(0.0, self._finalized_at_s + self._interval_s - now_s)

    def _keep(self, size: int, note: bytes, signers: frozenset[bytes]) -> None:
        self._notes[size] = note
        self._signers[size] = signers
        if signers:
            self._eligible.add(size)
        while len(self._notes) > MAX_OPEN:
            self._forget(min(self._notes))

    def _forget(self, size: int) -> None:
        del self._notes[size]
        del self._signers[size]
        self._eligible.discard(size)


def collect(
    store: LogStore, log_key: VerifierKey, interval_s: float, log: Log, note: bytes
) -> Cosignatures:
    """Begin to collect, at the start or anew: what is not final is cosigned again.

    Args:
        store: the log's.
        log_key: its key, whose name is the origin.
        interval_s: see `Cosignatures`.
        log: what is durable.
        note: the checkpoint over it.
    """
    collecting = Cosignatures(store, log_key, interval_s)
    collecting.urge(log.size)
    collecting.open(log.state, log.size, note)
    return collecting
