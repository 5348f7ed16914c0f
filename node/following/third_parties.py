"""The node as a witness for third parties: add-checkpoint requests over the hospital's own service.

The same key, memory and promise as towards the coordinator (``witness.py``): only a tree that this
node's verified copy holds is cosigned, only forward, and no log that is ahead of this node's clock. A
checkpoint beyond the copy gets 503 until the node has followed; one that contradicts the copy proves a
fork, which is kept and ends the node's work.

Call `ThirdParties` in the thread that owns the copy.
"""

from __future__ import annotations

from collections.abc import Callable

from ledger.copies.replica import Replica
from ledger.copies.standing_witness import StandingWitness
from ledger.errors import ForkDetected, Refused
from ledger.formats.checkpoint import Checkpoint
from ledger.formats.keys import SigningKey
from ledger.formats.witness import Answer, parse_add_checkpoint, witness_name


class ThirdParties:
    """See the module's first lines.

    Args:
        key: the witness key.
        handle: this node's.
        replica: the verified copy.
        now_ms: this node's clock.
        heard: told of a fork, once it is kept.
    """

    def __init__(
        self,
        key: SigningKey,
        handle: str,
        replica: Replica,
        now_ms: Callable[[], int],
        heard: Callable[[ForkDetected], None],
    ) -> None:
        self._replica = replica
        self._now_ms = now_ms
        self._heard = heard
        self._standing = StandingWitness(
            replica.store,
            {replica.origin: (replica.log_key,)},
            key,
            witness_name(replica.origin, handle),
            now_s=lambda: now_ms() // 1000,
            may_cosign=self._may_cosign,
        )

    def add_checkpoint(self, body: bytes, *, stopped: str | None) -> Answer:
        """Answer a request; what it changes is durable on return.

        Args:
            body: as it came.
            stopped: why this node cosigns nothing any more, or None.

        Raises:
            StoreError: the copy cannot be read or written.
        """
        if stopped is not None:
            return Answer(503, f"this witness has stopped: {stopped}\n".encode())
        answer = self._standing.add_checkpoint(body, self._heard)
        if answer.status != 400:
            self._look(body)
        return answer

    def newest(self, path: str) -> bytes | None:
        """See `StandingWitness.newest`; from any thread."""
        return self._standing.newest(path)

    def _look(self, body: bytes) -> None:
        """Hold a checkpoint that came against the copy: it may be of another history."""
        try:
            self._replica.extend((), parse_add_checkpoint(body).note)
        except ForkDetected as fork:
            self._heard(fork)
        except Refused:
            return  # not this log's, or beyond the copy: nothing is shown by that

    def _may_cosign(self, checkpoint: Checkpoint, note: bytes) -> str | None:
        replica = self._replica
        if checkpoint.extensions:
            return "this log writes no extension lines"
        if checkpoint.size > replica.size:
            return f"this witness holds {replica.size} entries so far"
        if replica.root(checkpoint.size) != checkpoint.root:
            return "this witness holds another history"
        if replica.state.log_time > self._now_ms() + replica.state.policy.skew_ms:
            return "the log's time is ahead of this witness's clock"
        return None
