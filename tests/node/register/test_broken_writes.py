"""Every kind of write of a node broken both ways: its copy, its register, its pen, its receipts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.author import Author
from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.log import NodeResumed
from ledger.entries.operations.values import BlobRef
from ledger.errors import LedgerError, StoreUnusable
from ledger.exchange import receipts
from ledger.formats.documents import encode_document
from ledger.rules.experiments import site_of, totals
from node.register.accounts import DatasetRecord, PrivateView
from node.register.private import PrivateRegister
from tests.adversary.hospital import Hospital
from tests.adversary.world import World
from tests.broken_writes import GONE, Writes, writers

BOTH_WAYS = pytest.mark.parametrize("stored", [False, True], ids=["lost", "reported lost"])
LOST_EXPERIMENT = "e" * 64
REGISTER = sorted(writers(PrivateRegister))


class RegisterStory:
    """A register from its first dataset to a settlement; every step may be done again."""

    def __init__(self, world: World, path: Path) -> None:
        self.path = path
        self.state = world.federation.state
        self.experiment = next(iter(self.state.experiments))
        self.dataset = "basel-heart"
        self.schema = encode_document(world.federation.schema(self.dataset))
        self.federation = world.federation.id
        site = site_of(self.state.experiments[self.experiment].plan, self.dataset)
        assert site is not None
        self.charges = totals(site.releases)
        self.register = PrivateRegister.open(path)
        self.root = ""

    def tell(self, *, restart: bool) -> None:
        """All of it; after a failure the step is done again, by the next process or by this one."""
        for step in self._steps():
            for _ in range(3):
                try:
                    step(self.register)
                except (StoreUnusable, OSError) as error:
                    if GONE not in str(error):
                        raise
                    if restart:
                        self.register.close()
                        self.register = PrivateRegister.open(self.path)
                else:
                    break
            else:
                raise AssertionError("it never got through")

    def _steps(self) -> list[Callable[[PrivateRegister], object]]:
        key = self.experiment, self.dataset
        dataset = self.state.datasets[self.dataset]
        refunds = [CellCharge(cell=c.cell, g=1, r=1) for c in self.charges]
        ref = BlobRef(sha256="b" * 64, bytes=8)
        cells = [self.state.cells[use.cell].terms for use in dataset.terms.cells]

        def root(register: PrivateRegister) -> None:
            self.root = register.intents_root(*key)

        return [
            lambda r: r.datasets.note(self._record("0" * 64)),
            lambda r: r.datasets.forget("0" * 64),
            lambda r: r.datasets.note(self._record(dataset.terms.snapshot)),
            lambda r: r.datasets.finish(dataset.terms.snapshot, dataset.registration),
            lambda r: r.datasets.move(r.view.datasets[self.dataset], "/elsewhere/table.csv"),
            *[lambda r, terms=terms: r.add_cell(terms, None) for terms in cells],  # type: ignore[misc]
            lambda r: r.reserve(self.federation, *key, self.charges),
            lambda r: r.adopt(self.federation, LOST_EXPERIMENT, self.dataset, self.charges),
            lambda r: r.record_intent(*key, "train", round_number=1, steps=1, at_ms=1),
            lambda r: r.outbox.keep_masks(*key, "context", b"sealed"),
            lambda r: r.outbox.store(*key, 1, ref) if (*key, 1) not in r.view.outbox else None,
            lambda r: r.outbox.note_masked(*key, 1, "context"),
            lambda r: r.record_intent(*key, "train", round_number=2, steps=1, at_ms=2),
            lambda r: r.outbox.store(*key, 2, ref) if (*key, 2) not in r.view.outbox else None,
            lambda r: r.outbox.drop(*key, 2),
            root,
            lambda r: r.close_intents(*key),
            lambda r: r.settle(*key, refunds),
            lambda r: r.datasets.forget_salt(dataset.registration),
            lambda r: r.note_restart(3),
        ]

    def _record(self, snapshot: str) -> DatasetRecord:
        return DatasetRecord(
            name=self.dataset,
            path="/nowhere/table.csv",
            sha256="0" * 64,
            schema_document=self.schema,
            rows=100,
            train_units=80,
            test_units=20,
            snapshot=snapshot,
            salt=bytes(32),
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    built = World(tmp_path / "world")
    built.experiment(["basel", "bern"])
    return built


def told(world: World, path: Path, *, restart: bool) -> tuple[PrivateView, str]:
    """The view at the end, as memory and the next process have it, and the intents' root."""
    story = RegisterStory(world, path)
    story.tell(restart=restart)
    view = story.register.view
    root = story.register.intents_root(story.experiment, story.dataset)
    story.register.close()
    again = PrivateRegister.open(path)
    assert again.view == view
    assert again.intents_root(story.experiment, story.dataset) == root == story.root
    again.close()
    return view, root


@BOTH_WAYS
@pytest.mark.parametrize("restart", [True, False], ids=["next process", "same process"])
def test_a_broken_write_of_the_register_changes_nothing_in_the_end(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool, restart: bool
) -> None:
    with monkeypatch.context() as patch:
        honest = Writes(patch, {})
        view, _ = told(world, tmp_path / "honest.db", restart=restart)
    assert set(REGISTER) == {kind for kind in honest.seen if kind.startswith("PrivateRegister.")}
    for kind in REGISTER:
        for number in range(1, honest.seen[kind] + 1):
            with monkeypatch.context() as patch:
                writes = Writes(patch, {}, kind=kind, number=number, stored=stored)
                broken, _ = told(world, tmp_path / f"{kind}-{number}.db", restart=restart)
            assert writes.broke, (kind, number)
            assert broken == view, (kind, number)
    world.close()


FILES: dict[str, tuple[type | ModuleType, str]] = {
    "Author._write": (Author, "_write"),
    "receipts.replace_file": (receipts, "replace_file"),
}
COPY = (
    "LogStore.append",
    "LogStore.put_final",
    "LogStore.set_witnessed",
    "LogStore.put_conflict",
    *FILES,
)


class CopyStory:
    """A node says something, follows, cosigns, and meets two entries at one place: twice."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.basel = world.hospital("basel")
        self.said: list[int] = []

    def tell(self, *, restart: bool) -> None:
        """All of it; after a failure the step is done again, by the next process or by this one."""
        for turn in (1, 2):
            nonce = f"{turn}" * 64
            op = NodeResumed(type="node.resumed", nonce=nonce)
            self._until(lambda b, op=op: self.said.append(b.say(op).index), restart)  # type: ignore[misc]
            self._until(Hospital.follow, restart)
            self._until(Hospital.cosign, restart)
            others = [h for h in self.world.hospitals.values() if h is not self.basel]
            for hospital in others:
                hospital.follow()
                hospital.cosign()
            self._until(Hospital.follow, restart)
            self._until(lambda b, turn=turn: self._meet_rival(b, turn), restart)  # type: ignore[misc]

    def _until(self, step: Callable[[Hospital], object], restart: bool) -> None:
        for _ in range(3):
            try:
                step(self.basel)
            except (LedgerError, OSError) as error:
                if GONE not in str(error):
                    raise
                if restart:
                    self.basel.close()
                    self.basel.open()
            else:
                return
        raise AssertionError("it never got through")

    def _meet_rival(self, basel: Hospital, turn: int) -> None:
        kind = f"met in turn {turn}"
        basel.store.put_conflict(kind, kind.encode())


@BOTH_WAYS
@pytest.mark.parametrize(
    ("number", "restart"), [(1, True), (2, False)], ids=["next process", "same process"]
)
@pytest.mark.parametrize("kind", COPY)
def test_a_broken_write_of_the_copy_or_the_pen_loses_and_doubles_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    number: int,
    stored: bool,
    restart: bool,
) -> None:
    assert writers(LogStore) <= set(COPY)
    world = World(tmp_path)
    story = CopyStory(world)
    with monkeypatch.context() as patch:
        name = story.basel.store.name
        writes = Writes(patch, FILES, kind=kind, number=number, stored=stored, database=name)
        story.tell(restart=restart)
    assert writes.broke
    world.settle()
    basel, log = story.basel, world.federation
    nonces = [op.nonce for e in log.entries() if isinstance(op := e.body.op, NodeResumed)]
    assert nonces == ["1" * 64, "2" * 64]
    assert story.said == sorted(set(story.said))
    assert [c.kind for c in basel.store.conflicts()] == ["met in turn 1", "met in turn 2"]
    assert basel.receipts.waiting == ()
    assert world.audit(basel.directory).exit_code == 0
    basel.close()
    copy = Replica.open(LogStore.open(f"sqlite:///{basel.directory / 'ledger.db'}"), log.id)
    witnessed = copy.store.witnessed(copy.origin)
    assert witnessed is not None
    assert (copy.size, witnessed.size) == (log.log.size, log.log.size)
    assert witnessed.root == copy.root()
    assert copy.final.size == log.log.size
    basel.open()
    world.close()
