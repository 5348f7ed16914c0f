"""What a node knows at one moment: drawn by the loop, read by the local API from any thread."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.rules.state import State


@dataclass(frozen=True, slots=True)
class Picture:
    """What the node knows at one moment, for the local API.

    Attributes:
        state: the fold of the own copy, of ``size`` entries.
        reached: whether the coordinator answered the last time.
        problem: what stands in the way of work now, or None.
        fork: what was found, or None.
        broken_promise: a signed receipt that the log did not keep, or is late to keep; or None.
        unsound: what the self-test of the training code found wrong, or None.
        newer_protocol: the protocol that the log has moved to and this software does not know.
        working_on: rounds that are being trained or sent, in words.
        waiting: what is waited for, in words.
    """

    state: State
    size: int
    final_size: int
    reached: bool
    problem: str | None
    fork: str | None
    broken_promise: str | None
    newer_protocol: int | None
    unsound: str | None
    vouched: bool
    paused: bool
    working_on: tuple[str, ...]
    waiting: tuple[str, ...]
    rounds_done: int
    train_seconds: float
