"""Operations about the log itself: who follows it, which rules hold, that time passed, what it broke.

Evidence of a fault travels as a blob; whether it convinces is for whoever opens it.
"""

from __future__ import annotations

from typing import Literal

from ledger.entries.operations.values import BlobRef, Hash, Positive, Value


class NodeReady(Value):
    """A node follows, verifies and witnesses from here on: it counts in the quorum."""

    type: Literal["node.ready"]
    protocol: Positive


class NodeResumed(Value):
    """A node came back after a restart; the nonce makes the statement fresh."""

    type: Literal["node.resumed"]
    nonce: Hash


class ProtocolActivated(Value):
    """From the next entry on, a newer version of vocabulary and rules holds."""

    type: Literal["protocol.activated"]
    version: Positive


class TimeNoted(Value):
    """The coordinator lets time pass, so that a deadline can take effect without other entries."""

    type: Literal["time.noted"]


class ForkReported(Value):
    """Two signed checkpoints of this log that no one history explains, as blobs."""

    type: Literal["fork.reported"]
    ours: BlobRef
    theirs: BlobRef


class ReceiptBroken(Value):
    """A signed receipt that the log did not keep, with what shows it, as a blob."""

    type: Literal["receipt.broken"]
    evidence: BlobRef
