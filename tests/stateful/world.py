"""Three nodes and a coordinator, to whom anything may happen in any order.

`World` has a method for each thing that may happen. After every one the cheap invariants are checked,
and `verify` checks the dear ones:

- no acknowledged entry is lost, none is there twice, each is at the index that was acknowledged;
- every key's chain is without a gap, and what a node set out to say is in the log once, in order;
- every copy is a prefix of the log, and folds to the same state digest as everybody else's;
- no size was signed with two roots, unless the coordinator forked;
- a fork is found by whoever sees both sides, with evidence that convinces a stranger, and a rollback by
  the coordinator itself or by the first member that knows more; trust moves nowhere.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from coordinator.errors import NotSequencing, RolledBack
from ledger.copies.evidence import FORK, ROLLBACK, judge_fork, read_fork, split
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.entry import parse_leaf
from ledger.entries.operations.log import NodeResumed, TimeNoted
from ledger.errors import (
    CoordinatorUnreachable,
    ForkDetected,
    NotAdmitted,
    NotConsistent,
    StoreUnusable,
    UnknownKey,
)
from ledger.rules.encoding import digest
from tests.federation_log import FederationLog, node_of
from tests.journeys.kill_storm import faults_of
from tests.patience import PATIENCE_S
from tests.stateful.actors import HEAD, Died, Hub, Loss, Node, Told
from tests.stateful.disks import LEDGER, Break, as_crash_left_it

HOSPITALS = ("basel", "bern", "chur")


class World:
    """See the module's first lines.

    Args:
        root: an empty directory.
        chance: decides what a step leaves open.

    Attributes:
        happened: how often each thing did.
    """

    def __init__(self, root: Path, chance: random.Random) -> None:
        self._root, self._chance = root, chance
        self._numbers = itertools.count(1)
        self.federation = FederationLog.found(HOSPITALS)
        first = self._new("hub")
        self.federation.persist(first).close()
        self.told = Told()
        self.hub = Hub(self.federation, first, lambda: self.federation.now_ms, self.told)
        self.nodes = {
            name: Node(node_of(name), self._new(name), self.hub, self.told) for name in HOSPITALS
        }
        self.happened: Counter[str] = Counter()
        self._backup: tuple[Path, int] | None = None
        self._final = 1

    def close(self) -> None:
        """Close everything, and remove what lies on the disk."""
        for node in self.nodes.values():
            node.close()
        self.hub.close()
        shutil.rmtree(self._root, ignore_errors=True)

    # --- what may happen ------------------------------------------------------------------------

    def say(self, name: str, loss: Loss | None = None) -> None:
        """A node says its next thing; the call may be lost, or the node die in it."""
        self._do(name, lambda node: node.say_next(loss))

    def rotate(self, name: str, loss: Loss | None = None) -> None:
        """A node replaces its keys."""
        self._do(name, lambda node: node.rotate(loss))

    def follow(self, name: str, upto: int | None = None) -> None:
        """A node follows, to the newest checkpoint or to one on the way."""
        self._do(name, lambda node: node.follow(upto))

    def cosign(self, name: str, loss: Loss | None = None) -> None:
        """A node cosigns what it holds."""
        self._do(name, lambda node: node.cosign(loss))

    def coordinator_says(self) -> None:
        """The coordinator notes the time."""
        self.hub.say(TimeNoted(type="time.noted"))

    def break_node(self, name: str, kind: str, how: Break) -> None:
        """A node's next write of a kind breaks while it follows and cosigns; then it dies."""
        node = self.nodes[name]
        node.store.plan(kind, how)

        def work(node: Node) -> None:
            node.follow()
            node.cosign()

        self._do(name, work)
        node.store.plan(kind, None)

    def break_coordinator(self, name: str, kind: str, how: Break) -> None:
        """The coordinator's next write of a kind breaks under a node's call; then it dies."""
        self.hub.store.plan(kind, how)
        node = self.nodes[name]
        with suppress(NotSequencing, NotAdmitted):
            node.say_next()
        if kind == "put_final":
            for other in self.nodes.values():
                with suppress(NotSequencing, UnknownKey):
                    other.follow()
                    other.cosign()
        # What comes after the write of a final is done after the answer: wait for it.
        self._settle_thread()
        if self.hub.store.broke:
            assert self.hub.sequencer.view.stopped is not None, "a broken write did not stop it"
            self.happened[f"broken {kind} {how}"] += 1
            self.crash_coordinator()
        self.hub.store.plan(kind, None)

    def crash_node(self, name: str) -> None:
        """A node dies, and comes back."""
        self.nodes[name].crash(self._new(name), self._chance)

    def crash_coordinator(self, *, power: bool = False) -> None:
        """The coordinator dies, of a power cut or by itself, and comes back."""
        self.hub.crash(self._new("hub"), self._chance, power=power)

    def restart(self) -> None:
        """Everybody stops in order and starts again."""
        for node in self.nodes.values():
            node.close()
            node.open()
        self.hub.close()
        self.hub.open()

    def back_up(self) -> None:
        """Somebody takes a backup of the coordinator's home."""
        path = self._new("backup")
        as_crash_left_it(self.hub.directory, path, self._chance)
        self._backup = (path, self.hub.sequencer.view.size)

    def roll_back(self, keep_head: bool) -> bool:
        """The database of a backup is put in place; whoever knows better says so; it is mended.

        Args:
            keep_head: whether the file beside the database stays what it was.

        Returns:
            Whether there was a backup that anybody can tell from the truth.
        """
        if self._backup is None:
            return False
        backup, size = self._backup
        ahead = [n for n in self.nodes.values() if n.replica.size > size]
        if not ahead or self.hub.sequencer.view.size <= size:
            return False
        true = self.hub.directory
        self.hub.close()
        place = self._new("hub")
        shutil.copytree(backup, place)
        (place / HEAD).unlink()
        if keep_head:
            shutil.copy(true / HEAD, place / HEAD)
        self.hub.directory = place
        if keep_head:
            try:
                self.hub.open()
            except RolledBack:
                self.happened["rollback found at the start"] += 1
            else:
                raise AssertionError("a coordinator opened a database that was rolled back")
        else:
            self.hub.open()
            self._expose_rollback(self._chance.choice(ahead))
            self.hub.close()
        self.hub.directory = true
        self.hub.open()
        return True

    def fork(self) -> None:
        """The coordinator keeps a second store and shows it to some; the others hear of it.

        The world is over after this: those who saw the other side trust neither.
        """
        victims = self._chance.sample(sorted(self.nodes), self._chance.choice((1, 2)))
        for node in self.nodes.values():
            node.follow()
        place = self._new("second")
        as_crash_left_it(self.hub.directory, place, self._chance)
        second = Hub(self.federation, place, lambda: self.federation.now_ms, Told())
        try:
            self._diverge(second, victims)
            self._find_fork(victims)
            self._confront(victims)
        finally:
            second.close()
        self.happened["fork"] += 1

    # --- what must hold -------------------------------------------------------------------------

    def check(self) -> None:
        """The cheap invariants."""
        view = self.hub.sequencer.view
        for name, node in self.nodes.items():
            size = node.replica.size
            assert size <= view.size, f"{name} holds {size} entries of a log of {view.size}"
            assert node.replica.root() == self.hub.sequencer.root(size), f"{name} is no prefix"
        assert view.final_size >= self._final, "what was final is not"
        self._final = view.final_size

    def verify(self) -> None:
        """Bring everybody up to date, and check all that is promised."""
        for node in self.nodes.values():
            node.follow()
            with suppress(NotAdmitted):  # an entry by a key that was replaced
                node.author.resend()
        for node in self.nodes.values():
            node.follow()
            node.cosign()
        self._settle_thread()
        view = self.hub.sequencer.view
        leaves = self.hub.leaves(0, view.size)
        assert not (faults := faults_of(leaves, self.told.acknowledged)), faults
        for size, root in self.told.roots.items():
            assert self.hub.sequencer.root(size) == root, f"checkpoint {size} is not of this log"
        self._check_sayings(leaves)
        store = LogStore.open(f"sqlite:///{self.hub.directory / LEDGER}")
        try:
            fresh = Replica.open(store, self.federation.id)
        finally:
            store.close()
        digests = {digest(node.replica.state) for node in self.nodes.values()}
        assert digests == {digest(view.state)} == {digest(fresh.state)}, "states differ"
        for store in (self.hub.store, *(node.store for node in self.nodes.values())):
            kinds = {conflict.kind for conflict in store.conflicts()}
            assert not kinds, f"{kinds} is kept against somebody honest"

    # --- inside ---------------------------------------------------------------------------------

    def _do(self, name: str, work: Callable[[Node], None]) -> None:
        """Let a node work; whatever stops it, it goes on from its disk."""
        node = self.nodes[name]
        self.federation.now_ms += self._chance.randrange(1, 5000)
        try:
            work(node)
        except CoordinatorUnreachable:
            self.happened["lost call"] += 1
        except (NotAdmitted, UnknownKey):
            # Its keys were replaced, and it had not heard of that yet.
            key = node.author.key
            node.follow()
            assert node.author.key != key, "a node's good entry or cosignature was refused"
            self.happened["spoke with a replaced key"] += 1
        except Died:
            self.happened["died in a call"] += 1
            self.crash_node(name)
        except StoreUnusable:
            self.happened["died of its disk"] += 1
            self.crash_node(name)

    def _settle_thread(self) -> None:
        """Wait until the sequencer has done all that it was given."""
        with suppress(NotSequencing):
            self.hub.sequencer._inbox.call(lambda: None).result(PATIENCE_S)
            self.hub.sequencer._inbox.call(lambda: None).result(PATIENCE_S)

    def _check_sayings(self, leaves: list[bytes]) -> None:
        said: dict[str, list[str]] = {node.handle: [] for node in self.nodes.values()}
        for leaf in leaves:
            body = parse_leaf(leaf).body
            if isinstance(body.op, NodeResumed):
                said[body.author].append(body.op.nonce)
        for node in self.nodes.values():
            wanted = [node.nonce(number) for number in range(node.said)]
            assert said[node.handle] == wanted, f"{node.handle} did not say each thing once"

    def _expose_rollback(self, node: Node) -> None:
        """A member shows the checkpoint that it holds."""
        assert node.replica.checkpoint is not None
        try:
            self.hub.sequencer.examine(node.replica.checkpoint).result(PATIENCE_S)
        except RolledBack:
            self.happened["rollback shown by a member"] += 1
        else:
            raise AssertionError("a coordinator that was rolled back goes on")
        assert self.hub.sequencer.view.stopped is not None
        assert ROLLBACK in {conflict.kind for conflict in self.hub.store.conflicts()}

    def _diverge(self, second: Hub, victims: list[str]) -> None:
        """Both sides sign other entries at the same place, and everybody follows one of them."""
        for hub in (self.hub, second):
            self.federation.now_ms += 1000
            for _ in range(self._chance.randrange(1, 4)):
                hub.say(TimeNoted(type="time.noted"))
        for name, node in self.nodes.items():
            if name in victims:
                node.hub = second
            node.follow()
            node.cosign()

    def _find_fork(self, victims: list[str]) -> None:
        """Nodes that meet compare; of two sides the one that holds more finds it, with evidence."""
        for one, other in itertools.combinations(sorted(self.nodes), 2):
            less, more = sorted((self.nodes[one], self.nodes[other]), key=lambda n: n.replica.size)
            trusted = (more.replica.size, more.replica.root(), more.replica.final)
            try:
                more.compare(less)
                found = False
            except ForkDetected:
                found = True
            assert found == ((one in victims) != (other in victims)), f"{one} and {other}"
            assert (more.replica.size, more.replica.root(), more.replica.final) == trusted
            if found:
                kept = [c for c in more.store.conflicts() if c.kind == FORK]
                assert kept, "a fork was found, and no evidence kept"
                for conflict in kept:
                    judge_fork(read_fork(*split(conflict.evidence)), more.replica.log_key)

    def _confront(self, victims: list[str]) -> None:
        """Who was shown the other side does not come back by itself; the true side is told."""
        for name in victims:
            node = self.nodes[name]
            node.hub = self.hub
            trusted = (node.replica.size, node.replica.root(), node.replica.final)
            try:
                node.follow()
            except (ForkDetected, NotConsistent, NotAdmitted):
                assert (node.replica.size, node.replica.root(), node.replica.final) == trusted
            else:
                raise AssertionError(f"{name} went over to another history")
        note = self.nodes[victims[0]].replica.checkpoint
        assert note is not None
        try:
            self.hub.sequencer.examine(note).result(PATIENCE_S)
        except (RolledBack, NotConsistent):
            assert self.hub.sequencer.view.stopped is not None
        else:
            raise AssertionError("the true side took the other side's checkpoint")

    def _new(self, name: str) -> Path:
        return self._root / f"{name}-{next(self._numbers)}"
