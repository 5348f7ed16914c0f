"""The sequencer: durable before answered, the same bytes once, and every write broken both ways."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import NotSequencing, Overloaded, QuotaExceeded, RolledBack
from coordinator.sequencing.inbox import Inbox
from coordinator.sequencing.quota import Quota
from coordinator.sequencing.sequencer import Sequencer
from ledger.copies.store import LogStore
from ledger.entries.operations.log import TimeNoted
from ledger.errors import (
    LedgerError,
    NotAdmitted,
    StoreUnusable,
)
from ledger.formats.checkpoint import parse_checkpoint
from ledger.formats.note import parse_note
from tests.coordinator.sequenced import reviewed, sequencing, verified
from tests.federation import COORDINATOR, Federation, node_of, steward_of
from tests.patience import PATIENCE_S


def test_an_entry_is_durable_with_its_checkpoint_when_it_is_answered(
    federation: Federation, home: Path
) -> None:
    entry = federation.entry(steward_of("basel"), reviewed(federation))
    with sequencing(federation, home) as sequencer:
        receipt = sequencer.submit(entry.leaf).result(PATIENCE_S)
        assert (receipt.index, receipt.applied, receipt.reason) == (federation.log.size, True, None)
        copy = verified(federation, home)
        assert copy.size == federation.log.size + 1 == sequencer.view.size
        assert copy.checkpoint is not None
        assert parse_checkpoint(parse_note(copy.checkpoint).text).size == copy.size


def test_the_same_bytes_get_the_same_answer_now_and_after_a_restart(
    federation: Federation, home: Path
) -> None:
    good = federation.entry(steward_of("basel"), reviewed(federation))
    void = federation.entry(steward_of("bern"), TimeNoted(type="time.noted"))
    with sequencing(federation, home) as sequencer:
        first = [sequencer.submit(e.leaf).result(PATIENCE_S) for e in (good, void)]
        again = [sequencer.submit(e.leaf).result(PATIENCE_S) for e in (good, void)]
        size = sequencer.view.size
    assert [r.reason for r in first] == [None, "not_permitted"]
    assert again == first
    with sequencing(federation, home) as sequencer:
        assert [sequencer.submit(e.leaf).result(PATIENCE_S) for e in (good, void)] == first
        assert sequencer.view.size == size


def test_the_same_bytes_twice_in_one_batch_are_one_entry(
    federation: Federation, home: Path
) -> None:
    leaf = federation.entry(steward_of("basel"), reviewed(federation)).leaf
    with sequencing(federation, home) as sequencer:
        futures = [sequencer.submit(leaf) for _ in range(20)]
        assert len({f.result(PATIENCE_S) for f in futures}) == 1
        assert sequencer.view.size == federation.log.size + 1


def test_what_does_not_fit_is_refused_and_hinders_nobody(
    federation: Federation, home: Path
) -> None:
    good = federation.entry(steward_of("basel"), reviewed(federation))
    rival = federation.entry(steward_of("basel"), reviewed(federation, 1))
    forged = bytearray(federation.entry(steward_of("bern"), reviewed(federation)).leaf)
    forged[-1] ^= 1
    with sequencing(federation, home) as sequencer:
        futures = [sequencer.submit(leaf) for leaf in (b"", bytes(forged), good.leaf, rival.leaf)]
        with pytest.raises(LedgerError, match="lengths do not match"):
            futures[0].result(PATIENCE_S)
        with pytest.raises(LedgerError, match="the signature is not one by key"):
            futures[1].result(PATIENCE_S)
        assert futures[2].result(PATIENCE_S).applied
        with pytest.raises(NotAdmitted, match="its key's chain goes on with number"):
            futures[3].result(PATIENCE_S)


def test_what_waits_becomes_durable_in_one_transaction(
    federation: Federation, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    append = LogStore.append

    def counting(self: LogStore, first: int, rows: Any, checkpoint: Any = None) -> int:
        batches.append(len(rows))
        return append(self, first, rows, checkpoint)

    monkeypatch.setattr(LogStore, "append", counting)
    leaves = []
    copy = Federation.found(("basel", "bern", "chur"))
    for number in range(40):
        entry = copy.entry(steward_of("basel"), reviewed(copy, number))
        copy.take(entry)
        leaves.append(entry.leaf)
    with sequencing(federation, home) as sequencer:
        futures = [sequencer.submit(leaf) for leaf in leaves]
        indexes = [f.result(PATIENCE_S).index for f in futures]
    assert indexes == list(range(federation.log.size, federation.log.size + 40))
    assert sum(batches) == 40
    assert len(batches) < 40


def test_whoever_goes_while_an_answer_is_on_its_way_stops_nothing(
    federation: Federation, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a server that is told to stop cancels the requests that still wait for a slow disk."""
    append, slow, fast = LogStore.append, threading.Event(), threading.Event()

    def slowly(self: LogStore, *batch: Any) -> int:
        slow.set()
        assert fast.wait(PATIENCE_S)
        return append(self, *batch)

    monkeypatch.setattr(LogStore, "append", slowly)
    entries = [
        federation.entry(steward_of(name), reviewed(federation)) for name in ("basel", "bern")
    ]

    async def go_away(sequencer: Sequencer) -> None:
        asyncio.wrap_future(sequencer.say(TimeNoted(type="time.noted"))).cancel()
        asyncio.wrap_future(sequencer.examine(sequencer.view.note)).cancel()
        await asyncio.sleep(0)

    with sequencing(federation, home) as sequencer:
        first = sequencer.submit(entries[0].leaf)
        assert slow.wait(PATIENCE_S)
        asyncio.run(go_away(sequencer))
        second = sequencer.submit(entries[1].leaf)
        fast.set()
        assert first.result(PATIENCE_S).applied
        assert second.result(PATIENCE_S).applied
        assert sequencer.submit(entries[0].leaf).result(PATIENCE_S) == first.result()
        assert sequencer.view.stopped is None
        assert sequencer.view.size == federation.log.size + 3


def test_the_coordinator_speaks_at_its_place_in_the_order(
    federation: Federation, home: Path
) -> None:
    with sequencing(federation, home) as sequencer:
        said = sequencer.say(TimeNoted(type="time.noted"), TimeNoted(type="time.noted"))
        entry = federation.entry(steward_of("basel"), reviewed(federation))
        sequencer.submit(entry.leaf).result(PATIENCE_S)
        assert [r.index for r in said.result(PATIENCE_S)] == [
            federation.log.size,
            federation.log.size + 1,
        ]
    assert verified(federation, home).size == federation.log.size + 3


class Breaking:
    """A store whose next append fails, before or after it is stored."""

    def __init__(self, append: Callable[..., int], *, stored: bool) -> None:
        self.append = append
        self.stored = stored

    def __call__(self, *arguments: Any) -> int:
        if self.stored:
            self.append(*arguments)
        raise StoreUnusable("test", "the disk is gone")


@pytest.mark.parametrize("stored", [False, True], ids=["lost", "stored but reported lost"])
def test_a_broken_write_is_answered_no_and_a_restart_goes_on_from_what_is_stored(
    federation: Federation, home: Path, stored: bool
) -> None:
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    leaf = federation.entry(steward_of("basel"), reviewed(federation)).leaf
    other = federation.entry(steward_of("bern"), reviewed(federation)).leaf
    with sequencing(federation, home, store) as sequencer:
        before = sequencer.view
        store.append = Breaking(store.append, stored=stored)  # type: ignore[method-assign, assignment]
        with pytest.raises(NotSequencing, match="the disk is gone"):
            sequencer.submit(leaf).result(PATIENCE_S)
        del store.append  # the disk is back, yet nothing may be signed for that size again
        with pytest.raises(NotSequencing, match="only a restart can tell"):
            sequencer.submit(other).result(PATIENCE_S)
        assert sequencer.view.size == before.size
        assert sequencer.view.note == before.note
        assert sequencer.view.stopped is not None
    assert verified(federation, home).size == before.size + stored
    with sequencing(federation, home) as sequencer:
        assert sequencer.submit(leaf).result(PATIENCE_S).index == before.size
        assert sequencer.submit(other).result(PATIENCE_S).index == before.size + 1
    assert verified(federation, home).size == before.size + 2


def test_a_database_from_yesterday_is_refused(federation: Federation, home: Path) -> None:
    shutil.copy(home / "ledger.db", home / "backup.db")
    with sequencing(federation, home) as sequencer:
        entry = federation.entry(steward_of("basel"), reviewed(federation))
        sequencer.submit(entry.leaf).result(PATIENCE_S)
        held = sequencer.view.size
    for file in home.glob("ledger.db*"):
        file.unlink()
    shutil.copy(home / "backup.db", home / "ledger.db")
    with (
        pytest.raises(RolledBack, match=r"it was rolled back\. Restore the newer") as caught,
        sequencing(federation, home),
    ):
        pass
    assert (caught.value.held, caught.value.signed) == (held - 1, held)


def test_a_members_checkpoint_stops_a_coordinator_that_was_rolled_back(
    federation: Federation, home: Path
) -> None:
    """Database and head file are both from yesterday; a hospital remembers today."""
    federation.say(steward_of("basel"), reviewed(federation))
    newer = federation.checkpoint()
    with sequencing(federation, home) as sequencer:
        with pytest.raises(RolledBack, match=f"over {federation.log.size} was signed"):
            sequencer.examine(newer).result(PATIENCE_S)
        entry = federation.entry(steward_of("bern"), reviewed(federation))
        with pytest.raises(NotSequencing, match="rolled back"):
            sequencer.submit(entry.leaf).result(PATIENCE_S)


def test_a_strangers_checkpoint_stops_nobody(federation: Federation, home: Path) -> None:
    stranger = Federation.found(("zug",))
    with sequencing(federation, home) as sequencer:
        with pytest.raises(LedgerError, match="signed by no key we know"):
            sequencer.examine(stranger.checkpoint()).result(PATIENCE_S)
        sequencer.examine(federation.checkpoint()).result(PATIENCE_S)
        assert sequencer.view.stopped is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE entries SET body = replace(body, 'basel', 'bazel') WHERE \"index\" = 3", "entry"),
        ('UPDATE entries SET seq = 9 WHERE "index" = 5', "entry 5: its stored index columns"),
        ("UPDATE checkpoints SET note = x'00'", "note"),
        ("DELETE FROM checkpoints", "without any checkpoint"),
    ],
)
def test_a_database_that_was_edited_is_refused(
    federation: Federation, home: Path, change: str, said: str
) -> None:
    with sqlite3.connect(home / "ledger.db") as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            database.execute(f"DROP TRIGGER {name}")
        database.execute(change)
    with pytest.raises(LedgerError, match=said), sequencing(federation, home):
        pass


def test_another_coordinators_keys_are_refused(federation: Federation, home: Path) -> None:
    stranger = Federation.found(("zug",))
    stranger.rings[COORDINATOR] = stranger.rings[node_of("zug")]
    stranger.log = federation.log
    with pytest.raises(NotAdmitted, match="no log key"), sequencing(stranger, home):
        pass


def test_a_member_that_says_too_much_waits_and_others_do_not(
    federation: Federation, home: Path
) -> None:
    with sequencing(federation, home, quota=Quota(per_s=0.001, burst=2)) as sequencer:
        for number in range(2):
            entry = federation.entry(steward_of("basel"), reviewed(federation, number))
            sequencer.submit(entry.leaf).result(PATIENCE_S)
            federation.take(entry)
        entry = federation.entry(steward_of("basel"), reviewed(federation, 9))
        with pytest.raises(QuotaExceeded, match="basel-steward sends too many") as caught:
            sequencer.submit(entry.leaf).result(PATIENCE_S)
        assert caught.value.retry_after_s > 0
        other = federation.entry(steward_of("bern"), reviewed(federation))
        assert sequencer.submit(other.leaf).result(PATIENCE_S).applied


def test_what_anybody_sends_waits_within_bounds_and_the_coordinators_own_word_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flood of forged entries, which nobody has judged yet, fills no memory."""
    monkeypatch.setattr("coordinator.sequencing.inbox.MAX_WAITING", 3)
    monkeypatch.setattr("coordinator.sequencing.inbox.MAX_WAITING_BYTES", 1000)
    inbox = Inbox()
    taken = [inbox.submit(bytes(10)) for _ in range(3)]
    with pytest.raises(Overloaded, match="nothing of this was taken, send it again"):
        inbox.submit(b"").result(0)
    with pytest.raises(Overloaded):
        inbox.call(lambda: None).result(0)
    said = inbox.say((TimeNoted(type="time.noted"),))
    work, _ = inbox.take(0)
    assert [item.future for item in work] == [*taken, said]
    inbox.submit(bytes(1000))
    with pytest.raises(Overloaded):
        inbox.submit(b"").result(0)
    inbox.take(0)
    assert not inbox.submit(b"").done()
