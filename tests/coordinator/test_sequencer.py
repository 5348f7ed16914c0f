"""The sequencer: durable before answered, the same bytes once, and every write broken both ways."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import NotSequencing, Overloaded, QuotaExceeded, RolledBack
from coordinator.sequencing.head import read_head
from coordinator.sequencing.inbox import Inbox
from coordinator.sequencing.quota import Quota
from coordinator.sequencing.sequencer import Sequencer
from ledger.copies.evidence import frame, judge_equivocation, split
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.operations.audits import LedgerReviewed
from ledger.entries.operations.log import NodeReady, TimeNoted
from ledger.errors import (
    BadSignature,
    LedgerError,
    NotAdmitted,
    NotConsistent,
    StoreUnusable,
    UnknownKey,
)
from ledger.formats.checkpoint import Checkpoint, cosign, parse_checkpoint, sign_checkpoint
from ledger.formats.note import parse_note
from ledger.formats.witness import witness_name
from tests.federation import COORDINATOR, Federation, node_of, steward_of
from tests.patience import PATIENCE_S


@pytest.fixture
def federation() -> Federation:
    return Federation.found(("basel", "bern", "chur"))


@pytest.fixture
def home(federation: Federation, tmp_path: Path) -> Path:
    federation.persist(tmp_path).close()
    return tmp_path


@contextmanager
def sequencing(
    federation: Federation, home: Path, store: LogStore | None = None, **options: Any
) -> Iterator[Sequencer]:
    opened = store or LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    try:
        sequencer = Sequencer(
            opened,
            federation.rings[COORDINATOR],
            federation.id,
            head=home / "head.note",
            now_ms=lambda: federation.now_ms,
            **{"final_interval_s": 0.0, **options},
        )
        sequencer.start()
        try:
            yield sequencer
        finally:
            sequencer.close()
    finally:
        opened.close()


def reviewed(federation: Federation, number: int = 0) -> LedgerReviewed:
    return LedgerReviewed(type="ledger.reviewed", size=number, root="0" * 64, finding="in_order")


def verified(federation: Federation, home: Path) -> Replica:
    """Open the store as an auditor would: from its first byte."""
    return Replica.open(LogStore.open(f"sqlite:///{home / 'ledger.db'}"), federation.id)


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


def test_a_second_entry_at_a_place_of_a_chain_is_kept_as_evidence_once_a_key(
    federation: Federation, home: Path
) -> None:
    good = federation.entry(steward_of("basel"), reviewed(federation))
    rivals = [federation.entry(steward_of("basel"), reviewed(federation, n)) for n in (1, 2, 3)]
    forged = bytearray(rivals[0].leaf)
    forged[-1] ^= 1

    def refused(sequencer: Sequencer, *leaves: bytes) -> None:
        for future in [sequencer.submit(leaf) for leaf in leaves]:
            with pytest.raises(NotAdmitted, match=r"chain goes on|was retired at entry"):
                future.result(PATIENCE_S)

    with sequencing(federation, home) as sequencer:
        taken = sequencer.submit(good.leaf)
        refused(sequencer, bytes(forged), rivals[0].leaf, rivals[1].leaf)
        taken_at = taken.result(PATIENCE_S)
        assert taken_at.applied
        key = sequencer.view.state.keys[good.body.key]
        assert key.conflicted_at == taken_at.index + 1  # the coordinator said so at once
        size = sequencer.view.size
    with sequencing(federation, home) as sequencer:
        refused(sequencer, rivals[2].leaf)
        assert sequencer.view.size == size
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    (kept,) = store.conflicts()
    state = federation.state
    store.close()
    assert split(kept.evidence) == (good.leaf, rivals[0].leaf)
    found = judge_equivocation(kept.evidence, federation.id, state.keys)
    assert (found.member, found.seq) == (steward_of("basel"), good.body.seq)
    with pytest.raises(NotConsistent):
        judge_equivocation(kept.evidence, "0" * 64, state.keys)


def test_evidence_that_was_kept_before_a_crash_is_said_at_the_next_start(
    federation: Federation, home: Path
) -> None:
    rivals = [federation.entry(steward_of("basel"), reviewed(federation, n)) for n in (1, 2)]
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    store.put_conflict("equivocation", frame(rivals[0].leaf, rivals[1].leaf))
    with sequencing(federation, home, store) as sequencer:
        sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        key = sequencer.view.state.keys[rivals[0].body.key]
        assert key.conflicted_at == federation.log.size
    assert verified(federation, home).size == federation.log.size + 2


def test_kept_evidence_that_does_not_hold_is_said_by_nobody(
    federation: Federation, home: Path
) -> None:
    rivals = [federation.entry(steward_of("basel"), reviewed(federation, n)) for n in (1, 2)]
    forged = bytearray(rivals[1].leaf)
    forged[-1] ^= 1
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    store.put_conflict("equivocation", frame(rivals[0].leaf, bytes(forged)))
    with sequencing(federation, home, store) as sequencer:
        sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        assert sequencer.view.size == federation.log.size + 1


def test_a_conflict_of_the_coordinators_own_key_silences_it_and_nobody_else(
    federation: Federation, home: Path
) -> None:
    hub = [
        federation.entry(COORDINATOR, TimeNoted(type="time.noted"), at_ms=federation.now_ms + n)
        for n in (1, 2)
    ]
    with sequencing(federation, home) as sequencer:
        assert sequencer.submit(hub[0].leaf).result(PATIENCE_S).applied
        with pytest.raises(NotAdmitted, match="chain goes on"):
            sequencer.submit(hub[1].leaf).result(PATIENCE_S)
        with pytest.raises(NotAdmitted, match="entry key is not active"):
            sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        entry = federation.entry(steward_of("basel"), reviewed(federation))
        assert sequencer.submit(entry.leaf).result(PATIENCE_S).applied
        assert sequencer.view.state.keys[hub[0].body.key].conflicted_at is not None
    with sequencing(federation, home) as sequencer:
        assert sequencer.view.stopped is None


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


# --- finality -----------------------------------------------------------------------------------


def line(federation: Federation, handle: str, note: bytes) -> bytes:
    witness = federation.rings[handle].witness
    name = witness_name(federation.origin, handle)
    return cosign(note, witness, name, federation.now_ms // 1000)


def test_without_witnesses_a_checkpoint_is_final_when_signed(tmp_path: Path) -> None:
    federation = Federation.found(("basel",), ready=False)
    federation.persist(tmp_path).close()
    with sequencing(federation, tmp_path) as sequencer:
        assert sequencer.view.final_size == federation.log.size
        entry = federation.entry(steward_of("basel"), reviewed(federation))
        sequencer.submit(entry.leaf).result(PATIENCE_S)
        sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == federation.log.size + 2
    assert verified(federation, tmp_path).final.size == federation.log.size + 2


def test_a_checkpoint_is_final_with_its_quorum_and_not_one_before(
    federation: Federation, tmp_path: Path
) -> None:
    federation.finalize()
    federation.finals = [federation.log.size - 3, federation.log.size]
    federation.notes[federation.log.size - 3] = _signed_at(federation, federation.log.size - 3)
    federation.say(steward_of("basel"), reviewed(federation))
    federation.persist(tmp_path).close()
    with sequencing(federation, tmp_path) as sequencer:
        before, note = sequencer.view.final_size, sequencer.view.note
        size = sequencer.view.size
        for handle in ("basel-node", "basel-node", "bern-node"):
            sequencer.cosign(size, line(federation, handle, note)).result(PATIENCE_S)
            assert sequencer.view.final_size == before
        assert b"bern-node" in sequencer.checkpoint()
        sequencer.cosign(size, line(federation, "chur-node", note)).result(PATIENCE_S)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == size
        assert sequencer.view.final_note == sequencer.checkpoint()
    assert verified(federation, tmp_path).final.size == size


def _signed_at(federation: Federation, size: int) -> bytes:
    """The note over an earlier size: with no witness ready yet, the log's word was final."""
    key = federation.rings[COORDINATOR].log
    assert key is not None
    return sign_checkpoint(key, Checkpoint(federation.origin, size, federation.log.tree.root(size)))


def test_a_strangers_cosignature_is_refused_and_an_unknown_size_too(
    federation: Federation, home: Path
) -> None:
    with sequencing(federation, home) as sequencer:
        federation.tick_ms = 0
        sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        note, size = sequencer.view.note, sequencer.view.size
        with pytest.raises(UnknownKey, match="by no node of this federation"):
            sequencer.cosign(size, line(federation, steward_of("basel"), note)).result(PATIENCE_S)
        with pytest.raises(NotConsistent, match="signed none of that size"):
            sequencer.cosign(size + 1, line(federation, "bern-node", note)).result(PATIENCE_S)
        bad = line(federation, "bern-node", _signed_at(federation, size - 1))
        with pytest.raises(BadSignature, match="bern-node"):
            sequencer.cosign(size, bad).result(PATIENCE_S)


def test_a_checkpoint_nobody_waits_for_is_not_final_at_once_and_one_somebody_needs_is(
    tmp_path: Path,
) -> None:
    federation = Federation.found(("basel",), ready=False)
    federation.persist(tmp_path).close()
    with sequencing(federation, tmp_path, final_interval_s=3600.0) as sequencer:
        opened = sequencer.view.final_size
        entry = federation.entry(steward_of("basel"), reviewed(federation))
        sequencer.submit(entry.leaf).result(PATIENCE_S)
        federation.take(entry)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == opened
        ready = federation.entry(node_of("basel"), NodeReady(type="node.ready", protocol=1))
        sequencer.submit(ready.leaf).result(PATIENCE_S)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == opened  # basel counts in it, and has not cosigned it
        note, size = sequencer.view.note, sequencer.view.size
        sequencer.cosign(size, line(federation, node_of("basel"), note)).result(PATIENCE_S)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == opened + 2


def _settle(sequencer: Sequencer, federation: Federation) -> None:
    """Wait until the sequencer's thread has come round once more."""
    for _ in range(2):
        sequencer.examine(federation.checkpoint()).result(PATIENCE_S)


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_head_file_that_a_power_loss_cut_off_keeps_nobody_from_starting(
    federation: Federation, home: Path, keep: int
) -> None:
    with sequencing(federation, home) as sequencer:
        note = sequencer.view.note
    head = home / "head.note"
    assert read_head(head) == note
    head.write_bytes(head.read_bytes()[:keep])
    with sequencing(federation, home) as sequencer:
        assert sequencer.view.note == note
    assert read_head(head) == note
