"""Every kind of write of a coordinator broken both ways; then all is handed in again and verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from coordinator.errors import CoordinatorError, RolledBack
from coordinator.sequencing.head import HeadFile
from coordinator.sequencing.sequencer import Sequencer
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import parse_leaf
from ledger.entries.operations.audits import LedgerReviewed
from ledger.errors import LedgerError, NotAdmitted
from ledger.exchange.messages import Receipt
from ledger.formats.checkpoint import cosign
from ledger.formats.receipt import open_receipt
from ledger.formats.value import replace
from ledger.formats.witness import witness_name
from tests.broken_writes import Writes, writers
from tests.federation import COORDINATOR, Federation, node_of, steward_of
from tests.patience import PATIENCE_S

pytest_plugins = ("tests.postgres",)

HOSPITALS = ("basel", "bern", "chur")
FILES: dict[str, tuple[type | ModuleType, str]] = {"HeadFile.write": (HeadFile, "write")}
KINDS = ("LogStore.append", "LogStore.put_final", "LogStore.put_conflict", "HeadFile.write")
BREAKS = [(kind, number) for kind in KINDS for number in (1, 2)]
BREAKS.remove(("LogStore.put_conflict", 2))  # evidence is kept once a key
BY_NODES = {"LogStore.set_witnessed"}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    made: str = request.getfixturevalue("postgres_url")
    return made


class Story:
    """Members speak, two entries claim one place, hospitals cosign: twice round, through restarts."""

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.url = home, url
        self.federation = Federation.found(HOSPITALS)
        self.federation.finalize()
        self.answers: dict[bytes, Receipt] = {}
        self.rivals: list[bytes] = []
        self.restarts = 0
        federation = self.federation
        rows = [
            Row(e.raw, e.signature, bytes.fromhex(e.hash), e.body.key, e.body.seq)
            for e in federation.entries()
        ]
        store = LogStore.open(url)
        store.append(0, rows, (len(rows), federation.checkpoint()))
        store.put_final(len(rows), federation.notes[len(rows)])
        store.close()
        self.leaves = [self._said(steward_of(name), n) for n in (0, 1) for name in HOSPITALS]

    def tell(self) -> None:
        """All of it, each step until it is answered, as members and nodes do."""
        self._open()
        for at, leaf in enumerate(self.leaves):
            self._until(lambda leaf=leaf: self._submit(leaf))  # type: ignore[misc]
            if at in (2, 5):
                self._until(self._cosign)
                self._until(self._final)
        for leaf in self.rivals:
            self._until(lambda leaf=leaf: self._equivocate(leaf))  # type: ignore[misc]
        self._close()

    def verify(self) -> Replica:
        """As an auditor does: from the first byte; and what was acknowledged is where it was said."""
        store = LogStore.open(self.url)
        copy = Replica.open(store, self.federation.id)
        for leaf, answer in self.answers.items():
            entry = parse_leaf(leaf)
            assert store.row(answer.index).leaf.hex() == entry.hash
            index, promise = open_receipt(answer.receipt, bytes.fromhex(entry.hash), copy.log_key)
            assert index == answer.index < copy.size
            assert promise.origin == copy.origin
        assert len({answer.index for answer in self.answers.values()}) == len(self.leaves)
        return copy

    def _said(self, handle: str, number: int) -> bytes:
        op = LedgerReviewed(type="ledger.reviewed", size=number, root="0" * 64, finding="in_order")
        entry = self.federation.entry(handle, op)
        if number == 0 and handle == steward_of("basel"):
            other = replace(op, size=99)
            self.rivals.append(self.federation.entry(handle, other).leaf)
        self.federation.take(entry)
        return entry.leaf

    def _open(self) -> None:
        self.store = LogStore.open(self.url)
        try:
            self.sequencer = Sequencer(
                self.store,
                self.federation.rings[COORDINATOR],
                self.federation.id,
                head=self.home / "head.note",
                now_ms=lambda: self.federation.now_ms,
                final_interval_s=0.0,
            )
        except (
            OSError
        ):  # the head file, at the start: the process does not come up, and is started again
            self.store.close()
            self.restarts += 1
            self._open()
            return
        self.sequencer.start()

    def _close(self) -> None:
        self.sequencer.close()
        self.store.close()

    def _until(self, step: Callable[[], None]) -> None:
        """Do a step; after a failure the coordinator is started anew, and it is done again."""
        for _ in range(4):
            try:
                step()
            except (LedgerError, CoordinatorError) as error:
                if isinstance(error, RolledBack):
                    raise
                self.restarts += 1
                self._close()
                self._open()
            else:
                return
        raise AssertionError("it never got through")

    def _submit(self, leaf: bytes) -> None:
        answer = self.sequencer.submit(leaf).result(PATIENCE_S)
        assert answer.applied
        assert self.sequencer.submit(leaf).result(PATIENCE_S) == answer
        self.answers[leaf] = answer

    def _equivocate(self, leaf: bytes) -> None:
        try:
            self.sequencer.submit(leaf).result(PATIENCE_S)
        except NotAdmitted:
            kept = [conflict.kind for conflict in self.store.conflicts()]
            if kept != ["equivocation"]:
                raise

    def _cosign(self) -> None:
        view = self.sequencer.view
        for name in HOSPITALS:
            ring = self.federation.rings[node_of(name)]
            witness = witness_name(self.federation.origin, node_of(name))
            line = cosign(view.note, ring.witness, witness, self.federation.now_ms // 1000)
            self.sequencer.cosign(view.size, line).result(PATIENCE_S)

    def _final(self) -> None:
        for _ in range(3):
            self.sequencer.examine(self.sequencer.view.note).result(PATIENCE_S)
        stopped = self.sequencer.view.stopped
        if stopped is not None:
            raise CoordinatorError(stopped)
        if self.sequencer.view.final_size < self.sequencer.view.size:
            self._cosign()
            raise CoordinatorError("not final yet")


def told(home: Path, url: str, writes: Writes) -> Story:
    story = Story(home, url)
    writes.seen.clear()
    story.tell()
    return story


def test_the_story_writes_everything_that_a_coordinators_store_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = Writes(monkeypatch, FILES)
    story = told(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}", writes)
    assert set(writes.seen) - {"_migrate"} == set(KINDS)
    assert writers(LogStore) - BY_NODES == set(KINDS) - set(FILES)
    assert story.restarts == 0
    assert story.verify().final.size > 1


@pytest.mark.parametrize("stored", [False, True], ids=["lost", "stored but reported lost"])
@pytest.mark.parametrize(("kind", "number"), BREAKS)
def test_a_broken_write_loses_nothing_that_was_acknowledged_and_doubles_nothing(
    tmp_path: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    number: int,
    stored: bool,
) -> None:
    story = Story(tmp_path, url)
    writes = Writes(monkeypatch, FILES, kind=kind, number=number, stored=stored)
    story.tell()
    assert writes.broke
    monkeypatch.undo()
    copy = story.verify()
    leaves = list(copy.store.leaves())
    assert len(set(leaves)) == len(leaves) == copy.size
    assert copy.final.size > 1
