"""Replies leave when a slot begins, whenever their work ended; a slot that is missed is not waited for twice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from ledger.copies.blobs import BlobStore, blob_ref
from ledger.entries.operations.values import BlobRef
from node.errors import NoLongerAsked, RoundFailed
from node.register.private import PrivateRegister
from node.training.process import trainer
from node.training.process.trainer import Done, NoopTrainer, Task, Tested, TrainingThread, next_slot

SLOT_MS = 30_000


class Clock:
    """A clock that only waiting and working move on."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.stops = False

    def __call__(self) -> int:
        return self.now_ms

    def set(self) -> None:
        self.stops = True

    def wait(self, seconds: float) -> bool:
        self.now_ms += round(1000 * seconds)
        return self.stops


class Coordinator:
    """Takes blobs, and notes when."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.came: list[int] = []

    def get_blob(self, ref: BlobRef) -> bytes:
        raise AssertionError(ref)

    def put_blob(self, data: bytes) -> BlobRef:
        self.came.append(self.clock())
        return blob_ref(data)


class Node:
    """A training thread with something in its outbox, whose clock is a `Clock`."""

    def __init__(self, directory: Path, now_ms: int, slot_ms: int) -> None:
        self.clock = Clock(now_ms)
        self.coordinator = Coordinator(self.clock)
        self.register = PrivateRegister.open(directory / "private.db")
        blobs = BlobStore(directory / "blobs")
        self.register.outbox.store("e", "basel-heart", 1, blobs.put(b"a noisy vector"))
        self.reports: list[Done | Tested] = []
        self.asked, self.paused = [True, True], False
        self.thread = TrainingThread(
            NoopTrainer(),
            self.register,
            blobs,
            self.coordinator,
            self.reports.append,
            self.clock,
            slot_ms=slot_ms,
            still_asked=lambda _experiment, _dataset: self.asked.pop(0),
            paused=lambda: self.paused,
        )
        self.thread._stopping = self.clock  # type: ignore[assignment]

    def carry(self, **more: Any) -> BlobRef | None:
        plan = type("Plan", (), {"secure_aggregation": None})
        fields: Any = {"plan": plan, "site": None, "model": None} | more
        return self.thread._do(Task("e", "basel-heart", 1, **fields))


@pytest.mark.parametrize("ended_ms", [1, 4_000, 29_999])
def test_replies_that_ended_in_one_slot_leave_at_one_time(tmp_path: Path, ended_ms: int) -> None:
    node = Node(tmp_path, 10 * SLOT_MS + ended_ms, SLOT_MS)
    assert node.carry() == blob_ref(b"a noisy vector")
    assert node.coordinator.came == [11 * SLOT_MS]


def test_a_reply_that_misses_its_slot_goes_in_the_next(tmp_path: Path) -> None:
    node = Node(tmp_path, 11 * SLOT_MS, SLOT_MS)
    node.carry()
    assert node.coordinator.came == [12 * SLOT_MS]
    node.asked = [True, True]
    node.carry()  # the same bytes again wait again
    assert node.coordinator.came == [12 * SLOT_MS, 13 * SLOT_MS]


def test_a_reply_that_is_no_longer_asked_for_when_its_slot_begins_stays(tmp_path: Path) -> None:
    node = Node(tmp_path, 1, SLOT_MS)
    node.asked = [True, False]
    with pytest.raises(NoLongerAsked, match="the approval was taken back"):
        node.carry()
    assert node.coordinator.came == []
    assert ("e", "basel-heart", 1) in node.register.view.outbox


def test_a_round_that_waited_its_turn_while_the_node_was_paused_uses_no_data(
    tmp_path: Path,
) -> None:
    """Of several datasets, the rows of the second are read after those of the first."""
    node = Node(tmp_path, 1, 0)
    node.paused = True
    node.register.outbox.drop("e", "basel-heart", 1)

    def job(model: bytes) -> Any:
        raise AssertionError("a round was begun")

    with pytest.raises(NoLongerAsked, match="the node was paused"):
        node.carry(job=job)


def test_without_slots_a_reply_leaves_at_once(tmp_path: Path) -> None:
    node = Node(tmp_path, 12_345, 0)
    node.carry()
    assert node.coordinator.came == [12_345]


def test_a_node_that_stops_keeps_the_reply_for_its_next_start(tmp_path: Path) -> None:
    node = Node(tmp_path, 1, SLOT_MS)
    node.clock.stops = True
    with pytest.raises(RoundFailed, match="before the slot in which its reply leaves"):
        node.carry()
    assert node.coordinator.came == []
    assert ("e", "basel-heart", 1) in node.register.view.outbox


def test_a_slot_begins_at_a_multiple_and_never_now() -> None:
    assert next_slot(0, 1000) == 1000
    assert next_slot(999, 1000) == 1000
    assert next_slot(1000, 1000) == 2000


def test_stopping_wakes_the_thread_that_waits(tmp_path: Path) -> None:
    node = Node(tmp_path, 1, SLOT_MS)
    event = threading.Event()
    node.thread._stopping = event
    event.set()
    with pytest.raises(RoundFailed):
        node.carry()
    assert trainer._LONGEST_PAUSE_S < 15.0  # less than what a stopping service waits for its thread
