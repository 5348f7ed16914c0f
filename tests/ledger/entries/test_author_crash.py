"""A pen that dies at every point between signing and acknowledgement: no gap, no double.

Each effect of `Author` on the world (a file opened, written, flushed, replaced, an entry sent, an answer
received) is a point at which the process may die, before the effect or after it. `deaths` finds the
points by counting, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.author import Author
from ledger.entries.entry import Entry, parse_leaf
from ledger.entries.operations.log import NodeResumed
from tests.federation import Federation, node_of, ring_of
from tests.ledger.entries.test_author import Receipt
from tests.ledger.facts import h

NODE = node_of("basel")
T = TypeVar("T")


class Died(BaseException):
    """The process is gone."""


class Fate:
    """Counts effects, and lets the process die at one of them.

    Args:
        at: the point, two for each effect: before it is 2n, after it 2n + 1.
    """

    def __init__(self, at: int | None) -> None:
        self.at, self.points = at, 0
        self.log: list[str] = []

    def meet(self, name: str, effect: Callable[[], T]) -> T:
        """Have an effect, unless the process dies before."""
        self._point(f"before {name}")
        value = effect()
        self._point(f"after {name}")
        return value

    def _point(self, name: str) -> None:
        self.log.append(name)
        self.points += 1
        if self.at == self.points - 1:
            raise Died(name)


class Desk:
    """A node's disk and the coordinator's log, which outlive every process."""

    def __init__(self, directory: Path) -> None:
        self.federation = Federation.found(("basel",))
        self.directory = directory
        self.sent: list[bytes] = []
        self.pen = directory / "last-entry.leaf"
        self.ready = [e.leaf for e in self.federation.entries() if e.body.author == NODE][-1]
        self.pen.write_bytes(self.ready)  # it said that it is ready from this home
        store = LogStore.open(self._url)
        replica = Replica.create(store, self.federation.leaves[0], self.federation.id)
        replica.extend(self.federation.leaves[1:], self.federation.checkpoint())
        store.close()

    @property
    def _url(self) -> str:
        return f"sqlite:///{self.directory / 'ledger.db'}"

    def process(self, work: Callable[[Author, Replica], None], fate: Fate) -> None:
        """A process opens the disk and works until it is done or dies."""
        store = LogStore.open(self._url)
        author: Author | None = None
        try:
            replica = Replica.open(store, self.federation.id)
            with effects(fate):
                author = Author(
                    ring_of(NODE, "node"),
                    replica,
                    lambda leaf: fate.meet("sending", lambda: self.take(leaf)),
                    self.pen,
                    lambda: self.federation.now_ms,
                )
                work(author, replica)
        except Died:
            pass
        finally:
            if author is not None:
                author.close()
            store.close()

    def take(self, leaf: bytes) -> Receipt:
        """What a coordinator does: the same bytes again get the same answer."""
        self.sent.append(leaf)
        if leaf not in self.federation.leaves:
            self.federation.take(parse_leaf(leaf))
        return Receipt(self.federation.leaves.index(leaf), applied=True)

    def follow(self, replica: Replica) -> None:
        replica.extend(self.federation.leaves[replica.size :], self.federation.checkpoint())

    def signed(self) -> Entry | None:
        """What lies in the pen's file: signed for good, and owed to the log."""
        leaf = self.pen.read_bytes()
        return None if leaf == self.ready else parse_leaf(leaf)

    def said(self) -> list[Entry]:
        return [e for e in self.federation.entries() if isinstance(e.body.op, NodeResumed)]


class effects:  # noqa: N801 - used as a context manager
    """Let fate see what is done to files and to the disk."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        fate, patch = self._fate, self._patch
        fsync, replace, opened = os.fsync, Path.replace, Path.open

        def open_(path: Path, mode: str = "r", *more: Any) -> Any:
            if "w" not in mode:
                return opened(path, mode, *more)
            return fate.meet("opening", lambda: _Torn(opened(path, mode, *more), fate))

        patch.setattr(os, "fsync", lambda handle: fate.meet("flushing", lambda: fsync(handle)))
        patch.setattr(Path, "open", open_)
        patch.setattr(
            Path, "replace", lambda path, to: fate.meet("replacing", lambda: replace(path, to))
        )

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


class _Torn:
    """A file of which a write may reach the disk in part."""

    def __init__(self, file: Any, fate: Fate) -> None:
        self._file, self._fate = file, fate

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        half = random.Random(len(data)).randrange(len(data))
        self._fate.meet("half of writing", lambda: self._file.write(data[:half]))
        self._fate.meet("writing", lambda: self._file.write(data[half:]))

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        number: int = self._file.fileno()
        return number


def resumed(word: object) -> NodeResumed:
    return NodeResumed(type="node.resumed", nonce=h(word))


def deaths(tmp_path: Path, work: Callable[[Author, Replica], None]) -> Iterator[tuple[Desk, str]]:
    """A desk for every point at which this work can die, after that death."""
    whole = Fate(None)
    (tmp_path / "whole").mkdir()
    Desk(tmp_path / "whole").process(work, whole)
    for at, name in enumerate(whole.log):
        directory = tmp_path / f"point-{at}"
        directory.mkdir()
        desk = Desk(directory)
        fate = Fate(at)
        desk.process(work, fate)
        assert fate.points == at + 1, "it lived longer than it should"
        yield desk, name


def test_there_are_points_in_every_part_of_saying_something(tmp_path: Path) -> None:
    found = {
        name for _, name in deaths(tmp_path, lambda author, _: _say(author, "first", "second"))
    }
    effects_of_one = {"opening", "half of writing", "writing", "flushing", "replacing", "sending"}
    assert found == {f"{when} {what}" for when in ("before", "after") for what in effects_of_one}


@pytest.mark.parametrize("again", ["first", "other"])
@pytest.mark.parametrize("follows", [False, True])
def test_a_death_at_any_point_leaves_neither_a_gap_nor_a_double(
    tmp_path: Path, again: str, follows: bool
) -> None:
    for desk, name in deaths(tmp_path, lambda author, _: _say(author, "first")):

        def next_process(author: Author, replica: Replica, desk: Desk = desk) -> None:
            if follows:
                desk.follow(replica)
                author.resend()
                desk.follow(replica)
            known = {e.body.op for e in desk.said()} if follows else set()
            for word in (again, "last"):
                if resumed(word) not in known:
                    author.submit(resumed(word))

        owed = again == "first" or desk.signed() is not None
        desk.process(next_process, Fate(None))
        said = desk.said()
        words = [e.body.op for e in said]
        wanted = [resumed("first")] if owed else []
        wanted += [resumed("other")] if again == "other" else []
        assert words == [*wanted, resumed("last")], name
        assert [e.body.seq for e in said] == list(
            range(said[0].body.seq, said[0].body.seq + len(said))
        )
        for entry in said:
            same = {leaf for leaf in desk.sent if parse_leaf(leaf).body.seq == entry.body.seq}
            assert same == {entry.leaf}, f"{name}: other bytes were sent for one place"


def test_two_deaths_in_a_row_are_no_worse_than_one(tmp_path: Path) -> None:
    for desk, name in deaths(tmp_path, lambda author, _: _say(author, "first")):
        whole = Fate(None)
        for at in range(0, 12, 3):
            second = Fate(at)
            desk.process(lambda author, _: _say(author, "first"), second)
            whole = second
        assert whole.points, name

        def settle(author: Author, replica: Replica, desk: Desk = desk) -> None:
            author.resend()
            desk.follow(replica)
            if not desk.said():
                author.submit(resumed("first"))

        desk.process(settle, Fate(None))
        assert [e.body.op for e in desk.said()] == [resumed("first")], name
        assert len(set(desk.sent)) == 1


def _say(author: Author, *words: str) -> None:
    for word in words:
        author.submit(resumed(word))
