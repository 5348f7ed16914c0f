"""A copy opened from its owner's snapshot is the copy that a replay gives, or the copy is replayed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.copies import replica as replicas
from ledger.copies import snapshot as snapshots
from ledger.copies.replica import Replica
from ledger.copies.snapshot import FILE, Snapshot, SnapshotFile
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import Entry
from ledger.entries.operations.log import NodeResumed, TimeNoted
from ledger.errors import BadSignature, LedgerError
from ledger.formats.keys import SigningKey
from ledger.rules.encoding import digest
from ledger.rules.state import replace as changed
from tests.federation import COORDINATOR, HOSPITALS, Federation, node_of
from tests.ledger.copies.followed import tamper

KEY = SigningKey.from_seed(bytes(range(32)))
NOTED = TimeNoted(type="time.noted")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "WORTH", 10)


class Owner:
    """A federation's log and one copy of it with a snapshot."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'ledger.db'}"
        self.file = SnapshotFile.of(folder, KEY)
        self.federation = Federation.found(HOSPITALS)
        self.federation.play(self.federation.start())
        store = LogStore.open(self.url)
        replica = Replica.create(store, self.federation.leaves[0], self.federation.id, self.file)
        self.catch_up(replica)
        replica.accept_final(self.federation.finalize())
        self.federation.say(COORDINATOR, NOTED)
        self.catch_up(replica)
        replica.accept_final(self.federation.finalize())
        replica.save_snapshot()
        self.covered = replica.size
        store.close()

    def catch_up(self, replica: Replica) -> None:
        replica.extend(self.federation.leaves[replica.size :], self.federation.checkpoint())

    def open(self, file: SnapshotFile | None) -> Replica:
        return Replica.open(LogStore.open(self.url), self.federation.id, file)

    def go_on(self) -> list[str | None]:
        """What follows, as a copy that was opened from the snapshot judges it."""
        for node in map(node_of, HOSPITALS):
            self.federation.say(node, NodeResumed(type="node.resumed", nonce="1" * 64))
        replica = self.open(self.file)
        taken = replica.extend(self.federation.leaves[replica.size :], self.federation.checkpoint())
        replica.accept_final(self.federation.finalize())
        replica.store.close()
        return [item.outcome.void for item in taken]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    return Owner(tmp_path)


def same(first: Replica, second: Replica) -> None:
    assert first.state == second.state
    assert digest(first.state) == digest(second.state)
    assert first.final == second.final
    assert first.checkpoint == second.checkpoint
    assert first.size == second.size
    for size in range(first.size + 1):
        assert first.root(size) == second.root(size)
        assert first.consistency(size, first.size) == second.consistency(size, first.size)
    for index in range(first.size):
        assert first.inclusion(index, first.size) == second.inclusion(index, first.size)
        assert first.cosigned_s(index) == second.cosigned_s(index)


def replayed(monkeypatch: pytest.MonkeyPatch, owner: Owner, file: SnapshotFile | None) -> int:
    """How many entries opening the copy replays."""
    count = 0
    read_rows = replicas.read_rows

    def counting(rows: Iterator[Row], index: int) -> Iterator[Entry]:
        nonlocal count
        for entry in read_rows(rows, index):
            count += 1
            yield entry

    with monkeypatch.context() as patch:
        patch.setattr(replicas, "read_rows", counting)
        same(opened := owner.open(file), owner_replay := owner.open(None))
        opened.store.close()
        owner_replay.store.close()
    return count - owner_replay.size


def test_a_copy_from_a_snapshot_is_the_copy_that_a_replay_gives(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert replayed(monkeypatch, owner, owner.file) == 0
    assert owner.go_on() == [None] * len(HOSPITALS)
    assert replayed(monkeypatch, owner, owner.file) == len(HOSPITALS)
    assert replayed(monkeypatch, owner, None) == owner.covered + len(HOSPITALS)


def test_a_growing_copy_writes_a_snapshot_now_and_then(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "EVERY", 3)
    assert owner.go_on() == [None] * len(HOSPITALS)
    assert replayed(monkeypatch, owner, owner.file) == 0


def test_a_small_copy_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "WORTH", 1000)
    Owner(tmp_path)
    assert not (tmp_path / FILE).exists()


def test_only_its_owner_can_read_the_file(owner: Owner) -> None:
    assert owner.file.path.stat().st_mode & 0o777 == 0o600
    assert KEY.seed.hex() not in repr(owner.file)
    assert repr(owner.file.key) not in repr(owner.file)


def test_any_changed_byte_leaves_the_snapshot_aside(
    owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    data = owner.file.path.read_bytes()
    for at in (0, 21, 25, 40, 900, len(data) // 2, len(data) - 40, len(data) - 1):
        owner.file.path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert owner.file.read(owner.federation.id) is None
    for length in (0, 10, 54, len(data) - 1):
        owner.file.path.write_bytes(data[:length])
        assert owner.file.read(owner.federation.id) is None
    assert len(caplog.messages) == 12
    assert all("the whole log is replayed" in said for said in caplog.messages)
    assert all("not written with the key of this home" in said for said in caplog.messages)


def aside(owner: Owner, monkeypatch: pytest.MonkeyPatch, file: SnapshotFile | None = None) -> None:
    """The copy is replayed whole, and is the right one."""
    count = replayed(monkeypatch, owner, file or owner.file)
    assert count >= owner.covered


def test_who_has_other_keys_replays(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = SnapshotFile.of(owner.folder, SigningKey.from_seed(bytes(32)))
    aside(owner, monkeypatch, other)
    assert "not written with the key of this home" in caplog.text


def test_a_snapshot_of_another_release_or_federation_is_left_aside(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert owner.file.read("0" * 64) is None
    assert "it is of another federation" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "_release", lambda: "99.0")
        aside(owner, monkeypatch)
    assert "release " in caplog.messages[-1]
    assert replayed(monkeypatch, owner, owner.file) == 0


def test_a_snapshot_of_more_than_is_stored_is_left_aside(
    owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shorter = tmp_path / "shorter"
    shorter.mkdir()
    store = LogStore.open(f"sqlite:///{shorter / 'ledger.db'}")
    replica = Replica.create(store, owner.federation.leaves[0], owner.federation.id)
    genesis_only = replica.size
    store.close()
    owner.url = f"sqlite:///{shorter / 'ledger.db'}"
    opened = owner.open(owner.file)
    assert opened.size == genesis_only
    assert "fewer are signed here" in caplog.text


@pytest.mark.parametrize("what", ["root", "state", "log key"])
def test_a_false_snapshot_under_the_true_key_does_not_lead_to_what_was_signed(
    owner: Owner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    found = owner.file.read(owner.federation.id)
    assert found is not None
    false: Snapshot
    if what == "root":
        false = replace(found, root=bytes(32))
    elif what == "state":
        false = replace(found, state=changed(found.state, size=found.state.size - 1))
    else:
        key = found.state.members[COORDINATOR].keys.entry
        false = replace(found, state=changed(found.state, log_key=key))
    owner.file.write(false)
    aside(owner, monkeypatch)
    assert caplog.records[-1].levelno == logging.WARNING


def test_without_the_key_every_byte_of_the_store_is_verified_as_ever(owner: Owner) -> None:
    tamper(
        owner.folder / "ledger.db", 'update entries set signature = zeroblob(64) where "index" = 2'
    )
    with pytest.raises(BadSignature):
        owner.open(None)
    # What a snapshot covers is not verified again; docs/limits.md says so.
    opened = owner.open(owner.file)
    assert opened.size == owner.covered


def test_a_tail_that_was_changed_is_refused_from_a_snapshot_too(owner: Owner) -> None:
    owner.go_on()
    last = owner.federation.log.size - 1
    tamper(
        owner.folder / "ledger.db",
        f'update entries set signature = zeroblob(64) where "index" = {last}',
    )
    with pytest.raises(LedgerError):
        owner.open(owner.file)
