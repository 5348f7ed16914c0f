"""A coordinator that opens from its snapshot is the one that replays everything, or it replays."""

from __future__ import annotations

import logging
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.errors import RolledBack
from coordinator.sequencing import opening
from coordinator.sequencing.head import read_head
from coordinator.sequencing.history import History
from coordinator.sequencing.history_bytes import encode_history
from coordinator.sequencing.sequencer import Sequencer
from ledger.copies.evidence import Equivocations
from ledger.copies.leaves import leaf_at
from ledger.copies.snapshot import Snapshot, SnapshotFile
from ledger.copies.store import LogStore
from ledger.entries.operations.audits import LedgerReviewed
from ledger.entries.operations.log import NodeResumed, TimeNoted
from ledger.errors import BadSignature, LedgerError
from ledger.formats.keys import SigningKey
from ledger.formats.merkle_tree import MerkleTree
from ledger.rules.encoding import digest
from ledger.rules.log import Log
from ledger.rules.state import replace as changed
from tests.federation import COORDINATOR, Federation, node_of, steward_of
from tests.patience import PATIENCE_S

NOTED = TimeNoted(type="time.noted")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "WORTH", 1)


class Hub:
    """A coordinator's home over a log in which something happened."""

    def __init__(self, home: Path) -> None:
        self.home = home
        federation = Federation.found(("basel", "bern", "chur"))
        federation.say(steward_of("basel"), NOTED, void="not_permitted")
        federation.play(federation.start())
        rival = federation.entry(node_of("bern"), NodeResumed(type="node.resumed", nonce="1" * 64))
        federation.say(node_of("bern"), NOTED, void="not_permitted")
        federation.say(COORDINATOR, NOTED)
        self.federation = federation
        store = federation.persist(home)
        # Kept by a process that died before it could say so.
        assert Equivocations(store).notice(
            rival, federation.state.keys, lambda key, seq: leaf_at(store, key, seq)
        )
        store.close()
        self.file = SnapshotFile.of(home, federation.rings[COORDINATOR].entry)
        self.file.path.unlink(missing_ok=True)

    @contextmanager
    def opened(self, file: SnapshotFile | None) -> Iterator[Sequencer]:
        """Open and start nothing."""
        store = LogStore.open(f"sqlite:///{self.home / 'ledger.db'}")
        try:
            sequencer = Sequencer(
                store,
                self.federation.rings[COORDINATOR],
                self.federation.id,
                head=self.home / "head.note",
                snapshots=file,
                now_ms=lambda: self.federation.now_ms,
            )
            try:
                yield sequencer
            finally:
                sequencer.close()
        finally:
            store.close()

    def snapshot(self, size: int) -> Snapshot:
        """What a coordinator would have kept of the first entries."""
        log, history = Log(MerkleTree()), History()
        for leaf in self.federation.leaves[:size]:
            history.observe(log.append(log.judge(leaf)))
        tiles = MerkleTree.from_leaves(
            bytes.fromhex(entry.hash) for entry in self.federation.entries()[:size]
        ).tiles
        return Snapshot(log.state, log.tree.root(), tiles, beside=encode_history(history.facts))


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


def looked_at(sequencer: Sequencer, hub: Hub) -> dict[str, object]:
    """Everything that somebody can get from a coordinator about its log."""
    size = sequencer.view.size
    state = sequencer.view.state
    return {
        "state": state,
        "digest": digest(state),
        "facts": sequencer.history.facts,
        "note": sequencer.checkpoint(),
        "final": (sequencer.view.final_size, sequencer.view.final_note),
        "head": read_head(hub.home / "head.note"),
        "roots": [sequencer.root(at) for at in range(size + 1)],
        "proofs": [sequencer.inclusion(at, size) for at in range(size)],
        "consistency": [sequencer.consistency(at, size) for at in range(1, size + 1)],
    }


def answers(sequencer: Sequencer, hub: Hub) -> list[object]:
    """Receipts for all entries that there are, sent again, and what is said about the conflict."""
    sequencer.start()
    futures = [sequencer.submit(leaf) for leaf in hub.federation.leaves]
    receipts = [future.result(PATIENCE_S) for future in futures]
    key = hub.federation.rings[node_of("bern")].entry.id
    retired = sequencer.view.state.keys[key].retired_at
    return [[(r.index, r.applied, r.reason) for r in receipts], retired]


def test_from_a_snapshot_at_any_index_it_is_the_coordinator_that_a_replay_gives(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    with hub.opened(None) as sequencer:
        whole = looked_at(sequencer, hub)
    size = len(hub.federation.leaves)
    for covered in range(1, size + 1):
        hub.file.write(hub.snapshot(covered))
        with hub.opened(hub.file) as sequencer:
            assert looked_at(sequencer, hub) == whole, covered
        kept = hub.file.read(hub.federation.id)
        assert kept is not None
        assert kept.state.size == size
    assert not caplog.messages


def test_it_answers_alike_and_says_the_evidence_that_was_kept(tmp_path: Path) -> None:
    said = []
    for name in ("replayed", "resumed"):
        hub = Hub(tmp_path / name)
        if name == "resumed":
            hub.file.write(hub.snapshot(len(hub.federation.leaves) - 3))
        with hub.opened(hub.file) as sequencer:
            said.append(answers(sequencer, hub))
    assert said[0] == said[1]
    receipts, retired = said[0]
    assert [r[2] for r in receipts].count("not_permitted") == 2  # type: ignore[attr-defined]
    assert retired is not None


def test_a_start_replays_only_what_came_after_the_last_stop(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed: list[int] = []
    replay = opening.replay

    def counting(log: Log, *rest: object) -> Iterator[object]:
        for item in replay(log, *rest):  # type: ignore[arg-type]
            replayed.append(item[0].index)
            yield item

    monkeypatch.setattr(opening, "replay", counting)
    with hub.opened(hub.file) as sequencer:
        sequencer.start()
        entry = hub.federation.entry(
            steward_of("chur"),
            LedgerReviewed(type="ledger.reviewed", size=1, root="0" * 64, finding="in_order"),
        )
        sequencer.submit(entry.leaf).result(PATIENCE_S)
        size = sequencer.view.size
    assert len(replayed) == len(hub.federation.leaves)
    replayed.clear()
    with hub.opened(hub.file) as sequencer:
        assert sequencer.view.size == size
    assert not replayed


def test_a_growing_log_is_kept_now_and_then(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "EVERY", 2)
    with hub.opened(hub.file) as sequencer:
        first = hub.file.path.read_bytes()
        sequencer.start()
        for number in range(2):
            sequencer.say(NOTED).result(PATIENCE_S)
            hub.federation.now_ms += number
        sequencer.submit(b"").exception(PATIENCE_S)  # its turn comes after theirs has ended
        assert hub.file.path.read_bytes() != first


def test_what_is_no_snapshot_of_this_log_is_left_aside(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    true = hub.snapshot(len(hub.federation.leaves))
    stranger = replace(hub.file, key=SnapshotFile.of(hub.home, SigningKey.from_seed(bytes(32))).key)
    with hub.opened(None) as sequencer:
        whole = looked_at(sequencer, hub)
    cases = {
        "its root": replace(true, root=bytes(32)),
        "has": replace(true, beside=true.beside[:-1]),
        "_Document": replace(true, beside=b"\x00\x00\x00\x02{}"),
        "log key": replace(
            true, state=changed(true.state, log_key=true.state.members[COORDINATOR].keys.entry)
        ),
    }
    for said, false in cases.items():
        hub.file.write(false)
        with hub.opened(hub.file) as sequencer:
            assert looked_at(sequencer, hub) == whole
        assert said in caplog.messages[-1]
        assert "the whole log is replayed" in caplog.messages[-1]
    stranger.write(true)
    with hub.opened(hub.file) as sequencer:
        assert looked_at(sequencer, hub) == whole
    assert "it was not written with the key of this home" in caplog.messages[-1]
    foreign = replace(true, state=changed(true.state, federation="0" * 64))
    hub.file.write(foreign)
    with hub.opened(hub.file) as sequencer:
        assert looked_at(sequencer, hub) == whole
    assert "it is of another federation" in caplog.messages[-1]
    assert len(caplog.messages) == len(cases) + 2
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_any_changed_byte_of_it_leaves_it_aside(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.file.write(hub.snapshot(len(hub.federation.leaves)))
    data = hub.file.path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 40)):
        hub.file.path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert hub.file.read(hub.federation.id) is None
        assert "it was not written with the key of this home" in caplog.messages[-1]


def test_a_database_with_less_than_the_snapshot_covers_was_rolled_back(hub: Hub) -> None:
    hub.file.write(hub.snapshot(len(hub.federation.leaves)))
    older = hub.home / "older"
    store = LogStore.open(f"sqlite:///{hub.home / 'ledger.db'}")
    first = next(iter(sorted(hub.federation.notes)))
    rows = list(store.rows(0, first))
    store.close()
    older.mkdir()
    shorter = LogStore.open(f"sqlite:///{older / 'ledger.db'}")
    shorter.append(0, rows, (first, hub.federation.notes[first]))
    shorter.close()
    (older / "ledger.db").replace(hub.home / "ledger.db")
    for leftover in hub.home.glob("ledger.db-*"):
        leftover.unlink()
    (hub.home / "head.note").unlink(missing_ok=True)  # not even the head file remembers
    with (
        pytest.raises(RolledBack, match=f"the database holds {first} entries"),
        hub.opened(hub.file),
    ):
        pass
    hub.file.path.unlink()
    with hub.opened(hub.file) as sequencer:  # nothing else shows it: docs/limits.md
        assert sequencer.view.size == first


def test_the_head_file_stops_a_database_that_the_snapshot_fits(hub: Hub) -> None:
    with hub.opened(hub.file) as sequencer:
        sequencer.start()
        before = (hub.home / "ledger.db").read_bytes()
        snapshot = hub.file.path
        sequencer.say(NOTED).result(PATIENCE_S)
        size = sequencer.view.size
    snapshot.unlink()
    hub.file.write(hub.snapshot(len(hub.federation.leaves)))
    for leftover in hub.home.glob("ledger.db*"):
        leftover.unlink()
    (hub.home / "ledger.db").write_bytes(before)
    with (
        pytest.raises(RolledBack, match=f"a checkpoint over {size} was signed"),
        hub.opened(hub.file),
    ):
        pass


def test_what_came_after_it_is_verified_and_what_came_before_only_without_it(hub: Hub) -> None:
    hub.file.write(hub.snapshot(10))

    def forge(index: int) -> None:
        with sqlite3.connect(hub.home / "ledger.db") as database:
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                database.execute(f"DROP TRIGGER {name}")
            database.execute(
                'UPDATE entries SET signature = zeroblob(64) WHERE "index" = ?', (index,)
            )

    forge(5)
    with hub.opened(hub.file) as sequencer:
        assert sequencer.view.size == len(hub.federation.leaves)
    with pytest.raises(BadSignature), hub.opened(None):
        pass
    hub.file.write(hub.snapshot(10))
    forge(12)
    with pytest.raises(LedgerError), hub.opened(hub.file):
        pass


WRITER = """
import sys
from pathlib import Path
from coordinator.sequencing import opening
opening.WORTH = 1
from tests.coordinator.test_opening import Hub, SnapshotFile
from tests.federation import ring_of
home = Path(sys.argv[1])
file = SnapshotFile.of(home, ring_of("hub", "coordinator").entry)
one, two = (file.read(sys.argv[2]) for _ in range(2))
print("writing", flush=True)
while True:
    file.write(one)
    file.write(two)
"""


def test_a_kill_while_it_is_written_leaves_a_whole_one(hub: Hub) -> None:
    with hub.opened(hub.file) as sequencer:
        whole = looked_at(sequencer, hub)
    chance = random.Random(7)
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(hub.home), hub.federation.id],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        time.sleep(chance.random() * 0.02)
        writer.send_signal(signal.SIGKILL)
        writer.wait(PATIENCE_S)
        writer.stdout.close()
        assert hub.file.read(hub.federation.id) is not None
    with hub.opened(hub.file) as sequencer:
        assert looked_at(sequencer, hub) == whole
